//! Build pipelines and infrastructure as code.

use serde_json::{Value, json};

use crate::day::{
    AUDIT, CLI, DEV, Day, HOME, Kind, PROD, TERRAFORM, at, fail, function, ingress, on_data, role_session, time, user,
};

const RUNNER: &str = "192.0.2.200";

pub fn write(day: &mut Day) {
    day.now_come(Kind::Deployments);
    terraform(day);
    command_line(day);
    images(day);
    stacks_for_tests(day);
    old_pipeline(day);
    approvals(day);
}

/// A code host takes the role that its token allows.
fn token(day: &mut Day, second: i64, account: &'static str, role: &str) {
    let mut web = role_session(account, "none", "GitHubActions")
        .from(RUNNER)
        .agent("aws-sdk-nodejs-v3/3.700.0 configure-aws-credentials-for-github-actions");
    web.identity = json!({ "type": "WebIdentityUser", "principalId": format!("arn:aws:iam::{account}:oidc-provider/token.actions.githubusercontent.com:sts.amazonaws.com:repo:acme/shop:ref:refs/heads/main"), "userName": "repo:acme/shop:ref:refs/heads/main", "identityProvider": format!("arn:aws:iam::{account}:oidc-provider/token.actions.githubusercontent.com") });
    let record = day.call(
        second,
        &web,
        "sts",
        "AssumeRoleWithWebIdentity",
        json!({ "roleArn": format!("arn:aws:iam::{account}:role/{role}"), "roleSessionName": "GitHubActions" }),
    );
    record["responseElements"] =
        json!({ "credentials": { "accessKeyId": "ASIAEXAMPLE000DEPLOY", "expiration": time(second + 3_600) } });
}

/// Plans read everything, applies change it, in two regions.
fn terraform(day: &mut Day) {
    const READS: [(&str, &str); 12] = [
        ("ec2", "DescribeSecurityGroups"),
        ("ec2", "DescribeRouteTables"),
        ("iam", "GetRole"),
        ("iam", "ListRolePolicies"),
        ("iam", "ListAttachedRolePolicies"),
        ("iam", "GetPolicyVersion"),
        ("iam", "ListInstanceProfilesForRole"),
        ("s3", "GetBucketPolicy"),
        ("s3", "GetBucketCors"),
        ("ssm", "GetParameter"),
        ("secretsmanager", "GetSecretValue"),
        ("kms", "GetKeyPolicy"),
    ];
    let policy = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::shop-tf/*", "Condition": { "Bool": { "aws:SecureTransport": "false" } } }] });
    for round in 0..8_i64 {
        let (start, account) = (at(8, 30) + round * 3_900, if round % 4 == 3 { DEV } else { PROD });
        token(day, start, account, "terraform");
        let caller = role_session(account, "terraform", "GitHubActions").from(RUNNER).agent(TERRAFORM);
        for n in 0..70_i64 {
            let (source, name) = day.pick(&READS);
            let request = match name {
                "GetParameter" => json!({ "name": format!("/shop/p{n}"), "withDecryption": true }),
                "GetSecretValue" => json!({ "secretId": format!("shop/secret-{n}") }),
                _ => json!({ "roleName": "r", "bucketName": "shop-tf" }),
            };
            let record = day.call(start + 5 + n, &caller, source, name, request);
            if name == "GetBucketCors" {
                fail(record, "NoSuchCORSConfiguration", "The CORS configuration does not exist");
            }
        }
        if round % 2 == 1 {
            continue;
        }
        let changes: [(&str, &str, Value); 24] = [
            ("ec2", "CreateSecurityGroup", json!({ "groupName": "web", "groupDescription": "Managed by Terraform" })),
            ("ec2", "RevokeSecurityGroupEgress", json!({ "groupId": "sg-0b1" })),
            ("ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0b1", "0.0.0.0/0", 443)),
            ("ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0b2", "10.20.0.0/16", 5432)),
            (
                "ec2",
                "CreateRoute",
                json!({ "routeTableId": "rtb-1", "destinationCidrBlock": "0.0.0.0/0", "gatewayId": "igw-1" }),
            ),
            (
                "ec2",
                "ReplaceRoute",
                json!({ "routeTableId": "rtb-1", "destinationCidrBlock": "10.8.0.0/16", "vpcPeeringConnectionId": "pcx-1" }),
            ),
            (
                "ec2",
                "CreateVpcPeeringConnection",
                json!({ "vpcId": "vpc-1", "peerVpcId": "vpc-2", "peerOwnerId": AUDIT }),
            ),
            (
                "iam",
                "CreateRole",
                json!({ "roleName": "shop-fn", "assumeRolePolicyDocument": r#"{"Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}"# }),
            ),
            (
                "iam",
                "PutRolePolicy",
                json!({ "roleName": "shop-fn", "policyName": "p", "policyDocument": r#"{"Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"# }),
            ),
            (
                "iam",
                "CreatePolicyVersion",
                json!({ "policyArn": "arn", "policyDocument": r#"{"Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":"*"}]}"#, "setAsDefault": true }),
            ),
            ("iam", "AddRoleToInstanceProfile", json!({ "roleName": "shop-node", "instanceProfileName": "shop-node" })),
            ("iam", "TagRole", json!({ "roleName": "shop-fn" })),
            (
                "s3",
                "CreateBucket",
                json!({ "bucketName": "shop-tf", "CreateBucketConfiguration": { "LocationConstraint": HOME } }),
            ),
            ("s3", "PutBucketPolicy", json!({ "bucketName": "shop-tf", "bucketPolicy": policy })),
            (
                "s3",
                "PutBucketVersioning",
                json!({ "bucketName": "shop-tf", "VersioningConfiguration": { "Status": "Enabled" } }),
            ),
            (
                "s3",
                "PutBucketOwnershipControls",
                json!({ "bucketName": "shop-tf", "OwnershipControls": { "Rule": { "ObjectOwnership": "BucketOwnerEnforced" } } }),
            ),
            (
                "s3",
                "PutBucketPublicAccessBlock",
                json!({ "bucketName": "shop-tf", "PublicAccessBlockConfiguration": { "BlockPublicAcls": true, "IgnorePublicAcls": true, "BlockPublicPolicy": true, "RestrictPublicBuckets": true } }),
            ),
            ("lambda", "UpdateFunctionCode20150331v2", json!({ "functionName": "shop-fn" })),
            (
                "lambda",
                "UpdateFunctionConfiguration20150331v2",
                json!({ "functionName": "shop-fn", "layers": ["arn:aws:lambda:eu-central-1:580247275435:layer:LambdaInsightsExtension:53"] }),
            ),
            ("rds", "ModifyDBInstance", json!({ "dBInstanceIdentifier": "shop", "deletionProtection": true })),
            (
                "kms",
                "CreateGrant",
                json!({ "keyId": "k", "granteePrincipal": format!("arn:aws:iam::{PROD}:role/shop-fn") }),
            ),
            ("monitoring", "DeleteAlarms", json!({ "alarmNames": ["cpu"] })),
            ("logs", "DeleteSubscriptionFilter", json!({ "logGroupName": "/shop/web" })),
            ("events", "RemoveTargets", json!({ "rule": "nightly" })),
        ];
        for (n, (source, name, request)) in changes.into_iter().enumerate() {
            let second = start + 90 + i64::try_from(n * 2).unwrap();
            day.call(second, &caller, source, name, request.clone());
            // The certificates and firewalls of a content network live in another region, and so does the standby.
            if matches!(name, "CreateBucket" | "UpdateFunctionCode20150331v2" | "ModifyDBInstance") {
                let mut there = request;
                if name == "CreateBucket" {
                    there["CreateBucketConfiguration"] = json!({ "LocationConstraint": "eu-west-1" });
                }
                day.call(second + 1, &caller.clone().region("eu-west-1"), source, name, there);
            }
        }
        day.call(
            start + 150,
            &caller.clone().region("us-east-1"),
            "acm",
            "RequestCertificate",
            json!({ "domainName": "shop.example.com" }),
        );
    }
}

/// Jobs that use the command line.
fn command_line(day: &mut Day) {
    for round in 0..16_i64 {
        let start = at(8, 0) + round * 2_300;
        token(day, start, PROD, "deploy");
        let caller = role_session(PROD, "deploy", "GitHubActions").from(RUNNER).agent(CLI);
        let steps: [(&str, &str, Value); 9] = [
            ("ecr", "GetAuthorizationToken", Value::Null),
            ("ecr", "PutImage", json!({ "repositoryName": "shop" })),
            ("lambda", "UpdateFunctionCode20150331v2", json!({ "functionName": "shop-mail" })),
            (
                "ecs",
                "RegisterTaskDefinition",
                json!({ "family": "shop", "containerDefinitions": [{ "command": ["serve"] }] }),
            ),
            ("ecs", "UpdateService", json!({ "service": "shop" })),
            ("cloudfront", "CreateInvalidation", json!({ "distributionId": "E1" })),
            ("ssm", "PutParameter", json!({ "name": "/shop/version" })),
            (
                "cloudformation",
                "CreateChangeSet",
                json!({ "stackName": "shop", "roleARN": "arn:aws:iam::123456789012:role/cfn" }),
            ),
            ("events", "DisableRule", json!({ "name": "nightly" })),
        ];
        for (n, (source, name, request)) in steps.into_iter().enumerate() {
            day.call(start + 20 + i64::try_from(n * 4).unwrap(), &caller, source, name, request);
        }
        for n in 0..12_i64 {
            on_data(day.call(
                start + 70 + n,
                &caller,
                "s3",
                "PutObject",
                json!({ "bucketName": "shop-site", "key": format!("assets/{n}.js") }),
            ));
        }
        on_data(day.call(
            start + 90,
            &caller,
            "s3",
            "DeleteObjects",
            json!({ "bucketName": "shop-site", "delete": "" }),
        ));
    }
}

/// Packer: a machine with its own group and key, an image, shared with the accounts that use it.
fn images(day: &mut Day) {
    let caller = role_session(PROD, "images", "GitHubActions")
        .from(RUNNER)
        .agent("APN/1.0 HashiCorp/1.0 Packer/1.11.2 (+https://www.packer.io/) aws-sdk-go/1.55.5");
    for round in 0..3_i64 {
        let start = at(5, 0) + round * 3_600;
        let id = format!("i-0d0000000000000{round:02x}");
        let steps: [(&str, &str, Value); 8] = [
            ("ec2", "ImportKeyPair", json!({ "keyName": format!("packer_{round}") })),
            (
                "ec2",
                "CreateSecurityGroup",
                json!({ "groupName": format!("packer_{round}"), "groupDescription": "Temporary group for Packer" }),
            ),
            ("ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0d2", "192.0.2.200/32", 22)),
            ("iam", "AddRoleToInstanceProfile", json!({ "roleName": "packer", "instanceProfileName": "packer" })),
            (
                "ec2",
                "RunInstances",
                json!({ "instanceType": "c7i.large", "instancesSet": { "items": [{ "imageId": "ami-1", "minCount": 1, "maxCount": 1 }] } }),
            ),
            ("ec2", "CreateImage", json!({ "instanceId": id })),
            (
                "ec2",
                "ModifyImageAttribute",
                json!({ "imageId": "ami-2", "launchPermission": { "add": { "items": [{ "userId": DEV }] } } }),
            ),
            ("ec2", "TerminateInstances", json!({ "instancesSet": { "items": [{ "instanceId": id }] } })),
        ];
        for (n, (source, name, request)) in steps.into_iter().enumerate() {
            let record = day.call(start + i64::try_from(n * 30).unwrap(), &caller, source, name, request);
            if name == "RunInstances" {
                record["responseElements"] = json!({ "instancesSet": { "items": [{ "instanceId": id }] } });
            }
        }
    }
}

/// Tests build an environment with a script and take it down.
fn stacks_for_tests(day: &mut Day) {
    for round in 0..6_i64 {
        let start = at(9, 0) + round * 5_000;
        token(day, start, DEV, "integration-tests");
        let caller = role_session(DEV, "integration-tests", "GitHubActions")
            .from(RUNNER)
            .agent("Boto3/1.35.71 md/Botocore#1.35.71 lang/python#3.12.3");
        let bucket = format!("it-{round}");
        let steps: [(&str, &str, Value); 14] = [
            (
                "s3",
                "CreateBucket",
                json!({ "bucketName": bucket, "CreateBucketConfiguration": { "LocationConstraint": HOME } }),
            ),
            ("sqs", "CreateQueue", json!({ "queueName": bucket })),
            (
                "iam",
                "CreateRole",
                json!({ "roleName": bucket, "assumeRolePolicyDocument": r#"{"Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}"# }),
            ),
            ("lambda", "CreateFunction20150331", json!({ "functionName": bucket })),
            ("lambda", "UpdateFunctionConfiguration20150331v2", json!({ "functionName": bucket, "timeout": 30 })),
            (
                "ec2",
                "RunInstances",
                json!({ "instanceType": "t4g.small", "instancesSet": { "items": [{ "imageId": "ami-1", "minCount": 2, "maxCount": 2 }] } }),
            ),
            ("events", "PutRule", json!({ "name": bucket })),
            ("events", "DeleteRule", json!({ "name": bucket })),
            ("lambda", "DeleteFunction20150331", json!({ "functionName": bucket })),
            ("iam", "DeleteRole", json!({ "roleName": bucket })),
            ("logs", "DeleteLogGroup", json!({ "logGroupName": format!("/aws/lambda/{bucket}-config-audit") })),
            ("s3", "DeleteObjects", json!({ "bucketName": bucket, "delete": "" })),
            ("s3", "DeleteBucket", json!({ "bucketName": bucket })),
            ("ec2", "TerminateInstances", json!({ "instancesSet": { "items": [{ "instanceId": "i-0f1" }] } })),
        ];
        for (n, (source, name, request)) in steps.into_iter().enumerate() {
            day.call(start + i64::try_from(n * 12).unwrap(), &caller, source, name, request);
        }
    }
}

/// A build server of old, with the key of a user.
fn old_pipeline(day: &mut Day) {
    let jenkins = user("jenkins").from("198.51.100.40").agent("aws-cli/1.32.0 Python/3.9.2 Linux/5.10 Botocore/1.34.0");
    for round in 0..10_i64 {
        let start = at(8, 10) + round * 3_500;
        let taken = day.call(start, &jenkins, "sts", "AssumeRole", json!({ "roleArn": format!("arn:aws:iam::{PROD}:role/release"), "roleSessionName": format!("build-{round}") }));
        taken["responseElements"] = json!({ "credentials": { "accessKeyId": "ASIAEXAMPLE00RELEASE" } });
        let release = role_session(PROD, "release", &format!("build-{round}"))
            .from("198.51.100.40")
            .agent("aws-cli/1.32.0 Python/3.9.2 Linux/5.10 Botocore/1.34.0");
        day.call(start + 2, &release, "s3", "ListBuckets", Value::Null);
        day.call(start + 4, &release, "elasticbeanstalk", "UpdateEnvironment", json!({ "environmentName": "legacy" }));
        on_data(day.call(
            start + 6,
            &release,
            "s3",
            "PutObject",
            json!({ "bucketName": "releases", "key": format!("{round}.zip") }),
        ));
        let sent = day.call(
            start + 8,
            &release,
            "ssm",
            "SendCommand",
            json!({ "documentName": "AWS-RunPatchBaseline", "targets": [{ "key": "tag:Role", "values": ["web"] }] }),
        );
        sent["responseElements"] = json!({ "command": { "targetCount": 6 } });
    }
}

/// A function that puts things right: it revokes what a rule forbids and takes old images away.
fn approvals(day: &mut Day) {
    let keeper = function("keeper", "keeper");
    day.spread(20, 0, 86_399, |day, second| {
        day.call(second, &keeper, "ec2", "ModifyInstanceMetadataOptions", json!({ "ModifyInstanceMetadataOptionsRequest": { "InstanceId": "i-1", "HttpTokens": "required" } }));
        day.call(second + 1, &keeper, "ec2", "AssociateIamInstanceProfile", json!({ "AssociateIamInstanceProfileRequest": { "InstanceId": "i-1" } }));
        day.call(second + 2, &keeper, "s3", "PutBucketPublicAccessBlock", json!({ "bucketName": "b", "PublicAccessBlockConfiguration": { "BlockPublicAcls": true, "IgnorePublicAcls": true, "BlockPublicPolicy": true, "RestrictPublicBuckets": true } }));
        day.call(second + 3, &keeper, "ec2", "DeregisterImage", json!({ "imageId": "ami-1" }));
    });
}
