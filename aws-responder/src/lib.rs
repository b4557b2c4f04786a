//! Lambda 2: findings in, outcomes out.
//!
//! Every finding is passed on at once to the notifier and the logger. Then the [`policy`] chooses the actions that
//! answer it and each action plans its exact API calls (purely, from the finding). In mode `dry_run` the plan is
//! journalled and shown. In mode `auto` the [`executor`] makes the calls through the port [`cloud`], after the action
//! has settled its plan on live state and the [`journal`] has the before-image and the undo; [`undo`] takes a response
//! back. The outcome follows the finding to both.

pub mod action_settings;
pub mod actions;
#[cfg(feature = "aws")]
pub mod aws;
pub mod cloud;
pub mod executor;
pub mod handler;
pub mod journal;
pub mod patterns;
pub mod policy;
pub mod registry;
pub mod response;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod undo;

use std::fmt::Write as _;

use shared::{ApiCall, Plan};

pub use action_settings::ActionSettings;
pub use cloud::{Cloud, NoCloud};
pub use handler::Responder;
pub use registry::{DynAction, REGISTRY, Registered};
pub use settings::{ResponderSettings, configure};

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
