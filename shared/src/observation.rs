//! What classifiers remember, and what remembering answers.
//!
//! A classifier never reads or writes state. It asks for [`Observations`]; the engine applies a whole
//! batch through the [`State`](crate::ports::State) port and hands back [`Known`]. The semantics live here,
//! in one pure function ([`StateRecord::apply`]), so that every adapter only loads and stores:
//!
//! * **Idempotent**: an event that was already applied gets the answer it got the first time, as long as it is among
//!   the entries kept (the `MAX_*` bounds below, and [`LATENESS_S`]).
//! * **Order-free**: a count is the largest total over all windows that contain the event, so the event
//!   that arrives last completes the window, whichever it is. What exactly that gives: see [`Count::reaches`].
//! * **Expiry is compared at read**, with event time; nothing depends on when a record is deleted.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Entries kept of one counting window. Thresholds above it cannot be reached; settings refuse them.
pub const MAX_COUNT_ENTRIES: usize = 1000;
/// Entries kept of one window of distinct values.
pub const MAX_DISTINCT_ENTRIES: usize = 256;
/// Values kept of one last-value history, and recalls whose answers are kept.
pub const MAX_LAST_ENTRIES: usize = 16;
/// Beginnings and ends kept of one key: our choice, above the 1,000 rules a security group can have at most (VPC quotas).
pub const MAX_STANDING_ENTRIES: usize = 1024;
/// The highest threshold of a rate: our choice, what one key may take of a store is then 40 KB a window.
pub const MAX_RATE: u32 = 10_000;
/// Longer keys are cut, keeping a hash of the rest; longer values are cut.
pub const MAX_KEY_BYTES: usize = 512;
/// How long past its window an entry is kept for events that arrive late: our choice, well above the
/// 15 minutes CloudTrail promises.
pub const LATENESS_S: i64 = 3600;

/// What to do with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Adds `weight` at the event's time and answers the largest total in any window of `window_s`
    /// seconds around the event.
    Count {
        /// How much this event counts, such as the number of instances it started.
        weight: u32,
        /// Length of the window in seconds.
        window_s: u32,
    },
    /// Adds `value` and answers the largest number of distinct values in any window around the event.
    Distinct {
        /// The value.
        value: String,
        /// Length of the window in seconds.
        window_s: u32,
    },
    /// Counts the event among many, and answers whether it completes `threshold` within `window_s`. For what comes by the
    /// thousand: keeps four bytes an event, none beyond the threshold, and reaches it once in a window. Windows begin at
    /// thirtieths of `window_s`.
    Rate {
        /// What is counted up to, at most [`MAX_RATE`].
        threshold: u32,
        /// Length of the window in seconds.
        window_s: u32,
    },
    /// No window of this key reaches across this event: what came before no longer counts.
    Reset {
        /// Length of the window in seconds.
        window_s: u32,
    },
    /// Remembers `value` and answers the values next to it in time.
    Remember {
        /// The value.
        value: String,
        /// How long it is known, in seconds of event time.
        ttl_s: u32,
    },
    /// Answers the values next to the event in time, adding none.
    Recall {
        /// How long a value is known, in seconds of event time.
        ttl_s: u32,
    },
    /// Notes that the key was seen and answers when it was first and last seen before.
    See {
        /// How long the key is known after it was last seen, in seconds of event time.
        ttl_s: u32,
    },
    /// Notes what begins and what ends with the event among the things of the key, and answers what stood there until then.
    Stand {
        /// Things that begin, each as its names with spaces between them, such as a rule's own text and its id.
        begins: Vec<String>,
        /// Names of things that end: whatever has one of them. `*` ends everything.
        ends: Vec<String>,
        /// How long a thing is known that does not end, in seconds of event time.
        ttl_s: u32,
    },
    /// Lets one event of the key lead for `window_s` seconds and makes those near it its followers; answers which this
    /// is, and a leader how many followed the one before.
    Lead {
        /// Length of the window in seconds.
        window_s: u32,
    },
}

impl Op {
    /// Whether it adds nothing that other events of the key could be told.
    pub const fn only_asks(&self) -> bool {
        match self {
            Self::Recall { .. } => true,
            Self::Stand { begins, ends, .. } => begins.is_empty() && ends.is_empty(),
            _ => false,
        }
    }
}

/// One thing to remember or recall. One event may add several different values to one `Distinct` key; everything else
/// it asks of one label and key at most once, as the second time is taken for a redelivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Names the answer in [`Known`] and separates the keys of one classifier.
    pub label: &'static str,
    /// The key, such as a principal's ARN.
    pub key: String,
    /// What to do.
    pub op: Op,
}

/// What a classifier wants remembered about one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations(Vec<Observation>);

impl Observations {
    /// Nothing.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    fn with(mut self, label: &'static str, key: impl Into<String>, op: Op) -> Self {
        self.0.push(Observation { label, key: bounded_key(key.into()), op });
        self
    }

    /// [`Op::Count`].
    #[must_use]
    pub fn count(self, label: &'static str, key: impl Into<String>, weight: u32, window_s: u32) -> Self {
        self.with(label, key, Op::Count { weight, window_s })
    }

    /// [`Op::Rate`].
    #[must_use]
    pub fn rate(self, label: &'static str, key: impl Into<String>, threshold: u32, window_s: u32) -> Self {
        self.with(label, key, Op::Rate { threshold, window_s })
    }

    /// [`Op::Distinct`].
    #[must_use]
    pub fn distinct(
        self,
        label: &'static str,
        key: impl Into<String>,
        value: impl Into<String>,
        window_s: u32,
    ) -> Self {
        self.with(label, key, Op::Distinct { value: bounded_key(value.into()), window_s })
    }

    /// [`Op::Reset`].
    #[must_use]
    pub fn reset(self, label: &'static str, key: impl Into<String>, window_s: u32) -> Self {
        self.with(label, key, Op::Reset { window_s })
    }

    /// [`Op::Remember`].
    #[must_use]
    pub fn remember(self, label: &'static str, key: impl Into<String>, value: impl Into<String>, ttl_s: u32) -> Self {
        self.with(label, key, Op::Remember { value: bounded_key(value.into()), ttl_s })
    }

    /// [`Op::Recall`].
    #[must_use]
    pub fn recall(self, label: &'static str, key: impl Into<String>, ttl_s: u32) -> Self {
        self.with(label, key, Op::Recall { ttl_s })
    }

    /// [`Op::See`].
    #[must_use]
    pub fn see(self, label: &'static str, key: impl Into<String>, ttl_s: u32) -> Self {
        self.with(label, key, Op::See { ttl_s })
    }

    /// [`Op::Stand`]; with nothing that begins or ends, it only asks.
    #[must_use]
    pub fn stand(
        self,
        label: &'static str,
        key: impl Into<String>,
        begins: impl IntoIterator<Item = String>,
        ends: impl IntoIterator<Item = String>,
        ttl_s: u32,
    ) -> Self {
        let bounded = |texts: &mut dyn Iterator<Item = String>| texts.map(bounded_key).collect();
        let (begins, ends) = (bounded(&mut begins.into_iter()), bounded(&mut ends.into_iter()));
        self.with(label, key, Op::Stand { begins, ends, ttl_s })
    }

    /// [`Op::Lead`].
    #[must_use]
    pub fn lead(self, label: &'static str, key: impl Into<String>, window_s: u32) -> Self {
        self.with(label, key, Op::Lead { window_s })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The observations in the order they were asked for.
    pub fn into_vec(self) -> Vec<Observation> {
        self.0
    }
}

/// Cuts over-long text, keeping it distinct by a hash of the whole.
fn bounded_key(text: String) -> String {
    if text.len() <= MAX_KEY_BYTES {
        return text;
    }
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes());
    let mut end = MAX_KEY_BYTES - 40;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…{hash}", &text[..end])
}

/// The answer of [`Op::Count`], [`Op::Distinct`] and [`Op::Rate`], whose totals end at its threshold.
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
    /// This event takes the total over the line. For entries that arrive at most [`LATENESS_S`] late and stay within
    /// the `MAX_*` bounds, in whatever order they arrive and however often:
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

/// The answer of [`Op::Remember`] and [`Op::Recall`].
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

/// The answer of [`Op::See`].
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

/// One thing of the answer of [`Op::Stand`]: it began at or before the event and had not ended before it. In whatever
/// order events arrive, what began and did not end is there, as long as it is among the entries kept; of what
/// ended long ago, events that come late may hear that it stood longer than it did.
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

/// The answer of [`Op::Lead`]. In whatever order events arrive and however often, as long as they are among those kept:
/// every event leads or is at most `window_s` from one that does, and no two leaders are that near to each other.
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
    /// From labels and answers; what tests write literally.
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

/// What began and ended under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Things and when they began, oldest first; at most [`MAX_STANDING_ENTRIES`].
    pub begun: Vec<(Timestamp, String)>,
    /// Names and when what has them ended, oldest first; at most [`MAX_STANDING_ENTRIES`].
    pub ended: Vec<(Timestamp, String)>,
    /// The last events that arrived and their answers, for redelivery; at most [`MAX_LAST_ENTRIES`].
    pub recent: Vec<(u64, Vec<Stood>)>,
}

/// Events in buckets of a thirtieth of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Length of a bucket; another one than the operation's makes the record void.
    pub bucket_ms: i64,
    /// Bucket number, and the events in it as the lower halves of their keys, sorted.
    pub buckets: Vec<(i64, Vec<u32>)>,
    /// The events that reached the threshold, and when they happened; at most [`MAX_LAST_ENTRIES`].
    pub reached: Vec<(Timestamp, u64)>,
}

/// One event in a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// [`crate::Event::key`].
    pub event: u64,
    /// What it adds.
    pub what: EntryKind,
    /// The answer it was given, for redelivery.
    pub answer: Count,
}

impl Entry {
    fn value(&self) -> Option<&str> {
        match &self.what {
            EntryKind::Value(value) => Some(value),
            EntryKind::Weight(_) | EntryKind::Reset => None,
        }
    }
}

/// What an event adds to a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A weight.
    Weight(u32),
    /// A value.
    Value(String),
    /// A border no window crosses.
    Reset,
}

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

/// One event that led.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// When.
    pub at: Timestamp,
    /// [`crate::Event::key`].
    pub event: u64,
    /// The answer it was given, for redelivery.
    pub followed: u64,
    /// How many events follow it.
    pub followers: u64,
    /// The last of them, for redelivery; at most [`MAX_LAST_ENTRIES`].
    pub recent: Vec<u64>,
}

/// When a key was seen, in its present life: sightings no more than the time to live apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// First time.
    pub first: Timestamp,
    /// Last time.
    pub last: Timestamp,
    /// The event that arrived first, and so was told the key is new.
    pub founder: u64,
    /// The last events that arrived and their answers, for redelivery; at most [`MAX_LAST_ENTRIES`].
    pub recent: Vec<(u64, Seen)>,
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
            Op::Remember { value, ttl_s } => Answer::Last(Self::last(record, Some(value), at, event, *ttl_s)),
            Op::Recall { ttl_s } => Answer::Last(Self::last(record, None, at, event, *ttl_s)),
            Op::See { ttl_s } => Answer::Seen(see(record, at, event, i64::from(*ttl_s))),
            Op::Stand { begins, ends, ttl_s } => {
                if !matches!(record, Some(Self::Standing(_))) {
                    *record = Some(Self::Standing(Standing::default()));
                }
                let Some(Self::Standing(standing)) = record else { unreachable!("just set") };
                Answer::Stood(standing.add(begins, ends, at, event, i64::from(*ttl_s)))
            }
            Op::Lead { window_s } => Answer::Turn(lead(record, at, event, i64::from(*window_s) * 1000)),
        }
    }

    /// Answers the values next to the event and keeps the answer, with the event's own value if it brings one.
    fn last(record: &mut Option<Self>, value: Option<&String>, at: Timestamp, event: u64, ttl_s: u32) -> LastValues {
        if !matches!(record, Some(Self::Last(_))) {
            *record = Some(Self::Last(Vec::new()));
        }
        let Some(Self::Last(values)) = record else { unreachable!("just set") };
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

impl Standing {
    fn add(&mut self, begins: &[String], ends: &[String], at: Timestamp, event: u64, ttl_s: i64) -> Vec<Stood> {
        if let Some((_, answer)) = self.recent.iter().find(|(known, _)| *known == event) {
            return answer.clone();
        }
        for (marks, whats) in [(&mut self.begun, begins), (&mut self.ended, ends)] {
            for what in whats {
                let mark = (at, what.clone());
                if let Err(place) = marks.binary_search(&mark) {
                    marks.insert(place, mark);
                }
            }
        }
        let answer = self.until(at, ttl_s);
        self.forget(ttl_s);
        if self.recent.len() >= MAX_LAST_ENTRIES {
            self.recent.remove(0);
        }
        self.recent.push((event, answer.clone()));
        answer
    }

    /// What stood until `at`.
    fn until(&self, at: Timestamp, ttl_s: i64) -> Vec<Stood> {
        let (ends, mut known) = (Ends::of(&self.ended), HashSet::new());
        let begun = self.begun.iter().filter(|(since, _)| *since <= at && at.seconds_since(*since) <= ttl_s);
        let stood =
            begun.map(|(since, what)| Stood { what: what.clone(), since: *since, until: ends.of_thing(*since, what) });
        stood.filter(|s| s.until.is_none_or(|until| until >= at) && known.insert(s.what.clone())).collect()
    }

    /// Forgets what ended and is late for nobody any more, earlier ends of the same name, and what is too old or too much:
    /// of that, first what has ended.
    fn forget(&mut self, ttl_s: i64) {
        let Some((newest, _)) = self.begun.last().max(self.ended.last()).cloned() else { return };
        let is_past = |at: Timestamp, life_s: i64| newest.seconds_since(at) > life_s.saturating_add(LATENESS_S);
        let ends = Ends::of(&self.ended);
        let end = |(since, what): &(Timestamp, String)| ends.of_thing(*since, what);
        self.begun.retain(|b| !is_past(b.0, ttl_s) && end(b).is_none_or(|end| !is_past(end, 0)));
        let mut surplus = self.begun.len().saturating_sub(MAX_STANDING_ENTRIES);
        if surplus > 0 {
            self.begun.retain(|b| {
                let goes = surplus > 0 && end(b).is_some();
                surplus -= usize::from(goes);
                !goes
            });
            self.begun.drain(..surplus);
        }
        let mut later = HashSet::new();
        let mut ended = std::mem::take(&mut self.ended);
        ended.reverse();
        ended.retain(|(at, name)| (later.insert(name.clone()) || !is_past(*at, 0)) && !is_past(*at, ttl_s));
        ended.truncate(MAX_STANDING_ENTRIES);
        ended.reverse();
        self.ended = ended;
    }
}

/// When names ended, ascending.
struct Ends<'s>(HashMap<&'s str, Vec<Timestamp>>);

impl<'s> Ends<'s> {
    fn of(ended: &'s [(Timestamp, String)]) -> Self {
        let mut ends: HashMap<&str, Vec<Timestamp>> = HashMap::new();
        for (at, name) in ended {
            ends.entry(name).or_default().push(*at);
        }
        Self(ends)
    }

    /// When the thing that began then ended. Times have seconds, so an end of the same second is one of what was before: a
    /// thing that was replaced would seem gone otherwise.
    fn of_thing(&self, since: Timestamp, what: &str) -> Option<Timestamp> {
        let first_after = |name: &str| {
            let times = self.0.get(name)?;
            times.get(times.partition_point(|at| *at <= since)).copied()
        };
        what.split(' ').chain(["*"]).filter_map(first_after).min()
    }
}

/// Answers and updates a sighting. A late event before `first` moves it back and is not new: the effect of being new
/// was had by the event that arrived first, which keeps its answer.
fn see(record: &mut Option<StateRecord>, at: Timestamp, event: u64, ttl_s: i64) -> Seen {
    let Some(StateRecord::Seen(s)) = record else {
        let recent = vec![(event, Seen::default())];
        *record = Some(StateRecord::Seen(Sighting { first: at, last: at, founder: event, recent }));
        return Seen::default();
    };
    if s.founder == event {
        return Seen::default();
    }
    if let Some((_, answer)) = s.recent.iter().find(|(known, _)| *known == event) {
        return *answer;
    }
    let answer = if at.as_millis().saturating_sub(s.last.as_millis()) > ttl_s * 1000 {
        (s.first, s.last, s.founder) = (at, at, event);
        Seen::default()
    } else if s.first.as_millis().saturating_sub(at.as_millis()) > ttl_s.max(LATENESS_S) * 1000 {
        // So old that it belongs to a life that was forgotten: new then, and no part of this one.
        Seen::default()
    } else {
        let answer = Seen { first: Some(s.first), last: Some(s.last) };
        s.first = s.first.min(at);
        s.last = s.last.max(at);
        answer
    };
    if s.recent.len() >= MAX_LAST_ENTRIES {
        s.recent.remove(0);
    }
    s.recent.push((event, answer));
    answer
}

fn lead(record: &mut Option<StateRecord>, at: Timestamp, event: u64, window_ms: i64) -> Turn {
    if !matches!(record, Some(StateRecord::Leaders(_))) {
        *record = Some(StateRecord::Leaders(Vec::new()));
    }
    let Some(StateRecord::Leaders(leaders)) = record else { unreachable!("just set") };
    let follower = Turn { leads: false, followed: 0 };
    if let Some(known) = leaders.iter().find(|l| l.event == event) {
        return Turn { leads: true, followed: known.followed };
    }
    if leaders.iter().any(|l| l.recent.contains(&event)) {
        return follower;
    }
    let distance = |l: &Leader| l.at.as_millis().abs_diff(at.as_millis());
    if let Some(leader) = leaders.iter_mut().min_by_key(|l| distance(l))
        && distance(leader) <= window_ms.unsigned_abs()
    {
        leader.followers += 1;
        if leader.recent.len() >= MAX_LAST_ENTRIES {
            leader.recent.remove(0);
        }
        leader.recent.push(event);
        return follower;
    }
    let place = leaders.partition_point(|l| (l.at, l.event) < (at, event));
    let followed = place.checked_sub(1).map_or(0, |before| leaders[before].followers);
    leaders.insert(place, Leader { at, event, followed, followers: 0, recent: Vec::new() });
    if leaders.len() > MAX_LAST_ENTRIES {
        leaders.remove(0);
    }
    Turn { leads: true, followed }
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

/// Buckets in a window of a rate.
const BUCKETS: i64 = 30;

impl Rate {
    fn add(&mut self, at: Timestamp, event: u64, threshold: u64) -> Count {
        let count = |before: u64, now: u64| Count { before, now, values: Vec::new() };
        if self.reached.iter().any(|(_, known)| *known == event) {
            return count(threshold.saturating_sub(1), threshold);
        }
        let bucket = at.as_millis().div_euclid(self.bucket_ms);
        let newest = self.buckets.last().map_or(bucket, |(newest, _)| bucket.max(*newest));
        let oldest_kept = newest - 2 * BUCKETS - LATENESS_S * 1000 / self.bucket_ms;
        let expired = self.buckets.partition_point(|(number, _)| *number < oldest_kept);
        self.buckets.drain(..expired);
        let before = self.largest_around(bucket);
        if before >= threshold || bucket < oldest_kept {
            return count(before, before);
        }
        let place = self.buckets.partition_point(|(number, _)| *number < bucket);
        if self.buckets.get(place).is_none_or(|(number, _)| *number != bucket) {
            self.buckets.insert(place, (bucket, Vec::new()));
        }
        let ids = &mut self.buckets[place].1;
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        let id = event as u32;
        let Err(free) = ids.binary_search(&id) else { return count(before, before) };
        ids.insert(free, id);
        let window_ms = BUCKETS * self.bucket_ms;
        let is_near = |other: Timestamp| (other.as_millis() - at.as_millis()).abs() <= window_ms;
        if before + 1 < threshold || self.reached.iter().any(|(other, _)| is_near(*other)) {
            // Short of it, or reached already in this window: a steady flood reaches it once in a window.
            return count(before + 1, before + 1);
        }
        if self.reached.len() >= MAX_LAST_ENTRIES {
            self.reached.remove(0);
        }
        self.reached.push((at, event));
        count(before, before + 1)
    }

    /// The largest total over all windows that contain the bucket.
    fn largest_around(&self, bucket: i64) -> u64 {
        let from = self.buckets.partition_point(|(number, _)| *number <= bucket - BUCKETS);
        let to = self.buckets.partition_point(|(number, _)| *number < bucket + BUCKETS);
        let near = &self.buckets[from..to];
        let (mut largest, mut total, mut right) = (0, 0, 0);
        for (left, (first, ids)) in near.iter().enumerate() {
            if *first > bucket {
                break;
            }
            while right < near.len() && near[right].0 < first + BUCKETS {
                total += near[right].1.len() as u64;
                right += 1;
            }
            if left < right {
                largest = largest.max(total);
                total -= ids.len() as u64;
            }
        }
        // A window that begins at the bucket itself, when nothing is in it yet.
        let own: u64 = near.iter().filter(|(n, _)| *n >= bucket).map(|(_, ids)| ids.len() as u64).sum();
        largest.max(own)
    }
}

struct Window<'r>(&'r mut Vec<Entry>);

impl Window<'_> {
    fn add(&mut self, at: Timestamp, event: u64, what: EntryKind, window_s: u32) -> Count {
        if let Some(known) = self.0.iter().find(|e| e.event == event && e.what == what) {
            return known.answer.clone();
        }
        let limit = if matches!(what, EntryKind::Value(_)) { MAX_DISTINCT_ENTRIES } else { MAX_COUNT_ENTRIES };
        let newest = self.0.last().map_or(at, |e| e.at.max(at));
        let oldest_kept = newest.plus_seconds(-(i64::from(window_s).saturating_mul(2) + LATENESS_S));
        let expired = self.0.partition_point(|e| e.at < oldest_kept);
        if expired > 0 {
            self.0.drain(..expired);
        }

        let place = self.0.partition_point(|e| (e.at, e.event) < (at, event));
        let is_reset = what == EntryKind::Reset;
        self.0.insert(place, Entry { at, event, what, answer: Count::default() });
        let answer = if is_reset { Count::default() } else { self.largest_around(place, i64::from(window_s) * 1000) };
        self.0[place].answer = answer.clone();
        if self.0.len() > limit {
            let victim = self.redundant(i64::from(window_s) * 1000).unwrap_or(0);
            self.0.remove(victim);
        }
        answer
    }

    /// An entry that no answer depends on: every window that holds it holds the same value once more, and it never
    /// completed one. Without this, repeating one value would push the others out and hide their number.
    fn redundant(&self, window_ms: i64) -> Option<usize> {
        let entries = &*self.0;
        let mut places: HashMap<&str, (Option<usize>, usize)> = HashMap::new();
        let mut since_reset = 0;
        for (i, entry) in entries.iter().enumerate() {
            match &entry.what {
                EntryKind::Weight(_) => return None,
                EntryKind::Reset => since_reset = i,
                EntryKind::Value(value) => {
                    let Some((before, middle)) = places.get(&**value).copied() else {
                        places.insert(value, (None, i));
                        continue;
                    };
                    if let Some(before) = before
                        && before >= since_reset
                        && entry.at.as_millis().saturating_sub(entries[before].at.as_millis()) <= window_ms
                        && entries[middle].answer.before == entries[middle].answer.now
                    {
                        return Some(middle);
                    }
                    places.insert(value, (Some(middle), i));
                }
            }
        }
        None
    }

    /// The largest total over all windows of `window_ms` (both ends included) that contain entry `place` and no reset,
    /// without and with that entry. Two pointers over the entries near it.
    fn largest_around(&self, place: usize, window_ms: i64) -> Count {
        let entries = &*self.0;
        let is_reset = |e: &Entry| e.what == EntryKind::Reset;
        let from = entries[..place].iter().rposition(is_reset).map_or(0, |i| i + 1);
        let to = entries[place..].iter().position(is_reset).map_or(entries.len(), |i| place + i);
        let at = entries[place].at.as_millis();
        let from = from + entries[from..place].partition_point(|e| e.at.as_millis().saturating_add(window_ms) < at);
        let to = place + entries[place..to].partition_point(|e| e.at.as_millis() <= at.saturating_add(window_ms));
        let near = &entries[from..to];
        let mine = place - from;
        let mut answer = Count::default();
        let mut totals = Totals::of(near);
        let mut best: Option<(usize, usize)> = None;
        let mut right = 0;
        for left in 0..=mine {
            let end = near[left].at.as_millis().saturating_add(window_ms);
            while right < near.len() && near[right].at.as_millis() <= end {
                totals.add(near, right);
                right += 1;
            }
            let now = totals.total;
            answer.before = answer.before.max(totals.without(near, mine));
            if now > answer.now {
                answer.now = now;
                best = Some((left, right));
            }
            if left == 0 && right == near.len() {
                // Every other window is a part of this one.
                break;
            }
            totals.remove(near, left);
        }
        if let Some((left, right)) = best {
            let mut values: Vec<&str> = near[left..right].iter().filter_map(Entry::value).collect();
            values.sort_unstable();
            values.dedup();
            answer.values = values.into_iter().take(VALUES_MAX).map(str::to_owned).collect();
        }
        answer
    }
}

/// Values kept of an answer.
const VALUES_MAX: usize = 20;

/// The total of a window that moves over entries.
struct Totals {
    total: u64,
    /// For each entry the number of its value; empty when there are weights only.
    numbers: Vec<usize>,
    /// How many entries of the window have the value of that number.
    held: Vec<usize>,
}

impl Totals {
    fn of(near: &[Entry]) -> Self {
        if near.iter().all(|entry| entry.value().is_none()) {
            return Self { total: 0, numbers: Vec::new(), held: Vec::new() };
        }
        let mut known: HashMap<&str, usize> = HashMap::with_capacity(near.len());
        let numbers = near
            .iter()
            .map(|entry| {
                let next = known.len();
                entry.value().map_or(0, |value| *known.entry(value).or_insert(next))
            })
            .collect();
        Self { total: 0, numbers, held: vec![0; known.len()] }
    }

    fn held(&mut self, i: usize) -> &mut usize {
        &mut self.held[self.numbers[i]]
    }

    fn add(&mut self, near: &[Entry], i: usize) {
        match &near[i].what {
            EntryKind::Weight(weight) => self.total += u64::from(*weight),
            EntryKind::Value(_) => {
                let held = self.held(i);
                *held += 1;
                self.total += u64::from(*held == 1);
            }
            EntryKind::Reset => {}
        }
    }

    fn remove(&mut self, near: &[Entry], i: usize) {
        match &near[i].what {
            EntryKind::Weight(weight) => self.total -= u64::from(*weight),
            EntryKind::Value(_) => {
                let held = self.held(i);
                *held -= 1;
                self.total -= u64::from(*held == 0);
            }
            EntryKind::Reset => {}
        }
    }

    /// The total without one entry of the window.
    fn without(&mut self, near: &[Entry], i: usize) -> u64 {
        match &near[i].what {
            EntryKind::Weight(weight) => self.total - u64::from(*weight),
            EntryKind::Value(_) => self.total - u64::from(*self.held(i) == 1),
            EntryKind::Reset => self.total,
        }
    }
}

/// One event's observations, as the engine hands them to the state port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObserveRequest<'c> {
    /// The classifier; separates the keys of different classifiers.
    pub classifier: &'c str,
    /// [`crate::Event::key`].
    pub event: u64,
    /// The event's time.
    pub at: Timestamp,
    /// What to remember.
    pub observations: Vec<Observation>,
}

impl ObserveRequest<'_> {
    /// The full key of one of its observations: `classifier/label/key`.
    pub fn state_key(&self, observation: &Observation) -> String {
        [self.classifier, observation.label, &observation.key].join("/")
    }

    /// Applies all observations through `slot`, which lends the record of a key. The key is written into `buffer`, which
    /// is used again and again: most keys are known already.
    pub fn apply_all<E>(
        &self,
        buffer: &mut String,
        mut slot: impl FnMut(&str, &mut dyn FnMut(&mut Option<StateRecord>) -> Timestamp) -> Result<(), E>,
    ) -> Result<Known, E> {
        let mut answers = Vec::with_capacity(self.observations.len());
        for observation in &self.observations {
            let mut answer = Answer::Done;
            buffer.clear();
            for part in [self.classifier, "/", observation.label, "/", &observation.key] {
                buffer.push_str(part);
            }
            slot(buffer, &mut |record| {
                answer = StateRecord::apply(record, &observation.op, self.at, self.event);
                record.as_ref().map_or(self.at, |r| r.expires_at(&observation.op))
            })?;
            answers.push((observation.label, answer));
        }
        Ok(Known(answers))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn rate(record: &mut Option<StateRecord>, second: i64, event: u64) -> Count {
        match StateRecord::apply(record, &Op::Rate { threshold: 1000, window_s: 300 }, T0.plus_seconds(second), event) {
            Answer::Count(count) => count,
            _ => Count::default(),
        }
    }

    #[test]
    fn a_flood_reaches_its_rate_once_in_a_window_and_says_so_again() {
        let mut record = None;
        let hashed = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut reached: Vec<u64> = Vec::new();
        for round in 0..2 {
            let found: Vec<u64> =
                (0..40_000).filter(|i| rate(&mut record, *i as i64 * 280 / 40_000, hashed(*i)).reaches(1000)).collect();
            assert_eq!(found.len(), 1, "round {round}");
            reached.extend(found);
        }
        assert_eq!(reached, [999, 999], "a redelivered flood says what it said");
        let Some(StateRecord::Rate(kept)) = record else { panic!("a rate") };
        assert_eq!(kept.buckets.iter().map(|(_, ids)| ids.len()).sum::<usize>(), 1000);
    }

    proptest! {
        #[test]
        fn a_rate_is_reached_whatever_the_order_and_never_below(
            mut order in Just((0_u64..1000).collect::<Vec<_>>()).prop_shuffle(), twice in 0_usize..1000, short: bool,
        ) {
            if short {
                order.retain(|i| *i != 500);
            }
            order.insert(twice % order.len(), order[twice % order.len()]);
            let mut record = None;
            // Told apart by event: the one that reaches the rate says so again when it is the one delivered twice.
            let reached: HashSet<u64> =
                order.iter().copied().filter(|i| rate(&mut record, *i as i64 / 4, *i).reaches(1000)).collect();
            prop_assert_eq!(reached.len(), usize::from(!short));
        }

        #[test]
        fn few_events_never_reach_a_rate(seconds in prop::collection::vec(0_i64..100_000, 0..999)) {
            let mut record = None;
            for (event, second) in seconds.iter().enumerate() {
                prop_assert!(!rate(&mut record, *second, event as u64).reaches(1000));
            }
        }
    }

    const T0: Timestamp = Timestamp::from_millis(1_772_366_400_000);

    /// An event of the properties: its time in milliseconds after [`T0`] and what it adds to the one key.
    #[derive(Clone, Debug)]
    struct Given {
        ms: i64,
        what: EntryKind,
    }

    fn op(what: &EntryKind, window_s: u32) -> Op {
        match what.clone() {
            EntryKind::Weight(weight) => Op::Count { weight, window_s },
            EntryKind::Value(value) => Op::Distinct { value, window_s },
            EntryKind::Reset => Op::Reset { window_s },
        }
    }

    /// The count that event `i` is answered.
    fn deliver(record: &mut Option<StateRecord>, given: &[Given], i: usize, window_s: u32) -> Count {
        let at = Timestamp::from_millis(T0.as_millis() + given[i].ms);
        match StateRecord::apply(record, &op(&given[i].what, window_s), at, i as u64) {
            Answer::Count(count) => count,
            _ => Count::default(),
        }
    }

    fn total<'e>(entries: impl Iterator<Item = &'e EntryKind>) -> u64 {
        let (mut weight, mut values) = (0, HashSet::new());
        for entry in entries {
            match entry {
                EntryKind::Weight(w) => weight += u64::from(*w),
                EntryKind::Value(v) => drop(values.insert(v)),
                EntryKind::Reset => {}
            }
        }
        weight + values.len() as u64
    }

    /// The largest total of any window between two resets, by trying every window that starts at an event.
    fn largest_of_all(given: &[Given], window_s: u32) -> u64 {
        let mut in_order: Vec<_> = given.iter().enumerate().map(|(i, g)| (g.ms, i, &g.what)).collect();
        in_order.sort_by_key(|(ms, i, _)| (*ms, *i));
        let lives = in_order.split(|(_, _, what)| **what == EntryKind::Reset);
        let windows = lives.flat_map(|life| {
            life.iter().map(move |(start, _, _)| {
                let inside = |ms: i64| ms >= *start && ms <= start + i64::from(window_s) * 1000;
                total(life.iter().filter(|(ms, _, _)| inside(*ms)).map(|(_, _, what)| *what))
            })
        });
        windows.max().unwrap_or(0)
    }

    /// Every event at least once, in the shuffled order, with repeats put in anywhere after or before.
    fn arrivals(order: Vec<usize>, repeats: &[(Index, Index)]) -> Vec<usize> {
        let mut arrivals = order;
        for (which, place) in repeats {
            if arrivals.is_empty() {
                break;
            }
            let event = arrivals[which.index(arrivals.len())];
            arrivals.insert(place.index(arrivals.len() + 1), event);
        }
        arrivals
    }

    fn weights() -> BoxedStrategy<EntryKind> {
        (0..5_u32).prop_map(EntryKind::Weight).boxed()
    }

    fn values() -> BoxedStrategy<EntryKind> {
        (0..6_u8).prop_map(|v| EntryKind::Value(v.to_string())).boxed()
    }

    /// Lengths of windows, half of them such that times of [`burst`] coincide with their ends.
    fn windows() -> impl Strategy<Value = u32> {
        prop_oneof![0..1800_u32, (0..60_u32).prop_map(|n| n * 30)]
    }

    /// Events no further apart than what may arrive late, and an order of arrival. Times are coarse enough to coincide.
    fn burst(
        what: BoxedStrategy<EntryKind>,
        span_ms: std::ops::RangeInclusive<i64>,
    ) -> impl Strategy<Value = (Vec<Given>, Vec<usize>, Vec<(Index, Index)>)> {
        let unit = if *span_ms.end() > 60_000 { 30_000 } else { 250 };
        let given = span_ms.prop_flat_map(move |span| {
            let one = (0..=span, what.clone()).prop_map(move |(ms, what)| Given { ms: ms / unit * unit, what });
            prop::collection::vec(one, 0..30)
        });
        given.prop_flat_map(|given| {
            let order: Vec<usize> = (0..given.len()).collect();
            (Just(given), Just(order).prop_shuffle(), prop::collection::vec(any::<(Index, Index)>(), 0..10))
        })
    }

    fn check_some_event_reaches(
        (given, order, repeats): (Vec<Given>, Vec<usize>, Vec<(Index, Index)>),
        window_s: u32,
        threshold: u64,
    ) -> Result<(), TestCaseError> {
        check_arrivals(&given, arrivals(order, &repeats), window_s, threshold)
    }

    fn check_arrivals(
        given: &[Given],
        arrivals: Vec<usize>,
        window_s: u32,
        threshold: u64,
    ) -> Result<(), TestCaseError> {
        let mut record = None;
        let mut answers: HashMap<usize, Count> = HashMap::new();
        for i in arrivals {
            let answer = deliver(&mut record, given, i, window_s);
            let first = answers.entry(i).or_insert_with(|| answer.clone());
            prop_assert_eq!(&*first, &answer, "event {} was answered differently when delivered again", i);
        }
        let reached = answers.values().filter(|a| a.reaches(threshold)).count();
        prop_assert_eq!(reached > 0, largest_of_all(given, window_s) >= threshold);
        prop_assert!(answers.values().all(|a| a.before <= a.now));
        Ok(())
    }

    fn resets_first(given: &[Given], order: Vec<usize>) -> Vec<usize> {
        let (mut resets, rest): (Vec<_>, Vec<_>) = order.into_iter().partition(|i| given[*i].what == EntryKind::Reset);
        resets.extend(rest);
        resets
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn some_event_reaches_a_count_exactly_if_some_window_holds_it(
            burst in burst(weights(), 0..=LATENESS_S * 1000),
            window_s in windows(),
            threshold in 1..20_u64,
        ) {
            check_some_event_reaches(burst, window_s, threshold)?;
        }

        #[test]
        fn some_event_reaches_a_distinct_count_exactly_if_some_window_holds_it(
            burst in burst(values(), 0..=LATENESS_S * 1000),
            window_s in windows(),
            threshold in 1..7_u64,
        ) {
            check_some_event_reaches(burst, window_s, threshold)?;
        }

        /// A reset that arrives after what it separates cannot take an answer back; those that arrive first must hold.
        #[test]
        fn no_window_reaches_across_a_reset_that_arrived_first(
            (given, order, repeats) in burst(
                prop_oneof![4 => weights(), 1 => Just(EntryKind::Reset).boxed()].boxed(), 0..=600_000),
            window_s in windows(),
            threshold in 1..12_u64,
        ) {
            let arrivals = resets_first(&given, arrivals(order, &repeats));
            check_arrivals(&given, arrivals, window_s, threshold)?;
        }

        #[test]
        fn a_burst_within_one_window_reaches_exactly_once_in_any_order(
            (given, order, repeats) in burst(weights(), 0..=60_000),
            threshold in 1..20_u64,
        ) {
            let mut record = None;
            let mut reached = HashSet::new();
            for i in arrivals(order, &repeats) {
                if deliver(&mut record, &given, i, 60).reaches(threshold) {
                    reached.insert(i);
                }
            }
            let holds = total(given.iter().map(|g| &g.what)) >= threshold;
            prop_assert_eq!(reached.len(), usize::from(holds));
        }

        /// In a longer stream, arriving in order, far more than what is kept: nothing is missed when entries age out.
        #[test]
        fn a_long_stream_in_order_misses_nothing(
            gaps in prop::collection::vec(prop_oneof![9 => 0..40_i64, 1 => 0..20_000_i64], 0..120),
            window_s in 1..100_u32,
            threshold in 1..12_u64,
        ) {
            let mut ms = 0;
            let given: Vec<_> = gaps.into_iter().map(|gap| {
                ms += gap * 1000;
                Given { ms, what: EntryKind::Weight(1) }
            }).collect();
            let order = (0..given.len()).collect();
            check_some_event_reaches((given, order, Vec::new()), window_s, threshold)?;
        }

        #[test]
        fn last_values_and_sightings_answer_a_redelivery_as_the_first_time(
            times in prop::collection::vec(0..5000_i64, 1..MAX_LAST_ENTRIES),
            repeats in prop::collection::vec(any::<(Index, Index)>(), 0..20),
            ttl_s in 1..3000_u32,
        ) {
            for see in [false, true] {
                let mut record = None;
                let mut answers: HashMap<usize, Answer> = HashMap::new();
                for i in arrivals((0..times.len()).collect(), &repeats) {
                    let op = if see { Op::See { ttl_s } } else { Op::Remember { value: i.to_string(), ttl_s } };
                    let answer = StateRecord::apply(&mut record, &op, T0.plus_seconds(times[i]), i as u64);
                    let first = answers.entry(i).or_insert_with(|| answer.clone());
                    prop_assert_eq!(&*first, &answer);
                }
            }
        }

        /// Against a list of everything: what began and did not end stands, whatever the order of arrival.
        #[test]
        fn what_began_and_did_not_end_stands_in_any_order(
            given in prop::collection::vec((0..LATENESS_S, 0..4_usize, any::<bool>(), any::<bool>()), 1..40),
            order in any::<u64>(),
            asked in 0..LATENESS_S,
        ) {
            let ttl_s = 90 * 86_400;
            let mut arrivals: Vec<usize> = (0..given.len()).collect();
            arrivals.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(order | 1));
            let mut record = None;
            for i in arrivals.iter().chain(&arrivals[..arrivals.len().min(5)]).copied() {
                let (second, thing, is_end, by_id) = given[i];
                let name = if by_id { format!("id-{thing}") } else { format!("rule-{thing}") };
                let (begins, ends) =
                    if is_end { (vec![], vec![name]) } else { (vec![format!("rule-{thing} id-{thing}")], vec![]) };
                StateRecord::apply(&mut record, &Op::Stand { begins, ends, ttl_s }, T0.plus_seconds(second), i as u64);
            }
            let op = Op::Stand { begins: vec![], ends: vec![], ttl_s };
            let Answer::Stood(stood) = StateRecord::apply(&mut record, &op, T0.plus_seconds(asked), 1000) else {
                panic!("another answer");
            };
            for thing in 0..4 {
                let times = |is_end: bool| given.iter().filter(move |g| g.1 == thing && g.2 == is_end).map(|g| g.0);
                let end = |since: i64| times(true).filter(|end| *end > since).min();
                let since = times(false).filter(|since| *since <= asked && end(*since).is_none_or(|end| end >= asked)).min();
                let answer = stood.iter().find(|s| s.what == format!("rule-{thing} id-{thing}"));
                prop_assert_eq!(answer.map(|s| s.since), since.map(|s| T0.plus_seconds(s)));
                prop_assert_eq!(answer.and_then(|s| s.until), since.and_then(end).map(|s| T0.plus_seconds(s)));
            }
        }

        /// Whoever arrives first is new, and nobody else while the key is alive.
        #[test]
        fn one_event_of_a_life_is_new_in_any_order(
            times in prop::collection::vec(0..LATENESS_S, 1..40),
            repeats in prop::collection::vec(any::<(Index, Index)>(), 0..20),
        ) {
            let mut record = None;
            let arrivals = arrivals((0..times.len()).collect(), &repeats);
            for &i in &arrivals {
                let op = Op::See { ttl_s: LATENESS_S as u32 };
                let answer = StateRecord::apply(&mut record, &op, T0.plus_seconds(times[i]), i as u64);
                let is_new = matches!(answer, Answer::Seen(seen) if seen.is_new());
                prop_assert_eq!(is_new, i == arrivals[0], "event {}", i);
            }
        }

        /// However they arrive: all are led, no two leaders are near each other, and answers stay what they were.
        #[test]
        fn every_event_is_led_by_exactly_one_that_is_near(
            (given, order, repeats) in burst(weights(), 0..=600_000),
            window_s in 60..400_u32,
        ) {
            let window_ms = i64::from(window_s) * 1000;
            let mut record = None;
            let mut answers: HashMap<usize, bool> = HashMap::new();
            for i in arrivals(order, &repeats) {
                let at = Timestamp::from_millis(T0.as_millis() + given[i].ms);
                let Answer::Turn(turn) = StateRecord::apply(&mut record, &Op::Lead { window_s }, at, i as u64) else {
                    panic!("a turn")
                };
                prop_assert_eq!(*answers.entry(i).or_insert(turn.leads), turn.leads);
            }
            let near = |a: usize, b: usize| (given[a].ms - given[b].ms).abs() <= window_ms;
            let leaders: Vec<usize> = answers.iter().filter(|(_, leads)| **leads).map(|(i, _)| *i).collect();
            for i in answers.keys() {
                prop_assert!(leaders.iter().any(|l| near(*l, *i)), "nobody leads {i}");
            }
            for a in &leaders {
                prop_assert!(leaders.iter().all(|b| a == b || !near(*a, *b)), "two leaders");
            }
        }

        /// The last to arrive of two neighbours sees the other, before or after it.
        #[test]
        fn swapped_neighbours_see_each_other_once(
            a in 0..100_i64, b in 0..100_i64, ttl_s in 0..100_u32,
        ) {
            let mut record = None;
            let mut remember = |event: u64, s: i64| {
                let op = Op::Remember { value: event.to_string(), ttl_s };
                match StateRecord::apply(&mut record, &op, T0.plus_seconds(s), event) {
                    Answer::Last(last) => last,
                    other => panic!("{other:?}"),
                }
            };
            prop_assert_eq!(remember(1, a), LastValues::default());
            let last = remember(2, b);
            let near = (a - b).abs() <= i64::from(ttl_s);
            prop_assert_eq!(last.previous.is_some(), near && a <= b);
            prop_assert_eq!(last.next.is_some(), near && a > b);
        }
    }

    proptest! {
        // Few cases: each applies hundreds of events to a full window.
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// However often one value repeats, the number of distinct values is right: 600 entries in 256 places.
        #[test]
        fn repeating_values_hide_nothing(
            picks in prop::collection::vec((0..100_i64, prop_oneof![30 => 0..2_u8, 1 => 0..9_u8]), 300..600),
        ) {
            let mut given: Vec<_> = picks.into_iter()
                .map(|(s, v)| Given { ms: s * 1000, what: EntryKind::Value(v.to_string()) }).collect();
            given.sort_by_key(|g| g.ms);
            let order = (0..given.len()).collect();
            let threshold = largest_of_all(&given, 120);
            check_some_event_reaches((given, order, Vec::new()), 120, threshold)?;
        }
    }

    #[test]
    fn a_leader_is_told_how_many_followed_the_one_before() {
        let mut record = None;
        let mut turns = |events: &[(u64, i64)]| -> Vec<(bool, u64)> {
            let turn = |&(event, s): &(u64, i64)| match StateRecord::apply(
                &mut record,
                &Op::Lead { window_s: 60 },
                T0.plus_seconds(s),
                event,
            ) {
                Answer::Turn(turn) => (turn.leads, turn.followed),
                other => panic!("{other:?}"),
            };
            events.iter().map(turn).collect()
        };
        let events = [(1, 0), (2, 30), (3, 60), (4, 61), (5, 90), (6, 500)];
        let first = turns(&events);
        assert_eq!(first, [(true, 0), (false, 0), (false, 0), (true, 2), (false, 0), (true, 1)]);
        assert_eq!(turns(&events), first, "delivered again");
    }

    #[test]
    fn what_came_and_went_pushes_out_nothing_that_stands() {
        let mut record = None;
        let mut event = 0;
        let mut stand = |record: &mut _, begins: &[String], ends: &[String], second: i64| {
            event += 1;
            let op = Op::Stand { begins: begins.to_vec(), ends: ends.to_vec(), ttl_s: 90 * 86_400 };
            match StateRecord::apply(record, &op, T0.plus_seconds(second), event) {
                Answer::Stood(stood) => stood.into_iter().map(|s| s.what).collect::<Vec<_>>(),
                _ => Vec::new(),
            }
        };
        stand(&mut record, &["door".to_owned()], &[], 0);
        for second in 0..1000 {
            let decoy = [format!("decoy-{second}")];
            stand(&mut record, &decoy, &[], 2 * second + 1);
            stand(&mut record, &[], &decoy, 2 * second + 2);
        }
        assert_eq!(stand(&mut record, &[], &[], 10_000), ["door"]);
        assert_eq!(stand(&mut record, &[], &[], 91 * 86_400), [""; 0], "known for ninety days");
        let Some(StateRecord::Standing(standing)) = &record else { panic!("another record") };
        assert!(standing.begun.len() <= MAX_STANDING_ENTRIES && standing.ended.len() <= MAX_STANDING_ENTRIES);
        assert_eq!(stand(&mut record, &["a b".to_owned()], &["a".to_owned()], 100 * 86_400), ["a b"]);
        assert_eq!(stand(&mut record, &[], &["*".to_owned()], 100 * 86_400 + 1), ["a b"]);
        assert_eq!(stand(&mut record, &[], &[], 100 * 86_400 + 2), [""; 0]);
    }

    #[test]
    fn one_event_may_add_several_values() {
        let mut record = None;
        let add = |record: &mut _, value: &str| {
            let op = Op::Distinct { value: value.into(), window_s: 60 };
            match StateRecord::apply(record, &op, T0, 1) {
                Answer::Count(count) => count.now,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([add(&mut record, "a"), add(&mut record, "b"), add(&mut record, "a")], [1, 2, 1]);
    }

    #[test]
    fn records_survive_their_stored_form() {
        let mut record = None;
        for (event, op) in [Op::Count { weight: 3, window_s: 60 }, Op::Reset { window_s: 60 }].into_iter().enumerate() {
            StateRecord::apply(&mut record, &op, T0, event as u64);
        }
        let bytes = postcard::to_stdvec(&record).unwrap();
        assert_eq!(postcard::from_bytes::<Option<StateRecord>>(&bytes).unwrap(), record);
    }
}
