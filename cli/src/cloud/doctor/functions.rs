//! The functions and what feeds them.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::types::{LastUpdateStatus, State};

use super::report::{Check, Problems};
use super::{COMPONENTS, Context};
use crate::cloud::refusal::{Kind, Refusal};

const CHECK: &str = "functions";

/// All four are there, in use, and fed from their queues.
pub async fn check(context: &Context) -> Check {
    Check::answered(CHECK, ask(context).await)
}

async fn ask(context: &Context) -> Result<Check, Refusal> {
    let client = Client::new(context.session.config());
    let mut problems = Problems::default();
    for component in COMPONENTS {
        let name = context.named(component);
        let answer = match Box::pin(client.get_function_configuration().function_name(&name).send()).await {
            Ok(answer) => answer,
            Err(error) => match Refusal::of("lambda:GetFunctionConfiguration", &error) {
                Refusal { kind: Kind::Missing, .. } => {
                    problems.fail(format!("there is no function {name}"));
                    continue;
                }
                refusal => return Err(refusal),
            },
        };
        // A function that nobody called for weeks is inactive until the next call.
        if let Some(state @ (State::Failed | State::Pending)) = &answer.state {
            problems.fail(format!("{name} is {}: {}", state.as_str(), answer.state_reason.unwrap_or_default()));
        }
        if answer.last_update_status == Some(LastUpdateStatus::Failed) {
            let why = answer.last_update_status_reason.unwrap_or_default();
            problems.warn(format!("the last update of {name} failed: {why}"));
        }
        mappings(&client, &name, &mut problems).await?;
    }
    Ok(problems.into_check(
        CHECK,
        "four, each fed from its queue",
        "a disabled mapping: aws lambda list-event-source-mappings --function-name FUNCTION, then aws lambda \
         update-event-source-mapping --uuid UUID --enabled; what is missing or failed: deploy the component. A deployment does \
         not see what was changed beside it",
    ))
}

async fn mappings(client: &Client, name: &str, problems: &mut Problems) -> Result<(), Refusal> {
    let call = client.list_event_source_mappings().function_name(name);
    let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("lambda:ListEventSourceMappings", &e))?;
    let mappings = answer.event_source_mappings.unwrap_or_default();
    if mappings.is_empty() {
        problems.fail(format!("nothing feeds {name}: it has no event source mapping"));
    }
    for mapping in mappings {
        let state = mapping.state.unwrap_or_default();
        if !matches!(&*state, "Enabled" | "Enabling" | "Creating" | "Updating") {
            problems.fail(format!("the event source mapping of {name} is {state}"));
        }
        if let Some(result) = mapping.last_processing_result.filter(|result| result.starts_with("PROBLEM")) {
            problems.fail(format!("Lambda cannot feed {name}: {result}"));
        }
    }
    Ok(())
}

/// An environment variable of a function; `None` when it is empty, and when there is no such function, which the check of
/// the functions says.
pub async fn variable(context: &Context, component: &str, name: &str) -> Result<Option<String>, Refusal> {
    let client = Client::new(context.session.config());
    let call = client.get_function_configuration().function_name(context.named(component));
    let answer = match Box::pin(call.send()).await {
        Ok(answer) => answer,
        Err(error) => match Refusal::of("lambda:GetFunctionConfiguration", &error) {
            Refusal { kind: Kind::Missing, .. } => return Ok(None),
            refusal => return Err(refusal),
        },
    };
    let variables = answer.environment.and_then(|environment| environment.variables).unwrap_or_default();
    Ok(variables.get(name).filter(|value| !value.is_empty()).cloned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::adapters::loopback::Answer;

    use super::super::report::Status;
    use super::super::tests_support::{answering, denied, json};
    use super::*;

    fn four(function: &Value, mapping: &Value) -> Vec<Answer> {
        (0..4).flat_map(|_| [json(function), json(&json!({"EventSourceMappings": mapping}))]).collect()
    }

    #[tokio::test]
    async fn functions_work_and_are_fed_or_not() {
        let active = json!({"State": "Active", "LastUpdateStatus": "Successful"});
        let enabled = json!([{"State": "Enabled", "LastProcessingResult": "OK"}]);
        let problem = json!([{"State": "Enabled", "LastProcessingResult": "PROBLEM: Function call failed"}]);
        for (answers, status, said) in [
            (four(&active, &enabled), Status::Ok, "four"),
            (four(&json!({"State": "Inactive"}), &enabled), Status::Ok, "four"),
            (four(&json!({"State": "Failed"}), &enabled), Status::Failed, "is Failed"),
            (four(&json!({"LastUpdateStatus": "Failed"}), &enabled), Status::Warning, "the last update"),
            (four(&active, &json!([{"State": "Disabled"}])), Status::Failed, "is Disabled"),
            (four(&active, &json!([])), Status::Failed, "nothing feeds"),
            (four(&active, &problem), Status::Failed, "cannot feed"),
            (vec![denied()], Status::Skipped, "lambda:GetFunctionConfiguration"),
        ] {
            let (context, _server) = answering(answers);
            let check = check(&context).await;
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.said.contains(said), "{said}: {check:?}");
        }
    }
}
