//! What is remembered under a key, and what an operation makes of it: the one place that says so.

use serde::{Deserialize, Serialize};

use super::known::{Answer, Seen};
use super::leaders::{self, Leader};
use super::operation::{LATENESS_S, Op};
use super::rate::{BUCKETS, Rate};
use super::sighting::Sighting;
use super::standing::Standing;
use super::values::{self, Value};
use super::window::{Entry, EntryKind, Window};
use crate::time::Timestamp;

/// What a state adapter stores under one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateRecord {
    /// Entries of a window, oldest first.
    Window(Vec<Entry>),
    /// Values, oldest first.
    Last(Vec<Value>),
    /// A sighting.
    Seen(Sighting),
    /// Leaders, oldest first.
    Leaders(Vec<Leader>),
    /// A rate.
    Rate(Rate),
    /// What began and ended.
    Standing(Standing),
}

impl StateRecord {
    /// Applies `op` of the event (`event`, at `at`) to what is stored under its key and answers.
    ///
    /// A record of another kind (a plug-in changed what a label means) is replaced. The record is never `None`
    /// afterwards.
    pub fn apply(record: &mut Option<Self>, op: &Op, at: Timestamp, event: u64) -> Answer {
        match op {
            Op::Count { weight, window_s } => {
                Answer::Count(Self::window(record).add(at, event, EntryKind::Weight(*weight), *window_s))
            }
            Op::Distinct { value, window_s } => {
                Answer::Count(Self::window(record).add(at, event, EntryKind::Value(value.clone()), *window_s))
            }
            Op::Rate { threshold, window_s } => {
                let bucket_ms = (i64::from(*window_s) * 1000 / BUCKETS).max(1);
                if !matches!(record, Some(Self::Rate(rate)) if rate.bucket_ms == bucket_ms) {
                    *record = Some(Self::Rate(Rate { bucket_ms, ..Rate::default() }));
                }
                let Some(Self::Rate(rate)) = record else { unreachable!("just set") };
                Answer::Count(rate.add(at, event, u64::from(*threshold)))
            }
            Op::Reset { window_s } => {
                Self::window(record).add(at, event, EntryKind::Reset, *window_s);
                Answer::Done
            }
            Op::Remember { value, ttl_s } => {
                Answer::Last(values::last(Self::values(record), Some(value), at, event, *ttl_s))
            }
            Op::Recall { ttl_s } => Answer::Last(values::last(Self::values(record), None, at, event, *ttl_s)),
            Op::See { ttl_s } => {
                if let Some(Self::Seen(sighting)) = record {
                    return Answer::Seen(sighting.add(at, event, i64::from(*ttl_s)));
                }
                *record = Some(Self::Seen(Sighting::founded(at, event)));
                Answer::Seen(Seen::default())
            }
            Op::Stand { begins, ends, ttl_s } => {
                if !matches!(record, Some(Self::Standing(_))) {
                    *record = Some(Self::Standing(Standing::default()));
                }
                let Some(Self::Standing(standing)) = record else { unreachable!("just set") };
                Answer::Stood(standing.add(begins, ends, at, event, i64::from(*ttl_s)))
            }
            Op::Lead { window_s } => {
                if !matches!(record, Some(Self::Leaders(_))) {
                    *record = Some(Self::Leaders(Vec::new()));
                }
                let Some(Self::Leaders(leaders)) = record else { unreachable!("just set") };
                Answer::Turn(leaders::lead(leaders, at, event, i64::from(*window_s) * 1000))
            }
        }
    }

    fn values(record: &mut Option<Self>) -> &mut Vec<Value> {
        if !matches!(record, Some(Self::Last(_))) {
            *record = Some(Self::Last(Vec::new()));
        }
        let Some(Self::Last(values)) = record else { unreachable!("just set") };
        values
    }

    fn window(record: &mut Option<Self>) -> Window<'_> {
        if !matches!(record, Some(Self::Window(_))) {
            *record = Some(Self::Window(Vec::new()));
        }
        let Some(Self::Window(entries)) = record else { unreachable!("just set") };
        Window(entries)
    }

    /// Forgets the oldest eighth of what it keeps; `false` when there is only one entry left. For stores whose records must
    /// not exceed a size: events that arrive late may then be answered as if what came before had not been.
    pub fn forget_oldest(&mut self) -> bool {
        fn forget<T>(entries: &mut Vec<T>) -> bool {
            let many = entries.len().div_ceil(8).min(entries.len().saturating_sub(1));
            entries.drain(..many);
            many > 0
        }
        match self {
            Self::Window(entries) => forget(entries),
            Self::Last(values) => forget(values),
            Self::Seen(sighting) => forget(&mut sighting.recent),
            Self::Leaders(leaders) => forget(leaders),
            Self::Rate(rate) => forget(&mut rate.buckets),
            // An answer can be as long as all the rest, so the last one goes too. Forgetting an end makes something stand,
            // so ends go after answers and before beginnings.
            Self::Standing(Standing { begun, ended, recent }) => {
                forget(recent) || recent.pop().is_some() || forget(ended) || forget(begun)
            }
        }
    }

    /// The event time after which the record answers nothing any more, given the longest life an
    /// operation gave it. Adapters may delete it then, and need not.
    pub fn expires_at(&self, op: &Op) -> Timestamp {
        let (newest, life_s) = match (self, op) {
            (
                Self::Window(entries),
                Op::Count { window_s, .. } | Op::Distinct { window_s, .. } | Op::Reset { window_s },
            ) => (entries.last().map(|e| e.at), i64::from(*window_s)),
            (Self::Last(values), Op::Remember { ttl_s, .. } | Op::Recall { ttl_s }) => {
                (values.last().map(|v| v.at), i64::from(*ttl_s))
            }
            (Self::Rate(rate), Op::Rate { window_s, .. }) => {
                let end = |(bucket, _): &(i64, Vec<u32>)| Timestamp::from_millis((bucket + 1) * rate.bucket_ms);
                (rate.buckets.last().map(end), i64::from(*window_s))
            }
            (Self::Standing(standing), Op::Stand { ttl_s, .. }) => {
                (standing.begun.last().max(standing.ended.last()).map(|(at, _)| *at), i64::from(*ttl_s))
            }
            (Self::Seen(sighting), Op::See { ttl_s }) => (Some(sighting.last), i64::from(*ttl_s)),
            // A leader's followers are told to the next one: kept as long again as it leads.
            (Self::Leaders(leaders), Op::Lead { window_s }) => {
                (leaders.last().map(|l| l.at), i64::from(*window_s).saturating_mul(2))
            }
            _ => (None, 0),
        };
        newest.unwrap_or_default().plus_seconds(life_s.saturating_add(LATENESS_S))
    }
}
