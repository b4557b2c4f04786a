//! Who is told: a subscription counts once somebody has followed the link in SNS's mail.

use aws_sdk_sns::Client;

use super::Context;
use super::report::{Check, Problems};
use crate::cloud::refusal::{Kind, Refusal};

const CHECK: &str = "subscriptions";

/// Both topics have somebody.
pub async fn check(context: &Context) -> Check {
    Check::answered(CHECK, ask(context).await)
}

async fn ask(context: &Context) -> Result<Check, Refusal> {
    let client = Client::new(context.session.config());
    let mut problems = Problems::default();
    let mut confirmed_all = 0;
    for topic in ["alerts", "alarms"] {
        let (mut confirmed, mut pending) = (0, 0);
        let mut token = None;
        loop {
            let call = client.list_subscriptions_by_topic().topic_arn(context.arn("sns", &context.named(topic)));
            let answer = match Box::pin(call.set_next_token(token).send()).await {
                Ok(answer) => answer,
                Err(error) => match Refusal::of("sns:ListSubscriptionsByTopic", &error) {
                    Refusal { kind: Kind::Missing, .. } => {
                        problems.fail(format!("there is no topic {}", context.named(topic)));
                        break;
                    }
                    refusal => return Err(refusal),
                },
            };
            for subscription in answer.subscriptions.unwrap_or_default() {
                match subscription.subscription_arn.as_deref() {
                    Some("PendingConfirmation") => pending += 1,
                    Some("Deleted") | None => {}
                    Some(_) => confirmed += 1,
                }
            }
            token = answer.next_token;
            if token.is_none() {
                break;
            }
        }
        confirmed_all += confirmed;
        let waiting = if pending == 0 { String::new() } else { format!(", {pending} wait for a confirmation") };
        match (confirmed, topic) {
            (0, "alerts") => problems.fail(format!("nobody is told of findings{waiting}")),
            (0, _) => problems.warn(format!("nobody is told when the pipeline is ill{waiting}")),
            _ if pending > 0 => problems.warn(format!("{topic}{waiting}")),
            _ => {}
        }
    }
    let todo = "follow the link in the mail of SNS, or subscribe: deploy/README.md, \"Subscribe\"";
    Ok(problems.into_check(CHECK, format!("{confirmed_all} confirmed"), todo))
}

#[cfg(test)]
mod tests {
    use shared::adapters::loopback::Answer;

    use super::super::report::Status;
    use super::super::tests_support::{answering, denied_xml};
    use super::*;

    fn subscriptions(arns: &[&str]) -> Answer {
        let members: String = arns
            .iter()
            .map(|arn| format!("<member><SubscriptionArn>{arn}</SubscriptionArn><Protocol>email</Protocol></member>"))
            .collect();
        Answer::xml(
            "200 OK",
            format!(
                "<ListSubscriptionsByTopicResponse><ListSubscriptionsByTopicResult><Subscriptions>{members}</Subscriptions>\
                 </ListSubscriptionsByTopicResult></ListSubscriptionsByTopicResponse>"
            ),
        )
    }

    #[tokio::test]
    async fn somebody_has_confirmed_or_not() {
        let arn = "arn:aws:sns:eu-central-1:123456789012:security-pipeline-alerts:1";
        for (alerts, alarms, status, said) in [
            (vec![arn], vec![arn], Status::Ok, "2 confirmed"),
            (vec!["PendingConfirmation"], vec![arn], Status::Failed, "nobody is told of findings, 1 wait"),
            (vec![], vec![arn], Status::Failed, "nobody is told of findings"),
            (vec![arn], vec!["Deleted"], Status::Warning, "when the pipeline is ill"),
            (vec![arn, "PendingConfirmation"], vec![arn], Status::Warning, "alerts, 1 wait"),
        ] {
            let (context, _server) = answering([subscriptions(&alerts), subscriptions(&alarms)]);
            let check = check(&context).await;
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.said.contains(said), "{said}: {check:?}");
        }
        let (context, _server) = answering([denied_xml()]);
        assert_eq!(check(&context).await.status, Status::Skipped);
    }
}
