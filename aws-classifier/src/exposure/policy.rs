//! Whom a bucket policy lets in.

use std::collections::BTreeSet;

use serde_json::Value;

use super::conditions::{self, Limit, Trust};
use super::denials::{self, Denial};
use super::document::{self, Effect};
use super::effort::Effort;
use super::scope::Scope;
use super::{Unreadable, account_of, identity_providers, is_account, resource_of, texts};

/// Whom a statement lets in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// Anyone, with or without an AWS account.
    Public,
    /// Principals of these other accounts (twelve digits, or a canonical user id), sorted.
    Accounts(Vec<String>),
    /// These AWS services, on behalf of anyone: no condition says for whom they act.
    Services(Vec<String>),
}

/// One statement that lets someone in who is not of the bucket's account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// Whom.
    pub audience: Audience,
    /// The statement's `Sid`, or `statement 2` by its place.
    pub statement: String,
    /// What it lets them do; `*` for a statement that lists what it does not allow.
    pub actions: Vec<String>,
    /// To what.
    pub resources: Vec<String>,
}

impl Opening {
    /// Whether it lets them do more than read and list.
    pub fn writes(&self) -> bool {
        self.actions.iter().any(|action| {
            let action = action.to_ascii_lowercase();
            !["s3:get", "s3:list", "s3:head", "s3:describe"].iter().any(|read| action.starts_with(read))
        })
    }
}

/// What a policy does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The statements that let strangers in, in their order.
    pub openings: Vec<Opening>,
    /// Whether some statement denies: deleting the policy would then allow more.
    pub denies: bool,
    /// The organizations, addresses, networks and endpoints that its conditions name.
    pub places: BTreeSet<String>,
}

impl Verdict {
    /// The statements open to anyone.
    pub fn public(&self) -> impl Iterator<Item = &Opening> {
        self.openings.iter().filter(|o| o.audience == Audience::Public)
    }
}

/// Judges a policy, given as an object or as text, of a bucket of the account `owner`.
///
/// # Errors
/// When it is no policy S3 would accept.
pub fn judge(policy: &Value, owner: &str, trust: Trust<'_>) -> Result<Verdict, Unreadable> {
    judged(policy, owner, &Value::Null, trust)
}

/// As [`judge`], for the policy of anything else: a statement that names no resource is about what the policy hangs on.
///
/// # Errors
/// When it is no policy of a resource.
pub fn judge_attached(policy: &Value, owner: &str, trust: Trust<'_>) -> Result<Verdict, Unreadable> {
    judged(policy, owner, &Value::String("*".to_owned()), trust)
}

/// `itself` is what a statement without a resource is about; null where there can be none.
fn judged(policy: &Value, owner: &str, itself: &Value, trust: Trust<'_>) -> Result<Verdict, Unreadable> {
    let document = document::read(policy)?;
    let (mut allows, mut denies, mut places) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, statement) in document::statements(&document)?.iter().enumerate() {
        places.extend(conditions::places(&statement["Condition"])?);
        let read = Statement::read(statement, index, itself, trust)?;
        match document::effect(statement)? {
            Effect::Allow => allows.push(read),
            Effect::Deny => denies.push(read),
        }
    }
    let denials = denies.iter().map(Statement::denial).collect::<Result<Vec<_>, _>>()?;
    let (mut openings, mut effort) = (Vec::new(), Effort::default());
    for allow in &allows {
        allow.openings(&denials, owner, &mut effort, &mut openings)?;
    }
    Ok(Verdict { openings, denies: !denials.is_empty(), places })
}

/// The users that statements of a policy allow by name or id, sorted; whose account they are of does not matter.
///
/// # Errors
/// When it is no policy of a resource.
pub fn named_users(policy: &Value) -> Result<BTreeSet<String>, Unreadable> {
    let document = document::read(policy)?;
    let mut users = BTreeSet::new();
    for statement in document::statements(&document)? {
        if document::effect(statement)? == Effect::Allow {
            let named = texts(&statement["Principal"]["AWS"]).unwrap_or_default();
            users.extend(named.into_iter().filter(|principal| {
                resource_of(principal)
                    .map_or_else(|| is_unique_id(principal, &["AIDA"]), |name| name.starts_with("user/"))
            }));
        }
    }
    Ok(users)
}

struct Statement<'p> {
    name: String,
    actions: Scope,
    resources: Scope,
    trust: Trust<'p>,
    body: &'p Value,
}

impl<'p> Statement<'p> {
    fn read(body: &'p Value, index: usize, itself: &Value, trust: Trust<'p>) -> Result<Self, Unreadable> {
        let name = document::name(body, index);
        let actions = Scope::read(body, ["Action", "NotAction"], &Value::Null, "Statement.Action")?;
        let resources = Scope::read(body, ["Resource", "NotResource"], itself, "Statement.Resource")?;
        Ok(Self { name, actions, resources, trust, body })
    }

    /// This `Deny`, with whom it spares.
    fn denial(&self) -> Result<Denial<'_>, Unreadable> {
        let by_condition = conditions::spared(&self.body["Condition"], self.trust)?;
        let spared = match &self.body["NotPrincipal"] {
            Value::Null if Callers::read(self.body)?.anyone => by_condition,
            // It concerns some only, so it keeps no stranger out.
            Value::Null => Some(Limit::None),
            // Everyone but these, where the conditions hold as well.
            _ if by_condition.is_some() => Some(Limit::None),
            others => {
                let callers = Callers::of(others)?;
                Some(if callers.anyone {
                    Limit::None
                } else if callers.accounts.is_empty() {
                    Limit::Fixed
                } else {
                    Limit::Accounts(callers.accounts)
                })
            }
        };
        Ok(Denial { actions: &self.actions, resources: &self.resources, spared })
    }

    /// Adds what this `Allow` opens and no `Deny` takes back.
    fn openings(
        &self,
        denials: &[Denial<'_>],
        owner: &str,
        effort: &mut Effort,
        into: &mut Vec<Opening>,
    ) -> Result<(), Unreadable> {
        let condition = &self.body["Condition"];
        let limit = conditions::allowed(condition, self.trust)?;
        let callers = Callers::read(self.body)?;
        let mut anyone = callers.anyone;
        for provider in &callers.providers {
            anyone |= identity_providers::lets_anyone_in(provider, condition)?;
        }
        let foreign = |accounts: &BTreeSet<String>| {
            Audience::Accounts(accounts.iter().filter(|a| a.as_str() != owner).cloned().collect())
        };
        let to_anyone = match &limit {
            Limit::None => Some(Audience::Public),
            Limit::Fixed => None,
            Limit::Accounts(accounts) => Some(foreign(accounts)),
        };
        let mut audiences = Vec::new();
        if anyone {
            audiences.extend(to_anyone);
        }
        audiences.push(foreign(&callers.accounts));
        if limit == Limit::None {
            audiences.push(Audience::Services(callers.services.into_iter().collect()));
        }
        for audience in audiences {
            self.add(audience, denials, owner, effort, into);
        }
        Ok(())
    }

    /// Cuts an opening down to what is left of it.
    fn add(
        &self,
        audience: Audience,
        denials: &[Denial<'_>],
        owner: &str,
        effort: &mut Effort,
        into: &mut Vec<Opening>,
    ) {
        if matches!(&audience, Audience::Accounts(names) | Audience::Services(names) if names.is_empty()) {
            return;
        }
        let (actions, resources) = (self.actions.reach(), self.resources.reach());
        let is_public = audience == Audience::Public;
        let concerned: Vec<&Denial<'_>> = denials.iter().filter(|d| is_public || d.spares_nobody()).collect();
        let mut left = denials::left(&actions, &resources, &concerned, effort);
        let opening = |audience, actions: &BTreeSet<&str>, resources: &BTreeSet<&str>| {
            let owned = |parts: &BTreeSet<&str>| parts.iter().map(|p| (*p).to_owned()).collect();
            Opening { audience, statement: self.name.clone(), actions: owned(actions), resources: owned(resources) }
        };
        if !left.actions.is_empty() {
            into.push(opening(audience, &left.actions, &left.resources));
        }
        left.spared.remove(owner);
        if !left.spared.is_empty() {
            into.push(opening(Audience::Accounts(left.spared.into_iter().collect()), &actions, &resources));
        }
    }
}

/// Who a `Principal` stands for.
#[derive(Default)]
pub(super) struct Callers {
    pub(super) anyone: bool,
    /// The owner's among them.
    accounts: BTreeSet<String>,
    services: BTreeSet<String>,
    /// Whose users they are that come without an identity of AWS.
    providers: BTreeSet<String>,
}

impl Callers {
    /// Of a statement. `NotPrincipal` is everyone else, strangers among them.
    pub(super) fn read(statement: &Value) -> Result<Self, Unreadable> {
        match (&statement["Principal"], &statement["NotPrincipal"]) {
            (Value::Null, Value::Null) => Err(Unreadable { field: "Statement.Principal", expected: "a principal" }),
            (Value::Null, _) => Ok(Self { anyone: true, ..Self::default() }),
            (principal, _) => Self::of(principal),
        }
    }

    fn of(principal: &Value) -> Result<Self, Unreadable> {
        const EXPECTED: Unreadable = Unreadable { field: "Statement.Principal", expected: "a principal" };
        let mut callers = Self::default();
        match principal {
            Value::String(text) if text == "*" => callers.anyone = true,
            Value::Object(kinds) => {
                for (kind, values) in kinds {
                    for value in texts(values).ok_or(EXPECTED)? {
                        callers.add(kind, value);
                    }
                }
            }
            _ => return Err(EXPECTED),
        }
        Ok(callers)
    }

    fn add(&mut self, kind: &str, value: String) {
        match kind {
            _ if value == "*" => self.anyone = true,
            "Service" => drop(self.services.insert(value)),
            "Federated" => drop(self.providers.insert(value)),
            "CanonicalUser" => drop(self.accounts.insert(value)),
            "AWS" if is_account(&value) => drop(self.accounts.insert(value)),
            "AWS" => match account_of(&value) {
                Some(account) if is_account(account) => drop(self.accounts.insert(account.to_owned())),
                // CloudFront's origin access identities belong to the distribution's owner.
                Some("cloudfront") => {}
                Some(_) => self.anyone = true,
                // Whose it is, it does not say. AWS refuses to write the id of a principal that is gone.
                None if is_unique_id(&value, &["AIDA", "AROA"]) => drop(self.accounts.insert(value)),
                None => {}
            },
            _ => {}
        }
    }
}

/// `AIDA…`, `AROA…`: the id of a user or role, which AWS takes in place of its ARN (IAM user guide, "IAM identifiers").
fn is_unique_id(text: &str, kinds: &[&str]) -> bool {
    (16..=128).contains(&text.len())
        && kinds.iter().any(|kind| text.starts_with(kind))
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const OWNER: &str = "123456789012";
    const NO_PLACES: Trust<'_> = Trust { places: false, organizations: &[] };
    const BUCKET: &str = "arn:aws:s3:::reports";
    const OBJECTS: &str = "arn:aws:s3:::reports/*";

    fn judge(policy: &Value, owner: &str) -> Result<Verdict, Unreadable> {
        super::judge(policy, owner, Trust::ALL)
    }

    fn allow(principal: Value, condition: Value) -> Value {
        json!({"Effect": "Allow", "Principal": principal, "Action": "s3:GetObject", "Resource": OBJECTS,
            "Condition": condition})
    }

    fn deny(action: Value, resource: Value, condition: Value) -> Value {
        json!({"Effect": "Deny", "Principal": "*", "Action": action, "Resource": resource, "Condition": condition})
    }

    fn verdict(statements: &[Value]) -> Verdict {
        judge(&json!({"Version": "2012-10-17", "Statement": statements}), OWNER).unwrap()
    }

    fn is_public(statements: &[Value]) -> bool {
        verdict(statements).public().next().is_some()
    }

    fn accounts(statements: &[Value]) -> Vec<String> {
        let openings = verdict(statements).openings.into_iter();
        openings.flat_map(|o| if let Audience::Accounts(accounts) = o.audience { accounts } else { vec![] }).collect()
    }

    #[test]
    fn a_statement_without_a_resource_is_about_what_the_policy_hangs_on() {
        let trust = |principal: Value| json!({"Statement": {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}});
        let judged = |principal| judge_attached(&trust(principal), OWNER, Trust::ALL).unwrap().openings;
        let opening = |audience| Opening {
            audience,
            statement: "statement 1".to_owned(),
            actions: vec!["sts:AssumeRole".to_owned()],
            resources: vec!["*".to_owned()],
        };
        assert_eq!(judged(json!({"AWS": "*"})), [opening(Audience::Public)]);
        let both = json!({"AWS": [OWNER, "210987654321"]});
        assert_eq!(judged(both.clone()), [opening(Audience::Accounts(vec!["210987654321".to_owned()]))]);
        assert_eq!(judged(json!({"AWS": OWNER})), []);
        assert_eq!(judge(&trust(both), OWNER).unwrap_err().field, "Statement.Resource");
    }

    #[test]
    fn every_way_to_write_anyone_is_public() {
        for principal in [
            json!("*"),
            json!({"AWS": "*"}),
            json!({"AWS": ["arn:aws:iam::123456789012:root", "*"]}),
            json!({"CanonicalUser": "*"}),
            json!({"AWS": "arn:aws:iam::*:root"}),
        ] {
            assert!(is_public(&[allow(principal.clone(), Value::Null)]), "{principal}");
        }
        let other = json!({"Effect": "Allow", "NotPrincipal": {"AWS": "arn:aws:iam::123456789012:user/bob"},
            "Action": "s3:GetObject", "Resource": OBJECTS});
        assert!(is_public(&[other]));
    }

    #[test]
    fn fixed_principals_are_not_public() {
        let own = ["123456789012", "arn:aws:iam::123456789012:root"];
        let cloudfront = "arn:aws:iam::cloudfront:user/CloudFront Origin Access Identity E2EXAMPLE";
        for principal in [json!({"AWS": own}), json!({"AWS": cloudfront})] {
            assert_eq!(verdict(&[allow(principal.clone(), Value::Null)]).openings, [], "{principal}");
        }
        let other =
            json!({"AWS": ["arn:aws:iam::210987654321:root", "345678901234", "arn:aws:iam::123456789012:root"]});
        assert_eq!(accounts(&[allow(other, Value::Null)]), ["210987654321", "345678901234"]);
    }

    #[test]
    fn ids_of_principals_are_strangers() {
        for id in ["AROAEXAMPLEOFASTRANGER", "AIDAEXAMPLEOFASTRANGER"] {
            assert_eq!(accounts(&[allow(json!({"AWS": id}), Value::Null)]), [id]);
        }
        for nothing in ["AROA", "AROAexampleofastranger", "ANPAEXAMPLEOFAPOLICY0"] {
            assert_eq!(verdict(&[allow(json!({"AWS": nothing}), Value::Null)]).openings, [], "{nothing}");
        }
    }

    #[test]
    fn users_are_told_by_name_and_id() {
        let trust = |principal: Value, effect: &str| {
            let policy = json!({"Statement": {"Effect": effect, "Principal": principal, "Action": "sts:AssumeRole"}});
            Vec::from_iter(named_users(&policy).unwrap())
        };
        let (bob, id) = ("arn:aws-cn:iam::123456789012:user/path/bob", "AIDAEXAMPLEOFASTRANGER");
        let all = json!({"AWS": ["arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:role/user/x", bob, id,
            "AROAEXAMPLEOFASTRANGER", "*"], "Service": "ec2.amazonaws.com"});
        assert_eq!(trust(all.clone(), "Allow"), [id, bob]);
        assert_eq!(trust(all, "Deny"), [""; 0]);
        assert_eq!(trust(json!("*"), "Allow"), [""; 0]);
    }

    #[test]
    fn white_space_hides_nothing() {
        let spaces = " ".repeat(130_000);
        let trust =
            format!(r#"{{{spaces}"Statement": {{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}}}}"#);
        assert_eq!(judge_attached(&json!(trust), OWNER, NO_PLACES).unwrap().public().count(), 1);
    }

    #[test]
    fn where_a_caller_is_does_not_close_a_role() {
        for (key, value) in [("aws:SourceIp", "203.0.113.7"), ("aws:SourceVpc", "vpc-1"), ("aws:SourceVpce", "vpce-1")]
        {
            let operator = if key == "aws:SourceIp" { "IpAddress" } else { "StringEquals" };
            let trust = json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole",
                "Condition": {operator: {key: value}}}});
            assert_eq!(judge_attached(&trust, OWNER, NO_PLACES).unwrap().public().count(), 1, "{key}");
            assert_eq!(judge_attached(&trust, OWNER, Trust::ALL).unwrap().openings, [], "{key}");
            let not = if key == "aws:SourceIp" { "NotIpAddress" } else { "StringNotEquals" };
            let denied = json!({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"},
                {"Effect": "Deny", "Principal": "*", "Action": "sts:*", "Condition": {not: {key: value}}}]});
            assert_eq!(judge_attached(&denied, OWNER, NO_PLACES).unwrap().public().count(), 1, "{key}");
            assert_eq!(judge_attached(&denied, OWNER, Trust::ALL).unwrap().openings, [], "{key}");
        }
        let organization = json!({"StringEquals": {"aws:PrincipalOrgID": "o-exampleorg1"}});
        let trust = json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole",
            "Condition": organization}});
        assert_eq!(judge_attached(&trust, OWNER, NO_PLACES).unwrap().openings, []);
    }

    #[test]
    fn an_account_that_acts_through_a_service_is_named() {
        let condition = |account: &str| json!({"StringEquals": {"aws:SourceAccount": account}});
        assert_eq!(accounts(&[allow(json!("*"), condition("210987654321"))]), ["210987654321"]);
        for own in [OWNER, "${aws:ResourceAccount}"] {
            assert_eq!(verdict(&[allow(json!("*"), condition(own))]).openings, [], "{own}");
        }
        let service = json!({"Service": "logging.s3.amazonaws.com"});
        assert_eq!(verdict(&[allow(service, condition("210987654321"))]).openings, []);
    }

    #[test]
    fn services_without_a_source_are_told_apart() {
        let service = json!({"Service": "logging.s3.amazonaws.com"});
        let found = verdict(&[allow(service.clone(), Value::Null)]).openings;
        assert_eq!(found[0].audience, Audience::Services(vec!["logging.s3.amazonaws.com".to_owned()]));
        let bound = json!({"StringEquals": {"aws:SourceAccount": OWNER}});
        assert_eq!(verdict(&[allow(service, bound)]).openings, []);
    }

    #[test]
    fn a_condition_may_name_other_accounts() {
        let condition = json!({"StringEquals": {"aws:PrincipalAccount": ["210987654321", OWNER]}});
        assert_eq!(accounts(&[allow(json!("*"), condition.clone())]), ["210987654321"]);
        assert!(!is_public(&[allow(json!("*"), condition)]));
    }

    #[test]
    fn a_deny_takes_back_what_it_covers() {
        let open = allow(json!("*"), Value::Null);
        let vpce = json!({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}});
        for closing in [
            deny(json!("*"), json!("*"), Value::Null),
            deny(json!("s3:*"), json!([BUCKET, OBJECTS]), Value::Null),
            deny(json!("S3:GETOBJECT"), json!(OBJECTS), Value::Null),
            deny(json!("s3:*"), json!([BUCKET, OBJECTS]), vpce.clone()),
            json!({"Effect": "Deny", "NotPrincipal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "s3:*",
                "Resource": OBJECTS}),
            json!({"Effect": "Deny", "Principal": "*", "NotAction": "s3:List*", "Resource": OBJECTS}),
            json!({"Effect": "Deny", "Principal": "*", "Action": "*", "NotResource": "arn:aws:s3:::other/*"}),
        ] {
            assert!(!is_public(&[open.clone(), closing.clone()]), "{closing}");
        }
        for useless in [
            deny(json!("s3:PutObject"), json!(OBJECTS), Value::Null),
            deny(json!("s3:*"), json!(BUCKET), Value::Null),
            deny(json!("s3:*"), json!("arn:aws:s3:::reports/private/*"), Value::Null),
            deny(json!("s3:*"), json!("*"), json!({"Bool": {"aws:SecureTransport": "false"}})),
            json!({"Effect": "Deny", "Principal": {"AWS": "210987654321"}, "Action": "*", "Resource": "*"}),
            json!({"Effect": "Deny", "Principal": "*", "Action": "*", "NotResource": "arn:aws:s3:::reports/open/*"}),
            json!({"Effect": "Deny", "NotPrincipal": {"AWS": OWNER}, "Action": "s3:*", "Resource": "*",
                "Condition": {"Bool": {"aws:SecureTransport": "false"}}}),
        ] {
            assert!(is_public(&[open.clone(), useless.clone()]), "{useless}");
        }
        // Together they cover both actions, though neither does alone.
        let mut both = open.clone();
        both["Action"] = json!(["s3:GetObject", "s3:PutObject"]);
        let get = deny(json!("s3:Get*"), json!("*"), Value::Null);
        let found = verdict(&[both.clone(), get.clone()]).openings;
        assert_eq!(found[0].actions, ["s3:PutObject"]);
        assert!(!is_public(&[both, get, deny(json!("s3:Put*"), json!("*"), vpce)]));
    }

    #[test]
    fn reading_and_writing_are_told_apart() {
        for (action, writes) in [
            (json!("s3:GetObject"), false),
            (json!(["s3:Get*", "s3:ListBucket"]), false),
            (json!(["s3:GetObject", "s3:PutObject"]), true),
            (json!("s3:*"), true),
            (json!("*"), true),
            (json!("s3:*Object"), true),
        ] {
            let mut open = allow(json!("*"), Value::Null);
            open["Action"] = action.clone();
            assert_eq!(verdict(&[open]).openings[0].writes(), writes, "{action}");
        }
    }

    #[test]
    fn a_policy_may_be_text_and_one_statement() {
        let policy = json!({"Statement": allow(json!("*"), Value::Null)});
        assert_eq!(judge(&Value::String(policy.to_string()), OWNER), judge(&policy, OWNER));
        assert_eq!(judge(&policy, OWNER).unwrap().openings[0].statement, "statement 1");
    }

    #[test]
    fn what_is_no_policy_is_named() {
        let with = |key: &str, value: Value| {
            let mut statement = allow(json!("*"), Value::Null);
            statement[key] = value;
            json!({ "Statement": [statement] })
        };
        for (policy, field) in [
            (json!(null), ""),
            (json!("{"), ""),
            (json!([]), ""),
            (json!({}), "Statement"),
            (json!({"Statement": ["x"]}), "Statement"),
            (with("Effect", json!("allow")), "Statement.Effect"),
            (with("Principal", json!(null)), "Statement.Principal"),
            (with("Principal", json!("everyone")), "Statement.Principal"),
            (with("Action", json!(null)), "Statement.Action"),
            (with("Resource", json!({})), "Statement.Resource"),
            (with("Condition", json!("none")), "Statement.Condition"),
            (with("Sid", json!("x".repeat(document::POLICY_BYTES_MAX))), ""),
        ] {
            assert_eq!(judge(&policy, OWNER).unwrap_err().field, field, "{field}");
        }
    }

    fn conditions() -> impl Strategy<Value = Value> {
        prop::sample::select(vec![
            Value::Null,
            json!({"Bool": {"aws:SecureTransport": "false"}}),
            json!({"StringEquals": {"aws:SourceVpce": "vpce-1"}}),
            json!({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}),
            json!({"StringNotEquals": {"aws:PrincipalAccount": "210987654321"}}),
            json!({"StringEqualsIfExists": {"aws:PrincipalOrgID": "o-1"}}),
            json!({"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}),
            json!({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}),
        ])
    }

    fn statements() -> impl Strategy<Value = Value> {
        let principals = prop::sample::select(vec![
            json!({"Principal": "*"}),
            json!({"Principal": {"AWS": ["210987654321", "arn:aws:iam::123456789012:root"]}}),
            json!({"NotPrincipal": {"AWS": "arn:aws:iam::345678901234:root"}}),
            json!({"Principal": {"Service": "s3.amazonaws.com"}}),
        ]);
        let actions = prop::sample::select(vec![
            json!("*"),
            json!(["s3:GetObject", "s3:Put*"]),
            json!("s3:Get*"),
            json!("s3:PutObject"),
        ]);
        let resources = prop::sample::select(vec![json!("*"), json!([BUCKET, OBJECTS]), json!(OBJECTS)]);
        let effects = prop::sample::select(vec!["Allow", "Deny"]);
        (principals, actions, resources, conditions(), effects).prop_map(
            |(who, action, resource, condition, effect)| {
                let mut statement = who;
                statement["Sid"] = json!(format!("{effect}{action}{resource}{condition}"));
                statement["Action"] = action;
                statement["Resource"] = resource;
                statement["Condition"] = condition;
                statement["Effect"] = json!(effect);
                statement
            },
        )
    }

    /// What is open to anyone, as pairs.
    fn public_pairs(statements: &[Value]) -> BTreeSet<(String, String)> {
        let verdict = verdict(statements);
        let pairs = verdict
            .public()
            .flat_map(|o| o.actions.iter().flat_map(|a| o.resources.iter().map(move |r| (a.clone(), r.clone()))));
        pairs.collect()
    }

    proptest! {
        #[test]
        fn a_deny_never_opens(statements in prop::collection::vec(statements(), 0..6), mut deny in statements(), at: prop::sample::Index) {
            deny["Effect"] = json!("Deny");
            let mut more = statements.clone();
            more.insert(at.index(statements.len() + 1), deny);
            prop_assert!(public_pairs(&more).is_subset(&public_pairs(&statements)));
        }

        #[test]
        fn a_limiting_condition_closes(mut statements in prop::collection::vec(statements(), 0..6)) {
            for statement in statements.iter_mut().filter(|s| s["Effect"] == "Allow") {
                if statement["Condition"].is_null() {
                    statement["Condition"] = json!({});
                }
                statement["Condition"]["ForAnyValue:StringEquals"] = json!({"aws:PrincipalOrgID": "o-exampleorg1"});
            }
            prop_assert!(!is_public(&statements));
        }

        #[test]
        fn less_trust_never_closes(statements in prop::collection::vec(statements(), 0..6)) {
            let ours = ["o-ours".to_owned()];
            let open = |trust| {
                let policy = json!({ "Statement": statements });
                super::judge(&policy, OWNER, trust).unwrap().public().next().is_some()
            };
            for strict in [NO_PLACES, Trust { organizations: &ours, ..NO_PLACES }, Trust { organizations: &ours, ..Trust::ALL }] {
                prop_assert!(open(Trust::ALL) <= open(strict), "{strict:?}");
            }
        }

        #[test]
        fn the_order_of_statements_is_irrelevant(
            (statements, shuffled) in prop::collection::vec(statements(), 0..6).prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle()))
        ) {
            let sorted = |statements: &[Value]| {
                let mut openings = verdict(statements).openings;
                openings.sort();
                openings
            };
            prop_assert_eq!(sorted(&statements), sorted(&shuffled));
        }

        #[test]
        fn no_document_panics(text in r#"\{"Statement":\[\{("(Effect|Principal|Action|Resource|Condition|Sid)":("[*a-z:]{0,5}"|null|\[\]|\{\}|7),?){1,6}\}\]\}"#) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = judge(&value, OWNER);
            }
        }
    }
}
