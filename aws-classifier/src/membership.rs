//! Which instances and network interfaces have which security groups, as EC2 calls tell.
//!
//! Pure: it reads request and response shapes. What a call does not say is left empty, never guessed.

use std::collections::HashSet;

use serde_json::Value;
use shared::classifier::Malformed;
use shared::event::Event;

/// Members of one call beyond this many are not read: keeps a forged record from costing time.
const MEMBERS_MAX: usize = 1000;
/// Groups of one interface beyond this many are not read: EC2 allows 16 at most (VPC quotas).
const GROUPS_MAX: usize = 16;

/// Different groups of one call beyond this many are not read: one call starts instances of one kind, with at most 15
/// interfaces of 16 groups each.
const GROUPS_OF_CALL_MAX: usize = 256;

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

/// The interfaces of every instance that was started; what was asked for when the record does not tell what came of it.
fn started(request: &Value, response: &Value) -> Vec<Member> {
    let mut members = Vec::new();
    for instance in items(&response["instancesSet"]) {
        let id = text(instance, "instanceId");
        let interfaces = items(&instance["networkInterfaceSet"]);
        for interface in interfaces.iter().take(MEMBERS_MAX) {
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
    let mut different = HashSet::new();
    for member in &mut members {
        member.groups.retain(|group| {
            different.contains(group) || (different.len() < GROUPS_OF_CALL_MAX && different.insert(group.clone()))
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_that_names_more_groups_than_can_be_stays_cheap() {
        let groups =
            |n: usize| json!({"items": (0..16).map(|g| json!({"groupId": format!("sg-{n}x{g}")})).collect::<Vec<_>>()});
        let interface = |n: usize| json!({"networkInterfaceId": format!("eni-{n}"), "groupSet": groups(n)});
        let instance =
            |n: usize| json!({"instanceId": format!("i-{n}"), "networkInterfaceSet": {"items": [interface(n)]}});
        let response = json!({"instancesSet": {"items": (0..2000).map(instance).collect::<Vec<_>>()}});
        let members = started(&Value::Null, &response);
        assert_eq!(members.len(), MEMBERS_MAX);
        assert_eq!(members.iter().map(|m| m.groups.len()).sum::<usize>(), GROUPS_OF_CALL_MAX);
        let crowded = json!({"instanceId": "i-1", "networkInterfaceSet": {"items": (0..5000).map(interface).collect::<Vec<_>>()}});
        assert_eq!(started(&Value::Null, &json!({"instancesSet": {"items": [crowded]}})).len(), MEMBERS_MAX);
        let alike = json!({"instancesSet": {"items": (0..500).map(|n| json!({"instanceId": format!("i-{n}"), "groupSet": groups(1)})).collect::<Vec<_>>()}});
        assert!(started(&Value::Null, &alike).iter().all(|member| member.groups.len() == 16));
    }
}
