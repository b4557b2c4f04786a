//! `pipeline classifiers`: what is detected.

use std::io::Write;

use aws_classifier::registry::Declaration;
use serde::Serialize;
use shared::classifier::FailedCalls;

use crate::args::{ClassifiersArgs, Format};
use crate::failure::Failure;
use crate::{config, output};

/// A classifier or rule as JSON.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    title: &'a str,
    severity: &'a str,
    techniques: &'a [String],
    events: Vec<String>,
    failed_calls: &'a str,
    responses: &'a [String],
    references: &'a [String],
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
            let mut table = output::table(&["CLASSIFIER", "SEVERITY", "WHAT IT FINDS", "TECHNIQUES"]);
            for one in &declared {
                let techniques = one.techniques.join(" ");
                let [id, title] = [&*one.id, &*one.title].map(|text| shared::text::one_line(text, 120));
                table.add_row([id.into(), output::severity(one.severity), title.into(), techniques.into()]);
            }
            output::print_table(&mut out, &table)?;
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
