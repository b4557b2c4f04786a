//! CloudWatch alarms that lead into a log group of CloudTrail: when one of them goes off, the records around its time are
//! looked up and classified like all others.
//!
//! This says which alarms, and which records. The handler looks, so classifiers stay pure.

use serde::{Deserialize, Serialize};
use shared::Timestamp;
use shared::classifier::SettingsError;
use shared::config::Document;
use shared::event::Event;
use shared::ports::LogQuery;
use shared::text::{matches_glob, one_line};

use crate::alarm_state::{self, AlarmState};

/// The longest name of an alarm (API reference of `PutMetricAlarm`).
const NAME_CHARS_MAX: usize = 255;
/// The longest name of a log group (API reference of `CreateLogGroup`).
const LOG_GROUP_CHARS_MAX: usize = 512;
/// More events are refused: our choice. They stand in every question.
const EVENTS_MAX: usize = 50;
/// The longest name of an event: our choice, twice the longest there is.
const EVENT_CHARS_MAX: usize = 128;
/// The longest part of a window: our choice. A question costs by the bytes that the log group got in that time.
const MINUTES_MAX: u32 = 60;

/// The `[alarms]` section: which CloudWatch alarms lead to a look into a log group of CloudTrail (in AWS only).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The names of the alarms, in which `*` is any characters. Default none: nothing is looked up.
    pub names: Vec<String>,
    /// The log group that a trail writes to, in the region of the function. Default the one that the deployment names. The
    /// function needs the permission to ask it.
    pub log_group: String,
    /// The `eventName`s of the records that are wanted. Default `RunInstances`, which alarms on many new instances count.
    pub events: Vec<String>,
    /// How many minutes before the alarm's time the records begin. Default 5, as the system before this one had it.
    pub minutes_before: u32,
    /// How many minutes behind the alarm's time they end. Default 5, as the system before this one had it.
    pub minutes_after: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            log_group: String::new(),
            events: vec!["RunInstances".to_owned()],
            minutes_before: 5,
            minutes_after: 5,
        }
    }
}

/// Which alarms lead where.
#[derive(Clone, Debug, Default)]
pub struct Alarms(Settings);

/// What is to be looked up for one alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The alarm's name.
    pub alarm: String,
    /// The first moment.
    pub from: Timestamp,
    /// The last moment, which belongs to it.
    pub until: Timestamp,
}

impl Window {
    /// The alarm's name, for logs and reasons.
    pub fn shown(&self) -> String {
        one_line(&self.alarm, 100)
    }
}

impl Alarms {
    /// From the `[alarms]` section of a configuration file. Mistakes are kept by `document`.
    pub fn configure(document: &mut Document<'_>) -> Self {
        Self(document.section_with("alarms", |settings: &Settings| {
            settings.check().err().map(|error| (error.key.to_owned(), error.why)).into_iter().collect()
        }))
    }

    /// With a log group for settings that name none.
    ///
    /// # Errors
    /// When there are alarms and still no log group.
    pub fn reading(mut self, log_group: Option<String>) -> Result<Self, SettingsError> {
        if self.0.log_group.is_empty() {
            self.0.log_group = log_group.unwrap_or_default();
        }
        self.0.check()?;
        if !self.0.names.is_empty() && self.0.log_group.is_empty() {
            return Err(SettingsError::new("log_group", "alarms need a log group to look into"));
        }
        Ok(self)
    }

    /// What is to be looked up when this event is one of the alarms and goes off; an alarm that cannot be read is none.
    pub fn window(&self, event: &Event<'_>) -> Option<Window> {
        if event.source != alarm_state::SOURCE || self.0.names.is_empty() {
            return None;
        }
        let AlarmState { name, state, changed, .. } = AlarmState::of(event).ok()?;
        let is_ours = self.0.names.iter().any(|pattern| matches_glob(pattern, name));
        (is_ours && state == "ALARM").then(|| Window {
            alarm: name.to_owned(),
            from: changed.plus_seconds(-60 * i64::from(self.0.minutes_before)),
            until: changed.plus_seconds(60 * i64::from(self.0.minutes_after)),
        })
    }

    /// The question for a window.
    pub fn query(&self, window: &Window) -> LogQuery<'_> {
        LogQuery { log_group: &self.0.log_group, events: &self.0.events, from: window.from, until: window.until }
    }
}

impl Settings {
    fn check(&self) -> Result<(), SettingsError> {
        let fits = |text: &str, max: usize| !text.is_empty() && text.chars().count() <= max;
        if !self.names.iter().all(|name| fits(name, NAME_CHARS_MAX)) {
            return Err(SettingsError::new("names", format!("a name has 1 to {NAME_CHARS_MAX} characters")));
        }
        let is_of_group = |c: char| c.is_ascii_alphanumeric() || "._-/#".contains(c);
        if self.log_group.len() > LOG_GROUP_CHARS_MAX || !self.log_group.chars().all(is_of_group) {
            let why = format!("a log group has at most {LOG_GROUP_CHARS_MAX} letters, digits and . _ - / #");
            return Err(SettingsError::new("log_group", why));
        }
        let is_event = |name: &String| fits(name, EVENT_CHARS_MAX) && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if !(1..=EVENTS_MAX).contains(&self.events.len()) || !self.events.iter().all(is_event) {
            return Err(SettingsError::new("events", format!("must be 1 to {EVENTS_MAX} names of letters and digits")));
        }
        if self.minutes_before > MINUTES_MAX {
            return Err(SettingsError::new("minutes_before", format!("must be at most {MINUTES_MAX}")));
        }
        if self.minutes_after > MINUTES_MAX {
            return Err(SettingsError::new("minutes_after", format!("must be at most {MINUTES_MAX}")));
        }
        if self.minutes_before + self.minutes_after == 0 {
            return Err(SettingsError::new("minutes_before", "must be at least 1 when minutes_after is 0"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::intake;

    fn configured(text: &str) -> Result<Alarms, String> {
        let mut document = Document::parse("pipeline.toml", text);
        let alarms = Alarms::configure(&mut document);
        document.finish().map_err(|error| error.to_string())?;
        alarms.reading(None).map_err(|error| error.to_string())
    }

    fn alarm(name: &str, state: &str) -> String {
        json!({"source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change", "id": "a",
               "time": "2026-03-01T12:00:00Z", "detail": {"alarmName": name, "state": {"value": state}}})
        .to_string()
    }

    fn window(alarms: &Alarms, name: &str, state: &str) -> Option<Window> {
        alarms.window(&intake::event(&alarm(name, state)).expect("an alarm"))
    }

    #[test]
    fn only_named_alarms_that_go_off_lead_to_records_around_their_time() {
        let alarms = configured("[alarms]\nnames = [\"mass-*\", \"other\"]\nlog_group = \"trail\"\n").expect("fine");
        let looked = window(&alarms, "mass-instances", "ALARM").expect("looked up");
        let time = |text| Timestamp::parse(text).expect("a time");
        assert_eq!((looked.from, looked.until), (time("2026-03-01T11:55:00Z"), time("2026-03-01T12:05:00Z")));
        let LogQuery { log_group, events, from, until } = alarms.query(&looked);
        assert_eq!((log_group, events), ("trail", &["RunInstances".to_owned()][..]));
        assert_eq!((from, until), (looked.from, looked.until));
        for (name, state) in
            [("mass-instances", "OK"), ("mass-instances", "INSUFFICIENT_DATA"), ("mass", "ALARM"), ("", "ALARM")]
        {
            assert_eq!(window(&alarms, name, state), None, "{name} {state}");
        }
        assert_eq!(window(&configured("").expect("defaults"), "mass-instances", "ALARM"), None, "none by default");
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused_by_their_key() {
        let long = "x".repeat(513);
        for (key, settings) in [
            ("names", "names = [\"\"]".to_owned()),
            ("names", format!("names = [\"{}\"]", &long[..256])),
            ("log_group", "log_group = \"a b\"".to_owned()),
            ("log_group", format!("log_group = \"{long}\"")),
            ("log_group", "names = [\"mass\"]".to_owned()),
            ("events", "events = []".to_owned()),
            ("events", "events = [\"Run\\\"] | fields x\"]".to_owned()),
            ("events", "events = [\"\"]".to_owned()),
            ("minutes_before", "minutes_before = 61".to_owned()),
            ("minutes_after", "minutes_after = 61".to_owned()),
            ("minutes_before", "minutes_before = 0\nminutes_after = 0".to_owned()),
            ("nmes", "nmes = []".to_owned()),
        ] {
            let error = configured(&format!("[alarms]\n{settings}\n")).expect_err(key);
            assert!(error.contains(key), "{settings}: {error}");
        }
        configured("[alarms]\nminutes_before = 60\nminutes_after = 0\n").expect("bounds");
    }

    #[test]
    fn a_log_group_of_the_settings_comes_before_that_of_the_deployment() {
        let read = |settings: &str, deployed: Option<&str>| {
            let mut document = Document::parse("pipeline.toml", settings);
            let alarms = Alarms::configure(&mut document).reading(deployed.map(str::to_owned));
            alarms.map(|alarms| alarms.0.log_group).map_err(|error| error.key)
        };
        let named = "[alarms]\nnames = [\"mass\"]\nlog_group = \"own\"\n";
        assert_eq!(read(named, Some("deployed")).as_deref(), Ok("own"));
        assert_eq!(read("[alarms]\nnames = [\"mass\"]\n", Some("deployed")).as_deref(), Ok("deployed"));
        assert_eq!(read("[alarms]\nnames = [\"mass\"]\n", Some("no group")), Err("log_group"));
    }
}
