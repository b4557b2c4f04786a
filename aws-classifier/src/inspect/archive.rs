//! What is inside zip and gzip files, within bounds that hold for one inspection as a whole.
//!
//! Other archives (tar, 7z, rar, …) and other compressions inside zip files are not opened, nor what is encrypted.

use std::io::{Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use zip::ZipArchive;

use super::kinds::Kind;
use super::{Inspector, Judgement, Object, Report};

/// Our choices: more than honest uploads need, little enough to judge a hostile one in about a second.
const DEPTH_MAX: u32 = 3;
const MEMBERS_MAX: usize = 1000;
const MEMBER_BYTES_MAX: u64 = 16 << 20;
const TOTAL_BYTES_MAX: u64 = 64 << 20;
/// Entries a zip file may have to be listed at all: the list is held in memory.
const ENTRIES_MAX: usize = 20_000;
/// As for log files: what inflates to more than this many times its size, above 16 MiB, is a bomb.
const RATIO_MAX: u64 = 200;
const RATIO_FREE_BYTES: u64 = 16 << 20;
/// Reasons quote at most this many members.
const REASONS_MAX: usize = 20;

/// What one inspection may still open.
pub(super) struct Budget {
    depth: u32,
    members: usize,
    bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { depth: DEPTH_MAX, members: MEMBERS_MAX, bytes: TOTAL_BYTES_MAX }
    }
}

/// Adds what archives hold to the report of the file around them.
pub(super) fn check(
    inspector: &Inspector,
    kind: &Kind<'_>,
    object: &Object<'_>,
    content: &[u8],
    budget: &mut Budget,
    report: &mut Report,
) {
    let is_zip = content.starts_with(b"PK\x03\x04") || content.starts_with(b"PK\x05\x06");
    let is_gzip = kind.looks_like("application/gzip");
    if !is_zip && !is_gzip {
        return;
    }
    if budget.depth == 0 {
        report.add("archive", Judgement::Suspicious, format!("archives more than {DEPTH_MAX} deep were not opened"));
        return;
    }
    budget.depth -= 1;
    let mut opened = Opened { inspector, budget, report };
    if is_zip {
        opened.zip(content);
    } else {
        opened.gzip(object.name, content);
    }
    budget.depth += 1;
}

struct Opened<'x> {
    inspector: &'x Inspector,
    budget: &'x mut Budget,
    report: &'x mut Report,
}

impl Opened<'_> {
    fn remark(&mut self, what: impl Into<String>) {
        self.report.add("archive", Judgement::Clean, what.into());
    }

    fn zip(&mut self, content: &[u8]) {
        let entries = memchr::memmem::find_iter(content, b"PK\x01\x02").take(ENTRIES_MAX + 1).count();
        if entries > ENTRIES_MAX {
            let what = format!("more than {ENTRIES_MAX} entries: not opened");
            self.report.add("archive", Judgement::Suspicious, what);
            return;
        }
        let mut archive = match ZipArchive::new(Cursor::new(content)) {
            Ok(archive) => archive,
            Err(error) => return self.remark(format!("the zip file cannot be listed: {error}")),
        };
        let (mut encrypted, mut unknown, mut left) = (0_usize, 0_usize, 0_usize);
        let mut declared = 0_u64;
        for index in 0..archive.len() {
            let Ok(entry) = archive.by_index_raw(index) else {
                unknown += 1;
                continue;
            };
            declared = declared.saturating_add(entry.size());
            let (is_dir, is_encrypted) = (entry.is_dir(), entry.encrypted());
            let name = entry.name().map_or_else(|_| format!("entry {index}"), std::borrow::Cow::into_owned);
            drop(entry);
            if is_dir {
                continue;
            }
            if is_encrypted {
                encrypted += 1;
            } else if self.budget.members == 0 || self.budget.bytes == 0 {
                left += 1;
            } else {
                match archive.by_index(index) {
                    Ok(mut entry) => drop(self.member(&name, &mut entry)),
                    Err(_) => unknown += 1,
                }
            }
        }
        if is_bomb(declared, content.len() as u64) {
            let what = format!("inflates from {} to {declared} bytes", content.len());
            self.report.add("archive", Judgement::Suspicious, what);
        }
        for (count, what) in [
            (encrypted, "entries are encrypted and were not opened"),
            (unknown, "entries could not be read"),
            (left, "entries were left out: too many, or too large together"),
        ] {
            if count > 0 {
                self.remark(format!("{count} {what}"));
            }
        }
    }

    fn gzip(&mut self, name: &str, content: &[u8]) {
        let lower = name.to_ascii_lowercase();
        let inner = match lower.strip_suffix(".tgz") {
            Some(stem) => format!("{}.tar", &name[..stem.len()]),
            None => name[..lower.strip_suffix(".gz").map_or(name.len(), str::len)].to_owned(),
        };
        let inflated = self.member(&inner, &mut MultiGzDecoder::new(content));
        if is_bomb(inflated, content.len() as u64) {
            let what = format!("inflates from {} to {inflated} bytes or more", content.len());
            self.report.add("archive", Judgement::Suspicious, what);
        }
    }

    /// Inspects one member, or the beginning of it; answers how many bytes were read.
    fn member(&mut self, name: &str, reader: &mut dyn Read) -> u64 {
        self.budget.members = self.budget.members.saturating_sub(1);
        let limit = MEMBER_BYTES_MAX.min(self.budget.bytes);
        let mut content = Vec::new();
        // One byte more shows that there is more.
        let read = reader.take(limit + 1).read_to_end(&mut content);
        self.budget.bytes -= (content.len() as u64).min(limit);
        if let Err(error) = read {
            self.remark(format!("{}: could not be read beyond {} bytes: {error}", shown(name), content.len()));
            if content.is_empty() {
                return 0;
            }
        }
        let size = content.len() as u64;
        content.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        // The true size of a cut member is not known; it is more than was read, which is all that is needed.
        let object = Object { name, content_type: None, size, content: &content };
        let inner = self.inspector.inspect_within(&object, self.budget);
        for reason in inner.reasons {
            if reason.judgement != Judgement::Clean && self.report.reasons.len() < REASONS_MAX {
                self.report.add(
                    "archive",
                    reason.judgement,
                    format!("{}: {}: {}", shown(name), reason.check, reason.what),
                );
            }
        }
        self.report.judgement = self.report.judgement.max(inner.judgement);
        size
    }
}

const fn is_bomb(inflated: u64, compressed: u64) -> bool {
    inflated > RATIO_FREE_BYTES && inflated / RATIO_MAX > compressed
}

/// Names inside archives are anyone's: no control characters, and not too long.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Settings;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder};
    use shared::ports::Files;
    use std::io::Write;

    struct NoFiles;

    impl Files for NoFiles {
        fn read(&self, name: &str) -> Result<Vec<u8>, String> {
            Err(format!("there is no file {name}"))
        }
    }

    fn inspect(name: &str, content: &[u8]) -> Report {
        let inspector = Inspector::new(Settings::default(), &NoFiles).unwrap();
        inspector.inspect(&Object { name, content_type: None, size: content.len() as u64, content })
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A zip file of deflated members, written by hand: the reader is what is tested.
    fn zip(members: &[(&str, &[u8])], flags: u16) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, content) in members {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(content).unwrap();
            let packed = encoder.finish().unwrap();
            let mut sum = flate2::Crc::new();
            sum.update(content);
            let mut common = Vec::new();
            for field in [20_u16, flags, 8, 0, 0] {
                common.extend(field.to_le_bytes());
            }
            for field in [sum.sum(), packed.len() as u32, content.len() as u32] {
                common.extend(field.to_le_bytes());
            }
            common.extend((name.len() as u16).to_le_bytes());
            common.extend(0_u16.to_le_bytes());
            let offset = file.len() as u32;
            file.extend(b"PK\x03\x04");
            file.extend(&common);
            file.extend(name.as_bytes());
            file.extend(&packed);
            directory.extend(b"PK\x01\x02\x14\0");
            directory.extend(&common);
            directory.extend([0; 10]);
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let (offset, count) = (file.len() as u32, members.len() as u16);
        file.extend(&directory);
        file.extend(b"PK\x05\x06\0\0\0\0");
        file.extend(count.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend((directory.len() as u32).to_le_bytes());
        file.extend(offset.to_le_bytes());
        file.extend([0; 2]);
        file
    }

    const SHELL: &[u8] =
        b"<?php eval(base64_decode($_POST['x'])); // a web shell, long enough to have the size of one. \
        It goes on a little.";

    #[test]
    fn what_is_inside_counts() {
        for (name, content) in [
            ("site.zip", zip(&[("readme.txt", b"hello"), ("up/shell.php", SHELL)], 0)),
            ("shell.php.gz", gzip(SHELL)),
            ("outer.zip", zip(&[("inner.zip", &zip(&[("shell.php", SHELL)], 0))], 0)),
        ] {
            let report = inspect(name, &content);
            assert_eq!(report.judgement, Judgement::Malicious, "{name}: {report:?}");
            let what: Vec<&str> = report.reasons.iter().map(|r| r.what.as_str()).collect();
            assert!(what.iter().any(|w| w.contains("shell.php") && w.contains("eval(")), "{what:?}");
        }
        let harmless = inspect("notes.zip", &zip(&[("a.txt", b"hello"), ("b.csv", b"1,2")], 0));
        assert_eq!((harmless.judgement, harmless.reasons), (Judgement::Clean, vec![]));
    }

    #[test]
    fn bombs_are_bounded_and_suspicious() {
        let zeros = vec![0; 40 << 20];
        for (name, content) in [("log.gz", gzip(&zeros)), ("log.zip", zip(&[("log", &zeros)], 0))] {
            let report = inspect(name, &content);
            assert_eq!(report.judgement, Judgement::Suspicious, "{name}: {report:?}");
            assert!(report.reasons.iter().any(|r| r.what.starts_with("inflates from")), "{name}");
        }
        let mut nested = zip(&[("a.txt", b"hello")], 0);
        for _ in 0..6 {
            nested = zip(&[("a.zip", &nested)], 0);
        }
        let report = inspect("nested.zip", &nested);
        assert!(report.reasons[0].what.contains("archives more than 3 deep"), "{report:?}");
        let many: Vec<(String, &[u8])> = (0..MEMBERS_MAX + 5).map(|i| (format!("{i}.txt"), &b"x"[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(n, c)| (n.as_str(), *c)).collect();
        let report = inspect("many.zip", &zip(&many, 0));
        assert!(report.reasons[0].what.starts_with("5 entries were left out"), "{report:?}");
    }

    #[test]
    fn what_cannot_be_opened_is_said() {
        let locked = inspect("locked.zip", &zip(&[("a.php", SHELL)], 1));
        assert_eq!(locked.judgement, Judgement::Clean);
        assert_eq!(locked.reasons[0].what, "1 entries are encrypted and were not opened");
        let mut damaged = gzip(SHELL);
        damaged.truncate(60);
        assert!(inspect("a.gz", &damaged).reasons.iter().any(|r| r.what.contains("could not be read beyond")));
        // Method 14 (LZMA) in both headers: a member that cannot be read is not judged by the nothing that was.
        let mut foreign = zip(&[("a.py", b"x")], 0);
        let central = memchr::memmem::find(&foreign, b"PK\x01\x02").unwrap();
        (foreign[8], foreign[central + 10]) = (14, 14);
        let report = inspect("a.zip", &foreign);
        assert_eq!(report.judgement, Judgement::Clean, "{report:?}");
        assert_eq!(report.reasons.len(), 1, "{report:?}");
        assert!(inspect("a.zip", b"PK\x03\x04 no zip").reasons[0].what.contains("cannot be listed"));
    }
}
