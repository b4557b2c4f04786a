//! `pipeline inspect`: whether files are malicious.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use aws_classifier::inspect::{CONTENT_BYTES_MAX, Inspector, Judgement, Object, Report, Settings};
use shared::adapters::disk::DiskFiles;

use crate::args::{Format, InspectArgs};
use crate::failure::Failure;
use crate::output::{self, BOLD, DIM};

/// Judges the files one after another.
///
/// # Errors
/// When a list or a file cannot be read, or standard output cannot be written. Files before it were printed as text.
pub fn execute(args: &InspectArgs) -> Result<(), Failure> {
    let settings = Settings {
        hash_lists: args.hashes.clone(),
        fuzzy_hash_lists: args.fuzzy_hashes.clone(),
        signature_lists: args.signatures.clone(),
        ..Settings::default()
    };
    let inspector = Inspector::new(settings, &DiskFiles::new("")).map_err(|error| Failure::Usage(error.why))?;
    let mut out = output::stdout();
    let mut reports = Vec::new();
    for path in &args.files {
        let (content, size) = read(path)?;
        let name = path.to_string_lossy();
        let content_type = args.content_type.as_deref();
        let report = inspector.inspect(&Object { name: &name, content_type, size, content: &content });
        match args.format {
            Format::Text => print(&mut out, &report)?,
            Format::Json => reports.push(report),
        }
    }
    if args.format == Format::Json {
        output::json(&mut out, &reports)?;
    }
    Ok(out.flush()?)
}

/// The beginning of a file, and how large it is.
fn read(path: &Path) -> Result<(Vec<u8>, u64), Failure> {
    let failed = |error: std::io::Error| Failure::Input(format!("could not read {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let known = file.metadata().map_err(failed)?.len();
    let mut content = Vec::new();
    file.take(CONTENT_BYTES_MAX as u64 + 1).read_to_end(&mut content).map_err(failed)?;
    // Pipes say 0, and a file may grow while it is read.
    let size = if content.len() > CONTENT_BYTES_MAX { known.max(content.len() as u64) } else { content.len() as u64 };
    content.truncate(CONTENT_BYTES_MAX);
    Ok((content, size))
}

fn print(out: &mut impl Write, report: &Report) -> Result<(), Failure> {
    let style = style(report.judgement);
    let kind = report.sniffed_type.as_deref().unwrap_or("type unknown");
    writeln!(out, "{style}{:<10}{style:#} {BOLD}{}{BOLD:#}", report.judgement.as_str(), escaped(&report.name))?;
    let sha256 = report.sha256.as_deref().unwrap_or("not hashed");
    writeln!(out, "           {DIM}{} bytes, {kind}, {sha256}{DIM:#}", report.size)?;
    for reason in &report.reasons {
        writeln!(out, "           {}: {}", reason.check, escaped(&reason.what))?;
    }
    Ok(())
}

fn style(judgement: Judgement) -> Style {
    let ansi = match judgement {
        Judgement::Clean => AnsiColor::Green,
        Judgement::Suspicious => AnsiColor::Yellow,
        Judgement::Malicious => AnsiColor::Red,
    };
    Style::new().fg_color(Some(ansi.into()))
}

/// Names are anyone's: what would steer the terminal is shown as its code.
fn escaped(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
