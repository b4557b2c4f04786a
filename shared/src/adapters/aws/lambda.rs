//! A [`Handler`] behind an SQS event source mapping, without a dependency on the Lambda runtime.
//!
//! The event is read by hand, record by record: a typed batch would fail whole on one bad record. The answer names
//! every message that failed, retryable or not (`ReportBatchItemFailures`): SQS makes it visible again and, after
//! `maxReceiveCount`, moves it to the dead-letter queue. A failed record is never answered as done. The reason is
//! logged here, once.

use serde_json::{Value, json};

use crate::config::Document;
use crate::ports::{BatchResult, FailedMessage, Handler, Message};
use crate::text::one_line;

/// The environment variable that holds the configuration: TOML text when it holds a line break or `=`, else a path.
pub const CONFIG_VARIABLE: &str = "PIPELINE_CONFIG";

/// Longer reasons are cut in the log.
const REASON_CHARS_MAX: usize = 1_000;

/// The top-level sections of the one configuration file. A function reads its own; the others must not be errors.
const SECTIONS: [&str; 8] =
    ["actions", "channels", "classifier", "classifiers", "logger", "notifier", "responder", "source"];

/// An invocation that cannot be answered record by record. The whole batch comes back.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Someone invoked the function with something else.
    #[error("not an SQS event: {0}")]
    NotSqs(&'static str),
    /// A record that cannot be named in the answer.
    #[error("record {0} of the SQS event has no messageId")]
    Nameless(usize),
}

/// What an SQS event holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqsEvent {
    /// The messages that could be read.
    pub messages: Vec<Message>,
    /// Records without a body.
    pub failed: Vec<FailedMessage>,
}

impl SqsEvent {
    /// Reads `{"Records":[{"messageId":…,"body":…,"attributes":{"ApproximateReceiveCount":"1"}}]}`.
    ///
    /// # Errors
    /// When it is no SQS event, or a record has no message id to be answered by.
    pub fn parse(event: &Value) -> Result<Self, EventError> {
        let records = event.get("Records").ok_or(EventError::NotSqs("it has no Records"))?;
        let records = records.as_array().ok_or(EventError::NotSqs("its Records are not an array"))?;
        let mut read = Self::default();
        for (i, record) in records.iter().enumerate() {
            let message_id = record["messageId"].as_str().ok_or(EventError::Nameless(i))?.to_owned();
            let Some(body) = record["body"].as_str() else {
                let reason = "the SQS record has no body".to_owned();
                read.failed.push(FailedMessage { message_id, reason, retryable: false });
                continue;
            };
            let receive_count = match &record["attributes"]["ApproximateReceiveCount"] {
                Value::String(text) => text.parse().unwrap_or(1),
                _ => 1,
            };
            read.messages.push(Message { message_id, body: body.to_owned(), receive_count });
        }
        Ok(read)
    }
}

/// `{"batchItemFailures":[{"itemIdentifier":…}]}`: every failed message, retryable or not, once.
pub fn response(result: &BatchResult) -> Value {
    let mut ids: Vec<&str> = result.failed.iter().map(|f| f.message_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let items: Vec<Value> = ids.into_iter().map(|id| json!({"itemIdentifier": id})).collect();
    json!({"batchItemFailures": items})
}

/// One invocation: reads the event, lets `handler` work, logs every failure with its reason, answers.
///
/// # Errors
/// When the event cannot be answered record by record; Lambda then returns the whole batch.
pub async fn handle<H: Handler>(handler: &H, event: &Value) -> Result<Value, EventError> {
    let SqsEvent { messages, failed } = SqsEvent::parse(event)?;
    let mut result = handler.handle(&messages).await;
    result.failed.extend(failed);
    for FailedMessage { message_id, reason, retryable } in &result.failed {
        let count = messages.iter().find(|m| m.message_id == *message_id).map_or(0, |m| m.receive_count);
        let reason = one_line(reason, REASON_CHARS_MAX);
        if *retryable {
            tracing::warn!(message.id = %message_id, receive_count = count, "message {message_id} comes back: {reason}");
        } else {
            tracing::error!(message.id = %message_id, receive_count = count, "message {message_id} cannot be handled: {reason}");
        }
    }
    Ok(response(&result))
}

/// The configuration's name for error messages and its text, from what [`CONFIG_VARIABLE`] holds; nothing means the
/// defaults.
///
/// # Errors
/// Names the file that cannot be read.
pub fn configuration(variable: Option<&str>) -> Result<(String, String), String> {
    match variable.map(str::trim) {
        None | Some("") => Ok(("the built-in defaults".to_owned(), String::new())),
        Some(text) if text.contains(['\n', '=']) => Ok((CONFIG_VARIABLE.to_owned(), text.to_owned())),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| format!("could not read {path}, which {CONFIG_VARIABLE} names: {e}"))?;
            Ok((path.to_owned(), text))
        }
    }
}

/// Starts reading the one file of all components: sections of others are allowed and left alone.
pub fn document<'t>(name: &str, text: &'t str) -> Document<'t> {
    let mut document = Document::parse(name, text);
    for section in SECTIONS {
        document.expect_table(section);
    }
    document
}

/// The value of a required environment variable, such as a queue's URL.
///
/// # Errors
/// Names the variable and what it is for.
pub fn required(variable: &str, what: &str) -> Result<String, String> {
    match std::env::var(variable) {
        Ok(value) if !value.trim().is_empty() => Ok(value),
        _ => Err(format!("environment variable {variable} is not set: it must hold {what}")),
    }
}

/// Says, at every start, what memory adapters mean in a Lambda function.
pub fn warn_of_memory(component: &str, what: &str) {
    tracing::warn!(
        component,
        "{component} keeps {what} in the memory of this process: it is not shared between concurrent executions and \
         is lost when Lambda recycles one"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Value {
        json!({"Records": [
            {"messageId": "a", "body": "one", "attributes": {"ApproximateReceiveCount": "3"}, "eventSource": "aws:sqs"},
            {"messageId": "b", "body": 7},
            {"messageId": "c", "body": "bad"},
            {"messageId": "d", "body": "later", "attributes": {"ApproximateReceiveCount": "many"}},
        ]})
    }

    struct Words;

    impl Handler for Words {
        async fn handle(&self, batch: &[Message]) -> BatchResult {
            let failed = batch.iter().filter(|m| m.body != "one").map(|m| FailedMessage {
                message_id: m.message_id.clone(),
                reason: "because".to_owned(),
                retryable: m.body == "later",
            });
            BatchResult { failed: failed.collect() }
        }
    }

    #[test]
    fn records_are_read_one_by_one() {
        let read = SqsEvent::parse(&event()).expect("an SQS event");
        let counts: Vec<_> = read.messages.iter().map(|m| (m.message_id.as_str(), m.receive_count)).collect();
        assert_eq!(counts, [("a", 3), ("c", 1), ("d", 1)]);
        assert_eq!(read.failed[0].message_id, "b");
    }

    #[tokio::test]
    async fn every_failed_record_is_named_and_no_other() {
        let answer = handle(&Words, &event()).await.expect("answered");
        let ids: Vec<_> = ["b", "c", "d"].map(|id| json!({"itemIdentifier": id})).into();
        assert_eq!(answer, json!({"batchItemFailures": ids}));
        let none = handle(&Words, &json!({"Records": []})).await.expect("answered");
        assert_eq!(none, json!({"batchItemFailures": []}));
    }

    #[tokio::test]
    async fn what_cannot_be_answered_by_record_fails_whole() {
        for event in [json!({}), json!({"Records": {}}), json!([]), json!({"Records": [{"body": "x"}]})] {
            assert!(handle(&Words, &event).await.is_err(), "{event}");
        }
    }

    #[test]
    fn the_configuration_is_inline_or_a_path_or_nothing() {
        assert_eq!(configuration(None).expect("defaults").1, "");
        assert_eq!(configuration(Some("logger.format = \"ocsf\"")).expect("inline").1, "logger.format = \"ocsf\"");
        let error = configuration(Some("/nowhere/pipeline.toml")).expect_err("no such file");
        assert!(error.contains("/nowhere/pipeline.toml"), "{error}");
    }

    #[test]
    fn sections_of_other_components_are_left_alone_and_unknown_ones_are_not() {
        let all = "[logger]\nformat = 1\n[actions.x]\ny = 1\n[channels.fax]\nz = 1\n";
        document("pipeline.toml", all).finish().expect("not ours");
        document("pipeline.toml", "[loger]\nx = 1\n").finish().expect_err("unknown");
    }
}
