//! EventBridge envelopes: CloudTrail records in `detail`, or a service's own notification.

use std::borrow::Cow;

use shared::event::{Event, NotificationHeader, RecordError, plausible_time};
use shared::json_scan::{ScanError, Scanner};

use super::{follow_up, inspection, text_log};

/// Detail types that carry a CloudTrail record end in this: "AWS API Call via CloudTrail", "AWS Console Sign In via
/// CloudTrail", "AWS Service Event via CloudTrail".
const CLOUDTRAIL_SUFFIX: &str = "via CloudTrail";

/// Reads the event in an envelope.
///
/// # Errors
/// When `source`, `detail-type`, `time` or `detail` is missing or of the wrong type, or the record inside is unreadable.
pub fn event(text: &str) -> Result<Event<'_>, RecordError> {
    let mut header = NotificationHeader {
        source: Cow::Borrowed(""),
        detail_type: Cow::Borrowed(""),
        id: Cow::Borrowed(""),
        time: shared::Timestamp::default(),
        account: Cow::Borrowed(""),
        region: Cow::Borrowed(""),
    };
    let mut time = Cow::Borrowed("");
    let mut detail = "";
    let mut wrong = None;
    Scanner::new(text).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        let (into, field) = match key {
            "source" => (&mut header.source, "source"),
            "detail-type" => (&mut header.detail_type, "detail-type"),
            "id" => (&mut header.id, "id"),
            "time" => (&mut time, "time"),
            "account" => (&mut header.account, "account"),
            "region" => (&mut header.region, "region"),
            "detail" => {
                detail = value.text;
                return Ok(());
            }
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
    if !detail.starts_with('{') {
        return Err(RecordError::Wrong { field: "detail", expected: "an object" });
    }
    if header.detail_type.ends_with(CLOUDTRAIL_SUFFIX) {
        let mut event = Event::from_cloudtrail(detail)?;
        if event.account.is_empty() {
            event.account = header.account;
        }
        return Ok(event);
    }
    for (field, value) in [("source", &header.source), ("detail-type", &header.detail_type), ("time", &time)] {
        if value.is_empty() {
            return Err(RecordError::Missing { field });
        }
    }
    header.time = plausible_time(&time, "time")?;
    if header.source == follow_up::SOURCE {
        return follow_up::event(header, detail);
    }
    if header.source == inspection::SOURCE {
        return Ok(inspection::event(header, detail));
    }
    if text_log::is_source(&header.source) {
        return Ok(text_log::event(header, detail));
    }
    Ok(Event::notification(header, detail))
}
