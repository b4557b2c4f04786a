//! Records whose parameters are not as they should be, or not there: each fixture is changed in every part and place.

use std::collections::{BTreeMap, BTreeSet};

use aws_classifier::classifiers::ALL;
use aws_classifier::engine::Engine;
use aws_classifier::intake::Leaf;
use aws_classifier::registry::Plugin;
use serde_json::{Value, json};
use shared::adapters::memory::{MemoryState, NoFiles};
use shared::event::EventKind;
use shared::finding::Finding;

use crate::fixture::{Fixture, block_on, engine, fixtures};

/// What CloudTrail leaves out of a record when it is too large.
const PARTS: [&str; 3] = ["requestParameters", "responseElements", "additionalEventData"];

/// What is found in changed records, and what the classifier could not read.
struct Judged {
    found: Vec<Finding>,
    trouble: Vec<String>,
}

fn judge(plugin: &Plugin, fixture: &Fixture, records: &[Value]) -> Judged {
    let engine = engine(plugin, fixture);
    let state = MemoryState::default();
    let mut judged = Judged { found: Vec::new(), trouble: Vec::new() };
    for record in records {
        let text = record.to_string();
        let event = Leaf::of(&text).unwrap().event().unwrap();
        for verdict in block_on(engine.run(&[event], &state)).unwrap() {
            judged.found.extend(verdict.findings);
            judged.trouble.extend(verdict.malformed.into_iter().map(|(_, malformed)| malformed.to_string()));
        }
    }
    judged
}

/// The CloudTrail records of a fixture.
fn records(fixture: &Fixture) -> Vec<Value> {
    let is_cloudtrail = |text: &&String| Leaf::of(text).unwrap().event().unwrap().kind == EventKind::CloudTrail;
    fixture.records.iter().filter(is_cloudtrail).map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// The records without what stands in these parts.
fn without(records: &[Value], parts: &[&str], omitted: &Value) -> Vec<Value> {
    let mut changed = records.to_vec();
    for record in &mut changed {
        for part in parts {
            if let Some(value) = record.get_mut(*part).filter(|value| !value.is_null()) {
                *value = omitted.clone();
            }
        }
    }
    changed
}

#[test]
fn what_cloudtrail_left_out_is_no_error() {
    let sized = json!({ "omitted": true, "originalSize": 108_544, "reason": "too large" });
    for plugin in ALL {
        for fixture in fixtures(plugin.meta.id) {
            let records = records(&fixture);
            for omitted in [&json!({ "omitted": true }), &sized] {
                for parts in [&PARTS[..1], &PARTS[1..2], &PARTS[2..], &PARTS[..2], &PARTS] {
                    let trouble = judge(plugin, &fixture, &without(&records, parts, omitted)).trouble;
                    assert_eq!(trouble, [""; 0], "{}/{} without {parts:?}", plugin.meta.id, fixture.name);
                }
            }
        }
    }
}

/// Whoever can make parameters so large that they are left out must not hide the call.
#[test]
fn what_cloudtrail_left_out_is_told_where_it_may_matter() {
    /// What these are about is in the parameters alone; of those about groups `security_group_opened_to_world` tells, of those
    /// about trust `resource_policy_opened`.
    const UNTOLD: [&str; 7] = [
        "console_login_without_mfa",
        "ec2_instance_in_open_group",
        "iam_role_trust_given_to_user",
        "security_group_accessed_after_opening",
        "security_group_closed",
        "security_group_left_open",
        "security_group_opened_repeatedly",
    ];
    const UNTOLD_FIXTURES: [&str; 7] = [
        // Who failed to sign in is in what is left out.
        "fires_root_while_a_user_named_root_signs_in",
        // Eleven instances are counted in the request; calls whose response was left out too count more than one.
        "fires_without_response",
        // The region of the bucket is a parameter.
        "fires_bucket_in_another_region",
        // A new bucket, and what is only noted.
        "fires_bucket_created_public",
        "fires_cors_any_origin_is_info",
        // Services write policies all day.
        "fires_policy_open_to_anyone_by_a_template",
        "fires_role_created_for_anyone_by_a_template",
    ];
    for plugin in ALL.iter().filter(|plugin| !UNTOLD.contains(&plugin.meta.id)) {
        for fixture in fixtures(plugin.meta.id).iter().filter(|fixture| fixture.name.starts_with("fires_")) {
            let place = format!("{}/{}", plugin.meta.id, fixture.name);
            let records = records(fixture);
            let found = judge(plugin, fixture, &without(&records, &PARTS, &json!({ "omitted": true }))).found;
            let is_told = records.is_empty() || !found.is_empty();
            assert_ne!(is_told, UNTOLD_FIXTURES.contains(&&*fixture.name), "{place}");
            for finding in &found {
                let record = records.iter().find(|record| record["eventID"] == finding.event_id.as_str()).unwrap();
                let left_out: Vec<&str> = PARTS.iter().filter(|part| !record[**part].is_null()).copied().collect();
                let told = finding.evidence.get("left_out_of_record").cloned().unwrap_or_else(|| json!([]));
                assert_eq!(told, json!(left_out), "{place}");
            }
        }
    }
}

/// Pointers to all values below the parts of a record, with what stands in place of positions in lists.
fn pointers(record: &Value) -> BTreeMap<String, String> {
    fn walk(value: &Value, pointer: &str, pattern: &str, found: &mut BTreeMap<String, String>) {
        found.entry(pattern.to_owned()).or_insert_with(|| pointer.to_owned());
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    walk(member, &format!("{pointer}/{name}"), &format!("{pattern}/{name}"), found);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    walk(item, &format!("{pointer}/{at}"), &format!("{pattern}/*"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    for part in PARTS.iter().filter(|part| record.get(**part).is_some()) {
        walk(&record[*part], &format!("/{part}"), &format!("/{part}"), &mut found);
    }
    found
}

/// A value of the wrong kind is schema drift and reported with its name, but of the classifier that needs it alone: what
/// others find in the record is found all the same. Calls that are serious by their names are found in any case.
#[test]
fn a_value_of_the_wrong_kind_costs_at_most_one_judgement() {
    const NEEDS_NO_PARAMETERS: [&str; 3] =
        ["iam_access_key_created", "iam_credential_changed", "iam_mfa_device_removed"];
    let shapes = [json!(null), json!("text"), json!(7), json!(true), json!([]), json!({}), json!([[{ "a": [1] }]])];
    let mut drifted = 0;
    for plugin in ALL {
        let id = plugin.meta.id;
        let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
        for fixture in fixtures(id) {
            let records = records(&fixture);
            for (at, record) in records.iter().enumerate() {
                let name = record["eventName"].as_str().unwrap();
                for (pattern, pointer) in pointers(record) {
                    if !seen.insert((name.to_owned(), pattern.clone())) {
                        continue;
                    }
                    let mut witnessed = false;
                    for shape in &shapes {
                        let place = format!("{id}/{}: {name} with {pattern} as {shape}", fixture.name);
                        let mut changed = records.clone();
                        *changed[at].pointer_mut(&pointer).unwrap() = shape.clone();
                        let judged = judge(plugin, &fixture, &changed);
                        let by_name =
                            NEEDS_NO_PARAMETERS.contains(&id) || matches!(name, "StopLogging" | "DeleteTrail");
                        assert!(!by_name || judged.trouble.is_empty(), "{place}: {:?}", judged.trouble);
                        for trouble in &judged.trouble {
                            assert!(!trouble.starts_with(':'), "{place}: the field is not named: {trouble}");
                        }
                        if !judged.trouble.is_empty() && !witnessed {
                            assert_eq!(
                                found_by_others(id, &changed, true),
                                found_by_others(id, &changed, false),
                                "{place}"
                            );
                            witnessed = true;
                            drifted += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(drifted > 50, "only {drifted} values of the wrong kind were drift");
}

/// What all other classifiers find in the records, with this one beside them or without.
fn found_by_others(id: &str, records: &[Value], beside: bool) -> Vec<Finding> {
    let plugins = ALL.iter().filter(|plugin| beside || plugin.meta.id != id);
    let detectors = plugins.map(|plugin| (plugin.from_json)(json!({}), &NoFiles).unwrap()).collect();
    let engine = Engine::new(detectors, BTreeMap::new());
    let state = MemoryState::default();
    let mut found = Vec::new();
    for record in records {
        let text = record.to_string();
        let event = Leaf::of(&text).unwrap().event().unwrap();
        let verdict = block_on(engine.run(&[event], &state)).unwrap().remove(0);
        found.extend(verdict.findings.into_iter().filter(|finding| finding.classifier != id));
    }
    found
}
