//! The configuration file: one section per component, read so that all its mistakes are reported together.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use aws_classifier::alarms::{self, Alarms};
use aws_classifier::classifiers::ALL;
use aws_classifier::engine::{self, Engine};
use aws_classifier::inspect::{self, Inspector};
use aws_classifier::intake::log_groups;
use aws_classifier::reputation::{self, ReadKey, Services, hybrid_analysis, virustotal};
use aws_classifier::rules;
use aws_logger::LoggerSettings;
use aws_notifier::NotifierSettings;
use aws_responder::{ActionSettings, REGISTRY, ResponderSettings};
use serde::{Deserialize, Serialize};
use shared::adapters::disk::DiskFiles;
use shared::classifier::SettingsError;
use shared::config::{ConfigError, Document, Mistake};
use shared::places::GeoSettings;
use shared::ports::Files;

use crate::args::ConfigFile;
use crate::failure::Failure;
use crate::source::SourceOptions;
use crate::{output, summary};

/// Read when it exists and no other is named.
pub const DEFAULT_FILE: &str = "pipeline.toml";

/// Everything the commands need.
pub struct Config {
    /// The text it was read from; empty for the defaults.
    pub text: String,
    /// The classifiers, with their settings.
    pub engine: Engine,
    /// `[responder]` and `[actions.<id>]`.
    pub responder: ResponderSettings,
    /// `[notifier]` and `[channels.<id>]`.
    pub notifier: NotifierSettings,
    /// `[logger]`.
    pub logger: LoggerSettings,
    /// `[source]`.
    pub source: SourceSection,
    /// `[inspection]`; objects are inspected in AWS, here files by `pipeline inspect`.
    pub inspector: Inspector,
    /// `[inspection.virustotal]` and `[inspection.hybrid_analysis]`.
    pub services: Services,
}

/// The `[source]` section: how `replay` and `run` read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSection {
    /// Threads that read; 0 means one per core.
    pub threads: u16,
    /// How many seconds records may be out of order within and between files and still be sorted.
    pub lateness_s: i64,
}

impl Default for SourceSection {
    fn default() -> Self {
        Self { threads: 0, lateness_s: SourceOptions::default().lateness_s }
    }
}

/// One day: sorting keeps all records of this span in memory.
const LATENESS_S_MAX: i64 = 86_400;

impl SourceSection {
    fn mistakes(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        if self.threads > 256 {
            mistakes.push(("threads".to_owned(), format!("must be at most 256, is {}", self.threads)));
        }
        if !(0..=LATENESS_S_MAX).contains(&self.lateness_s) {
            let why = format!("must be from 0 to {LATENESS_S_MAX} (a day), is {}", self.lateness_s);
            mistakes.push(("lateness_s".to_owned(), why));
        }
        mistakes
    }

    /// What the reader is told; `threads` of the command line wins.
    pub fn options(&self, threads: Option<u16>) -> SourceOptions {
        let threads = match threads.unwrap_or(self.threads) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => usize::from(n),
        };
        SourceOptions { threads, lateness_s: self.lateness_s, asked_for: None, any_log_group: false }
    }
}

/// Reads the named file, else `pipeline.toml` when it is there, else takes the defaults.
///
/// # Errors
/// When the file cannot be read, and with all its mistakes.
pub fn load(file: &ConfigFile) -> Result<Config, Failure> {
    // Nobody is asked, so nobody needs to have the keys.
    load_with(file, false)
}

/// The same, with the keys for outside services.
///
/// # Errors
/// Also when a key cannot be read.
pub fn load_with_keys(file: &ConfigFile) -> Result<Config, Failure> {
    load_with(file, true)
}

fn load_with(file: &ConfigFile, keys: bool) -> Result<Config, Failure> {
    let found = file.path.clone().or_else(|| {
        let path = PathBuf::from(DEFAULT_FILE);
        path.exists().then_some(path)
    });
    let Some(path) = found else {
        return parse("the built-in defaults", "", &DiskFiles::new("."), &rule_folders(file)?, None);
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::Input(format!(
            "could not read the configuration {}: {error}\nname another file with --config, or write one with \
             `pipeline config --show-defaults > {DEFAULT_FILE}`",
            output::path(&path)
        ))
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let files = DiskFiles::new(folder);
    let variable = |name: &str| std::env::var(name).ok();
    let read_key = reputation::keys(&files, &variable);
    let read_key: Option<&ReadKey<'_>> = if keys { Some(&read_key) } else { None };
    parse(&output::path(&path), &text, &files, &rule_folders(file)?, read_key)
}

/// The folders of `--rules`. They are relative to where the program was started, not to the configuration file.
fn rule_folders(file: &ConfigFile) -> Result<Vec<String>, Failure> {
    let absolute = |path: &PathBuf| {
        let absolute =
            std::path::absolute(path).map_err(|e| Failure::machine(format!("find {}", output::path(path)), e))?;
        let text = absolute.into_os_string().into_string();
        text.map_err(|name| Failure::Input(format!("{} is no UTF-8 name", output::path(Path::new(&name)))))
    };
    file.rules.iter().map(absolute).collect()
}

/// Reads the text of a configuration file. `name` is for error messages. Without `read_key`, keys for outside services are
/// taken for granted.
///
/// # Errors
/// All its mistakes, or all rules that cannot be used.
pub fn parse(
    name: &str,
    text: &str,
    files: &dyn Files,
    rule_folders: &[String],
    read_key: Option<&ReadKey<'_>>,
) -> Result<Config, Failure> {
    let mut document = Document::parse(name, text);
    let engine = Engine::configure(&mut document, files, rule_folders);
    let services = Services::configure(&mut document, read_key.unwrap_or(&|_| Ok("unread".to_owned())));
    let inspector = Inspector::configure(&mut document, files);
    // Checked only: on one machine there is no log group to look into.
    let _: Alarms = Alarms::configure(&mut document);
    let responder = aws_responder::configure(&mut document);
    let notifier = aws_notifier::configure(&mut document);
    let logger = aws_logger::configure(&mut document);
    let source = document.section_with("source", SourceSection::mistakes);
    let misspelt = match &engine {
        Ok(engine) => misspelt(text, &responder, engine.ids()),
        // An id that is unknown may be that of a rule which cannot be used.
        Err(refused) if !refused.rules.is_empty() => Vec::new(),
        Err(refused) => misspelt(text, &responder, &refused.ids),
    };
    match (engine, inspector, document.finish()) {
        (Ok(engine), Some(inspector), Ok(())) if misspelt.is_empty() => {
            let rules = engine.rules();
            if rules.elsewhere > 0 {
                let rules = summary::counted(rules.elsewhere as u64, "rule");
                output::warn(&format!("left out {rules} for other logs than CloudTrail"));
            }
            for error in &rules.skipped {
                output::warn(&format!("left out a rule: {error}"));
            }
            Ok(Config { text: text.to_owned(), engine, responder, notifier, logger, source, inspector, services })
        }
        (engine, _, finished) => {
            let mut mistakes = finished.err().map_or_else(Vec::new, |error| error.mistakes);
            mistakes.extend(misspelt);
            let refused = engine.err().unwrap_or_default();
            let sections = refused.settings.iter().map(|(id, error)| (format!("classifiers.{id}"), error));
            mistakes.extend(sections.map(|(section, error)| unusable(text, &section, error)));
            if mistakes.is_empty() {
                return Err(Failure::Rules(refused.rules));
            }
            mistakes.sort_by_key(|m| m.line);
            Err(ConfigError { file: name.to_owned(), mistakes }.into())
        }
    }
}

/// Classifiers that actions name and that nobody has: such an action would look on and never say so. Only this program
/// knows the classifiers and the actions; the deployed responder takes any name.
fn misspelt(text: &str, responder: &ResponderSettings, ids: &[String]) -> Vec<Mistake> {
    let of_action = |(action, settings): (&&str, &ActionSettings)| {
        let unknown = settings.policy.classifiers.iter().filter(|id| !ids.contains(id));
        let why = |id: &String| SettingsError::new("classifiers", format!("there is no classifier or rule {id}"));
        let section = format!("actions.{action}");
        unknown.map(|id| unusable(text, &section, &why(id))).collect::<Vec<_>>()
    };
    responder.actions.iter().flat_map(of_action).collect()
}

/// A setting that is well formed and still cannot be used.
fn unusable(text: &str, section: &str, error: &SettingsError) -> Mistake {
    Mistake { line: line_of(text, section, error.key), key: format!("{section}.{}", error.key), why: error.why.clone() }
}

/// The line of a key, else of its section's header, else the first.
fn line_of(text: &str, section: &str, key: &str) -> usize {
    let mut header = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            if header.is_some() {
                break;
            }
            header = (name.trim() == section).then_some(number);
        } else if header.is_some() && line.split('=').next().is_some_and(|name| name.trim() == key) {
            return number;
        }
    }
    header.unwrap_or(1)
}

/// There is no allow-list by default; this shows what an entry looks like.
const ALLOW_EXAMPLE: &str = r#"
# What is known and accepted. All conditions of an entry must hold, of a list one; `*` stands for any characters.
# Owner, reason and last day (UTC, by the time of the event) are required, and at least one condition.
# [[allow]]
# name = "nightly scanner"
# owner = "platform@example.com"
# reason = "lists all keys every night"
# expires = 2027-01-31
# principal = "arn:aws:iam::123456789012:user/scanner"   # or the bare name of a user of the event's account
# role = ["deploy-*", "arn:aws:iam::*:role/ci/*"]        # the role of a session
# account = "123456789012"
# network = ["192.0.2.0/24", "2001:db8::/48"]
# resource = "sg-0123*"
# classifier = "iam_*"
"#;

/// A complete configuration with every setting at its default, as `pipeline config --show-defaults` prints it.
///
/// # Errors
/// When a component's defaults cannot be written as TOML, which a test excludes.
pub fn defaults_text() -> Result<String, toml::ser::Error> {
    let mut text = String::from(
        "# Every setting of the pipeline at its default. Keep what you change, delete the rest: what is not said\n\
         # here keeps its default. `pipeline config` checks the file.\n",
    );
    section(&mut text, "source", "How `replay` and `run` read their inputs", &plain(&SourceSection::default()))?;
    section(
        &mut text,
        "classifier",
        "All classifiers: which are off, severities in place of their own, and repeats that are only counted",
        &plain(&engine::Settings::default()),
    )?;
    text.push_str(ALLOW_EXAMPLE);
    section(
        &mut text,
        "rules",
        "Sigma rules: folders beside the built-in ones, and whether one that is `unusable` makes the start \"refuse\" or \
         is left out (\"skip\")",
        &plain(&rules::Settings::default()),
    )?;
    section(
        &mut text,
        "geo",
        "Databases of places: MaxMind DB files, one name or several; `scripts/fetch-geoip` fetches some",
        &plain(&GeoSettings::default()),
    )?;
    section(
        &mut text,
        "log_groups",
        "From which log groups of CloudWatch Logs CloudTrail's records are believed: names of those of `cloudtrail`, with \
         records of their owner, and `OWNER:NAME` of those of an `organization`, with records of every account. `replay` \
         believes all",
        &plain(&log_groups::Settings::default()),
    )?;
    for plugin in ALL {
        let about = format!("{} ({})", plugin.meta.title, plugin.meta.severity);
        section(&mut text, &format!("classifiers.{}", plugin.meta.id), &about, &(plugin.defaults)())?;
    }
    let responder = ResponderSettings::default();
    let inspection = plain(&inspect::Settings::default());
    section(
        &mut text,
        "inspection",
        "What `pipeline inspect` judges files with, and the function the new objects of `buckets` in S3",
        &inspection,
    )?;
    section(
        &mut text,
        "inspection.virustotal",
        "VirusTotal is asked about the SHA-256 of files once there is a `key_file` or a `key_env`, which names a variable \
         of the environment",
        &plain(&virustotal::Settings::default()),
    )?;
    section(
        &mut text,
        "inspection.hybrid_analysis",
        "The same for Hybrid Analysis",
        &plain(&hybrid_analysis::Settings::default()),
    )?;
    section(
        &mut text,
        "alarms",
        "CloudWatch alarms by `names`, in which `*` is any characters: when one goes off, the records of `events` around its \
         time are looked up in CloudTrail's log group and classified (in AWS only)",
        &plain(&alarms::Settings::default()),
    )?;
    section(&mut text, "responder", "Who and what is never acted on, and how often", &plain(&responder.responder))?;
    for (id, action) in &responder.actions {
        let title = REGISTRY.iter().find(|r| r.meta.id == *id).map_or("", |r| r.meta.title);
        section(&mut text, &format!("actions.{id}"), title, &plain(action))?;
    }
    let notifier = NotifierSettings::default();
    section(&mut text, "notifier", "What is worth an alert", &plain(&notifier.notifier))?;
    section(&mut text, "channels.console", "Whole alerts on the terminal", &plain(&notifier.channels.console))?;
    section(&mut text, "channels.file", "One text file an alert, in the data folder", &plain(&notifier.channels.file))?;
    section(&mut text, "channels.sns", "Mail through an SNS topic (in AWS only)", &plain(&notifier.channels.sns))?;
    section(&mut text, "logger", "The structured log and the incidents", &plain(&LoggerSettings::default()))?;
    Ok(text)
}

fn plain(settings: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(settings).expect("settings are tables of plain values")
}

/// Writes one section with what it is about above it.
fn section(text: &mut String, path: &str, about: &str, settings: &serde_json::Value) -> Result<(), toml::ser::Error> {
    let mut nested = settings.clone();
    if let serde_json::Value::Object(keys) = &mut nested {
        // TOML has no null: a setting without a value is one that is not written.
        keys.retain(|_, value| !value.is_null());
    }
    for name in path.rsplit('.') {
        nested = serde_json::Value::Object([(name.to_owned(), nested)].into_iter().collect());
    }
    let body = toml::to_string(&nested)?;
    // Writing to a String cannot fail.
    let _ = write!(text, "\n# {about}.\n{body}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::adapters::memory::NoFiles;

    #[test]
    fn the_printed_defaults_load_without_mistakes_and_change_nothing() {
        let text = defaults_text().unwrap();
        let config = parse("defaults", &text, &NoFiles, &[], None)
            .map_err(|e| format!("{e}\n{text}"))
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.source, SourceSection::default());
        assert_eq!(config.responder, ResponderSettings::default());
        assert_eq!(config.notifier, NotifierSettings::default());
        for plugin in ALL {
            assert!(text.contains(&format!("[classifiers.{}]", plugin.meta.id)), "{} in\n{text}", plugin.meta.id);
        }
    }

    /// A section that a function does not know keeps it from starting, also when it is for another one.
    #[cfg(feature = "aws")]
    #[test]
    fn every_function_starts_with_every_section() {
        use shared::adapters::aws::lambda;
        let text = defaults_text().unwrap();
        lambda::document("defaults", &text).finish().unwrap();
        for section in lambda::SECTIONS {
            let is_there = [format!("[{section}]"), format!("[{section}.")].iter().any(|header| text.contains(header));
            assert!(is_there, "nothing reads the section {section}");
        }
    }

    #[test]
    fn every_mistake_of_every_component_is_reported_at_once() {
        let text = "[source]\nthreads = -1\n\n[responder]\nexempt = []\n\n[notifier]\nmin_severity = \"bad\"\n\n[classifiers.nothing]\n\n[spelling]\n";
        let Err(Failure::Config(error)) = parse("pipeline.toml", text, &NoFiles, &[], None) else { panic!("mistakes") };
        let lines: Vec<usize> = error.mistakes.iter().map(|m| m.line).collect();
        assert_eq!(lines, [2, 5, 8, 10, 12], "{error}");
    }

    #[test]
    fn a_misspelt_classifier_of_an_action_is_refused_and_one_that_is_switched_off_is_not() {
        let of = |classifiers: &str, rest: &str| {
            let text =
                format!("[actions.iam_access_key_deactivate]\nmode = \"auto\"\nclassifiers = [{classifiers}]\n{rest}");
            parse("pipeline.toml", &text, &NoFiles, &[], None).map(drop).map_err(|failure| failure.to_string())
        };
        let wrong =
            "pipeline.toml:3: actions.iam_access_key_deactivate.classifiers: there is no classifier or rule iam_acess";
        let lists = "[classifiers.threat_intel_ip]\nlists = [\"missing.txt\"]\n";
        for rest in ["", lists, "[source]\nthreads = -1\n"] {
            let said = of("\"iam_access_key_created\", \"iam_acess\"", rest).unwrap_err();
            assert!(said.contains(wrong), "{said}");
        }
        let rule = rules::load(&rules::Settings::default(), &[], &NoFiles).detectors[0].declaration().id.clone();
        let off = format!("[classifier]\ndisabled = [\"iam_access_key_created\", \"{rule}\"]\n");
        of(&format!("\"iam_access_key_created\", \"{rule}\""), &off).unwrap();
    }

    #[test]
    fn a_classifier_setting_that_cannot_be_used_names_its_line() {
        let text = "[a]\nx = 1\n[classifiers.b]\n# c = 3\ny = 2\nx = 5\n[d]\nx = 7\n";
        assert_eq!(line_of(text, "classifiers.b", "x"), 6);
        assert_eq!(line_of(text, "classifiers.b", "z"), 3);
        assert_eq!(line_of(text, "classifiers.e", "z"), 1);
    }
}
