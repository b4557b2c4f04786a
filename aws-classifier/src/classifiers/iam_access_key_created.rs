//! A long-lived access key was created.
//!
//! **What it detects.** Every successful `CreateAccessKey`, with whose key it is and whether somebody else made it. Critical
//! when root made it. Failed calls are not reported: nothing exists that could be used.
//!
//! **Why it matters.** A key outlives the session that made it and needs no MFA: the classic way to stay.
//!
//! **False positives.** Onboarding and key rotation. Keys that AWS services make by themselves are not reported; those
//! of a template are, as whoever deploys it gets them (`invoked_by`): medium, and once a day for a caller and user. A
//! caller that has not made keys for `caller_new_s` is marked as new (`caller_is_new`). The predecessor marked a
//! *region* unused for 7 days; IAM is global and its records carry the home region of the partition, whoever calls from
//! wherever, so the region is kept as part of the key only for callers that appear in several partitions, and what it
//! tells is whether this caller makes keys regularly.
//!
//! **Response.** Deactivate the created key (`access_key_id` of `user_name`), then ask the caller.
//!
//! **References.** See `META`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::ports::Files;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, SettingsError, Severity,
};

/// Limits of `[classifiers.iam_access_key_created]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds without a key made by the caller after which it is marked as new: 1 to 7,776,000 (90 days).
    /// Default 604,800, the predecessor's 7 days.
    pub caller_new_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { caller_new_s: 7 * 86_400 }
    }
}

/// Keys that templates make of one user for one caller are told once until a day without: our choice, as stacks that are made
/// for tests are made all day.
const TEMPLATE_REPEAT_S: u32 = 86_400;

/// See the module.
pub struct IamAccessKeyCreated {
    settings: Settings,
}

impl Classifier for IamAccessKeyCreated {
    const META: Meta = Meta {
        id: "iam_access_key_created",
        title: "Access key was created",
        severity: Severity::High,
        techniques: &["T1098.001"],
        patterns: &[Pattern::Api { source: "iam.amazonaws.com", names: &["CreateAccessKey"] }],
        failed_calls: FailedCalls::Ignored,
        responses: &["iam_access_key_deactivate", "iam_user_restrict"],
        references: &[
            "https://attack.mitre.org/techniques/T1098/001/",
            "https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1..=90 * 86_400).contains(&settings.caller_new_s) {
            return Err(SettingsError::new("caller_new_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        !event.is_by_aws_service_alone()
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let key = format!("{}/{}/{}", event.account, event.region, event.principal());
        Ok(Observations::none().see("caller", key, self.settings.caller_new_s))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let caller = event.identity();
        let asked_for = event.request_text("/userName")?;
        let made_for = created(event, "userName")?;
        let key_id = created(event, "accessKeyId")?;

        // Without a name in the request the key is the caller's own; only then can it be root's.
        let of_root = caller.is_root() && asked_for.is_none();
        let owner = if of_root { None } else { asked_for.or(made_for).or(text(&caller.user_name)) };
        let for_other_user = !of_root && owner.is_some_and(|o| !o.eq_ignore_ascii_case(&caller.user_name));

        let mut evidence = Evidence::about(key_id.or(owner).unwrap_or_else(|| caller.principal()))
            .fact("for_other_user", for_other_user)
            .fact("caller_is_new", known.seen("caller").is_new());
        if let Some(key_id) = key_id {
            evidence = evidence.fact("access_key_id", key_id);
        }
        if let Some(owner) = owner {
            evidence = evidence.fact("user_name", owner);
        }
        if !caller.invoked_by.is_empty() {
            let key = [&*event.account, caller.principal(), owner.unwrap_or_default()].join("/");
            evidence = evidence
                .fact("invoked_by", &*caller.invoked_by)
                .severity(Severity::Medium)
                .once_in(key, TEMPLATE_REPEAT_S);
        }
        if caller.is_root() {
            evidence = evidence.severity(Severity::Critical);
        }
        Ok(Some(match (of_root, for_other_user) {
            (true, _) => evidence.titled("Access key of the root user was created"),
            (false, true) => evidence.titled("Access key was created for another user"),
            (false, false) => evidence,
        }))
    }

    fn why_not(&self, event: &Event<'_>, _known: &Known) -> Option<String> {
        event.is_by_aws_service_alone().then(|| "an AWS service made the key by itself".to_owned())
    }
}

/// A field of the created key. A record without response still tells of a key, so what is not there or not text is no error.
fn created<'e>(event: &'e Event<'_>, field: &str) -> Result<Option<&'e str>, Malformed> {
    let field = event.response()?.get("accessKey").and_then(|key| key.get(field));
    Ok(field.and_then(Value::as_str).and_then(text))
}

fn text(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}
