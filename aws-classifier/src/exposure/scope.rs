//! The actions or resources that a statement is about, and the globs they are written in.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;

use super::conditions::is_plain;
use super::{Unreadable, texts};

/// What a statement lists, or what it leaves out.
pub(super) struct Scope {
    patterns: Vec<String>,
    /// The patterns as they are compared: names of actions are the same in any case, names of objects are not.
    compared: Option<Vec<String>>,
    inverted: bool,
}

impl Scope {
    /// `absent` is what a statement with neither lists.
    pub(super) fn read(
        statement: &Value,
        [key, inverse]: [&str; 2],
        absent: &Value,
        field: &'static str,
    ) -> Result<Self, Unreadable> {
        let (value, inverted) = match (&statement[key], &statement[inverse]) {
            (Value::Null, Value::Null) => (absent, false),
            (Value::Null, value) => (value, true),
            (value, _) => (value, false),
        };
        let patterns = texts(value).ok_or(Unreadable { field, expected: "a text or a list of texts" })?;
        let compared = (key == "Action").then(|| patterns.iter().map(|p| p.to_ascii_lowercase()).collect());
        Ok(Self { patterns, compared, inverted })
    }

    /// What an `Allow` may reach; everything when it lists what it leaves out.
    pub(super) fn reach(&self) -> BTreeSet<&str> {
        if self.inverted { BTreeSet::from(["*"]) } else { self.patterns.iter().map(String::as_str).collect() }
    }

    /// Whether all of the pattern `part` lies within. Never says so wrongly.
    pub(super) fn covers(&self, part: &str) -> bool {
        let (patterns, part) = self.comparable(part);
        if self.inverted {
            patterns.iter().all(|p| disjoint(p, &part))
        } else {
            patterns.iter().any(|p| glob_covers(p, &part))
        }
    }

    /// As [`covers`](Self::covers), for what an `Allow` gives: where it lists what it leaves out, all but some of `part` is
    /// enough.
    pub(super) fn gives(&self, part: &str) -> bool {
        let (patterns, part) = self.comparable(part);
        patterns.iter().any(|p| glob_covers(p, &part)) != self.inverted
    }

    /// Whether some of the pattern `part` may lie within, as [`gives`](Self::gives) sees it.
    pub(super) fn touches(&self, part: &str) -> bool {
        let (patterns, part) = self.comparable(part);
        if self.inverted { self.gives(&part) } else { patterns.iter().any(|p| !disjoint(p, &part)) }
    }

    fn comparable<'p>(&self, part: &'p str) -> (&[String], Cow<'p, str>) {
        match &self.compared {
            Some(compared) => (compared, Cow::Owned(part.to_ascii_lowercase())),
            None => (&self.patterns, Cow::Borrowed(part)),
        }
    }

    /// How many bytes the patterns are that a part is compared with.
    pub(super) fn bytes(&self) -> u64 {
        self.patterns.iter().map(|p| p.len() as u64 + 1).sum()
    }
}

/// Whether no text matches both. Never says so wrongly: of two globs it only sees what stands before their first
/// wildcards and variables.
fn disjoint(a: &str, b: &str) -> bool {
    // A question mark is one character, which may be several bytes.
    let tells =
        |glob: &str, name: &str| is_plain(name) && !glob.contains('$') && (name.is_ascii() || !glob.contains('?'));
    if tells(b, a) {
        return !glob_covers(b, a);
    }
    if tells(a, b) {
        return !glob_covers(a, b);
    }
    let fixed = |glob: &str| glob.find(['*', '?', '$']).unwrap_or(glob.len());
    let (a_len, b_len) = (fixed(a), fixed(b));
    let len = a_len.min(b_len);
    a.as_bytes()[..len] != b.as_bytes()[..len]
}

/// Whether the glob `outer` matches everything that the glob `inner` matches: its stars take any part of `inner`, its
/// question marks one ordinary character or a question mark.
fn glob_covers(outer: &str, inner: &str) -> bool {
    let (outer, inner) = (outer.as_bytes(), inner.as_bytes());
    let (mut o, mut i) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while i < inner.len() {
        let meets = match outer.get(o) {
            Some(b'*') => {
                retry = Some((o, i));
                o += 1;
                continue;
            }
            Some(b'?') => inner[i] != b'*',
            Some(byte) => *byte == inner[i],
            None => false,
        };
        if meets {
            (o, i) = (o + 1, i + 1);
        } else if let Some((star, at)) = retry {
            retry = Some((star, at + 1));
            (o, i) = (star + 1, at + 1);
        } else {
            return false;
        }
    }
    outer[o..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs_cover_globs() {
        for (outer, inner) in [("*", "s3:*"), ("s3:get*", "s3:getobject*"), ("a?c", "a?c"), ("a*c", "a*b*c"), ("", "")]
        {
            assert!(glob_covers(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [("s3:getobject", "s3:get*"), ("a?", "a*"), ("a*b", "a*"), ("", "a"), ("b*", "*")] {
            assert!(!glob_covers(outer, inner), "{outer} {inner}");
        }
    }

    /// The plain recursive definition.
    fn matches(p: &[u8], t: &[u8]) -> bool {
        match (p.split_first(), t.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => matches(rest, t) || t.split_first().is_some_and(|(_, t)| matches(p, t)),
            (Some((b'?', rest)), Some((_, t))) => matches(rest, t),
            (Some((a, rest)), Some((b, t))) => a == b && matches(rest, t),
            _ => false,
        }
    }

    #[test]
    fn names_are_told_from_globs_by_all_of_them() {
        for (a, b) in [("iam:putuserpolicy", "*:delete*"), ("iam:putuserpolicy", "iam:get*"), ("a", "b"), ("a", "?b")] {
            assert!(disjoint(a, b) && disjoint(b, a), "{a} {b}");
        }
        for (a, b) in
            [("iam:putuserpolicy", "*:put*"), ("a*", "*b"), ("\u{e9}", "?"), ("user/bob", "user/${aws:username}")]
        {
            assert!(!disjoint(a, b) && !disjoint(b, a), "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn strangers_globs_match_as_they_should(outer in "[ab*?]{0,6}", inner in "[ab]{0,6}") {
            prop_assert_eq!(glob_covers(&outer, &inner), matches(outer.as_bytes(), inner.as_bytes()));
        }

        #[test]
        fn what_is_disjoint_has_no_text_in_common(a in "[ab*?]{0,4}", b in "[ab*?]{0,4}", text in "[ab]{0,4}") {
            let in_both = [&a, &b].iter().all(|glob| matches(glob.as_bytes(), text.as_bytes()));
            prop_assert!(!(disjoint(&a, &b) && in_both));
        }
    }
}
