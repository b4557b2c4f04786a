//! Whether a key is new.

use serde::{Deserialize, Serialize};

use super::known::Seen;
use super::operation::{LATENESS_S, MAX_LAST_ENTRIES};
use crate::time::Timestamp;

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

impl Sighting {
    /// The first of a life, which is told that the key is new.
    pub(super) fn founded(at: Timestamp, event: u64) -> Self {
        Self { first: at, last: at, founder: event, recent: vec![(event, Seen::default())] }
    }

    /// Answers and updates a sighting. A late event before `first` moves it back and is not new: the effect of being new
    /// was had by the event that arrived first, which keeps its answer.
    pub(super) fn add(&mut self, at: Timestamp, event: u64, ttl_s: i64) -> Seen {
        if self.founder == event {
            return Seen::default();
        }
        if let Some((_, answer)) = self.recent.iter().find(|(known, _)| *known == event) {
            return *answer;
        }
        let answer = if at.as_millis().saturating_sub(self.last.as_millis()) > ttl_s * 1000 {
            (self.first, self.last, self.founder) = (at, at, event);
            Seen::default()
        } else if self.first.as_millis().saturating_sub(at.as_millis()) > ttl_s.max(LATENESS_S) * 1000 {
            // So old that it belongs to a life that was forgotten: new then, and no part of this one.
            Seen::default()
        } else {
            let answer = Seen { first: Some(self.first), last: Some(self.last) };
            self.first = self.first.min(at);
            self.last = self.last.max(at);
            answer
        };
        if self.recent.len() >= MAX_LAST_ENTRIES {
            self.recent.remove(0);
        }
        self.recent.push((event, answer));
        answer
    }
}
