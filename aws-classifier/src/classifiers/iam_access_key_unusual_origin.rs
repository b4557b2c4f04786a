//! A user's access key was used from where it was never used.
//!
//! **What it detects.** A call signed with a long-lived key of an IAM user from a country, by a network (ASN), or with
//! a changing call in a region, that the key has not been used from, by or in for `known_days`. The first use of a key
//! teaches. One report per key and origin in `suppress_s`. Failed calls count: the signature was good, or the record
//! would not name the user.
//!
//! **Why it matters.** Keys leak: in repositories, images and laptops. Their first use elsewhere is often the only
//! early sign.
//!
//! **False positives.** Travel, a new office, a move to another provider; networks in `allow_asns` and `allow_cidrs`
//! are not looked at. Calls by AWS services for the user are ignored. Consoles, inventories and scanners read in every
//! region, so only changing calls are judged by region, and not those of tools that lay out what is to be
//! (`deployment_tools`); services whose records always carry the partition's home region are not at all. Without
//! databases only the region is judged, without one of places or of networks the other half; the finding says so
//! (`geo_database`).
//!
//! **Response.** Deactivate the key, then ask the user.
//!
//! **References.** See `META`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shared::places::{Half, Places};
use shared::ports::Files;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, SettingsError, Severity,
};

use crate::deployment_tools::DeploymentTools;

/// Limits of `[classifiers.iam_access_key_unusual_origin]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Days an origin stays known after its last use: 1 to 365. Default 7, the predecessor's.
    pub known_days: u32,
    /// Seconds without use from the same origin after which it is reported again: 1 to 7,776,000. Default 604,800: our
    /// choice, as long as an origin is known.
    pub suppress_s: u32,
    /// Whether a changing call in a new region is reported, from wherever. Default true, the predecessor's.
    pub regions: bool,
    /// Autonomous systems that are not looked at. Default none.
    pub allow_asns: Vec<u32>,
    /// Networks that are not looked at. Default none.
    pub allow_cidrs: Vec<IpNet>,
    /// Parts of user agents, in lower case, of tools that lay out what is to be: the region of their calls is the one
    /// their templates name and is not judged, where they call from is. Default Terraform, Pulumi, the AWS CDK,
    /// Crossplane, Ansible and the AWS controllers for Kubernetes. Callers choose their user agent.
    pub deployment_tools: DeploymentTools,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            known_days: 7,
            suppress_s: 604_800,
            regions: true,
            allow_asns: Vec::new(),
            allow_cidrs: Vec::new(),
            deployment_tools: DeploymentTools::default(),
        }
    }
}

/// See the module.
pub struct IamAccessKeyUnusualOrigin {
    settings: Settings,
    has_places: bool,
}

/// Services with one endpoint for the partition: their records name its home region.
const GLOBAL_SERVICES: [&str; 27] = [
    "account.amazonaws.com",
    "aws-marketplace.amazonaws.com",
    "bcm-data-exports.amazonaws.com",
    "billingconsole.amazonaws.com",
    "budgets.amazonaws.com",
    "ce.amazonaws.com",
    "chime.amazonaws.com",
    "cloudfront.amazonaws.com",
    "cost-optimization-hub.amazonaws.com",
    "cur.amazonaws.com",
    "devicefarm.amazonaws.com",
    "ecr-public.amazonaws.com",
    "freetier.amazonaws.com",
    "globalaccelerator.amazonaws.com",
    "health.amazonaws.com",
    "iam.amazonaws.com",
    "networkmanager.amazonaws.com",
    "organizations.amazonaws.com",
    "route53.amazonaws.com",
    "route53domains.amazonaws.com",
    "savingsplans.amazonaws.com",
    "shield.amazonaws.com",
    "sts.amazonaws.com",
    "support.amazonaws.com",
    "tax.amazonaws.com",
    "trustedadvisor.amazonaws.com",
    "waf.amazonaws.com",
];

impl Classifier for IamAccessKeyUnusualOrigin {
    const META: Meta = Meta {
        id: "iam_access_key_unusual_origin",
        title: "Access key used from a new origin",
        severity: Severity::High,
        techniques: &["T1078.004"],
        patterns: &[Pattern::AnyApi],
        failed_calls: FailedCalls::Wanted,
        responses: &["iam_access_key_deactivate", "iam_user_restrict"],
        references: &[
            "https://attack.mitre.org/techniques/T1078/004/",
            "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html",
        ],
    };
    const PLACES: &'static [Half] = &Half::ALL;
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1..=365).contains(&settings.known_days) {
            return Err(SettingsError::new("known_days", "must be from 1 to 365 days"));
        }
        if !(1..=7_776_000).contains(&settings.suppress_s) {
            return Err(SettingsError::new("suppress_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        settings.deployment_tools.check()?;
        Ok(Self { settings, has_places: false })
    }

    fn use_places(&mut self, places: &Places) {
        self.has_places = places.has_cities() || places.has_networks();
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        event.identity_type == "IAMUser"
            && (self.has_places || self.tells_region(event))
            && !event.is_by_aws_service()
            && event.event_type != "AwsConsoleSignIn"
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let Some(key) = self.key(event) else { return Ok(Observations::none()) };
        let known_s = self.settings.known_days * 86_400;
        let origin = self.origin(event);
        let mut observations = Observations::none();
        for taught in [PLACED, AT_WORK] {
            if origin.iter().any(|(label, _)| taught_by(label) == taught) {
                observations = observations.see(taught, key, known_s.max(KEY_KNOWN_S));
            }
        }
        for (label, value) in origin {
            observations = observations.see(label, format!("{key}/{value}"), known_s);
        }
        Ok(observations)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let Some(key) = self.key(event) else { return Ok(None) };
        let origin = self.origin(event);
        let used_since = |label: &str| known.seen(taught_by(label)).first;
        let new: Vec<&str> = origin
            .iter()
            .map(|(label, _)| *label)
            .filter(|label| known.seen(label).is_new() && used_since(label).is_some())
            .collect();
        let Some(used_since) = new.first().and_then(|label| used_since(label)) else { return Ok(None) };
        let place = event.place();
        let whole = origin.iter().map(|(_, value)| &**value).collect::<Vec<_>>().join("/");
        let mut evidence = Evidence::about(key)
            .once_in(format!("{key}/{whole}"), self.settings.suppress_s)
            .fact("access_key_id", key)
            .fact("user_name", &*event.identity().user_name)
            .fact("new", new)
            .fact("key_used_since", used_since.to_string())
            .fact("known_days", self.settings.known_days);
        let not_judged = match (event.places().has_cities(), event.places().has_networks()) {
            (true, true) => None,
            (false, true) => Some("networks only: the country was not judged"),
            (true, false) => Some("places only: the network was not judged"),
            (false, false) => Some("none: country and network were not judged"),
        };
        if let Some(not_judged) = not_judged {
            evidence = evidence.fact("geo_database", not_judged);
        }
        if !place.is_unknown() {
            evidence = evidence.fact("place", place.name());
        }
        if let Some(network) = &place.network {
            evidence = evidence.fact("network", network.as_str());
        }
        Ok(Some(evidence))
    }

    fn why_not(&self, event: &Event<'_>, known: &Known) -> Option<String> {
        let why = if event.identity_type != "IAMUser" {
            "no IAM user made the call"
        } else if event.is_by_aws_service() {
            "an AWS service made the call"
        } else if !event.identity().access_key_id.starts_with("AKIA") {
            "no long-lived key signed the call"
        } else if self.origin(event).is_empty() {
            "neither a geo database nor the region says where the key is at work"
        } else if self.key(event).is_none() {
            "the call has no address, or its network is left out"
        } else if self.origin(event).iter().all(|(label, _)| known.seen(taught_by(label)).is_new()) {
            "the first use of the key, which teaches"
        } else {
            "the key was used from there before"
        };
        Some(why.to_owned())
    }
}

/// How long a key counts as used before: a year, our choice; longer than an origin is known, or the first use after a long
/// silence would teach instead of alarm.
const KEY_KNOWN_S: u32 = 365 * 86_400;

/// That a key was used from a known place, and that it changed something: what was never told of a key cannot be new.
const PLACED: &str = "key";
const AT_WORK: &str = "key at work";

/// What must have been seen of a key before this of its origin can be new. Regions are learnt from changing calls only, so
/// a key that only read has no region yet.
fn taught_by(label: &str) -> &'static str {
    if label == "region" { AT_WORK } else { PLACED }
}

impl IamAccessKeyUnusualOrigin {
    /// The long-lived key that signed the call, unless its origin is not looked at.
    fn key<'e>(&self, event: &'e Event<'_>) -> Option<&'e str> {
        let address = event.source_address()?;
        let key = event.identity().access_key_id.as_str();
        let is_allowed = self.settings.allow_cidrs.iter().any(|net| net.contains(&address))
            || (!self.settings.allow_asns.is_empty()
                && event.place().asn.is_some_and(|asn| self.settings.allow_asns.contains(&asn)));
        (key.starts_with("AKIA") && !is_allowed).then_some(key)
    }

    /// Whether the region says where the key is at work.
    fn tells_region(&self, event: &Event<'_>) -> bool {
        self.settings.regions
            && !event.is_reading()
            && !event.region.is_empty()
            && !GLOBAL_SERVICES.iter().any(|service| event.source == *service)
            && !self.settings.deployment_tools.call(event)
    }

    /// What is known of the origin, by the label of its state.
    fn origin(&self, event: &Event<'_>) -> Vec<(&'static str, String)> {
        let place = event.place();
        let region = self.tells_region(event).then(|| event.region.to_string());
        [("country", place.country.clone()), ("asn", place.asn.map(|asn| format!("AS{asn}"))), ("region", region)]
            .into_iter()
            .filter_map(|(label, value)| Some((label, value?)))
            .collect()
    }
}
