//! Which action answers which finding, and who is left alone.
//!
//! Fails closed: when it cannot tell whether somebody is exempt, the answer is no, with the reason. Names are compared
//! without regard to case, as IAM does, which errs towards exempting.

use serde_json::Value;
use shared::text::matches_glob;
use shared::{ApiCall, Effect, Finding, SettingsError, Timestamp};

use crate::action_settings::{ActionPolicy, Mode};
use crate::patterns::names;
use crate::registry::{DynAction, REGISTRY};
use crate::settings::{ResponderSection, ResponderSettings};

/// An action and when it is chosen.
struct Rule {
    action: Box<dyn DynAction>,
    settings: ActionPolicy,
}

/// An action that answers a finding, and how far it goes.
#[derive(Clone, Copy)]
pub struct Chosen<'p> {
    /// The action.
    pub action: &'p dyn DynAction,
    /// Never `off`.
    pub mode: Mode,
}

/// The policy in force.
pub struct Policy {
    rules: Vec<Rule>,
    exemptions: Exemptions,
    event_age_max_s: u32,
    /// Responses per account and hour.
    pub account_responses_max_per_hour: u32,
}

impl Policy {
    /// Builds the actions and checks everything that [`crate::configure`] checks, for settings made in code.
    ///
    /// # Errors
    /// When a setting cannot be used, above all a mode without an executor.
    pub fn new(settings: &ResponderSettings) -> Result<Self, SettingsError> {
        if let Some(mistake) = settings.responder.mistakes().into_iter().next() {
            return Err(mistake);
        }
        let mut rules = Vec::new();
        for registered in REGISTRY {
            let defaults = (registered.defaults)();
            let of_action = settings.actions.get(registered.meta.id).unwrap_or(&defaults);
            of_action.policy.check()?;
            rules.push(Rule { action: (registered.build)(&of_action.own)?, settings: of_action.policy.clone() });
        }
        Ok(Self {
            rules,
            exemptions: Exemptions::new(&settings.responder),
            event_age_max_s: settings.responder.event_age_max_s,
            account_responses_max_per_hour: settings.responder.account_responses_max_per_hour,
        })
    }

    /// The actions that answer a finding, in the classifier's order of preference. Good news, notices and attempts get none;
    /// suggested actions that do not exist in this version are passed over with a debug line.
    pub fn actions_for(&self, finding: &Finding) -> Vec<Chosen<'_>> {
        if finding.effect != Effect::Threat || finding.attempt {
            return Vec::new();
        }
        for id in &finding.responses {
            if !self.rules.iter().any(|rule| rule.action.meta().id == id) {
                let id = shared::text::one_line(id, 64);
                tracing::debug!(finding.id = %finding.finding_id, "passed over response {id}: not in this version");
            }
        }
        let rank = |rule: &Rule| {
            let id = rule.action.meta().id;
            finding.responses.iter().position(|suggested| suggested == id)
        };
        let mut chosen: Vec<(usize, Chosen<'_>)> = self
            .rules
            .iter()
            .filter(|rule| rule.settings.mode != Mode::Off && finding.severity >= rule.settings.min_severity)
            .filter_map(|rule| {
                let named = &rule.settings.classifiers;
                let rank = rank(rule);
                let wanted = if named.is_empty() { rank.is_some() } else { named.contains(&finding.classifier) };
                let chosen = Chosen { action: &*rule.action, mode: rule.settings.mode };
                wanted.then(|| (rank.unwrap_or(usize::MAX), chosen))
            })
            .collect();
        chosen.sort_by_key(|(rank, _)| *rank);
        chosen.into_iter().map(|(_, chosen)| chosen).collect()
    }

    /// Why nothing is carried out for an event of this time, if it is not: long ago, or in a future that cannot be.
    pub fn too_old(&self, event_time: Timestamp, now: Timestamp) -> Option<String> {
        let max_s = i64::from(self.event_age_max_s);
        let age_s = now.as_millis().saturating_sub(event_time.as_millis()) / 1000;
        let how = if age_s > max_s { "ago" } else { "ahead" };
        (age_s.abs() > max_s).then(|| {
            format!("the event is {} s {how}, more than {max_s} s (event_age_max_s); people decide by now", age_s.abs())
        })
    }

    /// Why the plan must not be carried out, if it must not: somebody or something in it is exempt, or it cannot be told.
    /// `own_account`, where it is known, is the only one whose roles can be the pipeline's own.
    pub fn refusal(
        &self,
        finding: &Finding,
        target: &str,
        calls: &[ApiCall],
        own_account: Option<&str>,
    ) -> Option<String> {
        self.exemptions.refusal(finding, target, calls, own_account)
    }
}

/// The exemption lists, with the words that explain a match.
struct Exemptions {
    /// Matched against who did it and whom the plan changes.
    principals: Vec<(String, &'static str)>,
    /// Matched against the same, in the pipeline's account.
    own_roles: Vec<String>,
    /// Matched against what the plan changes.
    resources: Vec<String>,
}

impl Exemptions {
    fn new(section: &ResponderSection) -> Self {
        let mut principals = Vec::new();
        for (patterns, why) in [
            (&section.break_glass, "is for break-glass (break_glass)"),
            (&section.exempt_roles, "is exempt (exempt_roles)"),
            (&section.exempt_principals, "is exempt (exempt_principals)"),
        ] {
            principals.extend(patterns.iter().map(|pattern| (pattern.to_ascii_lowercase(), why)));
        }
        let lower = |patterns: &[String]| patterns.iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
        Self { principals, own_roles: lower(&section.own_roles), resources: lower(&section.exempt_resources) }
    }

    fn refusal(&self, finding: &Finding, target: &str, calls: &[ApiCall], own_account: Option<&str>) -> Option<String> {
        if calls.is_empty() {
            return Some("the plan has no calls".to_owned());
        }
        let mut people = actors(finding);
        people.extend(calls.iter().flat_map(changed_principals));
        if people.is_empty() {
            return Some("who did it is unknown, so it cannot be told whether they are exempt".to_owned());
        }
        for person in &people {
            let may_be_own = own_account.is_none_or(|own| person.split(':').nth(4) == Some(own));
            if may_be_own && self.own_roles.iter().any(|pattern| names(pattern, person)) {
                let person = shared::text::one_line(person, 200);
                return Some(format!("{person} is a role of the pipeline itself (own_roles)"));
            }
            if let Some((_, why)) = self.principals.iter().find(|(pattern, _)| names(pattern, person)) {
                return Some(format!("{} {why}", shared::text::one_line(person, 200)));
            }
        }
        let mut things = vec![target.to_owned(), finding.resource.clone()];
        things.extend(calls.iter().flat_map(changed_resources));
        let is_named = |thing: &str| {
            let lower = thing.to_ascii_lowercase();
            self.resources.iter().any(|pattern| matches_glob(pattern, &lower) || names(pattern, thing))
        };
        let exempt = things.iter().find(|thing| !thing.is_empty() && is_named(thing))?;
        Some(format!("{} is exempt (exempt_resources)", shared::text::one_line(exempt, 200)))
    }
}

/// Who did it, in every form the finding knows: a session also as its role.
fn actors(finding: &Finding) -> Vec<String> {
    let identity = &finding.identity;
    let mut actors = vec![identity.arn.clone(), identity.issuer_arn.clone(), finding.principal.clone()];
    for arn in [&identity.arn, &finding.principal] {
        // arn:aws:sts::123456789012:assumed-role/name/session drops the role's path, which names() allows for.
        if let Some((head, rest)) = arn.split_once(":assumed-role/") {
            let partition = head.split(':').nth(1).unwrap_or("aws");
            let account = head.rsplit(':').next().unwrap_or_default();
            let role = rest.split('/').next().unwrap_or_default();
            actors.push(format!("arn:{partition}:iam::{account}:role/{role}"));
        }
    }
    if !identity.user_name.is_empty() && identity.arn.is_empty() {
        let account = if identity.account.is_empty() { &finding.account } else { &identity.account };
        actors.push(format!("arn:aws:iam::{account}:user/{}", identity.user_name));
    }
    actors.retain(|actor| !actor.is_empty() && actor != "unknown");
    actors
}

/// Users and roles a call changes, as ARNs. Their paths are unknown, which [`names`] allows for.
fn changed_principals(call: &ApiCall) -> Vec<String> {
    let arn = |kind: &str, parameter: &str| {
        let name = call.parameters.get(parameter)?.as_str()?;
        Some(format!("arn:{}:iam::{}:{kind}/{name}", partition(&call.region), call.account))
    };
    [arn("user", "UserName"), arn("role", "RoleName")].into_iter().flatten().collect()
}

/// Resources a call changes, as ARNs. Bare ids are the target already.
fn changed_resources(call: &ApiCall) -> Vec<String> {
    let mut things = changed_principals(call);
    if let Some(group) = call.parameters.get("GroupId").and_then(Value::as_str) {
        let (partition, region) = (partition(&call.region), &call.region);
        things.push(format!("arn:{partition}:ec2:{region}:{}:security-group/{group}", call.account));
    }
    things
}

fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::Severity;

    use super::*;
    use crate::testing::{finding, user};

    const DEACTIVATE: &str = "iam_access_key_deactivate";
    const REVOKE: &str = "security_group_rule_revoke";

    fn chosen(settings: &ResponderSettings, finding: &Finding) -> Vec<&'static str> {
        Policy::new(settings).unwrap().actions_for(finding).iter().map(|chosen| chosen.action.meta().id).collect()
    }

    #[test]
    fn the_classifiers_suggestions_are_taken_in_their_order() {
        let suggested = finding("x", &["ec2_instances_stop", REVOKE, "made_up", DEACTIVATE, REVOKE]);
        assert_eq!(chosen(&ResponderSettings::default(), &suggested), [REVOKE, DEACTIVATE]);
    }

    #[test]
    fn good_news_attempts_and_small_things_get_no_response() {
        let settings = ResponderSettings::default();
        let answered = finding("x", &[DEACTIVATE]);
        assert_eq!(chosen(&settings, &answered), [DEACTIVATE]);
        assert!(chosen(&settings, &Finding { attempt: true, ..answered.clone() }).is_empty());
        assert!(chosen(&settings, &Finding { effect: Effect::Resolves, ..answered.clone() }).is_empty());
        assert!(chosen(&settings, &Finding { severity: Severity::Medium, ..answered.clone() }).is_empty());
        assert!(chosen(&settings, &finding("x", &[])).is_empty());
    }

    #[test]
    fn settings_decide_over_suggestions() {
        let mut settings = ResponderSettings::default();
        settings.actions.get_mut(DEACTIVATE).unwrap().policy.mode = Mode::Off;
        settings.actions.get_mut(REVOKE).unwrap().policy.classifiers = vec!["y".to_owned()];
        assert!(chosen(&settings, &finding("x", &[DEACTIVATE, REVOKE])).is_empty());
        assert_eq!(chosen(&settings, &finding("y", &[DEACTIVATE])), [REVOKE]);
    }

    #[test]
    fn old_and_impossible_events_are_left_to_people() {
        let policy = Policy::new(&ResponderSettings::default()).unwrap();
        let at = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        for (age_s, old) in [(0, false), (3600, false), (3601, true), (86_400, true), (-3600, false), (-3601, true)] {
            assert_eq!(policy.too_old(at, at.plus_seconds(age_s)).is_some(), old, "{age_s}");
        }
        assert!(policy.too_old(at, Timestamp::from_millis(i64::MIN)).is_some());
        assert!(policy.too_old(Timestamp::from_millis(i64::MIN), at).unwrap().contains("event_age_max_s"));
    }

    #[test]
    fn modes_without_an_executor_are_refused_in_code_too() {
        let mut settings = ResponderSettings::default();
        settings.actions.get_mut(DEACTIVATE).unwrap().policy.mode = Mode::Approve;
        assert_eq!(Policy::new(&settings).map(drop).unwrap_err().key, "mode");
    }

    fn call(user: &str) -> ApiCall {
        ApiCall {
            service: "iam".to_owned(),
            operation: "UpdateAccessKey".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            parameters: json!({"UserName": user}),
        }
    }

    fn refusal(change: impl FnOnce(&mut ResponderSection), finding: &Finding, call: ApiCall) -> Option<String> {
        let mut settings = ResponderSettings::default();
        change(&mut settings.responder);
        Policy::new(&settings).unwrap().refusal(finding, "target-1", &[call], None)
    }

    #[test]
    fn exempt_actors_and_targets_are_left_alone() {
        let by = |arn: &str, issuer: &str| {
            let mut finding = finding("x", &[]);
            finding.principal = arn.to_owned();
            finding.identity.arn = arn.to_owned();
            finding.identity.issuer_arn = issuer.to_owned();
            finding
        };
        let session = "arn:aws:sts::123456789012:assumed-role/Deploy/ci-7";
        let user = "arn:aws:iam::123456789012:user/people/Alice";
        let evil = "arn:aws:sts::123456789012:assumed-role/Evil/deploy-x";
        let set = |list: &'static str, pattern: &'static str| {
            move |section: &mut ResponderSection| {
                let patterns = vec![pattern.to_owned()];
                match list {
                    "principals" => section.exempt_principals = patterns,
                    "roles" => section.exempt_roles = patterns,
                    "resources" => section.exempt_resources = patterns,
                    _ => section.break_glass = patterns,
                }
            }
        };
        type Case = (Finding, ApiCall, &'static str, &'static str, bool);
        let cases: Vec<Case> = vec![
            (by(user, ""), call("bob"), "principals", user, true),
            (by(user, ""), call("bob"), "principals", "alice", true),
            (by(user, ""), call("bob"), "principals", "arn:aws:iam::123456789012:user/alice", true),
            (by(user, ""), call("bob"), "principals", "arn:aws:iam::*:user/al*", true),
            (by(user, ""), call("bob"), "principals", "arn:aws:iam::210987654321:user/alice", false),
            (by(user, ""), call("bob"), "principals", "arn:aws:iam::*:role/alice", false),
            (by(user, ""), call("bob"), "principals", "lic", false),
            (by(user, ""), call("bob"), "principals", "bob", true),
            (by(user, ""), call("bob"), "break_glass", "arn:aws:iam::*:user/glass/bob", true),
            (by(session, ""), call("bob"), "roles", "deploy", true),
            (by(session, ""), call("bob"), "roles", "arn:aws:iam::123456789012:role/ci/Deploy", true),
            (
                by("", "arn:aws:iam::123456789012:role/ci/Deploy"),
                call("bob"),
                "roles",
                "arn:aws:iam::*:role/Deploy",
                true,
            ),
            (by(session, ""), call("bob"), "roles", "arn:aws:iam::123456789012:role/Deployer", false),
            (by(evil, ""), call("bob"), "roles", "deploy-*", false),
            (by(evil, ""), call("bob"), "roles", "*deploy-x", false),
            (by(evil, ""), call("bob"), "roles", "arn:aws:iam::*:role/deploy-*", false),
            (by(evil, ""), call("bob"), "principals", "deploy-x", false),
            (by(evil, ""), call("bob"), "roles", "Evil", true),
            (
                by("arn:aws:sts::123456789012:assumed-role/Evil/emergency", ""),
                call("bob"),
                "break_glass",
                "emergency",
                false,
            ),
            (
                by("arn:aws:sts::123456789012:federated-user/emergency", ""),
                call("bob"),
                "break_glass",
                "emergency",
                false,
            ),
            (by("AROAEXAMPLE:emergency", ""), call("bob"), "break_glass", "*emergency", false),
            (by("123456789012:emergency", ""), call("bob"), "break_glass", "*emergency", false),
            (by(user, ""), call("bob"), "resources", "target-*", true),
            (by(user, ""), call("bob"), "resources", "arn:aws:iam::123456789012:user/bob", true),
            (by(user, ""), call("bob"), "resources", "arn:aws:iam::123456789012:user/ops/bob", true),
            (by(user, ""), call("bob"), "resources", "arn:aws:iam::210987654321:user/ops/bob", false),
            (by(user, ""), call("bob"), "resources", "bob", true),
            (by(user, ""), call("bob"), "resources", "target", false),
        ];
        for (finding, call, list, pattern, exempt) in cases {
            let reason = refusal(set(list, pattern), &finding, call);
            assert_eq!(reason.is_some(), exempt, "{list} {pattern}: {reason:?}");
        }
    }

    #[test]
    fn the_pipelines_own_role_is_exempt_by_default_and_no_name_that_anybody_can_take() {
        let mut own = finding("x", &[]);
        own.identity.arn = "arn:aws:sts::123456789012:assumed-role/security-pipeline-responder/x".to_owned();
        assert!(refusal(|_| {}, &own, call("bob")).unwrap().contains("pipeline itself"));
        let glass = |section: &mut ResponderSection| section.break_glass = vec!["break-glass".to_owned()];
        assert!(refusal(glass, &finding("x", &[]), call("break-glass")).unwrap().contains("(break_glass)"));
        for user in ["bob", "break-glass"] {
            assert_eq!(refusal(|_| {}, &finding("x", &[]), call(user)), None);
        }
    }

    #[test]
    fn roles_of_another_name_or_account_are_not_the_pipelines_own() {
        let policy = Policy::new(&ResponderSettings::default()).unwrap();
        let cases = [
            ("123456789012", "security-pipeline-responder", true),
            ("210987654321", "security-pipeline-responder", false),
            ("123456789012", "security-pipeline-evil", false),
            ("123456789012", "security-pipeline-responder-2", false),
        ];
        for (account, role, exempt) in cases {
            let mut by = finding("x", &[]);
            by.identity.arn = format!("arn:aws:sts::{account}:assumed-role/{role}/security-pipeline-logger");
            let refusal = policy.refusal(&by, "target-1", &[call("bob")], Some("123456789012"));
            assert_eq!(refusal.is_some(), exempt, "{account} {role}: {refusal:?}");
        }
    }

    #[test]
    fn an_unknown_actor_is_not_answered() {
        let mut nobody = finding("x", &[]);
        nobody.identity = shared::Identity::default();
        nobody.principal = "unknown".to_owned();
        let mut group = call("bob");
        group.parameters = json!({"GroupId": "sg-12345678"});
        assert!(refusal(|_| {}, &nobody, group.clone()).unwrap().contains("unknown"));
        nobody.identity = user("mallory");
        assert_eq!(refusal(|_| {}, &nobody, group.clone()), None);
        let exempt = |section: &mut ResponderSection| {
            section.exempt_resources = vec!["arn:aws:ec2:*:security-group/sg-12345678".to_owned()];
        };
        assert!(refusal(exempt, &nobody, group).unwrap().contains("exempt_resources"));
    }
}
