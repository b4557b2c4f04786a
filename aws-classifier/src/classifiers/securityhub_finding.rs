//! Security Hub finding.
//!
//! **What it detects.** A finding of AWS Security Hub, from any product that reports there, passed on with its severity:
//! when it appears, when its severity changes and when it comes back after it was closed. One that somebody sends with a
//! custom action is passed on whatever its product and severity. Archived, suppressed and resolved findings, samples and
//! passed checks are left out.
//!
//! **Why it matters.** Inspector, Macie, IAM Access Analyzer and third-party products speak to us through Security Hub
//! only.
//!
//! **False positives.** As those of the product. Suppress them in Security Hub: a suppressed finding is ignored here.
//! Findings of GuardDuty arrive on their own too, so they are left out here (`products_ignored`).
//!
//! **Response.** `ec2_instance_quarantine` when a resource is an instance, `iam_access_key_deactivate` when one is a key,
//! and the product is one of `product_arns_acted_on`: whoever may call `BatchImportFindings` writes what they like in the
//! name of their own account's product, about any key and instance. Findings of other products say so (`not_acted_on`).
//!
//! **References.** <https://docs.aws.amazon.com/securityhub/latest/userguide/securityhub-cwe-event-formats.html>,
//! <https://docs.aws.amazon.com/securityhub/latest/userguide/securityhub-findings-format-syntax.html>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, Observations};
use shared::ports::Files;
use shared::text::matches_glob;

const CUSTOM_ACTION: &str = "Security Hub Findings - Custom Action";
/// Remembered in place of a severity once the finding is archived, suppressed, resolved or passed.
const CLOSED: &str = "closed";

/// See the module.
pub struct SecurityhubFinding {
    settings: Settings,
}

/// The `[classifiers.securityhub_finding]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Findings below this severity are left out. Default `low`: Security Hub calls informational what needs nobody.
    pub severity_min: Severity,
    /// Products whose findings are left out, by the end of their ARN (`company/product`, `*` for any characters).
    /// Default `aws/guardduty`, whose findings `guardduty_finding` reads from their own events; leave the list empty when
    /// only Security Hub's events reach the pipeline.
    pub products_ignored: Vec<String>,
    /// Products whose findings name instances and keys for responses, by their whole ARN (`*` for any characters). Default
    /// AWS's own, which nobody else can report for; add integrations of other companies that you accepted.
    pub product_arns_acted_on: Vec<String>,
    /// A finding that did not change is told again when nothing was heard of it for so many days. Default 30: Security
    /// Hub renews the findings of its checks every 12 or 24 hours and deletes what is not renewed after 90 days.
    pub known_days: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            severity_min: Severity::Low,
            products_ignored: vec!["aws/guardduty".to_owned()],
            product_arns_acted_on: vec!["arn:*:securityhub:*::product/aws/*".to_owned()],
            known_days: 30,
        }
    }
}

impl Classifier for SecurityhubFinding {
    const META: Meta = Meta {
        id: "securityhub_finding",
        title: "Security Hub finding",
        severity: Severity::Medium,
        techniques: &[],
        patterns: &[
            Pattern::Notification { source: "aws.securityhub", detail_type: "Security Hub Findings - Imported" },
            Pattern::Notification { source: "aws.securityhub", detail_type: CUSTOM_ACTION },
        ],
        failed_calls: FailedCalls::Ignored,
        responses: &["ec2_instance_quarantine", "iam_access_key_deactivate"],
        references: &[
            "https://docs.aws.amazon.com/securityhub/latest/userguide/securityhub-cwe-event-formats.html",
            "https://docs.aws.amazon.com/securityhub/latest/userguide/securityhub-findings-format-syntax.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        for (key, products) in [
            ("products_ignored", &settings.products_ignored),
            ("product_arns_acted_on", &settings.product_arns_acted_on),
        ] {
            if products.iter().any(|product| product.trim().is_empty()) {
                return Err(SettingsError::new(key, "no product may be empty"));
            }
        }
        if !(1..=365).contains(&settings.known_days) {
            return Err(SettingsError::new("known_days", "must be from 1 to 365"));
        }
        Ok(Self { settings })
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        let none = Observations::none();
        let finding = finding(event)?;
        if is_custom_action(event) || is_sample(finding) || self.is_ignored(finding) {
            return Ok(none);
        }
        let standing = if is_closed(finding) { CLOSED } else { severity(finding)?.as_str() };
        Ok(none.remember("standing", id(finding)?, standing, self.settings.known_days * 86_400))
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        let finding = finding(event)?;
        if is_closed(finding) || is_sample(finding) {
            return Ok(None);
        }
        let severity = severity(finding)?;
        if !is_custom_action(event) {
            if severity < self.settings.severity_min || self.is_ignored(finding) {
                return Ok(None);
            }
            if known.last("standing").previous.is_some_and(|(_, standing)| standing == severity.as_str()) {
                return Ok(None);
            }
        }
        let kind = text(finding, "/Types/0");
        let title = text(finding, "/Title").or(kind).unwrap_or(Self::META.title);
        let account = text(finding, "/AwsAccountId").unwrap_or_default();
        let region = text(finding, "/Region").or_else(|| text(finding, "/Resources/0/Region")).unwrap_or_default();
        let id = id(finding)?;
        let mut evidence = Evidence::about(text(finding, "/Resources/0/Id").unwrap_or(id))
            .titled(format!("Security Hub: {title}").chars().take(120).collect::<String>())
            .severity(severity)
            .placed(account, region)
            .fact("id", id);
        let remote = text(finding, "/Action/AwsApiCallAction/RemoteIpDetails/IpAddressV4")
            .or_else(|| text(finding, "/Action/NetworkConnectionAction/RemoteIpDetails/IpAddressV4"));
        let detail = event.detail()?;
        for (name, value) in [
            ("type", kind),
            ("product", Some(product(finding)).filter(|product| !product.is_empty())),
            ("generator", text(finding, "/GeneratorId")),
            ("description", text(finding, "/Description")),
            ("control", text(finding, "/Compliance/SecurityControlId")),
            ("resource_type", text(finding, "/Resources/0/Type")),
            ("remote_ip", remote),
            ("custom_action", text(detail, "/actionName").filter(|_| is_custom_action(event))),
        ] {
            if let Some(value) = value {
                evidence = evidence.fact(name, value);
            }
        }
        let affected = affected(finding);
        Ok(Some(if affected.is_empty() {
            evidence
        } else if self.is_acted_on(finding) {
            affected.into_iter().fold(evidence, |evidence, (name, value)| evidence.fact(name, value))
        } else {
            evidence.fact("not_acted_on", "the product is not one of product_arns_acted_on")
        }))
    }
}

impl SecurityhubFinding {
    fn is_ignored(&self, finding: &Value) -> bool {
        let product = product(finding);
        self.settings.products_ignored.iter().any(|pattern| matches_glob(pattern, product))
    }

    fn is_acted_on(&self, finding: &Value) -> bool {
        let arn = text(finding, "/ProductArn").unwrap_or_default();
        self.settings.product_arns_acted_on.iter().any(|pattern| matches_glob(pattern, arn))
    }
}

/// The one finding of the event; the intake makes an event of each.
fn finding<'e>(event: &'e Event<'_>) -> Result<&'e Value, Malformed> {
    match event.detail()?.get("findings") {
        Some(Value::Array(findings)) => match findings.first() {
            Some(finding @ Value::Object(_)) => Ok(finding),
            _ => Err(Malformed::wrong("detail.findings.0", "an object")),
        },
        None | Some(Value::Null) => Err(Malformed::missing("detail.findings")),
        Some(_) => Err(Malformed::wrong("detail.findings", "an array")),
    }
}

fn is_custom_action(event: &Event<'_>) -> bool {
    event.name.eq_ignore_ascii_case(CUSTOM_ACTION)
}

fn id(finding: &Value) -> Result<&str, Malformed> {
    text(finding, "/Id").ok_or_else(|| Malformed::missing("detail.findings.0.Id"))
}

/// `company/product`, the end of the product's ARN.
fn product(finding: &Value) -> &str {
    let arn = text(finding, "/ProductArn").unwrap_or_default();
    arn.split_once("product/").map_or(arn, |(_, product)| product)
}

/// Nothing is left to do about it: archived by the product, suppressed or resolved by people, or a check that passed.
fn is_closed(finding: &Value) -> bool {
    let is = |pointer, values: &[&str]| text(finding, pointer).is_some_and(|value| values.contains(&value));
    is("/RecordState", &["ARCHIVED"])
        || is("/Workflow/Status", &["SUPPRESSED", "RESOLVED"])
        || is("/WorkflowState", &["RESOLVED"])
        || is("/Compliance/Status", &["PASSED", "NOT_AVAILABLE"])
        || product_field(finding, &["archived", "aws/guardduty/service/archived"])
}

/// Samples say so in a field of their own, in the product's fields, or in the title.
fn is_sample(finding: &Value) -> bool {
    finding.get("Sample") == Some(&Value::Bool(true))
        || product_field(finding, &["sample", "aws/guardduty/service/additionalInfo/sample"])
        || text(finding, "/Title").is_some_and(|title| title.trim_start().starts_with("[SAMPLE]"))
}

fn product_field(finding: &Value, names: &[&str]) -> bool {
    let fields = finding.get("ProductFields").unwrap_or(&Value::Null);
    names.iter().any(|name| fields.get(name).and_then(Value::as_str) == Some("true"))
}

/// The label; else the normalized score in the bands that the finding format gives; else the product's own score, which
/// is taken for one of GuardDuty's up to 10 and for a normalized one above.
fn severity(finding: &Value) -> Result<Severity, Malformed> {
    const FIELD: &str = "detail.findings.0.Severity";
    let given = finding.get("Severity").filter(|s| s.is_object()).ok_or_else(|| Malformed::missing(FIELD))?;
    let number = |key: &str| given.get(key).and_then(Value::as_f64);
    match given.get("Label").and_then(Value::as_str) {
        Some("CRITICAL") => return Ok(Severity::Critical),
        Some("HIGH") => return Ok(Severity::High),
        Some("MEDIUM") => return Ok(Severity::Medium),
        Some("LOW") => return Ok(Severity::Low),
        Some("INFORMATIONAL") => return Ok(Severity::Info),
        Some(_) => return Err(Malformed::wrong(&format!("{FIELD}.Label"), "a severity")),
        None => {}
    }
    let own = || number("Product").map(|score| if score <= 10.0 { score * 10.0 } else { score });
    match number("Normalized").or_else(own) {
        Some(score) if score >= 90.0 => Ok(Severity::Critical),
        Some(score) if score >= 70.0 => Ok(Severity::High),
        Some(score) if score >= 40.0 => Ok(Severity::Medium),
        Some(score) if score >= 1.0 => Ok(Severity::Low),
        Some(_) => Ok(Severity::Info),
        None => Err(Malformed::missing(&format!("{FIELD}.Label"))),
    }
}

/// What responses need to know of the resources.
fn affected(finding: &Value) -> Vec<(&'static str, Value)> {
    let mut facts = Vec::new();
    let resources = finding.get("Resources").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let of_type = |kind: &'static str| resources.iter().filter(move |r| text(r, "/Type") == Some(kind));
    let instances: Vec<&str> = of_type("AwsEc2Instance").filter_map(|r| text(r, "/Id")).map(last_part).collect();
    if !instances.is_empty() {
        facts.push(("instance_ids", instances.into()));
    }
    if let Some(key) = of_type("AwsIamAccessKey").next() {
        let id = text(key, "/Details/AwsIamAccessKey/AccessKeyId").or_else(|| text(key, "/Id").map(last_part));
        // Security Hub writes `AWS::IAM::AccessKey:null` when it does not know the key.
        facts.extend(id.filter(|id| *id != "null").map(|id| ("access_key_id", id.into())));
        let user = text(key, "/Details/AwsIamAccessKey/PrincipalName")
            .or_else(|| text(key, "/Details/AwsIamAccessKey/UserName"));
        facts.extend(user.map(|user| ("user_name", user.into())));
    }
    facts
}

/// `i-1` of `arn:aws:ec2:eu-west-1:123456789012:instance/i-1`.
fn last_part(arn: &str) -> &str {
    arn.rsplit(['/', ':']).next().unwrap_or(arn)
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}
