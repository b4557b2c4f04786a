//! VPC Flow Log lines: the default format (version 2, fourteen fields), and any other with its header line, as AWS writes
//! it at the top of every file.

use std::net::IpAddr;

use serde_json::Map;
use shared::Timestamp;

use super::IntakeError;
use super::text_line::{Parsed, bad, given};

/// The source of flow records.
pub const SOURCE: &str = "vpc-flow-logs";
/// Their name.
pub const NAME: &str = "Flow";

/// The default format, in order.
const DEFAULT: [&str; 14] = [
    "version",
    "account-id",
    "interface-id",
    "srcaddr",
    "dstaddr",
    "srcport",
    "dstport",
    "protocol",
    "packets",
    "bytes",
    "start",
    "end",
    "action",
    "log-status",
];
/// More columns than all versions have together: no header line.
const COLUMNS_MAX: usize = 64;

/// The columns of a file, by position: the name each has in the record, if we keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<Option<&'static str>>);

impl Columns {
    /// The columns a header line names; `None` when it is no header line.
    pub fn of_header(line: &str) -> Option<Self> {
        if !line.contains("interface-id") && !line.contains("srcaddr") {
            return None;
        }
        let names: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_name =
            |n: &&str| n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
        (names.len() <= COLUMNS_MAX && names.iter().all(is_name) && names.contains(&"start"))
            .then(|| Self(names.into_iter().map(kept).collect()))
    }

    fn default_format() -> Self {
        Self(DEFAULT.into_iter().map(kept).collect())
    }
}

/// Our name for a column.
fn kept(column: &str) -> Option<&'static str> {
    Some(match column {
        "account-id" => "account",
        "region" => "region",
        "interface-id" => "interface_id",
        "instance-id" => "instance_id",
        "srcaddr" => "source_ip",
        "dstaddr" => "destination_ip",
        "pkt-srcaddr" => "packet_source_ip",
        "srcport" => "source_port",
        "dstport" => "port",
        "protocol" => "protocol",
        "packets" => "packets",
        "bytes" => "bytes",
        "start" => "start",
        "end" => "end",
        "action" => "action",
        "log-status" => "log_status",
        _ => return None,
    })
}

/// Reads a line; `None` when it is none of a flow log.
pub(super) fn parse(line: &str, columns: Option<&Columns>) -> Option<Result<Parsed, IntakeError>> {
    let fields: Vec<&str> = line.split_ascii_whitespace().take(COLUMNS_MAX + 1).collect();
    match columns {
        Some(columns) if columns.0.len() == fields.len() && !line.contains('"') => Some(read(&fields, columns)),
        _ if fields.len() == DEFAULT.len() && fields[0] == "2" && fields[2].starts_with("eni-") => {
            Some(read(&fields, &Columns::default_format()))
        }
        _ => None,
    }
}

fn read(fields: &[&str], columns: &Columns) -> Result<Parsed, IntakeError> {
    let mut parsed = Parsed {
        source: SOURCE,
        name: NAME,
        time: Timestamp::default(),
        account: String::new(),
        region: String::new(),
        detail: Map::new(),
    };
    for (name, text) in columns.0.iter().zip(fields) {
        let (Some(name), Some(text)) = (*name, given(text)) else { continue };
        match name {
            "account" => parsed.account = text.into_owned(),
            "region" => parsed.region = text.into_owned(),
            "source_ip" | "destination_ip" | "packet_source_ip" => {
                let address: IpAddr = text.parse().map_err(|_| bad(name, "an address"))?;
                parsed.detail.insert(name.to_owned(), address.to_string().into());
            }
            "source_port" | "port" | "protocol" | "packets" | "bytes" | "start" | "end" => {
                let number: u64 = text.parse().map_err(|_| bad(name, "a number"))?;
                if name == "start" {
                    let ms = i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(1000);
                    parsed.time = Timestamp::from_millis(ms);
                    if !parsed.time.is_plausible() {
                        return Err(bad("start", "a time between 2006 and 2099"));
                    }
                }
                parsed.detail.insert(name.to_owned(), number.into());
            }
            _ => drop(parsed.detail.insert(name.to_owned(), text.into_owned().into())),
        }
    }
    if !parsed.time.is_plausible() {
        return Err(bad("start", "a time between 2006 and 2099"));
    }
    Ok(parsed)
}
