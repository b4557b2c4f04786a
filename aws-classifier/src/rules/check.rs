//! A detection made ready to be asked about events.
//!
//! Semantics of Sigma 2 where it leaves room: an absent field is null and fails every test but `null`, `exists: false`
//! and `neq`; a field with several values (a list on its path) passes when one of them does, or with `every`, which is
//! ours, when all do; `account`, ours too, compares the account of an ARN; a truth value or number equals its text; a
//! text test on an object looks at its JSON and at each string inside.

use std::net::IpAddr;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, packed};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use shared::event::Event;

use super::field::{Field, Found, any_string};
use super::node::{Node, Order, Pattern, Test, Value};
use super::text::{Place, Subject, TextPattern};

/// Memory one regular expression may take when compiled.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// So many texts to look for anywhere are worth one search for all.
const WORDS_AT_ONCE_MIN: usize = 3;

/// What is asked about an event.
#[derive(Debug)]
pub enum Check {
    /// All hold.
    All(Vec<Self>),
    /// At least so many hold.
    Some(usize, Vec<Self>),
    /// Does not hold.
    Not(Box<Self>),
    /// One of the matchers matches a value of the field.
    Field {
        /// The field.
        field: Field,
        /// What its values are compared with.
        matchers: Vec<Matcher>,
        /// Whether one of the matchers matches that there is no value.
        when_absent: bool,
        /// Whether every value must match, not only one.
        every: bool,
    },
    /// A text that stands anywhere in the record.
    Keyword(TextPattern),
}

/// What one value is compared with.
#[derive(Debug)]
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
    /// `|account`: another field of the same record holds the account.
    Account(Field),
}

/// A regular expression, compiled when it is first needed: that takes longer than everything else about a rule.
#[derive(Debug)]
pub struct Expression {
    pattern: Pattern,
    compiled: OnceLock<Result<Regex, String>>,
}

impl Expression {
    fn compiled(&self) -> &Result<Regex, String> {
        let Pattern { text, any_case, lines, dot_all } = &self.pattern;
        self.compiled.get_or_init(|| {
            RegexBuilder::new(text)
                .case_insensitive(*any_case)
                .multi_line(*lines)
                .dot_matches_new_line(*dot_all)
                .size_limit(REGEX_BYTES_MAX)
                .build()
                .map_err(|e| format!("{text:?} is no regular expression that can be used: {}", last_line(&e)))
        })
    }

    fn is_match(&self, text: &str) -> bool {
        self.compiled().as_ref().is_ok_and(|regex| regex.is_match(text))
    }
}

/// ASCII texts in lower case to look for whatever their case.
#[derive(Debug)]
pub struct Words {
    words: Vec<String>,
    search: OnceLock<Search>,
}

/// How words are looked for; built when they are first asked about.
#[derive(Debug)]
enum Search {
    /// Many bytes at once, in texts in lower case.
    Packed(packed::Searcher),
    /// A byte at a time.
    Automaton(AhoCorasick),
    /// There are more words than can be looked for, which no rule file has room for.
    Nothing,
}

/// Texts up to this length are put into lower case on the stack: longer than nearly all user agents.
const LOWER_BYTES_MAX: usize = 512;

impl Words {
    const fn new(words: Vec<String>) -> Self {
        Self { words, search: OnceLock::new() }
    }

    /// Whether one of them stands in the text.
    fn are_in(&self, text: &Subject<'_>) -> bool {
        let text = text.folded().as_bytes();
        match self.search.get_or_init(|| self.search()) {
            Search::Packed(search) => {
                let mut buffer = [0; LOWER_BYTES_MAX];
                match buffer.get_mut(..text.len()) {
                    Some(lower) => {
                        lower.copy_from_slice(text);
                        lower.make_ascii_lowercase();
                        search.find(&*lower).is_some()
                    }
                    None => search.find(text.to_ascii_lowercase()).is_some(),
                }
            }
            Search::Automaton(search) => search.is_match(text),
            Search::Nothing => false,
        }
    }

    fn search(&self) -> Search {
        if let Some(search) = packed::Config::new().builder().extend(&self.words).build() {
            return Search::Packed(search);
        }
        let automaton =
            AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(&self.words);
        automaton.map_or(Search::Nothing, Search::Automaton)
    }
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

impl Check {
    /// Makes it ready: what is cheap to test comes before what is not, and exclusions last, as they seldom decide.
    pub fn new(node: &Node) -> Self {
        let all = |nodes: &[Node]| {
            let mut checks: Vec<Self> = nodes.iter().map(Self::new).collect();
            checks.sort_by_cached_key(|check| (matches!(check, Self::Not(_)), check.cost()));
            checks
        };
        match node {
            Node::All(nodes) => Self::All(all(nodes)),
            Node::Some(least, nodes) => Self::Some(*least, all(nodes)),
            Node::Not(node) => Self::Not(Box::new(Self::new(node))),
            Node::Test(Test { field, values, every }) => Self::Field {
                field: Field::new(field),
                matchers: at_once(values.iter().map(Matcher::new).collect()),
                when_absent: values.iter().any(|value| matches!(value, Value::Null | Value::Exists(false))),
                every: *every,
            },
            Node::Keyword(text) => Self::Keyword(TextPattern::new(text, Place::Anywhere, false)),
        }
    }

    /// Whether it holds for the event.
    pub fn holds(&self, event: &Event<'_>) -> bool {
        match self {
            Self::All(checks) => checks.iter().all(|check| check.holds(event)),
            Self::Some(1, checks) => checks.iter().any(|check| check.holds(event)),
            Self::Some(least, checks) => checks.iter().filter(|check| check.holds(event)).count() >= *least,
            Self::Not(check) => !check.holds(event),
            Self::Field { field, matchers, when_absent, every } => {
                let mut present = false;
                // Looked for is a value that passes, or, when all have to, one that does not.
                let found = field.any(event, |value| {
                    present = true;
                    let subject = Subject::new(value.as_str());
                    matchers.iter().any(|matcher| matcher.matches(value, &subject, event)) != *every
                });
                if present { found != *every } else { *when_absent }
            }
            Self::Keyword(pattern) => in_json(&Subject::new(event.record), &|text| pattern.matches(text)),
        }
    }

    /// Compiles the regular expressions, which otherwise happens when they are first needed.
    ///
    /// # Errors
    /// The first that cannot be compiled. Asked nevertheless, it matches nothing.
    pub fn compile_expressions(&self) -> Result<(), String> {
        match self {
            Self::All(checks) | Self::Some(_, checks) => checks.iter().try_for_each(Self::compile_expressions),
            Self::Not(check) => check.compile_expressions(),
            Self::Keyword(_) => Ok(()),
            Self::Field { matchers, .. } => matchers.iter().try_for_each(|matcher| match matcher {
                Matcher::Regex(expression) => expression.compiled().as_ref().map(drop).map_err(Clone::clone),
                _ => Ok(()),
            }),
        }
    }

    /// Roughly what it costs to find out, in looks at a header field. An `All` ends at its first test that fails, and
    /// the first is its cheapest.
    fn cost(&self) -> u32 {
        match self {
            Self::All(checks) => checks.iter().map(Self::cost).min().unwrap_or(0) * 2,
            Self::Some(_, checks) => checks.iter().map(Self::cost).sum(),
            Self::Not(check) => check.cost(),
            Self::Field { field, .. } if field.is_seldom_there() => field.cost(),
            Self::Field { field, matchers, .. } => field.cost() + matchers.iter().map(Matcher::cost).sum::<u32>(),
            Self::Keyword(_) => 100,
        }
    }
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
            vec![Matcher::Words(Words::new(words))]
        }
        _ => matchers,
    }
}

/// The regex crate draws a picture; its last line says what is wrong.
fn last_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl Matcher {
    fn new(value: &Value) -> Self {
        match value {
            Value::Text { text, place, cased } => Self::Text(TextPattern::new(text, *place, *cased)),
            Value::Null => Self::Null,
            Value::Exists(wanted) => Self::Exists(*wanted),
            Value::Regex(pattern) => Self::Regex(Expression { pattern: pattern.clone(), compiled: OnceLock::new() }),
            Value::Network(network) => Self::Network(*network),
            Value::Number(order, right) => Self::Number(*order, *right),
            Value::Field(name, place) => Self::Field(Field::new(name), *place),
            Value::Account(name) => Self::Account(Field::new(name)),
        }
    }

    const fn cost(&self) -> u32 {
        match self {
            Self::Null | Self::Exists(_) => 0,
            Self::Text(_) => 1,
            Self::Words(_) | Self::Number(..) => 3,
            Self::Network(_) | Self::Field(..) | Self::Account(_) => 5,
            Self::Regex(_) => 8,
        }
    }

    /// `text` is that of the value.
    fn matches(&self, value: &Found<'_>, text: &Subject<'_>, event: &Event<'_>) -> bool {
        let is_tree = matches!(value, Found::Tree(_));
        match self {
            Self::Null | Self::Exists(false) => false,
            Self::Exists(true) => true,
            Self::Text(pattern) if is_tree => in_json(text, &|text| pattern.matches(text)),
            Self::Text(pattern) => pattern.matches(text),
            Self::Words(search) if is_tree => in_json(text, &|text| search.are_in(text)),
            Self::Words(search) => search.are_in(text),
            Self::Regex(regex) if is_tree => in_json(text, &|text| regex.is_match(text.as_str())),
            Self::Regex(regex) => regex.is_match(text.as_str()),
            Self::Network(network) => text.as_str().parse::<IpAddr>().is_ok_and(|ip| network.contains(&ip)),
            Self::Number(order, right) => text.as_str().parse::<f64>().is_ok_and(|left| order.holds(left, *right)),
            Self::Account(other) => {
                account_of(text.as_str()).is_some_and(|account| other.any(event, |right| right.as_str() == account))
            }
            Self::Field(other, place) => {
                let left = text.as_str().to_lowercase();
                other.any(event, |right| {
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

/// The account of an ARN (`arn:partition:service:region:account:resource`), or the text itself when it is no ARN. What else
/// stands in an ARN its owner chooses, also somebody else's account.
fn account_of(text: &str) -> Option<&str> {
    match text.strip_prefix("arn:") {
        Some(parts) => parts.split(':').nth(3),
        None => Some(text),
    }
}

/// Whether the JSON text, or a string inside it without its escapes, matches.
fn in_json(json: &Subject<'_>, matches: &dyn Fn(&Subject<'_>) -> bool) -> bool {
    matches(json) || any_string(json.as_str(), &mut |text| matches(&Subject::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_are_found_as_each_alone_would_be(
            words in prop::collection::vec("[a-c/]{1,4}", 3..80), text in "[aBcC/é ]{0,40}", many in 0_usize..600,
        ) {
            let text = format!("{}{text}", " ".repeat(many));
            let expected = words.iter().any(|word| text.to_lowercase().contains(&**word));
            prop_assert_eq!(Words::new(words).are_in(&Subject::new(&text)), expected);
        }
    }
}
