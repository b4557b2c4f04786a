//! Findings and an account for tests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::{ApiCall, Effect, Finding, FindingId, Identity, Severity, Timestamp};

use crate::cloud::{CallError, Cloud};

pub(crate) const ACCOUNT: &str = "123456789012";

/// The identity of an IAM user.
pub(crate) fn user(name: &str) -> Identity {
    Identity {
        kind: "IAMUser".to_owned(),
        arn: format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
        account: ACCOUNT.to_owned(),
        user_name: name.to_owned(),
        ..Identity::default()
    }
}

/// A high finding by mallory.
pub(crate) fn finding(classifier: &str, responses: &[&str]) -> Finding {
    let identity = user("mallory");
    Finding {
        finding_id: FindingId::new(classifier, ACCOUNT, "us-east-1", "e-1"),
        classifier: classifier.to_owned(),
        title: "Something happened".to_owned(),
        severity: Severity::High,
        effect: Effect::Threat,
        attempt: false,
        account: ACCOUNT.to_owned(),
        region: "us-east-1".to_owned(),
        event_id: "e-1".to_owned(),
        event_source: "iam.amazonaws.com".to_owned(),
        event_name: "SomeCall".to_owned(),
        event_time: Timestamp::parse("2026-03-01T12:00:00Z").unwrap(),
        principal: identity.arn.clone(),
        identity,
        source_ip: "203.0.113.7".to_owned(),
        user_agent: "aws-cli/2.13.5".to_owned(),
        resource: String::new(),
        techniques: Vec::new(),
        responses: responses.iter().map(|&id| id.to_owned()).collect(),
        dedup_key: "k".to_owned(),
        resolution_key: None,
        evidence: BTreeMap::new(),
    }
}

/// An account as IAM and EC2 would keep it: keys, and the ingress rules of groups. A change of several rules happens
/// whole or not at all, as in EC2.
#[derive(Default)]
pub(crate) struct FakeAws {
    /// Status by user and key.
    keys: RefCell<BTreeMap<(String, String), String>>,
    /// `SecurityGroupRule`s by group.
    rules: RefCell<BTreeMap<String, Vec<Value>>>,
    /// Every call that changed something, in order.
    pub(crate) changes: RefCell<Vec<String>>,
    last_rule: Cell<u32>,
}

impl FakeAws {
    pub(crate) fn with_key(self, user: &str, key: &str, status: &str) -> Self {
        self.keys.borrow_mut().insert((user.to_owned(), key.to_owned()), status.to_owned());
        self
    }

    /// A rule of `group` with these `IpPermission`s.
    pub(crate) fn with_rules(self, group: &str, permissions: Value) -> Self {
        self.authorize(group, &permissions).unwrap();
        self
    }

    pub(crate) fn status(&self, user: &str, key: &str) -> Option<String> {
        self.keys.borrow().get(&(user.to_owned(), key.to_owned())).cloned()
    }

    /// Everything but the ids of rules, which are new whenever a rule is: to compare.
    pub(crate) fn image(&self) -> Vec<String> {
        let mut image: Vec<String> =
            self.keys.borrow().iter().map(|(key, status)| format!("{key:?} {status}")).collect();
        for (group, rules) in self.rules.borrow().iter() {
            for rule in rules {
                let mut rule = rule.clone();
                rule.as_object_mut().unwrap().remove("SecurityGroupRuleId");
                image.push(format!("{group} {rule}"));
            }
        }
        image.sort();
        image
    }

    fn authorize(&self, group: &str, permissions: &Value) -> Result<(), CallError> {
        let mut all = self.rules.borrow_mut();
        let rules = all.entry(group.to_owned()).or_default();
        let mut added = Vec::new();
        for wanted in live(permissions) {
            if rules.iter().any(|rule| same(rule, &wanted)) {
                return Err(CallError::AlreadySo("InvalidPermission.Duplicate".to_owned()));
            }
            self.last_rule.set(self.last_rule.get() + 1);
            let mut rule = wanted;
            rule["SecurityGroupRuleId"] = json!(format!("sgr-{}", self.last_rule.get()));
            added.push(rule);
        }
        rules.extend(added);
        Ok(())
    }

    fn revoke(&self, group: &str, permissions: &Value) -> Result<(), CallError> {
        let mut all = self.rules.borrow_mut();
        let Some(rules) = all.get_mut(group) else { return Err(CallError::Gone("InvalidGroup.NotFound".to_owned())) };
        let wanted = live(permissions);
        if wanted.iter().any(|wanted| !rules.iter().any(|rule| same(rule, wanted))) {
            return Err(CallError::AlreadySo("InvalidPermission.NotFound".to_owned()));
        }
        rules.retain(|rule| !wanted.iter().any(|wanted| same(rule, wanted)));
        Ok(())
    }
}

/// `IpPermission`s with one source each as `SecurityGroupRule`s.
fn live(permissions: &Value) -> Vec<Value> {
    let rule = |permission: &Value| {
        let (v4, v6) = (&permission["IpRanges"][0], &permission["Ipv6Ranges"][0]);
        let description = if v4.is_null() { &v6["Description"] } else { &v4["Description"] };
        json!({
            "IsEgress": false,
            "IpProtocol": permission["IpProtocol"],
            "FromPort": permission["FromPort"],
            "ToPort": permission["ToPort"],
            "CidrIpv4": v4["CidrIp"],
            "CidrIpv6": v6["CidrIpv6"],
            "Description": description,
        })
    };
    permissions.as_array().unwrap().iter().map(rule).collect()
}

/// The same but for id and description.
fn same(one: &Value, other: &Value) -> bool {
    ["IpProtocol", "FromPort", "ToPort", "CidrIpv4", "CidrIpv6"].iter().all(|name| one[name] == other[name])
}

impl Cloud for FakeAws {
    fn account(&self) -> Result<&str, &str> {
        Ok(ACCOUNT)
    }

    async fn call(&self, call: &ApiCall) -> Result<Value, CallError> {
        let text = |name: &str| call.parameters[name].as_str().unwrap_or_default().to_owned();
        match call.operation.as_str() {
            "ListAccessKeys" => {
                let keys = self.keys.borrow();
                let of_user = keys.iter().filter(|((user, _), _)| *user == text("UserName"));
                let listed: Vec<Value> =
                    of_user.map(|((_, id), status)| json!({"AccessKeyId": id, "Status": status})).collect();
                return Ok(json!({ "AccessKeyMetadata": listed }));
            }
            "GetAccessKeyLastUsed" => {
                let keys = self.keys.borrow();
                let owner = keys.keys().find(|(_, id)| *id == text("AccessKeyId"));
                let owner = owner.ok_or_else(|| CallError::Gone("NoSuchEntity".to_owned()))?;
                return Ok(json!({ "UserName": owner.0 }));
            }
            "DescribeSecurityGroupRules" => {
                let group = call.parameters["Filters"][0]["Values"][0].as_str().unwrap_or_default();
                let rules = self.rules.borrow().get(group).cloned().unwrap_or_default();
                return Ok(json!({ "SecurityGroupRules": rules }));
            }
            "UpdateAccessKey" => {
                let mut keys = self.keys.borrow_mut();
                let Some(status) = keys.get_mut(&(text("UserName"), text("AccessKeyId"))) else {
                    return Err(CallError::Gone("NoSuchEntity".to_owned()));
                };
                *status = text("Status");
            }
            "RevokeSecurityGroupIngress" => self.revoke(&text("GroupId"), &call.parameters["IpPermissions"])?,
            "AuthorizeSecurityGroupIngress" => self.authorize(&text("GroupId"), &call.parameters["IpPermissions"])?,
            other => panic!("{other} is no call of this account"),
        }
        self.changes.borrow_mut().push(call.to_string());
        Ok(json!({}))
    }
}
