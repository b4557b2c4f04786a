//! What was decided, written down before anything else happens with it.
//!
//! An entry is the outcome's envelope, byte for byte: the finding, the plan with its undo, the decision, the reason and
//! the time. It is kept in the ledger under [`shared::Outcome::key`], so a finding that is delivered again meets the
//! decision of the first time and sends the same bytes.
//!
//! Claims here have no lease. Deciding touches nothing in the world, so after a crash the next delivery may decide again at
//! once; two responders that decide the same at the same instant differ in `decided_at` alone, and receivers keep one of
//! them by its idempotency key. Carrying plans out will need a lease as long as the Lambda's time-out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;

use shared::ports::{Claim, Ledger, PortError, PortResult};
use shared::{Envelope, Timestamp};

/// A claim that anybody may take over.
const NO_LEASE: Timestamp = Timestamp::from_millis(0);

/// Account-hours whose slots are remembered in this process; our choice: a few hundred kilobytes at most.
const HOURS_REMEMBERED: usize = 1000;

/// The journal of responses.
pub struct Journal<L> {
    ledger: L,
    /// Who holds the slots of an account-hour, from the first on. Slots never change once taken, so this only saves reads.
    slots: RefCell<HashMap<String, Vec<String>>>,
}

impl<L: Ledger> Journal<L> {
    /// A journal in this ledger.
    pub fn new(ledger: L) -> Self {
        Self { ledger, slots: RefCell::new(HashMap::new()) }
    }

    /// The entry under `key`: the one that was written before or, for a new key, what `decide` says now. It is written
    /// before this returns.
    ///
    /// # Errors
    /// The ledger's, and those of `decide`.
    pub async fn entry<F>(&self, key: &str, now: Timestamp, decide: F) -> PortResult<String>
    where
        F: Future<Output = PortResult<Envelope>>,
    {
        match self.ledger.claim(key, now, NO_LEASE).await? {
            Claim::Done(body) => Ok(body),
            Claim::Busy { until } => Err(busy(key, until)),
            Claim::Ours => {
                let body = decide.await?.to_body();
                self.ledger.complete(key, &body, now).await?;
                Ok(body)
            }
        }
    }

    /// Takes one of `max` slots of an hour for the response `key`, or finds that it has one. `false` when all are taken.
    ///
    /// Responders running at the same time may together take a slot twice, so the cap holds to within their number.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn take_slot(&self, hour: &str, max: u32, key: &str, now: Timestamp) -> PortResult<bool> {
        let known = self.slots.borrow().get(hour).cloned().unwrap_or_default();
        if known.iter().any(|holder| holder == key) {
            return Ok(true);
        }
        for n in known.len()..usize::try_from(max).unwrap_or(usize::MAX) {
            let slot = format!("{hour}/{n}");
            let holder = match self.ledger.claim(&slot, now, NO_LEASE).await? {
                Claim::Done(holder) => holder,
                Claim::Busy { until } => return Err(busy(&slot, until)),
                Claim::Ours => {
                    self.ledger.complete(&slot, key, now).await?;
                    key.to_owned()
                }
            };
            let ours = holder == key;
            self.remember(hour, holder);
            if ours {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn remember(&self, hour: &str, holder: String) {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= HOURS_REMEMBERED && !slots.contains_key(hour) {
            slots.clear();
        }
        slots.entry(hour.to_owned()).or_default().push(holder);
    }
}

fn busy(key: &str, until: Timestamp) -> PortError {
    PortError::Retryable { what: format!("{key} is being worked on until {until}"), source: None }
}
