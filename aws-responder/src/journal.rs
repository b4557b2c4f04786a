//! What was decided and what is about to be changed, written down before anything else happens with it.
//!
//! Up to three entries for a response, in the ledger:
//!
//! - Under [`shared::Outcome::key`] the **outcome**: its envelope, byte for byte as it is sent. A finding that is delivered
//!   again meets the decision of the first time and sends the same bytes. Who works on it holds the claim, for [`LEASE_S`].
//! - `response_begun/KEY`, the **before-image**: what was seen, the exact calls and their undo ([`Begun`]). Written
//!   before the first call that changes something. Whoever takes over after a crash goes on from there, and
//!   [`crate::undo`] undoes from there.
//! - `response_undone/KEY`, that it was **taken back** ([`Undone`]).

use std::cell::RefCell;
use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::ports::{Claim, Ledger, PortError, PortResult};
use shared::{ApiCall, Envelope, Finding, Outcome, Payload, Plan, Timestamp};

/// How long a response is its worker's own. Longer than the 50 s that the deployed function may run, so that whoever takes
/// it over is alone with it; shorter than its queue's visibility time-out of 300 s.
pub const LEASE_S: i64 = 60;

/// A claim that anybody may take over: what is written under it is the same whoever writes it.
const NO_LEASE: Timestamp = Timestamp::from_millis(0);

/// What a key of an outcome begins with: the finding's id, a UUID. `?` is any character, as in IAM.
const OUTCOMES: &str = "????????-????-????-????-????????????";
/// Before-images.
const BEGUN: &str = "response_begun";
/// Undos; the operator's, with the operator's permissions.
const UNDONE: &str = "response_undone";
/// Slots of account-hours.
pub(crate) const CAP: &str = "response_cap";
/// The first parts of all keys that the function has in the ledger, before the first `/`: its role allows these and no others.
pub const LEDGER_KINDS: [&str; 3] = [OUTCOMES, BEGUN, CAP];

/// Account-hours whose slots are remembered in this process; our choice: a few hundred kilobytes at most.
const HOURS_REMEMBERED: usize = 1000;

/// The version of [`Begun`] and [`Undone`]. Another one is refused: to act on a misread entry would be worse than not
/// to act.
const VERSION: u32 = 1;

/// The entry before the first change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// 1.
    pub version: u32,
    /// The finding that is answered.
    pub finding: Finding,
    /// Action id.
    pub action: String,
    /// What it acts on.
    pub target: String,
    /// The plan as live state left it: these calls are made and no others, and `undo` takes exactly them back.
    pub plan: Plan,
    /// What the calls change, as it was.
    pub before: Vec<Value>,
    /// See [`shared::Settled::note`].
    pub note: String,
    /// See [`shared::Settled::remains`].
    pub remains: String,
    /// When.
    pub at: Timestamp,
}

impl Begun {
    /// An entry of this version.
    pub fn new(finding: Finding, action: &str, target: &str, settled: shared::Settled, at: Timestamp) -> Self {
        let shared::Settled { plan, before, note, remains, .. } = settled;
        let (action, target) = (action.to_owned(), target.to_owned());
        Self { version: VERSION, finding, action, target, plan, before, note, remains, at }
    }
}

/// The entry after an undo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undone {
    /// 1.
    pub version: u32,
    /// The calls that were made; none when everything was as before already.
    pub calls: Vec<ApiCall>,
    /// When.
    pub at: Timestamp,
}

impl Undone {
    /// An entry of this version.
    pub const fn new(calls: Vec<ApiCall>, at: Timestamp) -> Self {
        Self { version: VERSION, calls, at }
    }
}

/// What the journal holds of one response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// How it ended, with the finding it answers; none while it is not finished.
    pub ended: Option<(Finding, Outcome)>,
    /// What it began with; none when nothing was to be changed.
    pub begun: Option<Begun>,
    /// That it was taken back.
    pub undone: Option<Undone>,
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn<T> {
    /// Ours, until the lease ends.
    Ours,
    /// It was done before, with this entry.
    Done(T),
}

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

    /// Takes the response `key`, or finds the outcome it had.
    ///
    /// # Errors
    /// Retryable while somebody else works on it; the ledger's.
    pub async fn claim(&self, key: &str, now: Timestamp) -> PortResult<Turn<String>> {
        match self.ledger.claim(key, now, now.plus_seconds(LEASE_S)).await? {
            Claim::Done(body) => Ok(Turn::Done(body)),
            Claim::Busy { until } => Err(busy(key, until)),
            Claim::Ours => Ok(Turn::Ours),
        }
    }

    /// Writes the outcome of a claimed response.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn complete(&self, key: &str, body: &str, now: Timestamp) -> PortResult<()> {
        self.ledger.complete(key, body, now).await
    }

    /// Gives a claim up, so that the next delivery goes on at once. A claim that cannot be given up ends with its lease.
    pub async fn release(&self, key: &str) {
        if let Err(error) = self.ledger.release(key).await {
            tracing::warn!("could not give up the claim on {key}: {error}");
        }
    }

    /// The entry that the response has begun with, if it has.
    ///
    /// # Errors
    /// The ledger's; permanent when the entry cannot be read.
    pub async fn begun(&self, key: &str) -> PortResult<Option<Begun>> {
        let key = begun_key(key);
        let texts = self.ledger.results(std::slice::from_ref(&key)).await?;
        texts.into_iter().flatten().next().map(|text| read(&key, &text, |begun: &Begun| begun.version)).transpose()
    }

    /// Writes the entry before the first change.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn begin(&self, key: &str, begun: &Begun, now: Timestamp) -> PortResult<()> {
        self.ledger.complete(&begun_key(key), &text(begun), now).await
    }

    /// Takes the undo of the response `key`, or finds that it was taken back.
    ///
    /// # Errors
    /// Retryable while somebody else does it; the ledger's; permanent when the entry cannot be read.
    pub async fn claim_undo(&self, key: &str, now: Timestamp) -> PortResult<Turn<Undone>> {
        let key = undo_key(key);
        match self.claim(&key, now).await? {
            Turn::Done(text) => Ok(Turn::Done(read(&key, &text, |undone: &Undone| undone.version)?)),
            Turn::Ours => Ok(Turn::Ours),
        }
    }

    /// Writes that the response was taken back.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn complete_undo(&self, key: &str, undone: &Undone, now: Timestamp) -> PortResult<()> {
        self.ledger.complete(&undo_key(key), &text(undone), now).await
    }

    /// Gives an undo up.
    pub async fn release_undo(&self, key: &str) {
        self.release(&undo_key(key)).await;
    }

    /// All that is known of the response `key`; `None` when there is nothing. Only reads, for people who look.
    ///
    /// # Errors
    /// The ledger's; permanent when an entry cannot be read.
    pub async fn record(&self, key: &str) -> PortResult<Option<Record>> {
        let keys = [key.to_owned(), begun_key(key), undo_key(key)];
        let mut texts = self.ledger.results(&keys).await?.into_iter();
        let [ended, begun, undone] = std::array::from_fn(|_| texts.next().flatten());
        let record = Record {
            ended: ended.map(|body| ended_with(key, &body)).transpose()?,
            begun: begun.map(|text| read(&keys[1], &text, |begun: &Begun| begun.version)).transpose()?,
            undone: undone.map(|text| read(&keys[2], &text, |undone: &Undone| undone.version)).transpose()?,
        };
        Ok((record != Record::default()).then_some(record))
    }

    /// Which of these responses were taken back, in their order. Only reads.
    ///
    /// # Errors
    /// The ledger's; permanent when an entry cannot be read.
    pub async fn undone(&self, keys: &[&str]) -> PortResult<Vec<Option<Undone>>> {
        let keys: Vec<String> = keys.iter().map(|key| undo_key(key)).collect();
        let texts = self.ledger.results(&keys).await?;
        let entry = |(key, text): (&String, Option<String>)| {
            text.map(|text| read(key, &text, |undone: &Undone| undone.version)).transpose()
        };
        keys.iter().zip(texts).map(entry).collect()
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

fn begun_key(key: &str) -> String {
    format!("{BEGUN}/{key}")
}

fn undo_key(key: &str) -> String {
    format!("{UNDONE}/{key}")
}

fn text(entry: &impl Serialize) -> String {
    serde_json::to_string(entry).expect("entries have string keys and finite numbers only")
}

fn read<T: DeserializeOwned>(key: &str, text: &str, version: impl Fn(&T) -> u32) -> PortResult<T> {
    let entry: T =
        serde_json::from_str(text).map_err(|e| PortError::permanent(format!("journal entry {key} is damaged"), e))?;
    match version(&entry) {
        VERSION => Ok(entry),
        other => Err(PortError::Permanent {
            what: format!("journal entry {key} has version {other}, this program reads {VERSION}"),
            source: None,
        }),
    }
}

/// The outcome in an envelope as it was sent.
fn ended_with(key: &str, body: &str) -> PortResult<(Finding, Outcome)> {
    let damaged = format!("journal entry {key} is damaged");
    match Envelope::from_body(body) {
        Ok(Envelope { payload: Payload::Outcome { finding, outcome }, .. }) => Ok((*finding, *outcome)),
        Ok(_) => Err(PortError::Permanent { what: damaged, source: None }),
        Err(error) => Err(PortError::permanent(damaged, error)),
    }
}

fn busy(key: &str, until: Timestamp) -> PortError {
    PortError::Retryable { what: format!("{key} is being worked on until {until}"), source: None }
}
