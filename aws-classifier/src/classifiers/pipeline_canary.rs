//! Canary of the pipeline itself.
//!
//! **What it detects.** An event with the source of canaries. One that an operator has announced (`pipeline doctor`) is
//! a notice: recorded as closed, told to nobody, answered by nothing. One that nobody has announced, or that comes a
//! second time, is a forgery, reported once an hour for each account.
//!
//! **Why it matters.** The announced one shows that events come through, and how fast. The other one is somebody with
//! `events:PutEvents` who tries what the pipeline does with what it is given.
//!
//! **False positives.** A canary that took longer than 15 minutes, which is how long its announcement is good for.
//!
//! **Response.** None. Find out who called `PutEvents`: CloudTrail records it as a data event, if you record those.
//!
//! **References.** <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html>

use serde::{Deserialize, Serialize};
use shared::canary::{self, ANNOUNCED, ANNOUNCED_S, Canary};
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, Observations};
use shared::places::Places;
use shared::ports::Files;

/// The label of canaries that came.
const CAME: &str = "came";
/// For how long a canary that came is known: longer than it could come again with its announcement.
const CAME_S: u32 = 4 * ANNOUNCED_S;
/// A flood of forgeries is one finding an hour: our choice, it names what to look for.
const FORGED_QUIET_S: u32 = 3600;

/// See the module.
pub struct PipelineCanary {
    geo: Option<String>,
}

/// No settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {}

impl Classifier for PipelineCanary {
    const META: Meta = Meta {
        id: canary::CLASSIFIER,
        title: "Canary event that no operator announced",
        severity: Severity::Medium,
        techniques: &[],
        patterns: &[Pattern::Notification { source: canary::SOURCE, detail_type: canary::DETAIL_TYPE }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &["https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html"],
    };
    type Settings = Settings;

    fn new(_settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        Ok(Self { geo: None })
    }

    fn use_places(&mut self, places: &Places) {
        self.geo = places.built_at().map(|at| at.to_string());
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        Ok(match claimed(event) {
            Some((id, _)) => Observations::none().recall(ANNOUNCED, id, ANNOUNCED_S),
            None => Observations::none(),
        })
    }

    fn observe_further(&self, event: &Event<'_>, known: &Known) -> Result<Observations, Malformed> {
        Ok(match announced(event, known) {
            Some(id) if !known.has(CAME) => Observations::none().see(CAME, id, CAME_S),
            _ => Observations::none(),
        })
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let version = env!("CARGO_PKG_VERSION");
        Ok(Some(match announced(event, known) {
            Some(id) if known.seen(CAME).is_new() => Evidence::about("")
                .titled("Canary of the pipeline came through the classifier")
                .severity(Severity::Info)
                .notice()
                .topic(Canary::topic(id))
                .fact("canary", id)
                .fact("geo_built", self.geo.as_deref().unwrap_or_default())
                .fact("version", version),
            announced => {
                let why = if announced.is_some() { "it came before" } else { "nobody announced it" };
                Evidence::about("").fact("why", why).once_in(format!("forged/{}", event.account), FORGED_QUIET_S)
            }
        }))
    }
}

/// The id and the secret that the event claims. Whatever else it holds is no canary, and no malformed one either: that would
/// let anybody with `PutEvents` fill the dead-letter queue.
fn claimed<'e>(event: &'e Event<'_>) -> Option<(&'e str, &'e str)> {
    let detail = event.detail().ok()?;
    let id = detail.get("id")?.as_str().filter(|id| canary::is_id(id))?;
    Some((id, detail.get("secret")?.as_str()?))
}

/// The id, when an operator announced this very canary.
fn announced<'e>(event: &'e Event<'_>, known: &Known) -> Option<&'e str> {
    let (id, secret) = claimed(event)?;
    let seal = canary::seal(id, secret);
    let known = known.last(ANNOUNCED);
    [known.previous, known.next].into_iter().flatten().any(|(_, announced)| announced == seal).then_some(id)
}

#[cfg(test)]
mod tests {
    use shared::adapters::memory::MemoryState;
    use shared::ports::{Files, State};
    use shared::{Severity, Timestamp};

    use super::*;
    use crate::classifiers::ALL;
    use crate::engine::Engine;

    struct NoFiles;

    impl Files for NoFiles {
        fn read(&self, name: &str) -> Result<Vec<u8>, String> {
            Err(format!("there is no {name}"))
        }
    }

    fn engine() -> Engine {
        let plugins: Vec<_> = ALL.iter().filter(|p| p.meta.id == canary::CLASSIFIER).copied().collect();
        Engine::with_defaults(&plugins, &NoFiles).expect("no settings")
    }

    fn envelope(canary: &Canary, event_id: &str, at: &str) -> String {
        serde_json::json!({
            "version": "0", "id": event_id, "source": canary::SOURCE, "detail-type": canary::DETAIL_TYPE,
            "account": "123456789012", "region": "us-east-1", "time": at, "detail": canary.detail(),
        })
        .to_string()
    }

    async fn found(state: &MemoryState, text: &str) -> Vec<shared::Finding> {
        let event = crate::intake::event(text).expect("an event");
        engine().run(&[event], state).await.expect("runs").remove(0).findings
    }

    fn announced_canary() -> (Canary, Timestamp) {
        let canary = Canary::new(uuid_of(1), [7; 32]);
        (canary, Timestamp::parse("2026-11-25T12:00:00Z").expect("a time"))
    }

    fn uuid_of(n: u8) -> uuid::Uuid {
        uuid::Uuid::from_bytes([n; 16])
    }

    #[tokio::test]
    async fn an_announced_canary_is_a_notice_also_when_it_is_delivered_twice() {
        let (state, (canary, at)) = (MemoryState::default(), announced_canary());
        state.observe(&[canary.announcement(at)]).await.expect("remembered");
        let text = envelope(&canary, "e-1", "2026-11-25T12:00:01Z");
        for _ in 0..2 {
            let [finding] = &found(&state, &text).await[..] else { panic!("one finding") };
            assert_eq!((finding.severity, finding.effect), (Severity::Info, shared::finding::Effect::Notice));
            let key = finding.resolution_key.as_deref().expect("a key");
            assert!(key.ends_with(&Canary::topic(canary.id())), "{key}");
        }
    }

    #[tokio::test]
    async fn one_that_nobody_announced_or_with_another_secret_is_a_forgery_told_once_an_hour() {
        let (state, (canary, at)) = (MemoryState::default(), announced_canary());
        let forged = Canary::new(uuid_of(1), [8; 32]);
        state.observe(&[canary.announcement(at)]).await.expect("remembered");
        let [finding] = &found(&state, &envelope(&forged, "e-1", "2026-11-25T12:00:01Z")).await[..] else {
            panic!("one finding")
        };
        assert_eq!((finding.severity, finding.effect), (Severity::Medium, shared::finding::Effect::Threat));
        assert!(found(&state, &envelope(&forged, "e-2", "2026-11-25T12:00:02Z")).await.is_empty());
    }

    #[tokio::test]
    async fn one_that_comes_again_or_too_late_is_a_forgery() {
        let (state, (canary, at)) = (MemoryState::default(), announced_canary());
        state.observe(&[canary.announcement(at)]).await.expect("remembered");
        found(&state, &envelope(&canary, "e-1", "2026-11-25T12:00:01Z")).await;
        let [again] = &found(&state, &envelope(&canary, "e-2", "2026-11-25T12:00:02Z")).await[..] else {
            panic!("one finding")
        };
        assert_eq!(again.evidence["why"], "it came before");
        let (state, late) = (MemoryState::default(), "2026-11-25T12:15:01Z");
        state.observe(&[canary.announcement(at)]).await.expect("remembered");
        let [late] = &found(&state, &envelope(&canary, "e-1", late)).await[..] else { panic!("one finding") };
        assert_eq!(late.evidence["why"], "nobody announced it");
    }

    #[tokio::test]
    async fn anything_else_under_its_name_is_a_forgery_and_never_malformed() {
        for detail in ["{}", r#"{"id":1}"#, r#"{"id":"x","secret":"y"}"#, r#"{"id":null,"secret":{}}"#] {
            let text = envelope(&announced_canary().0, "e-1", "2026-11-25T12:00:01Z");
            let at = text.find("\"detail\":").expect("there") + 9;
            let end = text[at..].find('}').expect("there") + at + 1;
            let text = format!("{}{detail}{}", &text[..at], &text[end..]);
            let event = crate::intake::event(&text).expect("an event");
            let verdict = engine().run(&[event], &MemoryState::default()).await.expect("runs").remove(0);
            assert!(verdict.malformed.is_empty() && verdict.findings.len() == 1, "{detail}: {verdict:?}");
        }
    }
}
