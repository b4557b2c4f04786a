//! Findings in; findings and outcomes out.
//!
//! Per batch: every finding is passed on, as received, to the notifier and the logger; then every response is decided and
//! journalled; then the outcomes are sent to both. A message whose effects are not all done comes back, and every step
//! done before is then done again with the same bytes, or found done. One message's failure never touches its neighbours,
//! and a failing notifier keeps nothing from the logger, nor a failing journal the finding from either.

use shared::ports::{BatchResult, Clock, FailedMessage, Handler, Ledger, Message, Outbox, PortError, PortResult};
use shared::text::one_line;
use shared::{Envelope, Finding, Outcome, OutcomeStatus, Payload, Plan, SettingsError, Timestamp};

use crate::journal::Journal;
use crate::policy::Policy;
use crate::registry::DynAction;
use crate::settings::ResponderSettings;

/// The target of an outcome that says why an action had none.
const NO_TARGET: &str = "none";

/// The component. Generic over its ports: ledger, notifier's queue, logger's queue, clock.
pub struct Responder<L, N, G, C> {
    policy: Policy,
    journal: Journal<L>,
    notifier: N,
    logger: G,
    clock: C,
}

/// A message of the batch that carries a finding.
struct Work<'m> {
    message: &'m Message,
    finding: Box<Finding>,
    outcomes: Vec<String>,
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

impl<L: Ledger, N: Outbox, G: Outbox, C: Clock> Responder<L, N, G, C> {
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
    ) -> Result<Self, SettingsError> {
        Ok(Self { policy: Policy::new(settings)?, journal: Journal::new(ledger), notifier, logger, clock })
    }

    /// Decides and journals every response to a finding; the outcome envelopes, in order. What was journalled before a
    /// failure is in the list too.
    async fn respond(&self, work: &mut Work<'_>) {
        let finding = &work.finding;
        let mut outcomes = Vec::new();
        let mut failures = Vec::new();
        for action in self.policy.actions_for(finding) {
            for (target, planned) in plans(action, finding) {
                match self.outcome(finding, action.meta().id, target, planned).await {
                    Ok(body) => outcomes.push(body),
                    Err(error) => failures.push(error),
                }
            }
        }
        work.outcomes = outcomes;
        failures.into_iter().for_each(|error| work.fail(error));
    }

    /// The journal's entry for one action on one target.
    async fn outcome(
        &self,
        finding: &Finding,
        action: &'static str,
        target: String,
        planned: Result<Plan, String>,
    ) -> PortResult<String> {
        let key = Outcome::key(finding.finding_id, action, &target);
        let now = self.clock.now();
        let decide = async {
            let (status, plan, note) = self.decide(finding, &key, &target, planned, now).await?;
            let outcome = Outcome {
                outcome_id: key.clone(),
                finding_id: finding.finding_id,
                action: action.to_owned(),
                target: target.clone(),
                status,
                plan,
                note,
                decided_at: now,
            };
            Ok(Envelope::outcome(finding.clone(), outcome))
        };
        self.journal.entry(&key, now, decide).await
    }

    /// Status, plan and reason. A refused response keeps no plan: nobody should carry it out by mistake.
    async fn decide(
        &self,
        finding: &Finding,
        key: &str,
        target: &str,
        planned: Result<Plan, String>,
        now: Timestamp,
    ) -> PortResult<(OutcomeStatus, Plan, String)> {
        let skipped = |why: String| Ok((OutcomeStatus::Skipped, Plan::default(), format!("skipped: {why}")));
        let plan = match planned {
            Ok(plan) => plan,
            Err(why) => return skipped(why),
        };
        if let Some(why) = self.policy.refusal(finding, target, &plan.calls) {
            return skipped(why);
        }
        let account = plan.calls.first().map_or(finding.account.as_str(), |call| call.account.as_str());
        let max = self.policy.account_responses_max_per_hour;
        if !self.journal.take_slot(&hour_of(account, finding.event_time), max, key, now).await? {
            return skipped(format!(
                "account {account} had its {max} responses of this hour (account_responses_max_per_hour)"
            ));
        }
        let calls = if plan.calls.len() == 1 { "1 call".to_owned() } else { format!("{} calls", plan.calls.len()) };
        Ok((OutcomeStatus::DryRun, plan, format!("dry run: {calls} planned, none made")))
    }

    /// Sends what `bodies` picks from each message to both queues. All at once; when that fails one message at a time, so
    /// that a failure stays with its own message.
    async fn send(&self, works: &mut [Work<'_>], bodies: impl Fn(&Work<'_>) -> Vec<String>) {
        let each: Vec<Vec<String>> = works.iter().map(bodies).collect();
        // The logger first: a receipt of the notifier should not overtake the finding it is about.
        let failed_logger = send_each(&self.logger, &each).await;
        let failed_notifier = send_each(&self.notifier, &each).await;
        for (i, error) in failed_logger.into_iter().chain(failed_notifier) {
            works[i].fail(error);
        }
    }
}

impl<L: Ledger, N: Outbox, G: Outbox, C: Clock> Handler for Responder<L, N, G, C> {
    async fn handle(&self, batch: &[Message]) -> BatchResult {
        let mut result = BatchResult::default();
        let mut works = Vec::with_capacity(batch.len());
        for message in batch {
            match finding_of(&message.body) {
                Ok(finding) => works.push(Work { message, finding, outcomes: Vec::new(), failure: None }),
                Err(reason) => result.failed.push(FailedMessage {
                    message_id: message.message_id.clone(),
                    reason,
                    retryable: false,
                }),
            }
        }
        let now = self.clock.now();
        self.send(&mut works, |work| vec![passed_on(&work.message.body, now)]).await;
        for work in &mut works {
            self.respond(work).await;
        }
        self.send(&mut works, |work| work.outcomes.clone()).await;
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

/// The finding in a message body, or why there is none.
fn finding_of(body: &str) -> Result<Box<Finding>, String> {
    match Envelope::from_body(body) {
        Ok(Envelope { payload: Payload::Finding(finding), .. }) => Ok(finding),
        Ok(Envelope { payload: Payload::Outcome { .. }, .. }) => {
            Err("the responder takes findings, this is an outcome".to_owned())
        }
        Ok(Envelope { payload: Payload::Receipt(_), .. }) => {
            Err("the responder takes findings, this is a receipt".to_owned())
        }
        Err(error) => Err(reason_of(&error)),
    }
}

/// The body as it is passed on: as received, with the time where findings carry times.
fn passed_on(body: &str, now: Timestamp) -> String {
    match Envelope::from_body(body) {
        Ok(envelope) if !envelope.passed.is_empty() => envelope.passed_by("responder", now).to_body(),
        _ => body.to_owned(),
    }
}

/// Every target with its plan; an action that does not apply has one target, none, and the reason.
fn plans(action: &dyn DynAction, finding: &Finding) -> Vec<(String, Result<Plan, String>)> {
    match action.plan(finding) {
        Ok(targets) if !targets.is_empty() => targets.into_iter().map(|(target, plan)| (target, Ok(plan))).collect(),
        Ok(_) => vec![(NO_TARGET.to_owned(), Err("the action found no target".to_owned()))],
        Err(why) => vec![(NO_TARGET.to_owned(), Err(why.0))],
    }
}

/// The ledger's name for an account's hour: that of the event, so that a replay decides as the day itself did.
fn hour_of(account: &str, at: Timestamp) -> String {
    format!("response_cap/{account}/{}", at.as_millis().div_euclid(3_600_000))
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
mod tests;
