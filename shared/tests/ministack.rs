//! The AWS adapters against MiniStack, an emulator: the contract suites, and what only several writers show.
//!
//! Ignored unless asked for, because they need the emulator: `scripts/ministack cargo test --package shared --features
//! aws,testing --test ministack -- --ignored`, which the gate runs.
#![cfg(all(feature = "aws", feature = "testing"))]

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use shared::adapters::aws::dynamo::{DynamoIncidents, DynamoLedger, DynamoState};
use shared::adapters::aws::{DynamoClient, sdk};
use shared::incident::IncidentStatus;
use shared::observation::{Observations, ObserveRequest};
use shared::ports::{Claim, IncidentFilter, Incidents, Ledger, State};
use shared::testing::{incidents_suite, ledger_suite, sample_incident, state_suite};
use shared::{Incident, Timestamp};

/// A client of the emulator, never of AWS.
async fn dynamo() -> DynamoClient {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").expect("AWS_ENDPOINT_URL is set by scripts/ministack");
    assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint} is not on this machine");
    DynamoClient::new(&sdk::config().await)
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
