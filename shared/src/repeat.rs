//! What makes one finding a repeat of another: it is the same in everything but time and facts.
//!
//! `dedup_key` alone would hide a second, different threat about the same resource: the port that was opened after the
//! first, the call that succeeded after one that was denied, the same finding at a higher severity. So event name, title,
//! severity, outcome, effect and source address are equal as well. Who keeps repeats back and who makes one message of them
//! both ask here.

use crate::finding::Finding;

impl Finding {
    /// Findings that are repeats of one another share it. Readable, without control characters, of any length; a JSON array,
    /// so that no text in one field can look like two.
    pub fn repeat_key(&self) -> String {
        let Self { dedup_key, event_name, title, severity, attempt, effect, source_ip, .. } = self;
        serde_json::to_string(&(dedup_key, event_name, title, severity, attempt, effect, source_ip))
            .expect("texts, words and a truth value can be written")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use crate::finding::{Effect, Finding, FindingId, Severity};
    use crate::time::Timestamp;

    fn finding() -> Finding {
        Finding {
            finding_id: FindingId::new("c", "123456789012", "eu-central-1", "e-1"),
            classifier: "c".into(),
            title: "A port was opened".into(),
            severity: Severity::High,
            effect: Effect::Threat,
            attempt: false,
            account: "123456789012".into(),
            region: "eu-central-1".into(),
            event_id: "e-1".into(),
            event_source: "ec2.amazonaws.com".into(),
            event_name: "AuthorizeSecurityGroupIngress".into(),
            event_time: Timestamp::from_millis(1_772_366_400_000),
            principal: "arn:aws:iam::123456789012:user/alice".into(),
            identity: crate::event::Identity::default(),
            source_ip: "192.0.2.1".into(),
            user_agent: "aws-cli/2".into(),
            resource: "sg-1".into(),
            techniques: Vec::new(),
            responses: Vec::new(),
            dedup_key: "c/123456789012/eu-central-1/alice/sg-1".into(),
            resolution_key: None,
            evidence: BTreeMap::new(),
        }
    }

    #[test]
    fn only_time_and_facts_may_differ() {
        let repeat = Finding {
            finding_id: FindingId::new("c", "123456789012", "eu-central-1", "e-2"),
            event_id: "e-2".into(),
            event_time: Timestamp::from_millis(1_772_366_500_000),
            user_agent: "console".into(),
            evidence: BTreeMap::from([("keys".to_owned(), json!(2))]),
            ..finding()
        };
        assert_eq!(repeat.repeat_key(), finding().repeat_key());
        let others = [
            Finding { dedup_key: "c/123456789012/eu-central-1/alice/sg-2".into(), ..finding() },
            Finding { event_name: "ModifySecurityGroupRules".into(), ..finding() },
            Finding { title: "Another port was opened".into(), ..finding() },
            Finding { severity: Severity::Critical, ..finding() },
            Finding { attempt: true, ..finding() },
            Finding { effect: Effect::Resolves, ..finding() },
            Finding { source_ip: "192.0.2.2".into(), ..finding() },
        ];
        let keys: BTreeSet<String> = others.iter().chain([&finding()]).map(Finding::repeat_key).collect();
        assert_eq!(keys.len(), others.len() + 1);
    }

    #[test]
    fn text_in_one_field_never_looks_like_two() {
        let one = Finding { dedup_key: "a\",\"b\u{1f}".into(), event_name: "c".into(), ..finding() };
        let two = Finding { dedup_key: "a".into(), event_name: "b\u{1f}\",\"c".into(), ..finding() };
        assert_ne!(one.repeat_key(), two.repeat_key());
        assert!(!one.repeat_key().contains(char::is_control), "{}", one.repeat_key());
    }
}
