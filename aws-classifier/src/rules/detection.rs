//! The `detection` of a rule: selections of field tests, joined by a condition.
//!
//! Semantics of Sigma 2 where it leaves room: an absent field is null and fails every test but `null`, `exists: false`
//! and `neq`; a field with several values (a list on its path) passes when one of them does; a truth value or number
//! equals its text; a text test on an object looks at its JSON and at each string inside.

use std::net::IpAddr;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use shared::event::Event;

use super::field::{Field, Value, any_string};
use super::text::{Place, TextPattern};
use super::yaml::Yaml;

/// Memory one regular expression may take when compiled.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// So many texts to look for anywhere are worth one search for all.
const WORDS_AT_ONCE_MIN: usize = 3;

/// A compiled detection.
#[derive(Clone, Debug)]
pub enum Node {
    /// All hold.
    All(Vec<Self>),
    /// At least so many hold.
    Some(usize, Vec<Self>),
    /// Does not hold.
    Not(Box<Self>),
    /// A test of a field.
    Test(Test),
    /// A text that stands anywhere in the record.
    Keyword(TextPattern),
}

/// A test of one field against values.
#[derive(Clone, Debug)]
pub struct Test {
    /// The field.
    pub field: Field,
    /// What its value is compared with; one match is enough.
    pub matchers: Vec<Matcher>,
}

/// What one value is compared with.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// A text pattern.
    Text(TextPattern),
    /// Several texts that may stand anywhere, looked for at once.
    Words(Words),
    /// There is no value.
    Null,
    /// `|exists`.
    Exists(bool),
    /// `|re`.
    Regex(Expression),
    /// `|cidr`.
    Network(IpNet),
    /// `|lt` and its kin.
    Number(Order, f64),
    /// `|fieldref`: another field of the same record.
    Field(Field, Place),
}

/// A regular expression, compiled when it is first needed: that takes longer than everything else about a rule.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    /// Ignore case, `^` at lines, `.` takes line ends.
    flags: (bool, bool, bool),
    compiled: OnceLock<Result<Regex, String>>,
}

impl Expression {
    fn compiled(&self) -> &Result<Regex, String> {
        self.compiled.get_or_init(|| {
            RegexBuilder::new(&self.text)
                .case_insensitive(self.flags.0)
                .multi_line(self.flags.1)
                .dot_matches_new_line(self.flags.2)
                .size_limit(REGEX_BYTES_MAX)
                .build()
                .map_err(|e| format!("{:?} is no regular expression that can be used: {}", self.text, last_line(&e)))
        })
    }

    fn is_match(&self, text: &str) -> bool {
        self.compiled().as_ref().is_ok_and(|regex| regex.is_match(text))
    }
}

/// ASCII texts to look for whatever their case. The search is built when it is first needed: many rules have the same
/// exclusions, and few of them are ever asked.
#[derive(Clone, Debug)]
pub struct Words {
    words: Vec<String>,
    search: OnceLock<Option<AhoCorasick>>,
}

impl Words {
    /// Whether one of them stands in the text.
    fn are_in(&self, text: &str) -> bool {
        let build =
            || AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(&self.words);
        // It is refused only for more patterns than 32 bits count; a rule file is smaller.
        let Some(search) = self.search.get_or_init(|| build().ok()) else { return false };
        // Letters outside ASCII may have lower-case forms inside it.
        if text.is_ascii() { search.is_match(text) } else { search.is_match(&text.to_lowercase()) }
    }
}

/// How a number compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `|lt`
    Less,
    /// `|lte`
    AtMost,
    /// `|gt`
    Greater,
    /// `|gte`
    AtLeast,
}

impl Order {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Greater => left > right,
            Self::AtLeast => left >= right,
        }
    }
}

impl Node {
    /// Compiles the `detection` of a rule.
    ///
    /// # Errors
    /// What in it cannot be understood.
    pub fn compile(detection: &Yaml) -> Result<Self, String> {
        let Yaml::Map(members) = detection else { return Err("detection must be a map".to_owned()) };
        let mut selections = Vec::with_capacity(members.len());
        for (name, body) in members.iter().filter(|(name, _)| !matches!(&**name, "condition" | "timeframe")) {
            selections.push((&**name, selection(body).map_err(|why| format!("{name}: {why}"))?));
        }
        if members.iter().any(|(name, _)| name == "timeframe") {
            return Err("timeframe belongs to aggregations, which are written as correlation rules".to_owned());
        }
        let conditions = detection.get("condition").map(Yaml::items).unwrap_or_default();
        let nodes = conditions
            .iter()
            .map(|text| super::condition::parse(text.text().unwrap_or_default(), &selections))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| format!("condition: {why}"))?;
        if nodes.is_empty() {
            return Err("condition is missing".to_owned());
        }
        Ok(any(nodes).cheap_first())
    }

    /// Whether it holds for the event.
    pub fn holds(&self, event: &Event<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(event)),
            Self::Some(1, nodes) => nodes.iter().any(|node| node.holds(event)),
            Self::Some(least, nodes) => nodes.iter().filter(|node| node.holds(event)).count() >= *least,
            Self::Not(node) => !node.holds(event),
            Self::Test(test) => test.holds(event),
            Self::Keyword(pattern) => in_json(event.record, pattern),
        }
    }

    /// Compiles the regular expressions, which otherwise happens when they are first needed.
    ///
    /// # Errors
    /// The first that cannot be compiled. Asked nevertheless, it matches nothing.
    pub fn compile_expressions(&self) -> Result<(), String> {
        match self {
            Self::All(nodes) | Self::Some(_, nodes) => nodes.iter().try_for_each(Self::compile_expressions),
            Self::Not(node) => node.compile_expressions(),
            Self::Keyword(_) => Ok(()),
            Self::Test(test) => test.matchers.iter().try_for_each(|matcher| match matcher {
                Matcher::Regex(expression) => expression.compiled().as_ref().map(drop).map_err(Clone::clone),
                _ => Ok(()),
            }),
        }
    }

    /// Whether a field that starts so is tested anywhere.
    pub fn mentions(&self, name: &str) -> bool {
        match self {
            Self::All(nodes) | Self::Some(_, nodes) => nodes.iter().any(|node| node.mentions(name)),
            Self::Not(node) => node.mentions(name),
            Self::Test(test) => test.field.name.starts_with(name),
            Self::Keyword(_) => false,
        }
    }

    /// Roughly what it costs to find out, in looks at a header field. An `All` ends at its first test that fails, and
    /// the first is its cheapest.
    fn cost(&self) -> u32 {
        match self {
            Self::All(nodes) => nodes.iter().map(Self::cost).min().unwrap_or(0) * 2,
            Self::Some(_, nodes) => nodes.iter().map(Self::cost).sum(),
            Self::Not(node) => node.cost(),
            Self::Test(test) => test.field.cost() + test.matchers.iter().map(Matcher::cost).sum::<u32>(),
            Self::Keyword(_) => 100,
        }
    }

    /// Puts what is cheap to test before what is not, and exclusions last: they seldom decide.
    fn cheap_first(self) -> Self {
        let sorted = |nodes: Vec<Self>| {
            let mut nodes: Vec<Self> = nodes.into_iter().map(Self::cheap_first).collect();
            nodes.sort_by_key(|node| (matches!(node, Self::Not(_)), node.cost()));
            nodes
        };
        match self {
            Self::All(nodes) => {
                let flat = nodes.into_iter().flat_map(|node| match node {
                    Self::All(inner) => inner,
                    other => vec![other],
                });
                Self::All(sorted(flat.collect()))
            }
            Self::Some(least, nodes) => Self::Some(least, sorted(nodes)),
            Self::Not(node) => Self::Not(Box::new(node.cheap_first())),
            leaf => leaf,
        }
    }
}

/// One of them holds.
pub fn any(mut nodes: Vec<Node>) -> Node {
    if nodes.len() == 1 { nodes.remove(0) } else { Node::Some(1, nodes) }
}

/// All of them hold.
pub fn all(mut nodes: Vec<Node>) -> Node {
    if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) }
}

/// A map is all of its fields; a list is any of its maps and keywords.
fn selection(body: &Yaml) -> Result<Node, String> {
    match body {
        Yaml::Map(fields) if fields.is_empty() => Err("is empty".to_owned()),
        Yaml::Map(fields) => Ok(all(fields.iter().map(|(key, value)| item(key, value)).collect::<Result<_, _>>()?)),
        Yaml::List(items) if items.is_empty() => Err("is empty".to_owned()),
        Yaml::List(items) => Ok(any(items.iter().map(selection).collect::<Result<_, _>>()?)),
        keyword => Ok(Node::Keyword(keyword_pattern(keyword)?)),
    }
}

fn keyword_pattern(value: &Yaml) -> Result<TextPattern, String> {
    let text = value.text().ok_or("a keyword must be a text")?;
    Ok(TextPattern::new(text, Place::Anywhere, false))
}

/// What the modifiers behind a field name ask for.
struct Modifiers {
    place: Place,
    kind: Kind,
    all: bool,
    negated: bool,
    cased: bool,
    /// Flags of a regular expression: ignore case, `^` at lines, `.` takes line ends.
    flags: (bool, bool, bool),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Regex,
    Network,
    Exists,
    Field,
    Number(Order),
}

impl Modifiers {
    fn of<'k>(names: impl Iterator<Item = &'k str>) -> Result<Self, String> {
        let mut this = Self {
            place: Place::Whole,
            kind: Kind::Text,
            all: false,
            negated: false,
            cased: false,
            flags: (false, false, false),
        };
        for name in names {
            match name {
                "contains" => this.place = Place::Anywhere,
                "startswith" => this.place = Place::Start,
                "endswith" => this.place = Place::End,
                "all" => this.all = true,
                "neq" => this.negated = true,
                "cased" => this.cased = true,
                "re" => this.kind = Kind::Regex,
                "i" if this.kind == Kind::Regex => this.flags.0 = true,
                "m" if this.kind == Kind::Regex => this.flags.1 = true,
                "s" if this.kind == Kind::Regex => this.flags.2 = true,
                "cidr" => this.kind = Kind::Network,
                "exists" => this.kind = Kind::Exists,
                "fieldref" => this.kind = Kind::Field,
                "lt" => this.kind = Kind::Number(Order::Less),
                "lte" => this.kind = Kind::Number(Order::AtMost),
                "gt" => this.kind = Kind::Number(Order::Greater),
                "gte" => this.kind = Kind::Number(Order::AtLeast),
                other => return Err(format!("the modifier {other:?} is not supported")),
            }
        }
        Ok(this)
    }

    fn matcher(&self, value: &Yaml) -> Result<Matcher, String> {
        if value.is_null() {
            return Ok(Matcher::Null);
        }
        let text = value.text().ok_or("a value must be a text, a number, a truth value or null")?;
        match self.kind {
            Kind::Text => Ok(Matcher::Text(TextPattern::new(text, self.place, self.cased))),
            Kind::Regex => {
                Ok(Matcher::Regex(Expression { text: text.to_owned(), flags: self.flags, compiled: OnceLock::new() }))
            }
            Kind::Network => text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map(Matcher::Network)
                .map_err(|_| format!("{text:?} is not a network such as 192.0.2.0/24")),
            Kind::Exists => match text {
                "true" | "yes" => Ok(Matcher::Exists(true)),
                "false" | "no" => Ok(Matcher::Exists(false)),
                _ => Err(format!("exists takes true or false, not {text:?}")),
            },
            Kind::Field => Ok(Matcher::Field(Field::new(text), self.place)),
            Kind::Number(order) => {
                let number = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
                Ok(Matcher::Number(order, number))
            }
        }
    }
}

/// The regex crate draws a picture; its last line says what is wrong.
fn last_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// One `field|modifier: values`.
fn item(key: &str, value: &Yaml) -> Result<Node, String> {
    compile_item(key, value).map_err(|why| format!("{key}: {why}"))
}

fn compile_item(key: &str, value: &Yaml) -> Result<Node, String> {
    let mut parts = key.split('|');
    let name = parts.next().unwrap_or_default();
    let modifiers = Modifiers::of(parts)?;
    let values = match value {
        Yaml::List(values) if values.is_empty() => return Err("has no values".to_owned()),
        Yaml::List(values) => &values[..],
        single => std::slice::from_ref(single),
    };
    if name.is_empty() {
        let keywords: Vec<Node> =
            values.iter().map(|v| keyword_pattern(v).map(Node::Keyword)).collect::<Result<_, _>>()?;
        return Ok(if modifiers.all { all(keywords) } else { any(keywords) });
    }
    let field = Field::new(name);
    let matchers: Vec<Matcher> = values.iter().map(|v| modifiers.matcher(v)).collect::<Result<_, _>>()?;
    let matchers = if modifiers.all { matchers } else { at_once(matchers) };
    let test = |matchers| Node::Test(Test { field: field.clone(), matchers });
    let node = if modifiers.all { all(matchers.into_iter().map(|m| test(vec![m])).collect()) } else { test(matchers) };
    Ok(if modifiers.negated { Node::Not(Box::new(node)) } else { node })
}

/// Many texts that may stand anywhere become one search for all of them.
fn at_once(matchers: Vec<Matcher>) -> Vec<Matcher> {
    let words: Option<Vec<String>> = matchers
        .iter()
        .map(|matcher| match matcher {
            Matcher::Text(pattern) => pattern.word().map(str::to_owned),
            _ => None,
        })
        .collect();
    match words {
        Some(words) if words.len() >= WORDS_AT_ONCE_MIN => {
            vec![Matcher::Words(Words { words, search: OnceLock::new() })]
        }
        _ => matchers,
    }
}

impl Test {
    fn holds(&self, event: &Event<'_>) -> bool {
        let mut present = false;
        let passed = self.field.any(event, &mut |value| {
            present = true;
            self.matchers.iter().any(|matcher| matcher.matches(value, event))
        });
        passed || (!present && self.matchers.iter().any(|m| matches!(m, Matcher::Null | Matcher::Exists(false))))
    }
}

impl Matcher {
    const fn cost(&self) -> u32 {
        match self {
            Self::Null | Self::Exists(_) => 0,
            Self::Text(_) => 1,
            Self::Words(_) | Self::Number(..) => 3,
            Self::Network(_) | Self::Field(..) => 5,
            Self::Regex(_) => 8,
        }
    }

    fn matches(&self, value: &Value<'_>, event: &Event<'_>) -> bool {
        match (self, value) {
            (Self::Null | Self::Exists(false), _) => false,
            (Self::Exists(true), _) => true,
            (Self::Text(pattern), Value::Tree(json)) => in_json(json, pattern),
            (Self::Text(pattern), value) => pattern.matches(value.as_str()),
            (Self::Words(search), Value::Tree(json)) => {
                search.are_in(json) || any_string(json, &mut |text| search.are_in(text))
            }
            (Self::Words(search), value) => search.are_in(value.as_str()),
            (Self::Regex(regex), Value::Tree(json)) => {
                regex.is_match(json) || any_string(json, &mut |text| regex.is_match(text))
            }
            (Self::Regex(regex), value) => regex.is_match(value.as_str()),
            (Self::Network(network), value) => value.as_str().parse::<IpAddr>().is_ok_and(|ip| network.contains(&ip)),
            (Self::Number(order, right), value) => {
                value.as_str().parse::<f64>().is_ok_and(|left| order.holds(left, *right))
            }
            (Self::Field(other, place), value) => {
                let left = value.as_str().to_lowercase();
                other.any(event, &mut |right| {
                    let right = right.as_str().to_lowercase();
                    match place {
                        Place::Whole => left == right,
                        Place::Start => left.starts_with(&right),
                        Place::End => left.ends_with(&right),
                        Place::Anywhere => left.contains(&right),
                    }
                })
            }
        }
    }
}

/// Whether the JSON text, or a string inside it without its escapes, matches.
fn in_json(json: &str, pattern: &TextPattern) -> bool {
    pattern.matches(json) || any_string(json, &mut |text| pattern.matches(text))
}
