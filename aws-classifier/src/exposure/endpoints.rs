//! Whether the policy of a network's endpoint holds anything back.
//!
//! An endpoint's policy says what may pass: whose credentials, and to what. So conditions on resources limit it as those
//! on callers do, and a service whose every call may pass to everything is as open as no policy at all.

use serde_json::Value;

use super::conditions::entries;
use super::document::{self, Effect};
use super::policy::Callers;
use super::scope::Scope;
use super::{Unreadable, is_wild};

/// Endpoints of S3 are what policies are mostly written for.
const EVERYTHING: [&str; 2] = ["*", "arn:aws:s3:::*"];

/// Whether everybody may make every call of a service to everything.
///
/// # Errors
/// When it is no policy of an endpoint.
pub fn holds_nothing_back(policy: &Value) -> Result<bool, Unreadable> {
    let document = document::read(policy)?;
    let (mut opens, mut closes) = (false, false);
    for body in document::statements(&document)? {
        let actions = Scope::read(body, ["Action", "NotAction"], &Value::Null, "Statement.Action")?;
        let resources = Scope::read(body, ["Resource", "NotResource"], &Value::Null, "Statement.Resource")?;
        let of_all = Callers::read(body)?.anyone
            && actions.reach().iter().any(|a| is_service(a))
            && EVERYTHING.iter().any(|all| resources.gives(all));
        let is_limited = entries(&body["Condition"])?.iter().any(|(_, key, values)| {
            is_about_who_or_what(key) && !values.is_empty() && !values.iter().any(|v| is_wild(v))
        });
        match document::effect(body)? {
            Effect::Allow => opens |= of_all && !is_limited,
            // Whoever is not of the organization, or is not asked for its resources; or all of it.
            Effect::Deny => closes |= of_all && (is_limited || body["Condition"].is_null()),
        }
    }
    Ok(opens && !closes)
}

/// `*`, `*:*`, `s3:*`: all calls of a service or of all.
fn is_service(action: &str) -> bool {
    is_wild(action.split_once(':').map_or(action, |(_, call)| call))
}

/// Keys that name callers, where they come from, or what they ask for.
fn is_about_who_or_what(key: &str) -> bool {
    const BEGINNINGS: [&str; 8] =
        ["aws:principal", "aws:resource", "aws:source", "aws:userid", "aws:username", "aws:vpce", "kms:caller", "s3:"];
    BEGINNINGS.iter().any(|beginning| key.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(statements: &Value) -> bool {
        holds_nothing_back(&json!({ "Statement": statements })).expect("a policy")
    }

    fn allow(action: &str, resource: &str, condition: &Value) -> Value {
        json!({"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource, "Condition": condition})
    }

    #[test]
    fn every_way_to_let_all_through_is_one() {
        for statements in [
            allow("*", "*", &Value::Null),
            allow("**", "**", &Value::Null),
            allow("*:*", "*", &Value::Null),
            allow("s3:*", "*", &Value::Null),
            allow("s3:*", "arn:aws:s3:::*", &Value::Null),
            allow("*", "*", &json!({"Bool": {"aws:SecureTransport": "true"}})),
            allow("*", "*", &json!({"StringLike": {"aws:PrincipalOrgID": "*"}})),
            json!({"Effect": "Allow", "Principal": {"AWS": "*"}, "NotAction": "s3:DeleteBucket", "Resource": "*"}),
            json!({"Effect": "Allow", "Principal": "*", "Action": ["ec2:*"], "NotResource": "arn:aws:s3:::b"}),
            json!([allow("*", "*", &Value::Null), {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteBucket", "Resource": "*"}]),
        ] {
            assert!(open(&statements), "{statements}");
        }
    }

    #[test]
    fn what_names_callers_or_resources_holds_something_back() {
        for statements in [
            allow("s3:GetObject", "*", &Value::Null),
            allow("*", "arn:aws:s3:::reports/*", &Value::Null),
            allow("*", "*", &json!({"StringEquals": {"aws:PrincipalOrgID": "o-exampleorg1"}})),
            allow("*", "*", &json!({"StringEquals": {"aws:ResourceOrgID": "o-exampleorg1"}})),
            allow("*", "*", &json!({"Bool": {"aws:PrincipalIsAWSService": "true"}})),
            json!({"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "*", "Resource": "*"}),
            json!([allow("*", "*", &Value::Null), {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*",
                "Condition": {"StringNotEquals": {"aws:ResourceOrgID": "o-exampleorg1"}}}]),
        ] {
            assert!(!open(&statements), "{statements}");
        }
    }

    #[test]
    fn what_is_no_policy_is_named() {
        assert_eq!(holds_nothing_back(&json!("{")).map_err(|e| e.field), Err(""));
        let unnamed = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
        assert_eq!(holds_nothing_back(&unnamed).map_err(|e| e.field), Err("Statement.Principal"));
    }
}
