//! What a CloudWatch alarm says, which EventBridge, SNS and Lambda each write in their own way.

use serde_json::Value;
use shared::Timestamp;
use shared::classifier::Malformed;
use shared::event::{Event, plausible_time};

/// The `source` of alarms, whichever way they come.
pub const SOURCE: &str = "aws.cloudwatch";

/// An alarm that changed its state. What is not said is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmState<'e> {
    /// The alarm's name.
    pub name: &'e str,
    /// `OK`, `ALARM` or `INSUFFICIENT_DATA`.
    pub state: &'e str,
    /// The state it had before.
    pub before: &'e str,
    /// Why, in words.
    pub reason: &'e str,
    /// When it changed: the `StateChangeTime` of SNS.
    pub changed: Timestamp,
}

impl<'e> AlarmState<'e> {
    /// Reads an event of [`SOURCE`].
    ///
    /// # Errors
    /// When its detail is not JSON.
    pub fn of(event: &'e Event<'_>) -> Result<Self, Malformed> {
        let detail = event.detail()?;
        let data = &detail["alarmData"];
        let first = |values: [&'e Value; 3]| values.into_iter().find_map(Value::as_str).unwrap_or_default();
        let changed = first([&detail["state"]["timestamp"], &Value::Null, &data["state"]["timestamp"]]);
        Ok(Self {
            name: first([&detail["alarmName"], &detail["AlarmName"], &data["alarmName"]]),
            state: first([&detail["state"]["value"], &detail["NewStateValue"], &data["state"]["value"]]),
            before: first([
                &detail["previousState"]["value"],
                &detail["OldStateValue"],
                &data["previousState"]["value"],
            ]),
            reason: first([&detail["state"]["reason"], &detail["NewStateReason"], &data["state"]["reason"]]),
            // The payload of SNS has it as the event's own time.
            changed: plausible_time(changed, "timestamp").unwrap_or(event.time),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::intake;

    #[test]
    fn the_three_ways_of_writing_an_alarm_say_the_same() {
        let state = json!({"value": "ALARM", "reason": "crossed", "timestamp": "2026-03-01T12:00:00.250+0000"});
        let before = json!({"value": "OK"});
        let detail = json!({"alarmName": "mass", "state": state, "previousState": before});
        let bridge = json!({"source": SOURCE, "detail-type": "CloudWatch Alarm State Change", "id": "a",
            "time": "2026-03-01T12:00:01Z", "account": "123456789012", "region": "eu-central-1", "detail": detail});
        let sns = json!({"AlarmName": "mass", "AWSAccountId": "123456789012", "NewStateValue": "ALARM",
            "OldStateValue": "OK", "NewStateReason": "crossed", "StateChangeTime": "2026-03-01T12:00:00.250+0000"});
        let lambda = json!({"source": SOURCE, "accountId": "123456789012", "time": "2026-03-01T12:00:01.000+0000",
            "region": "eu-central-1", "alarmData": detail});
        for form in [bridge, sns, lambda] {
            let text = form.to_string();
            let event = intake::event(&text).expect("an alarm");
            assert_eq!(event.source, SOURCE);
            let expected = AlarmState {
                name: "mass",
                state: "ALARM",
                before: "OK",
                reason: "crossed",
                changed: Timestamp::parse("2026-03-01T12:00:00.250Z").expect("a time"),
            };
            assert_eq!(AlarmState::of(&event).expect("readable"), expected, "{text}");
        }
    }

    #[test]
    fn an_impossible_time_of_the_state_is_that_of_the_event() {
        for timestamp in [json!("yesterday"), json!("9999-01-01T00:00:00Z"), json!(7), json!(null)] {
            let text = json!({"source": SOURCE, "detail-type": "CloudWatch Alarm State Change", "id": "a",
                "time": "2026-03-01T12:00:01Z", "detail": {"alarmName": "mass", "state": {"timestamp": timestamp}}})
            .to_string();
            let event = intake::event(&text).expect("an alarm");
            assert_eq!(AlarmState::of(&event).expect("readable").changed, event.time);
        }
    }
}
