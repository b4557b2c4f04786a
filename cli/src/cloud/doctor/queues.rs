//! The queues between the components and their dead-letter queues.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use serde::Deserialize;
use serde_json::json;

use super::report::{Check, Problems, Status};
use super::{COMPONENTS, Context};
use crate::cloud::dead_letters;
use crate::cloud::refusal::{Kind, Refusal};

const CHECK: &str = "queues";
const DEAD: &str = "dead letters";
/// Fewer receives wear a message out while functions are only throttled (the Lambda guide's least).
const RECEIVES_MIN: u32 = 5;
/// A function may take 50 seconds; the Lambda guide asks for six times that.
const VISIBILITY_S_MIN: u32 = 300;

/// What a queue says about its dead letters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
    #[serde(deserialize_with = "number_or_text")]
    max_receive_count: u32,
}

fn number_or_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NumberOrText {
        Number(u32),
        Text(String),
    }
    match NumberOrText::deserialize(from)? {
        NumberOrText::Number(number) => Ok(number),
        NumberOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Every queue keeps what fails in its own dead-letter queue, and not too soon.
pub async fn check(context: &Context) -> Check {
    Check::answered(CHECK, ask(context).await)
}

async fn ask(context: &Context) -> Result<Check, Refusal> {
    let client = Client::new(context.session.config());
    let mut problems = Problems::default();
    for component in COMPONENTS {
        let name = context.named(component);
        let url = match Box::pin(client.get_queue_url().queue_name(&name).send()).await {
            Ok(answer) => answer.queue_url.unwrap_or_default(),
            Err(error) => match Refusal::of("sqs:GetQueueUrl", &error) {
                Refusal { kind: Kind::Missing, .. } => {
                    problems.fail(format!("there is no queue {name}"));
                    continue;
                }
                refusal => return Err(refusal),
            },
        };
        let call = client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("sqs:GetQueueAttributes", &e))?;
        let attributes = answer.attributes.unwrap_or_default();
        let policy = attributes.get(&QueueAttributeName::RedrivePolicy);
        match policy.and_then(|policy| serde_json::from_str::<RedrivePolicy>(policy).ok()) {
            None => problems.fail(format!("{name} has no dead-letter queue: what fails is tried until it expires")),
            Some(policy) if policy.dead_letter_target_arn.rsplit(':').next() != Some(&*format!("{name}-dlq")) => {
                problems.warn(format!("dead letters of {name} go to {}", policy.dead_letter_target_arn));
            }
            Some(policy) if policy.max_receive_count < RECEIVES_MIN => {
                let n = policy.max_receive_count;
                problems.warn(format!("{name} gives up after {n} receives, and a throttle counts as one"));
            }
            Some(_) => {}
        }
        let visibility_s = attributes.get(&QueueAttributeName::VisibilityTimeout).and_then(|s| s.parse::<u32>().ok());
        if let Some(visibility_s) = visibility_s.filter(|s| *s < VISIBILITY_S_MIN) {
            problems.warn(format!("messages of {name} come back after {visibility_s} s, while they may be in work"));
        }
    }
    let todo = "missing: deploy the component; changed: aws sqs set-queue-attributes --queue-url URL --attributes FILE, as \
                docs/runbooks/undelivered-events.md shows. A deployment does not see what was changed beside it";
    Ok(problems.into_check(CHECK, "each keeps what fails in its dead-letter queue", todo))
}

/// Nothing waits in a dead-letter queue.
pub async fn dead_letters(context: &Context) -> Check {
    Check::answered(DEAD, count(context).await)
}

async fn count(context: &Context) -> Result<Check, Refusal> {
    let queues = dead_letters::open(&context.session, None).await?;
    let counts: Vec<(&str, u64)> = queues.iter().map(|q| (q.kept.label, q.waiting + q.in_flight)).collect();
    let figures = json!(counts.iter().copied().collect::<std::collections::BTreeMap<_, _>>());
    let full: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(label, n)| format!("{label} {n}")).collect();
    Ok(if queues.is_empty() {
        Check::new(DEAD, Status::Failed, "there is no dead-letter queue", "deploy the components")
    } else if full.is_empty() {
        Check::ok(DEAD, "none").with(figures)
    } else {
        let todo = "`pipeline dlq list --aws` says why, then docs/runbooks/dlq-depth.md";
        Check::new(DEAD, Status::Warning, full.join(", "), todo).with(figures)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::adapters::loopback::Answer;

    use super::super::tests_support::{answering, denied, json};
    use super::*;

    fn four(of: impl Fn(&str) -> Value) -> Vec<Answer> {
        let answers =
            |component: &&str| [json(&json!({"QueueUrl": "http://q"})), json(&json!({"Attributes": of(component)}))];
        COMPONENTS.iter().flat_map(answers).collect()
    }

    fn policy(target: &str, receives: u32) -> String {
        let arn = format!("arn:aws:sqs:eu-central-1:123456789012:{target}");
        json!({"deadLetterTargetArn": arn, "maxReceiveCount": receives}).to_string()
    }

    #[tokio::test]
    async fn queues_keep_what_fails_or_not() {
        let own = |c: &str| policy(&format!("security-pipeline-{c}-dlq"), 5);
        for (answers, status, said) in [
            (four(|c| json!({"RedrivePolicy": own(c), "VisibilityTimeout": "300"})), Status::Ok, "each keeps"),
            (four(|_| json!({})), Status::Failed, "has no dead-letter queue"),
            (four(|_| json!({"RedrivePolicy": policy("other", 5)})), Status::Warning, "go to"),
            (four(|c| json!({"RedrivePolicy": own(c).replace(":5", ":2")})), Status::Warning, "after 2 receives"),
            (four(|c| json!({"RedrivePolicy": own(c), "VisibilityTimeout": "30"})), Status::Warning, "after 30 s"),
            (vec![denied()], Status::Skipped, "sqs:GetQueueUrl"),
        ] {
            let (context, _server) = answering(answers);
            let check = check(&context).await;
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.said.contains(said), "{said}: {check:?}");
        }
    }

    #[tokio::test]
    async fn dead_letters_are_counted_by_queue() {
        let missing = || Answer::json("400 Bad Request", &json!({"__type": "QueueDoesNotExist", "message": "no"}));
        for (number, status) in [("0", Status::Ok), ("3", Status::Warning)] {
            let found = [
                json(&json!({"QueueUrl": "http://q"})),
                json(&json!({"Attributes": {"ApproximateNumberOfMessages": number}})),
            ];
            let (context, _server) = answering(found.into_iter().chain((0..5).map(|_| missing())));
            let check = dead_letters(&context).await;
            assert_eq!(check.status, status, "{check:?}");
            assert_eq!(check.figures, json!({"classifier": number.parse::<u64>().expect("a number")}));
        }
    }
}
