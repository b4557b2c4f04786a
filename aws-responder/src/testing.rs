//! Findings for tests.

use shared::{Effect, Finding, FindingId, Identity, Severity, Timestamp};

pub(crate) const ACCOUNT: &str = "123456789012";

/// The identity of an IAM user.
pub(crate) fn user(name: &str) -> Identity {
    Identity {
        kind: "IAMUser".to_owned(),
        arn: format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
        account: ACCOUNT.to_owned(),
        user_name: name.to_owned(),
        ..Identity::default()
    }
}

/// A high finding by mallory.
pub(crate) fn finding(classifier: &str, responses: &[&str]) -> Finding {
    let identity = user("mallory");
    Finding {
        finding_id: FindingId::new(classifier, ACCOUNT, "us-east-1", "e-1"),
        classifier: classifier.to_owned(),
        title: "Something happened".to_owned(),
        severity: Severity::High,
        effect: Effect::Threat,
        attempt: false,
        account: ACCOUNT.to_owned(),
        region: "us-east-1".to_owned(),
        event_id: "e-1".to_owned(),
        event_source: "iam.amazonaws.com".to_owned(),
        event_name: "SomeCall".to_owned(),
        event_time: Timestamp::parse("2026-03-01T12:00:00Z").unwrap(),
        principal: identity.arn.clone(),
        identity,
        source_ip: "203.0.113.7".to_owned(),
        user_agent: "aws-cli/2.13.5".to_owned(),
        resource: String::new(),
        techniques: Vec::new(),
        responses: responses.iter().map(|&id| id.to_owned()).collect(),
        dedup_key: "k".to_owned(),
        resolution_key: None,
        evidence: std::collections::BTreeMap::new(),
    }
}
