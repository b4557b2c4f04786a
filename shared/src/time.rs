//! Instants with millisecond precision, always UTC.
//!
//! Events carry their own time; nothing here reads a clock (that is [`crate::ports::Clock`]).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 2006-01-01T00:00:00Z. No AWS record is older: S3, the first service, opened in March 2006.
const EARLIEST_MS: i64 = 1_136_073_600_000;
/// 2100-01-01T00:00:00Z. A later time is a broken producer, and would expire all state at once.
const LATEST_MS: i64 = 4_102_444_800_000;

impl Timestamp {
    /// An instant from milliseconds since the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339 text such as `2026-03-01T12:00:00Z`, with or without a fraction, the `+0000` offset that
    /// CloudWatch writes, and `2026-03-01 12:00:00` as log stores export it, which is UTC. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(fast) = parse_seconds_utc(text.as_bytes()) {
            return Some(fast);
        }
        text.parse::<jiff::Timestamp>()
            .or_else(|_| jiff::Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text))
            .or_else(|_| {
                text.parse::<jiff::civil::DateTime>()
                    .and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC))
                    .map(|z| z.timestamp())
            })
            .ok()
            .map(|t| Self(t.as_millisecond()))
    }

    /// Whether a record could carry this time: from 2006 (the first AWS service) up to 2100.
    pub const fn is_plausible(self) -> bool {
        self.0 >= EARLIEST_MS && self.0 < LATEST_MS
    }

    /// This instant moved by a number of seconds, saturating.
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Whole seconds from `earlier` to this instant; negative when `earlier` is later.
    pub const fn seconds_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

/// The exact form CloudTrail writes, `YYYY-MM-DDTHH:MM:SSZ`, without going through a calendar
/// library: this runs once for every record read.
fn parse_seconds_utc(b: &[u8]) -> Option<Timestamp> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', i0, i1, b':', s0, s1, b'Z'] = *b else {
        return None;
    };
    let two = |hi: u8, lo: u8| -> Option<i64> {
        (hi.is_ascii_digit() && lo.is_ascii_digit()).then(|| i64::from(hi - b'0') * 10 + i64::from(lo - b'0'))
    };
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let (month, day) = (two(m0, m1)?, two(d0, d1)?);
    let (hour, minute, second) = (two(h0, h1)?, two(i0, i1)?, two(s0, s1)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day < 1 || day > month_days || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days from civil, Howard Hinnant's algorithm, for years from 0 on.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(Timestamp((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1000))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
            Self::parse(&text).ok_or_else(|| de::Error::custom(format!("not an RFC 3339 time: {text:?}")))
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cloudwatch_offsets_and_fractions_are_read() {
        assert_eq!(Timestamp::parse("2023-08-04T12:36:15.490+0000"), Timestamp::parse("2023-08-04T12:36:15.490Z"));
    }

    #[test]
    fn times_without_an_offset_are_utc() {
        assert_eq!(Timestamp::parse("2022-12-11 19:42:55.000"), Timestamp::parse("2022-12-11T19:42:55Z"));
    }

    #[test]
    fn impossible_dates_are_refused() {
        for text in ["2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "yesterday", ""] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
        for text in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            assert!(!Timestamp::parse(text).expect("well formed").is_plausible(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_path_agrees_with_the_calendar_library(s in 0_i64..250_000_000_000) {
            let text = jiff::Timestamp::from_second(s).unwrap().to_string();
            prop_assert_eq!(Timestamp::parse(&text), Some(Timestamp(s * 1000)));
        }
    }
}
