//! Managed prefix list opened to the world.
//!
//! **What it detects.** A customer-managed prefix list is made with, or is given, entries that are the world: any `/0`
//! range, or ranges that together hold half or more of the addresses anyone can have. Entries so many that CloudTrail leaves
//! them out of the record are medium.
//!
//! **Why it matters.** A security group rule names a prefix list by its id and changes with it: with the world in the
//! list, every group that names it is open, and no call about a group says so.
//!
//! **False positives.** Lists for routes, in which `0.0.0.0/0` means everywhere. *Not judged:* which rules name the list
//! (`security_group_opened_to_world` does not know what a prefix list holds, so this finding is the only one), and parts
//! of the world that are added by separate calls.
//!
//! **Response.** None: look which security groups name the list (`get-managed-prefix-list-associations`) and take
//! the entries out.
//!
//! **References.** <https://docs.aws.amazon.com/vpc/latest/userguide/managed-prefix-lists.html>,
//! <https://attack.mitre.org/techniques/T1562/007/>

use serde::{Deserialize, Serialize};
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::{Event, Part};
use shared::finding::Severity;
use shared::observation::Known;
use shared::ports::Files;

use crate::ingress::{self, Rule};

/// `[classifiers.ec2_prefix_list_opened_to_world]` has nothing to set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {}

/// See the module.
pub struct Ec2PrefixListOpenedToWorld;

impl Classifier for Ec2PrefixListOpenedToWorld {
    const META: Meta = Meta {
        id: "ec2_prefix_list_opened_to_world",
        title: "Managed prefix list opened to the world",
        severity: Severity::High,
        techniques: &["T1562.007", "T1133"],
        patterns: &[Pattern::Api {
            source: "ec2.amazonaws.com",
            names: &["CreateManagedPrefixList", "ModifyManagedPrefixList"],
        }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://docs.aws.amazon.com/vpc/latest/userguide/managed-prefix-lists.html",
            "https://attack.mitre.org/techniques/T1562/007/",
        ],
    };
    type Settings = Settings;

    fn new(_settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        Ok(Self)
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        if event.is_left_out(Part::Request) {
            let evidence = Evidence::about("").titled("Managed prefix list was changed, and the record leaves out how");
            return Ok(Some(evidence.severity(Severity::Medium)));
        }
        let entries = ingress::prefix_list_entries(event)?;
        // An entry has no ports, so any port asks for all of them.
        let world: Vec<&Rule> = ingress::world_rules_on(&entries, 0);
        if world.is_empty() {
            return Ok(None);
        }
        let (request, response) = (event.request()?, event.response()?);
        let ids = [
            &request["ModifyManagedPrefixListRequest"]["PrefixListId"],
            &response["CreateManagedPrefixListResponse"]["prefixList"]["prefixListId"],
            &request["CreateManagedPrefixListRequest"]["PrefixListName"],
        ];
        let list = ids.into_iter().find_map(|id| id.as_str().filter(|id| !id.is_empty())).unwrap_or_default();
        let shown: String = list.chars().take(32).collect();
        Ok(Some(
            Evidence::about(list)
                .titled(format!("Managed prefix list {shown} opened to the world"))
                .fact("cidrs", world.iter().map(|rule| &*rule.cidr).collect::<Vec<_>>()),
        ))
    }
}
