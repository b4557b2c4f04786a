//! Messages for tests.

use std::collections::BTreeMap;

use serde_json::json;
use shared::event::Identity;
use shared::finding::Effect;
use shared::{ApiCall, Finding, FindingId, Outcome, OutcomeStatus, Plan, Receipt, Severity, Timestamp};

pub fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}

pub fn finding(n: u32) -> Finding {
    let event_id = format!("event-{n}");
    Finding {
        finding_id: FindingId::new("security_group_opened_to_world", "123456789012", "eu-west-1", &event_id),
        classifier: "security_group_opened_to_world".to_owned(),
        title: "Port 22 of sg-1 was opened to the world".to_owned(),
        severity: Severity::Critical,
        effect: Effect::Threat,
        attempt: false,
        account: "123456789012".to_owned(),
        region: "eu-west-1".to_owned(),
        event_id,
        event_source: "ec2.amazonaws.com".to_owned(),
        event_name: "AuthorizeSecurityGroupIngress".to_owned(),
        event_time: at("2026-03-01T12:00:00Z").plus_seconds(i64::from(n) * 60),
        principal: "arn:aws:iam::123456789012:user/mallory".to_owned(),
        identity: Identity {
            kind: "IAMUser".to_owned(),
            user_name: "mallory".to_owned(),
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            ..Default::default()
        },
        source_ip: "203.0.113.7".to_owned(),
        user_agent: "aws-cli/2.13.5".to_owned(),
        resource: "sg-1".to_owned(),
        techniques: vec!["T1562.007".to_owned(), "T1190".to_owned()],
        responses: vec!["security_group_rule_revoke".to_owned()],
        dedup_key: "security_group_opened_to_world/123456789012/eu-west-1/mallory/sg-1".to_owned(),
        resolution_key: Some("123456789012/eu-west-1/security_group/sg-1".to_owned()),
        evidence: BTreeMap::from([("ports".to_owned(), json!([22])), ("cidr".to_owned(), json!("0.0.0.0/0"))]),
    }
}

pub fn good_news(n: u32) -> Finding {
    let threat = finding(n);
    Finding {
        finding_id: FindingId::new("security_group_closed", "123456789012", "eu-west-1", &threat.event_id),
        classifier: "security_group_closed".to_owned(),
        title: "sg-1 was closed".to_owned(),
        severity: Severity::Info,
        effect: Effect::Resolves,
        responses: Vec::new(),
        ..threat
    }
}

pub fn outcome(finding: &Finding, status: OutcomeStatus) -> Outcome {
    let seconds = match status {
        OutcomeStatus::Triggered => 1,
        OutcomeStatus::PendingApproval => 2,
        OutcomeStatus::Running => 3,
        _ => 4,
    };
    let call = ApiCall {
        service: "ec2".to_owned(),
        operation: "RevokeSecurityGroupIngress".to_owned(),
        account: "123456789012".to_owned(),
        region: "eu-west-1".to_owned(),
        parameters: json!({"GroupId": "sg-1"}),
    };
    Outcome {
        outcome_id: Outcome::key(finding.finding_id, "security_group_rule_revoke", "sg-1"),
        finding_id: finding.finding_id,
        action: "security_group_rule_revoke".to_owned(),
        target: "sg-1".to_owned(),
        status,
        plan: Plan { reads: Vec::new(), calls: vec![call], undo: Vec::new() },
        note: String::new(),
        missed: None,
        decided_at: finding.event_time.plus_seconds(seconds),
    }
}

pub fn receipt(finding: &Finding, channel: &str, delivered: bool) -> Receipt {
    Receipt {
        receipt_id: format!("{channel}/{}", finding.finding_id),
        finding_id: finding.finding_id,
        channel: channel.to_owned(),
        reference: if delivered { "ref-1".to_owned() } else { String::new() },
        delivered,
        note: String::new(),
        at: finding.event_time.plus_seconds(9),
    }
}
