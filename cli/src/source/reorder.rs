//! Holds records back until their time has come, in bounded memory: what does not fit waits in an unnamed temporary file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_classifier::routing::Slot;
use shared::Timestamp;

/// Text kept in memory; more goes to the file.
const MEMORY_BYTES_MAX: usize = 32 << 20;

/// A queue by time, and by order of arrival among equals.
#[derive(Default)]
pub struct ReorderBuffer {
    waiting: BinaryHeap<Reverse<Item>>,
    arrived: u64,
    memory_bytes: usize,
    spill: Option<Spill>,
}

/// Where a record came from and who wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Position of its input.
    pub input: usize,
    /// Which record of the input.
    pub index: u64,
    /// The classifiers that want it.
    pub slots: Box<[Slot]>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    time: Timestamp,
    arrival: u64,
    origin: Origin,
    text: Place,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Memory(Box<str>),
    Disk { at: u64, bytes: u32 },
}

struct Spill {
    file: File,
    end: u64,
    live: u64,
}

impl ReorderBuffer {
    /// Adds a record.
    pub fn push(&mut self, time: Timestamp, origin: Origin, text: &str) {
        let place = if self.memory_bytes + text.len() > MEMORY_BYTES_MAX { self.spill(text) } else { None };
        let text = place.unwrap_or_else(|| {
            self.memory_bytes += text.len();
            Place::Memory(text.into())
        });
        self.waiting.push(Reverse(Item { time, arrival: self.arrived, origin, text }));
        self.arrived += 1;
    }

    /// Takes the earliest record if its time is not after `until`.
    pub fn pop_until(&mut self, until: Timestamp) -> Option<(Origin, Box<str>)> {
        if self.waiting.peek()?.0.time > until {
            return None;
        }
        let Reverse(item) = self.waiting.pop()?;
        let text = match item.text {
            Place::Memory(text) => {
                self.memory_bytes -= text.len();
                text
            }
            Place::Disk { at, bytes } => {
                let spill = self.spill.as_mut().expect("a place on disk needs the file");
                spill.read(at, bytes).expect("the temporary file this process wrote can be read back")
            }
        };
        Some((item.origin, text))
    }

    /// Writes to the file; `None` when there is none to be had, and memory must do.
    fn spill(&mut self, text: &str) -> Option<Place> {
        if self.spill.is_none() {
            self.spill = tempfile::tempfile().ok().map(|file| Spill { file, end: 0, live: 0 });
        }
        let spill = self.spill.as_mut()?;
        let at = spill.write(text).ok()?;
        Some(Place::Disk { at, bytes: u32::try_from(text.len()).ok()? })
    }
}

impl Spill {
    fn write(&mut self, text: &str) -> io::Result<u64> {
        if self.live == 0 {
            // Nothing waits in the file: its space is used again.
            self.end = 0;
        }
        let at = self.end;
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(text.as_bytes())?;
        self.end += text.len() as u64;
        self.live += 1;
        Ok(at)
    }

    fn read(&mut self, at: u64, bytes: u32) -> io::Result<Box<str>> {
        let mut text = vec![0; bytes as usize];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut text)?;
        self.live -= 1;
        String::from_utf8(text).map(String::into_boxed_str).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Origin {
        Origin { input: 0, index: 0, slots: Box::new([]) }
    }

    #[test]
    fn more_than_memory_holds_comes_back_in_order() {
        let mut buffer = ReorderBuffer::default();
        let long = "x".repeat(MEMORY_BYTES_MAX / 8);
        for i in 0..24_i64 {
            buffer.push(Timestamp::from_millis(i * 7 % 24), here(), &format!("{}{long}", i * 7 % 24));
        }
        assert!(buffer.spill.is_some());
        for i in 0..24 {
            let (_, text) = buffer.pop_until(Timestamp::from_millis(23)).unwrap();
            assert_eq!(text.split('x').next(), Some(i.to_string().as_str()));
        }
        assert!(buffer.pop_until(Timestamp::from_millis(i64::MAX)).is_none());
    }

    #[test]
    fn nothing_is_released_before_its_time() {
        let mut buffer = ReorderBuffer::default();
        buffer.push(Timestamp::from_millis(5), here(), "a");
        assert!(buffer.pop_until(Timestamp::from_millis(4)).is_none());
        assert!(buffer.pop_until(Timestamp::from_millis(5)).is_some());
    }
}
