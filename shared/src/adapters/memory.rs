//! State and files in memory, for replay and tests. Nothing survives the process.

use std::cell::RefCell;

use rustc_hash::FxHashMap;

use crate::observation::{Known, ObserveRequest, StateRecord};
use crate::ports::{Clock, Files, PortResult, State};
use crate::time::Timestamp;

/// Expired records are swept after this many observations: keeps memory bounded by what is alive.
const SWEEP_EVERY: u32 = 100_000;

/// [`State`] in a hash map. Single-threaded, as every handler is.
#[derive(Debug, Default)]
pub struct MemoryState {
    inner: RefCell<StateInner>,
}

#[derive(Debug, Default)]
struct StateInner {
    records: FxHashMap<String, (Timestamp, Option<StateRecord>)>,
    since_sweep: u32,
}

impl MemoryState {
    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.inner.borrow().records.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State for MemoryState {
    async fn observe(&self, requests: &[ObserveRequest]) -> PortResult<Vec<Known>> {
        let mut inner = self.inner.borrow_mut();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let records = &mut inner.records;
            answers.push(request.apply_all(|key, apply| {
                let (expires, record) = records.entry(key).or_default();
                *expires = apply(record);
                PortResult::Ok(())
            })?);
            inner.since_sweep += 1;
            if inner.since_sweep >= SWEEP_EVERY {
                inner.since_sweep = 0;
                let now = request.at;
                inner.records.retain(|_, (expires, record)| record.is_some() && *expires >= now);
            }
        }
        Ok(answers)
    }
}

/// No files: every read is an error that says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        Err(format!("no files here, so not {name}"))
    }
}

/// A clock that stands still until it is set.
#[derive(Debug, Default)]
pub struct FixedClock(RefCell<Timestamp>);

impl FixedClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(RefCell::new(now))
    }

    /// Sets it.
    pub fn set(&self, now: Timestamp) {
        *self.0.borrow_mut() = now;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }
}
