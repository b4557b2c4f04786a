//! The alarms about the pipeline itself.

use super::Context;
use super::report::{Check, Problems};
use crate::cloud::cloudwatch::{self, Alarm};
use crate::cloud::refusal::Refusal;

const CHECK: &str = "alarms";

/// None is ringing, and somebody would hear it.
pub async fn check(context: &Context) -> Check {
    Check::answered(CHECK, ask(context).await)
}

async fn ask(context: &Context) -> Result<Check, Refusal> {
    let all = cloudwatch::alarms(&context.session, &context.named("")).await?;
    let mut problems = Problems::default();
    if all.is_empty() {
        problems.fail("there are no alarms");
    }
    for alarm in &all {
        let name = &alarm.alarm_name;
        if alarm.state_value == "ALARM" {
            problems.fail(format!("{name} rings{}", runbook(alarm)));
        } else if !alarm.actions_enabled {
            problems.warn(format!("{name} tells nobody: its actions are disabled"));
        }
    }
    Ok(problems.into_check(CHECK, format!("none of {} rings", all.len()), "read the runbook: docs/runbooks"))
}

/// The page that the alarm's description names.
fn runbook(alarm: &Alarm) -> String {
    let described = alarm.alarm_description.split_once("Runbook: ");
    described.map(|(_, page)| format!(" ({})", page.trim())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::report::Status;
    use super::super::tests_support::{answering, denied, json};
    use super::*;

    fn alarms(states: &[(&str, bool)]) -> Value {
        let alarm = |(state, enabled): &(&str, bool)| {
            json!({"AlarmName": "security-pipeline-x", "StateValue": state, "ActionsEnabled": enabled,
                   "AlarmDescription": "It is. Runbook: docs/runbooks/x.md"})
        };
        json!({"MetricAlarms": states.iter().map(alarm).collect::<Vec<_>>()})
    }

    #[tokio::test]
    async fn alarms_ring_or_not() {
        for (states, status, said) in [
            (vec![("OK", true), ("INSUFFICIENT_DATA", true)], Status::Ok, "none of 2"),
            (vec![("OK", true), ("ALARM", true)], Status::Failed, "rings (docs/runbooks/x.md)"),
            (vec![("OK", false)], Status::Warning, "tells nobody"),
            (vec![], Status::Failed, "no alarms"),
        ] {
            let (context, _server) = answering([json(&alarms(&states))]);
            let check = check(&context).await;
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.said.contains(said), "{said}: {check:?}");
        }
        let (context, _server) = answering([denied()]);
        let check = check(&context).await;
        assert!(check.status == Status::Skipped && check.said.contains("cloudwatch:DescribeAlarms"), "{check:?}");
    }

    #[tokio::test]
    async fn every_page_is_asked_for() {
        let mut first = alarms(&[("OK", true)]);
        first["NextToken"] = "more".into();
        let (context, server) = answering([json(&first), json(&alarms(&[("ALARM", true)]))]);
        assert_eq!(check(&context).await.status, Status::Failed);
        let asked: Vec<Value> =
            server.requests().iter().map(|body| serde_json::from_str(body).expect("JSON")).collect();
        assert_eq!(
            (&asked[0]["AlarmNamePrefix"], &asked[1]["NextToken"]),
            (&json!("security-pipeline-"), &json!("more"))
        );
    }
}
