//! The handler as a whole: what is sent and journalled, in order, twice and with every step failing once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::ports::{BatchResult, Message};
use shared::{Envelope, Finding, Missed, Outcome, OutcomeStatus, Payload, Plan, Receipt, Severity, Timestamp};

use super::received;
use super::tests_support::{
    DEACTIVATE, Fault, REVOKE, World, deliver, found, group_opened, key_created, message, named,
};
use crate::action_settings::Mode;
use crate::settings::ResponderSettings;
use crate::testing::finding;

/// One that is answered, one without a response, and one that is answered while another action cannot be planned.
fn batch() -> Vec<Message> {
    let mut both = group_opened("e-3");
    both.responses.push(DEACTIVATE.to_owned());
    both.identity.access_key_id = "ASIAIOSFODNN7EXAMPLE".to_owned();
    vec![
        found("m-1", key_created("e-1", "alice")),
        found("m-2", named(finding("console_login_new_ip", &["iam_login_lock"]), "e-2")),
        found("m-3", both),
    ]
}

#[test]
fn findings_pass_on_before_their_outcomes_to_both() {
    let world = World::default();
    assert_eq!(deliver(&world, &ResponderSettings::default(), &batch(), 0), BatchResult::default());
    let kinds = |to: &RefCell<Vec<String>>| -> Vec<String> {
        let kind = |body: &String| serde_json::from_str::<Value>(body).unwrap()["kind"].as_str().unwrap().to_owned();
        to.borrow().iter().map(kind).collect()
    };
    assert_eq!(kinds(&world.notifier), ["finding", "finding", "finding", "outcome", "outcome", "outcome"]);
    assert_eq!(*world.notifier.borrow(), *world.logger.borrow());
    insta::assert_json_snapshot!(world.outcomes());
}

#[test]
fn a_finding_passes_on_as_it_came_with_the_actions_that_answer_it() {
    let world = World::default();
    let batch = batch();
    deliver(&world, &ResponderSettings::default(), &batch, 0);
    let sent = world.logger.borrow();
    assert_eq!(batch[1].body, sent[1], "byte for byte without");
    for (message, body, answers) in
        [(&batch[0], &sent[0], &[DEACTIVATE][..]), (&batch[2], &sent[2], &[REVOKE, DEACTIVATE])]
    {
        let envelope = Envelope::from_body(body).unwrap();
        assert_eq!(envelope.answers, answers, "neither what this version does not have nor what is off");
        assert_eq!(Envelope { answers: Vec::new(), ..envelope }.to_body(), message.body);
    }
}

#[test]
fn a_response_that_is_turned_on_and_not_carried_out_says_so_and_one_that_is_only_shown_does_not() {
    let batch: Vec<Message> = ["break-glass", "alice", "alice"]
        .iter()
        .enumerate()
        .map(|(n, user)| found("m", key_created(&format!("e-{n}"), user)))
        .collect();
    for (mode, missed) in
        [(Mode::Auto, [Some(Missed::Refused), None, Some(Missed::Cap)]), (Mode::DryRun, [None, None, None])]
    {
        let mut settings = ResponderSettings::default();
        settings.responder.account_responses_max_per_hour = 1;
        settings.responder.break_glass = vec!["break-glass".to_owned()];
        settings.actions.get_mut(DEACTIVATE).unwrap().policy.mode = mode;
        let world = World::default();
        deliver(&world, &settings, &batch, 0);
        let outcomes = world.outcomes();
        assert_eq!(outcomes.iter().map(|o| o.missed).collect::<Vec<_>>(), missed, "{outcomes:?}");
        let skipped = [0, 2].map(|n| outcomes[n].status);
        assert_eq!(skipped, [OutcomeStatus::Skipped; 2]);
    }
}

#[test]
fn a_second_delivery_sends_the_same_bytes_and_journals_nothing() {
    let world = World::default();
    let settings = ResponderSettings::default();
    deliver(&world, &settings, &batch(), 0);
    let (sent, journalled) = (world.notifier.take(), world.journalled.borrow().clone());
    let mut off = settings.clone();
    off.responder.exempt_principals = vec!["mallory".to_owned()];
    deliver(&world, &off, &batch(), 99);
    assert_eq!(*world.notifier.borrow(), sent, "what was decided stays decided, though the policy changed");
    assert_eq!(*world.journalled.borrow(), journalled);
}

#[test]
fn the_journal_is_written_before_the_outcome_is_sent_and_says_how_to_undo_it() {
    let world = World::default();
    // Findings to both (2), then claim, claim and complete of the slot, whether it was begun, complete of the entry; then the
    // world ends.
    world.fault.set(Some((7, Fault::DeathAfter)));
    deliver(&world, &ResponderSettings::default(), &[found("m-1", key_created("e-1", "alice"))], 0);
    assert!(world.outcomes().is_empty());
    let key = Outcome::key(key_created("e-1", "alice").finding_id, DEACTIVATE, "AKIAIOSFODNN7EXAMPLE");
    let entry = world.journalled.borrow()[&key].concat();
    let Payload::Outcome { finding, outcome } = Envelope::from_body(&entry).unwrap().payload else { panic!("{entry}") };
    assert_eq!(*finding, key_created("e-1", "alice"));
    assert_eq!(outcome.undo()[0].parameters["Status"], "Active");
}

#[test]
fn any_step_may_fail_or_be_the_last_and_the_effects_are_the_same() {
    let settings = ResponderSettings::default();
    let clean = World::default();
    deliver(&clean, &settings, &batch(), 0);
    let keys = clean.keys_sent(&clean.notifier);
    let entries: BTreeSet<String> = clean.journalled.borrow().keys().cloned().collect();
    let steps = clean.calls.get();
    assert!(keys.len() == 6 && entries.len() == 5 && steps > 10, "{keys:?} {entries:?} {steps}");
    for fault in [Fault::Before, Fault::After, Fault::DeathBefore, Fault::DeathAfter] {
        for at in 1..=steps {
            let world = World::default();
            world.fault.set(Some((at, fault)));
            let mut waiting = batch();
            for delivery in 0..3 {
                let result = deliver(&world, &settings, &waiting, delivery);
                assert!(result.failed.iter().all(|m| m.retryable), "{fault:?} at {at}: {result:?}");
                if !world.is_dead.get() {
                    waiting.retain(|m| result.failed.iter().any(|f| f.message_id == m.message_id));
                }
            }
            assert!(waiting.is_empty(), "{fault:?} at {at}: {waiting:?}");
            for to in [&world.notifier, &world.logger] {
                assert_eq!(world.keys_sent(to), keys, "{fault:?} at {at}");
                let distinct: BTreeSet<String> = to.borrow().iter().cloned().collect();
                assert_eq!(distinct.len(), keys.len(), "{fault:?} at {at}: one key, different bytes");
            }
            let journalled = world.journalled.borrow();
            assert_eq!(journalled.keys().cloned().collect::<BTreeSet<_>>(), entries, "{fault:?} at {at}");
            for (key, written) in journalled.iter() {
                assert_eq!(written.len(), 1, "{fault:?} at {at}: {key} was written twice");
            }
        }
    }
}

#[test]
fn a_permanent_failure_is_permanent_and_stops_nothing_else() {
    let settings = ResponderSettings::default();
    let clean = World::default();
    let one = [found("m-1", key_created("e-1", "alice"))];
    deliver(&clean, &settings, &one, 0);
    for at in 1..=clean.calls.get() {
        let world = World::default();
        world.fault.set(Some((at, Fault::Permanent)));
        let result = deliver(&world, &settings, &one, 0);
        assert_eq!(result.failed.len(), 1, "at {at}");
        assert!(!result.failed[0].retryable && result.failed[0].reason.contains("may not use"), "{result:?}");
        let sent = world.notifier.borrow().len() + world.logger.borrow().len();
        let journal_failed = (3..=7).contains(&at);
        assert_eq!(sent, if journal_failed { 2 } else { 3 }, "at {at}");
    }
}

#[test]
fn one_bad_message_does_not_touch_its_neighbours() {
    let world = World::default();
    let settings = ResponderSettings::default();
    let good = key_created("e-1", "alice");
    let receipt = Receipt {
        receipt_id: "r".to_owned(),
        finding_id: good.finding_id,
        channel: "console".to_owned(),
        reference: String::new(),
        delivered: true,
        note: String::new(),
        at: good.event_time,
    };
    let newer = Envelope::finding(good.clone()).to_body().replace("\"schema_version\":1", "\"schema_version\":2");
    let result = deliver(
        &world,
        &settings,
        &[
            message("not-json", "{".to_owned()),
            message("newer", newer),
            message("receipt", Envelope::receipt("e-1".to_owned(), receipt).to_body()),
            found("good", good),
            message("empty", String::new()),
        ],
        0,
    );
    let failed: Vec<_> = result.failed.iter().map(|m| (m.message_id.as_str(), m.retryable)).collect();
    assert_eq!(failed, [("not-json", false), ("newer", false), ("receipt", false), ("empty", false)]);
    assert!(result.failed[1].reason.contains("schema version 2"), "{result:?}");
    assert!(result.failed[2].reason.contains("this is a receipt"), "{result:?}");
    assert_eq!(world.outcomes().len(), 1);
}

#[test]
fn the_cap_skips_what_is_too_much_and_redelivery_takes_no_second_slot() {
    let world = World::default();
    let mut settings = ResponderSettings::default();
    settings.responder.account_responses_max_per_hour = 2;
    let mut later = key_created("e-4", "dave");
    later.event_time = later.event_time.plus_seconds(3600);
    let batch = [
        found("m-1", key_created("e-1", "alice")),
        found("m-2", key_created("e-2", "bob")),
        found("m-3", key_created("e-3", "carol")),
        found("m-4", later),
    ];
    for delivery in 0..3 {
        world.notifier.take();
        deliver(&world, &settings, &batch, delivery);
        let statuses: Vec<_> = world.outcomes().iter().map(|o| o.status.as_str()).collect();
        assert_eq!(statuses, ["DRY_RUN", "DRY_RUN", "SKIPPED", "DRY_RUN"]);
    }
    let skipped = &world.outcomes()[2];
    assert!(skipped.note.contains("account_responses_max_per_hour") && skipped.plan == Plan::default(), "{skipped:?}");
}

#[test]
fn a_slot_taken_before_a_crash_is_found_again() {
    let mut settings = ResponderSettings::default();
    settings.responder.account_responses_max_per_hour = 1;
    let world = World::default();
    // Dies when the slot is taken and the entry is not yet written.
    world.fault.set(Some((5, Fault::DeathAfter)));
    let one = [found("m-1", key_created("e-1", "alice"))];
    deliver(&world, &settings, &one, 0);
    deliver(&world, &settings, &one, 1);
    assert_eq!(world.outcomes()[0].status, OutcomeStatus::DryRun);
}

#[test]
fn refusals_say_why_and_keep_no_plan() {
    let world = World::default();
    let mut session = key_created("e-2", "alice");
    session.evidence.insert("access_key_id".to_owned(), json!("ASIAIOSFODNN7EXAMPLE"));
    let quiet = [
        Finding { attempt: true, ..key_created("e-3", "alice") },
        Finding { effect: shared::Effect::Resolves, ..key_created("e-4", "alice") },
        Finding { severity: Severity::Low, ..key_created("e-5", "alice") },
    ];
    let mut batch = vec![found("m-1", key_created("e-1", "break-glass")), found("m-2", session)];
    batch.extend(quiet.into_iter().map(|finding| found("m-3", finding)));
    let mut settings = ResponderSettings::default();
    settings.responder.break_glass = vec!["break-glass".to_owned()];
    assert_eq!(deliver(&world, &settings, &batch, 0), BatchResult::default());
    let notes: Vec<_> =
        world.outcomes().into_iter().map(|o| (o.status, o.target, o.note, o.plan == Plan::default())).collect();
    let skipped = |target: &str, note: &str| (OutcomeStatus::Skipped, target.to_owned(), note.to_owned(), true);
    assert_eq!(
        notes,
        [
            skipped(
                "AKIAIOSFODNN7EXAMPLE",
                "skipped: arn:aws:iam::123456789012:user/break-glass is for break-glass (break_glass)"
            ),
            skipped("none", "skipped: it is a session key, which cannot be set inactive"),
        ]
    );
    assert_eq!(world.logger.borrow().len(), 7, "every finding passed on, and two outcomes");
}

#[test]
fn a_finding_that_carries_times_gets_the_responders_and_others_stay_as_they_are() {
    let at = |ms: i64| Timestamp::from_millis(1_764_072_000_000 + ms);
    let plain = Envelope::finding(finding("iam_access_key_created", &[]));
    let passed_on = |envelope: &Envelope| received(&envelope.to_body(), at(9), &|_| Vec::new()).unwrap().1;
    assert_eq!(passed_on(&plain), plain.to_body());
    let timed = plain.clone().passed_by("classifier", at(1));
    let passed = Envelope::from_body(&passed_on(&timed)).unwrap();
    assert_eq!(passed.passed, BTreeMap::from([("classifier".to_owned(), at(1)), ("responder".to_owned(), at(9))]));
    assert_eq!(Envelope { passed: BTreeMap::new(), ..passed }, plain);
}
