//! The terminal: locked streams that drop colours when nobody sees them, and severities in colour.

use std::io::{self, IsTerminal, StdoutLock, Write};
use std::path::Path;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use shared::Severity;
use shared::text::one_line;

/// Standard output. Colours are dropped unless it is a terminal; `NO_COLOR` is honoured.
pub fn stdout() -> AutoStream<StdoutLock<'static>> {
    anstream::stdout().lock()
}

/// Bold.
pub const BOLD: Style = Style::new().bold();
/// For what matters less.
pub const DIM: Style = Style::new().dimmed();

/// The colour of a severity.
pub fn style(severity: Severity) -> Style {
    let ansi = match severity {
        Severity::Critical | Severity::High => AnsiColor::Red,
        Severity::Medium => AnsiColor::Yellow,
        Severity::Low => AnsiColor::Cyan,
        Severity::Info => AnsiColor::Green,
    };
    Style::new().fg_color(Some(ansi.into()))
}

/// Indented JSON with a line break behind it.
///
/// # Errors
/// When it cannot be written.
pub fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}

/// Characters of a path that are shown: as long as paths may be on Linux (`PATH_MAX`).
const PATH_CHARS_MAX: usize = 4_096;

/// A path in one line. Names of files are anyone's.
pub fn path(path: &Path) -> String {
    one_line(&path.to_string_lossy(), PATH_CHARS_MAX)
}

/// A text of several lines, every one of them neutralised. Errors quote names and values that are anyone's.
pub fn lines(text: &str) -> String {
    text.lines().map(|line| one_line(line, line.len())).collect::<Vec<_>>().join("\n")
}

/// The whole text of a message for people: JSON indented, every line neutralised. Attackers may have written it.
///
/// # Errors
/// When it cannot be written.
pub fn body(out: &mut impl Write, body: &str) -> io::Result<()> {
    let indented =
        serde_json::from_str::<serde_json::Value>(body).and_then(|value| serde_json::to_string_pretty(&value));
    match lines(indented.as_deref().unwrap_or(body)) {
        text if text.is_empty() => Ok(()),
        text => writeln!(out, "{text}"),
    }
}

/// A warning on standard error.
pub fn warn(text: &str) {
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    // Nothing can be done when standard error is closed.
    let _ = writeln!(anstream::stderr().lock(), "{yellow}warning:{yellow:#} {}", lines(text));
}

/// Warnings of the components go to standard error; `RUST_LOG` says otherwise.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .without_time()
        .init();
}
