//! Contract suites: what every adapter of a port must do. Each adapter's tests call them; they panic where the contract
//! is broken, and expect an adapter that holds nothing yet.

use crate::finding::{Effect, Finding, FindingId, Severity};
use crate::incident::{Incident, IncidentId, IncidentStatus};
use crate::observation::{
    Count, Known, LastValues, MAX_COUNT_ENTRIES, MAX_DISTINCT_ENTRIES, MAX_KEY_BYTES, MAX_LAST_ENTRIES, Observations,
    ObserveRequest, Seen, Stood,
};
use crate::ports::{
    Archive, Claim, FailedMessage, IncidentFilter, Incidents, LEDGER_RETENTION_S, Ledger, Message, PortResult, Queue,
    QueueSettings, State,
};
use crate::time::Timestamp;

/// The contract of [`Archive`]; `read` looks at what is stored under a name, past the port.
pub async fn archive_suite(archive: &impl Archive, read: impl Fn(&str) -> Option<Vec<u8>>) {
    archive.put("2026/03/01/one.json", b"first").await.expect("an ordinary name is taken");
    archive.put("two", b"").await.expect("empty content is taken");
    archive.put("2026/03/01/one.json", b"second").await.expect("a name may be written again");
    assert_eq!(read("2026/03/01/one.json").as_deref(), Some(&b"second"[..]), "the last content stays");
    assert_eq!(read("two").as_deref(), Some(&b""[..]));
    let refused =
        ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/./b", "a/..", "c:\\x", "c:/x", "a\\..\\b", "a/", "nul\0"];
    for name in refused {
        let error = archive.put(name, b"x").await.expect_err("a name that leaves its folder is refused");
        assert!(!error.is_retryable(), "{name:?}: trying again does not help");
    }
}

/// What a queue under [`queue_suite`] is to be set to.
pub const SUITE_QUEUE: QueueSettings = QueueSettings { visibility_timeout_s: 30, max_receive_count: 3 };

fn second(s: i64) -> Timestamp {
    // 2026-03-01T12:00:00Z and on.
    Timestamp::from_millis(1_772_366_400_000).plus_seconds(s)
}

fn failure(message: &Message, reason: &str, retryable: bool) -> FailedMessage {
    FailedMessage { message_id: message.message_id.clone(), reason: reason.into(), retryable }
}

fn ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|m| m.message_id.clone()).collect()
}

fn sorted_bodies(messages: &[Message]) -> Vec<&str> {
    let mut bodies: Vec<_> = messages.iter().map(|m| &*m.body).collect();
    bodies.sort_unstable();
    bodies
}

/// The contract of [`Queue`], for an empty queue with [`SUITE_QUEUE`].
pub async fn queue_suite(queue: &impl Queue) {
    an_empty_queue_has_nothing(queue).await;
    received_messages_are_invisible_until_the_timeout(queue).await;
    a_message_nobody_deletes_becomes_a_dead_letter(queue).await;
    permanent_failures_become_dead_letters_at_once(queue).await;
    redriven_messages_start_afresh(queue).await;
}

async fn an_empty_queue_has_nothing(queue: &impl Queue) {
    queue.send(&[]).await.expect("sending nothing works");
    assert_eq!(queue.receive(10, second(0)).await.expect("receives"), []);
    assert_eq!(queue.depth().await.expect("counts"), 0);
    assert_eq!(queue.dead_letters(10).await.expect("reads"), []);
    assert_eq!(queue.redrive().await.expect("redrives"), 0);
    queue.delete(&["7".into(), "nonsense".into()]).await.expect("deleting what is not there does nothing");
    let unknown = FailedMessage { message_id: "7".into(), reason: "x".into(), retryable: false };
    queue.give_back(&[unknown]).await.expect("returning what is not there does nothing");
    assert_eq!(queue.depth().await.expect("counts"), 0);
}

async fn received_messages_are_invisible_until_the_timeout(queue: &impl Queue) {
    queue.send(&["a".into(), "b".into(), "c".into()]).await.expect("sends");
    queue.send(&["a".into()]).await.expect("equal bodies are different messages");
    assert_eq!(queue.depth().await.expect("counts"), 4);

    assert_eq!(queue.receive(0, second(0)).await.expect("receives"), []);
    let some = queue.receive(3, second(0)).await.expect("receives");
    let rest = queue.receive(10, second(0)).await.expect("receives");
    assert_eq!((some.len(), rest.len()), (3, 1), "at most as many as asked for, none twice");
    let all = [some.clone(), rest].concat();
    assert_eq!(sorted_bodies(&all), ["a", "a", "b", "c"]);
    assert!(all.iter().all(|m| m.receive_count == 1));
    let mut unique = ids(&all);
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 4, "message ids are unique");

    assert_eq!(queue.receive(10, second(29)).await.expect("receives"), [], "invisible for the time-out");
    assert_eq!(queue.depth().await.expect("counts"), 4, "in flight counts");
    queue.delete(&ids(&some)).await.expect("deletes");
    assert_eq!(queue.depth().await.expect("counts"), 1);
    let again = queue.receive(10, second(30)).await.expect("receives");
    assert_eq!(ids(&again), ids(&all[3..]), "visible again after the time-out, deleted ones are gone");
    assert_eq!(again[0].receive_count, 2);
    queue.give_back(&[failure(&again[0], "busy", true)]).await.expect("gives back");
    let third = queue.receive(10, second(30)).await.expect("receives");
    assert_eq!((ids(&third), third[0].receive_count), (ids(&again), 3), "given back is visible at once");
    queue.delete(&ids(&third)).await.expect("deletes");
    queue.delete(&ids(&third)).await.expect("deletes twice");
    assert_eq!(queue.depth().await.expect("counts"), 0);
}

async fn a_message_nobody_deletes_becomes_a_dead_letter(queue: &impl Queue) {
    queue.send(&["lost".into(), "fails".into()]).await.expect("sends");
    for round in 0..3 {
        let now = second(100 + round * 30);
        let received = queue.receive(10, now).await.expect("receives");
        assert_eq!(sorted_bodies(&received), ["fails", "lost"], "round {round}");
        let fails = received.iter().find(|m| m.body == "fails").expect("received");
        queue.give_back(&[failure(fails, "table is busy", true)]).await.expect("gives back");
    }
    let after = queue.receive(10, second(200)).await.expect("receives");
    assert_eq!(after, [], "received three times is the end");
    assert_eq!(queue.depth().await.expect("counts"), 0);
    let dead = queue.dead_letters(10).await.expect("reads");
    assert_eq!(dead.len(), 2);
    let of = |body| dead.iter().find(|d| d.body == body).expect("is a dead letter");
    assert_eq!(of("fails").receive_count, 3);
    assert!(of("fails").reason.contains("table is busy"), "{}", of("fails").reason);
    assert_eq!(of("lost").reason, "received 3 times without success: it was never answered");
    assert_eq!(queue.redrive().await.expect("redrives"), 2);
    let back = queue.receive(10, second(300)).await.expect("receives");
    assert!(back.iter().all(|m| m.receive_count == 1), "redriven messages start at 0");
    queue.delete(&ids(&back)).await.expect("deletes");
}

async fn permanent_failures_become_dead_letters_at_once(queue: &impl Queue) {
    for (i, body) in ["one", "two", "three"].into_iter().enumerate() {
        queue.send(&[body.into()]).await.expect("sends");
        let received = queue.receive(1, second(400)).await.expect("receives");
        queue.give_back(&[failure(&received[0], &format!("reason {i}"), false)]).await.expect("gives back");
    }
    assert_eq!(queue.depth().await.expect("counts"), 0);
    let dead = queue.dead_letters(2).await.expect("reads");
    let shown: Vec<_> = dead.iter().map(|d| (&*d.body, &*d.reason, d.receive_count)).collect();
    assert_eq!(shown, [("one", "reason 0", 1), ("two", "reason 1", 1)], "oldest first, at most the limit");
}

async fn redriven_messages_start_afresh(queue: &impl Queue) {
    queue.send(&["live".into()]).await.expect("sends");
    assert_eq!(queue.redrive().await.expect("redrives"), 3);
    assert_eq!(queue.dead_letters(10).await.expect("reads"), []);
    assert_eq!(queue.depth().await.expect("counts"), 4);
    let received = queue.receive(10, second(500)).await.expect("receives");
    assert_eq!(sorted_bodies(&received), ["live", "one", "three", "two"]);
    assert!(received.iter().all(|m| m.receive_count == 1));
    queue.delete(&ids(&received)).await.expect("deletes");
    assert_eq!(queue.depth().await.expect("counts"), 0);
}

/// One request of the state suite.
fn request(classifier: &'static str, event: u64, at: Timestamp, observations: Observations) -> ObserveRequest<'static> {
    ObserveRequest { classifier, event, at, observations: observations.into_vec() }
}

async fn observe(state: &impl State, event: u64, at_s: i64, observations: Observations) -> Known {
    let known = state.observe(&[request("suite", event, second(at_s), observations)]).await.expect("observes");
    known.into_iter().next().expect("one answer for each request")
}

/// The contract of [`State`]: the semantics of [`crate::observation`], whatever stores the records.
pub async fn state_suite(state: &impl State) {
    assert_eq!(state.observe(&[]).await.expect("observes nothing"), []);
    counts_in_a_window(state).await;
    counts_distinct_values(state).await;
    resets_are_borders(state).await;
    remembers_last_values(state).await;
    knows_what_was_seen(state).await;
    knows_what_stands(state).await;
    keys_are_separate(state).await;
    a_batch_is_applied_in_order(state).await;
    bounds_are_kept(state).await;
}

async fn counts_in_a_window(state: &impl State) {
    let count = |event, at_s, weight| observe(state, event, at_s, Observations::none().count("n", "count", weight, 60));
    let answer = |before, now| Count { before, now, values: Vec::new() };
    assert_eq!(count(1, 0, 1).await.count("n"), answer(0, 1));
    assert_eq!(count(2, 30, 2).await.count("n"), answer(1, 3));
    assert_eq!(count(3, 60, 1).await.count("n"), answer(3, 4), "both ends of the window count");
    assert_eq!(count(4, 61, 1).await.count("n"), answer(3, 4), "the first is outside now");
    assert_eq!(count(2, 30, 2).await.count("n"), answer(1, 3), "delivered again: the same answer");
    assert_eq!(count(5, 15, 1).await.count("n"), answer(4, 5), "late: completes the window around it");
    assert_eq!(count(6, 1000, 1).await.count("n"), answer(0, 1), "nothing near");
    assert_eq!(count(6, 1000, 1).await.count("n"), answer(0, 1));
}

async fn counts_distinct_values(state: &impl State) {
    let distinct = |event, at_s, value: &str| {
        observe(state, event, at_s, Observations::none().distinct("d", "distinct", value, 60))
    };
    assert_eq!(distinct(1, 0, "b").await.count("d"), Count { before: 0, now: 1, values: vec!["b".into()] });
    assert_eq!(distinct(2, 10, "b").await.count("d").now, 1, "equal values count once");
    let two = Count { before: 1, now: 2, values: vec!["a".into(), "b".into()] };
    assert_eq!(distinct(3, 20, "a").await.count("d"), two, "values are sorted");
    assert_eq!(distinct(3, 20, "a").await.count("d"), two, "delivered again: the same answer");
    assert_eq!(distinct(4, 75, "c").await.count("d").now, 2, "values leave with their entries");
}

async fn resets_are_borders(state: &impl State) {
    let count = |event, at_s| observe(state, event, at_s, Observations::none().count("n", "reset", 1, 60));
    count(1, 0).await;
    count(2, 10).await;
    let reset = observe(state, 3, 20, Observations::none().reset("n", "reset", 60)).await;
    assert_eq!(reset.count("n"), Count::default());
    assert_eq!(count(4, 30).await.count("n").now, 1, "what came before the reset no longer counts");
    assert_eq!(count(5, 5).await.count("n").now, 3, "late, before the reset: counts with its side");
}

async fn remembers_last_values(state: &impl State) {
    let remember =
        |event, at_s, value: &str| observe(state, event, at_s, Observations::none().remember("v", "last", value, 100));
    let at = |s, value: &str| Some((second(s), value.to_owned()));
    assert_eq!(remember(1, 50, "x").await.last("v"), LastValues::default());
    let second_answer = LastValues { previous: at(50, "x"), next: None };
    assert_eq!(remember(2, 150, "y").await.last("v"), second_answer, "known for as long as its time to live");
    let swapped = LastValues { previous: None, next: at(50, "x") };
    assert_eq!(remember(3, 0, "w").await.last("v"), swapped, "arrived swapped: the next value shows");
    assert_eq!(remember(2, 150, "y").await.last("v"), second_answer, "delivered again: the same answer");
    assert_eq!(remember(1, 50, "x").await.last("v"), LastValues::default(), "also when more is known now");
    let recall = |event, at_s, ttl_s| observe(state, event, at_s, Observations::none().recall("v", "last", ttl_s));
    assert_eq!(recall(9, 250, 100).await.last("v").previous, at(150, "y"));
    assert_eq!(recall(10, 251, 100).await.last("v"), LastValues::default(), "expiry is compared at read");
    assert_eq!(recall(11, 251, 101).await.last("v").previous, at(150, "y"), "and recalling adds nothing");
    remember(12, 240, "late").await;
    assert_eq!(recall(9, 250, 100).await.last("v").previous, at(150, "y"), "a redelivered recall keeps its answer");
    assert_eq!(recall(13, 250, 100).await.last("v").previous, at(240, "late"));
    let nothing = observe(state, 9, 0, Observations::none().recall("v", "never remembered", 100)).await;
    assert_eq!(nothing.last("v"), LastValues::default());
}

async fn knows_what_was_seen(state: &impl State) {
    let see = |event, at_s| observe(state, event, at_s, Observations::none().see("s", "seen", 1000));
    let seen = |first, last| Seen { first: Some(second(first)), last: Some(second(last)) };
    assert!(see(1, 100).await.seen("s").is_new());
    assert_eq!(see(2, 200).await.seen("s"), seen(100, 100), "first seen, with its age");
    assert_eq!(see(3, 300).await.seen("s"), seen(100, 200));
    assert!(see(1, 100).await.seen("s").is_new(), "delivered again: the first is still told it is new");
    assert_eq!(see(2, 200).await.seen("s"), seen(100, 100), "delivered again: the same answer");
    assert_eq!(see(4, 50).await.seen("s"), seen(100, 300), "late, earlier than the first: not new");
    assert!(see(1, 100).await.seen("s").is_new(), "and the first to arrive keeps its answer");
    assert_eq!(see(5, 1300).await.seen("s"), seen(50, 300), "known for as long as its time to live");
    assert!(see(6, 2301).await.seen("s").is_new(), "forgotten after it");
    assert!(see(6, 2301).await.seen("s").is_new());
    assert_eq!(see(7, 2302).await.seen("s"), seen(2301, 2301));
    assert!(see(8, -5000).await.seen("s").is_new(), "long before: belongs to no life that is known");
    assert_eq!(see(9, 2303).await.seen("s"), seen(2301, 2302), "and does not disturb the present one");
}

async fn knows_what_stands(state: &impl State) {
    let stand = async |event, at_s, begins: &[&str], ends: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let asked = Observations::none().stand("d", "doors", owned(begins), owned(ends), 1000);
        let known = observe(state, event, at_s, asked).await;
        let stood = |s: &Stood| (s.what.clone(), s.since, s.until);
        known.stood("d").flatten().map(stood).collect::<Vec<_>>()
    };
    let door = |what: &str, since, until: Option<i64>| (what.to_owned(), second(since), until.map(second));
    assert_eq!(stand(1, 100, &["front f1"], &[]).await, [door("front f1", 100, None)]);
    assert_eq!(stand(2, 200, &["back b1"], &[]).await, [door("front f1", 100, None), door("back b1", 200, None)]);
    let last = [door("front f1", 100, None), door("back b1", 200, Some(300))];
    assert_eq!(stand(3, 300, &[], &["b1"]).await, last, "what it ends stood until then");
    assert_eq!(stand(4, 301, &[], &[]).await, [door("front f1", 100, None)], "and no longer");
    assert_eq!(stand(5, 250, &[], &["front"]).await.len(), 2, "late: what stood at its time");
    assert_eq!(stand(3, 300, &[], &["b1"]).await, last, "delivered again: the same answer");
    assert_eq!(stand(6, 302, &[], &[]).await, []);
    assert_eq!(stand(7, 310, &["front f1"], &[]).await, [door("front f1", 310, None)], "begun again");
    assert_eq!(stand(8, 1311, &[], &[]).await, [], "known for as long as its time to live");
}

async fn keys_are_separate(state: &impl State) {
    let count = |label, key: &str| Observations::none().count(label, key, 1, 60);
    assert_eq!(observe(state, 1, 0, count("l1", "k1")).await.count("l1").now, 1);
    assert_eq!(observe(state, 2, 0, count("l2", "k1")).await.count("l2").now, 1, "labels separate");
    assert_eq!(observe(state, 3, 0, count("l1", "k2")).await.count("l1").now, 1, "keys separate");
    let other = request("other", 4, second(0), count("l1", "k1"));
    assert_eq!(state.observe(&[other]).await.expect("observes")[0].count("l1").now, 1, "classifiers separate");
    assert_eq!(observe(state, 5, 0, count("l1", "k1")).await.count("l1").now, 2);
    let long = "k".repeat(2 * MAX_KEY_BYTES);
    assert_eq!(observe(state, 6, 0, count("l", &format!("{long}1"))).await.count("l").now, 1);
    assert_eq!(
        observe(state, 7, 0, count("l", &format!("{long}2"))).await.count("l").now,
        1,
        "long keys stay distinct"
    );
    let other_kind = observe(state, 8, 0, Observations::none().see("l1", "k1", 60)).await;
    assert!(other_kind.seen("l1").is_new(), "a record of another kind is replaced");
}

async fn a_batch_is_applied_in_order(state: &impl State) {
    let both =
        || Observations::none().count("n", "batch", 1, 60).recall("v", "batch", 60).remember("v2", "batch", "x", 60);
    let batch: Vec<_> =
        [1, 2, 1].into_iter().map(|event| request("suite", event, second(event as i64), both())).collect();
    let known = state.observe(&batch).await.expect("observes");
    assert_eq!(known.iter().map(|k| k.count("n").now).collect::<Vec<_>>(), [1, 2, 1], "as if one after another");
    assert_eq!(known[1].last("v2").previous, Some((second(1), "x".into())));
    assert_eq!(known[1].last("v"), LastValues::default(), "labels of one request are separate");
    assert_eq!(state.observe(&batch).await.expect("observes"), known, "a batch delivered again: the same answers");
}

async fn bounds_are_kept(state: &impl State) {
    let repeat = |from: u64, many: usize, value: &'static str| {
        (from..).take(many).map(move |event| {
            let observations = Observations::none().distinct("d", "bounds", value, 3600);
            request("suite", event, second(event as i64), observations)
        })
    };
    let many = MAX_DISTINCT_ENTRIES + 10;
    let batch: Vec<_> = repeat(1, many, "a").chain(repeat(1000, many, "b")).chain(repeat(2000, 1, "c")).collect();
    let known = state.observe(&batch).await.expect("observes");
    let last = known.last().expect("answered").count("d");
    assert_eq!((last.before, last.now), (2, 3), "repeating one value does not push the others out");
    let fired = known.iter().filter(|k| k.count("d").reaches(2)).count();
    assert_eq!(fired, 1, "nor makes it fire again");

    let many = MAX_COUNT_ENTRIES as u64 + 20;
    let batch: Vec<_> = (0..many)
        .map(|event| request("suite", event, second(0), Observations::none().count("n", "bounds", 1, 60)))
        .collect();
    let known = state.observe(&batch).await.expect("observes");
    let fired = known.iter().filter(|k| k.count("n").reaches(MAX_COUNT_ENTRIES as u64)).count();
    assert_eq!(fired, 1, "the largest threshold is reached, once");
    assert!(known.last().expect("answered").count("n").now <= MAX_COUNT_ENTRIES as u64 + 1);

    for event in 0..MAX_LAST_ENTRIES as u64 + 5 {
        let remember = Observations::none().remember("v", "bounds", format!("v{event}"), 600);
        observe(state, event, event as i64, remember).await;
    }
    let recalled = observe(state, 99, 4, Observations::none().recall("v", "bounds", 600)).await.last("v");
    assert_eq!(recalled.previous, None, "the oldest values are forgotten first");
    assert_eq!(recalled.next, Some((second(5), "v5".into())));
}

/// The contract of [`Ledger`].
pub async fn ledger_suite(ledger: &impl Ledger) {
    let claim = async |key, now, until| ledger.claim(key, second(now), second(until)).await.expect("claims");
    assert_eq!(claim("a", 0, 10).await, Claim::Ours);
    assert_eq!(claim("a", 9, 20).await, Claim::Busy { until: second(10) });
    assert_eq!(claim("b", 9, 20).await, Claim::Ours, "keys are separate");
    assert_eq!(claim("a", 10, 20).await, Claim::Ours, "a lease that has ended may be taken over");
    assert_eq!(claim("a", 11, 30).await, Claim::Busy { until: second(20) });
    ledger.complete("a", "{\"done\":1}", second(12)).await.expect("completes");
    assert_eq!(claim("a", 1000, 2000).await, Claim::Done("{\"done\":1}".into()));
    assert_eq!(claim("a", LEDGER_RETENTION_S, 2 * LEDGER_RETENTION_S).await, Claim::Done("{\"done\":1}".into()));
    ledger.release("a").await.expect("releases");
    assert_eq!(claim("a", 1000, 2000).await, Claim::Done("{\"done\":1}".into()), "what is done is not given up");
    ledger.release("b").await.expect("releases");
    assert_eq!(claim("b", 10, 20).await, Claim::Ours, "given up: free at once");
    ledger.release("never claimed").await.expect("releases nothing");
    ledger.complete("never claimed", "", second(0)).await.expect("completes after a lost lease");
    assert_eq!(claim("never claimed", 1, 2).await, Claim::Done(String::new()));

    let keys = ["b", "a", "nobody's", "never claimed", "a"].map(str::to_owned);
    let done = Some("{\"done\":1}".to_owned());
    let expected = [None, done.clone(), None, Some(String::new()), done];
    assert_eq!(ledger.results(&keys).await.expect("looks"), expected, "in their order, only what is done");
    assert_eq!(ledger.results(&[]).await.expect("looks"), []);
    assert_eq!(claim("nobody's", 0, 1).await, Claim::Ours, "looking claims nothing");
}

/// A ledger for a component's tests that takes only keys of the kinds that the component declares: for what else it claims
/// its function would have no permission, which no emulator shows.
#[derive(Debug)]
pub struct DeclaredLedger<L> {
    /// What keeps the entries.
    pub ledger: L,
    /// First parts of keys; `?` is any character, as in IAM.
    pub kinds: &'static [&'static str],
}

impl<L> DeclaredLedger<L> {
    /// A ledger that takes keys of these kinds.
    pub const fn new(ledger: L, kinds: &'static [&'static str]) -> Self {
        Self { ledger, kinds }
    }

    fn check(&self, key: &str) {
        let first = key.split_once('/').map(|(first, _)| first);
        let is_of = |kind: &&str, first: &str| {
            kind.len() == first.len() && kind.bytes().zip(first.bytes()).all(|(k, f)| k == b'?' || k == f)
        };
        let is_declared = first.is_some_and(|first| self.kinds.iter().any(|kind| is_of(kind, first)));
        assert!(is_declared, "{key} is of none of the kinds {:?}", self.kinds);
    }
}

impl<L: Ledger> Ledger for DeclaredLedger<L> {
    async fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> PortResult<Claim> {
        self.check(key);
        self.ledger.claim(key, now, lease_until).await
    }

    async fn complete(&self, key: &str, result: &str, now: Timestamp) -> PortResult<()> {
        self.check(key);
        self.ledger.complete(key, result, now).await
    }

    async fn release(&self, key: &str) -> PortResult<()> {
        self.check(key);
        self.ledger.release(key).await
    }

    async fn results(&self, keys: &[String]) -> PortResult<Vec<Option<String>>> {
        keys.iter().for_each(|key| self.check(key));
        self.ledger.results(keys).await
    }
}

/// An incident of the suite: synthetic, its id made from `event_id` and the time.
pub fn sample_incident(event_id: &str, at: Timestamp, resolution_key: Option<&str>) -> Incident {
    let finding = Finding {
        finding_id: FindingId::new("suite", "123456789012", "eu-central-1", event_id),
        classifier: "suite".into(),
        title: "A thing happened".into(),
        severity: Severity::High,
        effect: Effect::Threat,
        attempt: false,
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        event_id: event_id.into(),
        event_source: "ec2.amazonaws.com".into(),
        event_name: "AuthorizeSecurityGroupIngress".into(),
        event_time: at,
        principal: "arn:aws:iam::123456789012:user/alice".into(),
        identity: crate::event::Identity::default(),
        source_ip: "192.0.2.1".into(),
        user_agent: String::new(),
        resource: "sg-1".into(),
        techniques: Vec::new(),
        responses: Vec::new(),
        dedup_key: String::new(),
        resolution_key: resolution_key.map(Into::into),
        evidence: std::collections::BTreeMap::new(),
    };
    Incident {
        incident_id: IncidentId::of(&finding),
        record_type: "incident".into(),
        event: finding.title,
        event_type: finding.classifier,
        source: finding.event_source,
        region: finding.region,
        account: finding.account,
        resource_id: finding.resource,
        severity: finding.severity,
        status: IncidentStatus::New,
        timestamp: at,
        created_at: at,
        updated_at: at,
        note: None,
        last_action: None,
        last_action_result: None,
        notify_status: "PENDING".into(),
        resolution_key: finding.resolution_key,
        details: serde_json::json!({"ports": [22, 3389], "text": "Zeile\n\u{1b}[31m"}),
    }
}

/// Incidents of one resolution key in the suite: more than an adapter reads in one call.
const MANY_INCIDENTS: i64 = 130;

/// The contract of [`Incidents`].
pub async fn incidents_suite(incidents: &impl Incidents) {
    let all = [
        sample_incident("e1", second(0), Some("k/1")),
        sample_incident("e2", second(10), Some("k/1")),
        sample_incident("e3", second(5), Some("k/10")),
        sample_incident("e4", second(20), None),
    ];
    let [one, two, three, four] = all.each_ref().map(|i| i.incident_id);
    assert_eq!(incidents.get(one).await.expect("gets"), None);
    incidents.update(one, &mut |found| found).await.expect("leaves nothing as it is");
    assert_eq!(incidents.list(&IncidentFilter::default()).await.expect("lists"), []);
    for incident in &all {
        let mut found = Some(incident.clone());
        let put = &mut |before| {
            found = before;
            Some(incident.clone())
        };
        incidents.update(incident.incident_id, put).await.expect("puts");
        assert_eq!(found, None);
    }
    assert_eq!(incidents.get(one).await.expect("gets").as_ref(), Some(&all[0]), "comes back as it was");

    let close = &mut |found: Option<Incident>| found.map(|i| Incident { status: IncidentStatus::Closed, ..i });
    incidents.update(one, close).await.expect("updates");
    incidents.update(two, &mut |_| None).await.expect("leaves it as it is");
    assert_eq!(incidents.get(two).await.expect("gets").as_ref(), Some(&all[1]));
    let wrong = incidents.update(two, &mut |_| Some(all[3].clone())).await;
    assert!(wrong.is_err_and(|e| !e.is_retryable()), "an incident is stored under its own id only");

    let list = async |statuses: &[IncidentStatus], resolution_key: Option<&str>, limit| {
        let (statuses, resolution_key) = (statuses.to_vec(), resolution_key.map(Into::into));
        let filter = IncidentFilter { statuses, resolution_key, limit, ..IncidentFilter::default() };
        let found = incidents.list(&filter).await.expect("lists");
        found.iter().map(|i| i.incident_id).collect::<Vec<_>>()
    };
    assert_eq!(list(&[], None, 0).await, [four, two, three, one], "newest first");
    assert_eq!(list(&[], None, 2).await, [four, two]);
    assert_eq!(list(&[IncidentStatus::New], None, 2).await, [four, two]);
    assert_eq!(list(&[IncidentStatus::Closed, IncidentStatus::Mitigated], None, 0).await, [one]);
    assert_eq!(list(&[], Some("k/1"), 0).await, [two, one], "the whole key, not a prefix");
    assert_eq!(list(&[], Some("k/1"), 1).await, [two]);
    assert_eq!(list(&[IncidentStatus::Closed], Some("k/1"), 1).await, [one], "the limit counts what is selected");
    assert_eq!(list(&[], Some("k"), 0).await, []);

    let page = async |since: Option<i64>, after, resolution_key: Option<&str>, limit| {
        let (since, resolution_key) = (since.map(second), resolution_key.map(Into::into));
        let filter = IncidentFilter { since, after, resolution_key, limit, ..IncidentFilter::default() };
        let found = incidents.list(&filter).await.expect("lists");
        found.iter().map(|i| i.incident_id).collect::<Vec<_>>()
    };
    assert_eq!(page(Some(5), None, None, 0).await, [four, two, three], "the time itself is in");
    assert_eq!(page(Some(21), None, None, 0).await, []);
    assert_eq!(page(None, Some(four), None, 2).await, [two, three], "behind it, without it");
    assert_eq!(page(None, Some(one), None, 0).await, []);
    assert_eq!(page(Some(6), Some(four), None, 0).await, [two]);
    assert_eq!(page(Some(6), Some(three), None, 0).await, [], "between the two is nothing");
    assert_eq!(page(Some(1), None, Some("k/1"), 0).await, [two]);
    assert_eq!(page(None, Some(two), Some("k/1"), 0).await, [one]);

    let rekey = &mut |found: Option<Incident>| found.map(|i| Incident { resolution_key: Some("k/2".into()), ..i });
    incidents.update(two, rekey).await.expect("updates");
    assert_eq!(list(&[], Some("k/1"), 0).await, [one], "the index follows");
    assert_eq!(list(&[], Some("k/2"), 0).await, [two]);

    // More than any adapter reads at once.
    let mut many = Vec::new();
    for i in 0..MANY_INCIDENTS {
        let at = Timestamp::from_millis(1_780_000_000_000).plus_seconds(60 * i);
        let incident = sample_incident(&format!("many-{i}"), at, Some("k/many"));
        many.insert(0, incident.incident_id);
        incidents.update(incident.incident_id, &mut |_| Some(incident.clone())).await.expect("puts");
    }
    assert_eq!(list(&[], Some("k/many"), 0).await, many, "all of them, newest first");
    assert_eq!(list(&[], Some("k/many"), 3).await, many[..3]);
    assert_eq!(list(&[], Some("k/many"), 120).await, many[..120]);
    let oldest = many[many.len() - 1];
    incidents.update(oldest, close).await.expect("updates");
    assert_eq!(list(&[IncidentStatus::Closed], Some("k/many"), 1).await, [oldest], "whatever is before it");
}
