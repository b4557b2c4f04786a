//! What a classifier found.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::identity::Identity;
use crate::time::Timestamp;

/// How bad a finding is. Ordered: `Info < Low < Medium < High < Critical`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth recording, nothing to do; also positive events such as a closed security group.
    Info,
    /// Look at it when there is time.
    Low,
    /// Look at it today.
    Medium,
    /// Look at it now.
    High,
    /// Wake someone.
    Critical,
}

impl Severity {
    /// All severities, least first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// One step less severe; `Info` stays.
    pub const fn lowered(self) -> Self {
        match self {
            Self::Critical => Self::High,
            Self::High => Self::Medium,
            Self::Medium => Self::Low,
            Self::Low | Self::Info => Self::Info,
        }
    }

    /// The lower-case word used in JSON and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Names one finding for ever: a UUIDv5 of the classifier id and the event's identity, so a record
/// that arrives twice makes the same finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FindingId(Uuid);

/// Namespace of finding ids: a random UUID, fixed for ever.
const FINDING_NAMESPACE: Uuid = Uuid::from_u128(0x8f1c_6f0e_52a4_4d27_9c1e_2b0d_77a1_93e5);

impl FindingId {
    /// The id of what `classifier` finds in the event (`account`, `region`, [`crate::Event::identity_id`]).
    pub fn new(classifier: &str, account: &str, region: &str, event_id: &str) -> Self {
        let name = [classifier, account, region, event_id].join("\u{1f}");
        Self(Uuid::new_v5(&FINDING_NAMESPACE, name.as_bytes()))
    }

    /// The sixteen bytes of the UUID.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads the hyphenated form that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().map(Self)
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a finding means for its incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// A threat.
    #[default]
    Threat,
    /// Good news about `resource`: open incidents whose findings share the `resolution_key` close.
    Resolves,
    /// Neither: recorded as closed, told to nobody, answered by nothing.
    Notice,
}

/// One detection, as it travels and as it is printed.
///
/// Text fields copied from the event are attacker-controlled data: escape them where they are shown.
/// Fields that an event does not have are the empty string in JSON, never `"undefined"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// See [`FindingId`].
    pub finding_id: FindingId,
    /// The id of the classifier, such as `iam_access_key_created`.
    pub classifier: String,
    /// One line in plain words, at most 120 characters.
    pub title: String,
    /// After lowering for attempts and overrides.
    pub severity: Severity,
    /// Threat, good news or notice.
    #[serde(default)]
    pub effect: Effect,
    /// The call was denied or failed: what was tried did not happen.
    #[serde(default)]
    pub attempt: bool,
    /// 12-digit account the event happened in.
    pub account: String,
    /// AWS region of the event.
    pub region: String,
    /// The event's own id (CloudTrail `eventID`, EventBridge `id`).
    pub event_id: String,
    /// CloudTrail `eventSource` such as `iam.amazonaws.com`, or the EventBridge source.
    pub event_source: String,
    /// CloudTrail `eventName` such as `CreateAccessKey`, or the detail type.
    pub event_name: String,
    /// When it happened.
    pub event_time: Timestamp,
    /// Who did it: ARN where there is one, else the best name known.
    pub principal: String,
    /// The parts of the identity that responses need.
    pub identity: Identity,
    /// Address or AWS service name the call came from.
    pub source_ip: String,
    /// User agent, as sent.
    pub user_agent: String,
    /// What it was done to: an ARN or id.
    pub resource: String,
    /// ATT&CK technique ids.
    pub techniques: Vec<String>,
    /// Actions the classifier suggests, by id; the responder's policy decides.
    #[serde(default)]
    pub responses: Vec<String>,
    /// Findings about the same thing share this: `classifier/account/region/principal/resource`.
    pub dedup_key: String,
    /// Joins a threat with the good news that ends it: `account/region/topic/resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution_key: Option<String>,
    /// What was seen, by name: small facts a person can check.
    pub evidence: BTreeMap<String, Value>,
}
