//! The data folder of `run`: one database, the alerts and the log.

use std::path::{Path, PathBuf};

use shared::Timestamp;
use shared::adapters::embedded::{Embedded, EmbeddedQueue};
use shared::ports::{Claim, Ledger, PortResult, QueueSettings};

use crate::chain::{Four, Queues};
use crate::failure::Failure;
use crate::output;

/// The database's name in the folder.
const DATABASE: &str = "pipeline.redb";

/// How often a message is received before it becomes a dead letter. More than in the cloud, because every time the
/// process is killed counts as one; few enough that a message which kills the process is out of the way in the end.
const RECEIVES_MAX: u32 = 50;

/// An open data folder. Nobody else can have it open at the same time: the database is locked.
#[derive(Debug)]
pub struct DataFolder {
    /// The folder.
    pub path: PathBuf,
    /// Its database.
    pub store: Embedded,
    /// The queues in it.
    pub queues: Queues<EmbeddedQueue>,
}

impl DataFolder {
    /// Opens the folder, making it when it is not there. What a killed process had in its hands is put back.
    ///
    /// # Errors
    /// When it cannot be made, is in use, or its database is damaged.
    pub fn open_or_make(path: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(path)
            .map_err(|e| Failure::machine(format!("make the folder {}", output::path(path)), e))?;
        if !path.join(DATABASE).exists() {
            make_database(path)?;
        }
        Self::open_database(path)
    }

    /// Opens a folder that `run` has made.
    ///
    /// # Errors
    /// When there is none, it is in use, or its database is damaged.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if !path.join(DATABASE).is_file() {
            let shown = output::path(path);
            return Err(Failure::Input(format!(
                "there is no data in {shown}: name the folder of an earlier run with --data, or make one with \
                 `pipeline run PATH --data {shown}`"
            )));
        }
        Self::open_database(path)
    }

    fn open_database(path: &Path) -> Result<Self, Failure> {
        let database = path.join(DATABASE);
        // The database would take it for a new one. `make_database` leaves none like it.
        if std::fs::metadata(&database).is_ok_and(|about| about.len() == 0) {
            return Err(Failure::Input(format!(
                "{} is empty, so what was in it is lost: remove it to begin anew, or use another data folder",
                output::path(&database)
            )));
        }
        let store = Embedded::open(&database)?;
        let queue = |name: &str| -> PortResult<EmbeddedQueue> {
            let queue =
                store.queue(name, QueueSettings { max_receive_count: RECEIVES_MAX, ..QueueSettings::default() });
            // The file is locked and ours, so whoever received these messages is gone.
            queue.release_in_flight()?;
            Ok(queue)
        };
        let queues = Four {
            classifier: queue("classifier")?,
            responder: queue("responder")?,
            notifier: queue("notifier")?,
            logger: queue("logger")?,
        };
        Ok(Self { path: path.to_owned(), store, queues })
    }
}

/// Makes the database under another name and puts it in place when it is whole: a process killed half-way through
/// leaves no file that looks like one. When another process was faster, its database stays.
fn make_database(folder: &Path) -> Result<(), Failure> {
    let cannot = |error| Failure::machine(format!("make a database in {}", output::path(folder)), error);
    let prefix = format!("{DATABASE}.");
    let unfinished = tempfile::Builder::new().prefix(&prefix).suffix(".new").tempfile_in(folder).map_err(cannot)?;
    drop(Embedded::open(unfinished.path())?);
    match unfinished.persist_noclobber(folder.join(DATABASE)) {
        Err(failed) if failed.error.kind() != std::io::ErrorKind::AlreadyExists => Err(cannot(failed.error)),
        _ => Ok(()),
    }
}

/// A ledger that only this process uses, and one handler at a time: a lease that is still open belongs to a process
/// that was killed, and is taken over at once instead of waited for.
#[derive(Clone, Debug)]
pub struct SoleLedger<L>(pub L);

impl<L: Ledger> Ledger for SoleLedger<L> {
    async fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> PortResult<Claim> {
        match self.0.claim(key, now, lease_until).await? {
            Claim::Busy { until } => self.0.claim(key, until, lease_until).await,
            claim => Ok(claim),
        }
    }

    async fn complete(&self, key: &str, result: &str, now: Timestamp) -> PortResult<()> {
        self.0.complete(key, result, now).await
    }

    async fn release(&self, key: &str) -> PortResult<()> {
        self.0.release(key).await
    }

    async fn results(&self, keys: &[String]) -> PortResult<Vec<Option<String>>> {
        self.0.results(keys).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::adapters::memory::MemoryLedger;

    #[tokio::test]
    async fn the_lease_of_a_killed_process_is_taken_over() {
        let at = Timestamp::from_millis;
        let ledger = SoleLedger(MemoryLedger::default());
        assert_eq!(ledger.claim("work", at(1_000), at(61_000)).await.unwrap(), Claim::Ours);
        assert_eq!(ledger.claim("work", at(2_000), at(62_000)).await.unwrap(), Claim::Ours);
        ledger.complete("work", "done", at(3_000)).await.unwrap();
        assert_eq!(ledger.claim("work", at(4_000), at(64_000)).await.unwrap(), Claim::Done("done".to_owned()));
    }

    #[test]
    fn a_folder_without_data_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("pipeline run PATH --data"), "{error}");
    }

    #[test]
    fn an_empty_database_is_not_taken_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(DATABASE), "").unwrap();
        for opened in [DataFolder::open(folder.path()), DataFolder::open_or_make(folder.path())] {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("pipeline.redb is empty"), "{error}");
        }
        assert_eq!(std::fs::metadata(folder.path().join(DATABASE)).unwrap().len(), 0, "left as it was");
    }

    #[test]
    fn a_folder_in_use_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let _open = DataFolder::open_or_make(folder.path()).unwrap();
        let error = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }
}
