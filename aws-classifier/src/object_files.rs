//! Files that settings name and that lie in S3: `s3://BUCKET/KEY` in place of a path, for lists that change more often than
//! a function is deployed.
//!
//! Settings are read at once, and S3 answers later. So what is made of them is made again as long as it asks for
//! objects that are not here yet, and those are fetched in between; a configuration that names none is read once. Of
//! the objects only their entity tags are kept, and asked about from time to time ([`Renewing`]): while nothing has
//! changed, nothing is sent.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::Timestamp;
use shared::ports::{
    BatchResult, Clock, Files, Handler, Message, ObjectBody, ObjectRef, Objects, Opening, Outbox, PortError,
    PortResult, State,
};
use tracing::{info, warn};

use crate::engine::Engine;
use crate::handler::ClassifierHandler;
use crate::inspect::Inspector;
use crate::surroundings::Surroundings;

/// What a name of an object begins with.
const SCHEME: &str = "s3://";
/// More bytes of all objects together are refused: our choice, half a million addresses. While they are read again, the
/// function holds their text, what was made of it before and what is made of it now, in 256 MB: a million takes 145.
const BYTES_MAX: usize = 8 << 20;
/// Settings name at most this many: our choice.
const OBJECTS_MAX: usize = 32;
/// How often a running function asks whether objects have changed: our choice, as current as public lists of addresses are
/// made.
const RENEW_S: i64 = 300;
/// How long a batch waits for that at most: our choice, a tenth of the function's time.
const RENEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Why something could not be made of settings and files.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Makes the engine and the inspection of the files that settings name.
pub type Make = Box<dyn Fn(&dyn Files) -> Result<(Engine, Option<Inspector>), Error>>;

/// Files on this machine, and objects beside them.
pub struct ObjectFiles<O, F> {
    objects: O,
    local: F,
    /// The entity tags of what was made last.
    etags: RefCell<BTreeMap<String, Option<String>>>,
}

struct Fetched {
    content: Vec<u8>,
    etag: Option<String>,
}

/// What is here for one making, and what was asked for in vain.
struct Here<'f, F> {
    local: &'f F,
    fetched: &'f BTreeMap<String, Fetched>,
    missing: RefCell<BTreeSet<String>>,
}

impl<F: Files> Files for Here<'_, F> {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        if !name.starts_with(SCHEME) {
            return self.local.read(name);
        }
        if let Some(fetched) = self.fetched.get(name) {
            return Ok(fetched.content.clone());
        }
        self.missing.borrow_mut().insert(name.to_owned());
        Err(format!("{name} was not fetched yet"))
    }

    /// An object is the one file that it is; nothing is listed in a bucket.
    fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        if folder.starts_with(SCHEME) { Ok(vec![folder.to_owned()]) } else { self.local.list(folder) }
    }
}

impl<O: Objects, F: Files> ObjectFiles<O, F> {
    /// With `local` for all other names.
    pub const fn new(objects: O, local: F) -> Self {
        Self { objects, local, etags: RefCell::new(BTreeMap::new()) }
    }

    /// Makes something of files, and fetches the objects that it asks for.
    ///
    /// # Errors
    /// Those of `make`, and when an object cannot be fetched or is not there, or all are larger than 8 MiB together.
    pub async fn make<T>(&self, make: impl Fn(&dyn Files) -> Result<T, Error>) -> Result<T, Error> {
        self.make_of(BTreeMap::new(), make).await
    }

    /// Makes it again if an object of the last time has changed.
    ///
    /// # Errors
    /// As [`ObjectFiles::make`]; the next call tries again.
    pub async fn remake<T>(&self, make: impl Fn(&dyn Files) -> Result<T, Error>) -> Result<Option<T>, Error> {
        let mut changed = BTreeMap::new();
        let etags = self.etags.borrow().clone();
        for (name, etag) in etags {
            if let Some(fetched) = self.fetch(&name, etag.as_deref(), left(&changed)).await? {
                changed.insert(name, fetched);
            }
        }
        if changed.is_empty() { Ok(None) } else { self.make_of(changed, make).await.map(Some) }
    }

    /// Whether anything was made of objects.
    pub fn names_any(&self) -> bool {
        !self.etags.borrow().is_empty()
    }

    async fn make_of<T>(
        &self,
        mut fetched: BTreeMap<String, Fetched>,
        make: impl Fn(&dyn Files) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let here = Here { local: &self.local, fetched: &fetched, missing: RefCell::default() };
            let made = make(&here);
            let missing = here.missing.into_inner();
            if missing.is_empty() {
                let made = made?;
                *self.etags.borrow_mut() = fetched.into_iter().map(|(name, object)| (name, object.etag)).collect();
                return Ok(made);
            }
            for name in missing {
                if fetched.len() == OBJECTS_MAX {
                    return Err(format!("settings name more than {OBJECTS_MAX} objects, such as {name}").into());
                }
                if let Some(object) = self.fetch(&name, None, left(&fetched)).await? {
                    fetched.insert(name, object);
                }
            }
        }
    }

    /// The object, of at most so many bytes; `None` when it still has that entity tag.
    async fn fetch(&self, name: &str, unless_etag: Option<&str>, bytes_max: usize) -> PortResult<Option<Fetched>> {
        let refused = |why: &str| PortError::Permanent { what: format!("{name}: {why}"), source: None };
        let (bucket, key) = name
            .strip_prefix(SCHEME)
            .and_then(|place| place.split_once('/'))
            .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
            .ok_or_else(|| refused("must be s3://BUCKET/KEY"))?;
        let object = ObjectRef { unless_etag, ..ObjectRef::newest(bucket, key) };
        let mut body = match self.objects.open(&object).await? {
            Opening::Opened(body) => body,
            Opening::Unchanged if unless_etag.is_some() => return Ok(None),
            _ => return Err(refused("there is no such object")),
        };
        let etag = body.etag().map(str::to_owned);
        let mut content = Vec::new();
        while let Some(chunk) = body.next().await? {
            content.extend_from_slice(&chunk);
            if content.len() > bytes_max {
                return Err(refused("the objects that settings name have more than 8 MiB together"));
            }
        }
        Ok(Some(Fetched { content, etag }))
    }
}

/// How many bytes may still be fetched.
fn left(fetched: &BTreeMap<String, Fetched>) -> usize {
    BYTES_MAX.saturating_sub(fetched.values().map(|object| object.content.len()).sum())
}

/// A classifier that is made anew when an object that its settings name has changed. What cannot be fetched or used
/// leaves it as it is, with a warning, until the next time.
pub struct Renewing<S, Q, W, O, F, C> {
    handler: ClassifierHandler<S, Q, W>,
    files: ObjectFiles<O, F>,
    make: Make,
    clock: C,
    asked_at: Cell<Timestamp>,
}

impl<S: State, Q: Outbox, W: Surroundings, O: Objects, F: Files, C: Clock> Renewing<S, Q, W, O, F, C> {
    /// A handler whose engine and inspection `make` made of `files`.
    pub fn new(handler: ClassifierHandler<S, Q, W>, files: ObjectFiles<O, F>, make: Make, clock: C) -> Self {
        let asked_at = Cell::new(clock.now());
        Self { handler, files, make, clock, asked_at }
    }

    /// The classifier.
    pub const fn handler(&self) -> &ClassifierHandler<S, Q, W> {
        &self.handler
    }

    async fn renew(&self) {
        let now = self.clock.now();
        if !self.files.names_any() || now < self.asked_at.get().plus_seconds(RENEW_S) {
            return;
        }
        self.asked_at.set(now);
        match tokio::time::timeout(RENEW_TIMEOUT, self.files.remake(&self.make)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some((engine, inspector)))) => {
                self.handler.renew(engine, inspector);
                info!("read the files of the settings again, as one has changed");
            }
            Ok(Err(error)) => warn!("the files of the settings stay as they are: {error}"),
            Err(_) => warn!("the files of the settings stay as they are: S3 did not answer in time"),
        }
    }
}

impl<S: State, Q: Outbox, W: Surroundings, O: Objects, F: Files, C: Clock> Handler for Renewing<S, Q, W, O, F, C> {
    async fn handle(&self, batch: &[Message]) -> BatchResult {
        self.renew().await;
        self.handler.handle(batch).await
    }
}

#[cfg(test)]
mod tests;
