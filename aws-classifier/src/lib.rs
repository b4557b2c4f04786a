//! Lambda 1: events in, findings out.
//!
//! `handler` decodes a batch with `intake`, `routing` finds the classifiers each event concerns, `engine` remembers,
//! classifies and assembles findings. Plug-ins live in `classifiers`, one file each, and import none of these.

pub mod alarm_state;
pub mod alarms;
pub mod allow;
pub mod classifiers;
pub mod config_rule;
pub mod deployment_tools;
pub mod engine;
pub mod explain;
pub mod exposure;
pub mod gates;
pub mod handler;
pub mod ingress;
pub mod inspect;
pub mod intake;
mod label;
pub mod membership;
pub mod noise;
#[cfg(feature = "lambda")]
pub mod object_files;
pub mod patterns;
mod percent;
pub mod registry;
pub mod reputation;
pub mod routing;
pub mod rules;
mod selector;
pub mod sign_in;
pub mod source_network;
pub mod surroundings;
pub mod world_parts;
