//! The allow-list: what is known and accepted, as `[[allow]]` tables of the configuration.
//!
//! ```toml
//! [[allow]]
//! name = "nightly scanner"                              # how the summary calls it; default: "allow 1", "allow 2", …
//! owner = "platform@example.com"                        # required: who answers for it
//! reason = "enumerates IAM every night, ticket SEC-123" # required
//! expires = 2027-01-31                                  # required: the last day it applies, in UTC
//! role = "security-scanner"
//! network = ["192.0.2.0/24", "2001:db8::/48"]
//! classifier = "iam_*"
//! ```
//!
//! The conditions are `principal`, `role`, `account`, `network`, `resource` and `classifier`. Each takes a text or a list
//! of texts, of which one must match; all conditions of an entry must hold. `*` stands for any characters. An entry
//! without a condition, and a condition that everything matches, are refused.
//!
//! **Time is the event's.** An entry applies to events up to the end of its last day, whenever they are read: a replay
//! of old logs finds the same today and in a year. What an expired entry would have kept back goes out and is counted
//! ([`Judgement::Lapsed`]), so that an entry nobody renewed is noticed by its effect; the command line also names
//! entries that are expired by the calendar.
//!
//! **What an attacker can choose is not trusted.** Whoever assumes a role names the session, so `role` looks only at the
//! role; a bare name, of a user or a role, only matches identities of the account the event happened in, as another
//! account may have a role of the same name. Good news is never kept back, as it may end the incident of another.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use shared::config::Document;
use shared::event::Event;
use shared::text::matches_glob;
use shared::{Timestamp, arn};

/// Texts of which one must match; empty when the entry has no such condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OneOf(Vec<String>);

impl OneOf {
    fn matches(&self, mut each: impl FnMut(&str) -> bool) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| each(pattern))
    }
}

impl<'de> Deserialize<'de> for OneOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = OneOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOf, E> {
                Ok(OneOf(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<OneOf, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = texts.next_element()? {
                    all.push(text);
                }
                Ok(OneOf(all))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// One `[[allow]]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entry {
    /// How the summary calls it. Default: `allow 1` for the first table, `allow 2` for the second, …
    pub name: String,
    /// Who answers for it. Required.
    pub owner: String,
    /// Why it is accepted. Required.
    pub reason: String,
    /// The last day it applies, `2027-01-31`, to its end in UTC. Required.
    pub expires: String,
    /// The caller's ARN, or the name of an IAM user of the event's account.
    pub principal: OneOf,
    /// The role of a session: its ARN, or the name of a role of the event's account.
    pub role: OneOf,
    /// The account the event happened in.
    pub account: OneOf,
    /// Networks or addresses the call came from. Calls that name a service instead do not match.
    pub network: OneOf,
    /// What the finding is about, as findings print it; or all that makes it a threat, such as the open security groups of an
    /// instance: an accepted bastion's group stays accepted when an instance is started in it.
    pub resource: OneOf,
    /// Ids of classifiers.
    pub classifier: OneOf,
}

impl Entry {
    /// Its mistakes, each with the key at fault.
    fn mistakes(&self, knows_classifier: &dyn Fn(&str) -> bool) -> Vec<(String, String)> {
        let mut mistakes: Vec<(&str, String)> = Vec::new();
        for (key, value) in [("owner", &self.owner), ("reason", &self.reason), ("expires", &self.expires)] {
            if value.trim().is_empty() {
                mistakes.push((key, "is missing: every entry says who answers for it, why, and until when".to_owned()));
            }
        }
        if !self.expires.trim().is_empty() && self.until().is_none() {
            mistakes.push(("expires", format!("must be a date such as 2027-01-31, is {}", self.expires)));
        }
        let conditions = [
            ("principal", &self.principal),
            ("role", &self.role),
            ("account", &self.account),
            ("network", &self.network),
            ("resource", &self.resource),
            ("classifier", &self.classifier),
        ];
        if conditions.iter().all(|(_, patterns)| patterns.0.is_empty()) {
            let why = "has no condition and would keep everything back: give it at least one of principal, role, \
                       account, network, resource and classifier";
            mistakes.push(("", why.to_owned()));
        }
        for (key, patterns) in conditions {
            for pattern in &patterns.0 {
                let why = match key {
                    _ if pattern.trim().is_empty() => Some("must not be empty".to_owned()),
                    _ if pattern.bytes().all(|b| b == b'*') => {
                        Some("matches everything: leave the condition out, or say what is meant".to_owned())
                    }
                    "principal" | "role" if !pattern.bytes().all(|b| b.is_ascii_graphic()) => {
                        Some(format!("names in IAM have no spaces and none but ASCII characters, {pattern} has others"))
                    }
                    "principal" | "role" if pattern.starts_with("arn:") => arn::check_pattern(pattern).err(),
                    "network" => match network(pattern) {
                        None => Some(format!("must be a network such as 192.0.2.0/24 or an address, is {pattern}")),
                        Some(net) if net.prefix_len() < widest(net) => {
                            Some(format!("{pattern} is too wide to be one place's: the widest is a /{}", widest(net)))
                        }
                        Some(_) => None,
                    },
                    "account" if !is_account(pattern) => Some(format!("must be a 12-digit account, is {pattern}")),
                    "classifier" if !knows_classifier(pattern) => Some(format!("there is no classifier {pattern}")),
                    _ => None,
                };
                mistakes.extend(why.map(|why| (key, why)));
            }
        }
        mistakes.into_iter().map(|(key, why)| (key.to_owned(), why)).collect()
    }

    /// The end of its last day.
    fn until(&self) -> Option<Timestamp> {
        // Exactly `YYYY-MM-DD`: a time of day behind it would be ignored, so it is refused.
        let date = self.expires.trim();
        (date.len() == 10).then(|| Timestamp::parse(&format!("{date}T23:59:59.999Z"))).flatten()
    }
}

/// 12 digits, or fewer and stars.
fn is_account(pattern: &str) -> bool {
    let digits = pattern.bytes().filter(u8::is_ascii_digit).count();
    let stars = pattern.bytes().filter(|b| *b == b'*').count();
    digits + stars == pattern.len() && (digits == 12 || (stars > 0 && digits < 12))
}

/// IPv4 inside IPv6 is IPv4, as it is of events.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (address @ IpAddr::V4(_), Some(len)) if network.addr().is_ipv6() => IpNet::new(address, len).ok(),
        _ => Some(network),
    }
}

/// The shortest prefix of a network: our choice. A /8 is the largest block of IPv4 that one owner has, fc00::/7 all of
/// the private IPv6; with shorter ones two or three lines would be the whole Internet.
const fn widest(network: IpNet) -> u8 {
    match network {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 7,
    }
}

/// What a classifier found, as the allow-list sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'c> {
    /// The id of the classifier.
    pub classifier: &'c str,
    /// The event.
    pub event: &'c Event<'c>,
    /// Where it happened.
    pub account: &'c str,
    /// What it was done to, uncut.
    pub resource: &'c str,
    /// What makes it a threat to that, uncut; see [`shared::classifier::Evidence::causes`].
    pub causes: &'c [String],
}

/// What the allow-list says. Entries are named by their position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// No entry matches.
    Unknown,
    /// This entry keeps it back.
    Allowed(usize),
    /// This entry would have, and had expired when the event happened.
    Lapsed(usize),
}

/// All entries.
#[derive(Debug, Default)]
pub struct AllowList(Vec<Allowed>);

#[derive(Debug)]
struct Allowed {
    entry: Entry,
    until: Timestamp,
    networks: Vec<IpNet>,
}

impl AllowList {
    /// Reads the `[[allow]]` tables. Mistakes are kept by the document.
    pub fn configure(document: &mut Document<'_>, classifiers: &[&str]) -> Self {
        let knows = |pattern: &str| classifiers.iter().any(|id| matches_glob(pattern, id));
        Self::new(document.tables_with("allow", |entry: &Entry| entry.mistakes(&knows)))
    }

    /// Of entries without mistakes; others are left out.
    fn new(entries: Vec<Entry>) -> Self {
        let allowed = |(number, mut entry): (usize, Entry)| {
            if entry.name.is_empty() {
                entry.name = format!("allow {}", number + 1);
            }
            let until = entry.until()?;
            let networks = entry.network.0.iter().filter_map(|n| network(n)).collect();
            Some(Allowed { entry, until, networks })
        };
        Self(entries.into_iter().enumerate().filter_map(allowed).collect())
    }

    /// The entries with the end of their last day, in the order of the configuration.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&Entry, Timestamp)> {
        self.0.iter().map(|allowed| (&allowed.entry, allowed.until))
    }

    /// Whether an entry keeps the candidate back: the first that matches and has not expired.
    pub fn judge(&self, candidate: Candidate<'_>) -> Judgement {
        let mut judgement = Judgement::Unknown;
        for (number, allowed) in self.0.iter().enumerate() {
            if !allowed.matches(candidate) {
                continue;
            }
            if candidate.event.time <= allowed.until {
                return Judgement::Allowed(number);
            }
            if judgement == Judgement::Unknown {
                judgement = Judgement::Lapsed(number);
            }
        }
        judgement
    }
}

impl Allowed {
    fn matches(&self, Candidate { classifier, event, account, resource, causes }: Candidate<'_>) -> bool {
        let entry = &self.entry;
        let identity = event.identity();
        let is_own = !identity.account.is_empty() && identity.account == account;
        let named = |pattern: &str, arn: &str, name: &str| {
            if pattern.contains(':') { matches_glob(pattern, arn) } else { is_own && bare(pattern, name) }
        };
        let is_role = identity.issuer_arn.contains(":role/");
        entry.classifier.matches(|pattern| matches_glob(pattern, classifier))
            && entry.account.matches(|pattern| matches_glob(pattern, account))
            && (entry.resource.matches(|pattern| matches_glob(pattern, resource))
                || (!causes.is_empty()
                    && causes.iter().all(|cause| entry.resource.matches(|pattern| matches_glob(pattern, cause)))))
            && entry.principal.matches(|pattern| named(pattern, &identity.arn, &identity.user_name))
            && entry.role.matches(|pattern| is_role && named(pattern, &identity.issuer_arn, &identity.issuer_name))
            && (self.networks.is_empty() || self.is_from_network(&event.source_ip))
    }

    fn is_from_network(&self, address: &str) -> bool {
        address.parse::<IpAddr>().is_ok_and(|address| {
            let address = address.to_canonical();
            self.networks.iter().any(|network| network.contains(&address))
        })
    }
}

/// A name without an ARN around it; a missing name matches nothing.
fn bare(pattern: &str, name: &str) -> bool {
    !name.is_empty() && matches_glob(pattern, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn list(text: &str) -> Result<AllowList, String> {
        let mut document = Document::parse("pipeline.toml", text);
        let list = AllowList::configure(&mut document, &["iam_access_key_created", "root_account_used"]);
        document.finish().map(|()| list).map_err(|e| e.to_string())
    }

    /// One entry with these conditions.
    fn entry(conditions: &str) -> AllowList {
        list(&format!("[[allow]]\nowner = \"o\"\nreason = \"r\"\nexpires = 2026-03-01\n{conditions}\n")).unwrap()
    }

    fn session() -> Value {
        json!({"eventTime": "2026-03-01T12:00:00Z", "eventSource": "iam.amazonaws.com", "eventName": "CreateAccessKey",
               "recipientAccountId": "123456789012", "sourceIPAddress": "192.0.2.7", "userIdentity": {
                   "type": "AssumedRole", "principalId": "AROAEXAMPLE:alice", "accountId": "123456789012",
                   "arn": "arn:aws:sts::123456789012:assumed-role/deploy/alice",
                   "sessionContext": {"sessionIssuer": {"type": "Role", "userName": "deploy",
                       "arn": "arn:aws:iam::123456789012:role/ci/deploy"}}}})
    }

    fn judge(list: &AllowList, record: &Value) -> Judgement {
        judge_caused(list, record, &[])
    }

    fn judge_caused(list: &AllowList, record: &Value, causes: &[&str]) -> Judgement {
        let causes: Vec<String> = causes.iter().map(|cause| (*cause).to_owned()).collect();
        let text = record.to_string();
        let event = Event::from_cloudtrail(&text).unwrap();
        list.judge(Candidate {
            classifier: "iam_access_key_created",
            event: &event,
            account: &event.account,
            resource: "alice",
            causes: &causes,
        })
    }

    #[test]
    fn each_condition_matches_what_it_names() {
        for conditions in [
            r#"principal = "arn:aws:sts::123456789012:assumed-role/deploy/*""#,
            r#"role = "deploy""#,
            r#"role = ["other", "dep*"]"#,
            r#"role = "arn:aws:iam::*:role/ci/deploy""#,
            r#"account = "123456789012""#,
            r#"network = "192.0.2.0/24""#,
            r#"network = ["198.51.100.1", "192.0.2.7"]"#,
            r#"resource = "al*""#,
            r#"classifier = "iam_*""#,
            "role = \"deploy\"\nclassifier = \"iam_access_key_created\"",
        ] {
            assert_eq!(judge(&entry(conditions), &session()), Judgement::Allowed(0), "{conditions}");
        }
        for conditions in [
            r#"principal = "alice""#,
            r#"principal = "deploy""#,
            r#"role = "alice""#,
            r#"role = "arn:aws:iam::*:role/deploy""#,
            r#"account = "123456789013""#,
            r#"network = "198.51.100.0/24""#,
            r#"resource = "bob""#,
            r#"classifier = "root_account_used""#,
            "role = \"deploy\"\nclassifier = \"root_account_used\"",
        ] {
            assert_eq!(judge(&entry(conditions), &session()), Judgement::Unknown, "{conditions}");
        }
    }

    #[test]
    fn who_accepts_all_causes_accepts_what_they_do() {
        let list = entry(r#"resource = ["sg-1*", "sg-2"]"#);
        assert_eq!(judge_caused(&list, &session(), &["sg-1a"]), Judgement::Allowed(0));
        assert_eq!(judge_caused(&list, &session(), &["sg-1a", "sg-2"]), Judgement::Allowed(0));
        assert_eq!(judge_caused(&list, &session(), &["sg-1a", "sg-3"]), Judgement::Unknown);
        assert_eq!(judge_caused(&list, &session(), &[]), Judgement::Unknown);
        let narrower = entry("resource = \"sg-1a\"\nrole = \"other\"");
        assert_eq!(judge_caused(&narrower, &session(), &["sg-1a"]), Judgement::Unknown, "all conditions must hold");
    }

    #[test]
    fn a_bare_name_of_another_account_is_somebody_else() {
        let list = entry(r#"role = "deploy""#);
        let mut stranger = session();
        stranger["userIdentity"]["accountId"] = json!("210987654321");
        assert_eq!(judge(&list, &stranger), Judgement::Unknown);
        let user = json!({"type": "IAMUser", "userName": "alice", "accountId": "123456789012",
                          "arn": "arn:aws:iam::123456789012:user/alice"});
        let mut record = session();
        record["userIdentity"] = user;
        assert_eq!(judge(&entry(r#"principal = "alice""#), &record), Judgement::Allowed(0));
        record["userIdentity"]["accountId"] = json!("210987654321");
        assert_eq!(judge(&entry(r#"principal = "alice""#), &record), Judgement::Unknown);
    }

    #[test]
    fn an_address_inside_ipv6_is_the_address_and_a_service_name_is_none() {
        let list = entry(r#"network = "192.0.2.0/24""#);
        let mut record = session();
        record["sourceIPAddress"] = json!("::ffff:192.0.2.7");
        assert_eq!(judge(&list, &record), Judgement::Allowed(0));
        record["sourceIPAddress"] = json!("ec2.amazonaws.com");
        assert_eq!(judge(&list, &record), Judgement::Unknown);
    }

    #[test]
    fn an_address_is_the_same_in_both_notations() {
        let mut record = session();
        for network in ["::ffff:192.0.2.7", "::ffff:192.0.2.0/120", "192.0.2.7/32"] {
            for address in ["192.0.2.7", "::ffff:192.0.2.7"] {
                record["sourceIPAddress"] = json!(address);
                let list = entry(&format!("network = \"{network}\""));
                assert_eq!(judge(&list, &record), Judgement::Allowed(0), "{network} {address}");
            }
        }
    }

    #[test]
    fn conditions_that_match_nothing_or_all_are_refused() {
        for (condition, good) in [
            (r#"account = "1234""#, false),
            (r#"account = "1234567890123""#, false),
            (r#"account = "1234*""#, true),
            (r#"account = "123456789012*""#, true),
            (r#"account = "12345678901a""#, false),
            (r#"network = ["0.0.0.0/1", "128.0.0.0/1"]"#, false),
            (r#"network = "10.0.0.0/7""#, false),
            (r#"network = "10.0.0.0/8""#, true),
            (r#"network = "::/1""#, false),
            (r#"network = "fc00::/7""#, true),
            (r#"network = "::ffff:0.0.0.0/97""#, false),
            (r#"role = "arn:aws:iam:123456789012:role/x*""#, false),
            (r#"role = "deploy role""#, false),
            (r#"principal = "arn:aws:iam::1234:user/x""#, false),
            (r#"principal = "arn:aws:sts::123456789012:assumed-role/deploy/*""#, true),
            (r#"resource = "a b""#, true),
        ] {
            let text = format!("[[allow]]\nowner = \"o\"\nreason = \"r\"\nexpires = 2026-03-01\n{condition}\n");
            assert_eq!(list(&text).is_ok(), good, "{condition}: {:?}", list(&text).err());
        }
    }

    #[test]
    fn an_entry_applies_to_the_end_of_its_last_day_by_the_events_time() {
        let list = entry(r#"role = "deploy""#);
        let mut record = session();
        record["eventTime"] = json!("2026-03-01T23:59:59Z");
        assert_eq!(judge(&list, &record), Judgement::Allowed(0));
        record["eventTime"] = json!("2026-03-02T00:00:00Z");
        assert_eq!(judge(&list, &record), Judgement::Lapsed(0));
    }

    #[test]
    fn another_entry_may_hold_where_one_has_expired() {
        let text = "[[allow]]\nowner = \"o\"\nreason = \"r\"\nexpires = \"2025-01-01\"\nrole = \"deploy\"\n\
                    [[allow]]\nname = \"second\"\nowner = \"o\"\nreason = \"r\"\nexpires = 2027-01-01\nrole = \"deploy\"\n";
        let list = list(text).unwrap();
        assert_eq!(judge(&list, &session()), Judgement::Allowed(1));
        let names: Vec<&str> = list.entries().map(|(entry, _)| entry.name.as_str()).collect();
        assert_eq!(names, ["allow 1", "second"]);
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = "[[allow]]\nrole = \"deploy\"\n\n[[allow]]\nowner = \"o\"\nreason = \"r\"\nexpires = \"2026-02-30\"\n\n\
                    [[allow]]\nowner = \"o\"\nreason = \"r\"\nexpires = 2026-03-01T12:00:00Z\nnetwork = [\"0.0.0.0/0\", \"x\"]\n\
                    classifier = \"iam_acces_key\"\nprincipal = \"*\"\nuser = 3\n";
        let error = list(text).unwrap_err();
        for expected in [
            "1: allow.owner",
            "1: allow.reason",
            "1: allow.expires",
            "4: allow: has no condition",
            "7: allow.expires",
            "12: allow.expires",
            "13: allow.network: 0.0.0.0/0",
            "13: allow.network: must be",
            "14: allow.classifier",
            "15: allow.principal",
            "16: allow.user",
        ] {
            assert!(error.contains(&format!("pipeline.toml:{expected}")), "{expected} in\n{error}");
        }
    }
}
