//! Every classifier against its fixtures, and sweeps over all of them.
//!
//! `fixture` says what a fixture is. Only its classifier runs. What it finds is kept in `snapshots/` beside the fixtures.
//! `shapes` is about records whose parameters are not as they should be, or not there.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod fixture;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};

use aws_classifier::classifiers::ALL;
use aws_classifier::engine::Engine;
use aws_classifier::intake::{self, Leaf, follow_up};
use aws_classifier::patterns::{self, RuleState};
use aws_classifier::registry::{Declaration, Plugin};
use quamina::Quamina;
use serde_json::{Value, json};
use shared::adapters::memory::MemoryState;
use shared::classifier::Pattern;
use shared::event::{Event, EventKind};
use shared::finding::Finding;
use shared::places::{Half, Places};

use self::fixture::{Fixture, FixtureFiles, block_on, engine, fixture, fixtures, folder, with_follow_ups};

/// The actions of the specification; a classifier can suggest no other.
const RESPONSES: [&str; 13] = [
    "cloudtrail_logging_restart",
    "cloudtrail_logs_archive",
    "ec2_http_block",
    "ec2_instance_quarantine",
    "ec2_instances_stop",
    "event_archive",
    "iam_access_key_deactivate",
    "iam_login_lock",
    "iam_sessions_revoke",
    "iam_user_restrict",
    "s3_object_quarantine",
    "s3_public_access_block",
    "security_group_rule_revoke",
];

/// A module header is a line of summary and these five paragraphs.
const HEADINGS: [&str; 5] =
    ["**What it detects.**", "**Why it matters.**", "**False positives.**", "**Response.**", "**References.**"];

/// What the classifier finds, each finding once, one record after another, each delivered `deliveries` times.
fn findings(plugin: &Plugin, fixture: &Fixture, deliveries: usize) -> Vec<Finding> {
    let place = format!("{}/{}", plugin.meta.id, fixture.name);
    let engine = engine(plugin, fixture);
    let state = MemoryState::default();
    let mut found: Vec<Finding> = Vec::new();
    for text in &with_follow_ups(&engine, &fixture.records) {
        let leaf = Leaf::of(text).unwrap_or_else(|e| panic!("{place}: {e}"));
        for _ in 0..deliveries {
            let event = leaf.event().unwrap_or_else(|e| panic!("{place}: {e}"));
            let verdicts = block_on(engine.run(&[event], &state)).unwrap();
            for verdict in verdicts {
                assert_eq!(verdict.malformed, [], "{place}");
                for finding in verdict.findings {
                    match found.iter().find(|f| f.finding_id == finding.finding_id) {
                        Some(first) => assert_eq!(first, &finding, "{place}: another delivery, another finding"),
                        None => found.push(finding),
                    }
                }
            }
        }
    }
    found
}

#[test]
fn fires_fixtures_fire_and_ignores_fixtures_do_not() {
    for plugin in ALL {
        let id = plugin.meta.id;
        for fixture in fixtures(id) {
            let found = findings(plugin, &fixture, 1);
            if fixture.name.starts_with("fires_") {
                assert!(!found.is_empty(), "{id}/{} finds nothing", fixture.name);
                let mut settings = insta::Settings::clone_current();
                settings.set_snapshot_path(folder(id).join("snapshots"));
                settings.set_prepend_module_to_snapshot(false);
                settings.set_omit_expression(true);
                settings.bind(|| insta::assert_json_snapshot!(fixture.name.as_str(), found));
            } else {
                assert!(fixture.name.starts_with("ignores_"), "{id}/{}: neither fires_ nor ignores_", fixture.name);
                assert_eq!(found, [], "{id}/{}", fixture.name);
            }
        }
    }
}

/// [`Event::is_by_aws_service`] is the one notion of who that is.
#[test]
fn classifiers_ignore_what_aws_services_do_but_for_openings_and_credentials() {
    const WANTED: [&str; 17] = [
        // Services do not sign in; the records say who did.
        "console_login_failed_repeatedly",
        "console_login_new_device",
        "console_login_without_mfa",
        // Stopped and deleted, whoever did it.
        "cloudtrail_tampered",
        // A group, bucket, machine or policy is open to the world whoever opened it, and closed likewise.
        "ec2_instance_in_open_group",
        "ec2_prefix_list_opened_to_world",
        "resource_policy_opened",
        "s3_public_exposure",
        "security_group_accessed_after_opening",
        "security_group_closed",
        "security_group_left_open",
        "security_group_opened_repeatedly",
        "security_group_opened_to_world",
        // A key or password lasts for whoever asked for it, by a template too.
        "iam_access_key_created",
        "iam_credential_changed",
        // Page of the console that change root's credentials.
        "root_account_used",
        // Only with its setting.
        "ec2_mass_instance_creation",
    ];
    for plugin in ALL.iter().filter(|plugin| !WANTED.contains(&plugin.meta.id)) {
        for mut fixture in fixtures(plugin.meta.id).into_iter().filter(|f| f.name.starts_with("fires_")) {
            fixture.records.retain(|text| Leaf::of(text).unwrap().event().unwrap().kind == EventKind::CloudTrail);
            for record in &mut fixture.records {
                let mut by_service: Value = serde_json::from_str(record).unwrap();
                by_service["userIdentity"]["invokedBy"] = "cloudformation.amazonaws.com".into();
                by_service["sourceIPAddress"] = "cloudformation.amazonaws.com".into();
                *record = by_service.to_string();
            }
            assert_eq!(findings(plugin, &fixture, 1), [], "{}/{}", plugin.meta.id, fixture.name);
        }
    }
}

#[test]
fn a_missing_half_of_the_databases_of_places_is_named() {
    let plugin = ALL.iter().find(|plugin| plugin.meta.id == "iam_access_key_unusual_origin").unwrap();
    let fixture = fixture(&folder(plugin.meta.id).join("fires_new_country.json"));
    let file = || vec![fixture.places.clone()];
    for (city, asn, missing, said) in [
        (file(), file(), [false, false], Value::Null),
        (file(), vec![], [false, true], "places only: the network was not judged".into()),
        (vec![], file(), [true, false], "networks only: the country was not judged".into()),
    ] {
        let detector = (plugin.from_json)(json!({}), &fixture.files).unwrap();
        let engine =
            Engine::new(vec![detector], BTreeMap::new()).with_places(Places::from_databases(city, asn).unwrap());
        assert_eq!(Half::ALL.map(|half| !engine.without(half).is_empty()), missing);
        // The addresses of the fixture differ in network too.
        let mut records = fixture.records.clone();
        records.iter_mut().for_each(|text| *text = text.replace("198.51.100.", "203.0.113.20"));
        for texts in [&fixture.records, &records] {
            let events: Vec<Event<'_>> = texts.iter().map(|text| Leaf::of(text).unwrap().event().unwrap()).collect();
            let verdicts = block_on(engine.run(&events, &MemoryState::default())).unwrap();
            for finding in verdicts.iter().flat_map(|verdict| &verdict.findings) {
                assert_eq!(finding.evidence.get("geo_database").cloned().unwrap_or_default(), said);
            }
        }
    }
}

/// A replacement alone is what only one of the two can know.
#[test]
fn the_two_classifiers_of_mfa_calls_give_a_call_one_severity() {
    let named = |id: &str| ALL.iter().find(|plugin| plugin.meta.id == id).unwrap();
    let (devices, credentials) = (named("iam_mfa_device_removed"), named("iam_credential_changed"));
    for fixture in fixtures(devices.meta.id) {
        let others = findings(credentials, &fixture, 1);
        for finding in findings(devices, &fixture, 1).iter().filter(|f| f.title != "MFA device was replaced") {
            let other = others.iter().find(|f| f.event_id == finding.event_id).map(|f| f.severity);
            assert_eq!(other, Some(finding.severity), "{}: {}", fixture.name, finding.event_name);
        }
    }
}

#[test]
fn records_delivered_twice_make_the_same_findings() {
    for plugin in ALL {
        for fixture in fixtures(plugin.meta.id) {
            let (once, twice) = (findings(plugin, &fixture, 1), findings(plugin, &fixture, 2));
            assert_eq!(once, twice, "{}/{}", plugin.meta.id, fixture.name);
        }
    }
}

#[test]
fn a_sequence_delivered_again_makes_the_same_findings() {
    for plugin in ALL {
        for mut fixture in fixtures(plugin.meta.id) {
            let once = findings(plugin, &fixture, 1);
            fixture.records.extend(fixture.records.clone());
            assert_eq!(once, findings(plugin, &fixture, 1), "{}/{}", plugin.meta.id, fixture.name);
        }
    }
}

#[test]
fn one_batch_finds_what_single_records_find() {
    for plugin in ALL {
        for fixture in fixtures(plugin.meta.id) {
            let engine = engine(plugin, &fixture);
            let records = with_follow_ups(&engine, &fixture.records);
            let events: Vec<Event<'_>> = records.iter().map(|text| Leaf::of(text).unwrap().event().unwrap()).collect();
            let verdicts = block_on(engine.run(&events, &MemoryState::default())).unwrap();
            let mut batched: Vec<Finding> = Vec::new();
            for finding in verdicts.into_iter().flat_map(|v| v.findings) {
                if batched.iter().all(|f| f.finding_id != finding.finding_id) {
                    batched.push(finding);
                }
            }
            let single = findings(plugin, &fixture, 1);
            if events.is_sorted_by_key(|e| e.time) {
                assert_eq!(batched, single, "{}/{}", plugin.meta.id, fixture.name);
            } else {
                // A further question may find what a later record of the batch told: then the same is found, on another
                // record.
                let keys = |found: &[Finding]| {
                    found.iter().map(|f| (f.resource.clone(), f.resolution_key.clone())).collect::<BTreeSet<_>>()
                };
                assert_eq!(keys(&batched), keys(&single), "{}/{}", plugin.meta.id, fixture.name);
            }
        }
    }
}

#[test]
fn the_list_is_the_folder() {
    let mut stems = BTreeSet::new();
    let mut folders = BTreeSet::new();
    for entry in std::fs::read_dir(folder("")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            folders.insert(stem);
        } else if stem != "mod" {
            stems.insert(stem);
        }
    }
    let listed: Vec<&str> = ALL.iter().map(|p| p.meta.id).collect();
    assert!(listed.is_sorted_by(|a, b| a < b), "not alphabetical or not unique: {listed:?}");
    let listed: BTreeSet<String> = listed.into_iter().map(str::to_owned).collect();
    assert_eq!(listed, stems, "the list in mod.rs and the files differ");
    assert_eq!(listed, folders, "the list in mod.rs and the folders of fixtures differ");
}

#[test]
fn every_classifier_shows_both_sides() {
    for plugin in ALL {
        let id = plugin.meta.id;
        let names: Vec<String> = fixtures(id).into_iter().map(|f| f.name).collect();
        for prefix in ["fires_", "ignores_"] {
            let count = names.iter().filter(|n| n.starts_with(prefix)).count();
            assert!(count >= 2, "{id} has {count} {prefix}*.json; at least 2 are needed");
        }
        if let Ok(snapshots) = std::fs::read_dir(folder(id).join("snapshots")) {
            for snapshot in snapshots {
                let file = snapshot.unwrap().file_name().into_string().unwrap();
                let stem = file.trim_end_matches(".new").trim_end_matches(".snap");
                assert!(names.iter().any(|n| n == stem), "{id}/snapshots/{file} has no fixture");
            }
        }
    }
}

#[test]
fn declarations_are_well_formed() {
    for plugin in ALL {
        let meta = plugin.meta;
        let id = meta.id;
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{id}");
        assert!((1..=100).contains(&meta.title.chars().count()) && !meta.title.ends_with('.'), "{id}: title");
        assert!(!meta.patterns.is_empty(), "{id}: no patterns");
        assert!(!meta.references.is_empty(), "{id}: no references");
        for reference in meta.references {
            assert!(reference.starts_with("https://"), "{id}: {reference}");
        }
        for technique in meta.techniques {
            assert!(is_technique(technique), "{id}: {technique}");
        }
        for response in meta.responses {
            assert!(RESPONSES.contains(response), "{id}: there is no response {response}");
        }
        let defaults = (plugin.defaults)();
        (plugin.from_json)(defaults, &FixtureFiles::default()).unwrap_or_else(|e| panic!("{id}: defaults: {e}"));
    }
}

/// `T1234` or `T1234.001`.
fn is_technique(text: &str) -> bool {
    let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix('T').is_some_and(|rest| match rest.split_once('.') {
        Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
        None => digits(rest, 4),
    })
}

#[test]
fn every_module_explains_itself() {
    for plugin in ALL {
        let path = folder("").join(format!("{}.rs", plugin.meta.id));
        let source = std::fs::read_to_string(&path).unwrap();
        let header: Vec<&str> = source.lines().map_while(|l| l.strip_prefix("//!")).map(str::trim).collect();
        assert!(
            header.first().is_some_and(|l| l.ends_with('.') && !l.starts_with("**")),
            "{}: no summary",
            path.display()
        );
        let found: Vec<&str> = header
            .iter()
            .filter(|l| l.starts_with("**"))
            .map(|l| &l[..l.rfind(".**").map_or(l.len(), |end| end + 3)])
            .collect();
        assert_eq!(found, HEADINGS, "{}", path.display());
        for pair in header.windows(2) {
            let says_nothing = HEADINGS.contains(&pair[0]) && (pair[1].is_empty() || pair[1].starts_with("**"));
            assert!(!says_nothing, "{}: {} says nothing", path.display(), pair[0]);
        }
    }
}

/// What `cargo xtask new-classifier` leaves to fill in.
#[test]
fn nothing_is_left_to_fill_in() {
    for plugin in ALL {
        let id = plugin.meta.id;
        let mut texts = vec![(format!("{id}.rs"), folder("").join(format!("{id}.rs")))];
        texts.extend(fixtures(id).into_iter().map(|f| {
            let file = format!("{}.json", f.name);
            (format!("{id}/{file}"), folder(id).join(file))
        }));
        for (name, path) in texts {
            assert!(!std::fs::read_to_string(path).unwrap().contains("REPLACE_ME"), "{name} still says REPLACE_ME");
        }
    }
}

#[test]
fn generated_rules_select_every_record_that_fired() {
    let declared: Vec<Declaration> = ALL.iter().map(|p| p.meta.into()).collect();
    let mut matcher = Quamina::new();
    let rules = patterns::event_rules(&declared);
    for rule in &rules {
        let text = rule.pattern.to_string();
        assert!(text.chars().count() < patterns::PATTERN_CHARS_MAX, "{}: pattern too long", rule.name);
        assert!(rule.name.len() <= 64, "{}: name too long", rule.name);
        for pattern in rule.alternatives() {
            matcher.add_pattern(rule.name.clone(), &pattern.to_string()).unwrap();
        }
    }
    for plugin in ALL {
        let id = plugin.meta.id;
        for fixture in fixtures(id).iter().filter(|f| f.name.starts_with("fires_")) {
            // A follow-up comes from the pipeline, but its record must have come to it.
            let record_id = |f: Finding| f.event_id.trim_end_matches(follow_up::ID_SUFFIX).to_owned();
            let fired: BTreeSet<String> = findings(plugin, fixture, 1).into_iter().map(record_id).collect();
            for text in &fixture.records {
                let event = Leaf::of(text).unwrap().event().unwrap();
                // What came before counts too: the failed sign-ins before the last one, the group that was opened.
                let wanted = fired.contains(&*event.event_id) || selected_by(plugin, &event);
                // What is made here, such as lines of text logs, does not come over EventBridge.
                if !wanted || intake::is_own(&event.source) {
                    continue;
                }
                let matched = matcher.matches_for_event(envelope(text, &event).as_bytes()).unwrap();
                // What root does has a rule of its own; the one for every call is off.
                let by: BTreeSet<&String> =
                    matched.iter().filter(|n| !matches!(&***n, "classifier-root" | "classifier-every-call")).collect();
                assert!(by.len() < 2, "{id}/{}: {} comes more than once, by {by:?}", fixture.name, event.name);
                let selected = rules.iter().any(|r| {
                    matched.contains(&r.name)
                        && r.classifiers.iter().any(|c| c == id)
                        && (event.read_only != Some(true) || r.state != RuleState::Enabled)
                });
                assert!(selected, "{id}/{}: no rule of its own selects {}", fixture.name, event.name);
            }
        }
    }
}

/// Whether the classifier names the event's source and name.
fn selected_by(plugin: &Plugin, event: &Event<'_>) -> bool {
    plugin.meta.patterns.iter().any(|pattern| match *pattern {
        Pattern::Api { source, names } => {
            source.eq_ignore_ascii_case(&event.source)
                && names.iter().any(|name| name.eq_ignore_ascii_case(&event.name))
        }
        Pattern::Notification { source, detail_type } => source == event.source && detail_type == event.name,
        Pattern::Root => event.identity_type == "Root",
        Pattern::Intake { .. } | Pattern::AnyApi => false,
    })
}

/// The record as EventBridge delivers it.
fn envelope(text: &str, event: &Event<'_>) -> String {
    let record: Value = serde_json::from_str(text).unwrap();
    if event.kind == EventKind::Notification || record.get("detail-type").is_some() {
        return record.to_string();
    }
    let detail_type = match &*event.event_type {
        "AwsConsoleSignIn" => "AWS Console Sign In via CloudTrail",
        "AwsServiceEvent" => "AWS Service Event via CloudTrail",
        _ => "AWS API Call via CloudTrail",
    };
    let source = format!("aws.{}", event.source.trim_end_matches(".amazonaws.com"));
    json!({ "source": source, "detail-type": detail_type, "detail": record }).to_string()
}
