//! A rule: the head of a Sigma document as a declaration, its detection as a detector.
//!
//! Beside Sigma's own, four keys of ours are read:
//!
//! * `responses`: ids of actions that answer it.
//! * `failed_calls`: `ignored`, `attempts` or `wanted`, see [`FailedCalls`]. Without it a failed call is an attempt, unless the
//!   rule itself asks for `errorCode` or `errorMessage`: then the failure is its subject.
//! * `aws_services`: whether calls that AWS services make ([`Event::is_by_aws_service`]) are `ignored`, as they are without
//!   it in our own rules, or `reported`, as Sigma has it.
//! * `repeat`: `timespan` and `group-by`, as in correlations. A finding is only counted while there was one of the same group
//!   within the time. Without `group-by` a caller is a group, all sessions of a role being one. Our own rules of low and
//!   informational level are told once a day without it: they note habits, and a habit is no news twice.

use std::borrow::Cow;
use std::sync::LazyLock;

use shared::classifier::{Evidence, FailedCalls, Malformed};
use shared::event::{Event, EventKind, Part};
use shared::finding::Severity;
use shared::json_scan::{ScanError, Scanner};
use shared::observation::{Known, Observations};

use super::Origin;
use super::correlation::{key, seconds};
use super::detection::Node;
use super::field::Field;
use super::index;
use super::yaml::Yaml;
use crate::registry::{Declaration, Detector};

/// Titles keep at most this many characters.
const TITLE_CHARS_MAX: usize = 100;

/// A rule about single events.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its head.
    pub declaration: Declaration,
    /// What it looks for.
    pub detection: Node,
    /// What of it is not settled by the selectors.
    left: Node,
    /// Sigma `fields`: worth showing with a finding.
    fields: Vec<Field>,
    /// Whether calls that AWS services make count.
    services_count: bool,
    repeat: Option<Repeat>,
}

/// When a finding is one of before.
#[derive(Clone, Debug)]
struct Repeat {
    timespan_s: u32,
    /// Empty: the caller.
    group_by: Vec<Field>,
}

/// How long a finding of low level stays told: our choice, see the module.
const TOLD_S: u32 = 86_400;

impl Rule {
    /// Compiles a document that has a `detection`.
    ///
    /// # Errors
    /// What in it cannot be used.
    pub fn compile(id: String, document: &Yaml, origin: Origin) -> Result<Self, String> {
        let detection = document.get("detection").ok_or("detection is missing")?;
        let detection = Node::compile(detection).map_err(|why| format!("detection: {why}"))?;
        let about_failure = detection.mentions("errorCode") || detection.mentions("errorMessage");
        let otherwise = if about_failure { FailedCalls::Wanted } else { FailedCalls::Attempts };
        let mut declaration = head(id, document, otherwise)?;
        declaration.selectors = index::selectors(&detection);
        let left = index::left_to_test(&detection, &declaration.selectors);
        let fields = texts(document, "fields")?.iter().map(|name| Field::new(name)).collect();
        let services_count = match document.get("aws_services").and_then(Yaml::text) {
            None => origin == Origin::Folder,
            Some("ignored") => false,
            Some("reported") => true,
            Some(other) => return Err(format!("aws_services is ignored or reported, not {other:?}")),
        };
        let is_slight = origin == Origin::Own && declaration.severity <= Severity::Low;
        let repeat = Repeat::read(document)?
            .or_else(|| is_slight.then_some(Repeat { timespan_s: TOLD_S, group_by: Vec::new() }));
        Ok(Self { declaration, detection, left, fields, services_count, repeat })
    }

    /// Whether the rule holds for the event.
    pub fn holds(&self, event: &Event<'_>) -> bool {
        event.kind == EventKind::CloudTrail && self.detection.holds(event) && self.takes_caller(event)
    }

    fn takes_caller(&self, event: &Event<'_>) -> bool {
        self.services_count || !event.is_by_aws_service()
    }
}

impl Repeat {
    fn read(document: &Yaml) -> Result<Option<Self>, String> {
        let Some(repeat) = document.get("repeat") else { return Ok(None) };
        let timespan = repeat.get("timespan").and_then(Yaml::text).ok_or("repeat: timespan is missing")?;
        let timespan_s = seconds(timespan).map_err(|why| format!("repeat: {why}"))?;
        let group_by = texts(repeat, "group-by")?.into_iter().map(Field::new).collect();
        Ok(Some(Self { timespan_s, group_by }))
    }

    /// The group of the event; `None` when it belongs to none. An attempt is none of what was done.
    fn group(&self, event: &Event<'_>) -> Option<String> {
        let group = if self.group_by.is_empty() {
            event.identity().habit_key().into_owned()
        } else {
            key(&self.group_by, event)?
        };
        let outcome = if event.is_failed() { "failed" } else { "done" };
        Some([&*event.account, outcome, &group].join("/"))
    }
}

/// The whole rule is asked in `wants`: it looks at the record's text, so that an event it does not hold for is never
/// copied, parsed or counted as looked at.
impl Detector for Rule {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        event.kind == EventKind::CloudTrail && self.left.holds(event) && self.takes_caller(event)
    }

    fn observe(&self, _event: &Event<'_>) -> Result<Observations, Malformed> {
        Ok(Observations::none())
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let mut evidence = Evidence::about(resource(event));
        for field in &self.fields {
            if let Some(value) = field.first(event) {
                evidence = evidence.fact(&field.name, value);
            }
        }
        if let Some(repeat) = &self.repeat
            && let Some(group) = repeat.group(event)
        {
            evidence = evidence.once_in(group, repeat.timespan_s);
        }
        Ok(Some(evidence))
    }
}

/// What the call was about, as far as a record says it in general: the ARN in `resources`, else the request parameter
/// that names something best.
fn resource(event: &Event<'_>) -> String {
    static ARN: LazyLock<Field> = LazyLock::new(|| Field::new("resources.ARN"));
    if let Some(arn) = ARN.first(event) {
        return arn;
    }
    const ENDINGS: [&str; 3] = ["arn", "name", "id"];
    let mut best: Option<(usize, &str, Cow<'_, str>)> = None;
    let Some(parameters) = event.raw(Part::Request) else { return String::new() };
    // What cannot be read as an object names nothing.
    let _ = Scanner::new(parameters).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        let has = |ending: &str| {
            key.len() >= ending.len()
                && key.as_bytes()[key.len() - ending.len()..].eq_ignore_ascii_case(ending.as_bytes())
        };
        if let Some(rank) = ENDINGS.iter().position(|ending| has(ending))
            && best.as_ref().is_none_or(|(other, name, _)| (rank, key) < (*other, *name))
            && let Some(text) = value.as_str().filter(|text| !text.is_empty())
        {
            best = Some((rank, key, text));
        }
        Ok(())
    });
    best.map(|(_, _, text)| text.into_owned()).unwrap_or_default()
}

/// The head that rules and correlations share; the selectors are left empty.
///
/// # Errors
/// What in it cannot be used.
pub fn head(id: String, document: &Yaml, failed_calls: FailedCalls) -> Result<Declaration, String> {
    let title = document.get("title").and_then(Yaml::text).ok_or("title is missing")?;
    let techniques = texts(document, "tags")?
        .into_iter()
        .filter_map(|tag| tag.strip_prefix("attack.").map(str::to_ascii_uppercase))
        .filter(|tag| tag.strip_prefix('T').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
        .collect();
    Ok(Declaration {
        id,
        title: title.trim().trim_end_matches('.').chars().take(TITLE_CHARS_MAX).collect(),
        severity: severity(document)?,
        techniques,
        selectors: Vec::new(),
        failed_calls: match document.get("failed_calls").and_then(Yaml::text) {
            None => failed_calls,
            Some("ignored") => FailedCalls::Ignored,
            Some("attempts") => FailedCalls::Attempts,
            Some("wanted") => FailedCalls::Wanted,
            Some(other) => return Err(format!("failed_calls is ignored, attempts or wanted, not {other:?}")),
        },
        responses: texts(document, "responses")?.into_iter().map(str::to_owned).collect(),
        references: texts(document, "references")?.into_iter().map(str::to_owned).collect(),
    })
}

/// A rule that does not say its level is no reason to look today.
fn severity(document: &Yaml) -> Result<Severity, String> {
    match document.get("level").and_then(Yaml::text) {
        None | Some("low") => Ok(Severity::Low),
        Some("informational") => Ok(Severity::Info),
        Some("medium") => Ok(Severity::Medium),
        Some("high") => Ok(Severity::High),
        Some("critical") => Ok(Severity::Critical),
        Some(other) => Err(format!("level is informational, low, medium, high or critical, not {other:?}")),
    }
}

/// A list of texts; a single text is a list of one.
pub fn texts<'y>(document: &'y Yaml, key: &str) -> Result<Vec<&'y str>, String> {
    let items = document.get(key).map(Yaml::items).unwrap_or_default();
    items.iter().map(|item| item.text().ok_or_else(|| format!("{key} must be a list of texts"))).collect()
}
