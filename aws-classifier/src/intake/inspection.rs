//! An object that was inspected, as a record of our own: what S3 said about its creation and what the inspection says
//! about its content.

use std::borrow::Cow;

use serde_json::json;
use shared::event::{Event, NotificationHeader};
use shared::json_scan::{ScanError, Scanner};

use super::s3_object::Object;
use crate::inspect::Report;

/// The `source` of inspected objects.
pub const SOURCE: &str = "pipeline.inspection";
/// Their name.
pub const NAME: &str = "S3 Object Inspected";

/// The record of an inspected object, as text that [`super::Leaf::of`] reads. Its id is what S3 calls this version of the
/// object, so that the same object inspected again makes the same record.
pub fn text(object: &Object, report: &Report) -> String {
    json!({
        "source": SOURCE,
        "detail-type": NAME,
        "id": format!("{}/{}", object.name(), object.created.version),
        "time": object.created.at,
        "account": object.created.account,
        "region": object.created.region,
        "detail": {
            "bucket": object.bucket,
            "key": object.key,
            "requester": object.created.requester,
            "source_ip": object.created.source_ip,
            "report": report,
        },
    })
    .to_string()
}

/// The event of an inspected object, with the address it was uploaded from.
pub fn event<'a>(header: NotificationHeader<'a>, detail: &'a str) -> Event<'a> {
    let mut event = Event::notification(header, detail);
    // What cannot be read is for the classifier to say.
    let _ = Scanner::new(detail).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        if key == "source_ip" {
            event.source_ip = value.as_str().unwrap_or(Cow::Borrowed(""));
        }
        Ok(())
    });
    event
}
