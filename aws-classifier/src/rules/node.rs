//! A detection as a tree of field tests.

use std::borrow::Cow;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::text::{self, Place};

/// A detection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    Keyword(String),
}

/// A test of one field against values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// The field.
    pub field: String,
    /// What its value is compared with; one match is enough.
    pub values: Vec<Value>,
    /// Of a field with several values every one must match, and there must be one.
    pub every: bool,
}

/// What one value is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A text with Sigma's wildcards.
    Text {
        /// As written.
        text: String,
        /// Where it must stand.
        place: Place,
        /// Case matters.
        cased: bool,
    },
    /// There is no value.
    Null,
    /// `|exists`.
    Exists(bool),
    /// `|re`.
    Regex(Pattern),
    /// `|cidr`.
    Network(IpNet),
    /// `|lt` and its kin.
    Number(Order, f64),
    /// `|fieldref`: another field of the same record.
    Field(String, Place),
    /// `|account`: another field of the same record holds the account of this ARN, or this account.
    Account(String),
}

/// A regular expression as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// The expression.
    pub text: String,
    /// `|i`: case does not matter.
    pub any_case: bool,
    /// `|m`: `^` and `$` stand at lines.
    pub lines: bool,
    /// `|s`: `.` takes line ends.
    pub dot_all: bool,
}

/// How a number compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Node {
    /// Whether a field that starts so is tested anywhere.
    pub fn mentions(&self, name: &str) -> bool {
        match self {
            Self::All(nodes) | Self::Some(_, nodes) => nodes.iter().any(|node| node.mentions(name)),
            Self::Not(node) => node.mentions(name),
            Self::Test(test) => test.field.starts_with(name),
            Self::Keyword(_) => false,
        }
    }

    /// Whether there is a regular expression in it.
    pub fn has_expressions(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Some(_, nodes) => nodes.iter().any(Self::has_expressions),
            Self::Not(node) => node.has_expressions(),
            Self::Test(test) => test.values.iter().any(|value| matches!(value, Value::Regex(_))),
            Self::Keyword(_) => false,
        }
    }

    /// All of all is all.
    pub fn flat(self) -> Self {
        match self {
            Self::All(nodes) => Self::All(
                nodes
                    .into_iter()
                    .flat_map(|node| match node.flat() {
                        Self::All(inner) => inner,
                        other => vec![other],
                    })
                    .collect(),
            ),
            Self::Some(least, nodes) => Self::Some(least, nodes.into_iter().map(Self::flat).collect()),
            Self::Not(node) => Self::Not(Box::new(node.flat())),
            leaf => leaf,
        }
    }
}

impl Value {
    /// The one text it stands for but for case, when there is one.
    pub fn literal(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text { text, place: Place::Whole, .. } => text::literal(text),
            _ => None,
        }
    }

    /// Whether case matters.
    pub const fn is_cased(&self) -> bool {
        matches!(self, Self::Text { cased: true, .. })
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
