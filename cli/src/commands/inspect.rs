//! `pipeline inspect`: whether files are malicious.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use aws_classifier::inspect::{CONTENT_BYTES_MAX, Judgement, Object, Report, Settings};
use aws_classifier::reputation::Services;
use shared::adapters::disk::DiskFiles;

use crate::args::{ConfigFile, Format, InspectArgs};
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::output::{self, BOLD, DIM};

/// Files whose hashes are looked up together.
const FILES_TOGETHER: usize = 16;

/// Judges the files one after another.
///
/// # Errors
/// When a list cannot be read, or standard output cannot be written. A file that cannot be read is an error in the end:
/// the others are judged.
pub fn execute(args: &InspectArgs) -> Result<(), Failure> {
    let Config { mut inspector, services, .. } =
        config::load_with_keys(&ConfigFile { path: args.config.clone(), rules: Vec::new() })?;
    let named = Settings {
        hash_lists: args.hashes.clone(),
        fuzzy_hash_lists: args.fuzzy_hashes.clone(),
        signature_lists: args.signatures.clone(),
        yara_rules: args.yara.clone(),
        ..Settings::default()
    };
    inspector.read(&named, &DiskFiles::new("")).map_err(|error| Failure::Usage(error.why))?;
    let look_up = look_up::Services::new(services)?;
    let mut out = output::stdout();
    let (mut all, mut unreadable) = (Vec::new(), Vec::new());
    for paths in args.files.chunks(FILES_TOGETHER) {
        let mut reports = Vec::new();
        for path in paths {
            match read(path) {
                Ok((content, size)) => {
                    let name = path.to_string_lossy();
                    let content_type = args.content_type.as_deref();
                    reports.push(inspector.inspect(&Object { name: &name, content_type, size, content: &content }));
                }
                Err(why) => unreadable.push(why),
            }
        }
        look_up.add_to(&mut reports);
        match args.format {
            Format::Text => reports.iter().try_for_each(|report| print(&mut out, report))?,
            Format::Json => all.append(&mut reports),
        }
    }
    if args.format == Format::Json {
        output::json(&mut out, &all)?;
    }
    out.flush()?;
    if unreadable.is_empty() { Ok(()) } else { Err(Failure::Input(unreadable.join("\n"))) }
}

/// The beginning of a file, and how large it is. Only of a file: a pipe or a device could be waited for, or read, for ever.
fn read(path: &Path) -> Result<(Vec<u8>, u64), String> {
    let failed = |error: std::io::Error| format!("could not read {}: {error}", output::path(path));
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(format!("could not read {}: it is a folder", output::path(path)));
    }
    if !metadata.is_file() {
        return Err(format!("could not read {}: it is no file but a pipe, a socket or a device", output::path(path)));
    }
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(CONTENT_BYTES_MAX as u64 + 1).read_to_end(&mut content).map_err(failed)?;
    // A file may grow while it is read.
    let read = content.len() as u64;
    let size = if content.len() > CONTENT_BYTES_MAX { metadata.len().max(read) } else { read };
    content.truncate(CONTENT_BYTES_MAX);
    Ok((content, size))
}

#[cfg(feature = "reputation")]
mod look_up {
    //! Asks the outside services for which there are keys.

    use aws_classifier::reputation::Reputation;
    use shared::adapters::disk::SystemClock;
    use shared::adapters::web::WebClient;
    use tokio::runtime::Runtime;

    use super::{Failure, Report};

    pub(super) struct Services {
        runtime: Runtime,
        reputation: Reputation<WebClient>,
    }

    impl Services {
        pub(super) fn new(services: super::Services) -> Result<Self, Failure> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Failure::machine("start looking up hashes", error))?;
            Ok(Self { runtime, reputation: Reputation::new(services, WebClient::default()) })
        }

        pub(super) fn add_to(&self, reports: &mut [Report]) {
            self.runtime.block_on(self.reputation.look_up(reports, &SystemClock));
        }
    }
}

#[cfg(not(feature = "reputation"))]
mod look_up {
    //! Says that nobody was asked: this program stays on this machine.

    use super::{Failure, Report, output};

    pub(super) struct Services(super::Services);

    impl Services {
        pub(super) fn new(services: super::Services) -> Result<Self, Failure> {
            let titles = services.titles();
            if !titles.is_empty() {
                output::warn(&format!(
                    "not asked: {}. This program was built without an HTTP client; \
                     `cargo build --release --features reputation` builds one that asks",
                    titles.join(" and ")
                ));
            }
            Ok(Self(services))
        }

        pub(super) fn add_to(&self, reports: &mut [Report]) {
            for report in reports {
                self.0.not_asked(report, "this program was built without an HTTP client");
            }
        }
    }
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
