//! What stands around the classifier: on one machine a reader that opens log files and makes follow-ups, in the cloud
//! nobody, so the handler does both itself.

use shared::Timestamp;
use shared::ports::{
    Clock, DELAY_S_MAX, Delayed, DelayedOutbox, LogPages, LogQuery, LogRecords, ObjectBody, ObjectRef, Objects,
    Opening, PortError, PortResult, Web,
};

use crate::inspect::Report;
use crate::reputation::Reputation;

/// How long after its time a follow-up is held: the events that answer it may arrive late. CloudTrail delivers within
/// 15 minutes (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/get-and-view-cloudtrail-log-files.html>).
const LATENESS_S: i64 = 900;

/// See the module.
pub trait Surroundings {
    /// A log file or other object that was opened.
    type File: ObjectBody;

    /// Records that were found in a log group.
    type Found: LogPages;

    /// Whether a reader in front of the queue opens files and makes follow-ups. Without one, the handler does.
    const HAVE_READER: bool;

    /// Opens a log file or another object.
    ///
    /// # Errors
    /// Those of [`Objects::open`].
    fn open(&self, object: &ObjectRef<'_>) -> impl Future<Output = PortResult<Opening<Self::File>>>;

    /// Looks for records in a log group.
    ///
    /// # Errors
    /// Those of [`LogRecords::find`].
    fn find(&self, query: &LogQuery<'_>) -> impl Future<Output = PortResult<Self::Found>>;

    /// Asks outside services what they know of inspected objects, and adds it to their reports.
    fn look_up(&self, reports: &mut [Report]) -> impl Future<Output = ()>;

    /// Whether a follow-up of that time is to be classified now, and what happened until then has arrived.
    fn is_due(&self, at: Timestamp) -> bool;

    /// The time, for those who want to know how long findings take; `None` where nobody waits.
    fn now(&self) -> Option<Timestamp>;

    /// Sends follow-ups, or what is to be handled once more, each with its time, to the classifier's own queue, from where
    /// they come when they are due, or before and are postponed again.
    ///
    /// # Errors
    /// Those of the queue; some may have been sent.
    fn postpone(&self, follow_ups: Vec<(Timestamp, String)>) -> impl Future<Output = PortResult<()>>;
}

/// A reader does it all: the chain of `pipeline run`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneMachine;

/// There is no such file, and no such log group.
#[derive(Clone, Copy, Debug)]
pub enum NoFile {}

impl LogPages for NoFile {
    async fn next(&mut self) -> PortResult<Option<Vec<String>>> {
        match *self {}
    }
}

impl ObjectBody for NoFile {
    fn content_type(&self) -> Option<&str> {
        match *self {}
    }

    fn etag(&self) -> Option<&str> {
        match *self {}
    }

    async fn next(&mut self) -> PortResult<Option<Vec<u8>>> {
        match *self {}
    }
}

impl Surroundings for OneMachine {
    type File = NoFile;
    type Found = NoFile;
    const HAVE_READER: bool = true;

    async fn open(&self, object: &ObjectRef<'_>) -> PortResult<Opening<NoFile>> {
        let ObjectRef { bucket, key, .. } = object;
        let what = format!("s3://{bucket}/{key} is not read here: name log files on the command line");
        Err(PortError::Permanent { what, source: None })
    }

    async fn find(&self, query: &LogQuery<'_>) -> PortResult<NoFile> {
        let what = format!("the log group {} is not asked here", query.log_group);
        Err(PortError::Permanent { what, source: None })
    }

    async fn look_up(&self, _reports: &mut [Report]) {}

    fn is_due(&self, _at: Timestamp) -> bool {
        true
    }

    fn now(&self) -> Option<Timestamp> {
        None
    }

    async fn postpone(&self, _follow_ups: Vec<(Timestamp, String)>) -> PortResult<()> {
        Ok(())
    }
}

/// A Lambda function: files are objects in S3, follow-ups wait in the function's own queue.
///
/// A message can be held back for [`DELAY_S_MAX`] seconds, so one that waits longer comes and goes: four times and a last
/// one for the hour of `security_group_left_open`.
pub struct Cloud<Q, B, L, C, W> {
    /// The classifier's own queue.
    pub own_queue: Q,
    /// The buckets.
    pub objects: B,
    /// The log groups.
    pub logs: L,
    /// The clock that says what is due. Classifiers never see it.
    pub clock: C,
    /// The outside services.
    pub reputation: Reputation<W>,
}

impl<Q: DelayedOutbox, B: Objects, L: LogRecords, C: Clock, W: Web> Surroundings for Cloud<Q, B, L, C, W> {
    type File = B::Body;
    type Found = L::Found;
    const HAVE_READER: bool = false;

    fn open(&self, object: &ObjectRef<'_>) -> impl Future<Output = PortResult<Opening<B::Body>>> {
        self.objects.open(object)
    }

    fn find(&self, query: &LogQuery<'_>) -> impl Future<Output = PortResult<L::Found>> {
        self.logs.find(query)
    }

    fn look_up(&self, reports: &mut [Report]) -> impl Future<Output = ()> {
        self.reputation.look_up(reports, &self.clock)
    }

    fn is_due(&self, at: Timestamp) -> bool {
        self.clock.now() >= at.plus_seconds(LATENESS_S)
    }

    fn now(&self) -> Option<Timestamp> {
        Some(self.clock.now())
    }

    async fn postpone(&self, follow_ups: Vec<(Timestamp, String)>) -> PortResult<()> {
        let now = self.clock.now();
        let delayed = |(at, body): (Timestamp, String)| {
            // Rounded up: one that comes a moment too early would go round once more.
            let left_s = at.plus_seconds(LATENESS_S).as_millis().saturating_sub(now.as_millis()).max(0) / 1000 + 1;
            Delayed { body, delay_s: u32::try_from(left_s).unwrap_or(DELAY_S_MAX).min(DELAY_S_MAX) }
        };
        let messages: Vec<Delayed> = follow_ups.into_iter().map(delayed).collect();
        self.own_queue.send_delayed(&messages).await
    }
}
