//! Every own rule against its cases, and the rules of SigmaHQ where they are at hand.
//!
//! `rules/<id>.cases.json` is `{"fires": […], "ignores": […]}`; a case is `{"name": …, "record": {…}}`, or `records` in
//! order of arrival, among them `{"repeat": n, "record": {…}}`. Each record is merged over a plain one (objects deeply,
//! `null` takes a field away). Only that rule runs.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aws_classifier::classifiers::ALL;
use aws_classifier::engine::Engine;
use aws_classifier::patterns::{self, RuleState};
use aws_classifier::rules::{self, Loaded, Loader, OWN, Origin};
use quamina::Quamina;
use serde_json::{Value, json};
use shared::adapters::memory::MemoryState;
use shared::event::Event;
use shared::finding::Finding;

struct Case {
    place: String,
    fires: bool,
    records: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")
}

/// The own rules: file name and text.
fn own() -> Vec<(String, String)> {
    OWN.iter().map(|file| ((*file).to_owned(), std::fs::read_to_string(folder().join(file)).unwrap())).collect()
}

fn stem(file: &str) -> &str {
    file.strip_suffix(".yml").unwrap()
}

fn cases(id: &str) -> Vec<Case> {
    let path = folder().join(format!("{id}.cases.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{id} has no cases: {e}"));
    let all: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut cases = Vec::new();
    for (kind, list) in all.as_object().unwrap() {
        assert!(kind == "fires" || kind == "ignores", "{id}: unknown member {kind}");
        for case in list.as_array().unwrap() {
            let name = case["name"].as_str().unwrap_or_else(|| panic!("{id}: a case without a name"));
            let place = format!("{id}/{kind}/{name}");
            let records = match (case.get("record"), case.get("records")) {
                (Some(record), None) => vec![record.clone()],
                (None, Some(Value::Array(records))) if !records.is_empty() => records.clone(),
                _ => panic!("{place}: needs either record or records"),
            };
            let records = records.into_iter().flat_map(repeated).enumerate();
            let records = records.map(|(at, changes)| record(&place, at, changes)).collect();
            cases.push(Case { place, fires: kind == "fires", records });
        }
    }
    cases
}

fn repeated(one: Value) -> Vec<Value> {
    match one["repeat"].as_u64() {
        Some(times) => vec![one["record"].clone(); usize::try_from(times).unwrap()],
        None => vec![one],
    }
}

/// The case's record over a plain one.
fn record(place: &str, at: usize, changes: Value) -> String {
    let mut record = json!({
        "eventVersion": "1.09",
        "eventTime": "2026-03-02T10:00:00Z",
        "eventID": format!("{place}/{at}"),
        "eventType": "AwsApiCall",
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "198.51.100.7",
        "userAgent": "aws-cli/2",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": "AIDAEXAMPLEALICE",
            "arn": "arn:aws:iam::123456789012:user/alice",
            "accountId": "123456789012",
            "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
            "userName": "alice",
        },
        "recipientAccountId": "123456789012",
        "managementEvent": true,
        "readOnly": false,
    });
    merge(&mut record, changes);
    record.to_string()
}

fn merge(base: &mut Value, changes: Value) {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), change);
                }
            }
        }
        (base, changes) => *base = changes,
    }
}

fn load(files: &[(String, String)], origin: Origin) -> Loaded {
    let mut loader = Loader::default();
    for (file, text) in files {
        loader.add(file, text, origin);
    }
    loader.finish()
}

/// An engine of one own rule.
fn engine(file: &str, text: &str) -> Engine {
    let loaded = load(&[(file.to_owned(), text.to_owned())], Origin::Own);
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.elsewhere, 0, "{file}: not for CloudTrail");
    Engine::new(loaded.detectors, BTreeMap::new())
}

/// What it finds in the records, one after another, each delivered twice: the second time changes nothing.
fn findings(engine: &Engine, records: &[String]) -> Vec<Finding> {
    let state = MemoryState::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut found = Vec::new();
    for text in records {
        let deliver = || {
            let event = Event::from_cloudtrail(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let verdict = runtime.block_on(engine.run(&[event], &state)).unwrap().remove(0);
            assert_eq!(verdict.malformed, []);
            verdict.findings
        };
        let once = deliver();
        assert_eq!(once, deliver());
        found.extend(once);
    }
    found
}

#[test]
fn own_rules_fire_and_ignore_as_their_cases_say() {
    let mut wrong = Vec::new();
    for (file, text) in &own() {
        let engine = engine(file, text);
        for case in cases(stem(file)) {
            let found = findings(&engine, &case.records);
            if found.is_empty() == case.fires {
                wrong.push(format!("{}: {} findings", case.place, found.len()));
            }
            assert!(found.iter().all(|f| f.classifier == stem(file)), "{}: {found:#?}", case.place);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whatever a rule is about, it is not about what AWS services do: [`Event::is_by_aws_service`] is the one notion of it.
#[test]
fn own_rules_ignore_what_aws_services_do_unless_they_say_so() {
    // AWS itself quarantines users; leaving an organization and changing who may sign in matter whoever does it.
    const WANTED: [&str; 3] =
        ["iam_saml_provider_changed", "iam_user_quarantined_by_aws", "organizations_account_left"];
    for (file, text) in own().iter().filter(|(file, _)| !WANTED.contains(&stem(file))) {
        let engine = engine(file, text);
        for case in cases(stem(file)).iter().filter(|case| case.fires) {
            for change in [
                json!({ "userIdentity": { "invokedBy": "cloudformation.amazonaws.com" } }),
                json!({ "userIdentity": { "type": "AWSService" } }),
                json!({ "sourceIPAddress": "config.amazonaws.com" }),
            ] {
                let by_service = |text: &String| {
                    let mut record = serde_json::from_str(text).unwrap();
                    merge(&mut record, change.clone());
                    record.to_string()
                };
                let records: Vec<String> = case.records.iter().map(by_service).collect();
                assert_eq!(findings(&engine, &records), [], "{}: {change}", case.place);
            }
        }
    }
}

#[test]
fn every_own_rule_shows_both_sides_and_nothing_else_lies_there() {
    let ids: BTreeSet<&str> = OWN.iter().map(|file| stem(file)).collect();
    for id in &ids {
        let cases = cases(id);
        for fires in [true, false] {
            assert!(cases.iter().any(|c| c.fires == fires), "{id} has no case with fires = {fires}");
        }
    }
    for entry in std::fs::read_dir(folder()).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let id = name.trim_end_matches(".cases.json").trim_end_matches(".yml");
        assert!(name == "README.md" || ids.contains(id), "{name} belongs to no rule");
    }
}

#[test]
fn own_rules_are_well_formed() {
    let loaded = rules::load(&rules::Settings::default(), &[], &shared::adapters::memory::NoFiles);
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.elsewhere, 0);
    assert_eq!(load(&own(), Origin::Folder).errors, [], "with their regular expressions compiled");
    for (file, text) in &own() {
        for key in ["description:", "falsepositives:", "level:", "id:"] {
            assert!(text.lines().any(|line| line.starts_with(key)), "{file}: {key} is missing");
        }
    }
    for detector in &loaded.detectors {
        let declared = detector.declaration();
        let id = &declared.id;
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{id}");
        assert!(ALL.iter().all(|plugin| *plugin.meta.id != **id), "{id} is a classifier too");
        assert!(!declared.techniques.is_empty(), "{id}: no attack.t… tag");
        assert!(declared.references.iter().any(|r| r.starts_with("https://")), "{id}: no reference");
    }
}

#[test]
fn generated_rules_select_every_record_that_fired() {
    let declared = rules::own_declarations();
    let rules = patterns::event_rules(&declared);
    let mut matcher = Quamina::new();
    for rule in &rules {
        let text = rule.pattern.to_string();
        assert!(text.chars().count() < patterns::PATTERN_CHARS_MAX, "{}: pattern too long", rule.name);
        for pattern in rule.alternatives() {
            matcher.add_pattern(rule.name.clone(), &pattern.to_string()).unwrap();
        }
    }
    for (file, text) in &own() {
        let engine = engine(file, text);
        for case in cases(stem(file)).iter().filter(|case| case.fires) {
            let fired: BTreeSet<String> = findings(&engine, &case.records).into_iter().map(|f| f.event_id).collect();
            for text in &case.records {
                let event = Event::from_cloudtrail(text).unwrap();
                if !fired.contains(&*event.event_id) {
                    continue;
                }
                let detail_type = match &*event.event_type {
                    "AwsConsoleSignIn" => "AWS Console Sign In via CloudTrail",
                    "AwsServiceEvent" => "AWS Service Event via CloudTrail",
                    _ => "AWS API Call via CloudTrail",
                };
                let detail: Value = serde_json::from_str(text).unwrap();
                let envelope = json!({ "source": "aws.x", "detail-type": detail_type, "detail": detail }).to_string();
                let matched = matcher.matches_for_event(envelope.as_bytes()).unwrap();
                let selected = rules.iter().any(|r| {
                    matched.contains(&r.name)
                        && r.classifiers.iter().any(|c| c == stem(file))
                        && (event.read_only != Some(true) || r.state != RuleState::Enabled)
                });
                assert!(selected, "{}: no EventBridge rule of its own selects {}", case.place, event.name);
            }
        }
    }
}

/// Callers choose their user agent: whoever stole a key may call himself Terraform. What is only noted is told once a day for
/// a caller, and a key that deploys would be noted all over, so rules of low level believe anybody.
#[test]
fn rules_of_medium_level_and_above_do_not_believe_the_user_agent_of_a_key() {
    const AGENTS: [&str; 7] = [
        "APN/1.0 HashiCorp/1.0 Terraform/1.9.8",
        "aws-cdk/2.140.0",
        "eksctl kops karpenter CloudFormation Packer elbv2.k8s.aws",
        "external-secrets secrets-store-csi-driver exec-env/AWS_ECS_FARGATE exec-env/AWS_Lambda_python3.13",
        "Mozilla/5.0 aws-internal/3",
        "S3Console/0.4",
        "console.amazonaws.com",
    ];
    // The user agent is what these are about.
    const ABOUT_THE_AGENT: [&str; 2] = ["aws_attack_tool_used", "iam_changed_with_s3_browser"];
    let (mut asked, mut wrong) = (BTreeSet::new(), BTreeSet::new());
    for (file, text) in own() {
        let believes = |filter: &str| text.contains(&format!("\n    {filter}:\n"));
        let of_roles =
            |filter: &str| text.contains(&format!("\n    {filter}:\n        userIdentity.type: AssumedRole\n"));
        if text.contains("\nlevel: critical") {
            assert!(!believes("filter_infrastructure_as_code"), "{file} believes a user agent");
        }
        if ABOUT_THE_AGENT.contains(&stem(&file))
            || !["critical", "high", "medium"].iter().any(|level| text.contains(&format!("\nlevel: {level}")))
        {
            continue;
        }
        for filter in ["filter_infrastructure_as_code", "filter_deployment_tool"] {
            assert!(!believes(filter) || of_roles(filter), "{file}: {filter} believes a user agent of anybody");
        }
        let engine = engine(&file, &text);
        for case in cases(stem(&file)).iter().filter(|case| case.fires) {
            let records: Vec<Value> = case.records.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            if records.iter().any(|record| record["userIdentity"]["type"] != "IAMUser") {
                continue;
            }
            asked.insert(stem(&file).to_owned());
            for agent in AGENTS {
                let by_agent = |record: &Value| {
                    let mut record = record.clone();
                    record["userAgent"] = agent.into();
                    record.to_string()
                };
                if findings(&engine, &records.iter().map(by_agent).collect::<Vec<_>>()).is_empty() {
                    wrong.insert(format!("{}: {agent}", case.place));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(asked.len() > 200, "only {} rules were asked", asked.len());
}

/// Whoever takes a role, or a token for a federated user, chooses the session's name and may choose another each time.
#[test]
fn correlations_count_a_caller_who_calls_himself_something_else_each_time() {
    // EC2 names these sessions.
    const OF_INSTANCES: [&str; 3] = [
        "ec2_instance_credentials_used_elsewhere",
        "ec2_instance_enumerates_account",
        "ec2_instance_refused_many_calls",
    ];
    let role = |name: &str| {
        json!({
            "type": "AssumedRole",
            "principalId": format!("AROAEXAMPLE:{name}"),
            "arn": format!("arn:aws:sts::123456789012:assumed-role/admin/{name}"),
            "userName": null,
            "sessionContext": { "sessionIssuer": { "type": "Role", "arn": "arn:aws:iam::123456789012:role/admin", "userName": "admin" } },
        })
    };
    let federated = |name: &str| {
        json!({
            "type": "FederatedUser",
            "principalId": format!("123456789012:{name}"),
            "arn": format!("arn:aws:sts::123456789012:federated-user/{name}"),
            "userName": null,
            "sessionContext": { "sessionIssuer": { "type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/bob", "userName": "bob" } },
        })
    };
    let as_called = |records: &[String], identity: &dyn Fn(&str) -> Value, name: &dyn Fn(usize) -> String| {
        let mut renamed = Vec::new();
        for (at, text) in records.iter().enumerate() {
            let mut record = serde_json::from_str(text).unwrap();
            merge(&mut record, json!({ "userIdentity": identity(&name(at)) }));
            renamed.push(record.to_string());
        }
        renamed
    };
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for (file, text) in own() {
        let id = stem(&file);
        let by_arn = text.contains("    group-by:\n        - userIdentity.arn\n");
        assert_eq!(by_arn, OF_INSTANCES.contains(&id), "{file} counts by a name that the caller may choose");
        if !text.contains("        - actor\n") {
            continue;
        }
        let engine = engine(&file, &text);
        for case in cases(id).iter().filter(|case| case.fires) {
            for identity in [&role as &dyn Fn(&str) -> Value, &federated] {
                let found = |name: &dyn Fn(usize) -> String| {
                    findings(&engine, &as_called(&case.records, identity, name))
                        .iter()
                        .map(|f| f.event_id.clone())
                        .collect()
                };
                let steady: Vec<String> = found(&|_| "alice".to_owned());
                let changing: Vec<String> = found(&|at| format!("s{at}"));
                assert_eq!(steady, changing, "{}", case.place);
                *counted.entry(id.to_owned()).or_default() += usize::from(!steady.is_empty());
            }
        }
    }
    let never: Vec<&String> = counted.iter().filter(|(_, times)| **times == 0).map(|(id, _)| id).collect();
    assert_eq!(never, [""; 0], "no case shows how these count");
}

/// SigmaHQ's rules for CloudTrail load unchanged. `rules/README.md` says how to run it: the rules are not ours to keep.
#[test]
#[ignore = "needs SIGMA_AWS_RULES, a checkout of SigmaHQ's rules/cloud/aws/cloudtrail"]
fn rules_of_sigmahq_load_unchanged() {
    let folder = std::env::var_os("SIGMA_AWS_RULES").expect("SIGMA_AWS_RULES names a folder of rules");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yml") {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path.file_name().unwrap().to_str().unwrap().to_owned(), text));
        }
    }
    assert!(!files.is_empty(), "no rules in SIGMA_AWS_RULES");
    let loaded = load(&files, Origin::Folder);
    assert_eq!(loaded.errors, []);
    assert_eq!((loaded.detectors.len(), loaded.elsewhere), (files.len(), 0));
    let unindexed: Vec<&str> = loaded
        .detectors
        .iter()
        .map(|d| d.declaration())
        .filter(|d| d.selectors.iter().any(|s| s.source.is_none() && s.name.is_none() && !s.root))
        .map(|d| &*d.title)
        .collect();
    assert!(unindexed.len() <= 4, "asked for every event: {unindexed:?}");
    let engine = Engine::new(loaded.detectors, BTreeMap::new());
    for (name, more, title) in [
        ("DeleteTrail", json!({ "eventSource": "cloudtrail.amazonaws.com" }), "AWS CloudTrail Important Change"),
        ("DeleteBucket", json!({ "eventSource": "s3.amazonaws.com" }), "AWS Bucket Deleted"),
        (
            "UpdateDetector",
            json!({ "eventSource": "guardduty.amazonaws.com", "requestParameters": { "enable": false } }),
            "AWS GuardDuty Detector Deleted Or Updated",
        ),
    ] {
        let mut changes = json!({ "eventName": name });
        merge(&mut changes, more);
        let found = findings(&engine, &[record(name, 0, changes)]);
        assert!(found.iter().any(|f| f.title == title), "{name}: {found:#?}");
    }
}
