//! A batch of messages in, findings out: decode, classify, send.
//!
//! A message with an unreadable record is reported as failed, with the record's place and field, after its good records
//! were handled; it ends in the dead-letter queue, and redriving it repeats nothing, because finding ids and
//! state are idempotent per event.
//!
//! A message may also say that objects were created in S3. Log files are read as they come in, a few hundred wanted records
//! at a time, and classified in the order of the file. Objects of the buckets that are watched are inspected, and what
//! the inspection says is a record like any other.
//!
//! An alarm of CloudWatch may lead into a log group of CloudTrail ([`crate::alarms`]). The records around its time are
//! classified behind everything else of the batch, as records of the alarm's message; those that also come as events have
//! the same ids. The message goes its way once more until what happened in that time must have arrived.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use shared::Timestamp;
use shared::envelope::Envelope;
use shared::event::Event;
use shared::ports::{
    BatchResult, FailedMessage, Handler, LogPages, Message, ObjectBody, Opening, Outbox, PortError, State,
};
use shared::text::one_line;
use tracing::{info, warn};

use crate::alarms::{Alarms, Window};
use crate::engine::Engine;
use crate::inspect::{self, Inspector, Report};
use crate::intake::inflate::InflatePieces;
use crate::intake::log_file::{Pieces, Visitor};
use crate::intake::log_groups::LogGroups;
use crate::intake::s3_object::{self, Object};
use crate::intake::{self, IntakeError, follow_up, inspection};
use crate::noise::Tally;
use crate::routing::Slot;
use crate::surroundings::{OneMachine, Surroundings};

/// Reasons kept of one message: enough to see what is wrong, bounded for hostile ones.
const REASONS_MAX: usize = 5;
/// Wanted records of a log file that are classified together: our choice, some hundred kilobytes of text.
const RECORDS_TOGETHER: usize = 500;
/// Compressed bytes that are inflated at a time. Gzip makes at most 1,032 times as much of them: 17 MB.
const INFLATE_BYTES: usize = 16 << 10;
/// No look into a log group begins after so long with those of one batch: our choice. With the 20 s that one may take, that
/// stays below the deployed function's 50 s.
const LOOKS_S_MAX: i64 = 15;
/// No clock is so far behind: our choice.
const AHEAD_S_MAX: i64 = 3600;
/// Characters of an object's name in the log: our choice.
const NAME_CHARS_MAX: usize = 200;

/// What happened to records: `records_in = classified + ignored + failed`. The first is counted where records come in, the
/// others where they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records found in messages and log files, each time they come. A notification that names no log file counts as a
    /// record, and so does a log file or upload that cannot be read to its end; a follow-up counts when it is due.
    /// A look into a log group counts when it fails, and so do the records that it finds.
    pub records_in: u64,
    /// At least one classifier looked at it.
    pub classified: u64,
    /// No classifier is concerned.
    pub ignored: u64,
    /// Unreadable, malformed in a field that a concerned classifier asks for, or of a message that failed.
    pub failed: u64,
    /// Findings sent.
    pub findings: u64,
    /// Findings that the allow-list kept back.
    pub suppressed: u64,
    /// Findings kept back because they repeat another.
    pub repeats: u64,
}

/// The classifier component.
pub struct ClassifierHandler<S, O, W = OneMachine> {
    engine: RefCell<Rc<Engine>>,
    state: S,
    findings: O,
    surroundings: W,
    inspector: RefCell<Option<Rc<Inspector>>>,
    alarms: Alarms,
    counts: Cell<Counts>,
    kept_back: RefCell<Tally>,
}

struct Record {
    message: usize,
    /// The log file or log group it is from.
    file: Option<Rc<str>>,
    index: u64,
    text: String,
}

impl Record {
    fn trouble<'b>(&self, batch: &'b mut Batch) -> &'b mut Trouble {
        &mut batch.troubles[self.message]
    }
}

/// Keeps the records of a log file that concern a classifier.
struct Wanted<'h> {
    engine: &'h Engine,
    file: Rc<str>,
    message: usize,
    /// Used again for each event.
    slots: Vec<Slot>,
    records: Vec<Record>,
    came_in: u64,
    ignored: u64,
    trouble: Trouble,
}

impl Visitor for Wanted<'_> {
    fn file_name(&self) -> &str {
        &self.file
    }

    fn log_groups(&self) -> Arc<LogGroups> {
        self.engine.log_groups()
    }

    fn event(&mut self, index: u64, event: &Event<'_>, text: &str) {
        self.came_in += 1;
        self.engine.concerned(event, &mut self.slots);
        if self.slots.is_empty() {
            self.ignored += 1;
        } else {
            let (file, text) = (Some(Rc::clone(&self.file)), text.to_owned());
            self.records.push(Record { message: self.message, file, index, text });
        }
    }

    fn failed(&mut self, index: u64, error: &IntakeError, _text: &str) {
        self.came_in += 1;
        self.trouble.add(Some(&self.file), index, &error.to_string());
    }
}

/// What went wrong with one message.
#[derive(Default)]
struct Trouble {
    /// Records that are wrong in themselves.
    failed: u64,
    /// Records that something else kept from being handled.
    unhandled: u64,
    reasons: Vec<String>,
    /// Something that has nothing to do with records.
    error: Option<PortError>,
}

impl Trouble {
    fn add(&mut self, file: Option<&str>, index: u64, reason: &str) {
        self.failed += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(match file {
                Some(file) => format!("{file} record {index}: {reason}"),
                None => format!("record {index}: {reason}"),
            });
        }
    }

    /// What can still succeed gets its chance.
    fn fail(&mut self, error: PortError) {
        if self.error.as_ref().is_none_or(|known| !known.is_retryable()) {
            self.error = Some(error);
        }
    }

    fn merge(&mut self, other: Self) {
        self.failed += other.failed;
        self.unhandled += other.unhandled;
        self.reasons.extend(other.reasons);
        self.reasons.truncate(REASONS_MAX);
        if let Some(error) = other.error {
            self.fail(error);
        }
    }

    fn into_failure(self, message: &Message) -> Option<FailedMessage> {
        let unreadable = (self.failed > 0).then(|| format!("{} unreadable: {}", self.failed, self.reasons.join("; ")));
        let retryable = self.error.as_ref().is_some_and(PortError::is_retryable);
        let error = self.error.map(|error| error.to_string());
        let reason = [error, unreadable].into_iter().flatten().collect::<Vec<_>>().join("; ");
        if reason.is_empty() {
            return None;
        }
        warn!(message.id = %message.message_id, "records failed: {reason}");
        Some(FailedMessage { message_id: message.message_id.clone(), reason, retryable })
    }
}

/// An alarm that leads into a log group.
struct Look {
    message: usize,
    window: Window,
    /// The alarm, for the next time.
    text: String,
}

/// What a batch, or a part of it, comes to.
struct Batch {
    troubles: Vec<Trouble>,
    /// Alarms that are to be looked into.
    looks: Vec<Look>,
    counts: Counts,
    /// Follow-ups that were sent on their way: they have not come in yet.
    postponed: u64,
    kept_back: Tally,
}

impl Batch {
    fn of(messages: usize) -> Self {
        let troubles = std::iter::repeat_with(Trouble::default).take(messages).collect();
        Self { troubles, looks: Vec::new(), counts: Counts::default(), postponed: 0, kept_back: Tally::default() }
    }

    fn merge(&mut self, part: Self) {
        self.counts = self.counts.plus(part.counts);
        self.looks.extend(part.looks);
        self.postponed += part.postponed;
        self.kept_back.merge(&part.kept_back);
        for (trouble, more) in self.troubles.iter_mut().zip(part.troubles) {
            trouble.merge(more);
        }
    }
}

impl Counts {
    const fn plus(self, other: Self) -> Self {
        Self {
            records_in: self.records_in + other.records_in,
            classified: self.classified + other.classified,
            ignored: self.ignored + other.ignored,
            failed: self.failed + other.failed,
            findings: self.findings + other.findings,
            suppressed: self.suppressed + other.suppressed,
            repeats: self.repeats + other.repeats,
        }
    }
}

impl<S: State, O: Outbox> ClassifierHandler<S, O> {
    /// A handler that remembers in `state` and sends findings to `findings`, behind a reader.
    pub fn new(engine: Engine, state: S, findings: O) -> Self {
        Self::surrounded(engine, state, findings, OneMachine)
    }
}

impl<S: State, O: Outbox, W: Surroundings> ClassifierHandler<S, O, W> {
    /// A handler that remembers in `state` and sends findings to `findings`.
    pub fn surrounded(engine: Engine, state: S, findings: O, surroundings: W) -> Self {
        let engine = RefCell::new(Rc::new(engine));
        let (inspector, alarms, counts, kept_back) = Default::default();
        Self { engine, state, findings, surroundings, inspector, alarms, counts, kept_back }
    }

    /// With an inspection of new objects in S3.
    #[must_use]
    pub fn inspecting(self, inspector: Option<Inspector>) -> Self {
        self.inspector.replace(inspector.map(Rc::new));
        self
    }

    /// With alarms that lead into a log group.
    #[must_use]
    pub fn looking_into(mut self, alarms: Alarms) -> Self {
        self.alarms = alarms;
        self
    }

    /// Another engine and inspection from the next batch on.
    pub fn renew(&self, engine: Engine, inspector: Option<Inspector>) {
        self.engine.replace(Rc::new(engine));
        self.inspector.replace(inspector.map(Rc::new));
    }

    /// What was kept back since the start.
    pub fn kept_back(&self) -> Tally {
        self.kept_back.borrow().clone()
    }

    /// Totals since the start.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// The engine.
    pub fn engine(&self) -> Rc<Engine> {
        Rc::clone(&self.engine.borrow())
    }

    fn inspector(&self) -> Option<Rc<Inspector>> {
        self.inspector.borrow().clone()
    }

    /// Handles a batch together, up to an error that all of it shares: then nothing is counted, and some may have been done.
    async fn handle_together(&self, messages: &[Message]) -> Result<Vec<Trouble>, PortError> {
        let mut batch = Batch::of(messages.len());
        let mut records: Vec<Record> = Vec::new();
        let mut objects: Vec<(usize, Object)> = Vec::new();
        let log_groups = self.engine().log_groups();
        for (message, Message { body, .. }) in messages.iter().enumerate() {
            let created = if W::HAVE_READER { None } else { s3_object::created(body) };
            if let Some(created) = created {
                batch.counts.records_in += created.ignored + created.failed;
                batch.counts.ignored += created.ignored;
                for i in 0..created.failed {
                    batch.troubles[message].add(None, i, "a notification of S3 that names no bucket and key");
                }
                objects.extend(created.objects.into_iter().map(|object| (message, object)));
                continue;
            }
            let mut index = 0;
            intake::decode(body, &log_groups, &mut |leaf| {
                batch.counts.records_in += 1;
                match leaf {
                    Ok(leaf) => records.push(Record { message, file: None, index, text: leaf.text.to_owned() }),
                    Err(error) => batch.troubles[message].add(None, index, &error.to_string()),
                }
                index += 1;
            });
        }
        match (self.classify(&records, &mut batch).await, messages.len()) {
            (Err(error), 1) => batch.troubles[0].fail(error),
            (handled, _) => handled?,
        }
        // First: whoever may upload chooses the key, and must not pass a file off as CloudTrail's.
        let inspector = self.inspector();
        let watched = |object: &Object| inspector.as_ref().is_some_and(|inspector| inspector.wants(&object.bucket));
        let (uploads, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|(_, object)| watched(object));
        self.inspect_all(uploads, &mut batch).await;
        for (message, object) in others {
            if let Err(error) = self.read(message, &object, &mut batch).await {
                batch.counts.records_in += 1;
                batch.troubles[message].unhandled += 1;
                batch.troubles[message].fail(error);
            }
        }
        self.look_into_all(&mut batch).await;
        let Batch { troubles, mut counts, postponed, kept_back, .. } = batch;
        (counts.suppressed, counts.repeats) = (kept_back.suppressed, kept_back.repeats);
        self.kept_back.borrow_mut().merge(&kept_back);
        counts.failed = troubles.iter().map(|t| t.failed + t.unhandled).sum();
        counts.records_in -= postponed;
        self.counts.set(self.counts.get().plus(counts));
        Ok(troubles)
    }

    /// Handles each message of a batch that could not be handled together, so that what is wrong with one costs no other.
    /// When two in a row may work later, state or outbox do not answer: the rest come back without waiting for them ten
    /// times.
    async fn handle_apart(&self, messages: &[Message]) -> Vec<FailedMessage> {
        let mut failures = Vec::new();
        let mut unanswered = 0;
        for message in messages {
            if unanswered == 2 {
                self.count_unhandled(1);
                let reason = "not tried, as the two messages before it could not be handled for now".to_owned();
                let message_id = message.message_id.clone();
                failures.push(FailedMessage { message_id, reason, retryable: true });
                continue;
            }
            let failure = self.handle_alone(message).await;
            unanswered = if failure.as_ref().is_some_and(|failure| failure.retryable) { unanswered + 1 } else { 0 };
            failures.extend(failure);
        }
        failures
    }

    async fn handle_alone(&self, message: &Message) -> Option<FailedMessage> {
        let trouble = match self.handle_together(std::slice::from_ref(message)).await {
            Ok(troubles) => troubles.into_iter().next()?,
            Err(error) => Trouble { error: Some(error), ..Trouble::default() },
        };
        trouble.into_failure(message)
    }

    /// Classifies records, sends what is found, and sends follow-ups on their way. After an error all of `records` count as
    /// not handled.
    async fn classify(&self, records: &[Record], batch: &mut Batch) -> Result<(), PortError> {
        let mut part = Batch::of(batch.troubles.len());
        let classified = self.try_classify(records, &mut part).await;
        match &classified {
            Ok(()) => batch.merge(part),
            Err(_) => records.iter().for_each(|record| record.trouble(batch).unhandled += 1),
        }
        classified
    }

    async fn try_classify(&self, records: &[Record], batch: &mut Batch) -> Result<(), PortError> {
        let mut events: Vec<Event<'_>> = Vec::with_capacity(records.len());
        let mut sources: Vec<&Record> = Vec::with_capacity(records.len());
        let mut selected: Vec<Vec<Slot>> = Vec::with_capacity(records.len());
        let mut later: Vec<(Timestamp, String)> = Vec::new();
        let engine = self.engine();
        let mut postponed = 0;
        for record in records {
            match intake::event(&record.text) {
                Ok(event) if event.source == follow_up::SOURCE && !self.surroundings.is_due(event.time) => {
                    later.push((event.time, record.text.clone()));
                    postponed += 1;
                }
                Ok(event) => {
                    let mut slots = Vec::new();
                    engine.concerned(&event, &mut slots);
                    if !W::HAVE_READER {
                        // One of the far future would be sent on its way until then.
                        if self.surroundings.now().is_none_or(|now| event.time <= now.plus_seconds(AHEAD_S_MAX)) {
                            later.extend(engine.follow_ups(&event, &slots));
                        }
                        let window = self.alarms.window(&event);
                        let look = |window| Look { message: record.message, window, text: record.text.clone() };
                        batch.looks.extend(window.map(look));
                    }
                    events.push(event);
                    selected.push(slots);
                    sources.push(record);
                }
                Err(error) => record.trouble(batch).add(record.file.as_deref(), record.index, &error.to_string()),
            }
        }
        let mut bodies = Vec::new();
        let verdicts = engine.run_selected(&events, &selected, &self.state).await?;
        for (verdict, source) in verdicts.into_iter().zip(sources) {
            batch.counts.findings += verdict.findings.len() as u64;
            batch.kept_back.add(&verdict.withheld, &verdict.lapsed);
            for finding in verdict.findings {
                info!(finding.id = %finding.finding_id, correlation.id = %finding.event_id,
                      severity = %finding.severity, "found {}", finding.classifier);
                let envelope = Envelope::finding(finding);
                bodies.push(match self.surroundings.now() {
                    Some(now) => envelope.passed_by("classifier", now).to_body(),
                    None => envelope.to_body(),
                });
            }
            if let Some((classifier, malformed)) = verdict.malformed.first() {
                let reason = format!("{classifier} could not read {malformed}");
                source.trouble(batch).add(source.file.as_deref(), source.index, &reason);
            } else if verdict.concerned {
                batch.counts.classified += 1;
            } else {
                batch.counts.ignored += 1;
            }
        }
        if !bodies.is_empty() {
            self.findings.send(&bodies).await?;
        }
        batch.postponed = postponed;
        if !later.is_empty() {
            self.surroundings.postpone(later).await?;
        }
        Ok(())
    }

    /// Reads a log file and classifies its records. A file that is damaged is permanent; what came before was handled.
    async fn read(&self, message: usize, object: &Object, batch: &mut Batch) -> Result<(), PortError> {
        if !object.is_log_file() {
            batch.counts.records_in += 1;
            batch.counts.ignored += 1;
            return Ok(());
        }
        let engine = self.engine();
        let mut wanted = Wanted {
            engine: &engine,
            file: object.name().into(),
            message,
            slots: Vec::new(),
            records: Vec::new(),
            came_in: 0,
            ignored: 0,
            trouble: Trouble::default(),
        };
        let read = self.read_into(object, &mut wanted, batch).await;
        batch.counts.records_in += wanted.came_in;
        batch.counts.ignored += wanted.ignored;
        // Found, and not classified when reading ended early.
        wanted.trouble.unhandled += wanted.records.len() as u64;
        batch.troubles[message].merge(wanted.trouble);
        read
    }

    /// Inspects uploads one after another, as one alone may fill the memory, then looks all of them up together, and
    /// classifies what was found.
    async fn inspect_all(&self, uploads: Vec<(usize, Object)>, batch: &mut Batch) {
        let Some(inspector) = self.inspector() else { return };
        let (mut inspected, mut reports) = (Vec::new(), Vec::new());
        for (message, object) in uploads {
            batch.counts.records_in += 1;
            match self.inspect(&object, &inspector).await {
                Ok(report) => {
                    inspected.push((message, object));
                    reports.push(report);
                }
                Err(error) => {
                    batch.troubles[message].unhandled += 1;
                    batch.troubles[message].fail(error);
                }
            }
        }
        self.surroundings.look_up(&mut reports).await;
        for ((message, object), report) in inspected.into_iter().zip(reports) {
            let record = Record { message, file: None, index: 0, text: inspection::text(&object, &report) };
            if let Err(error) = self.classify(&[record], batch).await {
                batch.troubles[message].fail(error);
            }
        }
    }

    /// Looks into the log group for every alarm, one after another; those for which no time is left come back.
    async fn look_into_all(&self, batch: &mut Batch) {
        let begun = self.surroundings.now();
        // Once: what is found there leads nowhere else.
        for look in std::mem::take(&mut batch.looks) {
            let spent_s = self.surroundings.now().zip(begun).map_or(0, |(now, begun)| now.seconds_since(begun));
            let looked = if spent_s < LOOKS_S_MAX {
                self.look_into(&look, batch).await
            } else {
                let what = format!("no time was left to look into the alarm {}", look.window.shown());
                Err(PortError::Retryable { what, source: None })
            };
            if let Err(error) = looked {
                batch.counts.records_in += 1;
                batch.troubles[look.message].unhandled += 1;
                batch.troubles[look.message].fail(error);
            }
        }
    }

    /// Classifies the records around an alarm's time that have arrived by now. As long as there may be more, the alarm is
    /// looked into once more; it is only then sent on its way, so that a look that fails does not multiply it.
    async fn look_into(&self, look: &Look, batch: &mut Batch) -> Result<(), PortError> {
        let Look { message, window, text } = look;
        if self.surroundings.now().is_some_and(|now| window.from > now.plus_seconds(AHEAD_S_MAX)) {
            // It would be sent on its way until then.
            let what = format!("the alarm {} is of the future: {}", window.shown(), window.from);
            return Err(PortError::Permanent { what, source: None });
        }
        let query = self.alarms.query(window);
        let log_group: Rc<str> = query.log_group.into();
        let is_last = self.surroundings.is_due(window.until);
        let mut found = self.surroundings.find(&query).await?;
        let mut index = 0;
        while let Some(page) = found.next().await? {
            let mut records = Vec::with_capacity(page.len());
            for text in page {
                records.push(Record { message: *message, file: Some(Rc::clone(&log_group)), index, text });
                index += 1;
            }
            batch.counts.records_in += records.len() as u64;
            self.classify(&records, batch).await?;
        }
        info!("looked into the alarm {}: {index} records", window.shown());
        if !is_last {
            self.surroundings.postpone(vec![(window.until, text.clone())]).await?;
        }
        Ok(())
    }

    /// Fetches the object as it was announced, or the beginning of a large one, and judges it. What is no longer there
    /// is judged by its name and size: trying again would not bring it back, and what replaced it is announced itself.
    async fn inspect(&self, object: &Object, inspector: &Inspector) -> Result<Report, PortError> {
        let mut body = match self.surroundings.open(&object.announced()).await? {
            Opening::Opened(body) => body,
            missed => {
                let what = if matches!(missed, Opening::Gone) { "deleted" } else { "replaced" };
                warn!("{} was {what} before it was looked at", one_line(&object.name(), NAME_CHARS_MAX));
                let why = format!("it was {what} before it was looked at: judged by name and size only");
                return Ok(inspector.inspect_unseen(&object.key, object.created.size, why));
            }
        };
        let mut content = Vec::new();
        let mut is_whole = true;
        while let Some(chunk) = body.next().await? {
            content.extend_from_slice(&chunk);
            if content.len() > inspector.object_bytes_max() {
                content.truncate(inspector.object_bytes_max());
                is_whole = false;
                break;
            }
        }
        let read = content.len() as u64;
        Ok(inspector.inspect(&inspect::Object {
            name: &object.key,
            content_type: body.content_type(),
            size: if is_whole { read } else { object.created.size.max(read + 1) },
            content: &content,
        }))
    }

    async fn read_into(&self, object: &Object, wanted: &mut Wanted<'_>, batch: &mut Batch) -> Result<(), PortError> {
        let mut text = Pieces::default();
        let streamed = self.stream(object, &mut text, wanted, batch).await;
        if matches!(&streamed, Err(error) if error.is_retryable()) {
            // It will be read again from its beginning.
            return streamed;
        }
        text.finish(wanted);
        self.classify(&std::mem::take(&mut wanted.records), batch).await?;
        streamed
    }

    /// Reads the object into `text` as it comes in, and classifies what has been found when that is enough.
    async fn stream(
        &self,
        object: &Object,
        text: &mut Pieces,
        wanted: &mut Wanted<'_>,
        batch: &mut Batch,
    ) -> Result<(), PortError> {
        let damaged = |error| PortError::permanent(format!("{} is damaged: {error}", object.name()), error);
        let Opening::Opened(mut body) = self.surroundings.open(&object.newest()).await? else {
            return Err(PortError::Permanent { what: format!("{} is not there", object.name()), source: None });
        };
        let mut gzip = object.key.ends_with(".gz").then(InflatePieces::default);
        while let Some(chunk) = body.next().await? {
            for piece in chunk.chunks(INFLATE_BYTES) {
                match &mut gzip {
                    Some(gzip) => text.push(&gzip.push(piece).map_err(damaged)?, wanted),
                    None => text.push(piece, wanted),
                }
                if wanted.records.len() >= RECORDS_TOGETHER {
                    self.classify(&std::mem::take(&mut wanted.records), batch).await?;
                }
            }
        }
        if let Some(gzip) = gzip {
            text.push(&gzip.finish().map_err(damaged)?, wanted);
        }
        Ok(())
    }
}

impl<S: State, O: Outbox, W: Surroundings> Handler for ClassifierHandler<S, O, W> {
    async fn handle(&self, batch: &[Message]) -> BatchResult {
        let failed = match self.handle_together(batch).await {
            Ok(troubles) => {
                batch.iter().zip(troubles).filter_map(|(message, trouble)| trouble.into_failure(message)).collect()
            }
            Err(error) => {
                warn!("batch of {} not handled together, now each message alone: {error}", batch.len());
                self.handle_apart(batch).await
            }
        };
        BatchResult { failed }
    }

    fn count_unhandled(&self, messages: u64) {
        let unhandled = Counts { records_in: messages, failed: messages, ..Counts::default() };
        self.counts.set(self.counts.get().plus(unhandled));
    }
}
