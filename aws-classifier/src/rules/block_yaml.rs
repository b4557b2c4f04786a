//! The YAML that rules are written in, read at a glance: maps and lists by indentation, one scalar a line, quoted or
//! not, texts over several lines, comments; ASCII throughout. Anything else, and anything that is wrong, is left to the
//! whole parser (see [`super::yaml`]), which needs ten times as long and makes the same of what both can read; a test
//! compares them.

use std::borrow::Cow;

use super::yaml_node::Yaml;

/// Deeper rules go to the whole parser, which has the limit.
const DEPTH_MAX: usize = 16;

/// The documents of a text; `None` when the whole parser has to look.
pub fn documents(text: &str) -> Option<Vec<Yaml<'_>>> {
    let plain = |b: u8| matches!(b, b' '..=b'~' | b'\n');
    if !text.bytes().all(plain) {
        return None;
    }
    let mut reader = Reader { rest: text, line: None };
    let mut documents = Vec::new();
    let mut may_begin = true;
    while let Some(line) = reader.peek() {
        if line.is_marker() {
            reader.next();
            may_begin = true;
        } else if may_begin {
            documents.push(reader.map(line.indent, 0)?);
            may_begin = false;
        } else {
            return None;
        }
    }
    Some(documents)
}

/// A line that says something: no comment and not empty.
#[derive(Clone, Copy)]
struct Line<'t> {
    indent: usize,
    /// Without its indentation and the blanks at its end.
    text: &'t str,
    /// What follows it.
    rest: &'t str,
    /// Whether comments or empty lines stand before it.
    is_apart: bool,
}

impl Line<'_> {
    /// Whether a document begins behind it.
    fn is_marker(&self) -> bool {
        self.indent == 0 && self.text == "---"
    }
}

struct Reader<'t> {
    /// What is still to be read, from the start of a line.
    rest: &'t str,
    /// The next line, when it was looked at: what stands there or, in a list, what is left of it.
    line: Option<Line<'t>>,
}

/// The first line, and what follows.
fn split_line(text: &str) -> (&str, &str) {
    match memchr::memchr(b'\n', text.as_bytes()) {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, ""),
    }
}

impl<'t> Reader<'t> {
    fn peek(&mut self) -> Option<Line<'t>> {
        if self.line.is_none() {
            let mut rest = self.rest;
            let mut is_apart = false;
            while !rest.is_empty() {
                let (line, after) = split_line(rest);
                let text = line.trim_ascii_start();
                if !text.is_empty() && !text.starts_with('#') {
                    let indent = line.len() - text.len();
                    self.line = Some(Line { indent, text: text.trim_ascii_end(), rest: after, is_apart });
                    break;
                }
                (rest, is_apart) = (after, true);
            }
        }
        self.line
    }

    fn next(&mut self) {
        if let Some(line) = self.line.take() {
            self.rest = line.rest;
        }
    }

    /// What is indented by more than `indent`, or a list that is indented as much as its key.
    fn block(&mut self, indent: usize, depth: usize) -> Option<Yaml<'t>> {
        match self.peek() {
            Some(line) if is_item(line.text) && line.indent >= indent => self.list(line.indent, depth),
            Some(line) if line.indent > indent => self.map(line.indent, depth),
            _ => Some(Yaml::null()),
        }
    }

    fn map(&mut self, indent: usize, depth: usize) -> Option<Yaml<'t>> {
        let mut members: Vec<(Cow<'t, str>, Yaml<'t>)> = Vec::new();
        while let Some(line) = self.peek() {
            if line.indent < indent || line.is_marker() || (line.indent == indent && is_item(line.text)) {
                break;
            }
            let (key, value) = key_of(line.text).filter(|_| line.indent == indent)?;
            if depth == DEPTH_MAX || members.iter().any(|(known, _)| known == key) {
                return None;
            }
            self.next();
            let value = if value.is_empty() { self.block(indent, depth + 1) } else { self.scalar(value, indent) };
            members.push((Cow::Borrowed(key), value?));
        }
        (!members.is_empty()).then_some(Yaml::Map(members))
    }

    fn list(&mut self, indent: usize, depth: usize) -> Option<Yaml<'t>> {
        let mut items = Vec::new();
        while let Some(line) = self.peek() {
            if line.indent < indent || (line.indent == indent && !is_item(line.text)) {
                break;
            }
            let text = line.text[1..].trim_ascii_start();
            if line.indent > indent || depth == DEPTH_MAX || text.is_empty() || is_item(text) {
                return None;
            }
            items.push(if key_of(text).is_some() {
                // A map that begins behind the dash.
                let indent = indent + line.text.len() - text.len();
                self.line = Some(Line { indent, text, ..line });
                self.map(indent, depth + 1)?
            } else {
                self.next();
                self.scalar(text, indent)?
            });
        }
        Some(Yaml::List(items))
    }

    /// A scalar that begins with `text`, in a map or list of this indentation.
    fn scalar(&mut self, text: &'t str, indent: usize) -> Option<Yaml<'t>> {
        let quoted = |text: Cow<'t, str>| Yaml::Scalar { text, plain: false };
        match text.as_bytes().first()? {
            b'\'' => single_quoted(&text[1..]).map(quoted),
            b'"' => {
                let (inner, after) = text[1..].split_once('"')?;
                (is_nothing(after) && !inner.contains('\\')).then(|| quoted(Cow::Borrowed(inner)))
            }
            b'|' | b'>' => self.long_text(text, indent).map(|text| quoted(Cow::Owned(text))),
            b'[' | b']' | b'{' | b'}' | b'&' | b'*' | b'!' | b'%' | b'@' | b'`' | b'?' | b',' | b':' | b'#' => None,
            _ => self
                .plain(text, indent)
                .map(|text| if text == "~" { Yaml::null() } else { Yaml::Scalar { text, plain: true } }),
        }
    }

    /// Text without quotes; lines that are indented further go on with it.
    fn plain(&mut self, text: &'t str, indent: usize) -> Option<Cow<'t, str>> {
        let (first, is_commented) = match text.find(" #") {
            Some(end) => (text[..end].trim_ascii_end(), true),
            None => (text, false),
        };
        let is_plain = |text: &str| !text.contains(": ") && !text.ends_with(':') && !is_item(text);
        if !is_plain(first) {
            return None;
        }
        let mut whole = Cow::Borrowed(first);
        while let Some(line) = self.peek().filter(|line| line.indent > indent) {
            if is_commented || line.is_apart || !is_plain(line.text) || line.text.contains(" #") {
                return None;
            }
            let whole = whole.to_mut();
            whole.push(' ');
            whole.push_str(line.text);
            self.next();
        }
        Some(whole)
    }

    /// The lines below `|`, `|-`, `>` and `>-`.
    fn long_text(&mut self, mark: &str, indent: usize) -> Option<String> {
        let (is_folded, is_stripped) = match mark {
            "|" => (false, false),
            "|-" => (false, true),
            ">" => (true, false),
            ">-" => (true, true),
            _ => return None,
        };
        let mut whole = String::new();
        let (mut depth, mut breaks) = (None, 0);
        while !self.rest.is_empty() {
            let (line, after) = split_line(self.rest);
            if line.is_empty() {
                breaks += 1;
            } else {
                let text = line.trim_ascii_start();
                let here = line.len() - text.len();
                let depth = *depth.get_or_insert(here);
                if here <= indent {
                    break;
                }
                // Lines that stand out or end in blanks follow rules of their own, and so do empty lines at the start.
                let is_first = whole.is_empty();
                if here != depth || text.is_empty() || line.ends_with(' ') || (is_first && breaks > 0) {
                    return None;
                }
                match breaks {
                    _ if is_first => {}
                    0 if is_folded => whole.push(' '),
                    breaks => whole.extend(std::iter::repeat_n('\n', breaks + usize::from(!is_folded))),
                }
                whole.push_str(text);
                breaks = 0;
            }
            self.rest = after;
        }
        if whole.is_empty() {
            return None;
        }
        if !is_stripped {
            whole.push('\n');
        }
        Some(whole)
    }
}

/// An item of a list.
fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// A key of letters, digits and what field names and their modifiers have, and what stands behind its colon.
fn key_of(text: &str) -> Option<(&str, &str)> {
    let end =
        text.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'|' | b'-' | b'/')))?;
    let value = text[end..].strip_prefix(':')?;
    let is_key = text.as_bytes()[0].is_ascii_alphabetic() || text.starts_with('_');
    (is_key && (value.is_empty() || value.starts_with(' '))).then(|| (&text[..end], value.trim_ascii_start()))
}

/// What stands behind an opening single quote, when nothing but a comment follows the closing one.
fn single_quoted(text: &str) -> Option<Cow<'_, str>> {
    let mut from = 0;
    loop {
        let end = from + text[from..].find('\'')?;
        if !text[end + 1..].starts_with('\'') {
            let inner = &text[..end];
            let inner = if from == 0 { Cow::Borrowed(inner) } else { Cow::Owned(inner.replace("''", "'")) };
            return is_nothing(&text[end + 1..]).then_some(inner);
        }
        from = end + 2;
    }
}

/// Nothing, or a comment.
fn is_nothing(text: &str) -> bool {
    text.is_empty() || (text.starts_with(' ') && text.trim_ascii_start().starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_as_people_write_them_are_read_at_a_glance() {
        let text = "title: A rule # of many\nid: 5a1b-c\ndescription: |\n    One.\n\n    Two.\nnote: >-\n  long\n  text\n\n  more\n\
             author: A. Person,\n    another\ntags:\n- attack.t1098\n- 'it''s'\ndetection:\n    sel:\n        a.b|contains:\n            - \"x: y\"\n            - 80 \n\
             \n        # why\n        c:\n    other:\n        - d: 1\n          e: arn:aws:iam::1:user/x\n        - f: '#'\n    condition: sel or other\n---\ntitle: B\n";
        let [first, _] = &documents(text).unwrap()[..] else { panic!() };
        assert_eq!(first.get("description").unwrap().text(), Some("One.\n\nTwo.\n"));
        assert_eq!(first.get("note").unwrap().text(), Some("long text\nmore"));
        assert_eq!(documents(text), yaml::whole_documents(text).ok());
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_whole_parser() {
        for text in [
            "a: [x]",
            "a: {b: c}",
            "a: &x 1",
            "a: *x",
            "a: !t 1",
            "a: \"\\n\"",
            "a: b: c",
            "a: 'x' y",
            "a: 1\na: 2",
            "- a",
            "text",
            "a: |2\n  b",
            "a:\tb",
            "a: é",
            "? a",
            "a: 1\n  b: 2",
            "a:\n  - - b",
            "'a': 1",
            "a: x\n\n  y",
            "%T 1\n---\na: 1",
        ] {
            assert_eq!(documents(text), None, "{text}");
        }
    }

    /// Lines as rules have them, and some that they should not have.
    fn line() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec!["a:", "b.c|re:", "- ", "- d:", "-", "", "#", "---", "e"]);
        let value = prop::sample::select(vec![
            "", " x", " x y", " 'q'", " 'it''s'", " \"d\"", " |", " >-", " >", " |-", " #c", " x #c", " null", " ~",
            " a:b", " a: b", " -", " - z", "  1", " 'q' #c", " [", " x: ", " x ", "x", " 'q", " \"", " :x", " --- ",
            " x#y", " *",
        ]);
        (0_usize..5, key, value).prop_map(|(indent, key, value)| format!("{}{key}{value}", " ".repeat(indent)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn both_parsers_make_the_same_of_a_text(lines in prop::collection::vec(line(), 0..7)) {
            let text = lines.join("\n");
            if let Some(documents) = documents(&text) {
                prop_assert_eq!(Ok(documents), yaml::whole_documents(&text), "{}", text);
            }
        }
    }
}
