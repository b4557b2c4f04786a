//! The model of "this rule admits the world on these ports", shared by the security group classifiers.
//!
//! Pure: it reads the request and response shapes of EC2's security group calls and answers questions about them. It
//! does not know which ports matter, nor who asked for the rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};
use shared::classifier::Malformed;
use shared::event::{Event, Part};
use shared::observation::MAX_KEY_BYTES;

/// Address ranges at least this wide (`/7`) are worth remembering: a few of them together can be the world.
/// Our choice: nobody owns a range wider than `/8`, so no honest rule is that wide.
const WIDE_PREFIX_LEN_MAX: u8 = 7;

/// Rules of one call beyond this many are not read: EC2 lets no group have more (VPC quotas, rules times groups of an
/// interface). Keeps a forged record from costing time.
const RULES_MAX: usize = 1000;

/// First and last address of the ranges whose addresses anyone can have, of IPv4 and of IPv6, ascending. IPv4: all but "this
/// network", private, shared, loopback and link-local addresses, multicast and what is reserved (IANA IPv4 special-purpose
/// registry). IPv6: 2000::/3 (RFC 4291).
const PUBLIC_V4: [(u128, u128); 7] = [
    between([1, 0, 0, 0], [9, 255, 255, 255]),
    between([11, 0, 0, 0], [100, 63, 255, 255]),
    between([100, 128, 0, 0], [126, 255, 255, 255]),
    between([128, 0, 0, 0], [169, 253, 255, 255]),
    between([169, 255, 0, 0], [172, 15, 255, 255]),
    between([172, 32, 0, 0], [192, 167, 255, 255]),
    between([192, 169, 0, 0], [223, 255, 255, 255]),
];
const PUBLIC_V6: [(u128, u128); 1] = [(0x2000 << 112, (0x4000 << 112) - 1)];

const fn between(first: [u8; 4], last: [u8; 4]) -> (u128, u128) {
    (u32::from_be_bytes(first) as u128, u32::from_be_bytes(last) as u128)
}

/// What a rule lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `-1`: every protocol and port.
    All,
    /// `tcp` or `6`.
    Tcp,
    /// Any other; its numbers are not TCP ports.
    Other,
}

/// One ingress rule with an address range as its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The protocol, as we understand it.
    pub protocol: Protocol,
    /// The protocol, as written; what a call that revokes the rule must repeat.
    pub protocol_text: String,
    /// First port, 0 to 65,535.
    pub from_port: u16,
    /// Last port.
    pub to_port: u16,
    /// The range, as written.
    pub cidr: String,
    /// The rule's description; empty when there is none.
    pub description: String,
    /// `sgr-…`; empty when the record does not say.
    pub rule_id: String,
}

impl Rule {
    /// Whether the rule lets TCP connections to `port` through.
    pub fn admits(&self, port: u16) -> bool {
        match self.protocol {
            Protocol::Tcp | Protocol::All => self.from_port <= port && port <= self.to_port,
            Protocol::Other => false,
        }
    }

    /// The ports of `ports` that the rule lets through.
    pub fn admitted<'p>(&self, ports: impl IntoIterator<Item = &'p u16>) -> Vec<u16> {
        ports.into_iter().copied().filter(|p| self.admits(*p)).collect()
    }

    /// Whether its range alone is the world: any `/0`.
    pub fn is_world(&self) -> bool {
        prefix_len(&self.cidr) == Some(0)
    }

    /// How many bits its range fixes; `None` when it is no range.
    pub fn prefix_len(&self) -> Option<u8> {
        prefix_len(&self.cidr)
    }

    /// Whether its range is a large part of the world, though not all of it.
    pub fn is_wide(&self) -> bool {
        !self.is_world()
            && span(&self.cidr).is_some()
            && prefix_len(&self.cidr).is_some_and(|len| len <= WIDE_PREFIX_LEN_MAX)
    }

    /// The rule as a fact for the responder, as EC2 keeps it.
    pub fn to_fact(&self) -> Value {
        let (protocol, from, to, cidr) = self.kept();
        json!({ "protocol": protocol, "from_port": from, "to_port": to, "cidr": cidr })
    }

    /// What makes it this rule of its group, as EC2 keeps it: `tcp` for `6`, no host bits in the range, and ports −1 when
    /// the protocol is `-1`, which has none.
    fn kept(&self) -> (&str, i32, i32, String) {
        let (from, to) = (i32::from(self.from_port), i32::from(self.to_port));
        let (protocol, from, to) = match self.protocol {
            Protocol::All => ("-1", -1, -1),
            Protocol::Tcp => ("tcp", from, to),
            Protocol::Other => (self.protocol_text.as_str(), from, to),
        };
        let cidr = self.cidr.parse::<IpNet>().map_or_else(|_| self.cidr.clone(), |range| range.trunc().to_string());
        (protocol, from, to, cidr)
    }

    /// Its names in its group, with a space between them: what it admits, as no group has two rules that admit the same
    /// from the same, and its id where that is known. What state keeps of a rule that stands.
    pub fn names(&self) -> String {
        let (protocol, from, to, cidr) = self.kept();
        let admits = format!("{protocol}|{from}|{to}|{cidr}").replace(char::is_whitespace, "");
        if is_rule_id(&self.rule_id) { format!("{admits} {}", self.rule_id) } else { admits }
    }

    /// Reads [`Rule::names`]; `None` when the text was cut.
    pub fn from_names(names: &str) -> Option<Self> {
        let (admits, rule_id) = names.split_once(' ').unwrap_or((names, ""));
        let mut parts = admits.splitn(4, '|');
        let protocol_text = parts.next()?.to_owned();
        let protocol = protocol(&protocol_text);
        let (from, to) = (parts.next()?, parts.next()?);
        let (from_port, to_port) =
            if protocol == Protocol::All { (0, u16::MAX) } else { (from.parse().ok()?, to.parse().ok()?) };
        let (cidr, rule_id) = (parts.next()?.to_owned(), rule_id.to_owned());
        prefix_len(&cidr)?;
        Some(Self { protocol, protocol_text, from_port, to_port, cidr, rule_id, description: String::new() })
    }
}

/// Several rules as one text of their names, as long as state keeps texts: rules that do not fit are left out.
pub fn to_memory<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> String {
    let mut text = String::new();
    for rule in rules {
        let one = rule.names();
        if text.len() + one.len() < MAX_KEY_BYTES {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&one);
        }
    }
    text
}

/// Reads [`to_memory`].
pub fn from_memory(text: &str) -> impl Iterator<Item = Rule> {
    text.split(',').filter_map(Rule::from_names)
}

/// The rules that let the world in on `port`: those whose range is the world, and those whose ranges together hold half or
/// more of the addresses anyone can have, in one family, such as 0.0.0.0/1 and 128.0.0.0/1, or all blocks but one. Half is
/// our choice, the measure of `exposure/` too: what cloud providers and content networks publish is a small part of it, and
/// leaving out what one does not need must not hide the rest. Of these, all large ranges are named, and of the narrower
/// ones only as many of the widest as half takes: an office beside them is no fault.
pub fn world_rules_on(rules: &[Rule], port: u16) -> Vec<&Rule> {
    let (mut found, rest): (Vec<&Rule>, Vec<&Rule>) =
        rules.iter().filter(|r| r.admits(port)).partition(|r| r.is_world());
    for (is_v6, public) in [(false, &PUBLIC_V4[..]), (true, &PUBLIC_V6[..])] {
        let mut parts: Vec<RuleSpan<'_>> = rest
            .iter()
            .filter_map(|rule| {
                let (part_is_v6, from, to) = span(&rule.cidr)?;
                (part_is_v6 == is_v6).then_some(RuleSpan { from, to, rule })
            })
            .filter(|part| held(std::slice::from_ref(part), public) > 0)
            .collect();
        let half = public.iter().map(|(from, to)| to - from + 1).sum::<u128>().div_ceil(2);
        parts.sort_by_key(|part| std::cmp::Reverse(part.to - part.from));
        // Once more while what would be left is the world again: the same blocks may stand there several times.
        while held(&parts, public) >= half {
            let wide = parts.partition_point(|part| part.rule.is_wide());
            // What the first so many hold only grows, so the fewest can be searched for.
            let counts: Vec<usize> = (1..=parts.len()).collect();
            let needed = counts.partition_point(|&n| held(&parts[..n], public) < half) + 1;
            found.extend(parts.drain(..wide.max(needed)).map(|part| part.rule));
        }
    }
    found
}

struct RuleSpan<'r> {
    from: u128,
    to: u128,
    rule: &'r Rule,
}

/// How many of the `public` addresses the parts hold together.
fn held(parts: &[RuleSpan<'_>], public: &[(u128, u128)]) -> u128 {
    let mut spans: Vec<(u128, u128)> = parts.iter().map(|part| (part.from, part.to)).collect();
    spans.sort_unstable();
    let (mut held, mut next) = (0, 0);
    for (from, to) in spans {
        let from = from.max(next);
        for (first, last) in public {
            held += (to.min(*last) + 1).saturating_sub(from.max(*first));
        }
        next = next.max(to.saturating_add(1));
    }
    held
}

/// What of the range anyone can have.
pub fn public_pieces(is_v6: bool, from: u128, to: u128) -> impl Iterator<Item = (u128, u128)> {
    let public = if is_v6 { &PUBLIC_V6[..] } else { &PUBLIC_V4[..] };
    public.iter().map(move |(first, last)| (from.max(*first), to.min(*last))).filter(|(first, last)| first <= last)
}

/// The ports of `ports` on which the rules let the world in, ascending, and the rules that do it.
pub fn world_open<'r>(rules: &'r [Rule], ports: &[u16]) -> (Vec<u16>, Vec<&'r Rule>) {
    let mut open_ports = Vec::new();
    let mut offending: Vec<&Rule> = Vec::new();
    for &port in ports {
        let found = world_rules_on(rules, port);
        if !found.is_empty() {
            open_ports.push(port);
        }
        for rule in found {
            if !offending.contains(&rule) {
                offending.push(rule);
            }
        }
    }
    open_ports.sort_unstable();
    open_ports.dedup();
    (open_ports, offending)
}

/// The rules a successful `AuthorizeSecurityGroupIngress` or `ModifySecurityGroupRules` made. Those of the request;
/// where the request names none, those of the response. Rule ids come from the response.
///
/// # Errors
/// When a port, protocol or range has the wrong type.
pub fn rules_made(event: &Event<'_>) -> Result<Vec<Rule>, Malformed> {
    let made = rules_in(event.response()?, "securityGroupRuleSet")?;
    let mut asked = rules_in_request(event.request()?)?;
    if asked.is_empty() {
        return Ok(made);
    }
    for rule in &mut asked {
        let same = |m: &&Rule| m.cidr == rule.cidr && m.from_port == rule.from_port && m.to_port == rule.to_port;
        if rule.rule_id.is_empty()
            && let Some(made) = made.iter().find(same)
        {
            rule.rule_id.clone_from(&made.rule_id);
        }
    }
    Ok(asked)
}

/// The rules a successful `RevokeSecurityGroupIngress` removed: what the response says was revoked, else what the
/// request named, unless EC2 answered that it knew no such rule.
///
/// # Errors
/// When a port, protocol or range has the wrong type.
pub fn rules_revoked(event: &Event<'_>) -> Result<Vec<Rule>, Malformed> {
    let response = event.response()?;
    let revoked = rules_in(response, "revokedSecurityGroupRuleSet")?;
    if !revoked.is_empty() {
        return Ok(revoked);
    }
    let mut unknown = Vec::new();
    for permission in items(&response["unknownIpPermissionSet"]) {
        read_permission(permission, &mut unknown)?;
    }
    let mut asked = rules_in_request(event.request()?)?;
    asked.retain(|a| !unknown.iter().any(|u| u.cidr == a.cidr && u.from_port == a.from_port && u.to_port == a.to_port));
    Ok(asked)
}

/// What `CreateManagedPrefixList` and `ModifyManagedPrefixList` put into a list, each as a rule that admits everything from
/// there. `Entry` and `AddEntry` are one entry or a list of them.
///
/// # Errors
/// When a range has the wrong type.
pub fn prefix_list_entries(event: &Event<'_>) -> Result<Vec<Rule>, Malformed> {
    let request = event.request()?;
    let mut rules = Vec::new();
    for (call, key) in [("CreateManagedPrefixListRequest", "Entry"), ("ModifyManagedPrefixListRequest", "AddEntry")] {
        let entries = match &request[call][key] {
            Value::Array(entries) => entries,
            one @ Value::Object(_) => std::slice::from_ref(one),
            _ => &[],
        };
        let everything = template(&Value::Null)?;
        for entry in entries {
            push(entry, "Cidr", &everything, &mut rules)?;
        }
    }
    Ok(rules)
}

/// The ids of rules that a request names by id.
pub fn rule_ids(event: &Event<'_>) -> Result<Vec<String>, Malformed> {
    let request = event.request()?;
    let mut ids: Vec<String> = items(&request["securityGroupRuleIds"])
        .iter()
        .filter_map(|i| i.as_str().or_else(|| i["securityGroupRuleId"].as_str()))
        .map(str::to_owned)
        .collect();
    for update in modified(request) {
        ids.extend(update["SecurityGroupRuleId"].as_str().map(str::to_owned));
    }
    ids.retain(|id| is_rule_id(id));
    Ok(ids)
}

/// `sgr-` and what EC2 writes behind it.
fn is_rule_id(text: &str) -> bool {
    text.strip_prefix("sgr-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The group a call is about: its id, else its name; empty when CloudTrail left the request out and the response does not
/// say it either.
///
/// # Errors
/// When the record names no group, or names it with something that is not text.
pub fn group_id<'e>(event: &'e Event<'_>) -> Result<&'e str, Malformed> {
    let (request, response) = (event.request()?, event.response()?);
    let first_of = |set: &str| items(&response[set]).first().map_or(&Value::Null, |r| &r["groupId"]);
    let candidates = [
        &request["groupId"],
        &request["ModifySecurityGroupRulesRequest"]["GroupId"],
        &response["groupId"],
        first_of("securityGroupRuleSet"),
        first_of("revokedSecurityGroupRuleSet"),
        &request["groupName"],
    ];
    for candidate in candidates {
        match candidate {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => return Ok(text),
            _ => return Err(Malformed::wrong("requestParameters.groupId", "a string")),
        }
    }
    if event.is_left_out(Part::Request) { Ok("") } else { Err(Malformed::missing("requestParameters.groupId")) }
}

fn rules_in_request(request: &Value) -> Result<Vec<Rule>, Malformed> {
    let mut rules = Vec::new();
    read_flat(request, &mut rules)?;
    for permission in items(&request["ipPermissions"]) {
        read_permission(permission, &mut rules)?;
    }
    for update in modified(request) {
        read_rule(&update["SecurityGroupRule"], &mut rules)?;
        if let (Some(rule), Some(id)) = (rules.last_mut(), update["SecurityGroupRuleId"].as_str()) {
            id.clone_into(&mut rule.rule_id);
        }
    }
    Ok(rules)
}

fn rules_in(response: &Value, set: &str) -> Result<Vec<Rule>, Malformed> {
    let mut rules = Vec::new();
    for rule in items(&response[set]) {
        if rule["isEgress"] != Value::Bool(true) {
            read_rule(rule, &mut rules)?;
        }
    }
    Ok(rules)
}

/// `ModifySecurityGroupRulesRequest.SecurityGroupRule`: one update, or a list of them.
fn modified(request: &Value) -> &[Value] {
    match &request["ModifySecurityGroupRulesRequest"]["SecurityGroupRule"] {
        Value::Array(updates) => updates,
        one @ Value::Object(_) => std::slice::from_ref(one),
        _ => &[],
    }
}

/// The list in `{"items": […]}`; empty for `{}`, null and absent. A bare list is taken as it is.
fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(list) => list,
        other => other["items"].as_array().map_or(&[], Vec::as_slice),
    }
}

/// The flat form of the request: one rule beside the group.
fn read_flat(request: &Value, rules: &mut Vec<Rule>) -> Result<(), Malformed> {
    let template = template(request)?;
    for key in ["cidrIp", "cidrIpv6"] {
        push(request, key, &template, rules)?;
    }
    Ok(())
}

/// `ipPermissions.items[]`: one protocol and port range, many sources. Prefix lists and groups are not the world.
fn read_permission(permission: &Value, rules: &mut Vec<Rule>) -> Result<(), Malformed> {
    let template = template(permission)?;
    for (list, key) in [("ipRanges", "cidrIp"), ("ipv6Ranges", "cidrIpv6")] {
        for range in items(&permission[list]) {
            let described = Rule { description: text(range, "description")?.to_owned(), ..template.clone() };
            push(range, key, &described, rules)?;
        }
    }
    Ok(())
}

/// A rule object of a response (`cidrIpv4`) or of a modification (`CidrIpv4`).
fn read_rule(rule: &Value, rules: &mut Vec<Rule>) -> Result<(), Malformed> {
    let template = template(rule)?;
    for key in ["cidrIpv4", "CidrIpv4", "cidrIpv6", "CidrIpv6"] {
        push(rule, key, &template, rules)?;
    }
    Ok(())
}

fn push(source: &Value, key: &str, template: &Rule, rules: &mut Vec<Rule>) -> Result<(), Malformed> {
    let cidr = text(source, key)?.trim();
    if !cidr.is_empty() && rules.len() < RULES_MAX {
        rules.push(Rule { cidr: cidr.to_owned(), ..template.clone() });
    }
    Ok(())
}

/// Protocol, ports, description and id of a rule, in camel or Pascal case.
fn template(rule: &Value) -> Result<Rule, Malformed> {
    let either = |camel: &str, pascal: &str| match &rule[camel] {
        Value::Null => rule[pascal].clone(),
        value => value.clone(),
    };
    let protocol_text = match either("ipProtocol", "IpProtocol") {
        Value::Null => "-1".to_owned(),
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => return Err(Malformed::wrong("ipProtocol", "a string")),
    };
    let (from, to) = (port(&either("fromPort", "FromPort"))?, port(&either("toPort", "ToPort"))?);
    let protocol = protocol(&protocol_text);
    // The API ignores ports when the protocol is -1.
    let (from_port, to_port) = match protocol {
        Protocol::All => (0, u16::MAX),
        Protocol::Tcp | Protocol::Other => (from.unwrap_or(0), to.unwrap_or(u16::MAX)),
    };
    let described = match either("description", "Description") {
        Value::String(text) => text,
        _ => String::new(),
    };
    let rule_id = rule["securityGroupRuleId"].as_str().unwrap_or_default().to_owned();
    Ok(Rule { protocol, protocol_text, from_port, to_port, cidr: String::new(), description: described, rule_id })
}

fn protocol(text: &str) -> Protocol {
    match text.trim().to_ascii_lowercase().as_str() {
        "-1" | "all" | "" => Protocol::All,
        "tcp" | "6" => Protocol::Tcp,
        _ => Protocol::Other,
    }
}

/// A port as number or text; `None` for absent and −1, which mean no limit. Numbers above 65,535 are cut to it.
fn port(value: &Value) -> Result<Option<u16>, Malformed> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(-1) => Ok(None),
        Some(number @ 0..) => Ok(Some(u16::try_from(number).unwrap_or(u16::MAX))),
        _ => Err(Malformed::wrong("fromPort or toPort", "a port number")),
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str, Malformed> {
    match &value[key] {
        Value::Null => Ok(""),
        Value::String(text) => Ok(text),
        _ => Err(Malformed::wrong(key, "a string")),
    }
}

/// The length behind the slash, also where the address is not one: `/0` is the world whatever stands before it.
fn prefix_len(cidr: &str) -> Option<u8> {
    cidr.rsplit_once('/')?.1.parse().ok()
}

/// Whether a range is IPv6, and its first and last address; `None` when it is no range.
pub fn span(cidr: &str) -> Option<(bool, u128, u128)> {
    let (address, len) = cidr.rsplit_once('/')?;
    let len: u32 = len.parse().ok()?;
    let (is_v6, bits, width) = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(v4) => (false, u128::from(Ipv4Addr::to_bits(v4)), 32),
        IpAddr::V6(v6) => (true, Ipv6Addr::to_bits(v6), 128),
    };
    let host = u32::checked_sub(width, len)?;
    let mask = 1_u128.checked_shl(host).map_or(u128::MAX, |top| top - 1);
    Some((is_v6, bits & !mask, bits | mask))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(protocol_text: &str, from_port: u16, to_port: u16, cidr: &str) -> Rule {
        Rule {
            protocol: protocol(protocol_text),
            protocol_text: protocol_text.to_owned(),
            from_port,
            to_port,
            cidr: cidr.to_owned(),
            description: String::new(),
            rule_id: String::new(),
        }
    }

    fn tcp(from_port: u16, to_port: u16, cidr: &str) -> Rule {
        rule("tcp", from_port, to_port, cidr)
    }

    fn request(text: &str) -> Vec<Rule> {
        rules_in_request(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn the_three_request_shapes_say_the_same() {
        let flat = request(
            r#"{"groupId":"sg-1","cidrIp":"0.0.0.0/0","fromPort":22,"toPort":22,"ipProtocol":"tcp","ipPermissions":{}}"#,
        );
        let list = request(
            r#"{"groupId":"sg-1","ipPermissions":{"items":[{"ipProtocol":"tcp","fromPort":22,"toPort":22,
                "ipRanges":{"items":[{"cidrIp":"0.0.0.0/0"}]},"ipv6Ranges":{},"prefixListIds":{},"groups":{}}]}}"#,
        );
        let modified = request(
            r#"{"ModifySecurityGroupRulesRequest":{"GroupId":"sg-1","SecurityGroupRule":
                {"SecurityGroupRule":{"CidrIpv4":"0.0.0.0/0","FromPort":22,"ToPort":22,"IpProtocol":"tcp"},"tag":1}}}"#,
        );
        assert_eq!(flat, [tcp(22, 22, "0.0.0.0/0")]);
        assert_eq!(list, flat);
        assert_eq!(modified, flat);
    }

    #[test]
    fn prefix_lists_and_groups_are_not_the_world() {
        let rules = request(
            r#"{"ipPermissions":{"items":[{"ipProtocol":"-1","ipRanges":{},"prefixListIds":{"items":[{"prefixListId":"pl-1"}]},
                "groups":{"items":[{"groupId":"sg-1"}]}}]}}"#,
        );
        assert_eq!(rules, []);
    }

    #[test]
    fn any_zero_prefix_is_the_world() {
        for cidr in ["0.0.0.0/0", "::/0", "198.51.100.7/0", "999.1.2.3/0"] {
            assert!(tcp(22, 22, cidr).is_world(), "{cidr}");
        }
        for cidr in ["0.0.0.0", "0.0.0.0/1", "10.0.0.0/8", "198.51.100.0/24", "::/1", ""] {
            assert!(!tcp(22, 22, cidr).is_world(), "{cidr}");
        }
    }

    #[test]
    fn halves_are_the_world_together_and_on_the_same_port() {
        let halves = [tcp(22, 22, "0.0.0.0/1"), tcp(0, 1000, "128.0.0.0/1")];
        assert_eq!(world_rules_on(&halves, 22).len(), 2);
        assert_eq!(world_rules_on(&halves, 80).len(), 0);
        assert_eq!(world_rules_on(&halves[1..], 22).len(), 0, "the upper half is 43 % of what anyone can have");
        assert_eq!(world_rules_on(&halves[..1], 22).len(), 1, "the lower half is 57 %");
        let quarters = ["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/3"].map(|c| tcp(22, 22, c));
        assert_eq!(world_rules_on(&quarters, 22).len(), 4, "224.0.0.0/3 cannot call anyone");
        assert_eq!(world_rules_on(&[tcp(22, 22, "2000::/3")], 22).len(), 1);
        assert_eq!(world_rules_on(&[tcp(22, 22, "::/1")], 22).len(), 1, "::/1 holds all of 2000::/3");
        let crowd = ["0.0.0.0/1", "203.0.113.9/32", "128.0.0.0/1", "0.0.0.0/2", "10.0.0.0/8"].map(|c| tcp(22, 22, c));
        let cidrs: Vec<&str> = world_rules_on(&crowd, 22).iter().map(|r| r.cidr.as_str()).collect();
        assert_eq!(cidrs, ["0.0.0.0/1", "128.0.0.0/1", "0.0.0.0/2"], "what is narrow or nobody's is no fault");
        let twice = ["0.0.0.0/1", "128.0.0.0/1", "0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"];
        let twice = twice.map(|c| tcp(22, 22, c));
        assert_eq!(world_rules_on(&twice, 22).len(), 6, "closing some would leave the others");
        let mixed = [tcp(22, 22, "128.0.0.0/1"), tcp(22, 22, "2000::/5")];
        assert_eq!(world_rules_on(&mixed, 22).len(), 0);
    }

    #[test]
    fn narrow_ranges_are_the_world_when_they_are_half_of_it() {
        let blocks = |n: u8| -> Vec<Rule> { (11..11 + n).map(|a| tcp(22, 22, &format!("{a}.0.0.0/8"))).collect() };
        assert_eq!(world_rules_on(&blocks(60), 22).len(), 0, "as many as a group takes by default");
        assert!(world_rules_on(&blocks(112), 22).len() > 100);
        let mut some = blocks(60);
        some.push(tcp(22, 22, "128.0.0.0/2"));
        let found = world_rules_on(&some, 22);
        assert_eq!((&*found[0].cidr, found.len()), ("128.0.0.0/2", 48), "only as many as half takes");
    }

    #[test]
    fn absent_minus_one_and_text_ports_are_read() {
        for body in [
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":"tcp"}"#,
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":"6","fromPort":-1,"toPort":-1}"#,
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":"-1","fromPort":80,"toPort":80}"#,
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":-1}"#,
            r#"{"cidrIp":"0.0.0.0/0"}"#,
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":"TCP","fromPort":"20","toPort":"25"}"#,
        ] {
            assert!(request(body)[0].admits(22), "{body}");
        }
        for body in [
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":"udp","fromPort":22,"toPort":22}"#,
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":"icmp","fromPort":-1,"toPort":-1}"#,
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":"tcp","fromPort":25,"toPort":20}"#,
            r#"{"cidrIp":"0.0.0.0/0","ipProtocol":"tcp","fromPort":70000,"toPort":70001}"#,
        ] {
            assert!(!request(body)[0].admits(22), "{body}");
        }
    }

    #[test]
    fn a_forged_record_of_many_rules_stays_cheap() {
        let range = r#"{"cidrIp":"0.0.0.0/0"},"#.repeat(50_000);
        let ranges = range.trim_end_matches(',');
        let body =
            format!(r#"{{"ipPermissions":{{"items":[{{"ipProtocol":"-1","ipRanges":{{"items":[{ranges}]}}}}]}}}}"#);
        assert_eq!(request(&body).len(), RULES_MAX);
    }

    #[test]
    fn wrong_types_are_named() {
        for (body, field) in [
            (r#"{"cidrIp":7,"fromPort":22}"#, "cidrIp"),
            (r#"{"cidrIp":"0.0.0.0/0","fromPort":[22]}"#, "fromPort or toPort"),
            (r#"{"cidrIp":"0.0.0.0/0","ipProtocol":{}}"#, "ipProtocol"),
        ] {
            let error = rules_in_request(&serde_json::from_str(body).unwrap()).unwrap_err();
            assert_eq!(error.field, field);
        }
    }

    proptest! {
        #[test]
        fn a_tcp_rule_admits_exactly_its_ports(from: u16, to: u16, port: u16) {
            prop_assert_eq!(tcp(from, to, "::/0").admits(port), (from..=to).contains(&port));
            prop_assert!(rule("-1", 0, u16::MAX, "::/0").admits(port));
            prop_assert!(!rule("udp", from, to, "::/0").admits(port));
        }

        #[test]
        fn splitting_a_world_rule_by_port_changes_no_answer(mut ports: [u16; 3], port: u16) {
            ports.sort_unstable();
            let [from, cut, to] = ports;
            prop_assume!(cut < to);
            let whole = [tcp(from, to, "0.0.0.0/0")];
            let split = [tcp(from, cut, "0.0.0.0/0"), tcp(cut + 1, to, "0.0.0.0/0")];
            prop_assert_eq!(world_open(&whole, &[port]).0, world_open(&split, &[port]).0);
        }

        #[test]
        fn splitting_the_world_by_address_changes_no_answer(depth in 1_u32..6, v6: bool) {
            let n = 1_u32 << depth;
            let cidr = |i: u32| if v6 {
                format!("{}/{depth}", Ipv6Addr::from_bits(u128::from(i) << (128 - depth)))
            } else {
                format!("{}/{depth}", Ipv4Addr::from_bits(i << (32 - depth)))
            };
            let all: Vec<Rule> = (0..n).map(|i| tcp(22, 22, &cidr(i))).collect();
            prop_assert_eq!(world_open(&all, &[22]).0, [22]);
        }

        #[test]
        fn leaving_out_one_address_hides_nothing(v4: u32, v6: u128) {
            // The other half of every network that holds it.
            let v4 = (1..=32).map(|len| format!("{}/{len}", Ipv4Addr::from_bits((v4 ^ 1 << (32 - len)) & u32::MAX << (32 - len))));
            let v6 = (1..=128).map(|len| format!("{}/{len}", Ipv6Addr::from_bits((v6 ^ 1 << (128 - len)) & u128::MAX << (128 - len))));
            for cidrs in [v4.collect::<Vec<_>>(), v6.collect()] {
                let rules: Vec<Rule> = cidrs.iter().map(|cidr| tcp(22, 22, cidr)).collect();
                prop_assert!(!world_rules_on(&rules, 22).is_empty());
            }
        }

        #[test]
        fn half_of_what_anyone_can_have_is_the_world(nets in proptest::collection::vec((1_u32..=16, any::<u32>()), 0..12)) {
            let nets: Vec<(u32, u32)> = nets.into_iter().map(|(len, bits)| (len, bits & u32::MAX << (32 - len))).collect();
            let rules: Vec<Rule> = nets.iter().map(|(len, bits)| tcp(22, 22, &format!("{}/{len}", Ipv4Addr::from_bits(*bits)))).collect();
            // Every special range is made of whole /16, so counting those is exact.
            let is_public = |block: &u32| {
                let (a, b) = (block >> 8, block & 0xff);
                (1..224).contains(&a) && a != 10 && a != 127 && !(a == 100 && b & 0xc0 == 64) && (a, b) != (169, 254)
                    && !(a == 172 && b & 0xf0 == 16) && (a, b) != (192, 168)
            };
            let public: Vec<u32> = (0..1 << 16).filter(is_public).collect();
            let holds = |block: &&u32| nets.iter().any(|(len, bits)| (**block << 16) & u32::MAX << (32 - len) == *bits);
            let held = public.iter().filter(holds).count();
            let found = world_rules_on(&rules, 22);
            prop_assert_eq!(!found.is_empty(), held * 2 >= public.len());
            let rest: Vec<Rule> = rules.iter().filter(|r| !found.contains(r)).cloned().collect();
            prop_assert!(world_rules_on(&rest, 22).is_empty(), "closing what is named closes it");
        }

        #[test]
        fn memory_reads_back(from: u16, to: u16, all: bool) {
            let rules = [rule(if all { "-1" } else { "tcp" }, from, to, "0.0.0.0/1"), tcp(from, to, "::/0")];
            let facts = |rules: &[Rule]| rules.iter().map(Rule::to_fact).collect::<Vec<_>>();
            let read: Vec<Rule> = from_memory(&to_memory(&rules)).collect();
            prop_assert_eq!(facts(&read), facts(&rules));
            for rule in rules {
                let named = Rule { rule_id: "sgr-1".to_owned(), ..rule.clone() };
                for rule in [rule, named] {
                    let read = Rule::from_names(&rule.names()).unwrap();
                    prop_assert_eq!((read.to_fact(), &read.rule_id), (rule.to_fact(), &rule.rule_id));
                }
            }
        }

        #[test]
        fn no_request_panics(text in r#"\{("(cidrIp|fromPort|toPort|ipProtocol)":("[-0-9a-f:./]{0,8}"|-?[0-9]{1,6}|null|\[\]),?){1,4}"#) {
            let text = format!("{}}}", text.trim_end_matches(','));
            if let Ok(value) = serde_json::from_str(&text) {
                let _ = rules_in_request(&value).map(|rules| world_open(&rules, &[22, 3389]).0);
            }
        }
    }
}
