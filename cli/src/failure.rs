//! Why a command stopped, how that is said and which exit code it gets.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use aws_classifier::rules::RuleError;
use shared::config::ConfigError;
use shared::ports::PortError;
use shared::text::one_line;

use crate::output;
use crate::source::{SourceError, SpillUnreadable};

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line asks for something that makes no sense. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The configuration file cannot be used. Exit code 2.
    #[error("{0}\n`pipeline config --show-defaults` prints a file with every setting, to compare with")]
    Config(#[from] ConfigError),
    /// Rules cannot be used. Exit code 2.
    #[error("{}", describe(.0))]
    Rules(Vec<RuleError>),
    /// An input cannot be read. Exit code 2.
    #[error("{0}")]
    Input(String),
    /// An input is not there, not ours to read, or empty. Exit code 2.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// AWS cannot be asked, or says no. Exit code 2.
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "only commands that ask AWS fail so"))]
    #[error("{0}")]
    Cloud(String),
    /// A deployment in AWS is not well, or an undo was not made whole. Exit code 1.
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "only commands that ask AWS fail so"))]
    #[error("{0}")]
    Unwell(String),
    /// The database or a queue does not work. Exit code 1.
    #[error("{0}")]
    Port(#[from] PortError),
    /// Something else on this machine does not work. Exit code 1.
    #[error("could not {what}")]
    Machine {
        /// What was tried, after "could not".
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Writing to the screen failed. When the reader of a pipe has left, that is no failure.
    #[error("could not write to standard output")]
    Output(#[from] io::Error),
    /// Ctrl-C. Exit code 130.
    #[error("{0}")]
    Interrupted(String),
}

/// Characters shown of what is wrong with a rule: our choice, a few lines of a screen.
const RULE_CHARS_MAX: usize = 1_000;

fn describe(errors: &[RuleError]) -> String {
    let n = errors.len();
    let mut text = format!("{n} {} cannot be used", if n == 1 { "rule" } else { "rules" });
    for error in errors {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {}", one_line(&error.to_string(), RULE_CHARS_MAX));
    }
    text + "\n`unusable = \"skip\"` in the section [rules] of the configuration goes on without such rules"
}

impl From<SpillUnreadable> for Failure {
    fn from(SpillUnreadable(error): SpillUnreadable) -> Self {
        Self::machine("read back the temporary file of records that wait", error)
    }
}

impl Failure {
    /// A failure of this machine: `what` follows "could not".
    pub fn machine(what: impl Into<String>, source: io::Error) -> Self {
        Self::Machine { what: what.into(), source }
    }

    /// Says it on standard error, every line neutralised, and answers the exit code.
    pub fn report(&self) -> ExitCode {
        let code = match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Usage(_) | Self::Config(_) | Self::Rules(_) | Self::Input(_) | Self::Source(_) | Self::Cloud(_) => 2,
            Self::Unwell(_) | Self::Port(_) | Self::Machine { .. } | Self::Output(_) => 1,
            Self::Interrupted(_) => 130,
        };
        let mut said = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Some errors quote their cause already.
            let why = error.to_string();
            if !said.contains(&why) {
                said = format!("{said}: {why}");
            }
            cause = error.source();
        }
        let label = if code == 130 { "interrupted" } else { "error" };
        let red = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
        // Nothing can be done when standard error is closed too.
        let _ = writeln!(anstream::stderr().lock(), "{red}{label}:{red:#} {}", output::lines(&said));
        ExitCode::from(code)
    }
}
