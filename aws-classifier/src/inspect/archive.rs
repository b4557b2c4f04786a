//! What is inside zip and gzip files, within bounds that hold for one inspection as a whole.
//!
//! Other archives (tar, 7z, rar, …) and other compressions inside zip files are not opened, nor what is encrypted; the
//! report says so. A zip file may stand behind other content, as readers look for its end: so do we.

use std::io::{Cursor, Read};
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::kinds::Kind;
use super::yara::TimeLeft;
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
/// Remarks that members cannot be looked into leave room for reasons.
const REMARKS_MAX: usize = 10;
/// The record at the end of a zip file, and the longest comment that can follow it.
const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const COMMENT_BYTES_MAX: usize = 65_535;

/// Archives and compressions that are not opened.
const CLOSED: [&str; 16] = [
    "application/vnd.bzip3",
    "application/vnd.debian.binary-package",
    "application/vnd.ms-cab-compressed",
    "application/vnd.rar",
    "application/x-7z-compressed",
    "application/x-bzip2",
    "application/x-compress",
    "application/x-cpio",
    "application/x-lz4",
    "application/x-lzip",
    "application/x-rar-compressed",
    "application/x-rpm",
    "application/x-tar",
    "application/x-unix-archive",
    "application/x-xz",
    "application/zstd",
];

/// What one inspection may still open.
pub(super) struct Budget {
    depth: u32,
    members: usize,
    bytes: u64,
    pub(super) yara: TimeLeft,
}

impl Budget {
    pub(super) const fn new(yara: Duration) -> Self {
        Self { depth: DEPTH_MAX, members: MEMBERS_MAX, bytes: TOTAL_BYTES_MAX, yara: TimeLeft::of(yara) }
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
    let is_zip = content.starts_with(b"PK\x03\x04") || content.starts_with(END);
    let is_gzip = kind.looks_like("application/gzip");
    // Anything may hold the four bytes of an end; a zip file can be listed from there.
    let is_behind = !is_zip && end_of_zip(content).is_some() && ZipArchive::new(Cursor::new(content)).is_ok();
    if let Some(closed) = CLOSED.into_iter().find(|mime| kind.looks_like(mime)) {
        report.add("archive", Judgement::Clean, format!("{closed}: such archives are not looked into"));
    }
    if !is_zip && !is_gzip && !is_behind {
        return;
    }
    if budget.depth == 0 {
        report.add("archive", Judgement::Suspicious, format!("archives more than {DEPTH_MAX} deep were not opened"));
        return;
    }
    budget.depth -= 1;
    let mut opened = Opened { inspector, budget, report };
    if is_behind {
        opened.remark("a zip file stands behind other content");
    }
    if is_zip || is_behind {
        opened.zip(content);
    }
    if is_gzip {
        opened.gzip(object.name, content);
    }
    budget.depth += 1;
}

/// Where the record at the end of a zip file begins, if there is one.
fn end_of_zip(content: &[u8]) -> Option<usize> {
    let from = content.len().saturating_sub(END_BYTES + COMMENT_BYTES_MAX);
    let at = memchr::memmem::rfind(&content[from..], END)? + from;
    (content.len() - at >= END_BYTES).then_some(at)
}

/// How many entries it says that there are; `None` when another record says so.
fn entries_said(content: &[u8]) -> Option<usize> {
    let at = end_of_zip(content)? + 10;
    let said = u16::from_le_bytes([*content.get(at)?, *content.get(at + 1)?]);
    (said != u16::MAX).then_some(said.into())
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
        // What it says, and what came out: either may be the larger.
        let (mut declared, mut inflated) = (0_u64, 0_u64);
        let mut bombs = 0_usize;
        for index in 0..archive.len() {
            // As it is stored: the crate's own inflating trusts the size that an entry says it has.
            let Ok(mut entry) = archive.by_index_raw(index) else {
                unknown += 1;
                continue;
            };
            let (said, packed) = (entry.size(), entry.compressed_size());
            declared = declared.saturating_add(said);
            let name = entry.name().map_or_else(|_| format!("entry {index}"), std::borrow::Cow::into_owned);
            if entry.is_dir() {
                continue;
            }
            if entry.encrypted() {
                encrypted += 1;
                continue;
            }
            if self.budget.members == 0 || self.budget.bytes == 0 {
                left += 1;
                continue;
            }
            let size = match entry.compression() {
                CompressionMethod::Stored => self.member(&name, &mut entry),
                CompressionMethod::Deflated => self.member(&name, &mut DeflateDecoder::new(entry)),
                _ => {
                    unknown += 1;
                    continue;
                }
            };
            inflated += size;
            if is_bomb(size.max(said), packed) {
                bombs += 1;
                if self.report.reasons.len() < REASONS_MAX {
                    let what = format!("{}: inflates from {packed} to {} bytes or more", shown(&name), size.max(said));
                    self.report.add("archive", Judgement::Suspicious, what);
                }
            }
            if size > said && self.report.reasons.len() < REASONS_MAX {
                let what = format!("{}: holds more than the {said} bytes it says", shown(&name));
                self.report.add("archive", Judgement::Suspicious, what);
            }
        }
        // Members that share their bytes are none by themselves.
        let size = declared.max(inflated);
        if bombs == 0 && is_bomb(size, content.len() as u64) {
            let what = format!("inflates from {} to {size} bytes", content.len());
            self.report.add("archive", Judgement::Suspicious, what);
        }
        // Of entries with one name a reader sees one; which one, is its choice.
        let hidden = entries_said(content).map_or(0, |said| said.saturating_sub(archive.len()));
        if hidden > 0 {
            let what = format!("{hidden} entries have the name of another one and were not looked at");
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
        let mut rest = content;
        let inflated = self.member(&inner, &mut MultiGzDecoder::new(&mut rest));
        // Of the part that was read: what follows is not inflated, and may be anything.
        let read = content.len() - rest.len();
        if is_bomb(inflated, read as u64) {
            let what = format!("inflates from {read} to {inflated} bytes or more");
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
        if size > limit {
            self.remark(format!("{}: only the first {limit} bytes were looked at", shown(name)));
        }
        content.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        // The true size of a cut member is not known; it is more than was read, which is all that is needed.
        let object = Object { name, content_type: None, size, content: &content };
        let inner = self.inspector.inspect_within(&object, self.budget);
        for reason in inner.reasons {
            let room = match reason.judgement {
                Judgement::Clean if reason.check == "archive" => REMARKS_MAX,
                Judgement::Clean => 0,
                Judgement::Suspicious | Judgement::Malicious => REASONS_MAX,
            };
            if self.report.reasons.len() < room {
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

    /// Bytes that do not get smaller.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        std::iter::repeat_with(&mut next).take(len).collect()
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
            assert!(report.reasons.iter().any(|r| r.what.contains("inflates from")), "{name}");
        }
        // What stands beside a bomb does not hide it.
        let noise = noise(2 << 20);
        let padded = [gzip(&zeros), gzip(&noise)].concat();
        for (name, content) in [("log.gz", padded), ("log.zip", zip(&[("log", &zeros), ("noise", &noise)], 0))] {
            let report = inspect(name, &content);
            assert!(report.reasons.iter().any(|r| r.what.contains("inflates from")), "{name}: {report:?}");
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

    /// Sets a little-endian number in the first central entry, so many bytes behind its signature.
    fn lie(file: &mut [u8], behind: usize, value: u32) {
        let at = memchr::memmem::find(file, b"PK\x01\x02").unwrap() + behind;
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn sizes_that_lie_are_not_believed() {
        let zeros = vec![0; 40 << 20];
        let mut small = zip(&[("log", &zeros)], 0);
        lie(&mut small, 24, 7);
        let report = inspect("log.zip", &small);
        for said in ["log: holds more than the 7 bytes it says", "log: inflates from"] {
            assert!(report.reasons.iter().any(|r| r.what.starts_with(said)), "{said}: {report:?}");
        }
        let mut large = zip(&[("a.txt", b"hello")], 0);
        lie(&mut large, 24, u32::MAX - 1);
        assert_eq!(inspect("a.zip", &large).judgement, Judgement::Suspicious, "it claims to be a bomb");
        // More packed bytes than there are, and an offset behind the end.
        for (behind, value) in [(20, u32::MAX - 1), (42, u32::MAX - 1), (42, 3), (24, u32::MAX), (20, u32::MAX)] {
            let mut odd = zip(&[("a.txt", b"hello")], 0);
            lie(&mut odd, behind, value);
            let report = inspect("a.zip", &odd);
            assert!(report.reasons.len() <= 2, "{behind} {value}: {report:?}");
        }
        // The counts of entries at the end.
        let mut many = zip(&[("a.txt", b"hello")], 0);
        let end = end_of_zip(&many).unwrap();
        many[end + 8..end + 12].copy_from_slice(&[0xfe; 4]);
        assert!(inspect("a.zip", &many).reasons[0].what.contains("cannot be listed"));
    }

    #[test]
    fn entries_that_share_their_bytes_are_bounded() {
        let kernel = vec![0; 8 << 20];
        let mut file = zip(&[("0", &kernel)], 0);
        // Three hundred entries that all are the first one: 2.4 GB of some kilobytes.
        let central = memchr::memmem::find(&file, b"PK\x01\x02").unwrap();
        let end = end_of_zip(&file).unwrap();
        let entry = file[central..end].to_vec();
        let mut directory = Vec::new();
        for n in 0..300_u32 {
            let mut entry = entry.clone();
            let name = format!("{n:03}");
            entry[28..30].copy_from_slice(&3_u16.to_le_bytes());
            entry.truncate(46);
            entry.extend(name.as_bytes());
            directory.extend(entry);
        }
        let mut tail = file[end..].to_vec();
        file.truncate(central);
        tail[8..10].copy_from_slice(&300_u16.to_le_bytes());
        tail[10..12].copy_from_slice(&300_u16.to_le_bytes());
        tail[12..16].copy_from_slice(&(directory.len() as u32).to_le_bytes());
        file.extend(directory);
        file.extend(tail);
        let report = inspect("many.zip", &file);
        assert_eq!(report.judgement, Judgement::Suspicious, "{report:?}");
        let what: Vec<&str> = report.reasons.iter().map(|r| r.what.as_str()).collect();
        assert!(what[0].starts_with("inflates from") && what[1].contains("entries were left out"), "{what:?}");
    }

    #[test]
    fn of_entries_with_one_name_it_is_said_that_one_is_hidden() {
        let report = inspect("a.zip", &zip(&[("a.txt", SHELL), ("a.txt", b"hello")], 0));
        assert_eq!(report.judgement, Judgement::Suspicious);
        assert!(report.reasons[0].what.starts_with("1 entries have the name of another one"), "{report:?}");
    }

    #[test]
    fn a_zip_file_behind_other_content_is_opened() {
        let zipped = zip(&[("up/shell.php", SHELL)], 0);
        let picture = [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &[7; 500], &zipped].concat();
        let report = inspect("photo.png", &picture);
        assert_eq!(report.judgement, Judgement::Malicious, "{report:?}");
        assert_eq!(report.reasons[0].what, "a zip file stands behind other content");
        let harmless = inspect("notes.txt", b"the end of a zip file begins with PK\x05\x06, and so on and so forth");
        assert_eq!((harmless.judgement, harmless.reasons), (Judgement::Clean, vec![]));
    }

    #[test]
    fn archives_that_are_not_looked_into_are_named() {
        let mut tar = vec![0; 1024];
        tar[..5].copy_from_slice(b"a.php");
        tar[257..263].copy_from_slice(b"ustar\0");
        for (name, content, said) in [
            ("a.7z", b"7z\xbc\xaf\x27\x1c\0\x04".to_vec(), "application/x-7z-compressed: "),
            ("a.rar", b"Rar!\x1a\x07\x01\0".to_vec(), "application/vnd.rar: "),
            ("a.tar", tar.clone(), "application/x-tar: "),
            ("a.tgz", gzip(&tar), "a.tar: archive: application/x-tar: "),
        ] {
            let report = inspect(name, &content);
            assert_eq!(report.judgement, Judgement::Clean, "{name}");
            assert_eq!(report.reasons[0].what, format!("{said}such archives are not looked into"), "{name}");
        }
    }

    #[test]
    fn what_lies_beyond_the_limit_of_a_member_is_said_to_be_unseen() {
        let mut long = noise(17 << 20);
        long.extend(SHELL);
        for (name, content) in [("data.gz", gzip(&long)), ("data.zip", zip(&[("data", &long)], 0))] {
            let report = inspect(name, &content);
            assert_eq!(report.reasons.len(), 1, "{name}: {report:?}");
            assert_eq!(report.reasons[0].what, "data: only the first 16777216 bytes were looked at", "{name}");
        }
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
