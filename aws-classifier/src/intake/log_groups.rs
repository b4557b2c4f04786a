//! From which log groups of CloudWatch Logs a record is believed. Whoever may write a log line anywhere chooses all of its
//! text, so a line of JSON is opened only when its group is named as one that CloudTrail writes to. Lines of flow and access
//! logs are told apart by their form, from any group.

use serde::{Deserialize, Serialize};
use shared::text::{matches_glob, one_line};

use super::IntakeError;

/// Characters of a name that an error quotes.
const SHOWN_CHARS: usize = 100;

/// The `[log_groups]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Names of the log groups that trails write to, such as `aws-cloudtrail-logs-*` (`*` for any characters): records of
    /// the account that owns the group are believed. Default none.
    pub cloudtrail: Vec<String>,
    /// Log groups that trails of an organisation write to, as `OWNER:NAME` with the account that owns the group, such as
    /// `111122223333:aws-controltower/CloudTrailLogs`: records of any account are believed. Default none.
    pub organization: Vec<String>,
}

impl Settings {
    /// Keys and what is wrong with them.
    pub fn mistakes(&self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        if self.cloudtrail.iter().any(|name| name.is_empty() || name.contains(':')) {
            mistakes.push(("cloudtrail".to_owned(), "an entry is the name of a log group, no ARN".to_owned()));
        }
        let is_owner = |owner: &str| owner.len() == 12 && owner.bytes().all(|b| b.is_ascii_digit());
        let is_named = |entry: &String| {
            entry
                .split_once(':')
                .is_some_and(|(owner, name)| is_owner(owner) && !name.is_empty() && !name.contains(':'))
        };
        if let Some(entry) = self.organization.iter().find(|entry| !is_named(entry)) {
            let entry = one_line(entry, SHOWN_CHARS);
            let why = format!("{entry} is no account and name as in 111122223333:trail");
            mistakes.push(("organization".to_owned(), why));
        }
        mistakes
    }
}

/// Which log groups are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogGroups {
    /// All of them: of files that somebody hands over to have them looked at, when nothing follows from it.
    Any,
    /// Those that the settings name.
    Named(Settings),
}

impl Default for LogGroups {
    fn default() -> Self {
        Self::Named(Settings::default())
    }
}

/// Of which accounts the records of a log group are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounts<'o> {
    /// Of all.
    Any,
    /// Of the group's owner alone.
    Only(&'o str),
}

impl Accounts<'_> {
    /// # Errors
    /// When a record of that account is not believed.
    pub fn check(self, account: &str) -> Result<(), IntakeError> {
        match self {
            Self::Only(owner) if owner != account => {
                let (owner, account) = (one_line(owner, SHOWN_CHARS), one_line(account, SHOWN_CHARS));
                let why = format!(
                    "a record of account {account} in a log group of {owner}; [log_groups] organization names those of an \
                     organisation's trail"
                );
                Err(IntakeError::Logs { why })
            }
            _ => Ok(()),
        }
    }
}

impl LogGroups {
    /// Of which accounts the records in the group `name` of account `owner` are believed.
    ///
    /// # Errors
    /// When none are.
    pub fn accounts<'o>(&self, owner: &'o str, name: &str) -> Result<Accounts<'o>, IntakeError> {
        let Self::Named(Settings { cloudtrail, organization }) = self else { return Ok(Accounts::Any) };
        let is_of_organization = organization.iter().any(|entry| {
            entry.split_once(':').is_some_and(|(account, group)| account == owner && matches_glob(group, name))
        });
        if is_of_organization {
            return Ok(Accounts::Any);
        }
        if cloudtrail.iter().any(|group| matches_glob(group, name)) {
            return Ok(Accounts::Only(owner));
        }
        let (name, owner) = (one_line(name, SHOWN_CHARS), one_line(owner, SHOWN_CHARS));
        let why = format!("JSON in the log group {name} of {owner}, which [log_groups] does not name as CloudTrail's");
        Err(IntakeError::Logs { why })
    }
}
