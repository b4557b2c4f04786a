//! Makes calls, each only as far as it still changes something.
//!
//! Knows neither policy nor journal: [`crate::response`] carries plans out with it, [`crate::undo`] takes them back.
//! Live state decides what is left of a call ([`shared::Action::left`]), so a second run makes what the first one did
//! not. The answer "it is so already" means that somebody else was faster: then live state is read anew, and what is so
//! by then is not this run's doing.

use serde_json::Value;
use shared::{ApiCall, Plan};

use crate::cloud::{CallError, Cloud};
use crate::registry::DynAction;

/// How often live state is read before whoever keeps changing it gets the right of way; our choice. EC2 and IAM may show
/// for some seconds what was before.
const LOOKS_MAX: usize = 3;

/// Why the run ended before all was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The call and the reason, for a person.
    pub reason: String,
    /// The same may work later. The call may have had its effect.
    pub is_retryable: bool,
}

/// What became of a wanted call.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// What it wants is not so, as far as is known.
    Not,
    /// This run made it: in part, when the rest was so.
    Made(ApiCall),
    /// It was so when this run looked.
    Found,
    /// Somebody else was faster while this run was at it.
    ByOthers,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The calls that this run made, as it made them.
    pub calls: Vec<ApiCall>,
    /// What became of each wanted call.
    pub done: Vec<Done>,
    /// Which of the wanted calls somebody else was faster with, wholly or in part.
    pub overtaken: Vec<bool>,
    /// Why not all are done, when not all are.
    pub stop: Option<Stop>,
}

/// The answers to a plan's reads: null for what does not exist.
///
/// # Errors
/// When one of them cannot be made; nothing was changed.
pub async fn look(cloud: &impl Cloud, reads: &[ApiCall]) -> Result<Vec<Value>, Stop> {
    let mut seen = Vec::with_capacity(reads.len());
    for read in reads {
        seen.push(match cloud.call(read).await {
            Ok(answer) => answer,
            Err(CallError::Gone(_)) => Value::Null,
            Err(error) => return Err(stopped(read, &error)),
        });
    }
    Ok(seen)
}

/// What of `calls` still changes something in the state that is now, in order. Makes none of them.
///
/// # Errors
/// When live state cannot be read, or a call can never work again.
pub async fn left_of(
    cloud: &impl Cloud,
    action: &dyn DynAction,
    plan: &Plan,
    calls: &[ApiCall],
) -> Result<Vec<ApiCall>, Stop> {
    let seen = look(cloud, &plan.reads).await?;
    let left: Result<Vec<_>, _> = calls.iter().map(|call| left(action, call, &seen)).collect();
    Ok(left?.into_iter().flatten().collect())
}

/// Makes what is left of `calls`, which are the plan's own or its undo. `seen` is what [`look`] answered a moment ago.
pub async fn make(
    cloud: &impl Cloud,
    action: &dyn DynAction,
    plan: &Plan,
    calls: &[ApiCall],
    seen: Option<Vec<Value>>,
) -> Made {
    let (done, overtaken) = (vec![Done::Not; calls.len()], vec![false; calls.len()]);
    let mut made = Made { calls: Vec::new(), done, overtaken, stop: None };
    let mut seen = seen;
    let mut last = String::new();
    for round in 0..LOOKS_MAX {
        let state = match seen.take() {
            Some(seen) => seen,
            None => match look(cloud, &plan.reads).await {
                Ok(seen) => seen,
                Err(stop) => {
                    made.stop = Some(stop);
                    return made;
                }
            },
        };
        match go_through(cloud, action, calls, &state, &mut made).await {
            Ok(()) => return made,
            Err(Halt::LookAgain(reason)) => last = reason,
            // Gone before and after looking: nothing will bring it back.
            Err(Halt::Gone(reason)) if round > 0 => {
                made.stop = Some(Stop { reason, is_retryable: false });
                return made;
            }
            Err(Halt::Gone(reason)) => last = reason,
            Err(Halt::Stop(stop)) => {
                made.stop = Some(stop);
                return made;
            }
        }
    }
    made.stop = Some(Stop { reason: format!("{last}, but live state does not show it yet"), is_retryable: true });
    made
}

enum Halt {
    LookAgain(String),
    Gone(String),
    Stop(Stop),
}

/// One pass over the calls in one state.
async fn go_through(
    cloud: &impl Cloud,
    action: &dyn DynAction,
    calls: &[ApiCall],
    seen: &[Value],
    made: &mut Made,
) -> Result<(), Halt> {
    for (i, call) in calls.iter().enumerate() {
        if made.done[i] != Done::Not {
            continue;
        }
        let Some(left) = left(action, call, seen).map_err(Halt::Stop)? else {
            made.done[i] = if made.overtaken[i] { Done::ByOthers } else { Done::Found };
            continue;
        };
        match cloud.call(&left).await {
            Ok(_) => {
                made.calls.push(left.clone());
                made.done[i] = Done::Made(left);
            }
            Err(error @ CallError::AlreadySo(_)) => {
                made.overtaken[i] = true;
                return Err(Halt::LookAgain(reason(call, &error)));
            }
            Err(error @ CallError::Gone(_)) => {
                made.overtaken[i] = true;
                return Err(Halt::Gone(reason(call, &error)));
            }
            Err(error) => return Err(Halt::Stop(stopped(call, &error))),
        }
    }
    Ok(())
}

fn left(action: &dyn DynAction, call: &ApiCall, seen: &[Value]) -> Result<Option<ApiCall>, Stop> {
    action.left(call, seen).map_err(|why| {
        let reason = format!("{}:{} is not possible: {why}", call.service, call.operation);
        Stop { reason, is_retryable: false }
    })
}

fn stopped(call: &ApiCall, error: &CallError) -> Stop {
    Stop { reason: reason(call, error), is_retryable: matches!(error, CallError::Retryable(_)) }
}

fn reason(call: &ApiCall, error: &CallError) -> String {
    let said = match error {
        CallError::Retryable(_) => "did not work yet",
        CallError::AlreadySo(_) => "found it so already",
        CallError::Gone(_) => "found nothing to change",
        CallError::Denied(_) => "is not permitted",
        CallError::Permanent(_) => "failed",
    };
    format!("{}:{} {said}: {error}", call.service, call.operation)
}
