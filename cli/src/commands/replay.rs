//! `pipeline replay`: findings on standard output, the summary on standard error.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Instant;

use serde::Serialize;
use shared::Finding;
use shared::places::Half;
use shared::text::one_line;

use super::explain;
use crate::args::{LineFormat, ReplayArgs};
use crate::failure::Failure;
use crate::output::{self, BOLD, DIM};
use crate::progress::Bar;
use crate::replay::{Sink, Stop, replay};
use crate::source::{Counts, Rejected, inputs};
use crate::summary::{self, KeptBack, counted, grouped, no_database};
use crate::{config, interrupt};

/// Unreadable records named on the screen; the rest is in `--rejected`.
const REJECTED_SHOWN_MAX: usize = 5;

/// Does it.
///
/// # Errors
/// When an input cannot be read, the configuration has mistakes, or output fails.
pub fn execute(args: &ReplayArgs) -> Result<(), Failure> {
    if let Some(id) = &args.explain {
        return explain::execute(args, id);
    }
    let config = config::load(&args.config)?;
    let inputs = inputs(&args.paths)?;
    super::check_writable(args.summary.as_deref())?;
    let rejects = match &args.rejected {
        None => None,
        Some(path) => Some(BufWriter::new(
            File::create(path).map_err(|e| Failure::machine(format!("write {}", output::path(path)), e))?,
        )),
    };
    interrupt::listen();
    let started = Instant::now();
    let bar = Bar::beside_output(inputs.iter().map(|i| i.bytes).sum());
    // JSON has no colours to take out, and looking for them costs more than writing.
    let out: Box<dyn Write> = match args.format {
        LineFormat::Text => Box::new(output::stdout()),
        LineFormat::Jsonl => Box::new(io::stdout().lock()),
    };
    let mut printer = Printer { out: BufWriter::with_capacity(1 << 16, out), format: args.format, rejects };
    let result = replay(&inputs, &config.engine, &config.source.options(args.threads), &bar, &mut printer);
    printer.out.flush()?;
    if let Some(rejects) = &mut printer.rejects {
        rejects.flush().map_err(|e| Failure::machine("write the rejected records", e))?;
    }
    bar.finish();
    let done = match result {
        Ok(done) => done,
        Err(Stop::Interrupted) => {
            return Err(Failure::Interrupted(
                "the findings above are those up to here; start again for all of them, or use `pipeline run`, which \
                 goes on where it stopped"
                    .to_owned(),
            ));
        }
        // Nothing was asked for.
        Err(Stop::Explained) => return Ok(()),
        Err(Stop::Output(error)) => return Err(error.into()),
        Err(Stop::State(error)) => return Err(error.into()),
        Err(Stop::Spill(error)) => return Err(error.into()),
    };
    let without = Half::ALL.map(|half| config.engine.without(half));
    let kept_back = KeptBack::new(&done.kept_back, &config.engine.noise().allow);
    let summary = Summary::new(&done.counts, done.findings, kept_back, &without, started.elapsed().as_secs_f64());
    match &args.summary {
        Some(path) => {
            let failed = |e| Failure::machine(format!("write {}", output::path(path)), e);
            let mut file = File::create(path).map_err(failed)?;
            output::json(&mut file, &summary).map_err(failed)?;
        }
        // Nothing can be said when standard error is closed.
        None => drop(summary.print(&mut anstream::stderr().lock())),
    }
    summary::unreadable(&done.counts)
}

struct Printer<W: Write> {
    out: W,
    format: LineFormat,
    rejects: Option<BufWriter<File>>,
}

impl<W: Write> Sink for Printer<W> {
    fn finding(&mut self, finding: &Finding) -> io::Result<()> {
        match self.format {
            LineFormat::Jsonl => {
                serde_json::to_writer(&mut self.out, finding)?;
                self.out.write_all(b"\n")
            }
            LineFormat::Text => print_finding(&mut self.out, finding),
        }
    }

    fn rejected(&mut self, rejected: &Rejected) -> io::Result<()> {
        let Some(file) = &mut self.rejects else { return Ok(()) };
        serde_json::to_writer(&mut *file, rejected)?;
        file.write_all(b"\n")
    }
}

fn print_finding(out: &mut impl Write, finding: &Finding) -> io::Result<()> {
    let style = output::style(finding.severity);
    writeln!(
        out,
        "{DIM}{}{DIM:#}  {style}{:<8}{style:#}  {BOLD}{}{BOLD:#}  {DIM}{}{DIM:#}",
        finding.event_time,
        finding.severity,
        one_line(&finding.title, 120),
        finding.classifier
    )?;
    let place = [&*finding.account, &*finding.region].map(|t| one_line(t, 32)).join(" ");
    writeln!(out, "    by {} from {} in {place}", one_line(&finding.principal, 160), shown(&finding.source_ip, 64))?;
    if !finding.resource.is_empty() {
        writeln!(out, "    on {}", one_line(&finding.resource, 160))?;
    }
    for (name, value) in &finding.evidence {
        writeln!(out, "    {DIM}{name}: {}{DIM:#}", one_line(&value.to_string(), 160))?;
    }
    Ok(())
}

fn shown(text: &str, max: usize) -> String {
    if text.is_empty() { "an unknown address".to_owned() } else { one_line(text, max) }
}

/// The end of a replay in numbers: `records_in = classified + ignored + failed + duplicates`.
#[derive(Debug, Serialize)]
struct Summary<'c> {
    records_in: u64,
    classified: u64,
    ignored: u64,
    failed: u64,
    duplicates: u64,
    findings: u64,
    #[serde(flatten)]
    kept_back: KeptBack,
    /// Later than the lateness bound, so out of order.
    late: u64,
    seconds: f64,
    events_per_second: f64,
    /// Classifiers that judged nothing, or less, because `[geo]` names no database of places.
    without_places: &'c [&'c str],
    /// The same of networks.
    without_networks: &'c [&'c str],
    /// The first hundred.
    rejected: &'c [Rejected],
    /// Files read only in part, and why.
    damaged: &'c [(String, String)],
    /// Files not read at all, and why.
    unreadable: &'c [(String, String)],
}

impl<'c> Summary<'c> {
    fn new(
        counts: &'c Counts,
        findings: u64,
        kept_back: KeptBack,
        [without_places, without_networks]: &'c [Vec<&'c str>; 2],
        seconds: f64,
    ) -> Self {
        Self {
            records_in: counts.records_in,
            classified: counts.classified,
            ignored: counts.ignored,
            failed: counts.failed,
            duplicates: counts.duplicates,
            findings,
            kept_back,
            late: counts.late,
            seconds,
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            events_per_second: if seconds > 0.0 { counts.records_in as f64 / seconds } else { 0.0 },
            without_places,
            without_networks,
            rejected: &counts.rejected,
            damaged: &counts.damaged,
            unreadable: &counts.unreadable,
        }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
        let rate = self.events_per_second as u64;
        writeln!(
            out,
            "{} in {:.1} s ({} a second): {} looked at, {} of no concern to any classifier, {} unreadable, {}; {}",
            counted(self.records_in, "record"),
            self.seconds,
            grouped(rate),
            grouped(self.classified),
            grouped(self.ignored),
            grouped(self.failed),
            counted(self.duplicates, "duplicate"),
            counted(self.findings, "finding")
        )?;
        self.kept_back.print(out)?;
        for (half, classifiers) in Half::ALL.into_iter().zip([self.without_places, self.without_networks]) {
            if let Some(note) = no_database(half, classifiers) {
                writeln!(out, "{note}")?;
            }
        }
        if self.late > 0 {
            writeln!(out, "{} out of order: later than the lateness bound", counted(self.late, "record"))?;
        }
        for rejected in self.rejected.iter().take(REJECTED_SHOWN_MAX) {
            let place = if rejected.file.is_empty() {
                String::new()
            } else {
                format!("{} record {}: ", one_line(&rejected.file, 200), rejected.index)
            };
            writeln!(out, "  unreadable: {place}{}", one_line(&rejected.reason, 200))?;
        }
        if self.failed as usize > REJECTED_SHOWN_MAX {
            writeln!(out, "  … all {} with --rejected FILE", grouped(self.failed))?;
        }
        for (file, reason) in self.damaged {
            writeln!(out, "  damaged: {}: {}; what came before was read", one_line(file, 200), one_line(reason, 200))?;
        }
        Ok(())
    }
}
