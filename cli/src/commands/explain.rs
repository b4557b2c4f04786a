//! `pipeline replay --explain EVENT_ID`: what every classifier made of one event. Everything before it is replayed
//! first, so that what was known is known; findings are not printed.

use std::io::{self, Write};

use aws_classifier::explain::{Explanation, Said};
use serde::Serialize;
use shared::Finding;
use shared::event::Event;
use shared::text::one_line;

use crate::args::{LineFormat, ReplayArgs};
use crate::failure::Failure;
use crate::output::{self, BOLD, DIM};
use crate::progress::Bar;
use crate::replay::{Sink, Stop, replay};
use crate::source::{Rejected, inputs};
use crate::summary::{counted, grouped};
use crate::{config, interrupt};

/// Explains the event `id`.
///
/// # Errors
/// When an input cannot be read, no record has the id, or output fails.
pub fn execute(args: &ReplayArgs, id: &str) -> Result<(), Failure> {
    let config = config::load(&args.config)?;
    let inputs = inputs(&args.paths)?;
    let mut options = config.source.options(args.threads);
    options.asked_for = Some(id.to_owned());
    interrupt::listen();
    let bar = Bar::new(inputs.iter().map(|i| i.bytes).sum());
    let mut printer = Printer { out: output::stdout(), format: args.format, id, unreadable: None, bar: &bar };
    let result = replay(&inputs, &config.engine, &options, &bar, &mut printer);
    bar.finish();
    printer.out.flush()?;
    match result {
        Err(Stop::Explained) => Ok(()),
        Err(Stop::Interrupted) => Err(Failure::Interrupted("the event was not met so far".to_owned())),
        Err(Stop::Output(error)) => Err(error.into()),
        Err(Stop::State(error)) => Err(error.into()),
        Err(Stop::Spill(error)) => Err(error.into()),
        Ok(done) => Err(Failure::Input(match printer.unreadable {
            Some(why) => format!("the record that names {} cannot be read: {why}", one_line(id, 200)),
            None => format!(
                "none of the {} has the event id {}",
                counted(done.counts.records_in, "record"),
                one_line(id, 200)
            ),
        })),
    }
}

struct Printer<'p, W: Write> {
    out: W,
    format: LineFormat,
    id: &'p str,
    unreadable: Option<String>,
    bar: &'p Bar,
}

/// An explanation with what it is about, as JSON.
#[derive(Serialize)]
struct Explained<'e> {
    event_id: &'e str,
    event_time: shared::Timestamp,
    event_source: &'e str,
    event_name: &'e str,
    account: &'e str,
    region: &'e str,
    principal: &'e str,
    #[serde(flatten)]
    explanation: &'e Explanation,
}

impl<W: Write> Sink for Printer<'_, W> {
    fn finding(&mut self, _finding: &Finding) -> io::Result<()> {
        Ok(())
    }

    fn rejected(&mut self, rejected: &Rejected) -> io::Result<()> {
        if rejected.text.contains(self.id) {
            self.unreadable = Some(one_line(&rejected.reason, 200));
        }
        Ok(())
    }

    fn explained(&mut self, event: &Event<'_>, explanation: &Explanation) -> io::Result<()> {
        // Nothing is printed before, and nothing is read after.
        self.bar.finish();
        match self.format {
            LineFormat::Jsonl => {
                let explained = Explained {
                    event_id: &event.event_id,
                    event_time: event.time,
                    event_source: &event.source,
                    event_name: &event.name,
                    account: &event.account,
                    region: &event.region,
                    principal: event.principal(),
                    explanation,
                };
                serde_json::to_writer(&mut self.out, &explained)?;
                writeln!(self.out)
            }
            LineFormat::Text => print(&mut self.out, event, explanation),
        }
    }
}

fn print(out: &mut impl Write, event: &Event<'_>, explanation: &Explanation) -> io::Result<()> {
    let [source, name, principal] = [&*event.source, &*event.name, event.principal()].map(|text| one_line(text, 160));
    writeln!(out, "{DIM}{}{DIM:#}  {BOLD}{name}{BOLD:#} of {source}", event.time)?;
    let place = [&*event.account, &*event.region].map(|t| one_line(t, 32)).join(" ");
    let from =
        if event.source_ip.is_empty() { "an unknown address".to_owned() } else { one_line(&event.source_ip, 64) };
    writeln!(out, "    by {principal} from {from} in {place}")?;
    for asked in &explanation.asked {
        let said = match asked.said {
            Said::FailedCall => "failed call",
            Said::NotWanted => "not wanted",
            Said::Malformed => "malformed",
            Said::No => "no",
            Said::Found => "found",
            Said::Suppressed => "suppressed",
            Said::Repeat => "repeat",
        };
        writeln!(out, "{said:<12}{BOLD}{}{BOLD:#}: {}", asked.classifier, one_line(&asked.because, 400))?;
        for known in &asked.known {
            writeln!(out, "            {DIM}{}{DIM:#}", one_line(known, 400))?;
        }
    }
    match explanation.not_concerned.len() {
        _ if explanation.asked.is_empty() => writeln!(out, "No classifier or rule asks for this event.")?,
        0 => {}
        n => {
            writeln!(out, "{DIM}not concerned: {} others, whose patterns name other events{DIM:#}", grouped(n as u64))?
        }
    }
    Ok(())
}
