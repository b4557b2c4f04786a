//! Tools that lay out what is to be, as several plug-ins know them: by parts of the user agents they send.
//!
//! Callers choose their user agent, so a plug-in believes it of roles only, or for what matters little. The setting of
//! each is called `deployment_tools`.

use serde::{Deserialize, Serialize};
use shared::SettingsError;
use shared::event::{Event, PrincipalKind};

/// Parts of user agents, in any case of letters. Default Terraform, Pulumi, the AWS CDK, Crossplane, Ansible and the AWS
/// controllers for Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentTools(Vec<String>);

impl Default for DeploymentTools {
    fn default() -> Self {
        let known = ["terraform", "pulumi", "aws-cdk", "crossplane", "ansible", "aws-controllers-k8s"];
        Self(known.map(str::to_owned).to_vec())
    }
}

impl DeploymentTools {
    /// Refuses entries that are part of every user agent.
    ///
    /// # Errors
    /// When an entry is empty.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.0.iter().any(|tool| tool.trim().is_empty()) {
            return Err(SettingsError::new("deployment_tools", "an empty entry would match every user agent"));
        }
        Ok(())
    }

    /// Whether the caller says that it is one of them.
    pub fn call(&self, event: &Event<'_>) -> bool {
        let agent = event.user_agent.to_ascii_lowercase();
        self.0.iter().any(|tool| agent.contains(&tool.to_ascii_lowercase()))
    }

    /// As [`DeploymentTools::call`], with a role: whoever holds a key of a user may call himself a tool.
    pub fn call_with_role(&self, event: &Event<'_>) -> bool {
        let is_role = matches!(event.identity().principal_kind(), PrincipalKind::RoleSession | PrincipalKind::SsoUser);
        is_role && self.call(event)
    }
}
