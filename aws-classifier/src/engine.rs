//! Runs events through the classifiers they concern: remember, classify, assemble findings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::Timestamp;
use shared::classifier::{Evidence, FURTHER_ROUNDS_MAX, FailedCalls, Malformed, Meta, SettingsError};
use shared::config::Document;
use shared::event::{Event, EventKind};
use shared::finding::{Finding, FindingId, Severity};
use shared::observation::{Known, Observations, ObserveRequest};
use shared::ports::{Files, PortResult, State};

use crate::classifiers;
use crate::intake::follow_up;
use crate::registry::{Detector, Plugin};
use crate::routing::{Routes, Slot};

/// Facts keep at most this many items of a list.
const FACT_ITEMS_MAX: usize = 20;
/// Facts and copied header fields keep at most this many characters.
const TEXT_CHARS_MAX: usize = 512;

/// The `[classifier]` section: what concerns all classifiers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Ids of classifiers that are switched off.
    pub disabled: Vec<String>,
    /// Severity by classifier id, in place of the one it gives.
    pub severity: BTreeMap<String, Severity>,
}

impl Settings {
    /// Ids that no classifier has are refused: a misspelt switch must not look as if it worked.
    fn check(&self) -> Result<(), (String, String)> {
        let unknown = |id: &&String| !classifiers::ALL.iter().any(|p| p.meta.id == id.as_str());
        for (key, id) in
            [("disabled", self.disabled.iter().find(unknown)), ("severity", self.severity.keys().find(unknown))]
        {
            if let Some(id) = id {
                return Err((key.to_owned(), format!("there is no classifier {id}")));
            }
        }
        Ok(())
    }
}

/// The classifiers in use, with their index.
pub struct Engine {
    detectors: Vec<Box<dyn Detector>>,
    routes: Routes,
    severity: BTreeMap<String, Severity>,
}

/// What became of one event.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// Whether any classifier looked at it.
    pub concerned: bool,
    /// What they found.
    pub findings: Vec<Finding>,
    /// Which of them could not read it: schema drift.
    pub malformed: Vec<(&'static str, Malformed)>,
}

impl Engine {
    /// Builds all classifiers from a configuration file's `[classifier]` and `[classifiers.<id>]` sections. Mistakes
    /// in the text are kept by `document`; settings that are well formed and still unusable are returned.
    ///
    /// # Errors
    /// Every classifier whose settings it refused, with its id.
    pub fn configure(
        document: &mut Document<'_>,
        files: &dyn Files,
    ) -> Result<Self, Vec<(&'static str, SettingsError)>> {
        document.expect_table("classifiers");
        let settings: Settings = document.section_with("classifier", Settings::check);
        let mut detectors = Vec::new();
        let mut errors = Vec::new();
        for plugin in classifiers::ALL {
            match (plugin.configure)(document, files) {
                Ok(_) if settings.disabled.iter().any(|id| id == plugin.meta.id) => {}
                Ok(detector) => detectors.push(detector),
                Err(error) => errors.push((plugin.meta.id, error)),
            }
        }
        if errors.is_empty() { Ok(Self::new(detectors, settings.severity)) } else { Err(errors) }
    }

    /// All classifiers with their default settings.
    ///
    /// # Errors
    /// When a classifier refuses its own defaults.
    pub fn with_defaults(plugins: &[Plugin], files: &dyn Files) -> Result<Self, SettingsError> {
        let detectors = plugins.iter().map(|p| (p.from_json)((p.defaults)(), files)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(detectors, BTreeMap::new()))
    }

    /// An engine of these classifiers.
    pub fn new(detectors: Vec<Box<dyn Detector>>, severity: BTreeMap<String, Severity>) -> Self {
        let mut routes = Routes::default();
        for (slot, detector) in detectors.iter().enumerate() {
            routes.add(Slot::try_from(slot).expect("far fewer than 65,536 classifiers"), detector.meta().patterns);
        }
        Self { detectors, routes, severity }
    }

    /// The classifiers that will look at the event: selected by their patterns, open to failed calls if it is one,
    /// and wanting it by its header. Reuses `slots`.
    pub fn concerned(&self, event: &Event<'_>, slots: &mut Vec<Slot>) {
        self.routes.concerned(event, slots);
        if !slots.is_empty() {
            slots.retain(|slot| {
                let detector = &self.detectors[usize::from(*slot)];
                (!event.is_failed() || detector.meta().failed_calls != FailedCalls::Ignored) && detector.wants(event)
            });
        }
    }

    /// The follow-ups that the classifiers at `slots` want of the event: the time and the text of each.
    pub fn follow_ups(&self, event: &Event<'_>, slots: &[Slot]) -> impl Iterator<Item = (Timestamp, String)> {
        let slots = if event.kind == EventKind::CloudTrail { slots } else { &[] };
        slots.iter().filter_map(|slot| {
            let detector = &self.detectors[usize::from(*slot)];
            let after_s = detector.follow_up_s(event)?;
            let due = event.time.plus_seconds(i64::from(after_s));
            due.is_plausible().then(|| (due, follow_up::text(event, detector.meta().id, after_s)))
        })
    }

    /// Runs a batch in order. State is asked once for the whole batch, and again while classifiers have further
    /// questions.
    ///
    /// # Errors
    /// When the state cannot be reached; nothing was found then, and the batch can be run again.
    pub async fn run<S: State>(&self, events: &[Event<'_>], state: &S) -> PortResult<Vec<Verdict>> {
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(events.len());
        let mut looks: Vec<Look> = Vec::new();
        let mut requests = Vec::new();
        let mut slots = Vec::new();
        for (index, event) in events.iter().enumerate() {
            self.concerned(event, &mut slots);
            let mut verdict = Verdict { concerned: !slots.is_empty(), ..Verdict::default() };
            for &slot in &slots {
                let detector = &self.detectors[usize::from(slot)];
                match detector.observe(event) {
                    Err(malformed) => verdict.malformed.push((detector.meta().id, malformed)),
                    Ok(observations) => {
                        let request = push_request(&mut requests, detector.meta(), event, observations);
                        looks.push(Look { index, slot, request });
                    }
                }
            }
            verdicts.push(verdict);
        }
        let mut known = if requests.is_empty() { Vec::new() } else { state.observe(&requests).await? };
        for _ in 0..FURTHER_ROUNDS_MAX {
            if !self.ask_further(events, state, &mut looks, &mut known, &mut verdicts).await? {
                break;
            }
        }
        let nothing = Known::default();
        for Look { index, slot, request } in looks {
            let detector = &self.detectors[usize::from(slot)];
            let (event, verdict) = (&events[index], &mut verdicts[index]);
            match detector.classify(event, request.map_or(&nothing, |r| &known[r])) {
                Ok(None) => {}
                Ok(Some(evidence)) => verdict.findings.push(self.finding(detector.meta(), event, evidence)),
                Err(malformed) => verdict.malformed.push((detector.meta().id, malformed)),
            }
        }
        Ok(verdicts)
    }

    /// One further round: its answers join those before. `false` when nobody asked.
    async fn ask_further<S: State>(
        &self,
        events: &[Event<'_>],
        state: &S,
        looks: &mut Vec<Look>,
        known: &mut Vec<Known>,
        verdicts: &mut [Verdict],
    ) -> PortResult<bool> {
        let nothing = Known::default();
        let mut requests = Vec::new();
        let mut asked = Vec::new();
        looks.retain_mut(|look| {
            let detector = &self.detectors[usize::from(look.slot)];
            let event = &events[look.index];
            match detector.observe_further(event, look.request.map_or(&nothing, |r| &known[r])) {
                Err(malformed) => {
                    verdicts[look.index].malformed.push((detector.meta().id, malformed));
                    return false;
                }
                Ok(observations) => {
                    if push_request(&mut requests, detector.meta(), event, observations).is_some() {
                        asked.push(*look.request.get_or_insert_with(|| {
                            known.push(Known::default());
                            known.len() - 1
                        }));
                    }
                }
            }
            true
        });
        if requests.is_empty() {
            return Ok(false);
        }
        for (at, answers) in asked.into_iter().zip(state.observe(&requests).await?) {
            known[at].extend(answers);
        }
        Ok(true)
    }

    fn finding(&self, meta: &'static Meta, event: &Event<'_>, evidence: Evidence) -> Finding {
        let attempt = evidence.attempt || (event.is_failed() && meta.failed_calls == FailedCalls::Attempts);
        let severity = self.severity.get(meta.id).copied().unwrap_or_else(|| {
            let given = evidence.severity.unwrap_or(meta.severity);
            if attempt { given.lowered() } else { given }
        });
        let title = evidence.title.unwrap_or_else(|| meta.title.to_owned());
        let identity = event.identity().clone();
        let principal = cut(identity.principal());
        let resource = cut(&evidence.resource);
        let mut facts: BTreeMap<String, Value> =
            evidence.facts.into_iter().map(|(name, value)| (name, bounded(value))).collect();
        if let Some(code) = &event.error_code {
            facts.insert("error_code".to_owned(), cut(code).into());
        }
        let region = match evidence.region {
            Some(region) if event.region.is_empty() => cut(&region),
            _ => cut(&event.region),
        };
        let place = [&*event.account, &*region].join("/");
        Finding {
            finding_id: FindingId::new(meta.id, &event.account, &event.region, &event.identity_id()),
            classifier: meta.id.to_owned(),
            title: if attempt { format!("Attempted: {title}") } else { title },
            severity,
            effect: evidence.effect,
            attempt,
            account: cut(&event.account),
            region,
            event_id: cut(&event.event_id),
            event_source: cut(&event.source),
            event_name: cut(&event.name),
            event_time: event.time,
            dedup_key: [meta.id, &place, &principal, &resource].join("/"),
            resolution_key: evidence.resolution_topic.map(|topic| [&place, &*cut(&topic)].join("/")),
            principal,
            identity,
            source_ip: cut(&event.source_ip),
            user_agent: cut(&event.user_agent),
            resource,
            techniques: meta.techniques.iter().map(|&t| t.to_owned()).collect(),
            responses: meta.responses.iter().map(|&r| r.to_owned()).collect(),
            evidence: facts,
        }
    }
}

/// Adds a request unless there is nothing to ask; answers its place.
fn push_request(
    requests: &mut Vec<ObserveRequest>,
    meta: &'static Meta,
    event: &Event<'_>,
    observations: Observations,
) -> Option<usize> {
    (!observations.is_empty()).then(|| {
        let observations = observations.into_vec();
        requests.push(ObserveRequest { classifier: meta.id, event: event.key(), at: event.time, observations });
        requests.len() - 1
    })
}

struct Look {
    index: usize,
    slot: Slot,
    request: Option<usize>,
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn bounded(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(&text)),
        Value::Array(items) => items.into_iter().take(FACT_ITEMS_MAX).map(bounded).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().take(FACT_ITEMS_MAX).map(|(k, v)| (cut(&k), bounded(v))).collect())
        }
        other => other,
    }
}
