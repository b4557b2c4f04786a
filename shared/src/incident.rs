//! The incident record and its status machine.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::finding::{Finding, Severity};
use crate::time::Timestamp;

/// Time-ordered and collision-free: a UUIDv7 whose time is the event's and whose random part comes
/// from the finding id, so a redelivered finding names the same incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(Uuid);

impl IncidentId {
    /// Sorts before every other id.
    pub const MIN: Self = Self(Uuid::nil());
    /// Sorts after every other id.
    pub const MAX: Self = Self(Uuid::max());

    /// The incident that `finding` opens.
    pub fn of(finding: &Finding) -> Self {
        let mut random = [0; 10];
        random.copy_from_slice(&finding.finding_id.as_bytes()[..10]);
        let ms = u64::try_from(finding.event_time.as_millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }

    /// Sorts before the incidents of all events at `at` and later, and after those of earlier ones.
    pub fn first_at(at: Timestamp) -> Self {
        let ms = u64::try_from(at.as_millis()).unwrap_or(0);
        Self(Uuid::from_u128(u128::from(ms) << 80))
    }

    /// The id right before this one; [`Self::MIN`] has none and stays.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(Uuid::from_u128(self.0.as_u128().saturating_sub(1)))
    }

    /// Reads the hyphenated form that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().map(Self)
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an incident stands. It only moves forward: `NEW → PROCESSING → MITIGATED → CLOSED`, steps may
/// be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum IncidentStatus {
    /// Nobody and nothing has acted.
    New,
    /// A response runs, waits for approval or failed. One that was skipped or only shown leaves the incident as it was.
    Processing,
    /// A response succeeded.
    Mitigated,
    /// Over: by a person, or because good news resolved it.
    Closed,
}

impl IncidentStatus {
    /// The later of the two: outcomes may arrive out of order, and status never goes back.
    #[must_use]
    pub fn advanced_to(self, next: Self) -> Self {
        self.max(next)
    }

    /// The upper-case word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Processing => "PROCESSING",
            Self::Mitigated => "MITIGATED",
            Self::Closed => "CLOSED",
        }
    }
}

/// One incident, with the field names of spec §5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// See [`IncidentId`].
    pub incident_id: IncidentId,
    /// Always `incident`.
    #[serde(rename = "type")]
    pub record_type: String,
    /// The finding's title.
    pub event: String,
    /// The classifier id.
    pub event_type: String,
    /// Where the event came from: `iam.amazonaws.com`, `aws.guardduty`.
    pub source: String,
    /// AWS region.
    pub region: String,
    /// 12-digit account.
    pub account: String,
    /// What it was done to; `N/A` when the event names nothing.
    pub resource_id: String,
    /// `INFO`, `LOW`, `MEDIUM`, `HIGH`, `CRITICAL`.
    #[serde(with = "upper_severity")]
    pub severity: Severity,
    /// See [`IncidentStatus`].
    pub status: IncidentStatus,
    /// When the event happened.
    pub timestamp: Timestamp,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Free text by a person; absent until someone writes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The last action tried, absent while none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_action: Option<String>,
    /// Its result, such as `DRY_RUN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_action_result: Option<String>,
    /// `PENDING`, `SENT`, `GROUPED` (told with an earlier alert), `FAILED` or `NOT_TOLD` (the settings keep it from people).
    pub notify_status: String,
    /// The key that good news resolves it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution_key: Option<String>,
    /// Everything else: finding id, event, principal, evidence, outcomes.
    pub details: Value,
}

mod upper_severity {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::finding::Severity;

    pub fn serialize<S: Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&severity.as_str().to_ascii_uppercase())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Severity, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Severity::ALL
            .into_iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(&text))
            .ok_or_else(|| de::Error::custom(format!("unknown severity {text:?}")))
    }
}
