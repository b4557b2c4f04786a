//! A policy was written that gives whoever holds it administrator rights, or a way to them.
//!
//! **What it detects.** Policies of identities, read statement by statement as IAM reads them: inline policies of users,
//! groups and roles, managed policies and their versions, inline policies of permission sets. High is what gives nearly
//! every right or all of IAM on everything, also when it lists what it leaves out, or is spread over statements. Medium
//! is what gives a single way to more rights on all users, groups, roles or policies, or on its own holder: writing and
//! attaching policies, trust, passing and assuming any role, keys and passwords of others, joining groups, lifting
//! boundaries, assigning permission sets; and all of IAM on whatever. A role that may only be passed to some services
//! counts when work may be started in one of them. A version that is not made the default is one level lower. Parameters
//! that CloudTrail left out of the record, as too large, are medium: white space does not count for IAM's limits.
//!
//! **Why it matters.** With the right to write one policy, this is the shortest way to full rights; inline policies
//! escape reviews of attached ones.
//!
//! **False positives.** Administrators and deployment roles that are set up by hand; copies of `PowerUserAccess`. What
//! AWS services do, CloudFormation for somebody among them, is not reported, and of infrastructure as code with a role
//! (`deployment_tools`) only administrator rights are. The same ways are told once for a caller until `repeat_s` of
//! quiet, administrator rights once for what they are given to. Failed calls give nothing and are not reported.
//! Conditions are facts: only those about tags, boundaries, attached policies and services that a role is passed to
//! make a policy narrow. *Not judged:* what is attached beside it; AWS's own policies, for which there are rules;
//! policies of sessions, boundaries and organizations, which only take away.
//!
//! **Response.** Ask who it is for. Take the policy, or its version, away.
//!
//! **References.** <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html>,
//! <https://attack.mitre.org/techniques/T1098/003/>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::event::Part;
use shared::ports::Files;
use shared::{Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Pattern, SettingsError, Severity};

use crate::deployment_tools::DeploymentTools;
use crate::exposure::{self, Holder, Powers};

/// The `[classifiers.iam_policy_admin_granted]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Parts of user agents, in lower case, of tools that lay out what is to be; single ways to more rights that are written
    /// by them with a role are not reported. Callers choose their user agent, so that of a user's key is not believed.
    /// Default Terraform, Pulumi, the AWS CDK, Crossplane, Ansible and the AWS controllers for Kubernetes.
    pub deployment_tools: DeploymentTools,
    /// Seconds without the same news after which it is reported again: 1 to 7,776,000. Default 86,400, a day: our choice, so
    /// that a script that writes twenty policies is one piece of news.
    pub repeat_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deployment_tools: DeploymentTools::default(), repeat_s: 86_400 }
    }
}

/// See the module.
pub struct IamPolicyAdminGranted {
    settings: Settings,
}

impl Classifier for IamPolicyAdminGranted {
    const META: Meta = Meta {
        id: "iam_policy_admin_granted",
        title: "Policy gives administrator rights or a way to them",
        severity: Severity::High,
        techniques: &["T1098.003", "T1098"],
        patterns: &[
            Pattern::Api {
                source: "iam.amazonaws.com",
                names: &["CreatePolicy", "CreatePolicyVersion", "PutGroupPolicy", "PutRolePolicy", "PutUserPolicy"],
            },
            Pattern::Api { source: "sso.amazonaws.com", names: &["PutInlinePolicyToPermissionSet"] },
        ],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html",
            "https://attack.mitre.org/techniques/T1098/003/",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        settings.deployment_tools.check()?;
        if !(1..=7_776_000).contains(&settings.repeat_s) {
            return Err(SettingsError::new("repeat_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        !event.is_by_aws_service()
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let request = event.request()?;
        if event.is_left_out(Part::Request) {
            let titled = Evidence::about("").titled("Policy was written, the record leaves out how");
            return Ok(Some(titled.severity(Severity::Medium)));
        }
        let given = given(event, request);
        let holder = Holder { account: &event.account, region: &event.region, name: &given.name };
        let Ok(powers) = exposure::powers(given.policy, holder) else { return Ok(None) };
        let what = [if given.in_force { "in force" } else { "waits" }, &*powers.actions.join(",")].join("/");
        if powers.administrator {
            let key = [&*event.account, &*event.name, given.to, &what].join("/");
            let evidence = stated(&given, powers).titled("Policy gives administrator rights");
            return Ok(Some(graded(evidence, Severity::High, &given).once_in(key, self.settings.repeat_s)));
        }
        if powers.actions.is_empty() || self.settings.deployment_tools.call_with_role(event) {
            return Ok(None);
        }
        let key = [&*event.account, &*event.identity().habit_key(), &what].join("/");
        let evidence = stated(&given, powers).titled("Policy gives a way to administrator rights");
        Ok(Some(graded(evidence, Severity::Medium, &given).once_in(key, self.settings.repeat_s)))
    }
}

/// A policy and what gets it.
struct Given<'r> {
    policy: &'r Value,
    /// A name or an ARN; empty when the record has none.
    to: &'r str,
    /// As IAM names it below the account: `user/bob`; empty for permission sets.
    name: String,
    /// No for a version that waits to be made the default.
    in_force: bool,
}

fn given<'r>(event: &Event<'_>, request: &'r Value) -> Given<'r> {
    let text = |field: &str| request[field].as_str().unwrap_or_default();
    let inline = |kind: &str, to: &'r str| Given {
        policy: &request["policyDocument"],
        to,
        name: if to.is_empty() { String::new() } else { [kind, to].concat() },
        in_force: true,
    };
    match event.name.to_ascii_lowercase().as_str() {
        "putuserpolicy" => inline("user/", text("userName")),
        "putrolepolicy" => inline("role/", text("roleName")),
        "putgrouppolicy" => inline("group/", text("groupName")),
        "createpolicy" => inline("policy/", text("policyName")),
        "createpolicyversion" => {
            let arn = text("policyArn");
            let name = arn.split_once(":policy/").map_or("", |(_, name)| name);
            Given { to: arn, in_force: request["setAsDefault"] == true, ..inline("policy/", name) }
        }
        _ => Given { policy: &request["inlinePolicy"], ..inline("", text("permissionSetArn")) },
    }
}

fn stated(given: &Given<'_>, powers: Powers) -> Evidence {
    let evidence = Evidence::about(given.to)
        .fact("actions", powers.actions)
        .fact("resources", Vec::from_iter(powers.resources))
        .fact("statements", Vec::from_iter(powers.statements))
        .fact("in_force", given.in_force);
    if powers.conditions.is_empty() {
        return evidence;
    }
    evidence.fact("conditions", Vec::from_iter(powers.conditions))
}

fn graded(evidence: Evidence, severity: Severity, given: &Given<'_>) -> Evidence {
    evidence.severity(if given.in_force { severity } else { severity.lowered() })
}
