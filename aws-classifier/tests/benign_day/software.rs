//! What runs in the account: applications, agents, clusters, jobs. All of it works with roles, or with the keys of users
//! that are no people.

use serde_json::{Value, json};

use crate::day::{
    AUDIT, Day, GATEWAY, HOME, Kind, PROD, at, fail, function, instance, on_data, other_account, role_session, time,
    user,
};

const END: i64 = 86_399;
const NODE: &str = "aws-sdk-go-v2/1.32.5 os/linux lang/go#1.23.1 md/GOARCH#amd64";

pub fn write(day: &mut Day) {
    day.now_come(Kind::Software);
    applications(day);
    objects(day);
    secrets(day);
    other_accounts(day);
    agents(day);
    kubernetes(day);
    scripts_on_instances(day);
    jobs(day);
    users_that_are_programs(day);
    sealed_network(day);
}

fn applications(day: &mut Day) {
    const USES: [(&str, &str, &str, &str); 9] = [
        ("shop-orders", "shop-orders", "dynamodb", "DescribeTable"),
        ("shop-orders", "shop-orders", "sqs", "GetQueueAttributes"),
        ("shop-orders", "shop-orders", "states", "StartExecution"),
        ("shop-mail", "shop-mail", "ses", "SendRawEmail"),
        ("shop-mail", "shop-mail", "ses", "GetSendQuota"),
        ("shop-mail", "shop-mail", "logs", "CreateLogStream"),
        ("shop-report", "shop-report", "athena", "StartQueryExecution"),
        ("shop-report", "shop-report", "glue", "GetTable"),
        ("shop-report", "shop-report", "bedrock", "InvokeModel"),
    ];
    day.spread(500, 0, END, |day, second| {
        let (role, name, source, call) = day.pick(&USES);
        let record = day.call(second, &function(role, name), source, call, json!({ "tableName": "orders" }));
        if call == "GetTable" {
            fail(record, "EntityNotFoundException", "Entity Not Found");
        }
    });
}

/// Data events, where the trail has them.
fn objects(day: &mut Day) {
    day.spread(700, 0, END, |day, second| {
        let (name, number) =
            (day.pick(&["GetObject", "GetObject", "HeadObject", "PutObject", "DeleteObject"]), day.below(90_000));
        let (caller, missing) = match number % 3 {
            0 => (instance("shop-web", "i-0a1b2c3d4e5f60001").from("10.0.1.21"), false),
            1 => (function("shop-images", "shop-images"), true),
            _ => (role_session(PROD, "shop-task", "6f1b0c0e5f7c4a5e9d3c"), false),
        };
        let key = match number % 40 {
            0 => format!("help/how-to-get-data-from-{number}.md"),
            1 => format!("help/restore-your-files-{number}.html"),
            _ => format!("products/{number}.webp"),
        };
        let record = day.call(
            second,
            &caller,
            "s3",
            name,
            json!({ "bucketName": "shop-images", "Host": "shop-images.s3.amazonaws.com", "key": key }),
        );
        on_data(record);
        if missing && name == "GetObject" && number % 7 == 0 {
            fail(record, "NoSuchKey", "The specified key does not exist.");
        }
    });
}

/// Functions and tasks read their own secret, an operator of a cluster reads all of them over and over.
fn secrets(day: &mut Day) {
    day.spread(120, 0, END, |day, second| {
        let name = day.pick(&["shop-orders", "shop-mail", "shop-report"]);
        day.call(
            second,
            &function(name, name),
            "secretsmanager",
            "GetSecretValue",
            json!({ "secretId": format!("{name}/database") }),
        );
        day.call(
            second + 1,
            &function(name, name),
            "ssm",
            "GetParametersByPath",
            json!({ "path": format!("/{name}/"), "withDecryption": true }),
        );
    });
    let operator = role_session(PROD, "external-secrets", "external-secrets-provider")
        .agent("aws-sdk-go/1.55.5 (go1.23.1; linux; amd64) external-secrets");
    let agent = role_session(PROD, "shop-task-execution", "6f1b0c0e5f7c4a5e9d3c")
        .agent("Amazon ECS Agent - v1.89.0 (aws-sdk-go/1.55.5)");
    for hour in 0..24 {
        for n in 0..14 {
            day.call(
                at(hour, 0) + n,
                &operator,
                "secretsmanager",
                "GetSecretValue",
                json!({ "secretId": format!("shop/secret-{n}") }),
            );
        }
        for n in 0..11 {
            day.call(
                at(hour, 20) + n,
                &agent,
                "secretsmanager",
                "GetSecretValue",
                json!({ "secretId": format!("shop/task-{n}") }),
            );
        }
    }
}

/// Sessions that take roles, here and in other accounts, thousands of times.
fn other_accounts(day: &mut Day) {
    day.spread(450, 0, END, |day, second| {
        let (role, name) = day.pick(&[("shop-orders", "shop-orders"), ("shop-node", "i-0a1b2c3d4e5f60002")]);
        let caller = if name.starts_with("i-") { instance(role, name) } else { function(role, name) };
        let request = json!({ "roleArn": format!("arn:aws:iam::{AUDIT}:role/ledger-writer"), "roleSessionName": format!("session-{second}"), "externalId": "shop" });
        let record = day.call(second, &caller, "sts", "AssumeRole", request);
        record["responseElements"] = json!({ "credentials": { "accessKeyId": "ASIAEXAMPLE00000ROLE", "expiration": time(second + 3_600) } });
        day.call(second + 1, &caller, "sts", "GetCallerIdentity", Value::Null);
    });
    day.spread(150, 0, END, |day, second| {
        let caller = other_account(AUDIT, &format!("reader-{second}"));
        let name = day.pick(&["GetObject", "ListBucket", "PutObject"]);
        on_data(day.call(
            second,
            &caller,
            "s3",
            name,
            json!({ "bucketName": "shop-exchange", "key": format!("{second}.csv") }),
        ));
        if second % 5 == 0 {
            fail(
                day.call(second + 1, &caller, "s3", "GetObject", json!({ "bucketName": "shop-exchange", "key": "x" })),
                "AccessDenied",
                "Access Denied",
            );
        }
    });
}

fn agents(day: &mut Day) {
    let machines = ["i-0a1b2c3d4e5f60001", "i-0a1b2c3d4e5f60002", "i-0a1b2c3d4e5f60003"];
    day.spread(400, 0, END, |day, second| {
        let id = day.pick(&machines);
        let manager =
            instance("shop-web", id).agent("aws-sdk-go/1.55.5 (go1.22.5; linux; amd64) amazon-ssm-agent/3.3.987.0");
        day.call(
            second,
            &manager,
            "ssm",
            "UpdateInstanceInformation",
            json!({ "instanceId": id, "agentVersion": "3.3.987.0" }),
        );
        let metrics = instance("shop-web", id).agent("CWAgent/1.300049 (go1.23.1; linux; amd64) ID/1234");
        day.call(
            second + 1,
            &metrics,
            "ec2",
            "DescribeTags",
            json!({ "filterSet": { "items": [{ "name": "resource-id" }] } }),
        );
        if second % 6 == 0 {
            let record = day.call(second + 2, &manager, "ssm", "ListInstanceAssociations", json!({ "instanceId": id }));
            fail(record, "AccessDeniedException", "User is not authorized to perform: ssm:ListInstanceAssociations");
        }
    });
}

/// Controllers in a cluster: web identities that take roles, and what they do with them.
fn kubernetes(day: &mut Day) {
    day.spread(180, 0, END, |day, second| {
        let name = day.pick(&["external-dns", "aws-load-balancer-controller", "cluster-autoscaler", "karpenter", "ebs-csi-controller-sa"]);
        let mut web = role_session(PROD, "none", name);
        web.identity = json!({ "type": "WebIdentityUser", "principalId": format!("arn:aws:iam::{PROD}:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/E1:sts.amazonaws.com:system:serviceaccount:kube-system:{name}"), "userName": format!("system:serviceaccount:kube-system:{name}"), "identityProvider": format!("arn:aws:iam::{PROD}:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/E1") });
        let request = json!({ "roleArn": format!("arn:aws:iam::{PROD}:role/{name}"), "roleSessionName": format!("{second}"), "durationSeconds": 3600 });
        day.call(second, &web, "sts", "AssumeRoleWithWebIdentity", request);
        let caller = role_session(PROD, name, &format!("{second}")).agent(NODE);
        match name {
            "external-dns" => {
                day.call(second + 1, &caller.region("us-east-1"), "route53", "ChangeResourceRecordSets", json!({ "hostedZoneId": "Z1" }));
            }
            "aws-load-balancer-controller" => {
                let caller = caller.agent("elbv2.k8s.aws/v2.9.2 aws-sdk-go-v2/1.32.5");
                day.call(second + 1, &caller, "ec2", "CreateSecurityGroup", json!({ "groupName": "k8s-shop", "groupDescription": "[k8s] Managed SecurityGroup for LoadBalancer" }));
                let id = format!("sg-{second:017x}");
                day.call(second + 2, &caller, "ec2", "AuthorizeSecurityGroupIngress", crate::day::ingress(&id, "0.0.0.0/0", 443));
                day.call(second + 900, &caller, "ec2", "DeleteSecurityGroup", json!({ "groupId": id }));
                day.call(second + 3, &caller, "wafv2", "DisassociateWebACL", json!({ "resourceArn": "arn" }));
            }
            "cluster-autoscaler" => {
                day.call(second + 1, &caller, "autoscaling", "SetDesiredCapacity", json!({ "autoScalingGroupName": "nodes", "desiredCapacity": 7 }));
            }
            "karpenter" => {
                let caller = caller.agent("karpenter.sh-1.0.8 aws-sdk-go-v2/1.32.5");
                let machine = format!("i-{second:017x}");
                let fleet = day.call(second + 1, &caller, "ec2", "CreateFleet", json!({ "CreateFleetRequest": { "Type": "instant" } }));
                fleet["responseElements"] = json!({ "CreateFleetResponse": { "fleetInstanceSet": { "item": { "instanceIds": { "item": machine } } } } });
                day.call(second + 600, &caller, "ec2", "TerminateInstances", json!({ "instancesSet": { "items": [{ "instanceId": machine }] } }));
                if second % 9 == 0 {
                    day.call(second + 4, &caller, "iam", "CreateInstanceProfile", json!({ "instanceProfileName": "shop_1" }));
                    day.call(second + 5, &caller, "iam", "AddRoleToInstanceProfile", json!({ "instanceProfileName": "shop_1", "roleName": "shop-node" }));
                }
            }
            _ => {
                day.call(second + 1, &caller, "ec2", "AttachVolume", json!({ "volumeId": "vol-1" }));
            }
        }
    });
}

/// Shell scripts and cron jobs on machines, with the role of the machine, out through the gateway.
fn scripts_on_instances(day: &mut Day) {
    let cli = "aws-cli/2.17.18 md/awscrt#0.20.11 ua/2.0 os/linux#6.1.112-122.189.amzn2023.x86_64 md/arch#x86_64 lang/python#3.9.20 md/prompt#off";
    let boto = "Boto3/1.35.71 md/Botocore#1.35.71 ua/2.0 os/linux#6.1.112-122.189.amzn2023.x86_64 md/arch#x86_64 lang/python#3.9.20";
    for (n, id) in ["i-0a1b2c3d4e5f60011", "i-0a1b2c3d4e5f60012"].into_iter().enumerate() {
        let machine = instance("jenkins", id).from(GATEWAY);
        for quarter in 0..96_i64 {
            let second = quarter * 900 + i64::try_from(n).unwrap();
            day.call(
                second,
                &machine.clone().agent(boto),
                "ec2",
                "DescribeInstances",
                json!({ "instancesSet": {}, "filterSet": {} }),
            );
            day.call(
                second + 5,
                &machine.clone().agent(cli),
                "s3",
                "ListBuckets",
                json!({ "Host": "s3.eu-central-1.amazonaws.com" }),
            );
        }
    }
}

/// Functions that clean up and keep order: snapshots, secrets, tickets.
fn jobs(day: &mut Day) {
    let rotation = function("rotate-database", "rotate-database");
    day.spread(6, 0, END, |day, second| {
        day.call(second, &rotation, "secretsmanager", "PutSecretValue", json!({ "secretId": "shop/database" }));
        day.call(
            second + 3,
            &rotation,
            "rds",
            "ModifyDBInstance",
            json!({ "dBInstanceIdentifier": "shop", "masterUserPassword": "****" }),
        );
        day.call(
            second + 9,
            &rotation,
            "secretsmanager",
            "UpdateSecretVersionStage",
            json!({ "secretId": "shop/database" }),
        );
    });
    let cleaning = function("clean-snapshots", "clean-snapshots");
    for n in 0..30 {
        let second = at(4, 0) + n * 3;
        day.call(second, &cleaning, "ec2", "DeleteSnapshot", json!({ "snapshotId": format!("snap-{n}") }));
        day.call(
            second + 1,
            &cleaning,
            "rds",
            "DeleteDBSnapshot",
            json!({ "dBSnapshotIdentifier": format!("shop-{n}") }),
        );
        let made = day.call(
            second + 2,
            &cleaning,
            "rds",
            "CreateDBSnapshot",
            json!({ "dBSnapshotIdentifier": format!("shop-{n}") }),
        );
        made["responseElements"] = json!({ "snapshotType": "manual" });
        day.call(second + 2, &cleaning, "dynamodb", "DeleteBackup", json!({ "backupArn": format!("arn:{n}") }));
    }
    let triage = function("triage", "triage");
    day.spread(25, 0, END, |day, second| {
        day.call(
            second,
            &triage,
            "securityhub",
            "BatchUpdateFindings",
            json!({ "FindingIdentifiers": [{ "Id": format!("{second}") }], "Workflow": { "Status": "SUPPRESSED" } }),
        );
    });
}

/// Programs outside AWS that have the key of a user: a backup, a mail relay, a kiosk.
fn users_that_are_programs(day: &mut Day) {
    let backup = user("backup-nas").from("192.0.2.50").agent("rclone/v1.68.1");
    for n in 0..70 {
        let second = at(1, 0) + n * 4;
        on_data(day.call(
            second,
            &backup,
            "s3",
            "PutObject",
            json!({ "bucketName": "nas", "key": format!("full/{n}") }),
        ));
        on_data(day.call(
            second + 1,
            &backup,
            "s3",
            "DeleteObject",
            json!({ "bucketName": "nas", "key": format!("old/{n}") }),
        ));
    }
    let kiosk = user("kiosk").from("192.0.2.60").agent("aws-sdk-php/3.325.0");
    day.spread(60, at(7, 0), at(20, 0), |day, second| {
        on_data(day.call(second, &kiosk, "s3", "GetObject", json!({ "bucketName": "kiosk", "key": "menu.json" })));
        day.call(second + 1, &kiosk, "sqs", "GetQueueUrl", json!({ "queueName": "orders" }));
    });
    let relay = user("smtp").from("192.0.2.70").agent("aws-sdk-java/1.12.770 Linux/6.1");
    day.spread(40, 0, END, |day, second| {
        day.call(second, &relay, "ses", "SendEmail", Value::Null);
    });
}

/// A network without a way out, whose endpoints refuse what is not listed.
fn sealed_network(day: &mut Day) {
    day.spread(120, 0, END, |day, second| {
        let n = day.below(12);
        let caller = instance("sealed", &format!("i-0e00000000000{n:04x}")).from("10.9.0.7");
        let record = day.call(second, &caller, "ssm", "GetParameter", json!({ "name": "/x" }));
        record["vpcEndpointId"] = "vpce-1".into();
        fail(record, "AccessDenied", "no VPC endpoint policy allows the action");
        on_data(day.call(second + 1, &caller, "s3", "GetObject", json!({ "bucketName": HOME, "key": "packages" })));
    });
}
