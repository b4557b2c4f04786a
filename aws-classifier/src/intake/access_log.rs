//! Lines of web access logs: the combined and common formats of Apache and nginx (with or without the virtual host before),
//! and those of Application and Classic Load Balancers.

use std::net::IpAddr;

use serde_json::Map;
use shared::Timestamp;

use super::IntakeError;
use super::text_line::{Parsed, bad, given, time};

/// The source of access records.
pub const SOURCE: &str = "web-access-log";
/// Their name.
pub const NAME: &str = "Request";

/// Longer user agents and paths are cut.
const TEXT_CHARS_MAX: usize = 512;
/// The request types of an Application Load Balancer.
const BALANCED: [&str; 6] = ["http", "https", "h2", "ws", "wss", "grpcs"];

/// Reads a line; `None` when it is none of an access log.
pub(super) fn parse(line: &str) -> Option<Result<Parsed, IntakeError>> {
    let first = line.split(' ').next()?;
    if BALANCED.contains(&first) {
        return balanced(&line[first.len() + 1..]);
    }
    if first.ends_with('Z') && first.contains('T') {
        return balanced(line);
    }
    combined(line)
}

/// `203.0.113.9 - - [01/Mar/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 12 "referer" "user agent"`.
fn combined(line: &str) -> Option<Result<Parsed, IntakeError>> {
    let (before, rest) = line.split_once(" [")?;
    let (at, rest) = rest.split_once("] ")?;
    let (request, rest) = quoted(rest)?;
    let mut rest_words = rest.split_ascii_whitespace();
    let status = rest_words.next()?;
    if status.len() != 3 && status != "-" {
        return None;
    }
    let mut words = before.split_ascii_whitespace();
    let (first, second) = (words.next()?, words.next()?);
    // The virtual host stands first where it is logged at all.
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let client = if !is_address(first) && is_address(second) { second } else { first };
    let user_agent = quoted_at(rest, 1).unwrap_or_default();
    Some(clf_time(at).and_then(|time| record(time, client, request, status, user_agent)))
}

/// `2026-03-01T12:00:00.000000Z app/name/id 203.0.113.9:2817 10.0.0.1:80 0.000 0.001 0.000 200 200 34 366 "GET
/// http://host:80/ HTTP/1.1" "user agent" …`.
fn balanced(line: &str) -> Option<Result<Parsed, IntakeError>> {
    let words: Vec<&str> = line.splitn(12, ' ').collect();
    let [at, _, client, _, _, _, _, status, _, _, _, rest] = words[..] else { return None };
    let (request, rest) = quoted(rest)?;
    if status.len() != 3 && status != "-" {
        return None;
    }
    let (user_agent, _) = quoted(rest.trim_start()).unwrap_or_default();
    let client = client.rsplit_once(':').map_or(client, |(address, _)| address).trim_matches(['[', ']']);
    Some(time(at, "time").and_then(|time| record(time, client, request, status, user_agent)))
}

fn record(time: Timestamp, client: &str, request: &str, status: &str, user_agent: &str) -> Result<Parsed, IntakeError> {
    let mut detail = Map::new();
    // `GET /path HTTP/1.1`; anything at all when the client did not speak HTTP.
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    for (name, text) in [("source_ip", client), ("method", method), ("path", path), ("user_agent", user_agent)] {
        if let Some(text) = given(text) {
            detail.insert(name.to_owned(), text.chars().take(TEXT_CHARS_MAX).collect::<String>().into());
        }
    }
    if let Some(status) = given(status) {
        let status: u16 = status.parse().map_err(|_| bad("status", "a number"))?;
        detail.insert("status".to_owned(), status.into());
    }
    Ok(Parsed { source: SOURCE, name: NAME, time, account: String::new(), region: String::new(), detail })
}

/// `01/Mar/2026:12:00:00 +0100`.
fn clf_time(text: &str) -> Result<Timestamp, IntakeError> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let wrong = || bad("time", "a time such as 01/Mar/2026:12:00:00 +0000");
    let (date, offset) = text.split_once(' ').ok_or_else(wrong)?;
    let (day, clock) = date.split_once(':').ok_or_else(wrong)?;
    let [day, month, year] = day.split('/').collect::<Vec<_>>()[..] else { return Err(wrong()) };
    let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month)).ok_or_else(wrong)? + 1;
    let utc = time(&format!("{year}-{month:02}-{day}T{clock}Z"), "time")?;
    let (sign, digits) = match offset.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        _ => return Err(wrong()),
    };
    let number: i64 = digits.parse().ok().filter(|_| digits.len() == 4).ok_or_else(wrong)?;
    Ok(utc.plus_seconds(-sign * (number / 100 * 3600 + number % 100 * 60)))
}

/// The text in quotes at the start, and what follows. A backslash protects the character behind it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut is_protected = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if is_protected => is_protected = false,
            b'\\' => is_protected = true,
            b'"' => return Some((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    None
}

/// The nth text in quotes, from 0.
fn quoted_at(mut text: &str, n: usize) -> Option<&str> {
    for at in 0..=n {
        text = &text[text.find('"')?..];
        let (found, rest) = quoted(text)?;
        if at == n {
            return Some(found);
        }
        text = rest;
    }
    None
}
