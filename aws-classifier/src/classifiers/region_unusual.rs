//! A sensitive call was made in a region its principal does not use.
//!
//! **What it detects.** A successful call of the list below in a region that the principal has not made such calls in
//! for `known_days` and that is not in `usual_regions`. A principal's regions are those of its first call and of the
//! calls before `learning_until`; whatever comes later is reported (again after `repeat_s` of quiet) and never learned,
//! however often it is used. A principal that was never seen before is measured by the regions its account uses, which
//! is how an attacker's new user stays unusual where nobody else works. So are sessions of roles always: a role that
//! works in one more region of its account is a deployment or a failover. Sessions of one role share their regions,
//! because session names are often made up.
//!
//! **Why it matters.** Regions nobody looks at are where stolen credentials mine coins and hide copies.
//!
//! **False positives.** A new site, a disaster recovery exercise: add the region to `usual_regions`. AWS services that
//! act for somebody are ignored. Roles that deploy with infrastructure as code (`deployment_tools`) are left out;
//! people and long-lived keys are not. IAM and other global services are recorded in their partition's home region,
//! whoever calls from wherever, so the IAM calls of the predecessor's list say nothing about regions and are left to
//! their own classifiers. A bucket's region is the one asked for, not that of the endpoint.
//!
//! **Response.** Ask the principal; stop what was started, restrict the user.
//!
//! **References.** See `META`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::event::PrincipalKind;
use shared::ports::Files;
use shared::{
    Classifier, Event, Evidence, FailedCalls, Known, Malformed, Meta, Observations, Pattern, SettingsError, Severity,
    Timestamp,
};

use crate::deployment_tools::DeploymentTools;

/// Limits of `[classifiers.region_unusual]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Days a region stays in use after its last call: 1 to 365. Default 90, the predecessor's.
    pub known_days: u32,
    /// Regions that are never reported, such as `eu-central-1`. Default none.
    pub usual_regions: Vec<String>,
    /// Calls before this time (RFC 3339) teach every region they are made in, and are reported as low. Default empty:
    /// nothing is learned but the first region of a principal, so that an attacker's is not.
    pub learning_until: String,
    /// Seconds without a call in the same region after which the principal's use of it is reported again: 1 to 7,776,000.
    /// Default 604,800: our choice, so that what goes on is told once, also over a weekend.
    pub repeat_s: u32,
    /// Parts of user agents, in lower case, of tools that lay out what is to be. Sessions of roles that call with them
    /// are not reported: a deployment works in the regions its templates name. Default Terraform, Pulumi, the AWS CDK,
    /// Crossplane, Ansible and the AWS controllers for Kubernetes. Callers choose their user agent, so empty the list
    /// where deployments stay in `usual_regions`.
    pub deployment_tools: DeploymentTools,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            known_days: 90,
            usual_regions: Vec::new(),
            learning_until: String::new(),
            repeat_s: 604_800,
            deployment_tools: DeploymentTools::default(),
        }
    }
}

/// See the module.
pub struct RegionUnusual {
    settings: Settings,
    learning_until: Option<Timestamp>,
}

/// How long a principal and an account are known: two years, our choice; longer than a region, or silence would make
/// an attacker's first call a teacher.
const CALLER_KNOWN_S: u32 = 730 * 86_400;

impl Classifier for RegionUnusual {
    const META: Meta = Meta {
        id: "region_unusual",
        title: "Sensitive call in a region the principal does not use",
        severity: Severity::High,
        techniques: &["T1535"],
        patterns: &[
            Pattern::Api {
                source: "ec2.amazonaws.com",
                names: &["RunInstances", "StartInstances", "StopInstances", "TerminateInstances"],
            },
            Pattern::Api {
                source: "s3.amazonaws.com",
                names: &["CreateBucket", "DeleteBucket", "PutBucketAcl", "PutBucketPolicy"],
            },
            Pattern::Api {
                source: "lambda.amazonaws.com",
                names: &[
                    "CreateFunction20141111",
                    "CreateFunction20150331",
                    "DeleteFunction20150331",
                    "DeleteFunction20150331v2",
                    "UpdateFunctionCode20150331",
                    "UpdateFunctionCode20150331v2",
                    "UpdateFunctionConfiguration20150331",
                    "UpdateFunctionConfiguration20150331v2",
                ],
            },
            Pattern::Api {
                source: "rds.amazonaws.com",
                names: &["CreateDBInstance", "DeleteDBInstance", "ModifyDBInstance"],
            },
        ],
        failed_calls: FailedCalls::Ignored,
        responses: &["ec2_instances_stop", "iam_user_restrict"],
        references: &[
            "https://attack.mitre.org/techniques/T1535/",
            "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-concepts.html#cloudtrail-concepts-global-service-events",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(1..=365).contains(&settings.known_days) {
            return Err(SettingsError::new("known_days", "must be from 1 to 365 days"));
        }
        if !(1..=7_776_000).contains(&settings.repeat_s) {
            return Err(SettingsError::new("repeat_s", "must be from 1 to 7776000 seconds (90 days)"));
        }
        if let Some(odd) = settings.usual_regions.iter().find(|r| r.split('-').count() < 3) {
            return Err(SettingsError::new("usual_regions", format!("{odd} is no region such as eu-central-1")));
        }
        settings.deployment_tools.check()?;
        let learning_until = match &*settings.learning_until {
            "" => None,
            text => Some(Timestamp::parse(text).ok_or_else(|| {
                SettingsError::new("learning_until", format!("{text} is no time such as 2026-03-01T00:00:00Z"))
            })?),
        };
        Ok(Self { settings, learning_until })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        !event.is_by_aws_service()
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let Some(region) = region(event)? else { return Ok(Observations::none()) };
        let (account, caller) = (&*event.account, caller(event));
        let known_s = self.settings.known_days * 86_400;
        Ok(Observations::none()
            .see("caller", caller.as_str(), CALLER_KNOWN_S)
            .see("caller_region", format!("{caller}/{region}"), known_s)
            .see("account", account, CALLER_KNOWN_S)
            .see("account_region", format!("{account}/{region}"), known_s))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let Some(region) = region(event)? else { return Ok(None) };
        if self.settings.usual_regions.iter().any(|usual| usual.eq_ignore_ascii_case(region)) {
            return Ok(None);
        }
        let learning = self.learning_until.is_some_and(|until| event.time < until);
        let first = |label| known.seen(label).first;
        // Somebody else worked there before this caller did.
        let others_before =
            || first("account_region").is_some_and(|used| first("caller_region").is_none_or(|own| used < own));
        let is_usual = match (first("caller"), first("caller_region")) {
            // The very first call: somebody used the region before, or nobody here was ever seen.
            (None, _) => first("account_region").is_some() || first("account").is_none(),
            (Some(_), None) => false,
            // The region of the first call is the principal's own if that call was usual, seen from here.
            (Some(caller), Some(region)) if region <= caller => {
                first("account_region").is_some_and(|used| used < region)
                    || first("account").is_none_or(|seen| seen >= region)
            }
            (Some(_), Some(region)) => learning || self.learning_until.is_some_and(|until| region < until),
        };
        let is_role = event.identity().principal_kind() == PrincipalKind::RoleSession;
        if is_usual || (is_role && (others_before() || self.settings.deployment_tools.call(event))) {
            return Ok(None);
        }
        let key = format!("{}/{region}", caller(event));
        let evidence = Evidence::about(region)
            .once_in(key, self.settings.repeat_s)
            .fact("used_region", region)
            .fact("principal_kind", event.identity().principal_kind().as_str())
            .fact("principal_is_new", first("caller").is_none())
            .fact("region_is_new_to_account", known.seen("account_region").is_new())
            .fact("known_days", self.settings.known_days)
            .fact("learning", learning);
        Ok(Some(if learning { evidence.severity(Severity::Low) } else { evidence }))
    }
}

/// Where the call acts: for a bucket where it is asked for, not the endpoint's region. `None` when the record does not say.
fn region<'e>(event: &'e Event<'_>) -> Result<Option<&'e str>, Malformed> {
    if event.name.eq_ignore_ascii_case("CreateBucket") {
        let asked_for = event.request()?.pointer("/CreateBucketConfiguration/LocationConstraint");
        if let Some(Value::String(region)) = asked_for
            && region.split('-').count() >= 3
        {
            return Ok(Some(region));
        }
    }
    Ok((!event.region.is_empty()).then_some(&*event.region))
}

/// A role's sessions share their regions; everybody else is alone.
fn caller(event: &Event<'_>) -> String {
    format!("{}/{}", event.account, event.identity().habit_key())
}
