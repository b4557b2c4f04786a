//! The handler without a reader in front of it: log files that notifications name, and follow-ups.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write;

use aws_classifier::alarms::Alarms;
use aws_classifier::classifiers;
use aws_classifier::engine::Engine;
use aws_classifier::handler::{ClassifierHandler, Counts};
use aws_classifier::inspect::{self, Inspector};
use aws_classifier::reputation::{Reputation, Services};
use aws_classifier::surroundings::Cloud;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::adapters::memory::{FixedClock, MemoryState, NoFiles};
use shared::config::Document;
use shared::ports::{
    BatchResult, DELAY_S_MAX, Delayed, DelayedOutbox, Handler, LogPages, LogQuery, LogRecords, Message, ObjectBody,
    ObjectRef, Objects, Opening, Outbox, PortError, PortResult, Web, WebAnswer, WebRequest,
};
use shared::{Envelope, Finding, Payload, Timestamp};

/// What was sent.
struct Sent<T>(RefCell<Vec<T>>);

impl Outbox for Sent<String> {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        self.0.borrow_mut().extend_from_slice(bodies);
        Ok(())
    }
}

impl DelayedOutbox for &Sent<Delayed> {
    async fn send_delayed(&self, messages: &[Delayed]) -> PortResult<()> {
        self.0.borrow_mut().extend_from_slice(messages);
        Ok(())
    }
}

/// Objects by `bucket/key` or `bucket/key?version`, read a few bytes at a time; the entity tag of one is its length.
/// Reading from the bucket `broken` ends in the middle.
#[derive(Default)]
struct Buckets(BTreeMap<String, Vec<u8>>);

struct Reading {
    chunks: std::vec::IntoIter<Vec<u8>>,
    breaks: bool,
}

impl Objects for &Buckets {
    type Body = Reading;

    async fn open(&self, object: &ObjectRef<'_>) -> PortResult<Opening<Reading>> {
        let version = object.version_id.map(|version| format!("?{version}")).unwrap_or_default();
        let Some(content) = self.0.get(&format!("{}/{}{version}", object.bucket, object.key)) else {
            return Ok(Opening::Gone);
        };
        if object.etag.is_some_and(|etag| etag != content.len().to_string()) {
            return Ok(Opening::Replaced);
        }
        let breaks = object.bucket == "broken";
        let mut chunks: Vec<Vec<u8>> = content.chunks(700).map(<[u8]>::to_vec).collect();
        chunks.truncate(if breaks { chunks.len() / 2 } else { chunks.len() });
        Ok(Opening::Opened(Reading { chunks: chunks.into_iter(), breaks }))
    }
}

impl ObjectBody for Reading {
    fn content_type(&self) -> Option<&str> {
        Some("text/plain")
    }

    fn etag(&self) -> Option<&str> {
        None
    }

    async fn next(&mut self) -> PortResult<Option<Vec<u8>>> {
        match self.chunks.next() {
            None if self.breaks => Err(PortError::Retryable { what: "the connection broke".into(), source: None }),
            next => Ok(next),
        }
    }
}

/// A log group of CloudTrail, whose records come by two. Their own time is when they were written.
#[derive(Default)]
struct LogGroup {
    records: RefCell<Vec<Value>>,
    /// Log group, first and last moment of each question.
    asked: RefCell<Vec<(String, String, String)>>,
    /// Instead of answering: whether it may work later.
    fails: Cell<Option<bool>>,
}

struct FoundThere(std::vec::IntoIter<Vec<String>>);

impl LogRecords for &LogGroup {
    type Found = FoundThere;

    async fn find(&self, query: &LogQuery<'_>) -> PortResult<FoundThere> {
        self.asked.borrow_mut().push((query.log_group.to_owned(), query.from.to_string(), query.until.to_string()));
        match self.fails.get() {
            Some(true) => return Err(PortError::Retryable { what: "the query took too long".into(), source: None }),
            Some(false) => return Err(PortError::Permanent { what: "AccessDenied".into(), source: None }),
            None => {}
        }
        let is_wanted = |record: &&Value| {
            let time = Timestamp::parse(record["eventTime"].as_str().expect("a time")).expect("a time");
            let name = record["eventName"].as_str().expect("a name");
            (query.from..=query.until).contains(&time) && query.events.iter().any(|event| event == name)
        };
        let records = self.records.borrow();
        let found: Vec<String> = records.iter().filter(is_wanted).map(Value::to_string).collect();
        Ok(FoundThere(found.chunks(2).map(<[String]>::to_vec).collect::<Vec<_>>().into_iter()))
    }
}

impl LogPages for FoundThere {
    async fn next(&mut self) -> PortResult<Option<Vec<String>>> {
        Ok(self.0.next())
    }
}

fn inspector() -> Inspector {
    let settings = inspect::Settings { buckets: vec!["up*s".to_owned()], object_bytes_max: 2000, ..Default::default() };
    Inspector::new(settings, &NoFiles).expect("settings")
}

/// Outside services, which know some files as malicious, by the end of the address.
#[derive(Default)]
struct KnownFiles {
    hashes: Vec<String>,
    asked: RefCell<Vec<String>>,
    /// Instead of answering.
    fail: bool,
}

impl Web for &KnownFiles {
    async fn get(&self, request: &WebRequest) -> Result<WebAnswer, String> {
        self.asked.borrow_mut().push(request.url.clone());
        let hash = request.url.rsplit('/').next().expect("a path");
        let stats = json!({"malicious": 40, "suspicious": 0, "undetected": 30, "harmless": 0});
        let known = json!({"data": {"id": hash, "attributes": {"last_analysis_stats": stats}}});
        let (status, body) = match self.hashes.iter().any(|known| known == hash) {
            _ if self.fail => return Err("not reached: connection refused".into()),
            true => (200, known),
            false => (404, json!({"error": {"code": "NotFoundError"}})),
        };
        Ok(WebAnswer { status, retry_after: None, body: body.to_string().into_bytes() })
    }
}

type Function<'w, O = &'w Sent<String>> = ClassifierHandler<
    MemoryState,
    O,
    Cloud<&'w Sent<Delayed>, &'w Buckets, &'w LogGroup, &'w FixedClock, &'w KnownFiles>,
>;

/// Everything around one handler.
struct World {
    clock: FixedClock,
    findings: Sent<String>,
    own_queue: Sent<Delayed>,
    buckets: Buckets,
    logs: LogGroup,
    services: KnownFiles,
}

impl World {
    fn at(time: &str) -> Self {
        let clock = FixedClock::at(Timestamp::parse(time).expect("a time"));
        Self {
            clock,
            findings: Sent(RefCell::default()),
            own_queue: Sent(RefCell::default()),
            buckets: Buckets::default(),
            logs: LogGroup::default(),
            services: KnownFiles::default(),
        }
    }

    /// A function that was just started, with state of its own.
    fn handler(&self) -> Function<'_> {
        self.asking(Services::default())
    }

    /// The same, which asks outside services.
    fn asking(&self, services: Services) -> Function<'_> {
        self.sending(&self.findings, services)
    }

    /// The same, which sends findings to `outbox`.
    fn sending<O: Outbox>(&self, outbox: O, services: Services) -> Function<'_, O> {
        let engine = Engine::with_defaults(classifiers::ALL, &NoFiles).expect("defaults");
        let cloud = Cloud {
            own_queue: &self.own_queue,
            objects: &self.buckets,
            logs: &self.logs,
            clock: &self.clock,
            reputation: Reputation::new(services, &self.services),
        };
        ClassifierHandler::surrounded(engine, MemoryState::default(), outbox, cloud)
    }

    fn put(&mut self, name: &str, content: Vec<u8>) {
        self.buckets.0.insert(name.to_owned(), content);
    }

    /// The same, which inspects the objects of the bucket `uploads`.
    fn inspecting(&self) -> Function<'_> {
        self.handler().inspecting(Some(inspector()))
    }

    /// The same, which looks into a log group when certain alarms go off.
    fn looking(&self) -> Function<'_> {
        let settings = "[alarms]\nnames = [\"mass-*\"]\nlog_group = \"trail\"\n";
        let mut document = Document::parse("pipeline.toml", settings);
        let alarms = Alarms::configure(&mut document).reading(None).expect("settings");
        self.handler().looking_into(alarms)
    }

    /// The findings since the last call.
    fn findings(&self) -> Vec<Finding> {
        let bodies = self.findings.0.take();
        let findings = bodies.iter().map(|body| match Envelope::from_body(body).expect("an envelope").payload {
            Payload::Finding(finding) => *finding,
            other => panic!("no finding: {other:?}"),
        });
        findings.collect()
    }
}

fn messages(bodies: &[String]) -> Vec<Message> {
    let message =
        |(i, body): (usize, &String)| Message { message_id: format!("m{i}"), body: body.clone(), receive_count: 1 };
    bodies.iter().enumerate().map(message).collect()
}

fn key_created(event_id: &str) -> Value {
    json!({"eventVersion": "1.09", "eventTime": "2026-03-01T12:00:00Z", "eventSource": "iam.amazonaws.com",
           "eventName": "CreateAccessKey", "awsRegion": "us-east-1", "recipientAccountId": "123456789012",
           "eventID": event_id, "eventType": "AwsApiCall", "sourceIPAddress": "198.51.100.10",
           "userIdentity": {"type": "IAMUser", "accountId": "123456789012", "userName": "alice",
                            "arn": "arn:aws:iam::123456789012:user/alice"},
           "requestParameters": {"userName": "bob"},
           "responseElements": {"accessKey": {"userName": "bob", "accessKeyId": "AKIAEXAMPLE", "status": "Active"}}})
}

fn uninteresting(event_id: &str) -> Value {
    let mut record = key_created(event_id);
    record["eventName"] = "ListUsers".into();
    record
}

const FILE: &str = "AWSLogs/123456789012/CloudTrail/us-east-1/2026/03/01/x.json.gz";

fn notice(bucket: &str, key: &str) -> String {
    let s3 = json!({"bucket": {"name": bucket}, "object": {"key": key}});
    json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": s3}]}).to_string()
}

fn gzip(records: &[Value]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(json!({ "Records": records }).to_string().as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn a_log_file_is_read_and_every_record_counted() {
    let mut world = World::at("2026-03-01T12:05:00Z");
    // More records than are classified together, so that the file is handled in parts.
    let mut records: Vec<Value> = (0..1200).map(|i| key_created(&format!("e{i}"))).collect();
    records.extend((0..300).map(|i| uninteresting(&format!("u{i}"))));
    world.put(&format!("trail/{FILE}"), gzip(&records));
    let handler = world.handler();
    let batch = messages(&[notice("trail", FILE), key_created("e0").to_string()]);
    assert_eq!(handler.handle(&batch).await, BatchResult::default());
    let ids: std::collections::BTreeSet<_> = world.findings().iter().map(|f| f.finding_id).collect();
    assert_eq!(ids.len(), 1200, "the event that came both ways is one finding");
    let Counts { records_in, classified, ignored, failed, .. } = handler.counts();
    assert_eq!((records_in, classified, ignored, failed), (1501, 1201, 300, 0));
}

/// What CloudWatch Logs sends to Firehose is a gzip file for each batch, and Firehose puts one behind the other.
#[tokio::test]
async fn lines_of_log_groups_that_firehose_puts_into_the_bucket_are_read() {
    const KEY: &str = "AWSLogs/123456789012/CloudWatchLogs/2026/03/01/12/web-1-2026-03-01-12-05-00-x.json.gz";
    let gzip = |batch: Value| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(batch.to_string().as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    };
    let batch = |group: &str, lines: &[&str]| {
        let events: Vec<Value> = lines.iter().map(|line| json!({"id": "1", "timestamp": 1, "message": line})).collect();
        let from = json!({"messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": group, "logStream": "s"});
        let mut batch = from;
        batch["logEvents"] = events.into();
        gzip(batch)
    };
    let scan = "203.0.113.9 - - [01/Mar/2026:12:00:00 +0000] \"GET /?id=1 HTTP/1.1\" 200 12 \"-\" \"sqlmap/1.7.2\"";
    let visit = "203.0.113.10 - - [01/Mar/2026:12:00:00 +0000] \"GET / HTTP/1.1\" 200 12 \"-\" \"Mozilla/5.0\"";
    let record = key_created("e1").to_string();
    let mut world = World::at("2026-03-01T12:05:00Z");
    world.put(&format!("trail/{KEY}"), [batch("web", &[visit, scan]), batch("web", &[visit])].concat());
    world.put(&format!("others/{KEY}"), batch("nobody's", &[&record]));
    let handler = world.handler();
    let failed = handler.handle(&messages(&[notice("trail", KEY), notice("others", KEY)])).await.failed;
    let found: Vec<_> = world.findings().into_iter().map(|f| (f.classifier, f.source_ip)).collect();
    assert_eq!(found, [("web_scanner_detected".to_owned(), "203.0.113.9".to_owned())]);
    let [failed] = &failed[..] else { panic!("one: {failed:?}") };
    assert!(failed.message_id == "m1" && failed.reason.contains("[log_groups] does not name"), "{failed:?}");
    assert_eq!(handler.counts().records_in, 4);
}

#[tokio::test]
async fn other_objects_are_counted_and_not_opened() {
    let world = World::at("2026-03-01T12:05:00Z");
    let handler = world.handler();
    let digest = FILE.replace("CloudTrail", "CloudTrail-Digest");
    let batch = messages(&[notice("trail", &digest), json!({"Event": "s3:TestEvent"}).to_string()]);
    assert_eq!(handler.handle(&batch).await, BatchResult::default());
    assert_eq!((handler.counts().records_in, handler.counts().ignored), (2, 2));
}

#[tokio::test]
async fn failures_stay_with_their_message_and_say_which_file() {
    let mut world = World::at("2026-03-01T12:05:00Z");
    let mut bad = key_created("bad");
    bad["eventName"] = 7.into();
    world.put(&format!("trail/{FILE}"), gzip(&[key_created("good"), bad]));
    let whole = gzip(&(0..100).map(|i| key_created(&format!("e{i}"))).collect::<Vec<_>>());
    world.put(&format!("broken/{FILE}"), whole.clone());
    world.put(&format!("damaged/{FILE}"), whole[..whole.len() - 100].to_vec());
    let handler = world.handler();
    let names = ["trail", "broken", "damaged", "missing"];
    let batch = messages(&names.map(|bucket| notice(bucket, FILE)));
    let failed = handler.handle(&batch).await.failed;
    let shown: Vec<_> = failed.iter().map(|f| (f.message_id.as_str(), f.retryable)).collect();
    assert_eq!(shown, [("m0", false), ("m1", true), ("m2", false), ("m3", false)]);
    let reasons: Vec<&str> = failed.iter().map(|f| f.reason.as_str()).collect();
    assert_eq!(reasons[0], format!("1 unreadable: s3://trail/{FILE} record 1: eventName is not a string"));
    assert!(reasons[1].contains("the connection broke"), "{reasons:?}");
    assert!(reasons[2].contains(&format!("s3://damaged/{FILE} is damaged")), "{reasons:?}");
    assert!(reasons[3].contains(&format!("s3://missing/{FILE} is not there")), "{reasons:?}");
    let found: Vec<_> = world.findings().into_iter().map(|f| f.event_id).collect();
    assert!(found.contains(&"good".to_owned()), "the good record had its effect");
    assert!(found.contains(&"e60".to_owned()), "and so had what came before the damage: {found:?}");
    let counts = handler.counts();
    assert_eq!(counts.records_in, counts.classified + counts.ignored + counts.failed);
    assert_eq!(counts.failed, 5, "a record, a broken file, a damaged one and the record it ends in, a missing one");
}

/// An outbox that refuses every call with this text in a body, as a queue does that refuses a content, and counts the calls.
struct Refusing<'w> {
    text: &'static str,
    retryable: bool,
    taken: &'w Sent<String>,
    calls: Cell<usize>,
}

impl Outbox for &Refusing<'_> {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        self.calls.set(self.calls.get() + 1);
        if !bodies.iter().any(|body| body.contains(self.text)) {
            return self.taken.send(bodies).await;
        }
        let what = "could not send".to_owned();
        Err(match self.retryable {
            true => PortError::Retryable { what, source: None },
            false => PortError::Permanent { what, source: None },
        })
    }
}

fn refused(world: &World, outbox: &Refusing<'_>, bodies: &[String]) -> (Vec<(String, bool)>, Counts) {
    let handler = world.sending(outbox, Services::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let failed = runtime.block_on(handler.handle(&messages(bodies))).failed;
    (failed.into_iter().map(|f| (f.message_id, f.retryable)).collect(), handler.counts())
}

#[test]
fn what_is_wrong_with_one_message_costs_no_other_of_its_batch() {
    let world = World::at("2026-03-01T12:05:00Z");
    let outbox = Refusing { text: "poison", retryable: false, taken: &world.findings, calls: Cell::default() };
    let mut bodies = ["good", "poison", "good", "other"].map(|id| key_created(id).to_string()).to_vec();
    bodies.extend([uninteresting("u").to_string(), "{".to_owned()]);
    let (failed, counts) = refused(&world, &outbox, &bodies);
    assert_eq!(failed, [("m1".to_owned(), false), ("m5".to_owned(), false)]);
    let found: std::collections::BTreeSet<_> = world.findings().into_iter().map(|f| f.event_id).collect();
    assert_eq!(found, ["good".to_owned(), "other".to_owned()].into());
    let Counts { records_in, classified, ignored, failed, .. } = counts;
    assert_eq!((records_in, classified, ignored, failed), (6, 3, 1, 2));
}

#[test]
fn a_message_that_fails_alone_counts_as_in_and_failed() {
    let world = World::at("2026-03-01T12:05:00Z");
    for retryable in [false, true] {
        let outbox = Refusing { text: "poison", retryable, taken: &world.findings, calls: Cell::default() };
        let body = json!({"Records": [key_created("poison"), key_created("with it")]}).to_string();
        let (failed, counts) = refused(&world, &outbox, &[body]);
        assert_eq!(failed, [("m0".to_owned(), retryable)]);
        assert_eq!((counts.records_in, counts.failed, counts.findings), (2, 2, 0));
    }
}

#[test]
fn what_does_not_answer_is_not_asked_for_each_message() {
    let world = World::at("2026-03-01T12:05:00Z");
    let outbox = Refusing { text: "", retryable: true, taken: &world.findings, calls: Cell::default() };
    let bodies: Vec<String> = (0..10).map(|i| key_created(&format!("e{i}")).to_string()).collect();
    let (failed, counts) = refused(&world, &outbox, &bodies);
    assert!(failed.len() == 10 && failed.iter().all(|(_, retryable)| *retryable), "{failed:?}");
    assert_eq!(outbox.calls.get(), 3, "together, and two alone");
    assert_eq!((counts.records_in, counts.failed), (10, 10));
}

fn opening(time: &str) -> String {
    let rule = json!({"ipProtocol": "tcp", "fromPort": 22, "toPort": 22,
                      "ipRanges": {"items": [{"cidrIp": "0.0.0.0/0"}]}});
    let mut record = key_created("opening");
    record["eventTime"] = time.into();
    record["eventSource"] = "ec2.amazonaws.com".into();
    record["eventName"] = "AuthorizeSecurityGroupIngress".into();
    record["requestParameters"] = json!({"groupId": "sg-0a1", "ipPermissions": {"items": [rule]}});
    record["responseElements"] = json!({"_return": true});
    record.to_string()
}

#[tokio::test]
async fn a_follow_up_goes_round_its_queue_until_it_is_due() {
    let world = World::at("2026-03-01T12:01:00Z");
    let handler = world.handler();
    assert_eq!(handler.handle(&messages(&[opening("2026-03-01T12:00:00Z")])).await, BatchResult::default());
    world.findings();
    let mut rounds = 0;
    let left_open = loop {
        let [Delayed { body, delay_s }] = &world.own_queue.0.take()[..] else { panic!("one follow-up") };
        assert!(*delay_s <= DELAY_S_MAX);
        world.clock.set(shared::ports::Clock::now(&world.clock).plus_seconds(i64::from(*delay_s)));
        rounds += 1;
        assert_eq!(handler.handle(&messages(std::slice::from_ref(body))).await, BatchResult::default());
        match &world.findings()[..] {
            [] => assert!(rounds < 10, "it comes to an end"),
            [finding] => break finding.clone(),
            more => panic!("one finding: {more:?}"),
        }
    };
    assert_eq!(left_open.classifier, "security_group_left_open");
    // 12:01 to 13:15: an hour of grace from 12:00 and a quarter for what arrives late, in steps of a quarter.
    assert_eq!(rounds, 5);
    assert_eq!(shared::ports::Clock::now(&world.clock).to_string(), "2026-03-01T13:15:01Z");
    assert_eq!(handler.counts().records_in, 2, "the opening, and the follow-up once");
    assert!(world.own_queue.0.take().is_empty(), "a follow-up has none of its own");
}

#[tokio::test]
async fn an_opening_that_was_closed_meanwhile_is_not_reported() {
    let world = World::at("2026-03-01T15:00:00Z");
    let handler = world.handler();
    let closing = opening("2026-03-01T12:30:00Z")
        .replace("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress")
        .replace("\"opening\"", "\"closing\"");
    handler.handle(&messages(&[opening("2026-03-01T12:00:00Z"), closing])).await;
    world.findings();
    let [Delayed { body, delay_s: 1 }] = &world.own_queue.0.take()[..] else { panic!("one follow-up, due") };
    assert_eq!(handler.handle(&messages(std::slice::from_ref(body))).await, BatchResult::default());
    assert_eq!(world.findings(), []);
}

/// EventBridge's notification of a new object.
fn uploaded(bucket: &str, key: &str, size: usize) -> String {
    json!({"version": "0", "id": "n-1", "detail-type": "Object Created", "source": "aws.s3", "account": "123456789012",
           "time": "2026-03-01T12:00:00Z", "region": "eu-central-1",
           "detail": {"bucket": {"name": bucket}, "object": {"key": key, "size": size, "sequencer": "0055AED6DCD90281E5"},
                      "requester": "123456789012", "source-ip-address": "203.0.113.9", "reason": "PutObject"}})
    .to_string()
}

#[tokio::test]
async fn objects_of_watched_buckets_are_inspected() {
    let mut world = World::at("2026-03-01T12:00:05Z");
    let shell = b"<?php eval(base64_decode($_POST['x'])); system($_GET['c']); ?>".to_vec();
    world.put("uploads/me.php", shell.clone());
    world.put("builds/me.php", shell);
    world.put("uploads/notes.txt", b"Bring the minutes.".to_vec());
    let handler = world.inspecting();
    let bodies = [("uploads", "me.php"), ("uploads", "notes.txt"), ("builds", "me.php")];
    let bodies = bodies.map(|(bucket, key)| uploaded(bucket, key, 62));
    let batch = messages(&bodies);
    assert_eq!(handler.handle(&batch).await, BatchResult::default());
    let found = world.findings();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&*found[0].classifier, &*found[0].resource), ("s3_malicious_file", "arn:aws:s3:::uploads/me.php"));
    assert_eq!((&*found[0].account, &*found[0].source_ip), ("123456789012", "203.0.113.9"));
    let Counts { records_in, classified, ignored, failed, .. } = handler.counts();
    assert_eq!((records_in, classified, ignored, failed), (3, 2, 1, 0));
    assert_eq!(handler.handle(&batch[..1]).await, BatchResult::default());
    assert_eq!(world.findings()[0].finding_id, found[0].finding_id, "delivered again it is the same finding");
}

#[tokio::test]
async fn an_upload_cannot_pass_for_a_log_file() {
    let mut world = World::at("2026-03-01T12:00:05Z");
    world.put(&format!("uploads/{FILE}"), gzip(&[key_created("forged")]));
    let handler = world.inspecting();
    assert_eq!(handler.handle(&messages(&[uploaded("uploads", FILE, 300)])).await, BatchResult::default());
    let found: Vec<String> = world.findings().into_iter().map(|finding| finding.classifier).collect();
    assert_eq!(found, ["s3_malicious_file"], "text that is gzip, and nothing of what is in it");
    assert_eq!(handler.counts().records_in, 1, "the object and nothing in it");
    let read = world.handler().handle(&messages(&[uploaded("uploads", FILE, 300)])).await;
    assert_eq!((read, world.findings().len()), (BatchResult::default(), 1), "in a bucket of logs it is one");
}

#[tokio::test]
async fn of_a_large_object_the_beginning_is_inspected() {
    let mut world = World::at("2026-03-01T12:00:05Z");
    world.put("uploads/a.php", [b"<?php eval(base64_decode($x)); ?>".to_vec(), vec![b' '; 9000]].concat());
    let handler = world.inspecting();
    assert_eq!(handler.handle(&messages(&[uploaded("uploads", "a.php", 9033)])).await, BatchResult::default());
    let found = world.findings();
    assert_eq!(found[0].evidence["size"], 9033);
    assert_eq!(found[0].evidence["reasons"][0], "hash: only the first 2000 of 9033 bytes were looked at, no hashes");
}

/// The same notification, of this version and content.
fn announced(key: &str, version_id: Option<&str>, etag: &str) -> String {
    let mut notice: Value = serde_json::from_str(&uploaded("uploads", key, 500)).expect("JSON");
    notice["detail"]["object"]["etag"] = etag.into();
    if let Some(version) = version_id {
        notice["detail"]["object"]["version-id"] = version.into();
    }
    notice.to_string()
}

#[tokio::test]
async fn the_announced_version_is_inspected_and_not_the_newest() {
    let mut world = World::at("2026-03-01T12:00:05Z");
    let shell = b"<?php eval(base64_decode($_POST['x'])); system($_GET['c']); ?>".to_vec();
    world.put("uploads/a.txt?v1", shell);
    world.put("uploads/a.txt?v2", b"Nothing to see.".to_vec());
    world.put("uploads/a.txt", b"Nothing to see.".to_vec());
    let handler = world.inspecting();
    let batch = messages(&[announced("a.txt", Some("v1"), "62"), announced("a.txt", Some("v2"), "15")]);
    assert_eq!(handler.handle(&batch).await, BatchResult::default());
    let found = world.findings();
    assert_eq!(found.len(), 1, "one of the two versions is malicious: {found:?}");
    assert_eq!((found[0].evidence["size"].as_u64(), handler.counts().classified), (Some(62), 2));
}

#[tokio::test]
async fn what_is_gone_or_replaced_is_said_and_judged_by_its_name() {
    let mut world = World::at("2026-03-01T12:00:05Z");
    world.put("uploads/now.php", b"<?php // another content than the announced one".to_vec());
    let handler = world.inspecting();
    for (key, version, what) in [
        ("gone.php", None, "deleted"),
        ("now.php", None, "replaced"),
        ("now.php", Some("v1"), "deleted"),
        ("gone.txt", None, ""),
    ] {
        let batch = messages(&[announced(key, version, "500")]);
        assert_eq!(handler.handle(&batch).await, BatchResult::default(), "trying again would not bring it back");
        let found = world.findings();
        let Some(finding) = found.first() else {
            assert_eq!(what, "", "{key}");
            continue;
        };
        let said = format!("content: it was {what} before it was looked at: judged by name and size only");
        let reasons: Vec<&str> =
            finding.evidence["reasons"].as_array().expect("reasons").iter().filter_map(Value::as_str).collect();
        assert_eq!(reasons, [&*said, "metadata: extension .php (+30)"], "{key}");
        assert_eq!(finding.title, "Suspicious file was uploaded to S3");
    }
    assert_eq!(handler.counts().records_in, 4);
    assert_eq!(handler.counts().classified, 4);
}

fn virustotal() -> Services {
    let mut document = Document::parse("pipeline.toml", "[inspection.virustotal]\nkey_env = \"KEY\"\n");
    Services::configure(&mut document, &|_| Ok("secret".to_owned()))
}

#[tokio::test]
async fn uploads_of_a_batch_are_looked_up_and_what_is_known_is_found() {
    let mut world = World::at("2026-03-01T12:00:05Z");
    for key in ["a.txt", "b.txt", "same-as-b.txt"] {
        world.put(&format!("uploads/{key}"), format!("content of {}", key.replace("same-as-", "")).into_bytes());
    }
    world.services.hashes.push(Sha256::digest("content of b.txt").iter().map(|byte| format!("{byte:02x}")).collect());
    let handler = world.asking(virustotal()).inspecting(Some(inspector()));
    let batch = messages(&["a.txt", "b.txt", "same-as-b.txt"].map(|key| uploaded("uploads", key, 16)));
    assert_eq!(handler.handle(&batch).await, BatchResult::default());
    let found = world.findings();
    let resources: Vec<&str> = found.iter().map(|finding| finding.resource.as_str()).collect();
    assert_eq!(resources, ["arn:aws:s3:::uploads/b.txt", "arn:aws:s3:::uploads/same-as-b.txt"]);
    assert_eq!(found[0].severity, shared::Severity::Critical);
    let reason = "virustotal: 40 of 70 engines call it malicious, 0 suspicious";
    assert_eq!(found[0].evidence["reasons"], json!([reason]));
    assert_eq!(world.services.asked.take().len(), 2, "two contents");
    handler.handle(&batch).await;
    assert_eq!(
        (world.services.asked.take().len(), world.findings().len()),
        (0, 2),
        "remembered, and the same findings"
    );
}

#[tokio::test]
async fn a_service_that_fails_fails_no_message() {
    let mut world = World::at("2026-03-01T12:00:05Z");
    world.services.fail = true;
    for n in 0..10 {
        world.put(&format!("uploads/{n}.sh"), format!("echo {n} # {}", "-".repeat(60)).into_bytes());
    }
    let handler = world.asking(virustotal()).inspecting(Some(inspector()));
    let batch: Vec<String> = (0..10).map(|n| uploaded("uploads", &format!("{n}.sh"), 70)).collect();
    assert_eq!(handler.handle(&messages(&batch)).await, BatchResult::default());
    let found = world.findings();
    assert_eq!(found.len(), 10, "a script is suspicious by its name");
    for finding in &found {
        let reasons = finding.evidence["reasons"].to_string();
        assert!(
            reasons.contains("virustotal: no opinion: not reached") || reasons.contains("virustotal: not asked:"),
            "{reasons}"
        );
    }
    assert!(world.services.asked.take().len() <= 4, "four at a time, and after the third failure no more");
}

/// `alarm` of the account went off, or whatever its state is, at 12:00:00.
fn alarm(name: &str, state: &str) -> String {
    json!({"version": "0", "id": "alarm-1", "detail-type": "CloudWatch Alarm State Change", "source": "aws.cloudwatch",
           "account": "123456789012", "time": "2026-03-01T12:00:01Z", "region": "eu-central-1", "resources": [],
           "detail": {"alarmName": name, "previousState": {"value": "OK"},
                      "state": {"value": state, "reason": "crossed", "timestamp": "2026-03-01T12:00:00.000+0000"}}})
    .to_string()
}

/// A user started so many instances.
fn instances(event_id: &str, time: &str, user: &str, count: usize) -> Value {
    let items: Vec<Value> = (0..count).map(|i| json!({"instanceId": format!("i-{user}{event_id}{i}")})).collect();
    json!({"eventVersion": "1.10", "eventTime": time, "eventSource": "ec2.amazonaws.com", "eventName": "RunInstances",
           "awsRegion": "eu-central-1", "recipientAccountId": "123456789012", "eventID": event_id,
           "eventType": "AwsApiCall", "sourceIPAddress": "198.51.100.7",
           "userIdentity": {"type": "IAMUser", "accountId": "123456789012", "userName": user,
                            "arn": format!("arn:aws:iam::123456789012:user/{user}")},
           "requestParameters": {"instanceType": "g5.xlarge", "instancesSet": {"items": [{"maxCount": count}]}},
           "responseElements": {"instancesSet": {"items": items}}})
}

/// Alice and Bob start too many within five minutes, Carol does not.
fn mass_creation() -> Vec<Value> {
    vec![
        instances("a1", "2026-03-01T11:57:00Z", "alice", 6),
        instances("b1", "2026-03-01T11:57:30Z", "bob", 11),
        instances("c1", "2026-03-01T11:58:00Z", "carol", 10),
        instances("a2", "2026-03-01T11:59:00Z", "alice", 5),
    ]
}

fn about(findings: &[Finding]) -> Vec<(&str, &str, &str)> {
    let mut shown: Vec<_> = findings
        .iter()
        .map(|f| (&*f.classifier, &*f.event_id, f.resource.rsplit('/').next().expect("a name")))
        .collect();
    shown.sort_unstable();
    shown
}

const MASS: &str = "ec2_mass_instance_creation";

#[tokio::test]
async fn an_alarm_leads_to_the_records_around_its_time_and_users_are_told_apart() {
    let world = World::at("2026-03-01T13:00:00Z");
    world.logs.records.replace(mass_creation());
    let handler = world.looking();
    assert_eq!(handler.handle(&messages(&[alarm("mass-instances", "ALARM")])).await, BatchResult::default());
    assert_eq!(about(&world.findings()), [(MASS, "a2", "alice"), (MASS, "b1", "bob")]);
    let asked = ("trail".to_owned(), "2026-03-01T11:55:00Z".to_owned(), "2026-03-01T12:05:00Z".to_owned());
    assert_eq!(world.logs.asked.take(), [asked]);
    assert!(world.own_queue.0.take().is_empty(), "all of it has arrived by now");
    let Counts { records_in, classified, ignored, failed, .. } = handler.counts();
    assert_eq!((records_in, classified, ignored, failed), (5, 5, 0, 0), "the alarm and four records");
}

#[tokio::test]
async fn the_window_ends_at_five_minutes_and_no_further() {
    let world = World::at("2026-03-01T13:00:00Z");
    world.logs.records.replace(vec![
        instances("e1", "2026-03-01T11:54:59Z", "alice", 11),
        instances("e2", "2026-03-01T11:55:00Z", "bob", 11),
        instances("e3", "2026-03-01T12:05:00Z", "carol", 11),
        instances("e4", "2026-03-01T12:05:01Z", "dave", 11),
        key_created("e5"),
    ]);
    let handler = world.looking();
    assert_eq!(handler.handle(&messages(&[alarm("mass-instances", "ALARM")])).await, BatchResult::default());
    assert_eq!(about(&world.findings()), [(MASS, "e2", "bob"), (MASS, "e3", "carol")]);
}

#[tokio::test]
async fn the_notification_of_sns_leads_there_too() {
    let world = World::at("2026-03-01T13:00:00Z");
    world.logs.records.replace(mass_creation());
    let message = json!({"AlarmName": "mass-instances", "AWSAccountId": "123456789012", "NewStateValue": "ALARM",
        "OldStateValue": "OK", "NewStateReason": "crossed", "StateChangeTime": "2026-03-01T12:00:00.000+0000",
        "AlarmArn": "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:mass-instances"});
    let body = json!({"Type": "Notification", "Message": message.to_string()}).to_string();
    let handler = world.looking();
    assert_eq!(handler.handle(&messages(&[body])).await, BatchResult::default());
    assert_eq!(about(&world.findings()), [(MASS, "a2", "alice"), (MASS, "b1", "bob")]);
}

#[tokio::test]
async fn other_alarms_and_other_states_lead_nowhere() {
    let world = World::at("2026-03-01T13:00:00Z");
    world.logs.records.replace(mass_creation());
    let bodies = [("mass-instances", "OK"), ("mass-instances", "INSUFFICIENT_DATA"), ("cpu", "ALARM")];
    let bodies = bodies.map(|(name, state)| alarm(name, state));
    assert_eq!(world.looking().handle(&messages(&bodies)).await, BatchResult::default());
    let by_default = world.handler().handle(&messages(&[alarm("mass-instances", "ALARM")])).await;
    assert_eq!((by_default, world.findings(), world.logs.asked.take()), (BatchResult::default(), vec![], vec![]));
}

#[tokio::test]
async fn records_that_also_came_as_events_are_the_same_findings() {
    let world = World::at("2026-03-01T12:00:30Z");
    world.logs.records.replace(mass_creation());
    let handler = world.looking();
    let events: Vec<String> = mass_creation().iter().map(Value::to_string).collect();
    assert_eq!(handler.handle(&messages(&events)).await, BatchResult::default());
    let by_event = world.findings();
    let all = [events, vec![alarm("mass-instances", "ALARM")]].concat();
    assert_eq!(handler.handle(&messages(&all)).await, BatchResult::default());
    let ids = |findings: &[Finding]| findings.iter().map(|f| f.finding_id).collect::<std::collections::BTreeSet<_>>();
    let both_ways = world.findings();
    assert_eq!((by_event.len(), both_ways.len()), (2, 4), "said again, as to every second delivery");
    assert_eq!(ids(&both_ways), ids(&by_event));
    assert_eq!(both_ways[2..], both_ways[..2], "to the last fact");
}

#[tokio::test]
async fn an_alarm_is_looked_into_at_once_and_until_all_has_arrived() {
    let world = World::at("2026-03-01T12:00:02Z");
    world.logs.records.replace(mass_creation()[..2].to_vec());
    let handler = world.looking();
    let mut body = alarm("mass-instances", "ALARM");
    let (mut found, mut times) = (Vec::new(), Vec::new());
    loop {
        times.push(shared::ports::Clock::now(&world.clock).to_string());
        assert_eq!(handler.handle(&messages(std::slice::from_ref(&body))).await, BatchResult::default());
        found.push(about(&world.findings()).into_iter().map(|(_, id, _)| id.to_owned()).collect::<Vec<_>>());
        // Late, and from the other half of the window.
        world
            .logs
            .records
            .replace([mass_creation(), vec![instances("d1", "2026-03-01T12:04:59Z", "dave", 11)]].concat());
        let sent = world.own_queue.0.take();
        let Some(Delayed { body: next, delay_s }) = sent.first() else { break };
        assert_eq!((sent.len(), *delay_s <= DELAY_S_MAX, next), (1, true, &body));
        world.clock.set(shared::ports::Clock::now(&world.clock).plus_seconds(i64::from(*delay_s)));
        body = next.clone();
    }
    assert_eq!(times, ["2026-03-01T12:00:02Z", "2026-03-01T12:15:02Z", "2026-03-01T12:20:01Z"]);
    assert_eq!(found, [vec!["b1"], vec!["a2", "b1", "d1"], vec!["a2", "b1", "d1"]]);
}

#[tokio::test]
async fn an_alarm_that_is_delivered_again_doubles_nothing() {
    let world = World::at("2026-03-01T13:00:00Z");
    world.logs.records.replace(mass_creation());
    let handler = world.looking();
    let twice = [alarm("mass-instances", "ALARM"), alarm("mass-instances", "ALARM")];
    assert_eq!(handler.handle(&messages(&twice)).await, BatchResult::default());
    let found = world.findings();
    assert_eq!(handler.handle(&messages(&twice[..1])).await, BatchResult::default());
    let again = world.findings();
    assert_eq!((found.len(), again.len()), (4, 2));
    assert_eq!((&found[..2], &found[2..]), (&again[..], &again[..]), "the same findings each time");
}

#[tokio::test]
async fn a_look_that_fails_fails_its_alarm_alone_and_does_not_multiply_it() {
    let world = World::at("2026-03-01T12:00:02Z");
    let handler = world.looking();
    let batch = messages(&[key_created("e0").to_string(), alarm("mass-instances", "ALARM")]);
    for is_retryable in [true, false] {
        world.logs.fails.set(Some(is_retryable));
        let failed = handler.handle(&batch).await.failed;
        let shown: Vec<_> = failed.iter().map(|f| (f.message_id.as_str(), f.retryable)).collect();
        assert_eq!(shown, [("m1", is_retryable)]);
        assert_eq!(about(&world.findings()).len(), 1, "what else is in the batch is found");
        assert!(world.own_queue.0.take().is_empty(), "it comes back by itself, or is a dead letter");
    }
    let Counts { records_in, classified, ignored, failed, .. } = handler.counts();
    assert_eq!((records_in, classified, ignored, failed), (6, 4, 0, 2), "every look that fails counts");
}

#[tokio::test]
async fn a_damaged_line_of_the_log_group_is_named_and_its_neighbours_count() {
    let world = World::at("2026-03-01T13:00:00Z");
    let mut records = mass_creation();
    records[2]["recipientAccountId"] = 7.into();
    world.logs.records.replace(records);
    let failed = world.looking().handle(&messages(&[alarm("mass-instances", "ALARM")])).await.failed;
    assert_eq!((failed.len(), failed[0].retryable), (1, false));
    assert!(failed[0].reason.starts_with("1 unreadable: trail record 2: recipientAccountId"), "{}", failed[0].reason);
    assert_eq!(about(&world.findings()), [(MASS, "a2", "alice"), (MASS, "b1", "bob")]);
}

#[tokio::test]
async fn an_alarm_of_the_future_is_refused() {
    let world = World::at("2026-03-01T10:00:00Z");
    let failed = world.looking().handle(&messages(&[alarm("mass-instances", "ALARM")])).await.failed;
    assert_eq!((failed.len(), failed[0].retryable), (1, false));
    assert!(failed[0].reason.contains("mass-instances is of the future: 2026-03-01T11:55:00Z"), "{}", failed[0].reason);
    assert!(world.own_queue.0.take().is_empty() && world.logs.asked.take().is_empty());
}
