//! Questions: what to do with a key, and the limits of what is kept.

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
    /// Names the answer in [`Known`](super::Known) and separates the keys of one classifier.
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
