//! What security group calls change about the ways in from the world, in the form that state remembers.
//!
//! A *gate* is one watched port in one address family; each is remembered apart, so that closing one says nothing about
//! the others. Two rules that open the same gate are not told apart unless their ids are known. Pure, like
//! [`crate::ingress`], on which it is built.

use shared::Timestamp;
use shared::classifier::Malformed;
use shared::event::Event;
use shared::observation::{LastValues, Observations};

use crate::ingress::{self, Rule};

/// State cuts values at 512 bytes.
const MEMORY_BYTES_MAX: usize = 500;

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
    /// All gates of the watched ports.
    pub fn all(ports: &[u16]) -> impl Iterator<Item = Self> {
        ports.iter().flat_map(|&port| [false, true].map(|is_v6| Self { port, is_v6 }))
    }

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
    /// Gates opened to the world, each with the rules that do it.
    pub opened: Vec<(Gate, Vec<Rule>)>,
    /// Gates closed.
    pub closed: Vec<Gate>,
    /// Ids of rules that no longer let the world in.
    pub closed_rules: Vec<String>,
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
            "deletesecuritygroup" => change.closed = Gate::all(ports).collect(),
            "revokesecuritygroupingress" => {
                let revoked = ingress::rules_revoked(event)?;
                change.closed = gates(&revoked, ports).into_iter().map(|(gate, _)| gate).collect();
                change.closed_rules = ingress::rule_ids(event)?;
            }
            name => {
                let made = ingress::rules_made(event)?;
                change.opened = gates(&made, ports);
                // A rule rewritten without opening anything no longer opens what it did.
                if name == "modifysecuritygrouprules" && change.opened.is_empty() {
                    change.closed_rules = ingress::rule_ids(event)?;
                }
            }
        }
        Ok(change)
    }

    /// The ports opened, ascending.
    pub fn ports_opened(&self) -> Vec<u16> {
        ports(self.opened.iter().map(|(gate, _)| *gate))
    }

    /// Remembers the openings under `opened`, by gate, as the rules' memory.
    #[must_use]
    pub fn remember_opened(&self, mut observations: Observations, ttl_s: u32) -> Observations {
        for (gate, rules) in &self.opened {
            let rules = ingress::to_memory(rules, MEMORY_BYTES_MAX);
            observations = observations.remember("opened", gate.key(&self.key), rules, ttl_s);
        }
        observations
    }

    /// Remembers the closings under `closed`, by gate and by rule id.
    #[must_use]
    pub fn remember_closed(&self, mut observations: Observations, ttl_s: u32) -> Observations {
        let rules = self.closed_rules.iter().map(|id| format!("{}/{id}", self.key));
        for key in self.closed.iter().map(|gate| gate.key(&self.key)).chain(rules) {
            observations = observations.remember("closed", key, "closed", ttl_s);
        }
        observations
    }
}

/// The keys under which the closing of what `rules` opened at `gate` is remembered: the gate's, then those of the rules.
pub fn closing_keys<'k>(group: &'k str, gate: Gate, rules: &'k [Rule]) -> impl Iterator<Item = String> + 'k {
    let ids = rules.iter().map(|rule| &rule.rule_id).filter(|id| !id.is_empty());
    std::iter::once(gate.key(group)).chain(ids.map(move |id| format!("{group}/{id}")))
}

/// Whether a gate opened at `opened` was still open at `at`, given the answers to its [`closing_keys`]. When the ids of all
/// rules that opened it are known, all of them must be gone; the gate's own answer always counts.
pub fn is_open_still(opened: Timestamp, at: Timestamp, closings: &[&LastValues]) -> bool {
    let gone = |last: &&LastValues| last.by(at).is_some_and(|(closed, _)| *closed > opened);
    match closings {
        [] => true,
        [gate] => !gone(gate),
        [gate, rules @ ..] => !gone(gate) && !rules.iter().all(gone),
    }
}

/// Ports of gates, ascending, each once.
pub fn ports(gates: impl IntoIterator<Item = Gate>) -> Vec<u16> {
    let mut ports: Vec<u16> = gates.into_iter().map(|gate| gate.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
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
