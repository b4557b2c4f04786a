//! `pipeline dlq`: messages that could not be handled.

use std::io::Write;

use serde::Serialize;
use shared::adapters::embedded::EmbeddedQueue;
use shared::ports::{DeadLetter, Queue};
use shared::text::one_line;

use crate::args::{DlqCommand, DlqListArgs, DlqRedriveArgs, DlqShowArgs, Format, QueueArg};
use crate::chain::{self, Queues};
use crate::cloud::{self, Request};
use crate::data::DataFolder;
use crate::failure::Failure;
use crate::output::{self, BOLD, DIM};
use crate::{config, interrupt, local, summary};

/// Dead letters shown of one queue.
const LISTED_MAX: usize = 10_000;
/// Characters of a reason that are shown to people.
const REASON_CHARS_MAX: usize = 400;
/// Characters of a body that are shown to people.
const BODY_CHARS_MAX: usize = 100;

/// A dead letter with its queue, as JSON.
#[derive(Serialize)]
struct Row<'a> {
    queue: &'a str,
    #[serde(flatten)]
    letter: DeadLetter,
}

/// Lists dead letters or handles them again.
///
/// # Errors
/// When there is no data, or standard output cannot be written.
pub fn execute(command: &DlqCommand) -> Result<(), Failure> {
    match command {
        DlqCommand::List(args) if args.place.aws => cloud::execute(&Request::DlqList(args)),
        DlqCommand::List(args) => list(args),
        DlqCommand::Show(args) if args.place.aws => cloud::execute(&Request::DlqShow(args)),
        DlqCommand::Show(args) => show(args),
        DlqCommand::Redrive(args) if args.place.aws => cloud::execute(&Request::DlqRedrive(args)),
        DlqCommand::Redrive(args) => redrive(args),
    }
}

fn list(args: &DlqListArgs) -> Result<(), Failure> {
    let data = DataFolder::open(args.place.folder()?)?;
    let mut rows = Vec::new();
    for (name, queue) in chosen(&data.queues, args.queue)? {
        let letters = chain::block_on(queue.dead_letters(LISTED_MAX))??;
        rows.extend(letters.into_iter().map(|letter| Row { queue: name, letter }));
    }
    let mut out = output::stdout();
    match args.format {
        Format::Json => output::json(&mut out, &rows)?,
        Format::Text if rows.is_empty() => writeln!(out, "no dead letters: every message was handled")?,
        Format::Text => {
            for Row { queue, letter } in &rows {
                let id = one_line(&letter.message_id, 40);
                writeln!(
                    out,
                    "{BOLD}{queue}{BOLD:#} message {id}, received {}",
                    summary::counted(letter.receive_count.into(), "time")
                )?;
                writeln!(out, "    why: {}", one_line(&letter.reason, REASON_CHARS_MAX))?;
                writeln!(out, "    {DIM}what: {}{DIM:#}", one_line(&letter.body, BODY_CHARS_MAX))?;
            }
            let n = summary::counted(rows.len() as u64, "dead letter");
            writeln!(out, "\n{n}. `pipeline dlq list --format json` shows them whole,")?;
            writeln!(out, "`pipeline dlq redrive --data {}` tries them again.", output::path(&args.place.data))?;
        }
    }
    Ok(out.flush()?)
}

fn show(args: &DlqShowArgs) -> Result<(), Failure> {
    let data = DataFolder::open(args.place.folder()?)?;
    for (name, queue) in chosen(&data.queues, args.queue)? {
        let letters = chain::block_on(queue.dead_letters(usize::MAX))??;
        let Some(letter) = letters.into_iter().find(|letter| letter.message_id == args.message_id) else { continue };
        let mut out = output::stdout();
        match args.format {
            Format::Json => output::json(&mut out, &Row { queue: name, letter })?,
            Format::Text => {
                let id = one_line(&letter.message_id, 40);
                writeln!(
                    out,
                    "{BOLD}{name}{BOLD:#} message {id}, received {}",
                    summary::counted(letter.receive_count.into(), "time")
                )?;
                writeln!(out, "why: {}\n", one_line(&letter.reason, letter.reason.len()))?;
                output::body(&mut out, &letter.body)?;
            }
        }
        return Ok(out.flush()?);
    }
    Err(Failure::Input(format!("there is no dead letter {}", one_line(&args.message_id, 80))))
}

fn redrive(args: &DlqRedriveArgs) -> Result<(), Failure> {
    if args.message_id.is_some() || args.max_per_second.is_some() || args.to_region.is_some() {
        let what = "a MESSAGE_ID, --max-per-second and --to-region are for AWS";
        return Err(Failure::Usage(format!("{what}: add --aws; a folder's messages are tried again all together")));
    }
    let config = config::load(&args.config)?;
    interrupt::listen();
    let data = DataFolder::open(args.place.folder()?)?;
    let mut moved = 0;
    for (_, queue) in chosen(&data.queues, args.queue)? {
        moved += chain::block_on(queue.redrive())??;
    }
    let local = local::in_folder(config, data)?;
    local.drain(&mut |_| {})?;
    let left = local.dead_letters()?;
    let mut out = output::stdout();
    match args.format {
        Format::Json => output::json(&mut out, &serde_json::json!({"moved": moved, "left": left}))?,
        Format::Text => {
            let (moved, left) = (summary::counted(moved, "message"), summary::counted(left, "dead letter"));
            writeln!(out, "{moved} tried again, {left} left")?;
        }
    }
    out.flush()?;
    if interrupt::asked() {
        return Err(Failure::Interrupted("stopped between two batches; the rest waits in the queues".to_owned()));
    }
    Ok(())
}

fn chosen(
    queues: &Queues<EmbeddedQueue>,
    only: Option<QueueArg>,
) -> Result<Vec<(&'static str, &EmbeddedQueue)>, Failure> {
    let name = match only {
        None => return Ok(queues.named().to_vec()),
        Some(QueueArg::Classifier) => "classifier",
        Some(QueueArg::Responder) => "responder",
        Some(QueueArg::Notifier) => "notifier",
        Some(QueueArg::Logger) => "logger",
        Some(QueueArg::Undelivered | QueueArg::Unforwarded) => {
            return Err(Failure::Usage("a folder has no such queue: EventBridge keeps it, so add --aws".to_owned()));
        }
    };
    Ok(queues.named().into_iter().filter(|(queue, _)| *queue == name).collect())
}
