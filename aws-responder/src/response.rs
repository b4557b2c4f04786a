//! One finding's responses: decided, journalled, carried out.
//!
//! For each action and target, in this order:
//!
//! 1. **Claim** the response in the journal. What was finished before is answered with the same bytes.
//! 2. **Decide**: the policy's exemptions, the account, the age of the event, the cap. In mode `dry_run` it ends here.
//! 3. **Look** at live state, follow its object where that has gone, and let the action settle its plan on it. What is so already
//!    is a success without a call; what is not there right after the event is looked for again.
//! 4. **Begin**: the journal gets what was seen, the exact calls and their undo. Only then the first call goes out.
//! 5. **Make** the calls, each only as far as live state leaves something to do.
//! 6. **Complete**: the outcome is written, then sent.
//!
//! A crash anywhere in between is made up for by the next delivery: before 4 nothing was changed, after 4 it goes on
//! from what the journal says and what is so now. An error that may pass brings the message back; in between the
//! outcome `RUNNING` says so. After [`DELIVERIES_MAX`] deliveries the response has failed and people are told: a silent
//! dead letter would be a threat that everybody believes to be answered.

use std::cell::Cell;

use serde_json::Value;
use shared::ports::{Clock, Ledger, PortError, PortResult};
use shared::text::one_line;
use shared::{ApiCall, Envelope, Finding, Missed, Outcome, OutcomeStatus, Plan, Settled, Timestamp};
use tracing::info;

use crate::action_settings::Mode;
use crate::cloud::Cloud;
use crate::executor::{self, Done, Made, Stop};
use crate::journal::{Begun, CAP, Journal, Turn};
use crate::policy::{Chosen, Policy};
use crate::registry::DynAction;

/// The target of an outcome that says why an action had none.
const NO_TARGET: &str = "none";

/// Characters of a target or note in the log: our choice.
const TOLD_CHARS_MAX: usize = 300;

/// Deliveries after which an error that may pass is given up: one less than the deployed queue makes, so that there is
/// a last word before the dead letter.
pub const DELIVERIES_MAX: u32 = 4;

/// How often an object that has gone elsewhere is looked for, which needs a few looks when nobody moves it meanwhile.
const FOLLOWED_MAX: usize = 6;

/// IAM and EC2 may not show for some seconds what was just made; after this many nothing is what it looks like. Our choice.
const SHOWN_AFTER_S: i64 = 120;

/// What became of a finding's responses.
#[derive(Debug, Default)]
pub struct Report {
    /// Envelopes to send, in order.
    pub bodies: Vec<String>,
    /// Why some are missing.
    pub failures: Vec<PortError>,
}

/// Decides on responses and carries them out.
pub struct Responses<L, A, C> {
    policy: Policy,
    journal: Journal<L>,
    cloud: A,
    clock: C,
    counts: Cell<Counts>,
}

/// How many responses ended how, since the start. What an earlier delivery finished is not counted again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Carried out, or nothing had to be.
    pub succeeded: u64,
    /// Not, or not all of it.
    pub failed: u64,
    /// The policy refused.
    pub skipped: u64,
    /// Planned and shown.
    pub dry_run: u64,
}

/// One action on one target.
struct Response<'r> {
    key: String,
    finding: &'r Finding,
    action: &'r dyn DynAction,
    mode: Mode,
    target: String,
    /// Which delivery of the finding this is, from 1.
    delivery: u32,
}

/// What the policy says.
enum Verdict {
    Skip(Missed, String),
    /// With the reason when the mode would allow more.
    Show(Plan, Option<String>),
    Act(Plan),
}

/// Why a response has no outcome yet.
struct Unfinished {
    /// What to tell meanwhile.
    running: Option<String>,
    error: PortError,
}

impl From<PortError> for Unfinished {
    fn from(error: PortError) -> Self {
        Self { running: None, error }
    }
}

impl<L: Ledger, A: Cloud, C: Clock> Responses<L, A, C> {
    /// Over these ports.
    pub const fn new(policy: Policy, journal: Journal<L>, cloud: A, clock: C) -> Self {
        let counts = Cell::new(Counts { succeeded: 0, failed: 0, skipped: 0, dry_run: 0 });
        Self { policy, journal, cloud, clock, counts }
    }

    /// Totals since the start.
    pub const fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Writes how a response ended into the log, and counts it.
    fn tell(&self, finding: &Finding, outcome: &Outcome) {
        let Outcome { outcome_id, action, target, status, note, .. } = outcome;
        let (target, note) = (one_line(target, TOLD_CHARS_MAX), one_line(note, TOLD_CHARS_MAX));
        info!(outcome.id = %outcome_id, correlation.id = %finding.event_id, %target, status = status.as_str(),
              "{action}: {note}");
        let mut counts = self.counts.get();
        match status {
            OutcomeStatus::Succeeded => counts.succeeded += 1,
            OutcomeStatus::Failed => counts.failed += 1,
            OutcomeStatus::Skipped => counts.skipped += 1,
            OutcomeStatus::DryRun => counts.dry_run += 1,
            OutcomeStatus::Triggered | OutcomeStatus::Running | OutcomeStatus::PendingApproval => {}
        }
        self.counts.set(counts);
    }

    /// The time by the responses' clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Ids of the actions that answer a finding.
    pub fn answers(&self, finding: &Finding) -> Vec<String> {
        let chosen = self.policy.actions_for(finding);
        let answering = chosen.iter().filter(|chosen| !plans(chosen.action, finding).is_empty());
        answering.map(|chosen| chosen.action.meta().id.to_owned()).collect()
    }

    /// Answers a finding on its `delivery`th delivery. What was done before a failure is in the report too.
    pub async fn answer(&self, finding: &Finding, delivery: u32) -> Report {
        let mut report = Report::default();
        for Chosen { action, mode } in self.policy.actions_for(finding) {
            for (target, planned) in plans(action, finding) {
                let key = Outcome::key(finding.finding_id, action.meta().id, &target);
                let response = Response { key, finding, action, mode, target, delivery };
                match self.respond(&response, planned).await {
                    Ok(body) => report.bodies.push(body),
                    Err(Unfinished { running, error }) => {
                        report.bodies.extend(running);
                        report.failures.push(error);
                    }
                }
            }
        }
        report
    }

    /// The outcome's envelope: of an earlier delivery, or of this one.
    async fn respond(&self, response: &Response<'_>, planned: Result<Plan, String>) -> Result<String, Unfinished> {
        match self.journal.claim(&response.key, self.clock.now()).await? {
            Turn::Done(body) => Ok(body),
            Turn::Ours => {
                let finished = self.finish(response, planned).await;
                if finished.is_err() {
                    self.journal.release(&response.key).await;
                }
                finished
            }
        }
    }

    async fn finish(&self, response: &Response<'_>, planned: Result<Plan, String>) -> Result<String, Unfinished> {
        let now = self.clock.now();
        let verdict = self.verdict(response, planned, now).await?;
        let begun = self.journal.begun(&response.key).await?;
        let outcome = match (verdict, begun) {
            (Verdict::Act(plan), begun) => self.act(response, plan, begun).await?,
            (Verdict::Skip(_, why), Some(begun)) => given_up(response, begun, &why, now),
            (Verdict::Show(..), Some(begun)) => given_up(response, begun, "the mode is no longer auto", now),
            (Verdict::Skip(missed, why), None) => response.skipped(missed, &why, now),
            (Verdict::Show(plan, why), None) => {
                let why = why.map_or_else(String::new, |why| format!("; mode auto, but {why}"));
                let note = format!("dry run: {} planned, none made{why}", calls(plan.calls.len()));
                response.outcome(OutcomeStatus::DryRun, plan, note, now)
            }
        };
        let body = response.envelope(outcome.clone());
        self.journal.complete(&response.key, &body, self.clock.now()).await?;
        self.tell(response.finding, &outcome);
        Ok(body)
    }

    async fn verdict(
        &self,
        response: &Response<'_>,
        planned: Result<Plan, String>,
        now: Timestamp,
    ) -> PortResult<Verdict> {
        let Response { finding, target, .. } = response;
        let refused = |why| Verdict::Skip(Missed::Refused, why);
        let plan = match planned {
            Ok(plan) => plan,
            Err(why) => return Ok(refused(why)),
        };
        if let Some(why) = self.policy.refusal(finding, target, &plan.calls, self.cloud.account().ok()) {
            return Ok(refused(why));
        }
        let mut shown_only = None;
        if response.mode == Mode::Auto {
            match self.cloud.account() {
                Err(why) => shown_only = Some(why.to_owned()),
                Ok(own) => {
                    let foreign = plan.reads.iter().chain(&plan.calls).find(|call| call.account != own);
                    if let Some(call) = foreign {
                        let why = format!("it is for account {}, and this responder acts in {own} only", call.account);
                        return Ok(refused(why));
                    }
                    if let Some(why) = self.policy.too_old(finding.event_time, now) {
                        return Ok(refused(why));
                    }
                }
            }
        }
        let account = plan.calls.first().map_or(finding.account.as_str(), |call| call.account.as_str());
        let max = self.policy.account_responses_max_per_hour;
        let acts = response.mode == Mode::Auto && shown_only.is_none();
        if !self.journal.take_slot(&hour_of(account, acts, finding.event_time), max, &response.key, now).await? {
            let why =
                format!("account {account} had its {max} responses of this hour (account_responses_max_per_hour)");
            return Ok(Verdict::Skip(Missed::Cap, why));
        }
        Ok(if acts { Verdict::Act(plan) } else { Verdict::Show(plan, shown_only) })
    }

    /// Carries the plan out, from the beginning or from where it was left.
    async fn act(&self, response: &Response<'_>, plan: Plan, begun: Option<Begun>) -> Result<Outcome, Unfinished> {
        let (begun, seen) = match begun {
            Some(begun) => (begun, None),
            None => {
                let (plan, seen) = match self.look(response.action, &plan).await {
                    Ok(looked) => looked,
                    Err(stop) => return self.not_begun(response, plan, stop),
                };
                match self.begin(response, plan, &seen).await? {
                    Ok(begun) => (begun, Some(seen)),
                    Err(outcome) => return Ok(*outcome),
                }
            }
        };
        let is_first = seen.is_some();
        let made = executor::make(&self.cloud, response.action, &begun.plan, &begun.plan.calls, seen).await;
        self.conclude(response, begun, made, is_first)
    }

    /// What the plan's reads answer now, following its object where it has gone.
    async fn look(&self, action: &dyn DynAction, plan: &Plan) -> Result<(Plan, Vec<Value>), Stop> {
        let mut plan = plan.clone();
        for _ in 1..FOLLOWED_MAX {
            let seen = executor::look(&self.cloud, &plan.reads).await?;
            match action.follow(&plan, &seen) {
                Some(further) => plan = further,
                None => return Ok((plan, seen)),
            }
        }
        let seen = executor::look(&self.cloud, &plan.reads).await?;
        Ok((plan, seen))
    }

    /// Settles the plan and writes the before-image; or the outcome, when there is nothing to carry out.
    async fn begin(
        &self,
        response: &Response<'_>,
        plan: Plan,
        seen: &[Value],
    ) -> PortResult<Result<Begun, Box<Outcome>>> {
        let now = self.clock.now();
        let ended = |status, plan, note| Ok(Err(Box::new(response.outcome(status, plan, note, now))));
        let settled = match response.action.settle(response.finding, &plan, seen) {
            Ok(settled) => settled,
            Err(why) => {
                let plan = Plan { undo: Vec::new(), ..plan };
                return ended(OutcomeStatus::Failed, plan, format!("nothing was changed: {why}"));
            }
        };
        let Settled { plan: left, note, remains, .. } = &settled;
        let age_s = now.as_millis().saturating_sub(response.finding.event_time.as_millis()) / 1000;
        if settled.is_absent && age_s < SHOWN_AFTER_S && response.delivery < DELIVERIES_MAX {
            let what = format!("{}, {age_s} s after the event: it may not show yet", joined(&[note, remains]));
            return Err(PortError::Retryable { what, source: None });
        }
        if left.calls.is_empty() {
            let note = joined(&["nothing had to be changed", note, remains]);
            let status = if remains.is_empty() { OutcomeStatus::Succeeded } else { OutcomeStatus::Failed };
            return ended(status, Plan { undo: Vec::new(), ..left.clone() }, note);
        }
        // The policy once more, on what live state made of the plan.
        if let Some(why) =
            self.policy.refusal(response.finding, &response.target, &left.calls, self.cloud.account().ok())
        {
            return Ok(Err(Box::new(response.skipped(Missed::Refused, &why, now))));
        }
        let begun = Begun::new(response.finding.clone(), response.action.meta().id, &response.target, settled, now);
        self.journal.begin(&response.key, &begun, now).await?;
        Ok(Ok(begun))
    }

    /// What to say when live state could not be read: nothing was changed.
    fn not_begun(&self, response: &Response<'_>, plan: Plan, stop: Stop) -> Result<Outcome, Unfinished> {
        if stop.is_retryable && response.delivery < DELIVERIES_MAX {
            return Err(PortError::Retryable { what: stop.reason, source: None }.into());
        }
        let plan = Plan { undo: Vec::new(), ..plan };
        let note = format!("nothing was changed: {}{}", stop.reason, response.tried(&stop));
        Ok(response.outcome(OutcomeStatus::Failed, plan, note, self.clock.now()))
    }

    /// `is_first`: no earlier delivery may have made any of the calls.
    fn conclude(
        &self,
        response: &Response<'_>,
        begun: Begun,
        made: Made,
        is_first: bool,
    ) -> Result<Outcome, Unfinished> {
        let now = self.clock.now();
        let Begun { plan, note, remains, at, .. } = begun;
        if let Some(stop) = &made.stop
            && stop.is_retryable
            && response.delivery < DELIVERIES_MAX
        {
            let running = "begun, and not finished yet: it goes on with the next delivery of the finding".to_owned();
            let running = response.envelope(response.outcome(OutcomeStatus::Running, plan, running, at));
            let error = PortError::Retryable { what: stop.reason.clone(), source: None };
            return Err(Unfinished { running: Some(running), error });
        }
        // After a time-out nobody knows whether the call had its effect, so its undo stays too.
        let is_unknown = made.stop.as_ref().is_some_and(|stop| stop.is_retryable);
        let unknown = if is_unknown { made.done.iter().position(|done| *done == Done::Not) } else { None };
        let mut undo = Vec::new();
        let mut done = 0;
        for (i, call) in plan.undo.iter().enumerate() {
            let own = own_undo(response.action, call, &made, i, is_first);
            done += usize::from(own.is_some());
            undo.extend(own.or_else(|| (unknown == Some(i)).then(|| call.clone())));
        }
        let total = plan.calls.len();
        let plan = Plan { undo, ..plan };
        let Some(stop) = made.stop else {
            let others = if done < total { "somebody else was faster with the rest" } else { "" };
            let said = joined(&[&format!("{} made", calls(done)), others, &note, &remains]);
            let status = if remains.is_empty() { OutcomeStatus::Succeeded } else { OutcomeStatus::Failed };
            return Ok(response.outcome(status, plan, said, now));
        };
        let note = format!("{done} of {} made; {}{}", calls(total), stop.reason, response.tried(&stop));
        Ok(response.outcome(OutcomeStatus::Failed, plan, note, now))
    }
}

/// What takes back the `i`th call of the plan, as far as the response made it; `None` when it did not. What a later delivery
/// finds done is taken for the work of an earlier one, unless somebody was just seen doing it.
fn own_undo(action: &dyn DynAction, undo: &ApiCall, made: &Made, i: usize, is_first: bool) -> Option<ApiCall> {
    match made.done.get(i)? {
        Done::Made(part) if is_first || made.overtaken[i] => Some(action.undo_of(undo, part)),
        Done::Made(_) => Some(undo.clone()),
        Done::Found if !is_first => Some(undo.clone()),
        Done::Found | Done::ByOthers | Done::Not => None,
    }
}

impl Response<'_> {
    fn outcome(&self, status: OutcomeStatus, plan: Plan, note: String, decided_at: Timestamp) -> Outcome {
        Outcome {
            outcome_id: self.key.clone(),
            finding_id: self.finding.finding_id,
            action: self.action.meta().id.to_owned(),
            target: self.target.clone(),
            status,
            plan,
            note,
            missed: None,
            decided_at,
        }
    }

    /// A refused response keeps no plan: nobody should carry it out by mistake.
    fn skipped(&self, missed: Missed, why: &str, now: Timestamp) -> Outcome {
        let outcome = self.outcome(OutcomeStatus::Skipped, Plan::default(), format!("skipped: {why}"), now);
        Outcome { missed: (self.mode == Mode::Auto).then_some(missed), ..outcome }
    }

    fn envelope(&self, outcome: Outcome) -> String {
        Envelope::outcome(self.finding.clone(), outcome).to_body()
    }

    /// For an error that might have passed: how long it was waited for.
    fn tried(&self, stop: &Stop) -> String {
        if stop.is_retryable { format!("; given up after {} deliveries", self.delivery) } else { String::new() }
    }
}

/// A response that was begun and that the policy does not allow any more: people have to look at it.
fn given_up(response: &Response<'_>, begun: Begun, why: &str, now: Timestamp) -> Outcome {
    let note = format!("begun at {} and not gone on with, as {why}; some calls may have been made", begun.at);
    response.outcome(OutcomeStatus::Failed, begun.plan, note, now)
}

/// Every target with its plan, none when the finding is about nothing that the action acts on; an action that cannot be planned
/// has one target, none, and the reason.
fn plans(action: &dyn DynAction, finding: &Finding) -> Vec<(String, Result<Plan, String>)> {
    match action.plan(finding) {
        Ok(targets) => targets.into_iter().map(|(target, plan)| (target, Ok(plan))).collect(),
        Err(why) => vec![(NO_TARGET.to_owned(), Err(why.0))],
    }
}

/// The ledger's name for an account's hour: that of the event, so that a replay decides as the day itself did. What is
/// only shown has an hour of its own, so that it takes nothing from what is carried out.
fn hour_of(account: &str, acts: bool, at: Timestamp) -> String {
    let kind = if acts { "carried_out" } else { "shown" };
    format!("{CAP}/{account}/{kind}/{}", at.as_millis().div_euclid(3_600_000))
}

fn calls(n: usize) -> String {
    if n == 1 { "1 call".to_owned() } else { format!("{n} calls") }
}

/// The parts that say something, as one sentence.
fn joined(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("; ")
}
