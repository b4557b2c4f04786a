//! The contract of a classifier plug-in.
//!
//! Classifiers are pure: no I/O, no clock, no environment; time is the event's. A plug-in says which
//! events it wants ([`Pattern`]), what to remember about one ([`Classifier::observe`]) and, handed what
//! was known before, whether it is a threat ([`Classifier::classify`]).

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::event::Event;
use crate::files::Files;
use crate::finding::{Effect, Severity};
pub use crate::malformed::Malformed;
use crate::observation::{Known, Observations};
use crate::places::{Half, Places};

/// How often [`Classifier::observe_further`] is asked: interface to groups to rules to what closed them is three.
pub const FURTHER_ROUNDS_MAX: usize = 3;

/// Which events a classifier wants. Feeds the dispatch index and the generated EventBridge rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// CloudTrail records of these calls. Names match exactly but for case.
    Api {
        /// `eventSource`: `iam.amazonaws.com`.
        source: &'static str,
        /// `eventName`s.
        names: &'static [&'static str],
    },
    /// EventBridge notifications.
    Notification {
        /// EventBridge `source`: `aws.guardduty`.
        source: &'static str,
        /// `detail-type`: `GuardDuty Finding`.
        detail_type: &'static str,
    },
    /// Records that the intake makes itself: lines of text logs, follow-ups. No EventBridge rule selects them, so that
    /// nobody who may call `PutEvents` can forge one.
    Intake {
        /// `vpc-flow-logs`.
        source: &'static str,
        /// `Flow`.
        name: &'static str,
    },
    /// Every CloudTrail record of the root user.
    Root,
    /// Every CloudTrail record. Needs a cheap [`Classifier::wants`].
    AnyApi,
}

/// What to do with calls that were denied or failed (`errorCode` is set).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedCalls {
    /// They are not shown to the classifier at all.
    Ignored,
    /// They are attempts: reported one severity lower.
    Attempts,
    /// The failure is the subject: reported unchanged.
    Wanted,
}

/// What a classifier declares about itself.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Snake case, service first; equals the file stem.
    pub id: &'static str,
    /// The threat as a fact, one line of at most 100 characters, no full stop.
    pub title: &'static str,
    /// Severity unless the evidence says otherwise.
    pub severity: Severity,
    /// ATT&CK technique ids: `T1098.001`.
    pub techniques: &'static [&'static str],
    /// The events it wants.
    pub patterns: &'static [Pattern],
    /// What failed calls mean.
    pub failed_calls: FailedCalls,
    /// Ids of the actions that answer it, best first; the responder's policy decides.
    pub responses: &'static [&'static str],
    /// AWS or ATT&CK pages that explain it.
    pub references: &'static [&'static str],
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct SettingsError {
    /// The setting's name.
    pub key: &'static str,
    /// What is wrong with its value and what is allowed.
    pub why: String,
}

impl SettingsError {
    /// An error about `key`.
    pub fn new(key: &'static str, why: impl Into<String>) -> Self {
        Self { key, why: why.into() }
    }
}

/// What a classifier saw: the content of a finding that only it can know. The engine adds the event's
/// header, the id and the severity rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Replaces the title of [`Meta`] when set.
    pub title: Option<String>,
    /// Replaces the severity of [`Meta`] when set.
    pub severity: Option<Severity>,
    /// What it was done to; empty when the event names nothing.
    pub resource: String,
    /// What makes it a threat to the resource, such as the open groups of an instance: whoever accepts all of these accepts
    /// the finding too.
    pub causes: Vec<String>,
    /// Threat, good news or notice.
    pub effect: Effect,
    /// Joins threats with the good news that ends them, such as `security_group_open/sg-1`; the engine
    /// puts account and region before it.
    pub resolution_topic: Option<String>,
    /// The call had no error code and failed all the same: lowers the severity as [`FailedCalls::Attempts`] does.
    pub attempt: bool,
    /// Not reported again while it keeps happening: see [`Evidence::once_in`].
    pub once: Option<(String, u32)>,
    /// Account and region it happened in, when a service tells of it from elsewhere, as an administrator account does of
    /// its members. Empty texts are not told apart from the event's.
    pub place: Option<(String, String)>,
    /// Small facts by name.
    pub facts: BTreeMap<String, Value>,
}

impl Evidence {
    /// Evidence about `resource` (an ARN or id; empty when there is none).
    pub fn about(resource: impl Into<String>) -> Self {
        Self { resource: resource.into(), ..Self::default() }
    }

    /// Replaces the title.
    #[must_use]
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Replaces the severity.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    /// Adds a fact. Lists and texts are cut by the engine at 20 items and 512 characters.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Names what makes it a threat to the resource, where that is something else.
    #[must_use]
    pub fn caused_by(mut self, causes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.causes = causes.into_iter().map(Into::into).collect();
        self
    }

    /// Names the topic that good news about the same resource will name too.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.resolution_topic = Some(topic.into());
        self
    }

    /// Says where it happened when that is not where the event came from.
    #[must_use]
    pub fn placed(mut self, account: impl Into<String>, region: impl Into<String>) -> Self {
        self.place = Some((account.into(), region.into()));
        self
    }

    /// Marks good news.
    #[must_use]
    pub fn resolves(mut self) -> Self {
        self.effect = Effect::Resolves;
        self
    }

    /// Marks what is only recorded: see [`Effect::Notice`].
    #[must_use]
    pub fn notice(mut self) -> Self {
        self.effect = Effect::Notice;
        self
    }

    /// Reports this `key` only after `quiet_s` seconds without it. What is left out is not reported at all, so the key
    /// must name everything that would make it news. Arrival order decides which event of several is the one.
    #[must_use]
    pub fn once_in(mut self, key: impl Into<String>, quiet_s: u32) -> Self {
        self.once = Some((key.into(), quiet_s));
        self
    }

    /// Marks an attempt that did not succeed though the record has no error code.
    #[must_use]
    pub fn attempt(mut self) -> Self {
        self.attempt = true;
        self
    }
}

/// A classifier plug-in.
pub trait Classifier: Send + Sync + 'static {
    /// Its declaration.
    const META: Meta;
    /// What it asks of [`Event::place`], so that people are told when there is no database for it.
    const PLACES: &'static [Half] = &[];
    /// Its settings, all defaulted (`serde(default, deny_unknown_fields)`); the `[classifiers.<id>]` table.
    type Settings: DeserializeOwned + Serialize + Default;

    /// Checks the settings and reads the files they name, through `files` only.
    ///
    /// # Errors
    /// When a value is out of range or a file cannot be used.
    fn new(settings: Self::Settings, files: &dyn Files) -> Result<Self, SettingsError>
    where
        Self: Sized;

    /// Told once, before any event, which databases of places there are, so that `wants` can say no without one.
    fn use_places(&mut self, _places: &Places) {}

    /// A cheap look at the header before anything is remembered or parsed. Only the header fields of
    /// the event may be used here.
    fn wants(&self, _event: &Event<'_>) -> bool {
        true
    }

    /// Whether to be shown this event once more, and after how many seconds: for threats that are something not done in
    /// time. The follow-up is an event of its own with the request, response and caller of this one, the time at which
    /// it is due, the source `pipeline.follow-up` and the classifier's id as its name, which its patterns must name
    /// ([`Pattern::Intake`]). It depends on the event alone, and on nothing remembered. Only CloudTrail records have
    /// follow-ups; those due after the last record do not come.
    fn follow_up_s(&self, _event: &Event<'_>) -> Option<u32> {
        None
    }

    /// What to remember about this event. Called before `classify`, also for events that are no threat.
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn observe(&self, _event: &Event<'_>) -> Result<Observations, Malformed> {
        Ok(Observations::none())
    }

    /// What more to ask, now that the first answers are known: for facts that name what to look up next, such as an
    /// instance whose groups must be found first. Asked again with the answers until it asks nothing, at most
    /// [`FURTHER_ROUNDS_MAX`] times; each round is one call for the whole batch, after the round before of all its events.
    /// A label and key that was asked must not come again: see [`Known::has`].
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn observe_further(&self, _event: &Event<'_>, _known: &Known) -> Result<Observations, Malformed> {
        Ok(Observations::none())
    }

    /// Whether this event is a threat, given what was known.
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed>;

    /// Why `wants`, or `classify` with `known`, said no to this event: a sentence for people who ask for it, without a full
    /// stop. Asked only when it did, and off the hot path. `None` when there is no better one than that it did.
    fn why_not(&self, _event: &Event<'_>, _known: &Known) -> Option<String> {
        None
    }
}
