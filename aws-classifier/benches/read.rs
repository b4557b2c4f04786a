//! What an event costs: reading and routing a CloudTrail file, and the same with all classifiers behind it.
//!
//! The file is made up here, the same on every machine: a dozen shapes of records, mostly of no concern to anybody, as
//! in real accounts. `cargo bench -p aws-classifier`; the figures are for comparing two states of this code on one
//! machine. See `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::hint::black_box;

use aws_classifier::classifiers::ALL;
use aws_classifier::engine::Engine;
use aws_classifier::intake::log_file::{Visitor, read_whole};
use aws_classifier::intake::{IntakeError, Leaf};
use aws_classifier::routing::Slot;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shared::adapters::memory::{MemoryState, NoFiles};
use shared::event::Event;

const RECORDS: usize = 20_000;

/// (source, name, read-only, request parameters, response), most frequent first.
const SHAPES: [(&str, &str, bool, &str, &str); 12] = [
    (
        "sts",
        "AssumeRole",
        true,
        r#"{"roleArn":"arn:aws:iam::123456789012:role/app","roleSessionName":"i-0a1b2c3d4e5f60718","durationSeconds":3600}"#,
        r#"{"credentials":{"accessKeyId":"ASIAEXAMPLE000000001","sessionToken":"IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJHMEUCIQDexampleexampleexampleexampleexample","expiration":"Mar 1, 2026, 1:00:00 PM"},"assumedRoleUser":{"assumedRoleId":"AROAEXAMPLE:i-0a1b2c3d4e5f60718","arn":"arn:aws:sts::123456789012:assumed-role/app/i-0a1b2c3d4e5f60718"}}"#,
    ),
    (
        "kms",
        "Decrypt",
        true,
        r#"{"encryptionContext":{"aws:s3:arn":"arn:aws:s3:::example-bucket"},"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}"#,
        "null",
    ),
    (
        "ec2",
        "DescribeInstances",
        true,
        r#"{"instancesSet":{"items":[{"instanceId":"i-0a1b2c3d4e5f60718"}]},"filterSet":{}}"#,
        "null",
    ),
    (
        "s3",
        "GetBucketAcl",
        true,
        r#"{"bucketName":"example-bucket","Host":"example-bucket.s3.us-east-1.amazonaws.com","acl":""}"#,
        "null",
    ),
    (
        "logs",
        "CreateLogStream",
        false,
        r#"{"logGroupName":"/aws/lambda/app","logStreamName":"2026/03/01/[$LATEST]0123456789abcdef0123456789abcdef"}"#,
        "null",
    ),
    ("iam", "ListUsers", true, r#"{"maxItems":100}"#, "null"),
    (
        "ec2",
        "DescribeSecurityGroups",
        true,
        r#"{"securityGroupSet":{},"securityGroupIdSet":{"items":[{"groupId":"sg-0a1b2c3d"}]},"filterSet":{}}"#,
        "null",
    ),
    ("dynamodb", "DescribeTable", true, r#"{"tableName":"orders"}"#, "null"),
    (
        "lambda",
        "GetFunction20150331v2",
        true,
        r#"{"functionName":"arn:aws:lambda:us-east-1:123456789012:function:app"}"#,
        "null",
    ),
    (
        "ec2",
        "AuthorizeSecurityGroupIngress",
        false,
        r#"{"groupId":"sg-0a1b2c3d4e5f60718","ipPermissions":{"items":[{"ipProtocol":"tcp","fromPort":443,"toPort":443,"ipRanges":{"items":[{"cidrIp":"10.0.0.0/8"}]}}]}}"#,
        r#"{"_return":true}"#,
    ),
    (
        "iam",
        "CreateAccessKey",
        false,
        r#"{"userName":"deploy"}"#,
        r#"{"accessKey":{"userName":"deploy","accessKeyId":"AKIAEXAMPLE000000001","status":"Active","createDate":"Mar 1, 2026, 12:00:00 PM"}}"#,
    ),
    ("signin", "ConsoleLogin", false, "null", r#"{"ConsoleLogin":"Success"}"#),
];

/// A file as CloudTrail writes it. Shape `n` is about twice as rare as shape `n - 1`, the last ones one in a thousand.
fn log_file() -> Vec<u8> {
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut text = String::from("{\"Records\":[");
    for n in 0..RECORDS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let rank = (random % 1023 + 1).leading_zeros() as usize - 54;
        let (service, name, read_only, request, response) =
            SHAPES[rank + usize::from(rank > 7) * ((random >> 32) as usize % 3)];
        let (hour, minute, second) = (n / 3600 % 24, n / 60 % 60, n % 60);
        let user = random >> 20 & 31;
        if n > 0 {
            text.push(',');
        }
        write!(
            text,
            r#"{{"eventVersion":"1.08","userIdentity":{{"type":"AssumedRole","principalId":"AROAEXAMPLE:user-{user}","arn":"arn:aws:sts::123456789012:assumed-role/app/user-{user}","accountId":"123456789012","accessKeyId":"ASIAEXAMPLE{user:09}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROAEXAMPLE","arn":"arn:aws:iam::123456789012:role/app","accountId":"123456789012","userName":"app"}},"webIdFederationData":{{}},"attributes":{{"creationDate":"2026-03-01T00:00:00Z","mfaAuthenticated":"false"}}}}}},"eventTime":"2026-03-01T{hour:02}:{minute:02}:{second:02}Z","eventSource":"{service}.amazonaws.com","eventName":"{name}","awsRegion":"us-east-1","sourceIPAddress":"198.51.100.{user}","userAgent":"aws-sdk-rust/1.3.10 os/linux lang/rust/1.95.0","requestParameters":{request},"responseElements":{response},"requestID":"{n:08x}-0000-4000-8000-000000000000","eventID":"{n:08x}-0000-4000-8000-000000000001","readOnly":{read_only},"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"123456789012","eventCategory":"Management","tlsDetails":{{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"{service}.us-east-1.amazonaws.com"}}}}"#
        )
        .expect("text grows");
    }
    text.push_str("]}");
    text.into_bytes()
}

/// Keeps what `replay` keeps: the texts of the events that concern a classifier.
struct Routed<'e> {
    engine: &'e Engine,
    slots: Vec<Slot>,
    records: usize,
    wanted: Vec<String>,
}

impl<'e> Routed<'e> {
    fn of(engine: &'e Engine, file: &[u8]) -> Self {
        let mut routed = Self { engine, slots: Vec::new(), records: 0, wanted: Vec::new() };
        read_whole(file, &mut routed);
        assert_eq!(routed.records, RECORDS);
        routed
    }
}

impl Visitor for Routed<'_> {
    fn event(&mut self, _index: u64, event: &Event<'_>, text: &str) {
        self.records += 1;
        self.engine.concerned(event, &mut self.slots);
        if !self.slots.is_empty() {
            self.wanted.push(text.to_owned());
        }
    }

    fn failed(&mut self, index: u64, error: &IntakeError, _text: &str) {
        panic!("record {index} of a made-up file: {error}");
    }
}

/// Only reads.
struct Read(usize);

impl Visitor for Read {
    fn event(&mut self, _index: u64, event: &Event<'_>, _text: &str) {
        black_box(event);
        self.0 += 1;
    }

    fn failed(&mut self, _index: u64, _error: &IntakeError, _text: &str) {}
}

fn benches(c: &mut Criterion) {
    let file = log_file();
    let engine = Engine::with_defaults(ALL, &NoFiles).expect("classifiers accept their own defaults");
    let nobody = Engine::with_defaults(&[], &NoFiles).expect("no classifier refuses nothing");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O can be made");

    let mut group = c.benchmark_group("events");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.sample_size(20);
    group.bench_function("read", |b| {
        b.iter(|| {
            let mut read = Read(0);
            read_whole(black_box(&file), &mut read);
            read.0
        });
    });
    group.bench_function("read_and_route_no_classifier", |b| {
        b.iter(|| Routed::of(&nobody, black_box(&file)).wanted.len())
    });
    group.bench_function("read_and_route", |b| b.iter(|| Routed::of(&engine, black_box(&file)).wanted.len()));
    group.bench_function("read_route_and_classify", |b| {
        b.iter(|| {
            let routed = Routed::of(&engine, black_box(&file));
            let events: Vec<Event<'_>> =
                routed.wanted.iter().filter_map(|text| Leaf::of(text).ok()?.event().ok()).collect();
            let verdicts =
                runtime.block_on(engine.run(&events, &MemoryState::default())).expect("memory does not fail");
            verdicts.iter().map(|v| v.findings.len()).sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(read, benches);
criterion_main!(read);
