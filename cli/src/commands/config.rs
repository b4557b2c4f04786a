//! `pipeline config`: checks the configuration, or prints the defaults.

use std::io::{self, Write};

use aws_classifier::allow::AllowList;
use shared::Timestamp;
use shared::adapters::disk::SystemClock;
use shared::ports::Clock;
use shared::text::one_line;

use crate::args::ConfigArgs;
use crate::config;
use crate::failure::Failure;
use crate::output;

/// Entries of the allow-list that end within this time are named: thirty days, our choice, so that a monthly look finds
/// them before they end.
const EXPIRES_SOON_S: i64 = 30 * 86_400;

/// Prints the defaults, or reads the configuration and says that it is fine.
///
/// # Errors
/// All mistakes of the configuration.
pub fn execute(args: &ConfigArgs) -> Result<(), Failure> {
    let mut out = output::stdout();
    if args.show_defaults {
        let text = config::defaults_text().map_err(|e| Failure::machine("write the defaults", io::Error::other(e)))?;
        out.write_all(text.as_bytes())?;
    } else {
        let config = config::load(&args.config)?;
        match &args.config.path {
            Some(path) => writeln!(out, "{} has no mistakes", output::path(path))?,
            None if std::path::Path::new(config::DEFAULT_FILE).exists() => {
                writeln!(out, "./{} has no mistakes", config::DEFAULT_FILE)?;
            }
            None => writeln!(out, "no {} here: the defaults are used", config::DEFAULT_FILE)?,
        }
        print_allowed(&mut out, &config.engine.noise().allow, SystemClock.now())?;
    }
    Ok(out.flush()?)
}

/// Tells which entries of the allow-list no longer apply, and which will not for long.
fn print_allowed(out: &mut impl Write, allow: &AllowList, now: Timestamp) -> io::Result<()> {
    for (entry, until) in allow.entries() {
        let [name, owner, reason, expires] =
            [&entry.name, &entry.owner, &entry.reason, &entry.expires].map(|text| one_line(text, 80));
        let left_s = until.seconds_since(now);
        if until < now {
            writeln!(out, "expired: {name}, last day {expires}, ask {owner} ({reason})")?;
        } else if left_s < EXPIRES_SOON_S {
            writeln!(out, "expires soon: {name}, last day {expires}, ask {owner} ({reason})")?;
        }
    }
    match allow.entries().len() {
        0 => Ok(()),
        n => writeln!(out, "{n} {} of the allow-list", if n == 1 { "entry" } else { "entries" }),
    }
}
