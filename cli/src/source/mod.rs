//! Reads log files on several threads and hands out the records that concern a classifier in event-time order, each
//! once, the same whatever the number of threads.
//!
//! Files are ordered by the time in their names (`…_20260301T1200Z_…`), else by their first record. Worker threads
//! inflate, split and route; the calling thread takes their results file by file, drops duplicates, and holds records back
//! until no file still to come can hold an earlier one, given the lateness bound. A record that comes later than the bound
//! is handed out at once and counted as late.
//!
//! Follow-ups that classifiers ask for are made by the workers and take their place among the records; they are no records
//! and are not counted. Those due after the last record stay out.

mod inputs;
mod patient;
mod recent;
mod reorder;

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};

use aws_classifier::engine::Engine;
use aws_classifier::intake::inflate::{self, Inflater};
use aws_classifier::intake::log_file::{self, Visitor};
use aws_classifier::intake::log_groups::LogGroups;
use aws_classifier::intake::{IntakeError, Leaf};
use aws_classifier::routing::Slot;
use shared::Timestamp;
use shared::event::Event;

pub use inputs::{Input, SourceError, inputs};
use patient::Patient;
use recent::RecentIds;
use reorder::{Bundle, Item, ReorderBuffer};
pub use reorder::{Record, SpillUnreadable};

/// Files up to this size are read at once; larger ones are streamed.
const WHOLE_FILE_BYTES_MAX: u64 = 64 << 20;
/// A worker hands over its results when it has this much text of wanted records…
const BATCH_TEXT_BYTES: usize = 1 << 20;
/// … or has seen this many records.
const BATCH_RECORDS: usize = 1 << 15;
/// Rejected records listed in the summary.
const REJECTED_LISTED_MAX: usize = 100;
/// How much of a rejected record's text is kept.
const REJECTED_TEXT_BYTES: usize = 64 << 10;

/// How to read.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// How much later than the start of its file, or of the next file, a record may come and still be put in order.
    pub lateness_s: i64,
    /// Records with this event id are handed out even when no classifier wants them.
    pub asked_for: Option<String>,
    /// Whether records are believed from every log group of CloudWatch Logs, and not only from those of `[log_groups]`.
    pub any_log_group: bool,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            lateness_s: 3600,
            asked_for: None,
            any_log_group: false,
        }
    }
}

/// A record that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rejected {
    /// The file.
    pub file: String,
    /// Which record of the file, from 0.
    pub index: u64,
    /// The field at fault; empty when the text is not JSON.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What stood there, at most 64 KiB.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Whether it was JSON at all.
    #[serde(skip)]
    pub is_json: bool,
}

/// What was read: `records_in = classified + ignored + failed + duplicates`.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Records found.
    pub records_in: u64,
    /// Wanted by at least one classifier.
    pub classified: u64,
    /// Wanted by none.
    pub ignored: u64,
    /// Unreadable.
    pub failed: u64,
    /// Same account, region and event id as one of the last million records.
    pub duplicates: u64,
    /// Later than the lateness bound, so handed out of order.
    pub late: u64,
    /// The first rejected records, without their text.
    pub rejected: Vec<Rejected>,
    /// Files that could not be read to their end, with the reason.
    pub damaged: Vec<(String, String)>,
    /// Files nothing at all could be read from: damaged at once, or not JSON anywhere; with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// Takes what is read.
pub trait Consumer {
    /// Why it wants to stop, or has to.
    type Error: From<SpillUnreadable>;
    /// A wanted record, in event-time order.
    ///
    /// # Errors
    /// To stop the reading.
    fn record(&mut self, record: Record) -> Result<(), Self::Error>;
    /// A record that could not be read, in file order.
    ///
    /// # Errors
    /// To stop the reading.
    fn rejected(&mut self, _rejected: &Rejected) -> Result<(), Self::Error> {
        Ok(())
    }
    /// Called now and then, also while nothing is wanted.
    ///
    /// # Errors
    /// To stop the reading.
    fn advanced(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Is told how far the reading is.
pub trait Progress {
    /// `bytes` of the inputs and `records` more were read.
    fn advanced(&self, bytes: u64, records: u64);
}

/// Reads all inputs to their end; see the module.
///
/// # Errors
/// What the consumer returned to stop. Trouble with inputs is in the counts.
pub fn read<C: Consumer>(
    inputs: &[Input],
    engine: &Engine,
    options: &SourceOptions,
    progress: &dyn Progress,
    consumer: &mut C,
) -> Result<Counts, C::Error> {
    let ids = RandomState::new();
    let next = AtomicUsize::new(0);
    let stop = Arc::new(AtomicBool::new(false));
    let threads = options.threads.clamp(1, 64);
    let window = Window::new(threads + 2);
    let (senders, receivers): (Vec<_>, Vec<_>) = inputs
        .iter()
        .map(|_| {
            let (sender, receiver) = sync_channel(2);
            (Mutex::new(Some(sender)), receiver)
        })
        .unzip();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(inputs.len()) {
            scope.spawn(|| {
                let is_over = Arc::clone(&stop);
                let mut worker =
                    Worker { inflater: Inflater::default(), compressed: Vec::new(), text: Vec::new(), is_over };
                loop {
                    window.enter();
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(input) = inputs.get(at) else { return };
                    let sender = senders[at].lock().ok().and_then(|mut s| s.take());
                    let Some(sender) = sender else { return };
                    if !stop.load(Ordering::Relaxed) {
                        worker.read(input, engine, options, &ids, sender);
                    }
                }
            });
        }
        let merged = Merger::new(inputs, options, progress, consumer).merge(&receivers, &window);
        // On an early stop, workers find their receivers gone and the window open, and end.
        stop.store(true, Ordering::Relaxed);
        drop(receivers);
        window.open();
        merged
    })
}

/// Lets workers run only so many files ahead of the merger.
struct Window {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Window {
    const fn new(files: usize) -> Self {
        Self { free: Mutex::new(files), changed: Condvar::new() }
    }

    fn enter(&self) {
        let mut free = self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while *free == 0 {
            free = self.changed.wait(free).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *free = free.saturating_sub(1);
    }

    fn add(&self, files: usize) {
        let mut free = self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *free = free.saturating_add(files);
        self.changed.notify_all();
    }

    fn open(&self) {
        self.add(usize::MAX / 2);
    }
}

/// What a worker hands over.
enum Part {
    Batch(Batch),
    /// The end of the file, and why it came early if it did.
    End(Option<String>),
}

#[derive(Default)]
struct Batch {
    /// A hash of account, region and identity of every record that was read, in file order.
    ids: Vec<u64>,
    /// The wanted ones among them.
    wanted: Vec<Wanted>,
    /// Their texts and who wants them, one after another.
    bundle: Bundle,
    rejected: Vec<Rejected>,
    /// Follow-ups of wanted records, in their order.
    follow_ups: Vec<FollowUp>,
    first_time: Option<Timestamp>,
    last_time: Option<Timestamp>,
    input_bytes: u64,
}

struct FollowUp {
    /// Position of its record in `wanted`.
    of: usize,
    due: Timestamp,
    text: String,
    slots: Vec<Slot>,
}

struct Wanted {
    /// Position in `ids`.
    at: u32,
    /// Which record of the input.
    index: u64,
    time: Timestamp,
    text_bytes: u32,
    /// How many classifiers want it.
    slots: u32,
    has_outline: bool,
    /// By a classifier; else it was only asked for.
    is_wanted: bool,
}

struct Worker {
    inflater: Inflater,
    compressed: Vec<u8>,
    text: Vec<u8>,
    /// Whether nobody waits for what is read.
    is_over: Arc<AtomicBool>,
}

impl Worker {
    fn read(
        &mut self,
        input: &Input,
        engine: &Engine,
        options: &SourceOptions,
        ids: &RandomState,
        sender: SyncSender<Part>,
    ) {
        let mut reading = Reading {
            name: &input.name,
            engine,
            asked_for: options.asked_for.as_deref(),
            ids,
            log_groups: if options.any_log_group { Arc::new(LogGroups::Any) } else { engine.log_groups() },
            sender: &sender,
            batch: Batch::default(),
            slots: Vec::new(),
            is_wanted: true,
        };
        let end = self.read_into(input, &mut reading).err().map(|e| e.to_string());
        reading.batch.input_bytes = input.bytes;
        reading.hand_over();
        // A merger that stopped no longer listens.
        let _ = sender.send(Part::End(end));
    }

    fn read_into(&mut self, input: &Input, reading: &mut Reading<'_>) -> io::Result<()> {
        let Some(path) = &input.path else {
            return stream(Patient::new(|| Ok(io::stdin()), Arc::clone(&self.is_over))?, reading);
        };
        if input.is_pipe {
            let path = path.clone();
            return stream(Patient::new(move || File::open(path), Arc::clone(&self.is_over))?, reading);
        }
        let file = File::open(path)?;
        if input.bytes > WHOLE_FILE_BYTES_MAX {
            return stream(file, reading);
        }
        self.compressed.clear();
        file.take(WHOLE_FILE_BYTES_MAX + 1).read_to_end(&mut self.compressed)?;
        if !inflate::is_gzip(&self.compressed) {
            log_file::read_whole(&self.compressed, reading);
            return Ok(());
        }
        if self.inflater.whole(&self.compressed, &mut self.text) {
            log_file::read_whole(&self.text, reading);
            return Ok(());
        }
        log_file::read_stream(inflate::stream(io::Cursor::new(std::mem::take(&mut self.compressed))), reading)
    }
}

/// Reads on and on, compressed or not.
fn stream(mut from: impl Read + Send + 'static, reading: &mut Reading<'_>) -> io::Result<()> {
    let mut head = [0; 2];
    let n = read_up_to(&mut from, &mut head)?;
    let is_gzip = inflate::is_gzip(&head[..n]);
    let all = io::Cursor::new(head[..n].to_vec()).chain(from);
    if is_gzip { log_file::read_stream(inflate::stream(all), reading) } else { log_file::read_stream(all, reading) }
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

struct Reading<'w> {
    name: &'w str,
    engine: &'w Engine,
    asked_for: Option<&'w str>,
    ids: &'w RandomState,
    log_groups: Arc<LogGroups>,
    sender: &'w SyncSender<Part>,
    batch: Batch,
    slots: Vec<Slot>,
    is_wanted: bool,
}

impl Reading<'_> {
    fn hand_over(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.is_wanted &= self.sender.send(Part::Batch(batch)).is_ok();
    }
}

impl Visitor for Reading<'_> {
    fn file_name(&self) -> &str {
        self.name
    }

    fn log_groups(&self) -> Arc<LogGroups> {
        Arc::clone(&self.log_groups)
    }

    fn event(&mut self, index: u64, event: &Event<'_>, text: &str) {
        let batch = &mut self.batch;
        batch.first_time.get_or_insert(event.time);
        batch.last_time = batch.last_time.max(Some(event.time));
        batch.ids.push(self.ids.hash_one((&*event.account, &*event.region, &*event.identity_id())));
        self.engine.concerned(event, &mut self.slots);
        let is_wanted = !self.slots.is_empty();
        if is_wanted || self.asked_for.is_some_and(|id| id == event.event_id) {
            let at = u32::try_from(batch.ids.len() - 1).expect("batches are small");
            let text_bytes = u32::try_from(text.len()).expect("records are at most 4 MiB");
            let slots = u32::try_from(self.slots.len()).expect("slots are 32 bits wide");
            batch.bundle.slots.extend_from_slice(&self.slots);
            // An outline is of the record, which may be part of the text only.
            let outline = if event.record.len() == text.len() { event.outline() } else { None };
            let has_outline = outline.is_some();
            batch.bundle.outlines.extend(outline);
            batch.wanted.push(Wanted { at, index, time: event.time, text_bytes, slots, has_outline, is_wanted });
            if batch.bundle.texts.is_empty() {
                // At once: growing by and by would copy all of it again and again.
                batch.bundle.texts.reserve(BATCH_TEXT_BYTES + text.len());
            }
            batch.bundle.texts.push_str(text);
            let of = batch.wanted.len() - 1;
            for (due, text) in self.engine.follow_ups(event, &self.slots) {
                let Ok(event) = Leaf::of(&text).and_then(|leaf| leaf.event()) else { continue };
                let mut slots = Vec::new();
                self.engine.concerned(&event, &mut slots);
                batch.follow_ups.push(FollowUp { of, due, text: text.clone(), slots });
            }
        }
        if batch.bundle.texts.len() >= BATCH_TEXT_BYTES || batch.ids.len() >= BATCH_RECORDS {
            self.hand_over();
        }
    }

    fn failed(&mut self, index: u64, error: &IntakeError, text: &str) {
        let mut end = text.len().min(REJECTED_TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.batch.rejected.push(Rejected {
            file: self.name.to_owned(),
            index,
            field: error.field().to_owned(),
            reason: error.to_string(),
            text: text[..end].to_owned(),
            is_json: error.is_json(),
        });
        if self.batch.rejected.len() >= 64 {
            self.hand_over();
        }
    }

    fn go_on(&mut self) -> bool {
        self.is_wanted
    }
}

struct Merger<'m, C> {
    inputs: &'m [Input],
    lateness_s: i64,
    progress: &'m dyn Progress,
    consumer: &'m mut C,
    counts: Counts,
    recent: RecentIds,
    waiting: ReorderBuffer,
    watermark: Timestamp,
    /// The latest record so far: how far time has come.
    newest: Timestamp,
}

impl<'m, C: Consumer> Merger<'m, C> {
    fn new(inputs: &'m [Input], options: &SourceOptions, progress: &'m dyn Progress, consumer: &'m mut C) -> Self {
        Self {
            inputs,
            lateness_s: options.lateness_s,
            progress,
            consumer,
            counts: Counts::default(),
            recent: RecentIds::default(),
            waiting: ReorderBuffer::default(),
            watermark: Timestamp::from_millis(i64::MIN),
            newest: Timestamp::from_millis(i64::MIN),
        }
    }

    fn merge(mut self, receivers: &[Receiver<Part>], window: &Window) -> Result<Counts, C::Error> {
        for (at, (input, receiver)) in self.inputs.iter().zip(receivers).enumerate() {
            let next_start = self.inputs.get(at + 1).map_or(Timestamp::from_millis(i64::MAX), |next| next.start);
            let mut is_empty = true;
            let mut not_json = None;
            for part in receiver {
                match part {
                    Part::Batch(batch) => {
                        is_empty &= batch.ids.is_empty() && batch.rejected.iter().all(|r| !r.is_json);
                        not_json = not_json.or_else(|| batch.rejected.first().map(|r| r.reason.clone()));
                        self.batch(at, batch, next_start)?;
                    }
                    Part::End(Some(reason)) if is_empty => self.counts.unreadable.push((input.name.clone(), reason)),
                    Part::End(Some(reason)) => self.counts.damaged.push((input.name.clone(), reason)),
                    Part::End(None) => {
                        if let Some(reason) = not_json.take_if(|_| is_empty) {
                            self.counts.unreadable.push((input.name.clone(), format!("holds no record: {reason}")));
                        }
                    }
                }
            }
            window.add(1);
            if at + 1 < self.inputs.len() {
                self.advance(next_start)?;
            }
        }
        // A follow-up due after the last record stays out: nobody knows what happened until then.
        self.watermark = self.newest;
        self.release()?;
        Ok(self.counts)
    }

    fn batch(&mut self, input: usize, batch: Batch, next_start: Timestamp) -> Result<(), C::Error> {
        if let Some(first) = batch.first_time {
            self.advance(first.min(next_start))?;
        }
        self.newest = self.newest.max(batch.last_time.unwrap_or(self.newest));
        let mut follow_ups = batch.follow_ups.into_iter().peekable();
        let mut wanted = batch.wanted.into_iter().enumerate().peekable();
        let mut items = Vec::with_capacity(wanted.len());
        let (mut text_at, mut slots_at, mut outline_at) = (0, 0, 0);
        for (at, id) in batch.ids.iter().enumerate() {
            let is_new = self.recent.insert(*id);
            let this = wanted.next_if(|(_, w)| w.at as usize == at);
            if let Some((of, wanted)) = this {
                let Wanted { index, time, .. } = wanted;
                let text = text_at..text_at + wanted.text_bytes;
                let slots = slots_at..slots_at + wanted.slots;
                let outline = wanted.has_outline.then_some(outline_at);
                (text_at, slots_at) = (text.end, slots.end);
                outline_at += u32::from(wanted.has_outline);
                if is_new {
                    *(if wanted.is_wanted { &mut self.counts.classified } else { &mut self.counts.ignored }) += 1;
                    self.counts.late += u64::from(time < self.watermark);
                    items.push(Item { time, arrived: self.waiting.arrive(), index, text, slots, outline });
                }
                while let Some(FollowUp { due: time, text: texts, slots, .. }) = follow_ups.next_if(|f| f.of == of) {
                    if is_new {
                        let text = 0..u32::try_from(texts.len()).expect("records are at most 4 MiB");
                        let all = 0..u32::try_from(slots.len()).expect("slots are 32 bits wide");
                        let arrived = self.waiting.arrive();
                        let item = Item { time, arrived, index, text, slots: all, outline: None };
                        self.waiting.add(Bundle { input, texts, slots, outlines: Vec::new() }, vec![item]);
                    }
                }
            } else if is_new {
                self.counts.ignored += 1;
            }
            self.counts.duplicates += u64::from(!is_new);
        }
        self.waiting.add(Bundle { input, ..batch.bundle }, items);
        for rejected in &batch.rejected {
            self.counts.failed += 1;
            if self.counts.rejected.len() < REJECTED_LISTED_MAX {
                self.counts.rejected.push(Rejected { text: String::new(), ..rejected.clone() });
            }
            self.consumer.rejected(rejected)?;
        }
        let records = (batch.ids.len() + batch.rejected.len()) as u64;
        self.counts.records_in += records;
        self.progress.advanced(batch.input_bytes, records);
        self.consumer.advanced()?;
        self.release()
    }

    /// No record still to come is earlier than `start` less the lateness bound.
    fn advance(&mut self, start: Timestamp) -> Result<(), C::Error> {
        self.watermark = self.watermark.max(start.plus_seconds(-self.lateness_s));
        self.release()
    }

    fn release(&mut self) -> Result<(), C::Error> {
        while let Some(record) = self.waiting.pop_until(self.watermark)? {
            self.consumer.record(record)?;
        }
        Ok(())
    }
}
