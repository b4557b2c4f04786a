//! Every port in one file on disk ([redb](https://docs.rs/redb)), for `pipeline run`.
//!
//! Every call is one transaction: after it returned, its effect survives a restart, `kill -9` and a power cut; before,
//! nothing of it is visible. [`Embedded::enqueue_with_progress`] is the one call that crosses tables.
//!
//! **Durability** is redb's `Immediate` throughout (one `fsync` per writing call): with `None` a commit is kept in the
//! process until the next durable one, so a `kill -9` would lose messages that were reported as sent. The cost is paid
//! per batch, not per message: send, observe and delete whole batches.
//!
//! One process at a time: the file is locked while it is open. Handles are cheap clones of one open file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
    WriteTransaction,
};

use crate::adapters::memory::check_incident_id;
use crate::incident::{Incident, IncidentId};
use crate::observation::{Known, ObserveRequest, StateRecord};
use crate::ports::{
    Archive, Claim, DeadLetter, FailedMessage, IncidentFilter, Incidents, LEDGER_RETENTION_S, Ledger, Message, Outbox,
    PortError, PortResult, Queue, QueueSettings, State, check_archive_name, worn_out,
};
use crate::time::Timestamp;

/// `version` → the layout below. Raised when it changes.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const LAYOUT_VERSION: u64 = 1;
/// `next` → the next message's sequence number; `depth/<queue>` → messages in it.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
/// `(queue, sequence)` → `(visible_at, receive_count, last_reason, body)`.
const MESSAGES: TableDefinition<'_, (&str, u64), (i64, u32, &str, &str)> = TableDefinition::new("messages");
/// `(queue, visible_at, sequence)`: finds what is visible without looking at what is not.
const VISIBLE: TableDefinition<'_, (&str, i64, u64), ()> = TableDefinition::new("visible");
/// `(queue, order of death)` → `(sequence, receive_count, reason, body)`.
const DEAD: TableDefinition<'_, (&str, u64), (u64, u32, &str, &str)> = TableDefinition::new("dead");
/// State key → `(expires_at, postcard of StateRecord)`.
const STATE: TableDefinition<'_, &str, (i64, &[u8])> = TableDefinition::new("state");
/// Key → `(complete, lease end or completion time, result)`.
const LEDGER: TableDefinition<'_, &str, (bool, i64, &str)> = TableDefinition::new("ledger");
/// Incident id → JSON.
const INCIDENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("incidents");
/// `(resolution key, incident id)`.
const BY_RESOLUTION: TableDefinition<'_, (&str, &str), ()> = TableDefinition::new("incidents_by_resolution");
/// Name → content.
const ARCHIVE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("archive");
/// Key → value.
const PROGRESS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("progress");

/// `visible_at` of a message that is not in flight.
const AT_ONCE: i64 = i64::MIN;
/// redb would take up to 1 GiB; the whole process should stay below 256 MB.
const CACHE_BYTES: usize = 64 << 20;
/// Expired state and old ledger entries are swept after this many observations or claims.
const SWEEP_EVERY: u32 = 100_000;

/// One open file. Implements [`State`], [`Ledger`], [`Incidents`] and [`Archive`]; [`Embedded::queue`] gives queues.
#[derive(Clone, Debug)]
pub struct Embedded {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    path: PathBuf,
    observed: AtomicU32,
    /// The oldest event observed since the last sweep.
    oldest: std::sync::atomic::AtomicI64,
    claimed: AtomicU32,
}

impl Embedded {
    /// Opens the file, making it if it does not exist; its folder must exist. After a crash this repairs it first.
    ///
    /// # Errors
    /// Permanent, with what to do: the file is in use by another process, is not such a file, is damaged, or was
    /// written by another version.
    pub fn open(path: impl AsRef<Path>) -> PortResult<Self> {
        let path = path.as_ref().to_path_buf();
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|e| PortError::permanent(why_not_opened(&path, &e), e))?;
        let inner = Inner {
            database,
            path,
            observed: AtomicU32::new(0),
            oldest: std::sync::atomic::AtomicI64::new(i64::MAX),
            claimed: AtomicU32::new(0),
        };
        let embedded = Self { inner: Arc::new(inner) };
        let version = embedded.write("prepare", prepare)?;
        if version != LAYOUT_VERSION {
            let shown = embedded.path().display();
            let what = format!(
                "{shown} has layout version {version} and this program reads version {LAYOUT_VERSION}: \
                 use the program that wrote it, or another data folder"
            );
            return Err(PortError::Permanent { what, source: None });
        }
        Ok(embedded)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// A handle to the queue of that name, which exists as soon as something is sent to it.
    pub fn queue(&self, name: &str, settings: QueueSettings) -> EmbeddedQueue {
        EmbeddedQueue { embedded: self.clone(), name: name.into(), settings }
    }

    /// Sends `bodies` to `queue` and stores `value` under the progress `key`, both or neither: what a reader needs to
    /// go on after a crash without sending anything twice.
    ///
    /// # Errors
    /// As every port call.
    pub fn enqueue_with_progress(&self, queue: &str, bodies: &[String], key: &str, value: &[u8]) -> PortResult<()> {
        self.write("enqueue to", |tx| {
            QueueTables::open(tx, queue)?.add(bodies.iter().map(String::as_str))?;
            tx.open_table(PROGRESS)?.insert(key, value)?;
            Ok(())
        })
    }

    /// The progress stored under `key`.
    ///
    /// # Errors
    /// As every port call.
    pub fn progress(&self, key: &str) -> PortResult<Option<Vec<u8>>> {
        self.read("read the progress in", |tx| {
            Ok(tx.open_table(PROGRESS)?.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    /// What the archive holds under `name`.
    ///
    /// # Errors
    /// As every port call.
    pub fn archived(&self, name: &str) -> PortResult<Option<Vec<u8>>> {
        self.read("read the archive in", |tx| {
            Ok(tx.open_table(ARCHIVE)?.get(name)?.map(|content| content.value().to_vec()))
        })
    }

    /// One durable transaction; nothing of it is kept when `body` fails.
    fn write<T>(&self, what: &str, body: impl FnOnce(&WriteTransaction) -> Result<T, Fault>) -> PortResult<T> {
        let run = || {
            let tx = self.inner.database.begin_write()?;
            let answer = body(&tx)?;
            tx.commit()?;
            Ok(answer)
        };
        run().map_err(|fault| self.explain(what, fault))
    }

    fn read<T>(&self, what: &str, body: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> PortResult<T> {
        let run = || body(&self.inner.database.begin_read()?);
        run().map_err(|fault| self.explain(what, fault))
    }

    fn explain(&self, what: &str, fault: Fault) -> PortError {
        let shown = self.path().display();
        match fault {
            Fault::Refused(error) => error,
            Fault::Record(record) => PortError::Permanent {
                what: format!("could not {what} {shown}: {record} is damaged or from another version"),
                source: None,
            },
            Fault::Store(e @ redb::Error::Io(_)) => {
                PortError::retryable(format!("could not {what} {shown}: {e}; is the disk full?"), e)
            }
            Fault::Store(e @ redb::Error::PreviousIo) => {
                PortError::permanent(format!("could not {what} {shown}: an earlier write failed; start again"), e)
            }
            Fault::Store(e @ redb::Error::Corrupted(_)) => PortError::permanent(damaged(self.path(), &e), e),
            Fault::Store(e) => PortError::permanent(format!("could not {what} {shown}: {e}"), e),
        }
    }
}

/// Makes the tables of a new file; answers the layout version of an old one, untouched when it is not ours.
fn prepare(tx: &WriteTransaction) -> Result<u64, Fault> {
    let mut about = tx.open_table(ABOUT)?;
    let found = about.get("version")?.map(|version| version.value());
    if let Some(version) = found.filter(|version| *version != LAYOUT_VERSION) {
        return Ok(version);
    }
    about.insert("version", LAYOUT_VERSION)?;
    tx.open_table(COUNTERS)?;
    tx.open_table(MESSAGES)?;
    tx.open_table(VISIBLE)?;
    tx.open_table(DEAD)?;
    tx.open_table(STATE)?;
    tx.open_table(LEDGER)?;
    tx.open_table(INCIDENTS)?;
    tx.open_table(BY_RESOLUTION)?;
    tx.open_table(ARCHIVE)?;
    tx.open_table(PROGRESS)?;
    Ok(LAYOUT_VERSION)
}

fn why_not_opened(path: &Path, error: &DatabaseError) -> String {
    let shown = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            format!("{shown} is in use by another process: wait until it has ended, or use another data folder")
        }
        DatabaseError::UpgradeRequired(version) => {
            format!("{shown} has the old file format {version}: use the program that wrote it, or another data folder")
        }
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            format!("could not make {shown}: its folder does not exist")
        }
        DatabaseError::Storage(StorageError::Io(e))
            if !matches!(e.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            // The cause follows as such.
            format!("could not open {shown}")
        }
        other => damaged(path, other),
    }
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> String {
    let shown = path.display();
    format!("{shown} is damaged or not a file of this program ({error}): move it away, or use another data folder")
}

/// Why a transaction was given up.
enum Fault {
    Store(redb::Error),
    /// A record that cannot be read, by name.
    Record(String),
    Refused(PortError),
}

macro_rules! store_faults {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Store(error.into())
            }
        }
    )*};
}

store_faults!(redb::TransactionError, redb::TableError, redb::CommitError, StorageError);

/// A named queue in the file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EmbeddedQueue {
    embedded: Embedded,
    name: Arc<str>,
    settings: QueueSettings,
}

impl EmbeddedQueue {
    /// Makes everything in flight visible; answers how much that was. Only for the sole consumer, when it starts: what
    /// it finds in flight then was in the hands of a process that died. Receive counts stay, so that a message that
    /// kills its consumer ends as a dead letter.
    ///
    /// # Errors
    /// As every port call.
    pub fn release_in_flight(&self) -> PortResult<u64> {
        self.write("release messages in", |queue| {
            let in_flight = queue.visible_between(AT_ONCE + 1, i64::MAX, usize::MAX)?;
            for &sequence in &in_flight {
                let Some(message) = queue.take(sequence)? else { continue };
                queue.put(sequence, &Waiting { visible_at: AT_ONCE, ..message })?;
            }
            Ok(in_flight.len() as u64)
        })
    }

    fn write<T>(&self, what: &str, body: impl FnOnce(&mut QueueTables<'_, '_>) -> Result<T, Fault>) -> PortResult<T> {
        self.embedded.write(what, |tx| body(&mut QueueTables::open(tx, &self.name)?))
    }

    /// Whether `receive` would find anything: asked first, because asking costs no `fsync` and idle queues are polled.
    fn has_visible(&self, now: Timestamp) -> PortResult<bool> {
        self.embedded.read("look for messages in", |tx| {
            let visible = tx.open_table(VISIBLE)?;
            Ok(visible.range(visible_range(&self.name, AT_ONCE, now.as_millis()))?.next().transpose()?.is_some())
        })
    }
}

fn visible_range(queue: &str, from: i64, to: i64) -> std::ops::RangeInclusive<(&str, i64, u64)> {
    (queue, from, 0)..=(queue, to, u64::MAX)
}

struct Waiting {
    visible_at: i64,
    receive_count: u32,
    last_reason: String,
    body: String,
}

/// The tables of one queue within one transaction.
struct QueueTables<'tx, 'q> {
    queue: &'q str,
    depth_key: String,
    counters: Table<'tx, &'static str, u64>,
    messages: Table<'tx, (&'static str, u64), (i64, u32, &'static str, &'static str)>,
    visible: Table<'tx, (&'static str, i64, u64), ()>,
    dead: Table<'tx, (&'static str, u64), (u64, u32, &'static str, &'static str)>,
}

impl<'tx, 'q> QueueTables<'tx, 'q> {
    fn open(tx: &'tx WriteTransaction, queue: &'q str) -> Result<Self, Fault> {
        Ok(Self {
            queue,
            depth_key: depth_key(queue),
            counters: tx.open_table(COUNTERS)?,
            messages: tx.open_table(MESSAGES)?,
            visible: tx.open_table(VISIBLE)?,
            dead: tx.open_table(DEAD)?,
        })
    }

    fn count(&mut self, key: &str, change: impl FnOnce(u64) -> u64) -> Result<u64, Fault> {
        let before = self.counters.get(key)?.map_or(0, |value| value.value());
        self.counters.insert(key, change(before))?;
        Ok(before)
    }

    /// Adds new messages.
    fn add<'b>(&mut self, bodies: impl ExactSizeIterator<Item = &'b str>) -> Result<(), Fault> {
        let many = bodies.len() as u64;
        let first = self.count("next", |next| next + many)?;
        for (sequence, body) in (first..).zip(bodies) {
            self.messages.insert((self.queue, sequence), (AT_ONCE, 0, "", body))?;
            self.visible.insert((self.queue, AT_ONCE, sequence), ())?;
        }
        self.count(&self.depth_key.clone(), |depth| depth + many)?;
        Ok(())
    }

    /// Takes a message out, for good or to [`Self::put`] it back.
    fn take(&mut self, sequence: u64) -> Result<Option<Waiting>, Fault> {
        let Some(found) = self.messages.remove((self.queue, sequence))? else { return Ok(None) };
        let (visible_at, receive_count, last_reason, body) = found.value();
        let message = Waiting { visible_at, receive_count, last_reason: last_reason.into(), body: body.into() };
        drop(found);
        self.visible.remove((self.queue, visible_at, sequence))?;
        Ok(Some(message))
    }

    fn put(&mut self, sequence: u64, message: &Waiting) -> Result<(), Fault> {
        let value = (message.visible_at, message.receive_count, &*message.last_reason, &*message.body);
        self.messages.insert((self.queue, sequence), value)?;
        self.visible.insert((self.queue, message.visible_at, sequence), ())?;
        Ok(())
    }

    fn bury(&mut self, sequence: u64, message: &Waiting, reason: &str) -> Result<(), Fault> {
        let range = (self.queue, 0)..=(self.queue, u64::MAX);
        let newest = self.dead.range(range)?.next_back().transpose()?.map(|(key, _)| key.value().1);
        let order = newest.map_or(0, |order| order + 1);
        self.dead.insert((self.queue, order), (sequence, message.receive_count, reason, &*message.body))?;
        Ok(())
    }

    fn forget(&mut self, many: u64) -> Result<(), Fault> {
        if many > 0 {
            self.count(&self.depth_key.clone(), |depth| depth.saturating_sub(many))?;
        }
        Ok(())
    }

    fn visible_between(&self, from: i64, to: i64, limit: usize) -> Result<Vec<u64>, Fault> {
        let mut sequences = Vec::new();
        if from <= to {
            for row in self.visible.range(visible_range(self.queue, from, to))?.take(limit) {
                sequences.push(row?.0.value().2);
            }
        }
        Ok(sequences)
    }

    fn receive(&mut self, max: usize, now: i64, until: i64, receive_max: u32) -> Result<Vec<Message>, Fault> {
        let mut received = Vec::new();
        let mut buried = 0;
        while received.len() < max {
            let room = max - received.len();
            let mut found = self.visible_between(AT_ONCE + 1, now, room)?;
            found.extend(self.visible_between(AT_ONCE, AT_ONCE, room - found.len())?);
            if found.is_empty() {
                break;
            }
            for sequence in found {
                let Some(mut message) = self.take(sequence)? else { continue };
                if message.receive_count >= receive_max {
                    self.bury(sequence, &message, &worn_out(message.receive_count, &message.last_reason))?;
                    buried += 1;
                    continue;
                }
                message.receive_count += 1;
                message.visible_at = until;
                self.put(sequence, &message)?;
                let receive_count = message.receive_count;
                received.push(Message { message_id: sequence.to_string(), body: message.body, receive_count });
            }
            // With a time-out of 0 what was just received is visible again, and not received twice in one call.
            if until <= now {
                break;
            }
        }
        self.forget(buried)?;
        Ok(received)
    }
}

fn depth_key(queue: &str) -> String {
    format!("depth/{queue}")
}

impl Outbox for EmbeddedQueue {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        if bodies.is_empty() {
            return Ok(());
        }
        self.write("send to", |queue| queue.add(bodies.iter().map(String::as_str)))
    }
}

impl Queue for EmbeddedQueue {
    async fn receive(&self, max: usize, now: Timestamp) -> PortResult<Vec<Message>> {
        if max == 0 || !self.has_visible(now)? {
            return Ok(Vec::new());
        }
        let until = now.plus_seconds(i64::from(self.settings.visibility_timeout_s)).as_millis();
        self.write("receive from", |queue| queue.receive(max, now.as_millis(), until, self.settings.max_receive_count))
    }

    async fn delete(&self, message_ids: &[String]) -> PortResult<()> {
        if message_ids.is_empty() {
            return Ok(());
        }
        self.write("delete from", |queue| {
            let mut deleted = 0;
            for sequence in message_ids.iter().filter_map(|id| id.parse().ok()) {
                deleted += u64::from(queue.take(sequence)?.is_some());
            }
            queue.forget(deleted)
        })
    }

    async fn give_back(&self, failed: &[FailedMessage]) -> PortResult<()> {
        if failed.is_empty() {
            return Ok(());
        }
        self.write("give messages back to", |queue| {
            let mut buried = 0;
            for failure in failed {
                let Ok(sequence) = failure.message_id.parse() else { continue };
                let Some(mut message) = queue.take(sequence)? else { continue };
                if !failure.retryable {
                    queue.bury(sequence, &message, &failure.reason)?;
                    buried += 1;
                } else if message.receive_count >= self.settings.max_receive_count {
                    queue.bury(sequence, &message, &worn_out(message.receive_count, &failure.reason))?;
                    buried += 1;
                } else {
                    message.visible_at = AT_ONCE;
                    message.last_reason.clone_from(&failure.reason);
                    queue.put(sequence, &message)?;
                }
            }
            queue.forget(buried)
        })
    }

    async fn depth(&self) -> PortResult<u64> {
        self.embedded.read("count messages in", |tx| {
            Ok(tx.open_table(COUNTERS)?.get(&*depth_key(&self.name))?.map_or(0, |depth| depth.value()))
        })
    }

    async fn dead_letters(&self, limit: usize) -> PortResult<Vec<DeadLetter>> {
        self.embedded.read("read dead letters in", |tx| {
            let dead = tx.open_table(DEAD)?;
            let mut letters = Vec::new();
            for row in dead.range((&*self.name, 0)..=(&*self.name, u64::MAX))?.take(limit) {
                let (_, value) = row?;
                let (sequence, receive_count, reason, body) = value.value();
                letters.push(DeadLetter {
                    message_id: sequence.to_string(),
                    body: body.into(),
                    reason: reason.into(),
                    receive_count,
                });
            }
            Ok(letters)
        })
    }

    async fn redrive(&self) -> PortResult<u64> {
        self.write("redrive dead letters in", |queue| {
            let mut bodies = Vec::new();
            for row in queue.dead.range((queue.queue, 0)..=(queue.queue, u64::MAX))? {
                bodies.push(row?.1.value().3.to_owned());
            }
            queue.dead.retain_in((queue.queue, 0)..=(queue.queue, u64::MAX), |_, _| false)?;
            queue.add(bodies.iter().map(String::as_str))?;
            Ok(bodies.len() as u64)
        })
    }
}

/// A record as it is changed within one batch.
type Slot = (Timestamp, Option<StateRecord>);

impl State for Embedded {
    async fn observe(&self, requests: &[ObserveRequest<'_>]) -> PortResult<Vec<Known>> {
        let Some(oldest) = requests.iter().map(|r| r.at.as_millis()).min() else { return Ok(Vec::new()) };
        let many = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let sweep_before = self.sweep_due(many, oldest);
        self.write("observe in", |tx| {
            let mut table = tx.open_table(STATE)?;
            let mut slots: HashMap<String, Slot> = HashMap::new();
            let mut answers = Vec::with_capacity(requests.len());
            let mut buffer = String::new();
            for request in requests {
                answers.push(request.apply_all(&mut buffer, |key, apply| {
                    let slot = match slots.get_mut(key) {
                        Some(slot) => slot,
                        None => slots.entry(key.to_owned()).insert_entry(load(&table, key)?).into_mut(),
                    };
                    slot.0 = apply(&mut slot.1).max(slot.0);
                    Ok::<_, Fault>(())
                })?);
            }
            for (key, (expires, record)) in &slots {
                let Some(record) = record else { continue };
                let bytes = postcard::to_stdvec(record).map_err(|e| Fault::Record(format!("state {key:?} ({e})")))?;
                table.insert(&**key, (expires.as_millis(), &*bytes))?;
            }
            if let Some(now) = sweep_before {
                table.retain(|_, (expires, _)| expires >= now)?;
            }
            Ok(answers)
        })
    }
}

impl Embedded {
    /// Counts `many` observations; answers, once in [`SWEEP_EVERY`], the time before which records have expired: the
    /// oldest event since the last sweep, because one event from the far future must not expire everything.
    fn sweep_due(&self, many: u32, oldest: i64) -> Option<i64> {
        let before = self.inner.observed.fetch_add(many, Ordering::Relaxed);
        let oldest = self.inner.oldest.fetch_min(oldest, Ordering::Relaxed).min(oldest);
        if before.saturating_add(many) < SWEEP_EVERY {
            return None;
        }
        self.inner.observed.store(0, Ordering::Relaxed);
        self.inner.oldest.store(i64::MAX, Ordering::Relaxed);
        Some(oldest)
    }
}

fn load(table: &Table<'_, &'static str, (i64, &'static [u8])>, key: &str) -> Result<Slot, Fault> {
    let Some(found) = table.get(key)? else { return Ok(Slot::default()) };
    let (expires, bytes) = found.value();
    let record = postcard::from_bytes(bytes).map_err(|e| Fault::Record(format!("state {key:?} ({e})")))?;
    Ok((Timestamp::from_millis(expires), Some(record)))
}

impl Ledger for Embedded {
    async fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> PortResult<Claim> {
        let sweep = self.inner.claimed.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1;
        self.write("claim work in", |tx| {
            let mut ledger = tx.open_table(LEDGER)?;
            if sweep {
                let keep_from = now.plus_seconds(-LEDGER_RETENTION_S).as_millis();
                ledger.retain(|_, (complete, at, _)| !complete || at >= keep_from)?;
            }
            let found = ledger.get(key)?.map(|entry| {
                let (complete, at, result) = entry.value();
                (complete, Timestamp::from_millis(at), result.to_owned())
            });
            match found {
                Some((true, _, result)) => Ok(Claim::Done(result)),
                Some((false, until, _)) if until > now => Ok(Claim::Busy { until }),
                _ => {
                    ledger.insert(key, (false, lease_until.as_millis(), ""))?;
                    Ok(Claim::Ours)
                }
            }
        })
    }

    async fn complete(&self, key: &str, result: &str, now: Timestamp) -> PortResult<()> {
        self.write("complete work in", |tx| {
            tx.open_table(LEDGER)?.insert(key, (true, now.as_millis(), result))?;
            Ok(())
        })
    }

    async fn release(&self, key: &str) -> PortResult<()> {
        self.write("release work in", |tx| {
            let mut ledger = tx.open_table(LEDGER)?;
            let in_progress = ledger.get(key)?.is_some_and(|entry| !entry.value().0);
            if in_progress {
                ledger.remove(key)?;
            }
            Ok(())
        })
    }

    async fn results(&self, keys: &[String]) -> PortResult<Vec<Option<String>>> {
        self.read("look for work in", |tx| {
            let ledger = tx.open_table(LEDGER)?;
            let mut results = Vec::with_capacity(keys.len());
            for key in keys {
                let entry = ledger.get(&**key)?;
                results.push(entry.filter(|entry| entry.value().0).map(|entry| entry.value().2.to_owned()));
            }
            Ok(results)
        })
    }
}

fn read_incident(id: &str, bytes: &[u8]) -> Result<Incident, Fault> {
    serde_json::from_slice(bytes).map_err(|e| Fault::Record(format!("incident {id} ({e})")))
}

impl Incidents for Embedded {
    async fn get(&self, id: IncidentId) -> PortResult<Option<Incident>> {
        let id = id.to_string();
        self.read("read incidents in", |tx| {
            tx.open_table(INCIDENTS)?.get(&*id)?.map(|bytes| read_incident(&id, bytes.value())).transpose()
        })
    }

    async fn update(
        &self,
        id: IncidentId,
        change: &mut dyn FnMut(Option<Incident>) -> Option<Incident>,
    ) -> PortResult<()> {
        self.write("update incidents in", |tx| {
            let mut incidents = tx.open_table(INCIDENTS)?;
            let mut by_resolution = tx.open_table(BY_RESOLUTION)?;
            let key = id.to_string();
            let before = incidents.get(&*key)?.map(|bytes| read_incident(&key, bytes.value())).transpose()?;
            let old_resolution = before.as_ref().and_then(|i| i.resolution_key.clone());
            let Some(after) = change(before) else { return Ok(()) };
            check_incident_id(id, &after).map_err(Fault::Refused)?;
            if let Some(old) = &old_resolution {
                by_resolution.remove((&**old, &*key))?;
            }
            if let Some(new) = &after.resolution_key {
                by_resolution.insert((&**new, &*key), ())?;
            }
            let bytes = serde_json::to_vec(&after).map_err(|e| Fault::Record(format!("incident {id} ({e})")))?;
            incidents.insert(&*key, &*bytes)?;
            Ok(())
        })
    }

    async fn list(&self, filter: &IncidentFilter) -> PortResult<Vec<Incident>> {
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let wanted = |i: &Incident| filter.statuses.is_empty() || filter.statuses.contains(&i.status);
        let Some(ids) = filter.ids() else { return Ok(Vec::new()) };
        let (first, last) = (ids.start().to_string(), ids.end().to_string());
        self.read("list incidents in", |tx| {
            let incidents = tx.open_table(INCIDENTS)?;
            let mut found = Vec::new();
            if let Some(resolution) = &filter.resolution_key {
                let index = tx.open_table(BY_RESOLUTION)?;
                for row in index.range((&**resolution, &*first)..=(&**resolution, &*last))?.rev() {
                    if found.len() >= limit {
                        break;
                    }
                    let key = row?.0;
                    let id = key.value().1;
                    let Some(bytes) = incidents.get(id)? else { continue };
                    let incident = read_incident(id, bytes.value())?;
                    if wanted(&incident) {
                        found.push(incident);
                    }
                }
                return Ok(found);
            }
            for row in incidents.range(&*first..=&*last)?.rev() {
                if found.len() >= limit {
                    break;
                }
                let (id, bytes) = row?;
                let incident = read_incident(id.value(), bytes.value())?;
                if wanted(&incident) {
                    found.push(incident);
                }
            }
            Ok(found)
        })
    }
}

impl Archive for Embedded {
    async fn put(&self, name: &str, content: &[u8]) -> PortResult<()> {
        check_archive_name(name)?;
        self.write("archive in", |tx| {
            tx.open_table(ARCHIVE)?.insert(name, content)?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::adapters::memory::MemoryState;
    use crate::observation::{Observation, Observations};
    use crate::testing::{
        SUITE_QUEUE, archive_suite, incidents_suite, ledger_suite, queue_suite, sample_incident, state_suite,
    };

    fn fresh() -> (tempfile::TempDir, Embedded) {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(folder.path().join("pipeline.redb")).unwrap();
        (folder, embedded)
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
    }

    fn bodies(range: std::ops::Range<u64>) -> Vec<String> {
        range.map(|i| format!("body {i:08}")).collect()
    }

    #[tokio::test]
    async fn one_file_keeps_all_contracts_at_once() {
        let (_folder, embedded) = fresh();
        // A neighbour whose messages no suite may see.
        let neighbour = embedded.queue("suit", SUITE_QUEUE);
        neighbour.send(&bodies(0..3)).await.unwrap();
        queue_suite(&embedded.queue("suite", SUITE_QUEUE)).await;
        queue_suite(&embedded.queue("", SUITE_QUEUE)).await;
        assert_eq!(neighbour.depth().await.unwrap(), 3);
        assert_eq!(neighbour.receive(10, now()).await.unwrap().len(), 3);
        state_suite(&embedded).await;
        ledger_suite(&embedded).await;
        incidents_suite(&embedded).await;
        archive_suite(&embedded, |name| embedded.archived(name).unwrap()).await;
    }

    #[tokio::test]
    async fn everything_is_there_after_a_restart() {
        let (folder, embedded) = fresh();
        let path = folder.path().join("pipeline.redb");
        let queue = embedded.queue("q", SUITE_QUEUE);
        queue.send(&bodies(0..4)).await.unwrap();
        let received = queue.receive(3, now()).await.unwrap();
        queue.delete(&[received[0].message_id.clone()]).await.unwrap();
        let poison =
            FailedMessage { message_id: received[1].message_id.clone(), reason: "bad".into(), retryable: false };
        queue.give_back(&[poison]).await.unwrap();
        embedded.enqueue_with_progress("q2", &bodies(9..10), "file", b"at 9").unwrap();
        let request = ObserveRequest {
            classifier: "c",
            event: 1,
            at: now(),
            observations: Observations::none().count("n", "k", 1, 60).into_vec(),
        };
        embedded.observe(std::slice::from_ref(&request)).await.unwrap();
        embedded.claim("work", now(), now().plus_seconds(60)).await.unwrap();
        embedded.complete("done", "result", now()).await.unwrap();
        let incident = sample_incident("e", now(), Some("k"));
        embedded.update(incident.incident_id, &mut |_| Some(incident.clone())).await.unwrap();
        embedded.put("a/b", b"content").await.unwrap();
        drop((queue, embedded));

        let embedded = Embedded::open(&path).unwrap();
        let queue = embedded.queue("q", SUITE_QUEUE);
        assert_eq!(queue.depth().await.unwrap(), 2);
        let dead = queue.dead_letters(9).await.unwrap();
        assert_eq!((dead.len(), &*dead[0].reason, &*dead[0].body), (1, "bad", &*received[1].body));
        let visible = queue.receive(9, now()).await.unwrap();
        assert_eq!(visible.len(), 1, "what was in flight still is");
        assert_eq!(visible[0].body, "body 00000003");
        assert_eq!(queue.release_in_flight().unwrap(), 2);
        let mut counts: Vec<_> = queue.receive(9, now()).await.unwrap().iter().map(|m| m.receive_count).collect();
        counts.sort();
        assert_eq!(counts, [2, 2], "receive counts are kept");
        assert_eq!(embedded.queue("q2", SUITE_QUEUE).depth().await.unwrap(), 1);
        assert_eq!(embedded.progress("file").unwrap().as_deref(), Some(&b"at 9"[..]));
        assert_eq!(embedded.progress("other").unwrap(), None);
        let later = ObserveRequest { event: 2, ..request };
        assert_eq!(embedded.observe(&[later]).await.unwrap()[0].count("n").now, 2);
        let claim = embedded.claim("work", now(), now()).await.unwrap();
        assert_eq!(claim, Claim::Busy { until: now().plus_seconds(60) });
        assert_eq!(embedded.claim("done", now(), now()).await.unwrap(), Claim::Done("result".into()));
        assert_eq!(embedded.get(incident.incident_id).await.unwrap(), Some(incident));
        assert_eq!(embedded.archived("a/b").unwrap().as_deref(), Some(&b"content"[..]));
    }

    #[tokio::test]
    async fn a_failed_transaction_leaves_nothing_behind() {
        let (_folder, embedded) = fresh();
        let failed = embedded.write("test", |tx| {
            QueueTables::open(tx, "q")?.add(["x"].into_iter())?;
            Err::<(), _>(Fault::Record("record \"x\"".into()))
        });
        let error = failed.unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("pipeline.redb: record \"x\" is damaged"), "{error}");
        assert_eq!(embedded.queue("q", SUITE_QUEUE).depth().await.unwrap(), 0);
    }

    #[test]
    fn a_file_in_use_is_refused_with_what_to_do() {
        let (_folder, embedded) = fresh();
        let error = Embedded::open(embedded.path()).unwrap_err().to_string();
        assert!(error.contains("pipeline.redb is in use by another process: wait"), "{error}");
    }

    #[test]
    fn files_that_are_not_ours_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        for content in [b"hello".to_vec(), vec![b'x'; 100_000], vec![0; 5000]] {
            std::fs::write(&path, &content).unwrap();
            let error = Embedded::open(&path).unwrap_err();
            assert!(!error.is_retryable());
            let text = error.to_string();
            assert!(text.contains("notes.txt is damaged or not a file of this program"), "{text}");
            assert!(std::fs::read(&path).unwrap() == content, "left alone");
        }
    }

    #[test]
    fn a_missing_folder_and_a_folder_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Embedded::open(folder.path().join("no/file")).unwrap_err().to_string();
        assert!(error.contains("its folder does not exist"), "{error}");
        let error = Embedded::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("could not open"), "{error}");
    }

    #[test]
    fn a_file_of_another_version_is_refused() {
        let (folder, embedded) = fresh();
        let tx = embedded.inner.database.begin_write().unwrap();
        tx.open_table(ABOUT).unwrap().insert("version", 99).unwrap();
        tx.commit().unwrap();
        drop(embedded);
        let error = Embedded::open(folder.path().join("pipeline.redb")).unwrap_err().to_string();
        assert!(error.contains("layout version 99 and this program reads version 1"), "{error}");
    }

    /// Set for the child of the test below: the file to write to.
    const CHILD_FILE: &str = "SHARED_TEST_CHILD_FILE";

    /// Not a test of its own: what the killed process does. Each round sends ten bodies with the round as progress, then
    /// receives and deletes five, then reports the round.
    #[tokio::test]
    async fn child_that_is_killed() {
        let Ok(path) = std::env::var(CHILD_FILE) else { return };
        let embedded = Embedded::open(path).unwrap();
        let queue = embedded.queue("q", QueueSettings::default());
        for round in 1.. {
            let value = u64::to_be_bytes(round);
            embedded.enqueue_with_progress("q", &bodies(10 * (round - 1)..10 * round), "round", &value).unwrap();
            let received = queue.receive(5, now()).await.unwrap();
            let ids: Vec<_> = received.into_iter().map(|m| m.message_id).collect();
            queue.delete(&ids).await.unwrap();
            writeln!(std::io::stdout(), " round {round}").unwrap();
        }
    }

    #[tokio::test]
    async fn nothing_committed_is_lost_when_the_process_is_killed() {
        for rounds in [1, 2, 17, 60] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("killed.redb");
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "adapters::embedded::tests::child_that_is_killed", "--nocapture"])
                .env(CHILD_FILE, &path)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let reported = lines
                .by_ref()
                .filter_map(|line| line.unwrap().rsplit_once(" round ")?.1.parse::<u64>().ok())
                .nth(rounds - 1)
                .expect("the child reports until it is killed");
            child.kill().unwrap();
            child.wait().unwrap();

            let embedded = Embedded::open(&path).unwrap();
            let sent = u64::from_be_bytes(embedded.progress("round").unwrap().unwrap().try_into().unwrap());
            assert!(sent >= reported, "progress that was reported is there");
            let queue = embedded.queue("q", QueueSettings::default());
            queue.release_in_flight().unwrap();
            let left = queue.depth().await.unwrap();
            let received = queue.receive(usize::MAX, now()).await.unwrap();
            let mut found: Vec<_> = received.into_iter().map(|m| m.body).collect();
            found.sort();
            assert_eq!(found.len() as u64, left, "the depth is right");
            let deleted = 10 * sent - left;
            assert!(deleted >= 5 * reported && deleted % 5 == 0, "{deleted} deleted, {reported} rounds reported");
            assert_eq!(found, bodies(deleted..10 * sent), "every body is there once, none that was deleted");
        }
    }

    fn any_observation() -> impl Strategy<Value = Observation> {
        let value = (0..4_u8).prop_map(|v| v.to_string());
        let observations = prop_oneof![
            (1..4_u32, 1..100_u32).prop_map(|(w, s)| Observations::none().count("n", "k", w, s)),
            (value.clone(), 1..100_u32).prop_map(|(v, s)| Observations::none().distinct("d", "k", v, s)),
            (1..100_u32).prop_map(|s| Observations::none().reset("n", "k", s)),
            (value, 1..100_u32).prop_map(|(v, s)| Observations::none().remember("v", "k", v, s)),
            (1..100_u32).prop_map(|s| Observations::none().recall("v", "k", s)),
            (1..100_u32).prop_map(|s| Observations::none().see("s", "k", s)),
            (1..100_u32).prop_map(|s| Observations::none().see("n", "k", s)),
        ];
        observations.prop_map(|o| o.into_vec().remove(0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn memory_and_file_give_identical_answers(
            batches in prop::collection::vec(
                prop::collection::vec(
                    (0..30_u64, 0..10_000_i64, prop::collection::vec(any_observation(), 0..4)),
                    0..20,
                ),
                0..5,
            )
        ) {
            let (_folder, embedded) = fresh();
            let memory = MemoryState::default();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for batch in batches {
                let requests: Vec<_> = batch
                    .into_iter()
                    .map(|(event, s, observations)| ObserveRequest {
                        classifier: "c", event, at: now().plus_seconds(s), observations,
                    })
                    .collect();
                let in_memory = runtime.block_on(memory.observe(&requests)).unwrap();
                prop_assert_eq!(in_memory, runtime.block_on(embedded.observe(&requests)).unwrap());
            }
        }
    }
}
