//! How findings, outcomes and receipts travel between components.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::outcome::{Outcome, Receipt};
use crate::time::Timestamp;

/// The version every component writes. A reader refuses others, so that a rolling deployment fails loudly
/// into the DLQ instead of misreading quietly.
pub const SCHEMA_VERSION: u32 = 1;

/// A message body between components.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The event id that started it all; the same in every log line about it.
    pub correlation_id: String,
    /// Two envelopes with the same key have one effect.
    pub idempotency_key: String,
    /// When each component let it go, by component: how long a finding takes from stage to stage. Empty on one machine,
    /// where nobody waits and the same input makes the same bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passed: BTreeMap<String, Timestamp>,
    /// Ids of the actions that answer the finding it carries, as the responder's policy chose them when it passed the
    /// finding on. Of those that a classifier suggests not every one is in this version, or turned on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// What it carries.
    #[serde(flatten)]
    pub payload: Payload,
}

/// What an envelope carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "payload", rename_all = "snake_case")]
pub enum Payload {
    /// A finding, passed on at once.
    Finding(Box<Finding>),
    /// The outcome of a response, with the finding it answers.
    Outcome {
        /// The finding.
        finding: Box<Finding>,
        /// What was done.
        outcome: Box<Outcome>,
    },
    /// A delivery receipt, notifier to logger.
    Receipt(Box<Receipt>),
}

/// Why a message body is not an envelope. Always permanent: the same bytes will never parse.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not JSON, or not of this shape.
    #[error("message body is not an envelope")]
    Shape(#[source] serde_json::Error),
    /// Written by another version.
    #[error("envelope has schema version {found}, this component reads {SCHEMA_VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
}

impl Envelope {
    /// Wraps a finding.
    pub fn finding(finding: Finding) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            correlation_id: finding.event_id.clone(),
            idempotency_key: format!("finding/{}", finding.finding_id),
            passed: BTreeMap::new(),
            answers: Vec::new(),
            payload: Payload::Finding(Box::new(finding)),
        }
    }

    /// Wraps an outcome with its finding. Each status travels once.
    pub fn outcome(finding: Finding, outcome: Outcome) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            correlation_id: finding.event_id.clone(),
            idempotency_key: format!("outcome/{}/{}", outcome.outcome_id, outcome.status.as_str()),
            passed: BTreeMap::new(),
            answers: Vec::new(),
            payload: Payload::Outcome { finding: Box::new(finding), outcome: Box::new(outcome) },
        }
    }

    /// Wraps a delivery receipt.
    pub fn receipt(correlation_id: String, receipt: Receipt) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            correlation_id,
            idempotency_key: format!("receipt/{}", receipt.receipt_id),
            passed: BTreeMap::new(),
            answers: Vec::new(),
            payload: Payload::Receipt(Box::new(receipt)),
        }
    }

    /// Notes when `component` let it go; the first time counts.
    #[must_use]
    pub fn passed_by(mut self, component: &str, at: Timestamp) -> Self {
        self.passed.entry(component.to_owned()).or_insert(at);
        self
    }

    /// The message body.
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).expect("an envelope has string keys and finite numbers only")
    }

    /// Reads a message body.
    ///
    /// # Errors
    /// See [`EnvelopeError`]; all permanent.
    pub fn from_body(body: &str) -> Result<Self, EnvelopeError> {
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let Version { schema_version } = serde_json::from_str(body).map_err(EnvelopeError::Shape)?;
        if schema_version != SCHEMA_VERSION {
            return Err(EnvelopeError::Version { found: schema_version });
        }
        serde_json::from_str(body).map_err(EnvelopeError::Shape)
    }
}
