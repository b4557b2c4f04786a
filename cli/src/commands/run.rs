//! `pipeline run`: the whole chain on files, interruptible and resumable.
//!
//! Records are read in an order that depends on nothing but the inputs and the settings. They are put into the classifier's
//! queue together with a mark of how many that makes, in one transaction; after an interruption as many are
//! skipped. From there on every message is in a queue until the component that reads it has done its work, and
//! everything a component does twice has its effect once.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use aws_classifier::engine::Engine;
use shared::Incident;
use shared::adapters::embedded::Embedded;
use shared::places::Half;
use shared::ports::{IncidentFilter, Incidents};

use crate::args::RunArgs;
use crate::chain;
use crate::data::DataFolder;
use crate::failure::Failure;
use crate::local::{self, InFolder};
use crate::packer::Packer;
use crate::progress::Bar;
use crate::source::{self, Consumer, Record, Rejected};
use crate::summary::{self, KeptBack, Numbers};
use crate::{config, interrupt, inventory, output};

/// Messages that are enqueued in one transaction and handled before the next: at most so many records wait.
const MESSAGES_AT_ONCE: usize = 8;
/// What could not be read, in the data folder.
const REJECTED: &str = "rejected.jsonl";
/// Incidents shown at the end.
const INCIDENTS_SHOWN: usize = 20;

/// Runs the chain over the inputs.
///
/// # Errors
/// Why it stopped; what was done so far is kept.
pub fn execute(args: &RunArgs) -> Result<(), Failure> {
    let inputs = source::inputs(&args.paths)?;
    if let Some(pipe) = inputs.iter().find(|input| input.is_pipe) {
        let name = pipe.path.as_deref().map_or_else(|| "-".to_owned(), output::path);
        return Err(Failure::Usage(format!(
            "a pipe cannot be read again after an interruption: save it to a file, or use `pipeline replay {name}`"
        )));
    }
    let config = config::load(&args.config)?;
    let options = config.source.options(args.threads);
    let settings = format!("{}\u{1f}{:016x}", config.text, config.engine.rules().fingerprint);
    let key = inventory::progress_key(&inputs, &settings);
    super::check_writable(args.summary.as_deref())?;
    let data = DataFolder::open_or_make(&args.data)?;
    interrupt::listen();
    let started = Instant::now();
    let store = data.store.clone();
    let local = local::in_folder(config, data)?;
    let rejects = Rejects::new(&args.data)?;
    let bar = Bar::new(inputs.iter().map(|input| input.bytes).sum());
    let read = Intake::resume(&local, &store, key, rejects).and_then(|mut intake| {
        let counts = source::read(&inputs, &local.classifier().engine(), &options, &bar, &mut intake)?;
        intake.finish()?;
        Ok(counts)
    });
    bar.finish();
    let counts = match read {
        Err(Failure::Interrupted(_)) => return Err(Failure::Interrupted(how_to_go_on(args))),
        other => other?,
    };
    let incidents = chain::block_on(store.list(&IncidentFilter::default()))??;
    let (classifier, engine) = (local.classifier(), local.classifier().engine());
    let kept_back = KeptBack::new(&classifier.kept_back(), &engine.noise().allow);
    let numbers = Numbers::new(&counts, kept_back, &incidents, local.dead_letters()?, started.elapsed().as_secs_f64());
    if let Some(path) = &args.summary {
        let text = serde_json::to_string_pretty(&numbers).expect("numbers and names are plain values");
        fs::write(path, text + "\n").map_err(|e| Failure::machine(format!("write {}", output::path(path)), e))?;
    } else {
        report(args, &numbers, &incidents, &engine)?;
    }
    summary::complain(&counts)
}

fn report(args: &RunArgs, numbers: &Numbers, incidents: &[Incident], engine: &Engine) -> Result<(), Failure> {
    let mut out = output::stdout();
    numbers.print(&mut out)?;
    if !incidents.is_empty() {
        writeln!(out)?;
        summary::print_incidents(&mut out, &incidents[..incidents.len().min(INCIDENTS_SHOWN)])?;
    }
    let data = output::path(&args.data);
    if incidents.len() > INCIDENTS_SHOWN {
        writeln!(out, "… the newest {INCIDENTS_SHOWN} of {}", incidents.len())?;
    }
    writeln!(out, "\nAll incidents: pipeline incidents --data {data}")?;
    writeln!(out, "Alerts, log and database are in {data}")?;
    for note in Half::ALL.into_iter().filter_map(|half| summary::no_database(half, &engine.without(half))) {
        writeln!(out, "{note}")?;
    }
    if numbers.failed > 0 {
        writeln!(out, "Records that could not be read: {data}/{REJECTED}")?;
    }
    if numbers.dead_letters > 0 {
        writeln!(out, "What could not be handled: pipeline dlq list --data {data}")?;
    }
    Ok(out.flush()?)
}

fn how_to_go_on(args: &RunArgs) -> String {
    format!(
        "everything so far is kept in {}; the same command goes on where this one stopped",
        output::path(&args.data)
    )
}

/// From records to messages in the classifier's queue, with the mark of how far it got.
struct Intake<'a> {
    local: &'a InFolder,
    store: &'a Embedded,
    key: String,
    /// Records that were enqueued by earlier runs.
    skip: u64,
    /// Records seen by this run.
    seen: u64,
    packer: Packer,
    full: Vec<String>,
    rejects: Rejects,
}

impl<'a> Intake<'a> {
    /// Finds out how far an earlier run got and finishes what it left in the queues.
    fn resume(local: &'a InFolder, store: &'a Embedded, key: String, rejects: Rejects) -> Result<Self, Failure> {
        let mark = store.progress(&key)?.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        let skip = mark.map_or(0, u64::from_le_bytes);
        let intake = Self { local, store, key, skip, seen: 0, packer: Packer::default(), full: Vec::new(), rejects };
        intake.drain()?;
        Ok(intake)
    }

    /// Enqueues what is left and handles it.
    fn finish(mut self) -> Result<(), Failure> {
        self.full.extend(self.packer.take());
        if !self.full.is_empty() {
            self.enqueue(self.seen)?;
        }
        self.drain()?;
        self.rejects.keep()
    }

    /// Puts the full messages into the queue and sets the mark, both or neither.
    fn enqueue(&mut self, records: u64) -> Result<(), Failure> {
        self.store.enqueue_with_progress("classifier", &self.full, &self.key, &records.to_le_bytes())?;
        self.full.clear();
        Ok(())
    }

    fn drain(&self) -> Result<(), Failure> {
        self.local.drain(&mut |_| {})?;
        stop_if_asked()
    }
}

impl Consumer for Intake<'_> {
    type Error = Failure;

    fn record(&mut self, record: Record) -> Result<(), Failure> {
        self.seen += 1;
        if self.seen <= self.skip {
            return Ok(());
        }
        if let Some(message) = self.packer.add(record.text()) {
            self.full.push(message);
            if self.full.len() == MESSAGES_AT_ONCE {
                // The record just added is in the packer, not in a full message.
                self.enqueue(self.seen - 1)?;
                self.drain()?;
            }
        }
        Ok(())
    }

    fn rejected(&mut self, rejected: &Rejected) -> Result<(), Failure> {
        self.rejects.add(rejected)
    }

    fn advanced(&mut self) -> Result<(), Failure> {
        stop_if_asked()
    }
}

fn stop_if_asked() -> Result<(), Failure> {
    if interrupt::asked() { Err(Failure::Interrupted(String::new())) } else { Ok(()) }
}

/// Records that could not be read, one JSON object a line. Written anew by every run, which reads everything, and put
/// in place at its end.
struct Rejects {
    path: PathBuf,
    unfinished: PathBuf,
    file: BufWriter<File>,
}

impl Rejects {
    fn new(data: &Path) -> Result<Self, Failure> {
        let path = data.join(REJECTED);
        let unfinished = path.with_extension("unfinished");
        let file = File::create(&unfinished).map_err(|e| cannot_write(&unfinished, e))?;
        Ok(Self { path, unfinished, file: BufWriter::new(file) })
    }

    fn add(&mut self, rejected: &Rejected) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.file, rejected)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|e| cannot_write(&self.unfinished, e))
    }

    fn keep(mut self) -> Result<(), Failure> {
        self.file
            .flush()
            .and_then(|()| fs::rename(&self.unfinished, &self.path))
            .map_err(|e| cannot_write(&self.path, e))
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Failure::machine(format!("write {}", output::path(path)), error)
}
