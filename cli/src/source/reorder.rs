//! Holds records back until their time has come, in bounded memory: what does not fit waits in an unnamed temporary file.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{Deref, Range};
use std::rc::Rc;

use aws_classifier::routing::Slot;
use shared::Timestamp;
use shared::event::Outline;

/// Text kept in memory; more goes to the file. A quarter of what a replay may take at all.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// A queue by time, and by order of arrival among equals.
#[derive(Default)]
pub struct ReorderBuffer {
    /// When, the how-manieth, and where in `items`.
    order: BinaryHeap<Reverse<(Timestamp, u64, usize)>>,
    items: Vec<Option<Item>>,
    free: Vec<usize>,
    arrived: u64,
    memory_bytes: Rc<Cell<usize>>,
    spill: Option<Spill>,
}

/// Where a record came from and who wants it.
#[derive(Debug)]
pub struct Origin {
    /// Position of its input.
    pub input: usize,
    /// Which record of the input.
    pub index: u64,
    /// The classifiers that want it.
    pub slots: Box<[Slot]>,
    /// Where the header stands in the text, when that is known.
    pub outline: Option<Box<Outline>>,
}

/// The texts of records that were read together. They are kept as long as one of them is needed.
#[derive(Debug)]
pub struct Texts {
    kept: Kept,
    bytes: usize,
    /// Where the bytes are counted while they are kept.
    counted: Rc<Cell<usize>>,
}

#[derive(Debug)]
enum Kept {
    Memory(String),
    /// From this byte of the temporary file on.
    Disk(u64),
}

impl Texts {
    fn new(kept: Kept, bytes: usize, counted: &Rc<Cell<usize>>) -> Rc<Self> {
        counted.set(counted.get() + bytes);
        Rc::new(Self { kept, bytes, counted: Rc::clone(counted) })
    }
}

impl Drop for Texts {
    fn drop(&mut self) {
        self.counted.set(self.counted.get() - self.bytes);
    }
}

/// The text of a record, in memory.
#[derive(Debug)]
pub struct Text {
    texts: Rc<Texts>,
    at: Range<usize>,
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.texts.kept {
            Kept::Memory(all) => &all[self.at.clone()],
            // Never: what is on disk is read back first.
            Kept::Disk(_) => "",
        }
    }
}

struct Item {
    origin: Origin,
    texts: Rc<Texts>,
    at: Range<usize>,
}

struct Spill {
    file: File,
    end: u64,
    /// Bytes of it that are still needed.
    live: Rc<Cell<usize>>,
}

impl ReorderBuffer {
    /// Texts whose records are to be added. They stay in memory when there is no file to be had.
    pub fn admit(&mut self, all: String) -> Rc<Texts> {
        let bytes = all.len();
        if self.memory_bytes.get() + bytes > MEMORY_BYTES_MAX {
            if self.spill.is_none() {
                self.spill = tempfile::tempfile().ok().map(|file| Spill { file, end: 0, live: Rc::default() });
            }
            if let Some(spill) = &mut self.spill
                && let Ok(at) = spill.write(&all)
            {
                return Texts::new(Kept::Disk(at), bytes, &spill.live);
            }
        }
        Texts::new(Kept::Memory(all), bytes, &self.memory_bytes)
    }

    /// Adds a record whose text stands `at` these bytes of `texts`.
    pub fn push(&mut self, time: Timestamp, mut origin: Origin, texts: &Rc<Texts>, at: Range<usize>) {
        if matches!(texts.kept, Kept::Disk(_)) {
            // Memory is what is short; the header will be read again.
            origin.outline = None;
        }
        let item = Some(Item { origin, texts: Rc::clone(texts), at });
        let place = match self.free.pop() {
            Some(place) => {
                self.items[place] = item;
                place
            }
            None => {
                self.items.push(item);
                self.items.len() - 1
            }
        };
        self.order.push(Reverse((time, self.arrived, place)));
        self.arrived += 1;
    }

    /// Takes the earliest record if its time is not after `until`.
    pub fn pop_until(&mut self, until: Timestamp) -> Option<(Origin, Text)> {
        if self.order.peek()?.0.0 > until {
            return None;
        }
        let Reverse((_, _, place)) = self.order.pop()?;
        let Item { origin, texts, at } = self.items[place].take()?;
        self.free.push(place);
        let Kept::Disk(start) = texts.kept else { return Some((origin, Text { texts, at })) };
        let spill = self.spill.as_mut().expect("a place on disk needs the file");
        let text = spill.read(start + at.start as u64, at.len());
        let text = text.expect("the temporary file this process wrote can be read back");
        let at = 0..text.len();
        Some((origin, Text { texts: Texts::new(Kept::Memory(text), at.len(), &self.memory_bytes), at }))
    }
}

impl Spill {
    fn write(&mut self, text: &str) -> io::Result<u64> {
        if self.live.get() == 0 {
            // Nothing waits in the file: its space is used again.
            self.end = 0;
        }
        let at = self.end;
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(text.as_bytes())?;
        self.end += text.len() as u64;
        Ok(at)
    }

    fn read(&mut self, at: u64, bytes: usize) -> io::Result<String> {
        let mut text = vec![0; bytes];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut text)?;
        String::from_utf8(text).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Origin {
        Origin { input: 0, index: 0, slots: Box::new([]), outline: None }
    }

    fn push(buffer: &mut ReorderBuffer, millis: i64, text: &str) {
        let texts = buffer.admit(text.to_owned());
        buffer.push(Timestamp::from_millis(millis), here(), &texts, 0..text.len());
    }

    #[test]
    fn more_than_memory_holds_comes_back_in_order() {
        let mut buffer = ReorderBuffer::default();
        let long = "x".repeat(MEMORY_BYTES_MAX / 8);
        for i in 0..24_i64 {
            push(&mut buffer, i * 7 % 24, &format!("{}{long}", i * 7 % 24));
        }
        assert!(buffer.spill.is_some());
        for i in 0..24 {
            let (_, text) = buffer.pop_until(Timestamp::from_millis(23)).unwrap();
            assert_eq!(text.split('x').next(), Some(i.to_string().as_str()));
        }
        assert!(buffer.pop_until(Timestamp::from_millis(i64::MAX)).is_none());
        assert_eq!(buffer.memory_bytes.get(), 0);
    }

    #[test]
    fn texts_count_as_long_as_one_of_them_waits() {
        let mut buffer = ReorderBuffer::default();
        let texts = buffer.admit("abc".to_owned());
        buffer.push(Timestamp::from_millis(1), here(), &texts, 0..1);
        buffer.push(Timestamp::from_millis(2), here(), &texts, 1..3);
        drop(texts);
        let (_, first) = buffer.pop_until(Timestamp::from_millis(1)).unwrap();
        assert_eq!(&*first, "a");
        drop(first);
        assert_eq!(buffer.memory_bytes.get(), 3);
        let (_, second) = buffer.pop_until(Timestamp::from_millis(2)).unwrap();
        assert_eq!(&*second, "bc");
        drop(second);
        assert_eq!(buffer.memory_bytes.get(), 0);
    }

    #[test]
    fn nothing_is_released_before_its_time() {
        let mut buffer = ReorderBuffer::default();
        push(&mut buffer, 5, "a");
        assert!(buffer.pop_until(Timestamp::from_millis(4)).is_none());
        assert!(buffer.pop_until(Timestamp::from_millis(5)).is_some());
    }
}
