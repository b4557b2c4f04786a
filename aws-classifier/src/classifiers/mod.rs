//! The classifiers: one file each, listed here and nowhere else.

pub mod cloudtrail_tampered;
pub mod config_rule_compliant;
pub mod config_rule_noncompliant;
pub mod console_login_failed_repeatedly;
pub mod console_login_impossible_travel;
pub mod console_login_new_device;
pub mod console_login_new_ip;
pub mod console_login_without_mfa;
pub mod ec2_instance_in_open_group;
pub mod ec2_mass_instance_creation;
pub mod ec2_prefix_list_opened_to_world;
pub mod guardduty_finding;
pub mod iam_access_key_created;
pub mod iam_access_key_unusual_origin;
pub mod iam_credential_changed;
pub mod iam_mfa_device_removed;
pub mod iam_policy_admin_granted;
pub mod iam_role_trust_given_to_user;
pub mod pipeline_canary;
pub mod region_unusual;
pub mod resource_policy_opened;
pub mod root_account_used;
pub mod s3_malicious_file;
pub mod s3_public_exposure;
pub mod security_group_accessed_after_opening;
pub mod security_group_closed;
pub mod security_group_left_open;
pub mod security_group_opened_repeatedly;
pub mod security_group_opened_to_world;
pub mod securityhub_finding;
pub mod threat_intel_ip;
pub mod vpc_endpoint_policy_opened;
pub mod web_scanner_detected;

use crate::registry::{Plugin, plugin};

/// Every classifier, in alphabetical order of its id.
pub static ALL: &[Plugin] = &[
    plugin::<cloudtrail_tampered::CloudtrailTampered>(),
    plugin::<config_rule_compliant::ConfigRuleCompliant>(),
    plugin::<config_rule_noncompliant::ConfigRuleNoncompliant>(),
    plugin::<console_login_failed_repeatedly::ConsoleLoginFailedRepeatedly>(),
    plugin::<console_login_impossible_travel::ConsoleLoginImpossibleTravel>(),
    plugin::<console_login_new_device::ConsoleLoginNewDevice>(),
    plugin::<console_login_new_ip::ConsoleLoginNewIp>(),
    plugin::<console_login_without_mfa::ConsoleLoginWithoutMfa>(),
    plugin::<ec2_instance_in_open_group::Ec2InstanceInOpenGroup>(),
    plugin::<ec2_mass_instance_creation::Ec2MassInstanceCreation>(),
    plugin::<ec2_prefix_list_opened_to_world::Ec2PrefixListOpenedToWorld>(),
    plugin::<guardduty_finding::GuarddutyFinding>(),
    plugin::<iam_access_key_created::IamAccessKeyCreated>(),
    plugin::<iam_access_key_unusual_origin::IamAccessKeyUnusualOrigin>(),
    plugin::<iam_credential_changed::IamCredentialChanged>(),
    plugin::<iam_mfa_device_removed::IamMfaDeviceRemoved>(),
    plugin::<iam_policy_admin_granted::IamPolicyAdminGranted>(),
    plugin::<iam_role_trust_given_to_user::IamRoleTrustGivenToUser>(),
    plugin::<pipeline_canary::PipelineCanary>(),
    plugin::<region_unusual::RegionUnusual>(),
    plugin::<resource_policy_opened::ResourcePolicyOpened>(),
    plugin::<root_account_used::RootAccountUsed>(),
    plugin::<s3_malicious_file::S3MaliciousFile>(),
    plugin::<s3_public_exposure::S3PublicExposure>(),
    plugin::<security_group_accessed_after_opening::SecurityGroupAccessedAfterOpening>(),
    plugin::<security_group_closed::SecurityGroupClosed>(),
    plugin::<security_group_left_open::SecurityGroupLeftOpen>(),
    plugin::<security_group_opened_repeatedly::SecurityGroupOpenedRepeatedly>(),
    plugin::<security_group_opened_to_world::SecurityGroupOpenedToWorld>(),
    plugin::<securityhub_finding::SecurityhubFinding>(),
    plugin::<threat_intel_ip::ThreatIntelIp>(),
    plugin::<vpc_endpoint_policy_opened::VpcEndpointPolicyOpened>(),
    plugin::<web_scanner_detected::WebScannerDetected>(),
];
