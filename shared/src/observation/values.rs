//! The last values under a key.

use serde::{Deserialize, Serialize};

use super::known::LastValues;
use super::operation::MAX_LAST_ENTRIES;
use crate::time::Timestamp;

/// One event that remembered a value or recalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// When.
    pub at: Timestamp,
    /// [`crate::Event::key`].
    pub event: u64,
    /// What; `None` when the event only recalled.
    pub value: Option<String>,
    /// The answer it was given, for redelivery.
    pub answer: LastValues,
}

/// Answers the values next to the event and keeps the answer, with the event's own value if it brings one.
pub(super) fn last(
    values: &mut Vec<Value>,
    value: Option<&String>,
    at: Timestamp,
    event: u64,
    ttl_s: u32,
) -> LastValues {
    if let Some(known) = values.iter().find(|v| v.event == event) {
        return known.answer.clone();
    }
    let answer = neighbours(values, at, event, ttl_s);
    let place = values.partition_point(|v| (v.at, v.event) < (at, event));
    values.insert(place, Value { at, event, value: value.cloned(), answer: answer.clone() });
    // Values and recalls are counted apart, so that recalling does not make anything forgotten.
    let same = |v: &Value| v.value.is_some() == value.is_some();
    if values.iter().filter(|v| same(v)).count() > MAX_LAST_ENTRIES
        && let Some(oldest) = values.iter().position(same)
    {
        values.remove(oldest);
    }
    answer
}

fn neighbours(values: &[Value], at: Timestamp, event: u64, ttl_s: u32) -> LastValues {
    let ttl_ms = i64::from(ttl_s) * 1000;
    let others = || values.iter().filter(|v| v.event != event).filter_map(|v| Some((v.at, v.event, v.value.as_ref()?)));
    let previous = others()
        .rfind(|(t, e, _)| (*t, *e) <= (at, event) && at.as_millis().saturating_sub(t.as_millis()) <= ttl_ms)
        .map(|(t, _, value)| (t, value.clone()));
    let next = others()
        .find(|(t, e, _)| (*t, *e) > (at, event) && t.as_millis().saturating_sub(at.as_millis()) <= ttl_ms)
        .map(|(t, _, value)| (t, value.clone()));
    LastValues { previous, next }
}
