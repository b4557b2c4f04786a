//! Runs events through the classifiers they concern: remember, classify, assemble findings.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::Timestamp;
use shared::classifier::{Evidence, FURTHER_ROUNDS_MAX, FailedCalls, Malformed, SettingsError};
use shared::config::Document;
use shared::event::{Event, EventKind};
use shared::finding::{Effect, Finding, FindingId, Severity};
use shared::observation::{Known, Observations, ObserveRequest};
use shared::places::{GeoSettings, Half, Places};
use shared::ports::{Files, PortResult, State};

use crate::allow::{AllowList, Candidate, Judgement};
use crate::classifiers;
use crate::intake::follow_up;
use crate::intake::log_groups::{self, LogGroups};
use crate::label::Label;
use crate::noise::{Noise, REPEATS_FACT, TURN, Why};
use crate::registry::{Declaration, Detector, Plugin};
use crate::routing::{Routes, Slot};
use crate::rules::{self, RuleError, Unusable};

/// Facts keep at most this many items of a list.
const FACT_ITEMS_MAX: usize = 20;
/// Facts and copied header fields keep at most this many characters.
const TEXT_CHARS_MAX: usize = 512;

/// The label of what [`Evidence::once_in`] remembers; no classifier has one like it.
const ONCE: &str = "reported once";

/// The `[classifier]` section: what concerns all classifiers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Ids of classifiers that are switched off.
    pub disabled: Vec<String>,
    /// Severity by classifier id, in place of the one it gives: also of attempts, which are not lowered then.
    pub severity: BTreeMap<String, Severity>,
    /// For how many seconds after a finding went out its repeats are only counted (see [`crate::noise`]). Default 0:
    /// every finding goes out, as a repeat may differ in facts that matter, and the notifier makes one message of
    /// repeats anyway.
    pub dedup_window_s: u32,
    /// The same by classifier id, in place of `dedup_window_s`; worth it for findings of others that come again and
    /// again, such as `guardduty_finding = 21600`.
    pub dedup_windows_s: BTreeMap<String, u32>,
}

/// Repeats are kept back for at most a week: our choice, so that what goes on is told again.
const DEDUP_WINDOW_S_MAX: u32 = 604_800;

impl Settings {
    /// Ids that no classifier or rule has are refused: a misspelt switch must not look as if it worked.
    fn mistakes(&self, rules: &rules::Loaded) -> Vec<(String, String)> {
        let unknown = |id: &&String| {
            !classifiers::ALL.iter().any(|p| p.meta.id == id.as_str())
                && !rules.detectors.iter().any(|rule| *rule.declaration().id == ***id)
        };
        let ids = [
            ("disabled", self.disabled.iter().filter(unknown).collect::<Vec<_>>()),
            ("severity", self.severity.keys().filter(unknown).collect()),
            ("dedup_windows_s", self.dedup_windows_s.keys().filter(unknown).collect()),
        ];
        let named = |(key, ids): (&str, Vec<&String>)| {
            ids.into_iter()
                .map(|id| (key.to_owned(), format!("there is no classifier or rule {id}")))
                .collect::<Vec<_>>()
        };
        let windows = self.dedup_windows_s.values().map(|window_s| ("dedup_windows_s", *window_s));
        let too_long = windows
            .chain([("dedup_window_s", self.dedup_window_s)])
            .filter(|(_, window_s)| *window_s > DEDUP_WINDOW_S_MAX)
            .map(|(key, s)| (key.to_owned(), format!("must be at most {DEDUP_WINDOW_S_MAX} (a week), is {s}")));
        ids.into_iter().flat_map(named).chain(too_long).collect()
    }
}

/// Why there is no engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineErrors {
    /// Every classifier whose settings it refused, with its id.
    pub settings: Vec<(&'static str, SettingsError)>,
    /// Every rule that cannot be used.
    pub rules: Vec<RuleError>,
    /// As [`Engine::ids`]; without those of the rules that cannot be used.
    pub ids: Vec<String>,
}

/// The classifiers in use, with their index.
pub struct Engine {
    detectors: Vec<Box<dyn Detector>>,
    ids: Vec<String>,
    routes: Routes,
    severity: BTreeMap<String, Severity>,
    places: Arc<Places>,
    noise: Noise,
    rules: RulesReport,
    log_groups: Arc<LogGroups>,
}

/// What is worth knowing about the rules that were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesReport {
    /// Those left out because they cannot be used, where the settings allow that.
    pub skipped: Vec<RuleError>,
    /// How many are for other log sources.
    pub elsewhere: usize,
    /// Tells one set of added rules from another; 0 without any.
    pub fingerprint: u64,
}

/// What became of one event.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// Whether any classifier looked at it.
    pub concerned: bool,
    /// What they found.
    pub findings: Vec<Finding>,
    /// What they found too and is kept back, and why.
    pub withheld: Vec<(Finding, Why)>,
    /// Expired entries of the allow-list that would have kept one of the findings back, by position.
    pub lapsed: Vec<usize>,
    /// Which of them could not read it: schema drift.
    pub malformed: Vec<(String, Malformed)>,
}

impl Engine {
    /// Builds all classifiers from a configuration file's `[classifier]`, `[classifiers.<id>]`, `[geo]` and `[log_groups]` sections,
    /// and the rules of its `[rules]` section and of `rule_folders`, and the `[[allow]]` tables. Mistakes in the text
    /// are kept by `document`; settings that are well formed and still unusable are returned.
    ///
    /// # Errors
    /// Every classifier whose settings it refused and every rule that cannot be used.
    pub fn configure(
        document: &mut Document<'_>,
        files: &dyn Files,
        rule_folders: &[String],
    ) -> Result<Self, EngineErrors> {
        document.expect_table("classifiers");
        let mut places = Places::none();
        let _: GeoSettings = document.section_with("geo", |settings| {
            Places::load(settings, files).map(|loaded| places = loaded).err().unwrap_or_default()
        });
        let log_groups = document.section_with("log_groups", log_groups::Settings::mistakes);
        let rule_settings: rules::Settings = document.section("rules");
        let mut loaded = rules::load(&rule_settings, rule_folders, files);
        let settings: Settings = document.section_with("classifier", |s: &Settings| s.mistakes(&loaded));
        let is_on = |id: &str| settings.disabled.iter().all(|disabled| disabled != id);
        let mut detectors = Vec::new();
        let mut errors = EngineErrors::default();
        for plugin in classifiers::ALL {
            match (plugin.configure)(document, files) {
                Ok(detector) if is_on(plugin.meta.id) => detectors.push(detector),
                Ok(_) => {}
                Err(error) => errors.settings.push((plugin.meta.id, error)),
            }
        }
        let plugins = classifiers::ALL.iter().map(|plugin| plugin.meta.id);
        let ids: Vec<&str> = plugins.chain(loaded.detectors.iter().map(|rule| &*rule.declaration().id)).collect();
        let noise = Noise {
            allow: AllowList::configure(document, &ids),
            window_s: settings.dedup_window_s,
            windows_s: settings.dedup_windows_s.clone(),
        };
        let ids = ids.into_iter().map(str::to_owned).collect();
        loaded.detectors.retain(|rule| is_on(&rule.declaration().id));
        detectors.append(&mut loaded.detectors);
        if rule_settings.unusable == Unusable::Refuse {
            errors.rules.append(&mut loaded.errors);
        }
        if !errors.settings.is_empty() || !errors.rules.is_empty() {
            return Err(EngineErrors { ids, ..errors });
        }
        let rules::Loaded { errors: skipped, elsewhere, fingerprint, .. } = loaded;
        let rules = RulesReport { skipped, elsewhere, fingerprint };
        let log_groups = Arc::new(LogGroups::Named(log_groups));
        Ok(Self { rules, noise, log_groups, ids, ..Self::new(detectors, settings.severity).with_places(places) })
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
            let slot = Slot::try_from(slot).expect("fewer detectors than fit in memory");
            routes.add(slot, &detector.declaration().selectors);
        }
        let ids = detectors.iter().map(|detector| detector.declaration().id.to_string()).collect();
        Self {
            detectors,
            ids,
            routes,
            severity,
            noise: Noise::default(),
            rules: RulesReport::default(),
            places: Arc::default(),
            log_groups: Arc::default(),
        }
    }

    /// Gives the classifiers databases of places.
    #[must_use]
    pub fn with_places(mut self, places: Places) -> Self {
        self.detectors.iter_mut().for_each(|detector| detector.use_places(&places));
        self.places = Arc::new(places);
        self
    }

    /// Classifiers in use that judge nothing, or less, because there is no database of `half`.
    pub fn without(&self, half: Half) -> Vec<&str> {
        if self.places.has(half) {
            return Vec::new();
        }
        self.detectors.iter().filter(|d| d.places().contains(&half)).map(|d| &*d.declaration().id).collect()
    }

    /// Ids of all classifiers and rules, also of those that are switched off: what other settings may name.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// From which log groups records are believed.
    pub fn log_groups(&self) -> Arc<LogGroups> {
        Arc::clone(&self.log_groups)
    }

    /// What keeps findings back.
    pub const fn noise(&self) -> &Noise {
        &self.noise
    }

    /// The classifiers in use, in the order of their slots.
    pub fn detectors(&self) -> &[Box<dyn Detector>] {
        &self.detectors
    }

    /// The classifiers whose patterns select the event.
    pub fn selected(&self, event: &Event<'_>, slots: &mut Vec<Slot>) {
        self.routes.concerned(event, slots);
    }

    fn detector(&self, slot: Slot) -> &dyn Detector {
        &*self.detectors[slot as usize]
    }

    /// About the rules that were loaded.
    pub fn rules(&self) -> &RulesReport {
        &self.rules
    }

    /// What the detectors in use declare, in the order they are asked.
    pub fn declarations(&self) -> impl Iterator<Item = &Declaration> {
        self.detectors.iter().map(|detector| detector.declaration())
    }

    /// The classifiers that will look at the event: selected by their patterns, open to failed calls if it is one,
    /// and wanting it by its header. Reuses `slots`.
    pub fn concerned(&self, event: &Event<'_>, slots: &mut Vec<Slot>) {
        self.routes.concerned(event, slots);
        if !slots.is_empty() {
            slots.retain(|slot| {
                let detector = self.detector(*slot);
                (!event.is_failed() || detector.declaration().failed_calls != FailedCalls::Ignored)
                    && detector.wants(event)
            });
        }
    }

    /// The follow-ups that the classifiers at `slots` want of the event: the time and the text of each.
    pub fn follow_ups(&self, event: &Event<'_>, slots: &[Slot]) -> impl Iterator<Item = (Timestamp, String)> {
        let slots = if event.kind == EventKind::CloudTrail { slots } else { &[] };
        slots.iter().filter_map(|slot| {
            let detector = self.detector(*slot);
            let after_s = detector.follow_up_s(event)?;
            let due = event.time.plus_seconds(i64::from(after_s));
            due.is_plausible().then(|| (due, follow_up::text(event, &detector.declaration().id, after_s)))
        })
    }

    /// Runs a batch in order. State is asked once for the whole batch, again while classifiers have further questions,
    /// and once more when something was found whose repeats are kept back.
    ///
    /// # Errors
    /// When the state cannot be reached; nothing was found then, and the batch can be run again.
    pub async fn run<S: State>(&self, events: &[Event<'_>], state: &S) -> PortResult<Vec<Verdict>> {
        let select = |event| {
            let mut slots = Vec::new();
            self.concerned(event, &mut slots);
            slots
        };
        let selected: Vec<Vec<Slot>> = events.iter().map(select).collect();
        self.run_selected(events, &selected, state).await
    }

    /// As [`Engine::run`], for events whose classifiers are known from [`Engine::concerned`].
    ///
    /// # Errors
    /// When the state cannot be reached; nothing was found then, and the batch can be run again.
    pub async fn run_selected<S: State>(
        &self,
        events: &[Event<'_>],
        selected: &[impl AsRef<[Slot]>],
        state: &S,
    ) -> PortResult<Vec<Verdict>> {
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(events.len());
        let mut looks: Vec<Look> = Vec::with_capacity(events.len());
        let mut requests = Vec::with_capacity(events.len());
        for (index, (event, slots)) in events.iter().zip(selected).enumerate() {
            verdicts.push(self.ask(index, event, slots.as_ref(), &mut looks, &mut requests));
        }
        let mut known = if requests.is_empty() { Vec::new() } else { state.observe(&requests).await? };
        for _ in 0..FURTHER_ROUNDS_MAX {
            if !self.ask_further(events, state, &mut looks, &mut known, &mut verdicts).await? {
                break;
            }
        }
        let mut repeats = Repeats::default();
        let nothing = Known::default();
        for look in looks {
            let known = look.request.map_or(&nothing, |r| &known[r]);
            self.conclude(&look, &events[look.index], known, &mut verdicts[look.index], &mut repeats);
        }
        repeats.withhold(&mut verdicts, state).await?;
        self.withhold_repeats(events, &mut verdicts, state).await?;
        Ok(verdicts)
    }

    /// Asks the classifiers at `slots` what to remember of an event.
    fn ask<'s>(
        &'s self,
        index: usize,
        event: &Event<'_>,
        slots: &[Slot],
        looks: &mut Vec<Look>,
        requests: &mut Vec<ObserveRequest<'s>>,
    ) -> Verdict {
        if !slots.is_empty() {
            event.locate_with(&self.places);
        }
        let mut verdict = Verdict { concerned: !slots.is_empty(), ..Verdict::default() };
        for &slot in slots {
            let detector = self.detector(slot);
            match detector.observe(event) {
                Err(malformed) => verdict.malformed.push((detector.declaration().id.to_string(), malformed)),
                Ok(observations) => {
                    let request = push_request(requests, detector.declaration(), event, observations);
                    looks.push(Look { index, slot, request });
                }
            }
        }
        verdict
    }

    /// Has one classifier classify one event with what was known.
    fn conclude<'s>(
        &'s self,
        look: &Look,
        event: &Event<'_>,
        known: &Known,
        verdict: &mut Verdict,
        repeats: &mut Repeats<'s>,
    ) {
        let detector = self.detector(look.slot);
        match detector.classify(event, known) {
            Ok(None) => {}
            Ok(Some(mut evidence)) => {
                let once = evidence.once.take();
                let place = verdict.findings.len();
                self.judge(detector.declaration(), event, evidence, verdict);
                if let (Some((key, quiet_s)), Some(finding)) = (once, verdict.findings.get(place)) {
                    let observations = Observations::none().see(ONCE, key, quiet_s).into_vec();
                    let classifier = &*detector.declaration().id;
                    repeats.findings.push((look.index, finding.finding_id));
                    repeats.requests.push(ObserveRequest {
                        classifier,
                        event: event.key(),
                        at: event.time,
                        observations,
                    });
                }
            }
            Err(malformed) => verdict.malformed.push((detector.declaration().id.to_string(), malformed)),
        }
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
            let detector = self.detector(look.slot);
            let event = &events[look.index];
            match detector.observe_further(event, look.request.map_or(&nothing, |r| &known[r])) {
                Err(malformed) => {
                    verdicts[look.index].malformed.push((detector.declaration().id.to_string(), malformed));
                    return false;
                }
                Ok(observations) => {
                    if push_request(&mut requests, detector.declaration(), event, observations).is_some() {
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

    /// Assembles the finding and asks the allow-list about it, which sees the resource uncut.
    fn judge(&self, declared: &Declaration, event: &Event<'_>, evidence: Evidence, verdict: &mut Verdict) {
        let judgement = match evidence.effect {
            Effect::Threat => {
                let (account, _) = place(event, &evidence);
                self.noise.allow.judge(Candidate {
                    classifier: &declared.id,
                    event,
                    account,
                    resource: &evidence.resource,
                    causes: &evidence.causes,
                })
            }
            Effect::Resolves | Effect::Notice => Judgement::Unknown,
        };
        let finding = self.finding(declared, event, evidence);
        match judgement {
            Judgement::Allowed(entry) => return verdict.withheld.push((finding, Why::Allowed(entry))),
            Judgement::Lapsed(entry) => verdict.lapsed.push(entry),
            Judgement::Unknown => {}
        }
        verdict.findings.push(finding);
    }

    async fn withhold_repeats<S: State>(
        &self,
        events: &[Event<'_>],
        verdicts: &mut [Verdict],
        state: &S,
    ) -> PortResult<()> {
        let mut requests = Vec::new();
        let mut places = Vec::new();
        for (index, verdict) in verdicts.iter().enumerate() {
            for (at, finding) in verdict.findings.iter().enumerate() {
                if let Some(request) = self.noise.turn(finding, events[index].key()) {
                    requests.push(request);
                    places.push((index, at));
                }
            }
        }
        if requests.is_empty() {
            return Ok(());
        }
        let known = state.observe(&requests).await?;
        // From behind, so that taking one out moves none that is still to come.
        for ((index, at), known) in places.into_iter().zip(known).rev() {
            let (turn, verdict) = (known.turn(TURN), &mut verdicts[index]);
            if !turn.leads {
                let finding = verdict.findings.remove(at);
                verdict.withheld.push((finding, Why::Repeat));
            } else if turn.followed > 0 {
                verdict.findings[at].evidence.insert(REPEATS_FACT.to_owned(), turn.followed.into());
            }
        }
        Ok(())
    }

    fn finding(&self, declared: &Declaration, event: &Event<'_>, evidence: Evidence) -> Finding {
        let attempt = evidence.attempt || (event.is_failed() && declared.failed_calls == FailedCalls::Attempts);
        let severity = self.severity.get(&*declared.id).copied().unwrap_or_else(|| {
            let given = evidence.severity.unwrap_or(declared.severity);
            if attempt { given.lowered() } else { given }
        });
        let (account, region) = place(event, &evidence);
        let (account, region) = (cut(account), cut(region));
        let place = [&*account, &*region].join("/");
        let title = evidence.title.unwrap_or_else(|| declared.title.to_string());
        let identity = event.to_identity();
        let principal = cut(identity.principal());
        let resource = cut(&evidence.resource);
        let mut facts = evidence.facts;
        facts.values_mut().for_each(bound);
        if let Some(code) = &event.error_code {
            facts.insert("error_code".to_owned(), cut(code).into());
        }
        let left_out = event.left_out();
        if !left_out.is_empty() {
            facts.insert("left_out_of_record".to_owned(), left_out.into());
        }
        Finding {
            finding_id: FindingId::new(&declared.id, &event.account, &event.region, &event.identity_id()),
            classifier: declared.id.to_string(),
            title: if attempt { format!("Attempted: {title}") } else { title },
            severity,
            effect: evidence.effect,
            attempt,
            account,
            region,
            event_id: cut(&event.event_id),
            event_source: cut(&event.source),
            event_name: cut(&event.name),
            event_time: event.time,
            dedup_key: [&*declared.id, &place, &principal, &resource].join("/"),
            resolution_key: evidence.resolution_topic.map(|topic| [&place, &*cut(&topic)].join("/")),
            principal,
            identity,
            source_ip: cut(&event.source_ip),
            user_agent: cut(&event.user_agent),
            resource,
            techniques: strings(&declared.techniques),
            responses: strings(&declared.responses),
            evidence: facts,
        }
    }
}

/// Adds a request unless there is nothing to ask; answers its place.
fn push_request<'d>(
    requests: &mut Vec<ObserveRequest<'d>>,
    declared: &'d Declaration,
    event: &Event<'_>,
    observations: Observations,
) -> Option<usize> {
    (!observations.is_empty()).then(|| {
        let observations = observations.into_vec();
        requests.push(ObserveRequest { classifier: &declared.id, event: event.key(), at: event.time, observations });
        requests.len() - 1
    })
}

/// Account and region of what happened.
fn place<'e>(event: &'e Event<'_>, evidence: &'e Evidence) -> (&'e str, &'e str) {
    let (account, region) = evidence.place.as_ref().map_or(("", ""), |(account, region)| (account, region));
    let given = |given: &'e str, own: &'e str| if given.is_empty() { own } else { given };
    (given(account, &event.account), given(region, &event.region))
}

/// One classifier on one event of a batch.
struct Look {
    /// Position of the event.
    index: usize,
    slot: Slot,
    /// Position of what it asked state for, if it did.
    request: Option<usize>,
}

/// Findings that are told once in a while ([`Evidence::once_in`]), and what is asked about them.
#[derive(Default)]
struct Repeats<'d> {
    /// Position of the event, and the finding.
    findings: Vec<(usize, FindingId)>,
    requests: Vec<ObserveRequest<'d>>,
}

impl Repeats<'_> {
    /// Keeps back those that were told a while ago.
    async fn withhold<S: State>(self, verdicts: &mut [Verdict], state: &S) -> PortResult<()> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let known = state.observe(&self.requests).await?;
        for ((index, id), known) in self.findings.into_iter().zip(known) {
            let Verdict { findings, withheld, .. } = &mut verdicts[index];
            if !known.seen(ONCE).is_new()
                && let Some(at) = findings.iter().position(|f| f.finding_id == id)
            {
                withheld.push((findings.remove(at), Why::Repeat));
            }
        }
        Ok(())
    }
}

fn strings(labels: &[Label]) -> Vec<String> {
    labels.iter().map(Label::to_string).collect()
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_CHARS_MAX {
        return text.to_owned();
    }
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Cuts what is too long.
fn bound(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > TEXT_CHARS_MAX => *text = cut(text),
        Value::Array(items) => {
            items.truncate(FACT_ITEMS_MAX);
            items.iter_mut().for_each(bound);
        }
        Value::Object(members) => {
            let first = std::mem::take(members).into_iter().take(FACT_ITEMS_MAX);
            members.extend(first.map(|(name, value)| (cut(&name), value)));
            members.values_mut().for_each(bound);
        }
        _ => {}
    }
}
