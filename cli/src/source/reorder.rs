//! Holds records back until their time has come, in bounded memory: what does not fit waits in an unnamed temporary file.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::rc::Rc;
use std::vec;

use aws_classifier::intake::{self, IntakeError};
use aws_classifier::routing::Slot;
use shared::Timestamp;
use shared::event::{Event, Outline};

/// Text kept in memory; more goes to the file. A quarter of what a replay may take at all.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// A queue by time, and by order of arrival among equals.
#[derive(Default)]
pub struct ReorderBuffer {
    /// When the next record of each run is due, the how-manieth it arrived, and where in `runs` its run is.
    order: BinaryHeap<Reverse<(Timestamp, u64, u32)>>,
    runs: Vec<Option<Run>>,
    free: Vec<u32>,
    arrived: u64,
    memory_bytes: Rc<Cell<usize>>,
    spill: Option<Spill>,
}

/// What was read together: the texts of records one after another, who wants them, and where their headers stand. It is
/// kept as long as one of the records is needed: a record of its own for each would cost more than reading it.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Position of their input.
    pub input: usize,
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
    /// When it is due.
    pub time: Timestamp,
    /// The how-manieth it arrived: see [`ReorderBuffer::arrive`].
    pub arrived: u64,
    /// Which record of the input.
    pub index: u64,
    /// Its text.
    pub text: Range<u32>,
    /// The classifiers that want it.
    pub slots: Range<u32>,
    /// Where its header stands, when that is known.
    pub outline: Option<u32>,
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

/// The temporary file of records that wait cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SpillUnreadable(#[from] pub io::Error);

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
    pub fn input(&self) -> usize {
        self.kept.bundle.input
    }

    /// Which record of the input.
    pub const fn index(&self) -> u64 {
        self.item.index
    }

    /// One CloudTrail record or envelope as JSON; [`Record::event`] reads it.
    pub fn text(&self) -> &str {
        match &self.read_back {
            Some(text) => text,
            None => &self.kept.bundle.texts[in_memory(&self.item.text)],
        }
    }

    /// The classifiers that want it.
    pub fn slots(&self) -> &[Slot] {
        &self.kept.bundle.slots[in_memory(&self.item.slots)]
    }

    /// Reads it, which the reader did before: its header only where it has to be read again.
    ///
    /// # Errors
    /// As [`intake::event`].
    #[inline]
    pub fn event(&self) -> Result<Event<'_>, IntakeError> {
        match self.item.outline.and_then(|at| self.kept.bundle.outlines.get(at as usize)) {
            Some(outline) => Ok(Event::from_outline(self.text(), outline)),
            None => intake::event(self.text()),
        }
    }
}

const fn in_memory(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// Records of one bundle, in the order in which they are due.
struct Run {
    items: vec::IntoIter<Item>,
    kept: Rc<Kept>,
}

struct Spill {
    file: File,
    end: u64,
    /// Bytes of it that are still needed.
    live: Rc<Cell<usize>>,
}

impl ReorderBuffer {
    /// The number of the next record to arrive.
    pub const fn arrive(&mut self) -> u64 {
        self.arrived += 1;
        self.arrived
    }

    /// Adds records of a bundle. Its texts stay in memory when there is no file to be had.
    pub fn add(&mut self, bundle: Bundle, mut items: Vec<Item>) {
        let due = |item: &Item| (item.time, item.arrived);
        if !items.is_sorted_by_key(due) {
            items.sort_unstable_by_key(due);
        }
        let Some(first) = items.first() else { return };
        let (time, arrived) = due(first);
        let run = Some(Run { items: items.into_iter(), kept: self.keep(bundle) });
        let place = match self.free.pop() {
            Some(place) => {
                self.runs[place as usize] = run;
                place
            }
            None => {
                self.runs.push(run);
                u32::try_from(self.runs.len() - 1).expect("fewer runs wait than fit in memory")
            }
        };
        self.order.push(Reverse((time, arrived, place)));
    }

    fn keep(&mut self, mut bundle: Bundle) -> Rc<Kept> {
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

    /// Takes the earliest record if its time is not after `until`.
    ///
    /// # Errors
    /// When a record that waited in the temporary file cannot be read back.
    pub fn pop_until(&mut self, until: Timestamp) -> Result<Option<Record>, SpillUnreadable> {
        let Some((item, kept)) = self.next_until(until) else { return Ok(None) };
        let read_back = match (kept.on_disk, &mut self.spill) {
            (Some(start), Some(spill)) => Some(spill.read(start + u64::from(item.text.start), item.text.len())?),
            _ => None,
        };
        Ok(Some(Record { kept, item, read_back }))
    }

    fn next_until(&mut self, until: Timestamp) -> Option<(Item, Rc<Kept>)> {
        let mut earliest = self.order.peek_mut()?;
        let Reverse((time, _, place)) = *earliest;
        if time > until {
            return None;
        }
        let run = self.runs[place as usize].as_mut()?;
        let (item, kept) = (run.items.next()?, Rc::clone(&run.kept));
        if let Some(next) = run.items.as_slice().first() {
            *earliest = Reverse((next.time, next.arrived, place));
            drop(earliest);
        } else {
            PeekMut::pop(earliest);
            self.runs[place as usize] = None;
            self.free.push(place);
        }
        Some((item, kept))
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

    fn item(buffer: &mut ReorderBuffer, millis: i64, text: Range<u32>) -> Item {
        let (time, arrived) = (Timestamp::from_millis(millis), buffer.arrive());
        Item { time, arrived, index: 0, text, slots: 0..0, outline: None }
    }

    fn push(buffer: &mut ReorderBuffer, millis: i64, text: &str) {
        let item = item(buffer, millis, 0..text.len() as u32);
        buffer.add(bundle(text), vec![item]);
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
            let record = buffer.pop_until(Timestamp::from_millis(23)).unwrap().unwrap();
            assert_eq!(record.text().split('x').next(), Some(i.to_string().as_str()));
        }
        assert!(buffer.pop_until(Timestamp::from_millis(i64::MAX)).unwrap().is_none());
        assert_eq!(buffer.memory_bytes.get(), 0);
    }

    #[test]
    fn a_temporary_file_that_cannot_be_read_is_an_error() {
        let mut buffer = ReorderBuffer::default();
        for millis in 0..3 {
            push(&mut buffer, millis, &"x".repeat(MEMORY_BYTES_MAX / 2));
        }
        buffer.spill.as_mut().unwrap().file.set_len(0).unwrap();
        let popped: Vec<bool> = (0..3).map(|_| buffer.pop_until(Timestamp::from_millis(3)).is_ok()).collect();
        assert_eq!(popped, [true, true, false]);
    }

    #[test]
    fn texts_count_as_long_as_one_of_them_waits() {
        let mut buffer = ReorderBuffer::default();
        let items = vec![item(&mut buffer, 2, 1..3), item(&mut buffer, 1, 0..1)];
        buffer.add(bundle("abc"), items);
        let first = buffer.pop_until(Timestamp::from_millis(1)).unwrap().unwrap();
        assert_eq!(first.text(), "a");
        drop(first);
        assert_eq!(buffer.memory_bytes.get(), 3);
        let second = buffer.pop_until(Timestamp::from_millis(2)).unwrap().unwrap();
        assert_eq!(second.text(), "bc");
        drop(second);
        assert_eq!(buffer.memory_bytes.get(), 0);
    }

    #[test]
    fn nothing_is_released_before_its_time() {
        let mut buffer = ReorderBuffer::default();
        push(&mut buffer, 5, "a");
        assert!(buffer.pop_until(Timestamp::from_millis(4)).unwrap().is_none());
        assert!(buffer.pop_until(Timestamp::from_millis(5)).unwrap().is_some());
    }

    #[test]
    fn records_of_several_bundles_come_by_time_and_equals_as_they_arrived() {
        let mut buffer = ReorderBuffer::default();
        let first: Vec<Item> =
            [5, 1, 7].into_iter().zip(0..).map(|(ms, at)| item(&mut buffer, ms, at..at + 1)).collect();
        let second: Vec<Item> =
            [7, 5, 2].into_iter().zip(0..).map(|(ms, at)| item(&mut buffer, ms, at..at + 1)).collect();
        buffer.add(bundle("abc"), first);
        buffer.add(bundle("xyz"), second);
        push(&mut buffer, 2, "-");
        let mut order = String::new();
        while let Some(record) = buffer.pop_until(Timestamp::from_millis(9)).unwrap() {
            order.push_str(record.text());
        }
        assert_eq!(order, "bz-aycx");
        assert!(buffer.runs.iter().all(Option::is_none));
    }
}
