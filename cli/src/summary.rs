//! What is told at the end: numbers, incidents, planned responses.

use std::io::{self, Write};

use aws_classifier::allow::AllowList;
use aws_classifier::noise::{EntryReport, Tally};
use serde::Serialize;
use serde_json::Value;
use shared::adapters::disk::SystemClock;
use shared::places::Half;
use shared::ports::Clock;
use shared::text::one_line;
use shared::{Incident, Outcome, OutcomeStatus, Severity};

use crate::failure::Failure;
use crate::output::{self, BOLD, DIM};
use crate::source::Counts;

/// Characters of a name shown in a table; ARNs of role sessions fit.
const NAME_CHARS_MAX: usize = 72;

/// Characters of a title shown in a table.
const TITLE_CHARS_MAX: usize = 80;
/// Files that could not be read and are named: our choice, half a screen.
const FILES_NAMED_MAX: usize = 10;
/// Characters of a path shown in a message.
const PATH_CHARS_MAX: usize = 400;

/// What was found and kept back, as summaries write it. No record is missing from the other numbers because of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KeptBack {
    /// Findings that an entry of the allow-list kept back.
    pub suppressed: u64,
    /// Findings that repeat another within the deduplication window.
    pub repeats: u64,
    /// The entries that kept something back or are expired.
    pub allow: Vec<EntryReport>,
}

impl KeptBack {
    /// As of now: an entry is expired when its last day is over.
    pub fn new(tally: &Tally, allow: &AllowList) -> Self {
        Self { suppressed: tally.suppressed, repeats: tally.repeats, allow: tally.report(allow, SystemClock.now()) }
    }

    /// Prints it for people; nothing when there is nothing to say.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if self.suppressed + self.repeats > 0 {
            writeln!(
                out,
                "kept back: {} by the allow-list, {} that repeat another",
                counted(self.suppressed, "finding"),
                grouped(self.repeats)
            )?;
        }
        for entry in &self.allow {
            let (name, owner) = (one_line(&entry.name, NAME_CHARS_MAX), one_line(&entry.owner, NAME_CHARS_MAX));
            write!(out, "  {name}: {} kept back", grouped(entry.suppressed))?;
            if entry.lapsed > 0 {
                write!(out, ", {} went out after its end", grouped(entry.lapsed))?;
            }
            let over = if entry.expired { "expired, its last day was" } else { "its last day is" };
            writeln!(out, "; {over} {}, ask {owner}", one_line(&entry.expires, NAME_CHARS_MAX))?;
        }
        Ok(())
    }
}

/// The numbers of a `run`, as `--summary` writes them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Numbers {
    /// Records read, good and bad.
    pub records_in: u64,
    /// At least one classifier looked at them.
    pub classified: u64,
    /// No classifier asks for them.
    pub ignored: u64,
    /// Could not be read.
    pub failed: u64,
    /// Read before: same account, region and event id.
    pub duplicates: u64,
    /// Things found, threats and good news; each is an incident. Those of earlier runs into the same folder count too.
    pub findings: u64,
    /// Found in the records that this run handled, and kept back.
    #[serde(flatten)]
    pub kept_back: KeptBack,
    /// Incidents by severity, least first.
    pub severities: Vec<(Severity, u64)>,
    /// Incidents that are not closed.
    pub open: u64,
    /// Messages that no component could handle.
    pub dead_letters: u64,
    /// How long it took.
    pub seconds: f64,
    /// Records a second.
    pub events_per_second: f64,
}

impl Numbers {
    /// Adds up.
    pub fn new(counts: &Counts, kept_back: KeptBack, incidents: &[Incident], dead_letters: u64, seconds: f64) -> Self {
        Self {
            records_in: counts.records_in,
            classified: counts.classified,
            ignored: counts.ignored,
            failed: counts.failed,
            duplicates: counts.duplicates,
            findings: incidents.len() as u64,
            kept_back,
            severities: Severity::ALL
                .into_iter()
                .map(|s| (s, incidents.iter().filter(|i| i.severity == s).count() as u64))
                .collect(),
            open: incidents.iter().filter(|i| i.status != shared::IncidentStatus::Closed).count() as u64,
            dead_letters,
            seconds,
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            events_per_second: if seconds > 0.0 { counts.records_in as f64 / seconds } else { 0.0 },
        }
    }

    /// Prints them for people.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{BOLD}Records{BOLD:#}    {} read in {:.1} s: {} looked at, {} of no concern to any classifier, {} unreadable, {}",
            grouped(self.records_in),
            self.seconds,
            grouped(self.classified),
            grouped(self.ignored),
            grouped(self.failed),
            counted(self.duplicates, "duplicate")
        )?;
        write!(out, "{BOLD}Findings{BOLD:#}   {}", grouped(self.findings))?;
        for (n, (severity, count)) in self.severities.iter().rev().filter(|(_, count)| *count > 0).enumerate() {
            let style = output::style(*severity);
            write!(out, "{}{style}{} {severity}{style:#}", if n == 0 { ": " } else { ", " }, grouped(*count))?;
        }
        writeln!(out)?;
        writeln!(out, "{BOLD}Incidents{BOLD:#}  {}, {} still open", grouped(self.findings), grouped(self.open))?;
        self.kept_back.print(out)?;
        if self.dead_letters > 0 {
            writeln!(out, "{BOLD}Problems{BOLD:#}   {} could not be handled", counted(self.dead_letters, "message"))?;
        }
        Ok(())
    }
}

/// Says which classifiers could not judge by places or networks; nothing when all could.
pub fn no_database(half: Half, classifiers: &[&str]) -> Option<String> {
    let (last, others) = classifiers.split_last()?;
    let names = if others.is_empty() { (*last).to_owned() } else { format!("{} and {last}", others.join(", ")) };
    let (what, setting) = (half.as_str(), half.setting());
    Some(format!(
        "no geo database of {what}: {names} judged no {what}; `scripts/fetch-geoip` fetches one, `{setting}` in `[geo]` names it"
    ))
}

/// Says on standard error which files could not be read, or not to their end.
///
/// # Errors
/// When nothing at all could be read from a file.
pub fn complain(counts: &Counts) -> Result<(), Failure> {
    let mut stderr = anstream::stderr().lock();
    for (file, why) in &counts.damaged {
        writeln!(
            stderr,
            "warning: {} was not read to its end: {}",
            one_line(file, PATH_CHARS_MAX),
            one_line(why, 300)
        )?;
    }
    unreadable(counts)
}

/// Names the files of which nothing at all could be read.
///
/// # Errors
/// When there are any.
pub fn unreadable(counts: &Counts) -> Result<(), Failure> {
    if counts.unreadable.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for (file, why) in counts.unreadable.iter().take(FILES_NAMED_MAX) {
        text += &format!("could not read {}: {}\n", one_line(file, PATH_CHARS_MAX), one_line(why, 300));
    }
    if let Some(more @ 1..) = counts.unreadable.len().checked_sub(FILES_NAMED_MAX) {
        text += &format!("and {more} more\n");
    }
    Err(Failure::Input(text + "all other inputs were read"))
}

/// Prints incidents in the order given, two lines each, so that they fit into any terminal: when, how bad and what;
/// who, on what and where it stands.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_incidents(out: &mut impl Write, incidents: &[Incident]) -> io::Result<()> {
    writeln!(out, "{BOLD}{:<19}  {:<8}  WHAT, AND WHO ON WHAT{BOLD:#}", "TIME (UTC)", "SEVERITY")?;
    for incident in incidents {
        let style = output::style(incident.severity);
        let time = short_time(&incident.timestamp.to_string());
        let what = one_line(&incident.event, TITLE_CHARS_MAX);
        writeln!(out, "{time:<19}  {style}{:<8}{style:#}  {what}", incident.severity)?;
        let who = match who(incident) {
            "unknown" | "N/A" => "nobody named".to_owned(),
            who => name(who),
        };
        let on = match name(&incident.resource_id) {
            resource if resource == who || resource == "N/A" => String::new(),
            resource => format!(" on {resource}"),
        };
        let status = incident.status.as_str();
        write!(out, "{:<31}{DIM}{who}{on}, {status}", "")?;
        if let (Some(action), Some(result)) = (&incident.last_action, &incident.last_action_result) {
            write!(out, ", {} {}", one_line(action, NAME_CHARS_MAX), one_line(result, NAME_CHARS_MAX))?;
        }
        writeln!(out, "{DIM:#}")?;
    }
    Ok(())
}

/// Prints the responses that were planned, with their API calls.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_responses(out: &mut impl Write, outcomes: &[Outcome]) -> io::Result<()> {
    let planned: Vec<&Outcome> = outcomes.iter().filter(|o| o.status == OutcomeStatus::DryRun).collect();
    writeln!(out, "{BOLD}Responses planned: {}{BOLD:#} {DIM}(nothing was called){DIM:#}", planned.len())?;
    for outcome in planned {
        writeln!(out, "  {} on {}", one_line(&outcome.action, 64), one_line(&outcome.target, NAME_CHARS_MAX))?;
        for line in aws_responder::render(&outcome.plan).lines() {
            writeln!(out, "    {line}")?;
        }
    }
    Ok(())
}

/// Who did it, from the incident's details.
fn who(incident: &Incident) -> &str {
    let details = &incident.details;
    ["/principal", "/finding/principal"]
        .into_iter()
        .find_map(|path| details.pointer(path).and_then(Value::as_str))
        .unwrap_or("N/A")
}

/// An ARN without what is the same everywhere, safe to show.
fn name(text: &str) -> String {
    let short = match text.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", _, _, _, _, rest] => rest,
        _ => text,
    };
    one_line(short, NAME_CHARS_MAX)
}

/// `2026-03-02 09:41:15`.
fn short_time(text: &str) -> String {
    text.trim_end_matches('Z').replace('T', " ")
}

/// `1 record`, `12,345 records`.
pub fn counted(n: u64, one: &str) -> String {
    format!("{} {one}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// `12,345`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown: Vec<String> = [0, 12, 999, 1_000, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(shown, ["0", "12", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn names_lose_the_common_part_of_an_arn_and_their_control_characters() {
        assert_eq!(name("arn:aws:iam::123456789012:user/a\u{1b}[31m"), "user/a·[31m");
        assert_eq!(name("sg-1"), "sg-1");
        assert_eq!(name("N/A"), "N/A");
    }
}
