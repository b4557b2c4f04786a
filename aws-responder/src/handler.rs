//! Findings in; findings and outcomes out.
//!
//! Per batch: every finding is passed on to the notifier and the logger, as received but for the actions that answer it;
//! then every response is decided,
//! journalled and carried out, which is the work of [`crate::response`], and its outcomes are sent to both before the
//! next message is looked at: when Lambda cuts a slow batch off, what was done is told. For the same reason no response
//! is begun later than [`BEGIN_S_MAX`] after the batch. A message whose effects are not all done comes back, and every
//! step done before is then done again with the same bytes (but for when a finding passed), or found done. One
//! message's failure never touches its neighbours, and a failing notifier keeps nothing from the logger, nor a failing
//! journal or account the finding from either.

use shared::ports::{BatchResult, Clock, FailedMessage, Handler, Ledger, Message, Outbox, PortError};
use shared::text::one_line;
use shared::{Envelope, Finding, Payload, SettingsError, Timestamp};

use crate::cloud::Cloud;
use crate::journal::Journal;
use crate::policy::Policy;
use crate::response::{Counts, Report, Responses};
use crate::settings::ResponderSettings;

/// So long after a batch began responses are begun; the messages left come back. The deployed function may run for 50
/// s: 15 s are for a look and a change that take almost as long as any operation may, 8 s each.
pub const BEGIN_S_MAX: i64 = 35;

/// The component. Generic over its ports: ledger, notifier's queue, logger's queue, clock, cloud.
pub struct Responder<L, N, G, C, A> {
    responses: Responses<L, A, C>,
    notifier: N,
    logger: G,
}

/// A message of the batch that carries a finding.
struct Work<'m> {
    message: &'m Message,
    finding: Box<Finding>,
    failure: Option<PortError>,
}

impl Work<'_> {
    /// Keeps the first failure, but a retryable one before a permanent one: what can still succeed gets its chance.
    fn fail(&mut self, error: PortError) {
        if self.failure.as_ref().is_none_or(|known| !known.is_retryable() && error.is_retryable()) {
            self.failure = Some(error);
        }
    }
}

impl<L: Ledger, N: Outbox, G: Outbox, C: Clock, A: Cloud> Responder<L, N, G, C, A> {
    /// Builds the policy and its actions.
    ///
    /// # Errors
    /// When a setting cannot be used, such as a mode this version does not have.
    pub fn new(
        settings: &ResponderSettings,
        ledger: L,
        notifier: N,
        logger: G,
        clock: C,
        cloud: A,
    ) -> Result<Self, SettingsError> {
        let responses = Responses::new(Policy::new(settings)?, Journal::new(ledger), cloud, clock);
        Ok(Self { responses, notifier, logger })
    }

    /// How responses ended, since the start.
    pub const fn counts(&self) -> Counts {
        self.responses.counts()
    }

    /// Sends the bodies of each message to both queues. All at once; when that fails one message at a time, so that a
    /// failure stays with its own message.
    async fn send(&self, works: &mut [Work<'_>], each: &[Vec<String>]) {
        // The logger first: a receipt of the notifier should not overtake the finding it is about.
        let failed_logger = send_each(&self.logger, each).await;
        let failed_notifier = send_each(&self.notifier, each).await;
        for (i, error) in failed_logger.into_iter().chain(failed_notifier) {
            works[i].fail(error);
        }
    }
}

impl<L: Ledger, N: Outbox, G: Outbox, C: Clock, A: Cloud> Handler for Responder<L, N, G, C, A> {
    async fn handle(&self, batch: &[Message]) -> BatchResult {
        let mut result = BatchResult::default();
        let now = self.responses.now();
        let (mut works, mut onward) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for message in batch {
            match received(&message.body, now, &|finding| self.responses.answers(finding)) {
                Ok((finding, body)) => {
                    works.push(Work { message, finding, failure: None });
                    onward.push(vec![body]);
                }
                Err(reason) => result.failed.push(FailedMessage {
                    message_id: message.message_id.clone(),
                    reason,
                    retryable: false,
                }),
            }
        }
        self.send(&mut works, &onward).await;
        for work in &mut works {
            if self.responses.now() > now.plus_seconds(BEGIN_S_MAX) {
                let what = format!("not reached: the messages before took more than {BEGIN_S_MAX} s");
                work.fail(PortError::Retryable { what, source: None });
                continue;
            }
            let Report { bodies, failures } = self.responses.answer(&work.finding, work.message.receive_count).await;
            failures.into_iter().for_each(|error| work.fail(error));
            self.send(std::slice::from_mut(work), &[bodies]).await;
        }
        for Work { message, finding, failure, .. } in works {
            let Some(error) = failure else { continue };
            let reason = reason_of(&error);
            tracing::warn!(
                finding.id = %finding.finding_id,
                message.id = %message.message_id,
                retryable = error.is_retryable(),
                "could not finish finding {}: {}", finding.finding_id, one_line(&reason, 400)
            );
            result.failed.push(FailedMessage {
                message_id: message.message_id.clone(),
                reason,
                retryable: error.is_retryable(),
            });
        }
        result
    }
}

/// The finding in a message body, and the body as it is passed on: as received, with the actions that answer it, and
/// with the time where findings carry times. Or why there is none.
fn received(
    body: &str,
    now: Timestamp,
    answers: &dyn Fn(&Finding) -> Vec<String>,
) -> Result<(Box<Finding>, String), String> {
    let mut envelope = Envelope::from_body(body).map_err(|error| reason_of(&error))?;
    let answers = match &envelope.payload {
        Payload::Finding(finding) => answers(finding),
        Payload::Outcome { .. } | Payload::Receipt(_) => Vec::new(),
    };
    let is_timed = !envelope.passed.is_empty();
    let onward = if is_timed || envelope.answers != answers {
        envelope.answers = answers;
        if is_timed {
            envelope = envelope.passed_by("responder", now);
        }
        envelope.to_body()
    } else {
        body.to_owned()
    };
    match envelope.payload {
        Payload::Finding(finding) => Ok((finding, onward)),
        Payload::Outcome { .. } => Err("the responder takes findings, this is an outcome".to_owned()),
        Payload::Receipt(_) => Err("the responder takes findings, this is a receipt".to_owned()),
    }
}

/// Sends all, or after a failure each alone; the indices that failed.
async fn send_each(outbox: &impl Outbox, each: &[Vec<String>]) -> Vec<(usize, PortError)> {
    let all: Vec<String> = each.iter().flatten().cloned().collect();
    if all.is_empty() {
        return Vec::new();
    }
    let Err(error) = outbox.send(&all).await else { return Vec::new() };
    let waiting: Vec<usize> = (0..each.len()).filter(|&i| !each[i].is_empty()).collect();
    if let [only] = waiting[..] {
        return vec![(only, error)];
    }
    let mut failed = Vec::new();
    for i in waiting {
        if let Err(error) = outbox.send(&each[i]).await {
            failed.push((i, error));
        }
    }
    failed
}

/// An error with its causes, in one line.
fn reason_of(error: &dyn std::error::Error) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason.push_str(": ");
        reason.push_str(&error.to_string());
        cause = error.source();
    }
    one_line(&reason, 1000)
}

#[cfg(test)]
mod carried_out;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_support;
