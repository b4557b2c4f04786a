//! EventBridge envelopes: CloudTrail records in `detail`, or a service's own notification.
//!
//! **What an envelope says counts for as much as its source.** Anybody with `PutEvents` on a bus chooses `detail-type` and
//! `detail`, but EventBridge refuses sources that begin with `aws.`, and writes `account` itself. So a CloudTrail record is
//! believed only under such a source and in the envelope of the account that it is about; else a forged record would have
//! the responder change an account. Notifications need no such check: classifiers ask for them by source and name.

use std::borrow::Cow;

use shared::event::{Event, NotificationHeader, RecordError, plausible_time};
use shared::json_scan::{ScanError, Scanner};

use super::{follow_up, inspection, text_log};

/// Detail types that carry a CloudTrail record end in this: "AWS API Call via CloudTrail", "AWS Console Sign In via
/// CloudTrail", "AWS Service Event via CloudTrail".
const CLOUDTRAIL_SUFFIX: &str = "via CloudTrail";

/// Sources that only AWS can send, but for those of its partners, who write what they like (EventBridge user guide,
/// "PutEvents" and "Receiving events from a SaaS partner").
const AWS_PREFIX: &str = "aws.";
const PARTNER_PREFIX: &str = "aws.partner/";

/// The account that a CloudTrail record was delivered to, as EventBridge's `account` is.
const RECIPIENT: &str = "recipientAccountId";

/// Reads the event in an envelope.
///
/// # Errors
/// When `source`, `detail-type`, `time` or `detail` is missing or of the wrong type, the record inside is unreadable, or it
/// cannot have come from CloudTrail.
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
        return record(header, detail);
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

/// The CloudTrail record in an envelope, if AWS sent it.
fn record<'a>(header: NotificationHeader<'a>, detail: &'a str) -> Result<Event<'a>, RecordError> {
    if !header.source.starts_with(AWS_PREFIX) || header.source.starts_with(PARTNER_PREFIX) {
        return Err(RecordError::Wrong {
            field: "source",
            expected: "AWS (aws.…), from where CloudTrail's records come",
        });
    }
    let mut event = Event::from_cloudtrail(detail)?;
    if event.account.is_empty() {
        event.account = header.account;
    } else if event.account != header.account && !header.account.is_empty() && names_recipient(detail) {
        // Without a recipient the record's account is its caller's, which may be another.
        return Err(RecordError::Wrong {
            field: "account",
            expected: "the recipientAccountId of the record in detail",
        });
    }
    Ok(event)
}

fn names_recipient(detail: &str) -> bool {
    let mut found = false;
    let read = Scanner::new(detail).object::<ScanError>(|key, s| {
        let value = s.raw_value()?;
        found |= key.eq_ignore_ascii_case(RECIPIENT) && !value.is_null();
        Ok(())
    });
    read.is_ok() && found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn envelope(source: &str, account: &str) -> Value {
        let record = json!({"eventTime": "2026-03-01T12:00:00Z", "eventSource": "iam.amazonaws.com", "eventID": "e-1",
            "eventName": "CreateAccessKey", "recipientAccountId": "123456789012", "awsRegion": "us-east-1",
            "userIdentity": {"type": "AWSAccount", "accountId": "210987654321"}});
        json!({"version": "0", "id": "x", "detail-type": "AWS API Call via CloudTrail", "source": source, "account": account,
            "time": "2026-03-01T12:00:00Z", "region": "us-east-1", "resources": [], "detail": record})
    }

    fn account(envelope: &Value) -> Result<String, String> {
        event(&envelope.to_string()).map(|event| event.account.into_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_record_is_believed_only_from_aws() {
        assert_eq!(account(&envelope("aws.iam", "123456789012")), Ok("123456789012".to_owned()));
        for forged in
            ["pipeline.canary", "my.app", "aws", "AWS.iam", "aws.partner/example.com/1", "", "pipeline.follow-up"]
        {
            for kind in ["AWS API Call", "AWS Console Sign In", "AWS Service Event"] {
                let mut envelope = envelope(forged, "123456789012");
                envelope["detail-type"] = json!(format!("{kind} via CloudTrail"));
                let error = account(&envelope).unwrap_err();
                assert!(error.starts_with("source is not AWS"), "{forged}: {error}");
            }
        }
        let mut nobody = envelope("aws.iam", "123456789012");
        nobody.as_object_mut().unwrap().remove("source");
        assert!(account(&nobody).is_err());
    }

    #[test]
    fn a_record_of_another_account_than_its_envelopes_is_refused() {
        let error = account(&envelope("aws.iam", "111122223333")).unwrap_err();
        assert_eq!(error, "account is not the recipientAccountId of the record in detail");
        let mut lower_case = envelope("aws.iam", "111122223333");
        let detail = lower_case["detail"].as_object_mut().unwrap();
        let lowered = std::mem::take(detail).into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
        *detail = lowered;
        assert!(account(&lower_case).is_err());
    }

    #[test]
    fn a_record_or_an_envelope_without_a_recipient_is_not_compared() {
        assert_eq!(account(&envelope("aws.iam", "")), Ok("123456789012".to_owned()));
        let mut old = envelope("aws.iam", "111122223333");
        old["detail"].as_object_mut().unwrap().remove("recipientAccountId");
        assert_eq!(account(&old), Ok("210987654321".to_owned()), "the caller's, as in a log file");
        old["detail"].as_object_mut().unwrap().remove("userIdentity");
        assert_eq!(account(&old), Ok("111122223333".to_owned()));
    }
}
