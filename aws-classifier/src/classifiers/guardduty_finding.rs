//! GuardDuty finding.
//!
//! **What it detects.** A finding of Amazon GuardDuty, passed on with its severity. Archived findings and samples are
//! left out.
//!
//! **Why it matters.** GuardDuty sees what we do not: DNS queries, flow logs, runtime behaviour, and addresses only
//! AWS knows.
//!
//! **False positives.** As GuardDuty's. Suppress them there: a suppressed finding arrives archived and is ignored
//! here.
//!
//! **Response.** `ec2_instance_quarantine` when the resource is an instance, `iam_access_key_deactivate` when it is a
//! key.
//!
//! **References.** <https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings_eventbridge.html>,
//! <https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-severity.html>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::Known;
use shared::ports::Files;

/// See the module.
pub struct GuarddutyFinding {
    settings: Settings,
}

/// The `[classifiers.guardduty_finding]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Findings below this GuardDuty severity (1 to 10) are left out. Default 1: all.
    pub severity_min: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { severity_min: 1.0 }
    }
}

impl Classifier for GuarddutyFinding {
    const META: Meta = Meta {
        id: "guardduty_finding",
        title: "GuardDuty finding",
        severity: Severity::Medium,
        techniques: &[],
        patterns: &[Pattern::Notification { source: "aws.guardduty", detail_type: "GuardDuty Finding" }],
        failed_calls: FailedCalls::Ignored,
        responses: &["ec2_instance_quarantine", "iam_access_key_deactivate"],
        references: &[
            "https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings_eventbridge.html",
            "https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-severity.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1.0..=10.0).contains(&settings.severity_min) {
            return Err(SettingsError::new("severity_min", "must be from 1 to 10"));
        }
        Ok(Self { settings })
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let detail = event.detail()?;
        let title = text(detail, "title").unwrap_or_default();
        let service = get(detail, "service");
        if *get(service, "archived") == Value::Bool(true) || is_sample(get(service, "additionalInfo"), title) {
            return Ok(None);
        }
        let score = match get(detail, "severity") {
            Value::Null => return Err(Malformed::missing("detail.severity")),
            Value::Number(number) => number.as_f64().unwrap_or_default(),
            _ => return Err(Malformed::wrong("detail.severity", "a number")),
        };
        let kind = text(detail, "type").ok_or_else(|| Malformed::missing("detail.type"))?;
        if score < self.settings.severity_min {
            return Ok(None);
        }
        let arn = text(detail, "arn").unwrap_or_default();
        let mut evidence = Evidence::about(resource(get(detail, "resource")).unwrap_or(arn))
            .titled(
                format!("GuardDuty: {}", if title.is_empty() { kind } else { title })
                    .chars()
                    .take(120)
                    .collect::<String>(),
            )
            .severity(severity(score))
            .placed(text(detail, "accountId").unwrap_or_default(), text(detail, "region").unwrap_or_default())
            .fact("type", kind)
            .fact("severity", score);
        for (name, key) in
            [("id", "id"), ("description", "description"), ("account", "accountId"), ("region", "region")]
        {
            if let Some(value) = text(detail, key) {
                evidence = evidence.fact(name, value);
            }
        }
        let affected = get(detail, "resource");
        if let Some(id) = text(get(affected, "instanceDetails"), "instanceId") {
            evidence = evidence.fact("instance_ids", vec![id]);
        }
        let key = get(affected, "accessKeyDetails");
        if let Some(id) = text(key, "accessKeyId") {
            let user = text(key, "userName").unwrap_or_default();
            evidence = evidence.fact("access_key_id", id).fact("user_name", user);
        }
        if let Some(count) = get(service, "count").as_u64() {
            evidence = evidence.fact("count", count);
        }
        if let Some(address) = remote_address(get(service, "action")) {
            evidence = evidence.fact("remote_ip", address);
        }
        Ok(Some(evidence))
    }
}

/// GuardDuty's bands (its severity page): 9–10 critical, 7–8.9 high, 4–6.9 medium, 1–3.9 low.
fn severity(score: f64) -> Severity {
    match score {
        s if s >= 9.0 => Severity::Critical,
        s if s >= 7.0 => Severity::High,
        s if s >= 4.0 => Severity::Medium,
        _ => Severity::Low,
    }
}

/// Samples say so in three ways: a flag, a flag inside JSON text (the API's shape), and the title.
fn is_sample(info: &Value, title: &str) -> bool {
    let flagged = |v: &Value| *get(v, "sample") == Value::Bool(true) || *get(v, "sample") == "true";
    let inner = text(info, "value").and_then(|v| serde_json::from_str::<Value>(v).ok());
    flagged(info) || inner.is_some_and(|v| flagged(&v)) || title.trim_start().starts_with("[SAMPLE]")
}

/// What is affected, by the names GuardDuty's resource details use.
fn resource(resource: &Value) -> Option<&str> {
    let bucket = get(resource, "s3BucketDetails");
    let first_bucket = bucket.get(0).unwrap_or(bucket);
    let (instance, key) = (get(resource, "instanceDetails"), get(resource, "accessKeyDetails"));
    // Findings about a key may also describe the instance it was used on.
    let is_key = text(resource, "resourceType") == Some("AccessKey");
    [
        (if is_key { key } else { instance }, if is_key { "accessKeyId" } else { "instanceId" }),
        (key, "accessKeyId"),
        (first_bucket, "arn"),
        (get(resource, "eksClusterDetails"), "arn"),
        (get(resource, "ecsClusterDetails"), "arn"),
        (get(resource, "rdsDbInstanceDetails"), "dbInstanceArn"),
        (get(resource, "lambdaDetails"), "functionArn"),
    ]
    .into_iter()
    .find_map(|(details, key)| text(details, key))
}

/// The other side of a network, API or probe action; of several that probed, the first.
fn remote_address(action: &Value) -> Option<&str> {
    let probes = get(get(action, "portProbeAction"), "portProbeDetails");
    ["networkConnectionAction", "awsApiCallAction", "rdsLoginAttemptAction", "kubernetesApiCallAction"]
        .into_iter()
        .map(|kind| get(action, kind))
        .chain(probes.as_array().into_iter().flatten())
        .map(|side| get(side, "remoteIpDetails"))
        .find_map(|details| text(details, "ipAddressV4").or_else(|| text(details, "ipAddressV6")))
}

/// A member by its camelCase name, or by the PascalCase name the API uses.
fn get<'v>(value: &'v Value, camel: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    let pascal = || {
        let (first, rest) = camel.split_at(1);
        value.get(format!("{}{rest}", first.to_ascii_uppercase()))
    };
    value.get(camel).or_else(pascal).unwrap_or(&NULL)
}

fn text<'v>(value: &'v Value, camel: &str) -> Option<&'v str> {
    get(value, camel).as_str().filter(|t| !t.is_empty())
}
