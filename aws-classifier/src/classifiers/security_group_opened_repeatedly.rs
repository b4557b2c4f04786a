//! Several security groups opened to the world on SSH by one principal.
//!
//! **What it detects.** One principal opens SSH to the world on three or more different security groups within ten
//! minutes. All sessions of a role count as one principal, as whoever takes the role names the session; people of
//! Identity Center count each for themselves.
//!
//! **Why it matters.** One opened group may be a mistake; several in a row are a script at work, preparing many ways
//! in or out.
//!
//! **False positives.** A deployment that creates several public groups at once. Raise `groups_min`, or fix the
//! template.
//!
//! **Response.** Each opened group has its own finding with its own rules to revoke; this one asks to stop the
//! principal: `iam_access_key_deactivate`.
//!
//! **References.** <https://attack.mitre.org/techniques/T1562/007/>,
//! <https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html>

use serde::{Deserialize, Serialize};
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, MAX_DISTINCT_ENTRIES, Observations};
use shared::ports::Files;

use crate::ingress;

/// See the module.
pub struct SecurityGroupOpenedRepeatedly {
    settings: Settings,
}

/// The `[classifiers.security_group_opened_repeatedly]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many different groups. Default 3, as the system before this one had it.
    pub groups_min: u32,
    /// Within how many seconds. Default 600, as the system before this one had it.
    pub window_s: u32,
    /// The TCP ports that count. Default 22.
    pub ports: Vec<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { groups_min: 3, window_s: 600, ports: vec![22] }
    }
}

impl Classifier for SecurityGroupOpenedRepeatedly {
    const META: Meta = Meta {
        id: "security_group_opened_repeatedly",
        title: "Several security groups opened to the world on SSH by one principal",
        severity: Severity::Critical,
        techniques: &["T1562.007", "T1133"],
        patterns: &[Pattern::Api {
            source: "ec2.amazonaws.com",
            names: &["AuthorizeSecurityGroupIngress", "ModifySecurityGroupRules"],
        }],
        failed_calls: FailedCalls::Ignored,
        responses: &["iam_access_key_deactivate"],
        references: &[
            "https://attack.mitre.org/techniques/T1562/007/",
            "https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        // A window keeps at most so many entries; a higher threshold could never be reached.
        if settings.groups_min < 2 || settings.groups_min as usize > MAX_DISTINCT_ENTRIES {
            return Err(SettingsError::new("groups_min", format!("must be from 2 to {MAX_DISTINCT_ENTRIES}")));
        }
        if settings.window_s == 0 {
            return Err(SettingsError::new("window_s", "must be at least 1"));
        }
        if settings.ports.is_empty() {
            return Err(SettingsError::new("ports", "name at least one port"));
        }
        Ok(Self { settings })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let rules = ingress::rules_made(event)?;
        if ingress::world_open(&rules, &self.settings.ports).0.is_empty() {
            return Ok(Observations::none());
        }
        // Regions are not told apart: an attacker goes through them one by one.
        let actor = [&*event.account, &*event.identity().actor_key()].join("/");
        let group = [&*event.region, ingress::group_id(event)?].join("/");
        Ok(Observations::none().distinct("groups", actor, group, self.settings.window_s))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let groups = known.count("groups");
        if !groups.reaches(u64::from(self.settings.groups_min)) {
            return Ok(None);
        }
        Ok(Some(
            Evidence::about(event.principal())
                .titled(format!("{} security groups opened to the world by one principal", groups.now))
                .fact("groups", groups.values)
                .fact("window_s", self.settings.window_s),
        ))
    }
}
