//! Which instances and network interfaces have which security groups, as EC2 calls tell.
//!
//! Pure: it reads request and response shapes. What a call does not say is left empty, never guessed.

use serde_json::Value;
use shared::classifier::Malformed;
use shared::event::Event;

/// Members of one call beyond this many are not read: keeps a forged record from costing time.
const MEMBERS_MAX: usize = 1000;
/// Groups of one interface beyond this many are not read: EC2 allows 16 at most (VPC quotas).
const GROUPS_MAX: usize = 16;

/// An instance or interface, and the groups it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// `i-…`; empty when the call does not say.
    pub instance: String,
    /// `eni-…`; empty when the call does not say.
    pub interface: String,
    /// `sg-…`, each once; empty when the call does not say.
    pub groups: Vec<String>,
}

/// The instances and interfaces that a call is about.
///
/// # Errors
/// When the call must name one and does not, or names it with something that is not text.
pub fn members(event: &Event<'_>) -> Result<Vec<Member>, Malformed> {
    let (request, response) = (event.request()?, event.response()?);
    Ok(match event.name.to_ascii_lowercase().as_str() {
        "runinstances" => started(request, response),
        "startinstances" => items(&request["instancesSet"])
            .iter()
            .take(MEMBERS_MAX)
            .map(|item| Ok(Member { instance: needed(item, "instanceId")?, ..Member::default() }))
            .collect::<Result<_, Malformed>>()?,
        "modifyinstanceattribute" if request["groupSet"].is_null() => Vec::new(),
        "modifyinstanceattribute" => {
            let instance = needed(request, "instanceId")?;
            vec![Member { instance, groups: groups(&request["groupSet"]), ..Member::default() }]
        }
        "modifynetworkinterfaceattribute" if request["groupSet"].is_null() => Vec::new(),
        "modifynetworkinterfaceattribute" => {
            let interface = needed(request, "networkInterfaceId")?;
            vec![Member { interface, groups: groups(&request["groupSet"]), ..Member::default() }]
        }
        "attachnetworkinterface" => {
            let (instance, interface) = (needed(request, "instanceId")?, needed(request, "networkInterfaceId")?);
            vec![Member { instance, interface, groups: Vec::new() }]
        }
        "createnetworkinterface" => {
            let made = &response["networkInterface"];
            let member = Member {
                interface: text(made, "networkInterfaceId"),
                groups: groups(&made["groupSet"]),
                ..Member::default()
            };
            if member.interface.is_empty() { Vec::new() } else { vec![member] }
        }
        _ => Vec::new(),
    })
}

/// The groups of all members, each once.
pub fn groups_of(members: &[Member]) -> Vec<&str> {
    let mut all: Vec<&str> = members.iter().flat_map(|m| &m.groups).map(String::as_str).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The interfaces of every instance that was started; what was asked for when the record does not tell what came of it.
fn started(request: &Value, response: &Value) -> Vec<Member> {
    let mut members = Vec::new();
    for instance in items(&response["instancesSet"]) {
        let id = text(instance, "instanceId");
        let interfaces = items(&instance["networkInterfaceSet"]);
        for interface in interfaces {
            members.push(Member {
                instance: id.clone(),
                interface: text(interface, "networkInterfaceId"),
                groups: groups(&interface["groupSet"]),
            });
        }
        if interfaces.is_empty() {
            members.push(Member { instance: id, groups: groups(&instance["groupSet"]), ..Member::default() });
        }
        if members.len() >= MEMBERS_MAX {
            break;
        }
    }
    if members.is_empty() {
        let mut asked = groups(&request["groupSet"]);
        asked.extend(items(&request["networkInterfaceSet"]).iter().flat_map(|i| groups(&i["groupSet"])));
        asked.truncate(GROUPS_MAX);
        members.push(Member { groups: asked, ..Member::default() });
    }
    members
}

/// Group ids in `{"items": [{"groupId": "sg-…"}]}`.
fn groups(set: &Value) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for id in items(set).iter().filter_map(|g| g["groupId"].as_str()).take(GROUPS_MAX) {
        if !groups.iter().any(|known| known == id) {
            groups.push(id.to_owned());
        }
    }
    groups
}

/// The list in `{"items": […]}`; empty when it is not there.
fn items(set: &Value) -> &[Value] {
    match set {
        Value::Array(list) => list,
        other => other["items"].as_array().map_or(&[], Vec::as_slice),
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn needed(value: &Value, key: &'static str) -> Result<String, Malformed> {
    match &value[key] {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::String(_) | Value::Null => Err(Malformed::missing(&format!("requestParameters.{key}"))),
        _ => Err(Malformed::wrong(&format!("requestParameters.{key}"), "a string")),
    }
}
