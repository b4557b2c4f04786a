//! A rule about single events as a detector. Most rules of a large set never meet an event that they select, so a
//! detection is made ready to be asked when the first one comes.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

use shared::classifier::{Evidence, FailedCalls, Malformed};
use shared::event::{Event, EventKind, Part};
use shared::finding::Severity;
use shared::json_scan::{ScanError, Scanner};
use shared::observation::{Known, Observations};

use super::check::Check;
use super::document::{self, Calls, Detection, Head, Level};
use super::field::Field;
use super::{OWN_DETECTIONS, index};
use crate::label::Label;
use crate::registry::{Declaration, Detector};

/// A rule about single events.
#[derive(Debug)]
pub struct Rule {
    /// Its head.
    pub declaration: Declaration,
    source: Source,
    ready: OnceLock<Ready>,
    /// The whole detection, which only a correlation of several rules asks for.
    whole: OnceLock<Check>,
}

/// Where the detection is taken from.
#[derive(Debug)]
pub enum Source {
    /// It was read.
    Read(Box<Detection>),
    /// The build packed it here, among our own.
    Packed(Range<usize>),
}

#[derive(Debug)]
struct Ready {
    /// What of the detection is not settled by the selectors.
    left: Check,
    fields: Vec<Field>,
    /// Whether calls that AWS services make count ([`Event::is_by_aws_service`]).
    services_count: bool,
    repeat: Option<Repeat>,
}

/// When a finding is one of before.
#[derive(Debug)]
pub struct Repeat {
    timespan_s: u32,
    /// Empty: the caller, or the group of the correlation.
    group_by: Vec<Field>,
}

impl Rule {
    /// A rule that declares this and looks for what the source holds.
    pub const fn new(declaration: Declaration, source: Source) -> Self {
        Self { declaration, source, ready: OnceLock::new(), whole: OnceLock::new() }
    }

    pub(super) fn detection(&self) -> Cow<'_, Detection> {
        match &self.source {
            Source::Read(detection) => Cow::Borrowed(detection),
            Source::Packed(place) => {
                let packed = &OWN_DETECTIONS[place.clone()];
                Cow::Owned(postcard::from_bytes(packed).expect("what the build packed"))
            }
        }
    }

    fn ready(&self) -> &Ready {
        self.ready.get_or_init(|| {
            let detection = self.detection();
            Ready {
                left: Check::new(&index::left_to_test(&detection.node, &self.declaration.selectors)),
                fields: fields(&detection.fields),
                services_count: detection.services_count,
                repeat: detection.repeat.as_ref().map(Repeat::new),
            }
        })
    }

    /// Compiles the regular expressions, of which nobody knows whether they can be used until then.
    ///
    /// # Errors
    /// The first that cannot be compiled.
    pub fn compile_expressions(&self) -> Result<(), String> {
        if self.detection().node.has_expressions() { self.ready().left.compile_expressions() } else { Ok(()) }
    }

    /// Whether the rule holds for the event.
    pub fn holds(&self, event: &Event<'_>) -> bool {
        let whole = || self.whole.get_or_init(|| Check::new(&self.detection().node));
        event.kind == EventKind::CloudTrail && whole().holds(event) && self.ready().takes_caller(event)
    }

    /// Whether it holds for an event that its selectors selected.
    pub fn holds_for_selected(&self, event: &Event<'_>) -> bool {
        let ready = self.ready();
        event.kind == EventKind::CloudTrail && ready.left.holds(event) && ready.takes_caller(event)
    }
}

impl Ready {
    fn takes_caller(&self, event: &Event<'_>) -> bool {
        self.services_count || !event.is_by_aws_service()
    }
}

impl Repeat {
    /// As it was read.
    pub fn new(read: &document::Repeat) -> Self {
        Self { timespan_s: read.timespan_s, group_by: fields(&read.group_by) }
    }

    /// The evidence, said once for the event's group, or for `otherwise` when it names no fields. What belongs to no group
    /// is said each time. An attempt is none of what was done.
    pub fn once(&self, evidence: Evidence, event: &Event<'_>, otherwise: impl FnOnce() -> String) -> Evidence {
        let group = if self.group_by.is_empty() { Some(otherwise()) } else { group(&self.group_by, event) };
        let outcome = if event.is_failed() { "failed" } else { "done" };
        match group {
            Some(group) => evidence.once_in([&*event.account, outcome, &group].join("/"), self.timespan_s),
            None => evidence,
        }
    }
}

/// All values of all fields, or what a list adds to what was told would be hidden; `None` when a field is absent.
fn group(fields: &[Field], event: &Event<'_>) -> Option<String> {
    let mut group = String::new();
    for field in fields {
        let start = group.len();
        field.any(event, |value| {
            group.push('\u{1f}');
            group.push_str(value.as_str());
            false
        });
        if group.len() == start {
            return None;
        }
        group.push('\u{1e}');
    }
    Some(group)
}

/// The fields of these names.
pub fn fields(names: &[String]) -> Vec<Field> {
    names.iter().map(|name| Field::new(name)).collect()
}

/// The whole rule is asked in `wants`: it looks at the record's text, so that an event it does not hold for is never
/// copied, parsed or counted as looked at.
impl Detector for Arc<Rule> {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        self.holds_for_selected(event)
    }

    fn observe(&self, _event: &Event<'_>) -> Result<Observations, Malformed> {
        Ok(Observations::none())
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let mut evidence = Evidence::about(resource(event));
        let ready = self.ready();
        for field in &ready.fields {
            if let Some(value) = field.first(event) {
                evidence = evidence.fact(&field.name, value);
            }
        }
        Ok(Some(match &ready.repeat {
            Some(repeat) => repeat.once(evidence, event, || event.identity().habit_key().into_owned()),
            None => evidence,
        }))
    }
}

/// What a head declares. `failed_calls` is for heads that do not say it.
pub fn declaration(id: Label, head: Head, failed_calls: FailedCalls) -> Declaration {
    Declaration {
        id,
        title: head.title,
        severity: match head.level {
            Level::Informational => Severity::Info,
            Level::Low => Severity::Low,
            Level::Medium => Severity::Medium,
            Level::High => Severity::High,
            Level::Critical => Severity::Critical,
        },
        techniques: head.techniques,
        selectors: head.selectors,
        failed_calls: match head.failed_calls {
            None => failed_calls,
            Some(Calls::Ignored) => FailedCalls::Ignored,
            Some(Calls::Attempts) => FailedCalls::Attempts,
            Some(Calls::Wanted) => FailedCalls::Wanted,
        },
        responses: head.responses,
        references: head.references,
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
