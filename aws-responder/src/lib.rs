//! Lambda 2: findings in, outcomes out.
//!
//! Every finding is passed on at once to the notifier and the logger. Then the [`policy`] chooses the actions that
//! answer it, each action plans its exact API calls (purely, from the finding), the [`journal`] records the decision
//! and only then the outcome is sent to both.
//!
//! This version plans and shows, it does not carry out: the modes are `off` and `dry_run`. `approve` and `auto` are
//! refused at configuration, because there is nothing behind them yet.

pub mod actions;
pub mod handler;
pub mod journal;
pub mod policy;
pub mod registry;
pub mod settings;
#[cfg(test)]
mod testing;

use std::fmt::Write as _;

use shared::{ApiCall, Plan};

pub use handler::Responder;
pub use registry::{DynAction, REGISTRY, Registered};
pub use settings::{ActionSettings, ResponderSettings, configure};

/// A plan for a person, one call a line, under the headings that have any: `looks first`, `would call`, `undo`.
/// Attacker-controlled text is neutralised by [`ApiCall`]'s `Display`.
pub fn render(plan: &Plan) -> String {
    let mut text = String::new();
    section(&mut text, "looks first:", &plan.reads);
    section(&mut text, "would call:", &plan.calls);
    section(&mut text, "undo:", &plan.undo);
    text
}

fn section(text: &mut String, heading: &str, calls: &[ApiCall]) {
    if calls.is_empty() {
        return;
    }
    text.push_str(heading);
    text.push('\n');
    for call in calls {
        let _ = writeln!(text, "  {call}");
    }
}
