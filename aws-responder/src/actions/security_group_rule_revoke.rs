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

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::{Action, ActionMeta, ApiCall, Finding, NotApplicable, Permission, Plan, SettingsError, Settled};

use super::{is_account, is_region};

/// Ranges up to this length count as a part of the world: two `/1` open as much as one `/0`. Our choice, the classifier's
/// too: nobody owns more than a `/8`.
const WORLD_PREFIX_LEN_MAX: u8 = 7;

/// The classifiers' engine cuts longer lists, so a list this long may lack something; of rules, the group knows the rest.
const FACT_ITEMS_MAX: usize = 20;

/// Rules beyond this many are not revoked in one go, and no more remainders authorized: our choice, three times what a group
/// takes by default, and five remainders each, so that the journal entry with its undo stays below its 400 KB.
const RULES_MAX: usize = 200;
const REMAINDERS_MAX: usize = 5 * RULES_MAX;

const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;

/// A before-image longer than this goes without tags, which may be 20 KB a rule: a journal entry has room for 400 KB.
const BEFORE_BYTES_MAX: usize = 64_000;

/// Rules that stay open and are named; more are counted.
const NAMED_MAX: usize = 3;

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

/// Which other rules keep an offending port open to the world, in words; empty when none does.
fn still_open(rules: &Offending, ports: Option<&[u16]>, live: &BTreeMap<Rule, &Value>) -> String {
    let rest = rest_of(rules, ports, live);
    let open: Vec<&Rule> = rest.keys().collect();
    if open.is_empty() {
        return String::new();
    }
    let named: Vec<String> = open.iter().take(NAMED_MAX).map(|rule| rule.words()).collect();
    let more = if open.len() > NAMED_MAX { format!(" and {} more", open.len() - NAMED_MAX) } else { String::new() };
    format!("other rules of the group still open it to the world: {}{more}", named.join(", "))
}

/// One ingress rule as EC2 keeps it: protocol, ports and one source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    protocol: String,
    ports: Ports,
    source: Source,
}

/// An address range as EC2 stores it: without the bits behind the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    address: IpAddr,
    len: u8,
}

impl Source {
    fn parse(cidr: &str) -> Option<Self> {
        let (address, len) = cidr.split_once('/')?;
        let len: u8 = len.parse().ok()?;
        let address = match address.parse().ok()? {
            IpAddr::V4(v4) if len <= 32 => {
                IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)).into())
            }
            IpAddr::V6(v6) if len <= 128 => {
                IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)).into())
            }
            _ => return None,
        };
        Some(Self { address, len })
    }

    fn cidr(self) -> String {
        format!("{}/{}", self.address, self.len)
    }
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ports {
    /// The protocol has none, or all protocols are meant.
    None,
    /// TCP and UDP.
    Range(u16, u16),
    /// ICMP type and code, kept as they are.
    Icmp(i64, i64),
}

impl Rule {
    /// The rule of an `IpPermission` as [`Rule::permission`] writes it: with one source.
    fn of_permission(permission: &Value) -> Option<Self> {
        let range = |list: &str, name: &str| match &permission[list] {
            Value::Null => Some(None),
            Value::Array(ranges) if ranges.len() == 1 => ranges[0][name].as_str().map(Some),
            _ => None,
        };
        let cidr = match (range("IpRanges", "CidrIp")?, range("Ipv6Ranges", "CidrIpv6")?) {
            (Some(cidr), None) | (None, Some(cidr)) => cidr,
            _ => return None,
        };
        Self::of(permission, cidr)
    }

    /// A `SecurityGroupRule` of `DescribeSecurityGroupRules` whose source is an address range.
    fn of_live(rule: &Value) -> Option<Self> {
        let cidr = rule["CidrIpv4"].as_str().or_else(|| rule["CidrIpv6"].as_str())?;
        Self::of(rule, cidr)
    }

    /// From `IpProtocol`, `FromPort` and `ToPort`.
    fn of(part: &Value, cidr: &str) -> Option<Self> {
        let source = Source::parse(cidr)?;
        let protocol = protocol(Some(&part["IpProtocol"])).ok()?;
        let (from, to) = (part["FromPort"].as_i64(), part["ToPort"].as_i64());
        let ports = match protocol.as_str() {
            "tcp" | "udp" => {
                let range = ports(from, to).ok()?;
                Ports::Range(*range.start(), *range.end())
            }
            "icmp" | "icmpv6" => Ports::Icmp(from.unwrap_or(-1), to.unwrap_or(-1)),
            _ => Ports::None,
        };
        Some(Self { protocol, ports, source })
    }

    /// Whether this rule lets in what offends in `rule`: its `parts`, or `ports` where the protocol is all of them. ICMP and
    /// protocols without ports are not compared.
    fn opens_part_of(&self, rule: &Self, parts: &[RangeInclusive<u16>], ports: Option<&[u16]>) -> bool {
        let listed: Vec<RangeInclusive<u16>>;
        let parts = match (&rule.ports, ports) {
            (Ports::Range(..), _) => parts,
            (Ports::None, Some(ports)) if rule.protocol == "-1" => {
                listed = ports.iter().map(|&port| port..=port).collect();
                &listed
            }
            _ => return false,
        };
        match self.ports {
            Ports::Range(from, to) => {
                (self.protocol == rule.protocol || rule.protocol == "-1")
                    && parts.iter().any(|part| from <= *part.end() && *part.start() <= to)
            }
            Ports::None => self.protocol == "-1",
            Ports::Icmp(..) => false,
        }
    }

    /// Such as `tcp 22-22 from 0.0.0.0/0`.
    fn words(&self) -> String {
        let ports = match self.ports {
            Ports::Range(from, to) => format!(" {from}-{to}"),
            Ports::None | Ports::Icmp(..) => String::new(),
        };
        let protocol = if self.protocol == "-1" { "everything" } else { &self.protocol };
        format!("{protocol}{ports} from {}", self.source.cidr())
    }

    /// An `IpPermission` with this rule's one source.
    fn permission(&self, description: Option<&str>) -> Value {
        let mut permission = Map::new();
        permission.insert("IpProtocol".to_owned(), json!(self.protocol));
        match self.ports {
            Ports::None => {}
            Ports::Range(from, to) => {
                permission.insert("FromPort".to_owned(), json!(from));
                permission.insert("ToPort".to_owned(), json!(to));
            }
            Ports::Icmp(kind, code) => {
                permission.insert("FromPort".to_owned(), json!(kind));
                permission.insert("ToPort".to_owned(), json!(code));
            }
        }
        let cidr = self.source.cidr();
        let (name, mut source) = match self.source.address {
            IpAddr::V4(_) => ("IpRanges", json!({"CidrIp": cidr})),
            IpAddr::V6(_) => ("Ipv6Ranges", json!({"CidrIpv6": cidr})),
        };
        if let Some(description) = description.filter(|text| !text.is_empty()) {
            source["Description"] = json!(description);
        }
        permission.insert(name.to_owned(), json!([source]));
        Value::Object(permission)
    }

    /// What is left of the rule without `parts`.
    fn without(&self, parts: &[RangeInclusive<u16>]) -> Vec<Self> {
        let Ports::Range(from, to) = self.ports else { return Vec::new() };
        without(from..=to, parts)
            .into_iter()
            .map(|rest| Self { ports: Ports::Range(*rest.start(), *rest.end()), ..self.clone() })
            .collect()
    }
}

/// Rules to revoke, each with its offending parts.
type Offending = BTreeMap<Rule, Vec<RangeInclusive<u16>>>;

/// The rules that the finding names. One unreadable rule makes the whole finding unusable: a plan that
/// closes half of what is open would look like a success.
fn offending_rules(finding: &Finding) -> Result<Offending, NotApplicable> {
    let Some(entries) = finding.evidence.get("world_rules").and_then(Value::as_array).filter(|list| !list.is_empty())
    else {
        return Err(NotApplicable("the finding names no world-open rule".to_owned()));
    };
    let ports = offending_ports(finding);
    let mut rules = Offending::new();
    for (i, entry) in entries.iter().enumerate() {
        let (rule, parts) = offending_rule(entry, ports.as_deref())
            .map_err(|why| NotApplicable(format!("world-open rule {} {why}", i + 1)))?;
        if rule.source.len <= WORLD_PREFIX_LEN_MAX {
            rules.entry(rule).or_default().extend(parts);
        }
    }
    if rules.is_empty() {
        return Err(NotApplicable("none of the rules is open to the world".to_owned()));
    }
    Ok(rules)
}

fn bounded(many: usize, max: usize, what: &str) -> Result<(), NotApplicable> {
    if many <= max { Ok(()) } else { Err(NotApplicable(format!("{many} {what}, more than {max}; look at the group"))) }
}

/// Whether the finding may have been cut before its last rule.
fn may_lack_rules(finding: &Finding) -> bool {
    finding.evidence.get("world_rules").and_then(Value::as_array).is_some_and(|list| list.len() >= FACT_ITEMS_MAX)
}

/// The rules of the group that open what the named ones do, and are no less of the world, each with its offending parts.
fn rest_of(named: &Offending, ports: Option<&[u16]>, live: &BTreeMap<Rule, &Value>) -> Offending {
    let others = live.keys().filter(|other| other.source.len <= WORLD_PREFIX_LEN_MAX && !named.contains_key(other));
    let opening = others.filter(|other| named.iter().any(|(rule, parts)| other.opens_part_of(rule, parts, ports)));
    let parts = |other: &Rule| -> Vec<RangeInclusive<u16>> {
        let Ports::Range(from, to) = other.ports else { return Vec::new() };
        let offending: Vec<RangeInclusive<u16>> = match ports {
            Some(ports) => ports.iter().map(|&port| port..=port).collect(),
            None => {
                named.iter().filter(|(rule, _)| rule.protocol == other.protocol).flat_map(|(_, p)| p.clone()).collect()
            }
        };
        let within = |part: &RangeInclusive<u16>| from.max(*part.start())..=to.min(*part.end());
        let held: Vec<_> = offending.iter().map(within).filter(|part| !part.is_empty()).collect();
        // Where only rules of all protocols say what offends, it is the whole rule.
        if held.is_empty() { vec![from..=to] } else { held }
    };
    opening.map(|other| (other.clone(), parts(other))).collect()
}

/// The fact `ports`; `None` when it is missing, unreadable or perhaps cut: then rules offend as a whole.
fn offending_ports(finding: &Finding) -> Option<Vec<u16>> {
    let ports = finding.evidence.get("ports")?.as_array()?;
    if ports.is_empty() || ports.len() >= FACT_ITEMS_MAX {
        return None;
    }
    ports.iter().map(|port| u16::try_from(port.as_u64()?).ok()).collect()
}

/// The harmless rest of some of the rules, each with the rule it is the rest of. A part that offends in one rule is kept out
/// of the rest of every other, or it would be opened again.
fn remainders<'r>(rules: &Offending, some: impl Iterator<Item = &'r Rule>) -> BTreeMap<Rule, &'r Rule> {
    let parts_like = |rule: &Rule| -> Vec<RangeInclusive<u16>> {
        let alike = rules.iter().filter(|(other, _)| other.protocol == rule.protocol);
        alike.flat_map(|(_, parts)| parts.iter().cloned()).collect()
    };
    some.flat_map(|rule| rule.without(&parts_like(rule)).into_iter().map(move |rest| (rest, rule))).collect()
}

/// One entry of `world_rules`: the whole rule, and its offending parts.
fn offending_rule(entry: &Value, offending: Option<&[u16]>) -> Result<(Rule, Vec<RangeInclusive<u16>>), &'static str> {
    let cidr = entry.get("cidr").and_then(Value::as_str).ok_or("has no cidr")?;
    let source = Source::parse(cidr).ok_or("has a cidr that is not one")?;
    let protocol = protocol(entry.get("protocol"))?;
    let (from, to) = bounds(entry)?;
    match protocol.as_str() {
        "tcp" | "udp" => {
            let range = ports(from, to)?;
            let (whole, parts) = match (entry.get("rule"), offending) {
                (Some(Value::Object(rule)), _) => {
                    let (from, to) = bounds(&Value::Object(rule.clone()))?;
                    (ports(from, to)?, vec![range])
                }
                (None | Some(Value::Null), Some(offending)) => {
                    let parts = offending.iter().filter(|port| range.contains(port)).map(|&port| port..=port).collect();
                    (range, parts)
                }
                (None | Some(Value::Null), None) => (range.clone(), vec![range]),
                (Some(_), _) => return Err("has a rule that is not an object"),
            };
            if parts.is_empty() {
                return Err("holds none of the offending ports");
            }
            if parts.iter().any(|part| whole.start() > part.start() || whole.end() < part.end()) {
                return Err("is not within the rule it is said to be part of");
            }
            Ok((Rule { protocol, ports: Ports::Range(*whole.start(), *whole.end()), source }, parts))
        }
        "icmp" | "icmpv6" => {
            let (kind, code) = (from.unwrap_or(-1), to.unwrap_or(-1));
            if !(-1..=255).contains(&kind) || !(-1..=255).contains(&code) {
                return Err("has no ICMP type and code");
            }
            Ok((Rule { protocol, ports: Ports::Icmp(kind, code), source }, Vec::new()))
        }
        _ => Ok((Rule { protocol, ports: Ports::None, source }, Vec::new())),
    }
}

/// The protocol as EC2 writes it: names where it has them, else the number; `-1` is all.
fn protocol(value: Option<&Value>) -> Result<String, &'static str> {
    let text = match value {
        Some(Value::String(text)) => text.to_ascii_lowercase(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err("has no protocol"),
    };
    match text.as_str() {
        "6" | "tcp" => Ok("tcp".to_owned()),
        "17" | "udp" => Ok("udp".to_owned()),
        "1" | "icmp" => Ok("icmp".to_owned()),
        "58" | "icmpv6" => Ok("icmpv6".to_owned()),
        "-1" | "all" => Ok("-1".to_owned()),
        number => number.parse::<u8>().map(|n| n.to_string()).map_err(|_| "has an unknown protocol"),
    }
}

/// `from_port` and `to_port` as numbers; absent and null are `None`.
fn bounds(part: &Value) -> Result<(Option<i64>, Option<i64>), &'static str> {
    let bound = |name: &str| match part.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or("has a port that is not a number"),
    };
    Ok((bound("from_port")?, bound("to_port")?))
}

/// A port range; absent or −1 on both sides is every port.
fn ports(from: Option<i64>, to: Option<i64>) -> Result<RangeInclusive<u16>, &'static str> {
    match (from.filter(|p| *p != -1), to.filter(|p| *p != -1)) {
        (None, None) => Ok(ALL_PORTS),
        (Some(from), Some(to)) if from <= to => match (u16::try_from(from), u16::try_from(to)) {
            (Ok(from), Ok(to)) => Ok(from..=to),
            _ => Err("has a port above 65535 or below 0"),
        },
        _ => Err("has half a port range, or one that ends before it starts"),
    }
}

/// `whole` without `parts`: disjoint ranges in order, none empty, none that touches the next.
fn without(whole: RangeInclusive<u16>, parts: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    let mut parts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).map(|p| (*p.start(), *p.end())).collect();
    parts.sort_unstable();
    let mut left = Vec::new();
    // One past 65535 must be sayable, so the edge is wider than a port.
    let mut next = u32::from(*whole.start());
    for (from, to) in parts {
        if u32::from(from) > next
            && let Ok(start) = u16::try_from(next)
        {
            let end = (from - 1).min(*whole.end());
            if start <= end {
                left.push(start..=end);
            }
        }
        next = next.max(u32::from(to) + 1);
    }
    if let Ok(start) = u16::try_from(next)
        && start <= *whole.end()
    {
        left.push(start..=*whole.end());
    }
    left
}

/// `sg-` and 8 or 17 hexadecimal digits; longer ones are let through for tomorrow.
fn is_group_id(id: &str) -> bool {
    id.strip_prefix("sg-")
        .is_some_and(|hex| (8..=32).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::executor;
    use crate::testing::{FakeAws, finding};

    fn opened(rules: Value) -> Finding {
        let mut finding = finding("security_group_opened_to_world", &[SecurityGroupRuleRevoke::META.id]);
        finding.evidence.insert("group_id".to_owned(), json!("sg-0123456789abcdef0"));
        finding.evidence.insert("world_rules".to_owned(), rules);
        finding
    }

    fn plan(finding: &Finding) -> Result<Vec<(String, Plan)>, NotApplicable> {
        Action::plan(&SecurityGroupRuleRevoke { remainder_kept: true }, finding)
    }

    fn rendered(rules: Value) -> String {
        let targets = plan(&opened(rules)).unwrap();
        assert_eq!(targets.len(), 1);
        crate::render(&targets[0].1)
    }

    #[test]
    fn fires_for_one_port() {
        let finding = opened(json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"}]));
        insta::assert_json_snapshot!(plan(&finding).unwrap());
    }

    #[test]
    fn plans_by_shape_of_rule() {
        let part = |protocol: &str, from: i64, to: i64, cidr: &str| json!({"protocol": protocol, "from_port": from, "to_port": to, "cidr": cidr});
        let within = |port: i64, cidr: &str| json!({"protocol": "tcp", "from_port": port, "to_port": port, "cidr": cidr, "rule": {"from_port": 0, "to_port": 65535}});
        let cases = [
            ("both families", json!([part("tcp", 22, 22, "0.0.0.0/0"), part("6", 22, 22, "::/0")])),
            ("the same twice", json!([part("tcp", 22, 22, "0.0.0.0/0"), part("6", 22, 22, "1.2.3.4/0")])),
            ("two ports of a wide rule", json!([within(22, "0.0.0.0/0"), within(3389, "0.0.0.0/0")])),
            ("wide rules of both families", json!([within(22, "0.0.0.0/0"), within(22, "::/0")])),
            ("overlapping rules", json!([within(22, "0.0.0.0/0"), part("tcp", 80, 80, "0.0.0.0/0")])),
            ("a wide range that offends as a whole", json!([part("tcp", 0, 65535, "0.0.0.0/0")])),
            ("all traffic", json!([part("-1", -1, -1, "::/0")])),
            ("all ports left out", json!([{"protocol": "udp", "cidr": "0.0.0.0/0"}])),
            ("ping", json!([part("icmp", 8, -1, "0.0.0.0/0")])),
            ("a protocol without ports", json!([part("50", -1, -1, "0.0.0.0/0")])),
        ];
        let all: Vec<String> =
            cases.into_iter().map(|(name, rules)| format!("# {name}\n{}", rendered(rules))).collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn the_fact_ports_says_which_part_of_a_rule_offends() {
        let plan_with = |ports: Value| {
            let mut finding = opened(json!([
                {"protocol": "tcp", "from_port": 0, "to_port": 65535, "cidr": "0.0.0.0/1"},
                {"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "200.0.0.0/1"},
                {"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "203.0.113.9/32"},
            ]));
            finding.evidence.insert("ports".to_owned(), ports);
            plan(&finding).map(|targets| crate::render(&targets[0].1))
        };
        insta::assert_snapshot!(plan_with(json!([22, 3389])).unwrap());
        for unreadable in [json!((1..=20).collect::<Vec<u16>>()), json!(["22"]), json!([])] {
            assert!(!plan_with(unreadable).unwrap().contains("FromPort\":23"), "a list that may be cut splits nothing");
        }
        assert!(plan_with(json!([3389])).unwrap_err().0.contains("rule 2 holds none of the offending ports"));
    }

    #[test]
    fn sources_are_written_as_ec2_stores_them() {
        for (cidr, stored) in [
            ("1.2.3.4/0", Some("0.0.0.0/0")),
            ("200.1.1.1/1", Some("128.0.0.0/1")),
            ("203.0.113.9/32", Some("203.0.113.9/32")),
            ("2001:DB8::1/0", Some("::/0")),
            ("2001:db8::/3", Some("2000::/3")),
            ("1.2.3.4/33", None),
            ("1.2.3.4/-1", None),
            ("1.2.3.4", None),
            ("", None),
        ] {
            assert_eq!(Source::parse(cidr).map(Source::cidr).as_deref(), stored, "{cidr}");
        }
    }

    #[test]
    fn a_wide_rule_goes_whole_when_the_remainder_is_not_kept() {
        let finding = opened(
            json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0", "rule": {"from_port": 0, "to_port": 100}}]),
        );
        let plan = Action::plan(&SecurityGroupRuleRevoke { remainder_kept: false }, &finding).unwrap().remove(0).1;
        insta::assert_snapshot!(crate::render(&plan));
    }

    #[test]
    fn ignores_what_it_cannot_be_sure_of_and_says_why() {
        let good = json!({"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"});
        let with = |key: &str, value: Value| {
            let mut part = good.clone();
            part[key] = value;
            json!([good, part])
        };
        let cases = [
            (json!([]), "names no world-open rule"),
            (json!("tcp/22"), "names no world-open rule"),
            (json!([good, "… 3 more"]), "rule 2 has no cidr"),
            (
                json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "203.0.113.0/24"}]),
                "none of the rules",
            ),
            (with("cidr", json!("everyone/0")), "not one"),
            (with("cidr", json!("0.0.0.0")), "not one"),
            (with("protocol", json!("sctp-ish")), "unknown protocol"),
            (with("protocol", Value::Null), "has no protocol"),
            (with("from_port", json!("22")), "not a number"),
            (with("from_port", json!(23)), "ends before it starts"),
            (with("from_port", Value::Null), "half a port range"),
            (with("to_port", json!(70000)), "above 65535"),
            (with("rule", json!({"from_port": 80, "to_port": 90})), "not within the rule"),
        ];
        for (rules, why) in cases {
            let reason = plan(&opened(rules)).unwrap_err().0;
            assert!(reason.contains(why), "{reason} does not say {why}");
        }
        let mut nameless = opened(json!([good]));
        nameless.evidence.insert("group_id".to_owned(), json!("sg-1; rm"));
        assert!(plan(&nameless).unwrap_err().0.contains("names no security group"));
    }

    const GROUP: &str = "sg-0123456789abcdef0";

    fn live(permissions: Value) -> FakeAws {
        FakeAws::default().with_rules(GROUP, permissions)
    }

    fn seen(group: &FakeAws) -> Vec<Value> {
        let finding = opened(json!([]));
        let place = group_of(&finding).unwrap();
        let read = place.call("DescribeSecurityGroupRules", place.filter());
        run(executor::look(group, &[read])).unwrap()
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn settled(finding: &Finding, group: &FakeAws) -> Settled {
        let planned = plan(finding).unwrap().remove(0).1;
        Action::settle(&SecurityGroupRuleRevoke { remainder_kept: true }, finding, &planned, &seen(group)).unwrap()
    }

    #[test]
    fn only_rules_that_still_exist_are_revoked_and_come_back_as_they_were() {
        let v4 = |from: u16, to: u16, cidr: &str, description: &str| json!({"IpProtocol": "tcp", "FromPort": from, "ToPort": to, "IpRanges": [{"CidrIp": cidr, "Description": description}]});
        let group = live(json!([
            v4(0, 100, "0.0.0.0/0", "for a test"),
            v4(23, 100, "0.0.0.0/0", "was there"),
            v4(0, 100, "203.0.113.0/24", "the office"),
        ]));
        let rule = |cidr: &str| json!({"protocol": "tcp", "from_port": 0, "to_port": 100, "cidr": cidr});
        let mut finding = opened(json!([rule("0.0.0.0/0"), rule("::/0")]));
        finding.evidence.insert("ports".to_owned(), json!([22]));
        let settled = settled(&finding, &group);
        insta::assert_snapshot!(crate::render(&settled.plan));
        assert_eq!(settled.note, "1 of the rules not in the group any more");
        assert_eq!((settled.before.len(), &settled.before[0]["Description"]), (1, &json!("for a test")));
        assert_eq!(settled.remains, "");
    }

    #[test]
    fn the_rules_that_a_cut_list_lacks_are_taken_from_the_group() {
        let rule = |to: usize| json!({"protocol": "tcp", "from_port": 22, "to_port": to, "cidr": "0.0.0.0/0"});
        let permission = |to: usize, cidr: &str| json!({"IpProtocol": "tcp", "FromPort": 22, "ToPort": to, "IpRanges": [{"CidrIp": cidr}]});
        let listed = |n: usize| {
            let mut finding = opened(json!((22..22 + n).map(rule).collect::<Vec<_>>()));
            finding.evidence.insert("ports".to_owned(), json!([22]));
            finding
        };
        let with = |n: usize| {
            let mut rules: Vec<Value> = (22..22 + n).map(|to| permission(to, "0.0.0.0/0")).collect();
            rules.push(permission(22, "203.0.113.0/24"));
            rules.push(
                json!({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}),
            );
            rules.push(json!({"IpProtocol": "-1", "FromPort": -1, "ToPort": -1, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}));
            live(json!(rules))
        };
        let revoked =
            |settled: &Settled| settled.plan.calls[0].parameters["IpPermissions"].as_array().map_or(0, Vec::len);
        let cut = settled(&listed(20), &with(30));
        assert_eq!((revoked(&cut), &*cut.remains), (31, ""), "all that open port 22, and no other");
        let kept: Vec<u64> = cut.plan.calls[1].parameters["IpPermissions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["FromPort"].as_u64().unwrap())
            .collect();
        assert!(kept.iter().all(|from| *from == 23), "what was no offence comes back: {kept:?}");
        let whole = settled(&listed(19), &with(30));
        assert_eq!(revoked(&whole), 19, "a list that is whole is meant as it is");
        assert!(whole.remains.ends_with(" and 9 more"), "{}", whole.remains);
        let planned = plan(&listed(20)).unwrap().remove(0).1;
        let action = SecurityGroupRuleRevoke { remainder_kept: true };
        let refused = Action::settle(&action, &listed(20), &planned, &seen(&with(250))).unwrap_err().0;
        assert!(refused.contains("251 rules open the group"), "{refused}");
    }

    #[test]
    fn a_long_before_image_goes_without_tags() {
        let rule = |n: usize| json!({"SecurityGroupRuleId": "sgr-1", "Tags": [{"Key": "k", "Value": "v".repeat(n)}]});
        let (short, long) = (rule(10), rule(BEFORE_BYTES_MAX));
        assert_eq!(before_image(vec![&short]), std::slice::from_ref(&short));
        assert_eq!(before_image(vec![&long]), [json!({"SecurityGroupRuleId": "sgr-1"})]);
    }

    #[test]
    fn other_rules_that_open_the_same_are_named() {
        let rule = |protocol: &str, from: i64, to: i64, cidr: &str| json!({"IpProtocol": protocol, "FromPort": from, "ToPort": to, "IpRanges": [{"CidrIp": cidr}]});
        let all = json!({"protocol": "-1", "cidr": "0.0.0.0/0"});
        let ssh = json!({"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"});
        let ping = json!({"protocol": "icmp", "from_port": 8, "to_port": -1, "cidr": "0.0.0.0/0"});
        let cases = [
            (&ssh, rule("tcp", 0, 100, "0.0.0.0/1"), "tcp 0-100 from 0.0.0.0/1"),
            (&ssh, rule("-1", -1, -1, "0.0.0.0/0"), "everything from 0.0.0.0/0"),
            (&ssh, rule("tcp", 23, 100, "0.0.0.0/0"), ""),
            (&ssh, rule("udp", 22, 22, "0.0.0.0/0"), ""),
            (&ssh, rule("tcp", 22, 22, "10.0.0.0/8"), ""),
            (&ssh, rule("icmp", -1, -1, "0.0.0.0/0"), ""),
            (&all, rule("tcp", 22, 22, "0.0.0.0/0"), "tcp 22-22 from 0.0.0.0/0"),
            (&all, rule("tcp", 443, 443, "0.0.0.0/0"), ""),
            (&ping, rule("icmp", -1, -1, "0.0.0.0/0"), ""),
        ];
        for (offence, other, named) in cases {
            let mut finding = opened(json!([offence]));
            finding.evidence.insert("ports".to_owned(), json!([22]));
            let remains = settled(&finding, &live(json!([other]))).remains;
            assert_eq!(remains.is_empty(), named.is_empty(), "{offence} {other}: {remains}");
            assert!(remains.ends_with(named), "{offence} {other}: {remains}");
        }
        let many: Vec<Value> = (0..5).map(|n| rule("tcp", 20 - n, 22, "0.0.0.0/0")).collect();
        let remains = settled(&opened(json!([ssh])), &live(json!(many))).remains;
        assert!(remains.ends_with(" and 2 more"), "{remains}");
    }

    #[test]
    fn answers_and_calls_that_cannot_be_understood_change_nothing() {
        let action = SecurityGroupRuleRevoke { remainder_kept: true };
        let ssh = json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"}]);
        let planned = plan(&opened(ssh.clone())).unwrap().remove(0).1;
        for seen in [vec![], vec![json!({})], vec![json!({"SecurityGroupRules": 1})]] {
            Action::settle(&action, &opened(ssh.clone()), &planned, &seen).unwrap_err();
            Action::left(&action, &planned.calls[0], &seen).unwrap_err();
        }
        let nothing = [json!({"SecurityGroupRules": []})];
        for permissions in [
            json!("tcp"),
            json!([{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}]),
            json!([{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}, {"CidrIp": "10.0.0.0/8"}]}]),
            json!([{"IpProtocol": "tcp", "UserIdGroupPairs": [{"GroupId": "sg-1"}]}]),
        ] {
            let mut call = planned.calls[0].clone();
            call.parameters["IpPermissions"] = permissions;
            Action::left(&action, &call, &nothing).unwrap_err();
        }
        let mut other = planned.calls[0].clone();
        other.operation = "DeleteSecurityGroup".to_owned();
        Action::left(&action, &other, &nothing).unwrap_err();
        assert_eq!(Action::left(&action, &planned.calls[0], &[Value::Null]).unwrap(), None, "gone is closed");
    }

    /// Whether a group lets the world in on a TCP port.
    fn lets_in(group: &FakeAws, port: u16) -> bool {
        let seen = seen(group);
        let rules = live_rules(&seen).unwrap();
        rules.keys().any(|rule| matches!(rule.ports, Ports::Range(from, to) if (from..=to).contains(&port)))
    }

    proptest! {
        /// A group with any rules to the world, a finding about any of them and about some that are not there.
        #[test]
        fn the_offence_goes_nothing_else_changes_and_undo_brings_all_back(
            rules in proptest::collection::btree_set((0_u16..12, 0_u16..6, any::<bool>()), 1..7),
            named in proptest::collection::vec(any::<bool>(), 7),
            there in proptest::collection::vec(any::<bool>(), 7),
            ports in proptest::collection::btree_set(0_u16..18, 1..4),
        ) {
            let cidr = |v6: bool| if v6 { "::/0" } else { "0.0.0.0/0" };
            let permission = |&(from, n, v6): &(u16, u16, bool)| {
                let (list, name) = if v6 { ("Ipv6Ranges", "CidrIpv6") } else { ("IpRanges", "CidrIp") };
                let source = json!({name: cidr(v6), "Description": format!("rule {from}")});
                json!({"IpProtocol": "tcp", "FromPort": from, "ToPort": from + n, list: [source]})
            };
            let holds = |&(from, n, _): &(u16, u16, bool)| ports.iter().any(|port| (from..=from + n).contains(port));
            let group = live(rules.iter().zip(&there).filter(|(_, there)| **there).map(|(rule, _)| permission(rule)).collect());
            let facts: Vec<Value> = rules.iter().zip(&named).filter(|(rule, named)| **named && holds(rule)).map(|(&(from, n, v6), _)| {
                json!({"protocol": "tcp", "from_port": from, "to_port": from + n, "cidr": cidr(v6)})
            }).collect();
            prop_assume!(!facts.is_empty());
            let mut finding = opened(json!(facts));
            finding.evidence.insert("ports".to_owned(), json!(ports));

            let action = SecurityGroupRuleRevoke { remainder_kept: true };
            let before: Vec<bool> = (0..20).map(|port| lets_in(&group, port)).collect();
            let image = group.image();
            let settled = settled(&finding, &group);
            let plan = settled.plan;
            let made = run(executor::make(&group, &action, &plan, &plan.calls, None));
            prop_assert_eq!(made.stop, None);
            for port in 0..20_u16 {
                let still = lets_in(&group, port);
                // A port offends in the rules that the finding names.
                let named = offending_rules(&finding).unwrap();
                if !named.values().flatten().any(|part| part.contains(&port)) {
                    prop_assert_eq!(still, before[usize::from(port)], "harmless port {}", port);
                } else if settled.remains.is_empty() {
                    prop_assert!(!still, "offending port {}", port);
                }
            }
            prop_assert_eq!(run(executor::make(&group, &action, &plan, &plan.calls, None)).calls, vec![]);
            prop_assert_eq!(run(executor::make(&group, &action, &plan, &plan.undo, None)).stop, None);
            prop_assert_eq!(group.image(), image);
        }

        #[test]
        fn a_split_loses_and_adds_no_port(
            (from, to) in (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b))),
            parts in proptest::collection::vec((any::<u16>(), 0_u16..2000), 0..6),
        ) {
            let parts: Vec<_> = parts.into_iter().map(|(at, n)| at..=at.saturating_add(n)).collect();
            let left = without(from..=to, &parts);
            for pair in left.windows(2) {
                prop_assert!(u32::from(*pair[0].end()) + 1 < u32::from(*pair[1].start()));
            }
            for port in 0..=u16::MAX {
                let wanted = (from..=to).contains(&port) && !parts.iter().any(|p| p.contains(&port));
                prop_assert_eq!(left.iter().any(|r| r.contains(&port)), wanted, "port {}", port);
            }
            prop_assert!(left.iter().all(|r| !r.is_empty()));
        }
    }
}
