//! Floods, counted in buckets.

use serde::{Deserialize, Serialize};

use super::known::Count;
use super::operation::{LATENESS_S, MAX_LAST_ENTRIES};
use crate::time::Timestamp;

/// Buckets in a window of a rate.
pub(super) const BUCKETS: i64 = 30;

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

impl Rate {
    pub(super) fn add(&mut self, at: Timestamp, event: u64, threshold: u64) -> Count {
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
