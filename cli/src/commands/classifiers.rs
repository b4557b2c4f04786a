//! `pipeline classifiers`: what is detected.

use std::io::Write;

use aws_classifier::classifiers::ALL;
use serde::Serialize;
use shared::classifier::{FailedCalls, Meta, Pattern};

use crate::args::{ClassifiersArgs, Format};
use crate::failure::Failure;
use crate::output::{self, BOLD};

/// A classifier as JSON.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    title: &'a str,
    severity: &'a str,
    techniques: &'a [&'a str],
    events: Vec<String>,
    failed_calls: &'a str,
    responses: &'a [&'a str],
    references: &'a [&'a str],
}

/// Lists the registered classifiers.
///
/// # Errors
/// When standard output cannot be written.
pub fn execute(args: &ClassifiersArgs) -> Result<(), Failure> {
    let mut out = output::stdout();
    match args.format {
        Format::Json => {
            let rows: Vec<Row<'_>> = ALL.iter().map(|plugin| row(plugin.meta)).collect();
            output::json(&mut out, &rows)?;
        }
        Format::Text => {
            for plugin in ALL {
                let meta = plugin.meta;
                let style = output::style(meta.severity);
                let techniques = meta.techniques.join(" ");
                writeln!(out, "{BOLD}{:<34}{BOLD:#} {style}{:<8}{style:#}  {techniques}", meta.id, meta.severity)?;
                writeln!(out, "    {}", meta.title)?;
            }
            writeln!(
                out,
                "\n{} classifiers. Each is set in the section [classifiers.<name>] of pipeline.toml:",
                ALL.len()
            )?;
            writeln!(out, "`pipeline config --show-defaults` shows what can be set.")?;
        }
    }
    Ok(out.flush()?)
}

fn row(meta: &Meta) -> Row<'_> {
    Row {
        id: meta.id,
        title: meta.title,
        severity: meta.severity.as_str(),
        techniques: meta.techniques,
        events: meta.patterns.iter().flat_map(events).collect(),
        failed_calls: match meta.failed_calls {
            FailedCalls::Ignored => "ignored",
            FailedCalls::Attempts => "attempts",
            FailedCalls::Wanted => "wanted",
        },
        responses: meta.responses,
        references: meta.references,
    }
}

/// The events of a pattern, as `source/name`.
fn events(pattern: &Pattern) -> Vec<String> {
    match pattern {
        Pattern::Api { source, names } => names.iter().map(|name| format!("{source}/{name}")).collect(),
        Pattern::Notification { source, detail_type } => vec![format!("{source}/{detail_type}")],
        Pattern::Intake { source, name } => vec![format!("{source}/{name}")],
        Pattern::Root => vec!["*/* by the root user".to_owned()],
        Pattern::AnyApi => vec!["*/*".to_owned()],
    }
}
