//! From records to findings, in order: batches records, runs the engine on them with state in memory, and hands the
//! findings on.

use aws_classifier::engine::Engine;
use aws_classifier::explain::Explanation;
use aws_classifier::noise::Tally;
use aws_classifier::routing::Slot;
use shared::Finding;
use shared::adapters::memory::MemoryState;
use shared::event::Event;
use shared::ports::PortError;

use crate::interrupt;
use crate::source::{Consumer, Counts, Input, Progress, Record, Rejected, SourceOptions, SpillUnreadable, read};

/// Records classified together: enough that the cost of a batch is shared, and few enough that their events stay in the
/// cache and are no large allocation.
const BATCH_RECORDS: usize = 64;

/// Why a replay stopped before its end.
#[derive(Debug)]
pub enum Stop {
    /// Ctrl-C.
    Interrupted,
    /// The reader of the findings failed.
    Output(std::io::Error),
    /// State could not be used.
    State(PortError),
    /// Records that waited on disk could not be read back.
    Spill(SpillUnreadable),
    /// The record that was asked for has been explained.
    Explained,
}

impl From<SpillUnreadable> for Stop {
    fn from(error: SpillUnreadable) -> Self {
        Self::Spill(error)
    }
}

/// Where findings and unreadable records go.
pub trait Sink {
    /// A finding, in event-time order.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finding(&mut self, finding: &Finding) -> std::io::Result<()>;
    /// A record that could not be read.
    ///
    /// # Errors
    /// When it cannot be written.
    fn rejected(&mut self, rejected: &Rejected) -> std::io::Result<()>;
    /// The event that [`SourceOptions::asked_for`] names, with what every classifier made of it. The replay ends here.
    ///
    /// # Errors
    /// When it cannot be written.
    fn explained(&mut self, _event: &Event<'_>, _explanation: &Explanation) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a replay did.
#[derive(Debug)]
pub struct Done {
    /// What was read.
    pub counts: Counts,
    /// What was found and went to the sink.
    pub findings: u64,
    /// What was found and kept back.
    pub kept_back: Tally,
}

/// Reads the inputs and gives the sink what is found. The counts are complete when it returns; a record that a
/// classifier could not read is counted as failed, not as classified. Records are believed from every log group.
///
/// # Errors
/// Why it stopped early.
pub fn replay(
    inputs: &[Input],
    engine: &Engine,
    options: &SourceOptions,
    progress: &dyn Progress,
    sink: &mut dyn Sink,
) -> Result<Done, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Stop::Output)?;
    // Nothing follows from a replay, so what is in the files is looked at, whoever wrote it.
    let options = &SourceOptions { any_log_group: true, ..options.clone() };
    let mut replayer = Replayer {
        inputs,
        engine,
        asked_for: options.asked_for.as_deref(),
        state: MemoryState::default(),
        runtime,
        waiting: Vec::with_capacity(BATCH_RECORDS),
        sink,
        findings: 0,
        kept_back: Tally::default(),
        malformed: Vec::new(),
        malformed_total: 0,
    };
    let mut counts = read(inputs, engine, options, progress, &mut replayer)?;
    replayer.classify()?;
    counts.classified -= replayer.malformed_total;
    counts.failed += replayer.malformed_total;
    counts.rejected.append(&mut replayer.malformed);
    Ok(Done { counts, findings: replayer.findings, kept_back: replayer.kept_back })
}

struct Replayer<'r> {
    inputs: &'r [Input],
    engine: &'r Engine,
    asked_for: Option<&'r str>,
    state: MemoryState,
    runtime: tokio::runtime::Runtime,
    /// The batch to be.
    waiting: Vec<Record>,
    sink: &'r mut dyn Sink,
    findings: u64,
    kept_back: Tally,
    malformed: Vec<Rejected>,
    malformed_total: u64,
}

impl Replayer<'_> {
    fn classify(&mut self) -> Result<(), Stop> {
        // The reader made an event of each of these texts, so none is left out here; were it otherwise, it would be counted.
        let mut records: Vec<&Record> = Vec::with_capacity(self.waiting.len());
        let mut events: Vec<Event<'_>> = Vec::with_capacity(self.waiting.len());
        for record in &self.waiting {
            if let Ok(event) = record.event() {
                events.push(event);
                records.push(record);
            }
        }
        self.malformed_total += (self.waiting.len() - events.len()) as u64;
        let selected: Vec<&[Slot]> = records.iter().map(|record| record.slots()).collect();
        let run = self.engine.run_selected(&events, &selected, &self.state);
        let verdicts = self.runtime.block_on(run).map_err(Stop::State)?;
        for ((verdict, event), record) in verdicts.iter().zip(&events).zip(records) {
            self.kept_back.add(&verdict.withheld, &verdict.lapsed);
            for finding in &verdict.findings {
                self.findings += 1;
                self.sink.finding(finding).map_err(Stop::Output)?;
            }
            if let Some((classifier, malformed)) = verdict.malformed.first() {
                self.malformed_total += 1;
                let rejected = Rejected {
                    file: self.inputs[record.input()].name.clone(),
                    index: record.index(),
                    field: malformed.field.clone(),
                    reason: format!("{classifier} could not read event {}: {malformed}", event.event_id),
                    text: event.record.to_owned(),
                    is_json: true,
                };
                self.sink.rejected(&rejected).map_err(Stop::Output)?;
                if self.malformed.len() < 100 {
                    self.malformed.push(Rejected { text: String::new(), ..rejected });
                }
            }
        }
        self.waiting.clear();
        Ok(())
    }
}

impl Replayer<'_> {
    /// Explains the record when it is the one that was asked for, after everything before it.
    fn explain(&mut self, id: &str, record: &Record) -> Result<(), Stop> {
        let Ok(event) = record.event() else { return Ok(()) };
        if event.event_id != id {
            return Ok(());
        }
        self.classify()?;
        let explained = self.runtime.block_on(self.engine.explain(&event, &self.state));
        let (_, explanation) = explained.map_err(Stop::State)?;
        self.sink.explained(&event, &explanation).map_err(Stop::Output)?;
        Err(Stop::Explained)
    }
}

impl Consumer for Replayer<'_> {
    type Error = Stop;

    fn record(&mut self, record: Record) -> Result<(), Stop> {
        if let Some(id) = self.asked_for {
            self.explain(id, &record)?;
        }
        self.waiting.push(record);
        if self.waiting.len() < BATCH_RECORDS {
            return Ok(());
        }
        self.classify()
    }

    fn rejected(&mut self, rejected: &Rejected) -> Result<(), Stop> {
        self.sink.rejected(rejected).map_err(Stop::Output)
    }

    fn advanced(&mut self) -> Result<(), Stop> {
        if interrupt::asked() { Err(Stop::Interrupted) } else { Ok(()) }
    }
}
