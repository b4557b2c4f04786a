//! One file per command.

mod classifiers;
mod config;
mod demo;
mod dlq;
mod explain;
mod incidents;
mod inspect;
mod replay;
mod run;
mod test_cases;

use std::fs::OpenOptions;
use std::path::Path;

use crate::args::{Command, ResponsesCommand};
use crate::cloud::{self, Request};
use crate::failure::Failure;
use crate::output;

/// Does what the command line asks for.
///
/// # Errors
/// Why it could not be done.
pub fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::execute(&args),
        Command::Replay(args) => replay::execute(&args),
        Command::Run(args) => run::execute(&args),
        Command::TestCases(args) => test_cases::execute(&args),
        Command::Inspect(args) => inspect::execute(&args),
        Command::Classifiers(args) => classifiers::execute(&args),
        Command::Incidents(args) => incidents::execute(&args),
        Command::Dlq(command) => dlq::execute(&command),
        Command::Doctor(args) => cloud::execute(&Request::Doctor(&args)),
        Command::Responses(ResponsesCommand::List(args)) => cloud::execute(&Request::ResponsesList(&args)),
        Command::Responses(ResponsesCommand::Show(args)) => cloud::execute(&Request::ResponsesShow(&args)),
        Command::Responses(ResponsesCommand::Undo(args)) => cloud::execute(&Request::ResponsesUndo(&args)),
        Command::Config(args) => config::execute(&args),
    }
}

/// Sees that a file can be written before the work begins whose end it is for. What it holds stays until then.
///
/// # Errors
/// When it cannot.
fn check_writable(file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let opened = OpenOptions::new().create(true).append(true).open(file);
    opened.map(drop).map_err(|e| Failure::machine(format!("write {}", output::path(file)), e))
}
