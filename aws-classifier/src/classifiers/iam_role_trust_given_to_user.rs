//! A role that exists may be assumed by a named user.
//!
//! **What it detects.** `UpdateAssumeRolePolicy` after which the trust of a role names a user, by ARN or by unique id, in a
//! statement that allows.
//!
//! **Why it matters.** Roles are trusted to services and to other roles; a user in the trust of a strong role is a way to
//! stay that no key or password shows.
//!
//! **False positives.** Users of a build system that take on roles; allow who maintains them. Infrastructure as code
//! with a role (`deployment_tools`) and AWS services are not reported. Users of other accounts are
//! `resource_policy_opened`'s too, and so is trust that CloudTrail left out of the record.
//!
//! **Response.** Ask who the user is; put the trust back.
//!
//! **References.** <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAssumeRolePolicy.html>,
//! <https://attack.mitre.org/techniques/T1098/003/>

use serde::{Deserialize, Serialize};
use shared::ports::Files;
use shared::{Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Pattern, SettingsError, Severity};

use crate::deployment_tools::DeploymentTools;
use crate::exposure;

/// The `[classifiers.iam_role_trust_given_to_user]` section.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Parts of user agents, in lower case, of tools that lay out what is to be, which are not reported with a role. Callers
    /// choose their user agent, so that of a user's key is not believed. Default Terraform, Pulumi, the AWS CDK, Crossplane,
    /// Ansible and the AWS controllers for Kubernetes.
    pub deployment_tools: DeploymentTools,
}

/// See the module.
pub struct IamRoleTrustGivenToUser {
    settings: Settings,
}

impl Classifier for IamRoleTrustGivenToUser {
    const META: Meta = Meta {
        id: "iam_role_trust_given_to_user",
        title: "Role that exists may be assumed by a named user",
        severity: Severity::Medium,
        techniques: &["T1098.003", "T1098"],
        patterns: &[Pattern::Api { source: "iam.amazonaws.com", names: &["UpdateAssumeRolePolicy"] }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAssumeRolePolicy.html",
            "https://attack.mitre.org/techniques/T1098/003/",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        settings.deployment_tools.check()?;
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        !event.is_by_aws_service() && !self.settings.deployment_tools.call_with_role(event)
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let request = event.request()?;
        let Ok(users) = exposure::named_users(&request["policyDocument"]) else { return Ok(None) };
        if users.is_empty() {
            return Ok(None);
        }
        let role = request["roleName"].as_str().unwrap_or_default();
        Ok(Some(Evidence::about(role).fact("users", Vec::from_iter(users))))
    }
}
