//! YAML as far as rules need it: documents of scalars, lists and maps, with the scalars' text as it is written. No
//! aliases, no tags, no guessing of types: a rule's `80`, `'80'` and `0080` are texts, and only `null` is asked for.

use std::borrow::Cow;

use granit_parser::{Event, Parser, ScalarStyle, StrInput};

use super::block_yaml;
pub use super::yaml_node::Yaml;

/// Deeper rules are refused; real ones have five levels.
const DEPTH_MAX: usize = 32;

/// The documents of a text. Empty ones are left out.
///
/// # Errors
/// Where and why it cannot be read.
pub fn documents(text: &str) -> Result<Vec<Yaml<'_>>, String> {
    block_yaml::documents(text).map_or_else(|| whole_documents(text), Ok)
}

/// As [`documents`], by the parser that knows all of YAML.
///
/// # Errors
/// Where and why it cannot be read.
pub fn whole_documents(text: &str) -> Result<Vec<Yaml<'_>>, String> {
    let mut reader = Reader { parser: Parser::new_from_str(text), line: 1 };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(documents),
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => {
                let document = reader.node(event, 0)?;
                if !document.is_null() {
                    documents.push(document);
                }
            }
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    line: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Event<'t>, String> {
        match self.parser.next() {
            None => Ok(Event::StreamEnd),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(event)
            }
            Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
        }
    }

    fn refuse(&self, why: &str) -> String {
        format!("line {}: {why}", self.line)
    }

    fn node(&mut self, event: Event<'t>, depth: usize) -> Result<Yaml<'t>, String> {
        if depth > DEPTH_MAX {
            return Err(self.refuse("is nested too deep"));
        }
        match event {
            // The parser writes `~` where nothing stands.
            Event::Scalar(text, ScalarStyle::Plain, ..) if text == "~" => Ok(Yaml::null()),
            Event::Scalar(text, style, ..) => Ok(Yaml::Scalar { text, plain: style == ScalarStyle::Plain }),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => return Ok(Yaml::List(items)),
                        event => items.push(self.node(event, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut members: Vec<(Cow<'t, str>, Yaml<'t>)> = Vec::new();
                loop {
                    let key = match self.next()? {
                        Event::MappingEnd => return Ok(Yaml::Map(members)),
                        Event::Scalar(text, ..) => text,
                        _ => return Err(self.refuse("a key must be a text")),
                    };
                    if members.iter().any(|(k, _)| *k == key) {
                        return Err(self.refuse(&format!("{key} is there twice")));
                    }
                    let event = self.next()?;
                    members.push((key, self.node(event, depth + 1)?));
                }
            }
            Event::Alias(..) => Err(self.refuse("aliases are not supported")),
            _ => Err(self.refuse("expected a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_stay_as_they_are_written() {
        let [document] = &documents("a: 0080\nb: '80'\nc: null\nd:\ne: [x, 'null']\n").unwrap()[..] else { panic!() };
        assert_eq!(document.get("a").unwrap().text(), Some("0080"));
        assert_eq!(document.get("b").unwrap().text(), Some("80"));
        assert!(document.get("c").unwrap().is_null() && document.get("d").unwrap().is_null());
        assert_eq!(document.get("e").unwrap().items()[1].text(), Some("null"));
    }

    #[test]
    fn documents_are_told_apart_and_empty_ones_left_out() {
        assert_eq!(documents("---\na: 1\n---\n---\nb: 2\n").unwrap().len(), 2);
        assert_eq!(documents("").unwrap(), []);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, why) in [
            ("a: 1\na: 2\n", "line 2: a is there twice"),
            ("a: &x 1\nb: *x\n", "line 2: aliases are not supported"),
            ("a: 1\nb: [\n", "line "),
        ] {
            let error = documents(text).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
        assert!(documents(&"[".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[-a-z:&*!|>#'\" \n\\[\\]{},]{0,80}") {
            let _ = documents(&text);
        }
    }
}
