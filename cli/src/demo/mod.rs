//! What `pipeline demo` shows: a made-up day and the settings it runs with.

pub mod attack_day;

use shared::ports::Files;

/// The threat intelligence list of the demo.
const LIST: &str = "listed-addresses.txt";

/// Settings of the demo: the defaults, and a list with one address.
pub fn settings() -> String {
    format!("[classifiers.threat_intel_ip]\nlists = [\"{LIST}\"]\n")
}

/// The one file those settings name.
#[derive(Clone, Copy, Debug)]
pub struct DemoFiles;

impl Files for DemoFiles {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        if name == LIST {
            return Ok(format!("# Made up for the demo\n{}\n", attack_day::LISTED_ADDRESS).into_bytes());
        }
        Err(format!("the demo has no file {name}"))
    }
}
