//! Do the functions' roles still allow what their templates grant? IAM is asked, which also knows boundaries and the
//! policies of the organization; what a queue, key or bucket itself denies only the canary shows.

use std::collections::BTreeMap;

use aws_sdk_iam::Client;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};
use serde::Deserialize;

use super::functions::variable;
use super::report::{Check, Problems};
use super::{Context, events};
use crate::cloud::refusal::{Kind, Refusal};

const CHECK: &str = "permissions";
/// Written by `cargo xtask gen` from the templates.
const GRANTED: &str = include_str!("../../../../deploy/generated/function-permissions.json");

/// The same, of what carries responses out.
const RESPONSES: &str = include_str!("../../../../deploy/generated/response-policy.json");

/// What a statement of a role allows.
#[derive(Debug, Deserialize)]
struct Statement {
    actions: Vec<String>,
    resources: Vec<String>,
    /// Patterns of the hash keys that it is for.
    #[serde(default)]
    leading_keys: Vec<String>,
}

/// Every role may do what its function does.
pub async fn check(context: &Context) -> Check {
    Check::answered(CHECK, ask(context).await)
}

async fn ask(context: &Context) -> Result<Check, Refusal> {
    let mut granted: BTreeMap<String, Vec<Statement>> =
        serde_json::from_str(GRANTED).expect("a generated file, which a test reads");
    for (component, statements) in asked_for(context).await? {
        granted.entry(component.to_owned()).or_default().extend(statements);
    }
    let client = Client::new(context.session.config());
    let mut problems = Problems::default();
    let mut asked = 0;
    for (component, statements) in granted {
        let role = context.named(&component);
        let arn = format!("arn:{}:iam::{}:role/{role}", context.partition, context.account);
        for Statement { actions, resources, leading_keys } in statements {
            asked += actions.len() * resources.len();
            let resources: Vec<String> = resources.iter().map(|resource| filled(resource, context)).collect();
            match denied(&client, &arn, actions, resources, leading_keys).await {
                Ok(denied) => denied.into_iter().for_each(|what| problems.fail(format!("{role} may not {what}"))),
                Err(Refusal { kind: Kind::Missing, .. }) => {
                    problems.fail(format!("there is no role {role}"));
                    break;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }
    let todo = "give back what was taken from the role's policy, as in the component's template (a deployment does not see what \
                was changed beside it); a boundary or a policy of the organization is not in its hands";
    Ok(problems.into_check(CHECK, format!("the four roles allow all {asked} that their functions need"), todo))
}

/// What else this deployment needs, as its functions' settings and its rules say: responses, uploads, log files, the log
/// group that alarms lead into. Not known here: the bucket of files that settings name, and keys.
async fn asked_for(context: &Context) -> Result<Vec<(&'static str, Vec<Statement>)>, Refusal> {
    let statement = |actions: &[&str], resource: String| Statement {
        actions: actions.iter().map(|&action| action.to_owned()).collect(),
        resources: vec![resource],
        leading_keys: Vec::new(),
    };
    let mut more = Vec::new();
    if variable(context, "responder", "RESPONSES").await?.is_some_and(|value| value == "carry-out") {
        more.push(("responder", responses()));
    }
    if let Some(bucket) = variable(context, "classifier", "UPLOAD_BUCKET").await? {
        let bucket = format!("arn:{}:s3:::{bucket}", context.partition);
        let objects = statement(&["s3:GetObject", "s3:GetObjectVersion"], format!("{bucket}/*"));
        more.push(("classifier", vec![objects, statement(&["s3:ListBucket"], bucket)]));
    }
    if let Some(bucket) = events::log_file_bucket(context).await? {
        let bucket = format!("arn:{}:s3:::{bucket}", context.partition);
        let files = ["CloudTrail", "CloudWatchLogs"]
            .map(|folder| statement(&["s3:GetObject"], format!("{bucket}/*/{folder}/*")));
        more.push(("classifier", files.into_iter().chain([statement(&["s3:ListBucket"], bucket)]).collect()));
    }
    if let Some(group) = variable(context, "classifier", "ALARM_LOG_GROUP").await? {
        let groups = context.arn("logs", "log-group");
        let query = statement(&["logs:StartQuery"], format!("{groups}:{group}:*"));
        more.push(("classifier", vec![query, statement(&["logs:GetQueryResults"], format!("{groups}:*"))]));
    }
    Ok(more)
}

/// The statements of the policy that carries responses out.
fn responses() -> Vec<Statement> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Policy {
        statement: Vec<Allowed>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Allowed {
        action: Vec<String>,
        resource: Resource,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Resource {
        Any(String),
        Named {
            #[serde(rename = "Fn::Sub")]
            text: String,
        },
    }
    let policy: Policy = serde_json::from_str(RESPONSES).expect("a generated file, which a test reads");
    let statement = |Allowed { action, resource }| Statement {
        actions: action,
        resources: vec![match resource {
            Resource::Any(text) | Resource::Named { text } => text,
        }],
        leading_keys: Vec::new(),
    };
    policy.statement.into_iter().map(statement).collect()
}

/// Which of the actions the role may not do. A pattern of keys stands for a key that it fits.
async fn denied(
    client: &Client,
    role: &str,
    actions: Vec<String>,
    resources: Vec<String>,
    leading_keys: Vec<String>,
) -> Result<Vec<String>, Refusal> {
    let keys = ContextEntry::builder()
        .context_key_name("dynamodb:LeadingKeys")
        .context_key_type(ContextKeyTypeEnum::StringList)
        .set_context_key_values(Some(leading_keys.clone()))
        .build();
    let call = client
        .simulate_principal_policy()
        .policy_source_arn(role)
        .set_action_names(Some(actions))
        .set_resource_arns(Some(resources))
        .set_context_entries((!leading_keys.is_empty()).then(|| vec![keys]));
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
    use serde_json::{Value, json};
    use shared::adapters::loopback::Answer;

    use super::super::report::Status;
    use super::super::tests_support::{answering, denied_xml, json as answer};
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
        assert!(granted["classifier"].iter().any(|statement| statement.leading_keys == ["state/*"]));
        assert!(filled.contains(&"arn:aws:sns:eu-central-1:123456789012:security-pipeline-alerts".to_owned()));
    }

    /// What Lambda says of the responder and twice of the classifier, and in between EventBridge of the rule for log files.
    fn settings(variables: &Value, log_files: Answer) -> Vec<Answer> {
        let function = || answer(&json!({"Environment": {"Variables": variables}}));
        vec![function(), function(), log_files, function()]
    }

    fn no_rule() -> Answer {
        Answer::json("400 Bad Request", &json!({"__type": "ResourceNotFoundException"}))
    }

    #[tokio::test]
    async fn what_a_deployment_was_asked_for_is_asked_too() {
        let plain = settings(&json!({"RESPONSES": "plan", "UPLOAD_BUCKET": ""}), no_rule());
        let pattern = json!({"source": ["aws.s3"], "detail": {"bucket": {"name": ["trail"]}}});
        let all = settings(
            &json!({"RESPONSES": "carry-out", "UPLOAD_BUCKET": "inbox", "ALARM_LOG_GROUP": "trail-logs"}),
            answer(&json!({"EventPattern": pattern.to_string()})),
        );
        let mut requests = Vec::new();
        for settings in [plain, all] {
            let answers = settings.into_iter().chain((0..100).map(|_| evaluated("allowed")));
            let (context, server) = answering(answers);
            assert_eq!(check(&context).await.status, Status::Ok);
            requests.push(server.requests().join("\n"));
        }
        for call in [
            "iam%3AUpdateAccessKey",
            "ec2%3ARevokeSecurityGroupIngress",
            "s3%3AGetObjectVersion",
            "s3%3A%3A%3Atrail%2F%2A%2FCloudTrail%2F%2A",
            "s3%3A%3A%3Atrail%2F%2A%2FCloudWatchLogs%2F%2A",
            "logs%3AStartQuery",
        ] {
            assert!(!requests[0].contains(call) && requests[1].contains(call), "{call}: {requests:?}");
        }
        assert!(requests[0].contains("dynamodb%3ALeadingKeys"), "{requests:?}");
    }

    #[tokio::test]
    async fn roles_may_or_may_not() {
        for (decision, status) in
            [("allowed", Status::Ok), ("implicitDeny", Status::Failed), ("explicitDeny", Status::Failed)]
        {
            let (context, _server) =
                answering(settings(&json!({}), no_rule()).into_iter().chain((0..100).map(|_| evaluated(decision))));
            let check = check(&context).await;
            assert_eq!(check.status, status, "{check:?}");
        }
        let (context, _server) = answering(settings(&json!({}), no_rule()).into_iter().chain([denied_xml()]));
        let check = check(&context).await;
        assert!(check.status == Status::Skipped && check.said.contains("iam:SimulatePrincipalPolicy"), "{check:?}");
    }
}
