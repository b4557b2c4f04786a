//! The policy of a role, key, queue or other resource lets strangers in.
//!
//! **What it detects.** Policies that are attached to resources, read statement by statement as AWS reads them: who is
//! named, which conditions limit it, what a `Deny` takes back. Anyone at all is critical for roles and high for the
//! rest, medium where much is open on purpose. Another account is told apart from that, also where the own account is
//! named beside it: high for roles that exist, keys, backups, catalogues and audit events, medium for the rest. An identity
//! provider that many share, such as GitHub's, is anyone unless the conditions say whose tokens are meant. Roles, keys,
//! secrets, images, queues, topics, event buses, tables, streams, file systems, access points, search domains, APIs and
//! so on: all of them are in `resource_policy_opened/kinds.rs`. Buckets have `s3_public_exposure`, functions and
//! warehouses rules of their own.
//!
//! Conditions that name an account are compared with the own one. Those that name an organization, an address, a network
//! or an endpoint do not say whose it is. An organization is a limit as long as `trusted_organizations` is empty; with it,
//! any other is a stranger, as bad as another account. A place is a limit where callers need no identity of AWS (queues,
//! access points, file systems, search domains, APIs): there it is how owners say who may come. Elsewhere whoever is at
//! the place is a stranger, as bad as another account, and for roles as bad as anyone.
//!
//! **Why it matters.** Such a policy is a door that needs no key of this account and stays open when every key is changed.
//!
//! **False positives.** What vendors are given, and accounts of the own organization: name them in `trusted_accounts`.
//! Roles that use infrastructure as code (`deployment_tools`) may share with accounts, except trust in roles that exist;
//! it and AWS services may not open to anyone, unless much of the kind is. Of one resource the same actions for the same
//! strangers are told once until `repeat_s` of quiet. Domains and APIs inside a network are not open to anyone. A policy
//! that cannot be read, because the record does not have it or it is no JSON, is not judged, and neither are identity
//! providers of one company. Parameters that CloudTrail left out of the record, as too large, are medium.
//!
//! **Response.** Ask who it is for; put the policy back.
//!
//! **References.** <https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_identity-vs-resource.html>,
//! <https://attack.mitre.org/techniques/T1199/>

mod kinds;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::event::Part;
use shared::ports::Files;
use shared::{Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, SettingsError, Severity};

use self::kinds::{Kind, PATTERNS};
use crate::deployment_tools::DeploymentTools;
use crate::exposure::{self, Audience, Opening, Trust};

/// The `[classifiers.resource_policy_opened]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Accounts that may be given access: twelve-digit ids. Default none.
    pub trusted_accounts: Vec<String>,
    /// Organizations that may be given access: `o-exampleorg1`. Default none, and then every organization may: a policy names
    /// one by an id that does not say whose it is.
    pub trusted_organizations: Vec<String>,
    /// Parts of user agents, in lower case, of tools that lay out what is to be; what roles share with other accounts by them is
    /// not reported, except trust in roles that exist. Callers choose their user agent. Default Terraform, Pulumi, the AWS CDK,
    /// Crossplane, Ansible and the AWS controllers for Kubernetes.
    pub deployment_tools: DeploymentTools,
    /// Seconds without the same opening of a resource after which it is reported again: 1 to 7,776,000. Default 86,400, a
    /// day: our choice, so that a policy that is written again and again is one piece of news.
    pub repeat_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted_accounts: Vec::new(),
            trusted_organizations: Vec::new(),
            deployment_tools: DeploymentTools::default(),
            repeat_s: 86_400,
        }
    }
}

/// See the module.
pub struct ResourcePolicyOpened {
    settings: Settings,
}

impl Classifier for ResourcePolicyOpened {
    const META: Meta = Meta {
        id: "resource_policy_opened",
        title: "Policy of a resource lets strangers in",
        severity: Severity::High,
        techniques: &["T1199", "T1098", "T1537"],
        patterns: &PATTERNS,
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_identity-vs-resource.html",
            "https://attack.mitre.org/techniques/T1199/",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if let Some(odd) = settings.trusted_accounts.iter().find(|id| !exposure::is_account(id)) {
            return Err(SettingsError::new("trusted_accounts", format!("{odd:?} is not twelve digits")));
        }
        if let Some(odd) = settings.trusted_organizations.iter().find(|id| !exposure::is_organization(id)) {
            return Err(SettingsError::new("trusted_organizations", format!("{odd:?} is no id such as o-exampleorg1")));
        }
        settings.deployment_tools.check()?;
        if !(1..=7_776_000).contains(&settings.repeat_s) {
            return Err(SettingsError::new("repeat_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        Ok(Self { settings })
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let Some(kind) = Kind::of(event) else { return Ok(None) };
        let request = event.request()?;
        if event.is_left_out(Part::Request) {
            return Ok((!event.is_by_aws_service()).then(|| {
                Evidence::about("")
                    .titled(format!("Policy of {} may have been written, the record leaves out how", named(kind.what)))
                    .severity(Severity::Medium)
            }));
        }
        let Some(policy) = policy(kind, request) else { return Ok(None) };
        // Without an owner every account would be a stranger.
        if event.account.is_empty() {
            return Ok(None);
        }
        let judged = |trust| exposure::judge_attached(&policy, &event.account, trust);
        // Nobody limits a role to a place: the address of a stranger beside `*` is a stranger.
        let Ok(verdict) = judged(Trust { places: !kind.is_role(), ..Trust::ALL }) else { return Ok(None) };
        let names: Vec<&str> = kind.resource.iter().filter_map(|p| request.pointer(p)?.as_str()).collect();
        let (resource, full_name) = (names.first().copied().unwrap_or_default(), names.join("/"));
        let titled =
            |whom: &str| Evidence::about(resource).titled(format!("Policy opens {} to {whom}", named(kind.what)));

        let public: Vec<&Opening> = verdict.public().collect();
        let is_laid_out = self.settings.deployment_tools.call_with_role(event);
        if !public.is_empty() && !kind.is_inside_network(request) {
            if kind.to_anyone < Severity::High && (is_laid_out || event.is_by_aws_service()) {
                return Ok(None);
            }
            let evidence = titled("anyone").severity(kind.to_anyone);
            return Ok(Some(self.once(event, &full_name, "anyone", evidence, &public)));
        }
        if event.is_by_aws_service() || (is_laid_out && !kind.is_open_door(event)) {
            return Ok(None);
        }

        let mut strangers: BTreeSet<&String> = BTreeSet::new();
        let mut foreign = Vec::new();
        for opening in &verdict.openings {
            let Audience::Accounts(accounts) = &opening.audience else { continue };
            let untrusted: Vec<&String> =
                accounts.iter().filter(|a| !self.settings.trusted_accounts.contains(a)).collect();
            if !untrusted.is_empty() {
                strangers.extend(untrusted);
                foreign.push(opening);
            }
        }
        if !strangers.is_empty() {
            let accounts: Vec<String> = strangers.into_iter().cloned().collect();
            let evidence = titled("another account").severity(kind.to_account).fact("accounts", accounts.clone());
            return Ok(Some(self.once(event, &full_name, &accounts.join(","), evidence, &foreign)));
        }

        // What is left is closed, or limited by what does not say whose it is.
        if verdict.places.is_empty() {
            return Ok(None);
        }
        let (places, organizations) = (kind.answers_unsigned, &*self.settings.trusted_organizations);
        for (trust, whom) in [
            (Trust { places, ..Trust::ALL }, "whoever is at a place it names"),
            (Trust { places, organizations }, "another organization"),
        ] {
            let Ok(verdict) = judged(trust) else { return Ok(None) };
            let openings: Vec<&Opening> = verdict.public().collect();
            if !openings.is_empty() && !kind.is_inside_network(request) {
                let from = Vec::from_iter(verdict.places.iter().cloned());
                let to = [whom, &*from.join(",")].join(" ");
                let evidence = titled(whom).severity(kind.to_account).fact("from", from);
                return Ok(Some(self.once(event, &full_name, &to, evidence, &openings)));
            }
        }
        Ok(None)
    }
}

impl ResourcePolicyOpened {
    /// States the openings, and says what would make the same news again: who may do what.
    fn once(&self, event: &Event<'_>, resource: &str, to: &str, evidence: Evidence, openings: &[&Opening]) -> Evidence {
        let actions: BTreeSet<&str> = openings.iter().flat_map(|o| o.actions.iter().map(String::as_str)).collect();
        let actions = Vec::from_iter(actions);
        let key = [&*event.account, &*event.region, &*event.source, resource, to, &actions.join(",")].join("/");
        let evidence = evidence
            .fact("statements", openings.iter().map(|o| o.statement.clone()).collect::<Vec<_>>())
            .fact("actions", actions);
        // What is not named yet, such as a new key, cannot be told from others and is told each time.
        if resource.is_empty() { evidence } else { evidence.once_in(key, self.settings.repeat_s) }
    }
}

/// With its article.
fn named(what: &str) -> String {
    let article = if what.starts_with(['a', 'e', 'i', 'o', 'A']) { "an" } else { "a" };
    format!("{article} {what}")
}

/// The policy the call writes. Topics have other attributes too, and APIs other members; buses, topics, queues and some
/// more are also opened by naming principals.
fn policy<'r>(kind: &Kind, request: &'r Value) -> Option<Cow<'r, Value>> {
    if request["attributeName"].as_str().is_some_and(|name| name != "Policy") {
        return None;
    }
    let written = kind.policy.iter().filter_map(|pointer| request.pointer(pointer)).find(|value| !value.is_null());
    written.or_else(|| patch(kind, request)).map(Cow::Borrowed).or_else(|| {
        let statements = statements(kind, request)?;
        Some(Cow::Owned(json!({ "Statement": statements })))
    })
}

/// The policy among the members of an API that a call exchanges.
fn patch<'r>(kind: &Kind, request: &'r Value) -> Option<&'r Value> {
    if kind.source != "apigateway.amazonaws.com" {
        return None;
    }
    let changes = ["/updateRestApiInput/patchOperations", "/patchOperations"].iter().find_map(|p| request.pointer(p));
    changes?.as_array()?.iter().rev().find(|change| change["path"] == "/policy").map(|change| &change["value"])
}

/// What a call says in its own words that names principals and no policy.
fn statements(kind: &Kind, request: &Value) -> Option<Vec<Value>> {
    if kind.source == "serverlessrepo.amazonaws.com" {
        let statements = request["statements"].as_array()?.iter().map(|statement| {
            let condition = match &statement["principalOrgIDs"] {
                Value::Array(ids) if !ids.is_empty() => json!({"StringEquals": {"aws:PrincipalOrgID": ids}}),
                _ => Value::Null,
            };
            json!({"Sid": statement["statementId"], "Effect": "Allow", "Principal": {"AWS": statement["principals"]},
                "Action": statement["actions"], "Condition": condition})
        });
        return Some(statements.collect());
    }
    let fields: &[&str] = match kind.source {
        "entityresolution.amazonaws.com" | "events.amazonaws.com" | "signer.amazonaws.com" => &["principal"],
        "sns.amazonaws.com" | "sqs.amazonaws.com" => &["aWSAccountId", "aWSAccountIds", "AWSAccountIds"],
        _ => &[],
    };
    let principal = fields.iter().map(|field| &request[field]).find(|named| !named.is_null())?;
    let condition = match &request["condition"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        event_bus => match &event_bus["value"] {
            Value::String(organization) => json!({"StringEquals": {"aws:PrincipalOrgID": organization}}),
            _ => Value::Null,
        },
    };
    let effect = request["effect"].as_str().unwrap_or("Allow");
    Some(vec![json!({"Sid": request["statementId"], "Effect": effect, "Principal": {"AWS": principal},
        "Action": action(request), "Condition": condition})])
}

/// What such a call lets them do; for buses it need not say.
fn action(request: &Value) -> &Value {
    static PUT_EVENTS: LazyLock<Value> = LazyLock::new(|| Value::from("events:PutEvents"));
    let named = ["action", "actionName", "actions"].iter().map(|field| &request[field]).find(|named| !named.is_null());
    named.unwrap_or(&PUT_EVENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_have_the_right_article() {
        let all = ["event bus", "queue", "API"].map(named);
        assert_eq!(all, ["an event bus", "a queue", "an API"]);
    }
}
