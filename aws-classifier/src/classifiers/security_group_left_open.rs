//! Security group left open to the world.
//!
//! **What it detects.** A security group was opened to the world on a watched port, and an hour later nobody has revoked
//! that. Several rules count together, also when they came in separate calls within a day. Asked once for each opening,
//! by a follow-up at the end of the time of grace.
//!
//! **Why it matters.** The alert about the opening was overlooked, or "just for a moment" was forgotten. What stays open
//! is found by scanners.
//!
//! **False positives.** Bastions that are meant to be public. A rule that was taken away together with its whole stack by
//! `DeleteSecurityGroup` counts as closed.
//!
//! **Response.** `security_group_rule_revoke` revokes exactly the rules of the fact `world_rules`.
//!
//! **References.** <https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html>,
//! <https://attack.mitre.org/techniques/T1562/007/>

use serde::{Deserialize, Serialize};
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::{Event, EventKind};
use shared::finding::Severity;
use shared::observation::{Known, Observations};
use shared::ports::Files;

use crate::gates::{self, Change, Way};

/// Parts of the world opened by separate calls add up within a day, as in `security_group_opened_to_world`.
const PARTS_WINDOW_S: u32 = 86_400;

/// See the module.
pub struct SecurityGroupLeftOpen {
    settings: Settings,
}

/// The `[classifiers.security_group_left_open]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The TCP ports that count. Default: those of `security_group_opened_to_world`; change both together.
    pub ports: Vec<u16>,
    /// How many minutes an opening may last. Default 60, as the system before this one had it.
    pub grace_min: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ports: vec![22, 3389, 3306, 5432, 21, 23], grace_min: 60 }
    }
}

impl Classifier for SecurityGroupLeftOpen {
    const META: Meta = Meta {
        id: "security_group_left_open",
        title: "Security group left open to the world",
        severity: Severity::High,
        techniques: &["T1562.007", "T1133"],
        patterns: &[
            Pattern::Api { source: "ec2.amazonaws.com", names: gates::CALLS },
            Pattern::Intake { source: "pipeline.follow-up", name: "security_group_left_open" },
        ],
        failed_calls: FailedCalls::Ignored,
        responses: &["security_group_rule_revoke"],
        references: &[
            "https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html",
            "https://attack.mitre.org/techniques/T1562/007/",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if settings.ports.is_empty() {
            return Err(SettingsError::new("ports", "name at least one port"));
        }
        if !(1..=10_080).contains(&settings.grace_min) {
            return Err(SettingsError::new("grace_min", "must be from 1 to 10080, a week"));
        }
        Ok(Self { settings })
    }

    fn follow_up_s(&self, event: &Event<'_>) -> Option<u32> {
        let change = Change::of(event, &self.settings.ports).ok()?;
        (!change.begun.is_empty()).then(|| self.grace_s())
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let change = Change::of(event, &self.settings.ports)?;
        let known_s = self.grace_s() + PARTS_WINDOW_S;
        Ok(match event.kind {
            EventKind::CloudTrail => change.note(Observations::none(), known_s),
            _ => gates::ask(Observations::none(), change.key, known_s),
        })
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        if event.kind == EventKind::CloudTrail {
            return Ok(None);
        }
        let change = Change::of(event, &self.settings.ports)?;
        let opened = event.time.plus_seconds(-i64::from(self.grace_s()));
        let stood = gates::stood(known).flatten().filter(|thing| thing.stands_after(event.time));
        let mut open = gates::open(stood, &self.settings.ports);
        // What others opened has follow-ups of its own, and so has what was closed and opened again. Of several parts, the last
        // made it the world.
        let is_own = |way: &Way| {
            way.rules.iter().any(|(rule, since)| {
                *since == opened
                    && (rule.is_world() || way.since == opened)
                    && change.begun.iter().any(|begun| begun.names() == rule.names())
            })
        };
        open.retain(is_own);
        if open.is_empty() {
            return Ok(None);
        }
        let group = &change.group;
        let ports = gates::ports(open.iter().map(|way| way.gate));
        let shown: String = group.chars().take(32).collect();
        Ok(Some(
            Evidence::about(group.clone())
                .titled(format!(
                    "Security group {shown} left open to the world for {} minutes",
                    self.settings.grace_min
                ))
                .topic(format!("security_group_open/{group}"))
                .fact("group_id", group.clone())
                .fact("ports", ports)
                .fact("opened_at", opened.to_string())
                .fact("world_rules", gates::rule_facts(&open)),
        ))
    }
}

impl SecurityGroupLeftOpen {
    const fn grace_s(&self) -> u32 {
        self.settings.grace_min * 60
    }
}
