//! The logger over memory ports and a real file.

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

use proptest::prelude::*;
use shared::adapters::memory::{FixedClock, MemoryIncidents, MemoryLedger};
use shared::ports::{Claim, IncidentFilter};
use shared::testing::DeclaredLedger;
use shared::{Finding, Incident, IncidentStatus, OutcomeStatus, Timestamp};

use super::tests_support::{at, finding, good_news, outcome, receipt};
use super::*;
use crate::sink::{FileLog, WriteLog};

fn message(id: usize, envelope: &Envelope) -> Message {
    Message { message_id: id.to_string(), body: envelope.to_body(), receive_count: 1 }
}

fn clock() -> Rc<FixedClock> {
    Rc::new(FixedClock::at(at("2026-03-01T13:00:00Z")))
}

type Memory = Logger<Rc<MemoryIncidents>, DeclaredLedger<MemoryLedger>, WriteLog<Vec<u8>>, Rc<FixedClock>>;

fn logger() -> (Rc<MemoryIncidents>, Memory) {
    let incidents = Rc::new(MemoryIncidents::default());
    let sink = WriteLog::new(Vec::new());
    let ledger = DeclaredLedger::new(MemoryLedger::default(), &LEDGER_KINDS);
    let logger = Logger::new(Format::Ocsf, incidents.clone(), ledger, sink, clock());
    (incidents, logger)
}

async fn stored(incidents: &MemoryIncidents) -> Vec<Incident> {
    let mut all = incidents.list(&IncidentFilter::default()).await.expect("memory");
    for incident in &mut all {
        incident.updated_at = Timestamp::default();
    }
    all
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// Handles the messages in batches of `batch` as a queue would, giving back what failed.
async fn drain<H: Handler>(logger: &H, messages: Vec<Message>, batch: usize) {
    let mut queue: VecDeque<Message> = messages.into();
    let mut rounds = 0;
    while !queue.is_empty() {
        let now: Vec<Message> = queue.drain(..batch.min(queue.len())).collect();
        let result = logger.handle(&now).await;
        for failed in result.failed {
            assert!(failed.retryable, "{failed:?}");
            let message = now.iter().find(|m| m.message_id == failed.message_id).expect("of this batch");
            queue.push_back(message.clone());
        }
        rounds += 1;
        assert!(rounds < 10_000, "it must come to an end");
    }
}

/// Three threats and two pieces of good news about one group, one outcome chain each, and receipts.
fn story() -> Vec<Envelope> {
    let threats: Vec<Finding> = [1, 3, 5].map(finding).into();
    let mut story: Vec<Envelope> = threats.iter().cloned().map(Envelope::finding).collect();
    story.extend([good_news(2), good_news(4)].map(Envelope::finding));
    let of = |f: &Finding, status| Envelope::outcome(f.clone(), outcome(f, status));
    story.push(of(&threats[0], OutcomeStatus::DryRun));
    story.extend([OutcomeStatus::Triggered, OutcomeStatus::Running, OutcomeStatus::Failed].map(|s| of(&threats[1], s)));
    story.extend(
        [OutcomeStatus::PendingApproval, OutcomeStatus::Running, OutcomeStatus::Succeeded].map(|s| of(&threats[2], s)),
    );
    for (f, channel, delivered) in [
        (&threats[0], "file", true),
        (&threats[0], "sns", false),
        (&threats[1], "sns", false),
        (&threats[2], "group", true),
        (&good_news(2), "none", false),
    ] {
        story.push(Envelope::receipt(f.event_id.clone(), receipt(f, channel, delivered)));
    }
    story
}

#[tokio::test]
async fn the_story_ends_as_spec_5_says() {
    let (incidents, logger) = logger();
    let messages = story().iter().enumerate().map(|(i, e)| message(i, e)).collect();
    drain(&logger, messages, 100).await;
    let all = stored(&incidents).await;
    let seen: Vec<_> = all
        .iter()
        .rev()
        .map(|i| (i.event_type.as_str(), i.status, i.last_action_result.as_deref(), i.notify_status.as_str()))
        .collect();
    let (open, closed) = ("security_group_opened_to_world", "security_group_closed");
    assert_eq!(
        seen,
        [
            (open, IncidentStatus::Closed, Some("DRY_RUN"), "SENT"),
            (closed, IncidentStatus::Closed, None, "NOT_TOLD"),
            (open, IncidentStatus::Closed, Some("FAILED"), "FAILED"),
            (closed, IncidentStatus::Closed, None, "PENDING"),
            (open, IncidentStatus::Mitigated, Some("SUCCEEDED"), "GROUPED"),
        ]
    );
    assert_eq!(all[4].details["resolved_by"], serde_json::json!(all[3].incident_id));
    assert!(all[0].details.get("resolved_by").is_none(), "it opened after the last good news");
}

#[tokio::test]
async fn a_dry_run_leaves_the_incident_new() {
    let (incidents, logger) = logger();
    let f = finding(1);
    let dry = Envelope::outcome(f.clone(), outcome(&f, OutcomeStatus::DryRun));
    assert_eq!(logger.handle(&[message(1, &dry)]).await, BatchResult::default());
    let incident = &stored(&incidents).await[0];
    assert_eq!(incident.status, IncidentStatus::New);
    assert_eq!(incident.last_action.as_deref(), Some("security_group_rule_revoke"));
    assert_eq!(incident.last_action_result.as_deref(), Some("DRY_RUN"));
}

#[tokio::test]
async fn a_receipt_before_its_finding_waits() {
    let (incidents, logger) = logger();
    let f = finding(1);
    let early = message(1, &Envelope::receipt("event-1".to_owned(), receipt(&f, "file", true)));
    let result = logger.handle(std::slice::from_ref(&early)).await;
    assert!(result.failed[0].retryable, "{result:?}");
    assert_eq!(logger.handle(&[early, message(2, &Envelope::finding(f))]).await, BatchResult::default());
    assert_eq!(stored(&incidents).await[0].notify_status, "SENT");
}

#[tokio::test]
async fn a_body_that_is_no_envelope_fails_alone() {
    let (incidents, logger) = logger();
    let bad = Message { message_id: "bad".to_owned(), body: "[]".to_owned(), receive_count: 1 };
    let result = logger.handle(&[bad, message(2, &Envelope::finding(finding(1)))]).await;
    assert_eq!(result.failed.len(), 1);
    assert!(!result.failed[0].retryable && result.failed[0].message_id == "bad");
    assert_eq!(stored(&incidents).await.len(), 1);
}

fn lines_of(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> = std::fs::read_to_string(path).expect("readable").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// A ledger whose process dies after a number of completions, and that no other process uses: a lease that is still open
/// belongs to one that died.
struct Mortal {
    inner: Rc<MemoryLedger>,
    completions_left: Cell<u32>,
}

impl Ledger for Mortal {
    async fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> PortResult<Claim> {
        match self.inner.claim(key, now, lease_until).await? {
            Claim::Busy { until } => self.inner.claim(key, until, lease_until).await,
            claim => Ok(claim),
        }
    }

    async fn complete(&self, key: &str, result: &str, now: Timestamp) -> PortResult<()> {
        if self.completions_left.get() == 0 {
            return Err(PortError::Retryable { what: "the process is dead".to_owned(), source: None });
        }
        self.completions_left.set(self.completions_left.get() - 1);
        self.inner.complete(key, result, now).await
    }

    async fn release(&self, key: &str) -> PortResult<()> {
        self.inner.release(key).await
    }

    async fn results(&self, keys: &[String]) -> PortResult<Vec<Option<String>>> {
        self.inner.results(keys).await
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_and_repetition_do_not_matter(
        order in Just((0..story().len()).chain(0..story().len()).collect::<Vec<_>>()).prop_shuffle(),
        drop in 0..16_usize,
        batch in 1..12_usize,
    ) {
        let story = story();
        let (expected, plain) = logger();
        run(drain(&plain, story.iter().enumerate().map(|(i, e)| message(i, e)).collect(), 1));
        // Each message once or twice, in any order.
        let mut seen = vec![0; story.len()];
        let mut messages = Vec::new();
        for (at, i) in order.into_iter().enumerate() {
            seen[i] += 1;
            if seen[i] == 1 || i != drop {
                messages.push(message(at, &story[i]));
            }
        }
        let (incidents, shuffled) = logger();
        run(drain(&shuffled, messages, batch));
        prop_assert_eq!(run(stored(&incidents)), run(stored(&expected)));
        let sorted = |logger: Memory| {
            let text = String::from_utf8(logger.sink.into_inner()).expect("UTF-8");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        prop_assert_eq!(sorted(shuffled), sorted(plain));
    }

    #[test]
    fn a_kill_at_any_point_loses_and_doubles_no_line(
        deaths in prop::collection::vec(0..6_u32, 0..6),
        tear in 0..400_usize,
        batch in 1..8_usize,
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pipeline.log");
        let (incidents, ledger) = (Rc::new(MemoryIncidents::default()), Rc::new(MemoryLedger::default()));
        let story = story();
        let messages: Vec<Message> = story.iter().enumerate().map(|(i, e)| message(i, e)).collect();
        for completions in deaths {
            let mortal = Mortal { inner: ledger.clone(), completions_left: Cell::new(completions) };
            let log = FileLog::open(&path).expect("opened");
            let logger = Logger::new(Format::Ocsf, incidents.clone(), mortal, log, clock());
            for messages in messages.chunks(batch) {
                run(logger.handle(messages));
            }
            // What the process was writing when it died.
            let torn = line(Format::Ocsf, &story[0]);
            let part: String = torn.chars().take(tear.min(torn.len() - 1)).collect();
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("opened");
            std::io::Write::write_all(&mut file, part.as_bytes()).expect("written");
        }
        let log = FileLog::open(&path).expect("opened");
        let mortal = Mortal { inner: ledger, completions_left: Cell::new(u32::MAX) };
        let logger = Logger::new(Format::Ocsf, incidents, mortal, log, clock());
        run(drain(&logger, messages, batch));
        let mut expected: Vec<String> = story.iter().map(|e| line(Format::Ocsf, e)).collect();
        expected.sort_unstable();
        prop_assert_eq!(lines_of(&path), expected);
        prop_assert_eq!(logger.sink.uncommitted(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_notice_is_closed_from_the_start() {
    let (incidents, logger) = logger();
    let notice = Finding { effect: shared::Effect::Notice, ..finding(1) };
    drain(&logger, vec![message(1, &Envelope::finding(notice))], 10).await;
    let [incident] = &stored(&incidents).await[..] else { panic!("one incident") };
    assert_eq!(incident.status, IncidentStatus::Closed);
}

#[tokio::test]
async fn an_incident_keeps_when_each_component_first_let_its_finding_go() {
    let (incidents, logger) = logger();
    let (early, late) = (at("2026-03-01T12:59:00Z"), at("2026-03-01T12:59:30Z"));
    let finding = Envelope::finding(finding(1)).passed_by("classifier", early).passed_by("responder", late);
    drain(&logger, vec![message(1, &finding)], 10).await;
    let [incident] = &stored(&incidents).await[..] else { panic!("one incident") };
    assert_eq!(incident.details["passed"], serde_json::json!({"classifier": early, "responder": late}));
    let mut again = finding.clone();
    again.passed.insert("responder".to_owned(), early);
    let Payload::Finding(finding) = &again.payload else { panic!("a finding") };
    apply_finding(&incidents, finding, &again.passed, late).await.expect("memory");
    let [incident] = &stored(&incidents).await[..] else { panic!("one incident") };
    assert_eq!(incident.details["passed"]["responder"], serde_json::json!(early));
}

/// A store that counts what it is asked for.
#[derive(Default)]
struct Counting {
    incidents: MemoryIncidents,
    listed: Cell<usize>,
    updates: Cell<usize>,
}

impl Incidents for Counting {
    async fn get(&self, id: IncidentId) -> PortResult<Option<Incident>> {
        self.incidents.get(id).await
    }

    async fn update(
        &self,
        id: IncidentId,
        change: &mut dyn FnMut(Option<Incident>) -> Option<Incident>,
    ) -> PortResult<()> {
        self.updates.set(self.updates.get() + 1);
        self.incidents.update(id, change).await
    }

    async fn list(&self, filter: &IncidentFilter) -> PortResult<Vec<Incident>> {
        let found = self.incidents.list(filter).await?;
        self.listed.set(self.listed.get().max(found.len()));
        Ok(found)
    }
}

#[tokio::test]
async fn what_is_opened_and_closed_all_day_costs_no_more_in_the_evening() {
    let (store, now) = (Counting::default(), at("2026-03-02T12:00:00Z"));
    for n in (0..800).step_by(2) {
        let closed = Finding { event_time: finding(n + 1).event_time, ..good_news(n) };
        apply_finding(&store, &finding(n), &BTreeMap::new(), now).await.expect("memory");
        store.updates.set(0);
        apply_finding(&store, &closed, &BTreeMap::new(), now).await.expect("memory");
        assert_eq!(store.updates.get(), 2, "its own and the one that it closes");
    }
    assert_eq!(store.listed.get(), 100);
    let all = store.incidents.list(&IncidentFilter::default()).await.expect("memory");
    assert!(all.len() == 800 && all.iter().all(|i| i.status == IncidentStatus::Closed), "every one is closed");
}
