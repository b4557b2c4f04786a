//! The allow-list and deduplication, through the engine: what is kept back, what is not, and that it is counted.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::sync::LazyLock;

use aws_classifier::engine::{Engine, Verdict};
use aws_classifier::explain::Said;
use aws_classifier::intake::Leaf;
use aws_classifier::noise::{Tally, Why};
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::Timestamp;
use shared::adapters::memory::{MemoryState, NoFiles};
use shared::config::Document;
use shared::event::Event;

fn engine(text: &str) -> Engine {
    let mut document = Document::parse("pipeline.toml", text);
    let engine = Engine::configure(&mut document, &NoFiles, &[]);
    // Sections of other components are none of this test's business.
    document.finish().unwrap();
    let Ok(engine) = engine else { panic!("settings refused") };
    engine
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn run(engine: &Engine, state: &MemoryState, records: &[String]) -> Vec<Verdict> {
    let events: Vec<Event<'_>> = records.iter().map(|text| Leaf::of(text).unwrap().event().unwrap()).collect();
    block_on(engine.run(&events, state)).unwrap()
}

/// Somebody creates a key for `user`, `s` seconds after noon; ids follow from the time.
fn key_created(user: &str, s: i64) -> String {
    let time = Timestamp::parse("2026-03-01T12:00:00Z").unwrap().plus_seconds(s);
    json!({"eventTime": time.to_string(), "eventSource": "iam.amazonaws.com", "eventName": "CreateAccessKey",
           "eventID": format!("e-{user}-{s}"), "recipientAccountId": "123456789012", "awsRegion": "us-east-1",
           "sourceIPAddress": "192.0.2.7", "eventType": "AwsApiCall",
           "userIdentity": {"type": "IAMUser", "userName": "alice", "accountId": "123456789012",
                            "arn": "arn:aws:iam::123456789012:user/alice"},
           "requestParameters": {"userName": user},
           "responseElements": {"accessKey": {"userName": user, "status": "Active"}}})
    .to_string()
}

fn group(name: &str, s: i64) -> String {
    let mut record: Value = serde_json::from_str(&key_created(name, s)).unwrap();
    record["eventSource"] = json!("ec2.amazonaws.com");
    record["eventName"] = json!(name);
    let rule = json!({"ipProtocol": "tcp", "fromPort": 22, "toPort": 22,
                      "ipRanges": {"items": [{"cidrIp": "0.0.0.0/0"}]}});
    record["requestParameters"] = json!({"groupId": "sg-1", "ipPermissions": {"items": [rule]}});
    record["responseElements"] = json!({"_return": true});
    record.to_string()
}

const ALLOWED: &str = "[[allow]]\nname = \"keys\"\nowner = \"o\"\nreason = \"r\"\nexpires = 2026-03-01\n\
                       principal = \"alice\"\nclassifier = \"iam_*\"\n";

#[test]
fn what_is_allowed_is_kept_back_and_counted() {
    let engine = engine(ALLOWED);
    let state = MemoryState::default();
    let verdicts = run(&engine, &state, &[key_created("bob", 0), key_created("bob", 86_400)]);
    assert_eq!((verdicts[0].findings.len(), verdicts[0].withheld.len()), (0, 1));
    assert_eq!(verdicts[0].withheld[0].1, Why::Allowed(0));
    assert!(verdicts[0].concerned);
    assert_eq!((verdicts[1].findings.len(), &*verdicts[1].lapsed), (1, &[0][..]));
    let mut tally = Tally::default();
    for verdict in &verdicts {
        tally.add(&verdict.withheld, &verdict.lapsed);
    }
    let report = tally.report(&engine.noise().allow, Timestamp::parse("2026-03-01T00:00:00Z").unwrap());
    assert_eq!(
        (report[0].name.as_str(), report[0].suppressed, report[0].lapsed, report[0].expired),
        ("keys", 1, 1, false)
    );
    let idle = Tally::default();
    assert!(idle.report(&engine.noise().allow, Timestamp::parse("2026-03-01T00:00:00Z").unwrap()).is_empty());
    assert_eq!(idle.report(&engine.noise().allow, Timestamp::parse("2026-03-02T00:00:00Z").unwrap()).len(), 1);
}

#[test]
fn good_news_is_never_kept_back() {
    let text = "[[allow]]\nowner = \"o\"\nreason = \"r\"\nexpires = 2026-03-01\nprincipal = \"alice\"\n";
    let engine = engine(text);
    let state = MemoryState::default();
    let records = [group("AuthorizeSecurityGroupIngress", 0), group("RevokeSecurityGroupIngress", 60)];
    let verdicts = run(&engine, &state, &records);
    assert_eq!((verdicts[0].findings.len(), verdicts[0].withheld.len()), (0, 1));
    assert_eq!((verdicts[1].findings.len(), verdicts[1].withheld.len()), (1, 0));
}

#[test]
fn an_accepted_group_stays_accepted_when_an_instance_is_started_in_it() {
    let started = |groups: &[&str]| {
        let groups: Vec<Value> = groups.iter().map(|group| json!({"groupId": group})).collect();
        let mut record: Value = serde_json::from_str(&group("RunInstances", 60)).unwrap();
        record["requestParameters"] = json!({"instancesSet": {"items": [{"minCount": 1, "maxCount": 1}]}});
        record["responseElements"] =
            json!({"instancesSet": {"items": [{"instanceId": "i-1", "groupSet": {"items": groups}}]}});
        record.to_string()
    };
    let opened = |id: &str| group("AuthorizeSecurityGroupIngress", 0).replace("sg-1", id);
    let allow = "[[allow]]\nowner = \"o\"\nreason = \"r\"\nexpires = 2026-03-01\nresource = \"sg-1\"\n";
    let found = |allow: &str, groups: &[&str]| {
        let records = [opened("sg-1"), opened("sg-2").replace("\"e-", "\"f-"), started(groups)];
        let verdicts = run(&engine(allow), &MemoryState::default(), &records);
        verdicts[2].findings.iter().filter(|f| f.classifier == "ec2_instance_in_open_group").count()
    };
    assert_eq!(found("", &["sg-1"]), 1);
    assert_eq!(found(allow, &["sg-1"]), 0);
    assert_eq!(found(allow, &["sg-1", "sg-2"]), 1, "the other group is nobody's");
    let elsewhere = allow.replace("sg-1", "sg-3");
    assert_eq!(found(&elsewhere, &["sg-1"]), 1);
}

#[test]
fn everything_goes_out_by_default() {
    let state = MemoryState::default();
    let verdicts = run(&engine(""), &state, &[key_created("bob", 0), key_created("bob", 1)]);
    assert!(verdicts.iter().all(|v| v.findings.len() == 1 && v.withheld.is_empty()));
}

#[test]
fn repeats_within_the_window_are_counted_and_the_next_finding_says_how_many() {
    let engine = engine("[classifier]\ndedup_window_s = 600\n");
    let state = MemoryState::default();
    let records: Vec<String> = [0, 300, 600, 601].iter().map(|s| key_created("bob", *s)).collect();
    let verdicts = run(&engine, &state, &records);
    let out: Vec<usize> = verdicts.iter().map(|v| v.findings.len()).collect();
    assert_eq!(out, [1, 0, 0, 1]);
    assert_eq!(verdicts[1].withheld[0].1, Why::Repeat);
    assert_eq!(verdicts[0].findings[0].evidence.get("repeats"), None);
    assert_eq!(verdicts[3].findings[0].evidence["repeats"], 2);
    assert_eq!(run(&engine, &state, &records), verdicts, "delivered again");
}

#[test]
fn another_resource_or_outcome_is_no_repeat() {
    let engine = engine("[classifier.dedup_windows_s]\niam_access_key_created = 600\n");
    let state = MemoryState::default();
    let verdicts = run(&engine, &state, &[key_created("bob", 0), key_created("carol", 1), key_created("bob", 2)]);
    let out: Vec<usize> = verdicts.iter().map(|v| v.findings.len()).collect();
    assert_eq!(out, [1, 1, 0]);
}

#[test]
fn what_good_news_can_end_is_told_again() {
    let engine = engine("[classifier]\ndedup_window_s = 600\n");
    let state = MemoryState::default();
    let open = |s| group("AuthorizeSecurityGroupIngress", s);
    let records = [open(0), group("RevokeSecurityGroupIngress", 60), open(120)];
    let verdicts = run(&engine, &state, &records);
    assert!(verdicts.iter().all(|v| v.findings.len() == 1), "{verdicts:?}");
}

#[test]
fn settings_that_name_nobody_or_last_too_long_are_refused() {
    for (text, line) in [
        ("[classifier]\ndedup_window_s = 700000\n", 2),
        ("[classifier.dedup_windows_s]\nnobody = 60\n", 1),
        ("[classifier.severity]\nnobody = \"low\"\n", 1),
    ] {
        let mut document = Document::parse("pipeline.toml", text);
        let _ = Engine::configure(&mut document, &NoFiles, &[]);
        let error = document.finish().unwrap_err();
        assert_eq!(error.mistakes.iter().map(|m| m.line).collect::<Vec<_>>(), [line], "{error}");
    }
}

#[test]
fn severities_are_overridden_by_classifier() {
    let state = MemoryState::default();
    let verdicts =
        run(&engine("[classifier.severity]\niam_access_key_created = \"info\"\n"), &state, &[key_created("bob", 0)]);
    assert_eq!(verdicts[0].findings[0].severity, shared::Severity::Info);
}

#[test]
fn an_explanation_says_what_every_classifier_made_of_it() {
    let engine = engine(&format!("[classifier]\ndedup_window_s = 600\n{ALLOWED}"));
    let state = MemoryState::default();
    let said = |record: &str| {
        let event = Leaf::of(record).unwrap().event().unwrap();
        let (verdict, explanation) = block_on(engine.explain(&event, &state)).unwrap();
        assert_eq!(run(&engine, &state, &[record.to_owned()]), [verdict], "as the engine says");
        let all = explanation.asked.len() + explanation.not_concerned.len();
        assert_eq!(all, engine.detectors().len(), "nobody is missing");
        explanation.asked.into_iter().map(|a| (a.classifier, a.said, a.known)).collect::<Vec<_>>()
    };
    let seen = said(&key_created("bob", 0));
    let key = seen.iter().find(|(id, _, _)| id == "iam_access_key_created").unwrap();
    assert_eq!(key.1, Said::Suppressed);
    let mut denied: Value = serde_json::from_str(&key_created("bob", 5)).unwrap();
    denied["errorCode"] = json!("AccessDenied");
    denied["eventSource"] = json!("ec2.amazonaws.com");
    denied["eventName"] = json!("RunInstances");
    let seen = said(&denied.to_string());
    assert!(
        seen.iter().any(|(id, said, _)| id == "ec2_mass_instance_creation" && *said == Said::FailedCall),
        "{seen:?}"
    );
    let seen = said(&group("RevokeSecurityGroupIngress", 5).replace("0.0.0.0/0", "128.0.0.0/2"));
    let closed = seen.iter().find(|(id, _, _)| id == "security_group_closed").unwrap();
    assert_eq!((closed.1, closed.2.len()), (Said::No, 1), "{seen:?}");
}

#[test]
fn an_explanation_gives_the_reason_of_a_no() {
    let (engine, state) = (engine(""), MemoryState::default());
    let login = json!({"eventTime": "2026-03-01T12:00:00Z", "eventSource": "signin.amazonaws.com", "eventName": "ConsoleLogin",
        "eventID": "l-1", "eventType": "AwsConsoleSignIn", "recipientAccountId": "123456789012", "awsRegion": "us-east-1",
        "sourceIPAddress": "192.0.2.7", "userIdentity": {"type": "IAMUser", "userName": "alice", "accountId": "123456789012",
        "arn": "arn:aws:iam::123456789012:user/alice"}, "responseElements": {"ConsoleLogin": "Success"},
        "additionalEventData": {"MFAUsed": "Yes"}})
    .to_string();
    let event = Leaf::of(&login).unwrap().event().unwrap();
    let (_, explanation) = block_on(engine.explain(&event, &state)).unwrap();
    for (id, said, because) in [
        ("console_login_failed_repeatedly", Said::No, "the login succeeded"),
        ("console_login_impossible_travel", Said::NotWanted, "no geo database of places"),
        ("console_login_new_ip", Said::No, "the first login that is known, which teaches"),
        ("console_login_without_mfa", Said::No, "MFA was used"),
        ("threat_intel_ip", Said::NotWanted, "no list configured"),
    ] {
        let asked = explanation.asked.iter().find(|asked| asked.classifier == id).unwrap();
        assert_eq!(asked.said, said, "{id}");
        assert!(asked.because.starts_with(because), "{id}: {}", asked.because);
    }
}

/// Built once: it reads every rule.
static DEDUPLICATING: LazyLock<Engine> = LazyLock::new(|| engine("[classifier]\ndedup_window_s = 600\n"));

proptest! {
    /// Batches do not matter, and neither does another delivery.
    #[test]
    fn batches_and_deliveries_change_nothing(times in prop::collection::vec(0..3000_i64, 1..12), size in 1..5_usize) {
        let engine = &*DEDUPLICATING;
        let mut times = times;
        times.sort_unstable();
        times.dedup();
        let records: Vec<String> = times.iter().map(|s| key_created("bob", *s)).collect();
        let whole = run(engine, &MemoryState::default(), &records);
        let state = MemoryState::default();
        let parts: Vec<Verdict> = records.chunks(size).flat_map(|part| run(engine, &state, part)).collect();
        prop_assert_eq!(&whole, &parts);
        let again: Vec<Verdict> = records.chunks(size).flat_map(|part| run(engine, &state, part)).collect();
        prop_assert_eq!(&whole, &again);
        prop_assert_eq!(whole.iter().map(|v| v.findings.len() + v.withheld.len()).sum::<usize>(), records.len());
    }
}
