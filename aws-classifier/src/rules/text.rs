//! Sigma's string patterns: `*` and `?` are wildcards, a backslash before them or before itself takes their meaning
//! away, and case does not matter unless the rule says `cased`.

use std::borrow::Cow;

use memchr::{memchr2, memmem};
use serde::{Deserialize, Serialize};

/// Where the text must stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// It is the whole value.
    Whole,
    /// `|startswith`.
    Start,
    /// `|endswith`.
    End,
    /// `|contains`.
    Anywhere,
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPattern {
    shape: Shape,
    cased: bool,
}

/// Literals are in lower case unless the pattern is cased.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    Any,
    Whole(String),
    Start(String),
    End(String),
    Contains(Needle),
    Glob(Vec<Token>),
}

/// A text to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Needle {
    text: String,
    /// Where in it the byte stands that is looked for first.
    rarest: usize,
}

/// What user agents, ARNs and parameters are made of, most frequent first: counted over made-up days and recordings of
/// attacks. Other bytes are rarer.
const FREQUENT: &[u8] = b"aesr0:-tnoi/dlc.m1 \"u3254wp6gb78fkhvx9y";

/// A text that patterns are asked about.
#[derive(Debug)]
pub struct Subject<'t> {
    text: &'t str,
    /// In lower case when there are characters outside ASCII, whose lower case may lie inside; what compares does not mind
    /// the case of the others.
    folded: Cow<'t, str>,
}

impl<'t> Subject<'t> {
    /// The text, ready for any number of patterns.
    pub fn new(text: &'t str) -> Self {
        let folded = if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) };
        Self { text, folded }
    }

    /// The text as it is.
    pub const fn as_str(&self) -> &'t str {
        self.text
    }

    /// The text to compare whatever the case of ASCII letters.
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

impl TextPattern {
    /// A pattern as a rule writes it.
    pub fn new(text: &str, place: Place, cased: bool) -> Self {
        if !text.contains(['*', '?', '\\']) {
            let folded = if cased { text.to_owned() } else { text.to_lowercase() };
            let shape = match place {
                Place::Whole => Shape::Whole(folded),
                Place::Start => Shape::Start(folded),
                Place::End => Shape::End(folded),
                Place::Anywhere => Shape::Contains(Needle::new(folded)),
            };
            return Self { shape, cased };
        }
        let mut tokens = tokens(text);
        if matches!(place, Place::End | Place::Anywhere) {
            tokens.insert(0, Token::Many);
        }
        if matches!(place, Place::Start | Place::Anywhere) {
            tokens.push(Token::Many);
        }
        tokens.dedup_by(|a, b| *a == Token::Many && *b == Token::Many);
        if !cased {
            tokens = tokens.into_iter().flat_map(Token::lowered).collect();
        }
        Self { shape: Shape::of(tokens), cased }
    }

    /// The text it finds anywhere, in lower case, when that is all it does and the text is ASCII.
    pub fn word(&self) -> Option<&str> {
        match &self.shape {
            Shape::Contains(word) if !self.cased && word.text.is_ascii() && !word.text.is_empty() => Some(&word.text),
            _ => None,
        }
    }

    /// Whether the text matches.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let folded = if self.cased { subject.text } else { subject.folded() };
        let text = folded.as_bytes();
        let same =
            |a: &[u8], b: &str| if self.cased { a == b.as_bytes() } else { a.eq_ignore_ascii_case(b.as_bytes()) };
        match &self.shape {
            Shape::Any => true,
            Shape::Whole(wanted) => same(text, wanted),
            Shape::Start(wanted) => text.get(..wanted.len()).is_some_and(|start| same(start, wanted)),
            Shape::End(wanted) => {
                text.len().checked_sub(wanted.len()).is_some_and(|start| same(&text[start..], wanted))
            }
            Shape::Contains(wanted) if self.cased => memmem::find(text, wanted.text.as_bytes()).is_some(),
            Shape::Contains(wanted) => wanted.is_in(text),
            Shape::Glob(tokens) => glob(tokens, folded, self.cased),
        }
    }
}

impl Shape {
    fn of(tokens: Vec<Token>) -> Self {
        let shape = match &tokens[..] {
            [Token::Many] => Some(Self::Any),
            [Token::Many, inner @ .., Token::Many] => without_wildcards(inner).map(Needle::new).map(Self::Contains),
            [Token::Many, inner @ ..] => without_wildcards(inner).map(Self::End),
            [inner @ .., Token::Many] => without_wildcards(inner).map(Self::Start),
            all => without_wildcards(all).map(Self::Whole),
        };
        shape.unwrap_or(Self::Glob(tokens))
    }
}

impl Needle {
    fn new(text: String) -> Self {
        let rank = |byte: u8| FREQUENT.iter().position(|b| *b == byte.to_ascii_lowercase()).unwrap_or(FREQUENT.len());
        let rarest = text.bytes().enumerate().max_by_key(|(_, byte)| rank(*byte)).map_or(0, |(at, _)| at);
        Self { text, rarest }
    }

    /// Whether it stands in the text but for the case of ASCII letters. The needle is in lower case.
    fn is_in(&self, text: &[u8]) -> bool {
        let wanted = self.text.as_bytes();
        let Some(&rare) = wanted.get(self.rarest) else { return true };
        let Some(last_start) = text.len().checked_sub(wanted.len()) else { return false };
        let (mut from, last) = (self.rarest, last_start + self.rarest);
        while let Some(found) = memchr2(rare, rare.to_ascii_uppercase(), &text[from..=last]) {
            let start = from + found - self.rarest;
            if text[start..start + wanted.len()].eq_ignore_ascii_case(wanted) {
                return true;
            }
            from += found + 1;
        }
        false
    }
}

impl Token {
    /// A character may have several in lower case.
    fn lowered(self) -> Vec<Self> {
        match self {
            Self::Char(c) => c.to_lowercase().map(Self::Char).collect(),
            other => vec![other],
        }
    }
}

/// A pattern as a rule writes it.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(text.len() + 2);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => Token::Char(chars.next_if(|next| matches!(next, '*' | '?' | '\\')).unwrap_or('\\')),
            c => Token::Char(c),
        });
    }
    tokens
}

/// The text that a pattern stands for, when it has no wildcards.
pub fn literal(text: &str) -> Option<Cow<'_, str>> {
    if text.contains(['*', '?', '\\']) {
        without_wildcards(&tokens(text)).map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(text))
    }
}

/// The text of tokens without wildcards.
fn without_wildcards(tokens: &[Token]) -> Option<String> {
    tokens.iter().map(|token| if let Token::Char(c) = token { Some(*c) } else { None }).collect()
}

/// Greedy, with one place to go back to: the last `*`.
fn glob(tokens: &[Token], text: &str, cased: bool) -> bool {
    let (mut token, mut rest) = (0, text);
    let mut back: Option<(usize, &str)> = None;
    loop {
        let mut chars = rest.chars();
        let next = chars.next();
        match (tokens.get(token), next) {
            (Some(Token::Many), _) => {
                token += 1;
                back = Some((token, rest));
                continue;
            }
            (None, None) => return true,
            (Some(Token::One), Some(_)) => {
                (token, rest) = (token + 1, chars.as_str());
                continue;
            }
            (Some(Token::Char(wanted)), Some(c)) if c == *wanted || (!cased && c.eq_ignore_ascii_case(wanted)) => {
                (token, rest) = (token + 1, chars.as_str());
                continue;
            }
            _ => {}
        }
        let Some((behind, start)) = back else { return false };
        let mut chars = start.chars();
        if chars.next().is_none() {
            return false;
        }
        (token, rest) = (behind, chars.as_str());
        back = Some((behind, rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(pattern: &str, text: &str) -> bool {
        TextPattern::new(pattern, Place::Whole, false).matches(&Subject::new(text))
    }

    #[test]
    fn equality_ignores_case_and_cased_does_not() {
        assert!(whole("CreateUser", "createuser") && whole("ÄRGER", "ärger"));
        assert!(!TextPattern::new("CreateUser", Place::Whole, true).matches(&Subject::new("createuser")));
    }

    #[test]
    fn wildcards_and_their_escapes() {
        assert!(whole("Delete*", "DeleteTrail") && whole("*Trail", "DeleteTrail") && whole("*", ""));
        assert!(whole("a*b?d", "axxbcd") && !whole("a*b?d", "axxbd"));
        assert!(whole(r"a\*b", "a*b") && !whole(r"a\*b", "axb"));
        assert!(whole(r"C:\Users", r"c:\users") && whole(r"a\\*", r"a\x"));
    }

    #[test]
    fn places() {
        let at = |place, text| TextPattern::new("Brow", place, false).matches(&Subject::new(text));
        assert!(at(Place::Start, "browser") && !at(Place::Start, "S3 Browser"));
        assert!(at(Place::End, "S3 BROW") && !at(Place::End, "S3 Browser"));
        assert!(at(Place::Anywhere, "S3 Browser") && !at(Place::Anywhere, "bro"));
        assert!(TextPattern::new("*", Place::Anywhere, false).matches(&Subject::new("")));
    }

    proptest! {
        #[test]
        fn a_pattern_agrees_with_its_regular_expression(pattern in "[aB*?]{0,6}", text in "[abB]{0,8}") {
            let expression: String = pattern.chars().map(|c| match c {
                '*' => ".*".to_owned(),
                '?' => ".".to_owned(),
                c => c.to_string(),
            }).collect();
            let regex = regex::Regex::new(&format!("(?is)^(?:{expression})$")).unwrap();
            prop_assert_eq!(whole(&pattern, &text), regex.is_match(&text));
        }

        #[test]
        fn contains_agrees_with_lower_case(pattern in "[aBé_]{0,3}", text in "[AbBéÉ_\u{212a}]{0,8}") {
            let expected = text.to_lowercase().contains(&pattern.to_lowercase());
            prop_assert_eq!(TextPattern::new(&pattern, Place::Anywhere, false).matches(&Subject::new(&text)), expected);
        }
    }
}
