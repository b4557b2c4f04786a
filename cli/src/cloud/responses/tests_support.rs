//! A response in the journal and what AWS answers about it, for tests.

use aws_responder::journal::Begun;
use serde_json::{Map, Value, json};
use shared::adapters::loopback::Answer;
use shared::{
    ApiCall, Effect, Envelope, Finding, FindingId, Identity, Outcome, OutcomeStatus, Plan, Settled, Severity, Timestamp,
};

pub const ACCOUNT: &str = "123456789012";
pub const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub const ACTION: &str = "iam_access_key_deactivate";

/// A finding of event `n`, a minute after the one before.
pub fn finding(n: i64) -> Finding {
    let event_id = format!("e-{n}");
    Finding {
        finding_id: FindingId::new("iam_access_key_created", ACCOUNT, "us-east-1", &event_id),
        classifier: "iam_access_key_created".to_owned(),
        title: "Key created".to_owned(),
        severity: Severity::High,
        effect: Effect::Threat,
        attempt: false,
        account: ACCOUNT.to_owned(),
        region: "us-east-1".to_owned(),
        event_id,
        event_source: "iam.amazonaws.com".to_owned(),
        event_name: "CreateAccessKey".to_owned(),
        event_time: at(n),
        principal: "arn:aws:iam::123456789012:user/mallory".to_owned(),
        identity: Identity::default(),
        source_ip: "203.0.113.7".to_owned(),
        user_agent: String::new(),
        resource: String::new(),
        techniques: Vec::new(),
        responses: vec![ACTION.to_owned()],
        dedup_key: String::new(),
        resolution_key: None,
        evidence: std::collections::BTreeMap::new(),
    }
}

/// Minutes after 2026-03-01T12:00:00Z.
pub fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(1_772_366_400_000).plus_seconds(60 * minutes)
}

fn call(operation: &str, account: &str, parameters: Value) -> ApiCall {
    ApiCall {
        service: "iam".to_owned(),
        operation: operation.to_owned(),
        account: account.to_owned(),
        region: "us-east-1".to_owned(),
        parameters,
    }
}

/// The plan for a key of alice.
pub fn plan(account: &str) -> Plan {
    let update = |status: &str| {
        call("UpdateAccessKey", account, json!({"AccessKeyId": KEY, "Status": status, "UserName": "alice"}))
    };
    Plan {
        reads: vec![call("ListAccessKeys", account, json!({"UserName": "alice"}))],
        calls: vec![update("Inactive")],
        undo: vec![update("Active")],
    }
}

/// The outcome of the response to `finding`, decided a second after the event.
pub fn outcome(finding: &Finding, account: &str, status: OutcomeStatus, note: &str) -> Outcome {
    Outcome {
        outcome_id: Outcome::key(finding.finding_id, ACTION, KEY),
        finding_id: finding.finding_id,
        action: ACTION.to_owned(),
        target: KEY.to_owned(),
        status,
        plan: plan(account),
        note: note.to_owned(),
        missed: None,
        decided_at: finding.event_time.plus_seconds(1),
    }
}

/// The response that tests are about.
pub fn outcome_id() -> String {
    Outcome::key(finding(1).finding_id, ACTION, KEY)
}

/// Its journal entry when it ended so.
pub fn ended(status: OutcomeStatus, note: &str) -> String {
    Envelope::outcome(finding(1), outcome(&finding(1), ACCOUNT, status, note)).to_body()
}

/// Its journal entry when it was carried out.
pub fn carried_out() -> String {
    ended(OutcomeStatus::Succeeded, "1 call made")
}

/// Its journal entry from before the first call.
pub fn begun() -> String {
    let before = vec![json!({"UserName": "alice", "AccessKeyId": KEY, "Status": "Active"})];
    let settled = Settled { plan: plan(ACCOUNT), before, ..Settled::default() };
    serde_json::to_string(&Begun::new(finding(1), ACTION, KEY, settled, at(1))).expect("JSON")
}

/// What DynamoDB answers when the journal has these entries of the response, each with the kind before its id.
pub fn entries(stored: &[(&str, &str)]) -> Answer {
    let id = outcome_id();
    let item = |(kind, text): &(&str, &str)| json!({"pk": {"S": format!("ledger/{kind}{id}")}, "done": {"S": text}});
    let items: Vec<Value> = stored.iter().map(item).collect();
    let mut responses = Map::new();
    responses.insert("security-pipeline-state".to_owned(), items.into());
    Answer::json("200 OK", &json!({"Responses": responses}))
}

/// What STS answers to an operator of this account.
pub fn identity(account: &str) -> Answer {
    let answer = format!(
        "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::{account}:user/operator</Arn>\
         <UserId>x</UserId><Account>{account}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
    );
    Answer::xml("200 OK", answer)
}
