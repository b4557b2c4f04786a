//! Who leads, and who only follows.

use serde::{Deserialize, Serialize};

use super::known::Turn;
use super::operation::MAX_LAST_ENTRIES;
use crate::time::Timestamp;

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

/// Whether the event leads: nobody near it does.
pub(super) fn lead(leaders: &mut Vec<Leader>, at: Timestamp, event: u64, window_ms: i64) -> Turn {
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
