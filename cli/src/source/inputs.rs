//! Which files there are to read, and in which order.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_classifier::intake::text_log::{Line, TextLog};
use aws_classifier::intake::{Leaf, inflate};
use memchr::memmem;
use shared::Timestamp;

use crate::output;

/// Endings of files that are read when a folder is named. A file named itself is read whatever its ending.
const ENDINGS: [&str; 8] = [".json", ".json.gz", ".jsonl", ".jsonl.gz", ".log", ".log.gz", ".ndjson", ".ndjson.gz"];
/// How much of a file is looked at for its first record's time.
const HEAD_BYTES: u64 = 64 << 10;

/// One file, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The path; `None` is standard input.
    pub path: Option<PathBuf>,
    /// The path as text, `-` for standard input.
    pub name: String,
    /// Its size; 0 for standard input.
    pub bytes: u64,
    /// The time in its name, else of its first record, else the beginning of time.
    pub start: Timestamp,
    /// A pipe or a device: it may have to be waited for, and what was read of it is gone.
    pub is_pipe: bool,
}

/// A path that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there, or not ours to read.
    #[error("could not read {path}")]
    Unreadable {
        /// The path.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A folder without a single log file.
    #[error(
        "no log files in {path}: files ending in .json, .jsonl, .ndjson or .log, or in one of these and .gz, are read"
    )]
    Empty {
        /// The folder.
        path: String,
    },
}

/// All files that `paths` name, folders searched to their depth, ordered by start time and then by name. `-` is
/// standard input. CloudTrail's digest files are left out. What within a folder cannot be opened is among them: it is
/// for the reading to fail there, and for the others to be read.
///
/// # Errors
/// When a path that is named cannot be read, or a folder holds no log file.
pub fn inputs(paths: &[PathBuf]) -> Result<Vec<Input>, SourceError> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            inputs.push(Input { path: None, name: "-".to_owned(), is_pipe: true, ..closed(PathBuf::new()) });
            continue;
        }
        let unreadable = |source| SourceError::Unreadable { path: output::path(path), source };
        let meta = fs::metadata(path).map_err(unreadable)?;
        if meta.is_dir() {
            let before = inputs.len();
            search(path, &mut inputs)?;
            if inputs.len() == before {
                return Err(SourceError::Empty { path: output::path(path) });
            }
        } else if meta.is_file() {
            inputs.push(input(path.clone(), meta.len()).map_err(unreadable)?);
        } else {
            inputs.push(Input { is_pipe: true, ..closed(path.clone()) });
        }
    }
    inputs.sort_by(|a, b| (a.start, &a.name).cmp(&(b.start, &b.name)));
    inputs.dedup_by(|a, b| a.path.is_some() && a.path == b.path);
    Ok(inputs)
}

fn search(folder: &Path, inputs: &mut Vec<Input>) -> Result<(), SourceError> {
    let unreadable = |source| SourceError::Unreadable { path: output::path(folder), source };
    let mut folders = Vec::new();
    let mut entries = fs::read_dir(folder).map_err(unreadable)?;
    loop {
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            // Links to folders are not followed: they may lead in circles.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if ENDINGS.iter().any(|e| name.ends_with(e)) && !name.contains("_CloudTrail-Digest_") {
                match fs::metadata(&path) {
                    Ok(meta) if !meta.is_file() => {}
                    Ok(meta) => inputs.push(input(path.clone(), meta.len()).unwrap_or_else(|_| closed(path))),
                    Err(_) => inputs.push(closed(path)),
                }
            }
        }
        entries = loop {
            let Some(folder) = folders.pop() else { return Ok(()) };
            match fs::read_dir(&folder) {
                Ok(entries) => break entries,
                Err(_) => inputs.push(closed(folder)),
            }
        };
    }
}

/// What cannot be looked into before it is read.
fn closed(path: PathBuf) -> Input {
    let start = Timestamp::from_millis(i64::MIN);
    Input { name: path.display().to_string(), path: Some(path), bytes: 0, start, is_pipe: false }
}

fn input(path: PathBuf, bytes: u64) -> io::Result<Input> {
    let name = path.display().to_string();
    let in_name = path.file_name().and_then(|n| time_in_name(&n.to_string_lossy()));
    let start = match in_name {
        Some(time) => time,
        None => time_in_head(File::open(&path)?).unwrap_or(Timestamp::from_millis(i64::MIN)),
    };
    Ok(Input { path: Some(path), name, bytes, start, is_pipe: false })
}

/// The `20260301T1200Z` of `123456789012_CloudTrail_us-east-1_20260301T1200Z_abc.json.gz`.
fn time_in_name(name: &str) -> Option<Timestamp> {
    name.split('_').find_map(|part| {
        let digits = part.strip_suffix('Z').filter(|d| d.len() == 13 && d.as_bytes()[8] == b'T' && d.is_ascii())?;
        let (date, time) = (&digits[..8], &digits[9..]);
        let text = format!("{}-{}-{}T{}:{}:00Z", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..]);
        Timestamp::parse(&text)
    })
}

/// The first `"eventTime"` (or EventBridge `"time"`) near the start of the file. Whatever goes wrong here comes up again
/// when the file is read, and is reported then.
fn time_in_head(mut file: File) -> Option<Timestamp> {
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    if inflate::is_gzip(&head) {
        let mut text = Vec::new();
        let _ = inflate::stream(io::Cursor::new(head)).take(HEAD_BYTES).read_to_end(&mut text);
        head = text;
    }
    let in_json = ["\"eventTime\"", "\"time\""].iter().find_map(|key| {
        let at = memmem::find(&head, key.as_bytes())? + key.len();
        let text = String::from_utf8_lossy(head.get(at..(at + 48).min(head.len()))?);
        let value = text.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()?.to_owned();
        Timestamp::parse(&value)
    });
    in_json.or_else(|| time_in_lines(&String::from_utf8_lossy(&head)))
}

/// The time of the first line of a text log among the first few.
fn time_in_lines(head: &str) -> Option<Timestamp> {
    let mut lines = TextLog::default();
    head.lines().take(10).find_map(|line| match lines.line(line) {
        Line::Record(text) => Leaf::of(text).and_then(|leaf| leaf.event()).ok().map(|event| event.time),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_in_the_name() {
        let name = "123456789012_CloudTrail_us-east-1_20260301T1205Z_Mu0KsOhtH1ar15ZZ.json.gz";
        assert_eq!(time_in_name(name), Timestamp::parse("2026-03-01T12:05:00Z"));
        assert_eq!(time_in_name("a_20269901T1205Z_b.json"), None);
        assert_eq!(time_in_name("aws.json"), None);
    }
}
