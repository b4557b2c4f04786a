//! The ids of the last million records, to tell duplicates.

use std::collections::{HashSet, VecDeque};

use rustc_hash::FxBuildHasher;

/// How many ids are remembered; CloudTrail repeats records within minutes, not months.
pub const WINDOW: usize = 1 << 20;

/// A set of the last [`WINDOW`] ids, as keyed 64-bit hashes. Two different records of one window collide with a
/// probability of about 2⁻⁴⁴ each.
#[derive(Default)]
pub struct RecentIds {
    known: HashSet<u64, FxBuildHasher>,
    order: VecDeque<u64>,
}

impl RecentIds {
    /// Remembers `id`; `false` when it was among the last [`WINDOW`].
    pub fn insert(&mut self, id: u64) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        if self.order.len() == WINDOW
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_million_are_remembered_and_no_more() {
        let mut recent = RecentIds::default();
        for id in 0..=WINDOW as u64 {
            assert!(recent.insert(id));
        }
        assert!(!recent.insert(1));
        assert!(recent.insert(0), "the first has left the window");
    }
}
