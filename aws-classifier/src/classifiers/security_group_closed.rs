//! Security group closed to the world.
//!
//! **What it detects.** Good news: the last rule that let the world in on a watched port was revoked or narrowed, or a
//! group known to be open was deleted. As long as another rule that was opened in the last `known_days` keeps a
//! watched port open, the group is not closed.
//!
//! **Why it matters.** It ends the open incident, so that people look at what is still open.
//!
//! **False positives.** A rule that was opened before the records begin, or that the record does not name: then the group
//! may be reported closed while that one is still open. A revocation that EC2 answered with "no such rule" is not a
//! closing.
//!
//! **Response.** None; it resolves the incident of `security_group_opened_to_world`.
//!
//! **References.** <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, Observations};
use shared::ports::Files;

use crate::gates::{self, Change};
use crate::ingress::{self, Rule};

/// See the module.
pub struct SecurityGroupClosed {
    settings: Settings,
}

/// The `[classifiers.security_group_closed]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The TCP ports whose closing counts. Default: those of `security_group_opened_to_world`; change both together.
    pub ports: Vec<u16>,
    /// How many days an opened group is known. Default 90, the reach of CloudTrail's event history.
    pub known_days: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ports: vec![22, 3389, 3306, 5432, 21, 23], known_days: 90 }
    }
}

impl Classifier for SecurityGroupClosed {
    const META: Meta = Meta {
        id: "security_group_closed",
        title: "Security group closed to the world",
        severity: Severity::Info,
        techniques: &["T1562.007"],
        patterns: &[Pattern::Api { source: "ec2.amazonaws.com", names: gates::CALLS }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &["https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html"],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if settings.ports.is_empty() {
            return Err(SettingsError::new("ports", "name at least one port"));
        }
        if !(1..=3650).contains(&settings.known_days) {
            return Err(SettingsError::new("known_days", "must be from 1 to 3650"));
        }
        Ok(Self { settings })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let change = Change::of(event, &self.settings.ports)?;
        Ok(change.note(Observations::none(), self.settings.known_days * 86_400))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let ports = &self.settings.ports;
        let change = Change::of(event, ports)?;
        let stood = gates::stood(known).next().unwrap_or_default();
        let before = gates::open(stood.iter().filter(|t| t.since < event.time || !change.makes(t)), ports);
        let after = gates::open(stood.iter().filter(|thing| thing.stands_after(event.time)), ports);
        let mut closed: Vec<Value> = Vec::new();
        let how = match event.name.to_ascii_lowercase().as_str() {
            "deletesecuritygroup" => "group deleted",
            "modifysecuritygrouprules" => "rule narrowed",
            "revokesecuritygroupingress" => {
                closed = ingress::world_open(&change.revoked, ports).1.into_iter().map(Rule::to_fact).collect();
                "rule revoked"
            }
            _ => return Ok(None),
        };
        // A rule that nobody remembers may be the one that an older incident is about.
        if !after.is_empty() || (before.is_empty() && closed.is_empty()) {
            return Ok(None);
        }
        if closed.is_empty() {
            closed = gates::rule_facts(&before);
        }
        let group = change.group;
        let mut evidence = Evidence::about(&*group)
            .resolves()
            .topic(format!("security_group_open/{group}"))
            .fact("group_id", &*group)
            .fact("how", how)
            .fact("closed_rules", closed);
        if let Some(since) = before.iter().map(|way| way.since).min() {
            evidence = evidence.fact("open_for_s", event.time.seconds_since(since));
        }
        Ok(Some(evidence))
    }
}
