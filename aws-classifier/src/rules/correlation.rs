//! Sigma correlation rules: what several events make together, counted by the state port.
//!
//! `event_count`, `value_count`, `temporal` and `temporal_ordered`; a threshold from below (`gte`, `gt`, `eq`), because
//! "fewer than" is never known while events still come. One window alerts once, when it is complete; see
//! [`shared::observation::Count::reaches`]; `repeat` says for how long a group is told then. Events that lack a
//! group-by field belong to no group and do not count. `actor`, a field of ours, is who acts under whatever name of a
//! session. For `temporal_ordered`, of each earlier rule its latest match counts, and the last rule's event must arrive
//! last.

use std::sync::Arc;

use shared::classifier::{Evidence, FailedCalls, Malformed};
use shared::event::Event;
use shared::observation::{Known, MAX_COUNT_ENTRIES, MAX_DISTINCT_ENTRIES, Observations};

use super::document::{self, Head};
use super::field::Field;
use super::rule::{Repeat, Rule, declaration, fields};
use crate::label::Label;
use crate::registry::{Declaration, Detector};

const LABEL: &str = "matches";
/// One label for each step of an ordered correlation.
const STEPS: [&str; 8] = ["step_1", "step_2", "step_3", "step_4", "step_5", "step_6", "step_7", "step_8"];

/// A rule about several events.
pub struct Correlation {
    declaration: Declaration,
    steps: Vec<Step>,
    kind: Kind,
    window_s: u32,
    /// How many make a finding.
    threshold: u64,
    /// More than so many make none.
    most: Option<u64>,
    repeat: Option<Repeat>,
}

struct Step {
    rule: Arc<Rule>,
    group_by: Vec<Field>,
}

enum Kind {
    Events,
    Values(Vec<Field>),
    Temporal,
    Ordered,
}

impl Correlation {
    /// A correlation of these rules, one for each of its steps.
    ///
    /// # Errors
    /// What in it cannot be used.
    pub fn new(id: Label, head: Head, read: &document::Correlation, rules: Vec<Arc<Rule>>) -> Result<Self, String> {
        let about_failure = rules.iter().any(|rule| rule.declaration.failed_calls == FailedCalls::Wanted);
        let otherwise = if about_failure { FailedCalls::Wanted } else { FailedCalls::Attempts };
        let mut declaration = declaration(id, head, otherwise);
        for rule in &rules {
            declaration.selectors.extend(rule.declaration.selectors.iter().cloned());
        }
        declaration.selectors.sort();
        declaration.selectors.dedup();
        let kind = match &read.kind {
            document::Kind::Events => Kind::Events,
            document::Kind::Values(names) => Kind::Values(fields(names)),
            document::Kind::Temporal => Kind::Temporal,
            document::Kind::Ordered if rules.len() <= STEPS.len() => Kind::Ordered,
            document::Kind::Ordered => return Err(format!("at most {} rules in order", STEPS.len())),
        };
        let threshold = threshold(read.least, &kind, rules.len())?;
        let steps = rules.into_iter().zip(&read.steps);
        let steps = steps.map(|(rule, step)| Step { rule, group_by: fields(&step.group_by) }).collect();
        let repeat = read.repeat.as_ref().map(Repeat::new);
        Ok(Self { declaration, steps, kind, window_s: read.window_s, threshold, most: read.most, repeat })
    }

    /// The steps that the event matches, each with its group.
    fn matched(&self, event: &Event<'_>) -> impl Iterator<Item = (usize, String)> {
        self.steps
            .iter()
            .enumerate()
            // A single step was found to hold when the event was wanted.
            .filter(|(_, step)| self.steps.len() == 1 || step.rule.holds(event))
            .filter_map(|(at, step)| Some((at, key(&step.group_by, event)?)))
    }

    /// Said once for the event's groups, where that was asked for.
    fn once(&self, evidence: Evidence, event: &Event<'_>) -> Evidence {
        let Some(repeat) = &self.repeat else { return evidence };
        repeat.once(evidence, event, || {
            let mut groups: Vec<String> = self.matched(event).map(|(_, group)| group).collect();
            groups.dedup();
            groups.join("\u{1e}")
        })
    }

    /// Whether the last step came after the others, in their order, and was not answered before.
    fn in_order(&self, event: &Event<'_>, known: &Known) -> bool {
        let last = self.steps.len() - 1;
        let mut after = None;
        for label in &STEPS[..last] {
            let Some((at, _)) = known.last(label).previous else { return false };
            if after.is_some_and(|before| at < before) {
                return false;
            }
            after = Some(at);
        }
        let answered = known.last(STEPS[last]).previous.is_some_and(|(at, _)| Some(at) >= after);
        !answered && after.is_none_or(|at| at <= event.time)
    }
}

impl Detector for Correlation {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        match &self.steps[..] {
            // Its selectors are those of the correlation, which select the event already.
            [step] => step.rule.holds_for_selected(event),
            steps => steps.iter().any(|step| step.rule.holds(event)),
        }
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let mut asked = Observations::none();
        let mut groups: Vec<String> = Vec::new();
        for (at, group) in self.matched(event) {
            match &self.kind {
                Kind::Events | Kind::Values(_) if groups.contains(&group) => continue,
                Kind::Events | Kind::Values(_) if self.steps.len() > 1 => groups.push(group.clone()),
                _ => {}
            }
            match &self.kind {
                Kind::Events => asked = asked.count(LABEL, group, 1, self.window_s),
                Kind::Values(fields) => {
                    if let Some(value) = key(fields, event) {
                        asked = asked.distinct(LABEL, group, value, self.window_s);
                    }
                }
                Kind::Temporal => asked = asked.distinct(LABEL, group, at.to_string(), self.window_s),
                Kind::Ordered => {
                    asked = asked.remember(STEPS[at], &*group, "", self.window_s);
                    if at + 1 == self.steps.len() {
                        for label in &STEPS[..at] {
                            asked = asked.recall(label, &*group, self.window_s);
                        }
                    }
                }
            }
        }
        Ok(asked)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let evidence = || {
            let evidence = Evidence::default().fact("window_s", self.window_s);
            match self.steps.iter().any(|step| step.group_by.iter().any(Field::is_actor)).then(|| event.actor()) {
                // A role says more than the session that came last.
                Some(Some(actor)) if actor != event.principal() => evidence.fact("actor", actor.into_owned()),
                _ => evidence,
            }
        };
        if matches!(self.kind, Kind::Ordered) {
            let at_end = self.matched(event).any(|(at, _)| at + 1 == self.steps.len());
            return Ok((at_end && self.in_order(event, known)).then(|| self.once(evidence(), event)));
        }
        let Some(count) = known
            .counts(LABEL)
            .find(|count| count.reaches(self.threshold) && self.most.is_none_or(|most| count.now <= most))
        else {
            return Ok(None);
        };
        let mut evidence = evidence().fact("count", count.now);
        if matches!(self.kind, Kind::Values(_)) {
            evidence = evidence.fact("values", count.values.clone());
        }
        Ok(Some(self.once(evidence, event)))
    }
}

/// The values of all fields as one text; `None` when one is absent.
fn key(fields: &[Field], event: &Event<'_>) -> Option<String> {
    let Some((first, more)) = fields.split_first() else { return Some(String::new()) };
    let mut key = first.first(event)?;
    for field in more {
        key.push('\u{1f}');
        key.push_str(&field.first(event)?);
    }
    Some(key)
}

/// How many make a finding.
fn threshold(least: Option<u64>, kind: &Kind, steps: usize) -> Result<u64, String> {
    let highest = match kind {
        Kind::Events => MAX_COUNT_ENTRIES,
        Kind::Values(_) => MAX_DISTINCT_ENTRIES,
        Kind::Temporal | Kind::Ordered => steps,
    } as u64;
    match (least, kind) {
        (Some(least), _) if (1..=highest).contains(&least) => Ok(least),
        (Some(least), _) => Err(format!("condition: must be from 1 to {highest}, is {least}")),
        (None, Kind::Temporal | Kind::Ordered) => Ok(highest),
        (None, _) => Err("condition: needs gte, gt or eq, as too few are never known".to_owned()),
    }
}
