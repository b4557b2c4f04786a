//! One line a finding, outcome or receipt: an OCSF Detection Finding, or the predecessor's `key=value` line.
//!
//! A line is a pure function of the message: the same message always makes the same bytes, which is how the file
//! sink recognises a line it wrote before a crash. Attacker-controlled text cannot end a line, forge a field or move a
//! terminal's cursor: control and invisible characters are escaped in both formats.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::finding::Effect;
use shared::{Envelope, Finding, Outcome, OutcomeStatus, Payload, Receipt, Severity, Timestamp};

/// The version of the schema whose fields are used: <https://schema.ocsf.io/1.5.0/classes/detection_finding>.
const OCSF_VERSION: &str = "1.5.0";
/// Category "Findings".
const CATEGORY_UID: u32 = 2;
/// Class "Detection Finding".
const CLASS_UID: u32 = 2004;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object: OCSF Detection Finding, class 2004.
    #[default]
    Ocsf,
    /// `classifier_source=… event_id=… event_time=… event_name=… user=… source_ip=… region=…`, then the fields of
    /// this version: record, severity, status, finding_id, key.
    KeyValue,
}

/// The line of a message, without the line break.
pub fn line(format: Format, envelope: &Envelope) -> String {
    match format {
        Format::Ocsf => visible(&ocsf(envelope).to_string()),
        Format::KeyValue => key_value(envelope),
    }
}

/// The idempotency key of a line this module wrote, in either format.
pub fn key_of(line: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        uid: String,
    }
    if line.starts_with('{') {
        return serde_json::from_str::<Line>(line).ok().map(|line| line.metadata.uid);
    }
    let (_, key) = line.rsplit_once(" key=")?;
    (!key.contains('\\')).then(|| key.to_owned())
}

/// The time of a line this module wrote, in either format; a receipt has none in the second.
pub fn time_of(line: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Line {
        time: i64,
    }
    if line.starts_with('{') {
        return serde_json::from_str::<Line>(line).ok().map(|line| Timestamp::from_millis(line.time));
    }
    let (_, rest) = line.split_once(" event_time=")?;
    Timestamp::parse(rest.split(' ').next()?)
}

fn ocsf(envelope: &Envelope) -> Value {
    let (activity, mut record) = match &envelope.payload {
        Payload::Finding(finding) => of_finding(finding),
        Payload::Outcome { finding, outcome } => of_outcome(finding, outcome),
        Payload::Receipt(receipt) => of_receipt(receipt),
    };
    let (activity_id, activity_name) = activity;
    record.extend(object(json!({
        "activity_id": activity_id,
        "activity_name": activity_name,
        "category_uid": CATEGORY_UID,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + activity_id,
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "pipeline", "vendor_name": "pipeline", "version": env!("CARGO_PKG_VERSION")},
            "uid": envelope.idempotency_key,
            "correlation_uid": envelope.correlation_id,
            "profiles": ["cloud"],
        },
    })));
    Value::Object(record)
}

/// What happened to the finding: 1 Create, 2 Update, 3 Close.
type Activity = (u32, &'static str);

const CREATE: Activity = (1, "Create");
const UPDATE: Activity = (2, "Update");
const CLOSE: Activity = (3, "Close");

fn of_finding(finding: &Finding) -> (Activity, Map<String, Value>) {
    let resolves = finding.effect == Effect::Resolves;
    let mut record = base(finding);
    record.insert("time".to_owned(), finding.event_time.as_millis().into());
    let (status_id, status) = if finding.effect == Effect::Threat { (1, "New") } else { (4, "Resolved") };
    record.extend(object(json!({"status_id": status_id, "status": status, "message": finding.title})));
    (if resolves { CLOSE } else { CREATE }, record)
}

fn of_outcome(finding: &Finding, outcome: &Outcome) -> (Activity, Map<String, Value>) {
    let mut record = base(finding);
    let (status_id, status) = match outcome.status {
        OutcomeStatus::Succeeded => (4, "Resolved"),
        OutcomeStatus::DryRun | OutcomeStatus::Skipped => (1, "New"),
        _ => (2, "In Progress"),
    };
    let message = format!("{} {} on {}", outcome.action, outcome.status.as_str(), outcome.target);
    record.extend(object(json!({
        "time": outcome.decided_at.as_millis(),
        "status_id": status_id,
        "status": status,
        "status_detail": outcome.note,
        "message": message,
        "remediation": {"desc": message},
    })));
    if let Some(Value::Object(unmapped)) = record.get_mut("unmapped") {
        unmapped.insert("outcome".to_owned(), plain(outcome));
    }
    (UPDATE, record)
}

/// A receipt travels without its finding: severity unknown, the finding by id.
fn of_receipt(receipt: &Receipt) -> (Activity, Map<String, Value>) {
    let verb = if receipt.delivered { "told" } else { "not told" };
    let record = object(json!({
        "time": receipt.at.as_millis(),
        "severity_id": 0,
        "severity": "Unknown",
        "status_id": 0,
        "status": "Unknown",
        "message": format!("{verb} by {}", receipt.channel),
        "finding_info": {"uid": receipt.finding_id.to_string(), "title": "delivery receipt"},
        "cloud": {"provider": "AWS"},
        "unmapped": {"receipt": plain(receipt)},
    }));
    (UPDATE, record)
}

/// What finding and outcome lines share.
fn base(finding: &Finding) -> Map<String, Value> {
    let (severity_id, severity) = severity(finding.severity);
    let id = finding.finding_id.to_string();
    let attacks: Vec<Value> = finding
        .techniques
        .iter()
        .map(|t| match t.split_once('.') {
            Some((technique, _)) => json!({"technique": {"uid": technique}, "sub_technique": {"uid": t}}),
            None => json!({"technique": {"uid": t}}),
        })
        .collect();
    let mut user = Map::new();
    put(&mut user, "name", &finding.identity.user_name);
    put(&mut user, "uid", &finding.principal);
    put(&mut user, "type", &finding.identity.kind);
    put(&mut user, "credential_uid", &finding.identity.access_key_id);
    let mut api = Map::new();
    put(&mut api, "operation", &finding.event_name);
    if !finding.event_source.is_empty() {
        api.insert("service".to_owned(), json!({"name": finding.event_source}));
    }
    let mut evidence = Map::new();
    evidence.insert("actor".to_owned(), json!({"user": user}));
    evidence.insert("api".to_owned(), Value::Object(api));
    if let Some(endpoint) = endpoint(&finding.source_ip) {
        evidence.insert("src_endpoint".to_owned(), endpoint);
    }
    evidence.insert("data".to_owned(), plain(&finding.evidence));
    let mut cloud = object(json!({"provider": "AWS"}));
    put(&mut cloud, "region", &finding.region);
    if !finding.account.is_empty() {
        cloud.insert("account".to_owned(), json!({"uid": finding.account}));
    }
    let mut record = object(json!({
        "severity_id": severity_id,
        "severity": severity,
        "finding_info": {
            "uid": id,
            "title": finding.title,
            "created_time": finding.event_time.as_millis(),
            "types": [finding.classifier],
            "analytic": {"type_id": 1, "type": "Rule", "name": finding.classifier, "uid": finding.classifier},
            "attacks": attacks,
        },
        "cloud": cloud,
        "evidences": [evidence],
        "unmapped": {
            "event_id": finding.event_id,
            "attempt": finding.attempt,
            "user_agent": finding.user_agent,
            "dedup_key": finding.dedup_key,
            "resolution_key": finding.resolution_key,
        },
    }));
    if !finding.resource.is_empty() {
        let resource = json!([{"uid": finding.resource, "region": finding.region}]);
        record.insert("resources".to_owned(), resource);
    }
    record
}

/// An address is an `ip`, an AWS service name such as `ec2.amazonaws.com` is a service.
fn endpoint(source: &str) -> Option<Value> {
    if source.is_empty() {
        return None;
    }
    let is_address = source.parse::<std::net::IpAddr>().is_ok();
    Some(if is_address { json!({"ip": source}) } else { json!({"svc_name": source}) })
}

const fn severity(severity: Severity) -> (u32, &'static str) {
    match severity {
        Severity::Info => (1, "Informational"),
        Severity::Low => (2, "Low"),
        Severity::Medium => (3, "Medium"),
        Severity::High => (4, "High"),
        Severity::Critical => (5, "Critical"),
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        map.insert(key.to_owned(), Value::String(value.to_owned()));
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn plain<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("messages are plain data with string keys")
}

/// JSON with the characters that JSON allows raw but a terminal or a viewer acts on (C1 controls, bidirectional and
/// zero-width marks, line separators) as `\u` escapes. They only occur inside strings, so the value stays the same.
fn visible(json: &str) -> String {
    if json.is_ascii() && !json.contains('\u{7f}') {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn is_hidden(c: char) -> bool {
    // `one_line` is the one place that knows the harmful characters.
    c.is_control() || (!c.is_ascii() && c != '·' && shared::text::one_line(c.encode_utf8(&mut [0; 4]), 1) == "·")
}

fn key_value(envelope: &Envelope) -> String {
    let mut line = String::with_capacity(512);
    let (finding, record, severity, status) = match &envelope.payload {
        Payload::Finding(f) => (Some(f), "finding", f.severity.as_str(), String::new()),
        Payload::Outcome { finding, outcome } => {
            let status = format!("{}/{}", outcome.action, outcome.status.as_str());
            (Some(finding), "outcome", finding.severity.as_str(), status)
        }
        Payload::Receipt(receipt) => {
            let verb = if receipt.delivered { "delivered" } else { "not_delivered" };
            (None, "receipt", "", format!("{}/{verb}", receipt.channel))
        }
    };
    let time = finding.map(|f| f.event_time.to_string()).unwrap_or_default();
    let finding_id = match &envelope.payload {
        Payload::Finding(f) | Payload::Outcome { finding: f, .. } => f.finding_id,
        Payload::Receipt(receipt) => receipt.finding_id,
    };
    let of = |field: fn(&Finding) -> &str| finding.map_or("", |f| field(f));
    let user = |f: &Finding| -> String {
        if f.identity.user_name.is_empty() { f.principal.clone() } else { f.identity.user_name.clone() }
    };
    let fields = [
        ("classifier_source", of(|f| &f.classifier)),
        ("event_id", envelope.correlation_id.as_str()),
        ("event_time", &time),
        ("event_name", of(|f| &f.event_name)),
        ("user", &finding.map(|f| user(f)).unwrap_or_default()),
        ("source_ip", of(|f| &f.source_ip)),
        ("region", of(|f| &f.region)),
        ("record", record),
        ("severity", severity),
        ("status", &status),
        ("finding_id", &finding_id.to_string()),
        ("key", &envelope.idempotency_key),
    ];
    for (i, (name, value)) in fields.iter().enumerate() {
        if i > 0 {
            line.push(' ');
        }
        line.push_str(name);
        line.push('=');
        push_escaped(&mut line, value);
    }
    line
}

/// `N/A` when absent. A value never holds white space, `=`, `"`, `\`, control or invisible characters: each becomes
/// `\u{…}` in hexadecimal, so a value can neither end its field nor forge another.
fn push_escaped(line: &mut String, value: &str) {
    if value.is_empty() {
        line.push_str("N/A");
        return;
    }
    for c in value.chars() {
        if c.is_whitespace() || matches!(c, '=' | '"' | '\\') || is_hidden(c) {
            let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handler::tests_support::{finding, outcome, receipt};

    #[test]
    fn a_finding_is_an_ocsf_detection_finding() {
        let value: Value = serde_json::from_str(&line(Format::Ocsf, &Envelope::finding(finding(1)))).expect("JSON");
        insta::assert_json_snapshot!(value);
    }

    #[test]
    fn an_outcome_updates_it() {
        let f = finding(1);
        let envelope = Envelope::outcome(f.clone(), outcome(&f, OutcomeStatus::DryRun));
        let value: Value = serde_json::from_str(&line(Format::Ocsf, &envelope)).expect("JSON");
        assert_eq!(value["type_uid"], 200_402);
        assert_eq!(value["unmapped"]["outcome"]["status"], "DRY_RUN");
        assert_eq!(value["status"], "New");
    }

    #[test]
    fn good_news_closes_and_a_receipt_updates() {
        let mut f = finding(1);
        f.effect = Effect::Resolves;
        let value = ocsf(&Envelope::finding(f.clone()));
        assert_eq!((&value["activity_id"], &value["status_id"]), (&json!(3), &json!(4)));
        let value = ocsf(&Envelope::receipt("event-1".to_owned(), receipt(&f, "file", true)));
        assert_eq!(value["finding_info"]["uid"], f.finding_id.to_string());
        assert_eq!(value["severity_id"], 0);
    }

    #[test]
    fn a_line_gives_its_key_back() {
        let envelope = Envelope::finding(finding(1));
        for format in [Format::Ocsf, Format::KeyValue] {
            assert_eq!(key_of(&line(format, &envelope)).as_ref(), Some(&envelope.idempotency_key));
        }
        assert_eq!(key_of("torn"), None);
    }

    #[test]
    fn a_service_is_not_an_address() {
        let mut f = finding(1);
        f.source_ip = "ec2.amazonaws.com".to_owned();
        assert_eq!(
            ocsf(&Envelope::finding(f))["evidences"][0]["src_endpoint"],
            json!({"svc_name": "ec2.amazonaws.com"})
        );
    }

    #[test]
    fn the_key_value_line_is_the_predecessors_and_more() {
        let mut f = finding(1);
        f.source_ip.clear();
        insta::assert_snapshot!(line(Format::KeyValue, &Envelope::finding(f)));
    }

    proptest! {
        #[test]
        fn no_value_forges_a_field_or_a_line(text in "[\\PC\\p{Cc}\u{202a}-\u{202e}\u{2028} =\"\\\\]{0,60}") {
            let mut f = finding(1);
            for field in [
                &mut f.principal, &mut f.identity.user_name, &mut f.source_ip, &mut f.user_agent, &mut f.resource,
                &mut f.region, &mut f.event_name, &mut f.event_id, &mut f.title,
            ] {
                field.clone_from(&text);
            }
            f.evidence.insert(text.clone(), Value::String(text.clone()));
            let envelope = Envelope::finding(f);
            let json_line = line(Format::Ocsf, &envelope);
            prop_assert!(!json_line.chars().any(is_hidden), "{json_line:?}");
            let value: Value = serde_json::from_str(&json_line).expect("JSON");
            prop_assert_eq!(&value, &ocsf(&envelope));
            let flat = line(Format::KeyValue, &envelope);
            prop_assert!(!flat.chars().any(is_hidden), "{flat:?}");
            let names: Vec<&str> =
                flat.split_whitespace().map(|pair| pair.split('=').next().expect("a name")).collect();
            prop_assert_eq!(names.len(), 12);
            prop_assert!(flat.split_whitespace().all(|pair| pair.matches('=').count() == 1), "{flat}");
        }
    }
}
