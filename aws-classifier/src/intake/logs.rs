//! CloudWatch Logs subscriptions: `{"awslogs":{"data":"…"}}`, base64 of gzip of a batch of log lines, and the batch as
//! it is inside (`logEvents`), which is how Firehose leaves it in S3. A line that is JSON is opened like any text when its
//! log group is one of CloudTrail's ([`super::log_groups`]), and lines of flow and access logs become records; others
//! are reported, never dropped.

use std::borrow::Cow;
use std::io::{Cursor, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shared::json_scan::{RawValue, ScanError, Scanner};

use super::text_log::{Line, TextLog};
use super::{IntakeError, inflate};

/// A batch that inflates to more is refused. CloudWatch Logs sends at most 1 MiB of events in one, our choice leaves
/// room.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// The text of the batch in the value of `awslogs`.
///
/// # Errors
/// When it is not base64 of gzip of text, or inflates to too much.
pub fn batch(awslogs: RawValue<'_>) -> Result<String, IntakeError> {
    let mut data = None;
    Scanner::new(awslogs.text).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        if key == "data" {
            data = value.as_str();
        }
        Ok(())
    })?;
    let wrong = |why: &str| IntakeError::Logs { why: format!("awslogs.data {why}") };
    let data = data.ok_or_else(|| wrong("is missing or no string"))?;
    let gzip = STANDARD.decode(data.trim().as_bytes()).map_err(|e| wrong(&format!("is not base64: {e}")))?;
    let mut text = Vec::new();
    let read = inflate::stream(Cursor::new(gzip)).take(BATCH_BYTES_MAX as u64 + 1).read_to_end(&mut text);
    read.map_err(|e| wrong(&format!("cannot be inflated: {e}")))?;
    if text.len() > BATCH_BYTES_MAX {
        return Err(wrong(&format!("inflates to more than {} MiB", BATCH_BYTES_MAX >> 20)));
    }
    String::from_utf8(text).map_err(|_| IntakeError::NotUtf8)
}

/// A line that is JSON.
pub struct LogLine<'b> {
    /// The line, or the record that was made of it.
    pub text: &'b str,
    /// The account that owns the log group.
    pub owner: &'b str,
    /// The log group's name, for JSON as it stands in the line; `None` for a record that was made here of a text log's line.
    pub group: Option<&'b str>,
}

/// Calls `each` with every line of a batch. The control messages that CloudWatch sends to see whether anybody listens
/// have none.
///
/// # Errors
/// When the batch is not as CloudWatch makes it.
pub fn lines(batch: &str, mut each: impl FnMut(Result<LogLine<'_>, IntakeError>)) -> Result<(), IntakeError> {
    let (mut kind, mut owner, mut group, mut events) = (None, Cow::Borrowed(""), Cow::Borrowed(""), None);
    Scanner::new(batch).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        match key {
            "messageType" => kind = value.as_str(),
            "owner" => owner = value.as_str().unwrap_or_default(),
            "logGroup" => group = value.as_str().unwrap_or_default(),
            "logEvents" => events = Some(value),
            _ => {}
        }
        Ok(())
    })?;
    if kind.as_deref() == Some("CONTROL_MESSAGE") {
        return Ok(());
    }
    let missing = || IntakeError::Logs { why: "logEvents is missing or no array".to_owned() };
    let mut scanner = Scanner::new(events.ok_or_else(missing)?.text);
    scanner.expect(b'[', "expected an array")?;
    if scanner.take(b']') {
        return Ok(());
    }
    let mut text_log = TextLog::of_place(&owner, "");
    loop {
        let event = scanner.raw_value()?;
        match message(event) {
            Ok((Some(line), _)) if line.trim_start().starts_with('{') => {
                each(Ok(LogLine { text: &line, owner: &owner, group: Some(&group) }));
            }
            Ok((Some(line), id)) => match text_log.line_of(&line, &id) {
                Line::Header => {}
                Line::Record(text) => each(Ok(LogLine { text, owner: &owner, group: None })),
                Line::Bad(error) => each(Err(error)),
                Line::Unknown => {
                    let group = shared::text::one_line(&group, 100);
                    each(Err(IntakeError::Logs { why: format!("a line of {group} that is no record") }));
                }
            },
            Ok((None, _)) => {
                each(Err(IntakeError::Logs { why: "logEvents[].message is missing or no string".to_owned() }))
            }
            Err(error) => each(Err(error.into())),
        }
        if !scanner.take(b',') {
            return Ok(scanner.expect(b']', "expected a comma or a closing bracket")?);
        }
    }
}

/// The line of a log event, and the id that CloudWatch Logs gave it.
fn message(event: RawValue<'_>) -> Result<(Option<Cow<'_, str>>, Cow<'_, str>), ScanError> {
    let (mut message, mut id) = (None, Cow::Borrowed(""));
    Scanner::new(event.text).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        match key {
            "message" => message = value.as_str(),
            "id" => id = value.as_str().unwrap_or_default(),
            _ => {}
        }
        Ok(())
    })?;
    Ok((message, id))
}
