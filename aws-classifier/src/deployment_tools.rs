//! Tools that lay out what is to be, as several plug-ins know them: by parts of the user agents they send.
//!
//! Callers choose their user agent, so a plug-in believes it of roles only, or for what matters little. The setting of
//! each is called `deployment_tools`.

use shared::SettingsError;
use shared::event::{Event, PrincipalKind};

/// Terraform, Pulumi, the AWS CDK, Crossplane, Ansible and the AWS controllers for Kubernetes.
pub fn known() -> Vec<String> {
    ["terraform", "pulumi", "aws-cdk", "crossplane", "ansible", "aws-controllers-k8s"].map(str::to_owned).to_vec()
}

/// Refuses entries that are part of every user agent.
///
/// # Errors
/// When an entry is empty.
pub fn check(tools: &[String]) -> Result<(), SettingsError> {
    if tools.iter().any(|tool| tool.trim().is_empty()) {
        return Err(SettingsError::new("deployment_tools", "an empty entry would match every user agent"));
    }
    Ok(())
}

/// Whether the caller says that it is one of `tools`, in any case of letters.
pub fn called(tools: &[String], event: &Event<'_>) -> bool {
    let agent = event.user_agent.to_ascii_lowercase();
    tools.iter().any(|tool| agent.contains(&tool.to_ascii_lowercase()))
}

/// As [`called`], with a role: whoever holds a key of a user may call himself a tool.
pub fn called_with_role(tools: &[String], event: &Event<'_>) -> bool {
    let is_role = matches!(event.identity().principal_kind(), PrincipalKind::RoleSession | PrincipalKind::SsoUser);
    is_role && called(tools, event)
}
