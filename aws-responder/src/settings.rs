//! `[responder]` and all of `[actions]`: typed, defaulted, every mistake reported.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::SettingsError;
use shared::config::Document;

use crate::action_settings::{ActionSettings, named};
use crate::patterns::{check_pattern, check_principal_pattern};
use crate::registry::REGISTRY;

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
    /// Break-glass users and roles: never answered nor acted on. Name yours; a name that were exempt without being told would
    /// be free for whoever makes a user of it.
    pub break_glass: Vec<String>,
    /// The pipeline's own roles: always exempt, so that it cannot lock itself out. Where responses are carried out,
    /// only those of its own account. Default: the roles of the deployment, by its name.
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
            break_glass: Vec::new(),
            own_roles: own_roles("security-pipeline"),
        }
    }
}

/// The roles of the functions of a deployment, as its templates name them. Nobody else can take a name that is taken.
fn own_roles(deployment: &str) -> Vec<String> {
    ["classifier", "responder", "notifier", "logger"]
        .map(|component| format!("arn:*:iam::*:role/{deployment}-{component}"))
        .to_vec()
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

impl ResponderSettings {
    /// Knows the pipeline's own roles by the name of the deployment, unless the configuration names others.
    #[must_use]
    pub fn of_deployment(mut self, name: &str) -> Self {
        if self.responder.own_roles == ResponderSection::default().own_roles {
            self.responder.own_roles = own_roles(name);
        }
        self
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action_settings::Mode;

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
    fn own_roles_have_the_name_of_the_deployment_unless_they_are_configured() {
        let roles = |settings: ResponderSettings| settings.of_deployment("blue").responder.own_roles;
        assert_eq!(roles(ResponderSettings::default())[1], "arn:*:iam::*:role/blue-responder");
        let mut named = ResponderSettings::default();
        named.responder.own_roles = vec!["mine".to_owned()];
        assert_eq!(roles(named), ["mine"]);
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
