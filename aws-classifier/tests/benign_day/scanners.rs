//! Monitoring, cost and security products that read everything in every region, with roles that may not read all of it.

use serde_json::{Value, json};

use crate::day::{Day, Kind, PROD, REGIONS, VENDOR, at, fail, other_account, role_session};

const END: i64 = 86_399;

pub fn write(day: &mut Day) {
    day.now_come(Kind::Scanners);
    monitoring(day);
    cost(day);
    posture(day);
}

/// A vendor takes its role every few minutes and polls metrics.
fn monitoring(day: &mut Day) {
    const READS: [(&str, &str); 12] = [
        ("ec2", "DescribeInstances"),
        ("ec2", "DescribeVolumes"),
        ("monitoring", "GetMetricData"),
        ("monitoring", "ListMetrics"),
        ("rds", "DescribeDBInstances"),
        ("lambda", "ListFunctions20150331"),
        ("ses", "GetSendQuota"),
        ("sqs", "ListQueues"),
        ("tagging", "GetResources"),
        ("health", "DescribeEvents"),
        ("s3", "ListBuckets"),
        ("bedrock", "ListFoundationModels"),
    ];
    for round in 0..48_i64 {
        let second = round * 1_800;
        let region = REGIONS[usize::try_from(round % 17).unwrap()];
        let session = format!("DatadogAWSIntegration-{round}");
        let request = json!({ "roleArn": format!("arn:aws:iam::{PROD}:role/DatadogIntegration"), "roleSessionName": session, "externalId": "x" });
        day.call(second, &other_account(VENDOR, "intake").from("192.0.2.140"), "sts", "AssumeRole", request);
        let caller =
            role_session(PROD, "DatadogIntegration", &session).from("192.0.2.141").agent("Datadog").region(region);
        for (n, (source, name)) in READS.into_iter().enumerate() {
            let record = day.call(second + 1 + i64::try_from(n).unwrap(), &caller, source, name, Value::Null);
            if source == "bedrock" || (region == "ap-northeast-3" && source != "s3") {
                fail(record, "AccessDenied", "explicit deny in a service control policy");
            }
        }
    }
}

fn cost(day: &mut Day) {
    let caller =
        role_session(PROD, "CloudHealth", "cost").from("192.0.2.150").agent("CloudHealth aws-sdk-ruby3/3.209.1");
    day.spread(200, 0, END, |day, second| {
        let (source, name) = day.pick(&[
            ("ec2", "DescribeReservedInstances"),
            ("ce", "GetCostAndUsage"),
            ("rds", "DescribeReservedDBInstances"),
            ("iam", "ListAccountAliases"),
            ("organizations", "ListAccounts"),
        ]);
        let region = day.pick(&REGIONS);
        let record = day.call(second, &caller.clone().region(region), source, name, Value::Null);
        if source == "organizations" {
            fail(record, "AccessDeniedException", "You don't have permissions to access this resource.");
        }
    });
}

/// A nightly check of everything: identities, policies, start-up scripts; a service control policy closes six regions.
fn posture(day: &mut Day) {
    const IDENTITIES: [&str; 16] = [
        "GetAccountAuthorizationDetails",
        "GetAccountSummary",
        "GetAccountPasswordPolicy",
        "GetCredentialReport",
        "GenerateCredentialReport",
        "ListUsers",
        "ListRoles",
        "ListGroups",
        "ListPolicies",
        "ListAttachedUserPolicies",
        "ListAccessKeys",
        "ListMFADevices",
        "ListVirtualMFADevices",
        "ListSAMLProviders",
        "GetPolicyVersion",
        "SimulatePrincipalPolicy",
    ];
    const READS: [(&str, &str); 14] = [
        ("ec2", "DescribeInstances"),
        ("ec2", "DescribeSecurityGroups"),
        ("ec2", "DescribeSnapshotAttribute"),
        ("ec2", "DescribeFlowLogs"),
        ("rds", "DescribeDBSnapshotAttributes"),
        ("kms", "ListKeys"),
        ("cloudtrail", "DescribeTrails"),
        ("config", "DescribeConfigurationRecorders"),
        ("guardduty", "ListDetectors"),
        ("secretsmanager", "ListSecrets"),
        ("ssm", "DescribeParameters"),
        ("ses", "GetSendQuota"),
        ("bedrock", "GetModelInvocationLoggingConfiguration"),
        ("lambda", "GetPolicy20150331v2"),
    ];
    let caller = role_session(PROD, "ProwlerExecRole", "ProwlerAssessmentSession").from("192.0.2.160").agent(
        "Boto3/1.35.71 md/Botocore#1.35.71 ua/2.0 os/linux#6.8.0 md/arch#x86_64 lang/python#3.12.3 Botocore/1.35.71",
    );
    let mut second = at(2, 0);
    for name in IDENTITIES {
        for _ in 0..4 {
            second += 1;
            day.call(second, &caller.clone().region("us-east-1"), "iam", name, Value::Null);
        }
    }
    for n in 0..20 {
        second += 1;
        let record = day.call(
            second,
            &caller.clone().region("us-east-1"),
            "iam",
            "GetLoginProfile",
            json!({ "userName": format!("u{n}") }),
        );
        fail(record, "NoSuchEntityException", "Login Profile cannot be found.");
    }
    for (place, region) in REGIONS.into_iter().enumerate() {
        for (source, name) in READS {
            second += 1;
            let record = day.call(second, &caller.clone().region(region), source, name, Value::Null);
            if place % 3 == 0 {
                fail(
                    record,
                    if source == "ec2" { "Client.UnauthorizedOperation" } else { "AccessDeniedException" },
                    "explicit deny in a service control policy",
                );
            } else if name.starts_with("GetPolicy") {
                fail(record, "ResourceNotFoundException", "The resource you requested does not exist.");
            }
        }
    }
    for n in 0..60 {
        second += 1;
        let (name, error) = [
            ("GetBucketPolicy", "NoSuchBucketPolicy"),
            ("GetBucketAcl", "AccessDenied"),
            ("GetBucketWebsite", "NoSuchWebsiteConfiguration"),
            ("GetBucketLogging", ""),
        ][n % 4];
        let record = day.call(second, &caller, "s3", name, json!({ "bucketName": format!("bucket-{n}") }));
        if !error.is_empty() {
            fail(record, error, "not there");
        }
    }
}
