//! A forward scanner over JSON text that builds nothing.
//!
//! It walks the keys of one object, lends out strings and raw slices, and skips nested values without
//! recursion. It checks structure (quotes, brackets, commas, depth) and not every byte of every number:
//! a value nobody looks at is not validated further. What is looked at goes through `serde_json`.

use std::borrow::Cow;

use memchr::memchr;
use wide::u8x16;

use crate::json_repair::repaired;

/// Values nested deeper are refused, as `serde_json` does.
pub const MAX_DEPTH: u32 = 128;

/// Where and why the text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct ScanError {
    /// Byte offset from the start of the text given to the scanner.
    pub offset: usize,
    /// What was expected or wrong.
    pub what: &'static str,
}

/// A position in JSON text.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    pos: usize,
}

/// A value that was passed over: its raw text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawValue<'a> {
    /// The text, with the quotes of a string.
    pub text: &'a str,
    /// Whether it is a string with escapes in it.
    is_escaped: bool,
}

impl<'a> RawValue<'a> {
    /// The value that fills `text`, which the scanner handed out before.
    pub fn of(text: &'a str) -> Self {
        Self { text, is_escaped: memchr(b'\\', text.as_bytes()).is_some() }
    }

    /// `null`.
    pub fn is_null(self) -> bool {
        self.text == "null"
    }

    /// The text of a JSON string, unescaped, with U+FFFD for halves of surrogate pairs; borrowed when nothing is escaped.
    /// `None` when the value is not a string or its escapes are wrong.
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        if self.is_escaped {
            let read = serde_json::from_str::<String>(self.text);
            return read.or_else(|_| serde_json::from_str(&repaired(self.text))).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(self.text.strip_prefix('"')?.strip_suffix('"')?))
    }
}

/// Bytes compared at once. Every x86-64 and arm64 machine does sixteen in one instruction.
const LANES: usize = 16;
/// Bytes of a container looked at together: one bit each in a word.
const BLOCK: usize = 64;

/// Where the first quote or backslash is.
#[inline]
fn string_stop(bytes: &[u8]) -> Option<usize> {
    let (lanes, rest) = bytes.as_chunks::<LANES>();
    for (at, lane) in lanes.iter().enumerate() {
        let lane = u8x16::new(*lane);
        let stops = (lane.simd_eq(u8x16::splat(b'"')) | lane.simd_eq(u8x16::splat(b'\\'))).to_bitmask();
        if stops != 0 {
            return Some(at * LANES + stops.trailing_zeros() as usize);
        }
    }
    let stop = rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    Some(lanes.len() * LANES + stop)
}

/// Which bytes of a block are what, lowest bit first.
struct Marks {
    quotes: u64,
    backslashes: u64,
    brackets: u64,
}

impl Marks {
    #[inline]
    fn of(block: &[u8; BLOCK]) -> Self {
        let mut marks = Self { quotes: 0, backslashes: 0, brackets: 0 };
        for (at, lane) in block.as_chunks::<LANES>().0.iter().enumerate() {
            let lane = u8x16::new(*lane);
            // Bit 5 tells `{` from `[` and `}` from `]`.
            let folded = lane | u8x16::splat(0x20);
            let brackets = folded.simd_eq(u8x16::splat(b'{')) | folded.simd_eq(u8x16::splat(b'}'));
            let place = |mask: u8x16| u64::from(mask.to_bitmask()) << (at * LANES);
            marks.quotes |= place(lane.simd_eq(u8x16::splat(b'"')));
            marks.backslashes |= place(lane.simd_eq(u8x16::splat(b'\\')));
            marks.brackets |= place(brackets);
        }
        marks
    }
}

/// What a block hands on to the next.
#[derive(Default)]
struct Inside {
    /// All bits set when the block ends inside a string.
    string: u64,
    /// 1 when its last byte escapes the first of the next.
    escape: u64,
}

impl Inside {
    /// The brackets of the block that stand outside strings.
    #[inline]
    fn structure(&mut self, marks: &Marks) -> u64 {
        let mut escaped = self.escape;
        self.escape = 0;
        // A backslash that is not escaped escapes the next byte. Outside strings it does the same here as inside: there
        // it is no JSON, which is for those to find who look at the value.
        let mut escapes = marks.backslashes & !escaped;
        while escapes != 0 {
            let bit = escapes & escapes.wrapping_neg();
            escaped |= bit << 1;
            self.escape |= bit >> (BLOCK - 1);
            escapes &= !(bit | bit << 1);
        }
        // Each bit becomes the parity of the quotes up to it: 1 from an opening quote to before its closing one.
        let mut strings = marks.quotes & !escaped;
        for shift in [1, 2, 4, 8, 16, 32] {
            strings ^= strings << shift;
        }
        strings ^= self.string;
        self.string = 0_u64.wrapping_sub(strings >> (BLOCK - 1));
        marks.brackets & !strings
    }
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`.
    pub const fn new(text: &'a str) -> Self {
        Self { text, pos: 0 }
    }

    /// A scanner at byte `pos` of `text`, which must be a character boundary.
    pub const fn at(text: &'a str, pos: usize) -> Self {
        Self { text, pos }
    }

    /// Bytes consumed so far.
    pub const fn position(&self) -> usize {
        self.pos
    }

    const fn error(&self, what: &'static str) -> ScanError {
        ScanError { offset: self.pos, what }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    /// Passes over white space and returns the next byte without consuming it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(b) = self.byte() {
            if !matches!(b, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(b);
            }
            self.pos += 1;
        }
        None
    }

    /// Consumes `wanted` after white space.
    ///
    /// # Errors
    /// When something else stands there.
    #[inline]
    pub fn expect(&mut self, wanted: u8, what: &'static str) -> Result<(), ScanError> {
        if self.peek() == Some(wanted) {
            self.pos += 1;
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    /// Consumes `wanted` after white space if it stands there.
    #[inline]
    pub fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.pos += usize::from(found);
        found
    }

    /// Consumes a string and returns its raw text between the quotes.
    ///
    /// # Errors
    /// When no string stands here or it does not end.
    #[inline]
    pub fn raw_string(&mut self) -> Result<&'a str, ScanError> {
        self.expect(b'"', "expected a string")?;
        let start = self.pos;
        self.skip_string_tail()?;
        Ok(&self.text[start..self.pos - 1])
    }

    /// From just inside a string to just behind its closing quote; whether there were escapes.
    #[inline]
    fn skip_string_tail(&mut self) -> Result<bool, ScanError> {
        let bytes = self.text.as_bytes();
        let mut is_escaped = false;
        loop {
            match string_stop(&bytes[self.pos..]) {
                Some(found) if bytes[self.pos + found] == b'"' => {
                    self.pos += found + 1;
                    return Ok(is_escaped);
                }
                // An escape: the next byte is part of it whatever it is. It may be the first byte of a
                // longer character; the rest is found by the next search.
                Some(found) if self.pos + found + 2 <= bytes.len() => {
                    self.pos += found + 2;
                    is_escaped = true;
                }
                _ => return Err(self.error("unfinished string")),
            }
        }
    }

    /// Consumes any value and returns its raw text.
    ///
    /// # Errors
    /// When the value does not end, its brackets do not match or it is nested too deep.
    #[inline]
    pub fn raw_value(&mut self) -> Result<RawValue<'a>, ScanError> {
        let Some(first) = self.peek() else { return Err(self.error("expected a value")) };
        let start = self.pos;
        let mut is_escaped = false;
        match first {
            b'"' => {
                self.pos += 1;
                is_escaped = self.skip_string_tail()?;
            }
            b'{' | b'[' => self.skip_container()?,
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                while self.byte().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')) {
                    self.pos += 1;
                }
            }
            _ => return Err(self.error("expected a value")),
        }
        Ok(RawValue { text: &self.text[start..self.pos], is_escaped })
    }

    /// Skips an object or array. Kinds of open brackets are kept as bits, newest lowest.
    fn skip_container(&mut self) -> Result<(), ScanError> {
        let bytes = self.text.as_bytes();
        let (mut kinds, mut depth) = (0_u128, 0_u32);
        let mut inside = Inside::default();
        while self.pos < bytes.len() {
            let rest = &bytes[self.pos..];
            let mut padded = [b' '; BLOCK];
            let block = rest.first_chunk().unwrap_or_else(|| {
                padded[..rest.len()].copy_from_slice(rest);
                &padded
            });
            let mut structure = inside.structure(&Marks::of(block));
            while structure != 0 {
                let at = structure.trailing_zeros() as usize;
                structure &= structure - 1;
                let b = block[at];
                if matches!(b, b'{' | b'[') {
                    if depth == MAX_DEPTH {
                        self.pos += at + 1;
                        return Err(self.error("nested deeper than 128 levels"));
                    }
                    kinds = kinds << 1 | u128::from(b == b'{');
                    depth += 1;
                } else if (kinds & 1 == 1) != (b == b'}') {
                    self.pos += at + 1;
                    return Err(self.error("mismatched bracket"));
                } else {
                    kinds >>= 1;
                    depth -= 1;
                    if depth == 0 {
                        self.pos += at + 1;
                        return Ok(());
                    }
                }
            }
            self.pos = bytes.len().min(self.pos + BLOCK);
        }
        Err(self.error(if inside.string == 0 { "unfinished value" } else { "unfinished string" }))
    }

    /// Walks the members of an object: calls `member` with each raw key and the scanner standing before
    /// its value, which `member` must consume.
    ///
    /// # Errors
    /// What `member` returns, or that the text is not an object.
    #[inline]
    pub fn object<E: From<ScanError>>(
        &mut self,
        mut member: impl FnMut(&'a str, &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{', "expected an object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.raw_string()?;
            self.expect(b':', "expected a colon")?;
            member(key, self)?;
            if self.take(b',') {
                continue;
            }
            return Ok(self.expect(b'}', "expected a comma or a closing brace")?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(1_000_000);
        let error = Scanner::new(&deep).raw_value().unwrap_err();
        assert_eq!(error.what, "nested deeper than 128 levels");
    }

    #[test]
    fn unfinished_text_is_an_error() {
        for text in ["", "\"", "\"\\", "{", "[1,", "{\"a\":\"", "{]", "}"] {
            assert!(Scanner::new(text).raw_value().is_err(), "{text}");
        }
    }

    /// [`Scanner::skip_container`] byte by byte: where it ends, or what is wrong.
    fn skipped_plainly(text: &str) -> Result<usize, &'static str> {
        let (mut open, mut in_string, mut is_escaped) = (Vec::new(), false, false);
        for (at, b) in text.bytes().enumerate() {
            match b {
                // An escaped bracket outside strings still is one; an escaped quote is none.
                _ if std::mem::take(&mut is_escaped) && (in_string || !b"[]{}".contains(&b)) => continue,
                b'\\' => is_escaped = true,
                b'"' => in_string = !in_string,
                _ => {}
            }
            match b {
                _ if in_string => {}
                b'{' | b'[' if open.len() == MAX_DEPTH as usize => return Err("nested deeper than 128 levels"),
                b'{' | b'[' => open.push(b + 2),
                b'}' | b']' if open.pop() != Some(b) => return Err("mismatched bracket"),
                b'}' | b']' if open.is_empty() => return Ok(at + 1),
                _ => {}
            }
        }
        Err(if in_string { "unfinished string" } else { "unfinished value" })
    }

    proptest! {
        #[test]
        fn a_container_ends_where_it_does_byte_by_byte(inner in r#"([{}\[\]"\\\\ a,é]|\{\}|"a{0,40}"|\\\\){0,150}"#, open in "[{\\[]{1,2}") {
            let text = open + &inner + "}]";
            let mut scanner = Scanner::new(&text);
            let skipped = scanner.raw_value().map(|raw| raw.text.len()).map_err(|e| e.what);
            prop_assert_eq!(skipped, skipped_plainly(&text));
        }

        #[test]
        fn a_whole_value_is_passed_over(value in json()) {
            let text = format!(" {value} ,");
            let mut scanner = Scanner::new(&text);
            let raw = scanner.raw_value().unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(raw.text).unwrap(), value);
            prop_assert!(scanner.take(b','));
        }

        #[test]
        fn any_text_is_scanned_without_panic(text in ".*") {
            let _ = Scanner::new(&text).raw_value();
            let _ = Scanner::new(&text).object(|_, s| s.raw_value().map(drop));
        }

        #[test]
        fn the_search_for_the_end_of_a_string_agrees_with_the_library(bytes in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), any::<u8>()], 0..80)) {
            prop_assert_eq!(string_stop(&bytes), memchr::memchr2(b'"', b'\\', &bytes));
            let plain: Vec<u8> = bytes.iter().map(|b| if matches!(b, b'"' | b'\\') { b'#' } else { *b }).collect();
            prop_assert_eq!(string_stop(&plain), None);
        }

        #[test]
        fn strings_are_unescaped(text in any::<String>()) {
            let quoted = serde_json::to_string(&text).unwrap();
            let raw = Scanner::new(&quoted).raw_value().unwrap();
            prop_assert_eq!(raw.as_str().unwrap().into_owned(), text);
        }
    }
}
