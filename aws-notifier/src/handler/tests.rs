//! The notifier over memory ports.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use shared::adapters::memory::{FixedClock, MemoryLedger};
use shared::ports::PortResult;
use shared::testing::DeclaredLedger;
use shared::{FindingId, Severity};

use super::*;
use crate::channels::{ChannelError, Delivery};
use crate::message::tests_support::{at, finding, finding_numbered, outcome_of};

/// Remembers what it delivered and fails as told.
#[derive(Default)]
struct Recorder {
    alerts: RefCell<Vec<Alert>>,
    failures: RefCell<Vec<bool>>,
}

struct Recording(Rc<Recorder>, &'static str);

impl Channel for Recording {
    fn id(&self) -> &'static str {
        self.1
    }

    fn deliver<'a>(&'a self, alert: &'a Alert) -> Delivery<'a> {
        Box::pin(async move {
            match self.0.failures.borrow_mut().pop() {
                Some(true) => Err(ChannelError { retryable: true, what: "throttled".to_owned(), source: None }),
                Some(false) => Err(ChannelError { retryable: false, what: "no such topic".to_owned(), source: None }),
                None => {
                    self.0.alerts.borrow_mut().push(alert.clone());
                    Ok(format!("ref-{}", self.0.alerts.borrow().len()))
                }
            }
        })
    }
}

#[derive(Default)]
struct Sent {
    bodies: RefCell<Vec<String>>,
    broken: RefCell<bool>,
}

impl Outbox for Sent {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        if *self.broken.borrow() {
            return Err(PortError::Retryable { what: "could not send to queue logger".to_owned(), source: None });
        }
        self.bodies.borrow_mut().extend_from_slice(bodies);
        Ok(())
    }
}

impl Sent {
    fn receipts(&self) -> Vec<Receipt> {
        let bodies = self.bodies.borrow();
        bodies
            .iter()
            .map(|body| match Envelope::from_body(body).expect("an envelope").payload {
                Payload::Receipt(receipt) => *receipt,
                other => panic!("not a receipt: {other:?}"),
            })
            .collect()
    }
}

struct World {
    one: Rc<Recorder>,
    two: Rc<Recorder>,
    sent: Rc<Sent>,
    clock: Rc<FixedClock>,
    notifier: Notifier<DeclaredLedger<MemoryLedger>, Rc<Sent>, Rc<FixedClock>>,
}

fn world(policy: Policy) -> World {
    let (one, two) = (Rc::new(Recorder::default()), Rc::new(Recorder::default()));
    let channels: Vec<Box<dyn Channel>> =
        vec![Box::new(Recording(one.clone(), "one")), Box::new(Recording(two.clone(), "two"))];
    let sent = Rc::new(Sent::default());
    let clock = Rc::new(FixedClock::at(at("2026-03-01T12:01:00Z")));
    let ledger = DeclaredLedger::new(MemoryLedger::default(), &LEDGER_KINDS);
    let notifier = Notifier::new(policy, channels, ledger, sent.clone(), clock.clone());
    World { one, two, sent, clock, notifier }
}

fn message(id: &str, body: String) -> Message {
    Message { message_id: id.to_owned(), body, receive_count: 1 }
}

fn of(finding: &Finding) -> Message {
    message(&finding.event_id, Envelope::finding(finding.clone()).to_body())
}

fn of_outcome(finding: &Finding, status: OutcomeStatus) -> Message {
    let outcome = outcome_of(finding, status);
    message(&outcome.outcome_id, Envelope::outcome(finding.clone(), outcome.clone()).to_body())
}

fn other_key(n: u32) -> Finding {
    Finding { dedup_key: format!("key-{n}"), ..finding_numbered(n, at("2026-03-01T12:00:00Z")) }
}

#[tokio::test]
async fn a_redelivered_finding_is_told_once_and_its_receipts_are_the_same() {
    let w = world(Policy::default());
    assert_eq!(w.notifier.handle(&[of(&finding())]).await, BatchResult::default());
    w.clock.set(at("2026-03-01T12:09:00Z"));
    assert_eq!(w.notifier.handle(&[of(&finding()), of(&finding())]).await, BatchResult::default());
    assert_eq!((w.one.alerts.borrow().len(), w.two.alerts.borrow().len()), (1, 1));
    let receipts = w.sent.receipts();
    assert_eq!(receipts.len(), 6);
    assert_eq!(receipts[..2], receipts[2..4]);
    assert_eq!(receipts[..2], receipts[4..]);
    assert!(receipts.iter().all(|r| r.delivered));
}

#[tokio::test]
async fn a_lost_receipt_is_sent_by_the_redelivery_without_a_second_alert() {
    let w = world(Policy::default());
    *w.sent.broken.borrow_mut() = true;
    let result = w.notifier.handle(&[of(&finding())]).await;
    assert!(result.failed[0].retryable, "{result:?}");
    *w.sent.broken.borrow_mut() = false;
    assert_eq!(w.notifier.handle(&[of(&finding())]).await, BatchResult::default());
    assert_eq!(w.one.alerts.borrow().len(), 1);
    assert_eq!(w.sent.receipts().len(), 2);
}

#[tokio::test]
async fn a_retryable_error_returns_the_message_and_only_the_failed_channel_runs_again() {
    let w = world(Policy::default());
    w.two.failures.borrow_mut().push(true);
    let result = w.notifier.handle(&[of(&finding()), of(&other_key(2))]).await;
    assert_eq!(result.failed.len(), 1);
    assert!(result.failed[0].retryable && result.failed[0].message_id == "event-1", "{result:?}");
    assert_eq!(w.notifier.handle(&[of(&finding())]).await, BatchResult::default());
    assert_eq!((w.one.alerts.borrow().len(), w.two.alerts.borrow().len()), (2, 2));
}

#[tokio::test]
async fn a_permanent_error_is_reported_and_a_redrive_delivers() {
    let w = world(Policy::default());
    w.one.failures.borrow_mut().push(false);
    let result = w.notifier.handle(&[of(&finding())]).await;
    assert!(!result.failed[0].retryable && result.failed[0].reason.contains("no such topic"), "{result:?}");
    assert_eq!(w.sent.receipts().iter().filter(|r| r.delivered).count(), 1);
    assert_eq!(w.notifier.handle(&[of(&finding())]).await, BatchResult::default());
    assert_eq!((w.one.alerts.borrow().len(), w.two.alerts.borrow().len()), (1, 1));
    let ids: std::collections::BTreeSet<_> =
        w.sent.receipts().into_iter().map(|r| (r.receipt_id, r.delivered)).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[tokio::test]
async fn a_body_that_is_no_envelope_fails_alone() {
    let w = world(Policy::default());
    let receipt = Receipt {
        receipt_id: "x/y".to_owned(),
        finding_id: FindingId::new("a", "b", "c", "d"),
        channel: "x".to_owned(),
        reference: String::new(),
        delivered: true,
        note: String::new(),
        at: at("2026-03-01T12:00:00Z"),
    };
    let batch = [
        message("bad", "{".to_owned()),
        of(&finding()),
        message("old", Envelope::finding(finding()).to_body().replace("\"schema_version\":1", "\"schema_version\":9")),
        message("receipt", Envelope::receipt("c".to_owned(), receipt).to_body()),
    ];
    let result = w.notifier.handle(&batch).await;
    let mut ids: Vec<_> = result.failed.iter().map(|f| (f.message_id.as_str(), f.retryable)).collect();
    ids.sort_unstable();
    assert_eq!(ids, [("bad", false), ("old", false), ("receipt", false)]);
    assert_eq!(w.one.alerts.borrow().len(), 1);
}

#[tokio::test]
async fn repeats_in_the_window_become_one_alert_with_a_count() {
    let w = world(Policy::default());
    let start = at("2026-03-01T12:00:00Z");
    let findings: Vec<Finding> = (0..4).map(|n| finding_numbered(n, start.plus_seconds(i64::from(n) * 30))).collect();
    let batch = [of(&findings[2]), of(&findings[0]), of(&findings[1]), of(&findings[0])];
    assert_eq!(w.notifier.handle(&batch).await, BatchResult::default());
    assert_eq!(w.notifier.handle(&[of(&findings[3])]).await, BatchResult::default());
    let alerts = w.one.alerts.borrow();
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0].finding_id, findings[0].finding_id);
    assert!(alerts[0].body.contains("Seen 3 times"), "{}", alerts[0].body);
    let grouped: Vec<_> = w.sent.receipts().into_iter().filter(|r| r.channel == GROUPED).collect();
    assert_eq!(grouped.len(), 3);
    assert!(grouped.iter().all(|r| r.reference == findings[0].finding_id.to_string()));
}

/// What is told of these findings, a second apart, each in a batch of its own and all in one.
async fn told(findings: Vec<Finding>) -> [Vec<(Severity, String)>; 2] {
    let start = at("2026-03-01T12:00:00Z");
    let numbered = findings.into_iter().zip(0..).map(|(finding, n)| {
        let Finding { finding_id, event_id, event_time, .. } = finding_numbered(n, start.plus_seconds(i64::from(n)));
        Finding { finding_id, event_id, event_time, ..finding }
    });
    let messages: Vec<Message> = numbered.map(|finding| of(&finding)).collect();
    let mut told = [Vec::new(), Vec::new()];
    for (told, size) in told.iter_mut().zip([1, messages.len()]) {
        let w = world(Policy::default());
        for batch in messages.chunks(size) {
            assert_eq!(w.notifier.handle(batch).await, BatchResult::default());
        }
        told.extend(w.one.alerts.borrow().iter().map(|alert| (alert.severity, alert.subject.clone())));
    }
    told
}

#[tokio::test]
async fn a_higher_severity_is_never_hidden_by_a_lower_one() {
    let denied = Finding { attempt: true, severity: Severity::Medium, event_name: "StopLogging".into(), ..finding() };
    let stopped = Finding { attempt: false, severity: Severity::High, ..denied.clone() };
    let deleted = Finding { event_name: "DeleteTrail".into(), severity: Severity::Critical, ..stopped.clone() };
    let trail = vec![denied.clone(), stopped.clone(), deleted, denied, stopped];
    let of_severity = |severity| Finding { title: "Instance talks to a miner".into(), severity, ..finding() };
    let guardduty = vec![of_severity(Severity::Medium), of_severity(Severity::Critical), of_severity(Severity::Medium)];
    let port = |title: &str, severity| Finding { title: title.into(), severity, ..finding() };
    let ports = vec![port("Port 3389 was opened", Severity::High), port("Port 22 was opened", Severity::Critical)];
    let from = |source_ip: &str| Finding { source_ip: source_ip.into(), ..finding() };
    let addresses = vec![from("192.0.2.1"), from("203.0.113.1"), from("192.0.2.1")];
    for (findings, expected) in [
        (trail, vec![Severity::Medium, Severity::High, Severity::Critical]),
        (guardduty, vec![Severity::Medium, Severity::Critical]),
        (ports, vec![Severity::High, Severity::Critical]),
        (addresses, vec![Severity::High, Severity::High]),
    ] {
        for told in told(findings).await {
            let severities: Vec<Severity> = told.iter().map(|(severity, _)| *severity).collect();
            assert_eq!(severities, expected, "{told:?}");
        }
    }
}

#[tokio::test]
async fn a_burst_of_true_repeats_is_one_mail() {
    for told in told(vec![finding(); 100]).await {
        assert_eq!(told.len(), 1, "{told:?}");
    }
}

proptest! {
    #[test]
    fn whatever_is_not_told_is_a_repeat_of_what_is(
        drawn in prop::collection::vec((2..5_usize, 0..2_u8, any::<bool>(), 0..2_u8, 0..2_u8, 0..900_i64), 1..30),
        batch in 1..12_usize,
    ) {
        let start = at("2026-03-01T12:00:00Z");
        let findings: Vec<Finding> = drawn.iter().zip(0..).map(|((severity, name, attempt, from, about, after_s), n)| Finding {
            severity: Severity::ALL[*severity],
            event_name: format!("Call{name}"),
            attempt: *attempt,
            source_ip: format!("192.0.2.{from}"),
            dedup_key: format!("about/{about}"),
            ..finding_numbered(n, start.plus_seconds(*after_s))
        }).collect();
        let w = world(Policy { min_severity: Severity::Info, ..Policy::default() });
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for messages in findings.iter().map(of).collect::<Vec<_>>().chunks(batch) {
            prop_assert_eq!(runtime.block_on(w.notifier.handle(messages)), BatchResult::default());
        }
        let group = |finding: &Finding| (finding.repeat_key(), finding.event_time.as_millis() / 300_000);
        let told: Vec<_> = w.one.alerts.borrow().iter().map(|alert| alert.finding_id).collect();
        let told: Vec<_> = findings.iter().filter(|f| told.contains(&f.finding_id)).map(group).collect();
        let groups: std::collections::BTreeSet<_> = findings.iter().map(group).collect();
        prop_assert_eq!(told.len(), groups.len(), "each once");
        prop_assert_eq!(told.into_iter().collect::<std::collections::BTreeSet<_>>(), groups);
    }
}

#[tokio::test]
async fn what_changed_something_or_failed_is_told_each_time() {
    let start = at("2026-03-01T12:00:00Z");
    let [one, two] = [1, 2].map(|n| finding_numbered(n, start.plus_seconds(i64::from(n))));
    for (status, expected) in [(OutcomeStatus::Succeeded, 2), (OutcomeStatus::Failed, 2), (OutcomeStatus::DryRun, 1)] {
        let w = world(Policy::default());
        for _ in 0..2 {
            let batch = [of_outcome(&one, status), of_outcome(&two, status)];
            assert_eq!(w.notifier.handle(&batch).await, BatchResult::default());
        }
        assert_eq!(w.one.alerts.borrow().len(), expected, "{status:?}");
    }
    let other = Finding { title: "Port 22 was opened".to_owned(), ..two };
    let w = world(Policy::default());
    w.notifier.handle(&[of_outcome(&one, OutcomeStatus::DryRun), of_outcome(&other, OutcomeStatus::DryRun)]).await;
    assert_eq!(w.one.alerts.borrow().len(), 2, "of another finding about the same");
}

#[tokio::test]
async fn the_next_window_tells_again() {
    let w = world(Policy::default());
    let start = at("2026-03-01T12:00:00Z");
    w.notifier.handle(&[of(&finding_numbered(1, start)), of(&finding_numbered(2, start.plus_seconds(300)))]).await;
    assert_eq!(w.one.alerts.borrow().len(), 2);
}

#[tokio::test]
async fn a_leader_that_failed_does_not_hide_the_next() {
    let w = world(Policy::default());
    let start = at("2026-03-01T12:00:00Z");
    w.one.failures.borrow_mut().push(false);
    let (first, second) = (finding_numbered(1, start), finding_numbered(2, start.plus_seconds(1)));
    let result = w.notifier.handle(&[of(&first), of(&second)]).await;
    assert_eq!(result.failed.len(), 1);
    assert_eq!(w.one.alerts.borrow()[0].finding_id, second.finding_id);
}

#[tokio::test]
async fn low_findings_are_not_told_and_say_so() {
    let w = world(Policy::default());
    let mut low = finding();
    low.severity = Severity::Low;
    w.notifier.handle(&[of(&low), of_outcome(&low, OutcomeStatus::DryRun)]).await;
    assert!(w.one.alerts.borrow().is_empty());
    let receipts = w.sent.receipts();
    assert_eq!(receipts.len(), 1);
    assert!(receipts[0].channel == NOT_TOLD && !receipts[0].delivered && receipts[0].note.contains("min_severity"));
    w.notifier.handle(&[of_outcome(&low, OutcomeStatus::Failed)]).await;
    assert_eq!(w.one.alerts.borrow().len(), 1, "a failed response is told whatever the severity");
}

#[tokio::test]
async fn good_news_is_told_although_it_is_informational() {
    let mut good = finding();
    good.effect = Effect::Resolves;
    good.severity = Severity::Info;
    let w = world(Policy::default());
    w.notifier.handle(&[of(&good)]).await;
    assert_eq!(w.one.alerts.borrow().len(), 1);
    let w = world(Policy { good_news: false, ..Policy::default() });
    w.notifier.handle(&[of(&good)]).await;
    assert!(w.one.alerts.borrow().is_empty());
}

#[tokio::test]
async fn a_notice_is_told_to_nobody_whatever_its_severity() {
    let mut notice = finding();
    notice.effect = Effect::Notice;
    let w = world(Policy { min_severity: Severity::Info, ..Policy::default() });
    w.notifier.handle(&[of(&notice)]).await;
    assert!(w.one.alerts.borrow().is_empty());
    let [receipt] = &w.sent.receipts()[..] else { panic!("one receipt") };
    assert!(receipt.channel == NOT_TOLD && !receipt.delivered, "{receipt:?}");
}

#[tokio::test]
async fn outcomes_are_told_once_a_status() {
    let w = world(Policy::default());
    let f = finding();
    let statuses = [
        OutcomeStatus::Triggered,
        OutcomeStatus::Running,
        OutcomeStatus::Skipped,
        OutcomeStatus::PendingApproval,
        OutcomeStatus::Succeeded,
        OutcomeStatus::Succeeded,
    ];
    for status in statuses {
        assert_eq!(w.notifier.handle(&[of_outcome(&f, status)]).await, BatchResult::default());
    }
    let subjects: Vec<String> = w.one.alerts.borrow().iter().map(|a| a.subject[..6].to_owned()).collect();
    assert_eq!(subjects, ["[APPRO", "[DONE]"]);
}

fn of_missed(finding: &Finding, missed: Option<Missed>) -> Message {
    let outcome = Outcome { missed, ..outcome_of(finding, OutcomeStatus::Skipped) };
    message(&outcome.outcome_id, Envelope::outcome(finding.clone(), outcome.clone()).to_body())
}

#[tokio::test]
async fn a_skipped_response_is_told_when_it_was_turned_on() {
    let w = world(Policy::default());
    let mut low = finding();
    low.severity = Severity::Low;
    w.notifier.handle(&[of_missed(&low, None)]).await;
    assert!(w.one.alerts.borrow().is_empty());
    for _ in 0..2 {
        assert_eq!(w.notifier.handle(&[of_missed(&low, Some(Missed::Refused))]).await, BatchResult::default());
    }
    assert_eq!(w.one.alerts.borrow().len(), 1);
    assert!(w.one.alerts.borrow()[0].subject.starts_with("[SKIPPED] iam_access_key_deactivate"));
    let w = world(Policy { outcomes: vec![OutcomeStatus::Failed], ..Policy::default() });
    w.notifier.handle(&[of_missed(&low, Some(Missed::Refused))]).await;
    assert!(w.one.alerts.borrow().is_empty(), "unless the settings say otherwise");
}

#[tokio::test]
async fn a_used_up_limit_is_told_once_an_account_and_hour_whatever_the_groups() {
    let start = at("2026-03-01T12:00:00Z");
    for group_s in [0, 300] {
        let w = world(Policy { group_s, ..Policy::default() });
        let of = |n: u32, account: &str| {
            let key = format!("key-{n}");
            let at = start.plus_seconds(i64::from(n) * 60);
            let finding = Finding { dedup_key: key, account: account.to_owned(), ..finding_numbered(n, at) };
            of_missed(&finding, Some(Missed::Cap))
        };
        let hour: Vec<Message> = (0..60).map(|n| of(n, "123456789012")).collect();
        for _ in 0..2 {
            for batch in hour.chunks(7) {
                assert_eq!(w.notifier.handle(batch).await, BatchResult::default());
            }
        }
        assert_eq!(w.one.alerts.borrow().len(), 1);
        let leader = w.one.alerts.borrow()[0].id.clone();
        let grouped = w.sent.receipts().into_iter().filter(|r| r.channel == GROUPED).collect::<Vec<_>>();
        assert!(grouped.len() == 118 && grouped.iter().all(|r| r.reference == leader), "{}", grouped.len());
        w.notifier.handle(&[of(60, "123456789012"), of(5, "210987654321"), of(6, "210987654321")]).await;
        assert_eq!(w.one.alerts.borrow().len(), 3, "the next hour, another account");
    }
}

#[tokio::test]
async fn a_used_up_limit_that_nobody_was_told_of_is_told_with_the_next() {
    let w = world(Policy::default());
    w.one.failures.borrow_mut().push(false);
    let result = w.notifier.handle(&[of_missed(&finding(), Some(Missed::Cap))]).await;
    assert_eq!(result.failed.len(), 1);
    w.notifier.handle(&[of_missed(&other_key(2), Some(Missed::Cap))]).await;
    assert_eq!(w.one.alerts.borrow().len(), 1);
}

/// A claim of a crashed worker is waited for until its lease ends.
#[tokio::test]
async fn a_crash_before_the_delivery_was_recorded_is_retried_after_the_lease() {
    let w = world(Policy::default());
    let key = format!("notify/one/{}", finding().finding_id);
    let now = w.clock.now();
    w.notifier.ledger.claim(&key, now, now.plus_seconds(60)).await.expect("claimed");
    let result = w.notifier.handle(&[of(&finding())]).await;
    assert!(result.failed[0].retryable, "{result:?}");
    w.clock.set(now.plus_seconds(61));
    assert_eq!(w.notifier.handle(&[of(&finding())]).await, BatchResult::default());
    assert_eq!((w.one.alerts.borrow().len(), w.two.alerts.borrow().len()), (1, 1));
}
