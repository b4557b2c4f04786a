//! The AWS adapters against MiniStack, an emulator: the contract suites, and what only several writers show.
//!
//! Ignored unless asked for, because they need the emulator: `scripts/ministack cargo test --package shared --features
//! aws,testing --test ministack -- --ignored`, which the gate runs.
#![cfg(all(feature = "aws", feature = "testing"))]

use std::io::{Read, Write};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use aws_types::SdkConfig;
use shared::adapters::aws::dynamo::{DynamoIncidents, DynamoLedger, DynamoState};
use shared::adapters::aws::{DynamoClient, S3, S3Archive, sdk};
use shared::incident::IncidentStatus;
use shared::observation::{Observations, ObserveRequest};
use shared::ports::{
    Archive, Claim, IncidentFilter, Incidents, Ledger, ObjectBody, ObjectRef, Objects, Opening, PortResult, State,
};
use shared::testing::{archive_suite, incidents_suite, ledger_suite, sample_incident, state_suite};
use shared::{Incident, Timestamp};

/// The emulator, never AWS.
async fn emulator() -> SdkConfig {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").expect("AWS_ENDPOINT_URL is set by scripts/ministack");
    assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint} is not on this machine");
    sdk::config().expect("region and credentials")
}

async fn dynamo() -> DynamoClient {
    DynamoClient::new(&emulator().await)
}

async fn s3() -> S3 {
    S3::new(&emulator().await).expect("region and credentials")
}

/// What our client cannot do, as it reads and writes objects and no more; answers the head of the answer.
async fn put_by_hand(path: &str, body: &str) -> String {
    let endpoint = emulator().await.endpoint_url().expect("the emulator's").to_owned();
    let address = endpoint.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).expect("the emulator listens");
    let length = body.len();
    let head = format!("PUT /{path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// A new bucket.
async fn bucket() -> String {
    let name = format!("bucket-{}", uuid::Uuid::now_v7());
    put_by_hand(&name, "").await;
    name
}

fn key(name: &str, kind: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("complete")
}

fn attribute(name: &str) -> AttributeDefinition {
    let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
    attribute.build().expect("complete")
}

/// A new state table.
async fn state_table(client: &DynamoClient) -> String {
    let name = format!("state-{}", uuid::Uuid::now_v7());
    let create = client.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
    let create = create.attribute_definitions(attribute("pk")).key_schema(key("pk", KeyType::Hash));
    create.send().await.expect("a state table");
    name
}

/// A new incident table.
async fn incident_table(client: &DynamoClient) -> String {
    let name = format!("incidents-{}", uuid::Uuid::now_v7());
    let index = GlobalSecondaryIndex::builder()
        .index_name("by_status")
        .key_schema(key("status_shard", KeyType::Hash))
        .key_schema(key("incident_id", KeyType::Range))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build());
    let mut create = client.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
    for name in ["pk", "sk", "status_shard", "incident_id"] {
        create = create.attribute_definitions(attribute(name));
    }
    let create = create.key_schema(key("pk", KeyType::Hash)).key_schema(key("sk", KeyType::Range));
    create.global_secondary_indexes(index.build().expect("complete")).send().await.expect("an incident table");
    name
}

fn second(s: i64) -> Timestamp {
    Timestamp::from_millis(1_772_366_400_000).plus_seconds(s)
}

fn count(event: u64) -> ObserveRequest<'static> {
    let observations = Observations::none().count("n", "one key", 1, 3600).into_vec();
    ObserveRequest { classifier: "c", event, at: second(i64::try_from(event).expect("small")), observations }
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn state_keeps_its_contract() {
    let client = dynamo().await;
    let table = state_table(&client).await;
    state_suite(&DynamoState::new(client, table)).await;
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn the_ledger_keeps_its_contract() {
    let client = dynamo().await;
    let table = state_table(&client).await;
    ledger_suite(&DynamoLedger::new(client, table)).await;
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn incidents_keep_their_contract() {
    let client = dynamo().await;
    let table = incident_table(&client).await;
    incidents_suite(&DynamoIncidents::new(client, table)).await;
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn the_archive_keeps_its_contract() {
    let bucket = bucket().await;
    let archive = S3Archive::new(s3().await, bucket.clone());
    // The suite looks past the port from outside of our runtime.
    let look = |name: &str| {
        let (bucket, name) = (bucket.clone(), name.to_owned());
        let reading = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(read(&ObjectRef::newest(&bucket, &name)))
        });
        match reading.join().expect("it does not panic") {
            Ok(Opening::Opened(content)) => Some(content),
            _ => None,
        }
    };
    archive_suite(&archive, look).await;
}

/// The content of an object, which came in pieces.
async fn read(object: &ObjectRef<'_>) -> PortResult<Opening<Vec<u8>>> {
    let mut body = match s3().await.open(object).await? {
        Opening::Opened(body) => body,
        Opening::Gone => return Ok(Opening::Gone),
        Opening::Replaced => return Ok(Opening::Replaced),
        Opening::Unchanged => return Ok(Opening::Unchanged),
    };
    let mut content = Vec::new();
    while let Some(piece) = body.next().await? {
        content.extend(piece);
    }
    Ok(Opening::Opened(content))
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn objects_are_read_whole_and_only_a_missing_bucket_may_come_back() {
    let bucket = bucket().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| u8::try_from(i % 251).expect("small")).collect();
    let key = "AWSLogs/a b+ü.json";
    S3Archive::new(s3().await, bucket.clone()).put(key, &bytes).await.expect("an object");
    let found = read(&ObjectRef::newest(&bucket, key)).await.expect("an answer");
    assert!(found == Opening::Opened(bytes), "three megabytes, byte for byte");
    assert_eq!(read(&ObjectRef::newest(&bucket, "nothing")).await.expect("an answer"), Opening::Gone);
    let error = read(&ObjectRef::newest("no-such-bucket", key)).await.expect_err("there is none");
    assert!(error.is_retryable() && error.to_string().contains(&format!("s3://no-such-bucket/{key}")), "{error}");
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).expect(name).1.trim().trim_matches('"')
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn versions_are_read_as_they_were_and_replaced_contents_are_told() {
    let bucket = bucket().await;
    let object = ObjectRef::newest(&bucket, "a b.txt");
    let path = format!("{bucket}/a%20b.txt");
    let unversioned = put_by_hand(&path, "zeroth").await;
    let zeroth = ObjectRef { etag: Some(header(&unversioned, "etag")), ..object };
    assert_eq!(read(&zeroth).await.expect("an answer"), Opening::Opened(b"zeroth".to_vec()));
    let on = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status></VersioningConfiguration>";
    put_by_hand(&format!("{bucket}?versioning"), on).await;
    let (first, second) = (put_by_hand(&path, "first").await, put_by_hand(&path, "second").await);
    let [first, second] = [&first, &second].map(|head| ObjectRef {
        version_id: Some(header(head, "x-amz-version-id")),
        etag: Some(header(head, "etag")),
        ..object
    });
    assert_eq!(
        read(&first).await.expect("an answer"),
        Opening::Opened(b"first".to_vec()),
        "though it is not the newest"
    );
    assert_eq!(read(&second).await.expect("an answer"), Opening::Opened(b"second".to_vec()));
    let other = |unless_etag| ObjectRef { unless_etag, ..object };
    assert_eq!(read(&other(second.etag)).await.expect("an answer"), Opening::Unchanged);
    assert_eq!(read(&other(first.etag)).await.expect("an answer"), Opening::Opened(b"second".to_vec()));
    assert_eq!(read(&zeroth).await.expect("an answer"), Opening::Replaced);
    let mixed = ObjectRef { version_id: first.version_id, ..second };
    assert_eq!(read(&mixed).await.expect("an answer"), Opening::Replaced, "another content than the announced one");
}

/// More than one read takes, and more than are written at a time.
#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn a_batch_of_many_keys_is_read_and_written_whole() {
    let client = dynamo().await;
    let table = state_table(&client).await;
    let state = DynamoState::new(client, table);
    let batch: Vec<_> = (0..250)
        .map(|event| {
            let observations = Observations::none().see("s", format!("key {event}"), 60).into_vec();
            ObserveRequest { classifier: "c", event, at: second(0), observations }
        })
        .collect();
    let first = state.observe(&batch).await.expect("observes");
    assert!(first.iter().all(|known| known.seen("s").is_new()));
    assert_eq!(state.observe(&batch).await.expect("observes"), first, "delivered again: the same answers");
    let others: Vec<_> = batch.into_iter().map(|r| ObserveRequest { event: r.event + 1000, ..r }).collect();
    let known = state.observe(&others).await.expect("observes");
    assert!(known.iter().all(|known| !known.seen("s").is_new()), "every key was written");
}

/// Every interleaving of reads and writes that the emulator happens to give: each event is counted once, and one of them
/// reaches the threshold.
#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn two_writers_of_one_key_lose_nothing() {
    let client = dynamo().await;
    let table = state_table(&client).await;
    let [one, two] = [(); 2].map(|()| DynamoState::new(client.clone(), table.clone()));
    let write = async |state: &DynamoState, side: u64| {
        let mut reached = Vec::new();
        for event in (0..40).filter(|event| event % 2 == side) {
            let known = state.observe(&[count(event)]).await.expect("observes").remove(0);
            reached.extend(known.count("n").reaches(40).then_some(event));
        }
        reached
    };
    let (left, right) = tokio::join!(write(&one, 0), write(&two, 1));
    assert_eq!(left.len() + right.len(), 1, "the fortieth to arrive, whichever it was: {left:?} {right:?}");
    assert_eq!(one.observe(&[count(1000)]).await.expect("observes")[0].count("n").now, 41);
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn of_two_that_claim_the_same_work_one_gets_it() {
    let client = dynamo().await;
    let table = state_table(&client).await;
    let [one, two] = [(); 2].map(|()| DynamoLedger::new(client.clone(), table.clone()));
    for round in 0..10 {
        let work = format!("work {round}");
        let (left, right) =
            tokio::join!(one.claim(&work, second(0), second(60)), two.claim(&work, second(0), second(60)));
        let claims = [left.expect("claims"), right.expect("claims")];
        assert!(claims.contains(&Claim::Ours) && claims.contains(&Claim::Busy { until: second(60) }), "{claims:?}");
    }
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn a_claim_that_was_taken_over_is_not_given_up_by_its_former_holder() {
    let client = dynamo().await;
    let table = state_table(&client).await;
    let [one, two] = [(); 2].map(|()| DynamoLedger::new(client.clone(), table.clone()));
    assert_eq!(one.claim("k", second(0), second(10)).await.expect("claims"), Claim::Ours);
    assert_eq!(two.claim("k", second(10), second(70)).await.expect("claims"), Claim::Ours);
    one.release("k").await.expect("nothing to give up");
    let third = one.claim("k", second(11), second(90)).await.expect("claims");
    assert_eq!(third, Claim::Busy { until: second(70) });
}

/// A threat and its good news at the same time: each writes itself and then looks for the other.
#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn of_two_incidents_with_one_resolution_key_one_sees_the_other() {
    let client = dynamo().await;
    let table = incident_table(&client).await;
    let store = DynamoIncidents::new(client, table);
    let write = async |event: String, key: &str| {
        let incident = sample_incident(&event, second(0), Some(key));
        store.update(incident.incident_id, &mut |_| Some(incident.clone())).await.expect("writes");
        let filter = IncidentFilter { resolution_key: Some(key.into()), ..IncidentFilter::default() };
        store.list(&filter).await.expect("lists").len()
    };
    for round in 0..10 {
        let key = format!("group/{round}");
        let seen = tokio::join!(write(format!("threat {round}"), &key), write(format!("news {round}"), &key));
        assert!(seen.0 == 2 || seen.1 == 2, "{seen:?}");
    }
}

#[tokio::test]
#[ignore = "needs MiniStack: scripts/test starts it"]
async fn two_writers_of_one_incident_lose_nothing() {
    let client = dynamo().await;
    let table = incident_table(&client).await;
    let store = DynamoIncidents::new(client, table);
    let incident = sample_incident("shared", second(0), Some("k"));
    let id = incident.incident_id;
    let write = async |writer: &str| {
        for n in 0..10 {
            let add = &mut |before: Option<Incident>| {
                let mut after = before.unwrap_or_else(|| incident.clone());
                after.details[format!("{writer}/{n}")] = true.into();
                if n == 9 {
                    after.status = after.status.advanced_to(IncidentStatus::Closed);
                }
                Some(after)
            };
            store.update(id, add).await.expect("writes");
        }
    };
    tokio::join!(write("one"), write("two"));
    let found = store.get(id).await.expect("reads").expect("is there");
    let notes = found.details.as_object().expect("an object").keys().filter(|k| k.contains('/')).count();
    assert_eq!((notes, found.status), (20, IncidentStatus::Closed));
    let closed = IncidentFilter { statuses: vec![IncidentStatus::Closed], ..IncidentFilter::default() };
    assert_eq!(store.list(&closed).await.expect("lists"), [found]);
}
