//! The model of "this lets strangers in": policies of buckets and of other resources, and the access control lists of S3;
//! and of "this gives every right": policies of identities.
//!
//! Pure: it reads documents and answers who they let in. It knows neither the events that carry them nor what is public
//! on purpose. It follows what S3 itself means by "public" (S3 user guide, "Blocking public access to your Amazon S3
//! storage", "The meaning of public"): everything is public unless it is limited to fixed values. Where it departs
//! from that page, `conditions` says so.

mod acl;
mod conditions;
mod denials;
mod document;
mod effort;
mod endpoints;
mod identity_providers;
mod load_balancers;
mod policy;
mod powers;
mod scope;

pub use acl::{Grant, Grantee, grants};
pub use conditions::Trust;
pub use endpoints::holds_nothing_back;
pub use load_balancers::writes_load_balancer_logs;
pub use policy::{Audience, Opening, Verdict, judge, judge_attached, named_users};
pub use powers::{Holder, Powers, powers};

/// Why a document cannot be judged: it is not what S3 would have accepted. Names the field below the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Path below the document, such as `Statement.Effect`; empty for the document itself.
    pub field: &'static str,
    /// What it should be.
    pub expected: &'static str,
}

/// The account of an ARN (`arn:partition:service:region:account:resource`); `None` when it is no ARN or names none.
fn account_of(arn: &str) -> Option<&str> {
    let account = arn.strip_prefix("arn:")?.split(':').nth(3)?;
    (!account.is_empty()).then_some(account)
}

/// The resource of an ARN, with its kind; `None` when it is no ARN.
fn resource_of(arn: &str) -> Option<&str> {
    arn.strip_prefix("arn:")?.splitn(5, ':').nth(4)
}

/// The partition that a region belongs to, as ARNs write it.
pub fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// A glob of wildcards alone.
fn is_wild(glob: &str) -> bool {
    glob.contains('*') && glob.bytes().all(|b| matches!(b, b'*' | b'?'))
}

/// Twelve digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// `o-` and ten to thirty-two letters and digits (Organizations API reference, "Organization").
pub fn is_organization(text: &str) -> bool {
    text.strip_prefix("o-").is_some_and(|id| {
        (10..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

/// What a policy member holds: one text or a list of texts. Numbers and booleans count as their text.
fn texts(value: &serde_json::Value) -> Option<Vec<String>> {
    use serde_json::Value;
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => text(one).map(|t| vec![t]),
    }
}
