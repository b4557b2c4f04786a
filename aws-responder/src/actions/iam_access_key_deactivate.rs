//! Sets the access key a finding is about inactive.
//!
//! *What it does.* One `iam:UpdateAccessKey` with `Status=Inactive`: for the key that was created (facts `access_key_id`
//! and `user_name`) or, when the finding names none, the key the call was signed with.
//!
//! *What it leaves alone.* Session keys (`ASIA…`), which have no status, and the root user's keys, which nobody but root
//! can change. Sessions made with the key before stay alive: ending them is another action's work.
//!
//! *Before it acts.* It lists the user's keys. A user who was renamed meanwhile keeps the key, so a key that is not listed is
//! asked for its owner, and set inactive under the owner's name. A key that is inactive already, and one that nobody owns
//! any more, need no call.
//!
//! *Undo.* The same call with `Status=Active`.
//!
//! *References.* <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAccessKey.html>,
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListAccessKeys.html>,
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccessKeyLastUsed.html>

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::text::one_line;
use shared::{Action, ActionMeta, ApiCall, Finding, NotApplicable, Permission, Plan, SettingsError, Settled};

use super::is_account;

/// The plug-in.
#[derive(Clone, Copy, Debug)]
pub struct IamAccessKeyDeactivate;

/// It has no settings of its own.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {}

impl Action for IamAccessKeyDeactivate {
    const META: ActionMeta = ActionMeta {
        id: "iam_access_key_deactivate",
        title: "Access key set inactive",
        permissions: &[
            Permission {
                action: "iam:ListAccessKeys",
                resource: "arn:${AWS::Partition}:iam::${AWS::AccountId}:user/*",
                why: "reads first whether the key is active; whose key it will be is not known beforehand",
            },
            Permission {
                action: "iam:GetAccessKeyLastUsed",
                resource: "arn:${AWS::Partition}:iam::${AWS::AccountId}:user/*",
                why: "finds the owner of a key whose user was renamed; who that is, is what it asks",
            },
            Permission {
                action: "iam:UpdateAccessKey",
                resource: "arn:${AWS::Partition}:iam::${AWS::AccountId}:user/*",
                why: "sets the key inactive, and active again on undo; whose key it will be is not known beforehand",
            },
        ],
        reversible: true,
    };
    type Settings = Settings;

    fn new(Settings {}: Settings) -> Result<Self, SettingsError> {
        Ok(Self)
    }

    fn plan(&self, finding: &Finding) -> Result<Vec<(String, Plan)>, NotApplicable> {
        let Some(key) = key_of(finding)? else { return Ok(Vec::new()) };
        let call = |operation: &str, parameters: Value| ApiCall {
            service: "iam".to_owned(),
            operation: operation.to_owned(),
            account: key.account.to_owned(),
            region: iam_region(&finding.region).to_owned(),
            parameters,
        };
        let update = |status: &str| {
            call("UpdateAccessKey", json!({"AccessKeyId": key.id, "Status": status, "UserName": key.user}))
        };
        let plan = Plan {
            reads: vec![call("ListAccessKeys", json!({"UserName": key.user}))],
            calls: vec![update("Inactive")],
            undo: vec![update("Active")],
        };
        Ok(vec![(key.id.to_owned(), plan)])
    }

    /// Who is not listed with the key is asked about, and who owns it is listed.
    fn follow(&self, plan: &Plan, seen: &[Value]) -> Option<Plan> {
        let (list, update) = (plan.reads.first()?, plan.calls.first()?);
        if live_key(update, seen).ok()?.is_some() {
            return None;
        }
        let Some(answer) = seen.get(1) else {
            let parameters = json!({"AccessKeyId": update.parameters["AccessKeyId"]});
            let owner = ApiCall { operation: "GetAccessKeyLastUsed".to_owned(), parameters, ..list.clone() };
            return Some(Plan { reads: vec![list.clone(), owner], ..plan.clone() });
        };
        let owner = answer["UserName"].as_str().filter(|name| is_user_name(name))?;
        if update.parameters["UserName"] == owner {
            return None;
        }
        let of_owner = |call: &ApiCall| {
            let mut call = call.clone();
            call.parameters["UserName"] = json!(owner);
            call
        };
        Some(Plan {
            reads: vec![of_owner(list)],
            calls: plan.calls.iter().map(of_owner).collect(),
            undo: plan.undo.iter().map(of_owner).collect(),
        })
    }

    fn settle(&self, finding: &Finding, plan: &Plan, seen: &[Value]) -> Result<Settled, NotApplicable> {
        let nothing = |note: &str, is_absent| Settled {
            plan: Plan { reads: plan.reads.clone(), ..Plan::default() },
            note: note.to_owned(),
            is_absent,
            ..Settled::default()
        };
        let [call] = &plan.calls[..] else { return Err(NotApplicable("the plan is not of one call".to_owned())) };
        Ok(match live_key(call, seen)? {
            None if seen.get(1).is_some_and(|owner| !owner["UserName"].is_string()) => {
                nothing("nobody has such a key any more", true)
            }
            // IAM does not show it yet, or it moves on whenever its owner is asked for.
            None => Settled {
                remains: "the key is somebody's, who is not listed with it; look at it".to_owned(),
                ..nothing("", true)
            },
            Some(key) if key["Status"] == call.parameters["Status"] => nothing("the key is inactive already", false),
            Some(key) => Settled {
                plan: plan.clone(),
                before: vec![key.clone()],
                note: renamed(finding, call),
                ..Settled::default()
            },
        })
    }

    fn left(&self, call: &ApiCall, seen: &[Value]) -> Result<Option<ApiCall>, NotApplicable> {
        match live_key(call, seen)? {
            Some(key) if key["Status"] == call.parameters["Status"] => Ok(None),
            Some(_) => Ok(Some(call.clone())),
            None => Err(NotApplicable(
                "the user has no such key any more: it does not exist, or the user was renamed".to_owned(),
            )),
        }
    }
}

/// Says it when the key's user has another name than the finding knows.
fn renamed(finding: &Finding, call: &ApiCall) -> String {
    let now = call.parameters["UserName"].as_str().unwrap_or_default();
    match key_of(finding) {
        Ok(Some(key)) if key.user != now => format!("the user is called {} by now", one_line(now, 64)),
        _ => String::new(),
    }
}

/// The key of an `UpdateAccessKey` among the answer of `ListAccessKeys`; null is a user that does not exist.
fn live_key<'s>(call: &ApiCall, seen: &'s [Value]) -> Result<Option<&'s Value>, NotApplicable> {
    let id = call.parameters["AccessKeyId"].as_str();
    let (Some(id), [answer, ..]) = (id, seen) else {
        return Err(NotApplicable("the call names no key, or nothing was read".to_owned()));
    };
    if answer.is_null() {
        return Ok(None);
    }
    let keys = answer["AccessKeyMetadata"].as_array();
    let keys = keys.ok_or_else(|| NotApplicable("the answer lists no keys".to_owned()))?;
    Ok(keys.iter().find(|key| key["AccessKeyId"] == id))
}

struct Key<'f> {
    id: &'f str,
    user: &'f str,
    account: &'f str,
}

/// The key the finding names, else the one the caller used, who has one of their own only as a user; or why it cannot be
/// acted on.
fn key_of(finding: &Finding) -> Result<Option<Key<'_>>, NotApplicable> {
    let no = |why: &str| Err(NotApplicable(why.to_owned()));
    let identity = &finding.identity;
    let fact = |name: &str| finding.evidence.get(name).and_then(Value::as_str).unwrap_or_default();
    let key = if finding.evidence.contains_key("access_key_id") {
        let user = fact("user_name");
        let of_caller_or_notified = identity.is_root() || identity.kind.is_empty();
        if (identity.is_root() && user.is_empty()) || (of_caller_or_notified && user.eq_ignore_ascii_case("root")) {
            return no("it is a key of the root user, which nobody but root can change");
        }
        // GuardDuty may report from another account than the key's.
        let account = if fact("account").is_empty() { &finding.account } else { fact("account") };
        Key { id: fact("access_key_id"), user, account }
    } else if finding.event_name.eq_ignore_ascii_case("CreateAccessKey") {
        return no("the record does not say which key was created");
    } else {
        if identity.is_root() {
            return no("it is a key of the root user, which nobody but root can change");
        }
        if identity.kind != "IAMUser" {
            return Ok(None);
        }
        let account = if identity.account.is_empty() { &finding.account } else { &identity.account };
        Key { id: &identity.access_key_id, user: &identity.user_name, account }
    };
    if key.id.is_empty() {
        return Ok(None);
    }
    if key.id.starts_with("ASIA") {
        return no("it is a session key, which cannot be set inactive");
    }
    if !is_key_id(key.id) {
        return no("the key id is not one of an IAM user (AKIA and 12 to 124 capitals or digits)");
    }
    if key.user.is_empty() {
        return no("the finding does not say whose key it is");
    }
    if !is_user_name(key.user) {
        return no("the user name is not one IAM allows");
    }
    if !is_account(key.account) {
        return no("the account is not a 12-digit number");
    }
    Ok(Some(key))
}

/// `AKIA` and the alphabet of unique ids; API reference: 16 to 128 characters.
fn is_key_id(id: &str) -> bool {
    id.starts_with("AKIA")
        && (16..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// `[\w+=,.@-]{1,64}` (API reference, `UserName`).
fn is_user_name(name: &str) -> bool {
    name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

/// Where the partition's IAM lives.
fn iam_region(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "cn-north-1"
    } else if region.starts_with("us-gov-") {
        "us-gov-west-1"
    } else {
        "us-east-1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{finding, user};

    const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

    fn plan(finding: &Finding) -> Result<Vec<(String, Plan)>, NotApplicable> {
        Action::plan(&IamAccessKeyDeactivate, finding)
    }

    fn created(key: &str, user: &str) -> Finding {
        let mut finding = finding("iam_access_key_created", &[IamAccessKeyDeactivate::META.id]);
        finding.evidence.insert("access_key_id".to_owned(), json!(key));
        finding.evidence.insert("user_name".to_owned(), json!(user));
        finding
    }

    #[test]
    fn fires_for_a_created_key() {
        insta::assert_json_snapshot!(plan(&created(KEY, "alice")).unwrap());
    }

    #[test]
    fn fires_for_the_key_a_call_was_signed_with() {
        let mut finding = finding("threat_intel_ip", &[]);
        finding.identity = user("mallory");
        finding.identity.account = "210987654321".to_owned();
        finding.identity.access_key_id = KEY.to_owned();
        insta::assert_snapshot!(crate::render(&plan(&finding).unwrap()[0].1));
    }

    #[test]
    fn the_account_of_the_key_wins_over_the_account_of_the_report() {
        let mut finding = created(KEY, "alice");
        finding.evidence.insert("account".to_owned(), json!("210987654321"));
        assert_eq!(plan(&finding).unwrap()[0].1.calls[0].account, "210987654321");
    }

    fn listed(status: &str) -> Value {
        json!({"AccessKeyMetadata": [
            {"AccessKeyId": "AKIAI44QH8DHBEXAMPLE", "Status": "Active", "UserName": "alice"},
            {"AccessKeyId": KEY, "Status": status, "UserName": "alice"},
        ]})
    }

    #[test]
    fn live_state_decides_whether_a_call_is_needed() {
        let finding = created(KEY, "alice");
        let planned = plan(&finding).unwrap().remove(0).1;
        let settle =
            |seen: Value| Action::settle(&IamAccessKeyDeactivate, &finding, &planned, &[seen, Value::Null]).unwrap();
        let active = settle(listed("Active"));
        assert_eq!((&active.plan, &active.before), (&planned, &vec![listed("Active")["AccessKeyMetadata"][1].clone()]));
        for (seen, note) in [
            (listed("Inactive"), "inactive already"),
            (json!({"AccessKeyMetadata": []}), "nobody has"),
            (Value::Null, "nobody has"),
        ] {
            let settled = settle(seen);
            assert!(settled.plan.calls.is_empty() && settled.plan.undo.is_empty(), "{settled:?}");
            assert!(settled.note.contains(note) && settled.remains.is_empty(), "{settled:?}");
            assert_eq!(settled.is_absent, note == "nobody has");
        }
        Action::settle(&IamAccessKeyDeactivate, &finding, &planned, &[json!({})]).unwrap_err();
        Action::settle(&IamAccessKeyDeactivate, &finding, &planned, &[]).unwrap_err();
    }

    #[test]
    fn calls_and_undo_are_made_only_when_they_change_something() {
        let planned = plan(&created(KEY, "alice")).unwrap().remove(0).1;
        let left = |call: &ApiCall, seen: Value| Action::left(&IamAccessKeyDeactivate, call, &[seen]);
        let (off, on) = (&planned.calls[0], &planned.undo[0]);
        assert_eq!(left(off, listed("Active")).unwrap().as_ref(), Some(off));
        assert_eq!(left(off, listed("Inactive")).unwrap(), None);
        assert!(left(off, Value::Null).unwrap_err().0.contains("renamed"), "it may be active under another name");
        assert_eq!(left(on, listed("Inactive")).unwrap().as_ref(), Some(on));
        assert_eq!(left(on, listed("Active")).unwrap(), None);
        left(on, Value::Null).unwrap_err();
    }

    #[test]
    fn a_key_is_followed_to_the_new_name_of_its_user() {
        let finding = created(KEY, "alice");
        let planned = plan(&finding).unwrap().remove(0).1;
        let follow = |plan: &Plan, seen: &[Value]| Action::follow(&IamAccessKeyDeactivate, plan, seen);
        assert_eq!(follow(&planned, &[listed("Active")]), None, "it is where it was");
        let asking = follow(&planned, &[Value::Null]).unwrap();
        assert_eq!((&asking.calls, &asking.undo), (&planned.calls, &planned.undo));
        assert_eq!(
            asking.reads[1].to_string().split(" (").next(),
            Some("iam:GetAccessKeyLastUsed AccessKeyId=AKIAIOSFODNN7EXAMPLE")
        );
        for nobody in [Value::Null, json!({}), json!({"UserName": "alice"}), json!({"UserName": "a\nb"})] {
            assert_eq!(follow(&asking, &[Value::Null, nobody]), None);
        }
        let followed = follow(&asking, &[Value::Null, json!({"UserName": "bob"})]).unwrap();
        let names = |calls: &[ApiCall]| calls.iter().map(|c| c.parameters["UserName"].clone()).collect::<Vec<_>>();
        assert_eq!(
            [names(&followed.reads), names(&followed.calls), names(&followed.undo)].concat(),
            ["bob", "bob", "bob"]
        );
        let settle = |plan: &Plan, seen: &[Value]| Action::settle(&IamAccessKeyDeactivate, &finding, plan, seen);
        assert!(settle(&followed, &[listed("Active")]).unwrap().note.contains("called bob"));
        for hidden in [
            settle(&asking, &[Value::Null, json!({"UserName": "alice"})]).unwrap(),
            settle(&followed, &[Value::Null]).unwrap(),
        ] {
            assert!(hidden.is_absent && hidden.remains.contains("somebody's"), "no success: {hidden:?}");
        }
        let gone = settle(&asking, &[Value::Null, Value::Null]).unwrap();
        assert!(gone.is_absent && gone.remains.is_empty(), "{gone:?}");
    }

    #[test]
    fn ignores_what_is_about_no_key() {
        let mut session = finding("threat_intel_ip", &[]);
        session.identity.kind = "AssumedRole".to_owned();
        session.identity.access_key_id = "ASIAIOSFODNN7EXAMPLE".to_owned();
        let mut console = finding("threat_intel_ip", &[]);
        console.identity = user("mallory");
        let mut instance = finding("guardduty_finding", &[]);
        instance.identity = shared::Identity::default();
        for finding in [session, console, instance, created("", "alice")] {
            assert_eq!(plan(&finding), Ok(Vec::new()), "{finding:?}");
        }
    }

    #[test]
    fn other_partitions_have_their_own_iam() {
        for (region, iam) in
            [("cn-northwest-1", "cn-north-1"), ("us-gov-east-1", "us-gov-west-1"), ("eu-west-1", "us-east-1")]
        {
            let mut finding = created(KEY, "alice");
            finding.region = region.to_owned();
            assert_eq!(plan(&finding).unwrap()[0].1.calls[0].region, iam);
        }
    }

    #[test]
    fn ignores_what_is_not_a_users_own_key_and_says_why() {
        let root = |mut finding: Finding| {
            finding.identity.kind = "Root".to_owned();
            finding
        };
        let signed = |kind: &str, key: &str, user: &str| {
            let mut finding = finding("threat_intel_ip", &[]);
            finding.identity.kind = kind.to_owned();
            finding.identity.access_key_id = key.to_owned();
            finding.identity.user_name = user.to_owned();
            finding
        };
        let mut notified = created(KEY, "Root");
        notified.identity = shared::Identity::default();
        let mut nameless = finding("iam_access_key_created", &[]);
        nameless.event_name = "CreateAccessKey".to_owned();
        nameless.identity.access_key_id = KEY.to_owned();
        let mut elsewhere = created(KEY, "alice");
        elsewhere.account = String::new();
        let cases = [
            (created("ASIAIOSFODNN7EXAMPLE", "alice"), "session key"),
            (created(KEY, ""), "whose key"),
            (created("AKIA", "alice"), "not one of an IAM user"),
            (created("AKIAIOSFODNN7EXAMPL\n", "alice"), "not one of an IAM user"),
            (created(KEY, "alice --all"), "not one IAM allows"),
            (root(created(KEY, "")), "root user"),
            (root(created(KEY, "root")), "root user"),
            (notified, "root user"),
            (nameless, "which key was created"),
            (root(signed("Root", KEY, "")), "root user"),
            (signed("IAMUser", "ASIAIOSFODNN7EXAMPLE", "alice"), "session key"),
            (elsewhere, "12-digit"),
        ];
        for (finding, why) in cases {
            let reason = plan(&finding).unwrap_err().0;
            assert!(reason.contains(why), "{reason} does not say {why}");
        }
    }
}
