//! Answers.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The answer of [`Op::Count`](super::Op::Count), [`Op::Distinct`](super::Op::Distinct) and
/// [`Op::Rate`](super::Op::Rate), whose totals end at its threshold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The largest total without this event.
    pub before: u64,
    /// The largest total with it.
    pub now: u64,
    /// The distinct values of the window of `now`, sorted, at most 20; empty for counts.
    pub values: Vec<String>,
}

impl Count {
    /// This event takes the total over the line. For entries that arrive at most [`LATENESS_S`](super::LATENESS_S) late
    /// and stay within the `MAX_*` bounds, in whatever order they arrive and however often:
    ///
    /// * some event reaches the threshold exactly if some window of `window_s` (both ends included) holds it;
    /// * a burst that fits in one window, with nothing else within `window_s` of it, reaches it exactly once;
    /// * an event that reached it says so again when it is delivered again, and one that did not never does.
    ///
    /// A longer trickle may reach it more than once: each time an event completes a window none of whose
    /// neighbours around that event held the threshold without it.
    pub const fn reaches(&self, threshold: u64) -> bool {
        self.before < threshold && self.now >= threshold
    }
}

/// The answer of [`Op::Remember`](super::Op::Remember) and [`Op::Recall`](super::Op::Recall).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastValues {
    /// The newest value at or before the event, other than its own.
    pub previous: Option<(Timestamp, String)>,
    /// The oldest value after the event: it arrived earlier though it happened later.
    pub next: Option<(Timestamp, String)>,
}

impl LastValues {
    /// The newest value that is not later than `at`, the event's time. Times have seconds, so a value of the same
    /// second counts as earlier whatever its place.
    pub fn by(&self, at: Timestamp) -> Option<&(Timestamp, String)> {
        self.next.as_ref().filter(|(t, _)| *t <= at).or(self.previous.as_ref())
    }
}

/// The answer of [`Op::See`](super::Op::See).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When the key was first seen, other than by this event; `None` when it is new or was forgotten.
    pub first: Option<Timestamp>,
    /// The latest sighting that had arrived, other than this event; after this event when it came late.
    pub last: Option<Timestamp>,
}

impl Seen {
    /// Not known, apart from this event.
    pub const fn is_new(&self) -> bool {
        self.first.is_none()
    }
}

/// One thing of the answer of [`Op::Stand`](super::Op::Stand): it began at or before the event and had not ended before
/// it. In whatever order events arrive, what began and did not end is there, as long as it is among the entries kept;
/// of what ended long ago, events that come late may hear that it stood longer than it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stood {
    /// The thing, as it began.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ended, at the event's time or later; `None` when that is not known.
    pub until: Option<Timestamp>,
}

impl Stood {
    /// Whether it goes on after `at`.
    pub fn stands_after(&self, at: Timestamp) -> bool {
        self.until.is_none_or(|until| until > at)
    }
}

/// The answer of [`Op::Lead`](super::Op::Lead). In whatever order events arrive and however often, as long as they are
/// among those kept: every event leads or is at most `window_s` from one that does, and no two leaders are that near to
/// each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// No leader is near this event.
    pub leads: bool,
    /// How many events followed the leader before this one; 0 for followers.
    pub followed: u64,
}

impl Default for Turn {
    /// What an event alone is answered.
    fn default() -> Self {
        Self { leads: true, followed: 0 }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Count`, `Distinct` and `Rate`.
    Count(Count),
    /// To `Remember` and `Recall`.
    Last(LastValues),
    /// To `See`.
    Seen(Seen),
    /// To `Stand`: oldest first, each thing once.
    Stood(Vec<Stood>),
    /// To `Lead`.
    Turn(Turn),
    /// To `Reset`.
    Done,
}

/// What was known, by label. A label that was not observed answers as an empty state does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known(Vec<(&'static str, Answer)>);

impl Known {
    /// From labels and answers.
    pub fn from_answers(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        Self(answers.into_iter().collect())
    }

    fn find(&self, label: &str) -> Option<&Answer> {
        self.0.iter().find(|(l, _)| *l == label).map(|(_, a)| a)
    }

    /// The count under `label`.
    pub fn count(&self, label: &str) -> Count {
        match self.find(label) {
            Some(Answer::Count(count)) => count.clone(),
            _ => Count::default(),
        }
    }

    /// The counts under `label`, in the order they were asked for: one for each value an event adds.
    pub fn counts(&self, label: &str) -> impl Iterator<Item = &Count> {
        self.0.iter().filter(move |(l, _)| *l == label).filter_map(|(_, answer)| match answer {
            Answer::Count(count) => Some(count),
            _ => None,
        })
    }

    /// The last values under `label`.
    pub fn last(&self, label: &str) -> LastValues {
        match self.find(label) {
            Some(Answer::Last(last)) => last.clone(),
            _ => LastValues::default(),
        }
    }

    /// All last values under `label`, in the order they were asked for: one for each key.
    pub fn lasts<'k>(&'k self, label: &'k str) -> impl Iterator<Item = &'k LastValues> {
        self.0.iter().filter(move |(l, _)| *l == label).filter_map(|(_, answer)| match answer {
            Answer::Last(last) => Some(last),
            _ => None,
        })
    }

    /// Whether anything was asked under `label`.
    pub fn has(&self, label: &str) -> bool {
        self.find(label).is_some()
    }

    /// Adds the answers of a further round.
    pub fn extend(&mut self, further: Self) {
        self.0.extend(further.0);
    }

    /// The sighting under `label`.
    pub fn seen(&self, label: &str) -> Seen {
        match self.find(label) {
            Some(Answer::Seen(seen)) => *seen,
            _ => Seen::default(),
        }
    }

    /// What stood, by the keys asked for under `label`, in their order.
    pub fn stood<'k>(&'k self, label: &'k str) -> impl Iterator<Item = &'k [Stood]> {
        self.0.iter().filter(move |(l, _)| *l == label).filter_map(|(_, answer)| match answer {
            Answer::Stood(stood) => Some(&**stood),
            _ => None,
        })
    }

    /// The turn under `label`.
    pub fn turn(&self, label: &str) -> Turn {
        match self.find(label) {
            Some(Answer::Turn(turn)) => *turn,
            _ => Turn::default(),
        }
    }

    /// Every label with its answer, in the order they were asked for.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, &Answer)> {
        self.0.iter().map(|(label, answer)| (*label, answer))
    }
}
