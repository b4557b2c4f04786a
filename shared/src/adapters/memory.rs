//! Every port in memory, for replay and tests. Nothing survives the process.
//!
//! Single-threaded, as every handler is: share an adapter by reference or [`std::rc::Rc`], which implement its ports too.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use crate::incident::{Incident, IncidentId};
use crate::observation::{Known, ObserveRequest, StateRecord};
use crate::ports::{
    Archive, Claim, Clock, DeadLetter, FailedMessage, Files, IncidentFilter, Incidents, LEDGER_RETENTION_S, Ledger,
    Message, Outbox, PortError, PortResult, Queue, QueueSettings, State, check_archive_name, worn_out,
};
use crate::time::Timestamp;

/// Expired records are swept after this many observations: our choice, so that what is dead is less than what is alive
/// in a flood of keys that come once.
const SWEEP_EVERY: u32 = 20_000;

/// [`State`] in a hash map. Single-threaded, as every handler is.
#[derive(Debug, Default)]
pub struct MemoryState {
    inner: RefCell<StateInner>,
}

#[derive(Debug, Default)]
struct StateInner {
    records: FxHashMap<String, (Timestamp, Option<StateRecord>)>,
    since_sweep: u32,
    /// The oldest event since the last sweep: one event from the far future must not expire everything.
    oldest: Option<Timestamp>,
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
    async fn observe(&self, requests: &[ObserveRequest<'_>]) -> PortResult<Vec<Known>> {
        let mut inner = self.inner.borrow_mut();
        let mut answers = Vec::with_capacity(requests.len());
        let mut buffer = String::new();
        for request in requests {
            let records = &mut inner.records;
            answers.push(request.apply_all(&mut buffer, |key, apply| {
                if let Some((expires, record)) = records.get_mut(key) {
                    *expires = apply(record).max(*expires);
                } else {
                    let mut record = None;
                    let expires = apply(&mut record);
                    records.insert(key.to_owned(), (expires, record));
                }
                PortResult::Ok(())
            })?);
            inner.oldest = Some(inner.oldest.map_or(request.at, |oldest| oldest.min(request.at)));
            inner.since_sweep += 1;
            if inner.since_sweep >= SWEEP_EVERY {
                inner.since_sweep = 0;
                let now = inner.oldest.take().unwrap_or_default();
                inner.records.retain(|_, (expires, record)| record.is_some() && *expires >= now);
            }
        }
        Ok(answers)
    }
}

/// [`Queue`] in ordered maps.
#[derive(Debug, Default)]
pub struct MemoryQueue {
    settings: QueueSettings,
    inner: RefCell<QueueInner>,
}

#[derive(Debug, Default)]
struct QueueInner {
    messages: BTreeMap<u64, Waiting>,
    /// `(visible_at, sequence)` of every message.
    visible: BTreeSet<(Timestamp, u64)>,
    dead: Vec<DeadLetter>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    visible_at: Timestamp,
    receive_count: u32,
    last_reason: String,
    body: String,
}

/// Always visible: a message that is not in flight.
const VISIBLE: Timestamp = Timestamp::from_millis(i64::MIN);

impl MemoryQueue {
    /// An empty queue.
    pub fn new(settings: QueueSettings) -> Self {
        Self { settings, inner: RefCell::default() }
    }
}

impl QueueInner {
    fn add(&mut self, body: String) {
        let sequence = self.next;
        self.next += 1;
        self.visible.insert((VISIBLE, sequence));
        let message = Waiting { visible_at: VISIBLE, receive_count: 0, last_reason: String::new(), body };
        self.messages.insert(sequence, message);
    }

    fn remove(&mut self, sequence: u64) -> Option<Waiting> {
        let message = self.messages.remove(&sequence)?;
        self.visible.remove(&(message.visible_at, sequence));
        Some(message)
    }

    fn bury(&mut self, sequence: u64, reason: String) {
        let Some(message) = self.remove(sequence) else { return };
        self.dead.push(DeadLetter {
            message_id: sequence.to_string(),
            body: message.body,
            reason,
            receive_count: message.receive_count,
        });
    }
}

impl Outbox for MemoryQueue {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        let mut inner = self.inner.borrow_mut();
        for body in bodies {
            inner.add(body.clone());
        }
        Ok(())
    }
}

impl Queue for MemoryQueue {
    async fn receive(&self, max: usize, now: Timestamp) -> PortResult<Vec<Message>> {
        let inner = &mut *self.inner.borrow_mut();
        let until = now.plus_seconds(i64::from(self.settings.visibility_timeout_s));
        let mut received = Vec::new();
        let mut in_flight = Vec::new();
        while received.len() < max {
            let timed_out = inner.visible.range((VISIBLE, u64::MAX)..=(now, u64::MAX)).next();
            let fresh = || inner.visible.first().filter(|(at, _)| *at <= now);
            let Some(&(at, sequence)) = timed_out.or_else(fresh) else { break };
            let Some(message) = inner.messages.get_mut(&sequence) else { break };
            if message.receive_count >= self.settings.max_receive_count {
                let reason = worn_out(message.receive_count, &message.last_reason);
                inner.bury(sequence, reason);
                continue;
            }
            message.receive_count += 1;
            message.visible_at = until;
            received.push(Message {
                message_id: sequence.to_string(),
                body: message.body.clone(),
                receive_count: message.receive_count,
            });
            inner.visible.remove(&(at, sequence));
            in_flight.push((until, sequence));
        }
        // Only now: with a time-out of 0 nothing is received twice in one call.
        inner.visible.extend(in_flight);
        Ok(received)
    }

    async fn delete(&self, message_ids: &[String]) -> PortResult<()> {
        let mut inner = self.inner.borrow_mut();
        for sequence in message_ids.iter().filter_map(|id| id.parse().ok()) {
            inner.remove(sequence);
        }
        Ok(())
    }

    async fn give_back(&self, failed: &[FailedMessage]) -> PortResult<()> {
        let inner = &mut *self.inner.borrow_mut();
        for failure in failed {
            let Ok(sequence) = failure.message_id.parse() else { continue };
            let Some(message) = inner.messages.get_mut(&sequence) else { continue };
            if !failure.retryable {
                inner.bury(sequence, failure.reason.clone());
            } else if message.receive_count >= self.settings.max_receive_count {
                let reason = worn_out(message.receive_count, &failure.reason);
                inner.bury(sequence, reason);
            } else {
                inner.visible.remove(&(message.visible_at, sequence));
                inner.visible.insert((VISIBLE, sequence));
                message.visible_at = VISIBLE;
                message.last_reason.clone_from(&failure.reason);
            }
        }
        Ok(())
    }

    async fn depth(&self) -> PortResult<u64> {
        Ok(self.inner.borrow().messages.len() as u64)
    }

    async fn dead_letters(&self, limit: usize) -> PortResult<Vec<DeadLetter>> {
        Ok(self.inner.borrow().dead.iter().take(limit).cloned().collect())
    }

    async fn redrive(&self) -> PortResult<u64> {
        let mut inner = self.inner.borrow_mut();
        let dead = std::mem::take(&mut inner.dead);
        let count = dead.len() as u64;
        for letter in dead {
            inner.add(letter.body);
        }
        Ok(count)
    }
}

/// [`Ledger`] in a hash map.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    entries: RefCell<FxHashMap<String, LedgerEntry>>,
    claims: std::cell::Cell<u32>,
}

#[derive(Clone, Debug)]
enum LedgerEntry {
    InProgress { until: Timestamp },
    Complete { at: Timestamp, result: String },
}

impl Ledger for MemoryLedger {
    async fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> PortResult<Claim> {
        let mut entries = self.entries.borrow_mut();
        self.claims.set(self.claims.get() + 1);
        if self.claims.get() >= SWEEP_EVERY {
            self.claims.set(0);
            entries.retain(|_, entry| match entry {
                // A claim whose lease has ended is as good as none.
                LedgerEntry::InProgress { until } => *until > now,
                LedgerEntry::Complete { at, .. } => now.seconds_since(*at) <= LEDGER_RETENTION_S,
            });
        }
        match entries.get(key) {
            Some(LedgerEntry::Complete { result, .. }) => Ok(Claim::Done(result.clone())),
            Some(LedgerEntry::InProgress { until }) if *until > now => Ok(Claim::Busy { until: *until }),
            _ => {
                entries.insert(key.to_owned(), LedgerEntry::InProgress { until: lease_until });
                Ok(Claim::Ours)
            }
        }
    }

    async fn complete(&self, key: &str, result: &str, now: Timestamp) -> PortResult<()> {
        let entry = LedgerEntry::Complete { at: now, result: result.to_owned() };
        self.entries.borrow_mut().insert(key.to_owned(), entry);
        Ok(())
    }

    async fn release(&self, key: &str) -> PortResult<()> {
        let mut entries = self.entries.borrow_mut();
        if matches!(entries.get(key), Some(LedgerEntry::InProgress { .. })) {
            entries.remove(key);
        }
        Ok(())
    }

    async fn results(&self, keys: &[String]) -> PortResult<Vec<Option<String>>> {
        let entries = self.entries.borrow();
        let result = |key: &String| match entries.get(key) {
            Some(LedgerEntry::Complete { result, .. }) => Some(result.clone()),
            _ => None,
        };
        Ok(keys.iter().map(result).collect())
    }
}

/// [`Incidents`] in an ordered map.
#[derive(Debug, Default)]
pub struct MemoryIncidents {
    incidents: RefCell<BTreeMap<IncidentId, Incident>>,
    by_resolution: RefCell<BTreeSet<(String, IncidentId)>>,
}

impl Incidents for MemoryIncidents {
    async fn get(&self, id: IncidentId) -> PortResult<Option<Incident>> {
        Ok(self.incidents.borrow().get(&id).cloned())
    }

    async fn update(
        &self,
        id: IncidentId,
        change: &mut dyn FnMut(Option<Incident>) -> Option<Incident>,
    ) -> PortResult<()> {
        let mut incidents = self.incidents.borrow_mut();
        let before = incidents.get(&id).cloned();
        let old_key = before.as_ref().and_then(|i| i.resolution_key.clone());
        let Some(after) = change(before) else { return Ok(()) };
        check_incident_id(id, &after)?;
        let mut by_resolution = self.by_resolution.borrow_mut();
        if let Some(key) = old_key {
            by_resolution.remove(&(key, id));
        }
        if let Some(key) = &after.resolution_key {
            by_resolution.insert((key.clone(), id));
        }
        incidents.insert(id, after);
        Ok(())
    }

    async fn list(&self, filter: &IncidentFilter) -> PortResult<Vec<Incident>> {
        let incidents = self.incidents.borrow();
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let wanted = |i: &&Incident| filter.statuses.is_empty() || filter.statuses.contains(&i.status);
        let Some(ids) = filter.ids() else { return Ok(Vec::new()) };
        Ok(match &filter.resolution_key {
            None => {
                incidents.range(ids).rev().map(|(_, incident)| incident).filter(wanted).take(limit).cloned().collect()
            }
            Some(key) => {
                let by_resolution = self.by_resolution.borrow();
                let (first, last) = ids.into_inner();
                let ids = by_resolution.range((key.clone(), first)..=(key.clone(), last)).rev();
                ids.filter_map(|(_, id)| incidents.get(id)).filter(wanted).take(limit).cloned().collect()
            }
        })
    }
}

/// An incident is stored under its own id only.
pub(crate) fn check_incident_id(id: IncidentId, incident: &Incident) -> PortResult<()> {
    if incident.incident_id == id {
        return Ok(());
    }
    let what = format!("incident {id} cannot be replaced by incident {}", incident.incident_id);
    Err(PortError::Permanent { what, source: None })
}

/// [`Archive`] in an ordered map.
#[derive(Debug, Default)]
pub struct MemoryArchive {
    files: RefCell<BTreeMap<String, Vec<u8>>>,
}

impl MemoryArchive {
    /// What was stored under `name`.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.files.borrow().get(name).cloned()
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.files.borrow().keys().cloned().collect()
    }
}

impl Archive for MemoryArchive {
    async fn put(&self, name: &str, content: &[u8]) -> PortResult<()> {
        check_archive_name(name)?;
        self.files.borrow_mut().insert(name.to_owned(), content.to_vec());
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SUITE_QUEUE, archive_suite, incidents_suite, ledger_suite, queue_suite, state_suite};

    #[tokio::test]
    async fn memory_keeps_the_queue_contract() {
        queue_suite(&MemoryQueue::new(SUITE_QUEUE)).await;
        queue_suite(&std::rc::Rc::new(MemoryQueue::new(SUITE_QUEUE))).await;
    }

    #[tokio::test]
    async fn memory_keeps_the_state_contract() {
        state_suite(&MemoryState::default()).await;
    }

    #[tokio::test]
    async fn memory_keeps_the_ledger_contract() {
        ledger_suite(&MemoryLedger::default()).await;
    }

    #[tokio::test]
    async fn a_sweep_takes_claims_whose_lease_has_ended() {
        let ledger = MemoryLedger::default();
        let at = Timestamp::from_millis;
        ledger.claim("abandoned", at(0), at(1_000)).await.expect("memory");
        ledger.claim("held", at(0), at(3_000)).await.expect("memory");
        ledger.claims.set(SWEEP_EVERY - 1);
        ledger.claim("new", at(2_000), at(3_000)).await.expect("memory");
        let mut keys: Vec<String> = ledger.entries.borrow().keys().cloned().collect();
        keys.sort();
        assert_eq!(keys, ["held", "new"]);
    }

    #[tokio::test]
    async fn memory_keeps_the_incidents_contract() {
        incidents_suite(&MemoryIncidents::default()).await;
    }

    #[tokio::test]
    async fn memory_keeps_the_archive_contract() {
        let archive = MemoryArchive::default();
        archive_suite(&archive, |name| archive.get(name)).await;
        assert_eq!(archive.names(), ["2026/03/01/one.json", "two"]);
    }
}
