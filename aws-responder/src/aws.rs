//! The port [`Cloud`] on AWS: IAM and EC2 of the program's own account.
//!
//! A call is read into types that know its parameters and no others, so what goes out is what was planned or nothing.
//! Clients are made with the first call and kept, one for each region: most batches make no call, and a start must not pay
//! for them. How often and how long a call is tried is in `shared::adapters::aws::sdk`.

use std::cell::RefCell;
use std::collections::HashMap;

use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, IpPermission, IpRange, Ipv6Range, SecurityGroupRule};
use aws_sdk_iam::types::StatusType;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::ApiCall;
use shared::adapters::aws::{SdkConfig, is_retryable};
use shared::text::one_line;

use crate::cloud::{CallError, Cloud};

/// Pages of one answer; more is an endless answer. EC2 gives 1,000 rules a page, and a group has 1,000 at most.
const PAGES_MAX: usize = 10;

/// Longer words of a service are cut: EC2 may encode a kilobyte of reasons for a refusal.
const SAID_CHARS_MAX: usize = 400;

/// The account that the program's credentials belong to.
#[derive(Debug)]
pub struct AwsCloud {
    account: String,
    sdk: SdkConfig,
    iam: Clients<aws_sdk_iam::Client>,
    ec2: Clients<aws_sdk_ec2::Client>,
}

/// Clients by region.
type Clients<T> = RefCell<HashMap<String, T>>;

impl AwsCloud {
    /// With the credentials of `sdk`, which belong to `account`.
    pub fn new(sdk: SdkConfig, account: String) -> Self {
        Self { account, sdk, iam: RefCell::default(), ec2: RefCell::default() }
    }

    /// A client of the call's region.
    fn client<T: Clone>(&self, clients: &Clients<T>, call: &ApiCall, make: impl Fn(&SdkConfig) -> T) -> T {
        let mut clients = clients.borrow_mut();
        let made = || {
            let region = aws_sdk_ec2::config::Region::new(call.region.clone());
            make(&self.sdk.to_builder().region(region).build())
        };
        clients.entry(call.region.clone()).or_insert_with(made).clone()
    }
}

impl Cloud for AwsCloud {
    fn account(&self) -> Result<&str, &str> {
        Ok(&self.account)
    }

    async fn call(&self, call: &ApiCall) -> Result<Value, CallError> {
        if call.account != self.account {
            return Err(CallError::Permanent(format!("it is for account {}, not {}", call.account, self.account)));
        }
        let iam = || self.client(&self.iam, call, aws_sdk_iam::Client::new);
        let ec2 = || self.client(&self.ec2, call, aws_sdk_ec2::Client::new);
        match (call.service.as_str(), call.operation.as_str()) {
            ("iam", "ListAccessKeys") => Box::pin(list_access_keys(iam(), parameters(call)?)).await,
            ("iam", "GetAccessKeyLastUsed") => Box::pin(access_key_owner(iam(), parameters(call)?)).await,
            ("iam", "UpdateAccessKey") => Box::pin(update_access_key(iam(), parameters(call)?)).await,
            ("ec2", "DescribeSecurityGroupRules") => Box::pin(describe_rules(ec2(), parameters(call)?)).await,
            ("ec2", "RevokeSecurityGroupIngress") => Box::pin(revoke_ingress(ec2(), parameters(call)?)).await,
            ("ec2", "AuthorizeSecurityGroupIngress") => Box::pin(authorize_ingress(ec2(), parameters(call)?)).await,
            _ => Err(CallError::Permanent("this program cannot make this call".to_owned())),
        }
    }
}

fn parameters<T: DeserializeOwned>(call: &ApiCall) -> Result<T, CallError> {
    T::deserialize(&call.parameters).map_err(|error| CallError::Permanent(format!("bad parameters: {error}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct ListAccessKeys {
    user_name: String,
}

async fn list_access_keys(client: aws_sdk_iam::Client, wanted: ListAccessKeys) -> Result<Value, CallError> {
    let mut keys = Vec::new();
    let mut marker = None;
    for _ in 0..PAGES_MAX {
        let call = client.list_access_keys().user_name(&wanted.user_name).set_marker(marker);
        let page = call.send().await.map_err(|error| call_error(&error))?;
        keys.extend(page.access_key_metadata.iter().map(|key| {
            json!({
                "UserName": key.user_name(),
                "AccessKeyId": key.access_key_id(),
                "Status": key.status().map(StatusType::as_str),
            })
        }));
        match page.marker {
            Some(next) if page.is_truncated => marker = Some(next),
            _ => return Ok(json!({ "AccessKeyMetadata": keys })),
        }
    }
    Err(endless())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct GetAccessKeyLastUsed {
    access_key_id: String,
}

async fn access_key_owner(client: aws_sdk_iam::Client, wanted: GetAccessKeyLastUsed) -> Result<Value, CallError> {
    let call = client.get_access_key_last_used().access_key_id(wanted.access_key_id);
    let answer = call.send().await.map_err(|error| call_error(&error))?;
    Ok(json!({ "UserName": answer.user_name() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct UpdateAccessKey {
    user_name: String,
    access_key_id: String,
    status: String,
}

async fn update_access_key(client: aws_sdk_iam::Client, wanted: UpdateAccessKey) -> Result<Value, CallError> {
    let call = client
        .update_access_key()
        .user_name(wanted.user_name)
        .access_key_id(wanted.access_key_id)
        .status(StatusType::from(wanted.status.as_str()));
    call.send().await.map_err(|error| call_error(&error))?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct DescribeSecurityGroupRules {
    filters: Vec<Wanted>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Wanted {
    name: String,
    values: Vec<String>,
}

async fn describe_rules(client: aws_sdk_ec2::Client, wanted: DescribeSecurityGroupRules) -> Result<Value, CallError> {
    let filters = wanted.filters.into_iter();
    let filters: Vec<Filter> =
        filters.map(|f| Filter::builder().name(f.name).set_values(Some(f.values)).build()).collect();
    let mut rules = Vec::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        let call = client
            .describe_security_group_rules()
            .set_filters(Some(filters.clone()))
            .max_results(1000)
            .set_next_token(token);
        let page = call.send().await.map_err(|error| call_error(&error))?;
        rules.extend(page.security_group_rules().iter().map(rule));
        match page.next_token.filter(|token| !token.is_empty()) {
            Some(next) => token = Some(next),
            None => return Ok(json!({ "SecurityGroupRules": rules })),
        }
    }
    Err(endless())
}

/// A rule with the API's names; what it does not have is null.
fn rule(rule: &SecurityGroupRule) -> Value {
    let tags: Vec<Value> = rule.tags().iter().map(|tag| json!({"Key": tag.key(), "Value": tag.value()})).collect();
    json!({
        "SecurityGroupRuleId": rule.security_group_rule_id(),
        "GroupId": rule.group_id(),
        "IsEgress": rule.is_egress(),
        "IpProtocol": rule.ip_protocol(),
        "FromPort": rule.from_port(),
        "ToPort": rule.to_port(),
        "CidrIpv4": rule.cidr_ipv4(),
        "CidrIpv6": rule.cidr_ipv6(),
        "PrefixListId": rule.prefix_list_id(),
        "Description": rule.description(),
        "Tags": tags,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct ChangeIngress {
    group_id: String,
    ip_permissions: Vec<Permission>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Permission {
    ip_protocol: String,
    from_port: Option<i32>,
    to_port: Option<i32>,
    #[serde(default)]
    ip_ranges: Vec<Range4>,
    #[serde(default)]
    ipv6_ranges: Vec<Range6>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Range4 {
    cidr_ip: String,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Range6 {
    cidr_ipv6: String,
    description: Option<String>,
}

impl From<Permission> for IpPermission {
    fn from(permission: Permission) -> Self {
        let range4 = |r: Range4| IpRange::builder().cidr_ip(r.cidr_ip).set_description(r.description).build();
        let range6 = |r: Range6| Ipv6Range::builder().cidr_ipv6(r.cidr_ipv6).set_description(r.description).build();
        Self::builder()
            .ip_protocol(permission.ip_protocol)
            .set_from_port(permission.from_port)
            .set_to_port(permission.to_port)
            .set_ip_ranges(some(permission.ip_ranges.into_iter().map(range4).collect()))
            .set_ipv6_ranges(some(permission.ipv6_ranges.into_iter().map(range6).collect()))
            .build()
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

async fn revoke_ingress(client: aws_sdk_ec2::Client, wanted: ChangeIngress) -> Result<Value, CallError> {
    let permissions = wanted.ip_permissions.into_iter().map(Into::into).collect();
    let call = client.revoke_security_group_ingress().group_id(wanted.group_id).set_ip_permissions(Some(permissions));
    let answer = call.send().await.map_err(|error| call_error(&error))?;
    // Groups of a default VPC answer so instead of with an error (API reference).
    match answer.unknown_ip_permissions().len() {
        0 => Ok(json!({})),
        n => Err(CallError::AlreadySo(format!("{n} of the rules were not in the group"))),
    }
}

async fn authorize_ingress(client: aws_sdk_ec2::Client, wanted: ChangeIngress) -> Result<Value, CallError> {
    let permissions = wanted.ip_permissions.into_iter().map(Into::into).collect();
    let call =
        client.authorize_security_group_ingress().group_id(wanted.group_id).set_ip_permissions(Some(permissions));
    call.send().await.map_err(|error| call_error(&error))?;
    Ok(json!({}))
}

fn endless() -> CallError {
    CallError::Permanent(format!("the answer has more than {PAGES_MAX} pages"))
}

/// What the service's error codes mean here. Codes: EC2 API reference, "Error codes"; IAM API reference, of each action.
fn call_error<E>(error: &SdkError<E>) -> CallError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned();
    let said = match error.as_service_error().and_then(ProvideErrorMetadata::message) {
        Some(message) => format!("{code}: {message}"),
        None => DisplayErrorContext(error).to_string(),
    };
    let said = one_line(&said, SAID_CHARS_MAX);
    match code.as_str() {
        "InvalidPermission.NotFound" | "InvalidPermission.Duplicate" => CallError::AlreadySo(said),
        "NoSuchEntity" | "InvalidGroup.NotFound" => CallError::Gone(said),
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => CallError::Denied(said),
        // Somebody else changes the same user or group at this moment.
        "EntityTemporarilyUnmodifiable" | "ConcurrentModification" => CallError::Retryable(said),
        _ if is_retryable(error) => CallError::Retryable(said),
        _ => CallError::Permanent(said),
    }
}

#[cfg(test)]
mod tests;
