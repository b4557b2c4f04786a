//! Contracts between the components of the pipeline.
//!
//! What two crates exchange lives here: the [`Event`] a classifier looks at, the [`Finding`] it
//! makes, the [`Outcome`] of a response, the [`Incident`] that remembers all of it, the
//! [`Envelope`] they travel in, the traits plug-ins implement and the ports (queue, state, ledger,
//! archive, clock) with their adapters. It builds without the AWS SDK and does no I/O of its own
//! outside [`adapters`].

pub mod action;
pub mod adapters;
pub mod arn;
pub mod canary;
pub mod classifier;
pub mod config;
pub mod envelope;
pub mod event;
pub mod files;
pub mod finding;
pub mod identity;
pub mod incident;
pub mod json_repair;
pub mod json_scan;
pub mod malformed;
pub mod mmdb;
pub mod observation;
pub mod outcome;
pub mod places;
pub mod ports;
mod repeat;
pub mod state_table;
pub mod text;
pub mod time;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use action::{Action, ActionMeta, ApiCall, NotApplicable, Permission, Plan, Settled};
pub use classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
pub use envelope::{Envelope, EnvelopeError, Payload};
pub use event::{Event, RecordError};
pub use finding::{Effect, Finding, FindingId, Severity};
pub use identity::{Identity, PrincipalKind};
pub use incident::{Incident, IncidentId, IncidentStatus};
pub use observation::{Count, Known, LastValues, Observations, Seen};
pub use outcome::{Missed, Outcome, OutcomeStatus, Receipt};
pub use places::{Coordinates, Place, Places};
pub use time::Timestamp;
