//! One principal was in two places too far apart to travel between in the time.
//!
//! **What it detects.** Two successful logins, or STS calls that begin or show a session, of one principal within
//! `window_s`, whose places lie more than `distance_km_min` apart and would take a speed above `speed_kmh_max`. The
//! accuracy radius of both places is taken off the distance and `skew_s` added to the time, so what is reported is
//! impossible even at the most favourable reading. Events that arrive late or swapped are judged against both
//! neighbours in time. A user of Identity Center is one principal in all accounts and permission sets. One pair of
//! places is reported again after `repeat_s` of quiet.
//!
//! **Why it matters.** Somebody else holds the password, key or session.
//!
//! **False positives.** VPN exits, privacy relays, security gateways and satellites show the provider's place: their
//! networks are in `allow_asns`, your own egress belongs into `allow_cidrs`. Cloud machines and CI runners make
//! sessions under one name from many regions: for STS calls (not for logins) `machine_asns` leaves them out. Calls by
//! AWS services are ignored. What is left out is not remembered either, so a VPN session between two logins at home
//! changes nothing. Without a database of places nothing is judged, and an address that the database does not know is
//! nowhere.
//!
//! **Response.** Ask the principal; lock the login, deactivate the key or revoke the sessions if in doubt.
//!
//! **References.** See `META`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shared::places::{Coordinates, Half, Place, Places};
use shared::ports::Files;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, SettingsError, Severity,
    Timestamp,
};

use crate::sign_in;

/// Limits of `[classifiers.console_login_impossible_travel]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds two logins may be apart and still be compared: 60 to 604,800 (7 days). Default 86,400: at 900 km/h every
    /// place on Earth can be reached within a day. The predecessor compared only 600.
    pub window_s: u32,
    /// Kilometres an hour that are still possible: 1 to 100,000. Default 900, the predecessor's: an airliner.
    pub speed_kmh_max: u32,
    /// Kilometres that are never too far, whatever the speed: 0 to 20,000. Default 50, the predecessor's.
    pub distance_km_min: u32,
    /// Accuracy radius in kilometres of places whose database gives none: 0 to 1,000. Default 50, our choice: what
    /// databases that do give one mostly say of city-level entries.
    pub accuracy_km_default: u16,
    /// Seconds that clocks of different AWS endpoints may differ: 0 to 3,600. Default 60, our choice.
    pub skew_s: u32,
    /// Seconds without the same pair of places after which it is reported again: 1 to 604,800. Default 3,600.
    pub repeat_s: u32,
    /// ISO codes of countries whose logins are left out. Default none.
    pub allow_countries: Vec<String>,
    /// Autonomous systems whose addresses say nothing about their users. Default: privacy relays (Cloudflare, Akamai,
    /// Fastly), security gateways (Zscaler, Netskope, Palo Alto Networks) and satellites (Starlink, Viasat, Hughes,
    /// Inmarsat, OneWeb).
    pub allow_asns: Vec<u32>,
    /// Autonomous systems of clouds, left out for STS calls only. Default: Amazon, Microsoft, Google.
    pub machine_asns: Vec<u32>,
    /// Networks that are left out, such as the exits of your own VPN. Default none.
    pub allow_cidrs: Vec<IpNet>,
}

const RELAYS_GATEWAYS_SATELLITES: [u32; 13] =
    [13_335, 36_183, 54_113, 22_616, 53_813, 62_044, 55_256, 54_538, 14_593, 7_155, 6_621, 31_515, 800];
const CLOUDS: [u32; 5] = [14_618, 16_509, 8_075, 15_169, 396_982];

impl Default for Settings {
    fn default() -> Self {
        Self {
            window_s: 86_400,
            speed_kmh_max: 900,
            distance_km_min: 50,
            accuracy_km_default: 50,
            skew_s: 60,
            repeat_s: 3_600,
            allow_countries: Vec::new(),
            allow_asns: RELAYS_GATEWAYS_SATELLITES.to_vec(),
            machine_asns: CLOUDS.to_vec(),
            allow_cidrs: Vec::new(),
        }
    }
}

/// See the module.
pub struct ConsoleLoginImpossibleTravel {
    settings: Settings,
    has_places: bool,
}

/// A place and an address, as remembered between two events.
#[derive(Debug, Deserialize, Serialize)]
struct Stop {
    address: String,
    name: String,
    at: Coordinates,
    accuracy_km: u16,
}

/// What would have been travelled, at the most favourable reading.
struct Journey {
    distance_km: f64,
    seconds: f64,
}

impl Classifier for ConsoleLoginImpossibleTravel {
    const META: Meta = Meta {
        id: "console_login_impossible_travel",
        title: "One principal in two places too far apart for the time",
        severity: Severity::High,
        techniques: &["T1078.004"],
        patterns: &[
            Pattern::Api { source: "signin.amazonaws.com", names: &["ConsoleLogin"] },
            Pattern::Api {
                source: "sts.amazonaws.com",
                names: &[
                    "AssumeRole",
                    "AssumeRoleWithSAML",
                    "AssumeRoleWithWebIdentity",
                    "GetCallerIdentity",
                    "GetFederationToken",
                    "GetSessionToken",
                ],
            },
        ],
        failed_calls: FailedCalls::Ignored,
        responses: &["iam_login_lock", "iam_access_key_deactivate", "iam_sessions_revoke"],
        references: &[
            "https://attack.mitre.org/techniques/T1078/004/",
            "https://docs.aws.amazon.com/IAM/latest/UserGuide/cloudtrail-integration.html",
        ],
    };
    const PLACES: &'static [Half] = &Half::ALL;
    type Settings = Settings;

    fn new(mut settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        let ranges = [
            ("window_s", settings.window_s, 60, 604_800),
            ("speed_kmh_max", settings.speed_kmh_max, 1, 100_000),
            ("distance_km_min", settings.distance_km_min, 0, 20_000),
            ("accuracy_km_default", settings.accuracy_km_default.into(), 0, 1_000),
            ("skew_s", settings.skew_s, 0, 3_600),
            ("repeat_s", settings.repeat_s, 1, 604_800),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(SettingsError::new(key, format!("must be from {least} to {most}, is {value}")));
            }
        }
        for country in &mut settings.allow_countries {
            country.make_ascii_uppercase();
            if country.len() != 2 || !country.bytes().all(|b| b.is_ascii_uppercase()) {
                return Err(SettingsError::new("allow_countries", format!("{country} is no ISO code such as DE")));
            }
        }
        Ok(Self { settings, has_places: false })
    }

    fn use_places(&mut self, places: &Places) {
        self.has_places = places.has_cities();
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        if !self.has_places {
            return false;
        }
        event.identity_type != "AWSAccount" && event.source_address().is_some() && !event.is_by_aws_service()
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        if is_login(event) && !sign_in::succeeded(event)? {
            return Ok(Observations::none());
        }
        let Some(stop) = self.stop(event) else { return Ok(Observations::none()) };
        let stop = serde_json::to_string(&stop).expect("names and numbers");
        Ok(Observations::none().remember("stop", sign_in::person(event), stop, self.settings.window_s))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let Some(here) = self.stop(event) else { return Ok(None) };
        let known = known.last("stop");
        let neighbours = [(known.previous, false), (known.next, true)];
        for (neighbour, arrived_late) in neighbours {
            let Some((time, text)) = neighbour else { continue };
            let Ok(there) = serde_json::from_str::<Stop>(&text) else { continue };
            let Some(journey) = self.impossible(&here, &there, event.time, time) else { continue };
            let (from, to) = if arrived_late { (&here, &there) } else { (&there, &here) };
            let mut pair = [&*here.name, &*there.name];
            pair.sort_unstable();
            let evidence = Evidence::about(event.principal())
                .once_in(format!("{}/{}", sign_in::person(event), pair.join("/")), self.settings.repeat_s)
                .fact("principal_kind", event.identity().principal_kind().as_str())
                .fact("from_place", &*from.name)
                .fact("from_address", &*from.address)
                .fact("to_place", &*to.name)
                .fact("to_address", &*to.address)
                .fact("minutes_between", (journey.seconds / 60.0).round())
                .fact("distance_km", here.at.distance_km(there.at).round())
                .fact("accuracy_km", [from.accuracy_km, to.accuracy_km].to_vec())
                .fact("speed_kmh_at_least", journey.speed_kmh(self.settings.skew_s).round())
                .fact("other_event_time", time.to_string())
                .fact("arrived_late", arrived_late);
            return Ok(Some(if event.places().has_networks() {
                evidence
            } else {
                evidence.fact("geo_database", "places only: relays, gateways and clouds could not be left out")
            }));
        }
        Ok(None)
    }

    fn why_not(&self, event: &Event<'_>, known: &Known) -> Option<String> {
        if !self.has_places {
            return Some("no geo database of places: `city` in `[geo]` names none".to_owned());
        }
        let Some(address) = event.source_address() else {
            return Some("the call has no address, as those of AWS services".to_owned());
        };
        if event.is_by_aws_service() {
            return Some("an AWS service made the call".to_owned());
        }
        if event.identity_type == "AWSAccount" {
            return Some("the caller is of another account, of which no more is told".to_owned());
        }
        if is_login(event) && !sign_in::succeeded(event).ok()? {
            return Some("the login failed".to_owned());
        }
        if event.place().at.is_none() {
            return Some(format!("the geo database does not know where {address} is"));
        }
        self.stop(event).map_or_else(
            || Some(format!("{address} is of a relay, cloud, country or network that is left out")),
            |_| {
                let stops = known.last("stop");
                let is_alone = stops.previous.is_none() && stops.next.is_none();
                Some(if is_alone {
                    format!("no other place of this principal within {} s", self.settings.window_s)
                } else {
                    "the other places of this principal can be reached in the time".to_owned()
                })
            },
        )
    }
}

impl ConsoleLoginImpossibleTravel {
    /// Where the caller is, unless that is unknown or says nothing.
    fn stop(&self, event: &Event<'_>) -> Option<Stop> {
        let settings = &self.settings;
        let address = event.source_address()?;
        let place = event.place();
        let at = place.at?;
        let is_in = |asns: &[u32]| place.asn.is_some_and(|asn| asns.contains(&asn));
        let allowed = place.is_anonymous
            || is_in(&settings.allow_asns)
            || (!is_login(event) && is_in(&settings.machine_asns))
            || place.country.as_ref().is_some_and(|country| settings.allow_countries.contains(country))
            || settings.allow_cidrs.iter().any(|net| net.contains(&address));
        (!allowed).then(|| Stop {
            address: address.to_string(),
            name: named(place, at),
            at,
            accuracy_km: place.accuracy_km.unwrap_or(settings.accuracy_km_default),
        })
    }

    fn impossible(&self, here: &Stop, there: &Stop, now: Timestamp, then: Timestamp) -> Option<Journey> {
        let radii = f64::from(here.accuracy_km) + f64::from(there.accuracy_km);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a week are exact")]
        let seconds = (now.as_millis() - then.as_millis()).abs() as f64 / 1000.0;
        let journey = Journey { distance_km: here.at.distance_km(there.at) - radii, seconds };
        (journey.distance_km > f64::from(self.settings.distance_km_min)
            && seconds <= f64::from(self.settings.window_s)
            && journey.speed_kmh(self.settings.skew_s) > f64::from(self.settings.speed_kmh_max))
        .then_some(journey)
    }
}

impl Journey {
    /// The least speed, with the clocks as far apart as they may be; infinite for no time at all.
    fn speed_kmh(&self, skew_s: u32) -> f64 {
        self.distance_km / ((self.seconds + f64::from(skew_s)) / 3_600.0)
    }
}

fn is_login(event: &Event<'_>) -> bool {
    event.source.eq_ignore_ascii_case("signin.amazonaws.com")
}

/// The place's name, with coordinates where there is no city.
fn named(place: &Place, at: Coordinates) -> String {
    if place.city.is_some() {
        return place.name();
    }
    format!("{} ({:.1}, {:.1})", place.name(), at.latitude, at.longitude)
}
