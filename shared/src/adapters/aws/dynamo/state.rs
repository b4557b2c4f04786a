//! What classifiers remember, one item for each key.
//!
//! `pk` is `state/CLASSIFIER/LABEL/KEY`; `data` is one byte of format and the record in postcard, deflated where that
//! is shorter: an answer kept for redelivery repeats the values beside it, so long records shrink to a tenth, and a
//! write is paid for by the kilobyte.
//!
//! **An item has at most 400 KB** (DynamoDB service limits). Three records can be larger before they are deflated: many
//! distinct long values, and rates with high thresholds and short windows, which keep an hour for late events. What
//! does not fit forgets its oldest entries, which costs lateness and nothing else: see [`StateRecord::forget_oldest`].

use std::collections::BTreeMap;
use std::io::{Read, Write};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use tokio::task::JoinSet;

use super::{ATTEMPTS, EXPIRES_AT, Item, PK, Table, VERSION, number, number_of, partition_key, text, text_of};
use crate::adapters::aws::sdk::pause;
use crate::adapters::disk::SystemClock;
use crate::observation::{Answer, Known, ObserveRequest, StateRecord};
use crate::ports::{Clock, PortError, PortResult, State};
use crate::state_table::STATE;
use crate::time::Timestamp;

const DATA: &str = "data";

/// Room for a record in an item of 400 KB (409,600 bytes), beside its key and numbers.
const DATA_BYTES_MAX: usize = 400_000;
/// A record below this costs one write unit (1 KB) as it is.
const DEFLATE_FROM_BYTES: usize = 900;
/// More than any record inflates to; what does is damaged. 256 distinct values of 512 bytes with twenty of them in each
/// answer are 2.8 MB, an hour of a rate of 10,000 a minute is 3 MB, and 1,024 things of 512 bytes that stand, with their ends
/// and sixteen answers, are 9.5 MB.
const INFLATED_BYTES_MAX: u64 = 16 << 20;
/// Items written at the same time: our choice, what one connection pool of a small function handles at once.
const WRITES_AT_ONCE: usize = 16;
/// How long a record is kept after its events have expired: 14 days, the longest an SQS queue keeps a message, so that one
/// that comes back from a dead-letter queue meets the answer it was given.
const KEPT_S: i64 = 14 * 86_400;

const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;

/// A [`State`] in the state table.
#[derive(Clone, Debug)]
pub struct DynamoState {
    table: Table,
}

/// A record with what its item says beside it.
#[derive(Default)]
struct Loaded {
    record: Option<StateRecord>,
    data: Vec<u8>,
    version: Option<u64>,
    expires_s: i64,
}

/// The place of an observation: its request and its number in it.
type Place = (usize, usize);

impl DynamoState {
    /// In `table`, with the keys of [`super`]; the client is built once, in `main`.
    pub const fn new(client: Client, table: String) -> Self {
        Self { table: Table { client, name: table } }
    }

    async fn load(&self, keys: impl Iterator<Item = &str>) -> PortResult<BTreeMap<String, Loaded>> {
        let keys = keys.map(|pk| Item::from([(PK.to_owned(), text(pk))]));
        let mut loaded = BTreeMap::new();
        for item in self.table.get_all(keys).await? {
            let Some(pk) = text_of(&item, PK) else { continue };
            let read = read(&item).map_err(|why| self.table.damaged(pk, &why))?;
            loaded.insert(pk.to_owned(), read);
        }
        Ok(loaded)
    }
}

impl State for DynamoState {
    /// What is asked of one key is applied and written for itself, in order. When a key fails, others may have been
    /// written: observed again they answer the same.
    ///
    /// **Keys that are only asked about come last**, after everything else was written. Of two events that each remember
    /// one thing and ask for the other's, handled at the same time, at least one then sees the other; read together with
    /// the writes, both could miss it.
    async fn observe(&self, requests: &[ObserveRequest<'_>]) -> PortResult<Vec<Known>> {
        let mut remembered: BTreeMap<String, Vec<Place>> = BTreeMap::new();
        let mut answers: Vec<Vec<Answer>> = Vec::with_capacity(requests.len());
        for (r, request) in requests.iter().enumerate() {
            for (o, observation) in request.observations.iter().enumerate() {
                remembered.entry(partition_key(STATE, &request.state_key(observation))).or_default().push((r, o));
            }
            answers.push(vec![Answer::Done; request.observations.len()]);
        }
        let only_asks = |&(r, o): &Place| requests[r].observations[o].op.only_asks();
        let asked = remembered.extract_if(.., |_, places| places.iter().all(only_asks)).collect();
        self.observe_keys(remembered, requests, &mut answers).await?;
        self.observe_keys(asked, requests, &mut answers).await?;
        let labelled = requests.iter().zip(answers).map(|(request, answers)| {
            Known::from_answers(request.observations.iter().map(|observation| observation.label).zip(answers))
        });
        Ok(labelled.collect())
    }
}

impl DynamoState {
    /// Applies what waits for each key, all keys together, until each was written.
    async fn observe_keys(
        &self,
        mut waiting: BTreeMap<String, Vec<Place>>,
        requests: &[ObserveRequest<'_>],
        answers: &mut [Vec<Answer>],
    ) -> PortResult<()> {
        for attempt in 0..ATTEMPTS {
            if waiting.is_empty() {
                break;
            }
            if attempt > 0 {
                pause(attempt).await;
            }
            let mut loaded = self.load(waiting.keys().map(String::as_str)).await?;
            let mut writes = Writes::default();
            let mut lost = Vec::new();
            for (pk, places) in &waiting {
                let mut known = loaded.remove(pk).unwrap_or_default();
                for &(r, o) in places {
                    let request = &requests[r];
                    let op = &request.observations[o].op;
                    answers[r][o] = StateRecord::apply(&mut known.record, op, request.at, request.event);
                    let expires = known.record.as_ref().map_or(request.at, |record| record.expires_at(op));
                    known.expires_s = known.expires_s.max(deletable_from_s(expires));
                }
                let Some(record) = known.record else { continue };
                let data = pack(record).map_err(|why| self.table.damaged(pk, &why))?;
                // Redelivered events change nothing.
                if data != known.data {
                    let item = Item::from([
                        (PK.to_owned(), text(&**pk)),
                        (DATA.to_owned(), AttributeValue::B(Blob::new(data))),
                        (EXPIRES_AT.to_owned(), number(known.expires_s)),
                    ]);
                    lost.extend(writes.start(&self.table, pk, item, known.version).await?);
                }
            }
            lost.extend(writes.finish().await?);
            waiting.retain(|pk, _| lost.contains(pk));
        }
        waiting.keys().next().map_or(Ok(()), |pk| Err(self.table.contended(pk)))
    }
}

/// When the item may go. Event times may lie far back, in a replay or a redrive: such a record is kept as well.
fn deletable_from_s(expires: Timestamp) -> i64 {
    expires.max(SystemClock.now()).plus_seconds(KEPT_S).as_millis().div_euclid(1000)
}

/// Writes under way; each answers its key when someone else was there first.
#[derive(Default)]
struct Writes(JoinSet<(String, PortResult<bool>)>);

impl Writes {
    /// Starts a write, after waiting for another when there are enough under way; the key of that one if it was lost.
    async fn start(&mut self, table: &Table, pk: &str, item: Item, before: Option<u64>) -> PortResult<Option<String>> {
        let lost = if self.0.len() < WRITES_AT_ONCE { None } else { self.next().await? };
        let (table, pk) = (table.clone(), pk.to_owned());
        self.0.spawn(async move { (pk, table.put(item, before).await) });
        Ok(lost)
    }

    /// Waits for all; the keys of those that were lost.
    async fn finish(&mut self) -> PortResult<Vec<String>> {
        let mut lost = Vec::new();
        while !self.0.is_empty() {
            lost.extend(self.next().await?);
        }
        Ok(lost)
    }

    async fn next(&mut self) -> PortResult<Option<String>> {
        let Some(done) = self.0.join_next().await else { return Ok(None) };
        let (pk, written) = done.map_err(|e| PortError::retryable("a write ended without an answer", e))?;
        Ok(if written? { None } else { Some(pk) })
    }
}

fn read(item: &Item) -> Result<Loaded, String> {
    let data = item.get(DATA).and_then(|v| v.as_b().ok()).ok_or("no data")?.as_ref().to_vec();
    let record = unpack(&data)?;
    let version = number_of(item, VERSION).ok_or("no version")?;
    let expires_s = number_of(item, EXPIRES_AT).unwrap_or(0);
    Ok(Loaded { record: Some(record), data, version: Some(version), expires_s })
}

/// The record as bytes that fit into an item.
fn pack(mut record: StateRecord) -> Result<Vec<u8>, String> {
    loop {
        let plain = postcard::to_stdvec(&record).map_err(|e| e.to_string())?;
        let data = if plain.len() < DEFLATE_FROM_BYTES { None } else { deflated(&plain).map_err(|e| e.to_string())? };
        let data = data.unwrap_or_else(|| [&[PLAIN], &*plain].concat());
        if data.len() <= DATA_BYTES_MAX {
            return Ok(data);
        }
        if !record.forget_oldest() {
            return Err(format!("{} bytes in one entry", data.len()));
        }
    }
}

/// Deflated, if that is shorter.
fn deflated(plain: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let mut encoder = DeflateEncoder::new(vec![DEFLATED], Compression::fast());
    encoder.write_all(plain)?;
    Ok(Some(encoder.finish()?).filter(|data| data.len() <= plain.len()))
}

fn unpack(data: &[u8]) -> Result<StateRecord, String> {
    let read = |bytes: &[u8]| postcard::from_bytes(bytes).map_err(|e| e.to_string());
    match data.split_first() {
        Some((&PLAIN, plain)) => read(plain),
        Some((&DEFLATED, deflated)) => {
            let mut plain = Vec::new();
            let mut decoder = DeflateDecoder::new(deflated).take(INFLATED_BYTES_MAX);
            decoder.read_to_end(&mut plain).map_err(|e| e.to_string())?;
            read(&plain)
        }
        Some((format, _)) => Err(format!("unknown format {format}")),
        None => Err("no data".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests_support::client;
    use super::*;
    use crate::adapters::loopback::{Answer as Reply, Loopback};
    use crate::observation::{MAX_DISTINCT_ENTRIES, MAX_KEY_BYTES, MAX_RATE, MAX_STANDING_ENTRIES, Observations, Op};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_772_366_400_000).plus_seconds(second)
    }

    /// Text that deflates badly, as an attacker would choose it.
    fn noise(seed: u64, bytes: usize) -> String {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            char::from(b' ' + u8::try_from(x % 95).expect("below 95"))
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn short_records_are_stored_as_they_are_and_long_ones_deflated() {
        let mut record = None;
        StateRecord::apply(&mut record, &Op::See { ttl_s: 60 }, at(0), 1);
        let short = record.clone().expect("a record");
        let data = pack(short.clone()).expect("packed");
        assert_eq!((data[0], unpack(&data)), (PLAIN, Ok(short)));
        let mut record = None;
        for event in 0..200 {
            let op = Op::Distinct { value: format!("192.0.2.{event}"), window_s: 600 };
            StateRecord::apply(&mut record, &op, at(event as i64), event);
        }
        let long = record.expect("a record");
        let plain = postcard::to_stdvec(&long).expect("bytes").len();
        let data = pack(long.clone()).expect("packed");
        assert!(data.len() * 8 < plain, "{} of {plain} bytes", data.len());
        assert_eq!((data[0], unpack(&data)), (DEFLATED, Ok(long)));
    }

    #[test]
    fn the_largest_window_of_distinct_values_fits() {
        let mut record = None;
        for event in 0..MAX_DISTINCT_ENTRIES as u64 {
            let op = Op::Distinct { value: noise(event, MAX_KEY_BYTES), window_s: 86_400 };
            StateRecord::apply(&mut record, &op, at(event as i64), event.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        let record = record.expect("a record");
        assert!(postcard::to_stdvec(&record).expect("bytes").len() > 2 << 20, "it is large");
        let data = pack(record.clone()).expect("packed");
        assert!(data.len() <= DATA_BYTES_MAX, "{} bytes", data.len());
        assert_eq!(unpack(&data), Ok(record), "and nothing of it was forgotten");
    }

    #[test]
    fn the_largest_rate_forgets_what_is_oldest_and_still_counts() {
        let mut record = None;
        let op = Op::Rate { threshold: MAX_RATE, window_s: 60 };
        let mut reached = 0;
        for minute in 0..15_u64 {
            for event in 0..u64::from(MAX_RATE) {
                let id = (minute * 100_000 + event).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let when = at(i64::try_from(minute * 60 + event * 59 / 10_000).expect("small"));
                if let Answer::Count(count) = StateRecord::apply(&mut record, &op, when, id) {
                    reached += u32::from(count.reaches(u64::from(MAX_RATE)));
                }
            }
            let data = pack(record.take().expect("a record")).expect("packed");
            assert!(data.len() <= DATA_BYTES_MAX, "minute {minute}: {} bytes", data.len());
            record = Some(unpack(&data).expect("a record"));
        }
        assert!(reached >= 7, "reached {reached} times: a steady flood is reported again and again");
    }

    /// The other writer comes between our read and our write: its event is read and ours applied to it.
    #[tokio::test]
    async fn a_write_that_came_too_late_is_made_again_from_what_is_there() {
        let mut theirs = None;
        let op = Op::Count { weight: 1, window_s: 60 };
        StateRecord::apply(&mut theirs, &op, at(0), 1);
        let data = base64(&pack(theirs.expect("a record")).expect("packed"));
        let pk = "state/c/n/k";
        let item = json!({"pk": {"S": pk}, "data": {"B": data}, "version": {"N": "7"}, "expires_at": {"N": "9"}});
        let late = json!({"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"});
        let server = Loopback::answering([
            Reply::json("200 OK", &json!({"Responses": {"t": []}})),
            Reply::json("400 Bad Request", &late),
            Reply::json("200 OK", &json!({"Responses": {"t": [item]}})),
            Reply::json("200 OK", &json!({})),
        ]);
        let state = DynamoState::new(client(server.endpoint()), "t".into());
        let observations = Observations::none().count("n", "k", 1, 60).into_vec();
        let request = ObserveRequest { classifier: "c", event: 2, at: at(1), observations };
        let known = state.observe(&[request]).await.expect("observes");
        assert_eq!(known[0].count("n").now, 2);
        let sent: Vec<Value> = server.requests().iter().map(|r| serde_json::from_str(r).expect("JSON")).collect();
        assert_eq!(sent[1]["ConditionExpression"], "attribute_not_exists(#pk)");
        assert_eq!(sent[3]["ConditionExpression"], "#version = :version");
        assert_eq!(sent[3]["ExpressionAttributeValues"][":version"]["N"], "7");
        assert_eq!((&sent[3]["Item"]["version"]["N"], &sent[3]["Item"]["pk"]["S"]), (&json!("8"), &json!(pk)));
    }

    /// Two events at the same time, each in a function of its own: whichever writes last sees the other.
    #[tokio::test]
    async fn what_is_only_asked_about_is_read_after_the_rest_was_written() {
        for asked in
            [Observations::none().recall("login", "k", 60), Observations::none().stand("login", "k", [], [], 60)]
        {
            let nothing = || Reply::json("200 OK", &json!({"Responses": {"t": []}}));
            let done = || Reply::json("200 OK", &json!({}));
            let server = Loopback::answering([nothing(), done(), nothing(), done()]);
            let state = DynamoState::new(client(server.endpoint()), "t".into());
            let observations = asked.remember("tampering", "k", "v", 60).into_vec();
            let request = ObserveRequest { classifier: "c", event: 1, at: at(0), observations };
            let known = state.observe(&[request]).await.expect("observes");
            assert_eq!(known[0].answers().map(|(label, _)| label).collect::<Vec<_>>(), ["login", "tampering"]);
            let requests = server.requests();
            let about = |label: &str| requests.iter().map(|r| r.contains(&format!("/{label}/"))).collect::<Vec<_>>();
            assert_eq!(about("tampering"), [true, true, false, false], "{requests:?}");
            assert_eq!(about("login"), [false, false, true, true], "{requests:?}");
        }
    }

    /// As many rules of a group as can be, named as an attacker would.
    #[test]
    fn of_the_most_that_can_stand_as_much_as_fits_is_kept() {
        let begins = (0..MAX_STANDING_ENTRIES as u64).map(|n| noise(n, MAX_KEY_BYTES).replace(' ', "_")).collect();
        let mut record = None;
        StateRecord::apply(&mut record, &Op::Stand { begins, ends: Vec::new(), ttl_s: 60 }, at(0), 1);
        let ask = Op::Stand { begins: Vec::new(), ends: Vec::new(), ttl_s: 60 };
        (2..20).for_each(|event| drop(StateRecord::apply(&mut record, &ask, at(1), event)));
        let plain = postcard::to_stdvec(&record).expect("bytes").len() as u64;
        assert!((8 << 20..INFLATED_BYTES_MAX).contains(&plain), "{plain} bytes");
        let mut kept = Some(unpack(&pack(record.expect("a record")).expect("packed")).expect("a record"));
        let Answer::Stood(stood) = StateRecord::apply(&mut kept, &ask, at(2), 20) else { panic!("another answer") };
        assert!(stood.len() > 500, "{} are left", stood.len());
    }

    fn base64(bytes: &[u8]) -> String {
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
    }

    #[test]
    fn damaged_data_is_an_error() {
        for data in [&[][..], &[7, 1], &[DEFLATED, 1, 2, 3], &[PLAIN], &[PLAIN, 9, 9]] {
            unpack(data).expect_err("damaged");
        }
    }
}
