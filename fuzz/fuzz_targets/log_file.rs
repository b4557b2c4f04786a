//! Any bytes as a log file: never a panic, the same records and the same failures however the bytes arrive, and each
//! record's text makes the same event again.

#![no_main]

use std::io::{self, Read};

use aws_classifier::intake::log_file::{Visitor, read_stream, read_whole};
use aws_classifier::intake::{IntakeError, Leaf};
use libfuzzer_sys::fuzz_target;
use shared::event::Event;

/// Block sizes that cut records, strings, escapes and UTF-8 sequences everywhere. A record is scanned again with every
/// block of it, so long inputs are not cut into the smallest.
const BLOCKS: [usize; 5] = [1, 2, 7, 61, 1009];
const BLOCKS_MAX: usize = 100;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(|seen| read_whole(bytes, seen));
    for block in BLOCKS.into_iter().filter(|block| bytes.len() / block <= BLOCKS_MAX) {
        let input = Blocks { rest: bytes, block, is_pause: false };
        let streamed = read(|seen| read_stream(input, seen).expect("memory does not fail"));
        assert_eq!(streamed, whole, "in blocks of {block} bytes");
    }
});

fn read(how: impl FnOnce(&mut Seen)) -> Seen {
    let mut seen = Seen::default();
    how(&mut seen);
    seen
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<(String, i64, String)>,
    failed: Vec<(u64, &'static str, String)>,
}

impl Visitor for Seen {
    fn event(&mut self, _index: u64, event: &Event<'_>, text: &str) {
        let again = Leaf::of(text).and_then(|leaf| leaf.event()).expect("the text alone makes the event again");
        assert_eq!(
            (&again.source, &again.name, again.time, &again.event_id),
            (&event.source, &event.name, event.time, &event.event_id)
        );
        self.events.push((event.name.to_string(), event.time.as_millis(), text.to_owned()));
    }

    fn failed(&mut self, index: u64, error: &IntakeError, _text: &str) {
        self.failed.push((index, error.field(), error.to_string()));
    }
}

/// Hands out `block` bytes and then nothing once, which ends one read of the stream but not the stream: the reader
/// sees exactly these blocks.
struct Blocks<'b> {
    rest: &'b [u8],
    block: usize,
    is_pause: bool,
}

impl Read for Blocks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_pause = !self.is_pause;
        if !self.is_pause {
            return Ok(0);
        }
        let n = self.block.min(self.rest.len()).min(buffer.len());
        let (now, later) = self.rest.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.rest = later;
        Ok(n)
    }
}
