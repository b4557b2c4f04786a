//! Instance in a security group that is open to the world.
//!
//! **What it detects.** An instance is started, or an instance or network interface is given a security group, while
//! that group is known to let the whole internet reach a watched port. Also when the record of the opening arrives after
//! that of the instance.
//!
//! **Why it matters.** An open group harms nobody until something stands behind it. From this moment on scanners reach
//! the instance within minutes.
//!
//! **False positives.** Bastions that are meant to be public: tag the instance `RemediationExclusion=Ignore`, or accept the
//! group by an entry of the allow-list whose `resource` is its id. *Not knowable:* groups that were opened before the
//! records begin; the groups of an instance whose `RunInstances`, `ModifyInstanceAttribute` or
//! `ModifyNetworkInterfaceAttribute` is not among the records of the last `membership_days` (`StartInstances` names
//! none); and, for an instance with several interfaces, the groups of all of them after one was changed: the last
//! change counts.
//!
//! **Response.** `ec2_instance_quarantine` takes the instance off the network, `security_group_rule_revoke` closes the
//! group.
//!
//! **References.** <https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html>,
//! <https://attack.mitre.org/techniques/T1133/>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::Timestamp;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, LastValues, Observations, Stood};
use shared::ports::Files;

use crate::gates::{self, Change, Way};
use crate::membership::{self, Member};

/// State cuts values at 512 bytes: so many instance ids fit.
const IDS_REMEMBERED_MAX: usize = 20;

/// Instances of one call whose tags are read: as many as are read at all.
const MADE_MAX: usize = 1000;

/// See the module.
pub struct Ec2InstanceInOpenGroup {
    settings: Settings,
}

/// The `[classifiers.ec2_instance_in_open_group]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The TCP ports that count. Default: those of `security_group_opened_to_world`; change both together.
    pub ports: Vec<u16>,
    /// How many days an opened group is known. Default 90, the reach of CloudTrail's event history.
    pub known_days: u32,
    /// How many days the groups of an instance are known, for `StartInstances`. Default 90, as above.
    pub membership_days: u32,
    /// The tag that leaves an instance out; empty: none does. Whoever starts an instance may give it any tag that IAM
    /// policies do not keep for others. Default `RemediationExclusion`, as the system before this one had it.
    pub exclusion_tag: String,
    /// Its value. Default `Ignore`.
    pub exclusion_value: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ports: vec![22, 3389, 3306, 5432, 21, 23],
            known_days: 90,
            membership_days: 90,
            exclusion_tag: "RemediationExclusion".to_owned(),
            exclusion_value: "Ignore".to_owned(),
        }
    }
}

impl Classifier for Ec2InstanceInOpenGroup {
    const META: Meta = Meta {
        id: "ec2_instance_in_open_group",
        title: "Instance in a security group that is open to the world",
        severity: Severity::Critical,
        techniques: &["T1133", "T1562.007"],
        patterns: &[Pattern::Api {
            source: "ec2.amazonaws.com",
            names: &[
                "AttachNetworkInterface",
                "AuthorizeSecurityGroupIngress",
                "CreateTags",
                "DeleteSecurityGroup",
                "DeleteTags",
                "ModifyInstanceAttribute",
                "ModifyNetworkInterfaceAttribute",
                "ModifySecurityGroupRules",
                "RevokeSecurityGroupIngress",
                "RunInstances",
                "StartInstances",
            ],
        }],
        failed_calls: FailedCalls::Ignored,
        responses: &["ec2_instance_quarantine", "security_group_rule_revoke"],
        references: &[
            "https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html",
            "https://attack.mitre.org/techniques/T1133/",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if settings.ports.is_empty() {
            return Err(SettingsError::new("ports", "name at least one port"));
        }
        for (key, days) in [("known_days", settings.known_days), ("membership_days", settings.membership_days)] {
            if !(1..=3650).contains(&days) {
                return Err(SettingsError::new(key, "must be from 1 to 3650"));
            }
        }
        Ok(Self { settings })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        match Call::of(event) {
            Call::Group => self.observe_group(event),
            Call::Tags => self.observe_tags(event),
            Call::Members => self.observe_members(event),
        }
    }

    fn observe_further(&self, event: &Event<'_>, known: &Known) -> Result<Observations, Malformed> {
        let mut observations = Observations::none();
        if Call::of(event) != Call::Members || known.has("members") {
            return Ok(observations);
        }
        let named = self.named(event, known)?;
        let days = self.membership_s();
        if let (Some((_, owner)), [member]) = (known.last("owner").by(event.time), &*membership::members(event)?)
            && member.instance.is_empty()
        {
            // An interface of a known instance was given other groups.
            let groups = member.groups.join(",");
            let key = format!("{}/{owner}", place(event));
            observations = observations.recall("excluded", key.clone(), days).remember("groups", key, groups, days);
        }
        for group in groups_of(&named) {
            let key = gates::group_key(&event.account, &event.region, group);
            let ids: Vec<&str> = having(&named, group).take(IDS_REMEMBERED_MAX).collect();
            observations = gates::ask(observations, key.clone(), self.known_s()).remember(
                "members",
                key,
                ids.join(","),
                self.known_s(),
            );
        }
        Ok(observations)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        match Call::of(event) {
            Call::Tags => Ok(None),
            Call::Group => self.joined_before_we_knew(event, known),
            Call::Members => {
                let named = self.named(event, known)?;
                let open = |(group, stood): (_, &[Stood])| {
                    let stands = stood.iter().filter(|thing| thing.stands_after(event.time));
                    let open = gates::open(stands, &self.settings.ports);
                    (!open.is_empty()).then_some((group, open))
                };
                let all: Vec<(&str, Vec<Way>)> =
                    groups_of(&named).into_iter().zip(gates::stood(known)).filter_map(open).collect();
                let Some((group, open)) = all.first() else { return Ok(None) };
                let ids: Vec<&str> = having(&named, group).collect();
                let evidence = evidence(group, &ids, open, event.time);
                Ok(Some(evidence.caused_by(all.iter().map(|(group, _)| *group))))
            }
        }
    }
}

/// An instance or interface by its best name, with the groups it has.
struct Named {
    id: String,
    groups: Vec<String>,
}

impl Ec2InstanceInOpenGroup {
    const fn known_s(&self) -> u32 {
        self.settings.known_days * 86_400
    }

    const fn membership_s(&self) -> u32 {
        self.settings.membership_days * 86_400
    }

    /// Notes what the call opens and closes. For an opening, asks who joined the group since: their records may have been
    /// faster.
    fn observe_group(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let change = Change::of(event, &self.settings.ports)?;
        let mut observations = change.note(Observations::none(), self.known_s());
        if !change.begun.is_empty() {
            observations = observations.recall("members", change.key, self.known_s());
        }
        Ok(observations)
    }

    fn observe_members(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let (place, days) = (place(event), self.membership_s());
        let mut observations = Observations::none();
        let members = membership::members(event)?;
        for (instance, groups) in by_instance(&members) {
            let key = format!("{place}/{instance}");
            observations = if is_tagged(event, &instance, &self.settings)? {
                observations.remember("excluded", key.clone(), "yes", days)
            } else {
                observations.recall("excluded", key.clone(), days)
            };
            observations = if groups.is_empty() {
                observations.recall("groups", key, days)
            } else {
                observations.remember("groups", key, groups.join(","), days)
            };
        }
        for Member { instance, interface, .. } in members.iter().filter(|m| !m.interface.is_empty()) {
            let key = format!("{place}/{interface}");
            observations = if instance.is_empty() {
                observations.recall("owner", key, days)
            } else {
                observations.remember("owner", key, instance, days)
            };
        }
        Ok(observations)
    }
}

impl Ec2InstanceInOpenGroup {
    /// `CreateTags` and `DeleteTags` on instances.
    fn observe_tags(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let request = event.request()?;
        let mut observations = Observations::none();
        if !has_tag(&request["tagSet"]["items"], &self.settings) {
            return Ok(observations);
        }
        let value = if event.name.eq_ignore_ascii_case("CreateTags") { "yes" } else { "no" };
        let resources = request["resourcesSet"]["items"].as_array().map_or(&[][..], Vec::as_slice);
        for id in resources.iter().filter_map(|r| r["resourceId"].as_str()).filter(|id| id.starts_with("i-")) {
            let key = format!("{}/{id}", place(event));
            observations = observations.remember("excluded", key, value, self.membership_s());
        }
        Ok(observations)
    }

    /// Who the event is about, with their groups, less those that are left out by their tag.
    fn named(&self, event: &Event<'_>, known: &Known) -> Result<Vec<Named>, Malformed> {
        let members = membership::members(event)?;
        let is_excluded =
            |last: Option<&LastValues>| last.and_then(|l| l.by(event.time)).is_some_and(|(_, value)| value == "yes");
        let (mut exclusions, mut earlier) = (known.lasts("excluded"), known.lasts("groups"));
        let mut named = Vec::new();
        for (instance, groups) in by_instance(&members) {
            let (exclusion, earlier) = (exclusions.next(), earlier.next());
            if is_excluded(exclusion) || is_tagged(event, &instance, &self.settings)? {
                continue;
            }
            let groups = match earlier.and_then(|l| l.by(event.time)) {
                Some((_, value)) if groups.is_empty() => value.split(',').map(str::to_owned).collect(),
                _ => groups,
            };
            named.push(Named { id: instance, groups });
        }
        for member in members.into_iter().filter(|m| m.instance.is_empty() && !m.groups.is_empty()) {
            if !is_excluded(exclusions.next()) {
                let owner = known.last("owner").by(event.time).map(|(_, owner)| owner.clone());
                named.push(Named { id: owner.unwrap_or(member.interface), groups: member.groups });
            }
        }
        Ok(named)
    }

    /// The record of an opening comes after that of an instance which joined the group later.
    fn joined_before_we_knew(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let Some((joined, ids)) = known.last("members").next else { return Ok(None) };
        let change = Change::of(event, &self.settings.ports)?;
        let stood: Vec<&Stood> = gates::stood(known).flatten().filter(|thing| thing.stands_after(joined)).collect();
        let others = stood.iter().copied().filter(|thing| thing.since < event.time || !change.makes(thing));
        let before = gates::open(others, &self.settings.ports);
        let mut open = gates::open(stood.iter().copied(), &self.settings.ports);
        // What was open without this call was known when the instance's record came.
        open.retain(|way| before.iter().all(|known| known.gate != way.gate));
        let ids: Vec<&str> = ids.split(',').filter(|id| !id.is_empty()).collect();
        Ok((!open.is_empty()).then(|| evidence(&change.group, &ids, &open, joined).caused_by([&*change.group])))
    }
}

fn evidence(group: &str, ids: &[&str], open: &[Way], joined: Timestamp) -> Evidence {
    let ports = gates::ports(open.iter().map(|way| way.gate));
    let first = ids.first().copied().unwrap_or_default();
    let (instances, others): (Vec<&str>, Vec<&str>) = ids.iter().partition(|id| id.starts_with("i-"));
    let since = open.iter().map(|way| way.since).min().unwrap_or(joined);
    let who = if first.is_empty() { "An instance".to_owned() } else { first.chars().take(32).collect() };
    let group_shown: String = group.chars().take(32).collect();
    let mut evidence = Evidence::about(if first.is_empty() { group } else { first })
        .titled(format!("{who} has the security group {group_shown}, which is open to the world"))
        .topic(format!("security_group_open/{group}"))
        .fact("group_id", group)
        .fact("ports", ports)
        .fact("world_rules", gates::rule_facts(open))
        .fact("open_for_s", joined.seconds_since(since));
    for (name, ids) in [("instance_ids", instances), ("interface_ids", others)] {
        if ids.iter().any(|id| !id.is_empty()) {
            evidence = evidence.fact(name, ids);
        }
    }
    evidence
}

/// Account and region: what an id is unique in.
fn place(event: &Event<'_>) -> String {
    [&*event.account, &*event.region].join("/")
}

/// The instances of a call, each once with the groups of all its interfaces; the empty one when the call started instances
/// and its record does not tell which.
fn by_instance(members: &[Member]) -> Vec<(String, Vec<String>)> {
    let mut instances: Vec<(String, Vec<String>)> = Vec::new();
    for member in members.iter().filter(|m| !m.instance.is_empty() || m.interface.is_empty()) {
        let at = instances.iter().position(|(id, _)| *id == member.instance).unwrap_or_else(|| {
            instances.push((member.instance.clone(), Vec::new()));
            instances.len() - 1
        });
        let groups = &mut instances[at].1;
        groups.extend(member.groups.iter().filter(|g| !groups.contains(g)).cloned().collect::<Vec<_>>());
    }
    instances
}

fn groups_of(named: &[Named]) -> Vec<&str> {
    let mut groups: Vec<&str> = named.iter().flat_map(|n| &n.groups).map(String::as_str).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn having<'n>(named: &'n [Named], group: &'n str) -> impl Iterator<Item = &'n str> {
    named.iter().filter(move |n| n.groups.iter().any(|g| g == group)).map(|n| &*n.id)
}

/// Whether the call itself gives the instance the tag that leaves it out.
fn is_tagged(event: &Event<'_>, instance: &str, settings: &Settings) -> Result<bool, Malformed> {
    let asked = event.request()?["tagSpecificationSet"]["items"].as_array().map_or(&[][..], Vec::as_slice);
    let made = event.response()?["instancesSet"]["items"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(asked.iter().any(|set| set["resourceType"] == "instance" && has_tag(&set["tags"], settings))
        || made.iter().take(MADE_MAX).any(|i| i["instanceId"] == instance && has_tag(&i["tagSet"]["items"], settings)))
}

/// Whether a list of `{"key", "value"}` has the tag. `DeleteTags` may leave the value out.
fn has_tag(tags: &Value, settings: &Settings) -> bool {
    !settings.exclusion_tag.is_empty()
        && tags.as_array().is_some_and(|tags| {
            tags.iter().any(|tag| {
                tag["key"] == settings.exclusion_tag.as_str()
                    && tag["value"].as_str().is_none_or(|v| v == settings.exclusion_value)
            })
        })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Opens or closes a group.
    Group,
    /// Gives an instance or interface groups, or starts it.
    Members,
    /// Tags it.
    Tags,
}

impl Call {
    fn of(event: &Event<'_>) -> Self {
        let name = &*event.name;
        if gates::CALLS.iter().any(|call| call.eq_ignore_ascii_case(name)) {
            Self::Group
        } else if ["CreateTags", "DeleteTags"].iter().any(|call| call.eq_ignore_ascii_case(name)) {
            Self::Tags
        } else {
            Self::Members
        }
    }
}
