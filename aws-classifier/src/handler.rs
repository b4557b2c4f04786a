//! A batch of messages in, findings out: decode, classify, send.
//!
//! A message with an unreadable record is reported as failed, with the record's place and field, after its good records
//! were handled; it ends in the dead-letter queue, and redriving it repeats nothing, because finding ids and
//! state are idempotent per event.

use std::cell::{Cell, RefCell};

use shared::envelope::Envelope;
use shared::event::Event;
use shared::ports::{BatchResult, FailedMessage, Handler, Message, Outbox, PortError, State};
use tracing::{info, warn};

use crate::engine::Engine;
use crate::intake;
use crate::noise::Tally;

/// Reasons kept of one message: enough to see what is wrong, bounded for hostile ones.
const REASONS_MAX: usize = 5;

/// What happened to records: `records_in = classified + ignored + failed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records found in messages.
    pub records_in: u64,
    /// At least one classifier looked at it.
    pub classified: u64,
    /// No classifier is concerned.
    pub ignored: u64,
    /// Unreadable, or a concerned classifier found its fields malformed.
    pub failed: u64,
    /// Findings sent.
    pub findings: u64,
    /// Findings that the allow-list kept back.
    pub suppressed: u64,
    /// Findings kept back because they repeat another.
    pub repeats: u64,
}

/// The classifier component.
pub struct ClassifierHandler<S, O> {
    engine: Engine,
    state: S,
    findings: O,
    counts: Cell<Counts>,
    kept_back: RefCell<Tally>,
}

struct Record {
    message: usize,
    index: usize,
    text: String,
}

#[derive(Default, Clone)]
struct Trouble {
    failed: usize,
    reasons: Vec<String>,
}

impl Trouble {
    fn add(&mut self, index: usize, reason: &str) {
        self.failed += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(format!("record {index}: {reason}"));
        }
    }
}

impl<S: State, O: Outbox> ClassifierHandler<S, O> {
    /// A handler that remembers in `state` and sends findings to `findings`.
    pub fn new(engine: Engine, state: S, findings: O) -> Self {
        Self { engine, state, findings, counts: Cell::default(), kept_back: RefCell::default() }
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
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    async fn try_handle(&self, batch: &[Message]) -> Result<Vec<Trouble>, PortError> {
        let mut troubles = vec![Trouble::default(); batch.len()];
        let mut records: Vec<Record> = Vec::new();
        let mut counts = Counts::default();
        for (message, Message { body, .. }) in batch.iter().enumerate() {
            let mut index = 0;
            intake::decode(body, &mut |leaf| {
                match leaf {
                    Ok(leaf) => records.push(Record { message, index, text: leaf.text.to_owned() }),
                    Err(error) => troubles[message].add(index, &error.to_string()),
                }
                index += 1;
            });
        }
        let mut events: Vec<Event<'_>> = Vec::with_capacity(records.len());
        let mut sources: Vec<&Record> = Vec::with_capacity(records.len());
        for record in &records {
            match intake::event(&record.text) {
                Ok(event) => {
                    events.push(event);
                    sources.push(record);
                }
                Err(error) => troubles[record.message].add(record.index, &error.to_string()),
            }
        }
        let mut bodies = Vec::new();
        let mut kept_back = Tally::default();
        for (verdict, source) in self.engine.run(&events, &self.state).await?.into_iter().zip(sources) {
            counts.findings += verdict.findings.len() as u64;
            kept_back.add(&verdict.withheld, &verdict.lapsed);
            for finding in verdict.findings {
                info!(finding.id = %finding.finding_id, event.id = %finding.event_id, severity = %finding.severity,
                      "found {}", finding.classifier);
                bodies.push(Envelope::finding(finding).to_body());
            }
            if let Some((classifier, malformed)) = verdict.malformed.first() {
                troubles[source.message].add(source.index, &format!("{classifier} could not read {malformed}"));
            } else if verdict.concerned {
                counts.classified += 1;
            } else {
                counts.ignored += 1;
            }
        }
        if !bodies.is_empty() {
            self.findings.send(&bodies).await?;
        }
        (counts.suppressed, counts.repeats) = (kept_back.suppressed, kept_back.repeats);
        self.kept_back.borrow_mut().merge(&kept_back);
        counts.failed = troubles.iter().map(|t| t.failed as u64).sum();
        counts.records_in = counts.classified + counts.ignored + counts.failed;
        self.count(counts);
        Ok(troubles)
    }

    fn count(&self, batch: Counts) {
        let total = self.counts.get();
        self.counts.set(Counts {
            records_in: total.records_in + batch.records_in,
            classified: total.classified + batch.classified,
            ignored: total.ignored + batch.ignored,
            failed: total.failed + batch.failed,
            findings: total.findings + batch.findings,
            suppressed: total.suppressed + batch.suppressed,
            repeats: total.repeats + batch.repeats,
        });
    }
}

impl<S: State, O: Outbox> Handler for ClassifierHandler<S, O> {
    async fn handle(&self, batch: &[Message]) -> BatchResult {
        let failed = match self.try_handle(batch).await {
            Ok(troubles) => batch
                .iter()
                .zip(troubles)
                .filter(|(_, trouble)| trouble.failed > 0)
                .map(|(message, trouble)| {
                    let reason = format!("{} unreadable: {}", trouble.failed, trouble.reasons.join("; "));
                    warn!(message.id = %message.message_id, "records failed: {reason}");
                    FailedMessage { message_id: message.message_id.clone(), reason, retryable: false }
                })
                .collect(),
            Err(error) => {
                warn!("batch of {} not handled: {error}", batch.len());
                batch
                    .iter()
                    .map(|message| FailedMessage {
                        message_id: message.message_id.clone(),
                        reason: error.to_string(),
                        retryable: error.is_retryable(),
                    })
                    .collect()
            }
        };
        BatchResult { failed }
    }
}
