//! People: sign-ins, the console, the command line, and what administrators do on a Monday.

use serde_json::{Value, json};

use crate::day::{
    BROWSER, Caller, DEV, Day, GLOBAL, HOME, Kind, PROD, at, fail, ingress, on_data, signed_in, sso, time, user,
};

const PEOPLE: [&str; 9] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan"];

pub fn write(day: &mut Day) {
    day.now_come(Kind::People);
    sign_ins(day);
    consoles(day);
    identity_pages(day);
    command_lines(day);
    developers(day);
    operators(day);
    day.now_come(Kind::Administration);
    key_rotation(day);
    a_new_way_to_work(day);
    by_hand(day);
}

/// A console login; those of roles say that no MFA was used, whatever the identity provider asked for.
fn login(day: &mut Day, second: i64, caller: &Caller, success: bool) {
    let user = caller.identity["type"] == "IAMUser";
    let mut record = json!({
        "eventVersion": "1.09",
        "userIdentity": caller.identity,
        "eventTime": time(second),
        "eventSource": "signin.amazonaws.com",
        "eventName": "ConsoleLogin",
        "awsRegion": if user { GLOBAL } else { HOME },
        "sourceIPAddress": caller.from,
        "userAgent": BROWSER,
        "requestParameters": null,
        "responseElements": { "ConsoleLogin": if success { "Success" } else { "Failure" } },
        "additionalEventData": { "LoginTo": "https://console.aws.amazon.com/", "MobileVersion": "No", "MFAUsed": if user && success { "Yes" } else { "No" } },
        "readOnly": false,
        "eventType": "AwsConsoleSignIn",
        "managementEvent": true,
        "recipientAccountId": caller.account,
        "eventCategory": "Management",
    });
    if user {
        let identity = record["userIdentity"].as_object_mut().unwrap();
        identity.remove("sessionContext");
        identity.remove("accessKeyId");
    }
    if !success {
        record["errorMessage"] = "Failed authentication".into();
    }
    day.push(second, record);
}

/// Everybody comes in the morning, through the portal into two accounts; two still have users of their own.
fn sign_ins(day: &mut Day) {
    for (n, person) in PEOPLE.into_iter().enumerate() {
        let morning = at(7, 40) + i64::try_from(n).unwrap() * 290;
        for name in [
            "Authenticate",
            "UserAuthentication",
            "ListApplications",
            "ListApplicationProfiles",
            "Federate",
            "GetRoleCredentials",
        ] {
            let mut caller = sso(PROD, "Developer", person).in_console();
            caller.console = false;
            caller.identity = json!({ "type": "Unknown", "principalId": "a-0123", "accountId": PROD, "userName": format!("{person}@example.com") });
            let record = day.call(morning, &caller, "sso", name, Value::Null);
            record["eventType"] = "AwsServiceEvent".into();
        }
        for (account, set) in [(PROD, "Viewer"), (DEV, "Developer")] {
            let caller = sso(account, set, person).in_console();
            let token = day.call(
                morning + 9,
                &caller.clone().agent("Jersey/${project.version} (HttpUrlConnection 17.0.13)"),
                "signin",
                "GetSigninToken",
                Value::Null,
            );
            token["eventType"] = "AwsConsoleSignIn".into();
            login(day, morning + 10, &caller, true);
            login(day, at(13, 5) + i64::try_from(n).unwrap() * 60, &caller, true);
        }
    }
    for person in ["judy", "mallory"] {
        login(day, at(8, 3), &signed_in(person), true);
        login(day, at(13, 20), &signed_in(person), true);
    }
    login(day, at(12, 40), &signed_in("judy"), false);
    login(day, at(12, 41), &signed_in("judy"), true);
}

/// What consoles ask for while people look around; half of it they may not see, or it does not exist.
fn consoles(day: &mut Day) {
    const LOOKS: [(&str, &str); 22] = [
        ("ec2", "DescribeInstances"),
        ("ec2", "DescribeSecurityGroups"),
        ("ec2", "DescribeInstanceAttribute"),
        ("monitoring", "DescribeAlarms"),
        ("monitoring", "GetMetricData"),
        ("logs", "DescribeLogGroups"),
        ("logs", "FilterLogEvents"),
        ("rds", "DescribeDBInstances"),
        ("lambda", "ListFunctions20150331"),
        ("lambda", "GetPolicy20150331v2"),
        ("s3", "ListBuckets"),
        ("s3", "GetBucketPolicy"),
        ("s3", "GetBucketPublicAccessBlock"),
        ("elasticloadbalancing", "DescribeLoadBalancers"),
        ("cloudtrail", "LookupEvents"),
        ("cloudformation", "DescribeStacks"),
        ("health", "DescribeEventAggregates"),
        ("ce", "GetCostAndUsage"),
        ("organizations", "DescribeOrganization"),
        ("secretsmanager", "ListSecrets"),
        ("kms", "ListAliases"),
        ("iam", "ListAccountAliases"),
    ];
    day.spread(900, at(8, 30), at(18, 0), |day, second| {
        let (person, (source, name)) = (day.pick(&PEOPLE), day.pick(&LOOKS));
        let (set, account) = day.pick(&[("Viewer", PROD), ("Developer", DEV)]);
        let mut caller = sso(account, set, person).in_console().region(day.pick(&[HOME, HOME, HOME, GLOBAL]));
        let number = day.below(100);
        // Older consoles and some pages show other agents and do not mark the session.
        if number < 20 {
            caller.console = false;
            caller = caller.agent(
                [
                    "console.amazonaws.com",
                    "[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12.750]",
                    "console.ec2.amazonaws.com",
                    "AWSConsole-cloudwatch/1.0",
                ][number % 4],
            );
        }
        let record = day.call(second, &caller, source, name, json!({ "maxResults": 50, "bucketName": "b" }));
        match (name, number % 4) {
            ("GetBucketPolicy", _) => fail(record, "NoSuchBucketPolicy", "The bucket policy does not exist"),
            ("GetPolicy20150331v2", _) => fail(record, "ResourceNotFoundException", "not found"),
            (_, 0) => fail(record, "AccessDenied", "not authorized to perform this action"),
            (_, 1) => fail(record, "Client.UnauthorizedOperation", "You are not authorized to perform this operation."),
            _ => {}
        }
    });
    // One page that shows everything and may nothing: thirty refusals within a minute.
    for (n, (source, name)) in LOOKS.into_iter().cycle().take(60).enumerate() {
        let mut caller = sso(PROD, "Viewer", "bob").in_console();
        if n % 2 == 0 {
            caller.console = false;
            caller = caller.agent("console.amazonaws.com");
        }
        fail(
            day.call(at(9, 12) + i64::try_from(n).unwrap(), &caller, source, name, Value::Null),
            "AccessDenied",
            "not authorized",
        );
    }
}

/// The pages of IAM ask for everything about a user or a role.
fn identity_pages(day: &mut Day) {
    const PAGE: [&str; 18] = [
        "GetAccountSummary",
        "ListUsers",
        "ListRoles",
        "ListGroups",
        "ListPolicies",
        "ListAccessKeys",
        "ListMFADevices",
        "ListGroupsForUser",
        "ListUserPolicies",
        "ListAttachedUserPolicies",
        "GetLoginProfile",
        "ListSSHPublicKeys",
        "ListServiceSpecificCredentials",
        "ListSigningCertificates",
        "GetAccountPasswordPolicy",
        "ListAccountAliases",
        "ListInstanceProfiles",
        "ListSAMLProviders",
    ];
    for (n, caller) in
        [sso(PROD, "Admin", "alice").in_console(), signed_in("judy"), sso(PROD, "Viewer", "carol").in_console()]
            .into_iter()
            .enumerate()
    {
        for round in 0..3_i64 {
            for (step, name) in PAGE.into_iter().enumerate() {
                let second = at(10, 0) + i64::try_from(n).unwrap() * 1_200 + round * 100 + i64::try_from(step).unwrap();
                let record = day.call(second, &caller.clone().region(GLOBAL), "iam", name, Value::Null);
                if name == "GetLoginProfile" {
                    fail(record, "NoSuchEntityException", "Login Profile cannot be found.");
                } else if n == 2 {
                    fail(record, "AccessDenied", "not authorized to perform this action");
                }
            }
        }
    }
}

/// Reading from a terminal, sometimes with the wrong profile.
fn command_lines(day: &mut Day) {
    day.spread(320, at(8, 30), at(18, 30), |day, second| {
        let person = day.pick(&PEOPLE);
        let (source, name) = day.pick(&[
            ("ec2", "DescribeInstances"),
            ("s3", "ListBuckets"),
            ("sts", "GetCallerIdentity"),
            ("logs", "GetLogEvents"),
            ("ecs", "DescribeServices"),
            ("eks", "DescribeCluster"),
            ("iam", "GetRole"),
        ]);
        let wrong = day.below(12) == 0;
        let record = day.call(second, &sso(DEV, "Developer", person), source, name, json!({ "roleName": "shop" }));
        if wrong {
            fail(record, "AccessDenied", "not authorized to perform this action");
        }
    });
    // A user with a key and a session of an hour.
    let judy = user("judy");
    for hour in 9..17 {
        day.call(at(hour, 2), &judy, "sts", "GetSessionToken", json!({ "serialNumber": format!("arn:aws:iam::{PROD}:mfa/judy"), "tokenCode": "000000", "durationSeconds": 3600 }));
    }
}

/// Developers run the application on their machines, with its settings and secrets, and try functions.
fn developers(day: &mut Day) {
    for (n, person) in ["bob", "erin", "frank"].into_iter().enumerate() {
        let caller = sso(DEV, "Developer", person).agent("aws-sdk-nodejs-v3/3.700.0");
        for run in 0..3_i64 {
            let start = at(9, 40) + i64::try_from(n).unwrap() * 700 + run * 5_000;
            for p in 0..6 {
                day.call(
                    start + p,
                    &caller,
                    "ssm",
                    "GetParameter",
                    json!({ "name": format!("/shop/dev/p{p}"), "withDecryption": true }),
                );
            }
            for s in 0..4 {
                day.call(
                    start + 10 + s,
                    &caller,
                    "secretsmanager",
                    "GetSecretValue",
                    json!({ "secretId": format!("shop/dev-{s}") }),
                );
            }
            on_data(day.call(
                start + 20,
                &caller,
                "s3",
                "GetObject",
                json!({ "bucketName": "shop-dev", "key": "fixture.json" }),
            ));
            day.call(start + 30, &caller, "lambda", "Invoke", json!({ "functionName": "shop-dev" }));
            day.call(start + 40, &caller, "dynamodb", "DescribeTable", json!({ "tableName": "orders" }));
        }
    }
    day.spread(24, at(9, 0), at(18, 0), |day, second| {
        let person = day.pick(&PEOPLE);
        let caller = sso(DEV, "Developer", person).in_console();
        let name = day.pick(&["StopInstances", "StartInstances", "RebootInstances"]);
        day.call(second, &caller, "ec2", name, json!({ "instancesSet": { "items": [{ "instanceId": "i-0de1" }] } }));
        day.call(
            second + 20,
            &caller,
            "ec2",
            "AuthorizeSecurityGroupIngress",
            ingress("sg-0de1", "198.51.100.10/32", 22),
        );
        day.call(second + 40, &caller, "ec2", "AuthorizeSecurityGroupIngress", ingress("sg-0de1", "10.0.0.0/8", 5432));
        day.call(second + 60, &caller, "ec2", "RevokeSecurityGroupIngress", ingress("sg-0de1", "10.0.0.0/8", 5432));
        day.call(second + 80, &caller, "s3", "PutBucketTagging", json!({ "bucketName": "shop-dev" }));
    });
}

/// On call: a session on a machine, another one on its neighbour, logs of a database.
fn operators(day: &mut Day) {
    for (hour, person) in [(10, "grace"), (14, "heidi"), (16, "grace")] {
        let caller = sso(PROD, "Operator", person);
        for (n, target) in ["i-0a1b2c3d4e5f60001", "i-0a1b2c3d4e5f60002", "i-0a1b2c3d4e5f60001"].into_iter().enumerate()
        {
            day.call(
                at(hour, 5) + i64::try_from(n).unwrap() * 240,
                &caller,
                "ssm",
                "StartSession",
                json!({ "target": target }),
            );
            day.call(
                at(hour, 8) + i64::try_from(n).unwrap() * 240,
                &caller,
                "ssm",
                "TerminateSession",
                json!({ "sessionId": "s" }),
            );
        }
        day.call(at(hour, 20), &caller, "rds", "DescribeDBLogFiles", json!({ "dBInstanceIdentifier": "shop" }));
    }
    let windows = sso(PROD, "Operator", "heidi").in_console();
    for n in 0..12 {
        // The page asks again until the password is there.
        day.call(
            at(15, 0) + n * 15,
            &windows,
            "ec2",
            "GetPasswordData",
            json!({ "instanceId": "i-0a1b2c3d4e5f60009" }),
        );
    }
}

/// The key of a program is exchanged, another one comes with a template.
fn key_rotation(day: &mut Day) {
    let deployer = sso(PROD, "Admin", "alice").by_way_of("cloudformation.amazonaws.com").region(GLOBAL);
    let made = day.call(at(10, 30), &deployer, "iam", "CreateAccessKey", json!({ "userName": "mailer" }));
    made["responseElements"] =
        json!({ "accessKey": { "userName": "mailer", "accessKeyId": "AKIAEXAMPLE0000MAIL0", "status": "Active" } });
    let admin = sso(PROD, "Admin", "alice").in_console().region(GLOBAL);
    let made = day.call(at(11, 0), &admin, "iam", "CreateAccessKey", json!({ "userName": "smtp" }));
    made["responseElements"] =
        json!({ "accessKey": { "userName": "smtp", "accessKeyId": "AKIAEXAMPLE00000SMTP", "status": "Active" } });
    day.call(
        at(11, 20),
        &admin,
        "iam",
        "UpdateAccessKey",
        json!({ "userName": "smtp", "accessKeyId": "AKIAEXAMPLE0000OLD00", "status": "Inactive" }),
    );
    day.call(
        at(15, 20),
        &admin,
        "iam",
        "DeleteAccessKey",
        json!({ "userName": "smtp", "accessKeyId": "AKIAEXAMPLE0000OLD00" }),
    );
    for n in 0..9 {
        day.call(at(15, 30) + n, &admin, "iam", "TagUser", json!({ "userName": format!("svc-{n}") }));
    }
}

/// Somebody goes home at noon and signs in from there.
fn a_new_way_to_work(day: &mut Day) {
    for (account, set) in [(PROD, "Viewer"), (DEV, "Developer")] {
        login(day, at(14, 30), &sso(account, set, "ivan").in_console().from("203.0.113.77"), true);
    }
    let mut away = sso(DEV, "Developer", "ivan").in_console().from("203.0.113.77");
    away.account = DEV;
    day.call(at(14, 33), &away, "ec2", "DescribeInstances", Value::Null);
}

/// A few things by hand in the console, each of them once or twice and nothing bad.
fn by_hand(day: &mut Day) {
    let (erin, dave) = (sso(DEV, "Developer", "erin").in_console(), sso(PROD, "Admin", "dave").in_console());
    for n in 0..4 {
        let second = at(11, 0) + n * 400;
        day.call(second, &erin, "lambda", "UpdateFunctionCode20150331v2", json!({ "functionName": "shop-dev" }));
        day.call(second + 5, &erin, "iam", "CreateRole", json!({ "path": "/service-role/", "roleName": format!("fn-role-{n}"), "assumeRolePolicyDocument": r#"{"Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}"# }));
        day.call(second + 9, &erin, "lambda", "CreateFunction20150331", json!({ "functionName": format!("try-{n}") }));
        day.call(second + 20, &erin, "s3", "DeleteBucket", json!({ "bucketName": format!("erin-try-{n}") }));
        day.call(second + 30, &erin, "ecr", "PutImage", json!({ "repositoryName": "try" }));
    }
    let taken = day.call(
        at(17, 0),
        &dave,
        "rds",
        "CreateDBSnapshot",
        json!({ "dBInstanceIdentifier": "shop", "dBSnapshotIdentifier": "before-upgrade" }),
    );
    taken["responseElements"] = json!({ "snapshotType": "manual" });
    day.call(
        at(17, 20),
        &dave,
        "rds",
        "ModifyDBInstance",
        json!({ "dBInstanceIdentifier": "shop", "engineVersion": "16.4" }),
    );
    day.call(at(17, 30), &dave, "servicequotas", "ListServiceQuotas", json!({ "serviceCode": "ec2" }));
}
