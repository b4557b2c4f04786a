//! Many instances started by one principal.
//!
//! **What it detects.** One principal starts more than ten instances within five minutes, counted from the
//! `RunInstances` records themselves, over all regions. All sessions of a role count as one principal, as whoever takes
//! the role names the session; people of Identity Center count each for themselves. The records come as events or in log
//! files; where a trail writes to CloudWatch Logs, `[alarms]` names the alarms on many new instances that lead to the
//! records around their time, five minutes before and after. However often and whichever way a record comes, it counts
//! once.
//!
//! **Why it matters.** Stolen credentials are most often turned into money: as many large instances as the quota
//! allows, for mining.
//!
//! **False positives.** Batch jobs, load tests, blue-green deployments by people, and a role with which many builds start
//! their machines. AWS services (Auto Scaling, EC2 Fleet, EMR, CloudFormation) are left out unless
//! `service_roles_counted`; name your own build principals in `principals_exempt`.
//!
//! **Response.** `ec2_instances_stop` stops the instances of this finding (fact `instance_ids`), `iam_user_restrict`
//! keeps the principal from starting more.
//!
//! **References.** <https://attack.mitre.org/techniques/T1496/001/>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::{Event, Part};
use shared::finding::Severity;
use shared::observation::{Known, MAX_COUNT_ENTRIES, Observations};
use shared::ports::Files;

/// Ids of one call that are remembered: what fits into the 512 bytes of a state value.
const IDS_REMEMBERED_MAX: usize = 24;

/// What a call counts whose record leaves out request and response: our choice. An instance takes 2 to 6 KB of a response, and
/// the 100 KB that a record has room for are at least so many.
const UNTOLD_INSTANCES: u32 = 16;

/// See the module.
pub struct Ec2MassInstanceCreation {
    settings: Settings,
}

/// The `[classifiers.ec2_mass_instance_creation]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many instances are still normal. Default 10, as the system before this one had it.
    pub instances_max: u32,
    /// Within how many seconds. Default 300, the period of its alarm.
    pub window_s: u32,
    /// Whether instances count that AWS services start, with their own roles or for somebody. Default no: scaling out is
    /// their work.
    pub service_roles_counted: bool,
    /// ARNs that are left out; `*` at the end stands for anything.
    pub principals_exempt: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { instances_max: 10, window_s: 300, service_roles_counted: false, principals_exempt: Vec::new() }
    }
}

impl Classifier for Ec2MassInstanceCreation {
    const META: Meta = Meta {
        id: "ec2_mass_instance_creation",
        title: "Many instances started by one principal",
        severity: Severity::Critical,
        techniques: &["T1496.001", "T1578.002"],
        patterns: &[Pattern::Api { source: "ec2.amazonaws.com", names: &["RunInstances"] }],
        failed_calls: FailedCalls::Ignored,
        responses: &["ec2_instances_stop", "iam_user_restrict"],
        references: &[
            "https://attack.mitre.org/techniques/T1496/001/",
            "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        // A window keeps at most so many calls, and most calls start one instance.
        if settings.instances_max == 0 || settings.instances_max as usize >= MAX_COUNT_ENTRIES {
            return Err(SettingsError::new("instances_max", format!("must be from 1 to {}", MAX_COUNT_ENTRIES - 1)));
        }
        if settings.window_s == 0 {
            return Err(SettingsError::new("window_s", "must be at least 1"));
        }
        if settings.principals_exempt.iter().any(|p| p.trim_end_matches('*').is_empty()) {
            return Err(SettingsError::new("principals_exempt", "an empty entry or a bare * would exempt everyone"));
        }
        Ok(Self { settings })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let started = started(event)?;
        if started == 0 || self.is_exempt(event) {
            return Ok(Observations::none());
        }
        let principal = [&*event.account, &*event.identity().actor_key()].join("/");
        let mut ids = instance_ids(event)?;
        ids.truncate(IDS_REMEMBERED_MAX);
        Ok(Observations::none().distinct("ids", principal.clone(), ids.join(","), self.settings.window_s).count(
            "instances",
            principal,
            started,
            self.settings.window_s,
        ))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let instances = known.count("instances");
        if !instances.reaches(u64::from(self.settings.instances_max) + 1) {
            return Ok(None);
        }
        let earlier = known.count("ids").values;
        let mut ids = instance_ids(event)?;
        ids.extend(earlier.iter().flat_map(|list| list.split(',')).filter(|id| is_instance_id(id)));
        ids.sort_unstable();
        ids.dedup();
        let mut evidence = Evidence::about(event.principal())
            .titled(format!("{} instances started by one principal", instances.now))
            .fact("instances", instances.now)
            .fact("window_s", self.settings.window_s);
        if let Some(kind) = event.request()?["instanceType"].as_str() {
            evidence = evidence.fact("instance_type", kind);
        }
        if !ids.is_empty() {
            evidence = evidence.fact("instance_ids", ids);
        }
        Ok(Some(evidence))
    }
}

impl Ec2MassInstanceCreation {
    fn is_exempt(&self, event: &Event<'_>) -> bool {
        let identity = event.identity();
        (event.is_by_aws_service() && !self.settings.service_roles_counted)
            || self.settings.principals_exempt.iter().any(|exempt| {
                [&identity.arn, &identity.issuer_arn].into_iter().any(|arn| match exempt.strip_suffix('*') {
                    Some(start) => arn.starts_with(start),
                    None => arn == exempt,
                })
            })
    }
}

/// How many instances the call started: those of the response; without one, the most it asked for. Where the record leaves
/// both out, as too large: [`UNTOLD_INSTANCES`].
fn started(event: &Event<'_>) -> Result<u32, Malformed> {
    const RESPONSE: &str = "responseElements.instancesSet.items";
    const REQUEST: &str = "requestParameters.instancesSet.items";
    match &event.response()?["instancesSet"]["items"] {
        Value::Array(items) => return Ok(u32::try_from(items.len()).unwrap_or(u32::MAX)),
        Value::Null => {}
        _ => return Err(Malformed::wrong(RESPONSE, "a list")),
    }
    let Some(items) = event.request()?["instancesSet"]["items"].as_array() else {
        if event.is_left_out(Part::Request) {
            return Ok(if event.is_left_out(Part::Response) { UNTOLD_INSTANCES } else { 1 });
        }
        return Err(Malformed::missing(REQUEST));
    };
    let mut total = 0_u32;
    for item in items {
        let asked = match &item["maxCount"] {
            Value::Null => Some(1),
            count => count.as_u64().and_then(|c| u32::try_from(c).ok()),
        };
        let asked =
            asked.ok_or_else(|| Malformed::wrong("requestParameters.instancesSet.items.maxCount", "a count"))?;
        total = total.saturating_add(asked);
    }
    Ok(total)
}

fn instance_ids<'e>(event: &'e Event<'_>) -> Result<Vec<&'e str>, Malformed> {
    let items = event.response()?["instancesSet"]["items"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(items.iter().filter_map(|i| i["instanceId"].as_str()).filter(|id| is_instance_id(id)).collect())
}

fn is_instance_id(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}
