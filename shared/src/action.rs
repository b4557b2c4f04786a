//! The contract of a response plug-in.
//!
//! An action turns a finding into a [`Plan`]: the exact API calls it would make and the calls that
//! undo them. Whether a plan is carried out is decided by the responder's policy; before it is, the plan's reads are made
//! and the action settles the plan on what they answer. All of that is pure: an action never calls anything itself.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::classifier::SettingsError;
use crate::finding::Finding;
use crate::text::one_line;

/// A text longer than this is cut when shown: a screen line or two. The plan itself keeps it whole.
const SHOWN_MAX: usize = 400;
/// Structured parameters must be shown whole, or the line is not the call: room for sixty security group permissions,
/// EC2's default limit of rules in a group.
const SHOWN_STRUCTURE_MAX: usize = 8000;

/// One AWS API call, written so that a person can read it and a client can make it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiCall {
    /// Service prefix as in IAM: `iam`, `ec2`.
    pub service: String,
    /// Operation as in the API reference: `UpdateAccessKey`.
    pub operation: String,
    /// The account it must run in.
    pub account: String,
    /// The region it must run in; global services use `us-east-1`.
    pub region: String,
    /// Parameters with the API's own names.
    pub parameters: Value,
}

/// One line for a person, attacker-controlled text neutralised:
/// `iam:UpdateAccessKey AccessKeyId=AKIA… Status=Inactive UserName=alice (account 123456789012, us-east-1)`.
impl fmt::Display for ApiCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", one_line(&self.service, SHOWN_MAX), one_line(&self.operation, SHOWN_MAX))?;
        match &self.parameters {
            Value::Null => {}
            Value::Object(parameters) => {
                for (name, value) in parameters {
                    write!(f, " {}={}", one_line(name, SHOWN_MAX), shown(value))?;
                }
            }
            other => write!(f, " {}", shown(other))?,
        }
        write!(f, " (account {}, {})", one_line(&self.account, SHOWN_MAX), one_line(&self.region, SHOWN_MAX))
    }
}

/// Plain words stay plain; anything that could be mistaken for the next parameter is quoted.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text)
            if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/@+*,".contains(c)) =>
        {
            one_line(text, SHOWN_MAX)
        }
        Value::Array(_) | Value::Object(_) => one_line(&value.to_string(), SHOWN_STRUCTURE_MAX),
        other => one_line(&other.to_string(), SHOWN_MAX),
    }
}

/// What an action would do for one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Calls that only look: made first, so that the change is computed from live state.
    pub reads: Vec<ApiCall>,
    /// Calls that change something, in order.
    pub calls: Vec<ApiCall>,
    /// Calls that take the change back, in order: each that of the call at its own place in `calls`.
    pub undo: Vec<ApiCall>,
}

/// What live state makes of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// The plan with only what still changes something, and the undo of exactly that. Without calls the wanted state holds
    /// already.
    pub plan: Plan,
    /// What the calls will change, as it is now. Kept in the journal; below 100 KB.
    pub before: Vec<Value>,
    /// What was found that the plan did not expect, in a few words for a person; may be empty.
    pub note: String,
    /// Why the threat stays open although every call succeeds, in a few words for a person; empty when it does not.
    pub remains: String,
    /// Nothing of what the finding names is to be seen. Right after the event that may only mean that it does not show yet.
    pub is_absent: bool,
}

/// An IAM permission an action needs; policies are generated from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// `iam:UpdateAccessKey`.
    pub action: &'static str,
    /// Resource ARN pattern, as narrow as the API allows, with `${AWS::Partition}` and `${AWS::AccountId}` of
    /// CloudFormation: responses act in the responder's own account only.
    pub resource: &'static str,
    /// Why it is needed, and why the resource cannot be narrower.
    pub why: &'static str,
}

/// What an action declares about itself.
#[derive(Clone, Copy, Debug)]
pub struct ActionMeta {
    /// Snake case, service first; equals the file stem.
    pub id: &'static str,
    /// One line in plain words.
    pub title: &'static str,
    /// IAM permissions its calls need.
    pub permissions: &'static [Permission],
    /// Whether the plan carries `undo` calls.
    pub reversible: bool,
}

/// Why an action has nothing to do for a finding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotApplicable(pub String);

/// A response plug-in. Pure: no I/O, no clock, no environment.
pub trait Action: Send + Sync + 'static {
    /// Its declaration.
    const META: ActionMeta;
    /// Its settings, all defaulted (`serde(default, deny_unknown_fields)`).
    type Settings: DeserializeOwned + Serialize + Default;

    /// Checks the settings.
    ///
    /// # Errors
    /// When a value is out of range.
    fn new(settings: Self::Settings) -> Result<Self, SettingsError>
    where
        Self: Sized;

    /// The targets of this finding, each with its plan; none when it is about nothing that the action acts on.
    ///
    /// # Errors
    /// [`NotApplicable`] when it is, and the action cannot be planned: people are told why.
    fn plan(&self, finding: &Finding) -> Result<Vec<(String, Plan)>, NotApplicable>;

    /// The plan to look at in place of `plan`, when `seen` says that its object is elsewhere by now, or that more has to be read.
    /// `None`, as by default: it can be settled on what was seen.
    fn follow(&self, _plan: &Plan, _seen: &[Value]) -> Option<Plan> {
        None
    }

    /// The plan against live state: `seen[i]` is the answer to `plan.reads[i]`, null when what it asks for does not exist.
    ///
    /// # Errors
    /// [`NotApplicable`] when the answers cannot be understood; nothing is changed then.
    fn settle(&self, finding: &Finding, plan: &Plan, seen: &[Value]) -> Result<Settled, NotApplicable>;

    /// What of a settled call, or of its undo, still changes something in the state `seen`; `None` when what it wants is so
    /// already. This makes carrying out and undoing idempotent.
    ///
    /// # Errors
    /// [`NotApplicable`] when the answers or the call cannot be understood, or when the call can never work again, as its
    /// object is gone.
    fn left(&self, call: &ApiCall, seen: &[Value]) -> Result<Option<ApiCall>, NotApplicable>;

    /// The part of `undo` that takes back `made`, which is what [`Action::left`] has left of the call at its place. All
    /// of it unless an action makes calls in part.
    fn undo_of(&self, undo: &ApiCall, _made: &ApiCall) -> ApiCall {
        undo.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_is_one_line_whatever_its_parameters_say() {
        let mut call = ApiCall {
            service: "iam".to_owned(),
            operation: "UpdateAccessKey".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            parameters: json!({"Status": "Inactive", "UserName": "alice"}),
        };
        assert_eq!(
            call.to_string(),
            "iam:UpdateAccessKey Status=Inactive UserName=alice (account 123456789012, us-east-1)"
        );
        call.parameters = json!({"UserName": "a\nStatus=Active \u{202e}"});
        assert_eq!(
            call.to_string(),
            r#"iam:UpdateAccessKey UserName="a\nStatus=Active ·" (account 123456789012, us-east-1)"#
        );
    }
}
