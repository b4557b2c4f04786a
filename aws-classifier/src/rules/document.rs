//! A Sigma document as it is read: its head, and its detection or correlation. Nothing in it is ready to be asked about
//! events yet. The build reads our own rules with this too and packs them, so that a start reads no YAML.
//!
//! Beside Sigma's own, four keys of ours are read:
//!
//! * `responses`: ids of actions that answer it.
//! * `failed_calls`: `ignored`, `attempts` or `wanted`. Without it a failed call is an attempt, unless the rule itself asks
//!   for `errorCode` or `errorMessage`: then the failure is its subject.
//! * `aws_services`: whether calls that AWS services make are `ignored`, as they are without it in our own rules, or
//!   `reported`, as Sigma has it.
//! * `repeat`: `timespan` and `group-by`, as in correlations. A finding is only counted while there was one of the same
//!   group within the time. Without `group-by` a caller is a group, all sessions of a role being one. Our own rules of
//!   low and informational level are told once a day without it: they note habits, and a habit is no news twice. In a
//!   correlation the group is the correlation's own unless it says another, and our own correlations are told once a
//!   day without it: a window fills again as long as something goes on, and that it still goes on is no news.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::detection;
use super::index;
use super::node::Node;
use super::yaml::Yaml;
use crate::label::Label;
use crate::selector::Selector;

/// How long a finding of low level, or of a correlation, stays told: our choice, see the module.
const TOLD_S: u32 = 86_400;

/// Titles keep at most this many characters.
const TITLE_CHARS_MAX: usize = 100;

/// Where a rule comes from; decides its id, and what it need not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This program: the id is the file's stem.
    Own,
    /// Someone's folder: the id is `sigma/` and the rule's UUID, else its name, else the file's stem.
    Folder,
}

/// What a document says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
pub struct Head {
    /// Its `id` and `name`: what a correlation may call it by.
    pub names: Vec<Label>,
    /// In one line, without a full stop.
    pub title: Label,
    /// How bad it is.
    pub level: Level,
    /// ATT&CK techniques.
    pub techniques: Vec<Label>,
    /// Which events its detection can hold for; empty for correlations.
    pub selectors: Vec<Selector>,
    /// What it says of calls that failed, or what follows from its detection.
    pub failed_calls: Option<Calls>,
    /// Ids of actions that answer it.
    pub responses: Vec<Label>,
    /// Pages to read.
    pub references: Vec<Label>,
}

/// Sigma's levels, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// `informational`
    Informational,
    /// `low`
    Low,
    /// `medium`
    Medium,
    /// `high`
    High,
    /// `critical`
    Critical,
}

/// What calls that failed are to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Calls {
    /// Nothing.
    Ignored,
    /// Attempts.
    Attempts,
    /// What it is about.
    Wanted,
}

/// A rule about single events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// What it looks for.
    pub node: Node,
    /// Sigma `fields`: worth showing with a finding.
    pub fields: Vec<String>,
    /// Whether calls that AWS services make count.
    pub services_count: bool,
    /// When a finding is one of before.
    pub repeat: Option<Repeat>,
}

/// When a finding is one of before: there was one of the same group within the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// The time.
    pub timespan_s: u32,
    /// The fields that make the group; empty for the caller.
    pub group_by: Vec<String>,
}

/// A rule about several events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// What it counts.
    pub kind: Kind,
    /// The rules whose matches it counts.
    pub steps: Vec<Step>,
    /// Whether these alert on their own too.
    pub generate: bool,
    /// Within so many seconds.
    pub window_s: u32,
    /// How many make a finding.
    pub least: Option<u64>,
    /// More than so many make none.
    pub most: Option<u64>,
    /// When a finding is one of before; without `group_by` its group is the correlation's.
    pub repeat: Option<Repeat>,
}

/// What a correlation counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Events.
    Events,
    /// Distinct values of fields.
    Values(Vec<String>),
    /// Rules that match.
    Temporal,
    /// Rules that match one after another.
    Ordered,
}

/// One rule of a correlation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// A name of the rule.
    pub rule: String,
    /// The fields that make the group, under the names the rule gives them.
    pub group_by: Vec<String>,
}

/// What a document holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// A rule about single events.
    Rule(Head, Detection),
    /// A rule about several events.
    Correlation(Head, Correlation),
    /// Something for another log source.
    Elsewhere,
}

/// A document of our own rules as the build packs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
pub struct Packed {
    /// Its file.
    pub file: Label,
    /// Its id.
    pub id: Label,
    /// Its head.
    pub head: Head,
    /// What it holds.
    pub body: PackedBody,
}

/// A detection is unpacked when it is first asked about an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PackedBody {
    /// A [`Detection`]: where it is among all of them.
    Detection(Range<usize>),
    /// A correlation, which is short.
    Correlation(Correlation),
}

/// The id of a document; `at` is its place in a file of several.
pub fn id_of(document: &Yaml<'_>, file: &str, at: Option<usize>, origin: Origin) -> String {
    let file_name = file.rsplit('/').next().unwrap_or(file);
    let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
    let said = |key: &str| document.get(key).and_then(Yaml::text);
    let numbered = || at.map_or_else(|| stem.to_owned(), |at| format!("{stem}_{}", at + 1));
    match origin {
        Origin::Own if at.is_none() || document.get("correlation").is_some() => stem.to_owned(),
        Origin::Own => said("name").map_or_else(numbered, str::to_owned),
        Origin::Folder => {
            let name = said("id").or_else(|| said("name")).map_or_else(numbered, str::to_owned);
            let slug: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).collect();
            format!("sigma/{}", slug.to_ascii_lowercase())
        }
    }
}

/// Reads a document.
///
/// # Errors
/// What in it cannot be used.
pub fn read(document: &Yaml<'_>, origin: Origin) -> Result<Read, String> {
    if !matches!(document, Yaml::Map(_)) {
        return Err("is not a Sigma rule: it must be a map with title, logsource and detection".to_owned());
    }
    if let Some(correlation) = document.get("correlation") {
        let generate = correlation.get("generate").or_else(|| document.get("generate")).and_then(Yaml::text);
        let correlation = correlation_of(correlation, generate == Some("true"));
        let mut correlation = correlation.map_err(|why| format!("correlation: {why}"))?;
        correlation.repeat = repeat(document, origin == Origin::Own)?;
        return Ok(Read::Correlation(head(document)?, correlation));
    }
    if !is_for_cloudtrail(document) {
        return Ok(Read::Elsewhere);
    }
    let node = detection::read(document.get("detection").ok_or("detection is missing")?);
    let node = node.map_err(|why| format!("detection: {why}"))?;
    let about_failure = node.mentions("errorCode") || node.mentions("errorMessage");
    let mut head = head(document)?;
    head.failed_calls.get_or_insert(if about_failure { Calls::Wanted } else { Calls::Attempts });
    head.selectors = index::selectors(&node);
    let fields = owned(texts(document, "fields")?);
    let services_count = match document.get("aws_services").and_then(Yaml::text) {
        None => origin == Origin::Folder,
        Some("ignored") => false,
        Some("reported") => true,
        Some(other) => return Err(format!("aws_services is ignored or reported, not {other:?}")),
    };
    let repeat = repeat(document, origin == Origin::Own && head.level <= Level::Low)?;
    Ok(Read::Rule(head, Detection { node, fields, services_count, repeat }))
}

/// What a document says of repeats; `is_told_daily` is what follows when it says nothing.
fn repeat(document: &Yaml<'_>, is_told_daily: bool) -> Result<Option<Repeat>, String> {
    match document.get("repeat") {
        Some(repeat) => repeat_of(repeat).map(Some).map_err(|why| format!("repeat: {why}")),
        None => Ok(is_told_daily.then_some(Repeat { timespan_s: TOLD_S, group_by: Vec::new() })),
    }
}

fn repeat_of(repeat: &Yaml<'_>) -> Result<Repeat, String> {
    let timespan = repeat.get("timespan").and_then(Yaml::text).ok_or("timespan is missing")?;
    Ok(Repeat { timespan_s: seconds(timespan)?, group_by: owned(texts(repeat, "group-by")?) })
}

/// A rule that names no product or service is for all of them.
fn is_for_cloudtrail(document: &Yaml<'_>) -> bool {
    let source = document.get("logsource");
    let says = |key: &str| source.and_then(|s| s.get(key)).and_then(Yaml::text);
    says("product").is_none_or(|p| p.eq_ignore_ascii_case("aws"))
        && says("service").is_none_or(|s| s.eq_ignore_ascii_case("cloudtrail"))
        && says("category").is_none()
}

/// The head; the selectors are left empty.
fn head(document: &Yaml<'_>) -> Result<Head, String> {
    let said = |key: &str| document.get(key).and_then(Yaml::text);
    let title = said("title").ok_or("title is missing")?;
    let techniques = texts(document, "tags")?
        .into_iter()
        .filter_map(|tag| tag.strip_prefix("attack.").map(str::to_ascii_uppercase))
        .filter(|tag| tag.strip_prefix('T').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
        .map(Label::from)
        .collect();
    Ok(Head {
        names: labels(["id", "name"].into_iter().filter_map(said)),
        title: title.trim().trim_end_matches('.').chars().take(TITLE_CHARS_MAX).collect::<String>().into(),
        level: level(said("level"))?,
        techniques,
        selectors: Vec::new(),
        failed_calls: match said("failed_calls") {
            None => None,
            Some("ignored") => Some(Calls::Ignored),
            Some("attempts") => Some(Calls::Attempts),
            Some("wanted") => Some(Calls::Wanted),
            Some(other) => return Err(format!("failed_calls is ignored, attempts or wanted, not {other:?}")),
        },
        responses: labels(texts(document, "responses")?),
        references: labels(texts(document, "references")?),
    })
}

/// A rule that does not say its level is no reason to look today.
fn level(said: Option<&str>) -> Result<Level, String> {
    match said {
        None | Some("low") => Ok(Level::Low),
        Some("informational") => Ok(Level::Informational),
        Some("medium") => Ok(Level::Medium),
        Some("high") => Ok(Level::High),
        Some("critical") => Ok(Level::Critical),
        Some(other) => Err(format!("level is informational, low, medium, high or critical, not {other:?}")),
    }
}

fn correlation_of(correlation: &Yaml<'_>, generate: bool) -> Result<Correlation, String> {
    let rules = texts(correlation, "rules")?;
    if rules.is_empty() {
        return Err("rules is missing".to_owned());
    }
    let group_by = texts(correlation, "group-by")?;
    let aliases = correlation.get("aliases");
    let step = |rule: &&str| {
        let alias = |name: &str| aliases.and_then(|a| a.get(name)).and_then(|a| a.get(rule)).and_then(Yaml::text);
        let group_by = group_by.iter().map(|name| alias(name).unwrap_or(name).to_owned()).collect();
        Step { rule: (*rule).to_owned(), group_by }
    };
    let condition = correlation.get("condition");
    let kind = match correlation.get("type").and_then(Yaml::text) {
        Some("event_count") => Kind::Events,
        Some("value_count") => Kind::Values(value_fields(condition)?),
        Some("temporal") => Kind::Temporal,
        Some("temporal_ordered") => Kind::Ordered,
        Some(other) => return Err(format!("the type {other} is not supported")),
        None => return Err("type is missing".to_owned()),
    };
    let timespan = correlation.get("timespan").and_then(Yaml::text).ok_or("timespan is missing")?;
    let (least, most) = thresholds(condition)?;
    let steps = rules.iter().map(step).collect();
    Ok(Correlation { kind, steps, generate, window_s: seconds(timespan)?, least, most, repeat: None })
}

fn value_fields(condition: Option<&Yaml<'_>>) -> Result<Vec<String>, String> {
    let names = condition.map(|c| texts(c, "field")).transpose()?.unwrap_or_default();
    if names.is_empty() {
        return Err("condition: a value_count needs a field".to_owned());
    }
    Ok(owned(names))
}

/// At least and at most so many.
fn thresholds(condition: Option<&Yaml<'_>>) -> Result<(Option<u64>, Option<u64>), String> {
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
    Ok((least, most))
}

/// `30s`, `15m`, `1h`, `1d`, `1w`, `1M` (30 days).
fn seconds(timespan: &str) -> Result<u32, String> {
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

/// A list of texts; a single text is a list of one.
fn texts<'y>(document: &'y Yaml<'_>, key: &str) -> Result<Vec<&'y str>, String> {
    let items = document.get(key).map(Yaml::items).unwrap_or_default();
    items.iter().map(|item| item.text().ok_or_else(|| format!("{key} must be a list of texts"))).collect()
}

fn labels<'y>(texts: impl IntoIterator<Item = &'y str>) -> Vec<Label> {
    texts.into_iter().map(|text| text.to_owned().into()).collect()
}

fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}
