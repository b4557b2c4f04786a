//! A made-up day of a small company's AWS account: about 2,000 records of ordinary work around ten attacks.
//!
//! Everything is synthetic and the same on every machine: account 123456789012, addresses from the three
//! documentation networks, names of people who do not exist. The random numbers only shape the ordinary work; the
//! attacks are written out one by one.

use serde_json::{Value, json};
use shared::Timestamp;

/// The account of the company.
pub const ACCOUNT: &str = "123456789012";
/// The address the threat intelligence list of the demo names.
pub const LISTED_ADDRESS: &str = "203.0.113.200";

const HOME: &str = "eu-central-1";
const GLOBAL: &str = "us-east-1";
/// The office, from which everybody works.
const OFFICE: &str = "198.51.100.10";
/// The attacker.
const ATTACKER: &str = "203.0.113.66";
const BROWSER: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36";
const CLI: &str = "aws-cli/2.15.30 md/Botocore#2.4.5 os/linux#6.5 lang/python#3.11.8";
const SDK: &str = "aws-sdk-go-v2/1.26.1 os/linux lang/go#1.22.2";
/// 2026-03-02T00:00:00Z, a Monday.
const MIDNIGHT_MS: i64 = 1_772_409_600_000;

/// The records of the day in the order they happened, one JSON text each: CloudTrail records and EventBridge envelopes.
pub fn records() -> Vec<String> {
    let mut day = Day::new();
    day.ordinary_work();
    day.attacks();
    day.records.sort_by_key(|(at, number, _)| (*at, *number));
    day.records.into_iter().map(|(_, _, text)| text).collect()
}

/// A moment of the day.
const fn at(hour: i64, minute: i64, second: i64) -> i64 {
    hour * 3600 + minute * 60 + second
}

/// SplitMix64: tiny, fast, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    /// A second between two moments.
    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.below(u64::try_from(to - from).unwrap_or(1))).unwrap_or(0)
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap_or(0)]
    }
}

/// One API call, before it becomes a record.
struct Call<'a> {
    at: i64,
    identity: Value,
    from: &'a str,
    agent: &'a str,
    source: &'a str,
    name: &'a str,
    region: &'a str,
    request: Value,
    response: Value,
    error: Option<(&'a str, &'a str)>,
}

struct Day {
    dice: Dice,
    records: Vec<(i64, usize, String)>,
}

impl Day {
    fn new() -> Self {
        Self { dice: Dice(20_260_302), records: Vec::with_capacity(2_100) }
    }

    fn id(&mut self) -> String {
        let (a, b) = (self.dice.roll(), self.dice.roll());
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    }

    fn push(&mut self, second: i64, record: &Value) {
        let number = self.records.len();
        self.records.push((second, number, record.to_string()));
    }

    fn call(&mut self, call: Call<'_>) {
        let read_only =
            ["Describe", "List", "Get", "Head", "Lookup", "AssumeRole"].iter().any(|p| call.name.starts_with(p));
        let mut record = json!({
            "eventVersion": "1.09",
            "userIdentity": call.identity,
            "eventTime": time(call.at),
            "eventSource": call.source,
            "eventName": call.name,
            "awsRegion": call.region,
            "sourceIPAddress": call.from,
            "userAgent": call.agent,
            "requestParameters": call.request,
            "responseElements": call.response,
            "requestID": self.id(),
            "eventID": self.id(),
            "readOnly": read_only,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": ACCOUNT,
            "eventCategory": "Management",
        });
        if let Some((code, message)) = call.error {
            record["errorCode"] = code.into();
            record["errorMessage"] = message.into();
        }
        self.push(call.at, &record);
    }

    /// A console sign-in; a failed one has no MFA.
    fn login(&mut self, second: i64, identity: Value, from: &str, success: bool, mfa: bool) {
        let mut record = json!({
            "eventVersion": "1.09",
            "userIdentity": identity,
            "eventTime": time(second),
            "eventSource": "signin.amazonaws.com",
            "eventName": "ConsoleLogin",
            "awsRegion": GLOBAL,
            "sourceIPAddress": from,
            "userAgent": BROWSER,
            "requestParameters": null,
            "responseElements": { "ConsoleLogin": if success { "Success" } else { "Failure" } },
            "additionalEventData": {
                "LoginTo": "https://console.aws.amazon.com/console/home",
                "MobileVersion": "No",
                "MFAUsed": if mfa { "Yes" } else { "No" },
            },
            "eventID": self.id(),
            "readOnly": false,
            "eventType": "AwsConsoleSignIn",
            "managementEvent": true,
            "recipientAccountId": ACCOUNT,
            "eventCategory": "Management",
        });
        if !success {
            record["errorMessage"] = "Failed authentication".into();
        }
        self.push(second, &record);
    }

    fn notification(&mut self, second: i64, source: &str, detail_type: &str, resources: &[&str], detail: &Value) {
        let envelope = json!({
            "version": "0",
            "id": self.id(),
            "detail-type": detail_type,
            "source": source,
            "account": ACCOUNT,
            "time": time(second),
            "region": HOME,
            "resources": resources,
            "detail": detail,
        });
        self.push(second, &envelope);
    }

    fn ordinary_work(&mut self) {
        self.people();
        self.consoles();
        self.deployments();
        self.applications();
        self.aws_services();
        self.mistakes();
    }

    /// Everybody signs in from the office with MFA, some again after lunch.
    fn people(&mut self) {
        for (i, name) in PEOPLE.iter().enumerate() {
            let morning = at(7, 40, 0) + i64::try_from(i).unwrap_or(0) * 260;
            self.login(morning, user(name), OFFICE, true, true);
            if i % 2 == 0 {
                let afternoon = self.dice.between(at(12, 50, 0), at(13, 30, 0));
                self.login(afternoon, user(name), OFFICE, true, true);
            }
        }
        // One mistyped password, then the right one.
        self.login(at(12, 40, 5), user("frank"), OFFICE, false, false);
        self.login(at(12, 40, 31), user("frank"), OFFICE, true, true);
    }

    /// What the console asks for while people look around.
    fn consoles(&mut self) {
        const LOOKS: [(&str, &str); 14] = [
            ("ec2.amazonaws.com", "DescribeInstances"),
            ("ec2.amazonaws.com", "DescribeSecurityGroups"),
            ("ec2.amazonaws.com", "DescribeVolumes"),
            ("ec2.amazonaws.com", "DescribeSubnets"),
            ("monitoring.amazonaws.com", "DescribeAlarms"),
            ("monitoring.amazonaws.com", "GetMetricData"),
            ("logs.amazonaws.com", "DescribeLogGroups"),
            ("rds.amazonaws.com", "DescribeDBInstances"),
            ("lambda.amazonaws.com", "ListFunctions20150331"),
            ("s3.amazonaws.com", "ListBuckets"),
            ("elasticloadbalancing.amazonaws.com", "DescribeLoadBalancers"),
            ("cloudtrail.amazonaws.com", "LookupEvents"),
            ("cloudformation.amazonaws.com", "DescribeStacks"),
            ("health.amazonaws.com", "DescribeEventAggregates"),
        ];
        for _ in 0..640 {
            let second = self.dice.between(at(8, 30, 0), at(18, 0, 0));
            let (name, (source, call)) = (self.dice.pick(&PEOPLE), self.dice.pick(&LOOKS));
            self.call(Call {
                at: second,
                identity: user(name),
                from: OFFICE,
                agent: BROWSER,
                source,
                name: call,
                region: HOME,
                request: json!({ "maxResults": 50 }),
                response: Value::Null,
                error: None,
            });
        }
    }

    /// The deploy role, from the build machine.
    fn deployments(&mut self) {
        for round in 0..14_i64 {
            let start = at(8, 0, 0) + round * 2_700;
            self.call(Call {
                at: start,
                identity: user_key("ci"),
                from: "198.51.100.40",
                agent: CLI,
                source: "sts.amazonaws.com",
                name: "AssumeRole",
                region: HOME,
                request: json!({ "roleArn": role_arn("deploy"), "roleSessionName": format!("build-{}", 400 + round) }),
                response: json!({ "credentials": { "accessKeyId": "ASIAEXAMPLE000DEPLOY" } }),
                error: None,
            });
            let steps: [(&str, &str, Value); 9] = [
                ("cloudformation.amazonaws.com", "DescribeStacks", json!({ "stackName": "shop" })),
                ("cloudformation.amazonaws.com", "CreateChangeSet", json!({ "stackName": "shop" })),
                ("cloudformation.amazonaws.com", "ExecuteChangeSet", json!({ "stackName": "shop" })),
                ("lambda.amazonaws.com", "UpdateFunctionCode20150331v2", json!({ "functionName": "shop-checkout" })),
                ("lambda.amazonaws.com", "PublishVersion20150331", json!({ "functionName": "shop-checkout" })),
                ("ecr.amazonaws.com", "GetAuthorizationToken", json!({})),
                ("ecr.amazonaws.com", "PutImage", json!({ "repositoryName": "shop" })),
                ("ecs.amazonaws.com", "RegisterTaskDefinition", json!({ "family": "shop" })),
                ("ecs.amazonaws.com", "UpdateService", json!({ "service": "shop", "cluster": "main" })),
            ];
            for (n, (source, name, request)) in steps.into_iter().enumerate() {
                self.call(Call {
                    at: start + 20 + i64::try_from(n).unwrap_or(0) * 13,
                    identity: session("deploy", &format!("build-{}", 400 + round)),
                    from: "198.51.100.40",
                    agent: CLI,
                    source,
                    name,
                    region: HOME,
                    request,
                    response: Value::Null,
                    error: None,
                });
            }
        }
        // A rule between two networks of the company, as the templates have it.
        self.call(Call {
            at: at(10, 15, 42),
            identity: session("deploy", "build-403"),
            from: "198.51.100.40",
            agent: CLI,
            source: "ec2.amazonaws.com",
            name: "AuthorizeSecurityGroupIngress",
            region: HOME,
            request: ingress("sg-0a0000000000000d1", "10.20.0.0/16", 5432),
            response: json!({ "_return": true }),
            error: None,
        });
    }

    /// The shop itself: role sessions of instances and functions that use data all day.
    fn applications(&mut self) {
        const USES: [(&str, &str, &str, &str); 8] = [
            ("shop-web", "i-0a0000000000000a1", "s3.amazonaws.com", "GetObject"),
            ("shop-web", "i-0a0000000000000a2", "s3.amazonaws.com", "PutObject"),
            ("shop-web", "i-0a0000000000000a1", "secretsmanager.amazonaws.com", "GetSecretValue"),
            ("shop-worker", "shop-orders", "dynamodb.amazonaws.com", "DescribeTable"),
            ("shop-worker", "shop-orders", "sqs.amazonaws.com", "GetQueueAttributes"),
            ("shop-worker", "shop-mail", "ses.amazonaws.com", "SendRawEmail"),
            ("backup", "nightly", "ec2.amazonaws.com", "DescribeSnapshots"),
            ("monitoring", "agent", "ec2.amazonaws.com", "DescribeInstanceStatus"),
        ];
        for _ in 0..620 {
            let second = self.dice.between(0, at(23, 59, 0));
            let (role, name, source, call) = self.dice.pick(&USES);
            let key = self.dice.below(90_000);
            let request = match call {
                "GetObject" | "PutObject" => {
                    json!({ "bucketName": "shop-images", "key": format!("products/{key}.webp") })
                }
                "GetSecretValue" => json!({ "secretId": "shop/database" }),
                "DescribeTable" => json!({ "tableName": "orders" }),
                _ => Value::Null,
            };
            self.call(Call {
                at: second,
                identity: session(role, name),
                from: "198.51.100.80",
                agent: SDK,
                source,
                name: call,
                region: HOME,
                request,
                response: Value::Null,
                error: None,
            });
        }
    }

    /// AWS services that act on their own.
    fn aws_services(&mut self) {
        const ACTS: [(&str, &str, &str); 7] = [
            ("lambda.amazonaws.com", "sts.amazonaws.com", "AssumeRole"),
            ("ec2.amazonaws.com", "sts.amazonaws.com", "AssumeRole"),
            ("ecs-tasks.amazonaws.com", "sts.amazonaws.com", "AssumeRole"),
            ("cloudtrail.amazonaws.com", "s3.amazonaws.com", "GetBucketAcl"),
            ("config.amazonaws.com", "s3.amazonaws.com", "GetBucketAcl"),
            ("delivery.logs.amazonaws.com", "s3.amazonaws.com", "PutObject"),
            ("cloudtrail.amazonaws.com", "kms.amazonaws.com", "GenerateDataKey"),
        ];
        for _ in 0..480 {
            let second = self.dice.between(0, at(23, 59, 0));
            let (service, source, call) = self.dice.pick(&ACTS);
            self.call(Call {
                at: second,
                identity: json!({ "type": "AWSService", "invokedBy": service }),
                from: service,
                agent: service,
                source,
                name: call,
                region: HOME,
                request: json!({ "roleSessionName": "shop" }),
                response: Value::Null,
                error: None,
            });
        }
        // The web tier grows by one machine in the morning and shrinks in the evening.
        for (n, second) in [at(9, 3, 0), at(11, 48, 0), at(14, 20, 0)].into_iter().enumerate() {
            let mut identity = session("AWSServiceRoleForAutoScaling", "AutoScaling");
            identity["invokedBy"] = "autoscaling.amazonaws.com".into();
            let instance = format!("i-0b000000000000{n:03}");
            self.call(Call {
                at: second,
                identity: identity.clone(),
                from: "autoscaling.amazonaws.com",
                agent: "autoscaling.amazonaws.com",
                source: "ec2.amazonaws.com",
                name: "RunInstances",
                region: HOME,
                request: json!({ "instancesSet": { "items": [{ "imageId": "ami-0a0000000000000aa", "minCount": 1, "maxCount": 1 }] }, "instanceType": "t3.small" }),
                response: instances(std::slice::from_ref(&instance)),
                error: None,
            });
            self.call(Call {
                at: second + at(7, 30, 0),
                identity,
                from: "autoscaling.amazonaws.com",
                agent: "autoscaling.amazonaws.com",
                source: "ec2.amazonaws.com",
                name: "TerminateInstances",
                region: HOME,
                request: json!({ "instancesSet": { "items": [{ "instanceId": instance }] } }),
                response: Value::Null,
                error: None,
            });
        }
        // A rule of AWS Config that is fine.
        self.notification(
            at(6, 10, 0),
            "aws.config",
            "Config Rules Compliance Change",
            &[],
            &compliance(
                "s3-bucket-versioning-enabled",
                "AWS::S3::Bucket",
                "shop-images",
                "NOT_APPLICABLE",
                "COMPLIANT",
            ),
        );
    }

    /// Calls that are refused, as happens every day.
    fn mistakes(&mut self) {
        for _ in 0..24 {
            let second = self.dice.between(at(9, 0, 0), at(17, 0, 0));
            let name = self.dice.pick(&PEOPLE);
            let arn = user_arn(name);
            self.call(Call {
                at: second,
                identity: user(name),
                from: OFFICE,
                agent: BROWSER,
                source: "ce.amazonaws.com",
                name: "GetCostAndUsage",
                region: GLOBAL,
                request: Value::Null,
                response: Value::Null,
                error: Some(("AccessDenied", &format!("User: {arn} is not authorized to perform: ce:GetCostAndUsage"))),
            });
        }
    }

    fn attacks(&mut self) {
        self.a_listed_address_uses_a_leaked_key();
        self.someone_guesses_a_password();
        self.a_login_without_mfa();
        self.the_root_user_signs_in();
        self.a_key_for_another_user();
        self.the_trail_is_stopped();
        self.ssh_opened_and_closed_again();
        self.three_groups_opened();
        self.many_instances();
        self.other_detectors();
    }

    /// 1. The build user's key is tried from an address on the threat list.
    fn a_listed_address_uses_a_leaked_key(&mut self) {
        self.call(Call {
            at: at(3, 12, 44),
            identity: user_key("ci"),
            from: LISTED_ADDRESS,
            agent: "Boto3/1.34.69 md/Botocore#1.34.69 lang/python#3.10.12",
            source: "s3.amazonaws.com",
            name: "ListBuckets",
            region: GLOBAL,
            request: Value::Null,
            response: Value::Null,
            error: None,
        });
    }

    /// 2. Three wrong passwords for bob, then the right one, from an address he never used.
    fn someone_guesses_a_password(&mut self) {
        for second in [at(9, 40, 2), at(9, 40, 40), at(9, 41, 15)] {
            self.login(second, user("bob"), ATTACKER, false, false);
        }
        self.login(at(9, 42, 8), user("bob"), ATTACKER, true, true);
    }

    /// 3. A contractor's account has no MFA.
    fn a_login_without_mfa(&mut self) {
        self.login(at(10, 5, 30), user("contractor"), OFFICE, true, false);
    }

    /// 4. The root user signs in.
    fn the_root_user_signs_in(&mut self) {
        self.login(at(11, 0, 12), root(), OFFICE, true, true);
    }

    /// 5. Dave makes an access key for the backup user.
    fn a_key_for_another_user(&mut self) {
        self.call(Call {
            at: at(11, 22, 9),
            identity: user("dave"),
            from: OFFICE,
            agent: BROWSER,
            source: "iam.amazonaws.com",
            name: "CreateAccessKey",
            region: GLOBAL,
            request: json!({ "userName": "svc-backup" }),
            response: json!({ "accessKey": {
                "userName": "svc-backup",
                "accessKeyId": "AKIAEXAMPLE0SVCBCKUP",
                "status": "Active",
                "createDate": "Mar 2, 2026, 11:22:09 AM",
            } }),
            error: None,
        });
    }

    /// 6. Carol's session stops the trail 42 seconds after it began.
    fn the_trail_is_stopped(&mut self) {
        self.login(at(13, 45, 0), user("carol"), OFFICE, true, true);
        self.call(Call {
            at: at(13, 45, 42),
            identity: user("carol"),
            from: OFFICE,
            agent: BROWSER,
            source: "cloudtrail.amazonaws.com",
            name: "StopLogging",
            region: HOME,
            request: json!({ "name": format!("arn:aws:cloudtrail:{HOME}:{ACCOUNT}:trail/company") }),
            response: Value::Null,
            error: None,
        });
    }

    /// 7. Erin opens SSH to the world "for a test" and, the good news, closes it again.
    fn ssh_opened_and_closed_again(&mut self) {
        for (second, name) in
            [(at(14, 2, 0), "AuthorizeSecurityGroupIngress"), (at(14, 31, 0), "RevokeSecurityGroupIngress")]
        {
            self.call(Call {
                at: second,
                identity: user("erin"),
                from: OFFICE,
                agent: BROWSER,
                source: "ec2.amazonaws.com",
                name,
                region: HOME,
                request: ingress("sg-0a0000000000000e7", "0.0.0.0/0", 22),
                response: json!({ "_return": true }),
                error: None,
            });
        }
    }

    /// 8. Bob's stolen session opens SSH on three groups within four minutes.
    fn three_groups_opened(&mut self) {
        for (n, group) in
            ["sg-0a0000000000000b1", "sg-0a0000000000000b2", "sg-0a0000000000000b3"].into_iter().enumerate()
        {
            self.call(Call {
                at: at(15, 10, 0) + i64::try_from(n).unwrap_or(0) * 110,
                identity: user("bob"),
                from: ATTACKER,
                agent: CLI,
                source: "ec2.amazonaws.com",
                name: "AuthorizeSecurityGroupIngress",
                region: HOME,
                request: ingress(group, "0.0.0.0/0", 22),
                response: json!({ "_return": true }),
                error: None,
            });
        }
    }

    /// 9. Twelve large machines in two calls.
    fn many_instances(&mut self) {
        for (call, second) in [at(15, 20, 0), at(15, 21, 30)].into_iter().enumerate() {
            let ids: Vec<String> = (0..6).map(|n| format!("i-0c00000000000{:03}", call * 100 + n)).collect();
            self.call(Call {
                at: second,
                identity: user("bob"),
                from: ATTACKER,
                agent: CLI,
                source: "ec2.amazonaws.com",
                name: "RunInstances",
                region: HOME,
                request: json!({ "instancesSet": { "items": [{ "imageId": "ami-0c0000000000000cc", "minCount": 6, "maxCount": 6 }] }, "instanceType": "p4d.24xlarge" }),
                response: instances(&ids),
                error: None,
            });
        }
    }

    /// 10. What AWS's own detectors say about it.
    fn other_detectors(&mut self) {
        self.notification(
            at(15, 14, 30),
            "aws.config",
            "Config Rules Compliance Change",
            &[],
            &compliance(
                "restricted-ssh",
                "AWS::EC2::SecurityGroup",
                "sg-0a0000000000000b1",
                "COMPLIANT",
                "NON_COMPLIANT",
            ),
        );
        let id = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
        let arn = format!("arn:aws:guardduty:{HOME}:{ACCOUNT}:detector/d0000000000000000000000000000001/finding/{id}");
        self.notification(
            at(15, 32, 0),
            "aws.guardduty",
            "GuardDuty Finding",
            &[],
            &json!({
                "schemaVersion": "2.0",
                "accountId": ACCOUNT,
                "region": HOME,
                "partition": "aws",
                "id": id,
                "arn": arn,
                "type": "CryptoCurrency:EC2/BitcoinTool.B!DNS",
                "severity": 8.0,
                "createdAt": time(at(15, 31, 10)),
                "updatedAt": time(at(15, 31, 10)),
                "title": "EC2 instance i-0c00000000000000 is querying a domain name associated with Bitcoin-related activity.",
                "description": "The EC2 instance i-0c00000000000000 is querying a domain name associated with Bitcoin-related activity.",
                "resource": {
                    "resourceType": "Instance",
                    "instanceDetails": { "instanceId": "i-0c00000000000000", "instanceType": "p4d.24xlarge" },
                },
                "service": {
                    "serviceName": "guardduty",
                    "detectorId": "d0000000000000000000000000000001",
                    "archived": false,
                    "count": 1,
                    "eventFirstSeen": time(at(15, 29, 0)),
                    "eventLastSeen": time(at(15, 30, 0)),
                    "action": { "actionType": "DNS_REQUEST", "dnsRequestAction": { "domain": "pool.example.com", "protocol": "UDP", "blocked": false } },
                    "resourceRole": "ACTOR",
                },
            }),
        );
    }
}

/// The people of the company.
const PEOPLE: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];

fn time(second: i64) -> String {
    Timestamp::from_millis(MIDNIGHT_MS).plus_seconds(second).to_string()
}

fn user_arn(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:user/{name}")
}

fn role_arn(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

/// A person at the console.
fn user(name: &str) -> Value {
    json!({
        "type": "IAMUser",
        "principalId": format!("AIDAEXAMPLE{:0>10}", name.to_ascii_uppercase()),
        "arn": user_arn(name),
        "accountId": ACCOUNT,
        "userName": name,
    })
}

/// A user with an access key.
fn user_key(name: &str) -> Value {
    let mut identity = user(name);
    identity["accessKeyId"] = format!("AKIAEXAMPLE{:0>9}", name.to_ascii_uppercase()).into();
    identity
}

fn root() -> Value {
    json!({
        "type": "Root",
        "principalId": ACCOUNT,
        "arn": format!("arn:aws:iam::{ACCOUNT}:root"),
        "accountId": ACCOUNT,
    })
}

/// A role session.
fn session(role: &str, name: &str) -> Value {
    let id =
        format!("AROAEXAMPLE{:0>10}", role.to_ascii_uppercase().replace('-', "").chars().take(10).collect::<String>());
    json!({
        "type": "AssumedRole",
        "principalId": format!("{id}:{name}"),
        "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{name}"),
        "accountId": ACCOUNT,
        "accessKeyId": format!("ASIAEXAMPLE{:0>9}", role.to_ascii_uppercase().replace('-', "").chars().take(9).collect::<String>()),
        "sessionContext": {
            "sessionIssuer": { "type": "Role", "principalId": id, "arn": role_arn(role), "accountId": ACCOUNT, "userName": role },
            "attributes": { "creationDate": time(0), "mfaAuthenticated": "false" },
        },
    })
}

fn ingress(group: &str, cidr: &str, port: u16) -> Value {
    json!({
        "groupId": group,
        "ipPermissions": { "items": [{
            "ipProtocol": "tcp",
            "fromPort": port,
            "toPort": port,
            "groups": {},
            "ipRanges": { "items": [{ "cidrIp": cidr }] },
            "ipv6Ranges": {},
            "prefixListIds": {},
        }] },
    })
}

fn instances(ids: &[String]) -> Value {
    let items: Vec<Value> =
        ids.iter().map(|id| json!({ "instanceId": id, "instanceState": { "code": 0, "name": "pending" } })).collect();
    json!({ "reservationId": "r-0a0000000000000f0", "instancesSet": { "items": items } })
}

fn compliance(rule: &str, kind: &str, resource: &str, before: &str, now: &str) -> Value {
    json!({
        "resourceId": resource,
        "awsRegion": HOME,
        "awsAccountId": ACCOUNT,
        "configRuleName": rule,
        "configRuleARN": format!("arn:aws:config:{HOME}:{ACCOUNT}:config-rule/config-rule-demo01"),
        "recordVersion": "1.0",
        "messageType": "ComplianceChangeNotification",
        "resourceType": kind,
        "oldEvaluationResult": { "complianceType": before },
        "newEvaluationResult": { "complianceType": now },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_day_is_the_same_every_time_and_about_two_thousand_records_long() {
        let (one, two) = (records(), records());
        assert_eq!(one, two);
        assert!((1_900..=2_100).contains(&one.len()), "{}", one.len());
    }

    #[test]
    fn every_record_has_its_own_id() {
        let ids: HashSet<String> = records()
            .iter()
            .map(|text| {
                let record: Value = serde_json::from_str(text).unwrap();
                let id = record.get("eventID").or(record.get("id")).unwrap();
                id.as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(ids.len(), records().len());
    }

    #[test]
    fn only_documentation_addresses_appear() {
        for text in records() {
            let record: Value = serde_json::from_str(&text).unwrap();
            let Some(from) = record.get("sourceIPAddress").and_then(Value::as_str) else { continue };
            let documented = ["192.0.2.", "198.51.100.", "203.0.113."].iter().any(|net| from.starts_with(net));
            assert!(documented || from.ends_with(".amazonaws.com"), "{from}");
        }
    }
}
