//! The list of actions. Explicit and alphabetical; a test compares it with the folder.

pub mod iam_access_key_deactivate;
pub mod security_group_rule_revoke;

use iam_access_key_deactivate::IamAccessKeyDeactivate;
use security_group_rule_revoke::SecurityGroupRuleRevoke;

use crate::registry::Registered;

/// Every action, by id.
pub const REGISTRY: &[Registered] =
    &[Registered::of::<IamAccessKeyDeactivate>(), Registered::of::<SecurityGroupRuleRevoke>()];

/// Whether this is an account number; anything else is never put into a call.
fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether this is a region's name; it becomes part of a host name, so anything else is never put into a call.
fn is_region(text: &str) -> bool {
    (4..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_registered_once_and_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/actions");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| {
                entry.unwrap().file_name().into_string().unwrap().strip_suffix(".rs").map(str::to_owned)
            })
            .filter(|stem| stem != "mod")
            .collect();
        let ids: Vec<&str> = REGISTRY.iter().map(|action| action.meta.id).collect();
        assert_eq!(ids, files.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn what_becomes_a_host_name_is_a_region() {
        for (text, good) in [
            ("eu-central-1", true),
            ("us-gov-west-1", true),
            ("", false),
            ("evil.example", false),
            ("us-east-1/", false),
            ("us-east-1@evil", false),
            ("-us", false),
            ("US-EAST-1", false),
        ] {
            assert_eq!(is_region(text), good, "{text}");
        }
    }

    #[test]
    fn every_action_declares_itself() {
        for Registered { meta, defaults, build, .. } in REGISTRY {
            assert!(!meta.title.is_empty() && !meta.title.ends_with('.'), "{}", meta.id);
            assert!(!meta.permissions.is_empty(), "{} needs permissions", meta.id);
            for permission in meta.permissions {
                assert!(permission.action.contains(':'), "{}: {}", meta.id, permission.action);
                let narrow = permission.resource == "*" || permission.resource.contains(":${AWS::AccountId}:");
                assert!(narrow, "{}: {} in other accounts", meta.id, permission.action);
                assert!(!permission.why.is_empty(), "{}: {}", meta.id, permission.action);
            }
            assert_eq!(build(&defaults().own).unwrap().meta().id, meta.id);
        }
    }
}
