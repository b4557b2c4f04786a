//! The policy of a role, key, queue or other resource lets strangers in.
//!
//! **What it detects.** Policies that are attached to resources, read statement by statement as AWS reads them: who is
//! named, which conditions limit it, what a `Deny` takes back. Anyone at all is critical for roles and high for the
//! rest. Another account is told apart from that, also where the own account is named beside it: high for roles that
//! exist, keys, backups and catalogues, medium for the rest. An identity provider that many share, such as GitHub's, is
//! anyone unless the conditions say whose tokens are meant. Roles (`CreateRole`, `UpdateAssumeRolePolicy`), KMS keys,
//! secrets, repositories and registries of images, queues, topics, event buses, backup vaults, the Glue catalogue,
//! tables, streams, Kafka clusters, code repositories, access points, archives, log destinations, file systems, search
//! domains, senders of mail and certificate authorities. Buckets have `s3_public_exposure`, functions rules of their
//! own.
//!
//! **Why it matters.** Such a policy is a door that needs no key of this account and stays open when every key is changed.
//!
//! **False positives.** What vendors are given, and accounts of the own organization: name them in `trusted_accounts`.
//! An organization as a condition is a limit, and so is a network, but for roles. Roles that use infrastructure as code
//! (`deployment_tools`) may share with accounts, except trust in roles that exist; it and AWS services may not open to
//! anyone. Of one resource the same actions for the same strangers are told once until `repeat_s` of quiet. Domains
//! inside a network are not open to anyone. A policy that cannot be read, because the record does not have it or it is no
//! JSON, is not judged, and neither are identity providers of one company. Parameters that CloudTrail left out of the
//! record, as too large, are medium.
//!
//! **Response.** Ask who it is for; put the policy back.
//!
//! **References.** <https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_identity-vs-resource.html>,
//! <https://attack.mitre.org/techniques/T1199/>

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::event::{Part, PrincipalKind};
use shared::ports::Files;
use shared::{Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Pattern, SettingsError, Severity};

use crate::exposure::{self, Audience, Opening};

/// The `[classifiers.resource_policy_opened]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Accounts that may be given access: twelve-digit ids. Default none.
    pub trusted_accounts: Vec<String>,
    /// Parts of user agents, in lower case, of tools that lay out what is to be; what roles share with other accounts by them is
    /// not reported, except trust in roles that exist. Callers choose their user agent. Default Terraform, Pulumi, the AWS CDK,
    /// Crossplane, Ansible and the AWS controllers for Kubernetes.
    pub deployment_tools: Vec<String>,
    /// Seconds without the same opening of a resource after which it is reported again: 1 to 7,776,000. Default 86,400, a
    /// day: our choice, so that a policy that is written again and again is one piece of news.
    pub repeat_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trusted_accounts: Vec::new(),
            deployment_tools: ["terraform", "pulumi", "aws-cdk", "crossplane", "ansible", "aws-controllers-k8s"]
                .map(str::to_owned)
                .to_vec(),
            repeat_s: 86_400,
        }
    }
}

/// Calls that write the policy of one kind of resource.
struct Kind {
    source: &'static str,
    names: &'static [&'static str],
    /// What it is called in titles.
    what: &'static str,
    /// Where the policy is, in `requestParameters`; the first that is there.
    policy: &'static [&'static str],
    /// Where the resource is named.
    resource: &'static [&'static str],
    /// How bad it is to let another account in.
    to_account: Severity,
}

const KINDS: [Kind; 26] = [
    kind("acm-pca.amazonaws.com", &["PutPolicy"], "certificate authority", &["/policy"], &["/resourceArn"]),
    kind("backup.amazonaws.com", &["PutBackupVaultAccessPolicy"], "backup vault", &["/policy"], &["/backupVaultName"])
        .high(),
    kind(
        "codeartifact.amazonaws.com",
        &["PutDomainPermissionsPolicy", "PutRepositoryPermissionsPolicy"],
        "code repository",
        &["/policyDocument"],
        &["/repository", "/domain"],
    ),
    kind("dynamodb.amazonaws.com", &["PutResourcePolicy"], "table", &["/policy"], &["/resourceArn"]),
    kind("ecr.amazonaws.com", &["PutRegistryPolicy"], "image registry", &["/policyText"], &["/registryId"]),
    kind("ecr.amazonaws.com", &["SetRepositoryPolicy"], "image repository", &["/policyText"], &["/repositoryName"]),
    kind("elasticfilesystem.amazonaws.com", &["PutFileSystemPolicy"], "file system", &["/policy"], &["/fileSystemId"]),
    kind(
        "es.amazonaws.com",
        &["CreateDomain", "CreateElasticsearchDomain", "UpdateDomainConfig", "UpdateElasticsearchDomainConfig"],
        "search domain",
        &["/accessPolicies"],
        &["/domainName"],
    ),
    kind("events.amazonaws.com", &["PutPermission"], "event bus", &["/policy"], &["/eventBusName"]),
    kind("glacier.amazonaws.com", &["SetVaultAccessPolicy"], "archive", &["/policy/policy"], &["/vaultName"]).high(),
    kind("glue.amazonaws.com", &["PutResourcePolicy"], "data catalogue", &["/policyInJson"], &["/resourceArn"]).high(),
    kind("iam.amazonaws.com", &["CreateRole"], "role", &["/assumeRolePolicyDocument"], &["/roleName"]),
    kind("iam.amazonaws.com", &["UpdateAssumeRolePolicy"], "role", &["/policyDocument"], &["/roleName"]).high(),
    kind("kafka.amazonaws.com", &["PutClusterPolicy"], "Kafka cluster", &["/policy"], &["/clusterArn"]),
    kind("kinesis.amazonaws.com", &["PutResourcePolicy"], "stream", &["/policy"], &["/resourceARN"]),
    kind("kms.amazonaws.com", &["CreateKey", "PutKeyPolicy"], "encryption key", &["/policy"], &["/keyId"]).high(),
    kind("logs.amazonaws.com", &["PutDestinationPolicy"], "log destination", &["/accessPolicy"], &["/destinationName"]),
    kind("s3.amazonaws.com", &["PutAccessPointPolicy"], "access point", &["/policy", "/Policy"], &["/name", "/Name"]),
    kind("secretsmanager.amazonaws.com", &["PutResourcePolicy"], "secret", &["/resourcePolicy"], &["/secretId"]),
    kind(
        "ses.amazonaws.com",
        &["CreateEmailIdentityPolicy", "PutIdentityPolicy", "UpdateEmailIdentityPolicy"],
        "sender of mail",
        &["/policy"],
        &["/identity", "/emailIdentity"],
    ),
    kind("sns.amazonaws.com", &["AddPermission"], "topic", &[], &["/topicArn"]),
    kind("sns.amazonaws.com", &["CreateTopic"], "topic", &["/attributes/Policy"], &["/name"]),
    kind("sns.amazonaws.com", &["SetTopicAttributes"], "topic", &["/attributeValue"], &["/topicArn"]),
    kind("sqs.amazonaws.com", &["AddPermission"], "queue", &[], &["/queueUrl"]),
    kind("sqs.amazonaws.com", &["CreateQueue"], "queue", &["/attributes/Policy", "/attribute/Policy"], &["/queueName"]),
    kind("sqs.amazonaws.com", &["SetQueueAttributes"], "queue", &["/attributes/Policy"], &["/queueUrl"]),
];

const fn kind(
    source: &'static str,
    names: &'static [&'static str],
    what: &'static str,
    policy: &'static [&'static str],
    resource: &'static [&'static str],
) -> Kind {
    Kind { source, names, what, policy, resource, to_account: Severity::Medium }
}

impl Kind {
    const fn high(mut self) -> Self {
        self.to_account = Severity::High;
        self
    }

    fn of(event: &Event<'_>) -> Option<&'static Self> {
        KINDS.iter().find(|kind| {
            kind.source == event.source && kind.names.iter().any(|name| name.eq_ignore_ascii_case(&event.name))
        })
    }

    fn is_role(&self) -> bool {
        self.source == "iam.amazonaws.com"
    }

    /// Trust in a role that is there already, with whatever rights it has: said also of what tools lay out.
    fn is_open_door(&self, event: &Event<'_>) -> bool {
        self.is_role() && event.name.eq_ignore_ascii_case("UpdateAssumeRolePolicy")
    }
}

const PATTERNS: [Pattern; KINDS.len()] = {
    let mut patterns = [Pattern::Root; KINDS.len()];
    let mut i = 0;
    while i < patterns.len() {
        patterns[i] = Pattern::Api { source: KINDS[i].source, names: KINDS[i].names };
        i += 1;
    }
    patterns
};

/// See the module.
pub struct ResourcePolicyOpened {
    settings: Settings,
}

impl Classifier for ResourcePolicyOpened {
    const META: Meta = Meta {
        id: "resource_policy_opened",
        title: "Policy of a resource lets strangers in",
        severity: Severity::High,
        techniques: &["T1199", "T1098", "T1537"],
        patterns: &PATTERNS,
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_identity-vs-resource.html",
            "https://attack.mitre.org/techniques/T1199/",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if let Some(odd) = settings.trusted_accounts.iter().find(|id| !exposure::is_account(id)) {
            return Err(SettingsError::new("trusted_accounts", format!("{odd:?} is not twelve digits")));
        }
        if settings.deployment_tools.iter().any(|tool| tool.trim().is_empty()) {
            return Err(SettingsError::new("deployment_tools", "an empty entry would match every user agent"));
        }
        if !(1..=7_776_000).contains(&settings.repeat_s) {
            return Err(SettingsError::new("repeat_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        Ok(Self { settings })
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let Some(kind) = Kind::of(event) else { return Ok(None) };
        let request = event.request()?;
        if event.is_left_out(Part::Request) {
            return Ok((!event.is_by_aws_service()).then(|| {
                Evidence::about("")
                    .titled(format!("Policy of {} may have been written, the record leaves out how", named(kind.what)))
                    .severity(Severity::Medium)
            }));
        }
        let Some(policy) = policy(kind, request) else { return Ok(None) };
        // Without an owner every account would be a stranger.
        if event.account.is_empty() {
            return Ok(None);
        }
        let judge = if kind.is_role() { exposure::judge_trust } else { exposure::judge_attached };
        let Ok(verdict) = judge(&policy, &event.account) else { return Ok(None) };
        let resource = text_at(request, kind.resource).unwrap_or_default();

        let public: Vec<&Opening> = verdict.public().collect();
        if !public.is_empty() && !is_inside_network(kind, request) {
            let severity = if kind.is_role() { Severity::Critical } else { Severity::High };
            let evidence = Evidence::about(resource)
                .titled(format!("Policy opens {} to anyone", named(kind.what)))
                .severity(severity);
            return Ok(Some(self.once(event, resource, "anyone", evidence, &public)));
        }

        let mut strangers: BTreeSet<&String> = BTreeSet::new();
        let mut foreign = Vec::new();
        for opening in &verdict.openings {
            let Audience::Accounts(accounts) = &opening.audience else { continue };
            let untrusted: Vec<&String> =
                accounts.iter().filter(|a| !self.settings.trusted_accounts.contains(a)).collect();
            if !untrusted.is_empty() {
                strangers.extend(untrusted);
                foreign.push(opening);
            }
        }
        if strangers.is_empty() || event.is_by_aws_service() || (!kind.is_open_door(event) && self.is_deployment(event))
        {
            return Ok(None);
        }
        let accounts: Vec<String> = strangers.into_iter().cloned().collect();
        let evidence = Evidence::about(resource)
            .titled(format!("Policy opens {} to another account", named(kind.what)))
            .severity(kind.to_account)
            .fact("accounts", accounts.clone());
        Ok(Some(self.once(event, resource, &accounts.join(","), evidence, &foreign)))
    }
}

impl ResourcePolicyOpened {
    /// States the openings, and says what would make the same news again: who may do what.
    fn once(&self, event: &Event<'_>, resource: &str, to: &str, evidence: Evidence, openings: &[&Opening]) -> Evidence {
        let actions: BTreeSet<&str> = openings.iter().flat_map(|o| o.actions.iter().map(String::as_str)).collect();
        let actions = Vec::from_iter(actions);
        let key = [&*event.account, &*event.region, &*event.source, resource, to, &actions.join(",")].join("/");
        let evidence = evidence
            .fact("statements", openings.iter().map(|o| o.statement.clone()).collect::<Vec<_>>())
            .fact("actions", actions);
        // What is not named yet, such as a new key, cannot be told from others and is told each time.
        if resource.is_empty() { evidence } else { evidence.once_in(key, self.settings.repeat_s) }
    }

    /// Of roles only: whoever holds a key of a user may call himself a tool.
    fn is_deployment(&self, event: &Event<'_>) -> bool {
        let is_role = matches!(event.identity().principal_kind(), PrincipalKind::RoleSession | PrincipalKind::SsoUser);
        let agent = event.user_agent.to_ascii_lowercase();
        is_role && self.settings.deployment_tools.iter().any(|tool| agent.contains(&tool.to_ascii_lowercase()))
    }
}

/// With its article.
fn named(what: &str) -> String {
    let article = if what.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {what}")
}

/// The policy the call writes. Topics have other attributes too; buses, topics and queues are also opened by naming
/// principals.
fn policy<'r>(kind: &Kind, request: &'r Value) -> Option<Cow<'r, Value>> {
    if request["attributeName"].as_str().is_some_and(|name| name != "Policy") {
        return None;
    }
    let written = kind.policy.iter().filter_map(|pointer| request.pointer(pointer)).find(|value| !value.is_null());
    written.map(Cow::Borrowed).or_else(|| {
        let principal = principal(kind, request)?;
        let condition = match request.pointer("/condition/value").and_then(Value::as_str) {
            Some(organization) => json!({"StringEquals": {"aws:PrincipalOrgID": organization}}),
            None => Value::Null,
        };
        let statement = json!({"Sid": request["statementId"], "Effect": "Allow", "Principal": {"AWS": principal},
            "Action": action(request), "Condition": condition});
        Some(Cow::Owned(json!({"Statement": statement})))
    })
}

/// Whom a call lets in that names principals and no policy.
fn principal<'r>(kind: &Kind, request: &'r Value) -> Option<&'r Value> {
    let fields: &[&str] = match kind.source {
        "events.amazonaws.com" => &["principal"],
        "sns.amazonaws.com" | "sqs.amazonaws.com" => &["aWSAccountId", "aWSAccountIds", "AWSAccountIds"],
        _ => &[],
    };
    fields.iter().map(|field| &request[field]).find(|named| !named.is_null())
}

/// What such a call lets them do; for buses it need not say.
fn action(request: &Value) -> &Value {
    static PUT_EVENTS: LazyLock<Value> = LazyLock::new(|| Value::from("events:PutEvents"));
    let named = ["action", "actionName", "actions"].iter().map(|field| &request[field]).find(|named| !named.is_null());
    named.unwrap_or(&PUT_EVENTS)
}

fn text_at<'r>(request: &'r Value, pointers: &[&str]) -> Option<&'r str> {
    pointers.iter().find_map(|pointer| request.pointer(pointer)?.as_str())
}

/// Search domains in a network answer nobody outside of it.
fn is_inside_network(kind: &Kind, request: &Value) -> bool {
    let subnets = ["/vPCOptions/subnetIds", "/VPCOptions/SubnetIds"].iter().find_map(|p| request.pointer(p));
    kind.source == "es.amazonaws.com" && subnets.and_then(Value::as_array).is_some_and(|ids| !ids.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_belongs_to_one_kind() {
        let mut seen = BTreeSet::new();
        for kind in &KINDS {
            for name in kind.names {
                assert!(seen.insert((kind.source, *name)), "{}/{name}", kind.source);
            }
        }
    }

    #[test]
    fn titles_have_the_right_article() {
        assert_eq!((named("event bus"), named("queue")), ("an event bus".to_owned(), "a queue".to_owned()));
    }
}
