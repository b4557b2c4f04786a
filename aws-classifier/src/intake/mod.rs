//! From text of any envelope to records.
//!
//! [`decode`] opens envelopes inside envelopes (SQS, SNS, EventBridge, CloudTrail's `Records`, CloudWatch Logs
//! subscriptions, several findings of Security Hub) down to [`Leaf`]s, each one record. [`text_log`] makes records of
//! the lines of text logs. [`log_file`] is the fast path for CloudTrail log files. Neither fails as a whole: what
//! cannot be read is reported with its field and its neighbours go on.

pub mod access_log;
pub mod alarm;
pub mod event_bridge;
pub mod flow_log;
pub mod follow_up;
pub mod inflate;
pub mod inspection;
pub mod log_file;
pub mod log_groups;
pub mod logs;
pub mod s3_object;
pub mod security_hub;
mod text_line;
pub mod text_log;

use log_groups::LogGroups;
use security_hub::Findings;
use shared::event::{Event, RecordError};
use shared::json_scan::{RawValue, ScanError, Scanner};

/// Envelopes nested deeper are refused: SQS in SNS in S3 is three.
const NESTING_MAX: u32 = 6;

/// Why a text is not a record or an envelope of records. Always permanent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// A record that cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// JSON of an unknown shape.
    #[error("not an envelope or record this version reads; its keys are {keys}")]
    Unknown {
        /// The first few top-level keys.
        keys: String,
    },
    /// Not an object or array.
    #[error("not a JSON object")]
    NotAnObject,
    /// A line that is neither JSON nor of a text log.
    #[error("neither JSON nor a line of a log this version reads")]
    NotALogLine,
    /// Envelopes in envelopes without end.
    #[error("envelopes nested deeper than {NESTING_MAX}")]
    TooDeep,
    /// Bytes that are not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A record longer than [`log_file::RECORD_BYTES_MAX`].
    #[error("longer than {} MiB", log_file::RECORD_BYTES_MAX >> 20)]
    TooLong,
    /// More of something in one envelope than there can be.
    #[error("more than {max} {what} in one envelope")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        max: usize,
    },
    /// A batch or a line of CloudWatch Logs.
    #[error("CloudWatch Logs: {why}")]
    Logs {
        /// What is wrong with it.
        why: String,
    },
    /// The file ends too early.
    #[error("the file ends inside its records")]
    Truncated,
}

impl From<ScanError> for IntakeError {
    fn from(error: ScanError) -> Self {
        Self::Record(RecordError::Json(error))
    }
}

impl IntakeError {
    /// Whether there was JSON to read; no when the bytes are something else altogether.
    pub const fn is_json(&self) -> bool {
        !matches!(
            self,
            Self::Record(RecordError::Json(_))
                | Self::NotAnObject
                | Self::NotALogLine
                | Self::NotUtf8
                | Self::Truncated
        )
    }

    /// The field at fault; empty when there is none to name.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Record(error) => error.field(),
            _ => "",
        }
    }
}

/// What kind of record a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeafKind {
    CloudTrail,
    EventBridge,
    Alarm,
}

/// One record's text, ready to be read as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'a> {
    kind: LeafKind,
    /// The JSON text; [`Leaf::of`] gives the same leaf for it.
    pub text: &'a str,
}

impl<'a> Leaf<'a> {
    /// The leaf that a text is, when it is one and no envelope of several.
    ///
    /// # Errors
    /// When it is not JSON or of no known shape.
    pub fn of(text: &'a str) -> Result<Self, IntakeError> {
        let shape = Shape::of(text)?;
        shape.leaf(text).ok_or_else(|| shape.unknown())
    }

    /// Reads the record.
    ///
    /// # Errors
    /// When a needed field is missing or of the wrong type.
    pub fn event(&self) -> Result<Event<'a>, IntakeError> {
        Ok(match self.kind {
            LeafKind::CloudTrail => Event::from_cloudtrail(self.text)?,
            LeafKind::EventBridge => event_bridge::event(self.text)?,
            LeafKind::Alarm => alarm::event(self.text)?,
        })
    }
}

/// Reads the record that a text is, when it is one and no envelope of several.
///
/// # Errors
/// When it is not JSON, of no known shape, or a needed field is missing or of the wrong type.
pub fn event(text: &str) -> Result<Event<'_>, IntakeError> {
    match Event::from_cloudtrail(text) {
        Ok(event) if !event.source.starts_with("aws:") => Ok(event),
        _ => Leaf::of(text)?.event(),
    }
}

/// Whether records of that source are made here: lines of text logs, inspected objects and follow-ups. They come from
/// nowhere else.
pub fn is_own(source: &str) -> bool {
    source == follow_up::SOURCE || source == inspection::SOURCE || text_log::is_source(source)
}

/// Calls `each` for every record in `text`, opening envelopes on the way. Each error stands for one record or
/// envelope that could not be read. Of batches of CloudWatch Logs, records in `log_groups` are believed.
pub fn decode(text: &str, log_groups: &LogGroups, each: &mut dyn FnMut(Result<Leaf<'_>, IntakeError>)) {
    decode_nested(text, log_groups, 0, each);
}

fn decode_nested(text: &str, log_groups: &LogGroups, depth: u32, each: &mut dyn FnMut(Result<Leaf<'_>, IntakeError>)) {
    if depth > NESTING_MAX {
        return each(Err(IntakeError::TooDeep));
    }
    let mut scanner = Scanner::new(text);
    match scanner.peek() {
        Some(b'[') => decode_array(text, log_groups, depth, each),
        Some(b'{') => match Shape::of(text) {
            Ok(shape) => shape.open(text, log_groups, depth, each),
            Err(error) => each(Err(error)),
        },
        Some(_) => each(Err(IntakeError::NotAnObject)),
        None => each(Err(ScanError { offset: text.len(), what: "expected a value" }.into())),
    }
}

fn decode_array(text: &str, log_groups: &LogGroups, depth: u32, each: &mut dyn FnMut(Result<Leaf<'_>, IntakeError>)) {
    let mut scanner = Scanner::new(text);
    let opened = scanner.expect(b'[', "expected an array");
    if let Err(error) = opened {
        return each(Err(error.into()));
    }
    if scanner.take(b']') {
        return;
    }
    loop {
        match scanner.raw_value() {
            Ok(RawValue { text: item, .. }) if item.starts_with('{') => {
                decode_nested(item, log_groups, depth + 1, each);
            }
            Ok(_) => each(Err(IntakeError::NotAnObject)),
            Err(error) => return each(Err(error.into())),
        }
        if scanner.take(b',') {
            continue;
        }
        if let Err(error) = scanner.expect(b']', "expected a comma or a closing bracket") {
            each(Err(error.into()));
        }
        return;
    }
}

fn open_logs(batch: &str, log_groups: &LogGroups, depth: u32, each: &mut dyn FnMut(Result<Leaf<'_>, IntakeError>)) {
    let read = logs::lines(batch, |line| match line {
        Ok(logs::LogLine { text, owner, group: Some(group) }) => match log_groups.accounts(owner, group) {
            Ok(accounts) => decode_nested(text, log_groups, depth + 1, &mut |leaf| {
                each(leaf.and_then(|leaf| accounts.check(&leaf.event()?.account).map(|()| leaf)));
            }),
            Err(error) => each(Err(error)),
        },
        Ok(logs::LogLine { text, .. }) => decode_nested(text, log_groups, depth + 1, each),
        Err(error) => each(Err(error)),
    });
    if let Err(error) = read {
        each(Err(error));
    }
}

/// The top-level members by which envelopes are told apart.
#[derive(Default)]
struct Shape<'a> {
    keys: Vec<&'a str>,
    records: Option<RawValue<'a>>,
    detail: Option<RawValue<'a>>,
    detail_type: Option<RawValue<'a>>,
    message: Option<RawValue<'a>>,
    body: Option<RawValue<'a>>,
    sns: Option<RawValue<'a>>,
    awslogs: Option<RawValue<'a>>,
    is_log_batch: bool,
    event_source: Option<RawValue<'a>>,
    has_event_name: bool,
    is_like_cloudtrail: bool,
    is_alarm: bool,
}

impl<'a> Shape<'a> {
    fn of(text: &'a str) -> Result<Self, IntakeError> {
        let mut shape = Self::default();
        let mut scanner = Scanner::new(text);
        scanner.object::<ScanError>(|key, s| {
            let value = s.raw_value()?;
            match key {
                "Records" => shape.records = Some(value),
                "detail" => shape.detail = Some(value),
                "detail-type" => shape.detail_type = Some(value),
                "Message" => shape.message = Some(value),
                "body" => shape.body = Some(value),
                "Sns" => shape.sns = Some(value),
                "awslogs" => shape.awslogs = Some(value),
                "logEvents" => shape.is_log_batch = true,
                "AlarmName" | "alarmData" => shape.is_alarm = true,
                "eventSource" | "eventsource" => shape.event_source = Some(value),
                "eventName" | "eventname" => (shape.has_event_name, shape.is_like_cloudtrail) = (true, true),
                "eventVersion" | "eventID" | "eventversion" | "eventid" => shape.is_like_cloudtrail = true,
                _ => {}
            }
            if shape.keys.len() < 8 {
                shape.keys.push(key);
            }
            Ok(())
        })?;
        if scanner.peek().is_some() {
            return Err(ScanError { offset: scanner.position(), what: "text behind the value" }.into());
        }
        Ok(shape)
    }

    fn findings(&self) -> Option<Findings<'a>> {
        Findings::several(self.detail_type?, self.detail?)
    }

    fn leaf(&self, text: &'a str) -> Option<Leaf<'a>> {
        // A record's own fields decide first, as they do for the log file reader: both must agree on every text.
        let kind = if self.event_source.is_some() && self.has_event_name && !self.is_aws_notification() {
            LeafKind::CloudTrail
        } else if self.detail.is_some() && self.detail_type.is_some() {
            if self.findings().is_some() {
                return None;
            }
            LeafKind::EventBridge
        } else if self.is_alarm {
            LeafKind::Alarm
        } else if self.is_like_cloudtrail && !self.is_aws_notification() {
            LeafKind::CloudTrail
        } else {
            return None;
        };
        Some(Leaf { kind, text })
    }

    /// S3, SQS and SNS notifications have `eventSource: aws:…`.
    fn is_aws_notification(&self) -> bool {
        self.event_source.and_then(RawValue::as_str).is_some_and(|source| source.starts_with("aws:"))
    }

    fn unknown(&self) -> IntakeError {
        let keys: Vec<String> = self.keys.iter().map(|k| shared::text::one_line(k, 40)).collect();
        IntakeError::Unknown { keys: keys.join(", ") }
    }

    fn open(
        &self,
        text: &'a str,
        log_groups: &LogGroups,
        depth: u32,
        each: &mut dyn FnMut(Result<Leaf<'_>, IntakeError>),
    ) {
        if let Some(leaf) = self.leaf(text) {
            return each(Ok(leaf));
        }
        if let Some(findings) = self.findings() {
            let opened = findings.open(text, |finding| decode_nested(finding, log_groups, depth + 1, each));
            return opened.unwrap_or_else(|error| each(Err(error)));
        }
        if let Some(awslogs) = self.awslogs {
            return match logs::batch(awslogs) {
                Ok(batch) => open_logs(&batch, log_groups, depth + 1, each),
                Err(error) => each(Err(error)),
            };
        }
        if self.is_log_batch {
            return open_logs(text, log_groups, depth, each);
        }
        let nested = self.records.or(self.sns).or(self.message).or(self.body);
        match nested {
            Some(RawValue { text: array, .. }) if array.starts_with('[') => {
                decode_array(array, log_groups, depth, each);
            }
            Some(RawValue { text: object, .. }) if object.starts_with('{') => {
                decode_nested(object, log_groups, depth + 1, each);
            }
            // A JSON text inside a JSON string: SQS bodies and SNS messages.
            Some(raw) => match raw.as_str() {
                Some(inner) => decode_nested(&inner, log_groups, depth + 1, each),
                None => each(Err(self.unknown())),
            },
            None => each(Err(self.unknown())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn record() -> Value {
        json!({"eventTime": "2026-03-01T12:00:00Z", "eventSource": "iam.amazonaws.com", "eventName": "CreateUser",
               "eventID": "e-1", "recipientAccountId": "123456789012", "awsRegion": "us-east-1"})
    }

    fn names(value: &Value) -> Vec<Result<String, String>> {
        names_from(value, &LogGroups::Any)
    }

    fn names_from(value: &Value, log_groups: &LogGroups) -> Vec<Result<String, String>> {
        let mut names = Vec::new();
        decode(&value.to_string(), log_groups, &mut |leaf| {
            names.push(leaf.and_then(|l| l.event().map(|e| e.name.into_owned())).map_err(|e| e.to_string()));
        });
        names
    }

    #[test]
    fn every_envelope_leads_to_the_record() {
        let bridge = json!({"version": "0", "id": "x", "detail-type": "AWS API Call via CloudTrail", "source": "aws.iam",
            "account": "123456789012", "time": "2026-03-01T12:00:00Z", "region": "us-east-1", "resources": [], "detail": record()});
        let sns = json!({"Type": "Notification", "MessageId": "m", "TopicArn": "t", "Message": bridge.to_string()});
        let lambda_sns = json!({"Records": [{"EventSource": "aws:sns", "Sns": sns}]});
        let sqs = json!({"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": sns.to_string()}]});
        for envelope in
            [record(), json!([record()]), json!({"Records": [record()]}), bridge.clone(), sns.clone(), lambda_sns, sqs]
        {
            assert_eq!(names(&envelope), [Ok("CreateUser".to_owned())], "{envelope}");
        }
    }

    fn awslogs(batch: &Value) -> Value {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut gzip, batch.to_string().as_bytes()).unwrap();
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, gzip.finish().unwrap());
        json!({"awslogs": {"data": data}})
    }

    #[test]
    fn log_subscriptions_lead_to_the_records_in_their_lines() {
        let line = |message: Value| json!({"id": "1", "timestamp": 1, "message": message});
        let batch = json!({"messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "trail", "logStream": "s",
            "logEvents": [line(json!(record().to_string())), line(json!("GET / 200")), line(json!(7)),
                          line(json!(record().to_string()))]});
        for envelope in [awslogs(&batch), batch] {
            let seen = names(&envelope);
            assert_eq!(seen.len(), 4, "{seen:?}");
            assert_eq!((&seen[0], &seen[3]), (&Ok("CreateUser".to_owned()), &Ok("CreateUser".to_owned())));
            assert_eq!(seen[1], Err("CloudWatch Logs: a line of trail that is no record".to_owned()));
            assert_eq!(seen[2], Err("CloudWatch Logs: logEvents[].message is missing or no string".to_owned()));
        }
        let control = json!({"messageType": "CONTROL_MESSAGE", "logEvents": [line(json!("CWL CONTROL MESSAGE"))]});
        assert_eq!(names(&awslogs(&control)), []);
        for bad in [json!({"awslogs": {}}), json!({"awslogs": {"data": "%"}}), json!({"awslogs": {"data": "aGVsbG8="}})]
        {
            assert!(matches!(&names(&bad)[..], [Err(error)] if error.contains("awslogs.data")), "{bad}");
        }
    }

    #[test]
    fn records_are_believed_from_the_log_groups_that_settings_name() {
        let named = |cloudtrail: &[&str], organization: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let settings = log_groups::Settings { cloudtrail: owned(cloudtrail), organization: owned(organization) };
            assert_eq!(settings.mistakes(), []);
            LogGroups::Named(settings)
        };
        let seen = |owner: &str, group: &str, log_groups: &LogGroups| {
            let batch = json!({"messageType": "DATA_MESSAGE", "owner": owner, "logGroup": group,
                "logEvents": [{"id": "1", "timestamp": 1, "message": record().to_string()}]});
            let inside = names_from(&awslogs(&batch), log_groups);
            assert_eq!(names_from(&json!({"Records": [{"body": batch.to_string()}]}), log_groups), inside);
            inside.into_iter().next().unwrap()
        };
        let trail = named(&["trail-*"], &["111122223333:org/*"]);
        let found = Ok("CreateUser".to_owned());
        assert_eq!(seen("123456789012", "trail-1", &trail), found);
        assert_eq!(seen("111122223333", "org/trail", &trail), found);
        for (owner, group, log_groups) in [
            ("123456789012", "/app/web", &trail),
            ("123456789012", "", &trail),
            ("999999999999", "org/trail", &trail),
            ("123456789012", "trail-1", &LogGroups::default()),
        ] {
            let error = seen(owner, group, log_groups).unwrap_err();
            let shown = format!("JSON in the log group {group} of {owner}, which [log_groups] does not name");
            assert!(error.contains(&shown), "{error}");
        }
        let error = seen("999999999999", "trail-1", &trail).unwrap_err();
        assert!(error.contains("a record of account 123456789012 in a log group of 999999999999"), "{error}");
        assert_eq!(seen("999999999999", "/app/web", &LogGroups::Any), found);
        let odd = log_groups::Settings { organization: vec!["org/trail".to_owned()], ..Default::default() };
        assert_eq!(odd.mistakes()[0].0, "organization");
        let arn = log_groups::Settings { cloudtrail: vec!["arn:aws:logs:x".to_owned()], ..Default::default() };
        assert_eq!(arn.mistakes()[0].0, "cloudtrail");
    }

    #[test]
    fn a_log_batch_that_inflates_without_end_is_refused() {
        let batch = json!({"messageType": "DATA_MESSAGE", "logEvents": [], "padding": " ".repeat(33 << 20)});
        let seen = names(&awslogs(&batch));
        assert!(matches!(&seen[..], [Err(error)] if error.contains("inflate")), "{seen:?}");
    }

    #[test]
    fn findings_of_security_hub_are_records_of_their_own() {
        let envelope = |findings: Value| {
            json!({"version": "0", "id": "x", "detail-type": "Security Hub Findings - Custom Action", "source": "aws.securityhub",
                   "account": "123456789012", "time": "2026-03-01T12:00:00Z", "region": "us-east-1",
                   "detail": {"actionName": "send", "findings": findings}})
        };
        let mut details = Vec::new();
        decode(&envelope(json!([{"Id": "a"}, {"Id": "b"}])).to_string(), &LogGroups::default(), &mut |leaf| {
            let leaf = leaf.unwrap();
            assert_eq!(Leaf::of(leaf.text), Ok(leaf));
            details.push(leaf.event().unwrap().detail().unwrap().clone());
        });
        let one = |id: &str| json!({"actionName": "send", "findings": [{"Id": id}]});
        assert_eq!(details, [one("a"), one("b")]);
        assert_eq!(names(&envelope(json!([]))), []);
        assert_eq!(names(&envelope(json!([1]))).len(), 1);
        assert_eq!(names(&envelope(json!(null))).len(), 1);
        let seen = names(&envelope(json!(vec![json!({}); 101])));
        assert_eq!(seen, [Err("more than 100 findings in one envelope".to_owned())]);
    }

    #[test]
    fn one_bad_record_leaves_its_neighbours() {
        let mut bad = record();
        bad["eventName"] = json!(7);
        let seen = names(&json!({"Records": [record(), bad, record()]}));
        assert_eq!(seen[1], Err("eventName is not a string".to_owned()));
        assert_eq!((seen.len(), seen[0].is_ok(), seen[2].is_ok()), (3, true, true));
    }

    #[test]
    fn notifications_and_alarms_carry_their_detail_type() {
        let guardduty = json!({"detail-type": "GuardDuty Finding", "source": "aws.guardduty", "id": "x", "account": "1",
            "time": "2026-03-01T12:00:00Z", "region": "us-east-1", "detail": {"severity": 8}});
        assert_eq!(names(&guardduty), [Ok("GuardDuty Finding".to_owned())]);
        let alarm = json!({"AlarmName": "many", "NewStateValue": "ALARM", "StateChangeTime": "2026-03-01T12:00:00.123+0000",
            "AWSAccountId": "123456789012", "AlarmArn": "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:many"});
        assert_eq!(names(&alarm), [Ok("CloudWatch Alarm State Change".to_owned())]);
    }

    #[test]
    fn a_record_with_the_keys_of_an_envelope_stays_a_record() {
        let mut odd = record();
        odd["AlarmName"] = json!("x");
        odd["detail-type"] = json!("x");
        odd["detail"] = json!({});
        assert_eq!(names(&odd), [Ok("CreateUser".to_owned())]);
    }

    #[test]
    fn unknown_shapes_name_their_keys() {
        let seen = names(&json!({"hello": 1, "world": 2}));
        let Err(error) = &seen[0] else { panic!("{seen:?}") };
        assert!(error.contains("hello, world"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_decoded_without_panic(text in ".*") {
            decode(&text, &LogGroups::Any, &mut |leaf| { let _ = leaf.and_then(|l| l.event().map(drop)); });
        }

        #[test]
        fn any_json_in_any_place_is_decoded_without_panic(key in "Records|Message|body|Sns|detail|detail-type|eventName|AlarmName|awslogs|logEvents", inner in ".*") {
            let text = json!({ "detail-type": "x", key: inner }).to_string();
            decode(&text, &LogGroups::Any, &mut |leaf| { let _ = leaf.and_then(|l| l.event().map(drop)); });
        }
    }
}
