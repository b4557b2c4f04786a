//! One ingress rule, its ports, and what is left of them.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;

/// One ingress rule as EC2 keeps it: protocol, ports and one source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) protocol: String,
    pub(super) ports: Ports,
    pub(super) source: Source,
}

/// An address range as EC2 stores it: without the bits behind the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    pub(super) address: IpAddr,
    pub(super) len: u8,
}

impl Source {
    pub(super) fn parse(cidr: &str) -> Option<Self> {
        let (address, len) = cidr.split_once('/')?;
        let len: u8 = len.parse().ok()?;
        let address = match address.parse().ok()? {
            IpAddr::V4(v4) if len <= 32 => {
                IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)).into())
            }
            IpAddr::V6(v6) if len <= 128 => {
                IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)).into())
            }
            _ => return None,
        };
        Some(Self { address, len })
    }

    pub(super) fn cidr(self) -> String {
        format!("{}/{}", self.address, self.len)
    }
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ports {
    /// The protocol has none, or all protocols are meant.
    None,
    /// TCP and UDP.
    Range(u16, u16),
    /// ICMP type and code, kept as they are.
    Icmp(i64, i64),
}

impl Rule {
    /// The rule of an `IpPermission` as [`Rule::permission`] writes it: with one source.
    pub(super) fn of_permission(permission: &Value) -> Option<Self> {
        let range = |list: &str, name: &str| match &permission[list] {
            Value::Null => Some(None),
            Value::Array(ranges) if ranges.len() == 1 => ranges[0][name].as_str().map(Some),
            _ => None,
        };
        let cidr = match (range("IpRanges", "CidrIp")?, range("Ipv6Ranges", "CidrIpv6")?) {
            (Some(cidr), None) | (None, Some(cidr)) => cidr,
            _ => return None,
        };
        Self::of(permission, cidr)
    }

    /// A `SecurityGroupRule` of `DescribeSecurityGroupRules` whose source is an address range.
    pub(super) fn of_live(rule: &Value) -> Option<Self> {
        let cidr = rule["CidrIpv4"].as_str().or_else(|| rule["CidrIpv6"].as_str())?;
        Self::of(rule, cidr)
    }

    /// From `IpProtocol`, `FromPort` and `ToPort`.
    fn of(part: &Value, cidr: &str) -> Option<Self> {
        let source = Source::parse(cidr)?;
        let protocol = protocol(Some(&part["IpProtocol"])).ok()?;
        let (from, to) = (part["FromPort"].as_i64(), part["ToPort"].as_i64());
        let ports = match protocol.as_str() {
            "tcp" | "udp" => {
                let range = ports(from, to).ok()?;
                Ports::Range(*range.start(), *range.end())
            }
            "icmp" | "icmpv6" => Ports::Icmp(from.unwrap_or(-1), to.unwrap_or(-1)),
            _ => Ports::None,
        };
        Some(Self { protocol, ports, source })
    }

    /// Whether this rule lets in what offends in `rule`: its `parts`, or `ports` where the protocol is all of them. ICMP and
    /// protocols without ports are not compared.
    pub(super) fn opens_part_of(&self, rule: &Self, parts: &[RangeInclusive<u16>], ports: Option<&[u16]>) -> bool {
        let listed: Vec<RangeInclusive<u16>>;
        let parts = match (&rule.ports, ports) {
            (Ports::Range(..), _) => parts,
            (Ports::None, Some(ports)) if rule.protocol == "-1" => {
                listed = ports.iter().map(|&port| port..=port).collect();
                &listed
            }
            _ => return false,
        };
        match self.ports {
            Ports::Range(from, to) => {
                (self.protocol == rule.protocol || rule.protocol == "-1")
                    && parts.iter().any(|part| from <= *part.end() && *part.start() <= to)
            }
            Ports::None => self.protocol == "-1",
            Ports::Icmp(..) => false,
        }
    }

    /// Such as `tcp 22-22 from 0.0.0.0/0`.
    pub(super) fn words(&self) -> String {
        let ports = match self.ports {
            Ports::Range(from, to) => format!(" {from}-{to}"),
            Ports::None | Ports::Icmp(..) => String::new(),
        };
        let protocol = if self.protocol == "-1" { "everything" } else { &self.protocol };
        format!("{protocol}{ports} from {}", self.source.cidr())
    }

    /// An `IpPermission` with this rule's one source.
    pub(super) fn permission(&self, description: Option<&str>) -> Value {
        let mut permission = Map::new();
        permission.insert("IpProtocol".to_owned(), json!(self.protocol));
        match self.ports {
            Ports::None => {}
            Ports::Range(from, to) => {
                permission.insert("FromPort".to_owned(), json!(from));
                permission.insert("ToPort".to_owned(), json!(to));
            }
            Ports::Icmp(kind, code) => {
                permission.insert("FromPort".to_owned(), json!(kind));
                permission.insert("ToPort".to_owned(), json!(code));
            }
        }
        let cidr = self.source.cidr();
        let (name, mut source) = match self.source.address {
            IpAddr::V4(_) => ("IpRanges", json!({"CidrIp": cidr})),
            IpAddr::V6(_) => ("Ipv6Ranges", json!({"CidrIpv6": cidr})),
        };
        if let Some(description) = description.filter(|text| !text.is_empty()) {
            source["Description"] = json!(description);
        }
        permission.insert(name.to_owned(), json!([source]));
        Value::Object(permission)
    }

    /// What is left of the rule without `parts`.
    pub(super) fn without(&self, parts: &[RangeInclusive<u16>]) -> Vec<Self> {
        let Ports::Range(from, to) = self.ports else { return Vec::new() };
        without(from..=to, parts)
            .into_iter()
            .map(|rest| Self { ports: Ports::Range(*rest.start(), *rest.end()), ..self.clone() })
            .collect()
    }
}

/// The protocol as EC2 writes it: names where it has them, else the number; `-1` is all.
pub(super) fn protocol(value: Option<&Value>) -> Result<String, &'static str> {
    let text = match value {
        Some(Value::String(text)) => text.to_ascii_lowercase(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err("has no protocol"),
    };
    match text.as_str() {
        "6" | "tcp" => Ok("tcp".to_owned()),
        "17" | "udp" => Ok("udp".to_owned()),
        "1" | "icmp" => Ok("icmp".to_owned()),
        "58" | "icmpv6" => Ok("icmpv6".to_owned()),
        "-1" | "all" => Ok("-1".to_owned()),
        number => number.parse::<u8>().map(|n| n.to_string()).map_err(|_| "has an unknown protocol"),
    }
}

/// `from_port` and `to_port` as numbers; absent and null are `None`.
pub(super) fn bounds(part: &Value) -> Result<(Option<i64>, Option<i64>), &'static str> {
    let bound = |name: &str| match part.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or("has a port that is not a number"),
    };
    Ok((bound("from_port")?, bound("to_port")?))
}

/// A port range; absent or −1 on both sides is every port.
pub(super) fn ports(from: Option<i64>, to: Option<i64>) -> Result<RangeInclusive<u16>, &'static str> {
    match (from.filter(|p| *p != -1), to.filter(|p| *p != -1)) {
        (None, None) => Ok(ALL_PORTS),
        (Some(from), Some(to)) if from <= to => match (u16::try_from(from), u16::try_from(to)) {
            (Ok(from), Ok(to)) => Ok(from..=to),
            _ => Err("has a port above 65535 or below 0"),
        },
        _ => Err("has half a port range, or one that ends before it starts"),
    }
}

/// `whole` without `parts`: disjoint ranges in order, none empty, none that touches the next.
pub(super) fn without(whole: RangeInclusive<u16>, parts: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    let mut parts: Vec<_> = parts.iter().filter(|p| !p.is_empty()).map(|p| (*p.start(), *p.end())).collect();
    parts.sort_unstable();
    let mut left = Vec::new();
    // One past 65535 must be sayable, so the edge is wider than a port.
    let mut next = u32::from(*whole.start());
    for (from, to) in parts {
        if u32::from(from) > next
            && let Ok(start) = u16::try_from(next)
        {
            let end = (from - 1).min(*whole.end());
            if start <= end {
                left.push(start..=end);
            }
        }
        next = next.max(u32::from(to) + 1);
    }
    if let Ok(start) = u16::try_from(next)
        && start <= *whole.end()
    {
        left.push(start..=*whole.end());
    }
    left
}
