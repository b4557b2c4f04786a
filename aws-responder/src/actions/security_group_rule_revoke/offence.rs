//! What a finding says is open to the world, and what of a group's rules opens the same.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value;
use shared::{Finding, NotApplicable};

use super::rule::{Ports, Rule, Source, bounds, ports, protocol};

/// Ranges up to this length count as a part of the world: two `/1` open as much as one `/0`. Our choice, the classifier's
/// too: nobody owns more than a `/8`.
const WORLD_PREFIX_LEN_MAX: u8 = 7;

/// The classifiers' engine cuts longer lists, so a list this long may lack something; of rules, the group knows the rest.
const FACT_ITEMS_MAX: usize = 20;

/// Rules that stay open and are named; more are counted.
const NAMED_MAX: usize = 3;

/// Rules to revoke, each with its offending parts.
pub(super) type Offending = BTreeMap<Rule, Vec<RangeInclusive<u16>>>;

/// The rules that the finding names. One unreadable rule makes the whole finding unusable: a plan that
/// closes half of what is open would look like a success.
pub(super) fn offending_rules(finding: &Finding) -> Result<Offending, NotApplicable> {
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

/// Whether the finding may have been cut before its last rule.
pub(super) fn may_lack_rules(finding: &Finding) -> bool {
    finding.evidence.get("world_rules").and_then(Value::as_array).is_some_and(|list| list.len() >= FACT_ITEMS_MAX)
}

/// The rules of the group that open what the named ones do, and are no less of the world, each with its offending parts.
pub(super) fn rest_of(named: &Offending, ports: Option<&[u16]>, live: &BTreeMap<Rule, &Value>) -> Offending {
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
pub(super) fn offending_ports(finding: &Finding) -> Option<Vec<u16>> {
    let ports = finding.evidence.get("ports")?.as_array()?;
    if ports.is_empty() || ports.len() >= FACT_ITEMS_MAX {
        return None;
    }
    ports.iter().map(|port| u16::try_from(port.as_u64()?).ok()).collect()
}

/// The harmless rest of some of the rules, each with the rule it is the rest of. A part that offends in one rule is kept out
/// of the rest of every other, or it would be opened again.
pub(super) fn remainders<'r>(rules: &Offending, some: impl Iterator<Item = &'r Rule>) -> BTreeMap<Rule, &'r Rule> {
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

/// Which other rules keep an offending port open to the world, in words; empty when none does.
pub(super) fn still_open(rules: &Offending, ports: Option<&[u16]>, live: &BTreeMap<Rule, &Value>) -> String {
    let rest = rest_of(rules, ports, live);
    let open: Vec<&Rule> = rest.keys().collect();
    if open.is_empty() {
        return String::new();
    }
    let named: Vec<String> = open.iter().take(NAMED_MAX).map(|rule| rule.words()).collect();
    let more = if open.len() > NAMED_MAX { format!(" and {} more", open.len() - NAMED_MAX) } else { String::new() };
    format!("other rules of the group still open it to the world: {}{more}", named.join(", "))
}
