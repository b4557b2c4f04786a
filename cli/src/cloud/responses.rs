//! `pipeline responses list` and `show`: what a deployment has done, planned and refused. Both only read.
//!
//! An incident holds the outcomes of its responses, and the incident table's index is ordered by time, so a list reads the
//! incidents of that time and nothing else. Whether a response was taken back, what was there before and the exact calls are
//! in the responder's journal, by the response's id, for as long as the ledger keeps them. Titles, targets and
//! notes may hold what attackers wrote: they are shown in one line, neutralised.

use std::io::Write;

use aws_responder::journal::{Journal, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::adapters::aws::DynamoClient;
use shared::adapters::aws::dynamo::{DynamoIncidents, DynamoLedger};
use shared::adapters::disk::SystemClock;
use shared::ports::{Clock, IncidentFilter, Incidents, LEDGER_RETENTION_S, Ledger, PortError, PortResult};
use shared::text::one_line;
use shared::{ApiCall, Incident, IncidentId, OutcomeStatus, Severity, Timestamp};

use super::refusal::{Kind, Refusal};
use super::session::Session;
use crate::args::{Format, LineFormat, ResponsesListArgs, ResponsesShowArgs, Standing};
use crate::failure::Failure;
use crate::interrupt;
use crate::output::{self, BOLD, DIM};

/// Incidents that are read at once; our choice: some megabytes at most.
const PAGE: usize = 500;
/// Incidents that are looked at for one list; our choice: half a minute, and a tenth of a cent.
const LOOKED_MAX: usize = 10_000;
/// Characters of a title, a target or a note that are shown in a list.
const SHOWN_CHARS_MAX: usize = 200;
/// Characters of a name that are shown whole.
const NAME_CHARS_MAX: usize = 600;
/// Characters of an entry of the before-image that are shown.
const BEFORE_CHARS_MAX: usize = 8_000;

impl Standing {
    /// Where a response stands that was not taken back.
    const fn of(status: OutcomeStatus) -> Self {
        match status {
            OutcomeStatus::Succeeded => Self::CarriedOut,
            OutcomeStatus::Failed => Self::Failed,
            OutcomeStatus::Skipped => Self::Skipped,
            OutcomeStatus::DryRun | OutcomeStatus::PendingApproval => Self::DryRun,
            OutcomeStatus::Triggered | OutcomeStatus::Running => Self::Running,
        }
    }

    /// Whether something may have been changed, so that it may have been taken back.
    const fn may_be_undone(self) -> bool {
        matches!(self, Self::CarriedOut | Self::Failed | Self::Running)
    }

    const fn words(self) -> &'static str {
        match self {
            Self::CarriedOut => "carried out",
            Self::DryRun => "dry run",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::Undone => "undone",
        }
    }
}

/// One response, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    outcome_id: String,
    /// When it was decided.
    at: Timestamp,
    status: Standing,
    #[serde(skip_serializing_if = "Option::is_none")]
    undone_at: Option<Timestamp>,
    action: String,
    target: String,
    /// The account it acts in.
    account: String,
    note: String,
    calls: Vec<ApiCall>,
    undo: Vec<ApiCall>,
    incident_id: IncidentId,
    finding: String,
    classifier: String,
    severity: Severity,
    event_at: Timestamp,
}

/// What an incident remembers of an outcome, as the logger writes it.
#[derive(Deserialize)]
struct Told {
    action: String,
    target: String,
    status: OutcomeStatus,
    note: String,
    decided_at: Timestamp,
    calls: Vec<ApiCall>,
    undo: Vec<ApiCall>,
}

/// Which responses are wanted.
struct Wanted<'a> {
    since: Timestamp,
    account: Option<&'a str>,
    /// All when empty.
    status: &'a [Standing],
    limit: usize,
}

/// What a search came to.
#[derive(Debug, Default)]
struct Listed {
    /// Newest first.
    rows: Vec<Row>,
    /// There are more than the limit.
    is_cut: bool,
    /// The event of the last incident that was looked at, when the search ended before all were.
    ended_at: Option<Timestamp>,
    /// Outcomes that could not be read, each with its incident and why.
    unreadable: Vec<String>,
}

/// Lists responses.
///
/// # Errors
/// When there is no such deployment, DynamoDB cannot be asked, or standard output cannot be written.
pub async fn list(args: &ResponsesListArgs) -> Result<(), Failure> {
    interrupt::listen();
    let session = Session::open(&args.deployment).await?;
    let incidents = DynamoIncidents::new(DynamoClient::new(session.config()), format!("{}-incidents", session.name));
    let wanted = Wanted {
        since: SystemClock.now().plus_seconds(-args.since_s),
        account: args.account.as_deref(),
        status: &args.status,
        limit: args.limit.into(),
    };
    let found = search(&incidents, &journal(&session), &wanted).await;
    let found = found.map_err(|error| cannot_ask(&session, "dynamodb:Query", &error))?;
    for what in &found.unreadable {
        output::warn(what);
    }
    let mut out = output::stdout();
    match args.format {
        LineFormat::Jsonl => {
            for row in &found.rows {
                serde_json::to_writer(&mut out, row).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
        }
        LineFormat::Text => print(&mut out, &found, wanted.since)?,
    }
    out.flush()?;
    if let Some(at) = found.ended_at {
        output::warn(&format!("the search ended at events of {at}, after {LOOKED_MAX} incidents: a shorter --since"));
    }
    if interrupt::asked() {
        return Err(Failure::Interrupted("the list is of what was read by then".to_owned()));
    }
    Ok(())
}

/// The journal of the deployment's responder.
pub(super) fn journal(session: &Session) -> Journal<DynamoLedger> {
    let client = DynamoClient::new(session.config());
    Journal::new(DynamoLedger::new(client, format!("{}-state", session.name)))
}

/// Why a table gave no answer; `call` is the permission it mostly takes.
pub(super) fn cannot_ask(session: &Session, call: &'static str, error: &PortError) -> Failure {
    let refusal = Refusal::of_port(call, error);
    match refusal.kind {
        Kind::Missing => {
            let Session { name, region, .. } = session;
            let why = format!("there is no table of a deployment {name} in {region}");
            Failure::Cloud(format!("{why}; name it with --name, --region and --profile"))
        }
        _ => refusal.into(),
    }
}

/// Reads incidents, newest first, until there are enough responses.
async fn search(incidents: &impl Incidents, journal: &Journal<impl Ledger>, wanted: &Wanted<'_>) -> PortResult<Listed> {
    let mut found = Listed::default();
    let mut looked = 0;
    let mut after = None;
    while found.rows.len() <= wanted.limit && !interrupt::asked() {
        let filter = IncidentFilter { since: Some(wanted.since), after, limit: PAGE, ..IncidentFilter::default() };
        let page = incidents.list(&filter).await?;
        let (mut rows, unreadable) = rows_of(&page);
        found.unreadable.extend(unreadable);
        note_undone(journal, &mut rows).await?;
        rows.retain(|row| {
            wanted.account.is_none_or(|account| row.account == account)
                && (wanted.status.is_empty() || wanted.status.contains(&row.status))
        });
        found.rows.extend(rows);
        looked += page.len();
        let Some(last) = page.last().filter(|_| page.len() == PAGE) else { break };
        after = Some(last.incident_id);
        if looked >= LOOKED_MAX {
            found.ended_at = Some(last.timestamp);
            break;
        }
    }
    // Incidents come by the time of their event; responses may take their time.
    found.rows.sort_by(|a, b| (b.at, &a.outcome_id).cmp(&(a.at, &b.outcome_id)));
    found.is_cut = found.rows.len() > wanted.limit;
    found.rows.truncate(wanted.limit);
    Ok(found)
}

/// The responses of incidents, and what could not be read.
fn rows_of(incidents: &[Incident]) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
    for incident in incidents {
        for (outcome_id, told) in incident.details["outcomes"].as_object().into_iter().flatten() {
            match Told::deserialize(told) {
                Ok(told) => rows.push(row(incident, outcome_id, told)),
                Err(error) => {
                    let (id, why) =
                        (one_line(outcome_id, NAME_CHARS_MAX), one_line(&error.to_string(), SHOWN_CHARS_MAX));
                    unreadable.push(format!("incident {}: response {id} cannot be read: {why}", incident.incident_id));
                }
            }
        }
    }
    (rows, unreadable)
}

fn row(incident: &Incident, outcome_id: &str, told: Told) -> Row {
    Row {
        outcome_id: outcome_id.to_owned(),
        at: told.decided_at,
        status: Standing::of(told.status),
        undone_at: None,
        account: told.calls.first().map_or(&incident.account, |call| &call.account).clone(),
        action: told.action,
        target: told.target,
        note: told.note,
        calls: told.calls,
        undo: told.undo,
        incident_id: incident.incident_id,
        finding: incident.event.clone(),
        classifier: incident.event_type.clone(),
        severity: incident.severity,
        event_at: incident.timestamp,
    }
}

/// Only the journal knows what was taken back.
async fn note_undone(journal: &Journal<impl Ledger>, rows: &mut [Row]) -> PortResult<()> {
    let mut rows: Vec<&mut Row> = rows.iter_mut().filter(|row| row.status.may_be_undone()).collect();
    let ids: Vec<&str> = rows.iter().map(|row| &*row.outcome_id).collect();
    let undone = journal.undone(&ids).await?;
    for (row, undone) in rows.iter_mut().zip(undone) {
        if let Some(undone) = undone {
            (row.status, row.undone_at) = (Standing::Undone, Some(undone.at));
        }
    }
    Ok(())
}

fn print(out: &mut impl Write, found: &Listed, since: Timestamp) -> Result<(), Failure> {
    if found.rows.is_empty() {
        return Ok(writeln!(out, "no such responses to events since {since}")?);
    }
    for row in &found.rows {
        let (action, target) = (one_line(&row.action, SHOWN_CHARS_MAX), one_line(&row.target, SHOWN_CHARS_MAX));
        let account = one_line(&row.account, SHOWN_CHARS_MAX);
        writeln!(
            out,
            "{}  {BOLD}{:<11}{BOLD:#}  {action} on {target} (account {account})",
            row.at,
            row.status.words()
        )?;
        let style = output::style(row.severity);
        let finding = one_line(&row.finding, SHOWN_CHARS_MAX);
        writeln!(out, "    why: {style}{}{style:#} {finding}, event of {}", row.severity, row.event_at)?;
        writeln!(out, "    {}", one_line(&row.note, SHOWN_CHARS_MAX))?;
        if let Some(at) = row.undone_at {
            writeln!(out, "    taken back at {at}")?;
        }
        writeln!(out, "    {DIM}{}{DIM:#}", one_line(&row.outcome_id, NAME_CHARS_MAX))?;
    }
    let more = if found.is_cut { "; older ones are left out, --limit shows more" } else { "" };
    writeln!(out, "\n{} responses to events since {since}{more}.", found.rows.len())?;
    writeln!(out, "`pipeline responses show OUTCOME_ID` shows one whole, `… undo OUTCOME_ID` takes one back.")?;
    Ok(())
}

/// Shows one response whole.
///
/// # Errors
/// When there is no such response, DynamoDB cannot be asked, or standard output cannot be written.
pub async fn show(args: &ResponsesShowArgs) -> Result<(), Failure> {
    let session = Session::open(&args.deployment).await?;
    let record = recorded(&session, &args.outcome_id).await?;
    let mut out = output::stdout();
    match args.format {
        Format::Json => output::json(&mut out, &whole(&args.outcome_id, &record))?,
        Format::Text => print_whole(&mut out, &args.outcome_id, &record)?,
    }
    Ok(out.flush()?)
}

/// The journal's record of a response.
pub(super) async fn recorded(session: &Session, outcome_id: &str) -> Result<Record, Failure> {
    let record = journal(session).record(outcome_id).await;
    let record = record.map_err(|error| cannot_ask(session, "dynamodb:BatchGetItem", &error))?;
    record.ok_or_else(|| {
        let days = LEDGER_RETENTION_S / 86_400;
        let id = one_line(outcome_id, NAME_CHARS_MAX);
        Failure::Cloud(format!("the journal has no response {id}; it keeps them {days} days"))
    })
}

fn standing(record: &Record) -> Standing {
    match (&record.undone, &record.ended) {
        (Some(_), _) => Standing::Undone,
        (None, Some((_, outcome))) => Standing::of(outcome.status),
        (None, None) => Standing::Running,
    }
}

fn whole(outcome_id: &str, record: &Record) -> Value {
    let (finding, outcome) = record.ended.as_ref().map(|(finding, outcome)| (finding, outcome)).unzip();
    json!({
        "outcome_id": outcome_id,
        "status": standing(record),
        "finding": finding.or_else(|| record.begun.as_ref().map(|begun| &begun.finding)),
        "outcome": outcome,
        "begun": record.begun.as_ref().map(|begun| json!({
            "at": begun.at, "plan": begun.plan, "before": begun.before, "note": begun.note, "remains": begun.remains,
        })),
        "undone": record.undone.as_ref().map(|undone| json!({"at": undone.at, "calls": undone.calls})),
    })
}

fn print_whole(out: &mut impl Write, outcome_id: &str, record: &Record) -> Result<(), Failure> {
    let Record { ended, begun, undone } = record;
    writeln!(out, "{BOLD}{}{BOLD:#}  {}", standing(record).words(), one_line(outcome_id, NAME_CHARS_MAX))?;
    if let Some(begun) = begun {
        writeln!(out, "begun:    {}", begun.at)?;
    }
    if let Some((_, outcome)) = ended {
        writeln!(out, "decided:  {}, {}", outcome.decided_at, outcome.status.as_str())?;
        writeln!(out, "          {}", one_line(&outcome.note, NAME_CHARS_MAX))?;
    }
    if let Some(finding) = ended.as_ref().map(|(finding, _)| finding).or(begun.as_ref().map(|begun| &begun.finding)) {
        let shown = |text: &str| one_line(text, NAME_CHARS_MAX);
        writeln!(out, "finding:  {} {} ({})", finding.severity, shown(&finding.title), shown(&finding.classifier))?;
        let (who, name) = (shown(&finding.principal), shown(&finding.event_name));
        writeln!(out, "event:    {name} by {who} at {}, {}", finding.event_time, shown(&finding.event_id))?;
    }
    let plan = begun.as_ref().map(|begun| &begun.plan).or(ended.as_ref().map(|(_, outcome)| &outcome.plan));
    if let Some(plan) = plan {
        let (did, way_back) = match begun {
            Some(_) => ("called, each as far as it still changed something:", "undo:"),
            None => ("would have been called:", "would have been undone with:"),
        };
        calls(out, did, &plan.calls)?;
        if let Some(begun) = begun {
            writeln!(out, "was before:")?;
            for entry in &begun.before {
                writeln!(out, "  {}", one_line(&entry.to_string(), BEFORE_CHARS_MAX))?;
            }
        }
        calls(out, way_back, &plan.undo)?;
    }
    match (begun, undone) {
        (_, Some(undone)) => {
            writeln!(out, "taken back at {}", undone.at)?;
            calls(out, "with:", &undone.calls)?;
        }
        (Some(_), None) => writeln!(out, "not taken back; `pipeline responses undo OUTCOME_ID` does it")?,
        (None, None) => writeln!(out, "nothing was changed, so there is nothing to take back")?,
    }
    Ok(())
}

/// Calls under a heading; nothing when there are none.
pub(super) fn calls(out: &mut impl Write, heading: &str, calls: &[ApiCall]) -> std::io::Result<()> {
    if calls.is_empty() {
        return Ok(());
    }
    writeln!(out, "{heading}")?;
    calls.iter().try_for_each(|call| writeln!(out, "  {call}"))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod tests_support;
