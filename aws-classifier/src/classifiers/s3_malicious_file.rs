//! Malicious file in S3.
//!
//! **What it detects.** A new object in a bucket that is watched (`buckets` of the `[inspection]` section) was judged
//! malicious or suspicious by the inspection: known by its hash to a list or, where a key is set, to VirusTotal or Hybrid
//! Analysis, nearly the same as a known file, a name, declared type and content that do not go together, code that
//! belongs to attacks, a YARA rule that matches (where that is built in), an archive with such files in it or that
//! inflates beyond measure. `pipeline inspect FILE` judges a file in the same way.
//!
//! **Why it matters.** Buckets that people or other systems upload to carry web shells and programs to whoever opens
//! them, and a website's bucket serves them to its visitors.
//!
//! **False positives.** Installers and scripts uploaded on purpose, security tools, files with the wrong extension.
//! Watch the buckets of uploads and not those of builds; allow what is known by resource.
//!
//! **Response.** None: look at the reasons, take the object out of the way, and find out who uploaded it and who read it.
//!
//! **References.** <https://attack.mitre.org/techniques/T1204/002/>, <https://attack.mitre.org/techniques/T1505/003/>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventNotifications.html>

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::Known;
use shared::ports::Files;

/// See the module.
pub struct S3MaliciousFile {
    settings: Settings,
}

/// The `[classifiers.s3_malicious_file]` section. What is inspected and with what is in `[inspection]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Report suspicious files too, as `medium`. Default true.
    pub suspicious_reported: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { suspicious_reported: true }
    }
}

impl Classifier for S3MaliciousFile {
    const META: Meta = Meta {
        id: "s3_malicious_file",
        title: "Malicious file was uploaded to S3",
        severity: Severity::Critical,
        techniques: &["T1204.002", "T1505.003"],
        patterns: &[Pattern::Intake { source: "pipeline.inspection", name: "S3 Object Inspected" }],
        failed_calls: FailedCalls::Ignored,
        responses: &[],
        references: &[
            "https://attack.mitre.org/techniques/T1204/002/",
            "https://attack.mitre.org/techniques/T1505/003/",
            "https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventNotifications.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        Ok(Self { settings })
    }

    fn classify(&self, event: &Event<'_>, _known: &Known) -> Result<Option<Evidence>, Malformed> {
        let detail = event.detail()?;
        let text = |pointer: &'static str| {
            detail.pointer(pointer).and_then(Value::as_str).ok_or_else(|| Malformed::missing(pointer))
        };
        let judgement = text("/report/judgement")?;
        let is_malicious = match judgement {
            "malicious" => true,
            "suspicious" if self.settings.suspicious_reported => false,
            _ => return Ok(None),
        };
        let mut evidence = Evidence::about(format!("arn:aws:s3:::{}/{}", text("/bucket")?, text("/key")?))
            .fact("judgement", judgement)
            .fact("reasons", reasons(&detail["report"]));
        if !is_malicious {
            evidence = evidence.titled("Suspicious file was uploaded to S3").severity(Severity::Medium);
        }
        for (fact, value) in [
            ("size", &detail["report"]["size"]),
            ("sha256", &detail["report"]["sha256"]),
            ("sniffed_type", &detail["report"]["sniffed_type"]),
            ("uploaded_by", &detail["requester"]),
        ] {
            if !value.is_null() && value != "" {
                evidence = evidence.fact(fact, value.clone());
            }
        }
        Ok(Some(evidence))
    }
}

/// `hash: 12ab… is known as Test.File`, one text each.
fn reasons(report: &Value) -> Vec<String> {
    let reasons = report["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    let reason = |reason: &Value| Some(format!("{}: {}", reason["check"].as_str()?, reason["what"].as_str()?));
    reasons.iter().filter_map(reason).collect()
}
