//! Rules written as data: detectors whose content is Sigma YAML.
//!
//! Our own rules lie in `aws-classifier/rules/`, one file each, named for the detector's id, and are part of the program;
//! others come from folders that the settings or the command line name. A rule is read (`document`) as a tree of field
//! tests (`node`), bounded to the events it can match (`index`), and asked like any classifier. The first event
//! it selects makes its tests ready (`check`): of thousands of rules few are ever asked. They read the record's text and
//! build no tree, so a candidate costs tenths of a microsecond.
//!
//! What only reads rules knows nothing of events, and the build uses it too: it packs our own rules, so that a start
//! unpacks their heads and nothing else.
//!
//! Modifiers: `contains`, `startswith`, `endswith`, `all`, `re` (with `i`, `m`, `s`), `cidr`, `exists`, `fieldref`,
//! `cased`, `neq`, `lt`, `lte`, `gt`, `gte`; and `every` and `account`, which are ours. Correlations: `event_count`,
//! `value_count`, `temporal`, `temporal_ordered`. Anything else is refused with the reason, never passed over.
//!
//! Sigma's own implementations were weighed and left: rsigma 0.23 is the last for this compiler, adds some 150
//! CPU-seconds and 70 crates to a release build, among them a second inflate and a second base64, and evaluates a tree.

mod block_yaml;
mod check;
mod condition;
mod correlation;
mod detection;
mod document;
mod field;
mod index;
mod node;
mod rule;
mod text;
mod yaml;
mod yaml_node;

use std::fmt;
use std::hash::Hasher;
use std::io::Read as _;
use std::sync::{Arc, LazyLock};

use flate2::read::DeflateDecoder;
use rustc_hash::{FxHashMap, FxHasher};
use serde::{Deserialize, Serialize};
use shared::classifier::FailedCalls;
use shared::ports::Files;

use self::correlation::Correlation;
pub use self::document::Origin;
use self::document::{Head, Packed, PackedBody, Read};
use self::rule::{Rule, Source, declaration};
use self::yaml::Yaml;
use crate::label::Label;
use crate::registry::{Declaration, Detector};

/// The rules of this program: the names of their files.
pub static OWN: &[&str] = include!(concat!(env!("OUT_DIR"), "/own_rules.rs"));

/// Their documents, as the build packed them. Heads lend their texts from here.
static OWN_DOCUMENTS: LazyLock<Vec<u8>> =
    LazyLock::new(|| inflated(include_bytes!(concat!(env!("OUT_DIR"), "/own_rules.deflate"))));

/// Their detections, one after another; inflated when the first is asked about an event.
static OWN_DETECTIONS: LazyLock<Vec<u8>> =
    LazyLock::new(|| inflated(include_bytes!(concat!(env!("OUT_DIR"), "/own_detections.deflate"))));

fn inflated(deflated: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    DeflateDecoder::new(deflated).read_to_end(&mut inflated).expect("what the build packed");
    inflated
}

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
        let documents: Vec<Packed> = postcard::from_bytes(&OWN_DOCUMENTS).expect("what the build packed");
        documents.into_iter().for_each(|document| loader.add_packed(document));
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

/// Collects documents: a correlation may refer to rules of other files.
#[derive(Default)]
pub struct Loader {
    rules: Vec<Named>,
    correlations: Vec<Waiting>,
    /// The file of every id.
    ids: FxHashMap<Label, Label>,
    loaded: Loaded,
    hasher: FxHasher,
}

/// A rule and what a correlation may call it besides its id.
struct Named {
    rule: Arc<Rule>,
    names: Vec<Label>,
}

/// A correlation whose rules have yet to be found.
struct Waiting {
    file: Label,
    id: Label,
    head: Head,
    correlation: document::Correlation,
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
        let documents = match yaml::documents(text) {
            Ok(documents) if documents.is_empty() => return self.refuse(file, "has no rule".to_owned()),
            Ok(documents) => documents,
            Err(why) => return self.refuse(file, why),
        };
        let many = documents.len() > 1;
        let label = Label::from(file.to_owned());
        for (at, document) in documents.iter().enumerate() {
            let id = document::id_of(document, file, many.then_some(at), origin);
            if let Err(why) = self.add_document(&label, id.into(), document, origin) {
                self.refuse(file, why);
            }
        }
    }

    fn add_document(&mut self, file: &Label, id: Label, document: &Yaml<'_>, origin: Origin) -> Result<(), String> {
        self.claim(file, &id)?;
        match document::read(document, origin)? {
            Read::Elsewhere => self.loaded.elsewhere += 1,
            Read::Correlation(head, correlation) => {
                self.correlations.push(Waiting { file: file.clone(), id, head, correlation });
            }
            Read::Rule(head, detection) => {
                let (names, rule) = named(id, head, Source::Read(Box::new(detection)));
                rule.compile_expressions().map_err(|why| format!("detection: {why}"))?;
                self.rules.push(Named { names, rule: Arc::new(rule) });
            }
        }
        Ok(())
    }

    /// The build refused what cannot be read, and a test compiles the regular expressions.
    fn add_packed(&mut self, document: Packed) {
        let Packed { file, id, head, body } = document;
        if let Err(why) = self.claim(&file, &id) {
            return self.refuse(&file, why);
        }
        match body {
            PackedBody::Detection(place) => {
                let (names, rule) = named(id, head, Source::Packed(place));
                self.rules.push(Named { names, rule: Arc::new(rule) });
            }
            PackedBody::Correlation(correlation) => self.correlations.push(Waiting { file, id, head, correlation }),
        }
    }

    fn claim(&mut self, file: &Label, id: &Label) -> Result<(), String> {
        match self.ids.insert(id.clone(), file.clone()) {
            Some(other) => Err(format!("the id {id} is taken by {other}")),
            None => Ok(()),
        }
    }

    /// The detectors.
    pub fn finish(self) -> Loaded {
        let Self { rules, correlations, mut loaded, hasher, .. } = self;
        let mut silent = vec![false; rules.len()];
        let mut detectors: Vec<Box<dyn Detector>> = Vec::with_capacity(rules.len() + correlations.len());
        let names = if correlations.is_empty() { FxHashMap::default() } else { by_name(&rules) };
        for Waiting { file, id, head, correlation } in correlations {
            match correlate(id, head, &correlation, &rules, &names, &mut silent) {
                Ok(correlation) => detectors.push(Box::new(correlation)),
                Err(why) => {
                    loaded.errors.push(RuleError { file: file.to_string(), why: format!("correlation: {why}") })
                }
            }
        }
        for (Named { rule, .. }, silent) in rules.into_iter().zip(silent) {
            if !silent {
                detectors.push(Box::new(rule));
            }
        }
        detectors.sort_by(|a, b| a.declaration().id.cmp(&b.declaration().id));
        Loaded { detectors, fingerprint: hasher.finish(), ..loaded }
    }
}

fn named(id: Label, mut head: Head, source: Source) -> (Vec<Label>, Rule) {
    let names = std::mem::take(&mut head.names);
    (names, Rule::new(declaration(id, head, FailedCalls::Attempts), source))
}

/// Positions of rules by every name a correlation may use; `None` when two rules have it.
fn by_name(rules: &[Named]) -> FxHashMap<&str, Option<usize>> {
    let mut names = FxHashMap::default();
    for (at, Named { rule, names: own }) in rules.iter().enumerate() {
        for name in own.iter().chain([&rule.declaration.id]) {
            let place = names.entry(&**name).or_insert(Some(at));
            if *place != Some(at) {
                *place = None;
            }
        }
    }
    names
}

fn correlate(
    id: Label,
    head: Head,
    correlation: &document::Correlation,
    rules: &[Named],
    names: &FxHashMap<&str, Option<usize>>,
    silent: &mut [bool],
) -> Result<Correlation, String> {
    let mut positions = Vec::with_capacity(correlation.steps.len());
    for document::Step { rule: name, .. } in &correlation.steps {
        match names.get(&**name) {
            Some(Some(at)) => positions.push(*at),
            Some(None) => return Err(format!("more than one rule is called {name}")),
            None => return Err(format!("there is no rule {name} about CloudTrail events")),
        }
    }
    let steps = positions.iter().map(|at| Arc::clone(&rules[*at].rule)).collect();
    let made = Correlation::new(id, head, correlation, steps)?;
    for at in positions {
        silent[at] |= !correlation.generate;
    }
    Ok(made)
}

#[cfg(test)]
mod tests;
