//! The dead-letter queues of a deployment: looking at what is in them, and moving it back.
//!
//! SQS has no way to look: a message is received, which makes it invisible for a while and adds one to its count, and
//! is then given back. Dead-letter queues move nothing by that count.
//!
//! **A message is never removed before its copy was taken.** SQS itself does the same when it moves messages. A process
//! that ends in between leaves it in both queues, which is harmless: everything is idempotent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, Message, MessageAttributeValue, MessageSystemAttributeName,
    MessageSystemAttributeNameForSends, MessageSystemAttributeValue, QueueAttributeName,
};
use shared::Timestamp;

use super::refusal::{Kind, Refusal};
use super::session::Session;
use crate::args::QueueArg;
use crate::interrupt;

/// Messages of one `ReceiveMessage` (API reference).
const RECEIVED_MAX: usize = 10;
/// How long a message that is looked at stays invisible when it cannot be given back: long enough for a person's
/// connection, short enough not to be missed.
const LOOK_S: i32 = 30;
/// How long a message that is moved stays invisible: its copy must be taken by then, or it is moved twice.
const MOVE_S: i32 = 120;
/// Waiting a second asks all servers of a queue and not some of them (long polling, SQS developer guide).
const WAIT_S: i32 = 1;
/// Between two looks at a task of SQS.
const TASK_PAUSE: Duration = Duration::from_secs(1);

/// A dead-letter queue, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What people call it.
    pub label: &'static str,
    /// Its name behind that of the deployment.
    suffix: &'static str,
    /// The queue that its messages are for.
    back_to: &'static str,
    /// Whether SQS moves messages into it, so that it also moves them back: it does so for the dead-letter queues of
    /// queues only (API reference of `StartMessageMoveTask`).
    is_of_queue: bool,
    arg: QueueArg,
}

/// All of them. A region has the first five or, with a forwarder, the last.
const ALL: [Kept; 6] = [
    kept(QueueArg::Classifier, "classifier", "classifier-dlq", "classifier", true),
    kept(QueueArg::Responder, "responder", "responder-dlq", "responder", true),
    kept(QueueArg::Notifier, "notifier", "notifier-dlq", "notifier", true),
    kept(QueueArg::Logger, "logger", "logger-dlq", "logger", true),
    kept(QueueArg::Undelivered, "undelivered", "undelivered-events", "classifier", false),
    kept(QueueArg::Unforwarded, "unforwarded", "unforwarded-events", "classifier", false),
];

const fn kept(
    arg: QueueArg,
    label: &'static str,
    suffix: &'static str,
    back_to: &'static str,
    is_of_queue: bool,
) -> Kept {
    Kept { label, suffix, back_to, is_of_queue, arg }
}

/// A dead-letter queue that is there.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    /// Which.
    pub kept: Kept,
    client: Client,
    url: String,
    arn: String,
    /// How many wait, about.
    pub waiting: u64,
    /// How many somebody is looking at or moving, about.
    pub in_flight: u64,
}

/// One message of it.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Its id in this queue.
    pub message_id: String,
    /// The body, as it is.
    pub body: String,
    /// When it was first sent.
    pub sent_at: Option<Timestamp>,
    /// How often it was received, this time included.
    pub receive_count: u32,
    /// Its attributes that are text.
    pub attributes: BTreeMap<String, String>,
    message: Message,
}

/// Opens the dead-letter queues of the deployment in the session's region that are there.
///
/// # Errors
/// When SQS cannot be asked.
pub async fn open(session: &Session, only: Option<QueueArg>) -> Result<Vec<DeadLetters>, Refusal> {
    let client = Client::new(session.config());
    let mut found = Vec::new();
    for kept in ALL.into_iter().filter(|kept| only.is_none_or(|only| only == kept.arg)) {
        let name = format!("{}-{}", session.name, kept.suffix);
        let Some(url) = url_of(&client, &name).await? else { continue };
        let call = client.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::All);
        let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("sqs:GetQueueAttributes", &e))?;
        let attributes = answer.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|n: &String| n.parse().ok()).unwrap_or(0);
        found.push(DeadLetters {
            kept,
            client: client.clone(),
            url,
            arn: attributes.get(&QueueAttributeName::QueueArn).cloned().unwrap_or_default(),
            waiting: number(QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        });
    }
    Ok(found)
}

async fn url_of(client: &Client, name: &str) -> Result<Option<String>, Refusal> {
    match Box::pin(client.get_queue_url().queue_name(name).send()).await {
        Ok(answer) => Ok(answer.queue_url),
        Err(error) => match Refusal::of("sqs:GetQueueUrl", &error) {
            Refusal { kind: Kind::Missing, .. } => Ok(None),
            refusal => Err(refusal),
        },
    }
}

/// Where messages go back to.
#[derive(Clone, Debug)]
pub struct Destination {
    client: Client,
    url: String,
    arn: String,
}

impl DeadLetters {
    /// The queue that its messages are for, in the session's region; `None` when there is none.
    ///
    /// # Errors
    /// When SQS cannot be asked.
    pub async fn destination(&self, session: &Session) -> Result<Option<Destination>, Refusal> {
        let client = Client::new(session.config());
        let Some(url) = url_of(&client, &format!("{}-{}", session.name, self.kept.back_to)).await? else {
            return Ok(None);
        };
        let call = client.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::QueueArn);
        let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("sqs:GetQueueAttributes", &e))?;
        let arn = answer.attributes.unwrap_or_default().remove(&QueueAttributeName::QueueArn).unwrap_or_default();
        Ok(Some(Destination { client, url, arn }))
    }

    /// Receives up to `max` messages until `enough` says so or none are left, and gives all of them back at once.
    ///
    /// # Errors
    /// When SQS cannot be asked. What was received then becomes visible by itself.
    pub async fn look(&self, max: usize, mut enough: impl FnMut(&Letter) -> bool) -> Result<Vec<Letter>, Refusal> {
        let mut letters: Vec<Letter> = Vec::new();
        let mut received = Ok(());
        'all: while letters.len() < max && !interrupt::asked() {
            let some = match self.receive((max - letters.len()).min(RECEIVED_MAX), LOOK_S).await {
                Ok(some) => some,
                Err(refusal) => {
                    received = Err(refusal);
                    break;
                }
            };
            if some.is_empty() {
                break;
            }
            for letter in some {
                // Visible again before all were looked at: everything was seen.
                if letters.iter().any(|known| known.message_id == letter.message_id) {
                    break 'all;
                }
                let is_enough = enough(&letter);
                letters.push(letter);
                if is_enough {
                    break 'all;
                }
            }
        }
        self.give_back(&letters).await?;
        received?;
        letters.sort_by(|a, b| (a.sent_at, &a.message_id).cmp(&(b.sent_at, &b.message_id)));
        Ok(letters)
    }

    async fn receive(&self, max: usize, invisible_s: i32) -> Result<Vec<Letter>, Refusal> {
        let call = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max).unwrap_or(1))
            .visibility_timeout(invisible_s)
            .wait_time_seconds(WAIT_S)
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All);
        let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("sqs:ReceiveMessage", &e))?;
        Ok(answer.messages.unwrap_or_default().into_iter().map(Letter::of).collect())
    }

    async fn give_back(&self, letters: &[Letter]) -> Result<(), Refusal> {
        for some in letters.chunks(RECEIVED_MAX) {
            let entries = some.iter().enumerate().filter_map(|(i, letter)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(i.to_string()).visibility_timeout(0);
                entry.set_receipt_handle(letter.message.receipt_handle.clone()).build().ok()
            });
            let call = self.client.change_message_visibility_batch().queue_url(&self.url);
            let call = call.set_entries(Some(entries.collect()));
            // Entries that fail, because somebody deleted the message or took it since, are not ours to give back.
            Box::pin(call.send()).await.map_err(|e| Refusal::of("sqs:ChangeMessageVisibility", &e))?;
        }
        Ok(())
    }

    /// Moves everything that waits now to `destination`; answers how many messages were moved.
    ///
    /// # Errors
    /// When SQS refuses. What was moved by then was moved.
    pub async fn move_all(&self, destination: &Destination, per_second: Option<u16>) -> Result<u64, Refusal> {
        if self.kept.is_of_queue {
            match self.move_by_task(destination, per_second).await {
                Err(Refusal { kind: Kind::Unknown, .. }) => {}
                moved => return moved,
            }
        }
        self.move_by_hand(destination, per_second).await
    }

    /// SQS moves them; this waits until it is done, or until Ctrl-C, after which SQS goes on.
    async fn move_by_task(&self, destination: &Destination, per_second: Option<u16>) -> Result<u64, Refusal> {
        let call = self
            .client
            .start_message_move_task()
            .source_arn(&self.arn)
            .destination_arn(&destination.arn)
            .set_max_number_of_messages_per_second(per_second.map(i32::from));
        let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("sqs:StartMessageMoveTask", &e))?;
        let handle = answer.task_handle;
        loop {
            let call = self.client.list_message_move_tasks().source_arn(&self.arn).max_results(1);
            let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("sqs:ListMessageMoveTasks", &e))?;
            // A task that has ended has no handle any more.
            let latest = answer.results.unwrap_or_default().into_iter().next();
            let Some(task) = latest.filter(|task| task.task_handle.is_none() || task.task_handle == handle) else {
                return Ok(0);
            };
            let moved = u64::try_from(task.approximate_number_of_messages_moved).unwrap_or(0);
            match task.status.as_deref() {
                Some("RUNNING" | "CANCELLING") if !interrupt::asked() => tokio::time::sleep(TASK_PAUSE).await,
                Some("FAILED") => {
                    let why = task.failure_reason.unwrap_or_else(|| "SQS does not say why".to_owned());
                    let why = format!("after {moved} messages: {why}");
                    return Err(Refusal { call: "sqs:StartMessageMoveTask", kind: Kind::Other, why });
                }
                _ => return Ok(moved),
            }
        }
    }

    /// One after another, no more than waited at the beginning: what fails again comes back while this goes on.
    async fn move_by_hand(&self, destination: &Destination, per_second: Option<u16>) -> Result<u64, Refusal> {
        let started = Instant::now();
        let mut moved = 0;
        while moved < self.waiting && !interrupt::asked() {
            let left = usize::try_from(self.waiting - moved).unwrap_or(RECEIVED_MAX);
            let letters = self.receive(left.min(RECEIVED_MAX), MOVE_S).await?;
            if letters.is_empty() {
                break;
            }
            for (i, letter) in letters.iter().enumerate() {
                if let Err(refusal) = self.move_one(letter, destination).await {
                    // The reason that counts is the first.
                    let _ = self.give_back(&letters[i..]).await;
                    return Err(refusal);
                }
                moved += 1;
                if let Some(per_second) = per_second {
                    let due = Duration::from_secs_f64(moved as f64 / f64::from(per_second));
                    tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
                }
            }
        }
        Ok(moved)
    }

    /// Moves the message with that id; `false` when it is not here.
    ///
    /// # Errors
    /// When SQS refuses.
    pub async fn move_message(&self, message_id: &str, destination: &Destination) -> Result<bool, Refusal> {
        let mut seen: Vec<Letter> = Vec::new();
        let result = loop {
            let letters = match self.receive(RECEIVED_MAX, MOVE_S).await {
                Ok(letters) => letters,
                Err(refusal) => break Err(refusal),
            };
            let is_again = letters.iter().any(|letter| seen.iter().any(|known| known.message_id == letter.message_id));
            if letters.is_empty() || is_again || interrupt::asked() {
                seen.extend(letters);
                break Ok(false);
            }
            seen.extend(letters);
            if let Some(at) = seen.iter().position(|letter| letter.message_id == message_id) {
                let moved = self.move_one(&seen[at], destination).await;
                if moved.is_ok() {
                    seen.remove(at);
                }
                break moved.map(|()| true);
            }
        };
        self.give_back(&seen).await?;
        result
    }

    /// Sends a copy with all attributes, and removes the message when the copy was taken.
    async fn move_one(&self, letter: &Letter, destination: &Destination) -> Result<(), Refusal> {
        let mut call = destination
            .client
            .send_message()
            .queue_url(&destination.url)
            .message_body(&letter.body)
            .set_message_attributes(letter.message.message_attributes.clone().map(sendable));
        if let Some(trace) = letter.system(MessageSystemAttributeName::AwsTraceHeader) {
            let value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build();
            call = call.message_system_attributes(
                MessageSystemAttributeNameForSends::AwsTraceHeader,
                value.expect("the type is set"),
            );
        }
        Box::pin(call.send()).await.map_err(|e| Refusal::of("sqs:SendMessage", &e))?;
        let handle = letter.message.receipt_handle.clone();
        let call = self.client.delete_message().queue_url(&self.url).set_receipt_handle(handle);
        Box::pin(call.send()).await.map(drop).map_err(|e| Refusal::of("sqs:DeleteMessage", &e))
    }
}

/// Received attributes have an empty list beside their value, which is refused when it is sent.
fn sendable(
    attributes: std::collections::HashMap<String, MessageAttributeValue>,
) -> std::collections::HashMap<String, MessageAttributeValue> {
    let plain = |value: MessageAttributeValue| {
        MessageAttributeValue::builder()
            .data_type(value.data_type)
            .set_string_value(value.string_value)
            .set_binary_value(value.binary_value)
            .build()
            .expect("the type is set")
    };
    attributes.into_iter().map(|(name, value)| (name, plain(value))).collect()
}

impl Letter {
    fn of(mut message: Message) -> Self {
        let system = |name: MessageSystemAttributeName| {
            message.attributes.as_ref().and_then(|attributes| attributes.get(&name)).map(String::as_str)
        };
        let number = |name| system(name).and_then(|text| text.parse::<i64>().ok());
        let sent_at = number(MessageSystemAttributeName::SentTimestamp).map(Timestamp::from_millis);
        let receive_count = number(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(0);
        let attributes = message.message_attributes.iter().flatten();
        let attributes = attributes.filter_map(|(name, value)| Some((name.clone(), value.string_value.clone()?)));
        Self {
            sent_at,
            receive_count: u32::try_from(receive_count).unwrap_or(0),
            attributes: attributes.collect(),
            message_id: message.message_id.clone().unwrap_or_default(),
            body: message.body.take().unwrap_or_default(),
            message,
        }
    }

    fn system(&self, name: MessageSystemAttributeName) -> Option<&str> {
        self.message.attributes.as_ref()?.get(&name).map(String::as_str)
    }

    /// Why it is here: as the component said (`reason`), or EventBridge (`ERROR_CODE`, `ERROR_MESSAGE`). SQS says nothing
    /// when a message was received too often.
    pub fn reason(&self) -> String {
        let of = |name: &str| self.attributes.get(name).map(String::as_str);
        match (of("reason"), of("ERROR_CODE")) {
            (Some(reason), _) => reason.to_owned(),
            (None, Some(code)) => [code, of("ERROR_MESSAGE").unwrap_or_default()].join(": "),
            (None, None) => "received too often without success; the log of the function says why".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::adapters::loopback::{Answer, Loopback};

    use super::*;

    fn queue(of: Kept, waiting: u64, answers: Vec<Answer>) -> (DeadLetters, Destination, Loopback) {
        let server = Loopback::answering(answers);
        let session = Session::of_tests("security-pipeline", "eu-central-1", server.endpoint());
        let client = Client::new(session.config());
        let arn = |name: &str| format!("arn:aws:sqs:eu-central-1:123456789012:{name}");
        let destination = Destination { client: client.clone(), url: "http://to".to_owned(), arn: arn("to") };
        let letters =
            DeadLetters { kept: of, client, url: "http://from".to_owned(), arn: arn("from"), waiting, in_flight: 0 };
        (letters, destination, server)
    }

    fn ok(value: &Value) -> Answer {
        Answer::json("200 OK", value)
    }

    fn unknown() -> Answer {
        Answer::json("400 Bad Request", &json!({"__type": "InvalidAction", "message": "no such call"}))
    }

    fn received(ids: &[&str]) -> Answer {
        let messages = ids.iter().map(|id| {
            json!({
                "MessageId": id, "ReceiptHandle": format!("handle of {id}"), "Body": "b",
                "Attributes": {"SentTimestamp": "1764072000000", "ApproximateReceiveCount": "2", "AWSTraceHeader": "Root=1"},
                "MessageAttributes": {"reason": {"DataType": "String", "StringValue": "because"}},
            })
        });
        ok(&json!({"Messages": messages.collect::<Vec<_>>()}))
    }

    fn sent() -> Answer {
        ok(&json!({"MessageId": "new"}))
    }

    fn requests(server: &Loopback) -> Vec<Value> {
        server.requests().iter().map(|body| serde_json::from_str(body).expect("JSON")).collect()
    }

    #[tokio::test]
    async fn looking_gives_everything_back() {
        let answers = vec![received(&["a", "b"]), received(&[]), ok(&json!({"Successful": [], "Failed": []}))];
        let (letters, _, server) = queue(ALL[0], 2, answers);
        let seen = letters.look(10, |_| false).await.expect("answered");
        assert_eq!(
            seen.iter().map(|letter| (&*letter.message_id, letter.receive_count)).collect::<Vec<_>>(),
            [("a", 2), ("b", 2)]
        );
        assert_eq!(seen[0].reason(), "because");
        let returned = &requests(&server)[2]["Entries"];
        assert_eq!(returned[1], json!({"Id": "1", "ReceiptHandle": "handle of b", "VisibilityTimeout": 0}));
    }

    #[tokio::test]
    async fn a_message_goes_with_its_attributes_and_is_deleted_after_its_copy_was_taken() {
        let (letters, destination, server) = queue(ALL[4], 1, vec![received(&["a"]), sent(), ok(&json!({}))]);
        assert_eq!(letters.move_all(&destination, None).await.expect("moved"), 1);
        let [_, sent, deleted] = &requests(&server)[..] else { panic!("three requests") };
        assert_eq!((&sent["QueueUrl"], &sent["MessageBody"]), (&json!("http://to"), &json!("b")));
        assert_eq!(sent["MessageAttributes"]["reason"]["StringValue"], "because");
        assert_eq!(sent["MessageSystemAttributes"]["AWSTraceHeader"]["StringValue"], "Root=1");
        assert_eq!(deleted, &json!({"QueueUrl": "http://from", "ReceiptHandle": "handle of a"}));
    }

    #[tokio::test]
    async fn a_message_whose_copy_was_refused_is_given_back_and_never_deleted() {
        let denied = Answer::json("403 Forbidden", &json!({"__type": "AccessDeniedException", "message": "no"}));
        let returned = ok(&json!({"Successful": [], "Failed": []}));
        let (letters, destination, server) = queue(ALL[4], 2, vec![received(&["a", "b"]), denied, returned]);
        let refusal = letters.move_all(&destination, None).await.expect_err("denied");
        assert_eq!((refusal.call, refusal.kind), ("sqs:SendMessage", Kind::Denied));
        let [_, _, returned] = &requests(&server)[..] else { panic!("nothing is deleted") };
        assert_eq!(returned["Entries"].as_array().expect("entries").len(), 2);
    }

    #[tokio::test]
    async fn sqs_moves_what_it_can_and_what_it_did_is_counted() {
        let done = ok(&json!({"Results": [{"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 7}]}));
        let (letters, destination, server) = queue(ALL[2], 7, vec![ok(&json!({"TaskHandle": "h"})), done]);
        assert_eq!(letters.move_all(&destination, Some(20)).await.expect("moved"), 7);
        let task = &requests(&server)[0];
        assert_eq!(task["DestinationArn"], "arn:aws:sqs:eu-central-1:123456789012:to");
        assert_eq!(task["MaxNumberOfMessagesPerSecond"], 20);
        let failed = ok(&json!({"Results": [{"Status": "FAILED", "FailureReason": "AccessDenied"}]}));
        let (letters, destination, _server) = queue(ALL[2], 7, vec![ok(&json!({"TaskHandle": "h"})), failed]);
        let refusal = letters.move_all(&destination, None).await.expect_err("failed");
        assert!(refusal.why.contains("AccessDenied"), "{refusal}");
    }

    #[tokio::test]
    async fn where_sqs_cannot_move_messages_they_are_moved_by_hand() {
        let answers = vec![unknown(), received(&["a"]), sent(), ok(&json!({}))];
        let (letters, destination, _server) = queue(ALL[0], 1, answers);
        assert_eq!(letters.move_all(&destination, None).await.expect("moved"), 1);
    }

    #[tokio::test]
    async fn one_message_is_moved_and_the_others_are_given_back() {
        let returned = ok(&json!({"Successful": [], "Failed": []}));
        let answers = vec![received(&["a", "b"]), sent(), ok(&json!({})), returned];
        let (letters, destination, server) = queue(ALL[0], 2, answers);
        assert!(letters.move_message("b", &destination).await.expect("moved"));
        let requests = requests(&server);
        assert_eq!(requests[2]["ReceiptHandle"], "handle of b");
        assert_eq!(requests[3]["Entries"][0]["ReceiptHandle"], "handle of a");
        let returned = ok(&json!({"Successful": [], "Failed": []}));
        let (letters, destination, _server) = queue(ALL[0], 2, vec![received(&["a"]), received(&[]), returned]);
        assert!(!letters.move_message("b", &destination).await.expect("answered"));
    }

    #[test]
    fn eventbridge_says_why_in_other_words() {
        let message = Message::builder().body("{}").message_attributes(
            "ERROR_CODE",
            MessageAttributeValue::builder()
                .data_type("String")
                .string_value("NO_PERMISSIONS")
                .build()
                .expect("a type"),
        );
        assert_eq!(Letter::of(message.build()).reason(), "NO_PERMISSIONS: ");
        assert!(Letter::of(Message::builder().build()).reason().contains("received too often"));
    }
}
