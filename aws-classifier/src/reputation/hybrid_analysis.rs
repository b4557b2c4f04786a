//! Hybrid Analysis (Falcon Sandbox), API v2: `GET /api/v2/overview/{sha256}`
//! (<https://www.hybrid-analysis.com/docs/api/v2>).
//!
//! The quota of a free key is 200 questions a minute and 2,000 an hour.

use serde::{Deserialize, Serialize};
use shared::classifier::SettingsError;
use shared::ports::{WebAnswer, WebRequest};
use shared::text::one_line;

use super::service::{Access, AccessSettings, Fault, Opinion, ReadKey, Service, known};
use crate::inspect::Judgement;

/// The `[inspection.hybrid_analysis]` section. It is asked when there is a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The file that holds the key.
    pub key_file: Option<String>,
    /// Or the environment variable that does.
    pub key_env: Option<String>,
    /// Where it is; another one for a proxy or a sandbox of one's own.
    pub base_url: String,
    /// How long an answer is waited for. Default 3 s: they come within one, and a batch of a function has 50.
    pub timeout_s: u32,
    /// Threat score from which a file is malicious, whatever the verdict says; of 100. Default 85: our choice.
    pub score_malicious_min: u32,
    /// Threat score from which it is suspicious. Default 50: our choice.
    pub score_suspicious_min: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            key_file: None,
            key_env: None,
            base_url: "https://www.hybrid-analysis.com".to_owned(),
            timeout_s: 3,
            score_malicious_min: 85,
            score_suspicious_min: 50,
        }
    }
}

/// Hybrid Analysis, with a key.
pub(super) struct HybridAnalysis {
    access: Access,
    malicious_min: u32,
    suspicious_min: u32,
}

impl HybridAnalysis {
    /// `None` without a key.
    pub(super) fn new(settings: &Settings, key: &ReadKey<'_>) -> Result<Option<Self>, SettingsError> {
        let (malicious_min, suspicious_min) = (settings.score_malicious_min, settings.score_suspicious_min);
        if suspicious_min == 0 || suspicious_min > malicious_min {
            return Err(SettingsError::new("score_suspicious_min", "must be from 1 to score_malicious_min"));
        }
        let access = AccessSettings {
            key_file: settings.key_file.as_deref(),
            key_env: settings.key_env.as_deref(),
            base_url: &settings.base_url,
            timeout_s: settings.timeout_s,
        };
        Ok(access.read(key)?.map(|access| Self { access, malicious_min, suspicious_min }))
    }
}

/// What is read of an overview.
#[derive(Deserialize)]
struct Known {
    sha256: String,
    verdict: Option<Verdict>,
    threat_score: Option<u32>,
    #[serde(default)]
    vx_family: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
enum Verdict {
    #[serde(rename = "whitelisted")]
    Whitelisted,
    #[serde(rename = "no verdict")]
    Undecided,
    #[serde(rename = "no specific threat")]
    NoSpecificThreat,
    #[serde(rename = "suspicious")]
    Suspicious,
    #[serde(rename = "malicious")]
    Malicious,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Whitelisted => "whitelisted",
            Self::Undecided => "no verdict",
            Self::NoSpecificThreat => "no specific threat",
            Self::Suspicious => "suspicious",
            Self::Malicious => "malicious",
        }
    }
}

/// `{"message":"…","validation_errors":[]}`.
#[derive(Deserialize)]
struct Unknown {
    #[serde(rename = "message")]
    _message: String,
}

impl Service for HybridAnalysis {
    fn title(&self) -> &'static str {
        "Hybrid Analysis"
    }

    fn check(&self) -> &'static str {
        "hybrid_analysis"
    }

    fn request(&self, sha256: &str) -> WebRequest {
        let mut request = self.access.get(&format!("/api/v2/overview/{sha256}"), "api-key");
        // It refuses programs that call themselves anything else.
        request.headers.push(("user-agent", "Falcon Sandbox".to_owned()));
        request
    }

    fn judge(&self, sha256: &str, answer: &WebAnswer) -> Result<Option<Opinion>, Fault> {
        let Some(found) = known::<Known, Unknown>(answer)? else { return Ok(None) };
        if !found.sha256.eq_ignore_ascii_case(sha256) {
            return Err(Fault::Failed("it answered about another file".to_owned()));
        }
        let (verdict, score) = (found.verdict.unwrap_or(Verdict::Undecided), found.threat_score.unwrap_or(0));
        let judgement = match verdict {
            Verdict::Whitelisted => Judgement::Clean,
            Verdict::Malicious => Judgement::Malicious,
            _ if score >= self.malicious_min => Judgement::Malicious,
            Verdict::Suspicious => Judgement::Suspicious,
            _ if score >= self.suspicious_min => Judgement::Suspicious,
            Verdict::Undecided | Verdict::NoSpecificThreat => Judgement::Clean,
        };
        let mut what = format!("verdict \"{}\"", verdict.as_str());
        if let Some(score) = found.threat_score {
            what.push_str(&format!(", threat score {score}"));
        }
        if let Some(family) = found.vx_family.filter(|family| !family.is_empty()) {
            what.push_str(&format!(" ({})", one_line(&family, 64)));
        }
        Ok(Some(Opinion { judgement, what }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SHA256: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";

    fn service() -> HybridAnalysis {
        let settings = Settings { key_env: Some("KEY".to_owned()), ..Settings::default() };
        let built = HybridAnalysis::new(&settings, &|_| Ok("secret".to_owned()));
        built.expect("settings").expect("a key")
    }

    fn judged(status: u16, body: &str) -> Result<Option<Opinion>, Fault> {
        service().judge(SHA256, &WebAnswer { status, retry_after: None, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn the_question_is_the_documented_one() {
        let request = service().request(SHA256);
        assert_eq!(request.url, format!("https://www.hybrid-analysis.com/api/v2/overview/{SHA256}"));
        for header in [("api-key", "secret"), ("user-agent", "Falcon Sandbox")] {
            assert!(request.headers.contains(&(header.0, header.1.to_owned())), "{header:?}");
        }
    }

    #[test]
    fn verdict_and_score_are_judged() {
        for (verdict, score, expected) in [
            (json!("malicious"), json!(100), Judgement::Malicious),
            (json!("malicious"), json!(null), Judgement::Malicious),
            (json!("suspicious"), json!(84), Judgement::Suspicious),
            (json!("suspicious"), json!(85), Judgement::Malicious),
            (json!("suspicious"), json!(null), Judgement::Suspicious),
            (json!("no specific threat"), json!(49), Judgement::Clean),
            (json!("no specific threat"), json!(50), Judgement::Suspicious),
            (json!("no verdict"), json!(null), Judgement::Clean),
            (json!(null), json!(null), Judgement::Clean),
            (json!(null), json!(90), Judgement::Malicious),
            (json!("whitelisted"), json!(100), Judgement::Clean),
        ] {
            let body = json!({"sha256": SHA256.to_uppercase(), "verdict": verdict, "threat_score": score,
                              "last_file_name": "a.exe", "reports": ["1"], "vx_family": "Trojan.A"});
            let opinion = judged(200, &body.to_string()).expect("sense").expect("known");
            assert_eq!(opinion.judgement, expected, "{verdict} {score}");
            assert!(opinion.what.starts_with("verdict \"") && opinion.what.ends_with("(Trojan.A)"), "{}", opinion.what);
        }
    }

    #[test]
    fn a_file_it_does_not_know_is_unknown_and_nothing_else_is() {
        assert_eq!(judged(404, r#"{"message":"Sample was not found.","validation_errors":[]}"#), Ok(None));
        let other = json!({"sha256": "0".repeat(64), "verdict": "malicious", "threat_score": 100}).to_string();
        let strange = json!({"sha256": SHA256, "verdict": "terrible", "threat_score": 1}).to_string();
        let negative = json!({"sha256": SHA256, "verdict": "malicious", "threat_score": -1}).to_string();
        for (status, body) in
            [(404, "<html>"), (200, "[]"), (200, &*other), (200, &*strange), (200, &*negative), (410, "{}")]
        {
            assert!(matches!(judged(status, body), Err(Fault::Failed(_))), "{status} {body}");
        }
        assert_eq!(judged(403, "{}"), Err(Fault::KeyRefused { status: 403 }));
    }
}
