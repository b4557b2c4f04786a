//! Batches in, lines and incidents out.
//!
//! A message is done when its incident is updated, its line is written durably and the ledger says so, in this order;
//! it is deleted after that. Wherever a crash falls, the redelivered message finishes what is missing: the incident
//! update is a merge, the sink knows what it wrote, the ledger knows what is done.
//!
//! A receipt names its finding, not the incident. The ledger entry of the finding's line holds the incident id, so a
//! receipt waits (retryable) until its finding was logged. Within a batch findings go first, then outcomes, then
//! receipts, whatever the order of arrival.

use std::cell::Cell;
use std::collections::BTreeMap;

use shared::ports::{
    BatchResult, Claim, Clock, FailedMessage, Handler, Incidents, Ledger, Message, PortError, PortResult,
};
use shared::{Envelope, FindingId, IncidentId, Payload};

use crate::incidents::{apply_finding, apply_outcome, apply_receipt};
use crate::record::{Format, key_of, line};
use crate::sink::LogSink;

/// What was logged, with its incident.
const LINES: &str = "log";
/// The first parts of all its keys in the ledger, before the first `/`: the function's role allows these and no others.
pub const LEDGER_KINDS: [&str; 1] = [LINES];

/// Long enough for a batch, shorter than the visibility timeout the deployed queues start from (300 s).
const LEASE_S: i64 = 60;

/// The logger over its ports.
pub struct Logger<I, L, S, C> {
    format: Format,
    incidents: I,
    ledger: L,
    sink: S,
    clock: C,
    recovered: Cell<bool>,
}

impl<I: Incidents, L: Ledger, S: LogSink, C: Clock> Logger<I, L, S, C> {
    /// A logger that writes lines of `format` to `sink`.
    pub const fn new(format: Format, incidents: I, ledger: L, sink: S, clock: C) -> Self {
        Self { format, incidents, ledger, sink, clock, recovered: Cell::new(false) }
    }

    /// Commits what a crash left written, recorded and uncommitted. Only saves reading it again at the next start.
    async fn recover(&self) -> PortResult<()> {
        if self.recovered.get() {
            return Ok(());
        }
        let lines = self.sink.uncommitted();
        let (lines, keys): (Vec<String>, Vec<String>) =
            lines.into_iter().filter_map(|line| key_of(&line).map(|key| (line, ledger_key(&key)))).unzip();
        let results = self.ledger.results(&keys).await?;
        let done: Vec<String> =
            lines.into_iter().zip(results).filter_map(|(line, result)| result.map(|_| line)).collect();
        self.sink.commit(&done).await?;
        self.recovered.set(true);
        Ok(())
    }

    /// Claims the message and updates its incident.
    async fn prepare(&self, envelope: &Envelope) -> PortResult<Prepared> {
        let key = ledger_key(&envelope.idempotency_key);
        let now = self.clock.now();
        match self.ledger.claim(&key, now, now.plus_seconds(LEASE_S)).await? {
            Claim::Done(_) => return Ok(Prepared::Done),
            Claim::Busy { until } => {
                let what = format!("someone else is at {key} until {until}");
                return Err(PortError::Retryable { what, source: None });
            }
            Claim::Ours => {}
        }
        let updated = self.update_incident(envelope).await;
        if updated.is_err() {
            self.ledger.release(&key).await?;
        }
        Ok(Prepared::ToWrite { result: updated?.to_string() })
    }

    async fn update_incident(&self, envelope: &Envelope) -> PortResult<IncidentId> {
        let now = self.clock.now();
        match &envelope.payload {
            Payload::Finding(finding) => apply_finding(&self.incidents, finding, &envelope.passed, now).await,
            Payload::Outcome { finding, outcome } => apply_outcome(&self.incidents, finding, outcome, now).await,
            Payload::Receipt(receipt) => {
                let id = self.incident_of(receipt.finding_id).await?;
                if let Some(id) = id
                    && apply_receipt(&self.incidents, id, receipt, now).await?
                {
                    return Ok(id);
                }
                let what = format!("receipt {} is here before its finding", receipt.receipt_id);
                Err(PortError::Retryable { what, source: None })
            }
        }
    }

    async fn incident_of(&self, finding: FindingId) -> PortResult<Option<IncidentId>> {
        let results = self.ledger.results(&[ledger_key(&format!("finding/{finding}"))]).await?;
        Ok(results.into_iter().flatten().next().as_deref().and_then(IncidentId::parse))
    }

    /// One phase: update the incidents, write all lines at once, record them, commit them.
    async fn run(&self, jobs: &[Job<'_>], result: &mut BatchResult) {
        let mut written: Vec<(&Job<'_>, String, String)> = Vec::new();
        let mut done: Vec<String> = Vec::new();
        for job in jobs {
            match self.prepare(&job.envelope).await {
                Ok(Prepared::Done) => done.push(line(self.format, &job.envelope)),
                Ok(Prepared::ToWrite { result }) => {
                    let line = line(self.format, &job.envelope);
                    written.push((job, line, result));
                }
                Err(error) => job.fail(&error, result),
            }
        }
        let lines: Vec<String> = written.iter().map(|(_, line, _)| line.clone()).collect();
        if !lines.is_empty()
            && let Err(error) = self.sink.append(&lines).await
        {
            for (job, _, _) in &written {
                // A claim that cannot be released ends with its lease.
                let _ = self.ledger.release(&ledger_key(&job.envelope.idempotency_key)).await;
                job.fail(&error, result);
            }
            written.clear();
        }
        for (job, line, incident) in written {
            let key = ledger_key(&job.envelope.idempotency_key);
            match self.ledger.complete(&key, &incident, self.clock.now()).await {
                Ok(()) => done.push(line),
                Err(error) => job.fail(&error, result),
            }
        }
        // Everything is recorded: a commit that fails costs reading these lines again at the next start.
        if let Err(error) = self.sink.commit(&done).await {
            tracing::warn!("could not commit {} log lines: {error}", done.len());
        }
    }
}

impl<I: Incidents, L: Ledger, S: LogSink, C: Clock> Handler for Logger<I, L, S, C> {
    async fn handle(&self, batch: &[Message]) -> BatchResult {
        let mut result = BatchResult::default();
        if let Err(error) = self.recover().await {
            tracing::warn!("could not look at the log lines of the last run: {}", with_cause(&error));
        }
        let mut jobs: BTreeMap<(u8, usize), Job<'_>> = BTreeMap::new();
        let mut first: BTreeMap<String, (u8, usize)> = BTreeMap::new();
        for (i, message) in batch.iter().enumerate() {
            match Envelope::from_body(&message.body) {
                Ok(envelope) => {
                    let place = (phase(&envelope.payload), i);
                    let place = *first.entry(envelope.idempotency_key.clone()).or_insert(place);
                    jobs.entry(place)
                        .or_insert_with(|| Job { message_ids: Vec::new(), envelope })
                        .message_ids
                        .push(&message.message_id);
                }
                Err(error) => result.failed.push(FailedMessage {
                    message_id: message.message_id.clone(),
                    reason: with_cause(&error),
                    retryable: false,
                }),
            }
        }
        let mut phases: [Vec<Job<'_>>; 3] = Default::default();
        for ((phase, _), job) in jobs {
            phases[usize::from(phase)].push(job);
        }
        for jobs in &phases {
            if !jobs.is_empty() {
                self.run(jobs, &mut result).await;
            }
        }
        result
    }
}

enum Prepared {
    Done,
    ToWrite { result: String },
}

/// One envelope and the messages of the batch that carry it.
struct Job<'b> {
    message_ids: Vec<&'b str>,
    envelope: Envelope,
}

impl Job<'_> {
    fn fail(&self, error: &PortError, result: &mut BatchResult) {
        let (reason, retryable) = (with_cause(error), error.is_retryable());
        tracing::warn!(retryable, "could not log {}: {reason}", self.envelope.idempotency_key);
        result.failed.extend(self.message_ids.iter().map(|id| FailedMessage {
            message_id: (*id).to_owned(),
            reason: reason.clone(),
            retryable,
        }));
    }
}

const fn phase(payload: &Payload) -> u8 {
    match payload {
        Payload::Finding(_) => 0,
        Payload::Outcome { .. } => 1,
        Payload::Receipt(_) => 2,
    }
}

fn ledger_key(idempotency_key: &str) -> String {
    format!("{LINES}/{idempotency_key}")
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;
