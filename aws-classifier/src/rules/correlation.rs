//! Sigma correlation rules: what several events make together, counted by the state port.
//!
//! `event_count`, `value_count`, `temporal` and `temporal_ordered`; a threshold from below (`gte`, `gt`, `eq`), because
//! "fewer than" is never known while events still come. One window alerts once, when it is complete; see
//! [`shared::observation::Count::reaches`]. Events that lack a group-by field belong to no group and do not count.
//! For `temporal_ordered`, of each earlier rule its latest match counts, and the last rule's event must arrive last.

use std::sync::Arc;

use shared::classifier::{Evidence, FailedCalls, Malformed};
use shared::event::Event;
use shared::observation::{Known, MAX_COUNT_ENTRIES, MAX_DISTINCT_ENTRIES, Observations};

use super::field::Field;
use super::rule::{Rule, head, texts};
use super::yaml::Yaml;
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

/// The names a correlation refers to its rules by, and whether these alert on their own too.
pub fn references(document: &Yaml) -> Result<(Vec<&str>, bool), String> {
    let correlation = document.get("correlation").ok_or("correlation is missing")?;
    let names = texts(correlation, "rules")?;
    if names.is_empty() {
        return Err("correlation: rules is missing".to_owned());
    }
    let generate = correlation.get("generate").or_else(|| document.get("generate")).and_then(Yaml::text);
    Ok((names, generate == Some("true")))
}

impl Correlation {
    /// Compiles a document that has a `correlation` of these rules.
    ///
    /// # Errors
    /// What in it cannot be used.
    pub fn compile(id: String, document: &Yaml, rules: Vec<(&str, Arc<Rule>)>) -> Result<Self, String> {
        let correlation = document.get("correlation").ok_or("correlation is missing")?;
        let in_section = |why: String| format!("correlation: {why}");
        let about_failure = rules.iter().any(|(_, rule)| rule.declaration.failed_calls == FailedCalls::Wanted);
        let otherwise = if about_failure { FailedCalls::Wanted } else { FailedCalls::Attempts };
        let mut declaration = head(id, document, otherwise)?;
        for (_, rule) in &rules {
            declaration.selectors.extend(rule.declaration.selectors.iter().cloned());
        }
        declaration.selectors.sort();
        declaration.selectors.dedup();
        let steps = rules
            .into_iter()
            .map(|(name, rule)| Ok(Step { group_by: group_by(correlation, name)?, rule }))
            .collect::<Result<Vec<_>, String>>()
            .map_err(in_section)?;
        let condition = correlation.get("condition");
        let kind = match correlation.get("type").and_then(Yaml::text) {
            Some("event_count") => Kind::Events,
            Some("value_count") => Kind::Values(value_fields(condition).map_err(in_section)?),
            Some("temporal") => Kind::Temporal,
            Some("temporal_ordered") if steps.len() <= STEPS.len() => Kind::Ordered,
            Some("temporal_ordered") => return Err(format!("correlation: at most {} rules in order", STEPS.len())),
            Some(other) => return Err(format!("correlation: the type {other} is not supported")),
            None => return Err("correlation: type is missing".to_owned()),
        };
        let timespan = correlation.get("timespan").and_then(Yaml::text).ok_or("correlation: timespan is missing")?;
        let window_s = seconds(timespan).map_err(in_section)?;
        let (threshold, most) = thresholds(condition, &kind, steps.len()).map_err(in_section)?;
        Ok(Self { declaration, steps, kind, window_s, threshold, most })
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
            [step] => step.rule.wants(event),
            steps => steps.iter().any(|step| step.rule.holds(event)),
        }
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let mut asked = Observations::none();
        let mut groups: Vec<String> = Vec::new();
        for (at, group) in self.matched(event) {
            match &self.kind {
                Kind::Events | Kind::Values(_) if groups.contains(&group) => {}
                Kind::Events => asked = asked.count(LABEL, &*group, 1, self.window_s),
                Kind::Values(fields) => {
                    if let Some(value) = key(fields, event) {
                        asked = asked.distinct(LABEL, &*group, value, self.window_s);
                    }
                }
                Kind::Temporal => asked = asked.distinct(LABEL, &*group, at.to_string(), self.window_s),
                Kind::Ordered => {
                    asked = asked.remember(STEPS[at], &*group, "", self.window_s);
                    if at + 1 == self.steps.len() {
                        for label in &STEPS[..at] {
                            asked = asked.recall(label, &*group, self.window_s);
                        }
                    }
                }
            }
            groups.push(group);
        }
        Ok(asked)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let evidence = || Evidence::default().fact("window_s", self.window_s);
        if matches!(self.kind, Kind::Ordered) {
            let at_end = self.matched(event).any(|(at, _)| at + 1 == self.steps.len());
            return Ok((at_end && self.in_order(event, known)).then(evidence));
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
        Ok(Some(evidence))
    }
}

/// The fields that make the group, under the names the rule gives them.
fn group_by(correlation: &Yaml, rule: &str) -> Result<Vec<Field>, String> {
    let names = texts(correlation, "group-by")?;
    let aliases = correlation.get("aliases");
    Ok(names
        .into_iter()
        .map(|name| {
            let alias = aliases.and_then(|a| a.get(name)).and_then(|a| a.get(rule)).and_then(Yaml::text);
            Field::new(alias.unwrap_or(name))
        })
        .collect())
}

/// The values of all fields as one text; `None` when one is absent.
pub fn key(fields: &[Field], event: &Event<'_>) -> Option<String> {
    let values: Option<Vec<String>> = fields.iter().map(|field| field.first(event)).collect();
    values.map(|values| values.join("\u{1f}"))
}

fn value_fields(condition: Option<&Yaml>) -> Result<Vec<Field>, String> {
    let names = condition.map(|c| texts(c, "field")).transpose()?.unwrap_or_default();
    if names.is_empty() {
        return Err("condition: a value_count needs a field".to_owned());
    }
    Ok(names.into_iter().map(Field::new).collect())
}

fn thresholds(condition: Option<&Yaml>, kind: &Kind, steps: usize) -> Result<(u64, Option<u64>), String> {
    let highest = match kind {
        Kind::Events => MAX_COUNT_ENTRIES,
        Kind::Values(_) => MAX_DISTINCT_ENTRIES,
        Kind::Temporal | Kind::Ordered => steps,
    } as u64;
    let (mut least, mut most) = (None, None);
    match condition {
        None => {}
        Some(Yaml::Map(members)) => {
            for (name, value) in members.iter().filter(|(name, _)| name != "field") {
                let number: Option<u64> = value.text().and_then(|text| text.parse().ok());
                let number = number.ok_or_else(|| format!("condition: {name} needs a whole number"))?;
                match &**name {
                    "gte" | "eq" => least = Some(number),
                    "gt" => least = Some(number.saturating_add(1)),
                    "lte" => most = Some(number),
                    "lt" => most = Some(number.saturating_sub(1)),
                    other => return Err(format!("condition: {other:?} is not supported")),
                }
            }
        }
        Some(_) => return Err("condition must be a map such as gte: 5".to_owned()),
    }
    let least = match (least, kind) {
        (Some(least), _) => least,
        (None, Kind::Temporal | Kind::Ordered) => highest,
        (None, _) => return Err("condition: needs gte, gt or eq, as too few are never known".to_owned()),
    };
    if !(1..=highest).contains(&least) {
        return Err(format!("condition: must be from 1 to {highest}, is {least}"));
    }
    Ok((least, most))
}

/// `30s`, `15m`, `1h`, `1d`, `1w`, `1M` (30 days).
pub fn seconds(timespan: &str) -> Result<u32, String> {
    let wrong = || format!("timespan {timespan:?} is not a number with s, m, h, d, w or M behind it");
    let unit = timespan.chars().last().ok_or_else(wrong)?;
    let factor: u32 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        'M' => 30 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = timespan[..timespan.len() - unit.len_utf8()].trim().parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|s| *s > 0).ok_or_else(wrong)
}
