//! Call from an address on a threat list.
//!
//! **What it detects.** Any API call or sign-in from an address on a list of bad addresses.
//!
//! **Why it matters.** An address that others have seen attacking is rarely a customer's. Even a call that failed
//! says that someone there holds, or guesses, credentials.
//!
//! **False positives.** Shared addresses: VPN exits, mobile carriers, cloud NAT. Put your own into `allow_cidrs`,
//! which is asked first, and prefer lists that drop old entries. Calls that failed are reported one severity lower.
//!
//! **Response.** `iam_access_key_deactivate` for a user's key, `iam_sessions_revoke` for a session.
//!
//! **References.** <https://attack.mitre.org/techniques/T1078/004/>,
//! <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use serde::{Deserialize, Serialize};
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::Known;
use shared::ports::Files;

/// See the module.
pub struct ThreatIntelIp {
    lists: Vec<String>,
    bad: Ranges,
    allowed: Ranges,
}

/// The `[classifiers.threat_intel_ip]` section.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Files of one address or CIDR a line, IPv4 or IPv6; what follows `#` or `;` is a comment. In a function also
    /// `s3://BUCKET/KEY`, read again when it changes. Default none: we ship no list, because a stale one only makes
    /// noise. Without lists the classifier costs nothing.
    pub lists: Vec<String>,
    /// Addresses and CIDRs that are never reported, whatever the lists say.
    pub allow_cidrs: Vec<String>,
}

impl Classifier for ThreatIntelIp {
    const META: Meta = Meta {
        id: "threat_intel_ip",
        title: "Call from an address on a threat list",
        severity: Severity::High,
        techniques: &["T1078.004"],
        patterns: &[Pattern::AnyApi],
        failed_calls: FailedCalls::Attempts,
        responses: &["iam_access_key_deactivate", "iam_sessions_revoke"],
        references: &[
            "https://attack.mitre.org/techniques/T1078/004/",
            "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, files: &dyn Files) -> Result<Self, SettingsError> {
        let mut bad = Ranges::default();
        for (index, name) in settings.lists.iter().enumerate() {
            let content = files.read(name).map_err(|why| SettingsError::new("lists", why))?;
            let list = u16::try_from(index).map_err(|_| SettingsError::new("lists", "more than 65,536 lists"))?;
            bad.add_list(list, name, &content)?;
        }
        let mut allowed = Ranges::default();
        for cidr in &settings.allow_cidrs {
            let range = parse_range(cidr).map_err(|why| SettingsError::new("allow_cidrs", format!("{cidr} {why}")))?;
            allowed.insert(range, 0);
        }
        Ok(Self { lists: settings.lists, bad, allowed })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        !self.bad.is_empty() && self.look_up(event).is_some()
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let Some((entry, list)) = self.look_up(event) else { return Ok(None) };
        let evidence = Evidence::about(&*event.source_ip)
            .fact("entry", entry.to_string())
            .fact("list", self.lists[usize::from(list)].as_str());
        // A sign-in that failed has no error code; it says so in its response.
        let is_failed_login = event.name == "ConsoleLogin" && event.response()?["ConsoleLogin"] == "Failure";
        Ok(Some(if is_failed_login { evidence.attempt() } else { evidence }))
    }

    fn why_not(&self, event: &Event<'_>, _known: &Known) -> Option<String> {
        if self.bad.is_empty() {
            return Some("no list configured: `lists` names none with an address".to_owned());
        }
        Some(match event.source_address() {
            None => "the call has no address, as those of AWS services".to_owned(),
            Some(address) if self.bad.covering(address).is_none() => format!("{address} is on no list"),
            Some(address) => format!("{address} is on a list, and `allow_cidrs` names it"),
        })
    }
}

impl ThreatIntelIp {
    fn look_up(&self, event: &Event<'_>) -> Option<(IpNet, u16)> {
        // Service names ("ec2.amazonaws.com", "AWS Internal") are not addresses and end here.
        let address = event.source_ip.parse::<IpAddr>().ok()?.to_canonical();
        let found = self.bad.covering(address)?;
        self.allowed.covering(address).is_none().then_some(found)
    }
}

/// Address ranges, each with the number of the list it came from.
#[derive(Default)]
struct Ranges {
    v4: PrefixMap<Ipv4Net, u16>,
    v6: PrefixMap<Ipv6Net, u16>,
}

impl Ranges {
    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The first list that names a range keeps it.
    fn insert(&mut self, range: IpNet, list: u16) {
        match range {
            IpNet::V4(v4) => drop(self.v4.entry(v4).or_insert(list)),
            IpNet::V6(v6) => drop(self.v6.entry(v6).or_insert(list)),
        }
    }

    fn covering(&self, address: IpAddr) -> Option<(IpNet, u16)> {
        match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&v4.into()).map(|(range, list)| (range.into(), *list)),
            IpAddr::V6(v6) => self.v6.get_lpm(&v6.into()).map(|(range, list)| (range.into(), *list)),
        }
    }

    fn add_list(&mut self, list: u16, name: &str, content: &[u8]) -> Result<(), SettingsError> {
        let refused = |line: usize, why: String| SettingsError::new("lists", format!("{name}:{}: {why}", line + 1));
        for (number, line) in content.split(|b| *b == b'\n').enumerate() {
            let line = std::str::from_utf8(line).map_err(|_| refused(number, "is not UTF-8".to_owned()))?;
            let entry = line.split(['#', ';']).next().unwrap_or_default().trim_start_matches('\u{feff}').trim();
            if !entry.is_empty() {
                let range = parse_range(entry).map_err(|why| refused(number, format!("{} {why}", shortened(entry))))?;
                self.insert(range, list);
            }
        }
        Ok(())
    }
}

/// An address or a CIDR; host bits are dropped. `/0` is refused: it would match every call there is.
fn parse_range(text: &str) -> Result<IpNet, &'static str> {
    let range = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse::<IpNet>().map_err(|_| "is not an IP address or CIDR")?.trunc(),
    };
    if range.prefix_len() == 0 { Err("names every address there is") } else { Ok(range) }
}

/// What a list holds may be anything; an error message quotes little of it.
fn shortened(entry: &str) -> String {
    entry.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OneFile(&'static [u8]);

    impl Files for OneFile {
        fn read(&self, name: &str) -> Result<Vec<u8>, String> {
            if name == "bad.txt" { Ok(self.0.to_vec()) } else { Err(format!("could not read {name}: no such file")) }
        }
    }

    fn refused(lists: &[&str], allow: &[&str], content: &'static [u8]) -> String {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let settings = Settings { lists: owned(lists), allow_cidrs: owned(allow) };
        ThreatIntelIp::new(settings, &OneFile(content)).err().expect("the settings must be refused").to_string()
    }

    #[test]
    fn bad_lines_are_named_with_list_and_line() {
        assert_eq!(
            refused(&["bad.txt"], &[], b"# head\n192.0.2.1\r\n\n192.0.2.999 ; typo\n"),
            "lists: bad.txt:4: 192.0.2.999 is not an IP address or CIDR"
        );
        assert_eq!(refused(&["bad.txt"], &[], b"\xff\n"), "lists: bad.txt:1: is not UTF-8");
        assert_eq!(refused(&["bad.txt"], &[], b"::/0"), "lists: bad.txt:1: ::/0 names every address there is");
        assert_eq!(refused(&["worse.txt"], &[], b""), "lists: could not read worse.txt: no such file");
        assert_eq!(refused(&[], &["home"], b""), "allow_cidrs: home is not an IP address or CIDR");
    }

    #[test]
    fn the_narrowest_range_names_the_list() {
        let mut ranges = Ranges::default();
        ranges.add_list(0, "wide", b"192.0.2.0/24").unwrap();
        ranges.add_list(1, "narrow", b"192.0.2.7\n2001:db8::/32").unwrap();
        let list_of = |a: &str| ranges.covering(a.parse().unwrap()).map(|(_, list)| list);
        assert_eq!(list_of("192.0.2.7"), Some(1));
        assert_eq!(list_of("192.0.2.8"), Some(0));
        assert_eq!(list_of("2001:db8::1"), Some(1));
        assert_eq!(list_of("198.51.100.1"), None);
    }
}
