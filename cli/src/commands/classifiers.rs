//! `pipeline classifiers`: what is detected.

use std::io::Write;

use aws_classifier::registry::{Declaration, Label};
use serde::Serialize;
use shared::classifier::FailedCalls;

use crate::args::{ClassifiersArgs, Format};
use crate::config;
use crate::failure::Failure;
use crate::output::{self, BOLD};

/// A classifier or rule as JSON.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    title: &'a str,
    severity: &'a str,
    techniques: &'a [Label],
    events: Vec<String>,
    failed_calls: &'a str,
    responses: &'a [Label],
    references: &'a [Label],
}

/// Lists the classifiers and rules in use.
///
/// # Errors
/// When the configuration has mistakes or standard output cannot be written.
pub fn execute(args: &ClassifiersArgs) -> Result<(), Failure> {
    let engine = config::load(&args.config)?.engine;
    let declared: Vec<&Declaration> = engine.declarations().collect();
    let mut out = output::stdout();
    match args.format {
        Format::Json => {
            let rows: Vec<Row<'_>> = declared.into_iter().map(row).collect();
            output::json(&mut out, &rows)?;
        }
        Format::Text => {
            for one in &declared {
                let style = output::style(one.severity);
                let techniques = one.techniques.join(" ");
                let [id, title] = [&*one.id, &*one.title].map(|text| shared::text::one_line(text, 120));
                writeln!(out, "{BOLD}{id:<44}{BOLD:#} {style}{:<8}{style:#}  {techniques}", one.severity)?;
                writeln!(out, "    {title}")?;
            }
            writeln!(
                out,
                "\n{} classifiers and rules. Classifiers are set in the sections [classifiers.<name>] of pipeline.toml:",
                declared.len()
            )?;
            writeln!(out, "`pipeline config --show-defaults` shows what can be set.")?;
        }
    }
    Ok(out.flush()?)
}

fn row(declared: &Declaration) -> Row<'_> {
    Row {
        id: &declared.id,
        title: &declared.title,
        severity: declared.severity.as_str(),
        techniques: &declared.techniques,
        events: declared.selectors.iter().map(ToString::to_string).collect(),
        failed_calls: match declared.failed_calls {
            FailedCalls::Ignored => "ignored",
            FailedCalls::Attempts => "attempts",
            FailedCalls::Wanted => "wanted",
        },
        responses: &declared.responses,
        references: &declared.references,
    }
}
