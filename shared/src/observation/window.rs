//! Counts and different values in a window.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::known::Count;
use super::operation::{LATENESS_S, MAX_COUNT_ENTRIES, MAX_DISTINCT_ENTRIES};
use crate::time::Timestamp;

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

/// Entries, oldest first.
pub(super) struct Window<'r>(pub(super) &'r mut Vec<Entry>);

impl Window<'_> {
    pub(super) fn add(&mut self, at: Timestamp, event: u64, what: EntryKind, window_s: u32) -> Count {
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
