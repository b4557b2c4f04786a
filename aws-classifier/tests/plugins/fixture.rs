//! The fixtures of classifiers, read and made ready to run.
//!
//! A fixture is `src/classifiers/<id>/fires_*.json` (at least one finding) or `ignores_*.json` (none): an array of raw
//! records in order of arrival (CloudTrail records or EventBridge envelopes), or
//! `{"settings": {…}, "files": {name: content}, "places": {network: place}, "records": […]}`; a place is what a database of
//! cities and networks says in one record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aws_classifier::engine::Engine;
use aws_classifier::intake::log_groups::LogGroups;
use aws_classifier::intake::{self, Leaf};
use aws_classifier::registry::Plugin;
use serde_json::{Value, json};
use shared::Timestamp;
use shared::mmdb::Writer;
use shared::places::Places;
use shared::ports::Files;

pub struct Fixture {
    pub name: String,
    pub settings: Value,
    pub files: FixtureFiles,
    pub places: Vec<u8>,
    pub records: Vec<String>,
}

#[derive(Default)]
pub struct FixtureFiles(BTreeMap<String, String>);

impl Files for FixtureFiles {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        self.0.get(name).map(|c| c.clone().into_bytes()).ok_or_else(|| format!("the fixture has no file {name}"))
    }
}

pub fn folder(id: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/classifiers").join(id)
}

pub fn fixtures(id: &str) -> Vec<Fixture> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder(id))
        .unwrap_or_else(|e| panic!("{id} has no folder of fixtures: {e}"))
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    paths.sort();
    paths.iter().map(|path| fixture(path)).collect()
}

pub fn fixture(path: &Path) -> Fixture {
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let text = std::fs::read_to_string(path).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if value.is_array() {
        value = json!({ "records": value });
    }
    let members: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(members.is_subset(&BTreeSet::from(["files", "places", "records", "settings"])), "{name}: unknown member");
    let files = value["files"].as_object().into_iter().flatten();
    let mut places = Vec::new();
    if let Some(networks) = value["places"].as_object() {
        let mut writer = Writer::new("Fixture");
        networks.iter().for_each(|(network, place)| writer.insert(network.parse().unwrap(), place));
        places = writer.finish();
    }
    Fixture {
        settings: if value["settings"].is_null() { json!({}) } else { value["settings"].clone() },
        files: FixtureFiles(files.map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect()),
        places,
        records: value["records"].as_array().unwrap().iter().flat_map(|record| records(record, &name)).collect(),
        name,
    }
}

/// The records in an envelope; most are one.
fn records(envelope: &Value, fixture: &str) -> Vec<String> {
    let mut records = Vec::new();
    intake::decode(&envelope.to_string(), &LogGroups::Any, &mut |leaf| {
        records.push(leaf.unwrap_or_else(|e| panic!("{fixture}: {e}")).text.to_owned());
    });
    records
}

/// The records with their follow-ups in place, as the reader of log files puts them: those due by the last record.
pub fn with_follow_ups(engine: &Engine, records: &[String]) -> Vec<String> {
    let mut slots = Vec::new();
    let mut due: BTreeSet<(Timestamp, String)> = BTreeSet::new();
    let mut all = Vec::new();
    for text in records {
        let event = Leaf::of(text).unwrap().event().unwrap();
        while due.first().is_some_and(|(time, _)| *time <= event.time) {
            all.extend(due.pop_first().map(|(_, text)| text));
        }
        all.push(text.clone());
        engine.concerned(&event, &mut slots);
        due.extend(engine.follow_ups(&event, &slots));
    }
    all
}

pub fn engine(plugin: &Plugin, fixture: &Fixture) -> Engine {
    let detector = (plugin.from_json)(fixture.settings.clone(), &fixture.files)
        .unwrap_or_else(|e| panic!("{}/{}: settings refused: {e}", plugin.meta.id, fixture.name));
    let engine = Engine::new(vec![detector], BTreeMap::new());
    if fixture.places.is_empty() {
        return engine;
    }
    engine.with_places(Places::from_databases(vec![fixture.places.clone()], vec![fixture.places.clone()]).unwrap())
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
