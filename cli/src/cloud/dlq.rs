//! `pipeline dlq … --aws`. Bodies and reasons hold what attackers could write: they are shown neutralised, and whole only
//! as JSON.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use shared::Timestamp;
use shared::text::one_line;

use super::dead_letters::{self, DeadLetters, Letter};
use super::session::Session;
use crate::args::{DlqListArgs, DlqRedriveArgs, DlqShowArgs, Format, QueueArg};
use crate::failure::Failure;
use crate::interrupt;
use crate::output::{self, BOLD, DIM};

/// Characters of a reason that are shown in a list.
const REASON_CHARS_MAX: usize = 400;
/// Characters of a body that are shown in a list.
const BODY_CHARS_MAX: usize = 100;

/// A dead letter with its queue, as JSON: the fields of a local one, and what only SQS knows.
#[derive(Serialize)]
struct Row<'a> {
    queue: &'static str,
    message_id: &'a str,
    body: &'a str,
    reason: String,
    receive_count: u32,
    sent_at: Option<Timestamp>,
    attributes: &'a BTreeMap<String, String>,
}

impl<'a> Row<'a> {
    fn of(queue: &DeadLetters, letter: &'a Letter) -> Self {
        Self {
            queue: queue.kept.label,
            message_id: &letter.message_id,
            body: &letter.body,
            reason: letter.reason(),
            receive_count: letter.receive_count,
            sent_at: letter.sent_at,
            attributes: &letter.attributes,
        }
    }
}

/// Lists dead letters, oldest first, at most `limit` of each queue.
///
/// # Errors
/// When there is no such deployment, SQS cannot be asked, or standard output cannot be written.
pub async fn list(args: &DlqListArgs) -> Result<(), Failure> {
    interrupt::listen();
    let session = Session::open(&args.place.deployment).await?;
    let queues = opened(&session, args.queue).await?;
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut looked = Vec::new();
    for queue in &queues {
        // An empty queue is asked as well: its number is only about right.
        looked.push((queue, queue.look(limit, |_| false).await?));
    }
    let mut out = output::stdout();
    if args.format == Format::Json {
        let rows: Vec<Row<'_>> =
            looked.iter().flat_map(|(queue, letters)| letters.iter().map(|letter| Row::of(queue, letter))).collect();
        output::json(&mut out, &rows)?;
        return Ok(out.flush()?);
    }
    for (queue, letters) in &looked {
        summary(&mut out, queue, letters)?;
        for letter in letters {
            head(&mut out, letter)?;
            writeln!(out, "    why: {}", one_line(&letter.reason(), REASON_CHARS_MAX))?;
            writeln!(out, "    {DIM}what: {}{DIM:#}", one_line(&letter.body, BODY_CHARS_MAX))?;
        }
    }
    if looked.iter().any(|(_, letters)| !letters.is_empty()) {
        writeln!(
            out,
            "\nLooking has added one to their counts. `pipeline dlq show --aws MESSAGE_ID` shows one whole,"
        )?;
        writeln!(out, "`pipeline dlq redrive --aws` tries them again.")?;
    }
    Ok(out.flush()?)
}

fn summary(out: &mut impl Write, queue: &DeadLetters, letters: &[Letter]) -> Result<(), Failure> {
    // What was seen is certain, what SQS counts is not.
    let waiting = queue.waiting.max(letters.len() as u64);
    write!(out, "{BOLD}{}{BOLD:#}: {waiting} dead letters", queue.kept.label)?;
    if queue.in_flight > 0 {
        write!(out, ", {} more being looked at or moved", queue.in_flight)?;
    }
    let is_all = letters.len() as u64 >= waiting;
    if let Some(oldest) = letters.first().and_then(|letter| letter.sent_at) {
        let of = if is_all { "the oldest is from" } else { "the oldest of those below is from" };
        write!(out, ", {of} {oldest}")?;
    }
    if !is_all {
        write!(out, "; {} of them", letters.len())?;
    }
    writeln!(out)?;
    Ok(())
}

fn head(out: &mut impl Write, letter: &Letter) -> Result<(), Failure> {
    let sent = letter.sent_at.map_or_else(|| "at an unknown time".to_owned(), |at| at.to_string());
    let id = one_line(&letter.message_id, 80);
    Ok(writeln!(out, "  message {id}, sent {sent}, received {} times", letter.receive_count)?)
}

/// Shows one dead letter whole.
///
/// # Errors
/// When there is no such message, SQS cannot be asked, or standard output cannot be written.
pub async fn show(args: &DlqShowArgs) -> Result<(), Failure> {
    interrupt::listen();
    let session = Session::open(&args.place.deployment).await?;
    for queue in &opened(&session, args.queue).await? {
        let letters = queue.look(usize::MAX, |letter| letter.message_id == args.message_id).await?;
        let Some(letter) = letters.iter().find(|letter| letter.message_id == args.message_id) else { continue };
        let mut out = output::stdout();
        if args.format == Format::Json {
            output::json(&mut out, &Row::of(queue, letter))?;
            return Ok(out.flush()?);
        }
        writeln!(out, "{BOLD}{}{BOLD:#}", queue.kept.label)?;
        head(&mut out, letter)?;
        for (name, value) in &letter.attributes {
            writeln!(out, "  {}: {}", one_line(name, name.len()), one_line(value, value.len()))?;
        }
        if letter.attributes.is_empty() {
            writeln!(out, "  {}", letter.reason())?;
        }
        writeln!(out)?;
        output::body(&mut out, &letter.body)?;
        return Ok(out.flush()?);
    }
    Err(not_there(&args.message_id))
}

/// What a redrive did to one queue.
#[derive(Serialize)]
struct Moved {
    queue: &'static str,
    moved: u64,
}

/// Moves dead letters back to where they were for.
///
/// # Errors
/// When there is no such deployment or message, or SQS refuses; what was moved by then is said.
pub async fn redrive(args: &DlqRedriveArgs) -> Result<(), Failure> {
    interrupt::listen();
    let session = Session::open(&args.place.deployment).await?;
    let central = args.to_region.as_ref().map(|region| session.in_region(region));
    let mut done: Vec<Moved> = Vec::new();
    let mut problem = None;
    for queue in &opened(&session, args.queue).await? {
        let moved = back(queue, &session, central.as_ref(), args).await;
        match moved {
            Ok(0) if args.message_id.is_some() => {}
            Ok(moved) => done.push(Moved { queue: queue.kept.label, moved }),
            // The other queues are not kept from theirs.
            Err(failure) => {
                problem.get_or_insert(failure);
            }
        }
        if interrupt::asked() || (args.message_id.is_some() && !done.is_empty()) {
            break;
        }
    }
    let mut out = output::stdout();
    if args.format == Format::Json {
        output::json(&mut out, &done)?;
    } else {
        for Moved { queue, moved } in &done {
            writeln!(out, "{queue}: {moved} messages moved back")?;
        }
    }
    out.flush()?;
    match (problem, &args.message_id) {
        _ if interrupt::asked() => Err(Failure::Interrupted("a task that SQS has begun goes on by itself".to_owned())),
        (Some(failure), _) => Err(failure),
        (None, Some(message_id)) if done.is_empty() => Err(not_there(message_id)),
        (None, _) => Ok(()),
    }
}

async fn back(
    queue: &DeadLetters,
    session: &Session,
    central: Option<&Session>,
    args: &DlqRedriveArgs,
) -> Result<u64, Failure> {
    if args.message_id.is_none() && queue.waiting == 0 {
        return Ok(0);
    }
    let Some(destination) = queue.destination(central.unwrap_or(session)).await? else {
        let name = queue.kept.label;
        let region = &central.unwrap_or(session).region;
        let why = format!("{name}: its messages are for a queue that is not in {region}");
        return Err(Failure::Cloud(format!("{why}; name the region of the pipeline with --to-region")));
    };
    match &args.message_id {
        Some(id) => Ok(u64::from(queue.move_message(id, &destination).await?)),
        None => Ok(queue.move_all(&destination, args.max_per_second).await?),
    }
}

async fn opened(session: &Session, only: Option<QueueArg>) -> Result<Vec<DeadLetters>, Failure> {
    let queues = dead_letters::open(session, only).await?;
    if queues.is_empty() {
        let Session { name, region, .. } = session;
        let what = if only.is_some() { "no such queue" } else { "no queue" };
        let why = format!("there is {what} of a deployment {name} in {region}");
        return Err(Failure::Cloud(format!("{why}; name it with --name and --region")));
    }
    Ok(queues)
}

fn not_there(message_id: &str) -> Failure {
    let id = one_line(message_id, 80);
    Failure::Cloud(format!("there is no dead letter {id}, or somebody else is looking at it: try again in 30 seconds"))
}
