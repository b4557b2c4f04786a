//! Chores: `cargo xtask gen` writes what is generated from the declarations, `cargo xtask new-classifier` starts a
//! plug-in. It checks and deploys nothing; the gate is `./scripts/test`.

#![expect(clippy::print_stdout, reason = "chores talk to a person at a terminal")]

mod asn_mmdb;
mod event_templates;
mod generate;
mod new_classifier;
mod permissions;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Write the files generated from the declarations of the plug-ins.
    Gen {
        /// Write nothing; fail when a file is not what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Start a classifier: its file, its registration and two fixtures.
    NewClassifier {
        /// Snake case, service first, threat as a fact: `s3_bucket_made_public`.
        id: String,
    },
    /// Make a MaxMind DB file of networks from CSV ranges; `scripts/fetch-geoip` uses it.
    AsnMmdb {
        /// The file to write.
        to: PathBuf,
        /// CSV files of `first,last,number,name`.
        #[arg(required = true)]
        from: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Gen { check } => generate::run(&root(), check),
        Chore::NewClassifier { id } => new_classifier::run(&root(), &id),
        Chore::AsnMmdb { to, from } => asn_mmdb::run(&to, &from),
    };
    match result {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Reads a text file.
fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("could not read {}: {e}", path.display()))
}

/// Writes a text file and the folders it needs.
fn write(path: &Path, content: &str) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, content))
        .map_err(|e| format!("could not write {}: {e}", path.display()))
}
