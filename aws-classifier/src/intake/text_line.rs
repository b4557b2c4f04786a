//! What the readers of text logs make of a line, and how they read its fields.

use std::borrow::Cow;

use serde_json::{Map, Value};
use shared::Timestamp;
use shared::event::plausible_time;

use super::IntakeError;

/// What a format's reader makes of a line.
pub(super) struct Parsed {
    /// `vpc-flow-logs`.
    pub source: &'static str,
    /// `Flow`.
    pub name: &'static str,
    /// When it happened.
    pub time: Timestamp,
    /// The account, if the line says.
    pub account: String,
    /// The region, if the line says.
    pub region: String,
    /// Everything else.
    pub detail: Map<String, Value>,
}

/// A field that cannot be read.
pub(super) fn bad(field: &'static str, expected: &'static str) -> IntakeError {
    shared::event::RecordError::Wrong { field, expected }.into()
}

/// Reads a time that a record could carry.
pub(super) fn time(text: &str, field: &'static str) -> Result<Timestamp, IntakeError> {
    Ok(plausible_time(text, field)?)
}

/// A text, unless it is `-`, which stands for nothing in both kinds of log.
pub(super) fn given(text: &str) -> Option<Cow<'_, str>> {
    (!matches!(text, "-" | "")).then_some(Cow::Borrowed(text))
}
