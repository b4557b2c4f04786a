//! A node of YAML: what both readers make.

use std::borrow::Cow;

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub enum Yaml<'t> {
    /// A text; `plain` when it stands without quotes.
    Scalar {
        /// The text behind quotes and escapes.
        text: Cow<'t, str>,
        /// Without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Self>),
    /// A map, in the order written. Keys are texts and are there once.
    Map(Vec<(Cow<'t, str>, Self)>),
}

impl Yaml<'_> {
    /// Nothing.
    pub const fn null() -> Self {
        Self::Scalar { text: Cow::Borrowed(""), plain: true }
    }

    /// The member of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => members.iter().find(|(k, _)| k == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Nothing, as in `errorCode:` or `errorCode: null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Scalar { text, plain: true } if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The items of a list; anything else is a list of itself, null one of nothing.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            other if other.is_null() => &[],
            other => std::slice::from_ref(other),
        }
    }
}
