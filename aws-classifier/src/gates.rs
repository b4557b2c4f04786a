//! What security group calls change about the ways in from the world, in the form that state remembers.
//!
//! What stands in a group are its rules, told apart by what they admit and by their ids where those are known; both name the
//! same rule, so closing one says nothing about another. A *gate* is one watched port in one address family, and open while
//! the rules that stand let the world in there, whichever call made them. Pure, like [`crate::ingress`], on which it is
//! built.

use serde_json::Value;
use shared::Timestamp;
use shared::classifier::Malformed;
use shared::event::Event;
use shared::observation::{Known, Observations, Stood};

use crate::ingress::{self, Rule};

/// The label of what stands in groups.
const STANDING: &str = "standing";

/// The calls that [`Change::of`] reads.
pub const CALLS: &[&str] =
    &["AuthorizeSecurityGroupIngress", "DeleteSecurityGroup", "ModifySecurityGroupRules", "RevokeSecurityGroupIngress"];

/// One port in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The TCP port.
    pub port: u16,
    /// IPv6, else IPv4.
    pub is_v6: bool,
}

impl Gate {
    /// The state key of the gate of `group`, which names account and region too.
    pub fn key(self, group: &str) -> String {
        format!("{group}/{}/{}", self.port, if self.is_v6 { 6 } else { 4 })
    }
}

/// A group's name in state keys: account, region and id.
pub fn group_key(account: &str, region: &str, group: &str) -> String {
    [account, region, group].join("/")
}

/// What one call changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The group's id, else its name.
    pub group: String,
    /// Its [`group_key`].
    pub key: String,
    /// Gates that the rules it makes open to the world by themselves, each with those rules.
    pub opened: Vec<(Gate, Vec<Rule>)>,
    /// Rules it makes on watched ports that let in the world or a large part of it.
    pub begun: Vec<Rule>,
    /// Such rules that it takes away, as far as the record shows them.
    pub revoked: Vec<Rule>,
    /// Names of rules that it takes away or rewrites; `*` when the whole group goes.
    pub ended: Vec<String>,
}

impl Change {
    /// Reads one of [`CALLS`].
    ///
    /// # Errors
    /// When the group, a port, a protocol or a range is missing or has the wrong type.
    pub fn of(event: &Event<'_>, ports: &[u16]) -> Result<Self, Malformed> {
        let group = ingress::group_id(event)?.to_owned();
        let key = group_key(&event.account, &event.region, &group);
        let mut change = Self { group, key, ..Self::default() };
        match event.name.to_ascii_lowercase().as_str() {
            "deletesecuritygroup" => change.ended.push("*".to_owned()),
            "revokesecuritygroupingress" => {
                change.revoked = wide_on(&ingress::rules_revoked(event)?, ports);
                change.ended = ingress::rule_ids(event)?;
                change.ended.extend(
                    change
                        .revoked
                        .iter()
                        .flat_map(|rule| rule.names().split(' ').map(str::to_owned).collect::<Vec<_>>()),
                );
            }
            name => {
                let made = ingress::rules_made(event)?;
                change.opened = gates(&made, ports);
                change.begun = wide_on(&made, ports);
                if name == "modifysecuritygrouprules" {
                    // What a rule was before it was rewritten ends; what it is now begins with the same call.
                    change.ended = ingress::rule_ids(event)?;
                }
            }
        }
        Ok(change)
    }

    /// Remembers the openings under `opened`, by gate, as the rules' memory.
    #[must_use]
    pub fn remember_opened(&self, mut observations: Observations, ttl_s: u32) -> Observations {
        for (gate, rules) in &self.opened {
            let rules = ingress::to_memory(rules);
            observations = observations.remember("opened", gate.key(&self.key), rules, ttl_s);
        }
        observations
    }

    /// Notes what the call makes and takes away for `ttl_s` seconds; [`stood`] has the answer.
    #[must_use]
    pub fn note(&self, observations: Observations, ttl_s: u32) -> Observations {
        if self.begun.is_empty() && self.ended.is_empty() {
            return observations;
        }
        observations.stand(STANDING, &*self.key, self.begun.iter().map(Rule::names), self.ended.iter().cloned(), ttl_s)
    }

    /// Whether the thing is a rule that this call makes.
    pub fn makes(&self, thing: &Stood) -> bool {
        self.begun.iter().any(|rule| rule.names() == thing.what)
    }
}

/// Asks what stands in a group, by its [`group_key`].
#[must_use]
pub fn ask(observations: Observations, group: String, ttl_s: u32) -> Observations {
    observations.stand(STANDING, group, [], [], ttl_s)
}

/// What stood in the groups that were asked about, in their order.
pub fn stood(known: &Known) -> impl Iterator<Item = &[Stood]> {
    known.stood(STANDING)
}

/// A way in: an open gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The gate.
    pub gate: Gate,
    /// Since when it is open.
    pub since: Timestamp,
    /// What keeps it open, with the time each rule began.
    pub rules: Vec<(Rule, Timestamp)>,
}

/// The gates that things which stand keep open.
pub fn open<'s>(things: impl IntoIterator<Item = &'s Stood>, ports: &[u16]) -> Vec<Way> {
    let standing: Vec<(Rule, Timestamp)> =
        things.into_iter().filter_map(|thing| Some((Rule::from_names(&thing.what)?, thing.since))).collect();
    let rules: Vec<Rule> = standing.iter().map(|(rule, _)| rule.clone()).collect();
    let ways = gates(&rules, ports).into_iter().map(|(gate, rules)| {
        let rules: Vec<(Rule, Timestamp)> = standing.iter().filter(|(rule, _)| rules.contains(rule)).cloned().collect();
        let alone = rules.iter().filter(|(rule, _)| rule.is_world()).map(|(_, since)| *since).min();
        let since = alone.or_else(|| rules.iter().map(|(_, since)| *since).max()).unwrap_or_default();
        Way { gate, since, rules }
    });
    ways.collect()
}

/// The rules of some ways as facts, each once.
pub fn rule_facts<'w>(ways: impl IntoIterator<Item = &'w Way>) -> Vec<Value> {
    let mut facts: Vec<Value> = Vec::new();
    for fact in ways.into_iter().flat_map(|way| &way.rules).map(|(rule, _)| rule.to_fact()) {
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }
    facts
}

/// Ports of gates, ascending, each once.
pub fn ports(gates: impl IntoIterator<Item = Gate>) -> Vec<u16> {
    let mut ports: Vec<u16> = gates.into_iter().map(|gate| gate.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The rules on watched ports that let in the world, a large part of it, or the world together with others of them.
fn wide_on(rules: &[Rule], ports: &[u16]) -> Vec<Rule> {
    let together = ingress::world_open(rules, ports).1;
    let bears = |rule: &&Rule| {
        (rule.is_world() || rule.is_wide() || together.contains(rule)) && !rule.admitted(ports).is_empty()
    };
    rules.iter().filter(bears).cloned().collect()
}

/// The gates that the rules open, with the rules that do it.
fn gates(rules: &[Rule], ports: &[u16]) -> Vec<(Gate, Vec<Rule>)> {
    let mut found = Vec::new();
    for is_v6 in [false, true] {
        let family: Vec<Rule> = rules.iter().filter(|r| r.cidr.contains(':') == is_v6).cloned().collect();
        for &port in ports {
            let rules: Vec<Rule> = ingress::world_rules_on(&family, port).into_iter().cloned().collect();
            if !rules.is_empty() {
                found.push((Gate { port, is_v6 }, rules));
            }
        }
    }
    found
}
