//! Revokes the world-open part of a security group's ingress rules.
//!
//! *What it does.* EC2 revokes whole rules only, and a rule is named by its exact protocol, ports and source. So the plan
//! revokes each rule that holds an offending part and, when the rule is wider than that part, authorizes the rest of its
//! ports again (`remainder_kept`, default on: exactly the offending part goes). Each source of a permission is a rule of
//! its own, so other sources stay.
//!
//! *What it reads.* The facts `group_id`, `world_rules`, a list of `{protocol, from_port, to_port, cidr}`, and `ports`, the
//! offending ports. A rule's offending part is those of `ports` that it holds; without `ports` it is the whole rule. Where
//! an entry has `rule: {from_port, to_port}`, that is the whole rule and the entry the offending part. Ports that are
//! absent, null or −1 mean all. Rules of all protocols (`-1`) or of protocols without ports are revoked whole: what is left
//! of "everything" without one port cannot be written as a rule.
//!
//! *What it leaves alone.* Sources narrower than `/7`, which no part of the world-open whole needs to be. A finding with an
//! unreadable rule gets no plan at all. Tracked connections live on (AWS: a rule change does not cut them).
//!
//! A finding keeps no more than 20 rules. When it lists as many, the rest is taken from the group: every rule there, no
//! narrower than `/7`, that opens what the listed ones open. More than 200 such rules are left to people.
//!
//! *Before it acts.* It reads the group's rules. Only rules that still exist are revoked, and what is authorized again
//! carries their descriptions. A rule that exists already is not authorized, and not revoked on undo. When other rules,
//! which the finding does not name, keep an offending port open to the world, the response has failed, and says so.
//!
//! *Undo.* Authorizes exactly what was revoked, descriptions too, then revokes what had been added again. The rules come
//! back under new ids and without tags; the journal keeps both.
//!
//! *References.* <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_SecurityGroupRule.html>

mod offence;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{Action, ActionMeta, ApiCall, Finding, NotApplicable, Permission, Plan, SettingsError, Settled};

use self::offence::{may_lack_rules, offending_ports, offending_rules, remainders, rest_of, still_open};
use self::rule::Rule;
use super::{is_account, is_region};

/// Rules beyond this many are not revoked in one go, and no more remainders authorized: our choice, three times what a group
/// takes by default, and five remainders each, so that the journal entry with its undo stays below its 400 KB.
const RULES_MAX: usize = 200;
const REMAINDERS_MAX: usize = 5 * RULES_MAX;

/// A before-image longer than this goes without tags, which may be 20 KB a rule: a journal entry has room for 400 KB.
const BEFORE_BYTES_MAX: usize = 64_000;

/// The plug-in.
#[derive(Clone, Copy, Debug)]
pub struct SecurityGroupRuleRevoke {
    remainder_kept: bool,
}

/// `[actions.security_group_rule_revoke]`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether the ports of a revoked rule that were no offence are authorized again for the same source. Default `true`;
    /// `false` closes the whole rule to the world.
    pub remainder_kept: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { remainder_kept: true }
    }
}

impl Action for SecurityGroupRuleRevoke {
    const META: ActionMeta = ActionMeta {
        id: "security_group_rule_revoke",
        title: "World-open security group rule revoked",
        permissions: &[
            Permission {
                action: "ec2:DescribeSecurityGroupRules",
                resource: "*",
                why: "reads the live rules first; the call supports no resource-level permissions",
            },
            Permission {
                action: "ec2:RevokeSecurityGroupIngress",
                resource: "arn:${AWS::Partition}:ec2:*:${AWS::AccountId}:security-group/*",
                why: "closes the rule; which group it will be, and in which region, is not known beforehand",
            },
            Permission {
                action: "ec2:AuthorizeSecurityGroupIngress",
                resource: "arn:${AWS::Partition}:ec2:*:${AWS::AccountId}:security-group/*",
                why: "puts back the harmless ports of a split rule, and the rule itself on undo",
            },
        ],
        reversible: true,
    };
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, SettingsError> {
        Ok(Self { remainder_kept: settings.remainder_kept })
    }

    fn plan(&self, finding: &Finding) -> Result<Vec<(String, Plan)>, NotApplicable> {
        if !finding.evidence.contains_key("group_id") {
            return Ok(Vec::new());
        }
        let group = group_of(finding)?;
        let rules = offending_rules(finding)?;
        let kept = if self.remainder_kept { remainders(&rules, rules.keys()) } else { BTreeMap::new() };
        let plain = |rules: Vec<&Rule>| -> Vec<Value> { rules.into_iter().map(|rule| rule.permission(None)).collect() };
        let (revoked, kept) = (plain(rules.keys().collect()), plain(kept.keys().collect()));
        let plan = Plan {
            reads: vec![group.call("DescribeSecurityGroupRules", group.filter())],
            calls: vec![group.change(REVOKE, &revoked), group.change(AUTHORIZE, &kept)],
            undo: vec![group.change(AUTHORIZE, &revoked), group.change(REVOKE, &kept)],
        };
        Ok(vec![(group.id.to_owned(), without_empty(plan))])
    }

    fn settle(&self, finding: &Finding, plan: &Plan, seen: &[Value]) -> Result<Settled, NotApplicable> {
        let group = group_of(finding)?;
        let mut rules = offending_rules(finding)?;
        let live = live_rules(seen)?;
        if may_lack_rules(finding) {
            let rest = rest_of(&rules, offending_ports(finding).as_deref(), &live);
            rules.extend(rest);
        }
        bounded(rules.len(), RULES_MAX, "rules open the group")?;
        let there: Vec<&Rule> = rules.keys().filter(|rule| live.contains_key(rule)).collect();
        let mut kept = if self.remainder_kept { remainders(&rules, there.iter().copied()) } else { BTreeMap::new() };
        kept.retain(|rest, _| !live.contains_key(rest));
        bounded(kept.len(), REMAINDERS_MAX, "harmless remainders would have to be kept")?;
        let described = |rule: &Rule| live.get(rule).and_then(|live| live["Description"].as_str());
        let back: Vec<Value> = there.iter().map(|rule| rule.permission(described(rule))).collect();
        let gone: Vec<Value> = there.iter().map(|rule| rule.permission(None)).collect();
        let added: Vec<Value> = kept.iter().map(|(rest, whole)| rest.permission(described(whole))).collect();
        let taken: Vec<Value> = kept.keys().map(|rest| rest.permission(None)).collect();
        let settled = Plan {
            reads: plan.reads.clone(),
            calls: vec![group.change(REVOKE, &gone), group.change(AUTHORIZE, &added)],
            undo: vec![group.change(AUTHORIZE, &back), group.change(REVOKE, &taken)],
        };
        let missing = rules.len() - there.len();
        Ok(Settled {
            plan: without_empty(settled),
            before: before_image(there.iter().filter_map(|rule| live.get(rule).copied()).collect()),
            note: match (missing, there.is_empty()) {
                (0, _) => String::new(),
                (_, true) => "none of the rules is in the group any more".to_owned(),
                (n, false) => format!("{n} of the rules not in the group any more"),
            },
            remains: still_open(&rules, offending_ports(finding).as_deref(), &live),
            is_absent: there.is_empty(),
        })
    }

    fn left(&self, call: &ApiCall, seen: &[Value]) -> Result<Option<ApiCall>, NotApplicable> {
        let live = live_rules(seen)?;
        let unreadable = || NotApplicable("the call is not one that this action plans".to_owned());
        let wants_rule = match call.operation.as_str() {
            REVOKE => false,
            AUTHORIZE => true,
            _ => return Err(unreadable()),
        };
        let permissions = call.parameters["IpPermissions"].as_array().ok_or_else(unreadable)?;
        let mut left = Vec::new();
        for permission in permissions {
            let rule = Rule::of_permission(permission).ok_or_else(unreadable)?;
            if live.contains_key(&rule) != wants_rule {
                left.push(permission.clone());
            }
        }
        if left.is_empty() {
            return Ok(None);
        }
        let mut call = call.clone();
        call.parameters["IpPermissions"] = Value::Array(left);
        Ok(Some(call))
    }

    fn undo_of(&self, undo: &ApiCall, made: &ApiCall) -> ApiCall {
        let made = made.parameters["IpPermissions"].as_array();
        let made: Vec<Rule> = made.into_iter().flatten().filter_map(Rule::of_permission).collect();
        let mut undo = undo.clone();
        if let Some(permissions) = undo.parameters["IpPermissions"].as_array_mut() {
            permissions.retain(|permission| Rule::of_permission(permission).is_some_and(|rule| made.contains(&rule)));
        }
        undo
    }
}

const REVOKE: &str = "RevokeSecurityGroupIngress";
const AUTHORIZE: &str = "AuthorizeSecurityGroupIngress";

/// The group of a finding, and where it is.
struct Group<'f> {
    id: &'f str,
    account: &'f str,
    region: &'f str,
}

fn group_of(finding: &Finding) -> Result<Group<'_>, NotApplicable> {
    let id = finding.evidence.get("group_id").and_then(Value::as_str).unwrap_or_default();
    if !is_group_id(id) {
        return Err(NotApplicable("the finding names no security group".to_owned()));
    }
    if !is_account(&finding.account) || !is_region(&finding.region) {
        return Err(NotApplicable("the finding does not say which account and region".to_owned()));
    }
    Ok(Group { id, account: &finding.account, region: &finding.region })
}

impl Group<'_> {
    fn call(&self, operation: &str, parameters: Value) -> ApiCall {
        ApiCall {
            service: "ec2".to_owned(),
            operation: operation.to_owned(),
            account: self.account.to_owned(),
            region: self.region.to_owned(),
            parameters,
        }
    }

    fn filter(&self) -> Value {
        json!({"Filters": [{"Name": "group-id", "Values": [self.id]}]})
    }

    fn change(&self, operation: &str, permissions: &[Value]) -> ApiCall {
        self.call(operation, json!({"GroupId": self.id, "IpPermissions": permissions}))
    }
}

/// Without the calls that would change nothing, each with its undo.
fn without_empty(plan: Plan) -> Plan {
    let changes = |call: &ApiCall| call.parameters["IpPermissions"].as_array().is_some_and(|list| !list.is_empty());
    let (calls, undo) = plan.calls.into_iter().zip(plan.undo).filter(|(call, _)| changes(call)).unzip();
    Plan { reads: plan.reads, calls, undo }
}

/// The group's ingress rules by what makes them equal, each as EC2 describes it. Rules whose source is a group or a prefix
/// list are none of this action's. A group that does not exist has no rules.
fn live_rules(seen: &[Value]) -> Result<BTreeMap<Rule, &Value>, NotApplicable> {
    let [answer] = seen else { return Err(NotApplicable("the group was not read".to_owned())) };
    if answer.is_null() {
        return Ok(BTreeMap::new());
    }
    let rules = answer["SecurityGroupRules"].as_array();
    let rules = rules.ok_or_else(|| NotApplicable("the answer lists no rules".to_owned()))?;
    let ingress = rules.iter().filter(|rule| rule["IsEgress"] == false);
    Ok(ingress.filter_map(|rule| Some((Rule::of_live(rule)?, rule))).collect())
}

/// The rules as they were, without tags when those would make it too long.
fn before_image(rules: Vec<&Value>) -> Vec<Value> {
    let mut image: Vec<Value> = rules.into_iter().cloned().collect();
    if image.iter().map(|rule| rule.to_string().len()).sum::<usize>() > BEFORE_BYTES_MAX {
        for rule in image.iter_mut().filter_map(Value::as_object_mut) {
            rule.remove("Tags");
        }
    }
    image
}

fn bounded(many: usize, max: usize, what: &str) -> Result<(), NotApplicable> {
    if many <= max { Ok(()) } else { Err(NotApplicable(format!("{many} {what}, more than {max}; look at the group"))) }
}

/// `sg-` and 8 or 17 hexadecimal digits; longer ones are let through for tomorrow.
fn is_group_id(id: &str) -> bool {
    id.strip_prefix("sg-")
        .is_some_and(|hex| (8..=32).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}
