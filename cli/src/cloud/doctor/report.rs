//! What a check answers, and how that is printed.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::Value;
use shared::text::one_line;

use crate::cloud::refusal::{Kind, Refusal};
use crate::output::DIM;

/// Problems named in one sentence; more are counted.
const NAMED_MAX: usize = 5;
/// Longer sentences are cut: parts of them come from services and, through names, from others.
const SAID_CHARS_MAX: usize = 1_000;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is as it should be.
    Ok,
    /// Not asked, and why.
    Skipped,
    /// It works, and somebody should look.
    Warning,
    /// Threats would be missed, or nobody would be told.
    Failed,
}

/// One check and its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub check: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found, or why it was not asked.
    pub said: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub todo: &'static str,
    /// Figures.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub figures: Value,
}

impl Check {
    /// A check that ended so.
    pub fn new(check: &'static str, status: Status, said: impl AsRef<str>, todo: &'static str) -> Self {
        Self { check, status, said: one_line(said.as_ref(), SAID_CHARS_MAX), todo, figures: Value::Null }
    }

    /// All is well.
    pub fn ok(check: &'static str, said: impl AsRef<str>) -> Self {
        Self::new(check, Status::Ok, said, "")
    }

    /// Not asked.
    pub fn skipped(check: &'static str, why: impl AsRef<str>) -> Self {
        Self::new(check, Status::Skipped, why, "")
    }

    /// A check whose question was not answered: what the caller may not see, and what an emulator does not know, says
    /// nothing about the deployment.
    pub fn answered(check: &'static str, answer: Result<Self, Refusal>) -> Self {
        answer.unwrap_or_else(|refusal| match refusal.kind {
            Kind::Denied | Kind::Unknown => Self::skipped(check, refusal.to_string()),
            Kind::Missing => Self::new(check, Status::Failed, refusal.to_string(), "deploy what is missing"),
            Kind::Other => Self::new(check, Status::Failed, refusal.to_string(), "ask again"),
        })
    }

    /// With figures.
    #[must_use]
    pub fn with(mut self, figures: Value) -> Self {
        self.figures = figures;
        self
    }
}

/// What a check found to be wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Threats would be missed, or nobody told.
    pub failed: Vec<String>,
    /// Somebody should look.
    pub warnings: Vec<String>,
}

impl Problems {
    /// Adds what is wrong for good.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failed.push(what.into());
    }

    /// Adds what somebody should look at.
    pub fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }

    /// The check: `well` when nothing is wrong.
    pub fn into_check(self, check: &'static str, well: impl AsRef<str>, todo: &'static str) -> Check {
        let Self { failed, warnings } = self;
        let status = match (failed.is_empty(), warnings.is_empty()) {
            (false, _) => Status::Failed,
            (true, false) => Status::Warning,
            (true, true) => return Check::ok(check, well),
        };
        let all: Vec<String> = failed.into_iter().chain(warnings).collect();
        let mut said = all.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
        if all.len() > NAMED_MAX {
            said += &format!("; and {} more", all.len() - NAMED_MAX);
        }
        Check::new(check, status, said, todo)
    }
}

/// Prints the checks for people.
///
/// # Errors
/// When it cannot be written.
pub fn print(out: &mut impl Write, checks: &[Check]) -> io::Result<()> {
    for Check { check, status, said, todo, .. } in checks {
        let (word, colour) = match status {
            Status::Ok => ("ok", AnsiColor::Green),
            Status::Skipped => ("skipped", AnsiColor::Cyan),
            Status::Warning => ("warning", AnsiColor::Yellow),
            Status::Failed => ("failed", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into()));
        writeln!(out, "{style}{word:<8}{style:#} {check:<14} {said}")?;
        if !todo.is_empty() {
            writeln!(out, "{DIM}{:24}→ {todo}{DIM:#}", "")?;
        }
    }
    let count = |wanted: Status| checks.iter().filter(|check| check.status == wanted).count();
    let (ok, warnings) = (count(Status::Ok), count(Status::Warning));
    let (failed, skipped) = (count(Status::Failed), count(Status::Skipped));
    writeln!(out, "\n{ok} ok, {warnings} warnings, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_problem_decides_and_many_are_counted() {
        let mut problems = Problems::default();
        assert_eq!(problems.clone().into_check("x", "fine", "do").status, Status::Ok);
        problems.warn("w");
        assert_eq!(problems.clone().into_check("x", "fine", "do").status, Status::Warning);
        (0..7).for_each(|i| problems.fail(format!("f{i}")));
        let check = problems.into_check("x", "fine", "do");
        assert_eq!((check.status, &*check.said), (Status::Failed, "f0; f1; f2; f3; f4; and 3 more"));
    }

    #[test]
    fn what_the_caller_may_not_see_is_skipped_with_the_permission_and_what_is_missing_fails() {
        let refusal = |kind| Refusal { call: "iam:GetRole", kind, why: "why".to_owned() };
        let denied = Check::answered("x", Err(refusal(Kind::Denied)));
        assert_eq!(denied.status, Status::Skipped);
        assert!(denied.said.contains("iam:GetRole"), "{}", denied.said);
        assert_eq!(Check::answered("x", Err(refusal(Kind::Unknown))).status, Status::Skipped);
        assert_eq!(Check::answered("x", Err(refusal(Kind::Missing))).status, Status::Failed);
        assert_eq!(Check::answered("x", Err(refusal(Kind::Other))).status, Status::Failed);
    }

    #[test]
    fn names_of_others_cannot_move_the_cursor() {
        assert!(!Check::ok("x", "a\u{1b}[2Jb\nc").said.contains(['\u{1b}', '\n']));
    }
}
