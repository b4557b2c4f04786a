//! CloudTrail was stopped, deleted or made to record less.
//!
//! **What it detects.** `StopLogging` and `DeleteTrail`; `UpdateTrail` that switches regions, global services, the
//! organisation, log file validation or the copy in CloudWatch Logs off; `PutEventSelectors` after which management
//! events are recorded in part or not at all. Attempts that failed count too, one severity lower. `CreateTrail` is
//! noted, because a second trail can carry the log to an attacker's bucket. Within `login_within_s` of the same
//! principal's console login the finding is critical, in whatever order the two records arrive. Parameters so large that
//! CloudTrail leaves them out of the record are medium: long lists of selectors would otherwise hide what they select.
//!
//! **Why it matters.** Whoever blinds the log first does the rest unseen; doing it right after signing in is how a person
//! with stolen credentials works, not a pipeline.
//!
//! **False positives.** Trails that AWS services make or change by a template (CloudFormation, Control Tower) are left
//! out, unless they are stopped or deleted. A trail that is kept for data events only has no management events on
//! purpose. Trails are torn down with their test accounts. Where a trail delivers to is not judged: a record does not
//! say where it did before.
//!
//! **Response.** Start logging again, archive what was delivered, find out what the principal did since.
//!
//! **References.** See `META`; `PutEventSelectors` and `UpdateTrail` of the CloudTrail API reference.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::ports::Files;

use crate::sign_in;
use shared::event::Part;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, LastValues, Malformed, Meta, Observations, Pattern, SettingsError,
    Severity, Timestamp,
};

/// Limits of `[classifiers.cloudtrail_tampered]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds between a console login and the tampering within which it is critical: 1 to 7,776,000 (90 days).
    /// Default 60: what the predecessor used, enough for a person who came for this alone.
    pub login_within_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { login_within_s: 60 }
    }
}

/// See the module.
pub struct CloudtrailTampered {
    settings: Settings,
}

/// Between the parts of a remembered tampering; no name can contain it.
const SEPARATOR: char = '\u{1f}';

impl Classifier for CloudtrailTampered {
    const META: Meta = Meta {
        id: "cloudtrail_tampered",
        title: "CloudTrail was stopped, deleted or made to record less",
        severity: Severity::High,
        techniques: &["T1562.008"],
        patterns: &[
            Pattern::Api {
                source: "cloudtrail.amazonaws.com",
                names: &["StopLogging", "DeleteTrail", "UpdateTrail", "PutEventSelectors", "CreateTrail"],
            },
            Pattern::Api { source: "signin.amazonaws.com", names: &["ConsoleLogin"] },
        ],
        failed_calls: FailedCalls::Attempts,
        responses: &["cloudtrail_logging_restart", "cloudtrail_logs_archive", "iam_login_lock"],
        references: &[
            "https://attack.mitre.org/techniques/T1562/008/",
            "https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_PutEventSelectors.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1..=90 * 86_400).contains(&settings.login_within_s) {
            return Err(SettingsError::new("login_within_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        // A template states what a trail records each time anew, which says nothing about what it recorded before.
        !event.is_by_aws_service() || is_told_by_name(event)
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let within_s = self.settings.login_within_s;
        let key = format!("{}/{}", event.account, event.principal());
        if is_login(event) {
            if !sign_in::succeeded(event)? {
                return Ok(Observations::none());
            }
            let tampering = Observations::none().recall("tampering", key.as_str(), within_s);
            return Ok(tampering.remember("login", key, &*event.source_ip, within_s));
        }
        if event.name.eq_ignore_ascii_case("CreateTrail") || reasons(event)?.is_empty() {
            return Ok(Observations::none());
        }
        let outcome = if event.is_failed() { "failed" } else { "done" };
        let parts = [&*event.name, &*event.region, outcome, trail(event)?];
        let value = parts.join(SEPARATOR.encode_utf8(&mut [0; 4]));
        let login = Observations::none().recall("login", key.as_str(), within_s);
        Ok(login.remember("tampering", key, value, within_s))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        if is_login(event) {
            return Ok(tampering_after_login(event, known));
        }
        let trail = trail(event)?;
        if event.name.eq_ignore_ascii_case("CreateTrail") {
            return Ok(Some(Evidence::about(trail).titled("CloudTrail trail was created").severity(Severity::Low)));
        }
        let reasons = reasons(event)?;
        if reasons.is_empty() {
            return Ok(None);
        }
        let mut evidence = Evidence::about(trail).fact("changes", reasons);
        if !is_told_by_name(event) && event.is_left_out(Part::Request) {
            evidence =
                evidence.titled("CloudTrail was changed, and the record leaves out how").severity(Severity::Medium);
        }
        if !event.invoked_by.is_empty() {
            evidence = evidence.fact("invoked_by", &*event.invoked_by);
        }
        if let Some((at, address)) = at_or_before(&known.last("login"), event.time) {
            evidence = evidence
                .titled("CloudTrail was tampered with right after a console login")
                .severity(Severity::Critical)
                .fact("login_time", at.to_string())
                .fact("login_source_ip", address)
                .fact("seconds_after_login", event.time.seconds_since(at));
        }
        Ok(Some(evidence))
    }
}

/// The login arrived after the tampering that followed it: the finding made then was only high.
fn tampering_after_login(event: &Event<'_>, known: &Known) -> Option<Evidence> {
    let last = known.last("tampering");
    let (at, value) = last.previous.filter(|(at, _)| *at == event.time).or(last.next)?;
    let mut parts = value.splitn(4, SEPARATOR);
    let (call, region, outcome, trail) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let evidence = Evidence::about(trail)
        .titled("CloudTrail was tampered with right after a console login")
        .severity(Severity::Critical)
        .fact("call", call)
        .fact("trail_region", region)
        .fact("tampering_time", at.to_string())
        .fact("seconds_after_login", at.seconds_since(event.time));
    Some(if outcome == "failed" { evidence.attempt() } else { evidence })
}

/// The value before `time`, or the one of the same second: records have no finer order.
fn at_or_before(last: &LastValues, time: Timestamp) -> Option<(Timestamp, String)> {
    last.previous.clone().or_else(|| last.next.clone().filter(|(at, _)| *at == time))
}

fn is_login(event: &Event<'_>) -> bool {
    event.name.eq_ignore_ascii_case("ConsoleLogin")
}

/// Whether the call's name says all: what its parameters look like is not worth missing it for.
fn is_told_by_name(event: &Event<'_>) -> bool {
    ["StopLogging", "DeleteTrail"].iter().any(|name| event.name.eq_ignore_ascii_case(name))
}

/// Name or ARN of the trail; empty where the record does not say, as of calls that were denied before their parameters were
/// read.
fn trail<'e>(event: &'e Event<'_>) -> Result<&'e str, Malformed> {
    let request = event.request()?;
    Ok(["name", "trailName"].iter().find_map(|field| request.get(field)?.as_str()).unwrap_or_default())
}

/// What the call takes out of the log, in plain words; empty when nothing.
fn reasons(event: &Event<'_>) -> Result<Vec<String>, Malformed> {
    match event.name.to_ascii_lowercase().as_str() {
        "stoplogging" => Ok(vec!["logging stopped".to_owned()]),
        "deletetrail" => Ok(vec!["trail deleted".to_owned()]),
        "updatetrail" | "puteventselectors" if event.is_left_out(Part::Request) => {
            Ok(vec!["left out of the record".to_owned()])
        }
        "updatetrail" => update_reasons(event),
        "puteventselectors" => selector_reasons(event),
        _ => Ok(Vec::new()),
    }
}

fn update_reasons(event: &Event<'_>) -> Result<Vec<String>, Malformed> {
    const FLAGS: [(&str, &str); 3] = [
        ("isMultiRegionTrail", "other regions not recorded"),
        ("includeGlobalServiceEvents", "global services not recorded"),
        ("enableLogFileValidation", "log files not validated"),
    ];
    let request = event.request()?;
    if request.is_null() && !event.is_failed() {
        return Err(Malformed::missing("requestParameters"));
    }
    let mut reasons = Vec::new();
    for (flag, reason) in FLAGS {
        if boolean(request, flag)? == Some(false) {
            reasons.push(reason.to_owned());
        }
    }
    if request.get("cloudWatchLogsLogGroupArn").and_then(Value::as_str) == Some("") {
        reasons.push("no longer sent to CloudWatch Logs".to_owned());
    }
    // The console sends every flag on every change, so there the flag says nothing about what changed.
    let alone = FLAGS.iter().all(|(flag, _)| request.get(flag).is_none_or(Value::is_null));
    if alone && boolean(request, "isOrganizationTrail")? == Some(false) {
        reasons.push("other accounts of the organisation not recorded".to_owned());
    }
    Ok(reasons)
}

/// What the management events of one selector cover.
struct Coverage {
    reads: bool,
    writes: bool,
    restrictions: BTreeSet<String>,
}

/// A trail records what any one of its selectors matches, so they are judged together.
fn selector_reasons(event: &Event<'_>) -> Result<Vec<String>, Malformed> {
    let request = event.request()?;
    let basic = list(request, "eventSelectors")?;
    let advanced = list(request, "advancedEventSelectors")?;
    if basic.is_none() && advanced.is_none() {
        let denied_unread = event.is_failed() && request.is_null();
        return if denied_unread {
            Ok(Vec::new())
        } else {
            Err(Malformed::missing("requestParameters.eventSelectors"))
        };
    }
    let mut covered = Vec::new();
    for selector in basic.unwrap_or_default() {
        covered.extend(basic_coverage(selector)?);
    }
    covered.extend(advanced.unwrap_or_default().iter().filter_map(advanced_coverage));
    if covered.is_empty() {
        return Ok(vec!["management events not recorded".to_owned()]);
    }
    let mut reasons = Vec::new();
    if !covered.iter().any(|c| c.reads) {
        reasons.push("read events not recorded".to_owned());
    }
    if !covered.iter().any(|c| c.writes) {
        reasons.push("write events not recorded".to_owned());
    }
    let whole = |kind: fn(&Coverage) -> bool| covered.iter().any(|c| kind(c) && c.restrictions.is_empty());
    if !whole(|c| c.reads) || !whole(|c| c.writes) {
        let restrictions: BTreeSet<&String> = covered.iter().flat_map(|c| &c.restrictions).collect();
        reasons.extend(restrictions.into_iter().map(|r| format!("left out: {r}")));
    }
    Ok(reasons)
}

/// `None` when the selector takes no management events; the defaults are those of the API.
fn basic_coverage(selector: &Value) -> Result<Option<Coverage>, Malformed> {
    if boolean(selector, "includeManagementEvents")? == Some(false) {
        return Ok(None);
    }
    let kind = selector.get("readWriteType").and_then(Value::as_str).unwrap_or("All");
    let excluded = list(selector, "excludeManagementEventSources")?.unwrap_or_default();
    Ok(Some(Coverage {
        reads: kind != "WriteOnly",
        writes: kind != "ReadOnly",
        restrictions: excluded.iter().filter_map(Value::as_str).map(|s| format!("events of {s}")).collect(),
    }))
}

fn advanced_coverage(selector: &Value) -> Option<Coverage> {
    let fields = selector.get("fieldSelectors")?.as_array()?;
    let named = |name: &str| fields.iter().find(|f| f["field"] == name);
    let has = |field: &Value, value: &str| field["equals"].as_array().is_some_and(|v| v.iter().any(|v| v == value));
    if !has(named("eventCategory")?, "Management") {
        return None;
    }
    let read_only = named("readOnly");
    let others = fields.iter().filter(|f| f["field"] != "eventCategory" && f["field"] != "readOnly");
    Some(Coverage {
        reads: read_only.is_none_or(|f| has(f, "true")),
        writes: read_only.is_none_or(|f| has(f, "false")),
        restrictions: others.map(Value::to_string).collect(),
    })
}

fn boolean(object: &Value, field: &str) -> Result<Option<bool>, Malformed> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(Malformed::wrong(field, "true or false")),
    }
}

fn list<'v>(object: &'v Value, field: &str) -> Result<Option<&'v [Value]>, Malformed> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => Ok(Some(values)),
        Some(_) => Err(Malformed::wrong(field, "a list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons_of(name: &str, request: &str) -> Result<Vec<String>, Malformed> {
        let record = format!(
            r#"{{"eventTime":"2026-03-02T10:00:00Z","eventSource":"cloudtrail.amazonaws.com","eventName":"{name}","requestParameters":{request}}}"#
        );
        reasons(&Event::from_cloudtrail(&record).unwrap())
    }

    #[test]
    fn parameters_of_the_wrong_type_are_schema_drift() {
        for (name, request) in [
            ("UpdateTrail", "null"),
            ("UpdateTrail", r#"{"isMultiRegionTrail":"no"}"#),
            ("PutEventSelectors", r#"{"trailName":"audit"}"#),
            ("PutEventSelectors", r#"{"eventSelectors":{}}"#),
            ("PutEventSelectors", r#"{"eventSelectors":[{"includeManagementEvents":"yes"}]}"#),
        ] {
            assert!(reasons_of(name, request).is_err(), "{name} {request}");
        }
    }

    #[test]
    fn selectors_that_are_no_selectors_record_nothing() {
        for request in [r#"{"eventSelectors":[]}"#, r#"{"advancedEventSelectors":[{}, 7]}"#] {
            assert_eq!(reasons_of("PutEventSelectors", request).unwrap(), ["management events not recorded"]);
        }
    }
}
