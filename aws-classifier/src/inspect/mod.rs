//! Whether a file is malicious: asked of objects that are uploaded to the buckets of [`Settings`], whose answers the
//! classifier `s3_malicious_file` reports, and by `pipeline inspect` of files.
//!
//! Pure: it judges bytes and a name, and never fetches, stores or runs anything. What outside services know of a file is
//! asked elsewhere ([`crate::reputation`]). Six checks, each of which gives reasons; the worst reason is the verdict:
//!
//! * **hash**: the file is on a list of known hashes;
//! * **metadata**: extension, declared and sniffed type, size ([`Report::score`]);
//! * **signature**: texts and bytes that belong to attacks, by type of file: one is suspicious, two are malicious;
//! * **yara**: YARA rules, each of which counts as a signature (with the feature `yara`);
//! * **fuzzy_hash**: the file is nearly the same as a known one (TLSH distance);
//! * **archive**: what is inside, and whether it inflates beyond measure.
//!
//! # Data files
//!
//! All are UTF-8 text, one entry a line; `#` begins a comment, empty lines are skipped, a bad line refuses the file.
//!
//! * **Hash lists**: `HASH [NAME]`. MD5, SHA-1 or SHA-256 in hexadecimal, told apart by length.
//! * **Fuzzy hash lists**: `TLSH [NAME]`. A TLSH of 128 buckets with a checksum of one byte: `T1` and 70 digits.
//! * **Signature lists**: `TYPE KIND PATTERN`, as in `signatures.txt`, which explains them and is built in.
//!
//! **YARA rules** are files in the language of YARA-X, without `include`; `yara.rs` says what their metadata can do.

mod archive;
mod kinds;
mod lists;
mod signatures;
mod yara;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::classifier::SettingsError;
use shared::config::Document;
use shared::ports::Files;
use shared::text::matches_glob;

use lists::{FuzzyHashes, Hashes};
use signatures::Signatures;
use yara::{TimeLeft, YaraRules};

/// Content beyond this many bytes is not looked at: our choice, twice the largest size that is normal for any type here.
pub const CONTENT_BYTES_MAX: usize = 100 << 20;

/// Nobody waits longer for one file: our choice.
const YARA_TIMEOUT_S_MAX: u32 = 600;

/// The `[inspection]` section: what to inspect, and with what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Buckets whose new objects are inspected (in AWS only): names, in which `*` is any characters. Default none, beside
    /// the one the deployment names. The function needs the permission to read them, and their notifications must reach
    /// its queue. Nothing in them is taken for a log file of CloudTrail.
    pub buckets: Vec<String>,
    /// How many bytes of an object are fetched. Default 20 MiB: what a function of 256 MB has room for; the hashes of
    /// larger objects are not looked up.
    pub object_bytes_max: usize,
    /// Files of known hashes.
    pub hash_lists: Vec<String>,
    /// Files of known fuzzy hashes.
    pub fuzzy_hash_lists: Vec<String>,
    /// Files of signatures, beside the built-in ones.
    pub signature_lists: Vec<String>,
    /// Files of YARA rules, or folders with such files (`.yar`, `.yara`). Only where YARA was built in.
    pub yara_rules: Vec<String>,
    /// How long YARA rules may take for a file and all that is in it. Default 10 s: our choice, a fifth of a function's
    /// time. What was not finished by then is said.
    pub yara_timeout_s: u32,
    /// Score from which a file is malicious. Default 50.
    pub score_malicious_min: u32,
    /// Score from which a file is suspicious. Default 30.
    pub score_suspicious_min: u32,
    /// TLSH distance up to which a file is malicious. Default 50.
    pub distance_malicious_max: u32,
    /// TLSH distance up to which a file is suspicious. Default 100.
    pub distance_suspicious_max: u32,
}

impl Default for Settings {
    /// The numbers are those of the system before this one.
    fn default() -> Self {
        Self {
            buckets: Vec::new(),
            object_bytes_max: 20 << 20,
            hash_lists: Vec::new(),
            fuzzy_hash_lists: Vec::new(),
            signature_lists: Vec::new(),
            yara_rules: Vec::new(),
            yara_timeout_s: 10,
            score_malicious_min: 50,
            score_suspicious_min: 30,
            distance_malicious_max: 50,
            distance_suspicious_max: 100,
        }
    }
}

/// What is inspected.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Its key or file name; the extension counts.
    pub name: &'a str,
    /// The `Content-Type` it was stored with, if any.
    pub content_type: Option<&'a str>,
    /// Its size, which is more than `content` has when it was cut.
    pub size: u64,
    /// Its content, or the beginning of it.
    pub content: &'a [u8],
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// Nothing was found.
    #[default]
    Clean,
    /// Someone should look at it.
    Suspicious,
    /// It is to be kept away from people and machines.
    Malicious,
}

impl Judgement {
    /// In lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Suspicious => "suspicious",
            Self::Malicious => "malicious",
        }
    }
}

/// Why a file is judged as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Which check: `content` (there was none to look at), `hash`, `metadata`, `signature`, `yara`, `fuzzy_hash` or
    /// `archive`; `virustotal` and `hybrid_analysis` for what those say.
    pub check: &'static str,
    /// What it alone would make of the file; `Clean` for a remark.
    pub judgement: Judgement,
    /// In words.
    pub what: String,
}

/// The result of an inspection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The name given.
    pub name: String,
    /// The worst of the reasons.
    pub judgement: Judgement,
    /// The metadata score: extension 30, type mismatch 50, abnormal size 30.
    pub score: u32,
    /// Bytes.
    pub size: u64,
    /// The type its content shows, where it shows one.
    pub sniffed_type: Option<String>,
    /// Hexadecimal; none when the content was cut.
    pub sha256: Option<String>,
    /// Hexadecimal; none when the content was cut.
    pub sha1: Option<String>,
    /// Hexadecimal; none when the content was cut.
    pub md5: Option<String>,
    /// None when the content was cut, or is too small or too uniform for one.
    pub tlsh: Option<String>,
    /// Why, in the order of the checks.
    pub reasons: Vec<Reason>,
}

impl Report {
    pub(crate) fn add(&mut self, check: &'static str, judgement: Judgement, what: String) {
        self.judgement = self.judgement.max(judgement);
        self.reasons.push(Reason { check, judgement, what });
    }
}

/// The checks, with their lists.
pub struct Inspector {
    settings: Settings,
    hashes: Hashes,
    fuzzy_hashes: FuzzyHashes,
    signatures: Signatures,
    yara: YaraRules,
}

impl Inspector {
    /// From the `[inspection]` section of a configuration file; `None` when it cannot be used, which `document` keeps.
    pub fn configure(document: &mut Document<'_>, files: &dyn Files) -> Option<Self> {
        let mut inspector = None;
        let _: Settings =
            document.section_with("inspection", |settings: &Settings| match Self::new(settings.clone(), files) {
                Ok(built) => {
                    inspector = Some(built);
                    Vec::new()
                }
                Err(error) => vec![(error.key.to_owned(), error.why)],
            });
        inspector
    }

    /// Reads the lists.
    ///
    /// # Errors
    /// When a list cannot be read or a line of it is wrong, with file and line; or when the limits contradict each other.
    pub fn new(settings: Settings, files: &dyn Files) -> Result<Self, SettingsError> {
        if settings.score_suspicious_min == 0 || settings.score_suspicious_min > settings.score_malicious_min {
            return Err(SettingsError::new("score_suspicious_min", "must be from 1 to score_malicious_min"));
        }
        if settings.distance_malicious_max > settings.distance_suspicious_max {
            return Err(SettingsError::new("distance_malicious_max", "must be at most distance_suspicious_max"));
        }
        if !(1..=CONTENT_BYTES_MAX).contains(&settings.object_bytes_max) {
            return Err(SettingsError::new("object_bytes_max", format!("must be from 1 to {CONTENT_BYTES_MAX}")));
        }
        if settings.buckets.iter().any(String::is_empty) {
            return Err(SettingsError::new("buckets", "a bucket has a name"));
        }
        if !(1..=YARA_TIMEOUT_S_MAX).contains(&settings.yara_timeout_s) {
            return Err(SettingsError::new("yara_timeout_s", format!("must be from 1 to {YARA_TIMEOUT_S_MAX}")));
        }
        let mut inspector = Self {
            settings: Settings::default(),
            hashes: Hashes::default(),
            fuzzy_hashes: FuzzyHashes::default(),
            signatures: Signatures::built_in(),
            yara: YaraRules::default(),
        };
        inspector.read(&settings, files)?;
        inspector.settings = settings;
        Ok(inspector)
    }

    /// Reads the lists and rules that these settings name, beside those it has.
    ///
    /// # Errors
    /// When one cannot be read or a line of it is wrong, with file and line.
    pub fn read(&mut self, settings: &Settings, files: &dyn Files) -> Result<(), SettingsError> {
        for name in &settings.hash_lists {
            lists::each_line("hash_lists", name, files, |line| self.hashes.add(line))?;
        }
        for name in &settings.fuzzy_hash_lists {
            lists::each_line("fuzzy_hash_lists", name, files, |line| self.fuzzy_hashes.add(line))?;
        }
        for name in &settings.signature_lists {
            lists::each_line("signature_lists", name, files, |line| self.signatures.add(line))?;
        }
        self.yara.add(&settings.yara_rules, files)
    }

    /// With a further bucket whose new objects are inspected.
    #[must_use]
    pub fn watching(mut self, bucket: String) -> Self {
        self.settings.buckets.push(bucket);
        self
    }

    /// Whether new objects of that bucket are inspected.
    pub fn wants(&self, bucket: &str) -> bool {
        self.settings.buckets.iter().any(|pattern| matches_glob(pattern, bucket))
    }

    /// How many bytes of an object are worth fetching.
    pub const fn object_bytes_max(&self) -> usize {
        self.settings.object_bytes_max
    }

    /// Judges an object.
    pub fn inspect(&self, object: &Object<'_>) -> Report {
        let mut budget = archive::Budget::new(Duration::from_secs(self.settings.yara_timeout_s.into()));
        let mut report = self.inspect_within(object, &mut budget);
        if budget.yara.is_over {
            let what = format!("not all rules were tried: {} s were over", self.settings.yara_timeout_s);
            report.add("yara", Judgement::Clean, what);
        }
        report
    }

    /// Judges an object whose content cannot be had any more, by its name and size; `why` says why.
    pub fn inspect_unseen(&self, name: &str, size: u64, why: String) -> Report {
        let mut report = Report { name: name.to_owned(), size, ..Report::default() };
        report.add("content", Judgement::Clean, why);
        self.check_metadata(&kinds::Kind::of(name, None, &[]), size, &mut report);
        report
    }

    fn inspect_within(&self, object: &Object<'_>, budget: &mut archive::Budget) -> Report {
        let content = &object.content[..object.content.len().min(CONTENT_BYTES_MAX)];
        let whole = content.len() as u64 == object.size;
        let mut report = Report { name: object.name.to_owned(), size: object.size, ..Report::default() };
        let kind = kinds::Kind::of(object.name, object.content_type, content);
        report.sniffed_type = kind.sniffed_type().map(str::to_owned);
        if whole {
            self.check_hashes(content, &mut report);
        } else {
            let what = format!("only the first {} of {} bytes were looked at, no hashes", content.len(), object.size);
            report.add("hash", Judgement::Clean, what);
        }
        self.check_metadata(&kind, object.size, &mut report);
        self.check_signatures(&kind, object.name, content, &mut budget.yara, &mut report);
        if whole {
            self.check_fuzzy_hash(content, &mut report);
        }
        archive::check(self, &kind, object, content, budget, &mut report);
        report
    }

    fn check_hashes(&self, content: &[u8], report: &mut Report) {
        let sums = [
            lists::hex(&md5::Md5::digest(content)),
            lists::hex(&sha1::Sha1::digest(content)),
            lists::hex(&Sha256::digest(content)),
        ];
        // One reason is enough for a file that is listed under several hashes.
        if let Some((hash, known_as)) = sums.iter().rev().find_map(|sum| Some((sum, self.hashes.find(sum)?))) {
            report.add("hash", Judgement::Malicious, format!("{hash} is known as {known_as}"));
        }
        let [md5, sha1, sha256] = sums;
        (report.md5, report.sha1, report.sha256) = (Some(md5), Some(sha1), Some(sha256));
    }

    fn check_metadata(&self, kind: &kinds::Kind<'_>, size: u64, report: &mut Report) {
        let marks = kind.marks(size);
        report.score = marks.iter().map(|(points, _)| points).sum();
        let judgement = match report.score {
            score if score >= self.settings.score_malicious_min => Judgement::Malicious,
            score if score >= self.settings.score_suspicious_min => Judgement::Suspicious,
            _ => Judgement::Clean,
        };
        if !marks.is_empty() {
            let what: Vec<String> = marks.into_iter().map(|(points, what)| format!("{what} (+{points})")).collect();
            report.add("metadata", judgement, what.join("; "));
        }
    }

    /// Signatures and YARA rules, which are counted together.
    fn check_signatures(
        &self,
        kind: &kinds::Kind<'_>,
        name: &str,
        content: &[u8],
        yara_time: &mut TimeLeft,
        report: &mut Report,
    ) {
        let judged = |count: usize| match count {
            0 => Judgement::Clean,
            1 => Judgement::Suspicious,
            _ => Judgement::Malicious,
        };
        let found = self.signatures.found(&kind.script_types(), content);
        if !found.is_empty() {
            report.add("signature", judged(found.len()), found.join(", "));
        }
        let scan = self.yara.scan(name, content, yara_time);
        if !scan.found.is_empty() {
            let counted = judged(scan.found.len() + found.len());
            let judgement = if scan.is_grave { Judgement::Malicious } else { counted };
            let what = if scan.found.len() == 1 && !found.is_empty() { ", beside signatures" } else { "" };
            report.add("yara", judgement, format!("{}{what}", scan.found.join(", ")));
        }
    }

    fn check_fuzzy_hash(&self, content: &[u8], report: &mut Report) {
        let Some(hash) = lists::fuzzy_hash(content) else { return };
        report.tlsh = Some(String::from_utf8_lossy(&hash.hash()).into_owned());
        let Some((distance, known_as)) = self.fuzzy_hashes.nearest(&hash) else { return };
        let judgement = if distance <= self.settings.distance_malicious_max {
            Judgement::Malicious
        } else if distance <= self.settings.distance_suspicious_max {
            Judgement::Suspicious
        } else {
            return;
        };
        report.add("fuzzy_hash", judgement, format!("distance {distance} to {known_as}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    struct Lists(BTreeMap<&'static str, String>);

    impl Files for Lists {
        fn read(&self, name: &str) -> Result<Vec<u8>, String> {
            self.0.get(name).map(|t| t.clone().into_bytes()).ok_or_else(|| format!("could not read {name}"))
        }
    }

    fn inspector(hashes: &str, fuzzy: &str) -> Inspector {
        let settings = Settings {
            hash_lists: vec!["hashes".to_owned()],
            fuzzy_hash_lists: vec!["fuzzy".to_owned()],
            ..Settings::default()
        };
        let lists = Lists(BTreeMap::from([("hashes", hashes.to_owned()), ("fuzzy", fuzzy.to_owned())]));
        Inspector::new(settings, &lists).unwrap()
    }

    fn inspected(name: &str, content: &[u8]) -> Report {
        inspector("", "").inspect(&Object { name, content_type: None, size: content.len() as u64, content })
    }

    #[test]
    fn a_configuration_that_says_nothing_about_it_inspects_what_the_deployment_watches() {
        let mut document = Document::parse("pipeline.toml", "");
        let inspector = Inspector::configure(&mut document, &Lists(BTreeMap::new()));
        document.finish().unwrap();
        let inspector = inspector.unwrap().watching("uploads".to_owned());
        assert!(inspector.wants("uploads") && !inspector.wants("builds"));
    }

    /// Text with enough variety for a fuzzy hash.
    fn prose(seed: u32) -> Vec<u8> {
        let words = ["river", "stone", "lamp", "quiet", "orange", "seven", "window", "paper", "under", "cloud"];
        let mut state = seed;
        let mut text = String::new();
        for _ in 0..400 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text += words[(state >> 16) as usize % words.len()];
            text.push(' ');
        }
        text.into_bytes()
    }

    #[test]
    fn ordinary_files_are_clean() {
        for (name, content) in [
            ("notes.txt", &b"Bring the minutes of the meeting."[..]),
            ("photo.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
            ("report.pdf", b"%PDF-1.7\n"),
            ("data.csv", b"id,name\n1,a\n"),
            ("empty", b""),
        ] {
            let report = inspected(name, content);
            assert_eq!((report.judgement, &report.reasons[..]), (Judgement::Clean, &[][..]), "{name}");
        }
    }

    #[test]
    fn known_hashes_are_malicious() {
        let content = b"a file that is known";
        let sums = inspected("a.bin", content);
        for sum in [sums.md5.unwrap(), sums.sha1.unwrap(), sums.sha256.unwrap().to_uppercase()] {
            let inspector = inspector(&format!("# list\n{sum}  Test.File\r\n"), "");
            let report = inspector.inspect(&Object { name: "a.bin", content_type: None, size: 20, content });
            assert_eq!(report.judgement, Judgement::Malicious);
            assert!(report.reasons[0].what.ends_with("is known as Test.File"), "{:?}", report.reasons);
            let cut = inspector.inspect(&Object { name: "a.bin", content_type: None, size: 21, content });
            assert_eq!((cut.judgement, cut.sha256), (Judgement::Clean, None), "a hash of a part is none");
        }
    }

    #[test]
    fn nearly_the_same_file_is_malicious() {
        let (known, other) = (prose(1), b"0123456789abcdef".repeat(40));
        let hash = inspected("a", &known).tlsh.unwrap();
        let mut changed = known.clone();
        changed[700..706].copy_from_slice(b"XXXXXX");
        let inspector = inspector("", &format!("{hash} Family.A\n"));
        let judged = |content: &[u8]| {
            inspector.inspect(&Object { name: "a", content_type: None, size: content.len() as u64, content })
        };
        assert_eq!(judged(&changed).judgement, Judgement::Malicious, "{:?}", judged(&changed));
        assert!(judged(&changed).reasons[0].what.ends_with("to Family.A"));
        assert_eq!(judged(&other).judgement, Judgement::Clean);
        assert_eq!(judged(b"short").tlsh, None);
    }

    #[test]
    fn bad_lists_are_named_with_file_and_line() {
        let refused = |key: &str, content: &str| {
            let mut settings = Settings::default();
            match key {
                "hash" => settings.hash_lists.push("list".to_owned()),
                "fuzzy" => settings.fuzzy_hash_lists.push("list".to_owned()),
                _ => settings.signature_lists.push("list".to_owned()),
            }
            let lists = Lists(BTreeMap::from([("list", content.to_owned())]));
            Inspector::new(settings, &lists).err().unwrap().to_string()
        };
        assert_eq!(
            refused("hash", "\n12ab"),
            "hash_lists: list:2: 12ab is not an MD5, SHA-1 or SHA-256 in hexadecimal"
        );
        assert_eq!(refused("fuzzy", "T1ab"), "fuzzy_hash_lists: list:1: T1ab is not a TLSH (T1 and 70 digits)");
        assert_eq!(refused("signature", "php text"), "signature_lists: list:1: has no TYPE KIND PATTERN");
        assert_eq!(
            refused("signature", "php glob x*"),
            "signature_lists: list:1: glob is not text, itext, hex or hex@0"
        );
        let missing = Settings { hash_lists: vec!["gone".to_owned()], ..Settings::default() };
        let error = Inspector::new(missing, &Lists(BTreeMap::new())).err().unwrap();
        assert_eq!(error.to_string(), "hash_lists: could not read gone");
    }

    #[test]
    fn without_a_section_objects_are_inspected_with_the_defaults() {
        let configured = |text: &str| {
            let mut document = Document::parse("pipeline.toml", text);
            let inspector = Inspector::configure(&mut document, &Lists(BTreeMap::new()));
            (inspector.is_some(), document.finish().is_ok())
        };
        assert_eq!(configured(""), (true, true));
        assert_eq!(configured("[inspection]\nobject_bytes_max = 7\n"), (true, true));
        assert_eq!(configured("[inspection]\nobject_bytes_max = 0\n"), (false, false));
        assert!(!configured("[inspection]\nobjects = 7\n").1);
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let none = Lists(BTreeMap::new());
        for settings in [
            Settings { score_suspicious_min: 60, ..Settings::default() },
            Settings { score_suspicious_min: 0, ..Settings::default() },
            Settings { distance_malicious_max: 101, ..Settings::default() },
            Settings { object_bytes_max: 0, ..Settings::default() },
            Settings { yara_timeout_s: 0, ..Settings::default() },
            Settings { buckets: vec![String::new()], ..Settings::default() },
        ] {
            assert!(Inspector::new(settings, &none).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_content_panics(name in "[a-z]{0,4}(\\.[a-z]{0,4}){0,3}", head in prop::sample::select(vec![&b""[..], b"PK\x03\x04", b"\x1f\x8b\x08", b"MZ", b"#!"]), tail: Vec<u8>) {
            let content = [head, &tail].concat();
            let _ = inspected(&name, &content);
        }
    }
}
