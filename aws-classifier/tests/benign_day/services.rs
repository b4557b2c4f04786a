//! What AWS services do, by themselves, with their own roles and for somebody.

use serde_json::{Value, json};

use crate::day::{
    AUDIT, Day, HOME, Kind, PROD, REGIONS, at, fail, ingress, linked, on_data, role_session, service, sso, time, user,
};

const END: i64 = 86_399;

pub fn write(day: &mut Day) {
    day.now_come(Kind::Services);
    roles_taken(day);
    logs_delivered(day);
    recorders_and_checkers(day);
    inventories(day);
    protection(day);
    scaling(day);
    clusters(day);
    backups(day);
    templates(day);
    identity_center(day);
    keys(day);
    own_events(day);
    odd_shapes(day);
}

/// `AssumeRole` by services for instances, functions, tasks and jobs: a third of any trail.
fn roles_taken(day: &mut Day) {
    const TAKEN: [(&str, &str, &str); 10] = [
        ("lambda.amazonaws.com", "shop-orders", "shop-orders"),
        ("lambda.amazonaws.com", "shop-mail", "shop-mail"),
        ("ec2.amazonaws.com", "shop-web", "i-0a1b2c3d4e5f60001"),
        ("ec2.amazonaws.com", "shop-node", "i-0a1b2c3d4e5f60002"),
        ("ecs-tasks.amazonaws.com", "shop-task", "6f1b0c0e5f7c4a5e9d3c"),
        ("glue.amazonaws.com", "etl", "GlueJobRunnerSession"),
        ("states.amazonaws.com", "workflow", "StatesExecution"),
        ("firehose.amazonaws.com", "delivery", "AWSFirehoseToS3"),
        ("events.amazonaws.com", "scheduler", "events-rule"),
        ("codebuild.amazonaws.com", "build", "AWSCodeBuild-0f1e2d3c"),
    ];
    day.spread(900, 0, END, |day, second| {
        let (name, role, session) = day.pick(&TAKEN);
        let region = day.pick(&[HOME, HOME, HOME, "us-east-1"]);
        let request = json!({ "roleArn": format!("arn:aws:iam::{PROD}:role/{role}"), "roleSessionName": session });
        let record = day.call(second, &service(name).region(region), "sts", "AssumeRole", request);
        record["responseElements"] = json!({ "credentials": { "accessKeyId": "ASIAEXAMPLE000SERVCE", "sessionToken": "x", "expiration": time(second) } });
        record["resources"] = json!([{ "accountId": PROD, "type": "AWS::IAM::Role", "ARN": format!("arn:aws:iam::{PROD}:role/{role}") }]);
        record["sharedEventID"] = "a1f2b3c4-0000-4000-8000-000000000000".into();
    });
}

fn logs_delivered(day: &mut Day) {
    const ACTS: [(&str, &str, &str); 8] = [
        ("cloudtrail.amazonaws.com", "s3", "GetBucketAcl"),
        ("config.amazonaws.com", "s3", "GetBucketAcl"),
        ("delivery.logs.amazonaws.com", "s3", "GetBucketAcl"),
        ("cloudtrail.amazonaws.com", "s3", "PutObject"),
        ("delivery.logs.amazonaws.com", "s3", "PutObject"),
        ("logging.s3.amazonaws.com", "s3", "PutObject"),
        ("cloudtrail.amazonaws.com", "kms", "GenerateDataKey"),
        ("cloudtrail.amazonaws.com", "sns", "Publish"),
    ];
    day.spread(600, 0, END, |day, second| {
        let (name, source, call) = day.pick(&ACTS);
        let number = day.below(90_000);
        let request = match call {
            "PutObject" => json!({ "bucketName": "company-logs", "Host": "company-logs.s3.amazonaws.com", "key": format!("AWSLogs/{PROD}/{number}.gz"), "x-amz-acl": "bucket-owner-full-control", "x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": format!("arn:aws:kms:{HOME}:{AUDIT}:key/1111") }),
            "GenerateDataKey" => json!({ "keySpec": "AES_256", "keyId": format!("arn:aws:kms:{HOME}:{PROD}:key/1111"), "encryptionContext": { "aws:cloudtrail:arn": "arn" } }),
            _ => json!({ "bucketName": "company-logs", "acl": "", "Host": "company-logs.s3.amazonaws.com" }),
        };
        let record = day.call(second, &service(name), source, call, request);
        if call == "PutObject" {
            on_data(record);
        }
    });
}

/// Config, Trusted Advisor, Security Hub, Access Analyzer: they read everything, and much of it is not there.
fn recorders_and_checkers(day: &mut Day) {
    const READS: [(&str, &str, &str); 16] = [
        ("s3", "GetBucketPolicy", "NoSuchBucketPolicy"),
        ("s3", "GetBucketEncryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("s3", "GetBucketPublicAccessBlock", "NoSuchPublicAccessBlockConfiguration"),
        ("s3", "GetBucketCors", "NoSuchCORSConfiguration"),
        ("s3", "GetBucketWebsite", "NoSuchWebsiteConfiguration"),
        ("iam", "GetAccountAuthorizationDetails", ""),
        ("iam", "ListUsers", ""),
        ("iam", "ListRoles", ""),
        ("iam", "GetAccountPasswordPolicy", "NoSuchEntityException"),
        ("iam", "GetLoginProfile", "NoSuchEntityException"),
        ("iam", "GenerateCredentialReport", ""),
        ("ses", "GetSendQuota", ""),
        ("ec2", "DescribeInstances", ""),
        ("ec2", "DescribeInstanceAttribute", ""),
        ("lambda", "GetPolicy20150331v2", "ResourceNotFoundException"),
        ("kms", "GetKeyPolicy", "AccessDenied"),
    ];
    let callers = [
        linked("config.amazonaws.com", "Config", "AWSConfig-Describe"),
        linked("trustedadvisor.amazonaws.com", "TrustedAdvisor", "TrustedAdvisor_123456789012_7472a099"),
        linked("securityhub.amazonaws.com", "SecurityHub", "securityhub"),
        linked("access-analyzer.amazonaws.com", "AccessAnalyzer", "access-analyzer"),
    ];
    day.spread(800, 0, END, |day, second| {
        let (source, name, error) = day.pick(&READS);
        let caller = callers[day.below(4)].clone();
        let region = day.pick(&REGIONS);
        let request = match name {
            "DescribeInstanceAttribute" => json!({ "instanceId": format!("i-{second:017x}"), "attribute": "userData" }),
            _ => Value::Null,
        };
        let record = day.call(second, &caller.region(region), source, name, request);
        if !error.is_empty() {
            fail(record, error, "not there");
        }
    });
    // Config evaluates with functions and reports; once in a while it is set up anew in a region.
    for (n, region) in REGIONS.into_iter().enumerate() {
        let caller =
            linked("config-multiaccountsetup.amazonaws.com", "ConfigMultiAccountSetup", "setup").region(region);
        let second = at(5, i64::try_from(n).unwrap());
        day.call(
            second,
            &caller,
            "config",
            "PutConfigRule",
            json!({ "configRule": { "configRuleName": "restricted-ssh" } }),
        );
        day.call(
            second + 1,
            &caller,
            "config",
            "PutConfigurationRecorder",
            json!({ "configurationRecorder": { "name": "default" } }),
        );
        day.call(
            second + 2,
            &caller,
            "config",
            "PutDeliveryChannel",
            json!({ "deliveryChannel": { "name": "default" } }),
        );
    }
}

/// Systems Manager, Inspector, Macie, Resource Explorer.
fn inventories(day: &mut Day) {
    let inspector = linked("inspector2.amazonaws.com", "AmazonInspector2", "inspector2");
    let macie = linked("macie.amazonaws.com", "AmazonMacie", "macie");
    let manager = linked("ssm.amazonaws.com", "AmazonSSM", "StateManagerService");
    let explorer = linked("resource-explorer-2.amazonaws.com", "ResourceExplorer", "ResourceExplorer");
    day.spread(60, 0, END, |day, second| {
        day.call(
            second,
            &inspector,
            "ssm",
            "UpdateAssociation",
            json!({ "associationId": "a", "name": "AmazonInspector2-InvokeInspectorSsmPlugin" }),
        );
        day.call(
            second + 1,
            &inspector,
            "ssm",
            "CreateAssociation",
            json!({ "name": "AWS-RunShellScript", "associationName": "InspectorLinuxDistributor-do-not-delete" }),
        );
        day.call(
            second + 2,
            &macie,
            "s3",
            "GetBucketPublicAccessBlock",
            json!({ "bucketName": "shop-images", "publicAccessBlock": "" }),
        );
        day.call(second + 3, &macie, "s3", "ListBuckets", Value::Null);
        day.call(second + 4, &explorer, "iam", "ListUsers", Value::Null);
        let sent = day.call(
            second + 5,
            &manager,
            "ssm",
            "SendCommand",
            json!({ "documentName": "AWS-RunShellScript", "targets": [{ "key": "InstanceIds", "values": ["*"] }] }),
        );
        sent["responseElements"] = json!({ "command": { "targetCount": 40 } });
        day.call(second + 6, &manager, "ec2", "DescribeInstances", Value::Null);
    });
}

/// GuardDuty looks into volumes and puts end points into networks.
fn protection(day: &mut Day) {
    let malware = linked("malware-protection.guardduty.amazonaws.com", "AmazonGuardDutyMalwareProtection", "malware");
    let guard = linked("guardduty.amazonaws.com", "AmazonGuardDuty", "GuardDuty");
    day.spread(6, 0, END, |day, second| {
        day.call(second, &malware, "ec2", "CreateSnapshot", json!({ "volumeId": "vol-1" }));
        day.call(second + 9, &malware, "ec2", "ModifySnapshotAttribute", json!({ "snapshotId": "snap-1", "attributeType": "CREATE_VOLUME_PERMISSION", "createVolumePermission": { "add": { "items": [{ "userId": "999900001111" }] } } }));
        day.call(second + 10, &malware, "kms", "CreateGrant", json!({ "keyId": "k", "granteePrincipal": "arn:aws:iam::999900001111:root", "operations": ["Decrypt"] }));
        day.call(second + 60, &malware, "ec2", "DeleteSnapshot", json!({ "snapshotId": "snap-1" }));
        day.call(second + 70, &guard, "ec2", "CreateSecurityGroup", json!({ "groupName": "GuardDutyManagedSecurityGroup-vpc-1", "groupDescription": "GuardDuty" }));
        day.call(second + 71, &guard, "ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0f1", "10.0.0.0/8", 443));
        day.call(second + 72, &guard, "ec2", "CreateVpcEndpoint", json!({ "CreateVpcEndpointRequest": { "VpcId": "vpc-1" } }));
    });
}

/// Auto Scaling, Spot, EMR and Batch start and end machines, sometimes many at once.
fn scaling(day: &mut Day) {
    let scaling = linked("autoscaling.amazonaws.com", "AutoScaling", "AutoScaling");
    let spot = linked("spotfleet.amazonaws.com", "EC2SpotFleet", "SpotFleet");
    let mapreduce = role_session(PROD, "EMR_DefaultRole", "CCSSession").by_way_of("elasticmapreduce.amazonaws.com");
    for (group, (caller, kind, start)) in [
        (&scaling, "m7g.large", at(8, 55)),
        (&spot, "c7i.48xlarge", at(2, 10)),
        (&mapreduce, "p4d.24xlarge", at(1, 30)),
    ]
    .into_iter()
    .enumerate()
    {
        for n in 0..16 {
            let id = format!("i-0c{group}{n:014x}");
            let second = start + i64::from(n) * 7;
            let run = day.call(second, caller, "ec2", "RunInstances", json!({ "instanceType": kind, "instancesSet": { "items": [{ "imageId": "ami-1", "minCount": 1, "maxCount": 1 }] } }));
            run["responseElements"] = json!({ "instancesSet": { "items": [{ "instanceId": id }] } });
            day.call(
                second + 1,
                caller,
                "ec2",
                "CreateTags",
                json!({ "resourcesSet": { "items": [{ "resourceId": id }] } }),
            );
            day.call(
                second + 20,
                caller,
                "elasticloadbalancing",
                "RegisterTargets",
                json!({ "targets": [{ "id": id }] }),
            );
            day.call(
                second + at(6, 0),
                caller,
                "ec2",
                "TerminateInstances",
                json!({ "instancesSet": { "items": [{ "instanceId": id }] } }),
            );
        }
    }
    day.spread(120, 0, END, |day, second| {
        day.call(second, &scaling, "elasticloadbalancing", "DescribeTargetHealth", json!({ "targetGroupArn": "arn" }));
        day.call(second + 1, &scaling, "monitoring", "DescribeAlarms", Value::Null);
    });
    // Services delete and silence the alarms they made.
    let tracking = linked(
        "dynamodb.application-autoscaling.amazonaws.com",
        "ApplicationAutoScaling_DynamoDBTable",
        "AutoScaling-ManageAlarms",
    );
    day.spread(12, 0, END, |day, second| {
        day.call(
            second,
            &tracking,
            "monitoring",
            "PutMetricAlarm",
            json!({ "alarmName": "TargetTracking-table/orders" }),
        );
        day.call(
            second + 1,
            &tracking,
            "monitoring",
            "DeleteAlarms",
            json!({ "alarmNames": ["TargetTracking-table/orders"] }),
        );
    });
}

/// EKS, ECS, load balancers and databases build the networks of what they run.
fn clusters(day: &mut Day) {
    let eks = linked("eks.amazonaws.com", "AmazonEKS", "AmazonEKS");
    let control_plane = role_session(PROD, "shop-cluster", "AmazonEKS").by_way_of("eks.amazonaws.com");
    let ecs = linked("ecs.amazonaws.com", "ECS", "ecs-service-scheduler");
    let databases = linked("rds.amazonaws.com", "RDS", "RDS-CreateNetworkInterface");
    day.spread(40, 0, END, |day, second| {
        day.call(second, &eks, "ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0c1", "0.0.0.0/0", 443));
        day.call(second + 1, &eks, "ec2", "CreateNetworkInterface", json!({ "subnetId": "subnet-1", "groupSet": { "items": [{ "groupId": "sg-0c1" }] } }));
        day.call(second + 2, &control_plane, "ec2", "CreateRoute", json!({ "routeTableId": "rtb-1", "destinationCidrBlock": "10.2.1.0/24", "instanceId": "i-1", "networkInterfaceId": "eni-1" }));
        day.call(second + 3, &control_plane, "kms", "CreateGrant", json!({ "keyId": "k", "granteePrincipal": format!("arn:aws:iam::{PROD}:role/shop-cluster") }));
        day.call(second + 4, &ecs, "elasticloadbalancing", "DeregisterTargets", json!({ "targets": [{ "id": "10.0.1.7" }] }));
        day.call(second + 5, &ecs, "servicediscovery", "RegisterInstance", json!({ "serviceId": "srv-1" }));
        day.call(second + 6, &databases, "ec2", "ModifyNetworkInterfaceAttribute", json!({ "networkInterfaceId": "eni-1", "groupSet": { "items": [{ "groupId": "sg-0c1" }] } }));
    });
}

fn backups(day: &mut Day) {
    let backup = role_session(PROD, "AWSBackupDefaultServiceRole", "AWSBackup-AWSBackupDefaultServiceRole")
        .by_way_of("backup.amazonaws.com");
    let lifecycle = linked("dlm.amazonaws.com", "DataLifecycleManager", "dlm");
    day.spread(40, at(3, 0), at(5, 0), |day, second| {
        let number = day.below(9_000);
        day.call(second, &backup, "ec2", "CreateSnapshot", json!({ "volumeId": "vol-1" }));
        let snapshot = day.call(second + 1, &backup, "rds", "CreateDBSnapshot", json!({ "dBInstanceIdentifier": "shop" }));
        snapshot["responseElements"] = json!({ "snapshotType": "manual", "dBSnapshotIdentifier": format!("awsbackup:job-{number}") });
        day.call(second + 2, &backup, "backup", "DeleteRecoveryPoint", json!({ "backupVaultName": "Default", "recoveryPointArn": format!("arn:{number}") }));
        day.call(second + 3, &backup, "rds", "DeleteDBSnapshot", json!({ "dBSnapshotIdentifier": format!("awsbackup:job-{number}") }));
        day.call(second + 4, &backup, "dynamodb", "DeleteBackup", json!({ "backupArn": format!("arn:{number}") }));
        day.call(second + 5, &lifecycle, "ec2", "DeleteSnapshot", json!({ "snapshotId": format!("snap-{number}") }));
        day.call(second + 6, &lifecycle, "ec2", "ModifySnapshotAttribute", json!({ "snapshotId": format!("snap-{number}"), "createVolumePermission": { "add": { "items": [{ "userId": AUDIT }] } } }));
    });
}

/// CloudFormation with the rights of whoever started it: the stack of a service is built and another one taken down.
fn templates(day: &mut Day) {
    let statement = |principal: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{principal},"Action":"sts:AssumeRole"}}]}}"#
        )
    };
    let made: Vec<(&str, &str, Value)> = vec![
        (
            "iam",
            "CreateRole",
            json!({ "roleName": "shop-fn", "assumeRolePolicyDocument": statement(r#"{"Service":"lambda.amazonaws.com"}"#) }),
        ),
        (
            "iam",
            "CreateRole",
            json!({ "roleName": "vendor", "assumeRolePolicyDocument": statement(r#"{"AWS":"arn:aws:iam::222233334444:root"}"#) }),
        ),
        (
            "iam",
            "AttachRolePolicy",
            json!({ "roleName": "cdk-exec", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess" }),
        ),
        (
            "iam",
            "PutRolePolicy",
            json!({ "roleName": "shop-fn", "policyName": "p", "policyDocument": r#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"# }),
        ),
        ("iam", "CreateUser", json!({ "userName": "smtp" })),
        ("iam", "PutUserPolicy", json!({ "userName": "smtp", "policyName": "send" })),
        ("iam", "TagUser", json!({ "userName": "smtp" })),
        ("iam", "AddRoleToInstanceProfile", json!({ "roleName": "shop-node", "instanceProfileName": "shop-node" })),
        (
            "ec2",
            "CreateSecurityGroup",
            json!({ "groupName": "alb", "groupDescription": "open web ports of the test stack" }),
        ),
        ("ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0a1", "0.0.0.0/0", 443)),
        ("ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0a1", "0.0.0.0/0", 80)),
        ("ec2", "AttachInternetGateway", json!({ "internetGatewayId": "igw-1", "vpcId": "vpc-1" })),
        (
            "ec2",
            "CreateRoute",
            json!({ "routeTableId": "rtb-1", "destinationCidrBlock": "0.0.0.0/0", "gatewayId": "igw-1" }),
        ),
        (
            "ec2",
            "CreateNetworkAclEntry",
            json!({ "networkAclId": "acl-1", "egress": false, "ruleAction": "allow", "cidrBlock": "0.0.0.0/0", "ruleNumber": 100, "aclProtocol": "-1" }),
        ),
        ("ec2", "DeleteFlowLogs", json!({ "DeleteFlowLogsRequest": { "FlowLogId": "fl-1" } })),
        ("lambda", "CreateFunction20150331", json!({ "functionName": "shop-fn", "role": "arn" })),
        ("lambda", "UpdateFunctionCode20150331v2", json!({ "functionName": "shop-fn" })),
        (
            "lambda",
            "AddPermission20150331v2",
            json!({ "functionName": "shop-fn", "principal": "apigateway.amazonaws.com" }),
        ),
        (
            "lambda",
            "UpdateFunctionConfiguration20150331v2",
            json!({ "functionName": "shop-fn", "layers": ["arn:aws:lambda:eu-central-1:580247275435:layer:LambdaInsightsExtension:53"] }),
        ),
        ("s3", "CreateBucket", json!({ "bucketName": "shop-stack-data" })),
        (
            "s3",
            "PutBucketPublicAccessBlock",
            json!({ "bucketName": "shop-stack-data", "PublicAccessBlockConfiguration": { "BlockPublicAcls": true, "IgnorePublicAcls": true, "BlockPublicPolicy": true, "RestrictPublicBuckets": true } }),
        ),
        (
            "s3",
            "PutBucketPolicy",
            json!({ "bucketName": "shop-stack-data", "bucketPolicy": { "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{AUDIT}:root") }, "Action": "s3:PutObject", "Resource": "arn:aws:s3:::shop-stack-data/*" }] } }),
        ),
        (
            "s3",
            "PutBucketCors",
            json!({ "bucketName": "shop-stack-data", "CORSConfiguration": { "CORSRule": { "AllowedOrigin": "*", "AllowedMethod": "GET" } } }),
        ),
        ("s3", "DeleteBucketPolicy", json!({ "bucketName": "shop-old-data", "policy": "" })),
        ("s3", "DeleteBucket", json!({ "bucketName": "shop-old-data" })),
        ("logs", "DeleteLogGroup", json!({ "logGroupName": "/shop/audit" })),
        ("logs", "DeleteSubscriptionFilter", json!({ "logGroupName": "/shop/web" })),
        ("events", "RemoveTargets", json!({ "rule": "nightly" })),
        ("events", "DeleteRule", json!({ "name": "nightly" })),
        ("monitoring", "DeleteAlarms", json!({ "alarmNames": ["cpu"] })),
        (
            "kms",
            "PutKeyPolicy",
            json!({ "keyId": "k", "policyName": "default", "policy": statement(r#"{"AWS":"arn:aws:iam::222233334444:root"}"#) }),
        ),
        ("kms", "ScheduleKeyDeletion", json!({ "keyId": "k", "pendingWindowInDays": 30 })),
        (
            "rds",
            "ModifyDBInstance",
            json!({ "dBInstanceIdentifier": "shop-test", "deletionProtection": false, "masterUserPassword": "****" }),
        ),
        ("rds", "DeleteDBInstance", json!({ "dBInstanceIdentifier": "shop-test", "skipFinalSnapshot": true })),
        ("wafv2", "DisassociateWebACL", json!({ "resourceArn": "arn" })),
        ("cloudtrail", "CreateTrail", json!({ "name": "stack-trail", "s3BucketName": "company-logs" })),
        (
            "cloudtrail",
            "PutEventSelectors",
            json!({ "trailName": "stack-trail", "eventSelectors": [{ "readWriteType": "WriteOnly", "includeManagementEvents": true }] }),
        ),
        ("route53resolver", "DisassociateResolverQueryLogConfig", json!({ "resourceId": "vpc-1" })),
    ];
    let deployers = [
        role_session(PROD, "cdk-hnb659fds-cfn-exec-role-123456789012-eu-central-1", "AWSCloudFormation"),
        sso(PROD, "Developer", "alice"),
        user("jenkins"),
    ];
    for (round, deployer) in deployers.into_iter().enumerate() {
        let caller = deployer.by_way_of("cloudformation.amazonaws.com");
        for (step, (source, name, request)) in made.iter().enumerate() {
            let second = at(10, 0) + i64::try_from(round * 3_600 + step * 11).unwrap();
            day.call(second, &caller, source, name, request.clone());
        }
    }
}

/// Identity Center writes its roles and its provider into every account.
fn identity_center(day: &mut Day) {
    let caller = linked("sso.amazonaws.com", "SSO", "AWS-SSO").region("us-east-1");
    for n in 0..4_i64 {
        let second = at(9, 30) + n * 40;
        day.call(second, &caller, "iam", "CreateSAMLProvider", json!({ "name": "AWSSSO_0123_DO_NOT_DELETE" }));
        day.call(
            second + 1,
            &caller,
            "iam",
            "CreateRole",
            json!({ "roleName": "AWSReservedSSO_Admin_0123456789abcdef", "assumeRolePolicyDocument": "{}" }),
        );
        day.call(second + 2, &caller, "iam", "AttachRolePolicy", json!({ "roleName": "AWSReservedSSO_Admin_0123456789abcdef", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess" }));
        day.call(second + 3, &caller, "iam", "PutRolePolicy", json!({ "roleName": "AWSReservedSSO_Admin_0123456789abcdef", "policyName": "AwsSSOInlinePolicy", "policyDocument": r#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"# }));
        day.call(second + 4, &caller, "iam", "UpdateSAMLProvider", json!({ "sAMLProviderArn": "arn" }));
    }
}

/// Keys are used for everything that is encrypted, mostly by way of other services.
fn keys(day: &mut Day) {
    const WAYS: [&str; 6] = [
        "s3.amazonaws.com",
        "secretsmanager.amazonaws.com",
        "dynamodb.amazonaws.com",
        "fas.s3.amazonaws.com",
        "AWS Internal",
        "ec2-frontend-api.amazonaws.com",
    ];
    day.spread(1_100, 0, END, |day, second| {
        let (way, name) = (day.pick(&WAYS), day.pick(&["Decrypt", "Decrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"]));
        let role = day.pick(&["shop-web", "shop-task", "etl"]);
        let caller = role_session(PROD, role, "i-0a1b2c3d4e5f60001").by_way_of(way);
        let record = day.call(second, &caller, "kms", name, json!({ "encryptionContext": { "aws:s3:arn": "arn:aws:s3:::shop-images" }, "encryptionAlgorithm": "SYMMETRIC_DEFAULT" }));
        record["resources"] = json!([{ "accountId": PROD, "type": "AWS::KMS::Key", "ARN": format!("arn:aws:kms:{HOME}:{PROD}:key/2222") }]);
    });
}

/// `AwsServiceEvent`s: nobody called anything.
fn own_events(day: &mut Day) {
    const EVENTS: [(&str, &str); 8] = [
        ("kms", "RotateKey"),
        ("secretsmanager", "RotationStarted"),
        ("secretsmanager", "RotationSucceeded"),
        ("backup", "BackupJobCompleted"),
        ("backup", "RecoveryPointDeleted"),
        ("ec2", "BidEvictedEvent"),
        ("eks", "UpdateClusterHealth"),
        ("acm", "CertificateRenewed"),
    ];
    day.spread(90, 0, END, |day, second| {
        let (source, name) = day.pick(&EVENTS);
        let record = day.call(second, &service("AWS Internal"), source, name, Value::Null);
        record["eventType"] = "AwsServiceEvent".into();
        record["userIdentity"] = json!({ "accountId": PROD, "invokedBy": "AWS Internal" });
        record["serviceEventDetails"] = json!({ "state": "done" });
    });
}

/// Shapes that look like somebody: the root user by way of a service, calls that AWS makes for a session.
fn odd_shapes(day: &mut Day) {
    let mut root = service("AWS Internal");
    root.identity = json!({ "type": "Root", "principalId": PROD, "arn": format!("arn:aws:iam::{PROD}:root"), "accountId": PROD, "accessKeyId": "", "invokedBy": "support.amazonaws.com" });
    day.spread(40, 0, END, |day, second| {
        let name = day.pick(&["DescribeInstances", "DescribeVolumes", "GetBucketAcl"]);
        day.call(second, &root.clone().from("support.amazonaws.com"), "ec2", name, Value::Null);
        // Older records of service roles lack `invokedBy`; the address gives them away.
        let mut old = linked("trustedadvisor.amazonaws.com", "TrustedAdvisor", "TrustedAdvisor");
        old.identity.as_object_mut().unwrap().remove("invokedBy");
        day.call(second + 1, &old, "iam", "ListUsers", Value::Null);
        // Others have neither, and the address of a machine of AWS.
        let mut bare = linked("redshift.amazonaws.com", "Redshift", "redshift").from("198.51.100.250");
        bare.identity.as_object_mut().unwrap().remove("invokedBy");
        day.call(second + 2, &bare, "ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0d1", "10.0.0.0/8", 5439));
        day.call(second + 3, &bare, "iam", "CreateRole", json!({ "roleName": "r", "assumeRolePolicyDocument": "{}" }));
        let mut denied = role_session(PROD, "notebook", "SageMaker").by_way_of("sagemaker.amazonaws.com");
        denied.identity.as_object_mut().unwrap().remove("invokedBy");
        fail(day.call(second + 4, &denied, "s3", "ListBuckets", Value::Null), "AccessDenied", "Access Denied");
    });
    let internal = role_session(PROD, "astronomer", "managed").from("AWS Internal").agent("AWS Internal");
    day.spread(30, 0, END, |day, second| {
        let record = day.call(
            second,
            &internal,
            "ec2",
            "RunInstances",
            json!({ "instanceType": "p4d.24xlarge", "instancesSet": { "items": [{ "minCount": 1, "maxCount": 1 }] } }),
        );
        fail(record, "Client.DryRunOperation", "Request would have succeeded, but DryRun flag is set.");
        day.call(second + 1, &internal, "kms", "Decrypt", Value::Null);
    });
}
