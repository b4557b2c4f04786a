//! What rules mean: each table row is a selection, a condition or a field, and what it says to one record.

use super::check::Check;
use super::node::{Node, Test, Value};
use super::text::Place;
use super::*;
use crate::engine::Engine;
use crate::routing::Routes;
use proptest::prelude::*;
use shared::adapters::memory::MemoryState;
use shared::classifier::FailedCalls;
use shared::event::Event;
use shared::finding::{Finding, Severity};
use std::collections::BTreeMap;

const RECORD: &str = r#"{"eventTime":"2026-03-02T10:00:00Z","eventSource":"iam.amazonaws.com","eventName":"CreateUser","eventID":"1",
    "awsRegion":"us-east-1","sourceIPAddress":"198.51.100.7","userAgent":"S3 Browser 10","recipientAccountId":"123456789012",
    "userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::123456789012:user/alice","userName":"alice"},
    "requestParameters":{"userName":"Alice","enable":false,"port":8080,"tags":[{"key":"a"},{"key":"b"}],
    "policyDocument":"{\"Effect\":\"Allow\",\"Action\":\"*\"}"},"responseElements":null}"#;

fn rule(detection: &str) -> Result<Rule, String> {
    let text = format!("title: T\nlogsource: {{product: aws, service: cloudtrail}}\ndetection:\n{detection}");
    match document::read(&yaml::documents(&text).unwrap()[0], Origin::Folder)? {
        Read::Rule(head, detection) => {
            let declaration = declaration("t".into(), head, FailedCalls::Attempts);
            let rule = Rule::new(declaration, Source::Read(Box::new(detection)));
            rule.compile_expressions().map(|()| rule)
        }
        other => panic!("{other:?}"),
    }
}

/// A detection of one selection, `sel`.
fn selects(selection: &str) -> bool {
    let detection = format!("  sel:\n    {selection}\n  condition: sel\n");
    rule(&detection).unwrap_or_else(|e| panic!("{selection}: {e}")).holds(&Event::from_cloudtrail(RECORD).unwrap())
}

#[test]
fn field_tests_mean_what_sigma_says() {
    for selection in [
        "eventName: createuser",
        "eventName: [DeleteUser, CreateUser]",
        "eventName: Create*",
        "eventName|startswith: create",
        "eventName|endswith: [group, USER]",
        "eventName|contains|all: [eat, use]",
        "eventName|re: '^Create(User|Group)$'",
        "eventName|re|i: '^create'",
        "eventName|cased: CreateUser",
        "eventName|neq: DeleteUser",
        "errorCode: null",
        "errorCode:",
        "errorCode|exists: false",
        "errorCode: [null, Success]",
        "errorCode|neq: AccessDenied",
        "responseElements: null",
        "requestParameters.enable: 'false'",
        "requestParameters.enable: false",
        "requestParameters.port: 8080",
        "requestParameters.port|gte: 8080",
        "requestParameters.port|lt: 9000.5",
        "requestParameters.tags.key: b",
        "requestParameters.tags.key|every: [a, b]",
        "userIdentity.arn|account: recipientAccountId",
        "recipientAccountId|account: recipientAccountId",
        "requestParameters.tags.key|every|neq: b",
        "requestParameters.userName|exists: true",
        "requestParameters.userName|contains: '*'",
        "requestParameters.userName|fieldref: userIdentity.userName",
        "userIdentity.arn|fieldref|endswith: requestParameters.userName",
        "requestParameters|contains: 'Alice'",
        "requestParameters|contains|all: ['\"Allow\"', '\"Action\":\"*\"']",
        "requestParameters.policyDocument|contains: '\"Action\":\"\\*\"'",
        "sourceIPAddress|cidr: [192.0.2.0/24, 198.51.100.0/24]",
        "- eventName: DeleteUser\n    - userAgent|contains: browser",
        "- 'no such text'\n    - 's3 browser'",
        "'|all': ['alice', 's3 browser']",
    ] {
        assert!(selects(selection), "{selection}");
    }
    for selection in [
        "eventName: CreateUse",
        "eventName|contains|all: [eat, group]",
        "eventName|re: '^create'",
        "eventName|cased: createuser",
        "eventName|neq: CreateUser",
        "eventName: null",
        "errorCode: ''",
        "errorCode: '*'",
        "errorCode|contains: '*'",
        "errorCode|exists: true",
        "responseElements.user: '*'",
        "requestParameters.port|gt: 8080",
        "requestParameters.userName|lt: 5",
        "requestParameters.tags.key: c",
        "requestParameters.tags.key|every: b",
        "userIdentity.arn|account: userIdentity.userName",
        "requestParameters.userName|account: recipientAccountId",
        "requestParameters.no.such|every: b",
        "requestParameters.userName|fieldref: userIdentity.sessionContext",
        "sourceIPAddress|cidr: 192.0.2.0/24",
        "userAgent|cidr: 192.0.2.0/24",
        "eventName: CreateUser\n    errorCode: AccessDenied",
        "'|all': ['alice', 'bob']",
    ] {
        assert!(!selects(selection), "{selection}");
    }
}

#[test]
fn conditions_join_selections() {
    let holds = |condition: &str| {
        let detection = format!(
            "  yes_a: {{eventName: CreateUser}}\n  yes_b: {{awsRegion: us-east-1}}\n  no_a: {{eventName: x}}\n  _hidden: {{eventName: x}}\n  condition: {condition}\n"
        );
        rule(&detection).map(|rule| rule.holds(&Event::from_cloudtrail(RECORD).unwrap()))
    };
    for condition in [
        "yes_a and not no_a",
        "no_a or yes_b",
        "yes_a AND NOT (no_a or no_a)",
        "all of yes_*",
        "1 of them",
        "any of yes_* and not all of them",
        "2 of them",
        "not not yes_a",
        "no_a and yes_a or yes_b",
        "[no_a, yes_a]",
    ] {
        assert_eq!(holds(condition), Ok(true), "{condition}");
    }
    for condition in ["not yes_a", "all of them", "3 of them", "1 of no_*", "no_a and (yes_a or yes_b)"] {
        assert_eq!(holds(condition), Ok(false), "{condition}");
    }
    for (condition, why) in [
        ("nothing", "there is no selection nothing"),
        ("yes_a and", "ends too early"),
        ("(yes_a", "a bracket is not closed"),
        ("yes_a yes_b", "\"yes_b\" does not belong there"),
        ("1 of x*", "no selection is meant by x*"),
        ("some of them", "is not a number"),
        ("yes_a | count() > 5", "aggregations are not supported"),
    ] {
        let error = holds(condition).unwrap_err();
        assert!(error.contains(why), "{condition}: {error}");
    }
    let deep = format!("{}yes_a{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(holds(&deep).is_err());
}

#[test]
fn rules_are_bound_to_the_events_they_can_match() {
    let selectors = |detection: &str| {
        let rule = rule(detection).unwrap();
        rule.declaration.selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let iam = "eventSource: iam.amazonaws.com";
    for (detection, expected) in [
        (format!("  a: {{{iam}, eventName: [A, B]}}\n  condition: a\n"), "iam.amazonaws.com/A iam.amazonaws.com/B"),
        (format!("  a: {{{iam}}}\n  b: {{eventName: A}}\n  condition: a and b\n"), "iam.amazonaws.com/A"),
        (format!("  a: {{{iam}}}\n  b: {{eventName: A}}\n  condition: a or b\n"), "*/A iam.amazonaws.com/*"),
        (format!("  a: {{{iam}}}\n  b: {{eventName: A}}\n  condition: a and not b\n"), "iam.amazonaws.com/*"),
        (format!("  a: {{{iam}}}\n  b: {{eventName: 'A*'}}\n  condition: all of them\n"), "iam.amazonaws.com/*"),
        (format!("  a: {{{iam}}}\n  b: {{userAgent: x}}\n  condition: 1 of them\n"), "*/*"),
        ("  a:\n    - eventName: A\n    - eventName: B\n  condition: a\n".to_owned(), "*/A */B"),
        ("  a: {eventName: [A, null]}\n  condition: a\n".to_owned(), "*/*"),
        ("  a: {eventName|contains: A}\n  condition: a\n".to_owned(), "*/*"),
        ("  a: {eventName|neq: A}\n  condition: a\n".to_owned(), "*/*"),
        ("  a: ['A']\n  condition: a\n".to_owned(), "*/*"),
        ("  a: {userIdentity.type: Root}\n  condition: a\n".to_owned(), "*/* by the root user"),
        (
            "  a: {eventName: A}\n  b: {eventName: B}\n  c: {eventName: C}\n  condition: 2 of them\n".to_owned(),
            "*/A */B",
        ),
    ] {
        assert_eq!(selectors(&detection), expected, "{detection}");
    }
}

#[test]
fn what_the_index_settled_is_not_tested_again_and_nothing_else_is_left_out() {
    let left_node = |detection: &str| {
        let rule = rule(detection).unwrap();
        index::left_to_test(&rule.detection().node, &rule.declaration.selectors)
    };
    let left = |detection: &str| left_node(detection).mentions("event");
    let (source, name) = ("eventSource: iam.amazonaws.com", "eventName: [A, B]");
    assert!(!left(&format!("  a: {{{source}, {name}, userAgent: x}}\n  condition: a\n")));
    for settled in [
        format!("  a: {{{source}}}\n  b: {{{name}}}\n  f: {{userAgent: x}}\n  condition: a and b and not f\n"),
        format!("  a: {{{source}, {name}}}\n  b: {{eventName: B}}\n  condition: a and b\n"),
        format!("  a: {{{source}, {name}}}\n  b: {{eventSource: iam.amazonaws.com}}\n  condition: a or b\n"),
        format!(
            "  a1: {{{source}, {name}}}\n  a2: {{eventSource: sts.amazonaws.com, eventName: a}}\n  u: {{userAgent: x}}\n  condition: 1 of a* and u\n"
        ),
    ] {
        assert!(!left(&settled), "{settled}");
    }
    // The index finds events by source and name without a look at the caller.
    let root = left_node(&format!("  a: {{{source}, {name}, userIdentity.type: Root}}\n  condition: a\n"));
    assert!(root.mentions("userIdentity.type") && !root.mentions("event"));
    for detection in [
        format!("  a: {{{source}, eventName|cased: A}}\n  condition: a\n"),
        format!("  a: {{{source}, 'eventName': 'A*'}}\n  condition: a\n"),
        format!("  a: {{{source}, {name}}}\n  f: {{eventName: A}}\n  condition: a and not f\n"),
        format!("  a: {{{source}, {name}}}\n  b: {{userAgent: x}}\n  condition: a or b\n"),
        format!(
            "  a: {{{source}, {name}}}\n  b: {{eventName: [B, C]}}\n  f: {{userAgent: x}}\n  condition: a and (b or f)\n"
        ),
    ] {
        assert!(left(&detection), "{detection}");
    }
}

/// Detections of source, name and user agent, each `a`, `b` or `c`.
fn node() -> impl Strategy<Value = Node> {
    let text = |(text, cased): (&str, bool)| Value::Text { text: text.to_owned(), place: Place::Whole, cased };
    let value = (prop::sample::select(vec!["a", "B", "c", "a*"]), prop::bool::weighted(0.2)).prop_map(text);
    let field = prop::sample::select(vec!["eventSource", "eventName", "userAgent"]).prop_map(str::to_owned);
    let test =
        (field, prop::collection::vec(value, 1..3)).prop_map(|(field, values)| Test { field, values, every: false });
    test.prop_map(Node::Test).prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(Node::All),
            3 => (1..3_usize, prop::collection::vec(inner.clone(), 1..4)).prop_map(|(least, nodes)| Node::Some(least, nodes)),
            1 => inner.prop_map(|node| Node::Not(Box::new(node))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_left_to_test_decides_as_the_whole_does(node in node(), [source, name, agent] in ["[abcA]", "[abcA]", "[abc]"]) {
        let record = format!(
            r#"{{"eventTime":"2026-03-01T00:00:00Z","eventSource":"{source}","eventName":"{name}","userAgent":"{agent}"}}"#
        );
        let event = Event::from_cloudtrail(&record).unwrap();
        let selectors = index::selectors(&node);
        let (mut routes, mut slots) = (Routes::default(), Vec::new());
        routes.add(0, &selectors);
        routes.concerned(&event, &mut slots);
        let holds = Check::new(&node).holds(&event);
        if slots.is_empty() {
            prop_assert!(!holds);
        } else {
            prop_assert_eq!(Check::new(&index::left_to_test(&node, &selectors)).holds(&event), holds);
        }
    }
}

fn loaded(texts: &[(&str, &str)]) -> Loaded {
    let mut loader = Loader::default();
    for (file, text) in texts {
        loader.add(file, text, Origin::Folder);
    }
    loader.finish()
}

const SIMPLE: &str = "title: A user.\nid: 5a1b\nlevel: high\ntags: [attack.persistence, attack.t1136.003]\nreferences: [https://example.com]\nlogsource: {product: aws, service: cloudtrail}\nfields: [requestParameters.userName]\ndetection:\n  a: {eventSource: iam.amazonaws.com, eventName: CreateUser}\n  condition: a\n";

#[test]
fn the_head_becomes_the_declaration() {
    let mut loader = Loader::default();
    loader.add("own/user_made.yml", &SIMPLE.replace("level: high", "level: informational"), Origin::Own);
    loader.add("x/y.yml", SIMPLE, Origin::Folder);
    loader.add("x/My Rule.yml", &SIMPLE.replace("id: 5a1b\n", ""), Origin::Folder);
    let loaded = loader.finish();
    assert_eq!(loaded.errors, []);
    let declared: Vec<&Declaration> = loaded.detectors.iter().map(|d| d.declaration()).collect();
    assert_eq!(declared.iter().map(|d| &*d.id).collect::<Vec<_>>(), ["sigma/5a1b", "sigma/my_rule", "user_made"]);
    let first = declared[0];
    assert_eq!((&*first.title, first.severity, first.failed_calls), ("A user", Severity::High, FailedCalls::Attempts));
    assert_eq!(
        (first.techniques.join(" "), first.references.join(" ")),
        ("T1136.003".into(), "https://example.com".into())
    );
    assert_eq!(declared[2].severity, Severity::Info);
}

#[test]
fn the_log_source_is_honoured() {
    let with = |source: &str| SIMPLE.replace("{product: aws, service: cloudtrail}", source);
    for (source, applies) in [
        ("{product: aws}", true),
        ("{service: cloudtrail}", true),
        ("{product: windows, service: security}", false),
        ("{product: aws, service: guardduty}", false),
        ("{product: aws, category: process_creation}", false),
    ] {
        let loaded = loaded(&[("r.yml", &with(source))]);
        assert_eq!(
            (loaded.detectors.len(), loaded.elsewhere),
            (usize::from(applies), usize::from(!applies)),
            "{source}"
        );
    }
}

#[test]
fn every_rule_that_cannot_be_used_is_named() {
    let mistakes = [
        ("a.yml", SIMPLE.replace("title: A user.\n", ""), "title is missing"),
        ("b.yml", SIMPLE.replace("condition: a", "condition: b"), "detection: condition: there is no selection b"),
        ("c.yml", SIMPLE.replace("eventName:", "eventName|base64:"), "the modifier \"base64\" is not supported"),
        ("d.yml", SIMPLE.replace("eventName: CreateUser", "'eventName|re': '(?<=a)b'"), "look-around"),
        ("e.yml", SIMPLE.replace("level: high", "level: huge"), "level is informational"),
        ("e2.yml", format!("{SIMPLE}aws_services: maybe\n"), "aws_services is ignored or reported"),
        ("e3.yml", format!("{SIMPLE}repeat: {{timespan: 1x}}\n"), "repeat: timespan"),
        ("f.yml", "a: [".to_owned(), "line "),
        ("g.yml", String::new(), "has no rule"),
        ("h.yml", "- x".to_owned(), "is not a Sigma rule"),
        ("i.yml", SIMPLE.to_owned(), ""),
        ("j.yml", SIMPLE.to_owned(), "the id sigma/5a1b is taken by i.yml"),
    ];
    let texts: Vec<(&str, String)> = mistakes
        .iter()
        .map(|(file, text, _)| {
            let own = format!("id: {file}\n");
            (*file, if *file < "i.yml" { text.replace("id: 5a1b\n", &own) } else { text.clone() })
        })
        .collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(file, text)| (*file, &**text)).collect();
    let loaded = loaded(&texts);
    assert_eq!(loaded.detectors.len(), 1);
    assert_eq!(loaded.errors.len(), mistakes.len() - 1, "{:#?}", loaded.errors);
    for (file, _, why) in &mistakes {
        if let Some(error) = loaded.errors.iter().find(|e| e.file == *file) {
            assert!(error.why.contains(why), "{error}");
        }
    }
}

/// What the rules find in records made by `seconds`, `name` and more members, one after another.
fn run(rules: &str, events: &[(i64, &str, &str)]) -> Vec<Finding> {
    let loaded = loaded(&[("r.yml", rules)]);
    assert_eq!(loaded.errors, []);
    found_by(&Engine::new(loaded.detectors, BTreeMap::new()), events)
}

fn found_by(engine: &Engine, events: &[(i64, &str, &str)]) -> Vec<Finding> {
    let state = MemoryState::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut found = Vec::new();
    for (at, (seconds, name, more)) in events.iter().enumerate() {
        let (minute, second) = (seconds / 60, seconds % 60);
        let text = format!(
            r#"{{"eventTime":"2026-03-02T10:{minute:02}:{second:02}Z","eventSource":"iam.amazonaws.com","eventName":"{name}","eventID":"{at}"{more}}}"#
        );
        let event = Event::from_cloudtrail(&text).unwrap();
        for verdict in runtime.block_on(engine.run(&[event], &state)).unwrap() {
            found.extend(verdict.findings);
        }
    }
    found
}

#[test]
fn a_failed_call_is_an_attempt_unless_the_rule_is_about_failure() {
    let denied = r#","errorCode":"AccessDenied""#;
    let [finding] = &run(SIMPLE, &[(0, "CreateUser", denied)])[..] else { panic!("one finding") };
    assert_eq!((finding.severity, finding.attempt, &*finding.title), (Severity::Medium, true, "Attempted: A user"));
    let about = SIMPLE.replace("eventName: CreateUser", "errorCode: AccessDenied");
    let [finding] = &run(&about, &[(0, "CreateUser", denied)])[..] else { panic!("one finding") };
    assert_eq!((finding.severity, finding.attempt, &*finding.title), (Severity::High, false, "A user"));
}

#[test]
fn a_finding_names_the_resource_and_the_fields() {
    let more = r#","requestParameters":{"path":"/","userName":"eve"}"#;
    let [finding] = &run(SIMPLE, &[(0, "CreateUser", more)])[..] else { panic!("one finding") };
    assert_eq!((&*finding.resource, &*finding.classifier), ("eve", "sigma/5a1b"));
    assert_eq!(finding.evidence["requestParameters.userName"], "eve");
}

fn by(user: &str) -> String {
    format!(r#","userIdentity":{{"type":"IAMUser","arn":"{user}"}},"requestParameters":{{"userName":"{user}"}}"#)
}

/// Two rules, `user` and `key`, and a correlation of them.
fn correlation(kind: &str, rules: &str, condition: &str) -> String {
    let rule = |name: &str, call: &str| {
        format!(
            "title: {name}\nname: {name}\nlogsource: {{product: aws}}\ndetection:\n  a: {{eventName: {call}}}\n  condition: a\n---\n"
        )
    };
    rule("user", "CreateUser")
        + &rule("key", "CreateAccessKey")
        + &format!(
            "title: Both\nname: both\nlevel: high\ncorrelation:\n  type: {kind}\n  rules: {rules}\n  group-by: [userIdentity.arn]\n  timespan: 5m\n  condition: {condition}\n"
        )
}

/// The ids of the events at which `both` fired, and that nothing else did.
fn completes(rules: &str, events: &[(i64, &str, &str)]) -> Vec<String> {
    let found = run(rules, events);
    assert!(found.iter().all(|f| f.classifier == "sigma/both" && f.severity == Severity::High), "{found:#?}");
    found.into_iter().map(|f| f.event_id).collect()
}

#[test]
fn event_count_alerts_once_in_a_window_and_by_group() {
    let rules = correlation("event_count", "[user]", "{gte: 3}").replace("title: key\nname: key", "title: k\nname: k");
    let rules = rules.replace("eventName: CreateAccessKey", "eventName: Nothing");
    let (a, b) = (by("a"), by("b"));
    let (a, b) = (&*a, &*b);
    let user = "CreateUser";
    assert_eq!(completes(&rules, &[(0, user, a), (9, user, a), (10, user, b), (20, user, a), (30, user, a)]), ["3"]);
    assert!(completes(&rules, &[(0, user, a), (200, user, a), (400, user, a)]).is_empty(), "too slow");
    assert!(completes(&rules, &[(0, user, ""), (1, user, ""), (2, user, "")]).is_empty(), "no group");
}

#[test]
fn an_actor_is_a_role_or_a_person_of_identity_center_whatever_the_session_is_called() {
    let rules =
        correlation("event_count", "[user]", "{gte: 3}").replace("eventName: CreateAccessKey", "eventName: Nothing");
    let rules = rules.replace("title: key\nname: key", "title: k\nname: k");
    let by_actor = rules.replace("[userIdentity.arn]", "[actor]");
    let session = |path: &str, role: &str, name: &str| {
        format!(
            r#","userIdentity":{{"type":"AssumedRole","principalId":"AROAX:{name}","arn":"arn:aws:sts::123456789012:assumed-role/{role}/{name}",
            "sessionContext":{{"sessionIssuer":{{"type":"Role","arn":"arn:aws:iam::123456789012:role/{path}{role}"}}}}}}"#
        )
    };
    let count = |rules: &str, callers: [String; 3]| {
        let events: Vec<(i64, &str, &str)> = callers.iter().map(|more| (0, "CreateUser", &**more)).collect();
        let found = run(rules, &events);
        found.first().map(|f| f.evidence.get("actor").cloned().unwrap_or_default())
    };
    let of_role = ["a", "b", "c"].map(|name| session("", "Admin", name));
    assert_eq!(count(&by_actor, of_role.clone()), Some("arn:aws:iam::123456789012:role/Admin".into()));
    assert_eq!(count(&rules, of_role), None, "a rule that says userIdentity.arn means it");
    let sso = "aws-reserved/sso.amazonaws.com/";
    let one_person =
        ["View_0", "Admin_1", "Admin_1"].map(|set| session(sso, &format!("AWSReservedSSO_{set}"), "alice"));
    assert_eq!(count(&by_actor, one_person), Some("identity-center/alice".into()));
    let people = ["alice", "bob", "carol"].map(|name| session(sso, "AWSReservedSSO_Admin_1", name));
    assert_eq!(count(&by_actor, people), None, "three people are not one");
    let user = r#","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::123456789012:user/alice","userName":"alice"}"#;
    assert_eq!(count(&by_actor, [user, user, user].map(str::to_owned)), Some(serde_json::Value::Null));
    let anonymous = r#","userIdentity":{"type":"AWSAccount","principalId":"","accountId":"ANONYMOUS_PRINCIPAL"}"#;
    assert_eq!(count(&by_actor, [anonymous, anonymous, anonymous].map(str::to_owned)), None, "nobody is no group");
}

#[test]
fn value_count_counts_each_value_once() {
    let rules = correlation("value_count", "[user]", "{field: requestParameters.userName, gt: 1}")
        .replace("eventName: CreateAccessKey", "eventName: Nothing")
        .replace("group-by: [userIdentity.arn]", "group-by: awsRegion");
    let at = |user: &str| format!(r#"{},"awsRegion":"eu-west-1""#, by(user));
    let (a, b) = (at("a"), at("b"));
    let user = "CreateUser";
    assert_eq!(completes(&rules, &[(0, user, &a), (1, user, &a), (2, user, &b), (3, user, &b)]), ["2"]);
}

#[test]
fn temporal_wants_all_rules_in_any_order_and_ordered_in_theirs() {
    let a = by("a");
    let a = &*a;
    let (user, key) = ("CreateUser", "CreateAccessKey");
    let any = correlation("temporal", "[user, key]", "{gte: 2}");
    assert_eq!(completes(&any, &[(0, key, a), (5, key, a), (10, user, a), (15, key, a)]), ["2"]);
    let ordered = correlation("temporal_ordered", "[user, key]", "{gte: 2}");
    assert_eq!(completes(&ordered, &[(0, key, a), (10, user, a)]), [""; 0]);
    assert_eq!(completes(&ordered, &[(0, user, a), (10, key, a), (11, key, a)]), ["1"]);
    assert_eq!(completes(&ordered, &[(0, user, a), (10, key, a), (20, user, a), (30, key, a)]), ["1", "3"]);
    assert_eq!(completes(&ordered, &[(0, user, a), (400, key, a)]), [""; 0]);
}

#[test]
fn rules_of_a_correlation_alert_on_their_own_only_when_it_says_so() {
    let rules = correlation("temporal", "[user, key]", "{gte: 2}");
    let a = by("a");
    let found = run(&rules.replace("  timespan: 5m", "  timespan: 5m\n  generate: true"), &[(0, "CreateUser", &a)]);
    assert_eq!(found.iter().map(|f| &*f.classifier).collect::<Vec<_>>(), ["sigma/user"]);
}

#[test]
fn correlations_that_cannot_be_known_are_refused() {
    for (rules, why) in [
        (correlation("event_count", "[user]", "{lt: 3}"), "too few are never known"),
        (correlation("event_count", "[user]", "{gte: 5000}"), "from 1 to 1000"),
        (correlation("event_count", "[nobody]", "{gte: 3}"), "there is no rule nobody"),
        (correlation("value_count", "[user]", "{gte: 3}"), "needs a field"),
        (correlation("median", "[user]", "{gte: 3}"), "the type median is not supported"),
        (correlation("event_count", "[user]", "{gte: 3}").replace("5m", "5x"), "timespan \"5x\""),
    ] {
        let loaded = loaded(&[("r.yml", &rules)]);
        assert!(loaded.errors.len() == 1 && loaded.errors[0].why.contains(why), "{why}: {:?}", loaded.errors);
    }
}

#[test]
fn calls_of_aws_services_count_only_where_the_rule_wants_them() {
    let service = r#","userIdentity":{"type":"AWSService","invokedBy":"config.amazonaws.com"}"#;
    let events = &[(0, "CreateUser", service)][..];
    assert_eq!(run(SIMPLE, events).len(), 1, "Sigma knows no services");
    assert_eq!(run(&format!("{SIMPLE}aws_services: ignored\n"), events), []);
    assert_eq!(run(&format!("{SIMPLE}aws_services: ignored\n"), &[(0, "CreateUser", "")]).len(), 1);
}

#[test]
fn what_was_told_is_told_again_after_the_timespan_and_for_another_group() {
    let day = format!("{SIMPLE}repeat: {{timespan: 1m}}\n");
    let (alice, bob) = (by("alice"), by("bob"));
    let events =
        [(0, "CreateUser", &*alice), (30, "CreateUser", &alice), (40, "CreateUser", &bob), (200, "CreateUser", &alice)];
    let told = |rules: &str| run(rules, &events).into_iter().map(|f| f.event_id).collect::<Vec<_>>();
    assert_eq!(told(&day), ["0", "2", "3"]);
    assert_eq!(told(&format!("{SIMPLE}repeat: {{timespan: 1m, group-by: [eventName]}}\n")), ["0", "3"]);
    assert_eq!(told(SIMPLE), ["0", "1", "2", "3"]);
    let listed = |names: &str| format!(r#","requestParameters":{{"userNames":[{names}]}}"#);
    let (one, two) = (listed(r#""alice""#), listed(r#""alice","bob""#));
    let by_names = format!("{SIMPLE}repeat: {{timespan: 1d, group-by: [requestParameters.userNames]}}\n");
    let events = [(0, "CreateUser", &*one), (9, "CreateUser", &two), (19, "CreateUser", &one)];
    assert_eq!(run(&by_names, &events).len(), 2, "one more in a list is news");
    let denied = format!(r#"{alice},"errorCode":"AccessDenied""#);
    assert_eq!(
        run(&day, &[(0, "CreateUser", &denied), (30, "CreateUser", &alice)]).len(),
        2,
        "an attempt hides nothing"
    );
}

#[test]
fn own_rules_of_low_level_are_told_once_a_day() {
    let low = SIMPLE.replace("level: high", "level: low");
    assert_ne!(low, SIMPLE);
    for (origin, expected) in [(Origin::Own, 1), (Origin::Folder, 2)] {
        let mut loader = Loader::default();
        loader.add("low.yml", &low, origin);
        let engine = Engine::new(loader.finish().detectors, BTreeMap::new());
        assert_eq!(
            found_by(&engine, &[(0, "CreateUser", &by("alice")), (99, "CreateUser", &by("alice"))]).len(),
            expected
        );
    }
}

/// Three refusals in a window, again and again.
const REFUSED: &str = "title: many\nname: many\nlevel: high\ncorrelation:\n  type: event_count\n  rules: [step]\n  group-by: [userIdentity.arn]\n  timespan: 1m\n  condition:\n    gte: 3\n";

#[test]
fn correlations_are_told_again_as_they_say_and_our_own_once_a_day_for_a_group() {
    let step = format!("---\n{}name: step\n", SIMPLE);
    let (alice, bob) = (by("alice"), by("bob"));
    // Three calls each from these seconds on.
    let mut events = Vec::new();
    for (from, who) in [(0, &alice), (600, &alice), (610, &bob), (1_500, &alice), (2_400, &alice)] {
        events.extend((from..from + 3).map(|at| (at, "CreateUser", who.as_str())));
    }
    let told = |more: &str, origin: Origin| {
        let mut loader = Loader::default();
        loader.add("many.yml", &format!("{REFUSED}{more}{step}"), origin);
        let loaded = loader.finish();
        assert_eq!(loaded.errors, []);
        let engine = Engine::new(loaded.detectors, BTreeMap::new());
        found_by(&engine, &events).into_iter().map(|f| f.event_id).collect::<Vec<_>>()
    };
    let each = ["2", "5", "8", "11", "14"];
    assert_eq!(told("", Origin::Folder), each, "Sigma knows no repeats");
    assert_eq!(told("", Origin::Own), ["2", "8"]);
    // The third burst of alice comes a quarter of an hour after her second.
    assert_eq!(told("repeat:\n  timespan: 14m\n", Origin::Folder), ["2", "8", "11", "14"]);
    assert_eq!(told("repeat:\n  timespan: 1d\n  group-by:\n    - eventName\n", Origin::Own), ["2"]);
    assert_eq!(told("repeat:\n  timespan: 1s\n", Origin::Own), each);
}
