//! Mode `auto`: what is changed, once, whatever fails and whenever the process dies; and back again.

use std::collections::BTreeSet;

use serde_json::json;
use shared::adapters::memory::FixedClock;
use shared::ports::{BatchResult, Ledger, Message};
use shared::{Finding, OutcomeStatus, Plan};

use super::tests_support::{
    Account, DEACTIVATE, Fault, Journalling, REVOKE, World, block_on, clock, deliver, deliver_at, found, group_opened,
    key_created,
};
use crate::action_settings::Mode;
use crate::cloud::{CallError, Cloud, NoCloud};
use crate::journal::Journal;
use crate::response::{Counts, DELIVERIES_MAX};
use crate::settings::ResponderSettings;
use crate::testing::FakeAws;
use crate::undo::{UndoError, preview, undo};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const GROUP: &str = "sg-0123456789abcdef0";

fn auto() -> ResponderSettings {
    let mut settings = ResponderSettings::default();
    for id in [DEACTIVATE, REVOKE] {
        settings.actions.get_mut(id).unwrap().policy.mode = Mode::Auto;
    }
    settings
}

/// A key of alice's, and a group with a wide rule to the world beside rules that are nobody's business.
fn world() -> World {
    let rule = |from: u16, to: u16, cidr: &str, description: &str| {
        let range = json!([{"CidrIp": cidr, "Description": description}]);
        json!({"IpProtocol": "tcp", "FromPort": from, "ToPort": to, "IpRanges": range})
    };
    let rules = json!([
        rule(0, 65535, "0.0.0.0/0", "for a test"),
        rule(443, 443, "0.0.0.0/0", "the site"),
        rule(22, 22, "203.0.113.0/24", "the office"),
    ]);
    World {
        cloud: FakeAws::default()
            .with_key("alice", KEY, "Active")
            .with_key("alice", "AKIAI44QH8DHBEXAMPLE", "Active")
            .with_rules(GROUP, rules),
        ..World::default()
    }
}

fn wide_rule() -> Finding {
    let mut finding = group_opened("e-3");
    let rule = json!([{"protocol": "tcp", "from_port": 0, "to_port": 65535, "cidr": "0.0.0.0/0"}]);
    finding.evidence.insert("world_rules".to_owned(), rule);
    finding
}

/// One call for the first, two for the second.
fn batch() -> Vec<Message> {
    vec![found("m-1", key_created("e-1", "alice")), found("m-2", wide_rule())]
}

fn undo_all(world: &World, ids: &BTreeSet<String>, delivery: u32) -> usize {
    let journal = Journal::new(Journalling(world));
    let one = |id: &String| block_on(undo(&journal, &Account(world), &clock(delivery), id)).unwrap().0.calls.len();
    ids.iter().map(one).sum()
}

/// The last word on each response, as it was sent.
fn last(world: &World) -> Vec<(String, OutcomeStatus, String)> {
    let of = |o: shared::Outcome| (o.target, o.status, o.note);
    world.outcomes().into_iter().filter(|o| o.status != OutcomeStatus::Running).map(of).collect()
}

#[test]
fn exactly_the_offence_is_taken_away_and_the_outcome_says_how_to_put_it_back() {
    let world = world();
    assert_eq!(deliver(&world, &auto(), &batch(), 0), BatchResult::default());
    assert_eq!(world.cloud.status("alice", KEY).as_deref(), Some("Inactive"));
    insta::assert_snapshot!(world.cloud.image().join("\n"));
    insta::assert_json_snapshot!(world.outcomes());
}

#[test]
fn any_step_may_fail_or_be_the_last_and_every_change_is_made_once() {
    let clean = world();
    let before = clean.cloud.image();
    deliver(&clean, &auto(), &batch(), 0);
    let (after, changes, steps) = (clean.cloud.image(), clean.cloud.changes.borrow().clone(), clean.calls.get());
    assert!(changes.len() == 3 && steps > 20, "{changes:?} {steps}");
    for fault in [Fault::Before, Fault::After, Fault::DeathBefore, Fault::DeathAfter] {
        for at in 1..=steps {
            let world = world();
            world.fault.set(Some((at, fault)));
            let mut waiting = batch();
            for delivery in 0..3 {
                let result = deliver(&world, &auto(), &waiting, delivery);
                assert!(result.failed.iter().all(|m| m.retryable), "{fault:?} at {at}: {result:?}");
                if !world.is_dead.get() {
                    waiting.retain(|m| result.failed.iter().any(|f| f.message_id == m.message_id));
                }
            }
            assert!(waiting.is_empty(), "{fault:?} at {at}: {waiting:?}");
            assert_eq!(world.cloud.image(), after, "{fault:?} at {at}");
            // In any order: a failure of the first response lets the second go first.
            let sorted = |changes: &[String]| changes.iter().cloned().collect::<BTreeSet<_>>();
            assert_eq!(world.cloud.changes.borrow().len(), changes.len(), "{fault:?} at {at}: once each");
            assert_eq!(sorted(&world.cloud.changes.borrow()), sorted(&changes), "{fault:?} at {at}");
            for (_, status, note) in last(&world) {
                assert_eq!(status, OutcomeStatus::Succeeded, "{fault:?} at {at}: {note}");
            }
            let bodies: BTreeSet<String> = world.logger.borrow().iter().cloned().collect();
            assert_eq!(bodies.len(), world.keys_sent(&world.logger).len(), "{fault:?} at {at}: one key, other bytes");
            let ids: BTreeSet<String> = world.outcomes().into_iter().map(|o| o.outcome_id).collect();
            assert_eq!(ids.len(), 2, "{fault:?} at {at}");
            assert_eq!(undo_all(&world, &ids, 3), 3, "{fault:?} at {at}");
            assert_eq!(world.cloud.image(), before, "{fault:?} at {at}: undone");
            assert_eq!(undo_all(&world, &ids, 4), 3, "the record of the first undo");
            assert_eq!(world.cloud.changes.borrow().len(), 6, "{fault:?} at {at}: undone once");
        }
    }
}

#[test]
fn an_undo_may_be_interrupted_at_any_step_and_goes_on() {
    let clean = world();
    let before = clean.cloud.image();
    let one = [found("m-2", wide_rule())];
    deliver(&clean, &auto(), &one, 0);
    let id = clean.outcomes()[0].outcome_id.clone();
    let steps_before = clean.calls.get();
    undo_all(&clean, &BTreeSet::from([id.clone()]), 1);
    for fault in [Fault::Before, Fault::After, Fault::DeathBefore, Fault::DeathAfter] {
        for at in steps_before + 1..=clean.calls.get() {
            let world = world();
            world.fault.set(Some((at, fault)));
            deliver(&world, &auto(), &one, 0);
            let journal = Journal::new(Journalling(&world));
            block_on(undo(&journal, &Account(&world), &clock(1), &id)).unwrap_err();
            world.is_dead.set(false);
            block_on(undo(&journal, &Account(&world), &clock(2), &id)).unwrap();
            assert_eq!(world.cloud.image(), before, "{fault:?} at {at}");
            assert_eq!(world.cloud.changes.borrow().len(), 4, "{fault:?} at {at}: each once");
        }
    }
}

#[test]
fn a_second_delivery_and_a_second_responder_change_nothing_more() {
    let world = world();
    deliver(&world, &auto(), &batch(), 0);
    let (changes, sent) = (world.cloud.changes.borrow().clone(), world.logger.take());
    deliver(&world, &auto(), &batch(), 1);
    assert_eq!((&*world.cloud.changes.borrow(), &*world.logger.borrow()), (&changes, &sent));

    let busy = self::world();
    let key = world.outcomes()[0].outcome_id.clone();
    let now = shared::ports::Clock::now(&clock(0));
    block_on(busy.ledger.claim(&key, now, now.plus_seconds(50))).unwrap();
    let result = deliver(&busy, &auto(), &[found("m-1", key_created("e-1", "alice"))], 0);
    assert!(result.failed[0].retryable && result.failed[0].reason.contains("being worked on"), "{result:?}");
    assert!(busy.cloud.changes.borrow().is_empty());
}

#[test]
fn what_is_so_already_is_a_success_without_a_call() {
    let world = World { cloud: FakeAws::default().with_key("alice", KEY, "Inactive"), ..World::default() };
    deliver(&world, &auto(), &batch(), 0);
    assert!(world.cloud.changes.borrow().is_empty());
    let notes: Vec<_> = world.outcomes().into_iter().map(|o| (o.status, o.note, o.plan.calls, o.plan.undo)).collect();
    let nothing =
        |why: &str| (OutcomeStatus::Succeeded, format!("nothing had to be changed; {why}"), Vec::new(), Vec::new());
    assert_eq!(notes, [nothing("the key is inactive already"), nothing("none of the rules is in the group any more")]);
    let id = world.outcomes()[0].outcome_id.clone();
    let journal = Journal::new(Journalling(&world));
    let error = block_on(undo(&journal, &Account(&world), &clock(1), &id)).unwrap_err();
    assert!(matches!(error, UndoError::NothingCarriedOut(_)), "{error}");
}

#[test]
fn a_rule_that_somebody_else_revokes_meanwhile_is_no_failure() {
    let world = world();
    let answer = CallError::AlreadySo("InvalidPermission.NotFound".to_owned());
    *world.refused.borrow_mut() = Some(("RevokeSecurityGroupIngress", answer));
    let one = [found("m-2", wide_rule())];
    let result = deliver(&world, &auto(), &one, 0);
    assert!(result.failed[0].reason.contains("live state does not show it yet"), "{result:?}");
    *world.refused.borrow_mut() = None;
    assert_eq!(deliver(&world, &auto(), &one, 1), BatchResult::default());
    assert_eq!(last(&world)[0].1, OutcomeStatus::Succeeded);
}

#[test]
fn a_refused_call_in_the_middle_fails_and_keeps_the_undo_of_what_was_done() {
    let world = world();
    let before = world.cloud.image();
    let denied = CallError::Denied("UnauthorizedOperation: not yours".to_owned());
    *world.refused.borrow_mut() = Some(("AuthorizeSecurityGroupIngress", denied));
    assert_eq!(deliver(&world, &auto(), &[found("m-2", wide_rule())], 0), BatchResult::default());
    let outcome = world.outcomes().remove(0);
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert_eq!(
        outcome.note,
        "1 of 2 calls made; ec2:AuthorizeSecurityGroupIngress is not permitted: UnauthorizedOperation: not yours"
    );
    let undo: Vec<_> = outcome.plan.undo.iter().map(|call| call.operation.as_str()).collect();
    assert_eq!(undo, ["AuthorizeSecurityGroupIngress"], "the rule itself");
    assert_eq!(outcome.plan.calls.len(), 2, "what was tried");
    *world.refused.borrow_mut() = None;
    assert_eq!(undo_all(&world, &BTreeSet::from([outcome.outcome_id]), 1), 1);
    assert_eq!(world.cloud.image(), before);
}

#[test]
fn a_denied_read_fails_before_anything_is_changed() {
    let world = world();
    *world.refused.borrow_mut() = Some(("ListAccessKeys", CallError::Denied("AccessDenied: no".to_owned())));
    assert_eq!(deliver(&world, &auto(), &batch()[..1], 0), BatchResult::default());
    let outcome = world.outcomes().remove(0);
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert_eq!(outcome.note, "nothing was changed: iam:ListAccessKeys is not permitted: AccessDenied: no");
    assert!(outcome.plan.undo.is_empty() && world.cloud.changes.borrow().is_empty());
}

#[test]
fn what_stays_throttled_is_running_and_has_failed_in_the_end() {
    for (operation, begun) in [("DescribeSecurityGroupRules", false), ("AuthorizeSecurityGroupIngress", true)] {
        let world = world();
        *world.refused.borrow_mut() = Some((operation, CallError::Retryable("RequestLimitExceeded".to_owned())));
        let one = [found("m-2", wide_rule())];
        for delivery in 0..DELIVERIES_MAX - 1 {
            let result = deliver(&world, &auto(), &one, delivery);
            assert!(result.failed[0].retryable && result.failed[0].reason.contains("RequestLimit"), "{result:?}");
        }
        let statuses: BTreeSet<_> = world.outcomes().iter().map(|o| o.status.as_str()).collect();
        assert_eq!(statuses, if begun { BTreeSet::from(["RUNNING"]) } else { BTreeSet::new() });
        assert_eq!(deliver(&world, &auto(), &one, DELIVERIES_MAX - 1), BatchResult::default());
        let outcome = world.outcomes().pop().unwrap();
        assert_eq!(outcome.status, OutcomeStatus::Failed);
        assert!(outcome.note.ends_with("RequestLimitExceeded; given up after 4 deliveries"), "{}", outcome.note);
        // The throttled call may have had its effect, so its undo stays.
        assert_eq!(outcome.plan.undo.len(), if begun { 2 } else { 0 });
        assert_eq!(world.cloud.changes.borrow().len(), usize::from(begun));
    }
}

#[test]
fn other_accounts_and_old_events_are_left_to_people() {
    let mut elsewhere = key_created("e-1", "alice");
    elsewhere.evidence.insert("account".to_owned(), json!("210987654321"));
    let mut old = key_created("e-2", "alice");
    old.event_time = old.event_time.plus_seconds(-3600);
    let world = world();
    assert_eq!(deliver(&world, &auto(), &[found("m-1", elsewhere), found("m-2", old)], 0), BatchResult::default());
    let outcomes = world.outcomes();
    assert!(outcomes.iter().all(|o| o.status == OutcomeStatus::Skipped && o.plan == Plan::default()), "{outcomes:?}");
    assert!(outcomes[0].note.contains("for account 210987654321, and this responder acts in 123456789012 only"));
    assert!(outcomes[1].note.contains("event_age_max_s"), "{}", outcomes[1].note);
    assert!(world.cloud.changes.borrow().is_empty());
}

#[test]
fn attempts_good_news_and_the_exempt_are_never_acted_on() {
    let world = world();
    let mut settings = auto();
    settings.responder.exempt_principals = vec!["arn:aws:iam::123456789012:user/people/alice".to_owned()];
    settings.responder.break_glass = vec!["break-glass".to_owned()];
    let own = |mut finding: Finding| {
        finding.identity.arn = "arn:aws:sts::123456789012:assumed-role/security-pipeline-responder/x".to_owned();
        finding
    };
    let findings = [
        key_created("e-1", "alice"),
        own(wide_rule()),
        Finding { attempt: true, ..key_created("e-2", "bob") },
        Finding { effect: shared::Effect::Resolves, ..key_created("e-3", "bob") },
        Finding { severity: shared::Severity::Medium, ..key_created("e-4", "bob") },
        key_created("e-5", "break-glass"),
    ];
    let batch: Vec<Message> = findings.into_iter().map(|finding| found("m", finding)).collect();
    assert_eq!(deliver(&world, &settings, &batch, 0), BatchResult::default());
    let words: Vec<String> = last(&world).into_iter().map(|(_, status, note)| format!("{status:?} {note}")).collect();
    insta::assert_snapshot!(words.join("\n"));
    assert!(world.cloud.changes.borrow().is_empty());
}

#[test]
fn a_key_is_found_under_the_new_name_of_its_user_unless_that_is_exempt() {
    let renamed = || World { cloud: FakeAws::default().with_key("bob", KEY, "Active"), ..World::default() };
    let one = [found("m-1", key_created("e-1", "alice"))];
    let world = renamed();
    assert_eq!(deliver(&world, &auto(), &one, 0), BatchResult::default());
    let outcome = world.outcomes().remove(0);
    assert_eq!(
        (outcome.status, outcome.note.as_str()),
        (OutcomeStatus::Succeeded, "1 call made; the user is called bob by now")
    );
    assert_eq!(world.cloud.status("bob", KEY).as_deref(), Some("Inactive"));
    undo_all(&world, &BTreeSet::from([outcome.outcome_id]), 1);
    assert_eq!(world.cloud.status("bob", KEY).as_deref(), Some("Active"));

    let mut settings = auto();
    settings.responder.exempt_resources = vec!["arn:aws:iam::*:user/ops/bob".to_owned()];
    let world = renamed();
    deliver(&world, &settings, &one, 0);
    assert_eq!((world.outcomes()[0].status, world.cloud.changes.borrow().len()), (OutcomeStatus::Skipped, 0));
}

#[test]
fn what_is_not_there_right_after_the_event_is_looked_for_again() {
    for finding in [key_created("e-1", "alice"), wide_rule()] {
        let world = World::default();
        let one = [found("m-1", finding.clone())];
        let fresh = FixedClock::at(finding.event_time.plus_seconds(20));
        let result = deliver_at(&world, &auto(), &one, 0, fresh);
        assert!(result.failed.len() == 1 && result.failed[0].retryable, "{result:?}");
        assert!(result.failed[0].reason.contains("may not show yet"), "{result:?}");
        assert!(world.outcomes().is_empty());
        assert_eq!(deliver(&world, &auto(), &one, 1), BatchResult::default());
        let outcome = world.outcomes().remove(0);
        assert_eq!(outcome.status, OutcomeStatus::Succeeded, "by now it is gone: {}", outcome.note);
        assert!(outcome.note.starts_with("nothing had to be changed"), "{}", outcome.note);
    }
    // It shows by then, and is acted on.
    let world = World::default();
    let one = [found("m-1", key_created("e-1", "alice"))];
    deliver_at(&world, &auto(), &one, 0, FixedClock::at(key_created("e-1", "alice").event_time));
    let world = World { cloud: FakeAws::default().with_key("alice", KEY, "Active"), ..world };
    deliver(&world, &auto(), &one, 1);
    assert_eq!(world.cloud.status("alice", KEY).as_deref(), Some("Inactive"));
}

#[test]
fn a_finding_about_nothing_that_an_action_acts_on_has_no_outcome_and_promises_none() {
    let world = world();
    let mut instance = crate::testing::finding("guardduty_finding", &[DEACTIVATE, REVOKE]);
    instance.identity = shared::Identity::default();
    deliver(&world, &auto(), &[found("m-1", instance)], 0);
    assert_eq!(world.outcomes(), Vec::new());
    let sent = shared::Envelope::from_body(&world.logger.borrow()[0]).unwrap();
    assert_eq!(sent.answers, Vec::<String>::new());
}

#[test]
fn without_an_account_auto_shows_the_plan_and_says_why() {
    let world = world();
    let notifier = super::tests_support::ToNotifier(&world);
    let logger = super::tests_support::ToLogger(&world);
    let cloud = NoCloud("this program has no AWS account");
    let ledger = Journalling(&world);
    let responder = super::Responder::new(&auto(), ledger, notifier, logger, clock(0), cloud).unwrap();
    block_on(shared::ports::Handler::handle(&responder, &batch()[..1]));
    let outcome = world.outcomes().remove(0);
    assert_eq!(outcome.status, OutcomeStatus::DryRun);
    assert_eq!(outcome.note, "dry run: 1 call planned, none made; mode auto, but this program has no AWS account");
    assert_eq!(outcome.plan.calls.len(), 1);
}

#[test]
fn a_response_that_is_no_longer_allowed_midway_says_that_it_was_begun() {
    for change in [
        (|s: &mut ResponderSettings| s.actions.get_mut(REVOKE).unwrap().policy.mode = Mode::DryRun) as fn(&mut _),
        |s: &mut ResponderSettings| s.responder.exempt_resources = vec![GROUP.to_owned()],
    ] {
        let world = world();
        let before = world.cloud.image();
        let throttled = CallError::Retryable("RequestLimitExceeded".to_owned());
        *world.refused.borrow_mut() = Some(("AuthorizeSecurityGroupIngress", throttled));
        let one = [found("m-2", wide_rule())];
        deliver(&world, &auto(), &one, 0);
        *world.refused.borrow_mut() = None;
        let mut settings = auto();
        change(&mut settings);
        assert_eq!(deliver(&world, &settings, &one, 1), BatchResult::default());
        let outcome = world.outcomes().pop().unwrap();
        assert_eq!((outcome.status, world.cloud.changes.borrow().len()), (OutcomeStatus::Failed, 1));
        assert!(outcome.note.starts_with("begun at 2026-03-01T12:05:00"), "{}", outcome.note);
        undo_all(&world, &BTreeSet::from([outcome.outcome_id]), 2);
        assert_eq!(world.cloud.image(), before);
    }
}

#[test]
fn other_rules_that_keep_the_port_open_make_the_response_a_failure() {
    let rule = |from: u16, to: u16, family: &str, cidr: &str| {
        let name = if family == "IpRanges" { "CidrIp" } else { "CidrIpv6" };
        json!({"IpProtocol": "tcp", "FromPort": from, "ToPort": to, family: [{name: cidr}]})
    };
    let rules = json!([
        rule(22, 22, "IpRanges", "0.0.0.0/0"),
        rule(20, 30, "Ipv6Ranges", "::/0"),
        rule(443, 443, "IpRanges", "0.0.0.0/0"),
        rule(22, 22, "IpRanges", "10.0.0.0/8"),
    ]);
    let world = World { cloud: FakeAws::default().with_rules(GROUP, rules), ..World::default() };
    deliver(&world, &auto(), &[found("m-1", group_opened("e-1"))], 0);
    let outcome = world.outcomes().remove(0);
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert_eq!(outcome.note, "1 call made; other rules of the group still open it to the world: tcp 20-30 from ::/0");
    assert_eq!((outcome.plan.calls.len(), outcome.plan.undo.len()), (1, 1));
    assert_eq!(world.cloud.changes.borrow().len(), 1);
}

#[test]
fn an_unfinished_response_can_be_undone_and_no_delivery_goes_on_with_it() {
    let world = world();
    let before = world.cloud.image();
    let one = [found("m-2", wide_rule())];
    // Dies after the first change.
    let clean = self::world();
    deliver(&clean, &auto(), &one, 0);
    let at = clean.calls.get() - 4;
    world.fault.set(Some((at, Fault::DeathAfter)));
    deliver(&world, &auto(), &one, 0);
    assert_eq!(world.cloud.changes.borrow().len(), 1, "{:?}", world.cloud.changes.borrow());
    let id = clean.outcomes()[0].outcome_id.clone();
    world.is_dead.set(false);
    undo_all(&world, &BTreeSet::from([id]), 1);
    assert_eq!(world.cloud.image(), before);
    assert_eq!(deliver(&world, &auto(), &one, 2), BatchResult::default());
    assert_eq!(world.cloud.image(), before);
    let (_, status, note) = last(&world).remove(0);
    assert!(status == OutcomeStatus::Failed && note.contains("taken back at"), "{note}");
}

#[test]
fn the_object_of_an_undo_may_be_gone() {
    let world = World { cloud: FakeAws::default().with_key("alice", KEY, "Active"), ..World::default() };
    deliver(&world, &auto(), &[found("m-1", key_created("e-1", "alice"))], 0);
    let id = world.outcomes()[0].outcome_id.clone();
    let gone = World { cloud: FakeAws::default(), ..world };
    let journal = Journal::new(Journalling(&gone));
    let error = block_on(undo(&journal, &Account(&gone), &clock(1), &id)).unwrap_err();
    assert!(error.to_string().contains("no such key any more"), "{error}");
    let UndoError::Stopped { made: 0, .. } = error else { panic!("{error}") };
    let none = block_on(undo(&journal, &Account(&gone), &clock(1), "no/such/response")).unwrap_err();
    assert!(matches!(none, UndoError::NothingCarriedOut(_)), "{none}");
}

#[test]
fn what_an_undo_would_call_is_known_before_and_the_record_tells_the_whole_story() {
    let world = world();
    let before = world.cloud.image();
    deliver(&world, &auto(), &[found("m-2", wide_rule())], 0);
    let outcome = world.outcomes().remove(0);
    let id = outcome.outcome_id.clone();
    let journal = Journal::new(Journalling(&world));
    let record = block_on(journal.record(&id)).unwrap().expect("it was answered");
    let begun = record.begun.clone().expect("it was carried out");
    assert_eq!((record.ended.map(|(_, ended)| ended), record.undone), (Some(outcome.clone()), None));
    assert_eq!(block_on(journal.undone(&["nobody's", &id])).unwrap(), [None, None]);

    let changes = world.cloud.changes.borrow().len();
    let would = block_on(preview(&Account(&world), &begun, Some(&outcome))).unwrap();
    assert_eq!(world.cloud.changes.borrow().len(), changes, "nothing is changed");
    *world.refused.borrow_mut() = Some(("DescribeSecurityGroupRules", CallError::Denied("not yours".to_owned())));
    let error = block_on(preview(&Account(&world), &begun, Some(&outcome))).unwrap_err();
    assert!(matches!(&error, UndoError::NotSeen(why) if why.contains("is not permitted: not yours")), "{error}");
    *world.refused.borrow_mut() = None;

    let (undone, _) = block_on(undo(&journal, &Account(&world), &clock(1), &id)).unwrap();
    assert_eq!((&undone.calls, world.cloud.image()), (&would, before), "what was announced, and exactly that");
    assert_eq!(block_on(preview(&Account(&world), &begun, Some(&outcome))).unwrap(), [], "everything is as before");
    assert_eq!(block_on(journal.record(&id)).unwrap().and_then(|record| record.undone), Some(undone.clone()));
    assert_eq!(block_on(journal.undone(&["nobody's", &id])).unwrap(), [None, Some(undone)]);
    assert_eq!(block_on(journal.record("nobody's")).unwrap(), None);
}

/// What the undo of a response says that changed nothing.
fn nothing_to_undo(world: &World, outcome_id: &str) {
    let before = world.cloud.image();
    let journal = Journal::new(Journalling(world));
    let error = block_on(undo(&journal, &Account(world), &clock(4), outcome_id)).unwrap_err();
    assert!(matches!(&error, UndoError::NothingCarriedOut(id) if id == outcome_id), "{error}");
    assert_eq!(world.cloud.image(), before);
}

#[test]
fn what_was_refused_is_not_undone_when_somebody_else_did_it_since() {
    let cases = [
        ("UpdateAccessKey", found("m-1", key_created("e-1", "alice"))),
        ("RevokeSecurityGroupIngress", found("m-2", wide_rule())),
    ];
    for (operation, message) in cases {
        let world = world();
        *world.refused.borrow_mut() = Some((operation, CallError::Denied("AccessDenied: no".to_owned())));
        deliver(&world, &auto(), &[message], 0);
        *world.refused.borrow_mut() = None;
        let outcome = world.outcomes().remove(0);
        assert_eq!((outcome.status, outcome.plan.undo.len()), (OutcomeStatus::Failed, 0), "{}", outcome.note);
        // A person does by hand what the response could not.
        block_on(world.cloud.call(&outcome.plan.calls[0])).unwrap();
        nothing_to_undo(&world, &outcome.outcome_id);
    }
}

#[test]
fn what_somebody_else_does_at_the_same_moment_is_theirs() {
    let world = world();
    let clean = self::world();
    let one = [found("m-2", wide_rule())];
    deliver(&clean, &auto(), &one, 0);
    let [revoke, _] = &clean.outcomes()[0].plan.calls[..] else { panic!() };
    let answer = CallError::AlreadySo("InvalidPermission.NotFound".to_owned());
    *world.refused.borrow_mut() = Some(("RevokeSecurityGroupIngress", answer));
    *world.others.borrow_mut() = Some(revoke.clone());
    assert_eq!(deliver(&world, &auto(), &one, 0), BatchResult::default());
    *world.refused.borrow_mut() = None;
    let outcome = world.outcomes().remove(0);
    assert_eq!(outcome.note, "1 call made; somebody else was faster with the rest");
    let undo: Vec<_> = outcome.plan.undo.iter().map(|call| call.operation.as_str()).collect();
    assert_eq!(undo, ["RevokeSecurityGroupIngress"], "only of what the response added");
    undo_all(&world, &BTreeSet::from([outcome.outcome_id]), 1);
    assert!(!world.cloud.image().iter().any(|rule| rule.contains("65535")), "{:?}", world.cloud.image());
}

#[test]
fn a_call_that_somebody_else_made_in_part_is_undone_in_part() {
    let rule = |cidr: &str| json!({"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": cidr}]});
    let rules = json!([rule("0.0.0.0/1"), rule("128.0.0.0/1")]);
    let world = World { cloud: FakeAws::default().with_rules(GROUP, rules), ..World::default() };
    let mut finding = group_opened("e-1");
    let part = |cidr: &str| json!({"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": cidr});
    finding.evidence.insert("world_rules".to_owned(), json!([part("0.0.0.0/1"), part("128.0.0.0/1")]));
    let mut theirs = shared::ApiCall {
        service: "ec2".to_owned(),
        operation: "RevokeSecurityGroupIngress".to_owned(),
        account: "123456789012".to_owned(),
        region: "us-east-1".to_owned(),
        parameters: json!({"GroupId": GROUP, "IpPermissions": [rule("128.0.0.0/1")]}),
    };
    *world.others.borrow_mut() = Some(theirs.clone());
    assert_eq!(deliver(&world, &auto(), &[found("m-1", finding)], 0), BatchResult::default());
    let outcome = world.outcomes().remove(0);
    theirs.operation = "AuthorizeSecurityGroupIngress".to_owned();
    theirs.parameters["IpPermissions"] = json!([rule("0.0.0.0/1")]);
    assert_eq!((outcome.status, outcome.plan.undo), (OutcomeStatus::Succeeded, vec![theirs]), "{}", outcome.note);
    undo_all(&world, &BTreeSet::from([outcome.outcome_id]), 1);
    let image = world.cloud.image();
    assert!(image.len() == 1 && image[0].contains("0.0.0.0/1"), "{image:?}");
}

#[test]
fn what_is_only_shown_takes_nothing_from_the_cap_of_what_is_carried_out() {
    let mut settings = auto();
    settings.actions.get_mut(REVOKE).unwrap().policy.mode = Mode::DryRun;
    settings.responder.account_responses_max_per_hour = 1;
    let world = world();
    let again = super::tests_support::named(wide_rule(), "e-4");
    let batch = [found("m-1", wide_rule()), found("m-2", again), batch().remove(0)];
    assert_eq!(deliver(&world, &settings, &batch, 0), BatchResult::default());
    let statuses: Vec<_> = world.outcomes().iter().map(|o| o.status.as_str()).collect();
    assert_eq!(statuses, ["DRY_RUN", "SKIPPED", "SUCCEEDED"]);
    assert_eq!(world.cloud.status("alice", KEY).as_deref(), Some("Inactive"));
}

/// Every call to a port takes so long.
struct SlowPorts<'w>(&'w World, i64);

impl shared::ports::Clock for SlowPorts<'_> {
    fn now(&self) -> shared::Timestamp {
        let calls = i64::try_from(self.0.calls.get()).unwrap();
        shared::ports::Clock::now(&clock(0)).plus_seconds(self.1 * calls)
    }
}

#[test]
fn a_slow_batch_tells_what_was_done_and_leaves_the_rest_for_later() {
    let world = world();
    let deliver_slowly = |batch: &[Message], s: i64| {
        let (notifier, logger) = (super::tests_support::ToNotifier(&world), super::tests_support::ToLogger(&world));
        let (ledger, cloud) = (Journalling(&world), Account(&world));
        world.calls.set(0);
        let responder = super::Responder::new(&auto(), ledger, notifier, logger, SlowPorts(&world, s), cloud).unwrap();
        block_on(shared::ports::Handler::handle(&responder, batch))
    };
    let keys: Vec<Message> =
        (0..6).map(|n| found(&format!("m-{n}"), key_created(&format!("e-{n}"), "alice"))).collect();
    let result = deliver_slowly(&keys, 2);
    let left: Vec<_> = result.failed.iter().map(|m| m.message_id.as_str()).collect();
    assert!(!left.is_empty() && left.len() < keys.len(), "{result:?}");
    assert_eq!(left, ["m-0", "m-1", "m-2", "m-3", "m-4", "m-5"][keys.len() - left.len()..]);
    assert!(result.failed.iter().all(|m| m.retryable && m.reason.starts_with("not reached")), "{result:?}");
    assert_eq!(world.outcomes().len(), keys.len() - left.len(), "each message's own are sent when it is done");
    assert_eq!(deliver_slowly(&keys, 0), BatchResult::default());
    let ids: BTreeSet<String> = world.outcomes().into_iter().map(|o| o.outcome_id).collect();
    assert_eq!((ids.len(), world.cloud.changes.borrow().len()), (keys.len(), 1));
}

#[test]
fn outcomes_of_a_message_are_sent_before_the_next_is_answered() {
    let clean = world();
    deliver(&clean, &auto(), &batch()[..1], 0);
    let world = world();
    // The last step of the first message is its outcome to the notifier; the process dies with the next step.
    world.fault.set(Some((clean.calls.get() + 1, Fault::DeathBefore)));
    deliver(&world, &auto(), &batch(), 0);
    assert_eq!(world.outcomes().len(), 1);
}

#[test]
fn a_response_is_counted_when_it_ends_and_not_when_it_is_told_again() {
    let world = world();
    let (notifier, logger) = (super::tests_support::ToNotifier(&world), super::tests_support::ToLogger(&world));
    let ports = (Journalling(&world), Account(&world));
    let responder = super::Responder::new(&auto(), ports.0, notifier, logger, clock(0), ports.1).unwrap();
    let batch = [found("m-1", key_created("e-1", "alice")), found("m-2", key_created("e-2", "nobody"))];
    for _ in 0..2 {
        assert_eq!(block_on(shared::ports::Handler::handle(&responder, &batch)), BatchResult::default());
        let Counts { succeeded, failed, skipped, dry_run } = responder.counts();
        assert_eq!((succeeded, failed, skipped, dry_run), (2, 0, 0, 0));
    }
}
