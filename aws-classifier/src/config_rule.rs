//! What a "Config Rules Compliance Change" notification says, and which rules are wanted. Two plug-ins ask, one for each
//! direction; none may ask another.

use serde_json::Value;
use shared::classifier::{Evidence, Malformed, SettingsError};
use shared::event::Event;

/// A resource breaks the rule.
pub const NON_COMPLIANT: &str = "NON_COMPLIANT";
/// A resource keeps to the rule.
pub const COMPLIANT: &str = "COMPLIANT";

/// Names of Config rules; `*` is all. Case, `_` and `-` are not told apart, and what conformance packs and Security Hub
/// put around a name (`securityhub-restricted-ssh-4f2a`) does not matter.
#[derive(Clone, Debug)]
pub struct RuleNames(Vec<String>);

impl RuleNames {
    /// The custom rule of the system before this one, and the managed rules of the restricted-ssh family with their
    /// identifiers.
    pub fn default_names() -> Vec<String> {
        let rules = [
            "SG_OPEN_TO_WORLD",
            "restricted-ssh",
            "INCOMING_SSH_DISABLED",
            "restricted-common-ports",
            "RESTRICTED_INCOMING_TRAFFIC",
            "vpc-sg-open-only-to-authorized-ports",
            "vpc-sg-port-restriction-check",
        ];
        rules.map(str::to_owned).to_vec()
    }

    /// From the setting `rules`.
    ///
    /// # Errors
    /// When there is none, or one is empty.
    pub fn new(rules: &[String]) -> Result<Self, SettingsError> {
        let rules: Vec<String> = rules.iter().map(|r| plain(r)).collect();
        if rules.is_empty() || rules.iter().any(String::is_empty) {
            return Err(SettingsError::new("rules", "name at least one rule, or \"*\" for all; no name may be empty"));
        }
        Ok(Self(rules))
    }

    /// Whether they name this rule.
    pub fn name(&self, rule: &str) -> bool {
        let rule = format!("-{}-", plain(rule));
        self.0.iter().any(|wanted| wanted == "*" || rule.contains(&format!("-{wanted}-")))
    }
}

/// Names without what people write differently.
fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace(['_', ' '], "-")
}

/// A resource's compliance with a rule has changed.
#[derive(Clone, Copy, Debug)]
pub struct Change<'e>(&'e Value);

impl<'e> Change<'e> {
    /// What the event tells.
    ///
    /// # Errors
    /// When its detail is not JSON.
    pub fn of(event: &'e Event<'_>) -> Result<Self, Malformed> {
        event.detail().map(Self)
    }

    /// [`NON_COMPLIANT`], [`COMPLIANT`], `NOT_APPLICABLE` or `INSUFFICIENT_DATA`.
    ///
    /// # Errors
    /// When it is missing.
    pub fn now(&self) -> Result<&'e str, Malformed> {
        text(self.0, "/newEvaluationResult/complianceType")
    }

    /// The same before; `None` when the rule had not looked at the resource.
    pub fn before(&self) -> Option<&'e str> {
        text(self.0, "/oldEvaluationResult/complianceType").ok()
    }

    /// The rule's name.
    ///
    /// # Errors
    /// When it is missing.
    pub fn rule(&self) -> Result<&'e str, Malformed> {
        self.either("configRuleName")
    }

    /// The facts about the change, with the topic that joins both directions.
    ///
    /// # Errors
    /// When rule or resource is missing.
    pub fn evidence(&self) -> Result<Evidence, Malformed> {
        let (rule, resource) = (self.rule()?, self.either("resourceId")?);
        let mut evidence = Evidence::about(resource).topic(format!("config_rule/{rule}/{resource}")).fact("rule", rule);
        for (name, value) in [
            ("resource_type", self.either("resourceType").ok()),
            ("compliance_before", self.before()),
            ("annotation", text(self.0, "/newEvaluationResult/annotation").ok()),
        ] {
            if let Some(value) = value {
                evidence = evidence.fact(name, value);
            }
        }
        Ok(evidence)
    }

    /// A field of the detail, else of the result's qualifier.
    fn either(&self, field: &str) -> Result<&'e str, Malformed> {
        const QUALIFIER: &str = "/newEvaluationResult/evaluationResultIdentifier/evaluationResultQualifier";
        text(self.0, &format!("/{field}")).or_else(|_| text(self.0, &format!("{QUALIFIER}/{field}")))
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> Result<&'v str, Malformed> {
    match value.pointer(pointer) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(Malformed::missing(&format!("detail{}", pointer.replace('/', ".")))),
        Some(_) => Err(Malformed::wrong(&format!("detail{}", pointer.replace('/', ".")), "a string")),
    }
}
