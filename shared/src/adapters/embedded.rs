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

mod incidents;
mod ledger;
mod queue;
mod state;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    WriteTransaction,
};

pub use self::queue::EmbeddedQueue;
use self::queue::QueueTables;
use crate::ports::{Archive, PortError, PortResult, QueueSettings, check_archive_name};

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

/// redb would take up to 1 GiB; the whole process should stay below 256 MB.
const CACHE_BYTES: usize = 64 << 20;
/// Expired state and old ledger entries are swept after this many observations or claims.
const SWEEP_EVERY: u32 = 100_000;

/// One open file. Implements [`State`](crate::ports::State), [`Ledger`](crate::ports::Ledger),
/// [`Incidents`](crate::ports::Incidents) and [`Archive`]; [`Embedded::queue`] gives queues.
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
    oldest: AtomicI64,
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
            oldest: AtomicI64::new(i64::MAX),
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
        EmbeddedQueue::new(self.clone(), name, settings)
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

impl Archive for Embedded {
    async fn put(&self, name: &str, content: &[u8]) -> PortResult<()> {
        check_archive_name(name)?;
        self.write("archive in", |tx| {
            tx.open_table(ARCHIVE)?.insert(name, content)?;
            Ok(())
        })
    }
}
