//! CloudWatch alarms outside EventBridge: the SNS payload (`AlarmName`) and the Lambda action (`alarmData`). Both become
//! the notification EventBridge would have sent, with their own text as its detail.

use std::borrow::Cow;

use shared::event::{Event, NotificationHeader, RecordError, plausible_time};
use shared::json_scan::{ScanError, Scanner};

/// Reads the alarm.
///
/// # Errors
/// When its time is missing or impossible, or a field has the wrong type.
pub fn event(text: &str) -> Result<Event<'_>, RecordError> {
    let (mut time, mut account, mut region, mut arn) =
        (Cow::Borrowed(""), Cow::Borrowed(""), Cow::Borrowed(""), Cow::Borrowed(""));
    let mut wrong = None;
    Scanner::new(text).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        let (into, field) = match key {
            "StateChangeTime" => (&mut time, "StateChangeTime"),
            "time" => (&mut time, "time"),
            "AWSAccountId" => (&mut account, "AWSAccountId"),
            "accountId" => (&mut account, "accountId"),
            "region" => (&mut region, "region"),
            "AlarmArn" => (&mut arn, "AlarmArn"),
            _ => return Ok(()),
        };
        match value.as_str() {
            Some(text) => *into = text,
            None if value.is_null() => {}
            None => wrong = Some(RecordError::Wrong { field, expected: "a string" }),
        }
        Ok(())
    })?;
    if let Some(error) = wrong {
        return Err(error);
    }
    if time.is_empty() {
        return Err(RecordError::Missing { field: "StateChangeTime" });
    }
    // CloudWatch's own documentation shows times such as `12: 36: 15`; blanks never mean anything here.
    let time = plausible_time(&time.replace(' ', ""), "StateChangeTime")?;
    if region.is_empty() {
        // The SNS payload has the region's display name in `Region`; the code is the ARN's fourth part.
        region = Cow::Owned(arn.split(':').nth(3).unwrap_or("").trim().to_owned());
    }
    let header = NotificationHeader {
        source: Cow::Borrowed("aws.cloudwatch"),
        detail_type: Cow::Borrowed("CloudWatch Alarm State Change"),
        id: Cow::Borrowed(""),
        time,
        account,
        region,
    };
    Ok(Event::notification(header, text))
}
