//! What the components need from the world, as traits. Adapters implement them in [`crate::adapters`];
//! one contract suite per port (`crate::testing`) runs against every adapter.

use std::future::Future;
use std::ops::RangeInclusive;

pub use crate::files::Files;
use crate::incident::{Incident, IncidentId, IncidentStatus};
use crate::observation::{Known, ObserveRequest};
use crate::time::Timestamp;

/// Why a port could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Try again: time-out, throttle, conflict, disk busy, a permission or table that somebody may put back.
    #[error("{what}")]
    Retryable {
        /// What was being done to what.
        what: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Trying again cannot help: corrupt record, refused content.
    #[error("{what}")]
    Permanent {
        /// What was being done to what.
        what: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl PortError {
    /// A retryable error with its cause.
    pub fn retryable(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Retryable { what: what.into(), source: Some(Box::new(source)) }
    }

    /// A permanent error with its cause.
    pub fn permanent(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Permanent { what: what.into(), source: Some(Box::new(source)) }
    }

    /// Whether the message that met this error should go back to its queue.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Retryable { .. })
    }
}

/// The result of a port call.
pub type PortResult<T> = Result<T, PortError>;

/// One message as a handler receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Names the message in the batch result.
    pub message_id: String,
    /// The body.
    pub body: String,
    /// How many times it was received, this time included.
    pub receive_count: u32,
}

/// A message that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedMessage {
    /// Which one.
    pub message_id: String,
    /// Why, for the log and the dead-letter queue.
    pub reason: String,
    /// `true`: put it back, it may work later. `false`: the same bytes will never work.
    pub retryable: bool,
}

/// What became of a batch: every message that is not named was handled and may be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchResult {
    /// The messages that failed, and only they, come back.
    pub failed: Vec<FailedMessage>,
}

/// A component's handler: messages in, effects through its ports, failures out. Never fails as a whole.
pub trait Handler {
    /// Handles a batch.
    fn handle(&self, batch: &[Message]) -> impl Future<Output = BatchResult>;

    /// Is told of so many messages that failed before or without being handled, for a handler that counts what comes in.
    fn count_unhandled(&self, _messages: u64) {}
}

/// The sending side of a queue with SQS semantics: at least once, no order.
pub trait Outbox {
    /// Sends all bodies; when it fails, some may have been sent.
    fn send(&self, bodies: &[String]) -> impl Future<Output = PortResult<()>>;
}

/// A message to be received later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    /// The body.
    pub body: String,
    /// How many seconds it stays invisible, at most [`DELAY_S_MAX`].
    pub delay_s: u32,
}

/// The longest delay of a message: that of SQS (`DelaySeconds`, API reference of `SendMessage`).
pub const DELAY_S_MAX: u32 = 900;

/// The sending side of a queue that can hold messages back.
pub trait DelayedOutbox {
    /// Sends all messages; when it fails, some may have been sent.
    fn send_delayed(&self, messages: &[Delayed]) -> impl Future<Output = PortResult<()>>;
}

/// Which object, and which of the contents that its key has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRef<'a> {
    /// The bucket's name.
    pub bucket: &'a str,
    /// The object's key, as it is.
    pub key: &'a str,
    /// This version of it, where the bucket keeps versions; none is the newest.
    pub version_id: Option<&'a str>,
    /// Only the content with this entity tag.
    pub etag: Option<&'a str>,
    /// Only another content than the one with this entity tag.
    pub unless_etag: Option<&'a str>,
}

impl<'a> ObjectRef<'a> {
    /// Whatever the key holds now.
    pub const fn newest(bucket: &'a str, key: &'a str) -> Self {
        Self { bucket, key, version_id: None, etag: None, unless_etag: None }
    }
}

/// What asking for an object comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening<B> {
    /// Here it is.
    Opened(B),
    /// There is no such key, or no such version of it (any more).
    Gone,
    /// The key has another content than the one asked for.
    Replaced,
    /// The key has the content that was not asked for.
    Unchanged,
}

/// Opens objects, such as log files in a bucket.
pub trait Objects {
    /// An opened object.
    type Body: ObjectBody;
    /// Opens an object.
    ///
    /// # Errors
    /// Retryable also when it may not be read or there is no such bucket, as somebody may mend that; permanent when the object
    /// cannot be had as it is, such as one that was moved to an archive.
    fn open(&self, object: &ObjectRef<'_>) -> impl Future<Output = PortResult<Opening<Self::Body>>>;
}

/// The bytes of an opened object.
pub trait ObjectBody {
    /// The `Content-Type` it was stored with.
    fn content_type(&self) -> Option<&str>;
    /// Its entity tag, which changes with the content.
    fn etag(&self) -> Option<&str>;
    /// The next bytes, as they come in; `None` at the end.
    fn next(&mut self) -> impl Future<Output = PortResult<Option<Vec<u8>>>>;
}

/// Which records of a log group of CloudTrail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery<'a> {
    /// The log group's name.
    pub log_group: &'a str,
    /// The `eventName`s that are wanted: letters and digits, as they become part of the question.
    pub events: &'a [String],
    /// The first moment, by the time that the log group has of a record.
    pub from: Timestamp,
    /// The last moment, which belongs to it.
    pub until: Timestamp,
}

/// Looks for records in a log group of CloudTrail.
pub trait LogRecords {
    /// What was found.
    type Found: LogPages;
    /// Looks, and waits until the search is over.
    ///
    /// # Errors
    /// Retryable when the search failed or took too long, there is no such log group or it may not be asked: somebody may mend
    /// that. Permanent when the question is wrong.
    fn find(&self, query: &LogQuery<'_>) -> impl Future<Output = PortResult<Self::Found>>;
}

/// Records that were found, the oldest first.
pub trait LogPages {
    /// The next of them, each the text of a CloudTrail record; `None` behind the last.
    ///
    /// # Errors
    /// Permanent behind the last that can be had, when there are more.
    fn next(&mut self) -> impl Future<Output = PortResult<Option<Vec<String>>>>;
}

/// A question to a web service: `GET`, with a small answer.
#[derive(Clone, PartialEq, Eq)]
pub struct WebRequest {
    /// `https://…`; also `http://…` on this machine.
    pub url: String,
    /// Names in lower case. A key of the service may be among them, so they are never shown.
    pub headers: Vec<(&'static str, String)>,
    /// From the first byte sent to the last received.
    pub timeout_s: u32,
    /// A longer answer is an error.
    pub answer_bytes_max: usize,
}

impl std::fmt::Debug for WebRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        f.debug_struct("WebRequest").field("url", &self.url).field("headers", &headers).finish_non_exhaustive()
    }
}

/// What a web service answered. Redirections are answers like others, so that no key goes to another place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
    /// The body, whatever it is.
    pub body: Vec<u8>,
}

/// Asks web services.
pub trait Web {
    /// Asks once.
    ///
    /// # Errors
    /// Why there is no answer, in words and without the headers of the request: not reached, too late, too long.
    fn get(&self, request: &WebRequest) -> impl Future<Output = Result<WebAnswer, String>>;
}

/// How a queue treats what is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// How long a received message stays invisible, in seconds.
    pub visibility_timeout_s: u32,
    /// How often a message is received before it goes to the dead-letter queue instead; at least 1.
    pub max_receive_count: u32,
}

impl Default for QueueSettings {
    /// Five minutes and five times: our choice, the values the deployed queues start from.
    fn default() -> Self {
        Self { visibility_timeout_s: 300, max_receive_count: 5 }
    }
}

/// Why a message that nobody complained about is a dead letter.
pub(crate) fn worn_out(receive_count: u32, last_reason: &str) -> String {
    let last = if last_reason.is_empty() { "it was never answered" } else { last_reason };
    format!("received {receive_count} times without success: {last}")
}

/// The receiving side of a queue with SQS semantics.
///
/// Messages come roughly in the order they were sent, and those whose time-out has passed come first; nothing may
/// depend on it. Deleting or returning a message that is not there (any more) does nothing.
///
/// A received message stays invisible for the visibility timeout; when it is neither deleted nor returned by then it
/// is received again, with `receive_count` one higher. A message received `max_receive_count` times and not deleted
/// goes to the dead-letter queue instead.
pub trait Queue: Outbox {
    /// Up to `max` visible messages, which are invisible from `now` on for the visibility timeout.
    fn receive(&self, max: usize, now: Timestamp) -> impl Future<Output = PortResult<Vec<Message>>>;
    /// Deletes handled messages.
    fn delete(&self, message_ids: &[String]) -> impl Future<Output = PortResult<()>>;
    /// Makes failed messages visible again at once; permanent failures go to the dead-letter queue with
    /// their reason.
    fn give_back(&self, failed: &[FailedMessage]) -> impl Future<Output = PortResult<()>>;
    /// How many messages wait or are in flight.
    fn depth(&self) -> impl Future<Output = PortResult<u64>>;
    /// Dead letters, oldest first, at most `limit`.
    fn dead_letters(&self, limit: usize) -> impl Future<Output = PortResult<Vec<DeadLetter>>>;
    /// Moves all dead letters back with receive count 0; answers how many.
    fn redrive(&self) -> impl Future<Output = PortResult<u64>>;
}

/// A message that could not be handled.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeadLetter {
    /// Its id in the queue it came from.
    pub message_id: String,
    /// The body, as received.
    pub body: String,
    /// Why it is here.
    pub reason: String,
    /// How often it had been received.
    pub receive_count: u32,
}

/// What classifiers remember. See [`crate::observation`] for the semantics.
pub trait State {
    /// Applies the requests in order, as if one after another, and answers each.
    fn observe(&self, requests: &[ObserveRequest<'_>]) -> impl Future<Output = PortResult<Vec<Known>>>;
}

/// Whether a piece of work was done before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody did it; it is ours until the lease ends.
    Ours,
    /// Someone is at it until the given time.
    Busy {
        /// When the lease ends.
        until: Timestamp,
    },
    /// Done, with the stored result.
    Done(String),
}

/// How long a ledger keeps what was completed, at least: 14 days, the longest an SQS queue keeps a message, twice over
/// for the source queue and its dead-letter queue.
pub const LEDGER_RETENTION_S: i64 = 28 * 86_400;

/// Remembers what was done, so that it is done once: conditional put `IN_PROGRESS` with a lease, then `COMPLETE`
/// with the result. Entries are kept at least [`LEDGER_RETENTION_S`] after completion.
pub trait Ledger {
    /// Claims `key` until `lease_until`. A claim whose lease has ended by `now` may be taken over.
    fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> impl Future<Output = PortResult<Claim>>;
    /// Stores the result of the claimed work.
    fn complete(&self, key: &str, result: &str, now: Timestamp) -> impl Future<Output = PortResult<()>>;
    /// Gives the claim up after a retryable failure.
    fn release(&self, key: &str) -> impl Future<Output = PortResult<()>>;
    /// The stored results of these keys, in their order; `None` where nothing was completed, also while somebody is at it.
    /// Only reads.
    fn results(&self, keys: &[String]) -> impl Future<Output = PortResult<Vec<Option<String>>>>;
}

/// Selects incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentFilter {
    /// Only these states; empty means all.
    pub statuses: Vec<IncidentStatus>,
    /// Only with this resolution key.
    pub resolution_key: Option<String>,
    /// Only of events at this time or later.
    pub since: Option<Timestamp>,
    /// Only those that come behind this one in the list: the last of a page, for the next page.
    pub after: Option<IncidentId>,
    /// At most this many, newest first; 0 means all.
    pub limit: usize,
}

impl IncidentFilter {
    /// The first and the last id that `since` and `after` leave; `None` when they leave none.
    pub fn ids(&self) -> Option<RangeInclusive<IncidentId>> {
        let first = self.since.map_or(IncidentId::MIN, IncidentId::first_at);
        let last = self.after.map_or(IncidentId::MAX, IncidentId::previous);
        let is_none = first > last || self.after == Some(IncidentId::MIN);
        (!is_none).then_some(first..=last)
    }
}

/// The incident store.
pub trait Incidents {
    /// The incident, if it exists.
    fn get(&self, id: IncidentId) -> impl Future<Output = PortResult<Option<Incident>>>;
    /// Reads, changes and writes one incident without losing a concurrent change. `change` may run more
    /// than once; it returns `None` to leave things as they are.
    fn update(
        &self,
        id: IncidentId,
        change: &mut dyn FnMut(Option<Incident>) -> Option<Incident>,
    ) -> impl Future<Output = PortResult<()>>;
    /// Incidents newest first (by id, which is time-ordered).
    fn list(&self, filter: &IncidentFilter) -> impl Future<Output = PortResult<Vec<Incident>>>;
}

/// Keeps bytes under a name; writing the same name again replaces it.
pub trait Archive {
    /// Stores `content` under `name`, a relative path with `/`. Names that are empty, absolute, hold a backslash or
    /// NUL, or a part that is empty, `.` or `..` are refused: see [`check_archive_name`].
    fn put(&self, name: &str, content: &[u8]) -> impl Future<Output = PortResult<()>>;
}

/// Refuses names an [`Archive`] must not take, so that attacker text in a name never leaves its folder.
///
/// # Errors
/// Permanent: names the name and the rule.
pub fn check_archive_name(name: &str) -> PortResult<()> {
    let ordinary = |part: &str| !matches!(part, "" | "." | "..");
    if name.contains(['\\', '\0', ':']) || !name.split('/').all(ordinary) {
        return Err(PortError::Permanent {
            what: format!("archive name {name:?} is refused: it must be a relative path of ordinary parts, with '/'"),
            source: None,
        });
    }
    Ok(())
}

/// The time now. Handlers use it for leases and `created_at`, classifiers never.
pub trait Clock {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Every port works through a reference and through shared pointers, so wiring can hand one adapter to several users.
macro_rules! through_pointers {
    ($($pointer:ty),*) => {$(
        impl<T: Outbox + ?Sized> Outbox for $pointer {
            fn send(&self, bodies: &[String]) -> impl Future<Output = PortResult<()>> {
                (**self).send(bodies)
            }
        }

        impl<T: Queue + ?Sized> Queue for $pointer {
            fn receive(&self, max: usize, now: Timestamp) -> impl Future<Output = PortResult<Vec<Message>>> {
                (**self).receive(max, now)
            }
            fn delete(&self, message_ids: &[String]) -> impl Future<Output = PortResult<()>> {
                (**self).delete(message_ids)
            }
            fn give_back(&self, failed: &[FailedMessage]) -> impl Future<Output = PortResult<()>> {
                (**self).give_back(failed)
            }
            fn depth(&self) -> impl Future<Output = PortResult<u64>> {
                (**self).depth()
            }
            fn dead_letters(&self, limit: usize) -> impl Future<Output = PortResult<Vec<DeadLetter>>> {
                (**self).dead_letters(limit)
            }
            fn redrive(&self) -> impl Future<Output = PortResult<u64>> {
                (**self).redrive()
            }
        }

        impl<T: State + ?Sized> State for $pointer {
            fn observe(&self, requests: &[ObserveRequest<'_>]) -> impl Future<Output = PortResult<Vec<Known>>> {
                (**self).observe(requests)
            }
        }

        impl<T: Ledger + ?Sized> Ledger for $pointer {
            fn claim(
                &self,
                key: &str,
                now: Timestamp,
                lease_until: Timestamp,
            ) -> impl Future<Output = PortResult<Claim>> {
                (**self).claim(key, now, lease_until)
            }
            fn complete(&self, key: &str, result: &str, now: Timestamp) -> impl Future<Output = PortResult<()>> {
                (**self).complete(key, result, now)
            }
            fn release(&self, key: &str) -> impl Future<Output = PortResult<()>> {
                (**self).release(key)
            }
            fn results(&self, keys: &[String]) -> impl Future<Output = PortResult<Vec<Option<String>>>> {
                (**self).results(keys)
            }
        }

        impl<T: Incidents + ?Sized> Incidents for $pointer {
            fn get(&self, id: IncidentId) -> impl Future<Output = PortResult<Option<Incident>>> {
                (**self).get(id)
            }
            fn update(
                &self,
                id: IncidentId,
                change: &mut dyn FnMut(Option<Incident>) -> Option<Incident>,
            ) -> impl Future<Output = PortResult<()>> {
                (**self).update(id, change)
            }
            fn list(&self, filter: &IncidentFilter) -> impl Future<Output = PortResult<Vec<Incident>>> {
                (**self).list(filter)
            }
        }

        impl<T: Archive + ?Sized> Archive for $pointer {
            fn put(&self, name: &str, content: &[u8]) -> impl Future<Output = PortResult<()>> {
                (**self).put(name, content)
            }
        }

        impl<T: Clock + ?Sized> Clock for $pointer {
            fn now(&self) -> Timestamp {
                (**self).now()
            }
        }
    )*};
}

through_pointers!(&T, std::rc::Rc<T>, std::sync::Arc<T>);
