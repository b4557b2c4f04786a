//! Why an event became a finding or did not, classifier by classifier.
//!
//! Asks every classifier again what the engine asked it. State answers an event that it knows as it did the first time,
//! so what is shown is what was decided on.

use serde::Serialize;
use shared::Finding;
use shared::classifier::{FURTHER_ROUNDS_MAX, FailedCalls};
use shared::event::Event;
use shared::observation::{Answer, Known, Observation, Observations, ObserveRequest, Op};
use shared::ports::{PortResult, State};

use crate::engine::{Engine, Verdict};
use crate::noise::Why;
use crate::registry::Detector;

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The classifiers whose patterns select the event, in the order they were asked.
    pub asked: Vec<Asked>,
    /// The ids of the others: their patterns name other events.
    pub not_concerned: Vec<String>,
}

/// What one classifier said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Asked {
    /// Its id.
    pub classifier: String,
    /// What it said.
    pub said: Said,
    /// The same in a sentence.
    pub because: String,
    /// What it asked state about the event and was answered, one line each.
    pub known: Vec<String>,
}

/// How far an event came with a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The call failed, and failed calls do not concern it.
    FailedCall,
    /// It declined by the header, before looking into the record.
    NotWanted,
    /// It could not make sense of the record.
    Malformed,
    /// It looked at everything and said no.
    No,
    /// It found something, which went out.
    Found,
    /// It found something, which the allow-list kept back.
    Suppressed,
    /// It found something that repeats another finding.
    Repeat,
}

impl Engine {
    /// Runs one event as [`Engine::run`] does, and says what every classifier made of it.
    ///
    /// # Errors
    /// When the state cannot be reached.
    pub async fn explain<S: State>(&self, event: &Event<'_>, state: &S) -> PortResult<(Verdict, Explanation)> {
        let verdict = self.run(std::slice::from_ref(event), state).await?.pop().unwrap_or_default();
        let mut selected = Vec::new();
        self.selected(event, &mut selected);
        let mut explanation = Explanation { asked: Vec::new(), not_concerned: Vec::new() };
        for (slot, detector) in self.detectors().iter().enumerate() {
            let declared = detector.declaration();
            if !selected.iter().any(|s| *s as usize == slot) {
                explanation.not_concerned.push(declared.id.to_string());
                continue;
            }
            let mut known = Vec::new();
            let (said, because) = if event.is_failed() && declared.failed_calls == FailedCalls::Ignored {
                let code = event.error_code.as_deref().unwrap_or_default();
                (Said::FailedCall, format!("the call failed ({code}), and this classifier ignores failed calls"))
            } else if !detector.wants(event) {
                let why = || "the header is enough to say no: caller, address, user agent or kind of event".to_owned();
                (Said::NotWanted, detector.why_not(event, &Known::default()).unwrap_or_else(why))
            } else if let Some((_, malformed)) = verdict.malformed.iter().find(|(id, _)| **id == *declared.id) {
                (Said::Malformed, format!("the record is not as it should be: {malformed}"))
            } else {
                let answers;
                (known, answers) = lookups(detector.as_ref(), event, state).await?;
                let why_not = || match detector.classify(event, &answers) {
                    Ok(Some(_)) => "the same was reported before, and there was no quiet since".to_owned(),
                    _ => detector.why_not(event, &answers).unwrap_or_else(|| {
                        "it looked at the record and at what was known, and saw no threat".to_owned()
                    }),
                };
                self.outcome(&declared.id, &verdict).unwrap_or_else(|| (Said::No, why_not()))
            };
            explanation.asked.push(Asked { classifier: declared.id.to_string(), said, because, known });
        }
        Ok((verdict, explanation))
    }

    fn outcome(&self, id: &str, verdict: &Verdict) -> Option<(Said, String)> {
        let what = |finding: &Finding| format!("{} ({})", finding.title, finding.severity);
        if let Some(finding) = verdict.findings.iter().find(|f| f.classifier == id) {
            return Some((Said::Found, what(finding)));
        }
        Some(match verdict.withheld.iter().find(|(finding, _)| finding.classifier == id) {
            Some((finding, Why::Allowed(number))) => {
                let entry =
                    self.noise().allow.entries().nth(*number).map(|(entry, _)| entry.clone()).unwrap_or_default();
                let why = format!(
                    "{}, kept back by the allow-list: {}, owner {}, until {}: {}",
                    what(finding),
                    entry.name,
                    entry.owner,
                    entry.expires,
                    entry.reason
                );
                (Said::Suppressed, why)
            }
            Some((finding, Why::Repeat)) => (
                Said::Repeat,
                format!("{}, kept back: it repeats a finding of the deduplication window", what(finding)),
            ),
            None => return None,
        })
    }
}

/// What the detector asks of state, in all rounds, and what it is answered: the same again, as for any redelivery. The
/// answers as lines and as they are.
async fn lookups<S: State>(detector: &dyn Detector, event: &Event<'_>, state: &S) -> PortResult<(Vec<String>, Known)> {
    let (mut shown, mut known) = (Vec::new(), Known::default());
    for round in 0..=FURTHER_ROUNDS_MAX {
        let asked = if round == 0 { detector.observe(event) } else { detector.observe_further(event, &known) };
        let observations = asked.map(Observations::into_vec).unwrap_or_default();
        if observations.is_empty() && round > 0 {
            break;
        }
        let request = ObserveRequest {
            classifier: &detector.declaration().id,
            event: event.key(),
            at: event.time,
            observations: observations.clone(),
        };
        for answers in state.observe(&[request]).await? {
            shown.extend(lines(&observations, &answers));
            known.extend(answers);
        }
    }
    Ok((shown, known))
}

/// What was asked of state and answered.
fn lines(observations: &[Observation], known: &Known) -> Vec<String> {
    observations.iter().zip(known.answers()).map(|(asked, (label, answer))| line(asked, label, answer)).collect()
}

fn line(asked: &Observation, label: &str, answer: &Answer) -> String {
    let key = &asked.key;
    match (answer, &asked.op) {
        (Answer::Count(count), Op::Count { window_s, .. }) => {
            format!("{label}: {} within {window_s} s for {key}, {} without this event", count.now, count.before)
        }
        (Answer::Count(count), Op::Distinct { window_s, value }) => format!(
            "{label}: {} different within {window_s} s for {key}, {} without this event, which adds {value}",
            count.now, count.before
        ),
        (Answer::Last(last), _) => {
            let shown = |side: &Option<(shared::Timestamp, String)>| {
                side.as_ref().map_or_else(|| "nothing".to_owned(), |(at, value)| format!("{value} at {at}"))
            };
            format!("{label}: {} before and {} after, for {key}", shown(&last.previous), shown(&last.next))
        }
        (Answer::Seen(seen), _) => match (seen.first, seen.last) {
            (Some(first), Some(last)) => format!("{label}: {key} is known, first seen {first}, last {last}"),
            _ => format!("{label}: {key} is new"),
        },
        (Answer::Stood(stood), _) => {
            let shown: Vec<String> = stood.iter().map(|s| format!("{} since {}", s.what, s.since)).collect();
            format!("{label}: for {key}: {}", if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") })
        }
        (Answer::Turn(turn), _) if turn.leads => format!("{label}: the first of its kind for {key}"),
        (Answer::Turn(_), _) => format!("{label}: one of several for {key}"),
        _ => format!("{label}: what came before is forgotten for {key}"),
    }
}
