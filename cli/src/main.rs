//! `pipeline`: the four components on one machine, without network, account or credentials; and, with the feature `aws`,
//! operating those that are deployed.
//!
//! Wiring only: the command line is in `args`, each command in `commands`.

mod args;
mod chain;
mod cloud;
mod commands;
mod config;
mod data;
mod demo;
mod failure;
mod interrupt;
mod inventory;
mod local;
mod output;
mod packer;
mod progress;
mod replay;
mod source;
mod summary;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    output::log_to_stderr();
    match commands::execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
