//! CloudWatch Logs subscriptions: `{"messageType": "DATA_MESSAGE", "logEvents": […]}`, and the Lambda event
//! `{"awslogs": {"data": …}}` that carries it in base64 and gzip. Each message is a line of a text log, or JSON.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::text_log::{Line, TextLog};
use super::{IntakeError, Leaf, decode_nested, inflate};

/// More than a subscription can hold: CloudWatch Logs sends at most 1 MiB of compressed data.
const INFLATED_BYTES_MAX: u64 = 64 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Subscription {
    message_type: String,
    owner: String,
    log_events: Vec<LogEvent>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LogEvent {
    message: String,
}

/// Calls `each` for every message.
pub(super) fn open(text: &str, depth: u32, each: &mut dyn FnMut(Result<Leaf<'_>, IntakeError>)) {
    let Ok(subscription) = serde_json::from_str::<Subscription>(text) else {
        return each(Err(super::text_log::bad("logEvents", "a list of messages")));
    };
    // Control messages test whether we are there.
    if subscription.message_type == "CONTROL_MESSAGE" {
        return;
    }
    let mut lines = TextLog::of_place(&subscription.owner, "");
    for LogEvent { message } in subscription.log_events {
        if message.trim_start().starts_with('{') {
            decode_nested(&message, depth + 1, each);
            continue;
        }
        match lines.line(&message) {
            Line::Header => {}
            Line::Record(text) => each(Leaf::of(text)),
            Line::Bad(error) => each(Err(error)),
            Line::Unknown => each(Err(IntakeError::NotALogLine)),
        }
    }
}

/// Unpacks `awslogs.data` and calls `each` for every message.
pub(super) fn unpack(data: &str, depth: u32, each: &mut dyn FnMut(Result<Leaf<'_>, IntakeError>)) {
    let unpacked = STANDARD.decode(data).ok().and_then(|gzip| {
        let mut text = String::new();
        let stream = inflate::stream(std::io::Cursor::new(gzip));
        stream.take(INFLATED_BYTES_MAX).read_to_string(&mut text).ok().map(|_| text)
    });
    match unpacked {
        Some(text) => decode_nested(&text, depth + 1, each),
        None => each(Err(super::text_log::bad("awslogs.data", "base64 of gzip"))),
    }
}
