//! The sending side of an SQS queue: messages for the next component, messages for later, dead letters.

use std::sync::{Arc, PoisonError, RwLock};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, MessageAttributeValue, MessageSystemAttributeNameForSends, MessageSystemAttributeValue,
    SendMessageBatchRequestEntry,
};

use super::{is_of_the_deployment, is_retryable_code, may_be_mended};
use crate::ports::{DeadLetter, Delayed, DelayedOutbox, Outbox, PortError, PortResult};
use crate::text::one_line;

/// Entries of one `SendMessageBatch` (API reference).
const ENTRIES_MAX: usize = 10;
/// Bytes of one call. The service takes 1 MiB (1,048,576 bytes) since 2025, but a queue may still be set to the older
/// 256 KiB. A larger body goes alone, and the queue decides.
const BYTES_MAX: usize = 262_144;
/// How often entries that the service failed to take are offered: the SDK retries whole calls, not single entries.
const ATTEMPTS: usize = 3;

/// Longer reasons of dead letters are cut.
const REASON_CHARS_MAX: usize = 1_000;

/// The X-Ray trace header of the invocation under way. Messages carry it on (`AWSTraceHeader`), so that a trace leads from
/// the event to the mail.
#[derive(Clone, Debug, Default)]
pub struct TraceHeader(Arc<RwLock<Option<String>>>);

impl TraceHeader {
    /// Sets what messages carry from now on, such as `Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1`. An empty one
    /// is none: SQS refuses attributes without a value.
    pub fn set(&self, header: Option<&str>) {
        let header = header.filter(|header| !header.is_empty());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = header.map(str::to_owned);
    }

    fn get(&self) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An [`Outbox`] over `SendMessageBatch`. Standard queues; duplicates are the receiver's business.
#[derive(Clone, Debug)]
pub struct SqsOutbox {
    client: Client,
    queue_url: String,
    trace: TraceHeader,
}

/// One message with what goes beside its body.
#[derive(Clone, Debug, Default)]
struct Letter {
    body: String,
    delay_s: Option<u32>,
    attributes: Vec<(&'static str, String)>,
}

impl SqsOutbox {
    /// Sends to `queue_url`; the client is built once, in `main`.
    pub const fn new(client: Client, queue_url: String, trace: TraceHeader) -> Self {
        Self { client, queue_url, trace }
    }

    /// Puts a message into this queue, which is the dead-letter queue of `component`, with the attributes `reason`,
    /// `component`, `message_id` and `receive_count`.
    ///
    /// # Errors
    /// As every port call. The message is not there then, as far as we know.
    pub async fn bury(&self, component: &str, letter: &DeadLetter) -> PortResult<()> {
        let attributes = vec![
            ("reason", one_line(&letter.reason, REASON_CHARS_MAX).replace(['\u{fffe}', '\u{ffff}'], "·")),
            ("component", component.to_owned()),
            ("message_id", letter.message_id.clone()),
            ("receive_count", letter.receive_count.to_string()),
        ];
        self.send_letters(&[Letter { body: permitted(&letter.body), delay_s: None, attributes }]).await
    }

    /// Every letter is offered, also when an earlier one failed.
    async fn send_letters(&self, letters: &[Letter]) -> PortResult<()> {
        let mut problem = Problem::default();
        let mut rest = letters;
        while !rest.is_empty() {
            let (batch, next) = rest.split_at(batch_length(rest));
            self.send_batch(batch, &mut problem).await;
            rest = next;
        }
        problem.into_result(&self.queue_url)
    }

    /// Sends one batch; entries that fail for the moment are tried again, and what remains is named.
    async fn send_batch(&self, letters: &[Letter], problem: &mut Problem) {
        let mut waiting: Vec<usize> = (0..letters.len()).collect();
        let mut refusals: Vec<BatchResultErrorEntry> = Vec::new();
        let trace = self.trace.get();
        for _ in 0..ATTEMPTS {
            let entries = waiting.iter().map(|i| letters[*i].entry(*i, trace.as_deref()));
            let call = self.client.send_message_batch().queue_url(&self.queue_url).set_entries(Some(entries.collect()));
            // Boxed: the SDK's futures are some hundred types deep, which would overflow the compiler's depth limit in
            // a component that awaits this from a few functions away.
            let answer = match Box::pin(call.send()).await {
                Ok(answer) => answer,
                Err(error) => {
                    let why = DisplayErrorContext(&error).to_string();
                    return problem.add(may_be_mended(&error), waiting.len(), &why);
                }
            };
            refusals = answer.failed;
            let (later, never): (Vec<_>, Vec<_>) = refusals.iter().partition(|r| may_work_later(r));
            for refusal in never {
                problem.add(false, 1, &reason(refusal));
            }
            waiting = later.iter().filter_map(|r| r.id.parse().ok()).filter(|i| *i < letters.len()).collect();
            if waiting.is_empty() {
                return;
            }
        }
        let why = refusals.iter().find(|r| may_work_later(r)).map(reason).unwrap_or_default();
        problem.add(true, waiting.len(), &why);
    }
}

impl Letter {
    fn of(body: &str) -> Self {
        Self { body: permitted(body), ..Self::default() }
    }

    fn bytes(&self) -> usize {
        // A message's size counts names, types and values of its attributes; the type is `String`.
        self.body.len() + self.attributes.iter().map(|(name, value)| name.len() + value.len() + 6).sum::<usize>()
    }

    fn entry(&self, id: usize, trace: Option<&str>) -> SendMessageBatchRequestEntry {
        let mut entry = SendMessageBatchRequestEntry::builder()
            .id(id.to_string())
            .message_body(&self.body)
            .set_delay_seconds(self.delay_s.map(|s| i32::try_from(s).unwrap_or(i32::MAX)));
        for (name, value) in &self.attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value).build();
            entry = entry.message_attributes(*name, value.expect("the type is set"));
        }
        if let Some(trace) = trace {
            let value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build();
            entry = entry.message_system_attributes(
                MessageSystemAttributeNameForSends::AwsTraceHeader,
                value.expect("the type is set"),
            );
        }
        entry.build().expect("id and body are set")
    }
}

impl Outbox for SqsOutbox {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        let letters: Vec<Letter> = bodies.iter().map(|body| Letter::of(body)).collect();
        self.send_letters(&letters).await
    }
}

impl DelayedOutbox for SqsOutbox {
    async fn send_delayed(&self, messages: &[Delayed]) -> PortResult<()> {
        let letters: Vec<Letter> =
            messages.iter().map(|m| Letter { delay_s: Some(m.delay_s), ..Letter::of(&m.body) }).collect();
        self.send_letters(&letters).await
    }
}

/// How many of the first letters fit into one call; at least one.
fn batch_length(letters: &[Letter]) -> usize {
    let mut bytes = 0;
    let fitting = letters.iter().take(ENTRIES_MAX).take_while(|letter| {
        bytes += letter.bytes();
        bytes <= BYTES_MAX
    });
    fitting.count().max(1)
}

/// The body without the two characters SQS refuses that JSON may hold raw: U+FFFE and U+FFFF become escapes, which mean
/// the same. Otherwise a user agent with one of them would keep its own finding from ever being sent.
fn permitted(body: &str) -> String {
    body.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
}

fn may_work_later(refusal: &BatchResultErrorEntry) -> bool {
    !refusal.sender_fault || is_retryable_code(&refusal.code) || is_of_the_deployment(&refusal.code)
}

fn reason(refusal: &BatchResultErrorEntry) -> String {
    format!("{}: {}", refusal.code, refusal.message.as_deref().unwrap_or("no message"))
}

/// What went wrong over all calls of one send.
#[derive(Default)]
struct Problem {
    retryable: bool,
    count: usize,
    why: String,
}

impl Problem {
    fn add(&mut self, retryable: bool, count: usize, why: &str) {
        // One that may work later brings the message back; what never works fails again then.
        self.retryable |= retryable;
        self.count += count;
        if self.why.is_empty() {
            why.clone_into(&mut self.why);
        }
    }

    fn into_result(self, queue_url: &str) -> PortResult<()> {
        if self.count == 0 {
            return Ok(());
        }
        let what = format!("could not send {} messages to {queue_url}: {}", self.count, self.why);
        Err(if self.retryable {
            PortError::Retryable { what, source: None }
        } else {
            PortError::Permanent { what, source: None }
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::config::retry::RetryConfig;
    use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
    use serde_json::{Value, json};

    use super::*;
    use crate::adapters::loopback::{Answer, Loopback};

    const QUEUE: &str = "https://sqs.us-east-1.amazonaws.com/123456789012/responder";

    fn outbox(server: &Loopback) -> SqsOutbox {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(server.endpoint())
            .build();
        SqsOutbox::new(Client::from_conf(config), QUEUE.to_owned(), TraceHeader::default())
    }

    /// All but the entries of `failed` succeed.
    fn answer(sent: &[&str], failed: &[(&str, &str, bool)]) -> Answer {
        let md5 = "0".repeat(32);
        let successful: Vec<Value> =
            sent.iter().map(|id| json!({"Id": id, "MessageId": id, "MD5OfMessageBody": md5})).collect();
        let failed: Vec<Value> = failed
            .iter()
            .map(|(id, code, fault)| json!({"Id": id, "Code": code, "SenderFault": fault, "Message": "said so"}))
            .collect();
        Answer::json("200 OK", &json!({"Successful": successful, "Failed": failed}))
    }

    fn entries(request: &str) -> Vec<(String, String)> {
        let request: Value = serde_json::from_str(request).expect("JSON");
        assert_eq!(request["QueueUrl"], QUEUE);
        let text = |v: &Value| v.as_str().expect("text").to_owned();
        let entries = request["Entries"].as_array().expect("entries");
        entries.iter().map(|e| (text(&e["Id"]), text(&e["MessageBody"]))).collect()
    }

    fn bodies(count: usize, bytes: usize) -> Vec<String> {
        (0..count).map(|i| format!("{i}-{}", "x".repeat(bytes))).collect()
    }

    #[tokio::test]
    async fn batches_hold_ten_entries_and_256_kib() {
        let ids: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let server = Loopback::answering([answer(&ids, &[]), answer(&ids[..2], &[])]);
        outbox(&server).send(&bodies(12, 4)).await.expect("sent");
        let requests = server.requests();
        assert_eq!(requests.iter().map(|r| entries(r).len()).collect::<Vec<_>>(), [10, 2]);
        assert_eq!(entries(&requests[1])[1], ("1".to_owned(), "11-xxxx".to_owned()));

        let letters = |count, bytes| bodies(count, bytes).iter().map(|b| Letter::of(b)).collect::<Vec<_>>();
        let big = letters(3, 100_000);
        assert_eq!((batch_length(&big), batch_length(&letters(1, 300_000)), batch_length(&big[2..])), (2, 1, 1));
    }

    #[tokio::test]
    async fn only_the_entries_that_failed_for_now_are_sent_again() {
        let server = Loopback::answering([
            answer(&["0"], &[("1", "InternalError", false), ("2", "RequestThrottled", true)]),
            answer(&["1", "2"], &[]),
        ]);
        outbox(&server).send(&bodies(3, 1)).await.expect("sent in the end");
        let again: Vec<_> = entries(&server.requests()[1]).into_iter().map(|(_, body)| body).collect();
        assert_eq!(again, ["1-x", "2-x"]);
    }

    #[tokio::test]
    async fn an_entry_that_never_works_is_permanent_and_keeps_nothing_back() {
        let server = Loopback::answering([answer(&["1"], &[("0", "InvalidMessageContents", true)])]);
        let error = outbox(&server).send(&bodies(2, 1)).await.expect_err("one refused");
        assert!(!error.is_retryable() && error.to_string().contains("InvalidMessageContents"), "{error}");
        assert_eq!(server.requests().len(), 1);
    }

    #[tokio::test]
    async fn an_entry_that_keeps_failing_is_retryable() {
        let failing = || answer(&[], &[("0", "InternalError", false)]);
        let server = Loopback::answering([failing(), failing(), failing()]);
        let error = outbox(&server).send(&bodies(1, 1)).await.expect_err("never taken");
        assert!(error.is_retryable() && error.to_string().contains(QUEUE), "{error}");
        assert_eq!(server.requests().len(), ATTEMPTS);
    }

    #[tokio::test]
    async fn only_what_is_wrong_with_the_message_is_permanent() {
        let cases = [
            ("400 Bad Request", "com.amazonaws.sqs#QueueDoesNotExist", true),
            ("403 Forbidden", "AccessDeniedException", true),
            ("400 Bad Request", "com.amazonaws.sqs#KmsDisabled", true),
            ("400 Bad Request", "com.amazonaws.sqs#BatchRequestTooLong", false),
            ("400 Bad Request", "com.amazonaws.sqs#InvalidMessageContents", false),
            ("400 Bad Request", "com.amazonaws.sqs#RequestThrottled", true),
            ("400 Bad Request", "ThrottlingException", true),
            ("503 Service Unavailable", "ServiceUnavailable", true),
        ];
        for (status, code, retryable) in cases {
            let server = Loopback::answering([Answer::json(status, &json!({"__type": code, "message": "said so"}))]);
            let error = outbox(&server).send(&bodies(1, 1)).await.expect_err(code);
            assert_eq!(error.is_retryable(), retryable, "{code}: {error}");
        }
    }

    #[tokio::test]
    async fn noncharacters_that_sqs_refuses_are_escaped() {
        let server = Loopback::answering([answer(&["0"], &[])]);
        let body = json!({"user_agent": "a\u{ffff}b\u{fffe}"}).to_string();
        outbox(&server).send(std::slice::from_ref(&body)).await.expect("sent");
        let sent = entries(&server.requests()[0]).remove(0).1;
        assert!(!sent.contains(['\u{ffff}', '\u{fffe}']), "{sent}");
        let (sent, meant): (Value, Value) =
            (serde_json::from_str(&sent).expect("JSON"), serde_json::from_str(&body).expect("JSON"));
        assert_eq!(sent, meant);
    }

    #[tokio::test]
    async fn messages_carry_the_trace_and_their_delay() {
        let server = Loopback::answering([answer(&["0"], &[]), answer(&["0"], &[]), answer(&["0"], &[])]);
        let outbox = outbox(&server);
        outbox.trace.set(Some("Root=1-5759e988-bd862e3fe1be46a994272793"));
        outbox.send_delayed(&[Delayed { body: "later".into(), delay_s: 900 }]).await.expect("sent");
        outbox.trace.set(None);
        outbox.send(&["now".into()]).await.expect("sent");
        outbox.trace.set(Some(""));
        outbox.send(&["empty".into()]).await.expect("sent");
        let sent: Vec<Value> = server.requests().iter().map(|r| serde_json::from_str(r).expect("JSON")).collect();
        let [later, now, empty] = [0, 1, 2].map(|i| &sent[i]["Entries"][0]);
        assert_eq!((&later["DelaySeconds"], &now["DelaySeconds"]), (&json!(900), &Value::Null));
        let trace = &later["MessageSystemAttributes"]["AWSTraceHeader"]["StringValue"];
        assert_eq!(trace, "Root=1-5759e988-bd862e3fe1be46a994272793");
        assert_eq!(now["MessageSystemAttributes"], Value::Null);
        assert_eq!(empty["MessageSystemAttributes"], Value::Null);
    }

    #[tokio::test]
    async fn a_dead_letter_says_why_and_whose_it_is() {
        let server = Loopback::answering([answer(&["0"], &[])]);
        let letter =
            DeadLetter { message_id: "m-1".into(), body: "bad".into(), reason: "not\nJSON".into(), receive_count: 2 };
        outbox(&server).bury("classifier", &letter).await.expect("sent");
        let sent: Value = serde_json::from_str(&server.requests()[0]).expect("JSON");
        let attribute = |name: &str| sent["Entries"][0]["MessageAttributes"][name]["StringValue"].clone();
        let all = ["reason", "component", "message_id", "receive_count"].map(attribute);
        assert_eq!(all, ["not·JSON", "classifier", "m-1", "2"].map(Value::from));
        assert_eq!(sent["Entries"][0]["MessageBody"], "bad");
    }
}
