//! Security group closed to the world.
//!
//! **What it detects.** Good news: a world-open rule on a watched port was revoked or narrowed, or a group known to
//! be open was deleted.
//!
//! **Why it matters.** It ends the open incident, so that people look at what is still open.
//!
//! **False positives.** A group that two rules open is reported closed when the first of them goes, unless both came
//! in one call and the other names the same port. A revocation that EC2 answered with "no such rule" is not a
//! closing.
//!
//! **Response.** None; it resolves the incident of `security_group_opened_to_world`.
//!
//! **References.** <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, Observations};
use shared::ports::Files;

use crate::ingress::{self, Rule};

/// State cuts values at 512 bytes.
const MEMORY_BYTES_MAX: usize = 500;
/// Remembered in place of rules once the group is closed.
const CLOSED: &str = "closed";

/// See the module.
pub struct SecurityGroupClosed {
    settings: Settings,
}

/// The `[classifiers.security_group_closed]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The TCP ports whose closing counts. Default: those of `security_group_opened_to_world`; change both together.
    pub ports: Vec<u16>,
    /// How many days an opened group is known. Default 90, the reach of CloudTrail's event history.
    pub known_days: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ports: vec![22, 3389, 3306, 5432, 21, 23], known_days: 90 }
    }
}

impl Classifier for SecurityGroupClosed {
    const META: Meta = Meta {
        id: "security_group_closed",
        title: "Security group closed to the world",
        severity: Severity::Info,
        techniques: &["T1562.007"],
        patterns: &[Pattern::Api {
            source: "ec2.amazonaws.com",
            names: &[
                "AuthorizeSecurityGroupIngress",
                "DeleteSecurityGroup",
                "ModifySecurityGroupRules",
                "RevokeSecurityGroupIngress",
            ],
        }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &["https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html"],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if settings.ports.is_empty() {
            return Err(SettingsError::new("ports", "name at least one port"));
        }
        if !(1..=3650).contains(&settings.known_days) {
            return Err(SettingsError::new("known_days", "must be from 1 to 3650"));
        }
        Ok(Self { settings })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let key = [&*event.account, &*event.region, ingress::group_id(event)?].join("/");
        let ttl_s = self.settings.known_days * 86_400;
        let none = Observations::none();
        Ok(match Call::of(event) {
            Call::Authorize | Call::Modify => {
                let rules = ingress::rules_made(event)?;
                let offending = ingress::world_open(&rules, &self.settings.ports).1;
                match ingress::to_memory(offending, MEMORY_BYTES_MAX) {
                    text if !text.is_empty() => none.remember("open", key, text, ttl_s),
                    _ if Call::of(event) == Call::Modify => none.recall("open", key, ttl_s),
                    _ => none,
                }
            }
            Call::Revoke if self.revoked(event)?.is_empty() => none.recall("open", key, ttl_s),
            Call::Revoke | Call::Delete => none.remember("open", key, CLOSED, ttl_s),
        })
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let opened = known.last("open").previous.filter(|(_, rules)| rules != CLOSED);
        let open_rules: Vec<Rule> = opened.iter().flat_map(|(_, text)| ingress::from_memory(text)).collect();
        let how = match Call::of(event) {
            Call::Authorize => return Ok(None),
            Call::Delete if opened.is_none() => return Ok(None),
            Call::Delete => "group deleted",
            Call::Modify => {
                let made = ingress::rules_made(event)?;
                let stays_open = !ingress::world_open(&made, &self.settings.ports).0.is_empty();
                if stays_open || !names_one(&ingress::rule_ids(event)?, &open_rules, false) {
                    return Ok(None);
                }
                "rule narrowed"
            }
            Call::Revoke => {
                let revoked = self.revoked(event)?;
                if revoked.is_empty() {
                    let ids = ingress::rule_ids(event)?;
                    if opened.is_none() || !names_one(&ids, &open_rules, true) {
                        return Ok(None);
                    }
                } else if self.stays_open(&open_rules, &revoked) {
                    return Ok(None);
                }
                "rule revoked"
            }
        };
        let group = ingress::group_id(event)?;
        let closed: Vec<Value> = match Call::of(event) {
            Call::Revoke => self.revoked(event)?.iter().map(Rule::to_fact).collect(),
            _ => Vec::new(),
        };
        let mut evidence = Evidence::about(group)
            .resolves()
            .topic(format!("security_group_open/{group}"))
            .fact("group_id", group)
            .fact("how", how)
            .fact(
                "closed_rules",
                if closed.is_empty() { open_rules.iter().map(Rule::to_fact).collect() } else { closed },
            );
        if let Some((since, _)) = opened {
            evidence = evidence.fact("open_for_s", event.time.seconds_since(since));
        }
        Ok(Some(evidence))
    }
}

impl SecurityGroupClosed {
    /// The world-open rules on watched ports that the call revoked.
    fn revoked(&self, event: &Event<'_>) -> Result<Vec<Rule>, Malformed> {
        let rules = ingress::rules_revoked(event)?;
        Ok(ingress::world_open(&rules, &self.settings.ports).1.into_iter().cloned().collect())
    }

    /// Whether a rule made together with the revoked ones still lets the world in on one of their ports.
    fn stays_open(&self, open: &[Rule], revoked: &[Rule]) -> bool {
        let gone = |rule: &Rule| revoked.iter().any(|r| r.to_fact() == rule.to_fact());
        let left: Vec<Rule> = open.iter().filter(|r| !gone(r)).cloned().collect();
        left.len() < open.len() && !ingress::world_open(&left, &self.settings.ports).0.is_empty()
    }
}

/// Whether one of the ids is an opened rule's. `unknown` is the answer when the opening did not tell its ids.
fn names_one(ids: &[String], open: &[Rule], unknown: bool) -> bool {
    if ids.is_empty() {
        return false;
    }
    let mut known = open.iter().map(|r| &r.rule_id).filter(|id| !id.is_empty()).peekable();
    if known.peek().is_none() { unknown } else { known.any(|id| ids.contains(id)) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Authorize,
    Modify,
    Revoke,
    Delete,
}

impl Call {
    fn of(event: &Event<'_>) -> Self {
        match event.name.to_ascii_lowercase().as_str() {
            "deletesecuritygroup" => Self::Delete,
            "modifysecuritygrouprules" => Self::Modify,
            "revokesecuritygroupingress" => Self::Revoke,
            _ => Self::Authorize,
        }
    }
}
