//! A console login came from a device not seen before.
//!
//! **What it detects.** A successful `ConsoleLogin` whose fingerprint the principal has not signed in with for
//! `known_days`. The fingerprint is the browser's family and the operating system, parsed from the user agent, without
//! versions, so that an update is no new device; with `fingerprint` it includes the network or the address. The first
//! login of a principal teaches; failed logins teach nothing.
//!
//! **Why it matters.** A stolen password or session is used in the thief's browser, often a scripted one.
//!
//! **False positives.** A new computer, a second browser. User agents are what the client says of itself: an attacker
//! who copies them is not seen, so this adds to the address-based classifiers and replaces none. Role sessions with a
//! name made up each time only teach.
//!
//! **Response.** Confirm with the user, lock the login if in doubt.
//!
//! **References.** See `META`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use shared::ports::Files;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, SettingsError, Severity,
};
use woothee::parser::Parser;

use crate::sign_in;

/// What makes a device.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub enum Fingerprint {
    /// Browser family and operating system.
    #[serde(rename = "ua")]
    Agent,
    /// With the IPv4 /24 or IPv6 /64.
    #[serde(rename = "ua+/24")]
    AgentAndNetwork,
    /// With the address.
    #[serde(rename = "ua+ip")]
    AgentAndAddress,
}

/// Limits of `[classifiers.console_login_new_device]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `ua`, `ua+/24` or `ua+ip`. Default `ua`: addresses have a classifier of their own, `console_login_new_ip`.
    pub fingerprint: Fingerprint,
    /// Days a device stays known after its last login: 1 to 365. Default 90, our choice: a quarter.
    pub known_days: u32,
    /// Networks that are never reported, such as `203.0.113.0/24`. Default none.
    pub allow_cidrs: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { fingerprint: Fingerprint::Agent, known_days: 90, allow_cidrs: Vec::new() }
    }
}

/// See the module.
pub struct ConsoleLoginNewDevice {
    settings: Settings,
}

/// How long a principal counts as one that has signed in before: two years, our choice. Longer than a device is known, or
/// the first login after a long silence would teach instead of alarm.
const PRINCIPAL_KNOWN_S: u32 = 730 * 86_400;

impl Classifier for ConsoleLoginNewDevice {
    const META: Meta = Meta {
        id: "console_login_new_device",
        title: "Console login from a new device",
        severity: Severity::Medium,
        techniques: &["T1078.004"],
        patterns: &[Pattern::Api { source: "signin.amazonaws.com", names: &["ConsoleLogin"] }],
        failed_calls: FailedCalls::Ignored,
        responses: &["iam_login_lock"],
        references: &[
            "https://attack.mitre.org/techniques/T1078/004/",
            "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1..=365).contains(&settings.known_days) {
            return Err(SettingsError::new("known_days", "must be from 1 to 365 days"));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        !event.user_agent.is_empty() && event.source_address().is_some()
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        if !sign_in::succeeded(event)? {
            return Ok(Observations::none());
        }
        let whose = sign_in::person(event);
        let device = format!("{whose}/{}", self.fingerprint(event));
        let known_s = self.settings.known_days * 86_400;
        Ok(Observations::none().see("device", device, known_s).see("anyone", whose, PRINCIPAL_KNOWN_S))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        if !sign_in::succeeded(event)? || !known.seen("device").is_new() {
            return Ok(None);
        }
        let Some(first_login) = known.seen("anyone").first else { return Ok(None) };
        if event.source_address().is_some_and(|ip| self.settings.allow_cidrs.iter().any(|net| net.contains(&ip))) {
            return Ok(None);
        }
        let (browser, system) = device(&event.user_agent);
        let evidence = Evidence::about(event.principal())
            .fact("browser", browser)
            .fact("operating_system", system)
            .fact("fingerprint", self.fingerprint(event))
            .fact("logins_known_since", first_login.to_string())
            .fact("known_days", self.settings.known_days);
        Ok(Some(match sign_in::mfa_used(event)? {
            Some(used) => evidence.fact("mfa_used", used),
            None => evidence,
        }))
    }
}

impl ConsoleLoginNewDevice {
    fn fingerprint(&self, event: &Event<'_>) -> String {
        let (browser, system) = device(&event.user_agent);
        let network = match (self.settings.fingerprint, event.source_address()) {
            (Fingerprint::Agent, _) | (_, None) => return format!("{browser} on {system}"),
            (Fingerprint::AgentAndAddress, Some(ip)) => ip.to_string(),
            (Fingerprint::AgentAndNetwork, Some(IpAddr::V4(ip))) => Ipv4Net::new_assert(ip, 24).trunc().to_string(),
            (Fingerprint::AgentAndNetwork, Some(IpAddr::V6(ip))) => Ipv6Net::new_assert(ip, 64).trunc().to_string(),
        };
        format!("{browser} on {system} at {network}")
    }
}

/// The browser's family and the operating system. What the parser does not know goes by the product the agent names
/// first, without its version: `aws-cli`, `python-requests`.
fn device(user_agent: &str) -> (&str, &str) {
    const UNKNOWN: &str = "UNKNOWN";
    let parsed = Parser::new().parse(user_agent);
    let product = user_agent.split(['/', ' ']).next().filter(|name| !name.is_empty()).unwrap_or("unknown");
    match parsed {
        Some(found) => (
            if found.name == UNKNOWN { product } else { found.name },
            if found.os == UNKNOWN { "unknown" } else { found.os },
        ),
        None => (product, "unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::device;

    #[test]
    fn versions_are_left_out_and_families_kept() {
        let chrome = |version: &str| {
            format!(
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version} Safari/537.36"
            )
        };
        assert_eq!(device(&chrome("120.0.0.0")), ("Chrome", "Windows 10"));
        assert_eq!(device(&chrome("131.0.0.0")), device(&chrome("120.0.0.0")));
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
        assert_eq!(device(firefox), ("Firefox", "Linux"));
        assert_eq!(device("python-requests/2.31").0, "python-requests");
        assert_eq!(device("Mozilla/5.0").1, "unknown");
    }
}
