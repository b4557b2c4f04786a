//! Takes a response back, from its before-image in the journal.
//!
//! Every call of the undo is made only as far as it still changes something, and the journal keeps that it was made: a
//! second undo does nothing and says when the first was. A response that was begun and not finished can be taken back
//! too; it is given up first, so that no delivery goes on with it. Of one that was finished only that is undone which
//! its outcome says was done: what was refused, or what somebody else did before or since, is theirs. The same finding
//! never acts again; a new one does, and the calls of an undo are events of their own: whoever lets a group's rule come
//! back has to exempt the group or themselves first.
//!
//! Exemptions and caps do not apply: who undoes decides with credentials of their own.

use shared::ports::{Clock, Ledger, PortError};
use shared::{ApiCall, Envelope, Outcome, OutcomeStatus, Payload};

use crate::cloud::Cloud;
use crate::executor;
use crate::journal::{Begun, Journal, Turn, Undone};
use crate::registry::{DynAction, REGISTRY};

/// Why a response could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// Nothing was changed under this id: another mode, refused, or nothing had to be.
    #[error("nothing was carried out as {0}, so there is nothing to undo")]
    NothingCarriedOut(String),
    /// By another version: the action is not in this one.
    #[error("action {0} is not in this version")]
    UnknownAction(String),
    /// What an undo would change cannot be told. Nothing was changed.
    #[error("it cannot be told what an undo would change: {0}")]
    NotSeen(String),
    /// A call did not work. What was done before it stays done; the same undo again makes the rest.
    #[error("undone in part, {made} made: {reason}")]
    Stopped {
        /// How many calls were made.
        made: usize,
        /// Which failed, and why.
        reason: String,
    },
    /// The journal: not reachable, or somebody is at work on the response right now.
    #[error(transparent)]
    Journal(#[from] PortError),
}

/// The calls that an undo would make now; none when everything is as before already. `ended` is how the response ended,
/// when it did. Changes nothing.
///
/// # Errors
/// [`UndoError::NotSeen`], [`UndoError::UnknownAction`] and [`UndoError::NothingCarriedOut`].
pub async fn preview(cloud: &impl Cloud, begun: &Begun, ended: Option<&Outcome>) -> Result<Vec<ApiCall>, UndoError> {
    let undo = ended.map_or(&begun.plan.undo, |outcome| &outcome.plan.undo);
    if let Some(outcome) = ended.filter(|_| undo.is_empty()) {
        return Err(UndoError::NothingCarriedOut(outcome.outcome_id.clone()));
    }
    let action = action_of(begun)?;
    let left = executor::left_of(cloud, &*action, &begun.plan, undo).await;
    left.map_err(|stop| UndoError::NotSeen(stop.reason))
}

/// Takes the response `outcome_id` back. `true`: it had been taken back before.
///
/// # Errors
/// See [`UndoError`].
pub async fn undo<L: Ledger>(
    journal: &Journal<L>,
    cloud: &impl Cloud,
    clock: &impl Clock,
    outcome_id: &str,
) -> Result<(Undone, bool), UndoError> {
    let Some(begun) = journal.begun(outcome_id).await? else {
        return Err(UndoError::NothingCarriedOut(outcome_id.to_owned()));
    };
    let action = action_of(&begun)?;
    let undo = give_up(journal, clock, outcome_id, &begun).await?;
    if undo.is_empty() {
        return Err(UndoError::NothingCarriedOut(outcome_id.to_owned()));
    }
    if let Turn::Done(undone) = journal.claim_undo(outcome_id, clock.now()).await? {
        return Ok((undone, true));
    }
    let made = executor::make(cloud, &*action, &begun.plan, &undo, None).await;
    if let Some(stop) = made.stop {
        journal.release_undo(outcome_id).await;
        return Err(UndoError::Stopped { made: made.calls.len(), reason: stop.reason });
    }
    let undone = Undone::new(made.calls, clock.now());
    journal.complete_undo(outcome_id, &undone, undone.at).await?;
    Ok((undone, false))
}

fn action_of(begun: &Begun) -> Result<Box<dyn DynAction>, UndoError> {
    let registered = REGISTRY.iter().find(|registered| registered.meta.id == begun.action);
    // What is left of a call does not depend on settings.
    let action = registered.and_then(|registered| (registered.build)(&(registered.defaults)().own).ok());
    action.ok_or_else(|| UndoError::UnknownAction(begun.action.clone()))
}

/// The calls that take back what was done. Ends a response that nobody has finished, so that no delivery carries on what is
/// taken back here; what of it was done only live state knows.
async fn give_up<L: Ledger>(
    journal: &Journal<L>,
    clock: &impl Clock,
    outcome_id: &str,
    begun: &Begun,
) -> Result<Vec<ApiCall>, PortError> {
    if let Turn::Done(body) = journal.claim(outcome_id, clock.now()).await? {
        return undo_in(outcome_id, &body);
    }
    let now = clock.now();
    let outcome = Outcome {
        outcome_id: outcome_id.to_owned(),
        finding_id: begun.finding.finding_id,
        action: begun.action.clone(),
        target: begun.target.clone(),
        status: OutcomeStatus::Failed,
        plan: begun.plan.clone(),
        note: format!("begun at {} and taken back at {now}, before it was finished", begun.at),
        missed: None,
        decided_at: now,
    };
    let body = Envelope::outcome(begun.finding.clone(), outcome).to_body();
    journal.complete(outcome_id, &body, now).await?;
    Ok(begun.plan.undo.clone())
}

/// The undo of an outcome as it was sent.
fn undo_in(outcome_id: &str, body: &str) -> Result<Vec<ApiCall>, PortError> {
    let damaged = format!("journal entry {outcome_id} is damaged");
    match Envelope::from_body(body) {
        Ok(Envelope { payload: Payload::Outcome { outcome, .. }, .. }) => Ok(outcome.plan.undo),
        Ok(_) => Err(PortError::Permanent { what: damaged, source: None }),
        Err(error) => Err(PortError::permanent(damaged, error)),
    }
}
