//! What began and did not end.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::known::Stood;
use super::operation::{LATENESS_S, MAX_LAST_ENTRIES, MAX_STANDING_ENTRIES};
use crate::time::Timestamp;

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

impl Standing {
    pub(super) fn add(
        &mut self,
        begins: &[String],
        ends: &[String],
        at: Timestamp,
        event: u64,
        ttl_s: i64,
    ) -> Vec<Stood> {
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
