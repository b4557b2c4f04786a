//! `pipeline config`: checks the configuration, or prints the defaults.

use std::io::{self, Write};

use crate::args::ConfigArgs;
use crate::config;
use crate::failure::Failure;
use crate::output;

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
        config::load(&args.config)?;
        match &args.config.path {
            Some(path) => writeln!(out, "{} has no mistakes", path.display())?,
            None if std::path::Path::new(config::DEFAULT_FILE).exists() => {
                writeln!(out, "./{} has no mistakes", config::DEFAULT_FILE)?;
            }
            None => writeln!(out, "no {} here: the defaults are used", config::DEFAULT_FILE)?,
        }
    }
    Ok(out.flush()?)
}
