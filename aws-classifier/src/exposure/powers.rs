//! What a policy of an identity lets its holder do that ends in every right of the account.
//!
//! Every power is asked for by itself, over all statements together: an action and what it is done to are in it when some
//! `Allow` covers both and no `Deny` without conditions does. So it does not matter how the text is written, how patterns
//! are cut, or what is left out in place of being listed. The ways to more rights are those that research has described
//! (Rhino Security Labs, "AWS IAM Privilege Escalation"; pathfinding.cloud) and that need nothing else.
//!
//! A condition leaves a power what it is, such as one about MFA or a network, unless it says to whom or what it may be
//! done: tags of resources, a permissions boundary that must be there, which policies may be attached, and to which
//! service a role may be passed. *Not judged:* what other policies of the holder add, boundaries, and resources that are
//! listed name by name or beginning by beginning.

use std::collections::BTreeSet;

use serde_json::Value;

use super::conditions::{entries, is_plain};
use super::document::{self, Effect};
use super::effort::Effort;
use super::scope::Scope;
use super::{Unreadable, partition};

/// What a power is done to. All of a kind has to be covered, however it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Groups,
    PermissionSets,
    Policies,
    Roles,
    Users,
}

/// A way to more rights.
struct Power {
    action: &'static str,
    on: Kind,
    /// Whether doing it to whoever holds the policy is enough.
    to_itself: bool,
}

const fn to_any(action: &'static str, on: Kind) -> Power {
    Power { action, on, to_itself: false }
}

const fn to_itself(action: &'static str, on: Kind) -> Power {
    Power { action, on, to_itself: true }
}

/// See [`Power`]; sorted by action.
const POWERS: [Power; 20] = [
    to_any("iam:AddUserToGroup", Kind::Groups),
    to_itself("iam:AttachGroupPolicy", Kind::Groups),
    to_itself("iam:AttachRolePolicy", Kind::Roles),
    to_itself("iam:AttachUserPolicy", Kind::Users),
    to_any("iam:CreateAccessKey", Kind::Users),
    to_any("iam:CreateLoginProfile", Kind::Users),
    to_itself("iam:CreatePolicyVersion", Kind::Policies),
    to_itself("iam:DeleteRolePermissionsBoundary", Kind::Roles),
    to_itself("iam:DeleteUserPermissionsBoundary", Kind::Users),
    to_any("iam:PassRole", Kind::Roles),
    to_itself("iam:PutGroupPolicy", Kind::Groups),
    to_itself("iam:PutRolePolicy", Kind::Roles),
    to_itself("iam:PutUserPolicy", Kind::Users),
    to_itself("iam:SetDefaultPolicyVersion", Kind::Policies),
    to_any("iam:UpdateAssumeRolePolicy", Kind::Roles),
    to_any("iam:UpdateLoginProfile", Kind::Users),
    to_any("sso:AttachManagedPolicyToPermissionSet", Kind::PermissionSets),
    to_any("sso:CreateAccountAssignment", Kind::PermissionSets),
    to_any("sso:PutInlinePolicyToPermissionSet", Kind::PermissionSets),
    to_any("sts:AssumeRole", Kind::Roles),
];

/// Where work runs with a role that was passed: the service that a condition names, and the calls that start work there.
const COMPUTE: [(&str, &[&str]); 12] = [
    ("bedrock-agentcore.amazonaws.com", &["bedrock-agentcore:CreateCodeInterpreter"]),
    ("cloudformation.amazonaws.com", &["cloudformation:CreateStack", "cloudformation:CreateChangeSet"]),
    ("codebuild.amazonaws.com", &["codebuild:CreateProject"]),
    ("datapipeline.amazonaws.com", &["datapipeline:CreatePipeline"]),
    ("ec2.amazonaws.com", &["ec2:RunInstances", "autoscaling:CreateLaunchConfiguration"]),
    ("ecs-tasks.amazonaws.com", &["ecs:RegisterTaskDefinition", "ecs:RunTask"]),
    ("elasticmapreduce.amazonaws.com", &["elasticmapreduce:RunJobFlow"]),
    ("glue.amazonaws.com", &["glue:CreateDevEndpoint", "glue:CreateJob", "glue:CreateSession"]),
    ("lambda.amazonaws.com", &["lambda:CreateFunction"]),
    ("sagemaker.amazonaws.com", &["sagemaker:CreateNotebookInstance", "sagemaker:CreateProcessingJob"]),
    ("ssm.amazonaws.com", &["ssm:StartAutomationExecution"]),
    ("states.amazonaws.com", &["states:CreateStateMachine"]),
];

/// Calls of services far apart, each with all that it can be done to. Who may make nearly all of them is an administrator
/// in all but name. `{account}` and `{partition}` are those of the policy.
const SAMPLE: [(&str, &str); 16] = [
    ("iam:PutUserPolicy", "arn:{partition}:iam::{account}:user/*"),
    ("sts:AssumeRole", "arn:{partition}:iam::{account}:role/*"),
    ("organizations:LeaveOrganization", "*"),
    ("account:EnableRegion", "*"),
    ("cloudtrail:StopLogging", "arn:{partition}:cloudtrail:*:{account}:trail/*"),
    ("config:StopConfigurationRecorder", "*"),
    ("guardduty:DeleteDetector", "arn:{partition}:guardduty:*:{account}:detector/*"),
    ("kms:ScheduleKeyDeletion", "arn:{partition}:kms:*:{account}:key/*"),
    ("secretsmanager:GetSecretValue", "arn:{partition}:secretsmanager:*:{account}:secret:*"),
    ("s3:PutBucketPolicy", "arn:{partition}:s3:::*"),
    ("ec2:RunInstances", "arn:{partition}:ec2:*:{account}:instance/*"),
    ("lambda:UpdateFunctionCode", "arn:{partition}:lambda:*:{account}:function:*"),
    ("rds:DeleteDBInstance", "arn:{partition}:rds:*:{account}:db:*"),
    ("route53:ChangeResourceRecordSets", "arn:{partition}:route53:::hostedzone/*"),
    ("ses:SendRawEmail", "arn:{partition}:ses:*:{account}:identity/*"),
    ("backup:DeleteBackupVault", "arn:{partition}:backup:*:{account}:backup-vault:*"),
];

/// So many of the sample are nearly all: our choice. A copy of `PowerUserAccess`, which leaves out three, is above it, and
/// whoever lists the services of a data platform is below.
const NEARLY_ALL: usize = 12;

/// The policies of AWS that give what a condition about policies is to hold back.
const ADMINISTRATOR_POLICIES: [&str; 3] =
    [":policy/AdministratorAccess", ":policy/IAMFullAccess", ":policy/PowerUserAccess"];

/// The condition key of passing a role.
const PASSED_TO: &str = "iam:passedtoservice";

/// For whom a policy is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holder<'h> {
    /// The account, twelve digits.
    pub account: &'h str,
    /// The region of the call, which tells the partition.
    pub region: &'h str,
    /// The identity or policy it becomes part of, below the account: `user/bob`; empty when that is not known.
    pub name: &'h str,
}

/// What a policy gives its holder beyond ordinary rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Powers {
    /// Nearly every right, or all of IAM, over everything.
    pub administrator: bool,
    /// The calls by which the holder can take more rights, sorted, with those that start work with a passed role.
    pub actions: Vec<&'static str>,
    /// What the statements that give this are about, as they say it; a statement that lists what it leaves out is about `*`.
    pub resources: BTreeSet<String>,
    /// The keys of their conditions, in lower case.
    pub conditions: BTreeSet<String>,
    /// Their names.
    pub statements: BTreeSet<String>,
}

/// Judges the policy of an identity, given as an object or as text.
///
/// # Errors
/// When it is no policy IAM would accept.
pub fn powers(policy: &Value, holder: Holder<'_>) -> Result<Powers, Unreadable> {
    judged(policy, holder, Effort::default())
}

fn judged(policy: &Value, holder: Holder<'_>, effort: Effort) -> Result<Powers, Unreadable> {
    let document = document::read(policy)?;
    let mut reader = Reader::of(&document, holder, effort)?;
    let mut given = BTreeSet::new();
    let mut actions = BTreeSet::new();
    let mut all_of_iam = true;
    for power in &POWERS {
        let of_all = reader.giving(power.action, &reader.all_of(power.on));
        all_of_iam &= of_all.is_some() || !power.action.starts_with("iam:");
        if let Some(by) = of_all.or_else(|| reader.giving_to_itself(power)) {
            given.insert(by);
            actions.insert(power.action);
        }
    }
    for (by, action) in reader.passing_to_services() {
        given.insert(by);
        actions.insert(action);
    }
    if let Some(by) = reader.giving_all_of_iam() {
        given.insert(by);
        actions.insert("iam:*");
    }
    let sampled: Vec<usize> = SAMPLE.iter().filter_map(|(action, on)| reader.giving(action, &reader.arn(on))).collect();
    let nearly_all = sampled.len() >= NEARLY_ALL;
    if nearly_all {
        given.extend(sampled);
    }
    let mut powers = Powers { administrator: all_of_iam || nearly_all, ..Powers::default() };
    powers.actions = actions.into_iter().collect();
    for by in given {
        reader.allows[by].add_to(&mut powers);
    }
    Ok(powers)
}

/// The statements of a policy, to be asked.
struct Reader<'p> {
    allows: Vec<Statement>,
    /// Those without conditions.
    denies: Vec<Statement>,
    holder: Holder<'p>,
    effort: Effort,
}

struct Statement {
    name: String,
    actions: Scope,
    resources: Scope,
    /// Operator, key and values.
    conditions: Vec<(String, String, Vec<String>)>,
}

impl<'p> Reader<'p> {
    fn of(document: &Value, holder: Holder<'p>, effort: Effort) -> Result<Self, Unreadable> {
        let (mut allows, mut denies) = (Vec::new(), Vec::new());
        for (index, body) in document::statements(document)?.iter().enumerate() {
            let statement = Statement {
                name: document::name(body, index),
                actions: Scope::read(body, ["Action", "NotAction"], &Value::Null, "Statement.Action")?,
                resources: Scope::read(body, ["Resource", "NotResource"], &Value::Null, "Statement.Resource")?,
                conditions: entries(&body["Condition"])?,
            };
            match document::effect(body)? {
                Effect::Allow => allows.push(statement),
                Effect::Deny if statement.conditions.is_empty() => denies.push(statement),
                Effect::Deny => {}
            }
        }
        Ok(Self { allows, denies, holder, effort })
    }

    /// The first `Allow` that gives an action on something, as far as no condition limits and no `Deny` takes it back.
    fn giving(&mut self, action: &str, on: &str) -> Option<usize> {
        self.giving_if(action, on, |statement| !statement.is_limited())
    }

    fn giving_if(&mut self, action: &str, on: &str, may: impl Fn(&Statement) -> bool) -> Option<usize> {
        let Self { allows, denies, effort, .. } = self;
        // What is too much to look at allows, and does not deny.
        let by = allows.iter().position(|s| {
            may(s) && (!effort.spend(s.cost(action, on)) || (s.actions.gives(action) && s.resources.gives(on)))
        })?;
        let is_denied = denies
            .iter()
            .any(|s| effort.spend(s.cost(action, on)) && s.actions.covers(action) && s.resources.covers(on));
        (!is_denied).then_some(by)
    }

    /// Who gives a power over the identity or policy itself that the policy is written for.
    fn giving_to_itself(&mut self, power: &Power) -> Option<usize> {
        if !power.to_itself {
            return None;
        }
        let itself = self.holder.name.starts_with(kind_of_arn(power.on)).then(|| self.of_account(self.holder.name));
        let own_user = (power.on == Kind::Users).then(|| self.of_account("user/${aws:username}"));
        itself.into_iter().chain(own_user).find_map(|on| self.giving(power.action, &on))
    }

    /// A statement that gives all of IAM, to whatever there.
    fn giving_all_of_iam(&mut self) -> Option<usize> {
        let there = self.arn("arn:{partition}:iam::*");
        let Self { allows, denies, effort, .. } = self;
        let of_iam = || POWERS.iter().map(|power| power.action).filter(|action| action.starts_with("iam:"));
        let all_in = |s: &Statement, effort: &mut Effort, holds: fn(&Scope, &str) -> bool| {
            of_iam().all(|action| effort.spend(s.cost(action, "")) && holds(&s.actions, action))
        };
        let by = allows
            .iter()
            .position(|s| !s.is_limited() && s.resources.touches(&there) && all_in(s, effort, Scope::gives))?;
        let is_denied = denies.iter().any(|s| s.resources.covers(&there) && all_in(s, effort, Scope::covers));
        (!is_denied).then_some(by)
    }

    /// Passing any role to some services only, where work may be started in one of them.
    fn passing_to_services(&mut self) -> Vec<(usize, &'static str)> {
        let roles = self.all_of(Kind::Roles);
        let mut found = Vec::new();
        for (service, starts) in COMPUTE {
            let Some(by) = self.giving_if("iam:PassRole", &roles, |s| s.passes_only_to(service)) else { continue };
            for action in starts {
                if let Some(with) = self.starting(action) {
                    found.extend([(by, "iam:PassRole"), (with, *action)]);
                }
            }
        }
        found
    }

    /// A statement that lets work be started, with whatever.
    fn starting(&mut self, action: &str) -> Option<usize> {
        let Self { allows, denies, effort, .. } = self;
        let by = allows.iter().position(|s| effort.spend(s.cost(action, "")) && s.actions.gives(action))?;
        let is_denied = denies
            .iter()
            .any(|s| effort.spend(s.cost(action, "*")) && s.actions.covers(action) && s.resources.covers("*"));
        (!is_denied).then_some(by)
    }

    fn all_of(&self, kind: Kind) -> String {
        match kind {
            Kind::PermissionSets => self.arn("arn:{partition}:sso:::permissionSet/*"),
            of_account => self.of_account(&[kind_of_arn(of_account), "*"].concat()),
        }
    }

    fn of_account(&self, name: &str) -> String {
        self.arn("arn:{partition}:iam::{account}:") + name
    }

    fn arn(&self, template: &str) -> String {
        template.replace("{partition}", partition(self.holder.region)).replace("{account}", self.holder.account)
    }
}

/// How names of the kind begin in ARNs of IAM.
const fn kind_of_arn(kind: Kind) -> &'static str {
    match kind {
        Kind::Groups => "group/",
        Kind::PermissionSets => "permissionSet/",
        Kind::Policies => "policy/",
        Kind::Roles => "role/",
        Kind::Users => "user/",
    }
}

impl Statement {
    /// Of comparing with an action and what it is done to; a glob of many stars is compared with every byte.
    fn cost(&self, action: &str, on: &str) -> u64 {
        (action.len() as u64 + 1) * self.actions.bytes() + (on.len() as u64 + 1) * self.resources.bytes()
    }

    /// Whether a condition says to whom or what it may be done.
    fn is_limited(&self) -> bool {
        self.limits().next().is_some()
    }

    /// Whether the only such condition is that a role is passed to a service, among others perhaps.
    fn passes_only_to(&self, service: &str) -> bool {
        self.is_limited()
            && self
                .limits()
                .all(|(key, values)| key == PASSED_TO && values.iter().any(|v| v.eq_ignore_ascii_case(service)))
    }

    fn limits(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.named().filter(|(key, values)| match *key {
            "iam:permissionsboundary" | "iam:policyarn" => values.iter().all(|v| is_ordinary_policy(v)),
            PASSED_TO => values.iter().all(|v| is_plain(v)),
            tag if tag.starts_with("aws:resourcetag/") || tag.starts_with("iam:resourcetag/") => {
                !values.iter().any(|v| v.contains(['*', '?']))
            }
            _ => false,
        })
    }

    /// Keys that must be there and have one of the values.
    fn named(&self) -> impl Iterator<Item = (&str, &[String])> {
        const OPERATORS: [&str; 5] = ["arnequals", "arnlike", "stringequals", "stringequalsignorecase", "stringlike"];
        let named = self.conditions.iter().filter(|(operator, _, values)| {
            OPERATORS.contains(&operator.strip_prefix("foranyvalue:").unwrap_or(operator)) && !values.is_empty()
        });
        named.map(|(_, key, values)| (&**key, &**values))
    }

    fn add_to(&self, powers: &mut Powers) {
        powers.resources.extend(self.resources.reach().into_iter().map(str::to_owned));
        powers.conditions.extend(self.conditions.iter().map(|(_, key, _)| key.clone()));
        powers.statements.insert(self.name.clone());
    }
}

/// The name of one policy, whatever its account, and not of one that gives everything.
fn is_ordinary_policy(arn: &str) -> bool {
    arn.split_once(":policy/").is_some_and(|(_, name)| is_plain(name))
        && !ADMINISTRATOR_POLICIES.iter().any(|policy| arn.ends_with(policy))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const HOLDER: Holder<'_> = Holder { account: "123456789012", region: "us-east-1", name: "role/app" };

    fn of(statements: &Value) -> Powers {
        powers(&json!({"Version": "2012-10-17", "Statement": statements}), HOLDER).expect("a policy")
    }

    fn allow(action: &Value, resource: &Value) -> Value {
        json!({"Effect": "Allow", "Action": action, "Resource": resource})
    }

    /// With a condition.
    fn if_(condition: Value, mut statement: Value) -> Value {
        statement["Condition"] = condition;
        statement
    }

    fn deny(action: &Value, resource: &Value) -> Value {
        json!({"Effect": "Deny", "Action": action, "Resource": resource})
    }

    #[test]
    fn every_way_to_write_an_administrator_is_one() {
        let star = json!("*");
        let services = |names: &[&str]| names.iter().map(|name| format!("{name}:*")).collect::<Vec<_>>();
        let letters: Vec<String> = ('a'..='z').map(|letter| format!("{letter}*")).collect();
        let halves = json!([
            allow(&json!("iam:*p*"), &star),
            allow(&json!(["iam:Create*", "iam:AddUserToGroup"]), &star),
            allow(&json!("iam:*e"), &star),
            allow(&json!("iam:*y"), &star)
        ]);
        for statements in [
            allow(&star, &star),
            allow(&json!("*:*"), &star),
            allow(&json!(["s3:GetObject", "**"]), &json!(["arn:aws:s3:::b", "*"])),
            allow(&json!("?*"), &json!("**")),
            allow(&json!("*"), &json!("arn:*")),
            allow(&json!("IAM:*"), &star),
            allow(&json!("i?m:*"), &json!("arn:aws:iam::123456789012:*")),
            allow(&json!(letters), &star),
            json!({"Effect": "Allow", "NotAction": "ec2:TerminateInstances", "Resource": "*"}),
            json!({"Effect": "Allow", "NotAction": ["iam:*", "organizations:*", "account:*"], "Resource": "*"}),
            json!({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::logs/*"}),
            json!({"Effect": "Allow", "NotAction": "ec2:*", "NotResource": "arn:aws:iam::123456789012:user/root"}),
            if_(json!({"Bool": {"aws:MultiFactorAuthPresent": "true"}}), allow(&star, &star)),
            if_(json!({"StringEqualsIfExists": {"aws:ResourceTag/team": "a"}}), allow(&star, &star)),
            json!([allow(&star, &star), deny(&json!("organizations:*"), &star)]),
            json!([allow(&star, &star), if_(json!({"Bool": {"aws:SecureTransport": "false"}}), deny(&star, &star))]),
            json!([allow(&star, &star), deny(&star, &json!("arn:aws:s3:::logs/*"))]),
            allow(
                &json!(services(&[
                    "iam",
                    "sts",
                    "s3",
                    "ec2",
                    "kms",
                    "rds",
                    "lambda",
                    "cloudtrail",
                    "config",
                    "ses",
                    "backup",
                    "guardduty"
                ])),
                &star,
            ),
            halves,
        ] {
            assert!(of(&statements).administrator, "{statements}");
        }
    }

    #[test]
    fn ordinary_policies_give_no_power() {
        let star = json!("*");
        for statements in [
            allow(&json!(["s3:*", "ec2:*", "logs:*", "dynamodb:*", "lambda:*", "rds:*", "kms:*", "ses:*"]), &star),
            allow(&star, &json!("arn:aws:s3:::reports/*")),
            allow(&json!(["iam:Get*", "iam:List*", "sts:GetCallerIdentity"]), &star),
            allow(&json!("iam:PassRole"), &json!("arn:aws:iam::123456789012:role/web")),
            allow(&json!("sts:AssumeRole"), &json!("arn:aws:iam::*:role/cdk-*")),
            allow(&json!("iam:PutUserPolicy"), &json!("arn:aws:iam::210987654321:user/*")),
            allow(
                &json!(["iam:CreateAccessKey", "iam:UpdateLoginProfile"]),
                &json!("arn:aws:iam::*:user/${aws:username}"),
            ),
            allow(&json!("iam:PutRolePolicy"), &json!("arn:aws:iam::123456789012:role/web")),
            deny(&star, &star),
            json!({"Effect": "Deny", "NotAction": "iam:*", "Resource": "*"}),
            json!({"Effect": "Allow", "NotAction": "*", "Resource": "*"}),
            json!({"Effect": "Allow", "Action": "*", "NotResource": "*"}),
            json!([allow(&star, &star), deny(&star, &star)]),
            json!([allow(&star, &star), json!({"Effect": "Deny", "NotAction": "s3:*", "Resource": "*"})]),
            json!([allow(&json!("iam:*"), &star), deny(&json!("iam:*"), &star)]),
            json!([
                allow(&json!("iam:PassRole"), &star),
                deny(&json!("iam:PassRole"), &json!("arn:aws:iam::*:role/*"))
            ]),
            if_(
                json!({"StringEquals": {"iam:PermissionsBoundary": "arn:aws:iam::*:policy/team"}}),
                allow(&json!(["iam:PutRolePolicy", "iam:AttachRolePolicy"]), &star),
            ),
            if_(
                json!({"ArnEquals": {"iam:PolicyARN": ["arn:aws:iam::aws:policy/ReadOnlyAccess"]}}),
                allow(&json!("iam:AttachUserPolicy"), &star),
            ),
            if_(json!({"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}}), allow(&star, &star)),
            if_(
                json!({"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}),
                allow(&json!("iam:PassRole"), &star),
            ),
        ] {
            assert_eq!(of(&statements), Powers::default(), "{statements}");
        }
    }

    #[test]
    fn ways_to_more_rights_are_named() {
        let star = json!("*");
        let passing = if_(
            json!({"StringLike": {"iam:PassedToService": ["lambda.amazonaws.com", "ec2.amazonaws.com"]},
            "StringEquals": {"aws:RequestedRegion": "eu-west-1"}}),
            allow(&json!("iam:PassRole"), &star),
        );
        for (statements, actions) in [
            (allow(&json!("iam:PassRole"), &star), vec!["iam:PassRole"]),
            (allow(&json!("iam:P*Role"), &json!("arn:aws:iam::123456789012:role/*")), vec!["iam:PassRole"]),
            (allow(&json!("sts:*"), &json!("arn:aws:iam::*:role/*")), vec!["sts:AssumeRole"]),
            (allow(&json!("iam:CreateAccessKey"), &json!("arn:aws:iam::*:user/*")), vec!["iam:CreateAccessKey"]),
            // It concerns itself.
            (allow(&json!("iam:PutRolePolicy"), &json!("arn:aws:iam::*:role/app")), vec!["iam:PutRolePolicy"]),
            (
                allow(&json!("iam:AttachUserPolicy"), &json!("arn:aws:iam::*:user/${aws:username}")),
                vec!["iam:AttachUserPolicy"],
            ),
            (
                if_(
                    json!({"ArnEquals": {"iam:PolicyARN": "arn:aws:iam::aws:policy/AdministratorAccess"}}),
                    allow(&json!("iam:AttachUserPolicy"), &star),
                ),
                vec!["iam:AttachUserPolicy"],
            ),
            (
                json!({"Effect": "Allow", "Action": "iam:PutUserPolicy",
                "NotResource": "arn:aws:iam::123456789012:user/admin"}),
                vec!["iam:PutUserPolicy"],
            ),
            (
                json!([passing, allow(&json!("lambda:Create*"), &json!("arn:aws:lambda:*:*:function:x"))]),
                vec!["iam:PassRole", "lambda:CreateFunction"],
            ),
            (allow(&json!("iam:*"), &json!("arn:aws:iam::123456789012:role/cdk-*")), vec!["iam:*"]),
            (allow(&json!("sso:CreateAccountAssignment"), &star), vec!["sso:CreateAccountAssignment"]),
        ] {
            let found = of(&statements);
            assert_eq!((found.actions, found.administrator), (actions, false), "{statements}");
        }
    }

    #[test]
    fn what_gives_a_power_is_named() {
        let statements = json!([
            allow(&json!("s3:GetObject"), &json!("arn:aws:s3:::reports/*")),
            if_(
                json!({"Bool": {"aws:MultiFactorAuthPresent": true}}),
                json!({"Sid": "Keys", "Effect": "Allow",
                "Action": "iam:CreateAccessKey", "Resource": ["arn:aws:iam::123456789012:user/*"]})
            )
        ]);
        let found = of(&statements);
        assert_eq!(Vec::from_iter(found.statements), ["Keys"]);
        assert_eq!(Vec::from_iter(found.resources), ["arn:aws:iam::123456789012:user/*"]);
        assert_eq!(Vec::from_iter(found.conditions), ["aws:multifactorauthpresent"]);
    }

    #[test]
    fn partitions_have_their_own_names() {
        let statement =
            json!({"Statement": allow(&json!("iam:PassRole"), &json!("arn:aws-cn:iam::123456789012:role/*"))});
        let actions = |region| powers(&statement, Holder { region, ..HOLDER }).expect("a policy").actions;
        assert_eq!((actions("cn-north-1"), actions("us-east-1")), (vec!["iam:PassRole"], vec![]));
    }

    #[test]
    fn what_is_no_policy_is_named() {
        for (policy, field) in [
            (json!("{"), ""),
            (json!({}), "Statement"),
            (json!({"Statement": ["x"]}), "Statement"),
            (json!({"Statement": {"Effect": "allow", "Action": "*", "Resource": "*"}}), "Statement.Effect"),
            (json!({"Statement": {"Effect": "Allow", "Resource": "*"}}), "Statement.Action"),
            (json!({"Statement": {"Effect": "Allow", "Action": "*"}}), "Statement.Resource"),
            (
                json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": 7}}),
                "Statement.Condition",
            ),
        ] {
            assert_eq!(powers(&policy, HOLDER).map_err(|e| e.field), Err(field), "{policy}");
        }
    }

    #[test]
    fn a_policy_that_is_made_to_be_slow_is_judged_within_its_effort() {
        let patterns = |prefix: &str, count: usize| {
            let mut patterns = Vec::new();
            for i in 0..count {
                let mut pattern = prefix.to_owned();
                let _ = write!(pattern, "*{i:x}*a*a*a*a*b");
                patterns.push(pattern);
            }
            json!(patterns)
        };
        for (statements, count) in [(1, 20_000), (200, 100), (2_000, 4)] {
            let one = |i: usize| {
                let (actions, resources) = (patterns("*", count / 2), patterns("a", count / 2));
                if i.is_multiple_of(2) { allow(&actions, &resources) } else { deny(&actions, &resources) }
            };
            let mut hostile: Vec<Value> = (0..statements).map(one).collect();
            hostile.push(allow(&json!("*"), &json!("*")));
            let policy = json!({ "Statement": hostile });
            assert!(policy.to_string().len() <= document::POLICY_BYTES_MAX, "{statements} {count}");
            assert!(powers(&policy, HOLDER).expect("a policy").administrator, "{statements} {count}");
        }
    }

    #[test]
    fn what_costs_too_much_is_not_taken_for_harmless() {
        let policy = json!({"Statement": [allow(&json!("s3:GetObject"), &json!("arn:aws:s3:::reports/*"))]});
        assert!(!judged(&policy, HOLDER, Effort::default()).expect("a policy").administrator);
        assert!(judged(&policy, HOLDER, Effort::of(100)).expect("a policy").administrator);
    }

    fn statements() -> impl Strategy<Value = Value> {
        let actions =
            prop::sample::select(vec!["*", "iam:*", "iam:Put*", "s3:*", "iam:PassRole", "sts:AssumeRole", "*:Get*"]);
        let resources =
            prop::sample::select(vec!["*", "arn:aws:iam::*:role/*", "arn:aws:iam::*:user/*", "arn:aws:s3:::b"]);
        let conditions = prop::sample::select(vec![
            Value::Null,
            json!({"Bool": {"aws:MultiFactorAuthPresent": "true"}}),
            json!({"StringEquals": {"aws:ResourceTag/a": "b"}}),
        ]);
        let keys =
            prop::sample::select(vec![("Action", "Resource"), ("NotAction", "Resource"), ("Action", "NotResource")]);
        (actions, resources, conditions, keys).prop_map(|(action, resource, condition, (of, on))| {
            json!({"Effect": "Allow", of: action, on: resource, "Condition": condition})
        })
    }

    fn weight(statements: &[Value]) -> (bool, BTreeSet<&'static str>) {
        let found = of(&json!(statements));
        (found.administrator, found.actions.into_iter().collect())
    }

    proptest! {
        #[test]
        fn more_allowed_never_gives_less(some in prop::collection::vec(statements(), 1..5), more in statements()) {
            let both: Vec<Value> = some.iter().cloned().chain([more]).collect();
            let (fewer, all) = (weight(&some), weight(&both));
            prop_assert!(fewer.0 <= all.0 && fewer.1.is_subset(&all.1), "{fewer:?} {all:?}");
        }

        #[test]
        fn more_denied_never_gives_more(some in prop::collection::vec(statements(), 1..5), mut denied in statements()) {
            denied["Effect"] = json!("Deny");
            let both: Vec<Value> = some.iter().cloned().chain([denied]).collect();
            let (all, fewer) = (weight(&some), weight(&both));
            prop_assert!(fewer.0 <= all.0 && fewer.1.is_subset(&all.1), "{fewer:?} {all:?}");
        }

        #[test]
        fn the_order_of_statements_gives_nothing(
            (some, shuffled) in prop::collection::vec(statements(), 1..6).prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle()))
        ) {
            prop_assert_eq!(weight(&some), weight(&shuffled));
        }

        #[test]
        fn escapes_hide_nothing(some in prop::collection::vec(statements(), 1..4)) {
            let policy = json!({"Statement": some});
            let escaped: String = policy.to_string().chars().map(|c| match c {
                'A'..='Z' | 'a'..='z' | '*' => format!("\\u{:04x}", u32::from(c)),
                other => other.to_string(),
            }).collect();
            // `null`, which has no escapes, is written as it is.
            let escaped = escaped.replace("\\u006e\\u0075\\u006c\\u006c", "null");
            prop_assert_eq!(powers(&json!(escaped), HOLDER), powers(&policy, HOLDER));
        }

        #[test]
        fn no_document_panics(text in r#"\{"Statement":\[\{("(Effect|Action|NotAction|Resource|Condition|Sid)":("[*a-z:]{0,5}"|null|\[\]|\{\}|7|"Allow"),?){1,6}\}\]\}"#) {
            let _ = powers(&json!(text), HOLDER);
        }
    }
}
