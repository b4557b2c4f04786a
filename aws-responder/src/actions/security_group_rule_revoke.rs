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
//! *Undo.* Authorizes exactly what was revoked, then revokes what had been added again. Rule descriptions are not in the
//! finding: the read keeps them for whoever carries the plan out.
//!
//! *References.* <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html>

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::{Action, ActionMeta, ApiCall, Finding, NotApplicable, Permission, Plan, SettingsError};

use super::is_account;

/// Ranges up to this length count as a part of the world: two `/1` open as much as one `/0`. Our choice, the classifier's
/// too: nobody owns more than a `/8`.
const WORLD_PREFIX_LEN_MAX: u8 = 7;

/// The classifiers' engine cuts longer lists, so a list this long may lack something.
const FACT_ITEMS_MAX: usize = 20;

const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;

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
                resource: "arn:*:ec2:*:*:security-group/*",
                why: "closes the rule; which group it will be is not known beforehand",
            },
            Permission {
                action: "ec2:AuthorizeSecurityGroupIngress",
                resource: "arn:*:ec2:*:*:security-group/*",
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
        let group = finding.evidence.get("group_id").and_then(Value::as_str).unwrap_or_default();
        if !is_group_id(group) {
            return Err(NotApplicable("the finding names no security group".to_owned()));
        }
        if !is_account(&finding.account) || finding.region.is_empty() {
            return Err(NotApplicable("the finding does not say which account and region".to_owned()));
        }
        let rules = offending_rules(finding)?;
        let call = |operation: &str, parameters: Value| ApiCall {
            service: "ec2".to_owned(),
            operation: operation.to_owned(),
            account: finding.account.clone(),
            region: finding.region.clone(),
            parameters,
        };
        let change = |operation: &str, permissions: &[Value]| {
            call(operation, json!({"GroupId": group, "IpPermissions": permissions}))
        };
        let revoked: Vec<Value> = rules.keys().map(Rule::permission).collect();
        let kept: Vec<Value> =
            if self.remainder_kept { remainders(&rules).iter().map(Rule::permission).collect() } else { Vec::new() };
        let filter = json!({"Filters": [{"Name": "group-id", "Values": [group]}]});
        let mut plan = Plan {
            reads: vec![call("DescribeSecurityGroupRules", filter)],
            calls: vec![change("RevokeSecurityGroupIngress", &revoked)],
            undo: vec![change("AuthorizeSecurityGroupIngress", &revoked)],
        };
        if !kept.is_empty() {
            plan.calls.push(change("AuthorizeSecurityGroupIngress", &kept));
            plan.undo.push(change("RevokeSecurityGroupIngress", &kept));
        }
        Ok(vec![(group.to_owned(), plan)])
    }
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
    /// An `IpPermission` with this rule's one source.
    fn permission(&self) -> Value {
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
        let (name, source) = match self.source.address {
            IpAddr::V4(_) => ("IpRanges", json!([{"CidrIp": cidr}])),
            IpAddr::V6(_) => ("Ipv6Ranges", json!([{"CidrIpv6": cidr}])),
        };
        permission.insert(name.to_owned(), source);
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

/// The rules to revoke, each with its offending parts. One unreadable rule makes the whole finding unusable: a plan that
/// closes half of what is open would look like a success.
fn offending_rules(finding: &Finding) -> Result<BTreeMap<Rule, Vec<RangeInclusive<u16>>>, NotApplicable> {
    let Some(entries) = finding.evidence.get("world_rules").and_then(Value::as_array).filter(|list| !list.is_empty())
    else {
        return Err(NotApplicable("the finding names no world-open rule".to_owned()));
    };
    if entries.len() >= FACT_ITEMS_MAX {
        return Err(NotApplicable(format!(
            "the finding lists {} rules and may lack some; look at the group",
            entries.len()
        )));
    }
    let ports = offending_ports(finding);
    let mut rules: BTreeMap<Rule, Vec<RangeInclusive<u16>>> = BTreeMap::new();
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

/// The fact `ports`; `None` when it is missing, unreadable or perhaps cut: then rules offend as a whole.
fn offending_ports(finding: &Finding) -> Option<Vec<u16>> {
    let ports = finding.evidence.get("ports")?.as_array()?;
    if ports.is_empty() || ports.len() >= FACT_ITEMS_MAX {
        return None;
    }
    ports.iter().map(|port| u16::try_from(port.as_u64()?).ok()).collect()
}

/// The harmless rest of the rules. A part that offends in one rule is kept out of the rest of every other, or it would be
/// opened again.
fn remainders(rules: &BTreeMap<Rule, Vec<RangeInclusive<u16>>>) -> BTreeSet<Rule> {
    let parts_like = |rule: &Rule| -> Vec<RangeInclusive<u16>> {
        let alike = rules.iter().filter(|(other, _)| other.protocol == rule.protocol);
        alike.flat_map(|(_, parts)| parts.iter().cloned()).collect()
    };
    rules.keys().flat_map(|rule| rule.without(&parts_like(rule))).collect()
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
    use crate::testing::finding;

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
            (json!(vec![good.clone(); 20]), "may lack some"),
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

    proptest! {
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
