//! Resource keeps to an AWS Config rule again.
//!
//! **What it detects.** Good news: a resource that broke one of the rules you care about no longer does.
//!
//! **Why it matters.** It ends the open incident, so that people look at what is still broken.
//!
//! **False positives.** None that matter: Config looked at the resource. A resource that a rule no longer applies to,
//! because it was deleted or the rule was narrowed, is no good news and ends nothing.
//!
//! **Response.** None; it resolves the incident of `config_rule_noncompliant`.
//!
//! **References.**
//! <https://docs.aws.amazon.com/config/latest/developerguide/monitor-config-with-cloudwatchevents.html>

use serde::{Deserialize, Serialize};
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::Known;
use shared::ports::Files;

use crate::config_rule::{COMPLIANT, Change, NON_COMPLIANT, RuleNames};

/// See the module.
pub struct ConfigRuleCompliant {
    rules: RuleNames,
}

/// The `[classifiers.config_rule_compliant]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Names of Config rules, as in `config_rule_noncompliant`; change both together. Default: the same.
    pub rules: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rules: RuleNames::default_names() }
    }
}

impl Classifier for ConfigRuleCompliant {
    const META: Meta = Meta {
        id: "config_rule_compliant",
        title: "Resource keeps to an AWS Config rule again",
        severity: Severity::Info,
        techniques: &[],
        patterns: &[Pattern::Notification { source: "aws.config", detail_type: "Config Rules Compliance Change" }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://docs.aws.amazon.com/config/latest/developerguide/monitor-config-with-cloudwatchevents.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        Ok(Self { rules: RuleNames::new(&settings.rules)? })
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let change = Change::of(event)?;
        let is_repaired = change.now()? == COMPLIANT && change.before() == Some(NON_COMPLIANT);
        if !is_repaired || !self.rules.name(change.rule()?) {
            return Ok(None);
        }
        let rule = change.rule()?;
        let title = format!("Resource keeps to AWS Config rule {} again", rule.chars().take(64).collect::<String>());
        Ok(Some(change.evidence()?.titled(title).resolves()))
    }
}
