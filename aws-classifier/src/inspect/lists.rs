//! Known hashes and fuzzy hashes, and how lists are read.

use std::collections::HashMap;
use std::str::FromStr;

use shared::classifier::SettingsError;
use shared::ports::Files;
use tlsh2::{TlshDefault, TlshDefaultBuilder};

/// TLSH needs 50 bytes, and costs time on large ones: of those the first 16 MiB count (our choice).
const FUZZY_BYTES_MAX: usize = 16 << 20;

/// Reads a list line by line; `add` answers what is wrong with one.
pub(super) fn each_line(
    key: &'static str,
    name: &str,
    files: &dyn Files,
    mut add: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), SettingsError> {
    let content = files.read(name).map_err(|why| SettingsError::new(key, why))?;
    let refused = |line: usize, why: String| SettingsError::new(key, format!("{name}:{}: {why}", line + 1));
    for (number, line) in content.split(|b| *b == b'\n').enumerate() {
        let line = std::str::from_utf8(line).map_err(|_| refused(number, "is not UTF-8".to_owned()))?;
        let line = line.trim_start_matches('\u{feff}').trim();
        if !line.is_empty() && !line.starts_with('#') {
            add(line).map_err(|why| refused(number, why))?;
        }
    }
    Ok(())
}

/// The first word and the name behind it, which may be absent.
fn entry(line: &str) -> (&str, &str) {
    let (value, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let name = name.trim();
    (value, if name.is_empty() { "listed" } else { name })
}

/// What a list holds may be anything; an error message quotes little of it.
pub(super) fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Known hashes, in lower case, with names.
#[derive(Default)]
pub(super) struct Hashes(HashMap<Box<str>, Box<str>>);

impl Hashes {
    pub(super) fn add(&mut self, line: &str) -> Result<(), String> {
        let (hash, name) = entry(line);
        if !matches!(hash.len(), 32 | 40 | 64) || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("{} is not an MD5, SHA-1 or SHA-256 in hexadecimal", shortened(hash)));
        }
        self.0.entry(hash.to_ascii_lowercase().into()).or_insert_with(|| name.into());
        Ok(())
    }

    pub(super) fn find(&self, hash: &str) -> Option<&str> {
        self.0.get(hash).map(|name| &**name)
    }
}

/// Known fuzzy hashes with names.
#[derive(Default)]
pub(super) struct FuzzyHashes(Vec<(TlshDefault, Box<str>)>);

impl FuzzyHashes {
    pub(super) fn add(&mut self, line: &str) -> Result<(), String> {
        let (hash, name) = entry(line);
        let upper = hash.to_ascii_uppercase();
        let is_hash = upper.len() == 72
            && upper.strip_prefix("T1").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match TlshDefault::from_str(&upper) {
            Ok(known) if is_hash => self.0.push((known, name.into())),
            _ => return Err(format!("{} is not a TLSH (T1 and 70 digits)", shortened(hash))),
        }
        Ok(())
    }

    /// The nearest and how far it is; the first of several.
    pub(super) fn nearest(&self, hash: &TlshDefault) -> Option<(u32, &str)> {
        let distances = self.0.iter().map(|(known, name)| (hash.diff(known, true).unsigned_abs(), &**name));
        distances.min_by_key(|(distance, _)| *distance)
    }
}

/// `None` when the content is too small or too uniform.
pub(super) fn fuzzy_hash(content: &[u8]) -> Option<TlshDefault> {
    TlshDefaultBuilder::build_from(&content[..content.len().min(FUZZY_BYTES_MAX)])
}
