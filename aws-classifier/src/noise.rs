//! What keeps a finding from leaving, and the count of it: nothing vanishes silently.
//!
//! A threat is kept back when an entry of the [allow-list](crate::allow) says so, or when it repeats one of the last
//! `dedup_window_s` seconds, which are 0 by default: repeats go out. Good news is never kept back, and neither is a threat
//! that good news can end, because its incident may have been closed in between.
//!
//! **What a repeat is.** The same classifier finds the same about the same, and only time and facts differ
//! ([`Finding::repeat_key`]). The first finding goes out, those within the window after it are counted, and the next
//! one that goes out says how many there were (`repeats`). Kept in state under the reserved id [`REPEATS`], so it is
//! one answer for all threads, batches and deliveries.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::Timestamp;
use shared::finding::{Effect, Finding};
use shared::observation::{Observations, ObserveRequest};

use crate::allow::AllowList;

/// The classifier id under which repeats are remembered; no classifier has it.
pub const REPEATS: &str = "repeats";
/// The label of the one thing remembered about a finding.
pub const TURN: &str = "finding";
/// The fact that says how many repeats were kept back since the last finding of the kind went out.
pub const REPEATS_FACT: &str = "repeats";

/// Why a finding was kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The entry of the allow-list at this position.
    Allowed(usize),
    /// It repeats another.
    Repeat,
}

/// What keeps findings from leaving.
#[derive(Debug, Default)]
pub struct Noise {
    /// What is known and accepted.
    pub allow: AllowList,
    /// For how many seconds repeats of a finding are kept back; 0: they are not.
    pub window_s: u32,
    /// The same by classifier, in place of `window_s`.
    pub windows_s: BTreeMap<String, u32>,
}

impl Noise {
    /// What to remember about a finding to tell repeats; `None` when it goes out in any case.
    pub fn turn(&self, finding: &Finding, event: u64) -> Option<ObserveRequest<'static>> {
        let window_s = self.windows_s.get(&finding.classifier).copied().unwrap_or(self.window_s);
        if window_s == 0 || finding.effect != Effect::Threat || finding.resolution_key.is_some() {
            return None;
        }
        let observations = Observations::none().lead(TURN, finding.repeat_key(), window_s).into_vec();
        Some(ObserveRequest { classifier: REPEATS, event, at: finding.event_time, observations })
    }
}

/// How many findings were kept back, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Kept back by the allow-list.
    pub suppressed: u64,
    /// Kept back because they repeat another.
    pub repeats: u64,
    /// By the position of the entry: kept back by it, and gone out because it had expired.
    pub entries: BTreeMap<usize, (u64, u64)>,
}

impl Tally {
    /// Counts what was kept back of one event, and which expired entries would have kept something back.
    pub fn add(&mut self, withheld: &[(Finding, Why)], lapsed: &[usize]) {
        for (_, why) in withheld {
            match why {
                Why::Allowed(entry) => {
                    self.suppressed += 1;
                    self.entries.entry(*entry).or_default().0 += 1;
                }
                Why::Repeat => self.repeats += 1,
            }
        }
        for entry in lapsed {
            self.entries.entry(*entry).or_default().1 += 1;
        }
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        self.suppressed += other.suppressed;
        self.repeats += other.repeats;
        for (entry, (suppressed, lapsed)) in &other.entries {
            let mine = self.entries.entry(*entry).or_default();
            *mine = (mine.0 + suppressed, mine.1 + lapsed);
        }
    }

    /// The entries that did something or are expired at `now`, with what they did.
    pub fn report(&self, allow: &AllowList, now: Timestamp) -> Vec<EntryReport> {
        allow
            .entries()
            .enumerate()
            .filter_map(|(number, (entry, until))| {
                let (suppressed, lapsed) = self.entries.get(&number).copied().unwrap_or_default();
                let expired = until < now;
                (suppressed > 0 || lapsed > 0 || expired).then(|| EntryReport {
                    name: entry.name.clone(),
                    owner: entry.owner.clone(),
                    expires: entry.expires.clone(),
                    expired,
                    suppressed,
                    lapsed,
                })
            })
            .collect()
    }
}

/// What became of an entry of the allow-list, as summaries print it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryReport {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// Its last day.
    pub expires: String,
    /// Whether that day is over.
    pub expired: bool,
    /// Findings it kept back.
    pub suppressed: u64,
    /// Findings that went out because it had expired when their event happened.
    pub lapsed: u64,
}
