//! YARA rules. Compiling and scanning is in `yara/engine.rs`, behind the feature `yara`: that engine brings a compiler for
//! WebAssembly along.
//!
//! Every rule that matches counts as a signature does: one makes a file suspicious, two make it malicious. A rule may say
//! in its metadata that it needs no second one: `malicious = true`, `severity = "high"` or `"critical"`, or a number from
//! 75 on as `severity` (Elastic's rules) or `score` (those of signature-base, where 75 is an alert).

#[cfg(feature = "yara")]
mod engine;
#[cfg(not(feature = "yara"))]
mod engine {
    //! Refuses rules: there is nothing to read them with.

    use std::time::Duration;

    use super::{Scan, Sources};

    pub(super) enum Compiled {}

    pub(super) fn compile(_sources: &Sources) -> Result<Compiled, String> {
        Err("this program was built without YARA: `cargo build --release --features yara` builds it with".to_owned())
    }

    impl Compiled {
        pub(super) fn scan(&self, _name: &str, _content: &[u8], _limit: Duration, _scan: &mut Scan) {
            match *self {}
        }
    }
}

use std::time::{Duration, Instant};

use shared::classifier::SettingsError;
use shared::ports::Files;

use engine::Compiled;

const KEY: &str = "yara_rules";

/// Files of rules, by name.
type Sources = Vec<(String, Vec<u8>)>;

/// The time that scanning may still take, for a file and all that is in it.
pub(super) struct TimeLeft {
    left: Duration,
    /// It was not enough for all.
    pub(super) is_over: bool,
}

impl TimeLeft {
    pub(super) const fn of(left: Duration) -> Self {
        Self { left, is_over: false }
    }
}

/// What scanning a content came to.
#[derive(Default)]
pub(super) struct Scan {
    /// The rules that match, by name.
    pub(super) found: Vec<String>,
    /// One of them needs no second one.
    pub(super) is_grave: bool,
    /// There was no time for all of it.
    is_unfinished: bool,
}

/// All rules.
#[derive(Default)]
pub(super) struct YaraRules(Vec<Compiled>);

impl YaraRules {
    /// Compiles the rules of these files, and of all files below these folders that end in `.yar` or `.yara`.
    pub(super) fn add(&mut self, names: &[String], files: &dyn Files) -> Result<(), SettingsError> {
        if names.is_empty() {
            return Ok(());
        }
        let refused = |why: String| SettingsError::new(KEY, why);
        let mut sources = Sources::new();
        for name in names {
            let listed = files.list(name).map_err(refused)?;
            let is_file = matches!(&listed[..], [one] if one.ends_with(name.as_str()));
            let named_so = |file: &String| is_file || file.ends_with(".yar") || file.ends_with(".yara");
            let before = sources.len();
            for name in listed.into_iter().filter(named_so) {
                let content = files.read(&name).map_err(refused)?;
                sources.push((name, content));
            }
            if sources.len() == before {
                return Err(refused(format!("there are no YARA rules in {name}: no .yar and no .yara")));
            }
        }
        self.0.push(engine::compile(&sources).map_err(refused)?);
        Ok(())
    }

    /// The rules that match, within the time left.
    pub(super) fn scan(&self, name: &str, content: &[u8], time: &mut TimeLeft) -> Scan {
        let mut scan = Scan::default();
        for rules in &self.0 {
            if time.left.is_zero() {
                scan.is_unfinished = true;
                break;
            }
            // The one place that looks at a clock, and only to stop in time.
            let started = Instant::now();
            rules.scan(name, content, time.left, &mut scan);
            time.left = time.left.saturating_sub(started.elapsed());
        }
        time.is_over |= scan.is_unfinished;
        scan
    }
}

#[cfg(all(test, not(feature = "yara")))]
mod tests {
    use super::*;

    struct Rules;

    impl Files for Rules {
        fn read(&self, _name: &str) -> Result<Vec<u8>, String> {
            Ok(b"rule a { condition: true }".to_vec())
        }

        fn list(&self, folder: &str) -> Result<Vec<String>, String> {
            Ok(vec![folder.to_owned()])
        }
    }

    #[test]
    fn without_the_engine_rules_are_refused_and_it_is_said_how_to_get_it() {
        let error = YaraRules::default().add(&["rules.yar".to_owned()], &Rules).expect_err("refused");
        assert!(error.why.contains("built without YARA") && error.why.contains("--features yara"), "{}", error.why);
        assert!(YaraRules::default().add(&[], &Rules).is_ok());
    }
}
