//! `pipeline test-cases`: labelled records, each alone, and how well they are told apart.

use std::collections::BTreeMap;
use std::io::{self, Write};

use aws_classifier::engine::Engine;
use aws_classifier::intake::log_groups::LogGroups;
use aws_classifier::intake::{self, Leaf};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::adapters::memory::MemoryState;
use shared::observation::MAX_COUNT_ENTRIES;
use shared::text::one_line;
use shared::{Effect, Timestamp};

use crate::args::{Format, TestCasesArgs};
use crate::failure::Failure;
use crate::output::{self, BOLD, DIM};
use crate::{chain, config};

/// One line of the file.
#[derive(Deserialize)]
struct Case {
    record: Value,
    expected: bool,
    #[serde(default)]
    rule: String,
    #[serde(default)]
    case: String,
    #[serde(default = "once")]
    threshold: usize,
}

const fn once() -> usize {
    1
}

/// What came of all cases.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Report {
    cases: usize,
    positives: usize,
    /// Positives in which a threat was found.
    found: usize,
    negatives: usize,
    /// Negatives in which a threat was found.
    fired: usize,
    /// `found / positives`; absent when there are none.
    recall: Option<f64>,
    /// `found / (found + fired)`; absent when nothing fired.
    precision: Option<f64>,
    rules: BTreeMap<String, Row>,
    misses: Vec<Miss>,
}

/// The cases of one rule.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Row {
    positives: usize,
    found: usize,
    negatives: usize,
    fired: usize,
}

/// A case that did not go as expected.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Miss {
    line: usize,
    rule: String,
    case: String,
    /// `eventSource/eventName`.
    event: String,
    /// What was expected; the other was found.
    expected: bool,
    /// The classifiers that fired.
    by: Vec<String>,
    /// Why the record or a classifier's look at it failed; empty when nothing did.
    trouble: String,
}

/// Runs the cases and prints the figures.
///
/// # Errors
/// When the file cannot be read, a line is no case, or output fails.
pub fn execute(args: &TestCasesArgs) -> Result<(), Failure> {
    let config = config::load(&args.config)?;
    let name = output::path(&args.file);
    let text =
        std::fs::read_to_string(&args.file).map_err(|e| Failure::Input(format!("could not read {name}: {e}")))?;
    let mut report = Report::default();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let case: Case = serde_json::from_str(line).map_err(|e| {
            Failure::Input(format!("could not read {name}: line {number} is no case {{record, expected, …}}: {e}"))
        })?;
        report.add(number, &config.engine, &case)?;
    }
    if report.cases == 0 {
        return Err(Failure::Input(format!("could not read {name}: it holds no case")));
    }
    report.finish();
    let mut out = output::stdout();
    match args.format {
        Format::Json => output::json(&mut out, &report)?,
        Format::Text => report.print(&mut out)?,
    }
    Ok(out.flush()?)
}

/// What one case led to.
#[derive(Default)]
struct Judged {
    by: Vec<String>,
    event: String,
    trouble: String,
}

impl Report {
    fn add(&mut self, line: usize, engine: &Engine, case: &Case) -> Result<(), Failure> {
        let judged = judge(engine, case)?;
        let fired = !judged.by.is_empty();
        let row = self.rules.entry(case.rule.clone()).or_default();
        self.cases += 1;
        if case.expected {
            self.positives += 1;
            self.found += usize::from(fired);
            row.positives += 1;
            row.found += usize::from(fired);
        } else {
            self.negatives += 1;
            self.fired += usize::from(fired);
            row.negatives += 1;
            row.fired += usize::from(fired);
        }
        if fired != case.expected {
            self.misses.push(Miss {
                line,
                rule: case.rule.clone(),
                case: case.case.clone(),
                event: judged.event,
                expected: case.expected,
                by: judged.by,
                trouble: judged.trouble,
            });
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.recall = share(self.found, self.positives);
        self.precision = share(self.found, self.found + self.fired);
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{BOLD}{:<56} {:>9} {:>9}{BOLD:#}", "RULE", "FOUND", "SILENT")?;
        for (rule, row) in &self.rules {
            let rule = if rule.is_empty() { "(none)" } else { rule };
            let found = format!("{}/{}", row.found, row.positives);
            let silent = format!("{}/{}", row.negatives - row.fired, row.negatives);
            writeln!(out, "{:<56} {found:>9} {silent:>9}", one_line(rule, 56))?;
        }
        for (title, expected) in [("Missed", true), ("Fired where nothing was expected", false)] {
            let misses: Vec<&Miss> = self.misses.iter().filter(|m| m.expected == expected).collect();
            if !misses.is_empty() {
                writeln!(out, "\n{BOLD}{title}{BOLD:#}")?;
            }
            for miss in misses {
                let [rule, case, event] = [&miss.rule, &miss.case, &miss.event].map(|text| one_line(text, 100));
                write!(out, "  line {}: {rule}, {case} {DIM}({event}){DIM:#}", miss.line)?;
                if !miss.by.is_empty() {
                    write!(out, ": {}", miss.by.join(", "))?;
                }
                if !miss.trouble.is_empty() {
                    write!(out, ": {}", one_line(&miss.trouble, 200))?;
                }
                writeln!(out)?;
            }
        }
        writeln!(
            out,
            "\n{} cases: recall {} ({} of {} threats found), precision {} ({} of {} that fired are threats)",
            self.cases,
            percent(self.recall),
            self.found,
            self.positives,
            percent(self.precision),
            self.found,
            self.found + self.fired
        )
    }
}

/// Runs the case with nothing remembered, as often as its threshold says.
fn judge(engine: &Engine, case: &Case) -> Result<Judged, Failure> {
    let state = MemoryState::default();
    let mut judged = Judged::default();
    for n in 0..case.threshold.clamp(1, MAX_COUNT_ENTRIES) {
        let mut record = case.record.clone();
        if n > 0 {
            delay(&mut record, n);
            if let Some(detail) = record.get_mut("detail") {
                delay(detail, n);
            }
        }
        let mut texts = Vec::new();
        intake::decode(&record.to_string(), &LogGroups::Any, &mut |leaf| match leaf {
            Ok(leaf) => texts.push(leaf.text.to_owned()),
            Err(error) => judged.trouble = error.to_string(),
        });
        for text in &texts {
            let event = match Leaf::of(text).and_then(|leaf| leaf.event()) {
                Ok(event) => event,
                Err(error) => {
                    judged.trouble = error.to_string();
                    continue;
                }
            };
            judged.event = format!("{}/{}", event.source, event.name);
            for verdict in chain::block_on(engine.run(&[event], &state))?? {
                let threats = verdict.findings.into_iter().filter(|f| f.effect == Effect::Threat);
                judged.by.extend(threats.map(|f| f.classifier));
                if let Some((classifier, malformed)) = verdict.malformed.first() {
                    judged.trouble = format!("{classifier} could not read {malformed}");
                }
            }
        }
    }
    judged.by.sort_unstable();
    judged.by.dedup();
    Ok(judged)
}

/// Makes another event of a record: its ids with a number behind them, its times as many seconds later. Stores turn
/// names to lower case, and the intake reads them all the same.
fn delay(record: &mut Value, n: usize) {
    let Some(members) = record.as_object_mut() else { return };
    for (key, value) in members {
        let Value::String(text) = value else { continue };
        if ["eventID", "id"].iter().any(|name| key.eq_ignore_ascii_case(name)) {
            text.push_str(&format!("-{n}"));
        } else if ["eventTime", "time"].iter().any(|name| key.eq_ignore_ascii_case(name))
            && let Some(time) = Timestamp::parse(text)
        {
            *text = time.plus_seconds(i64::try_from(n).unwrap_or(i64::MAX)).to_string();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}
