//! The EventBridge rules, here and where forwarders are. What they should be is generated from the classifiers, as the
//! templates are: this binary's classifiers, so a deployment of another version differs.

use std::collections::{BTreeMap, BTreeSet};

use aws_classifier::patterns::{self, EventRule, RuleState};
use aws_sdk_eventbridge::Client;
use serde_json::{Value, json};

use super::Context;
use super::functions::variable;
use super::report::{Check, Problems};
use crate::cloud::refusal::{Kind, Refusal};

const RULES: &str = "rules";
const FORWARDER: &str = "forwarder";

/// The ends of the names of the rules for objects.
const LOG_FILES: &str = "log-files";
const UPLOADS: &str = "uploads";

/// A rule as it is deployed.
#[derive(Clone, Debug, PartialEq)]
struct Deployed {
    state: String,
    pattern: Value,
}

/// The rules of a bus by name, and those of them that send to a target.
#[derive(Clone, Debug, Default)]
struct Bus {
    rules: BTreeMap<String, Deployed>,
    /// `None` when the endpoint does not say.
    sending: Option<BTreeSet<String>>,
}

/// Every rule of the deployment is there, enabled as it should be, and sends to the classifier's queue.
pub async fn rules(context: &Context) -> Check {
    Check::answered(RULES, ask_rules(context).await)
}

async fn ask_rules(context: &Context) -> Result<Check, Refusal> {
    let queue = context.arn("sqs", &context.named("classifier"));
    let client = Client::new(context.session.config());
    let mut problems = Problems::default();
    let expected = patterns::own_event_rules();
    let found = bus(&client, context, None, &queue).await?;
    judge(&expected, context, &found, &mut problems);
    let uploads = variable(context, "classifier", "UPLOAD_BUCKET").await?;
    judge_objects(context, &found, uploads.is_some(), &mut problems);
    let forwarded = context.named("forwarded");
    match bus(&client, context, Some(&context.session.name), &queue).await {
        Ok(central) => judge_forwarded(&forwarded, &central, &mut problems),
        Err(Refusal { kind: Kind::Missing, .. }) => {
            problems.fail(format!("there is no central bus {}", context.session.name));
        }
        Err(refusal) => return Err(refusal),
    }
    let well = format!("{} are enabled and send to the classifier", expected.len());
    Ok(problems.into_check(
        RULES,
        well,
        "aws events enable-rule --name RULE; a target: aws events put-targets --rule RULE --targets \
         Id=classifier-queue,Arn=QUEUE_ARN (docs/runbooks/silent.md); missing: deploy `rules`. A deployment does not see what \
         was changed beside it. Who did is in CloudTrail (DisableRule, PutRule, RemoveTargets)",
    ))
}

/// What the rule of the central bus selects, as `deploy/rules/template.yaml` says.
fn forwarded_pattern() -> Value {
    json!({"source": [{"prefix": "aws."}]})
}

fn judge_forwarded(name: &str, central: &Bus, problems: &mut Problems) {
    let Some(Deployed { state, pattern }) = central.rules.get(name) else {
        return problems.fail(format!("there is no rule {name} on the central bus"));
    };
    if state == "DISABLED" {
        problems.fail(format!("{name} on the central bus is disabled"));
    } else if state == "ENABLED" {
        problems.warn(format!("{name} on the central bus is ENABLED only, so read-only calls do not come"));
    }
    if *pattern != forwarded_pattern() {
        problems.fail(format!("{name} on the central bus selects something else than what is forwarded"));
    }
    if central.sending.as_ref().is_some_and(|sending| !sending.contains(name)) {
        problems.fail(format!("{name} on the central bus does not send to the classifier's queue"));
    }
}

/// The bucket whose log files the deployment reads; `None` when it reads none.
pub async fn log_file_bucket(context: &Context) -> Result<Option<String>, Refusal> {
    let call = Client::new(context.session.config()).describe_rule().name(context.named(LOG_FILES));
    let answer = match Box::pin(call.send()).await {
        Ok(answer) => answer,
        Err(error) => match Refusal::of("events:DescribeRule", &error) {
            Refusal { kind: Kind::Missing, .. } => return Ok(None),
            refusal => return Err(refusal),
        },
    };
    let pattern: Value = answer.event_pattern.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    Ok(pattern["detail"]["bucket"]["name"][0].as_str().map(str::to_owned))
}

/// The rules for log files and uploads, which are there when a bucket is configured. That of log files only its rule knows.
fn judge_objects(context: &Context, found: &Bus, inspects_uploads: bool, problems: &mut Problems) {
    for (suffix, is_wanted) in [(LOG_FILES, false), (UPLOADS, inspects_uploads)] {
        let name = context.named(suffix);
        let Some(Deployed { state, pattern }) = found.rules.get(&name) else {
            if is_wanted {
                problems.fail(format!("{name} is missing, though the classifier is to inspect uploads"));
            }
            continue;
        };
        if state == "DISABLED" {
            problems.fail(format!("{name} is disabled"));
        } else if found.sending.as_ref().is_some_and(|sending| !sending.contains(&name)) {
            problems.fail(format!("{name} is without the target that it is for"));
        }
        let selects_objects = pattern["source"] == json!(["aws.s3"])
            && pattern["detail-type"] == json!(["Object Created"])
            && pattern["detail"]["bucket"]["name"].as_array().is_some_and(|names| names.len() == 1);
        if !selects_objects {
            problems.fail(format!("{name} does not select the new objects of a bucket"));
        }
    }
}

/// The same where a forwarder is.
pub async fn forwarder(context: &Context, region: &str) -> Check {
    let answer = ask_forwarder(context, region).await;
    Check::answered(FORWARDER, answer.map_err(|r| Refusal { why: format!("{region}: {}", r.why), ..r }))
}

async fn ask_forwarder(context: &Context, region: &str) -> Result<Check, Refusal> {
    let target = context.arn("events", &format!("event-bus/{}", context.session.name));
    let there = context.in_region(region);
    let client = Client::new(there.session.config());
    let mut problems = Problems::default();
    let found = bus(&client, &there, None, &target).await?;
    let todo = "deploy the forwarder there: deploy/README.md, \"All regions\"";
    if found.rules.is_empty() {
        problems.fail(format!("there is none in {region}: what happens there is not seen"));
        return Ok(problems.into_check(FORWARDER, "", todo));
    }
    judge(&patterns::own_event_rules(), &there, &found, &mut problems);
    Ok(problems.into_check(FORWARDER, format!("{region} sends to the central bus"), todo))
}

async fn bus(client: &Client, context: &Context, name: Option<&str>, target: &str) -> Result<Bus, Refusal> {
    let mut rules = BTreeMap::new();
    let mut token = None;
    loop {
        let call = client.list_rules().name_prefix(format!("{}-", context.session.name));
        let call = call.set_event_bus_name(name.map(str::to_owned)).set_next_token(token);
        let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("events:ListRules", &e))?;
        for rule in answer.rules.unwrap_or_default() {
            let pattern = rule.event_pattern.as_deref().and_then(|text| serde_json::from_str(text).ok());
            let state = rule.state.map_or_else(String::new, |state| state.as_str().to_owned());
            let deployed = Deployed { state, pattern: pattern.unwrap_or_default() };
            rules.insert(rule.name.unwrap_or_default(), deployed);
        }
        token = answer.next_token;
        if token.is_none() {
            break;
        }
    }
    let mut sending = BTreeSet::new();
    loop {
        let call = client.list_rule_names_by_target().target_arn(target);
        let call = call.set_event_bus_name(name.map(str::to_owned)).set_next_token(token);
        let answer = match Box::pin(call.send()).await {
            Ok(answer) => answer,
            Err(error) => match Refusal::of("events:ListRuleNamesByTarget", &error) {
                Refusal { kind: Kind::Unknown, .. } => return Ok(Bus { rules, sending: None }),
                refusal => return Err(refusal),
            },
        };
        sending.extend(answer.rule_names.unwrap_or_default());
        token = answer.next_token;
        if token.is_none() {
            return Ok(Bus { rules, sending: Some(sending) });
        }
    }
}

/// Compares what is deployed with what should be.
fn judge(expected: &[EventRule], context: &Context, found: &Bus, problems: &mut Problems) {
    let (mut missing, mut disabled, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    let (mut without_reads, mut other) = (0, 0);
    for rule in expected.iter().filter(|rule| rule.state != RuleState::Disabled) {
        let name = context.named(&rule.name);
        let Some(deployed) = found.rules.get(&name) else {
            missing.push(name);
            continue;
        };
        if deployed.state == "DISABLED" {
            disabled.push(name);
            continue;
        }
        let wants_reads = rule.state == RuleState::EnabledWithAllCloudtrailManagementEvents;
        without_reads += u32::from(wants_reads && deployed.state == "ENABLED");
        other += u32::from(deployed.pattern != rule.pattern);
        if found.sending.as_ref().is_some_and(|sending| !sending.contains(&name)) {
            silent.push(name);
        }
    }
    let mut fail = |what: &str, names: Vec<String>| {
        if let [first, rest @ ..] = &names[..] {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            problems.fail(format!("{first}{more} {what}"));
        }
    };
    fail("missing", missing);
    fail("disabled", disabled);
    fail("without the target that it is for", silent);
    if without_reads > 0 {
        problems
            .warn(format!("{without_reads} rules for read-only calls are ENABLED only, so those calls do not come"));
    }
    if other > 0 {
        problems.warn(format!("{other} rules select something else than this version's: another one is deployed"));
    }
    if found.sending.is_none() {
        problems.warn("whether the rules have their targets is not known here");
    }
}

#[cfg(test)]
mod tests {
    use shared::adapters::loopback::Answer;

    use super::super::report::Status;
    use super::super::tests_support::{answering, denied, json};
    use super::*;

    /// Everything as deployed from the templates, changed by `change`.
    fn deployed(change: impl Fn(&str, &mut Value)) -> Value {
        let rules = patterns::own_event_rules().into_iter().map(|rule| {
            let mut value = json!({
                "Name": format!("security-pipeline-{}", rule.name),
                "State": rule.state,
                "EventPattern": rule.pattern.to_string(),
            });
            change(&rule.name, &mut value);
            value
        });
        json!({"Rules": rules.filter(|value| !value.is_null()).collect::<Vec<_>>()})
    }

    fn names(rules: &Value) -> Value {
        let names: Vec<&Value> = rules["Rules"].as_array().expect("rules").iter().map(|rule| &rule["Name"]).collect();
        json!({"RuleNames": names})
    }

    fn central(state: &str) -> [Answer; 2] {
        let rule = json!({
            "Name": "security-pipeline-forwarded",
            "State": state,
            "EventPattern": forwarded_pattern().to_string(),
        });
        [json(&json!({"Rules": [rule]})), json(&json!({"RuleNames": ["security-pipeline-forwarded"]}))]
    }

    const ALL_EVENTS: &str = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS";

    async fn checked(rules: &Value, names: &Value, central: [Answer; 2]) -> Check {
        checked_with(rules, names, "", central).await
    }

    async fn checked_with(rules: &Value, names: &Value, uploads: &str, central: [Answer; 2]) -> Check {
        let classifier = json!({"Environment": {"Variables": {"UPLOAD_BUCKET": uploads}}});
        let answers = [json(rules), json(names), json(&classifier)].into_iter().chain(central);
        let (context, _server) = answering(answers);
        super::rules(&context).await
    }

    #[tokio::test]
    async fn rules_are_as_generated_or_not() {
        let well = deployed(|_, _| {});
        let check = checked(&well, &names(&well), central(ALL_EVENTS)).await;
        assert_eq!(check.status, Status::Ok, "{check:?}");

        type Change = fn(&str, &mut Value);
        let cases: [(Change, Status, &str); 4] = [
            (|_, rule| rule["State"] = "DISABLED".into(), Status::Failed, "more disabled"),
            (|_, rule| *rule = Value::Null, Status::Failed, "more missing"),
            (|_, rule| rule["State"] = "ENABLED".into(), Status::Warning, "read-only calls"),
            (
                |name, rule| {
                    if name == "classifier-ec2-1" {
                        rule["EventPattern"] = "{}".into();
                    }
                },
                Status::Warning,
                "1 rules select something else",
            ),
        ];
        for (change, status, said) in cases {
            let rules = deployed(change);
            let check = checked(&rules, &names(&rules), central(ALL_EVENTS)).await;
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.said.contains(said), "{said}: {check:?}");
        }
    }

    #[tokio::test]
    async fn a_rule_without_its_target_and_a_disabled_central_rule_fail() {
        let well = deployed(|_, _| {});
        let check = checked(&well, &json!({"RuleNames": []}), central(ALL_EVENTS)).await;
        assert_eq!(check.status, Status::Failed, "{check:?}");
        let check = checked(&well, &names(&well), central("DISABLED")).await;
        assert!(check.status == Status::Failed && check.said.contains("central bus"), "{check:?}");
        let (context, _server) = answering([denied()]);
        assert_eq!(rules(&context).await.status, Status::Skipped);
    }

    #[tokio::test]
    async fn the_central_rule_selects_what_is_forwarded_and_sends_it_on() {
        let well = deployed(|_, _| {});
        let name = "security-pipeline-forwarded";
        let central = |pattern: &str, targets: &[&str]| {
            let rule = json!({"Name": name, "State": ALL_EVENTS, "EventPattern": pattern});
            [json(&json!({"Rules": [rule]})), json(&json!({"RuleNames": targets}))]
        };
        let pattern = forwarded_pattern().to_string();
        let template = include_str!("../../../../deploy/rules/template.yaml");
        let written = template.lines().filter_map(|line| line.trim().strip_prefix("EventPattern: "));
        let is_it = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|value| value == forwarded_pattern());
        assert_eq!(written.filter(|text| is_it(text)).count(), 1, "the template says the same");
        for (answers, said) in [
            (central(r#"{"source": ["aws.none"]}"#, &[name]), "selects something else"),
            (central(&pattern, &[]), "does not send"),
        ] {
            let check = checked(&well, &names(&well), answers).await;
            assert!(check.status == Status::Failed && check.said.contains(said), "{check:?}");
        }
    }

    #[tokio::test]
    async fn rules_for_objects_are_looked_at_where_there_are_some() {
        let right =
            json!({"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": ["b"]}}});
        let wrong = json!({"source": ["aws.s3"]});
        for (state, pattern, has_target, said) in [
            ("ENABLED", &right, true, "are enabled"),
            ("DISABLED", &right, true, "uploads is disabled"),
            ("ENABLED", &right, false, "uploads is without the target"),
            ("ENABLED", &wrong, true, "uploads does not select"),
        ] {
            let mut rules = deployed(|_, _| {});
            let targets = names(&rules);
            let uploads =
                json!({"Name": "security-pipeline-uploads", "State": state, "EventPattern": pattern.to_string()});
            rules["Rules"].as_array_mut().expect("rules").push(uploads);
            let targets = if has_target { names(&rules) } else { targets };
            let check = checked(&rules, &targets, central(ALL_EVENTS)).await;
            assert!(check.said.contains(said), "{said}: {check:?}");
            assert_eq!(check.status == Status::Ok, said == "are enabled", "{check:?}");
        }
        let none = deployed(|_, _| {});
        let check = checked_with(&none, &names(&none), "inbox", central(ALL_EVENTS)).await;
        assert!(check.status == Status::Failed && check.said.contains("uploads is missing"), "{check:?}");
    }

    #[tokio::test]
    async fn a_region_without_a_forwarder_is_not_seen() {
        let (context, _server) = answering([json(&json!({"Rules": []})), json(&json!({"RuleNames": []}))]);
        let check = forwarder(&context, "us-east-1").await;
        assert!(check.status == Status::Failed && check.said.contains("us-east-1"), "{check:?}");
        let well = deployed(|_, _| {});
        let (context, _server) = answering([json(&well), json(&names(&well))]);
        assert_eq!(forwarder(&context, "us-east-1").await.status, Status::Ok);
    }
}
