//! The policy of a network's endpoint lets everything through again.
//!
//! **What it detects.** `ModifyVpcEndpoint` that resets the policy, or puts one in its place that lets everybody make every
//! call of a service to everything, read as AWS reads it: conditions on callers or resources hold something back, and so
//! does a `Deny` that has them. Also a change whose parameters CloudTrail left out of the record, as too large.
//!
//! **Why it matters.** The policy kept credentials and buckets of strangers from being used inside the network: without it
//! a machine that is taken over carries everything to an account of the attacker's.
//!
//! **False positives.** Endpoints that are kept by hand, while somebody looks for a fault. Infrastructure as code with
//! a role (`deployment_tools`) and AWS services are not reported. New endpoints without a policy are not looked at:
//! that is the default.
//!
//! **Response.** Ask who needed it; put the policy back.
//!
//! **References.** <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyVpcEndpoint.html>,
//! <https://attack.mitre.org/techniques/T1537/>

use serde::{Deserialize, Serialize};
use shared::event::Part;
use shared::ports::Files;
use shared::{Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Pattern, SettingsError, Severity};

use crate::deployment_tools::DeploymentTools;
use crate::exposure;

/// The `[classifiers.vpc_endpoint_policy_opened]` section.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Parts of user agents, in lower case, of tools that lay out what is to be, which are not reported with a role. Callers
    /// choose their user agent, so that of a user's key is not believed. Default Terraform, Pulumi, the AWS CDK, Crossplane,
    /// Ansible and the AWS controllers for Kubernetes.
    pub deployment_tools: DeploymentTools,
}

/// See the module.
pub struct VpcEndpointPolicyOpened {
    settings: Settings,
}

impl Classifier for VpcEndpointPolicyOpened {
    const META: Meta = Meta {
        id: "vpc_endpoint_policy_opened",
        title: "Policy of an endpoint lets everything through again",
        severity: Severity::Medium,
        techniques: &["T1562.007", "T1537"],
        patterns: &[Pattern::Api { source: "ec2.amazonaws.com", names: &["ModifyVpcEndpoint"] }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyVpcEndpoint.html",
            "https://attack.mitre.org/techniques/T1562/007/",
            "https://attack.mitre.org/techniques/T1537/",
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
        let request = &event.request()?["ModifyVpcEndpointRequest"];
        if event.is_left_out(Part::Request) {
            return Ok(Some(
                Evidence::about("").titled("Policy of an endpoint may have been changed, the record leaves out how"),
            ));
        }
        let is_reset = request["ResetPolicy"] == true;
        if !is_reset && exposure::holds_nothing_back(&request["PolicyDocument"]) != Ok(true) {
            return Ok(None);
        }
        let endpoint = request["VpcEndpointId"].as_str().unwrap_or_default();
        Ok(Some(Evidence::about(endpoint).fact("is_reset", is_reset)))
    }
}
