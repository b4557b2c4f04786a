//! Whether an identity provider that a role trusts lets strangers in.
//!
//! Some providers sign tokens for everybody who opens an account with them. A role that trusts one of these without
//! saying whose tokens it means can be taken by all of them. IAM refuses to create such trust today (IAM user guide,
//! "Identity-provider controls for shared OIDC providers"); roles of before and names with a wildcard remain.

use serde_json::Value;

use super::conditions::{entries, is_plain};
use super::{Unreadable, resource_of};

/// A provider that many share, by host and path of its issuer, and the claims of its tokens that name no tenant.
struct Shared {
    issuer: &'static str,
    says_nothing: &'static [&'static str],
}

/// Where work is signed for: everybody may ask for any audience.
const fn builder(issuer: &'static str) -> Shared {
    Shared { issuer, says_nothing: &["aud"] }
}

/// Where people sign in to an application, which the audience names.
const fn people(issuer: &'static str) -> Shared {
    Shared { issuer, says_nothing: &["amr"] }
}

const SHARED: [Shared; 11] = [
    builder("agent.buildkite.com"),
    builder("app.terraform.io"),
    builder("gitlab.com"),
    builder("oidc.codefresh.io"),
    builder("oidc.vercel.com"),
    builder("scalr.io"),
    builder("token.actions.githubusercontent.com"),
    people("accounts.google.com"),
    people("cognito-identity.amazonaws.com"),
    people("graph.facebook.com"),
    people("www.amazon.com"),
];

/// Whether a statement that trusts `provider`, an ARN or a bare name, under `condition` lets anyone in who has an account
/// there. Providers of one company let nobody else in.
///
/// # Errors
/// When the condition is none.
pub(super) fn lets_anyone_in(provider: &str, condition: &Value) -> Result<bool, Unreadable> {
    let issuer = resource_of(provider).and_then(|r| r.strip_prefix("oidc-provider/")).unwrap_or(provider);
    let Some(shared) = SHARED.iter().find(|shared| shared.issuer.eq_ignore_ascii_case(issuer)) else {
        return Ok(false);
    };
    Ok(!entries(condition)?.iter().any(|(operator, key, values)| {
        let claim = key.strip_prefix(shared.issuer).and_then(|rest| rest.strip_prefix(':'));
        claim.is_some_and(|claim| !shared.says_nothing.contains(&claim))
            && holds_only_if_named(operator)
            && !values.is_empty()
            && values.iter().all(|value| names_a_tenant(value))
    }))
}

/// `…IfExists` and `ForAllValues:` also hold where the claim is absent, negated operators for everybody else.
fn holds_only_if_named(operator: &str) -> bool {
    let operator = operator.strip_prefix("foranyvalue:").unwrap_or(operator);
    ["stringequals", "stringequalsignorecase", "stringlike"].contains(&operator)
}

/// `repo:my-company/*`, `organization:my-company:project:*`, `my-company`: what comes after the kind of name, up to the
/// next separator, is whole. `repo:my-company*` is not: anyone may be called `my-company-too`.
fn names_a_tenant(value: &str) -> bool {
    let name = value.split_once(':').map_or(value, |(kind, name)| if is_plain(kind) { name } else { "" });
    name.split(['/', ':']).next().is_some_and(is_plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GITHUB: &str = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com";

    fn github(condition: &Value) -> bool {
        lets_anyone_in(GITHUB, condition).expect("a condition")
    }

    #[test]
    fn builds_of_strangers_are_kept_out_by_a_whole_name_only() {
        let sub = |operator: &str, values: Value| {
            let mut keys = serde_json::Map::new();
            keys.insert("token.actions.githubusercontent.com:sub".to_owned(), values);
            json!({"StringEquals": {"token.actions.githubusercontent.com:aud": "sts.amazonaws.com"}, operator: keys})
        };
        for closed in [
            sub("StringLike", json!("repo:acme/*")),
            sub("StringLike", json!("repo:acme/site:*")),
            sub("StringLike", json!(["repo:acme/site:*", "repo:acme-labs/site:ref:refs/heads/main"])),
            sub("ForAnyValue:StringLike", json!("repo:acme/*")),
            sub("StringEqualsIgnoreCase", json!("repo:acme/site:environment:production")),
            json!({"StringEquals": {"token.actions.githubusercontent.com:repository_owner": "acme"}}),
            json!({"StringEquals": {"token.actions.githubusercontent.com:job_workflow_ref": "acme/flows/.github/x.yml@main"}}),
        ] {
            assert!(!github(&closed), "{closed}");
        }
        for open in [
            Value::Null,
            json!({"StringEquals": {"token.actions.githubusercontent.com:aud": "sts.amazonaws.com"}}),
            sub("StringLike", json!("*")),
            sub("StringLike", json!("repo:*")),
            sub("StringLike", json!("repo:acme*")),
            sub("StringLike", json!("repo:acme*/site:*")),
            sub("StringLike", json!("*:acme/site:*")),
            sub("StringLike", json!("repo:*/site:ref:refs/heads/main")),
            sub("StringLike", json!(["repo:acme/site:*", "repo:*:ref:refs/heads/main"])),
            sub("StringLike", json!([])),
            sub("StringLikeIfExists", json!("repo:acme/*")),
            sub("ForAllValues:StringLike", json!("repo:acme/*")),
            sub("StringNotLike", json!("repo:acme/*")),
            json!({"StringEquals": {"gitlab.com:sub": "project_path:acme/site:ref_type:branch:ref:main"}}),
        ] {
            assert!(github(&open), "{open}");
        }
    }

    #[test]
    fn every_provider_is_closed_by_what_names_a_tenant_there() {
        for (provider, key, value) in [
            ("agent.buildkite.com", "sub", "organization:acme:pipeline:site:*"),
            ("app.terraform.io", "sub", "organization:acme:project:*:workspace:*:run_phase:*"),
            ("gitlab.com", "sub", "project_path:acme/*:ref_type:branch:ref:main"),
            ("oidc.codefresh.io", "sub", "account:64f1c0de:pipeline:64f1:initiator:*"),
            ("oidc.vercel.com", "sub", "owner:acme:project:site:environment:production"),
            ("scalr.io", "sub", "account:acme:environment:production:workspace:*"),
            ("token.actions.githubusercontent.com", "sub", "repo:acme/site:*"),
            ("accounts.google.com", "aud", "66677788899900pro0"),
            ("cognito-identity.amazonaws.com", "aud", "eu-west-1:12345678-ffff-ffff-ffff-123456"),
            ("graph.facebook.com", "app_id", "111222333444555"),
            ("www.amazon.com", "app_id", "amzn1.application-oa2-123456"),
        ] {
            let named = |key: &str| json!({"StringLike": {format!("{provider}:{key}"): value}});
            assert!(!lets_anyone_in(provider, &named(key)).expect("a condition"), "{provider}");
            assert!(lets_anyone_in(provider, &Value::Null).expect("no condition"), "{provider}");
            let nothing = if key == "sub" { "aud" } else { "amr" };
            assert!(lets_anyone_in(provider, &named(nothing)).expect("a condition"), "{provider}");
        }
    }

    #[test]
    fn providers_of_one_company_let_nobody_else_in() {
        for provider in [
            "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE",
            "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com/acme",
            "arn:aws:iam::123456789012:oidc-provider/gitlab.acme.example",
            "arn:aws:iam::123456789012:saml-provider/gitlab.com",
        ] {
            assert!(!lets_anyone_in(provider, &Value::Null).expect("no condition"), "{provider}");
        }
    }
}
