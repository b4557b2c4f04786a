//! The root user was used.
//!
//! **What it detects.** Every successful console login by root; every call about root's keys, passwords and MFA; every other
//! call that root makes, grouped: each kind of changing call once, and all reading calls of one address together once, until
//! there was `repeat_s` of quiet. Denied calls are uses too (the credentials worked), one severity lower.
//!
//! **Why it matters.** Nothing limits root: no policy, no boundary, no session to revoke. Its use is an exception that
//! someone should be able to explain, every time.
//!
//! **False positives.** AWS services that act for the account (`invokedBy`, service events, service names as source) are not
//! uses. A few tasks need root, such as closing the account. Opening the console makes hundreds of reading calls by
//! itself; they are covered by the login's finding. Failed logins are not uses, anybody can type the address:
//! `console_login_failed_repeatedly` counts them.
//!
//! **Response.** Root cannot be restricted from inside its account: change its password, remove its keys, check MFA.
//!
//! **References.** See `META`; CIS AWS Foundations Benchmark, "Ensure usage of the 'root' account is monitored".

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::ports::Files;

use crate::sign_in;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, SettingsError, Severity,
};

/// Limits of `[classifiers.root_account_used]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds of quiet after which uses that are not critical are reported again: 1 to 7,776,000 (90 days).
    /// Default 3,600: our choice, about one piece of work in the console.
    pub repeat_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { repeat_s: 3_600 }
    }
}

/// See the module.
pub struct RootAccountUsed {
    settings: Settings,
}

/// Calls about logins, keys, passwords and MFA: always reported, always critical.
const CRITICAL: [(&str, &[&str]); 2] = [
    (
        "signin.amazonaws.com",
        &["ConsoleLogin", "PasswordRecoveryRequested", "PasswordRecoveryCompleted", "PasswordUpdated", "EmailUpdated"],
    ),
    (
        "iam.amazonaws.com",
        &[
            "ChangePassword",
            "CreateAccessKey",
            "CreateLoginProfile",
            "CreateVirtualMFADevice",
            "DeactivateMFADevice",
            "DeleteAccessKey",
            "DeleteVirtualMFADevice",
            "EnableMFADevice",
            "ResyncMFADevice",
            "UpdateAccessKey",
            "UpdateLoginProfile",
            "UploadSigningCertificate",
        ],
    ),
];

impl Classifier for RootAccountUsed {
    const META: Meta = Meta {
        id: "root_account_used",
        title: "Root user was used",
        severity: Severity::High,
        techniques: &["T1078.004"],
        patterns: &[Pattern::Root],
        failed_calls: FailedCalls::Attempts,
        responses: &["cloudtrail_logs_archive", "event_archive"],
        references: &[
            "https://attack.mitre.org/techniques/T1078/004/",
            "https://docs.aws.amazon.com/IAM/latest/UserGuide/root-user-best-practices.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1..=90 * 86_400).contains(&settings.repeat_s) {
            return Err(SettingsError::new("repeat_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        // The sign-in page asks whether the address has MFA before anybody has proven to be root.
        if event.source == "signin.amazonaws.com" && event.name == "CheckMfa" {
            return false;
        }
        if event.event_type == "AwsServiceEvent" {
            return false;
        }
        // Pages of the console change root's credentials from addresses of AWS, not always with a word on the session.
        let for_nobody = event.invoked_by.is_empty() || event.invoked_by == "signin.amazonaws.com";
        !event.is_by_aws_service() || (for_nobody && is_critical(event))
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let login = is_login(event);
        let judged_alone = if login { !sign_in::succeeded(event)? } else { is_critical(event) };
        if judged_alone {
            return Ok(Observations::none());
        }
        // A login stands for the reading calls that follow it.
        let use_key = if login || event.is_reading() {
            format!("{}/reading/{}", event.account, event.source_ip)
        } else {
            let outcome = if event.is_failed() { "failed" } else { "done" };
            format!("{}/{}/{}/{outcome}", event.account, event.source, event.name)
        };
        Ok(Observations::none().see("use", use_key, self.settings.repeat_s))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let evidence = Evidence::about(root_arn(event));
        if is_login(event) {
            if !sign_in::succeeded(event)? {
                return Ok(None);
            }
            let mfa_used = event.additional()?.get("MFAUsed").and_then(Value::as_str).unwrap_or("unknown");
            return Ok(Some(
                evidence
                    .titled("Root user signed in to the console")
                    .severity(Severity::Critical)
                    .fact("mfa_used", mfa_used),
            ));
        }
        if is_critical(event) {
            let evidence = evidence.titled("Root user's credentials were changed").severity(Severity::Critical);
            // Sign-in records tell failure by a result of the event's own name, without an error code.
            let refused = event.response()?.get(&*event.name).is_some_and(|result| result == "Failure");
            return Ok(Some(if refused { evidence.attempt() } else { evidence }));
        }
        if !known.seen("use").is_new() {
            return Ok(None);
        }
        let key_id = &event.identity().access_key_id;
        let evidence = evidence.fact("reading", event.is_reading());
        Ok(Some(if key_id.is_empty() { evidence } else { evidence.fact("access_key_id", key_id.as_str()) }))
    }
}

fn is_login(event: &Event<'_>) -> bool {
    event.source == "signin.amazonaws.com" && event.name.eq_ignore_ascii_case("ConsoleLogin")
}

fn is_critical(event: &Event<'_>) -> bool {
    CRITICAL
        .iter()
        .any(|(source, names)| event.source == *source && names.iter().any(|n| event.name.eq_ignore_ascii_case(n)))
}

/// Some sign-in records of root carry no ARN.
fn root_arn(event: &Event<'_>) -> String {
    let identity = event.identity();
    if identity.arn.is_empty() { format!("arn:aws:iam::{}:root", event.account) } else { identity.arn.clone() }
}
