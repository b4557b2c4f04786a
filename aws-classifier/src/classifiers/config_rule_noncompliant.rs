//! Resource breaks an AWS Config rule.
//!
//! **What it detects.** AWS Config found a resource that breaks one of the rules you care about: by default those
//! about security groups that are open to the world.
//!
//! **Why it matters.** Config sees the resource as it is, however it came to be so: also changes that no record we
//! read tells of.
//!
//! **False positives.** A rule that is too strict for its resource. Name the rules you want in `rules`; `["*"]` wants
//! all.
//!
//! **Response.** None of its own: what broke the rule has its own finding with what to undo. Look at the resource.
//!
//! **References.**
//! <https://docs.aws.amazon.com/config/latest/developerguide/monitor-config-with-cloudwatchevents.html>,
//! <https://docs.aws.amazon.com/config/latest/developerguide/restricted-ssh.html>

use serde::{Deserialize, Serialize};
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::Known;
use shared::ports::Files;

use crate::config_rule::{Change, NON_COMPLIANT, RuleNames};

/// See the module.
pub struct ConfigRuleNoncompliant {
    rules: RuleNames,
}

/// The `[classifiers.config_rule_noncompliant]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Names of Config rules; `*` wants all. Case, `_` and `-` are not told apart, and what conformance packs and
    /// Security Hub put around a name (`securityhub-restricted-ssh-4f2a`) does not matter. Default:
    /// `SG_OPEN_TO_WORLD`, the custom rule of the system before this one, and the managed rules of the restricted-ssh
    /// family with their identifiers.
    pub rules: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rules: RuleNames::default_names() }
    }
}

impl Classifier for ConfigRuleNoncompliant {
    const META: Meta = Meta {
        id: "config_rule_noncompliant",
        title: "Resource breaks an AWS Config rule",
        severity: Severity::High,
        techniques: &["T1562.007"],
        patterns: &[Pattern::Notification { source: "aws.config", detail_type: "Config Rules Compliance Change" }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://docs.aws.amazon.com/config/latest/developerguide/monitor-config-with-cloudwatchevents.html",
            "https://docs.aws.amazon.com/config/latest/developerguide/restricted-ssh.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        Ok(Self { rules: RuleNames::new(&settings.rules)? })
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let change = Change::of(event)?;
        if change.now()? != NON_COMPLIANT || !self.rules.name(change.rule()?) {
            return Ok(None);
        }
        let rule = change.rule()?;
        let title = format!("Resource breaks AWS Config rule {}", rule.chars().take(64).collect::<String>());
        Ok(Some(change.evidence()?.titled(title)))
    }
}
