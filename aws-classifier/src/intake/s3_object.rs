//! Notifications that objects were created in S3: which log files there are to read, and which objects to inspect.
//!
//! They come as S3 sends them to a queue, as an SNS topic passes those on, or as EventBridge's "Object Created". Pure: what
//! is named here is opened by the handler.

use serde_json::Value;
use shared::ports::ObjectRef;

use crate::percent;

/// An object in a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// The bucket's name.
    pub bucket: String,
    /// The object's key, as it is.
    pub key: String,
    /// What else the notification says.
    pub created: Creation,
}

/// How an object came to be. What the notification does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creation {
    /// When, as S3 writes it.
    pub at: String,
    /// The account, which only EventBridge's notifications name: that of the bucket's owner.
    pub account: String,
    /// The region.
    pub region: String,
    /// Bytes.
    pub size: u64,
    /// Tells this version of the object from others: its version id, else S3's sequence number, else its hash.
    pub version: String,
    /// Its version id, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// The entity tag of its content, without quotes.
    pub etag: Option<String>,
    /// Who: a principal id (`AWS:AROA…:session`), or an account number in EventBridge's notifications.
    pub requester: String,
    /// From which address.
    pub source_ip: String,
}

impl Object {
    /// Whether it is a log file, by its place. One of CloudTrail is where CloudTrail puts it:
    /// `[prefix/]AWSLogs/[organisation/]account/CloudTrail/region/YYYY/MM/DD/…json.gz`; digests lie under
    /// `CloudTrail-Digest`, insights under `CloudTrail-Insight`. Batches of CloudWatch Logs are where Firehose was told to put
    /// them: `[prefix/]AWSLogs/account/CloudWatchLogs/…json.gz`.
    pub fn is_log_file(&self) -> bool {
        self.key.contains("AWSLogs/")
            && ["/CloudTrail/", "/CloudWatchLogs/"].iter().any(|folder| self.key.contains(folder))
            && [".json.gz", ".json"].iter().any(|ending| self.key.ends_with(ending))
    }

    /// Whatever the key holds now.
    pub fn newest(&self) -> ObjectRef<'_> {
        ObjectRef::newest(&self.bucket, &self.key)
    }

    /// The content that was announced and no other. The version alone would not do: in a bucket that has stopped keeping
    /// versions, the one called `null` is overwritten.
    pub fn announced(&self) -> ObjectRef<'_> {
        let Creation { version_id, etag, .. } = &self.created;
        ObjectRef { version_id: version_id.as_deref(), etag: etag.as_deref(), ..self.newest() }
    }

    /// `s3://BUCKET/KEY`.
    pub fn name(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
}

/// What a message body announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// The objects.
    pub objects: Vec<Object>,
    /// Notifications of something else: a removal, the test event that S3 sends when notifications are set up.
    pub ignored: u64,
    /// Notifications that name no bucket or key.
    pub failed: u64,
}

/// Reads a message body; `None` when it is no notification of S3.
pub fn created(body: &str) -> Option<Created> {
    // Nearly no body is one, and all others are read elsewhere.
    if !["aws:s3", "aws.s3", "s3:TestEvent"].iter().any(|mark| body.contains(mark)) {
        return None;
    }
    let body: Value = serde_json::from_str(body).ok()?;
    // A notification of SNS has it as text.
    match body["Message"].as_str().filter(|_| body["TopicArn"].is_string()) {
        Some(inner) => of(&serde_json::from_str(inner).ok()?),
        None => of(&body),
    }
}

fn of(body: &Value) -> Option<Created> {
    let mut created = Created::default();
    if body["Event"] == "s3:TestEvent" {
        created.ignored = 1;
    } else if body["source"] == "aws.s3" && body["detail-type"] == "Object Created" {
        let detail = &body["detail"];
        let creation = Creation {
            at: text(&body["time"]),
            account: text(&body["account"]),
            region: text(&body["region"]),
            requester: text(&detail["requester"]),
            source_ip: text(&detail["source-ip-address"]),
            ..Creation::of(&detail["object"], "version-id", "etag")
        };
        created.add(detail["bucket"]["name"].as_str(), detail["object"]["key"].as_str().map(str::to_owned), creation);
    } else {
        let records = body["Records"].as_array()?;
        if records.is_empty() || records.iter().any(|record| record["eventSource"] != "aws:s3") {
            return None;
        }
        for record in records {
            if record["eventName"].as_str().is_some_and(|name| name.starts_with("ObjectCreated:")) {
                let s3 = &record["s3"];
                let creation = Creation {
                    at: text(&record["eventTime"]),
                    region: text(&record["awsRegion"]),
                    requester: text(&record["userIdentity"]["principalId"]),
                    source_ip: text(&record["requestParameters"]["sourceIPAddress"]),
                    ..Creation::of(&s3["object"], "versionId", "eTag")
                };
                created.add(
                    s3["bucket"]["name"].as_str(),
                    s3["object"]["key"].as_str().and_then(percent::decoded),
                    creation,
                );
            } else {
                created.ignored += 1;
            }
        }
    }
    Some(created)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Creation {
    /// What the part about the object says, which has two spellings.
    fn of(object: &Value, version_id: &str, hash: &str) -> Self {
        let text = |key: &str| object[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let version = [version_id, "sequencer", hash].into_iter().find_map(text);
        Self {
            size: object["size"].as_u64().unwrap_or(0),
            version: version.unwrap_or_default(),
            version_id: text(version_id),
            etag: text(hash),
            ..Self::default()
        }
    }
}

impl Created {
    fn add(&mut self, bucket: Option<&str>, key: Option<String>, created: Creation) {
        match (bucket, key) {
            (Some(bucket), Some(key)) => self.objects.push(Object { bucket: bucket.to_owned(), key, created }),
            _ => self.failed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "AWSLogs/123456789012/CloudTrail/eu-west-1/2026/03/01/a b+ü.json.gz";

    fn record(name: &str, key: &str) -> Value {
        json!({"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name, "awsRegion": "eu-west-1",
               "s3": {"bucket": {"name": "trail"}, "object": {"key": key, "size": 1024}}})
    }

    #[test]
    fn all_three_ways_name_the_same_object() {
        let encoded = "AWSLogs/123456789012/CloudTrail/eu-west-1/2026/03/01/a+b%2B%C3%BC.json.gz";
        let direct = json!({"Records": [record("ObjectCreated:Put", encoded)]});
        let topic = json!({"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:t",
                           "Message": direct.to_string()});
        let bridge = json!({"source": "aws.s3", "detail-type": "Object Created",
                            "detail": {"bucket": {"name": "trail"}, "object": {"key": KEY, "size": 1024}}});
        for body in [direct, topic, bridge] {
            let found = created(&body.to_string()).expect("of S3");
            assert_eq!((found.ignored, found.failed, found.objects.len()), (0, 0, 1), "{body}");
            assert_eq!(found.objects[0].name(), format!("s3://trail/{KEY}"), "{body}");
            assert_eq!(found.objects[0].created.size, 1024, "{body}");
        }
    }

    #[test]
    fn the_announced_content_is_named_as_far_as_it_is_known() {
        let bridge = |object: Value| {
            json!({"source": "aws.s3", "detail-type": "Object Created",
                   "detail": {"bucket": {"name": "b"}, "object": object}})
        };
        let direct = |object: Value| {
            let s3 = json!({"bucket": {"name": "b"}, "object": object});
            json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": s3}]})
        };
        for (body, version_id, etag) in [
            (bridge(json!({"key": "k", "version-id": "v1", "etag": "e1"})), Some("v1"), Some("e1")),
            (bridge(json!({"key": "k", "etag": "e1", "sequencer": "7"})), None, Some("e1")),
            (direct(json!({"key": "k", "versionId": "v1", "eTag": "e1"})), Some("v1"), Some("e1")),
            (direct(json!({"key": "k", "versionId": "", "eTag": "e1"})), None, Some("e1")),
            (direct(json!({"key": "k"})), None, None),
        ] {
            let found = created(&body.to_string()).expect("of S3");
            let expected = ObjectRef { version_id, etag, ..ObjectRef::newest("b", "k") };
            assert_eq!(found.objects[0].announced(), expected, "{body}");
            assert_eq!(found.objects[0].newest(), ObjectRef::newest("b", "k"), "{body}");
        }
    }

    #[test]
    fn what_is_not_a_log_file_is_told_apart() {
        let is_log = |key: &str| Object { bucket: "trail".into(), key: key.into(), ..Object::default() }.is_log_file();
        assert!(is_log(KEY));
        assert!(is_log("prefix/AWSLogs/o-1/123456789012/CloudTrail/us-east-1/2026/03/01/x.json.gz"));
        assert!(is_log("AWSLogs/123456789012/CloudWatchLogs/2026/03/01/12/web-1-2026-03-01-12-00-00-x.json.gz"));
        assert!(!is_log("AWSLogs/123456789012/CloudTrail-Digest/us-east-1/2026/03/01/x.json.gz"));
        assert!(!is_log("AWSLogs/123456789012/CloudTrail-Insight/us-east-1/2026/03/01/x.json.gz"));
        assert!(!is_log("AWSLogs/123456789012/vpcflowlogs/us-east-1/2026/03/01/x.log.gz"));
        assert!(!is_log("AWSLogs/123456789012/CloudTrail/"));
        assert!(!is_log("backup/CloudTrail/x.json.gz"));
        assert!(!is_log("backup/CloudWatchLogs/x.json.gz"));
    }

    #[test]
    fn other_notifications_are_counted_and_other_bodies_left_alone() {
        let mixed = json!({"Records": [record("ObjectRemoved:Delete", "k"), record("ObjectCreated:Copy", "k"),
                                       {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put"},
                                       record("ObjectCreated:Put", "%zz")]});
        let found = created(&mixed.to_string()).expect("of S3");
        assert_eq!((found.objects.len(), found.ignored, found.failed), (1, 1, 2));
        let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "trail"});
        assert_eq!(created(&test.to_string()), Some(Created { ignored: 1, ..Created::default() }));
        let call = json!({"source": "aws.s3", "detail-type": "AWS API Call via CloudTrail",
                          "detail": {"eventSource": "s3.amazonaws.com", "eventName": "PutObject"}});
        let others = json!({"Records": [record("ObjectCreated:Put", "k"), {"eventSource": "aws:sqs", "body": "x"}]});
        for body in [call.to_string(), others.to_string(), "aws:s3".to_owned(), "{\"Records\":[]}".to_owned()] {
            assert_eq!(created(&body), None, "{body}");
        }
    }
}
