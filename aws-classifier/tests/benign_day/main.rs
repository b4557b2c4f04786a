//! A day of a company on which nothing bad happens, against everything switched on.
//!
//! Some ten thousand made-up records over three accounts: AWS services, software, scanners, deployments, people. The state
//! is empty when the day begins, so nothing is learned beforehand; the settings are the defaults. What may be reported is
//! listed here, each with the reason why somebody wants to hear of it.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod day;
mod deployments;
mod people;
mod scanners;
mod services;
mod software;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aws_classifier::engine::Engine;
use aws_classifier::intake::Leaf;
use serde_json::json;
use shared::Timestamp;
use shared::adapters::memory::{MemoryState, NoFiles};
use shared::config::Document;
use shared::event::Event;
use shared::finding::Finding;
use shared::mmdb::Writer;
use shared::ports::Files;

use crate::day::{Day, Kind};

/// The records of the day, in the order they happened.
fn records() -> Vec<(Kind, String)> {
    let mut day = Day::new(20_260_302);
    services::write(&mut day);
    software::write(&mut day);
    scanners::write(&mut day);
    deployments::write(&mut day);
    people::write(&mut day);
    day.finish()
}

/// What may be found, and why somebody wants to hear of it on a day without any attack.
const ACCEPTED: [(&str, usize, &str); 7] = [
    ("console_login_new_ip", 1, "ivan signed in from an address he was not seen at"),
    ("ecr_image_pushed_by_person", 1, "erin pushed images by hand"),
    ("iam_access_key_created", 2, "alice made a key for another user, and deployed a template that makes one"),
    ("iam_credential_changed", 3, "alice switched the old key off, deleted it, and tagged users"),
    ("lambda_code_changed_by_person", 1, "erin put code into a function by hand"),
    ("rds_snapshot_created_manually", 1, "dave took a copy of a database"),
    ("s3_bucket_deleted_by_person", 1, "erin deleted buckets by hand"),
];

/// Everything with its defaults; `settings` are added.
fn engine(settings: &str, files: &dyn Files) -> Engine {
    let mut document = Document::parse("pipeline.toml", settings);
    let engine = Engine::configure(&mut document, files, &[]);
    document.finish().unwrap();
    engine.unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// What is found, with the kind of the record that gave it away.
fn findings(engine: &Engine, records: &[(Kind, String)]) -> Vec<(Kind, Finding)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (state, mut slots, mut found) = (MemoryState::default(), Vec::new(), Vec::new());
    let mut due: BTreeSet<(Timestamp, Kind, String)> = BTreeSet::new();
    let mut look = |kind: Kind, text: &str, due: &mut BTreeSet<(Timestamp, Kind, String)>| {
        let event = Leaf::of(text).unwrap().event().unwrap();
        engine.concerned(&event, &mut slots);
        due.extend(engine.follow_ups(&event, &slots).map(|(time, text)| (time, kind, text)));
        for verdict in runtime.block_on(engine.run(&[event], &state)).unwrap() {
            assert_eq!(verdict.malformed, [], "{text}");
            found.extend(verdict.findings.into_iter().map(|finding| (kind, finding)));
        }
    };
    for (kind, text) in records {
        let now = Event::from_cloudtrail(text).unwrap().time;
        while due.first().is_some_and(|(time, _, _)| *time <= now) {
            let (_, kind, text) = due.pop_first().unwrap();
            look(kind, &text, &mut due);
        }
        look(*kind, text, &mut due);
    }
    found
}

/// One line a finding, for whoever has to look why.
fn listed(found: &[(Kind, Finding)]) -> String {
    let line = |(kind, f): &(Kind, Finding)| {
        format!("{kind:?} {} {} by {} from {} on {}", f.classifier, f.event_name, f.principal, f.source_ip, f.resource)
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn counted(found: &[(Kind, Finding)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (_, finding) in found {
        *counts.entry(finding.classifier.as_str()).or_default() += 1;
    }
    counts
}

/// A database that knows every address of the day.
struct Places;

impl Files for Places {
    fn read(&self, _name: &str) -> Result<Vec<u8>, String> {
        let place = |city: &str, country: &str, latitude: f64, longitude: f64, asn: u32| {
            json!({ "city": { "names": { "en": city } }, "country": { "iso_code": country },
                    "location": { "latitude": latitude, "longitude": longitude, "accuracy_radius": 20 },
                    "autonomous_system_number": asn, "autonomous_system_organization": "Example" })
        };
        let mut writer = Writer::new("Benign day");
        // Office and home, the clouds of the vendors and runners, the way out of the shop's network.
        writer.insert("198.51.100.0/24".parse().unwrap(), &place("Frankfurt", "DE", 50.1, 8.7, 64_500));
        writer.insert("203.0.113.0/24".parse().unwrap(), &place("Frankfurt", "DE", 50.1, 8.7, 16_509));
        writer.insert("192.0.2.0/24".parse().unwrap(), &place("Ashburn", "US", 39.0, -77.5, 8_075));
        Ok(writer.finish())
    }
}

#[test]
fn the_day_is_the_same_every_time_and_every_record_is_another_one() {
    let (one, two) = (records(), records());
    assert_eq!(one, two);
    let ids: HashSet<String> =
        one.iter().map(|(_, text)| Event::from_cloudtrail(text).unwrap().event_id.into_owned()).collect();
    assert_eq!(ids.len(), one.len());
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    one.iter().for_each(|(kind, _)| *kinds.entry(*kind).or_default() += 1);
    assert!(one.len() > 10_000 && kinds[&Kind::Administration] * 100 < one.len(), "{kinds:?}");
}

#[test]
fn less_than_one_record_in_a_thousand_makes_a_finding_and_each_of_them_is_named_here() {
    let day = records();
    let found = findings(&engine("", &NoFiles), &day);
    let accepted: BTreeMap<&str, usize> = ACCEPTED.iter().map(|(id, times, _)| (*id, *times)).collect();
    assert_eq!(counted(&found), accepted, "\n{}", listed(&found));
    assert!(found.len() * 1_000 < day.len(), "{} findings in {} records", found.len(), day.len());
}

#[test]
fn services_software_scanners_deployments_and_people_at_work_make_no_finding() {
    let found = findings(&engine("", &NoFiles), &records());
    let unwanted: Vec<_> = found.into_iter().filter(|(kind, _)| *kind != Kind::Administration).collect();
    assert!(unwanted.is_empty(), "{}", listed(&unwanted));
}

#[test]
fn a_database_of_places_adds_nothing() {
    let day = records();
    let without = findings(&engine("", &NoFiles), &day);
    let with = findings(&engine("[geo]\ncity = \"city.mmdb\"\nasn = \"asn.mmdb\"\n", &Places), &day);
    assert_eq!(counted(&with), counted(&without), "\n{}", listed(&with));
}
