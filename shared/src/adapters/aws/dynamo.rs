//! State, ledger and incidents in DynamoDB.
//!
//! **Two tables.** The state table holds what classifiers remember and the ledger: hash key `pk` (text), TTL attribute
//! `expires_at` (epoch seconds). The incident table is described in the module `incidents`. Partition keys are what the
//! items are about (an address, a principal, an incident), so load spreads as the subjects do; a flood about one of
//! them is written once a batch.
//!
//! **Reads are consistent**, hundred keys a call. **Writes are conditional**, one item each and several at a time:
//! `BatchWriteItem` knows no conditions, and a transaction costs twice as much and fails whole. An item that someone else
//! changed in between is read again and the change made anew, which is right because changes are idempotent.
//!
//! **Expiry.** DynamoDB deletes expired items late, some days even, and hands them out until then. So nothing here
//! depends on a deletion: records compare event times themselves ([`crate::observation`]), leases are part of the
//! condition, and what was completed stays completed.
//!
//! The SDK repeats throttled and broken calls itself; see [`super::sdk`] for how often and how long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};

use super::may_be_mended;
use super::sdk::pause;
use crate::ports::{PortError, PortResult};

pub mod incidents;
mod ledger;
mod state;

pub use incidents::DynamoIncidents;
pub use ledger::DynamoLedger;
pub use state::DynamoState;

/// An item, by attribute.
type Item = HashMap<String, AttributeValue>;

/// The hash key of both tables.
const PK: &str = "pk";
/// The number that a conditional write compares.
const VERSION: &str = "version";
/// When DynamoDB may delete the item, in epoch seconds.
const EXPIRES_AT: &str = "expires_at";

/// Keys of one `BatchGetItem` (API reference).
const GET_MAX: usize = 100;
/// How often an item that others keep changing is tried, and keys that a read left out are asked for: our choice. The last
/// try comes after a second on average.
const ATTEMPTS: u32 = 8;
/// The longest that a read goes on asking for keys that were left out: our choice, what one operation may take.
const READ: Duration = Duration::from_secs(8);
/// Hash keys have at most 2,048 bytes (service limits); ours stay well below.
const PK_BYTES_MAX: usize = 1_500;

/// One table.
#[derive(Clone, Debug)]
struct Table {
    client: Client,
    name: String,
}

impl Table {
    /// The items that exist under `keys`, which must be distinct, in any order. Consistent.
    async fn get_all(&self, keys: impl IntoIterator<Item = Item>) -> PortResult<Vec<Item>> {
        self.get_all_within(READ, keys, pause).await
    }

    /// Asks for keys that an answer left out (throttled, or beyond the 16 MB of one answer) again, after a pause that is
    /// the longer the more answers in a row left some out, and gives up after `longest`.
    async fn get_all_within(
        &self,
        longest: Duration,
        keys: impl IntoIterator<Item = Item>,
        mut pause: impl AsyncFnMut(u32),
    ) -> PortResult<Vec<Item>> {
        let started = Instant::now();
        let mut keys: Vec<Item> = keys.into_iter().collect();
        let mut found = Vec::with_capacity(keys.len());
        let (mut incomplete, mut in_vain) = (0, 0);
        while !keys.is_empty() {
            let asked: Vec<Item> = keys.split_off(keys.len().saturating_sub(GET_MAX));
            let many = asked.len();
            let request = KeysAndAttributes::builder().set_keys(Some(asked)).consistent_read(true).build();
            let request = request.map_err(|e| PortError::permanent(self.could_not("read"), e))?;
            let call = self.client.batch_get_item().request_items(&self.name, request);
            let answer = Box::pin(call.send()).await.map_err(|error| self.error("read", error))?;
            found.extend(answer.responses.unwrap_or_default().remove(&self.name).unwrap_or_default());
            let left = answer.unprocessed_keys.unwrap_or_default().remove(&self.name).map(|k| k.keys);
            let left = left.unwrap_or_default();
            if left.is_empty() {
                (incomplete, in_vain) = (0, 0);
                continue;
            }
            incomplete += 1;
            in_vain = if left.len() == many { in_vain + 1 } else { 0 };
            if in_vain == ATTEMPTS || started.elapsed() >= longest {
                let what = format!("{}: {} keys were not answered", self.could_not("read"), left.len() + keys.len());
                return Err(PortError::Retryable { what, source: None });
            }
            keys.extend(left);
            pause(incomplete).await;
        }
        Ok(found)
    }

    /// Writes the item over version `before`, or where none is; `false` when someone else was there first.
    async fn put(&self, mut item: Item, before: Option<u64>) -> PortResult<bool> {
        item.insert(VERSION.into(), number(before.map_or(1, |v| v + 1)));
        let call = self.client.put_item().table_name(&self.name).set_item(Some(item));
        let call = match before {
            None => call.condition_expression("attribute_not_exists(#pk)").expression_attribute_names("#pk", PK),
            Some(version) => call
                .condition_expression("#version = :version")
                .expression_attribute_names("#version", VERSION)
                .expression_attribute_values(":version", number(version)),
        };
        match Box::pin(call.send()).await {
            Ok(_) => Ok(true),
            Err(error) if is_condition(&error) => Ok(false),
            Err(error) => Err(self.error("write", error)),
        }
    }

    fn error<E>(&self, what: &str, error: SdkError<E>) -> PortError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        // The cause is in the text: the SDK's own says no more than "service error".
        let what = format!("{}: {}", self.could_not(what), DisplayErrorContext(&error));
        if may_be_mended(&error) {
            PortError::Retryable { what, source: None }
        } else {
            PortError::Permanent { what, source: None }
        }
    }

    fn could_not(&self, what: &str) -> String {
        format!("could not {what} table {}", self.name)
    }

    fn damaged(&self, key: &str, why: &str) -> PortError {
        let what = format!("{}: item {key:?} is damaged or from another version: {why}", self.could_not("read"));
        PortError::Permanent { what, source: None }
    }

    fn contended(&self, key: &str) -> PortError {
        let what = format!("{}: others kept changing item {key:?}", self.could_not("write"));
        PortError::Retryable { what, source: None }
    }
}

/// Whether a conditional write found something else than it expected.
fn is_condition<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some("ConditionalCheckFailedException")
}

/// The hash key of `key` among items of one kind: readable, and cut with a hash of the whole when it is too long.
fn partition_key(kind: &str, key: &str) -> String {
    if key.len() <= PK_BYTES_MAX {
        return format!("{kind}/{key}");
    }
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key.as_bytes());
    let end = (0..=PK_BYTES_MAX).rev().find(|end| key.is_char_boundary(*end)).unwrap_or(0);
    format!("{kind}/{}…{hash}", &key[..end])
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn text_of<'i>(item: &'i Item, name: &str) -> Option<&'i str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn number_of<N: std::str::FromStr>(item: &Item, name: &str) -> Option<N> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests_support;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::tests_support::client;
    use super::*;
    use crate::adapters::loopback::{Answer, Loopback};

    fn table(server: &Loopback) -> Table {
        Table { client: client(server.endpoint()), name: "state".into() }
    }

    fn keys(many: usize) -> impl Iterator<Item = Item> {
        (0..many).map(|i| Item::from([(PK.to_owned(), text(i.to_string()))]))
    }

    #[tokio::test]
    async fn reads_ask_for_hundred_keys_and_again_for_those_left_out() {
        let item = |pk: &str| json!({"pk": {"S": pk}});
        let server = Loopback::answering([
            Answer::json(
                "200 OK",
                &json!({"Responses": {"state": [item("149")]}, "UnprocessedKeys": {"state": {"Keys": [item("50")]}}}),
            ),
            Answer::json("200 OK", &json!({"Responses": {"state": [item("50"), item("0")]}})),
        ]);
        let found = table(&server).get_all(keys(150)).await.expect("read");
        let mut found: Vec<_> = found.iter().filter_map(|i| text_of(i, PK)).collect();
        found.sort_unstable();
        assert_eq!(found, ["0", "149", "50"]);
        let asked: Vec<serde_json::Value> =
            server.requests().iter().map(|r| serde_json::from_str(r).expect("JSON")).collect();
        let counts: Vec<_> =
            asked.iter().map(|r| r["RequestItems"]["state"]["Keys"].as_array().expect("keys").len()).collect();
        assert_eq!(counts, [100, 51]);
        assert!(asked.iter().all(|r| r["RequestItems"]["state"]["ConsistentRead"] == true));
    }

    /// An answer to `asked` keys with the first item and none of the others.
    fn one_of(asked: usize) -> Answer {
        let item = |i: usize| json!({"pk": {"S": i.to_string()}});
        let left: Vec<_> = (1..asked).map(item).collect();
        let unprocessed = if left.is_empty() { json!({}) } else { json!({"state": {"Keys": left}}) };
        Answer::json("200 OK", &json!({"Responses": {"state": [item(0)]}, "UnprocessedKeys": unprocessed}))
    }

    #[tokio::test]
    async fn a_read_pauses_longer_and_longer_while_answers_leave_keys_out() {
        let server = Loopback::answering((1..=4).rev().map(one_of));
        let mut pauses = Vec::new();
        let found = table(&server).get_all_within(READ, keys(4), async |tries| pauses.push(tries)).await;
        assert_eq!(found.expect("read").len(), 4);
        assert_eq!(pauses, [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_read_that_gets_a_key_at_a_time_ends_in_time() {
        let server = Loopback::answering([one_of(100)]);
        let error = table(&server).get_all_within(Duration::ZERO, keys(100), async |_| {}).await.expect_err("not all");
        assert!(error.is_retryable() && error.to_string().contains("99 keys"), "{error}");
    }

    #[tokio::test]
    async fn a_read_gives_up_after_as_many_vain_answers_in_a_row() {
        let none = |many: usize| {
            let left: Vec<_> = (0..many).map(|i| json!({"pk": {"S": i.to_string()}})).collect();
            Answer::json("200 OK", &json!({"UnprocessedKeys": {"state": {"Keys": left}}}))
        };
        let vain = |many: usize, times: usize| std::iter::repeat_with(move || none(many)).take(times);
        let times = ATTEMPTS as usize;
        let server = Loopback::answering(vain(3, times - 1).chain([one_of(3)]).chain(vain(2, times)));
        let error = table(&server).get_all_within(READ, keys(3), async |_| {}).await.expect_err("never");
        assert!(error.is_retryable() && error.to_string().contains("2 keys"), "{error}");
        assert_eq!(server.requests().len(), 2 * times, "an answer in between begins the count anew");
    }

    #[tokio::test]
    async fn only_what_is_wrong_with_the_item_is_permanent() {
        let cases = [
            ("400 Bad Request", "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", true),
            ("400 Bad Request", "com.amazon.coral.service#AccessDeniedException", true),
            ("400 Bad Request", "com.amazon.coral.service#UnrecognizedClientException", true),
            ("400 Bad Request", "com.amazonaws.dynamodb.v20120810#KMSInvalidStateException", true),
            ("400 Bad Request", "com.amazonaws.dynamodb.v20120810#ItemCollectionSizeLimitExceededException", false),
            ("400 Bad Request", "com.amazon.coral.validate#ValidationException", false),
            ("400 Bad Request", "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", true),
            ("400 Bad Request", "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded", true),
            ("400 Bad Request", "com.amazon.coral.service#ThrottlingException", true),
            ("400 Bad Request", "com.amazon.coral.service#ExpiredTokenException", true),
            ("500 Internal Server Error", "com.amazonaws.dynamodb.v20120810#InternalServerError", true),
        ];
        for (status, code, retryable) in cases {
            let fault = || Answer::json(status, &json!({"__type": code, "message": "said so"}));
            let server = Loopback::answering([fault(), fault()]);
            let error = table(&server).get_all(keys(1)).await.expect_err(code);
            assert_eq!(error.is_retryable(), retryable, "{code}: {error}");
            assert!(error.to_string().contains("table state"), "{error}");
            let item = Item::from([(PK.to_owned(), text("a"))]);
            let error = table(&server).put(item, None).await.expect_err(code);
            assert_eq!(error.is_retryable(), retryable, "{code}: {error}");
        }
    }

    #[test]
    fn long_keys_stay_distinct_and_short_ones_readable() {
        assert_eq!(partition_key("state", "a/b"), "state/a/b");
        let long = "ü".repeat(PK_BYTES_MAX);
        let (one, two) = (partition_key("state", &format!("{long}1")), partition_key("state", &format!("{long}2")));
        assert!(one != two && one.len() < 2_048, "{}", one.len());
    }
}
