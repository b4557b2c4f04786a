//! A user, or what a user signs in with, was changed in IAM.
//!
//! **What it detects.** Every successful call of the table below: passwords, access keys, MFA, SSH keys, certificates,
//! service credentials, user policies, the users themselves. New access keys are left to `iam_access_key_created`.
//!
//! **Why it matters.** Persistence in AWS is mostly a credential: a second password, a policy on a user, a key switched
//! on again.
//!
//! **False positives.** Administration is made of these calls, so the severity follows what was done: new ways in and
//! MFA off are critical, or high when the session used MFA; policies high or medium; updates, deletions and resets
//! medium; the rest low, told once for a caller and call until `repeat_s` of quiet. Software that clears away what is old
//! deletes or switches off many: of a role that is told once a day for a call, and of anybody once more, with the number,
//! when it was `bulk_min`; what follows that day is only counted. By root: critical and high; `root_account_used` tells of the
//! same call as a use of root. AWS services are ignored, but for new ways in that somebody asked them for, such as a password
//! in a template of CloudFormation (`invoked_by`), which are medium. Which calls are of no interest here is set with
//! `ignore_calls`. By default the table's row for `UpdateLoginProfile` is not all: a console session with MFA that sets a
//! password which has to be changed at the next sign-in, or sets the password of its own user, is the help desk at work and
//! silent unless `console_resets` is set: the first change is reported when it is made (`ChangePassword`). A role session
//! counts as its user by its name, which whoever assumes
//! the role may choose.
//!
//! **Response.** Ask who did it; undo, restrict the user.
//!
//! **References.** See `META`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::event::Part;
use shared::observation::MAX_DISTINCT_ENTRIES;
use shared::ports::Files;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, PrincipalKind,
    SettingsError, Severity,
};

/// Limits of `[classifiers.iam_credential_changed]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Calls that are not reported, such as `TagUser`. Default none, the predecessor's.
    pub ignore_calls: Vec<String>,
    /// Seconds without the same call of a caller after which one of low severity is reported again: 1 to 7,776,000.
    /// Default 3,600: our choice, so that a script that tags all users is one piece of news.
    pub repeat_s: u32,
    /// How many credentials or users one caller deletes or switches off within a day before it is told that there are many:
    /// 2 to 256. Default 10: our choice, more than leave a team at once.
    pub bulk_min: u32,
    /// Whether passwords set in a console session with MFA are reported too, when they have to be changed at the next
    /// sign-in or are the session's own. Default false: our choice, because people forget passwords every day.
    pub console_resets: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ignore_calls: Vec::new(), repeat_s: 3_600, bulk_min: 10, console_resets: false }
    }
}

/// What was taken away of credentials and users.
const TAKEN: &str = "taken";

/// A day: our choice, how often software clears away what is old.
const TAKEN_WINDOW_S: u32 = 86_400;

/// See the module.
pub struct IamCredentialChanged {
    settings: Settings,
}

/// How much a change matters.
#[derive(Clone, Copy, PartialEq)]
enum Weight {
    /// A new way in, or one obstacle less.
    WayIn,
    /// What a user may do.
    Policy,
    /// A key is updated or deleted: root's matter more.
    Key,
    /// Another credential or user is updated, deleted or reset.
    Update,
    /// The rest.
    Slight,
}

/// The calls, what they mean in plain words and how much they matter; the predecessor's table.
const CALLS: [(&str, &str, Weight); 29] = [
    ("AttachUserPolicy", "Policy was attached to a user", Weight::Policy),
    ("ChangePassword", "User changed the own password", Weight::WayIn),
    ("CreateLoginProfile", "User was given a console password", Weight::WayIn),
    ("CreateServiceSpecificCredential", "Service credential was created for a user", Weight::WayIn),
    ("CreateUser", "User was created", Weight::Slight),
    ("CreateVirtualMFADevice", "Virtual MFA device was created", Weight::Slight),
    ("DeactivateMFADevice", "MFA of a user was switched off", Weight::WayIn),
    ("DeleteAccessKey", "Access key was deleted", Weight::Key),
    ("DeleteSSHPublicKey", "SSH key of a user was deleted", Weight::Update),
    ("DeleteServiceSpecificCredential", "Service credential of a user was deleted", Weight::Update),
    ("DeleteSigningCertificate", "Signing certificate of a user was deleted", Weight::Update),
    ("DeleteUser", "User was deleted", Weight::Update),
    ("DeleteUserPolicy", "Inline policy of a user was deleted", Weight::Policy),
    ("DeleteVirtualMFADevice", "Virtual MFA device was deleted", Weight::WayIn),
    ("DetachUserPolicy", "Policy was detached from a user", Weight::Policy),
    ("EnableMFADevice", "MFA of a user was switched on", Weight::Slight),
    ("PutUserPolicy", "Inline policy of a user was written", Weight::Policy),
    ("ResetServiceSpecificCredential", "Service credential of a user was reset", Weight::Update),
    ("ResyncMFADevice", "MFA device was synchronised anew", Weight::Slight),
    ("TagUser", "User was tagged", Weight::Slight),
    ("UntagUser", "Tags of a user were removed", Weight::Slight),
    ("UpdateAccessKey", "Access key was switched on or off", Weight::Key),
    ("UpdateLoginProfile", "Console password of a user was set", Weight::WayIn),
    ("UpdateSSHPublicKey", "SSH key of a user was switched on or off", Weight::Update),
    ("UpdateServiceSpecificCredential", "Service credential of a user was switched on or off", Weight::Update),
    ("UpdateSigningCertificate", "Signing certificate of a user was switched on or off", Weight::Update),
    ("UpdateUser", "User was renamed or moved", Weight::Update),
    ("UploadSSHPublicKey", "SSH key was added to a user", Weight::WayIn),
    ("UploadSigningCertificate", "Signing certificate was added to a user", Weight::WayIn),
];

const NAMES: [&str; CALLS.len()] = {
    let mut names = [""; CALLS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = CALLS[i].0;
        i += 1;
    }
    names
};

impl Classifier for IamCredentialChanged {
    const META: Meta = Meta {
        id: "iam_credential_changed",
        title: "User or credential was changed in IAM",
        severity: Severity::Medium,
        techniques: &["T1098", "T1098.001"],
        patterns: &[Pattern::Api { source: "iam.amazonaws.com", names: &NAMES }],
        failed_calls: FailedCalls::Ignored,
        responses: &["iam_user_restrict", "iam_login_lock"],
        references: &[
            "https://attack.mitre.org/techniques/T1098/",
            "https://docs.aws.amazon.com/IAM/latest/APIReference/API_Operations.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if let Some(unknown) = settings.ignore_calls.iter().find(|name| call(name).is_none()) {
            return Err(SettingsError::new("ignore_calls", format!("{unknown} is no call this classifier looks at")));
        }
        if !(1..=7_776_000).contains(&settings.repeat_s) {
            return Err(SettingsError::new("repeat_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        if !(2..=MAX_DISTINCT_ENTRIES).contains(&(settings.bulk_min as usize)) {
            return Err(SettingsError::new("bulk_min", format!("must be from 2 to {MAX_DISTINCT_ENTRIES}")));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        let is_way_in = || call(&event.name).is_some_and(|(.., weight)| *weight == Weight::WayIn);
        !self.settings.ignore_calls.iter().any(|c| c.eq_ignore_ascii_case(&event.name))
            && (!event.is_by_aws_service() || (is_way_in() && !event.is_by_aws_service_alone()))
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        if !takes_away(event)? {
            return Ok(Observations::none());
        }
        let names = ["/accessKeyId", "/certificateId", "/sSHPublicKeyId", "/serviceSpecificCredentialId", "/userName"];
        let mut what = Vec::new();
        for pointer in names {
            what.extend(event.request_text(pointer)?);
        }
        let what = if what.is_empty() { event.identity_id().into_owned() } else { what.join("/") };
        Ok(Observations::none().distinct(TAKEN, caller_and_call(event), what, TAKEN_WINDOW_S))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let Some((_, label, weight)) = call(&event.name) else { return Ok(None) };
        let identity = event.identity();
        let named = event.request_text("/userName")?;
        let owner = match named {
            Some(name) => name,
            None if identity.user_name.is_empty() => identity.principal(),
            None => &identity.user_name,
        };
        let with_mfa = identity.mfa == Some(true);
        if with_mfa && !self.settings.console_resets && is_console_reset(event)? {
            return Ok(None);
        }
        let severity = match (identity.is_root(), weight, with_mfa) {
            (true, Weight::WayIn | Weight::Key, _) | (false, Weight::WayIn, false) => Severity::Critical,
            (true, _, _) | (false, Weight::WayIn, true) | (false, Weight::Policy, false) => Severity::High,
            (false, Weight::Policy, true) | (false, Weight::Key | Weight::Update, _) => Severity::Medium,
            (false, Weight::Slight, _) => Severity::Low,
        };
        // Who deploys a template gets what it makes, and mostly means to.
        let severity = if identity.invoked_by.is_empty() { severity } else { severity.min(Severity::Medium) };
        let mut evidence = Evidence::about(owner)
            .titled(*label)
            .severity(severity)
            .fact("for_other_user", named.is_some_and(|n| !n.eq_ignore_ascii_case(&identity.user_name)))
            .fact("session_used_mfa", with_mfa);
        if !identity.invoked_by.is_empty() {
            evidence = evidence.fact("invoked_by", &*identity.invoked_by);
        }
        for (fact, pointer) in [
            ("access_key_id", "/accessKeyId"),
            ("status", "/status"),
            ("policy_arn", "/policyArn"),
            ("policy_name", "/policyName"),
            ("serial_number", "/serialNumber"),
            ("new_user_name", "/newUserName"),
            ("service", "/serviceName"),
        ] {
            if let Some(value) = event.request_text(pointer)? {
                evidence = evidence.fact(fact, value);
            }
        }
        if severity == Severity::Low {
            return Ok(Some(evidence.once_in(caller_and_call(event), self.settings.repeat_s)));
        }
        if severity == Severity::Medium && takes_away(event)? {
            let (taken, bulk_min) = (known.count(TAKEN).now, u64::from(self.settings.bulk_min));
            let key = caller_and_call(event);
            if taken >= bulk_min {
                evidence = evidence
                    .titled(format!("{label}, {taken} by one caller within a day"))
                    .fact("taken_away", taken)
                    .once_in(format!("{key}/bulk"), TAKEN_WINDOW_S);
            } else if identity.principal_kind() == PrincipalKind::RoleSession {
                evidence = evidence.once_in(key, TAKEN_WINDOW_S);
            }
        }
        Ok(Some(evidence))
    }
}

/// Account, caller (all sessions of a role are one) and call.
fn caller_and_call(event: &Event<'_>) -> String {
    [&*event.account, &event.identity().habit_key(), &*event.name].join("/")
}

/// Whether a user or a credential is deleted, or a credential switched off: IAM knows `Active` and `Inactive`.
fn takes_away(event: &Event<'_>) -> Result<bool, Malformed> {
    let Some((name, _, Weight::Key | Weight::Update)) = call(&event.name) else { return Ok(false) };
    let is_switched = name.starts_with("Update") && *name != "UpdateUser";
    Ok(name.starts_with("Delete") || (is_switched && event.request_text("/status")? != Some("Active")))
}

/// Whether a password was set in the console for the session's own user, or so that its user has to change it.
fn is_console_reset(event: &Event<'_>) -> Result<bool, Malformed> {
    let identity = event.identity();
    let in_console = event.raw(Part::FromConsole).is_some_and(|flag| flag.trim_matches('"') == "true");
    if !event.name.eq_ignore_ascii_case("UpdateLoginProfile") || identity.is_root() || !in_console {
        return Ok(false);
    }
    let own = match identity.kind.as_str() {
        "IAMUser" => &identity.user_name,
        _ => &identity.session_name,
    };
    // IAM takes a call without a name for one about the caller; what was left out of the record may have had one.
    let sets_own = match event.request()?.get("userName") {
        None | Some(Value::Null) => !event.is_left_out(Part::Request),
        Some(named) => named.as_str().is_some_and(|named| !own.is_empty() && named.eq_ignore_ascii_case(own)),
    };
    Ok(sets_own || event.request()?["passwordResetRequired"] == true)
}

fn call(name: &str) -> Option<&'static (&'static str, &'static str, Weight)> {
    CALLS.iter().find(|(call, _, _)| call.eq_ignore_ascii_case(name))
}
