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
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::Known;
use shared::ports::Files;

/// See the module.
pub struct ConfigRuleNoncompliant {
    rules: Vec<String>,
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
        let rules = [
            "SG_OPEN_TO_WORLD",
            "restricted-ssh",
            "INCOMING_SSH_DISABLED",
            "restricted-common-ports",
            "RESTRICTED_INCOMING_TRAFFIC",
            "vpc-sg-open-only-to-authorized-ports",
            "vpc-sg-port-restriction-check",
        ];
        Self { rules: rules.map(str::to_owned).to_vec() }
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
        let rules: Vec<String> = settings.rules.iter().map(|r| plain(r)).collect();
        if rules.is_empty() || rules.iter().any(String::is_empty) {
            return Err(SettingsError::new("rules", "name at least one rule, or \"*\" for all; no name may be empty"));
        }
        Ok(Self { rules })
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let detail = event.detail()?;
        let compliance = text(detail, "/newEvaluationResult/complianceType")?;
        if compliance != "NON_COMPLIANT" {
            return Ok(None);
        }
        const QUALIFIER: &str = "/newEvaluationResult/evaluationResultIdentifier/evaluationResultQualifier";
        let qualifier = detail.pointer(QUALIFIER).unwrap_or(&Value::Null);
        let rule = text(detail, "/configRuleName").or_else(|_| text(qualifier, "/configRuleName"))?;
        if !self.is_wanted(rule) {
            return Ok(None);
        }
        let resource = text(detail, "/resourceId").or_else(|_| text(qualifier, "/resourceId"))?;
        let kind = text(detail, "/resourceType").or_else(|_| text(qualifier, "/resourceType"));
        let mut evidence = Evidence::about(resource)
            .titled(format!("Resource breaks AWS Config rule {}", rule.chars().take(64).collect::<String>()))
            .topic(format!("config_rule/{rule}/{resource}"))
            .fact("rule", rule);
        for (name, value) in [
            ("resource_type", kind),
            ("compliance_before", text(detail, "/oldEvaluationResult/complianceType")),
            ("annotation", text(detail, "/newEvaluationResult/annotation")),
        ] {
            if let Ok(value) = value {
                evidence = evidence.fact(name, value);
            }
        }
        Ok(Some(evidence))
    }
}

impl ConfigRuleNoncompliant {
    fn is_wanted(&self, rule: &str) -> bool {
        let rule = format!("-{}-", plain(rule));
        self.rules.iter().any(|wanted| wanted == "*" || rule.contains(&format!("-{wanted}-")))
    }
}

/// Names without what people write differently.
fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace(['_', ' '], "-")
}

fn text<'v>(value: &'v Value, pointer: &str) -> Result<&'v str, Malformed> {
    match value.pointer(pointer) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(Malformed::missing(&format!("detail{}", pointer.replace('/', ".")))),
        Some(_) => Err(Malformed::wrong(&format!("detail{}", pointer.replace('/', ".")), "a string")),
    }
}
