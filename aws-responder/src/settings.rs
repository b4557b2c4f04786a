//! `[responder]` and `[actions.<id>]`: typed, defaulted, every mistake reported.
//!
//! An action's table holds the policy keys every action has ([`ActionPolicy`]) next to the action's own settings.

use std::collections::BTreeMap;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use shared::config::Document;
use shared::{Action, SettingsError, Severity};

use crate::policy::{check_pattern, check_principal_pattern};
use crate::registry::REGISTRY;

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

/// `[responder]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponderSection {
    /// At most this many responses per account in one hour (UTC, of the findings' event times); more are skipped. What is
    /// carried out and what is only shown are counted apart. Default
    /// 20: our choice, because a person can still review that many, and a classifier gone wrong stops there. 0 to 1000;
    /// 0 skips every response.
    pub account_responses_max_per_hour: u32,
    /// Mode `auto` leaves events alone that are older than this many seconds, or this far in the future. Default 3600:
    /// our choice. CloudTrail delivers within 15 minutes and the queues try again for 20 minutes each, so an hour is
    /// what a working pipeline needs; a dead letter that is redriven days later, or a replay, must not undo what people
    /// have decided since. 60 to 1209600 (14 days, as long as a dead letter lives).
    pub event_age_max_s: u32,
    /// Principals that are never answered nor acted on: ARNs or names, `*` matches anything. A name is a user's or a
    /// role's, never that of a session, which its caller chooses.
    pub exempt_principals: Vec<String>,
    /// Roles that are never answered nor acted on: ARNs or names, `*` matches anything. Covers their sessions.
    pub exempt_roles: Vec<String>,
    /// Resources that are never acted on: ARNs or ids, `*` matches anything.
    pub exempt_resources: Vec<String>,
    /// Break-glass users and roles: always exempt.
    pub break_glass: Vec<String>,
    /// The pipeline's own roles: always exempt, so that it cannot lock itself out. Where responses are carried out,
    /// only those of its own account.
    pub own_roles: Vec<String>,
}

impl Default for ResponderSection {
    fn default() -> Self {
        Self {
            account_responses_max_per_hour: 20,
            event_age_max_s: 3600,
            exempt_principals: Vec::new(),
            exempt_roles: Vec::new(),
            exempt_resources: Vec::new(),
            break_glass: vec!["arn:*:iam::*:user/break-glass".to_owned(), "arn:*:iam::*:role/break-glass".to_owned()],
            own_roles: ["classifier", "responder", "notifier", "logger"]
                .map(|component| format!("arn:*:iam::*:role/security-pipeline-{component}"))
                .to_vec(),
        }
    }
}

/// Says what is wrong with a pattern.
type Check = fn(&str) -> Result<(), String>;

impl ResponderSection {
    /// Everything in the section that cannot be used.
    pub fn mistakes(&self) -> Vec<SettingsError> {
        let mut mistakes = Vec::new();
        if self.account_responses_max_per_hour > 1000 {
            mistakes.push(SettingsError::new(
                "account_responses_max_per_hour",
                format!("is {}, but at most 1000 is allowed", self.account_responses_max_per_hour),
            ));
        }
        if !(60..=1_209_600).contains(&self.event_age_max_s) {
            mistakes.push(SettingsError::new(
                "event_age_max_s",
                format!("is {}, but must be 60 to 1209600 (14 days)", self.event_age_max_s),
            ));
        }
        let (principal, any): (Check, Check) = (check_principal_pattern, check_pattern);
        for (key, patterns, check) in [
            ("exempt_principals", &self.exempt_principals, principal),
            ("exempt_roles", &self.exempt_roles, principal),
            ("exempt_resources", &self.exempt_resources, any),
            ("break_glass", &self.break_glass, principal),
            ("own_roles", &self.own_roles, principal),
        ] {
            let refused = patterns.iter().filter_map(|pattern| check(pattern).err());
            mistakes.extend(refused.map(|why| SettingsError::new(key, why)));
        }
        mistakes
    }
}

/// Everything the responder reads from the configuration. Serializes to the tables it came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResponderSettings {
    /// `[responder]`.
    pub responder: ResponderSection,
    /// `[actions.<id>]`, one for every registered action.
    pub actions: BTreeMap<&'static str, ActionSettings>,
}

impl Default for ResponderSettings {
    fn default() -> Self {
        Self {
            responder: ResponderSection::default(),
            actions: REGISTRY.iter().map(|action| (action.meta.id, (action.defaults)())).collect(),
        }
    }
}

/// Takes `[responder]` and every `[actions.<id>]`. Mistakes are kept by the document and reported by its `finish`.
pub fn configure(document: &mut Document<'_>) -> ResponderSettings {
    let responder = document
        .section_with("responder", |section: &ResponderSection| section.mistakes().into_iter().map(named).collect());
    document.expect_table("actions");
    let actions = REGISTRY.iter().map(|action| (action.meta.id, (action.configure)(document))).collect();
    ResponderSettings { responder, actions }
}

fn named(error: SettingsError) -> (String, String) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let mut document = Document::parse("pipeline.toml", text);
        configure(&mut document);
        match document.finish() {
            Ok(()) => Vec::new(),
            Err(error) => error.mistakes.into_iter().map(|m| format!("{}: {}: {}", m.line, m.key, m.why)).collect(),
        }
    }

    #[test]
    fn defaults_are_shown_in_full() {
        insta::assert_json_snapshot!(ResponderSettings::default());
    }

    #[test]
    fn good_values_replace_defaults() {
        let mut document = Document::parse(
            "pipeline.toml",
            "[responder]\naccount_responses_max_per_hour = 3\n[actions.security_group_rule_revoke]\nmode = \"off\"\nremainder_kept = false\n",
        );
        let settings = configure(&mut document);
        document.finish().unwrap();
        assert_eq!(settings.responder.account_responses_max_per_hour, 3);
        let action = &settings.actions["security_group_rule_revoke"];
        assert_eq!(action.policy.mode, Mode::Off);
        assert_eq!(action.own["remainder_kept"], false);
    }

    #[test]
    fn modes_without_an_executor_are_refused_with_a_way_out() {
        let found = mistakes("[actions.iam_access_key_deactivate]\nmode = \"approve\"\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("2: actions.iam_access_key_deactivate.mode: approve is not available"),
            "{found:?}"
        );
        assert!(found[0].contains("use dry_run"), "{found:?}");
        for mode in ["auto", "dry_run", "off"] {
            let found = mistakes(&format!("[actions.iam_access_key_deactivate]\nmode = \"{mode}\"\n"));
            assert_eq!(found, Vec::<String>::new());
        }
    }

    #[test]
    fn the_age_of_events_has_bounds() {
        for (value, good) in [(59, false), (60, true), (1_209_600, true), (1_209_601, false)] {
            let found = mistakes(&format!("[responder]\nevent_age_max_s = {value}\n"));
            assert_eq!(found.is_empty(), good, "{found:?}");
        }
    }

    #[test]
    fn every_mistake_is_reported() {
        let found = mistakes(
            "[responder]\naccount_responses_max_per_hour = 5000\n\n[actions.iam_access_key_deactivate]\nmode = \"maybe\"\nx = 1\n\n[actions.iam_key]\n",
        );
        let starts: Vec<_> = found.iter().map(|m| m.rsplitn(2, ": ").last().unwrap_or_default().to_owned()).collect();
        assert_eq!(found.len(), 4, "{starts:?}");
        assert!(found[0].starts_with("2: responder.account_responses_max_per_hour"), "{found:?}");
        assert!(found[1].starts_with("5: actions.iam_access_key_deactivate.mode"), "{found:?}");
        assert!(found[2].starts_with("6: actions.iam_access_key_deactivate.x"), "{found:?}");
        assert!(found[3].starts_with("8: actions.iam_key"), "{found:?}");
    }
}
