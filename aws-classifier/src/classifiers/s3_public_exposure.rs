//! A bucket or object was opened to strangers.
//!
//! **What it detects.** `PutBucketPolicy` with a statement that lets anyone in, judged as S3 judges it: principals,
//! conditions that limit, `Deny` statements that take back. `PutBucketAcl`, `PutObjectAcl` and `CreateBucket` with grants to
//! `AllUsers` or `AuthenticatedUsers`, in headers or body. Public access block removed or weakened, for a bucket or the
//! account; a flag counts as weakened when it was on before, and as on before when no record said otherwise. A block that
//! leaves out some flags of a bucket made within the hour is `low`. Website hosting switched on. As `info`: CORS for any
//! origin, a policy or ACL deleted, ACLs enabled by ownership controls; a policy known to deny is `high` when deleted.
//! Grants to accounts outside `trusted_accounts` are `medium`, and so are organizations outside `trusted_organizations`,
//! where there are some. What lets strangers write is `critical`, what lets them read is `high`. Denied and failed calls
//! are attempts. Closing what was seen to be opened is reported as good news. A policy, an ACL or a block that CloudTrail
//! left out of the record, as too large, is `medium`.
//!
//! **Why it matters.** Public buckets are found by scanners within hours, and opening one, or sharing it with an account of
//! one's own, is the shortest way to carry its content out.
//!
//! **False positives.** What is `info` is told once a day for a caller (all sessions of a role are one) and call. Of
//! what AWS services do, also CloudFormation for somebody, only openings to anyone and weakened blocks are reported.
//! Websites and downloads that are public on purpose. An account-wide block is off until it is first put, so a first
//! one with some flags off is reported though it closes more than it opens. Whether a block still overrides a new
//! policy or grant is not judged. A record does not say the owner's canonical user id, so a grant to it in headers or
//! policies looks foreign. AWS services that a policy names are trusted, as S3 does, and so are the accounts from which
//! AWS writes the logs of load balancers (`exposure/load_balancers.rs`). ACLs given with each uploaded object are not
//! looked at; policies of S3 Express directory buckets and of access points are `resource_policy_opened`'s.
//!
//! **Response.** `s3_public_access_block` puts the block back and removes exactly the statements and grants of the facts.
//!
//! **References.** <https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html>,
//! <https://attack.mitre.org/techniques/T1530/>

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::{Event, Part};
use shared::finding::{Effect, Severity};
use shared::observation::{Known, Observations};
use shared::ports::Files;

use crate::exposure::{self, Audience, Grant, Grantee, Opening, Trust, Unreadable, Verdict};

/// How long an old value is known: our choice, 90 days, as CloudTrail's own event history.
const KNOWN_S: u32 = 90 * 86_400;

/// How long a bucket is new: our choice, an hour, more than any deployment takes to lay out what belongs to it.
const NEW_S: u32 = 3600;

/// What is only noted is noted once for a caller and call until it was quiet for so long: our choice, a day. A script that
/// takes down a hundred buckets is one piece of news.
const NOTED_AGAIN_S: u32 = 86_400;

/// The flags of a public access block.
const FLAGS: [&str; 4] = ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"];

/// See the module.
pub struct S3PublicExposure {
    trusted: BTreeSet<String>,
    organizations: Vec<String>,
}

/// The `[classifiers.s3_public_exposure]` section.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Accounts that may be given access: twelve-digit ids, and canonical user ids (64 hexadecimal digits) for ACLs.
    /// Default none.
    pub trusted_accounts: Vec<String>,
    /// Organizations that may be given access: `o-exampleorg1`. Default none, and then every organization may: a policy names
    /// one by an id that does not say whose it is.
    pub trusted_organizations: Vec<String>,
}

impl Classifier for S3PublicExposure {
    const META: Meta = Meta {
        id: "s3_public_exposure",
        title: "Bucket or object opened to strangers",
        severity: Severity::High,
        techniques: &["T1530", "T1537"],
        patterns: &[Pattern::Api {
            source: "s3.amazonaws.com",
            names: &[
                "CreateBucket",
                "DeleteAccountPublicAccessBlock",
                "DeleteBucketAcl",
                "DeleteBucketOwnershipControls",
                "DeleteBucketPolicy",
                "DeleteBucketPublicAccessBlock",
                "DeletePublicAccessBlock",
                "PutAccountPublicAccessBlock",
                "PutBucketAcl",
                "PutBucketCors",
                "PutBucketOwnershipControls",
                "PutBucketPolicy",
                "PutBucketPublicAccessBlock",
                "PutBucketWebsite",
                "PutObjectAcl",
                "PutPublicAccessBlock",
            ],
        }],
        failed_calls: FailedCalls::Attempts,
        responses: &["s3_public_access_block"],
        references: &[
            "https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html",
            "https://attack.mitre.org/techniques/T1530/",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        let canonical = |id: &str| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(id) = settings.trusted_accounts.iter().find(|id| !exposure::is_account(id) && !canonical(id)) {
            return Err(SettingsError::new(
                "trusted_accounts",
                format!("{id:?} is neither twelve digits nor a canonical user id of 64 hexadecimal digits"),
            ));
        }
        if let Some(odd) = settings.trusted_organizations.iter().find(|id| !exposure::is_organization(id)) {
            return Err(SettingsError::new("trusted_organizations", format!("{odd:?} is no id such as o-exampleorg1")));
        }
        let trusted = settings.trusted_accounts.into_iter().collect();
        Ok(Self { trusted, organizations: settings.trusted_organizations })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        if event.is_failed() || is_untold(event) {
            return Ok(Observations::none());
        }
        let nothing = Observations::none();
        let key = || Ok::<_, Malformed>([&*event.account, &subject(event)?].join("/"));
        Ok(match Call::of(event) {
            Call::Block => nothing.remember("block", key()?, block_flags(event)?.unwrap_or_default(), KNOWN_S).recall(
                "created",
                key()?,
                NEW_S,
            ),
            Call::Policy => nothing.remember("policy", key()?, policy_mark(&policy(event, Trust::ALL)?), KNOWN_S),
            Call::PolicyDeleted => nothing.remember("policy", key()?, "none", KNOWN_S),
            Call::Acl => {
                let public = acl(event)?.iter().any(|g| g.grantee.is_public());
                let acl = nothing.remember("acl", key()?, if public { "public" } else { "private" }, KNOWN_S);
                if is_creation(event) { acl.remember("created", key()?, "", NEW_S) } else { acl }
            }
            _ => nothing,
        })
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let before = |label| known.last(label).previous.map(|(_, value)| value);
        let evidence = match Call::of(event) {
            _ if is_untold(event) => untold(event)?,
            Call::Acl => self.judge_acl(event, before("acl"))?,
            Call::Policy => self.judge_policy(event, before("policy"))?,
            Call::PolicyDeleted => Some(policy_deleted(event, before("policy"))?),
            Call::Block => judge_block(event, before("block"), before("created").is_some())?,
            Call::Website => judge_website(event)?,
            Call::Cors => judge_cors(event)?,
            Call::Ownership => judge_ownership(event)?,
            Call::AclDeleted => Some(noted(event, "Bucket ACL was deleted")?),
        };
        let Some(evidence) = evidence else { return Ok(None) };
        let severity = evidence.severity.unwrap_or(Self::META.severity);
        // An attempt at what would only have been noted, or would have been good news, is nothing.
        if event.is_failed() && severity == Severity::Info {
            return Ok(None);
        }
        // Templates and services do what was asked of them: of their work only what lets anyone in is news.
        let is_news = evidence.effect == Effect::Resolves || severity >= Severity::High;
        if event.is_by_aws_service() && (!is_news || matches!(Call::of(event), Call::Website)) {
            return Ok(None);
        }
        Ok(Some(if severity == Severity::Info && evidence.effect == Effect::Threat {
            let key = [&*event.account, &event.identity().habit_key(), &*event.name].join("/");
            evidence.once_in(key, NOTED_AGAIN_S)
        } else {
            evidence
        }))
    }
}

/// The calls, by what they change.
enum Call {
    Acl,
    AclDeleted,
    Policy,
    PolicyDeleted,
    Block,
    Website,
    Cors,
    Ownership,
}

impl Call {
    fn of(event: &Event<'_>) -> Self {
        match event.name.to_ascii_lowercase().as_str() {
            "putbucketpolicy" => Self::Policy,
            "deletebucketpolicy" => Self::PolicyDeleted,
            "deletebucketacl" => Self::AclDeleted,
            "putbucketwebsite" => Self::Website,
            "putbucketcors" => Self::Cors,
            "putbucketownershipcontrols" | "deletebucketownershipcontrols" => Self::Ownership,
            "createbucket" | "putbucketacl" | "putobjectacl" => Self::Acl,
            _ => Self::Block,
        }
    }
}

impl S3PublicExposure {
    fn judge_acl(&self, event: &Event<'_>, before: Option<String>) -> Result<Option<Evidence>, Malformed> {
        let (resource, grants) = (resource(event)?, acl(event)?);
        let topic = format!("s3_public_acl/{}", subject(event)?);
        let (public, others): (Vec<Grant>, Vec<Grant>) = grants.into_iter().partition(|g| g.grantee.is_public());
        let shown = |grants: &[Grant]| grants.iter().map(Grant::to_string).collect::<Vec<_>>();
        if !public.is_empty() {
            let writes = public.iter().any(Grant::writes);
            let evidence = Evidence::about(resource)
                .titled("ACL opens a bucket or object to anyone")
                .severity(severity(writes))
                .fact("public_grants", shown(&public))
                .fact("strangers_may", if writes { "write" } else { "read" })
                .topic(topic);
            return Ok(Some(evidence));
        }
        let foreign: Vec<Grant> = others
            .into_iter()
            .filter(|g| !matches!(&g.grantee, Grantee::Account(id) if self.trusted.contains(id)))
            .collect();
        if !foreign.is_empty() {
            let evidence = Evidence::about(resource)
                .titled("ACL opens a bucket or object to another account")
                .severity(Severity::Medium)
                .fact("foreign_grants", shown(&foreign));
            return Ok(Some(evidence));
        }
        let closes = before.as_deref() == Some("public");
        Ok(closes.then(|| {
            let closed = Evidence::about(resource).titled("ACL no longer opens a bucket or object to anyone");
            closed.severity(Severity::Info).topic(topic).resolves()
        }))
    }

    fn judge_policy(&self, event: &Event<'_>, before: Option<String>) -> Result<Option<Evidence>, Malformed> {
        let (resource, verdict) = (resource(event)?, policy(event, Trust::ALL)?);
        let topic = format!("s3_public_policy/{resource}");
        let public: Vec<&Opening> = verdict.public().collect();
        if !public.is_empty() {
            let writes = public.iter().any(|o| o.writes());
            let mut evidence = openings(Evidence::about(resource), &public)
                .titled("Bucket policy opens a bucket to anyone")
                .severity(severity(writes))
                .fact("strangers_may", if writes { "write" } else { "read" })
                .topic(topic);
            let services = services(&verdict);
            if !services.is_empty() {
                evidence = evidence.fact("services_without_source", services);
            }
            return Ok(Some(evidence));
        }
        let mut accounts = BTreeSet::new();
        let mut foreign = Vec::new();
        for opening in &verdict.openings {
            let Audience::Accounts(named) = &opening.audience else { continue };
            let known = |a: &str| self.trusted.contains(a) || exposure::writes_load_balancer_logs(a);
            let strangers: Vec<&String> = named.iter().filter(|a| !known(a)).collect();
            if !strangers.is_empty() {
                accounts.extend(strangers.into_iter().cloned());
                foreign.push(opening);
            }
        }
        if !foreign.is_empty() {
            let writes = foreign.iter().any(|o| o.writes());
            let evidence = openings(Evidence::about(resource), &foreign)
                .titled("Bucket policy opens a bucket to another account")
                .severity(Severity::Medium)
                .fact("accounts", Vec::from_iter(accounts))
                .fact("strangers_may", if writes { "write" } else { "read" });
            return Ok(Some(evidence));
        }
        // Of organizations only those that were named are known.
        let of_others = policy(event, Trust { organizations: &self.organizations, ..Trust::ALL })?;
        let foreign: Vec<&Opening> = of_others.public().collect();
        if !foreign.is_empty() {
            let writes = foreign.iter().any(|o| o.writes());
            let evidence = openings(Evidence::about(resource), &foreign)
                .titled("Bucket policy opens a bucket to another organization")
                .severity(Severity::Medium)
                .fact("from", Vec::from_iter(of_others.places.iter().cloned()))
                .fact("strangers_may", if writes { "write" } else { "read" });
            return Ok(Some(evidence));
        }
        let closes = before.as_deref() == Some("public");
        Ok(closes.then(|| {
            let closed = Evidence::about(resource).titled("Bucket policy no longer opens a bucket to anyone");
            closed.severity(Severity::Info).topic(topic).resolves()
        }))
    }
}

const fn severity(writes: bool) -> Severity {
    if writes { Severity::Critical } else { Severity::High }
}

/// Which statements let strangers do what, to what.
fn openings(evidence: Evidence, openings: &[&Opening]) -> Evidence {
    let all = |part: fn(&Opening) -> &Vec<String>| {
        let parts: BTreeSet<&String> = openings.iter().flat_map(|o| part(o)).collect();
        parts.into_iter().cloned().collect::<Vec<String>>()
    };
    evidence
        .fact("statements", openings.iter().map(|o| o.statement.clone()).collect::<Vec<_>>())
        .fact("actions", all(|o| &o.actions))
        .fact("resources", all(|o| &o.resources))
}

/// Services that are let in without a word on whom they may act for.
fn services(verdict: &Verdict) -> Vec<String> {
    let named = verdict.openings.iter().filter_map(|o| match &o.audience {
        Audience::Services(names) => Some(names.clone()),
        _ => None,
    });
    named.flatten().collect()
}

/// What is remembered of a policy.
fn policy_mark(verdict: &Verdict) -> &'static str {
    if verdict.public().next().is_some() {
        "public"
    } else if verdict.denies {
        "denies"
    } else {
        "plain"
    }
}

fn policy_deleted(event: &Event<'_>, before: Option<String>) -> Result<Evidence, Malformed> {
    let resource = resource(event)?;
    let topic = format!("s3_public_policy/{resource}");
    let evidence = Evidence::about(resource);
    Ok(match before.as_deref() {
        Some("public") => {
            evidence.titled("Public bucket policy was deleted").severity(Severity::Info).topic(topic).resolves()
        }
        Some("denies") => evidence.titled("Bucket policy that denied access was deleted").severity(Severity::High),
        _ => evidence.titled("Bucket policy was deleted").severity(Severity::Info),
    })
}

fn judge_block(event: &Event<'_>, before: Option<String>, is_new: bool) -> Result<Option<Evidence>, Malformed> {
    let Some(now) = block_flags(event)? else { return Ok(None) };
    let resource = resource(event)?;
    let topic = format!("s3_public_access_block/{resource}");
    let was_on = |i: usize| before.as_ref().is_none_or(|b| b.as_bytes().get(i) == Some(&b'1'));
    let is_on = |i: usize| now.as_bytes()[i] == b'1';
    let weakened: Vec<&str> = (0..4).filter(|i| was_on(*i) && !is_on(*i)).map(|i| FLAGS[i]).collect();
    if weakened.is_empty() {
        let restored = before.is_some_and(|b| b.contains('0')) && !now.contains('0');
        return Ok(restored.then(|| {
            let restored = Evidence::about(resource).titled("Public access block was restored");
            restored.severity(Severity::Info).topic(topic).resolves()
        }));
    }
    let of_account = is_of_account(event);
    // A deployment lays out the block with the bucket. Nothing is in it yet, and what opens it is told by itself.
    if is_new && before.is_none() && now.contains('1') {
        let evidence = Evidence::about(resource).titled("Public access block of a new bucket is not whole");
        return Ok(Some(evidence.severity(Severity::Low).fact("switched_off", weakened).topic(topic)));
    }
    let title = match (of_account, now.contains('1')) {
        (true, true) => "Public access block of the account was weakened",
        (true, false) => "Public access block of the account was switched off",
        (false, true) => "Public access block of a bucket was weakened",
        (false, false) => "Public access block of a bucket was switched off",
    };
    let evidence = Evidence::about(resource)
        .titled(title)
        .fact("switched_off", weakened)
        .fact("known_before", before.is_some())
        .topic(topic);
    Ok(Some(evidence))
}

fn judge_website(event: &Event<'_>) -> Result<Option<Evidence>, Malformed> {
    let website = &event.request()?["WebsiteConfiguration"];
    if website["RedirectAllRequestsTo"].is_object() {
        return Ok(Some(noted(event, "Bucket redirects web requests elsewhere")?));
    }
    let index = website["IndexDocument"]["Suffix"].as_str().unwrap_or_default();
    let evidence = Evidence::about(resource(event)?).titled("Bucket became a website");
    Ok(Some(evidence.fact("index_document", index)))
}

fn judge_cors(event: &Event<'_>) -> Result<Option<Evidence>, Malformed> {
    let rules = listed(&event.request()?["CORSConfiguration"]["CORSRule"]);
    let anyone = |origin: &Value| matches!(origin.as_str(), Some("*" | "http://*" | "https://*"));
    let open: Vec<&Value> = rules.iter().filter(|r| listed(&r["AllowedOrigin"]).iter().any(anyone)).collect();
    if open.is_empty() {
        return Ok(None);
    }
    let methods: BTreeSet<&str> =
        open.iter().flat_map(|r| listed(&r["AllowedMethod"])).filter_map(Value::as_str).collect();
    let noted = noted(event, "Bucket can be used from any website (CORS)")?;
    Ok(Some(noted.fact("methods", Vec::from_iter(methods))))
}

/// Ownership other than the bucket owner's brings ACLs back into force.
fn judge_ownership(event: &Event<'_>) -> Result<Option<Evidence>, Malformed> {
    let rules = listed(&event.request()?["OwnershipControls"]["Rule"]);
    let ownership: Vec<&str> = rules.iter().filter_map(|r| r["ObjectOwnership"].as_str()).collect();
    if !ownership.is_empty() && ownership.iter().all(|o| *o == "BucketOwnerEnforced") {
        return Ok(None);
    }
    Ok(Some(noted(event, "Bucket takes ACLs into account again")?.fact("object_ownership", ownership)))
}

/// Whether what the call puts was left out of the record. Deletions say all by their names.
fn is_untold(event: &Event<'_>) -> bool {
    matches!(Call::of(event), Call::Acl | Call::Policy | Call::Block)
        && !event.name.to_ascii_lowercase().starts_with("delete")
        && event.is_left_out(Part::Request)
}

/// A bucket that was only created has no grants of which anybody would need 100 KB.
fn untold(event: &Event<'_>) -> Result<Option<Evidence>, Malformed> {
    let title = match Call::of(event) {
        _ if is_creation(event) => return Ok(None),
        Call::Policy => "Bucket policy was changed, and the record leaves out what it says",
        Call::Acl => "ACL was changed, and the record leaves out what it grants",
        _ => "Public access block was changed, and the record leaves out how",
    };
    Ok(Some(Evidence::about(resource(event)?).titled(title).severity(Severity::Medium)))
}

fn noted(event: &Event<'_>, title: &str) -> Result<Evidence, Malformed> {
    Ok(Evidence::about(resource(event)?).titled(title).severity(Severity::Info))
}

/// A list, or the single item that stands for a list of one.
fn listed(value: &Value) -> &[Value] {
    match value {
        Value::Null => &[],
        Value::Array(items) => items,
        one => std::slice::from_ref(one),
    }
}

fn is_creation(event: &Event<'_>) -> bool {
    event.name.eq_ignore_ascii_case("CreateBucket")
}

fn is_of_account(event: &Event<'_>) -> bool {
    event.name.to_ascii_lowercase().contains("account")
}

/// ARN of the bucket or object, or the account's id; empty on calls that were denied before their parameters were read, and
/// where the record leaves them out and has no list of resources either.
fn resource(event: &Event<'_>) -> Result<String, Malformed> {
    if is_of_account(event) {
        return Ok(event.account.to_string());
    }
    if event.is_left_out(Part::Request) {
        return Ok(listed_resource(event).unwrap_or_default());
    }
    let partition = exposure::partition(&event.region);
    match (event.request_str("/bucketName")?, event.request_str("/key")?) {
        (Some(bucket), Some(key)) if event.name.eq_ignore_ascii_case("PutObjectAcl") => {
            Ok(format!("arn:{partition}:s3:::{bucket}/{key}"))
        }
        (Some(bucket), _) => Ok(format!("arn:{partition}:s3:::{bucket}")),
        (None, _) if event.is_failed() => Ok(String::new()),
        (None, _) => Err(Malformed::missing("requestParameters.bucketName")),
    }
}

/// The first ARN of S3 among the record's `resources`.
fn listed_resource(event: &Event<'_>) -> Option<String> {
    let resources: Vec<Value> = serde_json::from_str(event.raw(Part::Resources)?).ok()?;
    let mut arns = resources.iter().filter_map(|resource| resource["ARN"].as_str());
    arns.find(|arn| arn.split(':').nth(2) == Some("s3")).map(str::to_owned)
}

/// What is open or not: the resource, with the version of an object whose ACL names one, as each has an ACL of its own. A
/// call without a version is about the newest, which records do not name.
fn subject(event: &Event<'_>) -> Result<String, Malformed> {
    let resource = resource(event)?;
    Ok(match event.request_str("/versionId")? {
        Some(version) if event.name.eq_ignore_ascii_case("PutObjectAcl") => format!("{resource}?versionId={version}"),
        _ => resource,
    })
}

/// The flags after the call, `1` for on, in the order of [`FLAGS`]. A flag that is not sent is off. `None` when a failed
/// call does not show them.
fn block_flags(event: &Event<'_>) -> Result<Option<String>, Malformed> {
    if event.name.to_ascii_lowercase().starts_with("delete") {
        return Ok(Some("0000".to_owned()));
    }
    let configuration = &event.request()?["PublicAccessBlockConfiguration"];
    if !configuration.is_object() {
        return if event.is_failed() {
            Ok(None)
        } else {
            Err(Malformed::missing("requestParameters.PublicAccessBlockConfiguration"))
        };
    }
    let flag = |name: &str| match &configuration[name] {
        Value::Bool(on) => Ok(*on),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Value::Null => Ok(false),
        _ => Err(Malformed::wrong(name, "true or false")),
    };
    FLAGS.iter().map(|name| Ok(if flag(name)? { '1' } else { '0' })).collect::<Result<String, _>>().map(Some)
}

fn policy(event: &Event<'_>, trust: Trust<'_>) -> Result<Verdict, Malformed> {
    let policy = &event.request()?["bucketPolicy"];
    if policy.is_null() {
        return if event.is_failed() {
            Ok(Verdict::default())
        } else {
            Err(Malformed::missing("requestParameters.bucketPolicy"))
        };
    }
    readable(event, exposure::judge(policy, &event.account, trust), "bucketPolicy")
}

fn acl(event: &Event<'_>) -> Result<Vec<Grant>, Malformed> {
    readable(event, exposure::grants(event.request()?), "")
}

/// What S3 refused need not be readable.
fn readable<T: Default>(event: &Event<'_>, read: Result<T, Unreadable>, field: &str) -> Result<T, Malformed> {
    read.or_else(|unreadable| {
        if event.is_failed() {
            return Ok(T::default());
        }
        let parts = ["requestParameters", field, unreadable.field];
        let path = parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(".");
        Err(Malformed::wrong(&path, unreadable.expected))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoFiles;

    impl Files for NoFiles {
        fn read(&self, name: &str) -> Result<Vec<u8>, String> {
            Err(format!("there is no file {name}"))
        }
    }

    fn classified(name: &str, rest: &str) -> Result<Option<Evidence>, Malformed> {
        let record = format!(
            r#"{{"eventTime":"2026-03-02T10:00:00Z","eventSource":"s3.amazonaws.com","eventName":"{name}",{rest}}}"#
        );
        let classifier = S3PublicExposure::new(Settings::default(), &NoFiles).unwrap();
        let event = Event::from_cloudtrail(&record).unwrap();
        classifier.observe(&event)?;
        classifier.classify(&event, &Known::default())
    }

    #[test]
    fn parameters_of_the_wrong_type_are_schema_drift() {
        for (name, request, field) in [
            ("PutBucketPolicy", r#"{"bucketName":"b"}"#, "requestParameters.bucketPolicy"),
            ("PutBucketPolicy", r#"{"bucketName":"b","bucketPolicy":7}"#, "requestParameters.bucketPolicy"),
            (
                "PutBucketPolicy",
                r#"{"bucketName":"b","bucketPolicy":{"Statement":[{}]}}"#,
                "requestParameters.bucketPolicy.Statement.Action",
            ),
            ("PutBucketAcl", r#"{"bucketName":"b","x-amz-acl":7.5}"#, ""),
            ("PutBucketAcl", r#"{"bucketName":"b","x-amz-acl":{}}"#, "requestParameters.x-amz-acl"),
            ("PutBucketAcl", "null", "requestParameters.bucketName"),
            ("PutBucketPublicAccessBlock", r#"{"bucketName":"b"}"#, "requestParameters.PublicAccessBlockConfiguration"),
            (
                "PutBucketPublicAccessBlock",
                r#"{"bucketName":"b","PublicAccessBlockConfiguration":{"BlockPublicAcls":7}}"#,
                "BlockPublicAcls",
            ),
            ("DeleteBucketPolicy", r#"{"bucketName":7}"#, "/bucketName"),
        ] {
            let result = classified(name, &format!(r#""requestParameters":{request}"#));
            let drift = result.err().map(|e| e.field).unwrap_or_default();
            assert_eq!(drift, field, "{name} {request}");
        }
    }

    #[test]
    fn what_s3_refused_need_not_be_readable() {
        for (name, request) in [
            ("PutBucketPolicy", "null"),
            ("PutBucketPolicy", r#"{"bucketName":"b","bucketPolicy":"{"}"#),
            ("PutBucketPublicAccessBlock", "null"),
            ("PutBucketAcl", "null"),
            ("DeleteBucketPolicy", "null"),
        ] {
            let rest = format!(r#""errorCode":"AccessDenied","requestParameters":{request}"#);
            assert_eq!(classified(name, &rest), Ok(None), "{name} {request}");
        }
    }

    #[test]
    fn trusted_accounts_must_be_ids() {
        let settings = Settings { trusted_accounts: vec!["partner".to_owned()], ..Settings::default() };
        let error = S3PublicExposure::new(settings, &NoFiles).err().unwrap();
        assert!(error.to_string().starts_with("trusted_accounts: \"partner\""), "{error}");
    }
}
