//! A user signed in to the console with a password alone.
//!
//! **What it detects.** Successful `ConsoleLogin` of an IAM user or root with `MFAUsed` = `No`.
//!
//! **Why it matters.** One phished or reused password is then all it takes.
//!
//! **False positives.** None that matter: federated logins (SAML, Identity Center, role sessions, federation tokens) always
//! say `No`, because their MFA happens at the identity provider; they are left out.
//!
//! **Response.** Confirm with the user, lock the login if in doubt, then require MFA by policy.
//!
//! **References.** See `META`; CIS AWS Foundations Benchmark, "Ensure management console sign-in without MFA is monitored".

use serde::{Deserialize, Serialize};
use shared::event::Part;
use shared::ports::Files;
use shared::{Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Pattern, SettingsError, Severity};

use crate::sign_in;

/// `[classifiers.console_login_without_mfa]` has nothing to set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {}

/// See the module.
pub struct ConsoleLoginWithoutMfa;

impl Classifier for ConsoleLoginWithoutMfa {
    const META: Meta = Meta {
        id: "console_login_without_mfa",
        title: "Console login without MFA",
        severity: Severity::High,
        techniques: &["T1078.004"],
        patterns: &[Pattern::Api { source: "signin.amazonaws.com", names: &["ConsoleLogin"] }],
        failed_calls: FailedCalls::Ignored,
        responses: &["iam_login_lock"],
        references: &[
            "https://attack.mitre.org/techniques/T1078/004/",
            "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
        ],
    };
    type Settings = Settings;

    fn new(_settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        Ok(Self)
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        matches!(&*event.identity_type, "IAMUser" | "Root")
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        if !sign_in::succeeded(event)? || sign_in::is_federated(event)? {
            return Ok(None);
        }
        if event.is_left_out(Part::Additional) {
            return Ok(None);
        }
        let details = event.additional()?;
        let Some(mfa_used) = details.get("MFAUsed") else {
            return Err(Malformed::missing("additionalEventData.MFAUsed"));
        };
        let Some(mfa_used) = mfa_used.as_str() else {
            return Err(Malformed::wrong("additionalEventData.MFAUsed", "a string"));
        };
        if !mfa_used.eq_ignore_ascii_case("No") {
            return Ok(None);
        }
        let identity = event.identity();
        let evidence = Evidence::about(identity.principal()).fact("mfa_used", mfa_used);
        Ok(Some(if identity.is_root() {
            evidence.titled("Root user signed in without MFA").severity(Severity::Critical)
        } else {
            evidence.fact("user_name", identity.user_name.as_str())
        }))
    }

    fn why_not(&self, event: &Event<'_>, _known: &Known) -> Option<String> {
        Some(if sign_in::is_federated(event).ok()? {
            "a federated login, whose MFA happens at the identity provider".to_owned()
        } else if !sign_in::succeeded(event).ok()? {
            "the login failed".to_owned()
        } else if event.is_left_out(Part::Additional) {
            "CloudTrail left out whether MFA was used".to_owned()
        } else {
            "MFA was used".to_owned()
        })
    }
}
