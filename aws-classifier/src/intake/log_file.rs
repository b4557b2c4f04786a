//! Log files: `{"Records":[…]}`, plain arrays, JSON lines, JSON values one after another, and lines of text logs, of any
//! size.
//!
//! The text is read in blocks; records are split and their headers read in one pass. A record that cannot be read is
//! reported and the reader finds the next one: in an array at the next `{"eventVersion":` (which no JSON string can
//! contain unescaped), in lines at the next line.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr, memmem};
use shared::event::{Event, RecordError};
use shared::json_scan::{RawValue, ScanError, Scanner};

use super::log_groups::LogGroups;
use super::text_log::{Line, TextLog};
use super::{IntakeError, Leaf, decode};

/// Longer records are refused; CloudTrail's own limit is 256 KiB an event, 1 MiB for enriched ones.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// How much is read at a time from inputs that are not held whole.
const BLOCK_BYTES: usize = 1 << 20;
/// The start of a record in a `Records` array, as CloudTrail writes it.
const RECORD_START: &[u8] = b"{\"eventVersion\":";

/// What the reader reports, in file order.
pub trait Visitor {
    /// The file's name, which may tell where its lines are from; empty when there is none.
    fn file_name(&self) -> &str {
        ""
    }
    /// From which log groups records are believed.
    fn log_groups(&self) -> Arc<LogGroups> {
        Arc::default()
    }
    /// A record. `index` counts the records of the file from 0, `text` is its JSON, from which [`super::Leaf::of`] makes the
    /// event again.
    fn event(&mut self, index: u64, event: &Event<'_>, text: &str);
    /// A record that could not be read; `text` is (the beginning of) what stood there.
    fn failed(&mut self, index: u64, error: &IntakeError, text: &str);
    /// Called between records, at least once a block; `false` stops the reading.
    fn go_on(&mut self) -> bool {
        true
    }
}

/// Reads text that is in memory as a whole.
pub fn read_whole(bytes: &[u8], visitor: &mut dyn Visitor) {
    let mut splitter = Splitter::default();
    splitter.consume(bytes, true, visitor);
}

/// Reads from a stream in bounded memory.
///
/// # Errors
/// When the stream fails, such as a gzip file that ends early; what came before was reported.
pub fn read_stream(mut input: impl Read, visitor: &mut dyn Visitor) -> io::Result<()> {
    let mut splitter = Splitter::default();
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let read = input.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut buffer);
        let is_end = !matches!(read, Ok(n) if n > 0);
        let consumed = splitter.consume(&buffer, is_end, visitor);
        buffer.drain(..consumed);
        match read {
            Err(error) => return Err(error),
            Ok(0) => return Ok(()),
            Ok(_) if !visitor.go_on() => return Ok(()),
            Ok(_) => {}
        }
    }
}

/// Reads text that arrives in pieces of any size, in bounded memory.
#[derive(Default)]
pub struct Pieces {
    splitter: Splitter,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were looked at and are the beginning of a record.
    seen: usize,
}

impl Pieces {
    /// Takes the next piece and reports the records that are complete, a block at a time.
    pub fn push(&mut self, piece: &[u8], visitor: &mut dyn Visitor) {
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() - self.seen >= BLOCK_BYTES {
            let consumed = self.splitter.consume(&self.buffer, false, visitor);
            self.buffer.drain(..consumed);
            self.seen = self.buffer.len();
        }
    }

    /// Reports the rest.
    pub fn finish(mut self, visitor: &mut dyn Visitor) {
        self.splitter.consume(&self.buffer, true, visitor);
    }
}

/// Where in the file's structure the reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before a value: the start of the file, or between values.
    #[default]
    Start,
    /// In an array of records.
    Array,
    /// In a file of lines: each line is one value.
    Lines,
    /// Looking for the next record of an array.
    LostInArray,
    /// Looking for the next line.
    LostInLines,
    /// Behind the `Records` array, in the rest of its object.
    Tail,
}

#[derive(Default)]
struct Splitter {
    place: Place,
    index: u64,
    /// Text was read: a byte order mark is none from here on.
    is_begun: bool,
    /// What was learned about the lines of a text log.
    lines: Option<Box<TextLog>>,
}

/// What one step did.
enum Step {
    /// Went on to this offset.
    To(usize),
    /// Needs more text from this offset on.
    More(usize),
}

impl Splitter {
    /// Reads as many records as the bytes hold and returns how many bytes are done with.
    fn consume(&mut self, bytes: &[u8], is_end: bool, visitor: &mut dyn Visitor) -> usize {
        let mut bad = Vec::new();
        let repaired;
        let (text, end) = match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => (text, bytes.len()),
            Err(_) => {
                repaired = repair(bytes, is_end, &mut bad);
                (repaired.as_str(), repaired.len())
            }
        };
        let block = Block { text, is_end: is_end && end == bytes.len(), bad: &bad };
        let mut at = 0;
        while at < text.len() || (block.is_end && self.place == Place::Array) {
            match self.step(&block, at, visitor) {
                Step::To(next) => at = next,
                Step::More(from) => return from,
            }
            if at >= text.len() && self.place != Place::Array {
                break;
            }
        }
        at
    }

    fn step(&mut self, block: &Block<'_>, at: usize, visitor: &mut dyn Visitor) -> Step {
        match self.place {
            Place::Start => self.start(block, at, visitor),
            Place::Array => self.in_array(block, at, visitor),
            Place::Lines => self.line(block, at, visitor),
            Place::Tail => self.tail(block, at),
            Place::LostInArray => self.find_record(block, at),
            Place::LostInLines => match memchr(b'\n', &block.text.as_bytes()[at..]) {
                Some(found) => {
                    self.place = Place::Start;
                    Step::To(at + found + 1)
                }
                None => Step::To(block.text.len()),
            },
        }
    }

    /// Decides what the next value is.
    fn start(&mut self, block: &Block<'_>, at: usize, visitor: &mut dyn Visitor) -> Step {
        let text = block.text;
        let has_mark = !std::mem::replace(&mut self.is_begun, true) && text[at..].starts_with('\u{feff}');
        let at = if has_mark { at + '\u{feff}'.len_utf8() } else { at };
        let mut scanner = Scanner::at(text, at);
        match scanner.peek() {
            None => return Step::To(text.len()),
            Some(b'[') => {
                self.place = Place::Array;
                return Step::To(scanner.position() + 1);
            }
            Some(b'{') => {
                let start = scanner.position();
                let is_records = scanner.take(b'{')
                    && scanner.raw_string() == Ok("Records")
                    && scanner.take(b':')
                    && scanner.take(b'[');
                if is_records {
                    self.place = Place::Array;
                    return Step::To(scanner.position());
                }
                if !block.is_end && text.len() - start < 64 {
                    return Step::More(start);
                }
            }
            Some(_) => return self.text_line(block, scanner.position(), visitor),
        }
        // Lines, when this line is a value of its own; else one value that may run over lines.
        let start = at + text[at..].len() - text[at..].trim_start().len();
        let line = match memchr(b'\n', &text.as_bytes()[start..]) {
            Some(n) => &text[start..start + n],
            None if block.is_end => &text[start..],
            None if text.len() - start <= RECORD_BYTES_MAX => return Step::More(start),
            None => "",
        };
        let mut of_line = Scanner::new(line);
        if of_line.raw_value().is_ok() && of_line.peek().is_none() {
            self.place = Place::Lines;
            return Step::To(start);
        }
        let step = self.record(block, start, text.len(), visitor);
        if self.place == Place::LostInArray {
            self.place = Place::LostInLines;
        }
        step
    }

    /// A line that is no JSON: one of a text log, or something unknown.
    fn text_line(&mut self, block: &Block<'_>, at: usize, visitor: &mut dyn Visitor) -> Step {
        let (line, next) = match self.whole_line(block, at, visitor) {
            Ok(found) => found,
            Err(step) => return step,
        };
        let mut lines = self.lines.take().unwrap_or_else(|| Box::new(TextLog::of_file(visitor.file_name())));
        match lines.line(line) {
            Line::Header => {}
            Line::Unknown => self.fail(&IntakeError::NotALogLine, line, visitor),
            Line::Bad(error) => self.fail(&error, line, visitor),
            Line::Record(text) => match Leaf::of(text).and_then(|leaf| leaf.event()) {
                Ok(event) => self.pass(&event, text, visitor),
                Err(error) => self.fail(&error, line, visitor),
            },
        }
        self.lines = Some(lines);
        Step::To(next)
    }

    fn in_array(&mut self, block: &Block<'_>, at: usize, visitor: &mut dyn Visitor) -> Step {
        let mut scanner = Scanner::at(block.text, at);
        match scanner.peek() {
            Some(b',') => Step::To(scanner.position() + 1),
            Some(b']') => {
                self.place = Place::Tail;
                Step::To(scanner.position() + 1)
            }
            Some(_) => self.record(block, scanner.position(), block.text.len(), visitor),
            None if block.is_end => {
                self.place = Place::Start;
                self.fail(&IntakeError::Truncated, "", visitor);
                Step::To(block.text.len())
            }
            None => Step::More(at),
        }
    }

    /// Behind an array: the rest of its object is passed over, then another value may follow.
    fn tail(&mut self, block: &Block<'_>, at: usize) -> Step {
        let mut scanner = Scanner::at(block.text, at);
        while scanner.take(b',') {
            let passed = scanner.raw_string().and_then(|_| scanner.expect(b':', "")).and_then(|()| scanner.raw_value());
            if passed.is_err() {
                if !block.is_end && block.text.len() - at < RECORD_BYTES_MAX {
                    return Step::More(at);
                }
                self.place = Place::LostInLines;
                return Step::To(at);
            }
        }
        if scanner.peek().is_none() && !block.is_end {
            return Step::More(at);
        }
        scanner.take(b'}');
        self.place = Place::Start;
        Step::To(scanner.position())
    }

    /// The line that starts at `at`, and where the next one does; else what to do instead.
    fn whole_line<'t>(
        &mut self,
        block: &Block<'t>,
        at: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<(&'t str, usize), Step> {
        let text = block.text;
        let (end, next) = match memchr(b'\n', &text.as_bytes()[at..]) {
            Some(n) => (at + n, at + n + 1),
            None if block.is_end => (text.len(), text.len()),
            None if text.len() - at <= RECORD_BYTES_MAX => return Err(Step::More(at)),
            None => {
                self.place = Place::LostInLines;
                self.fail(&IntakeError::TooLong, &text[at..], visitor);
                return Err(Step::To(text.len()));
            }
        };
        if block.is_bad(&(at..end)) {
            self.fail(&IntakeError::NotUtf8, &text[at..end], visitor);
            return Err(Step::To(next));
        }
        Ok((&text[at..end], next))
    }

    fn line(&mut self, block: &Block<'_>, at: usize, visitor: &mut dyn Visitor) -> Step {
        let (line, next) = match self.whole_line(block, at, visitor) {
            Ok(found) => found,
            Err(step) => return step,
        };
        if line.trim_ascii().is_empty() {
            return Step::To(next);
        }
        let mut scanner = Scanner::new(line);
        match Event::scan_cloudtrail(line, &mut scanner) {
            Ok(event) if scanner.peek().is_none() && is_cloudtrail(&event) => {
                self.pass(&event, event.record, visitor);
            }
            _ => self.decode(line, visitor),
        }
        Step::To(next)
    }

    /// Reads the record that starts at `at`.
    fn record(&mut self, block: &Block<'_>, at: usize, end: usize, visitor: &mut dyn Visitor) -> Step {
        let window = &block.text[..floor_boundary(block.text, end.min(at + RECORD_BYTES_MAX))];
        let mut scanner = Scanner::at(window, at);
        let result = if window.as_bytes().get(at) == Some(&b'{') {
            Event::scan_cloudtrail(window, &mut scanner)
        } else {
            match scanner.raw_value() {
                // A number or `null` may go on in the next block.
                Ok(_) if scanner.position() == block.text.len() && !block.is_end => return Step::More(at),
                Ok(RawValue { text: other, .. }) => {
                    self.fail(&IntakeError::NotAnObject, other, visitor);
                    return Step::To(scanner.position());
                }
                Err(error) => Err(error.into()),
            }
        };
        match result {
            Err(RecordError::Json(error)) => {
                let ran_out = error.offset >= window.len() || error.what.starts_with("unfinished");
                if ran_out && !block.is_end && window.len() == block.text.len() {
                    return Step::More(at);
                }
                let error = if !ran_out {
                    ScanError { offset: error.offset - at, what: error.what }.into()
                } else if window.len() < block.text.len() {
                    IntakeError::TooLong
                } else {
                    IntakeError::Truncated
                };
                self.place = Place::LostInArray;
                self.fail(&error, &window[at..], visitor);
                Step::To(at + block.text[at..].chars().next().map_or(1, char::len_utf8))
            }
            _ if block.is_bad(&(at..scanner.position())) => {
                self.fail(&IntakeError::NotUtf8, &window[at..scanner.position()], visitor);
                Step::To(scanner.position())
            }
            Ok(event) if is_cloudtrail(&event) => {
                self.pass(&event, event.record, visitor);
                Step::To(scanner.position())
            }
            Ok(_) | Err(RecordError::Missing { .. } | RecordError::Wrong { .. }) => {
                self.decode(&window[at..scanner.position()], visitor);
                Step::To(scanner.position())
            }
        }
    }

    /// A value that is not a plain CloudTrail record: an envelope, or something unknown.
    fn decode(&mut self, text: &str, visitor: &mut dyn Visitor) {
        let log_groups = visitor.log_groups();
        decode(text, &log_groups, &mut |leaf| match leaf.and_then(|leaf| Ok((leaf, leaf.event()?))) {
            Ok((leaf, event)) => {
                self.pass(&event, leaf.text, visitor);
            }
            Err(error) => self.fail(&error, text, visitor),
        });
    }

    fn find_record(&mut self, block: &Block<'_>, at: usize) -> Step {
        let rest = &block.text.as_bytes()[at..];
        if let Some(found) = memmem::find(rest, RECORD_START) {
            self.place = Place::Array;
            return Step::To(at + found);
        }
        if block.is_end {
            self.place = Place::Start;
            return Step::To(block.text.len());
        }
        // The start may be cut by the end of the block.
        let keep = floor_boundary(block.text, block.text.len().saturating_sub(RECORD_START.len()).max(at));
        if keep == at { Step::More(at) } else { Step::To(keep) }
    }

    fn pass(&mut self, event: &Event<'_>, text: &str, visitor: &mut dyn Visitor) {
        visitor.event(self.index, event, text);
        self.index += 1;
    }

    fn fail(&mut self, error: &IntakeError, text: &str, visitor: &mut dyn Visitor) {
        visitor.failed(self.index, error, text);
        self.index += 1;
    }
}

struct Block<'t> {
    text: &'t str,
    is_end: bool,
    /// Offsets of bytes that were not UTF-8, ascending.
    bad: &'t [usize],
}

impl Block<'_> {
    fn is_bad(&self, range: &Range<usize>) -> bool {
        let first = self.bad.partition_point(|b| *b < range.start);
        self.bad.get(first).is_some_and(|b| *b < range.end)
    }
}

/// S3, SQS and SNS notifications also have `eventSource` and `eventName`; they are not CloudTrail records.
fn is_cloudtrail(event: &Event<'_>) -> bool {
    !event.source.starts_with("aws:")
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The text with every byte that is not UTF-8 replaced by `?`, so that offsets stay, and where they were. A character
/// cut by the end of the block is left off unless the file ends there.
fn repair(bytes: &[u8], is_end: bool, bad: &mut Vec<usize>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        match simdutf8::compat::from_utf8(rest) {
            Ok(good) => {
                text.push_str(good);
                break;
            }
            Err(error) => {
                let (good, tail) = rest.split_at(error.valid_up_to());
                text.push_str(simdutf8::basic::from_utf8(good).unwrap_or_default());
                let Some(length) = error.error_len() else {
                    if is_end {
                        bad.push(text.len());
                        text.extend(std::iter::repeat_n('?', tail.len()));
                    }
                    break;
                };
                for _ in 0..length {
                    bad.push(text.len());
                    text.push('?');
                }
                rest = &tail[length..];
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default, Debug, PartialEq)]
    struct Seen {
        names: Vec<String>,
        failed: Vec<(u64, String)>,
    }

    impl Visitor for Seen {
        fn event(&mut self, index: u64, event: &Event<'_>, text: &str) {
            assert_eq!(index as usize, self.names.len() + self.failed.len());
            assert!(Leaf::of(text).is_ok(), "{text}");
            self.names.push(event.name.clone().into_owned());
        }

        fn failed(&mut self, index: u64, error: &IntakeError, _text: &str) {
            self.failed.push((index, error.to_string()));
        }
    }

    fn record(name: &str) -> String {
        format!(
            r#"{{"eventVersion":"1.08","eventTime":"2026-03-01T00:00:00Z","eventSource":"iam.amazonaws.com","eventName":"{name}","requestParameters":{{"a":["}}{{",{{"b":"\"\\"}}]}}}}"#
        )
    }

    /// Reads a few bytes at a time, so that every place is once the end of a block.
    struct Trickle<'b>(&'b [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    /// Whole, and in blocks of `block` bytes: both must agree.
    fn read(bytes: &[u8]) -> Seen {
        let mut whole = Seen::default();
        read_whole(bytes, &mut whole);
        for block in [1, 7, 64, 1000] {
            let (mut splitter, mut seen, mut buffer) = (Splitter::default(), Seen::default(), Vec::new());
            let mut input = Trickle(bytes, block);
            let mut chunk = [0; 1000];
            loop {
                let n = input.read(&mut chunk).unwrap();
                buffer.extend_from_slice(&chunk[..n]);
                let consumed = splitter.consume(&buffer, n == 0, &mut seen);
                buffer.drain(..consumed);
                if n == 0 {
                    break;
                }
            }
            assert_eq!(seen, whole, "in blocks of {block}");
            let (mut pieces, mut seen) = (Pieces::default(), Seen::default());
            bytes.chunks(block).for_each(|piece| pieces.push(piece, &mut seen));
            pieces.finish(&mut seen);
            assert_eq!(seen, whole, "in pieces of {block}");
        }
        whole
    }

    fn names(seen: &Seen) -> String {
        seen.names.join("")
    }

    #[test]
    fn all_layouts_are_read() {
        let (a, b, c) = (record("A"), record("B"), record("C"));
        let pretty = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&a).unwrap()).unwrap();
        for text in [
            format!(r#"{{"Records":[{a},{b},{c}]}}"#),
            format!("\u{feff} {{ \"Records\" : [\n{a} ,\n{b},{c} ] , \"x\": {{}} }}\n"),
            format!("[{a},{b},{c}]"),
            format!("{a}\n{b}\r\n\n{c}"),
            format!("{pretty}\n{b}\n{c}\n"),
            format!("{{\"Records\":[{a}]}}\n{{\"Records\":[{b},{c}]}}"),
            format!(r#"{{"x":1,"Records":[{a},{b},{c}]}}"#),
        ] {
            let seen = read(text.as_bytes());
            assert_eq!((names(&seen).as_str(), seen.failed.len()), ("ABC", 0), "{text} {seen:?}");
        }
        assert_eq!(read(b""), Seen::default());
        assert_eq!(read(b"{\"Records\":[]}"), Seen::default());
    }

    #[test]
    fn a_broken_record_takes_nobody_with_it() {
        let (a, b) = (record("A"), record("B"));
        let cut = &a[..a.len() - 30];
        for (text, failed) in [
            (format!(r#"{{"Records":[{a},{cut},{b}]}}"#), 1),
            (format!(r#"{{"Records":[{a},7,null,[],[{b}],"x",{b}]}}"#), 5),
            (format!("{a}\n{cut}\n{b}\n"), 1),
            (format!("{a}\nnot json\n{b}\n"), 1),
            (format!("not json\n{a}\n{b}\n"), 1),
            (format!("{cut}\n{a}\n{b}\n"), 1),
            (format!(r#"{{"Records":[{a},{},{b}]}}"#, a.replace("\"A\"", "5")), 1),
            (format!(r#"{{"Records":[{a},{},{b}]}}"#, a.replace("2026-03", "9999-03")), 1),
            (format!(r#"{{"Records":[{a},{b},"#), 1),
            (format!(r#"{{"Records":[{a},{b},{cut}"#), 1),
        ] {
            let seen = read(text.as_bytes());
            assert_eq!((names(&seen).as_str(), seen.failed.len()), ("AB", failed), "{text} {seen:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_fail_their_record_alone() {
        let mut bytes = format!(r#"{{"Records":[{},{},{}]}}"#, record("A"), record("X"), record("B")).into_bytes();
        let place = memmem::find(&bytes, b"\"X\"").unwrap() + 1;
        bytes[place] = 0xff;
        let seen = read(&bytes);
        assert_eq!((names(&seen).as_str(), seen.failed.as_slice()), ("AB", &[(1, "not UTF-8".to_owned())][..]));
    }

    #[test]
    fn a_record_without_end_is_bounded() {
        let text = format!("{{\"Records\":[{{\"eventVersion\":\"{},{}]}}", "x".repeat(RECORD_BYTES_MAX), record("B"));
        let mut seen = Seen::default();
        read_stream(text.as_bytes(), &mut seen).unwrap();
        assert_eq!(names(&seen), "B");
        assert_eq!(seen.failed.len(), 1, "{:?}", seen.failed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read(&bytes);
        }

        #[test]
        fn any_damage_to_a_file_is_survived(at in 0_usize..600, byte in any::<u8>()) {
            let mut bytes = format!(r#"{{"Records":[{},{},{}]}}"#, record("A"), record("B"), record("C")).into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let seen = read(&bytes);
            prop_assert!(seen.names.len() + seen.failed.len() >= 1);
        }
    }
}
