//! Rules written as data: detectors whose content is Sigma YAML.
//!
//! Our own rules lie in `aws-classifier/rules/`, one file each, named for the detector's id, and are part of the program;
//! others come from folders that the settings or the command line name. A rule is loaded ([`Loader`]), compiled to a
//! tree of field tests (`detection`), bounded to the events it can match (`index`) and asked like any classifier. It
//! reads the record's text and builds no tree, so a candidate costs tenths of a microsecond.
//!
//! Modifiers: `contains`, `startswith`, `endswith`, `all`, `re` (with `i`, `m`, `s`), `cidr`, `exists`, `fieldref`,
//! `cased`, `neq`, `lt`, `lte`, `gt`, `gte`. Correlations: `event_count`, `value_count`, `temporal`,
//! `temporal_ordered`. Anything else is refused with the reason, never passed over.
//!
//! Sigma's own implementations were weighed and left: rsigma 0.23 is the last for this compiler, adds some 150
//! CPU-seconds and 70 crates to a release build, among them a second inflate and a second base64, and evaluates a tree.

mod condition;
mod correlation;
mod detection;
mod field;
mod index;
mod rule;
mod text;
mod yaml;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::ports::Files;

use self::correlation::Correlation;
use self::rule::Rule;
use self::yaml::Yaml;
use crate::registry::{Declaration, Detector};

/// The rules of this program: the names of their files.
pub static OWN: &[&str] = include!(concat!(env!("OUT_DIR"), "/own_rules.rs"));

/// The documents of each of them, as the build read them.
static OWN_DOCUMENTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/own_rules.postcard"));

/// The `[rules]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folders (with all below them) or files of Sigma rules, beside the program's own.
    pub dirs: Vec<String>,
    /// What to do about rules that cannot be used.
    pub unusable: Unusable,
    /// Whether the program's own rules are used.
    pub own: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { dirs: Vec::new(), unusable: Unusable::default(), own: true }
    }
}

/// What to do about rules that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unusable {
    /// Do not start: a rule that is not there is an alarm that is not there.
    #[default]
    Refuse,
    /// Say so and go on without them.
    Skip,
}

/// A rule that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// What is wrong.
    pub why: String,
}

/// Rules ready for the engine.
#[derive(Default)]
pub struct Loaded {
    /// Sorted by where they came from.
    pub detectors: Vec<Box<dyn Detector>>,
    /// What could not be used.
    pub errors: Vec<RuleError>,
    /// How many are for other log sources.
    pub elsewhere: usize,
    /// Tells one set of added rules from another.
    pub fingerprint: u64,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.detectors.iter().map(|d| &*d.declaration().id).collect();
        f.debug_struct("Loaded").field("ids", &ids).field("errors", &self.errors).finish_non_exhaustive()
    }
}

/// The program's own rules and those of the folders.
pub fn load(settings: &Settings, more: &[String], files: &dyn Files) -> Loaded {
    let mut loader = Loader::default();
    if settings.own {
        let documents: Vec<Vec<Yaml>> = postcard::from_bytes(OWN_DOCUMENTS).expect("what the build wrote");
        for (file, documents) in OWN.iter().zip(documents) {
            loader.add_documents(file, documents, Origin::Own);
        }
    }
    for folder in settings.dirs.iter().chain(more) {
        match files.list(folder) {
            Ok(names) => {
                for name in names.iter().filter(|name| name.ends_with(".yml") || name.ends_with(".yaml")) {
                    match files.read(name).map(String::from_utf8) {
                        Ok(Ok(text)) => loader.add(name, &text, Origin::Folder),
                        Ok(Err(_)) => loader.refuse(name, "is not UTF-8".to_owned()),
                        Err(why) => loader.refuse(name, why),
                    }
                }
            }
            Err(why) => loader.refuse(folder, why),
        }
    }
    loader.finish()
}

/// What the program's own rules declare.
pub fn own_declarations() -> Vec<Declaration> {
    let loaded = load(&Settings::default(), &[], &shared::adapters::memory::NoFiles);
    loaded.detectors.iter().map(|detector| detector.declaration().clone()).collect()
}

/// Where a rule comes from; decides its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This program: the id is the file's stem.
    Own,
    /// Someone's folder: the id is `sigma/` and the rule's UUID, else its name, else the file's stem.
    Folder,
}

/// Collects documents, then compiles them: a correlation may refer to rules of other files.
#[derive(Default)]
pub struct Loader {
    rules: Vec<Arc<Rule>>,
    /// Positions in `rules` by every name a correlation may use; `None` when two rules have it.
    names: HashMap<String, Option<usize>>,
    correlations: Vec<(String, String, Yaml)>,
    ids: HashMap<String, String>,
    loaded: Loaded,
    hasher: rustc_hash::FxHasher,
}

impl Loader {
    fn refuse(&mut self, file: &str, why: String) {
        self.loaded.errors.push(RuleError { file: file.to_owned(), why });
    }

    /// Adds the documents of a file.
    pub fn add(&mut self, file: &str, text: &str, origin: Origin) {
        if origin == Origin::Folder {
            self.hasher.write(file.as_bytes());
            self.hasher.write(text.as_bytes());
        }
        match yaml::documents(text) {
            Ok(documents) if documents.is_empty() => self.refuse(file, "has no rule".to_owned()),
            Ok(documents) => self.add_documents(file, documents, origin),
            Err(why) => self.refuse(file, why),
        }
    }

    fn add_documents(&mut self, file: &str, documents: Vec<Yaml>, origin: Origin) {
        let file_name = file.rsplit('/').next().unwrap_or(file);
        let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
        let many = documents.len() > 1;
        for (at, document) in documents.into_iter().enumerate() {
            let id = id_of(&document, stem, many.then_some(at), origin);
            if let Err(why) = self.add_document(file, id, document, origin) {
                self.refuse(file, why);
            }
        }
    }

    fn add_document(&mut self, file: &str, id: String, document: Yaml, origin: Origin) -> Result<(), String> {
        if !matches!(document, Yaml::Map(_)) {
            return Err("is not a Sigma rule: it must be a map with title, logsource and detection".to_owned());
        }
        if let Some(other) = self.ids.insert(id.clone(), file.to_owned()) {
            return Err(format!("the id {id} is taken by {other}"));
        }
        if document.get("correlation").is_some() {
            self.correlations.push((file.to_owned(), id, document));
            return Ok(());
        }
        if !is_for_cloudtrail(&document) {
            self.loaded.elsewhere += 1;
            return Ok(());
        }
        let at = self.rules.len();
        let aliases = ["id", "name"].map(|key| document.get(key).and_then(Yaml::text));
        for name in aliases.into_iter().flatten().chain([&*id]) {
            let place = self.names.entry(name.to_owned()).or_insert(Some(at));
            if *place != Some(at) {
                *place = None;
            }
        }
        let rule = Rule::compile(id, &document, origin)?;
        // A test does this for the program's own.
        if origin == Origin::Folder {
            rule.detection.compile_expressions().map_err(|why| format!("detection: {why}"))?;
        }
        self.rules.push(Arc::new(rule));
        Ok(())
    }

    /// The detectors.
    pub fn finish(mut self) -> Loaded {
        let mut silent = vec![false; self.rules.len()];
        let mut detectors: Vec<Box<dyn Detector>> = Vec::with_capacity(self.rules.len());
        for (file, id, document) in std::mem::take(&mut self.correlations) {
            match self.correlate(id, &document, &mut silent) {
                Ok(correlation) => detectors.push(Box::new(correlation)),
                Err(why) => self.refuse(&file, why),
            }
        }
        for (rule, silent) in self.rules.into_iter().zip(silent) {
            if !silent {
                detectors.push(Box::new(Arc::unwrap_or_clone(rule)));
            }
        }
        detectors.sort_by(|a, b| a.declaration().id.cmp(&b.declaration().id));
        Loaded { detectors, fingerprint: self.hasher.finish(), ..self.loaded }
    }

    fn correlate(&self, id: String, document: &Yaml, silent: &mut [bool]) -> Result<Correlation, String> {
        let (names, generate) = correlation::references(document)?;
        let mut rules = Vec::with_capacity(names.len());
        let mut positions = Vec::with_capacity(names.len());
        for name in names {
            let at = match self.names.get(name) {
                Some(Some(at)) => *at,
                Some(None) => return Err(format!("correlation: more than one rule is called {name}")),
                None => return Err(format!("correlation: there is no rule {name} about CloudTrail events")),
            };
            rules.push((name, self.rules[at].clone()));
            positions.push(at);
        }
        let correlation = Correlation::compile(id, document, rules)?;
        for at in positions {
            silent[at] |= !generate;
        }
        Ok(correlation)
    }
}

/// A rule that names no product or service is for all of them.
fn is_for_cloudtrail(document: &Yaml) -> bool {
    let source = document.get("logsource");
    let says = |key: &str| source.and_then(|s| s.get(key)).and_then(Yaml::text);
    says("product").is_none_or(|p| p.eq_ignore_ascii_case("aws"))
        && says("service").is_none_or(|s| s.eq_ignore_ascii_case("cloudtrail"))
        && says("category").is_none()
}

/// `at` is the place of the document in a file of several.
fn id_of(document: &Yaml, stem: &str, at: Option<usize>, origin: Origin) -> String {
    let said = |key: &str| document.get(key).and_then(Yaml::text);
    let numbered = || at.map_or_else(|| stem.to_owned(), |at| format!("{stem}_{}", at + 1));
    match origin {
        Origin::Own if at.is_none() || document.get("correlation").is_some() => stem.to_owned(),
        Origin::Own => said("name").map_or_else(numbered, str::to_owned),
        Origin::Folder => {
            let name = said("id").or_else(|| said("name")).map_or_else(numbered, str::to_owned);
            let slug: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).collect();
            format!("sigma/{}", slug.to_ascii_lowercase())
        }
    }
}

#[cfg(test)]
mod tests;
