//! One event's questions, as they go to a store.

use super::known::{Answer, Known};
use super::operation::Observation;
use super::record::StateRecord;
use crate::time::Timestamp;

/// One event's observations, as the engine hands them to the state port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObserveRequest<'c> {
    /// The classifier; separates the keys of different classifiers.
    pub classifier: &'c str,
    /// [`crate::Event::key`].
    pub event: u64,
    /// The event's time.
    pub at: Timestamp,
    /// What to remember.
    pub observations: Vec<Observation>,
}

impl ObserveRequest<'_> {
    /// The full key of one of its observations: `classifier/label/key`.
    pub fn state_key(&self, observation: &Observation) -> String {
        [self.classifier, observation.label, &observation.key].join("/")
    }

    /// Applies all observations through `slot`, which lends the record of a key. The key is written into `buffer`, which
    /// is used again and again: most keys are known already.
    pub fn apply_all<E>(
        &self,
        buffer: &mut String,
        mut slot: impl FnMut(&str, &mut dyn FnMut(&mut Option<StateRecord>) -> Timestamp) -> Result<(), E>,
    ) -> Result<Known, E> {
        let mut answers = Vec::with_capacity(self.observations.len());
        for observation in &self.observations {
            let mut answer = Answer::Done;
            buffer.clear();
            for part in [self.classifier, "/", observation.label, "/", &observation.key] {
                buffer.push_str(part);
            }
            slot(buffer, &mut |record| {
                answer = StateRecord::apply(record, &observation.op, self.at, self.event);
                record.as_ref().map_or(self.at, |r| r.expires_at(&observation.op))
            })?;
            answers.push((observation.label, answer));
        }
        Ok(Known::from_answers(answers))
    }
}
