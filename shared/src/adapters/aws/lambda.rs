//! A [`Handler`] behind an SQS event source mapping, without a dependency on the Lambda runtime.
//!
//! The event is read by hand, record by record: a typed batch would fail whole on one bad record. What failed and may
//! work later is named in the answer (`ReportBatchItemFailures`): SQS makes it visible again and, after
//! `maxReceiveCount`, moves it to the dead-letter queue. What will never work is sent to the function's own dead-letter
//! queue at once, with its reason as an attribute, and is answered as done after that; if it cannot be sent there, it
//! is named like the others and SQS moves it in the end, without a reason. A failed record is never dropped. Reasons
//! are logged here, once. To redrive what was sent there, name the destination: SQS knows no source queue of such a
//! message.

use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::sqs::{SqsOutbox, TraceHeader};
use crate::config::Document;
use crate::ports::{BatchResult, DeadLetter, FailedMessage, Handler, Message};
use crate::text::one_line;
use crate::time::Timestamp;

/// The environment variable that holds the configuration: TOML text when it holds a line break or `=`, else a path.
pub const CONFIG_VARIABLE: &str = "PIPELINE_CONFIG";

/// The environment variable that holds the deployment's name. Metrics carry it, as several deployments may share an account.
const DEPLOYMENT_VARIABLE: &str = "DEPLOYMENT";

/// The namespace of all metrics.
const NAMESPACE: &str = "AwsSecurityPipeline";

/// Longer names of deployments are cut; the templates allow 27 characters, CloudWatch 1,024.
const NAME_CHARS_MAX: usize = 200;

/// Longer reasons are cut in the log.
const REASON_CHARS_MAX: usize = 1_000;

/// The top-level sections of the one configuration file. A function reads its own; the others must not be errors. The
/// command line, which reads all of them, has a test that none is missing here.
pub const SECTIONS: [&str; 14] = [
    "actions",
    "alarms",
    "allow",
    "channels",
    "classifier",
    "classifiers",
    "geo",
    "inspection",
    "log_groups",
    "logger",
    "notifier",
    "responder",
    "rules",
    "source",
];

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

/// `{"batchItemFailures":[{"itemIdentifier":…}]}`, each id once.
fn response(mut ids: Vec<&str>) -> Value {
    ids.sort_unstable();
    ids.dedup();
    let items: Vec<Value> = ids.into_iter().map(|id| json!({"itemIdentifier": id})).collect();
    json!({"batchItemFailures": items})
}

/// Which invocation it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Invocation<'i> {
    /// Lambda's request id.
    pub request_id: &'i str,
    /// The X-Ray trace header.
    pub trace: Option<&'i str>,
}

/// A component's own counters: totals since the start, by metric name.
pub type Totals = Vec<(&'static str, u64)>;

/// A component as a function: its handler with dead letters, trace and metrics around it.
pub struct Function<H, T, W> {
    component: &'static str,
    handler: H,
    /// What the handler has counted so far.
    totals: T,
    dead_letters: SqsOutbox,
    trace: TraceHeader,
    meter: std::cell::RefCell<Meter<W>>,
}

/// Writes metrics, and knows what was written before.
struct Meter<W> {
    out: W,
    /// The deployment's name, when it has one.
    deployment: Option<String>,
    before: Totals,
    /// What the start took; told with the first batch.
    cold_start_ms: Option<u64>,
}

impl<H: Handler, T: Fn(&H) -> Totals, W: Write> Function<H, T, W> {
    /// A function that began to start at `started` and writes its metrics to `metrics`, which is standard output.
    /// `dead_letters` is the dead-letter queue of its own queue; `trace` is shared with the outboxes of its handler.
    pub fn new(
        component: &'static str,
        handler: H,
        totals: T,
        dead_letters: SqsOutbox,
        trace: TraceHeader,
        metrics: W,
        started: Instant,
    ) -> Self {
        let cold_start_ms = Some(ms_since(started));
        let deployment = optional(DEPLOYMENT_VARIABLE);
        let meter = Meter { out: metrics, deployment, before: totals(&handler), cold_start_ms }.into();
        Self { component, handler, totals, dead_letters, trace, meter }
    }

    /// One invocation: reads the event, lets the handler work, buries what will never work, writes the metrics, answers.
    ///
    /// # Errors
    /// When the event cannot be answered record by record; Lambda then returns the whole batch.
    pub async fn invoke(&self, event: &Value, invocation: Invocation<'_>) -> Result<Value, EventError> {
        let started = Instant::now();
        self.trace.set(invocation.trace);
        let SqsEvent { messages, failed } = SqsEvent::parse(event)?;
        let count = messages.len() + failed.len();
        let mut failures = self.handle(&messages).await;
        self.handler.count_unhandled(failed.len() as u64);
        failures.extend(failed);
        let mut returned = Vec::new();
        let (mut retryable, mut permanent) = (0, 0);
        for failure in &failures {
            let message = messages.iter().find(|m| m.message_id == failure.message_id);
            self.log_failure(failure, message, invocation);
            if failure.retryable {
                retryable += 1;
                returned.push(failure.message_id.as_str());
            } else {
                permanent += 1;
                if !self.bury(failure, message).await {
                    returned.push(failure.message_id.as_str());
                }
            }
        }
        let batch = [
            ("messages_in", count as u64),
            ("messages_failed_retryable", retryable),
            ("messages_failed_permanent", permanent),
        ];
        let written = self.meter.borrow_mut().write(
            self.component,
            &batch,
            (self.totals)(&self.handler),
            ms_since(started),
            invocation.request_id,
        );
        if let Err(error) = written {
            tracing::warn!("could not write metrics: {error}");
        }
        Ok(response(returned))
    }

    /// Lets the handler work. A message that makes it panic comes back alone: the others of its batch are handled one by
    /// one, which repeats nothing.
    async fn handle(&self, messages: &[Message]) -> Vec<FailedMessage> {
        let panic = match caught(self.handler.handle(messages)).await {
            Ok(BatchResult { failed }) => return failed,
            Err(panic) => panic,
        };
        if let [message] = messages {
            self.handler.count_unhandled(1);
            let (message_id, reason) = (message.message_id.clone(), format!("the handler panicked: {panic}"));
            return vec![FailedMessage { message_id, reason, retryable: true }];
        }
        let mut failed = Vec::new();
        for message in messages {
            failed.extend(Box::pin(self.handle(std::slice::from_ref(message))).await);
        }
        failed
    }

    /// Whether the message is in the dead-letter queue now, and need not come back.
    async fn bury(&self, failure: &FailedMessage, message: Option<&Message>) -> bool {
        // A record without a body cannot be sent.
        let Some(message) = message else { return false };
        let letter = DeadLetter {
            message_id: message.message_id.clone(),
            body: message.body.clone(),
            reason: failure.reason.clone(),
            receive_count: message.receive_count,
        };
        match self.dead_letters.bury(self.component, &letter).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(message.id = %message.message_id, "message {} stays in its queue: {error}", message.message_id);
                false
            }
        }
    }

    fn log_failure(&self, failure: &FailedMessage, message: Option<&Message>, invocation: Invocation<'_>) {
        let FailedMessage { message_id, reason, retryable } = failure;
        let reason = one_line(reason, REASON_CHARS_MAX);
        let count = message.map_or(0, |m| m.receive_count);
        let correlation = message.and_then(|m| correlation_id(&m.body)).unwrap_or_default();
        let (component, request) = (self.component, invocation.request_id);
        if *retryable {
            tracing::warn!(component, request.id = request, correlation.id = correlation, message.id = %message_id,
                receive_count = count, "message {message_id} comes back: {reason}");
        } else {
            tracing::error!(component, request.id = request, correlation.id = correlation, message.id = %message_id,
                receive_count = count, "message {message_id} cannot be handled: {reason}");
        }
    }
}

impl<W: Write> Meter<W> {
    /// One line in CloudWatch's embedded metric format, from which CloudWatch Logs makes metrics:
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.
    fn write(
        &mut self,
        component: &str,
        batch: &[(&'static str, u64)],
        totals: Totals,
        batch_ms: u64,
        request_id: &str,
    ) -> std::io::Result<()> {
        let mut metrics = Vec::new();
        let mut values = Map::new();
        let mut add = |name: &str, unit: &str, value: u64| {
            metrics.push(json!({"Name": name, "Unit": unit}));
            values.insert(name.to_owned(), value.into());
        };
        for (name, value) in batch {
            add(name, "Count", *value);
        }
        for ((name, now), before) in totals.iter().zip(self.before.iter().map(|(_, n)| *n).chain(std::iter::repeat(0)))
        {
            add(name, "Count", now.saturating_sub(before));
        }
        add("batch_ms", "Milliseconds", batch_ms);
        if let Some(ms) = self.cold_start_ms.take() {
            add("cold_start_ms", "Milliseconds", ms);
        }
        self.before = totals;
        values.insert("component".to_owned(), component.into());
        values.insert("request_id".to_owned(), request_id.into());
        let now = crate::ports::Clock::now(&crate::adapters::disk::SystemClock);
        let mut dimensions = vec!["component"];
        if let Some(deployment) = &self.deployment {
            dimensions.insert(0, "deployment");
            values.insert("deployment".to_owned(), one_line(deployment, NAME_CHARS_MAX).into());
        }
        let directive = json!({"Namespace": NAMESPACE, "Dimensions": [dimensions], "Metrics": metrics});
        values.insert(
            "_aws".to_owned(),
            json!({"Timestamp": Timestamp::as_millis(now), "CloudWatchMetrics": [directive]}),
        );
        // One write, so that nothing comes in between.
        self.out.write_all(format!("{}\n", Value::Object(values)).as_bytes())?;
        self.out.flush()
    }
}

/// What `work` comes to, or the message of its panic, which the panic hook has written to the log already. What it has
/// borrowed is given back on the way, and effects are idempotent, so the handler can go on.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = std::pin::pin!(work);
    let polled = std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    });
    polled.await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
    })
}

fn ms_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The correlation id of a message between components.
fn correlation_id(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Correlated {
        correlation_id: String,
    }
    serde_json::from_str::<Correlated>(body).ok().map(|c| one_line(&c.correlation_id, 200))
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
    optional(variable).ok_or_else(|| format!("environment variable {variable} is not set: it must hold {what}"))
}

/// The value of an environment variable that may be missing or empty.
pub fn optional(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::config::retry::RetryConfig;
    use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};

    use super::*;
    use crate::adapters::loopback::{Answer, Loopback};

    fn event() -> Value {
        json!({"Records": [
            {"messageId": "a", "body": "one", "attributes": {"ApproximateReceiveCount": "3"}, "eventSource": "aws:sqs"},
            {"messageId": "b", "body": 7},
            {"messageId": "c", "body": "bad"},
            {"messageId": "d", "body": "later", "attributes": {"ApproximateReceiveCount": "many"}},
        ]})
    }

    #[derive(Default)]
    struct Words {
        unhandled: std::cell::Cell<u64>,
        /// The sizes of batches.
        batches: std::cell::RefCell<Vec<usize>>,
    }

    impl Handler for Words {
        fn count_unhandled(&self, messages: u64) {
            self.unhandled.set(self.unhandled.get() + messages);
        }

        async fn handle(&self, batch: &[Message]) -> BatchResult {
            self.batches.borrow_mut().push(batch.len());
            tokio::task::yield_now().await;
            assert!(batch.iter().all(|m| m.body != "fatal"), "fatal: {}", batch.len());
            let failed = batch.iter().filter(|m| m.body != "one").map(|m| FailedMessage {
                message_id: m.message_id.clone(),
                reason: "because".to_owned(),
                retryable: m.body == "later",
            });
            BatchResult { failed: failed.collect() }
        }
    }

    fn function(endpoint: &str) -> Function<Words, impl Fn(&Words) -> Totals, Vec<u8>> {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(endpoint)
            .build();
        let (client, trace) = (aws_sdk_sqs::Client::from_conf(config), TraceHeader::default());
        let dead_letters = SqsOutbox::new(client, "https://queue/dead".into(), trace.clone());
        let calls = std::cell::Cell::new(0);
        let totals = move |_: &Words| {
            calls.set(calls.get() + 1);
            vec![("records_in", 10 * calls.get())]
        };
        Function::new("classifier", Words::default(), totals, dead_letters, trace, Vec::new(), Instant::now())
    }

    fn buried() -> Answer {
        let entry = json!({"Id": "0", "MessageId": "x", "MD5OfMessageBody": "0".repeat(32)});
        Answer::json("200 OK", &json!({"Successful": [entry], "Failed": []}))
    }

    fn ids(answer: &Value) -> Vec<&str> {
        let items = answer["batchItemFailures"].as_array().expect("an array");
        items.iter().map(|item| item["itemIdentifier"].as_str().expect("text")).collect()
    }

    #[test]
    fn records_are_read_one_by_one() {
        let read = SqsEvent::parse(&event()).expect("an SQS event");
        let counts: Vec<_> = read.messages.iter().map(|m| (m.message_id.as_str(), m.receive_count)).collect();
        assert_eq!(counts, [("a", 3), ("c", 1), ("d", 1)]);
        assert_eq!(read.failed[0].message_id, "b");
    }

    #[tokio::test]
    async fn what_may_work_later_comes_back_and_what_never_works_is_buried_with_its_reason() {
        let server = Loopback::answering([buried()]);
        let function = function(server.endpoint());
        let answer = function.invoke(&event(), Invocation::default()).await.expect("answered");
        assert_eq!(ids(&answer), ["b", "d"], "a record without a body cannot be buried");
        let sent: Value = serde_json::from_str(&server.requests()[0]).expect("JSON");
        let [letter] = &sent["Entries"].as_array().expect("entries")[..] else { panic!("one letter: {sent}") };
        assert_eq!(letter["MessageBody"], "bad");
        assert_eq!(letter["MessageAttributes"]["reason"]["StringValue"], "because");
        let none = function.invoke(&json!({"Records": []}), Invocation::default()).await.expect("answered");
        assert_eq!(none, json!({"batchItemFailures": []}));
    }

    #[tokio::test]
    async fn a_panic_costs_its_message_and_none_of_its_neighbours() {
        let server = Loopback::answering([buried()]);
        let function = function(server.endpoint());
        let record = |id: &str, body: &str| json!({"messageId": id, "body": body});
        let event =
            json!({"Records": [record("a", "one"), record("b", "fatal"), record("c", "bad"), {"messageId": "d"}]});
        let answer = function.invoke(&event, Invocation::default()).await.expect("answered");
        assert_eq!(ids(&answer), ["b", "d"], "the neighbour that fails for good is buried, the good one done");
        assert_eq!(*function.handler.batches.borrow(), [3, 1, 1, 1]);
        assert_eq!(function.handler.unhandled.get(), 2, "what panicked and what had no body");
        let alone = json!({"Records": [record("b", "fatal")]});
        let answer = function.invoke(&alone, Invocation::default()).await.expect("answered");
        assert_eq!((ids(&answer), function.handler.batches.borrow().len()), (vec!["b"], 5), "tried once");
        let panic = caught(async { panic!("{} times", 3) }).await;
        assert_eq!(panic, Err::<(), _>("3 times".to_owned()));
    }

    #[tokio::test]
    async fn what_cannot_be_buried_comes_back() {
        let denied = Answer::json("403 Forbidden", &json!({"__type": "AccessDeniedException"}));
        let server = Loopback::answering([denied]);
        let function = function(server.endpoint());
        let answer = function.invoke(&event(), Invocation::default()).await.expect("answered");
        assert_eq!(ids(&answer), ["b", "c", "d"]);
    }

    #[tokio::test]
    async fn what_cannot_be_answered_by_record_fails_whole() {
        let function = function("http://127.0.0.1:9");
        for event in [json!({}), json!({"Records": {}}), json!([]), json!({"Records": [{"body": "x"}]})] {
            assert!(function.invoke(&event, Invocation::default()).await.is_err(), "{event}");
        }
    }

    #[tokio::test]
    async fn every_batch_writes_one_line_of_metrics() {
        let server = Loopback::answering([buried(), buried()]);
        let function = function(server.endpoint());
        for request_id in ["r-1", "r-2"] {
            function.invoke(&event(), Invocation { request_id, trace: None }).await.expect("answered");
        }
        let text = String::from_utf8(function.meter.borrow().out.clone()).expect("text");
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let [first, second] = &lines[..] else { panic!("two lines: {text}") };
        let directive = &first["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], "AwsSecurityPipeline");
        assert_eq!(directive["Dimensions"], json!([["component"]]));
        for metric in directive["Metrics"].as_array().expect("metrics") {
            assert!(first[metric["Name"].as_str().expect("a name")].is_u64(), "{metric} has a value");
        }
        assert!(first["_aws"]["Timestamp"].as_i64() > Some(1_700_000_000_000), "milliseconds");
        let counts = |line: &Value| {
            ["messages_in", "messages_failed_retryable", "messages_failed_permanent", "records_in"]
                .map(|n| line[n].as_u64().expect(n))
        };
        assert_eq!((counts(first), counts(second)), ([4, 1, 2, 10], [4, 1, 2, 10]), "of the batch, no totals");
        assert_eq!((&second["component"], &second["request_id"]), (&json!("classifier"), &json!("r-2")));
        assert!(first["cold_start_ms"].is_u64() && second["cold_start_ms"].is_null(), "told once");
    }

    #[test]
    fn metrics_carry_the_name_of_the_deployment() {
        let deployment = Some("staging".to_owned());
        let mut meter = Meter { out: Vec::new(), deployment, before: Vec::new(), cold_start_ms: None };
        meter.write("logger", &[("messages_in", 1)], Vec::new(), 2, "r-1").expect("memory");
        let line: Value = serde_json::from_slice(&meter.out).expect("JSON");
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["deployment", "component"]]));
        assert_eq!((&line["deployment"], &line["component"]), (&json!("staging"), &json!("logger")));
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
        let all = "[logger]\nformat = 1\n[actions.x]\ny = 1\n[channels.fax]\nz = 1\n[geo]\n[log_groups]\nx = 1\n[rules]\n[[allow]]\nname = 1\n";
        document("pipeline.toml", all).finish().expect("not ours");
        document("pipeline.toml", "[loger]\nx = 1\n").finish().expect_err("unknown");
    }
}
