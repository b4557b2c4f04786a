//! What was done about a finding, and who was told.

use serde::{Deserialize, Serialize};

use crate::action::{ApiCall, Plan};
use crate::finding::FindingId;
use crate::time::Timestamp;

/// Where a response stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutcomeStatus {
    /// The policy chose it; nothing has happened yet.
    Triggered,
    /// It is being carried out.
    Running,
    /// All calls succeeded, or the wanted state already held.
    Succeeded,
    /// A call failed; `note` says which and why.
    Failed,
    /// The policy refused: exempt principal or resource, cap reached, not applicable.
    Skipped,
    /// A person must approve it first.
    PendingApproval,
    /// Planned and shown, nothing called.
    DryRun,
}

impl OutcomeStatus {
    /// The upper-case word used in JSON and in mails.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Triggered => "TRIGGERED",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::PendingApproval => "PENDING_APPROVAL",
            Self::DryRun => "DRY_RUN",
        }
    }
}

/// Why a response in mode `auto` was not carried out. Of what is carried out people hear, so of what is not they must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// The account had all its responses of the event's hour.
    Cap,
    /// Anything else: exempt, another account, too old, nothing to act on. `note` says what.
    Refused,
}

/// What one response did, or would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `finding_id/action/target`: the key responses are idempotent by.
    pub outcome_id: String,
    /// The finding it answers.
    pub finding_id: FindingId,
    /// Action id, such as `iam_access_key_deactivate`.
    pub action: String,
    /// What it acts on: key id, group id, instance id.
    pub target: String,
    /// Where it stands.
    pub status: OutcomeStatus,
    /// The calls it made, or would make.
    pub plan: Plan,
    /// Why, in one sentence, for a person.
    pub note: String,
    /// Of a skipped response in mode `auto`, why; of all others absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// When it was decided.
    pub decided_at: Timestamp,
}

impl Outcome {
    /// The idempotency key of an action on a target for a finding.
    pub fn key(finding_id: FindingId, action: &str, target: &str) -> String {
        format!("{finding_id}/{action}/{target}")
    }

    /// Calls that take the response back, in the order they would be made.
    pub fn undo(&self) -> &[ApiCall] {
        &self.plan.undo
    }
}

/// Proof that a channel took a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// `channel/finding_id` or `channel/outcome_id`: deliveries are idempotent by it.
    pub receipt_id: String,
    /// The finding the message was about.
    pub finding_id: FindingId,
    /// Channel id: `console`, `file`, `sns`.
    pub channel: String,
    /// The channel's own reference: a path, an SNS message id.
    pub reference: String,
    /// `true` when the channel accepted it.
    pub delivered: bool,
    /// Why not, when it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When.
    pub at: Timestamp,
}
