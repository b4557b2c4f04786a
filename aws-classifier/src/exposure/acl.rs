//! Whom an access control list lets in.
//!
//! A list comes in headers (`x-amz-acl`, `x-amz-grant-…`) or in the body (`AccessControlPolicy`). Grants to the owner and
//! to AWS's own log delivery are left out.

use serde_json::Value;

use super::{Unreadable, texts};

/// Grants beyond this many are not read: S3 takes at most 100 (S3 user guide, "Access control list overview").
const GRANTS_MAX: usize = 100;

/// AWS's own accounts that are given access by name, all documented: CloudFront's log delivery (CloudFront developer
/// guide, "Standard logging") and EC2's for instance-store images (`aws-exec-read`).
const AWS_CANONICAL_IDS: [&str; 2] = [
    "c4c1ede66af53448b93c283ce9448c4ba468c9432aa01d700d3878632f77d2d0",
    "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c",
];

/// Who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grantee {
    /// Anyone (`AllUsers`).
    AllUsers,
    /// Anyone with an AWS account (`AuthenticatedUsers`), which is anyone who cares to have one.
    AuthenticatedUsers,
    /// A canonical user id or e-mail address of another account.
    Account(String),
}

impl Grantee {
    /// Whether it stands for people nobody chose.
    pub const fn is_public(&self) -> bool {
        matches!(self, Self::AllUsers | Self::AuthenticatedUsers)
    }
}

/// One grant to someone who is not the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub grantee: Grantee,
    /// `READ`, `WRITE`, `READ_ACP`, `WRITE_ACP` or `FULL_CONTROL`.
    pub permission: String,
}

impl Grant {
    /// Whether it lets them change something.
    pub fn writes(&self) -> bool {
        matches!(self.permission.as_str(), "WRITE" | "WRITE_ACP" | "FULL_CONTROL")
    }
}

impl std::fmt::Display for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let grantee = match &self.grantee {
            Grantee::AllUsers => "AllUsers",
            Grantee::AuthenticatedUsers => "AuthenticatedUsers",
            Grantee::Account(id) => id,
        };
        write!(f, "{grantee}: {}", self.permission)
    }
}

/// The grants that a request carries, in headers (also below `accessControlList`, where CloudTrail puts them for some
/// calls) and in the body.
///
/// # Errors
/// When a header is no text, or the body is no access control list.
pub fn grants(request: &Value) -> Result<Vec<Grant>, Unreadable> {
    let mut grants = Vec::new();
    for headers in [request, &request["accessControlList"]] {
        for (name, value) in headers.as_object().into_iter().flatten() {
            let name = name.to_ascii_lowercase();
            if name == "x-amz-acl" {
                for canned in texts(value).ok_or(Unreadable { field: "x-amz-acl", expected: "a text" })? {
                    add_canned(&canned, &mut grants);
                }
            } else if let Some(permission) = name.strip_prefix("x-amz-grant-") {
                let permission = permission.replace('-', "_").to_ascii_uppercase();
                let field = "x-amz-grant-*";
                for list in texts(value).ok_or(Unreadable { field, expected: "a list of grantees" })? {
                    add_header(&list, &permission, &mut grants);
                }
            }
        }
    }
    add_body(&request["AccessControlPolicy"], &mut grants)?;
    grants.truncate(GRANTS_MAX);
    Ok(grants)
}

/// A canned list. Those not named here concern the owner, the bucket's owner or AWS only.
fn add_canned(name: &str, grants: &mut Vec<Grant>) {
    let mut grant = |grantee, permission: &str| grants.push(Grant { grantee, permission: permission.to_owned() });
    match name.trim().to_ascii_lowercase().as_str() {
        "public-read" => grant(Grantee::AllUsers, "READ"),
        "public-read-write" => {
            grant(Grantee::AllUsers, "READ");
            grant(Grantee::AllUsers, "WRITE");
        }
        "authenticated-read" => grant(Grantee::AuthenticatedUsers, "READ"),
        _ => {}
    }
}

/// `uri="…", id="…", emailAddress="…"`, with or without quotes.
fn add_header(list: &str, permission: &str, grants: &mut Vec<Grant>) {
    for item in list.split(',').take(GRANTS_MAX) {
        let Some((kind, value)) = item.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        let grantee = match kind.trim().to_ascii_lowercase().as_str() {
            "uri" => group(value),
            "id" | "emailaddress" => account(value, ""),
            _ => None,
        };
        grants.extend(grantee.map(|grantee| Grant { grantee, permission: permission.to_owned() }));
    }
}

fn add_body(policy: &Value, grants: &mut Vec<Grant>) -> Result<(), Unreadable> {
    let field = "AccessControlPolicy";
    let expected = "an access control list";
    let list = match policy {
        Value::Null => return Ok(()),
        Value::Object(_) => match &policy["AccessControlList"] {
            // An empty XML element is written as an empty text.
            Value::Null | Value::String(_) => return Ok(()),
            Value::Object(list) => list.get("Grant").unwrap_or(&Value::Null),
            _ => return Err(Unreadable { field, expected }),
        },
        _ => return Err(Unreadable { field, expected }),
    };
    let list = match list {
        Value::Array(list) => list.as_slice(),
        Value::Null => &[],
        one => std::slice::from_ref(one),
    };
    let owner = policy["Owner"]["ID"].as_str().unwrap_or_default();
    for grant in list.iter().take(GRANTS_MAX) {
        let (grantee, Some(permission)) = (&grant["Grantee"], grant["Permission"].as_str()) else {
            return Err(Unreadable { field: "AccessControlPolicy.AccessControlList.Grant", expected: "a grant" });
        };
        let grantee = match (grantee["URI"].as_str(), grantee["ID"].as_str(), grantee["EmailAddress"].as_str()) {
            (Some(uri), _, _) => group(uri),
            (None, Some(id), _) | (None, None, Some(id)) => account(id, owner),
            (None, None, None) => {
                return Err(Unreadable {
                    field: "AccessControlPolicy.AccessControlList.Grant.Grantee",
                    expected: "a grantee",
                });
            }
        };
        grants.extend(grantee.map(|grantee| Grant { grantee, permission: permission.to_owned() }));
    }
    Ok(())
}

/// The predefined groups. `…/s3/LogDelivery` is AWS itself.
fn group(uri: &str) -> Option<Grantee> {
    let name = uri.trim().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if name.eq_ignore_ascii_case("AllUsers") {
        Some(Grantee::AllUsers)
    } else if name.eq_ignore_ascii_case("AuthenticatedUsers") {
        Some(Grantee::AuthenticatedUsers)
    } else {
        None
    }
}

fn account(id: &str, owner: &str) -> Option<Grantee> {
    (!id.is_empty() && id != owner && !AWS_CANONICAL_IDS.contains(&id)).then(|| Grantee::Account(id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(request: &Value) -> Vec<String> {
        grants(request).unwrap().iter().map(Grant::to_string).collect()
    }

    #[test]
    fn headers_and_bodies_say_the_same() {
        let all = "http://acs.amazonaws.com/groups/global/AllUsers";
        let body = |grant: Value| json!({"AccessControlPolicy": {"Owner": {"ID": "own"}, "AccessControlList": {"Grant": grant}}});
        let grant = json!({"Grantee": {"xsi:type": "Group", "URI": all}, "Permission": "READ"});
        let owners = json!({"Grantee": {"ID": "own"}, "Permission": "FULL_CONTROL"});
        for request in [
            json!({"x-amz-acl": "public-read"}),
            json!({"x-amz-acl": ["public-read"]}),
            json!({"accessControlList": {"X-Amz-Acl": "public-read"}}),
            json!({"x-amz-grant-read": format!("uri=\"{all}\"")}),
            json!({"accessControlList": {"x-amz-grant-read": format!("uri={all}")}}),
            body(grant.clone()),
            body(json!([owners, grant])),
        ] {
            assert_eq!(shown(&request), ["AllUsers: READ"], "{request}");
        }
    }

    #[test]
    fn other_groups_and_accounts_are_told_apart() {
        let request = json!({
            "x-amz-grant-full-control": "id=\"abc\", emailAddress=\"x@example.com\"",
            "x-amz-grant-write": "uri=\"http://acs.amazonaws.com/groups/s3/LogDelivery\"",
            "x-amz-grant-read-acp": "uri=\"http://acs.amazonaws.com/groups/global/AuthenticatedUsers\"",
            "x-amz-grant-read": format!("id={}", AWS_CANONICAL_IDS[0]),
        });
        let found = shown(&request);
        assert_eq!(found, ["abc: FULL_CONTROL", "x@example.com: FULL_CONTROL", "AuthenticatedUsers: READ_ACP"]);
        assert_eq!(shown(&json!({"x-amz-acl": "public-read-write"})), ["AllUsers: READ", "AllUsers: WRITE"]);
        for harmless in ["private", "bucket-owner-full-control", "log-delivery-write", "aws-exec-read", ""] {
            assert_eq!(shown(&json!({ "x-amz-acl": harmless })), [""; 0], "{harmless}");
        }
        assert_eq!(shown(&json!({"bucketName": "b", "acl": ""})), [""; 0]);
    }

    #[test]
    fn what_is_no_list_is_named() {
        for (request, field) in [
            (json!({"x-amz-acl": {}}), "x-amz-acl"),
            (json!({"x-amz-grant-read": null}), "x-amz-grant-*"),
            (json!({"AccessControlPolicy": "x"}), "AccessControlPolicy"),
            (
                json!({"AccessControlPolicy": {"AccessControlList": {"Grant": {"Permission": "READ"}}}}),
                "AccessControlPolicy.AccessControlList.Grant.Grantee",
            ),
            (
                json!({"AccessControlPolicy": {"AccessControlList": {"Grant": [7]}}}),
                "AccessControlPolicy.AccessControlList.Grant",
            ),
        ] {
            assert_eq!(grants(&request).unwrap_err().field, field, "{request}");
        }
    }
}
