//! Where lines go.
//!
//! The handler's order is: append, then record in the ledger, then commit. A sink that can be read back
//! ([`FileLog`]) uses it to hold every line once across crashes; one that cannot ([`WriteLog`]) may repeat the lines
//! of one batch after a crash in between.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use shared::ports::{PortError, PortResult};

/// Takes log lines, none of which holds a line break.
pub trait LogSink {
    /// Writes the lines durably, except those that it wrote before and that were not committed since.
    fn append(&self, lines: &[String]) -> impl Future<Output = PortResult<()>>;
    /// The lines are recorded elsewhere as written: they will not be appended again.
    fn commit(&self, lines: &[String]) -> impl Future<Output = PortResult<()>>;
    /// Lines that are written and, as far as the sink knows, not committed: what a crash left.
    fn uncommitted(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Lines on a writer, such as standard output of a Lambda function.
#[derive(Debug)]
pub struct WriteLog<W>(RefCell<W>);

impl<W: Write> WriteLog<W> {
    /// A sink that writes to `out`.
    pub const fn new(out: W) -> Self {
        Self(RefCell::new(out))
    }

    /// The writer back.
    pub fn into_inner(self) -> W {
        self.0.into_inner()
    }
}

impl<W: Write> LogSink for WriteLog<W> {
    async fn append(&self, lines: &[String]) -> PortResult<()> {
        let mut out = self.0.borrow_mut();
        out.write_all(&joined(lines))
            .and_then(|()| out.flush())
            .map_err(|e| PortError::retryable("could not write log lines", e))
    }

    async fn commit(&self, _lines: &[String]) -> PortResult<()> {
        Ok(())
    }
}

/// A file that holds every line once, whatever happens between append and commit.
///
/// Beside it, `<file>.offset` holds the offset up to which every line is committed. Opening the file cuts a torn last
/// line off and reads the lines behind the offset: they were written and may or may not be recorded, so they are
/// not written again. A line is known by its whole text, which is a function of the message. One process at a time.
#[derive(Debug)]
pub struct FileLog {
    path: PathBuf,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    end: u64,
    /// The offset in `<file>.offset`.
    committed: u64,
    /// Lines behind the offset that are not committed, by where they start.
    open: BTreeMap<u64, String>,
}

impl FileLog {
    /// Opens the file, or makes it and its folder.
    ///
    /// # Errors
    /// When the file or its offset cannot be read or written.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let end = cut_torn_line(&mut file)?;
        // A file shorter than its offset was replaced: everything in it may be uncommitted.
        let committed = read_offset(&offset_path(&path))?.filter(|o| *o <= end).unwrap_or(0);
        file.seek(SeekFrom::Start(committed))?;
        let mut open = BTreeMap::new();
        let mut at = committed;
        for line in BufReader::new(&file).lines() {
            let line = line?;
            let length = line.len() as u64 + 1;
            open.insert(at, line);
            at += length;
        }
        Ok(Self { path, inner: RefCell::new(Inner { file, end, committed, open }) })
    }

    fn write(&self, lines: &[String]) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        let known: std::collections::HashSet<&str> = inner.open.values().map(String::as_str).collect();
        let mut fresh: Vec<String> = lines.iter().filter(|l| !known.contains(l.as_str())).cloned().collect();
        let mut seen = std::collections::HashSet::new();
        fresh.retain(|line| seen.insert(line.clone()));
        if fresh.is_empty() {
            return Ok(());
        }
        if let Err(error) = inner.file.write_all(&joined(&fresh)).and_then(|()| inner.file.sync_data()) {
            // Half a batch may be there: take it back, so that the next append does not continue a torn line.
            let end = inner.end;
            inner.file.set_len(end)?;
            return Err(error);
        }
        for line in fresh {
            let at = inner.end;
            inner.end += line.len() as u64 + 1;
            inner.open.insert(at, line);
        }
        Ok(())
    }

    fn forget(&self, lines: &[String]) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        let done: std::collections::HashSet<&str> = lines.iter().map(String::as_str).collect();
        inner.open.retain(|_, line| !done.contains(line.as_str()));
        let committed = inner.open.first_key_value().map_or(inner.end, |(at, _)| *at);
        if committed != inner.committed {
            write_offset(&offset_path(&self.path), committed)?;
            inner.committed = committed;
        }
        Ok(())
    }
}

impl LogSink for FileLog {
    async fn append(&self, lines: &[String]) -> PortResult<()> {
        self.write(lines).map_err(|e| PortError::retryable(format!("could not write {}", self.path.display()), e))
    }

    async fn commit(&self, lines: &[String]) -> PortResult<()> {
        self.forget(lines)
            .map_err(|e| PortError::retryable(format!("could not write {}", offset_path(&self.path).display()), e))
    }

    fn uncommitted(&self) -> Vec<String> {
        self.inner.borrow().open.values().cloned().collect()
    }
}

fn joined(lines: &[String]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(lines.iter().map(|l| l.len() + 1).sum());
    for line in lines {
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// Cuts what stands behind the last line break; answers the length.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut end = length;
    let mut block = [0; 8192];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
        file.sync_data()?;
    }
    Ok(end)
}

fn offset_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".offset");
    PathBuf::from(name)
}

/// An offset that cannot be read as a number counts as none: the whole file is read again, which is slower and correct.
fn read_offset(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_offset(path: &Path, offset: u64) -> io::Result<()> {
    let temporary = path.with_extension("offset.tmp");
    std::fs::write(&temporary, offset.to_string())?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| format!("{{\"uid\":\"{n}\"}}")).collect()
    }

    fn content(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).expect("readable").lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_crash_between_append_and_commit_repeats_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("logs/pipeline.log");
        let log = FileLog::open(&path).expect("opened");
        log.append(&lines(&["a", "b"])).await.expect("written");
        log.commit(&lines(&["a", "b"])).await.expect("committed");
        log.append(&lines(&["c", "d", "e"])).await.expect("written");
        drop(log);

        let log = FileLog::open(&path).expect("opened");
        log.append(&lines(&["d"])).await.expect("known");
        log.commit(&lines(&["d"])).await.expect("committed");
        drop(log);

        let log = FileLog::open(&path).expect("opened");
        log.append(&lines(&["e", "f", "c", "f"])).await.expect("written");
        log.commit(&lines(&["c", "e", "f"])).await.expect("committed");
        assert_eq!(content(&path), lines(&["a", "b", "c", "d", "e", "f"]));
        assert_eq!(log.uncommitted(), lines(&["d"]), "committed before, but behind an offset that c held back");
    }

    #[tokio::test]
    async fn a_torn_last_line_is_cut_and_written_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pipeline.log");
        let log = FileLog::open(&path).expect("opened");
        log.append(&lines(&["a"])).await.expect("written");
        drop(log);
        let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
        file.write_all("{\"uid\":\"bé".as_bytes()).expect("written");
        file.write_all(&[0xc3]).expect("written");
        drop(file);

        let log = FileLog::open(&path).expect("opened");
        log.append(&lines(&["b", "a"])).await.expect("written");
        assert_eq!(content(&path), lines(&["a", "b"]));
    }

    #[test]
    fn a_file_that_is_one_torn_line_longer_than_a_block_becomes_empty() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pipeline.log");
        std::fs::write(&path, "x".repeat(20_000)).expect("written");
        FileLog::open(&path).expect("opened");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 0);
    }

    #[tokio::test]
    async fn the_offset_never_passes_an_uncommitted_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pipeline.log");
        let log = FileLog::open(&path).expect("opened");
        log.append(&lines(&["a", "b", "c"])).await.expect("written");
        log.commit(&lines(&["a", "c"])).await.expect("committed");
        let offset = read_offset(&offset_path(&path)).expect("readable");
        assert_eq!(offset, Some(lines(&["a"])[0].len() as u64 + 1));
        log.commit(&lines(&["b"])).await.expect("committed");
        let whole = std::fs::metadata(&path).expect("there").len();
        assert_eq!(read_offset(&offset_path(&path)).expect("readable"), Some(whole));
    }

    #[tokio::test]
    async fn a_replaced_file_and_a_broken_offset_are_survived() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pipeline.log");
        for offset in ["999999", "many"] {
            std::fs::write(&path, "one\n").expect("written");
            std::fs::write(offset_path(&path), offset).expect("written");
            let log = FileLog::open(&path).expect("opened");
            log.append(&["one".to_owned(), "two".to_owned()]).await.expect("written");
            assert_eq!(content(&path), ["one", "two"]);
        }
    }
}
