//! A console login came from an address not seen before.
//!
//! **What it detects.** A successful `ConsoleLogin` from an address that the principal (or account, or anybody: `scope`) has
//! not signed in from for `known_days`. The first login of a principal teaches; failed logins teach nothing. An IPv6 address
//! stands for its /64, because hosts change the lower half by themselves (RFC 8981).
//!
//! **Why it matters.** Stolen passwords and sessions are rarely used from the owner's desk.
//!
//! **False positives.** Travel, home connections with changing addresses: list the company's egress in `allow_cidrs`,
//! or set `scope` to `account`. Somebody who signs in to many accounts through Identity Center is one principal, told
//! of once. Role sessions with a name made up each time never repeat, so they only teach; `scope` helps there too.
//!
//! **Response.** Confirm with the user, lock the login if in doubt.
//!
//! **References.** See `META`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shared::ports::Files;

use crate::sign_in;
use crate::source_network;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, SettingsError, Severity,
};

/// Whose logins make an address known.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Only the principal's own.
    Principal,
    /// Those of anybody in the account.
    Account,
    /// Those of anybody.
    Global,
}

/// Limits of `[classifiers.console_login_new_ip]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Days an address stays known after its last login: 1 to 90. Default 30, the predecessor's.
    pub known_days: u32,
    /// `principal`, `account` or `global`. Default `principal`, the strictest.
    pub scope: Scope,
    /// Networks that are never reported, such as `203.0.113.0/24`. Default none.
    pub allow_cidrs: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { known_days: 30, scope: Scope::Principal, allow_cidrs: Vec::new() }
    }
}

/// See the module.
pub struct ConsoleLoginNewIp {
    settings: Settings,
}

/// How long a principal counts as one that has signed in before: a year, our choice. Longer than an address is known,
/// or the first login after a long silence would teach instead of alarm.
const PRINCIPAL_KNOWN_S: u32 = 365 * 86_400;

impl Classifier for ConsoleLoginNewIp {
    const META: Meta = Meta {
        id: "console_login_new_ip",
        title: "Console login from a new address",
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
        if !(1..=90).contains(&settings.known_days) {
            return Err(SettingsError::new("known_days", "must be from 1 to 90 days"));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        // A service name is not where a person sits.
        !event.source_ip.is_empty() && event.source_ip != "AWS Internal" && !event.is_by_aws_service()
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        if !sign_in::succeeded(event)? {
            return Ok(Observations::none());
        }
        let whose = match self.settings.scope {
            Scope::Principal => sign_in::person(event),
            Scope::Account => event.account.to_string(),
            Scope::Global => "global".to_owned(),
        };
        let place = format!("{whose}/{}", source_network::of(&event.source_ip));
        Ok(Observations::none().see("address", place, self.settings.known_days * 86_400).see(
            "anyone",
            whose,
            PRINCIPAL_KNOWN_S,
        ))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        if !sign_in::succeeded(event)? || !known.seen("address").is_new() {
            return Ok(None);
        }
        let Some(first_login) = known.seen("anyone").first else { return Ok(None) };
        let address = event.source_ip.parse::<IpAddr>();
        if address.is_ok_and(|ip| self.settings.allow_cidrs.iter().any(|net| net.contains(&ip.to_canonical()))) {
            return Ok(None);
        }
        let identity = event.identity();
        let mfa_used = sign_in::mfa_used(event)?;
        let severity = match mfa_used {
            Some(false) if identity.is_root() => Severity::Critical,
            Some(false) => Severity::High,
            _ => Severity::Medium,
        };
        let evidence = Evidence::about(identity.principal())
            .severity(severity)
            .fact("address", &*event.source_ip)
            .fact("logins_known_since", first_login.to_string())
            .fact("known_days", self.settings.known_days);
        Ok(Some(match mfa_used {
            Some(used) => evidence.fact("mfa_used", used),
            None => evidence,
        }))
    }

    fn why_not(&self, event: &Event<'_>, known: &Known) -> Option<String> {
        let why = if !sign_in::succeeded(event).ok()? {
            "the login failed"
        } else if !self.wants(event) {
            "the record has no address of a person"
        } else if known.seen("anyone").is_new() {
            "the first login that is known, which teaches"
        } else if !known.seen("address").is_new() {
            "the address is known"
        } else {
            "`allow_cidrs` names the address"
        };
        Some(why.to_owned())
    }
}
