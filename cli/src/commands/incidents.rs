//! `pipeline incidents`: what `run` has kept.

use std::io::Write;

use shared::IncidentStatus;
use shared::ports::{IncidentFilter, Incidents};

use crate::args::{Format, IncidentsArgs};
use crate::data::DataFolder;
use crate::failure::Failure;
use crate::{chain, output, summary};

/// Lists incidents, newest first.
///
/// # Errors
/// When there is no data, or standard output cannot be written.
pub fn execute(args: &IncidentsArgs) -> Result<(), Failure> {
    let data = DataFolder::open(&args.data)?;
    let filter = IncidentFilter {
        statuses: args.status.iter().copied().map(IncidentStatus::from).collect(),
        limit: args.limit,
        ..IncidentFilter::default()
    };
    let incidents = chain::block_on(data.store.list(&filter))??;
    let mut out = output::stdout();
    match args.format {
        Format::Json => output::json(&mut out, &incidents)?,
        Format::Text if incidents.is_empty() => writeln!(out, "no incidents")?,
        Format::Text => {
            summary::print_incidents(&mut out, &incidents)?;
            let open = incidents.iter().filter(|i| i.status != IncidentStatus::Closed).count();
            writeln!(out, "\n{}, {open} open", summary::counted(incidents.len() as u64, "incident"))?;
        }
    }
    Ok(out.flush()?)
}
