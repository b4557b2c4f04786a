//! `[actions.<id>]` of one action: the policy keys every action has ([`ActionPolicy`]) next to the action's own settings.

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use shared::config::Document;
use shared::{Action, SettingsError, Severity};

/// How far a response goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Not even planned.
    Off,
    /// Planned, journalled and shown; nothing is called.
    #[default]
    DryRun,
    /// A person approves first. Refused in this version.
    Approve,
    /// Carried out at once, where there is an account to do it in; else as `dry_run`.
    Auto,
}

impl Mode {
    /// The word used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::DryRun => "dry_run",
            Self::Approve => "approve",
            Self::Auto => "auto",
        }
    }
}

/// The policy keys of `[actions.<id>]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActionPolicy {
    /// `off`, `dry_run` or `auto`. Default `dry_run`: nothing is changed before somebody has seen what would be.
    pub mode: Mode,
    /// Findings below this severity get no response. Default `high`: our choice, because the threats both shipped
    /// actions undo are high or critical.
    pub min_severity: Severity,
    /// Ids of classifiers and rules whose findings this action answers. Empty: those of the classifiers that suggest it.
    /// The responder knows no classifiers: `pipeline config` refuses ids that nobody has, the deployed function takes
    /// any.
    pub classifiers: Vec<String>,
}

impl Default for ActionPolicy {
    fn default() -> Self {
        Self { mode: Mode::DryRun, min_severity: Severity::High, classifiers: Vec::new() }
    }
}

impl ActionPolicy {
    /// Refuses what this version cannot do.
    ///
    /// # Errors
    /// When the mode is `approve`.
    pub fn check(&self) -> Result<(), SettingsError> {
        match self.mode {
            Mode::Off | Mode::DryRun | Mode::Auto => Ok(()),
            Mode::Approve => Err(SettingsError::new(
                "mode",
                "approve is not available: nobody can be asked in this version; use dry_run (shows the exact calls), auto \
                 (carries them out) or off"
                    .to_owned(),
            )),
        }
    }
}

/// `[actions.<id>]` of one action: the policy keys and, beside them in the same table, the action's own.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionSettings {
    /// When and how far.
    pub policy: ActionPolicy,
    /// The action's own settings, complete, as an object.
    pub own: Value,
}

impl Serialize for ActionSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        merged(&self.policy, &self.own).serialize(serializer)
    }
}

pub(crate) fn named(error: SettingsError) -> (String, String) {
    (error.key.to_owned(), error.why)
}

/// One `[actions.<id>]` table while its types are known.
struct Table<S> {
    policy: ActionPolicy,
    own: S,
}

impl<S: Default> Default for Table<S> {
    fn default() -> Self {
        Self { policy: ActionPolicy::default(), own: S::default() }
    }
}

impl<S: Serialize> Serialize for Table<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        merged(&self.policy, &object(&self.own)).serialize(serializer)
    }
}

/// By hand, because serde's `flatten` does not go with `deny_unknown_fields`.
impl<'de, S: DeserializeOwned> Deserialize<'de> for Table<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut rest = Map::deserialize(deserializer)?;
        let mut policy = Map::new();
        for key in ["mode", "min_severity", "classifiers"] {
            if let Some(value) = rest.remove(key) {
                policy.insert(key.to_owned(), value);
            }
        }
        Ok(Self {
            policy: serde_json::from_value(Value::Object(policy)).map_err(de::Error::custom)?,
            own: serde_json::from_value(Value::Object(rest)).map_err(de::Error::custom)?,
        })
    }
}

/// `[actions.<id>]` of `A` when nothing is configured.
pub(crate) fn action_defaults<A: Action>() -> ActionSettings {
    ActionSettings { policy: ActionPolicy::default(), own: object(&A::Settings::default()) }
}

/// Reads `[actions.<id>]` of `A`.
pub(crate) fn configure_action<A: Action>(document: &mut Document<'_>) -> ActionSettings {
    let table = document.section_with(&format!("actions.{}", A::META.id), |table: &Table<A::Settings>| {
        let own = serde_json::from_value(object(&table.own))
            .map_err(|error| SettingsError::new(A::META.id, format!("cannot be read back: {error}")));
        let own = own.and_then(|own| A::new(own).map(drop));
        [table.policy.check(), own].into_iter().filter_map(Result::err).map(named).collect()
    });
    ActionSettings { policy: table.policy, own: object(&table.own) }
}

fn object(settings: &impl Serialize) -> Value {
    serde_json::to_value(settings).expect("settings are tables of plain values")
}

fn merged(policy: &ActionPolicy, own: &Value) -> Map<String, Value> {
    let mut table = Map::new();
    for part in [object(policy), own.clone()] {
        if let Value::Object(keys) = part {
            table.extend(keys);
        }
    }
    table
}
