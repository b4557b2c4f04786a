//! An MFA device was taken from a user, or replaced, or given.
//!
//! **What it detects.** `DeactivateMFADevice` and `DeleteVirtualMFADevice`; `EnableMFADevice` within
//! `replaced_within_s` of a removal for the same user, whichever arrives first; other `EnableMFADevice` calls as low, by
//! root as high. `iam_credential_changed` lists the same calls with the same severities, but knows of no replacement.
//! Deleting a virtual device that was just deactivated belongs to that removal and is not reported again.
//!
//! **Why it matters.** Without the second factor a stolen password is enough; with the attacker's own device in its
//! place the owner is locked out.
//!
//! **False positives.** A new phone: the same person removes and adds within minutes, in a session that used MFA, which
//! lowers a removal to high. Plain enablement is what everybody should do; it is kept as low because it is also how a
//! new user is made lasting.
//!
//! **Response.** Ask the user. Lock the login, remove the unknown device.
//!
//! **References.** See `META`.

use serde::{Deserialize, Serialize};
use shared::ports::Files;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, SettingsError, Severity,
};

/// Limits of `[classifiers.iam_mfa_device_removed]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds after a removal in which a new device is a replacement: 1 to 86,400. Default 3,600, the predecessor's hour.
    pub replaced_within_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { replaced_within_s: 3_600 }
    }
}

/// See the module.
pub struct IamMfaDeviceRemoved {
    settings: Settings,
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Deactivated,
    Deleted,
    Enabled,
}

impl Classifier for IamMfaDeviceRemoved {
    const META: Meta = Meta {
        id: "iam_mfa_device_removed",
        title: "MFA device was removed",
        severity: Severity::Critical,
        techniques: &["T1556.006"],
        patterns: &[Pattern::Api {
            source: "iam.amazonaws.com",
            names: &["DeactivateMFADevice", "DeleteVirtualMFADevice", "EnableMFADevice"],
        }],
        failed_calls: FailedCalls::Ignored,
        responses: &["iam_login_lock", "iam_user_restrict"],
        references: &[
            "https://attack.mitre.org/techniques/T1556/006/",
            "https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeactivateMFADevice.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1..=86_400).contains(&settings.replaced_within_s) {
            return Err(SettingsError::new("replaced_within_s", "must be from 1 to 86400 seconds (a day)"));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        !event.is_by_aws_service()
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let (within_s, user) = (self.settings.replaced_within_s, format!("{}/{}", event.account, user(event)?));
        let device = event.request_text("/serialNumber")?.map(|serial| format!("{}/{serial}", event.account));
        let nothing = Observations::none();
        Ok(match (change(event), device) {
            (Change::Deactivated, None) => nothing.remember("user", user, "deactivated", within_s),
            (Change::Deactivated, Some(device)) => nothing.remember("user", user, "deactivated", within_s).remember(
                "device",
                device,
                "deactivated",
                within_s,
            ),
            (Change::Enabled, _) => nothing.remember("user", user, "enabled", within_s),
            (Change::Deleted, Some(device)) => nothing.recall("device", device, within_s),
            (Change::Deleted, None) => nothing,
        })
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let change = change(event);
        if change == Change::Deleted && known.last("device").previous.is_some() {
            return Ok(None);
        }
        let identity = event.identity();
        let removal = known.last("user").previous.filter(|(_, what)| what == "deactivated");
        let replacement = known.last("user").next.filter(|(_, what)| what == "enabled");
        let with_mfa = identity.mfa == Some(true);
        let evidence = Evidence::about(user(event)?).fact("session_used_mfa", with_mfa);
        let evidence = match event.request_text("/serialNumber")? {
            Some(serial) => evidence.fact("serial_number", serial),
            None => evidence,
        };
        // By its own owner or by root a device goes without MFA only when the session was stolen or never had any.
        let of_removal = if with_mfa && !identity.is_root() { Severity::High } else { Severity::Critical };
        Ok(Some(match change {
            Change::Enabled => match removal {
                Some((time, _)) => evidence
                    .titled("MFA device was replaced")
                    .severity(Severity::High)
                    .fact("removed_at", time.to_string()),
                None => {
                    let severity = if identity.is_root() { Severity::High } else { Severity::Low };
                    evidence.titled("MFA device was added").severity(severity)
                }
            },
            Change::Deactivated => {
                let evidence = evidence.severity(of_removal);
                match replacement {
                    Some((time, _)) => evidence.fact("replaced_at", time.to_string()),
                    None => evidence,
                }
            }
            Change::Deleted => evidence.titled("Virtual MFA device was deleted").severity(of_removal),
        }))
    }
}

fn change(event: &Event<'_>) -> Change {
    if event.name.eq_ignore_ascii_case("EnableMFADevice") {
        Change::Enabled
    } else if event.name.eq_ignore_ascii_case("DeactivateMFADevice") {
        Change::Deactivated
    } else {
        Change::Deleted
    }
}

/// Whose device: the one named, else the caller's own. A deleted device names only itself.
fn user<'e>(event: &'e Event<'_>) -> Result<&'e str, Malformed> {
    if let Some(name) = event.request_text("/userName")? {
        return Ok(name);
    }
    if change(event) == Change::Deleted
        && let Some(serial) = event.request_text("/serialNumber")?
    {
        return Ok(serial);
    }
    let identity = event.identity();
    Ok(if identity.user_name.is_empty() { identity.principal() } else { &identity.user_name })
}
