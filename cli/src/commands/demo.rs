//! `pipeline demo`: the whole chain on a made-up day.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use shared::envelope::{Envelope, Payload};
use shared::ports::{IncidentFilter, Incidents, Outbox};
use shared::{Incident, Outcome};

use crate::args::DemoArgs;
use crate::chain;
use crate::demo::{self, DemoFiles, attack_day};
use crate::failure::Failure;
use crate::local::{self, InMemory};
use crate::output::{self, BOLD, DIM};
use crate::packer::Packer;
use crate::progress::Bar;
use crate::source::{self, Consumer, Counts, Record, SourceOptions};
use crate::summary::{self, KeptBack, Numbers, counted};
use crate::{config, interrupt};

/// Shows the chain at work, or writes the day to a file.
///
/// # Errors
/// When a file cannot be written.
pub fn execute(args: &DemoArgs) -> Result<(), Failure> {
    let records = attack_day::records();
    if let Some(path) = &args.write {
        write_lines(path, &records)?;
        let shown = output::path(path);
        let mut out = output::stdout();
        writeln!(out, "{} written; now try: pipeline replay {shown}", counted(records.len() as u64, "record"))?;
        return Ok(out.flush()?);
    }
    interrupt::listen();
    let started = Instant::now();
    let day = Day::live(&records)?;
    if interrupt::asked() {
        return Err(Failure::Interrupted("nothing was kept".to_owned()));
    }
    report(&day, started.elapsed().as_secs_f64())
}

fn write_lines(path: &Path, records: &[String]) -> Result<(), Failure> {
    let cannot = |error| Failure::machine(format!("write {}", output::path(path)), error);
    let mut file = BufWriter::new(File::create(path).map_err(cannot)?);
    for record in records {
        writeln!(file, "{record}").map_err(cannot)?;
    }
    file.flush().map_err(cannot)
}

/// What came of the day.
struct Day {
    counts: Counts,
    outcomes: Vec<Outcome>,
    incidents: Vec<Incident>,
    alerts: String,
    dead_letters: u64,
}

impl Day {
    /// Reads the day from a file, as `run` would, and sends it through the chain in memory.
    fn live(records: &[String]) -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(|e| Failure::machine("make a temporary folder", e))?;
        let path = folder.path().join("attack-day.jsonl");
        write_lines(&path, records)?;
        let config = config::parse("the settings of the demo", &demo::settings(), &DemoFiles, &[], None)?;
        let (local, alerts, incidents) = local::in_memory(config)?;
        let inputs = source::inputs(std::slice::from_ref(&path))?;
        let bar = Bar::new(fs::metadata(&path).map_or(0, |about| about.len()));
        let mut feed = Feed { local: &local, packer: Packer::default(), outcomes: Vec::new() };
        let counts = source::read(&inputs, &local.classifier().engine(), &SourceOptions::default(), &bar, &mut feed)?;
        feed.finish()?;
        bar.finish();
        let outcomes = feed.outcomes;
        let mut incidents = chain::block_on(incidents.list(&IncidentFilter::default()))??;
        incidents.reverse();
        Ok(Self { counts, outcomes, incidents, alerts: alerts.text(), dead_letters: local.dead_letters()? })
    }
}

/// From records to messages, and what the logger has seen in the end.
struct Feed<'a> {
    local: &'a InMemory,
    packer: Packer,
    outcomes: Vec<Outcome>,
}

impl Feed<'_> {
    fn send(&mut self, message: String) -> Result<(), Failure> {
        chain::block_on(self.local.queues().classifier.send(&[message]))??;
        let Self { local, outcomes, .. } = self;
        local.drain(&mut |message| match Envelope::from_body(&message.body).map(|envelope| envelope.payload) {
            Ok(Payload::Outcome { outcome, .. }) => outcomes.push(*outcome),
            Ok(Payload::Finding(_) | Payload::Receipt(_)) | Err(_) => {}
        })
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.packer.take().map_or(Ok(()), |message| self.send(message))
    }
}

impl Consumer for Feed<'_> {
    type Error = Failure;

    fn record(&mut self, record: Record) -> Result<(), Failure> {
        self.packer.add(record.text()).map_or(Ok(()), |message| self.send(message))
    }

    fn advanced(&mut self) -> Result<(), Failure> {
        if interrupt::asked() { Err(Failure::Interrupted("nothing was kept".to_owned())) } else { Ok(()) }
    }
}

fn report(day: &Day, seconds: f64) -> Result<(), Failure> {
    let mut out = output::stdout();
    writeln!(out, "{BOLD}A made-up day in the AWS account of a small company{BOLD:#}")?;
    writeln!(out, "{DIM}2 March 2026, account {}; every name and address is invented{DIM:#}\n", attack_day::ACCOUNT)?;
    Numbers::new(&day.counts, KeptBack::default(), &day.incidents, day.dead_letters, seconds).print(&mut out)?;
    writeln!(out)?;
    summary::print_incidents(&mut out, &day.incidents)?;
    writeln!(out)?;
    summary::print_responses(&mut out, &day.outcomes)?;
    print_alert(&mut out, &day.alerts)?;
    writeln!(out, "\n{BOLD}What to try next{BOLD:#}")?;
    for (command, what) in [
        ("pipeline demo --write day.jsonl", "keep the made-up records, to look at them"),
        ("pipeline replay day.jsonl", "only the findings, with what each is based on (without the demo's threat list)"),
        ("pipeline run day.jsonl --data ./mine", "the whole chain, kept: incidents, alerts, log"),
        ("pipeline replay ./your-cloudtrail-logs/", "your own logs; nothing leaves this machine"),
        ("pipeline classifiers", "what is detected"),
        ("pipeline --help", "everything else"),
    ] {
        writeln!(out, "  {command:<41} {DIM}{what}{DIM:#}")?;
    }
    Ok(out.flush()?)
}

/// Shows the first critical one of the alerts that people would have received.
fn print_alert(out: &mut impl Write, alerts: &str) -> io::Result<()> {
    let rule = "-".repeat(72);
    let each: Vec<&str> = alerts.split(rule.as_str()).map(str::trim).filter(|alert| !alert.is_empty()).collect();
    let Some(shown) = each.iter().find(|alert| alert.starts_with("[CRITICAL]")) else { return Ok(()) };
    writeln!(
        out,
        "\n{BOLD}Alerts: {}{BOLD:#} {DIM}(mails, once a channel is set up); one of them:{DIM:#}",
        each.len()
    )?;
    for line in shown.lines() {
        writeln!(out, "  | {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attacks_are_found_and_nothing_else() {
        let day = Day::live(&attack_day::records()).unwrap();
        let found: Vec<String> = day
            .incidents
            .iter()
            .map(|i| {
                let who = i.details["principal"].as_str().unwrap().rsplit(['/', ':']).next().unwrap();
                format!("{} {:<8} {} ({who})", i.timestamp, i.severity, i.event_type)
            })
            .collect();
        let expected = [
            "2026-03-02T03:12:44Z high     threat_intel_ip (ci)",
            "2026-03-02T09:41:15Z high     console_login_failed_repeatedly (bob)",
            "2026-03-02T09:42:08Z medium   console_login_new_ip (bob)",
            "2026-03-02T10:05:30Z high     console_login_without_mfa (contractor)",
            "2026-03-02T11:00:12Z critical root_account_used (root)",
            "2026-03-02T11:22:09Z high     iam_access_key_created (dave)",
            "2026-03-02T13:45:42Z critical cloudtrail_tampered (carol)",
            "2026-03-02T14:02:00Z critical security_group_opened_to_world (erin)",
            "2026-03-02T14:31:00Z info     security_group_closed (erin)",
            "2026-03-02T15:10:00Z critical security_group_opened_to_world (bob)",
            "2026-03-02T15:11:50Z critical security_group_opened_to_world (bob)",
            "2026-03-02T15:13:40Z critical security_group_opened_repeatedly (bob)",
            "2026-03-02T15:13:40Z critical security_group_opened_to_world (bob)",
            "2026-03-02T15:14:30Z high     config_rule_noncompliant (unknown)",
            "2026-03-02T15:20:00Z medium   ec2_unusual_instance_type_started (bob)",
            "2026-03-02T15:21:30Z medium   ec2_unusual_instance_type_started (bob)",
            "2026-03-02T15:21:30Z critical ec2_mass_instance_creation (bob)",
            "2026-03-02T15:32:00Z high     guardduty_finding (unknown)",
            "2026-03-02T16:10:00Z high     security_group_left_open (bob)",
            "2026-03-02T16:11:50Z high     security_group_left_open (bob)",
            "2026-03-02T16:13:40Z high     security_group_left_open (bob)",
        ];
        assert_eq!(found, expected, "{found:#?}");
        assert_eq!((day.counts.failed, day.counts.duplicates, day.dead_letters), (0, 0, 0));
        assert_eq!(day.outcomes.iter().filter(|o| o.status == shared::OutcomeStatus::DryRun).count(), 9);
    }
}
