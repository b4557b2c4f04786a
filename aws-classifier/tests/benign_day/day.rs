//! The means to write a day: time, chance, callers, records.
//!
//! Everything is synthetic and the same on every machine: made-up accounts, addresses of the documentation networks and
//! of private ones, names of people who do not exist.

use serde_json::{Value, json};
use shared::Timestamp;

/// Where the shop runs.
pub const PROD: &str = "123456789012";
/// Where its developers try things out.
pub const DEV: &str = "444455556666";
/// Where logs and audits are kept.
pub const AUDIT: &str = "777788889999";
/// The account of the company that monitors it.
pub const VENDOR: &str = "222233334444";

pub const HOME: &str = "eu-central-1";
pub const GLOBAL: &str = "us-east-1";
pub const REGIONS: [&str; 17] = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

pub const BROWSER: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
pub const CLI: &str = "aws-cli/2.22.7 md/awscrt#0.22.0 ua/2.0 os/macos#24.1.0 md/arch#arm64 lang/python#3.12.6 md/prompt#off md/command#ec2.describe-instances";
pub const TERRAFORM: &str = "APN/1.0 HashiCorp/1.0 Terraform/1.9.8 (+https://www.terraform.io) terraform-provider-aws/5.76.0 (+https://registry.terraform.io/providers/hashicorp/aws) aws-sdk-go-v2/1.32.5 ua/2.1 os/linux lang/go#1.23.1";
/// The office.
pub const OFFICE: &str = "198.51.100.10";
/// The way out of the network of the shop.
pub const GATEWAY: &str = "203.0.113.20";

/// 2026-03-02T00:00:00Z, a Monday.
const MIDNIGHT_MS: i64 = 1_772_409_600_000;

/// A moment of the day in seconds.
pub const fn at(hour: i64, minute: i64) -> i64 {
    hour * 3600 + minute * 60
}

/// The day's moment as CloudTrail writes it.
pub fn time(second: i64) -> String {
    Timestamp::from_millis(MIDNIGHT_MS).plus_seconds(second).to_string()
}

/// Whose work a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// AWS services, by themselves and for somebody.
    Services,
    /// Applications, agents, clusters.
    Software,
    /// Monitoring, cost and security scanners.
    Scanners,
    /// Infrastructure as code and build pipelines.
    Deployments,
    /// People at the console and the command line.
    People,
    /// What administrators do and what somebody may want to hear of.
    Administration,
}

/// Who calls, from where, with what.
#[derive(Clone)]
pub struct Caller {
    pub identity: Value,
    pub account: &'static str,
    pub from: String,
    pub agent: String,
    pub region: &'static str,
    pub console: bool,
}

impl Caller {
    pub fn from(mut self, address: &str) -> Self {
        address.clone_into(&mut self.from);
        self
    }

    pub fn agent(mut self, agent: &str) -> Self {
        agent.clone_into(&mut self.agent);
        self
    }

    pub const fn region(mut self, region: &'static str) -> Self {
        self.region = region;
        self
    }

    /// The same principal, by way of a service.
    pub fn by_way_of(mut self, service: &str) -> Self {
        self.identity["invokedBy"] = service.into();
        self.console = false;
        self.from(service).agent(service)
    }

    /// In the browser, as records of new consoles have it.
    pub fn in_console(mut self) -> Self {
        self.console = true;
        self.agent(BROWSER)
    }
}

/// A service that acts by itself.
pub fn service(name: &str) -> Caller {
    Caller {
        identity: json!({ "type": "AWSService", "invokedBy": name }),
        account: PROD,
        from: name.to_owned(),
        agent: name.to_owned(),
        region: HOME,
        console: false,
    }
}

/// A session of a service-linked role.
pub fn linked(service: &str, role: &str, session: &str) -> Caller {
    let name = format!("AWSServiceRoleFor{role}");
    let mut caller = role_session(PROD, &name, session).by_way_of(service);
    caller.identity["sessionContext"]["sessionIssuer"]["arn"] =
        format!("arn:aws:iam::{PROD}:role/aws-service-role/{service}/{name}").into();
    caller
}

/// A session of a role.
pub fn role_session(account: &'static str, role: &str, session: &str) -> Caller {
    let id = format!("AROA{:0>16}", letters(role));
    Caller {
        identity: json!({
            "type": "AssumedRole",
            "principalId": format!("{id}:{session}"),
            "arn": format!("arn:aws:sts::{account}:assumed-role/{role}/{session}"),
            "accountId": account,
            "accessKeyId": format!("ASIA{:0>16}", letters(session)),
            "sessionContext": {
                "sessionIssuer": { "type": "Role", "principalId": id, "arn": format!("arn:aws:iam::{account}:role/{role}"), "accountId": account, "userName": role },
                "webIdFederationData": {},
                "attributes": { "creationDate": time(0), "mfaAuthenticated": "false" },
            },
        }),
        account,
        from: GATEWAY.to_owned(),
        agent: "aws-sdk-go-v2/1.32.5 os/linux lang/go#1.23.1 md/GOARCH#amd64".to_owned(),
        region: HOME,
        console: false,
    }
}

/// The role of an instance.
pub fn instance(role: &str, id: &str) -> Caller {
    let mut caller = role_session(PROD, role, id);
    caller.identity["sessionContext"]["ec2RoleDelivery"] = "2.0".into();
    caller
}

/// A function.
pub fn function(role: &str, name: &str) -> Caller {
    role_session(PROD, role, name)
        .from("198.51.100.200")
        .agent("Boto3/1.35.71 md/Botocore#1.35.71 ua/2.0 os/linux#5.10.227 md/arch#x86_64 lang/python#3.12.7 exec-env/AWS_Lambda_python3.12")
}

/// A person who signed in through IAM Identity Center.
pub fn sso(account: &'static str, permission_set: &str, person: &str) -> Caller {
    let role = format!("AWSReservedSSO_{permission_set}_0123456789abcdef");
    let mut caller = role_session(account, &role, &format!("{person}@example.com"));
    caller.identity["sessionContext"]["sessionIssuer"]["arn"] =
        format!("arn:aws:iam::{account}:role/aws-reserved/sso.amazonaws.com/{HOME}/{role}").into();
    caller.from(OFFICE).agent(CLI)
}

/// An IAM user with a key.
pub fn user(name: &str) -> Caller {
    let mut caller = role_session(PROD, "none", name).from(OFFICE).agent(CLI);
    caller.identity = json!({
        "type": "IAMUser",
        "principalId": format!("AIDA{:0>16}", letters(name)),
        "arn": format!("arn:aws:iam::{PROD}:user/{name}"),
        "accountId": PROD,
        "accessKeyId": format!("AKIA{:0>16}", letters(name)),
        "userName": name,
    });
    caller
}

/// An IAM user who signed in with a password and a second factor.
pub fn signed_in(name: &str) -> Caller {
    let mut caller = user(name).in_console();
    caller.identity["accessKeyId"] = format!("ASIA{:0>16}", letters(name)).into();
    caller.identity["sessionContext"] =
        json!({ "attributes": { "creationDate": time(0), "mfaAuthenticated": "true" } });
    caller
}

/// A principal of another account, as the account that is called sees it.
pub fn other_account(account: &str, session: &str) -> Caller {
    let mut caller = role_session(PROD, "none", session);
    caller.identity =
        json!({ "type": "AWSAccount", "principalId": format!("AROA0000000000VENDOR:{session}"), "accountId": account });
    caller
}

fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).take(16).collect()
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
}

/// The day so far.
pub struct Day {
    dice: Dice,
    kind: Kind,
    records: Vec<(i64, Kind, Value)>,
}

impl Day {
    pub const fn new(seed: u64) -> Self {
        Self { dice: Dice(seed), kind: Kind::Services, records: Vec::new() }
    }

    /// Whose records follow.
    pub const fn now_come(&mut self, kind: Kind) {
        self.kind = kind;
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.dice.roll() % n as u64).unwrap()
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        let at = self.below(items.len());
        items[at]
    }

    /// So many moments between two, each handed to `each`.
    pub fn spread(&mut self, times: usize, from: i64, to: i64, mut each: impl FnMut(&mut Self, i64)) {
        for _ in 0..times {
            let second = from + i64::try_from(self.below(usize::try_from(to - from).unwrap())).unwrap();
            each(self, second);
        }
    }

    fn id(&mut self) -> String {
        let (a, b) = (self.dice.roll(), self.dice.roll());
        let (c, d) = ((a >> 16) & 0xffff, b & 0xffff_ffff_ffff);
        format!("{:08x}-{c:04x}-4{:03x}-8{:03x}-{d:012x}", a >> 32, a & 0xfff, b >> 52)
    }

    /// A call that went well; what is particular about its record is changed in what comes back.
    pub fn call(&mut self, second: i64, caller: &Caller, source: &str, name: &str, request: Value) -> &mut Value {
        const READS: [&str; 14] = [
            "Describe",
            "List",
            "Get",
            "Head",
            "Lookup",
            "AssumeRole",
            "BatchGet",
            "Decrypt",
            "GenerateDataKey",
            "Simulate",
            "Check",
            "Search",
            "Query",
            "View",
        ];
        let mut record = json!({
            "eventVersion": "1.11",
            "userIdentity": caller.identity,
            "eventTime": time(second),
            "eventSource": format!("{source}.amazonaws.com"),
            "eventName": name,
            "awsRegion": caller.region,
            "sourceIPAddress": caller.from,
            "userAgent": caller.agent,
            "requestParameters": request,
            "responseElements": null,
            "requestID": self.id(),
            "eventID": self.id(),
            "readOnly": READS.iter().any(|verb| name.starts_with(verb)),
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": caller.account,
            "eventCategory": "Management",
            "tlsDetails": { "tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256", "clientProvidedHostHeader": format!("{source}.{}.amazonaws.com", caller.region) },
        });
        if caller.console {
            record["sessionCredentialFromConsole"] = "true".into();
        }
        self.push(second, record)
    }

    /// A record as it stands.
    pub fn push(&mut self, second: i64, mut record: Value) -> &mut Value {
        if record.get("eventID").is_none() {
            record["eventID"] = self.id().into();
        }
        self.records.push((second, self.kind, record));
        &mut self.records.last_mut().unwrap().2
    }

    /// The records in the order they happened.
    pub fn finish(mut self) -> Vec<(Kind, String)> {
        self.records.sort_by_key(|(second, _, _)| *second);
        self.records.into_iter().map(|(_, kind, record)| (kind, record.to_string())).collect()
    }
}

/// Makes a call one that failed.
pub fn fail(record: &mut Value, code: &str, message: &str) {
    record["errorCode"] = code.into();
    record["errorMessage"] = message.into();
    record["responseElements"] = Value::Null;
}

/// Makes a call one on data.
pub fn on_data(record: &mut Value) {
    record["managementEvent"] = false.into();
    record["eventCategory"] = "Data".into();
}

/// A rule for `AuthorizeSecurityGroupIngress`.
pub fn ingress(group: &str, cidr: &str, port: u16) -> Value {
    json!({
        "groupId": group,
        "ipPermissions": { "items": [{
            "ipProtocol": "tcp", "fromPort": port, "toPort": port,
            "groups": {}, "ipRanges": { "items": [{ "cidrIp": cidr }] }, "ipv6Ranges": {}, "prefixListIds": {},
        }] },
    })
}
