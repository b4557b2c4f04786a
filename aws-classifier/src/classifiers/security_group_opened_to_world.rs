//! Security group opened to the world.
//!
//! **What it detects.** An inbound security group rule that lets the whole internet reach a remote-access, database
//! or file-transfer port, on a port, a port range or all ports: any `/0` range, or ranges that together hold half or
//! more of the addresses anyone can have. Also when parts (`/8` and larger) come in separate calls within a day, in
//! whatever order and with whatever else between them, and when an existing rule is modified. Rules so many that CloudTrail
//! leaves them out of the record are medium.
//!
//! **Why it matters.** An open SSH or RDP port is found by scanners within minutes and is a usual first step to a
//! foothold or to carrying data out. AWS and the CIS benchmark advise against every such rule.
//!
//! **False positives.** Bastions that are meant to be public. `ModifySecurityGroupRules` does not say whether a rule
//! is inbound, so an outbound rule rewritten to the world on a watched port is reported too. A range that is not the
//! world is reported (as `info`) only with `restricted_reported`; denied calls change nothing and are not reported. *Not judged:* rules whose source is a prefix list, as the rule
//! does not say what the list holds; `ec2_prefix_list_opened_to_world` reports the list itself.
//!
//! **Response.** `security_group_rule_revoke` revokes exactly the rules of the fact `world_rules`.
//!
//! **References.** <https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html>,
//! <https://attack.mitre.org/techniques/T1562/007/>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, Observations};
use shared::ports::Files;

use crate::ingress::{self, Rule};
use crate::world_parts::{self, Family};

/// For how long it is known what makes a group worse: 90 days, the reach of CloudTrail's event history.
const MARK_KNOWN_S: u32 = 90 * 86_400;
/// Groups of one tagging call beyond this many are not read: EC2 takes 1,000 resources a call.
const TAGGED_MAX: usize = 1000;
/// Remembered in place of a tag that makes a group worse once it is gone.
const UNTAGGED: &str = "";
/// Parts of the world opened by separate calls add up within a day: our choice, longer than any sitting.
const PARTS_WINDOW_S: u32 = 86_400;

/// See the module.
pub struct SecurityGroupOpenedToWorld {
    settings: Settings,
    ports: Vec<u16>,
}

/// The `[classifiers.security_group_opened_to_world]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// TCP ports whose opening is critical. Default 22 (SSH), as the system before this one had it.
    pub ports_critical: Vec<u16>,
    /// TCP ports whose opening is high. Default 3389 (RDP), 3306 (MySQL), 5432 (PostgreSQL), 21 (FTP), 23 (Telnet).
    pub ports_high: Vec<u16>,
    /// Words that make a rule suspicious when its description or its group's has one that begins with them: such
    /// rules are made in passing and forgotten. High becomes critical.
    pub words_raised: Vec<String>,
    /// Values of the tag `environment` that make high critical.
    pub environments_raised: Vec<String>,
    /// Report, as `info`, watched ports opened to a range that is not the world. Off by default: it is every day's work.
    pub restricted_reported: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ports_critical: vec![22],
            ports_high: vec![3389, 3306, 5432, 21, 23],
            words_raised: ["test", "temp", "open", "debug"].map(str::to_owned).to_vec(),
            environments_raised: ["prod", "production"].map(str::to_owned).to_vec(),
            restricted_reported: false,
        }
    }
}

impl Classifier for SecurityGroupOpenedToWorld {
    const META: Meta = Meta {
        id: "security_group_opened_to_world",
        title: "Security group opened to the world",
        severity: Severity::High,
        techniques: &["T1562.007", "T1133"],
        patterns: &[Pattern::Api {
            source: "ec2.amazonaws.com",
            names: &[
                "AuthorizeSecurityGroupIngress",
                "CreateSecurityGroup",
                "CreateTags",
                "DeleteTags",
                "ModifySecurityGroupRules",
            ],
        }],
        failed_calls: FailedCalls::Ignored,
        responses: &["security_group_rule_revoke"],
        references: &[
            "https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html",
            "https://attack.mitre.org/techniques/T1562/007/",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        let ports: Vec<u16> = settings.ports_critical.iter().chain(&settings.ports_high).copied().collect();
        if ports.is_empty() {
            return Err(SettingsError::new("ports_critical", "name at least one port here or in ports_high"));
        }
        if settings.words_raised.iter().any(|w| w.trim().is_empty()) {
            return Err(SettingsError::new("words_raised", "an empty word would match every description"));
        }
        Ok(Self { settings, ports })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let call = Call::of(event);
        if let Call::Tag | Call::Untag = call {
            return self.observe_tags(event, call);
        }
        let group = ingress::group_id(event)?;
        if group.is_empty() {
            return Ok(Observations::none());
        }
        let group = [&*event.account, &*event.region, group].join("/");
        if call == Call::Create {
            let request = event.request()?;
            let mut observations = Observations::none();
            if let Some(word) = request["groupDescription"].as_str().and_then(|d| self.raising_word(d)) {
                let mark = format!("description says {word}");
                observations = observations.remember("mark", group.clone(), mark, MARK_KNOWN_S);
            }
            if let Some(tag) = self.raising_tag(request) {
                observations = observations.remember("tag", group, tag, MARK_KNOWN_S);
            }
            return Ok(observations);
        }
        let rules = ingress::rules_made(event)?;
        let watched = |r: &&Rule| !r.admitted(&self.ports).is_empty();
        let mut observations = Observations::none();
        if rules.iter().any(|r| watched(&r)) {
            observations = observations.recall("mark", group.clone(), MARK_KNOWN_S);
            observations = observations.recall("tag", group.clone(), MARK_KNOWN_S);
        }
        for part in self.parts(&rules) {
            let key = format!("{group}/{}/{}", part.port, part.family.number());
            observations = observations.distinct("networks", key, part.network.to_string(), PARTS_WINDOW_S);
        }
        let wide: Vec<&Rule> =
            rules.iter().filter(watched).filter(|r| !r.is_world() && world_parts::is_part(r)).collect();
        if let Some(widest) = wide.iter().filter_map(|rule| rule.prefix_len()).min() {
            // State answers the first values, so those of the widest rules come first.
            let parts = format!("{widest} {}", ingress::to_memory(wide));
            observations = observations.distinct("parts", group, parts, PARTS_WINDOW_S);
        }
        Ok(observations)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        if Call::of(event) != Call::Open {
            return Ok(None);
        }
        let group = ingress::group_id(event)?;
        if group.is_empty() {
            return Ok(Some(untold()));
        }
        let mut rules = ingress::rules_made(event)?;
        let own = rules.clone();
        let parts = known.count("parts").values;
        let parts = parts.iter().filter_map(|text| text.split_once(' '));
        for part in parts.flat_map(|(_, rules)| ingress::from_memory(rules)) {
            if !rules.iter().any(|r| r.to_fact() == part.to_fact()) {
                rules.push(part);
            }
        }
        let (mut open_ports, mut offending) = ingress::world_open(&rules, &self.ports);
        // Of many parts not all rules are remembered, but how many networks they hold is.
        let shown = open_ports.clone();
        let mut networks_held = 0;
        for (Opened { port, family, .. }, count) in self.parts(&own).iter().zip(known.counts("networks")) {
            if shown.contains(port) || !family.is_world(count.now) {
                continue;
            }
            networks_held = networks_held.max(count.now);
            if !open_ports.contains(port) {
                open_ports.push(*port);
                for rule in world_parts::holders(&rules, *port, *family) {
                    if !offending.contains(&rule) {
                        offending.push(rule);
                    }
                }
            }
        }
        open_ports.sort_unstable();
        if open_ports.is_empty() {
            return Ok(self.restricted(group, &rules));
        }
        let raised = rules
            .iter()
            .find_map(|r| self.raising_word(&r.description).map(|w| format!("rule description says {w}")))
            .or_else(|| self.raising_tag(event.request().ok()?))
            .or_else(|| {
                let remembered = |label| Some(known.last(label).by(event.time)?.1.clone());
                let mark =
                    [remembered("mark"), remembered("tag")].into_iter().flatten().find(|mark| mark != UNTAGGED)?;
                Some(format!("group: {mark}"))
            });
        let is_critical = open_ports.iter().any(|p| self.settings.ports_critical.contains(p)) || raised.is_some();
        let mut evidence = Evidence::about(group)
            .titled(format!("Security group {} opened to the world on {}", shortened(group), named(&open_ports)))
            .severity(if is_critical { Severity::Critical } else { Severity::High })
            .topic(format!("security_group_open/{group}"))
            .fact("group_id", group)
            .fact("ports", open_ports)
            .fact("world_rules", offending.iter().map(|r| r.to_fact()).collect::<Vec<Value>>());
        let ids: Vec<&str> = offending.iter().map(|r| &*r.rule_id).filter(|id| !id.is_empty()).collect();
        if !ids.is_empty() {
            evidence = evidence.fact("rule_ids", ids);
        }
        if let Some(description) = offending.iter().map(|r| &*r.description).find(|d| !d.is_empty()) {
            evidence = evidence.fact("description", description);
        }
        if let Some(raised) = raised {
            evidence = evidence.fact("raised_because", raised);
        }
        if networks_held > 0 {
            // The rules of this call are named, without which it is not the world; of earlier ones only some.
            evidence = evidence.fact("networks_held", networks_held);
        }
        Ok(Some(evidence))
    }
}

/// A network that a call opens on a port.
struct Opened {
    port: u16,
    family: Family,
    network: u8,
}

fn untold() -> Evidence {
    Evidence::about("")
        .titled("Rules were added to a security group, and the record leaves out which")
        .severity(Severity::Medium)
}

impl SecurityGroupOpenedToWorld {
    /// The parts of the world that the rules open on watched ports, each network by itself. What is the world already needs
    /// no other parts.
    fn parts(&self, rules: &[Rule]) -> Vec<Opened> {
        let mut parts = Vec::new();
        for &port in &self.ports {
            if !ingress::world_rules_on(rules, port).is_empty() {
                continue;
            }
            for family in Family::ALL {
                let networks = world_parts::networks(rules, port, family);
                parts.extend(networks.into_iter().map(|network| Opened { port, family, network }));
            }
        }
        parts
    }

    fn restricted(&self, group: &str, rules: &[Rule]) -> Option<Evidence> {
        let rule = rules.iter().find(|r| !r.admitted(&self.ports).is_empty())?;
        self.settings.restricted_reported.then(|| {
            Evidence::about(group)
                .titled("Security group opened on a watched port to a restricted range")
                .severity(Severity::Info)
                .fact("group_id", group)
                .fact("ports", rule.admitted(&self.ports))
                .fact("rule", rule.to_fact())
        })
    }

    /// `CreateTags` and `DeleteTags` on groups: the tag `environment` as it is from now on.
    fn observe_tags(&self, event: &Event<'_>, call: Call) -> Result<Observations, Malformed> {
        let request = event.request()?;
        let list = |set: &str| request[set]["items"].as_array().map_or(&[][..], Vec::as_slice);
        let tags = list("tagSet");
        let environment = tags.iter().find(|tag| tag["key"].as_str().is_some_and(is_environment));
        let now = match (call, environment) {
            (Call::Tag, Some(tag)) => self.raised(tag).unwrap_or_else(|| UNTAGGED.to_owned()),
            // One that names a value takes away no other.
            (Call::Untag, Some(tag)) if tag["value"].is_null() || self.raised(tag).is_some() => UNTAGGED.to_owned(),
            // One that names no tag takes all.
            (Call::Untag, None) if tags.is_empty() => UNTAGGED.to_owned(),
            _ => return Ok(Observations::none()),
        };
        let groups = list("resourcesSet").iter().filter_map(|r| r["resourceId"].as_str());
        let groups = groups.filter(|id| id.starts_with("sg-")).take(TAGGED_MAX);
        Ok(groups.fold(Observations::none(), |observations, id| {
            let group = [&*event.account, &*event.region, id].join("/");
            observations.remember("tag", group, now.clone(), MARK_KNOWN_S)
        }))
    }

    /// The tag `environment` of a request that makes it worse.
    fn raising_tag(&self, request: &Value) -> Option<String> {
        let sets = request["tagSpecificationSet"]["items"].as_array()?;
        let mut tags = sets.iter().filter_map(|s| s["tags"].as_array()).flatten();
        tags.find_map(|tag| self.raised(tag))
    }

    /// What a tag says that makes it worse.
    fn raised(&self, tag: &Value) -> Option<String> {
        let (key, value) = (tag["key"].as_str()?, tag["value"].as_str()?);
        let is_raised =
            is_environment(key) && self.settings.environments_raised.iter().any(|e| e.eq_ignore_ascii_case(value));
        is_raised.then(|| format!("tagged environment={}", value.to_ascii_lowercase()))
    }

    fn raising_word(&self, text: &str) -> Option<&str> {
        let lower = text.to_lowercase();
        let mut words = lower.split(|c: char| !c.is_alphanumeric());
        words.find_map(|word| {
            self.settings.words_raised.iter().find(|w| word.starts_with(&w.to_lowercase())).map(String::as_str)
        })
    }
}

fn is_environment(key: &str) -> bool {
    key.eq_ignore_ascii_case("environment")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Makes a group.
    Create,
    /// Tags it.
    Tag,
    /// Takes tags from it.
    Untag,
    /// Makes rules of it.
    Open,
}

impl Call {
    fn of(event: &Event<'_>) -> Self {
        match event.name.to_ascii_lowercase().as_str() {
            "createsecuritygroup" => Self::Create,
            "createtags" => Self::Tag,
            "deletetags" => Self::Untag,
            _ => Self::Open,
        }
    }
}

/// `port 22` or `ports 22, 3389 and 2 more`.
fn named(ports: &[u16]) -> String {
    let listed: Vec<String> = ports.iter().take(4).map(u16::to_string).collect();
    let more = if ports.len() > 4 { format!(" and {} more", ports.len() - 4) } else { String::new() };
    format!("{} {}{more}", if ports.len() == 1 { "port" } else { "ports" }, listed.join(", "))
}

/// Group names may be 255 characters long; titles may not.
fn shortened(group: &str) -> String {
    group.chars().take(32).collect()
}
