//! Do the functions' roles still allow what their templates grant? IAM is asked, which also knows boundaries and the
//! policies of the organization; what a queue, key or bucket itself denies only the canary shows.

use std::collections::BTreeMap;

use aws_sdk_iam::Client;
use aws_sdk_iam::types::PolicyEvaluationDecisionType;
use serde::Deserialize;

use super::Context;
use super::report::{Check, Problems};
use crate::cloud::refusal::{Kind, Refusal};

const CHECK: &str = "permissions";
/// Written by `cargo xtask gen` from the templates.
const GRANTED: &str = include_str!("../../../../deploy/generated/function-permissions.json");

/// What a statement of a role allows.
#[derive(Debug, Deserialize)]
struct Statement {
    actions: Vec<String>,
    resources: Vec<String>,
}

/// Every role may do what its function does.
pub async fn check(context: &Context) -> Check {
    Check::answered(CHECK, ask(context).await)
}

async fn ask(context: &Context) -> Result<Check, Refusal> {
    let granted: BTreeMap<String, Vec<Statement>> =
        serde_json::from_str(GRANTED).expect("a generated file, which a test reads");
    let client = Client::new(context.session.config());
    let mut problems = Problems::default();
    let mut asked = 0;
    for (component, statements) in granted {
        let role = context.named(&component);
        let arn = format!("arn:{}:iam::{}:role/{role}", context.partition, context.account);
        for Statement { actions, resources } in statements {
            asked += actions.len() * resources.len();
            let resources: Vec<String> = resources.iter().map(|resource| filled(resource, context)).collect();
            match denied(&client, &arn, actions, resources).await {
                Ok(denied) => denied.into_iter().for_each(|what| problems.fail(format!("{role} may not {what}"))),
                Err(Refusal { kind: Kind::Missing, .. }) => {
                    problems.fail(format!("there is no role {role}"));
                    break;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }
    let todo = "deploy the component again; a boundary or a policy of the organization is not in its hands";
    Ok(problems.into_check(CHECK, format!("the four roles allow all {asked} that their functions need"), todo))
}

/// Which of the actions the role may not do.
async fn denied(
    client: &Client,
    role: &str,
    actions: Vec<String>,
    resources: Vec<String>,
) -> Result<Vec<String>, Refusal> {
    let call = client
        .simulate_principal_policy()
        .policy_source_arn(role)
        .set_action_names(Some(actions))
        .set_resource_arns(Some(resources));
    let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("iam:SimulatePrincipalPolicy", &e))?;
    let results = answer.evaluation_results.unwrap_or_default();
    let refused = results.into_iter().filter(|result| result.eval_decision != PolicyEvaluationDecisionType::Allowed);
    Ok(refused
        .map(|result| format!("{} on {}", result.eval_action_name, result.eval_resource_name.unwrap_or_default()))
        .collect())
}

fn filled(resource: &str, context: &Context) -> String {
    resource
        .replace("${Name}", &context.session.name)
        .replace("${AWS::Partition}", &context.partition)
        .replace("${AWS::Region}", &context.session.region)
        .replace("${AWS::AccountId}", &context.account)
}

#[cfg(test)]
mod tests {
    use shared::adapters::loopback::Answer;

    use super::super::report::Status;
    use super::super::tests_support::{answering, denied_xml};
    use super::*;

    fn evaluated(decision: &str) -> Answer {
        Answer::xml(
            "200 OK",
            format!(
                "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>\
                 <EvaluationResults><member><EvalActionName>sqs:SendMessage</EvalActionName><EvalResourceName>q</EvalResourceName>\
                 <EvalDecision>{decision}</EvalDecision></member></EvaluationResults></SimulatePrincipalPolicyResult>\
                 </SimulatePrincipalPolicyResponse>"
            ),
        )
    }

    #[test]
    fn the_generated_file_has_every_component_and_every_placeholder_is_filled() {
        let granted: BTreeMap<String, Vec<Statement>> = serde_json::from_str(GRANTED).expect("JSON");
        let (context, _server) = answering([]);
        for component in super::super::COMPONENTS {
            assert!(granted[component].len() > 4, "{component}");
        }
        let resources = granted.values().flatten().flat_map(|statement| &statement.resources);
        let filled: Vec<String> = resources.map(|resource| filled(resource, &context)).collect();
        assert!(filled.iter().all(|resource| !resource.contains('$')), "{filled:?}");
        assert!(filled.contains(&"arn:aws:sns:eu-central-1:123456789012:security-pipeline-alerts".to_owned()));
    }

    #[tokio::test]
    async fn roles_may_or_may_not() {
        for (decision, status) in
            [("allowed", Status::Ok), ("implicitDeny", Status::Failed), ("explicitDeny", Status::Failed)]
        {
            let (context, _server) = answering((0..100).map(|_| evaluated(decision)));
            let check = check(&context).await;
            assert_eq!(check.status, status, "{check:?}");
        }
        let (context, _server) = answering([denied_xml()]);
        let check = check(&context).await;
        assert!(check.status == Status::Skipped && check.said.contains("iam:SimulatePrincipalPolicy"), "{check:?}");
    }
}
