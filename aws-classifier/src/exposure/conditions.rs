//! Whether the conditions of a statement keep strangers out.
//!
//! All operators and keys of a statement must hold, so one that names fixed callers is enough; the values of one key are
//! alternatives, so every one of them must be fixed. Fixed means: no wildcard and no policy variable.
//!
//! Departures from AWS's page, each because the text would otherwise call a closed bucket public: organisation and VPC
//! endpoint owner keys count like the account keys; an ARN may hold wildcards behind a fixed account; a role's
//! `aws:userid` may leave the session name open; `${aws:ResourceAccount}` and its kin are the bucket's own account.
//! In the other direction, many address ranges that cover half of IPv4 together are public too.
//!
//! An organization, a network or an endpoint is named by an id that does not say whose it is, so whoever wrote the policy
//! may have named a stranger's. [`Trust`] says what that is worth; accounts are always compared.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{Unreadable, account_of, is_account, texts};

/// Whom the conditions leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Anyone, or too many to tell.
    None,
    /// Fixed callers, networks or services.
    Fixed,
    /// Only callers of these accounts.
    Accounts(BTreeSet<String>),
}

impl Limit {
    /// Both must hold.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, limit) | (limit, Self::None) => limit,
            (Self::Accounts(mut a), Self::Accounts(b)) => {
                a.retain(|account| b.contains(account));
                Self::Accounts(a)
            }
            (accounts @ Self::Accounts(_), Self::Fixed) | (Self::Fixed, accounts @ Self::Accounts(_)) => accounts,
            (Self::Fixed, Self::Fixed) => Self::Fixed,
        }
    }

    /// One of both must hold.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::Accounts(mut a), Self::Accounts(b)) => {
                a.extend(b);
                Self::Accounts(a)
            }
            (accounts @ Self::Accounts(_), Self::Fixed) | (Self::Fixed, accounts @ Self::Accounts(_)) => accounts,
            (Self::Fixed, Self::Fixed) => Self::Fixed,
        }
    }
}

/// What conditions are worth that name something without saying whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'s> {
    /// Whether the address, network or endpoint that callers have to come from is a limit.
    pub places: bool,
    /// Organizations that are a limit, `o-exampleorg1`; empty when nobody knows which are ours, and then all are.
    pub organizations: &'s [String],
}

impl Trust<'static> {
    /// As S3 has it: all of them are limits.
    pub const ALL: Self = Self { places: true, organizations: &[] };
}

impl Trust<'_> {
    fn organization(self, id: &str) -> bool {
        is_plain(id) && (self.organizations.is_empty() || self.organizations.iter().any(|ours| ours == id))
    }
}

/// Whom an `Allow` with these conditions lets in.
pub(super) fn allowed(condition: &Value, trust: Trust<'_>) -> Result<Limit, Unreadable> {
    let mut limit = Limit::None;
    for (operator, key, values) in entries(condition)? {
        limit = limit.and(positive(&operator, &key, &values, trust));
    }
    Ok(limit)
}

/// Whom a `Deny` with these conditions spares. Without conditions, nobody: `None` in the outer sense.
pub(super) fn spared(condition: &Value, trust: Trust<'_>) -> Result<Option<Limit>, Unreadable> {
    let mut limit: Option<Limit> = None;
    for (operator, key, values) in entries(condition)? {
        let one = negative(&operator, &key, &values, trust);
        limit = Some(match limit {
            None => one,
            Some(limit) => limit.or(one),
        });
    }
    Ok(limit)
}

/// The organizations, addresses, networks and endpoints that conditions name.
pub(super) fn places(condition: &Value) -> Result<impl Iterator<Item = String>, Unreadable> {
    let named = entries(condition)?.into_iter().filter(|(_, key, _)| is_place(key) || is_organization(key));
    Ok(named.flat_map(|(_, _, values)| values))
}

fn is_place(key: &str) -> bool {
    matches!(key, "aws:sourceip" | "aws:sourcevpc" | "aws:sourcevpce" | "vpc-lattice-svcs:sourcevpc")
}

fn is_organization(key: &str) -> bool {
    ["aws:principalorg", "aws:sourceorg", "aws:vpceorg"]
        .iter()
        .any(|of| key.strip_prefix(of).is_some_and(|what| matches!(what, "id" | "paths")))
}

/// Operator and key in lower case, with the values.
pub(super) fn entries(condition: &Value) -> Result<Vec<(String, String, Vec<String>)>, Unreadable> {
    const BLOCK: Unreadable = Unreadable { field: "Statement.Condition", expected: "an object of operators" };
    let operators = match condition {
        Value::Null => return Ok(Vec::new()),
        Value::Object(operators) => operators,
        _ => return Err(BLOCK),
    };
    let mut entries = Vec::new();
    for (operator, keys) in operators {
        for (key, values) in keys.as_object().ok_or(BLOCK)? {
            let values = texts(values).ok_or(BLOCK)?;
            entries.push((operator.to_ascii_lowercase(), key.to_ascii_lowercase(), values));
        }
    }
    Ok(entries)
}

/// What one entry of an `Allow` leaves. `…IfExists` and `ForAllValues:` also hold when the key is absent, and a
/// stranger's request can lack it; negated operators leave everyone else.
fn positive(operator: &str, key: &str, values: &[String], trust: Trust<'_>) -> Limit {
    let operator = operator.strip_prefix("foranyvalue:").unwrap_or(operator);
    match operator {
        "stringequals" | "stringequalsignorecase" | "stringlike" | "arnequals" | "arnlike" | "ipaddress" => {
            fixed(key, values, trust)
        }
        "bool" => mounted_only(key, values).unwrap_or_else(|| service_only(key, values, "true")),
        _ => Limit::None,
    }
}

/// What one entry of a `Deny` leaves. Negated operators hold when the key is absent, with or without `IfExists`, so a
/// stranger without the key is denied; `ForAnyValue:` does not hold then.
fn negative(operator: &str, key: &str, values: &[String], trust: Trust<'_>) -> Limit {
    let operator = operator.strip_prefix("forallvalues:").unwrap_or(operator);
    match operator.strip_suffix("ifexists").unwrap_or(operator) {
        "stringnotequals"
        | "stringnotequalsignorecase"
        | "stringnotlike"
        | "arnnotequals"
        | "arnnotlike"
        | "notipaddress" => fixed(key, values, trust),
        "bool" => service_only(key, values, "false"),
        _ => Limit::None,
    }
}

/// `aws:PrincipalIsAWSService`: the caller is an AWS service itself.
fn service_only(key: &str, values: &[String], wanted: &str) -> Limit {
    let only = key == "aws:principalisawsservice" && values.iter().all(|v| v.eq_ignore_ascii_case(wanted));
    if only { Limit::Fixed } else { Limit::None }
}

/// `elasticfilesystem:AccessedViaMountTarget`: the caller is inside the network of the file system.
fn mounted_only(key: &str, values: &[String]) -> Option<Limit> {
    let only = key == "elasticfilesystem:accessedviamounttarget"
        && !values.is_empty()
        && values.iter().all(|v| v.eq_ignore_ascii_case("true"));
    only.then_some(Limit::Fixed)
}

/// Whom these values of a key stand for.
fn fixed(key: &str, values: &[String], trust: Trust<'_>) -> Limit {
    let all =
        |is_fixed: &dyn Fn(&str) -> bool| if values.iter().all(|v| is_fixed(v)) { Limit::Fixed } else { Limit::None };
    match key {
        "aws:sourceip" | "aws:sourcevpc" | "aws:sourcevpce" | "vpc-lattice-svcs:sourcevpc" if !trust.places => {
            Limit::None
        }
        "aws:sourceip" => {
            if narrow_networks(values) {
                Limit::Fixed
            } else {
                Limit::None
            }
        }
        "aws:sourceowner" | "aws:sourceaccount" | "aws:vpceaccount" | "vpc-lattice-svcs:sourcevpcowneraccount" => {
            match accounts(values, Some) {
                Limit::None => all(&is_plain_or_own),
                limit => limit,
            }
        }
        "aws:sourcevpc"
        | "aws:sourcevpce"
        | "vpc-lattice-svcs:sourcevpc"
        | "aws:principalservicename"
        | "aws:principalservicenameslist"
        | "s3:x-amz-server-side-encryption-aws-kms-key-id" => all(&is_plain_or_own),
        "aws:principalorgid" | "aws:sourceorgid" | "aws:vpceorgid" => {
            all(&|v| v == "${aws:ResourceOrgID}" || trust.organization(v))
        }
        "aws:principalorgpaths" | "aws:sourceorgpaths" | "aws:vpceorgpaths" => all(&|v| {
            v == "${aws:ResourceOrgPaths}" || v.split_once('/').is_some_and(|(org, _)| trust.organization(org))
        }),
        "aws:sourcearn" => all(&|v| is_plain(v) || account_of(v).is_some_and(is_account) || is_one_bucket(v)),
        "aws:userid" => all(&|v| {
            let role = v.split_once(':').map_or(v, |(role, _)| role);
            is_plain(role)
        }),
        "aws:principalaccount" | "kms:calleraccount" | "s3:dataaccesspointaccount" => accounts(values, Some),
        "aws:principalarn" | "s3:dataaccesspointarn" => accounts(values, account_of),
        _ => Limit::None,
    }
}

/// The accounts that values name; `None` when one names none. The bucket's own is left out.
fn accounts<'v>(values: &'v [String], account: impl Fn(&'v str) -> Option<&'v str>) -> Limit {
    let mut named = BTreeSet::new();
    for value in values {
        match account(value) {
            Some(id) if is_account(id) => drop(named.insert(id.to_owned())),
            Some("${aws:ResourceAccount}") => {}
            _ => return Limit::None,
        }
    }
    Limit::Accounts(named)
}

/// `arn:aws:s3:*:*:reports`: the name of a bucket is its owner's alone, also where region and account are left open.
fn is_one_bucket(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    parts.next() == Some("arn") && parts.nth(1) == Some("s3") && parts.nth(2).is_some_and(is_plain)
}

/// Neither wildcard nor policy variable, and not empty.
pub(super) fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(['*', '?']) && !text.contains("${")
}

fn is_plain_or_own(text: &str) -> bool {
    matches!(text, "${aws:ResourceAccount}" | "${aws:ResourceOrgID}") || is_plain(text)
}

/// No range broader than `/8` or (IPv6) `/32` unless it is private, and all together less than half of IPv4. The limits
/// are S3's own.
fn narrow_networks(values: &[String]) -> bool {
    let mut addresses = 0_u64;
    for value in values {
        let network = match value.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => match value.parse::<IpNet>() {
                Ok(network) => network,
                Err(_) => return false,
            },
        };
        let narrow = match network {
            IpNet::V4(v4) if v4.network().is_private() && v4.broadcast().is_private() => true,
            IpNet::V4(v4) => {
                addresses = addresses.saturating_add(1 << (32 - v4.prefix_len()));
                v4.prefix_len() >= 8
            }
            IpNet::V6(v6) => v6.prefix_len() >= 32 || (v6.prefix_len() >= 7 && v6.network().is_unique_local()),
        };
        if !narrow {
            return false;
        }
    }
    addresses < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limit(condition: &Value) -> Limit {
        allowed(condition, Trust::ALL).unwrap()
    }

    #[test]
    fn fixed_callers_and_networks_are_a_limit() {
        for condition in [
            json!({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}),
            json!({"IpAddress": {"aws:SourceIp": ["203.0.113.7", "10.0.0.0/8", "2001:db8::/32", "fc00::/7"]}}),
            json!({"StringEquals": {"aws:SourceVpc": "vpc-1"}}),
            json!({"StringEquals": {"AWS:SOURCEVPCE": ["vpce-1", "vpce-2"]}}),
            json!({"StringEquals": {"aws:PrincipalOrgID": "o-exampleorg1"}}),
            json!({"StringEquals": {"aws:PrincipalOrgID": "${aws:ResourceOrgID}"}}),
            json!({"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": "o-exampleorg1/r-1/ou-1/*"}}),
            json!({"ArnLike": {"aws:SourceArn": "arn:aws:cloudtrail:*:123456789012:trail/*"}}),
            json!({"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::bucket"}}),
            json!({"StringLike": {"aws:userid": "AROAEXAMPLE:*"}}),
            json!({"Bool": {"aws:PrincipalIsAWSService": "true"}}),
            json!({"Bool": {"elasticfilesystem:AccessedViaMountTarget": "true"}}),
            json!({"StringEquals": {"aws:SourceVpc": "vpc-1"}, "Bool": {"aws:SecureTransport": true}}),
        ] {
            assert_eq!(limit(&condition), Limit::Fixed, "{condition}");
        }
        for condition in [
            json!({"StringEquals": {"aws:PrincipalAccount": "210987654321"}}),
            json!({"StringEquals": {"kms:CallerAccount": "210987654321", "kms:ViaService": "s3.eu-west-1.amazonaws.com"}}),
            json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::210987654321:role/*"}}),
            json!({"ArnLike": {"s3:DataAccessPointArn": "arn:aws:s3:eu-west-1:210987654321:accesspoint/*"}}),
        ] {
            assert_eq!(limit(&condition), Limit::Accounts(BTreeSet::from(["210987654321".to_owned()])), "{condition}");
        }
        let own = json!({"StringEquals": {"aws:PrincipalAccount": "${aws:ResourceAccount}"}});
        assert_eq!(limit(&own), Limit::Accounts(BTreeSet::new()));
    }

    #[test]
    fn what_a_stranger_can_satisfy_is_no_limit() {
        for condition in [
            Value::Null,
            json!({}),
            json!({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}),
            json!({"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "0.0.0.0/1"]}}),
            json!({"IpAddress": {"aws:SourceIp": "::/0"}}),
            json!({"IpAddress": {"aws:SourceIp": "198.51.100.7/0"}}),
            json!({"IpAddress": {"aws:SourceIp": (0..200).map(|i| format!("{i}.0.0.0/8")).collect::<Vec<_>>()}}),
            json!({"IpAddress": {"aws:VpcSourceIp": "10.0.0.0/8"}}),
            json!({"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}),
            json!({"StringLike": {"aws:SourceVpc": "vpc-*"}}),
            json!({"StringEquals": {"aws:SourceVpc": ["vpc-1", "*"]}}),
            json!({"StringEqualsIfExists": {"aws:SourceVpc": "vpc-1"}}),
            json!({"IpAddressIfExists": {"aws:SourceIp": "203.0.113.0/24"}}),
            json!({"ForAllValues:StringEquals": {"aws:PrincipalOrgPaths": "o-exampleorg1/"}}),
            json!({"StringNotEquals": {"aws:PrincipalOrgID": "o-exampleorg1"}}),
            json!({"StringLike": {"aws:PrincipalOrgID": "o-*"}}),
            json!({"StringEquals": {"aws:PrincipalAccount": "${aws:PrincipalAccount}"}}),
            json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/admin"}}),
            json!({"StringLike": {"aws:PrincipalArn": "*"}}),
            json!({"StringLike": {"aws:Referer": "https://www.example.com/*"}}),
            json!({"StringEquals": {"aws:UserAgent": "secret"}}),
            json!({"StringEquals": {"aws:PrincipalTag/team": "a"}}),
            json!({"Bool": {"aws:SecureTransport": "true"}}),
            json!({"Bool": {"elasticfilesystem:AccessedViaMountTarget": "false"}}),
            json!({"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}),
            json!({"Null": {"aws:SourceVpce": "false"}}),
            json!({"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}}),
            json!({"StringEquals": {"s3:prefix": "public/"}}),
        ] {
            assert_eq!(limit(&condition), Limit::None, "{condition}");
        }
    }

    #[test]
    fn a_deny_spares_those_its_conditions_do_not_meet() {
        let spared = |condition: Value| spared(&condition, Trust::ALL).unwrap();
        assert_eq!(spared(Value::Null), None);
        assert_eq!(spared(json!({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}})), Some(Limit::Fixed));
        assert_eq!(spared(json!({"StringNotEqualsIfExists": {"aws:SourceVpce": "vpce-1"}})), Some(Limit::Fixed));
        assert_eq!(
            spared(json!({"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"},
                "Bool": {"aws:PrincipalIsAWSService": "false"}})),
            Some(Limit::Fixed)
        );
        for everyone in [
            json!({"Bool": {"aws:SecureTransport": "false"}}),
            json!({"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}, "Bool": {"aws:SecureTransport": "false"}}),
            json!({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}),
            json!({"ForAnyValue:StringNotEquals": {"aws:PrincipalOrgPaths": "o-exampleorg1/"}}),
            json!({"StringNotLike": {"aws:SourceVpce": "vpce-*"}}),
            json!({"Null": {"aws:SourceVpce": "true"}}),
        ] {
            assert_eq!(spared(everyone.clone()), Some(Limit::None), "{everyone}");
        }
    }

    #[test]
    fn what_does_not_say_whose_it_is_is_worth_what_is_trusted() {
        let ours = ["o-ours".to_owned()];
        let (lenient, strict) = (Trust::ALL, Trust { places: false, organizations: &ours });
        for (key, value) in [
            ("aws:SourceVpc", "vpc-1"),
            ("aws:SourceVpce", "vpce-1"),
            ("aws:SourceIp", "203.0.113.7"),
            ("vpc-lattice-svcs:SourceVpc", "vpc-1"),
            ("aws:PrincipalOrgID", "o-theirs"),
            ("aws:PrincipalOrgPaths", "o-theirs/r-1/"),
            ("aws:SourceOrgID", "o-theirs"),
            ("aws:VpceOrgID", "o-theirs"),
        ] {
            let (is, is_not) =
                if key == "aws:SourceIp" { ("IpAddress", "NotIpAddress") } else { ("StringEquals", "StringNotEquals") };
            let (is, is_not) = (json!({is: {key: value}}), json!({is_not: {key: value}}));
            assert_eq!(allowed(&is, lenient), Ok(Limit::Fixed), "{key}");
            assert_eq!(allowed(&is, strict), Ok(Limit::None), "{key}");
            assert_eq!(spared(&is_not, lenient), Ok(Some(Limit::Fixed)), "{key}");
            assert_eq!(spared(&is_not, strict), Ok(Some(Limit::None)), "{key}");
        }
        for ours in [
            json!({"StringEquals": {"aws:PrincipalOrgID": "o-ours"}}),
            json!({"StringEquals": {"aws:PrincipalOrgID": "${aws:ResourceOrgID}"}}),
            json!({"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": "o-ours/r-1/*"}}),
        ] {
            assert_eq!(allowed(&ours, strict), Ok(Limit::Fixed), "{ours}");
        }
    }

    #[test]
    fn conditions_of_another_shape_are_named() {
        for condition in [json!([]), json!({"StringEquals": "x"}), json!({"StringEquals": {"aws:SourceVpc": {}}})] {
            assert_eq!(allowed(&condition, Trust::ALL).unwrap_err().field, "Statement.Condition", "{condition}");
        }
    }
}
