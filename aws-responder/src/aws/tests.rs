//! The requests on the wire, and what answers mean. Loopback only.

use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use shared::Action;
use shared::adapters::loopback::{Answer, Loopback};

use super::*;
use crate::actions::iam_access_key_deactivate::IamAccessKeyDeactivate;
use crate::actions::security_group_rule_revoke::SecurityGroupRuleRevoke;
use crate::testing::{ACCOUNT, finding};

fn cloud(endpoint: &str) -> AwsCloud {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint)
        .build();
    AwsCloud::new(sdk, ACCOUNT.to_owned())
}

fn call(service: &str, operation: &str, parameters: Value) -> ApiCall {
    ApiCall {
        service: service.to_owned(),
        operation: operation.to_owned(),
        account: ACCOUNT.to_owned(),
        region: "us-east-1".to_owned(),
        parameters,
    }
}

fn list() -> ApiCall {
    call("iam", "ListAccessKeys", json!({"UserName": "alice"}))
}

fn update() -> ApiCall {
    let parameters = json!({"UserName": "alice", "AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "Status": "Inactive"});
    call("iam", "UpdateAccessKey", parameters)
}

fn describe() -> ApiCall {
    call("ec2", "DescribeSecurityGroupRules", json!({"Filters": [{"Name": "group-id", "Values": ["sg-12345678"]}]}))
}

fn change(operation: &str) -> ApiCall {
    let permissions = json!([
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "a & b"}]},
        {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
    ]);
    call("ec2", operation, json!({"GroupId": "sg-12345678", "IpPermissions": permissions}))
}

const REVOKE: &str = "RevokeSecurityGroupIngress";
const AUTHORIZE: &str = "AuthorizeSecurityGroupIngress";

fn iam(operation: &str, result: &str) -> Answer {
    let body = format!(
        "<{operation}Response xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">{result}<ResponseMetadata><RequestId>r\
         </RequestId></ResponseMetadata></{operation}Response>"
    );
    Answer::xml("200 OK", body)
}

fn ec2(operation: &str, result: &str) -> Answer {
    let body = format!(
        "<{operation}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>{result}\
         </{operation}Response>"
    );
    Answer::xml("200 OK", body)
}

fn fault(service: &str, status: &'static str, code: &str) -> Answer {
    let error = format!("<Code>{code}</Code><Message>said so</Message>");
    let body = match service {
        "iam" => format!(
            "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error><Type>Sender</Type>{error}</Error>\
             <RequestId>r</RequestId></ErrorResponse>"
        ),
        _ => format!("<Response><Errors><Error>{error}</Error></Errors><RequestID>r</RequestID></Response>"),
    };
    Answer::xml(status, body)
}

/// The form of a request, a field a line.
fn fields(body: &str) -> String {
    let decoded = body.replace("%20", " ").replace("%2F", "/").replace("%3A", ":").replace("%26", "&");
    decoded.replace('&', "\n").replace("a \n b", "a & b")
}

#[tokio::test]
async fn requests_are_the_calls_and_nothing_else() {
    let server = Loopback::answering([
        iam(
            "ListAccessKeys",
            "<ListAccessKeysResult><IsTruncated>false</IsTruncated><AccessKeyMetadata/></ListAccessKeysResult>",
        ),
        iam("UpdateAccessKey", ""),
        ec2("DescribeSecurityGroupRules", "<securityGroupRuleSet/>"),
        ec2(REVOKE, "<return>true</return>"),
        ec2(AUTHORIZE, "<return>true</return><securityGroupRuleSet/>"),
    ]);
    let cloud = cloud(server.endpoint());
    for call in [list(), update(), describe(), change(REVOKE), change(AUTHORIZE)] {
        cloud.call(&call).await.expect("made");
    }
    let requests: Vec<String> = server.requests().iter().map(|body| fields(body)).collect();
    insta::assert_snapshot!(requests.join("\n\n"));
}

#[tokio::test]
async fn answers_have_the_names_of_the_api_and_all_pages() {
    let key = |id: &str, status: &str| {
        format!("<member><UserName>alice</UserName><AccessKeyId>{id}</AccessKeyId><Status>{status}</Status></member>")
    };
    let keys = |members: &str, more: &str| {
        iam(
            "ListAccessKeys",
            &format!(
                "<ListAccessKeysResult><AccessKeyMetadata>{members}</AccessKeyMetadata>{more}</ListAccessKeysResult>"
            ),
        )
    };
    let rule = |id: &str, rest: &str| {
        format!(
            "<item><securityGroupRuleId>{id}</securityGroupRuleId><groupId>sg-12345678</groupId><isEgress>false</isEgress>\
             <ipProtocol>tcp</ipProtocol><fromPort>22</fromPort><toPort>22</toPort>{rest}</item>"
        )
    };
    let rules = |items: &str, more: &str| {
        ec2("DescribeSecurityGroupRules", &format!("<securityGroupRuleSet>{items}</securityGroupRuleSet>{more}"))
    };
    let server = Loopback::answering([
        keys(&key("AKIA1", "Active"), "<IsTruncated>true</IsTruncated><Marker>m</Marker>"),
        keys(&key("AKIA2", "Inactive"), "<IsTruncated>false</IsTruncated>"),
        rules(
            &rule(
                "sgr-1",
                "<cidrIpv4>0.0.0.0/0</cidrIpv4><description>a &lt; b</description><tagSet><item><key>k</key><value>v</value></item></tagSet>",
            ),
            "<nextToken>t</nextToken>",
        ),
        rules(&rule("sgr-2", "<cidrIpv6>::/0</cidrIpv6>"), ""),
    ]);
    let cloud = cloud(server.endpoint());
    let answers = [cloud.call(&list()).await.expect("listed"), cloud.call(&describe()).await.expect("described")];
    insta::assert_json_snapshot!(answers);
    let asked: Vec<String> = server.requests();
    assert!(asked[1].contains("Marker=m") && asked[3].contains("NextToken=t"), "{asked:?}");
}

#[tokio::test]
async fn every_error_says_whether_to_try_again() {
    let retryable: fn(String) -> CallError = CallError::Retryable;
    let cases = [
        (list(), "iam", "404 Not Found", "NoSuchEntity", CallError::Gone as fn(String) -> CallError),
        (update(), "iam", "404 Not Found", "NoSuchEntity", CallError::Gone),
        (update(), "iam", "403 Forbidden", "AccessDenied", CallError::Denied),
        (update(), "iam", "400 Bad Request", "Throttling", retryable),
        (update(), "iam", "409 Conflict", "EntityTemporarilyUnmodifiable", retryable),
        (update(), "iam", "500 Internal Server Error", "ServiceFailure", retryable),
        (update(), "iam", "403 Forbidden", "ExpiredToken", retryable),
        (update(), "iam", "400 Bad Request", "ValidationError", CallError::Permanent),
        (update(), "iam", "403 Forbidden", "InvalidClientTokenId", CallError::Permanent),
        (describe(), "ec2", "403 Forbidden", "UnauthorizedOperation", CallError::Denied),
        (describe(), "ec2", "503 Service Unavailable", "RequestLimitExceeded", retryable),
        (change(REVOKE), "ec2", "400 Bad Request", "InvalidPermission.NotFound", CallError::AlreadySo),
        (change(REVOKE), "ec2", "400 Bad Request", "InvalidGroup.NotFound", CallError::Gone),
        (change(AUTHORIZE), "ec2", "400 Bad Request", "InvalidPermission.Duplicate", CallError::AlreadySo),
        (change(AUTHORIZE), "ec2", "400 Bad Request", "RulesPerSecurityGroupLimitExceeded", CallError::Permanent),
        (change(AUTHORIZE), "ec2", "503 Service Unavailable", "Unavailable", retryable),
    ];
    for (call, service, status, code, kind) in cases {
        let server = Loopback::answering([fault(service, status, code)]);
        let error = cloud(server.endpoint()).call(&call).await.expect_err(code);
        assert_eq!(error, kind(format!("{code}: said so")), "{call}");
    }
}

#[tokio::test]
async fn rules_that_were_not_there_are_so_already_in_a_default_vpc_too() {
    let unknown = "<return>true</return><unknownIpPermissionSet><item><ipProtocol>tcp</ipProtocol></item>\
                   </unknownIpPermissionSet>";
    let server = Loopback::answering([ec2(REVOKE, unknown)]);
    let error = cloud(server.endpoint()).call(&change(REVOKE)).await.expect_err("unknown");
    assert_eq!(error, CallError::AlreadySo("1 of the rules were not in the group".to_owned()));
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_may_be_later() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let error = cloud(&format!("http://127.0.0.1:{port}")).call(&update()).await.expect_err("nobody listens");
    assert!(matches!(error, CallError::Retryable(_)), "{error}");
}

#[tokio::test]
async fn what_was_not_planned_never_goes_out() {
    let cloud = cloud("http://127.0.0.1:9");
    let mut elsewhere = update();
    elsewhere.account = "210987654321".to_owned();
    let mut more = update();
    more.parameters["Force"] = json!(true);
    let mut source = change(AUTHORIZE);
    source.parameters["IpPermissions"][0]["UserIdGroupPairs"] = json!([{"GroupId": "sg-9"}]);
    let mut less = change(REVOKE);
    less.parameters.as_object_mut().expect("an object").remove("GroupId");
    let refused =
        [elsewhere, more, source, less, call("iam", "DeleteAccessKey", json!({})), call("s3", "PutObject", json!({}))];
    for call in refused {
        let error = cloud.call(&call).await.expect_err("refused");
        assert!(matches!(error, CallError::Permanent(_)), "{call}: {error}");
    }
}

/// Whatever an action plans, this adapter can make.
#[tokio::test]
async fn every_planned_call_is_known() {
    let mut key = finding("x", &[]);
    key.evidence.insert("access_key_id".to_owned(), json!("AKIAIOSFODNN7EXAMPLE"));
    key.evidence.insert("user_name".to_owned(), json!("alice"));
    let mut group = finding("x", &[]);
    group.evidence.insert("group_id".to_owned(), json!("sg-0123456789abcdef0"));
    let whole = json!({"from_port": 0, "to_port": 65535});
    let rule = |cidr: &str| json!({"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": cidr, "rule": whole});
    group.evidence.insert("world_rules".to_owned(), json!([rule("0.0.0.0/0"), rule("::/0")]));
    let plans = [
        Action::plan(&IamAccessKeyDeactivate, &key).expect("planned"),
        Action::plan(&SecurityGroupRuleRevoke::new(Default::default()).expect("defaults"), &group).expect("planned"),
    ];
    let cloud = cloud("http://127.0.0.1:9");
    for plan in plans.into_iter().flatten().map(|(_, plan)| plan) {
        for call in plan.reads.iter().chain(&plan.calls).chain(&plan.undo) {
            let error = cloud.call(call).await.expect_err("nobody listens");
            assert!(matches!(error, CallError::Retryable(_)), "{call}: {error}");
        }
    }
}
