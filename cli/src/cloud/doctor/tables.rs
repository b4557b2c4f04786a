//! The foundation: without its tables nothing works.

use shared::adapters::aws::DynamoClient;

use super::Context;
use super::report::{Check, Problems};
use crate::cloud::refusal::{Kind, Refusal};

const CHECK: &str = "tables";

/// Both tables are there and active.
pub async fn check(context: &Context) -> Check {
    Check::answered(CHECK, ask(context).await)
}

async fn ask(context: &Context) -> Result<Check, Refusal> {
    let client = DynamoClient::new(context.session.config());
    let mut problems = Problems::default();
    for what in ["state", "incidents"] {
        let name = context.named(what);
        match Box::pin(client.describe_table().table_name(&name).send()).await {
            Ok(answer) => {
                let status = answer.table.and_then(|table| table.table_status);
                let status = status.map_or_else(|| "in no state".to_owned(), |status| status.as_str().to_owned());
                if status != "ACTIVE" {
                    problems.fail(format!("{name} is {status}"));
                }
            }
            Err(error) => match Refusal::of("dynamodb:DescribeTable", &error) {
                Refusal { kind: Kind::Missing, .. } => problems.fail(format!("there is no table {name}")),
                refusal => return Err(refusal),
            },
        }
    }
    Ok(problems.into_check(
        CHECK,
        "both are active",
        "deploy `foundation`, or name the deployment with --name and --region",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::adapters::loopback::Answer;

    use super::super::report::Status;
    use super::super::tests_support::{answering, denied, json};
    use super::*;

    #[tokio::test]
    async fn tables_are_active_or_not_there() {
        let active = || json(&json!({"Table": {"TableStatus": "ACTIVE"}}));
        let missing = Answer::json("400 Bad Request", &json!({"__type": "ResourceNotFoundException", "message": "no"}));
        for (answers, status) in [
            (vec![active(), active()], Status::Ok),
            (vec![active(), missing], Status::Failed),
            (vec![json(&json!({"Table": {"TableStatus": "DELETING"}})), active()], Status::Failed),
            (vec![denied()], Status::Skipped),
        ] {
            let (context, _server) = answering(answers);
            let check = check(&context).await;
            assert_eq!(check.status, status, "{check:?}");
        }
    }
}
