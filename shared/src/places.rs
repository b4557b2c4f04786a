//! Where an address lies: country, city, coordinates and network, from MaxMind DB files.
//!
//! [`Places`] is loaded once, through the [`Files`] port, and shared by all events of an engine; a classifier asks
//! [`Event::place`](crate::Event::place). What the databases do not say is `None`: an unknown location is unknown, never
//! 0°N 0°E. The layouts read are MaxMind's own (GeoIP2, GeoLite2, DB-IP) and the flat one of the `@ip-location-db` packages.

use std::net::IpAddr;

use maxminddb::Reader;
use serde::{Deserialize, Deserializer, Serialize};

use crate::files::Files;
use crate::time::Timestamp;

/// The `[geo]` section: the databases that turn addresses into places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeoSettings {
    /// MaxMind DB files with cities or at least countries; one file or several, such as one for IPv4 and one for IPv6.
    /// The first that knows an address answers. Default none: `scripts/fetch-geoip` fetches some.
    #[serde(deserialize_with = "one_or_many")]
    pub city: Vec<String>,
    /// MaxMind DB files with autonomous system numbers. Default none.
    #[serde(deserialize_with = "one_or_many")]
    pub asn: Vec<String>,
}

fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a file name or a list of file names")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(from)? {
        OneOrMany::One(name) => vec![name],
        OneOrMany::Many(names) => names,
    })
}

/// What a database tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Countries, cities and coordinates: the setting `city`.
    Places,
    /// Autonomous systems: the setting `asn`.
    Networks,
}

impl Half {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Places, Self::Networks];

    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Places => "places",
            Self::Networks => "networks",
        }
    }

    /// The setting of `[geo]` that names such databases.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Places => "city",
            Self::Networks => "asn",
        }
    }
}

/// The databases. Without any, every place is unknown.
#[derive(Default)]
pub struct Places {
    city: Vec<Reader<Vec<u8>>>,
    asn: Vec<Reader<Vec<u8>>>,
}

/// Where an address lies, as far as the databases know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// ISO 3166 code of two capital letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// English name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// Latitude and longitude, in degrees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Coordinates>,
    /// The address is likely within this many kilometres of `at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_km: Option<u16>,
    /// Autonomous system number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Who runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The database says that the address hides where its user is: a proxy or a satellite.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_anonymous: bool,
}

/// A point on Earth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coordinates {
    /// Degrees north, −90 to 90.
    pub latitude: f64,
    /// Degrees east, −180 to 180.
    pub longitude: f64,
}

/// Mean radius of the Earth (IUGG), in kilometres.
const EARTH_RADIUS_KM: f64 = 6_371.008_8;

impl Coordinates {
    /// A point, unless the numbers are none; 0°N 0°E is how databases write "unknown", and nobody calls AWS from that
    /// buoy.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        (on_earth && (latitude, longitude) != (0.0, 0.0)).then_some(Self { latitude, longitude })
    }

    /// Great-circle distance in kilometres (haversine).
    pub fn distance_km(self, other: Self) -> f64 {
        let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
        let (north, south) = (self.latitude.to_radians().cos(), other.latitude.to_radians().cos());
        let h = half(other.latitude - self.latitude) + north * south * half(other.longitude - self.longitude);
        2.0 * EARTH_RADIUS_KM * h.clamp(0.0, 1.0).sqrt().asin()
    }
}

impl Place {
    /// Nothing is known about it.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// `London, GB`, `GB`, `AS29518`, or `unknown`.
    pub fn name(&self) -> String {
        match (&self.city, &self.country, self.asn) {
            (Some(city), Some(country), _) => format!("{city}, {country}"),
            (Some(one), None, _) | (None, Some(one), _) => one.clone(),
            (None, None, Some(asn)) => format!("AS{asn}"),
            (None, None, None) => "unknown".to_owned(),
        }
    }
}

impl Places {
    /// No database.
    pub const fn none() -> Self {
        Self { city: Vec::new(), asn: Vec::new() }
    }

    /// Reads the databases that the settings name.
    ///
    /// # Errors
    /// Of each setting at fault its name, and a sentence that names the file.
    pub fn load(settings: &GeoSettings, files: &dyn Files) -> Result<Self, Vec<(String, String)>> {
        let open = |key: &str, names: &[String]| {
            names
                .iter()
                .map(|name| {
                    let content = files.read(name)?;
                    Reader::from_source(content).map_err(|e| format!("{name} is not a MaxMind DB file: {e}"))
                })
                .collect::<Result<Vec<_>, String>>()
                .map_err(|why| (key.to_owned(), why))
        };
        match (open("city", &settings.city), open("asn", &settings.asn)) {
            (Ok(city), Ok(asn)) => Ok(Self { city, asn }),
            (city, asn) => Err(city.err().into_iter().chain(asn.err()).collect()),
        }
    }

    /// Databases in memory.
    ///
    /// # Errors
    /// A sentence about the first that is none.
    pub fn from_databases(city: Vec<Vec<u8>>, asn: Vec<Vec<u8>>) -> Result<Self, String> {
        let open = |all: Vec<Vec<u8>>| {
            all.into_iter()
                .map(|content| Reader::from_source(content).map_err(|e| format!("not a MaxMind DB file: {e}")))
                .collect::<Result<Vec<_>, String>>()
        };
        Ok(Self { city: open(city)?, asn: open(asn)? })
    }

    /// Whether countries can be told.
    pub const fn has_cities(&self) -> bool {
        !self.city.is_empty()
    }

    /// Whether networks can be told.
    pub const fn has_networks(&self) -> bool {
        !self.asn.is_empty()
    }

    /// Whether there is such a database.
    pub const fn has(&self, half: Half) -> bool {
        match half {
            Half::Places => self.has_cities(),
            Half::Networks => self.has_networks(),
        }
    }

    /// When the oldest of the databases was built; `None` without any, or when it does not say.
    pub fn built_at(&self) -> Option<Timestamp> {
        let epochs_s = self.city.iter().chain(&self.asn).map(|db| db.metadata().build_epoch);
        let oldest_s = i64::try_from(epochs_s.min()?).ok()?;
        Some(Timestamp::from_millis(oldest_s.checked_mul(1000)?)).filter(|at| at.is_plausible())
    }

    /// Where the address lies. A database that cannot be read at this address does not know it.
    pub fn locate(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let mut place = self
            .city
            .iter()
            .find_map(|db| look_up::<CityRecord>(db, address))
            .map_or_else(Place::default, CityRecord::into_place);
        if let Some(found) = self.asn.iter().find_map(|db| look_up::<AsnRecord>(db, address)) {
            place.asn = found.autonomous_system_number.and_then(Number::whole).filter(|asn| *asn != 0);
            place.network = found.autonomous_system_organization.filter(|name| !name.is_empty());
        }
        place
    }
}

fn look_up<'d, T: Deserialize<'d>>(database: &'d Reader<Vec<u8>>, address: IpAddr) -> Option<T> {
    if address.is_ipv6() && database.metadata().ip_version == 4 {
        return None;
    }
    database.lookup(address).ok()?.decode().ok().flatten()
}

/// Both layouts of city databases in one; absent fields stay `None`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct CityRecord {
    country: Option<CountryRecord>,
    country_code: Option<String>,
    city: Option<CityName>,
    location: LocationRecord,
    latitude: Option<Number>,
    longitude: Option<Number>,
    traits: TraitsRecord,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CountryRecord {
    iso_code: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CityName {
    Flat(String),
    Nested {
        #[serde(default)]
        names: Names,
    },
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Names {
    en: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LocationRecord {
    latitude: Option<Number>,
    longitude: Option<Number>,
    accuracy_radius: Option<Number>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TraitsRecord {
    is_anonymous_proxy: bool,
    is_satellite_provider: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AsnRecord {
    autonomous_system_number: Option<Number>,
    autonomous_system_organization: Option<String>,
}

/// A number of any width: producers differ, and the reader converts none by itself.
#[derive(Clone, Copy)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Width {
            Whole(u32),
            Float(f64),
        }
        Ok(Self(match Width::deserialize(from)? {
            Width::Whole(whole) => f64::from(whole),
            Width::Float(float) => float,
        }))
    }
}

impl Number {
    /// The whole number it is, if the type holds it.
    fn whole<T: TryFrom<i64>>(self) -> Option<T> {
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and the narrower type refuses that")]
        T::try_from(self.0 as i64).ok()
    }
}

impl CityRecord {
    fn into_place(self) -> Place {
        let country = self.country.and_then(|c| c.iso_code).or(self.country_code);
        let city = match self.city {
            Some(CityName::Flat(name)) => Some(name),
            Some(CityName::Nested { names }) => names.en,
            None => None,
        };
        let (latitude, longitude) =
            (self.location.latitude.or(self.latitude), self.location.longitude.or(self.longitude));
        let is_country =
            |code: &String| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase()) && code != "ZZ";
        Place {
            country: country.filter(is_country),
            city: city.filter(|name| !name.is_empty()),
            at: latitude.zip(longitude).and_then(|(north, east)| Coordinates::new(north.0, east.0)),
            accuracy_km: self.location.accuracy_radius.and_then(Number::whole),
            is_anonymous: self.traits.is_anonymous_proxy || self.traits.is_satellite_provider,
            ..Place::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::mmdb::Writer;

    struct Disk(BTreeMap<&'static str, Vec<u8>>);

    impl Files for Disk {
        fn read(&self, name: &str) -> Result<Vec<u8>, String> {
            self.0.get(name).cloned().ok_or_else(|| format!("could not open {name}"))
        }
    }

    fn disk() -> Disk {
        let mut nested = Writer::new("Test-City");
        nested.insert(
            "192.0.2.0/24".parse().unwrap(),
            &json!({
                "country": {"iso_code": "GB"}, "city": {"names": {"de": "L", "en": "London"}},
                "location": {"latitude": 51.5, "longitude": -0.12, "accuracy_radius": 10},
            }),
        );
        let mut flat = Writer::new("Test-Flat");
        flat.insert(
            "2001:db8::/32".parse().unwrap(),
            &json!({"country_code": "KR", "city": "Seoul", "latitude": 37.5, "longitude": 127.0}),
        );
        flat.insert(
            "198.51.100.0/24".parse().unwrap(),
            &json!({"country_code": "ZZ", "city": "", "latitude": 0.0, "longitude": 0.0}),
        );
        let mut asn = Writer::new("Test-ASN");
        asn.insert(
            "192.0.2.128/25".parse().unwrap(),
            &json!({"autonomous_system_number": 64496, "autonomous_system_organization": "Example"}),
        );
        Disk(BTreeMap::from([
            ("nested", nested.finish()),
            ("flat", flat.finish()),
            ("asn", asn.finish()),
            ("text", b"1.2.3.4".to_vec()),
        ]))
    }

    fn places() -> Places {
        let settings = GeoSettings { city: vec!["nested".to_owned(), "flat".to_owned()], asn: vec!["asn".to_owned()] };
        Places::load(&settings, &disk()).unwrap()
    }

    #[test]
    fn both_layouts_are_read_and_networks_joined() {
        let places = places();
        let london = places.locate("192.0.2.200".parse().unwrap());
        assert_eq!((london.name().as_str(), london.accuracy_km, london.asn), ("London, GB", Some(10), Some(64496)));
        assert_eq!(london.at, Coordinates::new(51.5, -0.12));
        assert_eq!(places.locate("::ffff:192.0.2.1".parse().unwrap()).name(), "London, GB");
        let seoul = places.locate("2001:db8::1".parse().unwrap());
        assert_eq!((seoul.name().as_str(), seoul.accuracy_km, seoul.asn), ("Seoul, KR", None, None));
    }

    #[test]
    fn unknown_is_unknown_and_never_zero_zero() {
        assert!(places().locate("198.51.100.1".parse().unwrap()).is_unknown());
        assert!(places().locate("10.0.0.1".parse().unwrap()).is_unknown());
        assert!(Places::none().locate("192.0.2.1".parse().unwrap()).is_unknown());
        assert_eq!(Coordinates::new(f64::NAN, 1.0), None);
        assert_eq!(Coordinates::new(91.0, 1.0), None);
    }

    #[test]
    fn a_bad_file_names_its_setting() {
        let bad = GeoSettings { asn: vec!["text".to_owned()], ..GeoSettings::default() };
        let mistakes = Places::load(&bad, &disk()).err().unwrap();
        assert!(mistakes[0].0 == "asn" && mistakes[0].1.contains("text is not a MaxMind DB file"), "{mistakes:?}");
        let missing = GeoSettings { city: vec!["none".to_owned()], ..bad };
        let keys: Vec<String> =
            Places::load(&missing, &disk()).err().unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["city", "asn"]);
    }

    #[test]
    fn one_name_or_several_are_accepted() {
        let one: GeoSettings = toml::from_str("city = 'a.mmdb'").unwrap();
        let many: GeoSettings = toml::from_str("city = ['a.mmdb']").unwrap();
        assert_eq!(one, many);
    }

    #[test]
    fn known_distances() {
        let london = Coordinates::new(51.5074, -0.1278).unwrap();
        let new_york = Coordinates::new(40.7128, -74.0060).unwrap();
        let sydney = Coordinates::new(-33.8688, 151.2093).unwrap();
        assert!((london.distance_km(new_york) - 5_570.2).abs() < 1.0);
        assert!((london.distance_km(sydney) - 16_993.9).abs() < 2.0);
    }

    proptest! {
        /// Swapping latitude and longitude, the classic mistake, breaks the last one.
        #[test]
        fn distance_is_symmetric_bounded_and_in_the_right_order(
            a in -90.0..90.0f64, b in -180.0..180.0f64, c in -90.0..90.0f64, d in -180.0..180.0f64,
        ) {
            let (Some(p), Some(q)) = (Coordinates::new(a, b), Coordinates::new(c, d)) else { return Ok(()) };
            let distance = p.distance_km(q);
            prop_assert!((distance - q.distance_km(p)).abs() < 1e-6);
            prop_assert!((0.0..=20_016.0).contains(&distance));
            prop_assert!(p.distance_km(p) < 1e-6);
            // A degree along a meridian has about 111 km, wherever; the distance is never below the part along it.
            prop_assert!(distance + 1e-6 >= (a - c).abs() * 111.19);
            let pole = Coordinates { latitude: 90.0, longitude: 0.0 };
            prop_assert!((p.distance_km(pole) - (90.0 - a) * 111.195).abs() < 1.0);
        }
    }
}
