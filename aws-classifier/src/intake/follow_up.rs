//! Follow-ups: a CloudTrail record shown again to the classifier that asked for it, some time later.
//!
//! Classifiers have no clock, so "it was not undone within the hour" needs an event at the end of the hour. The reader of
//! log files makes it and puts it into its place among the records; it is made of the record alone, so it is the same
//! whoever makes it and however often.

use std::borrow::Cow;

use serde_json::json;
use shared::event::{Event, NotificationHeader, RecordError};

/// The `source` of follow-ups; their name is the id of the classifier that asked.
pub const SOURCE: &str = "pipeline.follow-up";
/// What the id of a follow-up has behind that of its record.
pub const ID_SUFFIX: &str = "/follow-up";

/// The follow-up of `event`, as text that [`super::Leaf::of`] reads.
pub fn text(event: &Event<'_>, classifier: &str, after_s: u32) -> String {
    let header = json!({
        "source": SOURCE,
        "detail-type": classifier,
        "id": format!("{}{ID_SUFFIX}", event.event_id),
        "time": event.time.plus_seconds(i64::from(after_s)),
        "account": event.account,
        "region": event.region,
    })
    .to_string();
    // The record goes in as it stands.
    format!("{},\"detail\":{}}}", &header[..header.len() - 1], event.record)
}

/// Reads a follow-up: the record's caller, request and response, under the follow-up's own time and id.
///
/// # Errors
/// When `detail` is not a CloudTrail record.
pub fn event<'a>(header: NotificationHeader<'a>, detail: &'a str) -> Result<Event<'a>, RecordError> {
    let mut event = Event::from_cloudtrail(detail)?;
    // Not a call any more: nobody who watches all calls must see it twice.
    event.kind = shared::event::EventKind::Notification;
    event.source = Cow::Borrowed(SOURCE);
    event.name = header.detail_type;
    event.event_id = header.id;
    event.time = header.time;
    event.account = header.account;
    event.region = header.region;
    Ok(event)
}
