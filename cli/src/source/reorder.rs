//! Holds records back until their time has come, in bounded memory: what does not fit waits in an unnamed temporary file.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::rc::Rc;

use aws_classifier::intake::{self, IntakeError};
use aws_classifier::routing::Slot;
use shared::Timestamp;
use shared::event::{Event, Outline};

/// Text kept in memory; more goes to the file. Three eighths of what a replay may take at all.
const MEMORY_BYTES_MAX: usize = 96 << 20;

/// A queue by time, and by order of arrival among equals.
#[derive(Default)]
pub struct ReorderBuffer {
    /// When, the how-manieth, and where in `items`.
    order: BinaryHeap<Reverse<(Timestamp, u64, u32)>>,
    items: Vec<Option<Waiting>>,
    free: Vec<u32>,
    arrived: u64,
    memory_bytes: Rc<Cell<usize>>,
    spill: Option<Spill>,
}

/// What was read together: the texts of records one after another, who wants them, and where their headers stand. It is
/// kept as long as one of the records is needed: a record of its own for each would cost more than reading it.
#[derive(Debug, Default)]
pub struct Bundle {
    /// The texts.
    pub texts: String,
    /// The classifiers that want the records.
    pub slots: Vec<Slot>,
    /// Where the headers stand in the texts, of those of which that is known.
    pub outlines: Vec<Outline>,
}

/// One record of a bundle.
#[derive(Clone, Debug)]
pub struct Item {
    /// Position of its input.
    pub input: usize,
    /// Which record of the input.
    pub index: u64,
    /// Its text.
    pub text: Range<usize>,
    /// The classifiers that want it.
    pub slots: Range<usize>,
    /// Where its header stands, when that is known.
    pub outline: Option<usize>,
}

/// A bundle that waits, with its texts in memory or on disk.
#[derive(Debug)]
pub struct Kept {
    bundle: Bundle,
    /// Where in the temporary file the texts begin.
    on_disk: Option<u64>,
    bytes: usize,
    /// Where the bytes are counted while they are kept.
    counted: Rc<Cell<usize>>,
}

impl Kept {
    fn new(bundle: Bundle, on_disk: Option<u64>, bytes: usize, counted: &Rc<Cell<usize>>) -> Rc<Self> {
        counted.set(counted.get() + bytes);
        Rc::new(Self { bundle, on_disk, bytes, counted: Rc::clone(counted) })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.counted.set(self.counted.get() - self.bytes);
    }
}

/// A record that at least one classifier wants, or that was asked for.
#[derive(Debug)]
pub struct Record {
    kept: Rc<Kept>,
    item: Item,
    /// The text, when it was on disk.
    read_back: Option<String>,
}

impl Record {
    /// Position of its input.
    pub const fn input(&self) -> usize {
        self.item.input
    }

    /// Which record of the input.
    pub const fn index(&self) -> u64 {
        self.item.index
    }

    /// One CloudTrail record or envelope as JSON; [`Record::event`] reads it.
    pub fn text(&self) -> &str {
        match &self.read_back {
            Some(text) => text,
            None => &self.kept.bundle.texts[self.item.text.clone()],
        }
    }

    /// The classifiers that want it.
    pub fn slots(&self) -> &[Slot] {
        &self.kept.bundle.slots[self.item.slots.clone()]
    }

    /// Reads it, which the reader did before: its header only where it has to be read again.
    ///
    /// # Errors
    /// As [`intake::event`].
    pub fn event(&self) -> Result<Event<'_>, IntakeError> {
        match self.item.outline.and_then(|at| self.kept.bundle.outlines.get(at)) {
            Some(outline) => Ok(Event::from_outline(self.text(), outline)),
            None => intake::event(self.text()),
        }
    }
}

struct Waiting {
    item: Item,
    kept: Rc<Kept>,
}

struct Spill {
    file: File,
    end: u64,
    /// Bytes of it that are still needed.
    live: Rc<Cell<usize>>,
}

impl ReorderBuffer {
    /// A bundle whose records are to be added. Its texts stay in memory when there is no file to be had.
    pub fn admit(&mut self, mut bundle: Bundle) -> Rc<Kept> {
        let bytes = bundle.texts.len();
        if self.memory_bytes.get() + bytes > MEMORY_BYTES_MAX {
            if self.spill.is_none() {
                self.spill = tempfile::tempfile().ok().map(|file| Spill { file, end: 0, live: Rc::default() });
            }
            if let Some(spill) = &mut self.spill
                && let Ok(at) = spill.write(&bundle.texts)
            {
                bundle.texts = String::new();
                // Memory is what is short; the headers will be read again.
                bundle.outlines = Vec::new();
                return Kept::new(bundle, Some(at), bytes, &spill.live);
            }
        }
        Kept::new(bundle, None, bytes, &self.memory_bytes)
    }

    /// Adds a record of a bundle.
    pub fn push(&mut self, time: Timestamp, item: Item, kept: &Rc<Kept>) {
        let waiting = Some(Waiting { item, kept: Rc::clone(kept) });
        let place = match self.free.pop() {
            Some(place) => {
                self.items[place as usize] = waiting;
                place
            }
            None => {
                self.items.push(waiting);
                u32::try_from(self.items.len() - 1).expect("fewer records wait than fit in memory")
            }
        };
        self.order.push(Reverse((time, self.arrived, place)));
        self.arrived += 1;
    }

    /// Takes the earliest record if its time is not after `until`.
    pub fn pop_until(&mut self, until: Timestamp) -> Option<Record> {
        if self.order.peek()?.0.0 > until {
            return None;
        }
        let Reverse((_, _, place)) = self.order.pop()?;
        let Waiting { item, kept } = self.items[place as usize].take()?;
        self.free.push(place);
        let read_back = kept.on_disk.map(|start| {
            let spill = self.spill.as_mut().expect("a place on disk needs the file");
            let text = spill.read(start + item.text.start as u64, item.text.len());
            text.expect("the temporary file this process wrote can be read back")
        });
        Some(Record { kept, item, read_back })
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

    fn bundle(texts: &str) -> Bundle {
        Bundle { texts: texts.to_owned(), ..Bundle::default() }
    }

    fn item(text: Range<usize>) -> Item {
        Item { input: 0, index: 0, text, slots: 0..0, outline: None }
    }

    fn push(buffer: &mut ReorderBuffer, millis: i64, text: &str) {
        let kept = buffer.admit(bundle(text));
        buffer.push(Timestamp::from_millis(millis), item(0..text.len()), &kept);
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
            let record = buffer.pop_until(Timestamp::from_millis(23)).unwrap();
            assert_eq!(record.text().split('x').next(), Some(i.to_string().as_str()));
        }
        assert!(buffer.pop_until(Timestamp::from_millis(i64::MAX)).is_none());
        assert_eq!(buffer.memory_bytes.get(), 0);
    }

    #[test]
    fn texts_count_as_long_as_one_of_them_waits() {
        let mut buffer = ReorderBuffer::default();
        let kept = buffer.admit(bundle("abc"));
        buffer.push(Timestamp::from_millis(1), item(0..1), &kept);
        buffer.push(Timestamp::from_millis(2), item(1..3), &kept);
        drop(kept);
        let first = buffer.pop_until(Timestamp::from_millis(1)).unwrap();
        assert_eq!(first.text(), "a");
        drop(first);
        assert_eq!(buffer.memory_bytes.get(), 3);
        let second = buffer.pop_until(Timestamp::from_millis(2)).unwrap();
        assert_eq!(second.text(), "bc");
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
