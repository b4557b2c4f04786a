//! Console logins failed again and again.
//!
//! **What it detects.** `failures_min` failed logins of one user, or `users_min` different users failing from one
//! source address (spraying, also across accounts), within `window_s`. One finding per window. A successful login of
//! the user starts its count anew; it does not clear the address, or one working account would hide the spraying.
//!
//! **Why it matters.** Guessing is the cheapest attack there is, and a success ends it without further noise.
//!
//! **False positives.** A forgotten password; an office behind one address on Monday morning (raise `users_min`).
//! CloudTrail hides names that do not exist, since people type passwords there; those are counted per address and as
//! one user.
//!
//! **Response.** Ask the user. Nobody is locked out for failing: that would hand the attacker the lock.
//!
//! **References.** See `META`.

use serde::{Deserialize, Serialize};
use shared::observation::{MAX_COUNT_ENTRIES, MAX_DISTINCT_ENTRIES};
use shared::ports::Files;

use crate::sign_in;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Identity, Known, Malformed, Meta, Observations, Pattern, SettingsError,
    Severity,
};

/// Limits of `[classifiers.console_login_failed_repeatedly]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Failures of one user: 1 to 1,000. Default 3, the predecessor's.
    pub failures_min: u32,
    /// Different users failing from one address: 2 to 256. Default 3: our choice, as many as failures of one user.
    pub users_min: u32,
    /// Window in seconds: 1 to 7,776,000 (90 days). Default 900, the predecessor's 15 minutes.
    pub window_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { failures_min: 3, users_min: 3, window_s: 900 }
    }
}

/// See the module.
pub struct ConsoleLoginFailedRepeatedly {
    settings: Settings,
}

/// What CloudTrail writes for a name that is no user.
const HIDDEN: &str = "HIDDEN_DUE_TO_SECURITY_REASONS";

impl Classifier for ConsoleLoginFailedRepeatedly {
    const META: Meta = Meta {
        id: "console_login_failed_repeatedly",
        title: "Console login of one user failed repeatedly",
        severity: Severity::High,
        techniques: &["T1110.001", "T1110.003"],
        patterns: &[Pattern::Api { source: "signin.amazonaws.com", names: &["ConsoleLogin"] }],
        failed_calls: FailedCalls::Wanted,
        responses: &["event_archive"],
        references: &[
            "https://attack.mitre.org/techniques/T1110/",
            "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1..=MAX_COUNT_ENTRIES).contains(&(settings.failures_min as usize)) {
            return Err(SettingsError::new("failures_min", format!("must be from 1 to {MAX_COUNT_ENTRIES}")));
        }
        if !(2..=MAX_DISTINCT_ENTRIES).contains(&(settings.users_min as usize)) {
            return Err(SettingsError::new("users_min", format!("must be from 2 to {MAX_DISTINCT_ENTRIES}")));
        }
        if !(1..=90 * 86_400).contains(&settings.window_s) {
            return Err(SettingsError::new("window_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        Ok(Self { settings })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let window_s = self.settings.window_s;
        let user = user(event);
        if sign_in::succeeded(event)? {
            return Ok(Observations::none().reset("user", user, window_s));
        }
        let observations = Observations::none().count("user", user.as_str(), 1, window_s);
        if event.source_ip.is_empty() {
            return Ok(observations);
        }
        Ok(observations.distinct("source", &*event.source_ip, user, window_s))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        if sign_in::succeeded(event)? {
            return Ok(None);
        }
        let (failures, users) = (known.count("user"), known.count("source"));
        let guessed = failures.reaches(self.settings.failures_min.into());
        let sprayed = users.reaches(self.settings.users_min.into());
        if !guessed && !sprayed {
            return Ok(None);
        }
        let user = user(event);
        let evidence = if sprayed {
            Evidence::about(&*event.source_ip)
                .titled("Console logins of many users failed from one address")
                .fact("users", users.values)
                .fact("users_count", users.now)
        } else if is_nameless(event.identity()) {
            Evidence::about(&*event.source_ip)
                .titled("Console logins of unknown users failed repeatedly from one address")
                .fact("failures_count", failures.now)
        } else {
            Evidence::about(user.as_str()).fact("failures_count", failures.now)
        };
        Ok(Some(evidence.fact("user", user).fact("window_s", self.settings.window_s)))
    }

    fn why_not(&self, event: &Event<'_>, known: &Known) -> Option<String> {
        Some(if sign_in::succeeded(event).ok()? {
            "the login succeeded".to_owned()
        } else {
            format!(
                "failures of the user within the window: {}, reported once at {}",
                known.count("user").now,
                self.settings.failures_min
            )
        })
    }
}

/// Whose login it was, with the account. Failures carry no ARN and successes do, so the name decides; those without any are
/// told apart by where they came from.
fn user(event: &Event<'_>) -> String {
    let identity = event.identity();
    if is_nameless(identity) {
        return format!("{}/unknown@{}", event.account, event.source_ip);
    }
    let name = match identity.user_name.as_str() {
        // With a space, which no name of a user has: an IAM user may be called `root`.
        _ if identity.is_root() => "root user",
        "" => identity.principal(),
        name => name,
    };
    format!("{}/{name}", event.account)
}

/// Whether the record keeps to itself who it was. Root never has a name and is known all the same.
fn is_nameless(identity: &Identity) -> bool {
    let named = [&identity.user_name, &identity.arn, &identity.principal_id].iter().any(|name| !name.is_empty());
    !identity.is_root() && (!named || identity.user_name == HIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoFiles;

    impl Files for NoFiles {
        fn read(&self, name: &str) -> Result<Vec<u8>, String> {
            Err(name.to_owned())
        }
    }

    #[test]
    fn thresholds_that_the_state_cannot_reach_are_refused() {
        for (key, settings) in [
            ("failures_min", Settings { failures_min: 0, ..Settings::default() }),
            ("failures_min", Settings { failures_min: 1001, ..Settings::default() }),
            ("users_min", Settings { users_min: 257, ..Settings::default() }),
            ("window_s", Settings { window_s: 0, ..Settings::default() }),
        ] {
            let error = ConsoleLoginFailedRepeatedly::new(settings, &NoFiles).err().map(|e| e.key);
            assert_eq!(error, Some(key));
        }
    }
}
