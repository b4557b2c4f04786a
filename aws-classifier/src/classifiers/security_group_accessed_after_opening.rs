//! Connection from outside right after a security group was opened.
//!
//! **What it detects.** A security group was opened to the world, and within five minutes a connection from a public
//! address to the opened port was accepted on an interface that has this group (VPC Flow Logs), or GuardDuty saw a brute
//! force attack on such an instance. Reported once for each opening. Either record may arrive first.
//!
//! **Why it matters.** Somebody opened the door and somebody came in: an attacker who opens his own way, or a scanner
//! that found it at once.
//!
//! **False positives.** An administrator who opens SSH for himself and logs in; a connection that another rule of the group
//! or another group of the interface let in all the while. *No false join:* a flow record names an interface and no group;
//! it is joined only when `RunInstances`, `ModifyNetworkInterfaceAttribute`, `ModifyInstanceAttribute` or
//! `CreateNetworkInterface` among the records of the last `membership_days` told the groups of that interface, or of its
//! instance where the flow log names one. Otherwise nothing is reported: a port and an account are not a join.
//!
//! **Response.** `security_group_rule_revoke` closes the group, `ec2_instance_quarantine` takes the instance off the
//! network; AWS does not cut connections that stand when a rule goes.
//!
//! **References.** <https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html>,
//! <https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_finding-types-ec2.html>

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::Timestamp;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, Observations};
use shared::ports::Files;

use crate::gates::{self, Change, Gate};
use crate::ingress::{self, Rule};
use crate::membership::{self, Member};

/// How long openings are known to GuardDuty, which reports hours later at worst: its findings are updated every six hours
/// by default.
const GUARDDUTY_S: u32 = 6 * 3600;
/// TCP in flow records (IANA protocol numbers).
const TCP: u64 = 6;

/// See the module.
pub struct SecurityGroupAccessedAfterOpening {
    settings: Settings,
}

/// The `[classifiers.security_group_accessed_after_opening]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The TCP ports that count. Default: those of `security_group_opened_to_world`; change both together.
    pub ports: Vec<u16>,
    /// Within how many seconds of the opening. Default 300, as the system before this one had it.
    pub window_s: u32,
    /// How many days the groups of an interface are known. Default 90, the reach of CloudTrail's event history.
    pub membership_days: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ports: vec![22, 3389, 3306, 5432, 21, 23], window_s: 300, membership_days: 90 }
    }
}

impl Classifier for SecurityGroupAccessedAfterOpening {
    const META: Meta = Meta {
        id: "security_group_accessed_after_opening",
        title: "Connection from outside right after a security group was opened",
        severity: Severity::Critical,
        techniques: &["T1133", "T1562.007"],
        patterns: &[
            Pattern::Api {
                source: "ec2.amazonaws.com",
                names: &[
                    "AuthorizeSecurityGroupIngress",
                    "CreateNetworkInterface",
                    "ModifyInstanceAttribute",
                    "ModifyNetworkInterfaceAttribute",
                    "ModifySecurityGroupRules",
                    "RunInstances",
                ],
            },
            Pattern::Intake { source: "vpc-flow-logs", name: "Flow" },
            Pattern::Notification { source: "aws.guardduty", detail_type: "GuardDuty Finding" },
        ],
        failed_calls: FailedCalls::Ignored,
        responses: &["security_group_rule_revoke", "ec2_instance_quarantine"],
        references: &[
            "https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html",
            "https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_finding-types-ec2.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if settings.ports.is_empty() {
            return Err(SettingsError::new("ports", "name at least one port"));
        }
        if !(1..=86_400).contains(&settings.window_s) {
            return Err(SettingsError::new("window_s", "must be from 1 to 86400, a day"));
        }
        if !(1..=3650).contains(&settings.membership_days) {
            return Err(SettingsError::new("membership_days", "must be from 1 to 3650"));
        }
        Ok(Self { settings })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        event.source != "vpc-flow-logs" || event.source_ip.parse().is_ok_and(is_outside)
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let mut observations = Observations::none();
        let days = self.settings.membership_days * 86_400;
        match Kind::of(event) {
            Kind::Opening => {
                let change = Change::of(event, &self.settings.ports)?;
                observations = change.remember_opened(observations, self.settings.window_s.max(GUARDDUTY_S));
                for (gate, _) in &change.opened {
                    observations = observations.recall("accessed", gate.key(&change.key), self.settings.window_s);
                }
            }
            Kind::Membership => {
                for Member { instance, interface, groups } in membership::members(event)? {
                    // Interface and instance ids are unique in an account; flow records may lack the region.
                    for id in [interface, instance].into_iter().filter(|id| !id.is_empty() && !groups.is_empty()) {
                        let place = format!("{} {}", event.region, groups.join(","));
                        observations = observations.remember("groups", format!("{}/{id}", event.account), place, days);
                    }
                }
            }
            Kind::Flow => {
                if self.gate(event)?.is_some() {
                    let detail = event.detail()?;
                    let ids = [&detail["interface_id"], &detail["instance_id"]];
                    for id in ids.into_iter().filter_map(Value::as_str) {
                        observations = observations.recall("groups", format!("{}/{id}", event.account), days);
                    }
                }
            }
            Kind::GuardDuty => {
                if let Some(attack) = self.attack(event)? {
                    for key in attack.keys() {
                        observations = observations.recall("opened", key, GUARDDUTY_S);
                    }
                }
            }
        }
        Ok(observations)
    }

    fn observe_further(&self, event: &Event<'_>, known: &Known) -> Result<Observations, Malformed> {
        let mut observations = Observations::none();
        if Kind::of(event) != Kind::Flow || known.has("accessed") {
            return Ok(observations);
        }
        let Some(gate) = self.gate(event)? else { return Ok(observations) };
        let who = [&*event.source_ip, interface(event)?].join(" ");
        for group in joined(event, known) {
            observations = observations.recall("opened", gate.key(&group), self.settings.window_s).remember(
                "accessed",
                gate.key(&group),
                who.clone(),
                self.settings.window_s,
            );
        }
        Ok(observations)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        match Kind::of(event) {
            Kind::Membership => Ok(None),
            Kind::Opening => {
                // The connection was reported before the opening was.
                let change = Change::of(event, &self.settings.ports)?;
                for ((gate, rules), accessed) in change.opened.iter().zip(known.lasts("accessed")) {
                    if let Some((at, who)) = &accessed.next {
                        let (source, interface) = who.split_once(' ').unwrap_or((who, ""));
                        return Ok(Some(evidence(&change.key, *gate, event.time, *at, source, interface, rules)));
                    }
                }
                Ok(None)
            }
            Kind::Flow => {
                let Some(gate) = self.gate(event)? else { return Ok(None) };
                let (groups, accesses) = (joined(event, known), known.lasts("accessed"));
                for ((group, opened), accessed) in groups.iter().zip(known.lasts("opened")).zip(accesses) {
                    let Some((since, rules)) = opened.by(event.time) else { continue };
                    // One report for an opening: its first access.
                    if accessed.previous.as_ref().is_none_or(|(before, _)| before < since) {
                        let rules: Vec<Rule> = ingress::from_memory(rules).collect();
                        let (source, interface) = (&*event.source_ip, interface(event)?);
                        return Ok(Some(evidence(group, gate, *since, event.time, source, interface, &rules)));
                    }
                }
                Ok(None)
            }
            Kind::GuardDuty => {
                let Some(attack) = self.attack(event)? else { return Ok(None) };
                let window = i64::from(self.settings.window_s);
                for ((group, gate), opened) in attack.ways().zip(known.lasts("opened")) {
                    let Some((since, rules)) = opened.by(event.time) else { continue };
                    let is_near = |at: &&Timestamp| (0..=window).contains(&at.seconds_since(*since));
                    if let Some(at) = attack.times.iter().find(is_near) {
                        let rules: Vec<Rule> = ingress::from_memory(rules).collect();
                        let evidence = evidence(&group, gate, *since, *at, &attack.source, &attack.instance, &rules);
                        return Ok(Some(evidence.fact("guardduty_type", attack.kind.clone())));
                    }
                }
                Ok(None)
            }
        }
    }
}

impl SecurityGroupAccessedAfterOpening {
    /// The watched gate that a flow record's connection came through.
    fn gate(&self, event: &Event<'_>) -> Result<Option<Gate>, Malformed> {
        let detail = event.detail()?;
        // A flow log need not have the protocol.
        if detail["protocol"].as_u64().is_some_and(|p| p != TCP) || event.account.is_empty() {
            return Ok(None);
        }
        let port = detail["port"].as_u64().and_then(|p| u16::try_from(p).ok());
        Ok(port
            .filter(|port| self.settings.ports.contains(port))
            .map(|port| Gate { port, is_v6: event.source_ip.contains(':') }))
    }

    /// The brute force attack that a GuardDuty finding tells of.
    fn attack(&self, event: &Event<'_>) -> Result<Option<Attack>, Malformed> {
        let detail = event.detail()?;
        let kind = text(detail, "type");
        let service = get(detail, "service");
        if !kind.ends_with("BruteForce")
            || *get(service, "archived") == Value::Bool(true)
            || *get(get(service, "additionalInfo"), "sample") == Value::Bool(true)
        {
            return Ok(None);
        }
        let action = get(get(service, "action"), "networkConnectionAction");
        let is_outbound = text(action, "connectionDirection") == "OUTBOUND";
        let port = get(get(action, "localPortDetails"), "port").as_u64().and_then(|p| u16::try_from(p).ok());
        let port = port.or(match kind {
            k if k.contains("SSH") => Some(22),
            k if k.contains("RDP") => Some(3389),
            _ => None,
        });
        let Some(port) = port.filter(|port| !is_outbound && self.settings.ports.contains(port)) else {
            return Ok(None);
        };
        let instance = get(get(detail, "resource"), "instanceDetails");
        let interfaces = get(instance, "networkInterfaces").as_array().map_or(&[][..], Vec::as_slice);
        let mut groups: Vec<String> = interfaces
            .iter()
            .flat_map(|i| get(i, "securityGroups").as_array().map_or(&[][..], Vec::as_slice))
            .map(|g| text(g, "groupId").to_owned())
            .filter(|id| !id.is_empty())
            .take(16)
            .map(|id| gates::group_key(&event.account, &event.region, &id))
            .collect();
        groups.sort_unstable();
        groups.dedup();
        let seen = [text(service, "eventFirstSeen"), text(service, "eventLastSeen")];
        Ok(Some(Attack {
            kind: kind.to_owned(),
            source: text(get(action, "remoteIpDetails"), "ipAddressV4").to_owned(),
            instance: text(instance, "instanceId").to_owned(),
            port,
            groups,
            times: seen.iter().filter_map(|t| Timestamp::parse(t)).chain([event.time]).collect(),
        }))
    }
}

struct Attack {
    kind: String,
    source: String,
    instance: String,
    port: u16,
    groups: Vec<String>,
    /// When it was first and last seen, and reported.
    times: Vec<Timestamp>,
}

impl Attack {
    /// Where it may have come in.
    fn ways(&self) -> impl Iterator<Item = (String, Gate)> {
        self.groups.iter().flat_map(|g| [false, true].map(|is_v6| (g.clone(), Gate { port: self.port, is_v6 })))
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        self.ways().map(|(group, gate)| gate.key(&group))
    }
}

fn evidence(
    group_key: &str,
    gate: Gate,
    opened: Timestamp,
    at: Timestamp,
    source: &str,
    target: &str,
    rules: &[Rule],
) -> Evidence {
    let mut parts = group_key.rsplitn(3, '/');
    let (group, region) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let after_s = at.seconds_since(opened);
    let shown: String = group.chars().take(32).collect();
    let mut world_rules: Vec<Value> = Vec::new();
    for rule in rules.iter().map(Rule::to_fact) {
        if !world_rules.contains(&rule) {
            world_rules.push(rule);
        }
    }
    let mut evidence = Evidence::about(group)
        .placed("", region)
        .titled(format!("Connection from outside to port {} {after_s} s after {shown} was opened", gate.port))
        .topic(format!("security_group_open/{group}"))
        .fact("group_id", group)
        .fact("ports", vec![gate.port])
        .fact("opened_at", opened.to_string())
        .fact("accessed_at", at.to_string())
        .fact("world_rules", world_rules);
    if !source.is_empty() {
        evidence = evidence.fact("remote_ip", source);
    }
    if target.starts_with("i-") {
        evidence = evidence.fact("instance_ids", vec![target]);
    } else if !target.is_empty() {
        evidence = evidence.fact("interface_ids", vec![target]);
    }
    evidence
}

/// The [`gates::group_key`]s of the interface of a flow record, or of its instance when the interface is not known.
fn joined(event: &Event<'_>, known: &Known) -> Vec<String> {
    let found = known.lasts("groups").find_map(|last| last.by(event.time));
    let Some((region, groups)) = found.and_then(|(_, place)| place.split_once(' ')) else { return Vec::new() };
    groups.split(',').map(|group| gates::group_key(&event.account, region, group)).collect()
}

/// The instance of a flow record, else its interface.
fn interface<'e>(event: &'e Event<'_>) -> Result<&'e str, Malformed> {
    let detail = event.detail()?;
    Ok(detail["instance_id"].as_str().or_else(|| detail["interface_id"].as_str()).unwrap_or_default())
}

/// Not one of our own: neither private (RFC 1918, RFC 4193) nor shared (RFC 6598), loopback, link-local or no single
/// address.
fn is_outside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(v6) => (v6.segments()[0] & 0xe000) == 0x2000,
    }
}

/// A member by its camelCase name, or by the PascalCase name GuardDuty's API uses.
fn get<'v>(value: &'v Value, camel: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    let pascal = || {
        let (first, rest) = camel.split_at(1);
        value.get(format!("{}{rest}", first.to_ascii_uppercase()))
    };
    value.get(camel).or_else(pascal).unwrap_or(&NULL)
}

fn text<'v>(value: &'v Value, camel: &str) -> &'v str {
    get(value, camel).as_str().unwrap_or_default()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Opening,
    Membership,
    Flow,
    GuardDuty,
}

impl Kind {
    fn of(event: &Event<'_>) -> Self {
        match &*event.source {
            "vpc-flow-logs" => Self::Flow,
            "aws.guardduty" => Self::GuardDuty,
            _ if gates::CALLS.iter().any(|call| call.eq_ignore_ascii_case(&event.name)) => Self::Opening,
            _ => Self::Membership,
        }
    }
}
