//! VirusTotal, API v3: `GET /api/v3/files/{sha256}` (<https://docs.virustotal.com/reference/file-info>).
//!
//! The public quota is 4 questions a minute and 500 a day (<https://docs.virustotal.com/reference/public-vs-premium-api>).

use serde::{Deserialize, Serialize};
use shared::classifier::SettingsError;
use shared::ports::{WebAnswer, WebRequest};
use shared::text::one_line;

use super::service::{Access, AccessSettings, Fault, Opinion, ReadKey, Service, known};
use crate::inspect::Judgement;

/// The `[inspection.virustotal]` section. It is asked when there is a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The file that holds the key.
    pub key_file: Option<String>,
    /// Or the environment variable that does.
    pub key_env: Option<String>,
    /// Where it is; another one for a proxy.
    pub base_url: String,
    /// How long an answer is waited for. Default 3 s: they come within one, and a batch of a function has 50.
    pub timeout_s: u32,
    /// So many of its engines make a file malicious. Default 5: our choice, as one or two are often wrong together.
    pub engines_malicious_min: u32,
    /// So many make it suspicious, those counted that only suspect it. Default 1.
    pub engines_suspicious_min: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            key_file: None,
            key_env: None,
            base_url: "https://www.virustotal.com".to_owned(),
            timeout_s: 3,
            engines_malicious_min: 5,
            engines_suspicious_min: 1,
        }
    }
}

/// VirusTotal, with a key.
pub(super) struct VirusTotal {
    access: Access,
    malicious_min: u64,
    suspicious_min: u64,
}

impl VirusTotal {
    /// `None` without a key.
    pub(super) fn new(settings: &Settings, key: &ReadKey<'_>) -> Result<Option<Self>, SettingsError> {
        let (malicious_min, suspicious_min) = (settings.engines_malicious_min, settings.engines_suspicious_min);
        if suspicious_min == 0 || suspicious_min > malicious_min {
            let why = "must be from 1 to engines_malicious_min";
            return Err(SettingsError::new("engines_suspicious_min", why));
        }
        let access = AccessSettings {
            key_file: settings.key_file.as_deref(),
            key_env: settings.key_env.as_deref(),
            base_url: &settings.base_url,
            timeout_s: settings.timeout_s,
        };
        let found = access.read(key)?;
        Ok(found.map(|access| Self {
            access,
            malicious_min: malicious_min.into(),
            suspicious_min: suspicious_min.into(),
        }))
    }
}

/// What is read of a file object (<https://docs.virustotal.com/reference/files>).
#[derive(Deserialize)]
struct Known {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    /// The SHA-256.
    id: String,
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    last_analysis_stats: Stats,
    #[serde(default)]
    popular_threat_classification: Option<Classification>,
}

/// Engines by what they say; those that could not say anything are not counted.
#[derive(Deserialize)]
struct Stats {
    malicious: u32,
    suspicious: u32,
    #[serde(default)]
    undetected: u32,
    #[serde(default)]
    harmless: u32,
}

#[derive(Deserialize)]
struct Classification {
    #[serde(default)]
    suggested_threat_label: Option<String>,
}

/// `{"error":{"code":"NotFoundError","message":…}}`.
#[derive(Deserialize)]
struct Unknown {
    #[serde(rename = "error")]
    _error: NotFound,
}

#[derive(Deserialize)]
struct NotFound {
    #[serde(rename = "code")]
    _code: NotFoundCode,
}

#[derive(Deserialize)]
enum NotFoundCode {
    NotFoundError,
}

impl Service for VirusTotal {
    fn title(&self) -> &'static str {
        "VirusTotal"
    }

    fn check(&self) -> &'static str {
        "virustotal"
    }

    fn request(&self, sha256: &str) -> WebRequest {
        self.access.get(&format!("/api/v3/files/{sha256}"), "x-apikey")
    }

    fn judge(&self, sha256: &str, answer: &WebAnswer) -> Result<Option<Opinion>, Fault> {
        let Some(Known { data }) = known::<Known, Unknown>(answer)? else { return Ok(None) };
        if !data.id.eq_ignore_ascii_case(sha256) {
            return Err(Fault::Failed("it answered about another file".to_owned()));
        }
        let Stats { malicious, suspicious, undetected, harmless } = data.attributes.last_analysis_stats;
        let [malicious, suspicious, undetected, harmless] =
            [malicious, suspicious, undetected, harmless].map(u64::from);
        let judgement = if malicious >= self.malicious_min {
            Judgement::Malicious
        } else if malicious + suspicious >= self.suspicious_min {
            Judgement::Suspicious
        } else {
            Judgement::Clean
        };
        let engines = malicious + suspicious + undetected + harmless;
        let mut what = format!("{malicious} of {engines} engines call it malicious, {suspicious} suspicious");
        let label = data.attributes.popular_threat_classification.and_then(|c| c.suggested_threat_label);
        if let Some(label) = label.filter(|label| !label.is_empty()) {
            what.push_str(&format!(" ({})", one_line(&label, 64)));
        }
        Ok(Some(Opinion { judgement, what }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SHA256: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";

    fn service(settings: &Settings) -> VirusTotal {
        let settings = Settings { key_env: Some("KEY".to_owned()), ..settings.clone() };
        let built = VirusTotal::new(&settings, &|_| Ok("secret".to_owned()));
        built.expect("settings").expect("a key")
    }

    /// An answer in the shape of the API reference, with much left out.
    pub(crate) fn file_object(sha256: &str, malicious: u32, suspicious: u32) -> Value {
        json!({"data": {"id": sha256, "type": "file", "links": {"self": "https://www.virustotal.com/api/v3/files/x"},
            "attributes": {
                "sha256": sha256, "size": 68, "reputation": 3, "names": ["eicar.com"], "type_tag": "powershell",
                "last_analysis_stats": {"malicious": malicious, "suspicious": suspicious, "undetected": 8, "harmless": 0,
                                        "timeout": 1, "confirmed-timeout": 0, "failure": 0, "type-unsupported": 4},
                "last_analysis_results": {"Bkav": {"category": "undetected", "result": null}},
                "popular_threat_classification": {"suggested_threat_label": "virus.eicar/test"}}}})
    }

    fn judged(status: u16, body: &str) -> Result<Option<Opinion>, Fault> {
        let answer = WebAnswer { status, retry_after: None, body: body.as_bytes().to_vec() };
        service(&Settings::default()).judge(SHA256, &answer)
    }

    #[test]
    fn the_question_is_the_documented_one() {
        let request = service(&Settings::default()).request(SHA256);
        assert_eq!(request.url, format!("https://www.virustotal.com/api/v3/files/{SHA256}"));
        assert!(request.headers.contains(&("x-apikey", "secret".to_owned())));
    }

    #[test]
    fn engines_are_counted() {
        for (malicious, suspicious, expected) in [
            (0, 0, Judgement::Clean),
            (1, 0, Judgement::Suspicious),
            (0, 1, Judgement::Suspicious),
            (4, 9, Judgement::Suspicious),
            (5, 0, Judgement::Malicious),
            (u32::MAX, u32::MAX, Judgement::Malicious),
        ] {
            let opinion = judged(200, &file_object(SHA256, malicious, suspicious).to_string());
            assert_eq!(opinion.expect("sense").expect("known").judgement, expected, "{malicious} {suspicious}");
        }
        let opinion = judged(200, &file_object(SHA256, 62, 1).to_string()).expect("sense").expect("known");
        assert_eq!(opinion.what, "62 of 71 engines call it malicious, 1 suspicious (virus.eicar/test)");
    }

    #[test]
    fn a_file_it_does_not_know_is_unknown_and_nothing_else_is() {
        let unknown = r#"{"error":{"code":"NotFoundError","message":"File \"x\" not found"}}"#;
        assert_eq!(judged(404, unknown), Ok(None));
        for (status, body, why) in [
            (404, "<html>", "404, and not from the service"),
            (404, r#"{"error":{"code":"ForbiddenError"}}"#, "404, and not from the service"),
            (200, "<html>", "expected value"),
            (200, "", "EOF"),
            (200, "{}", "missing field `data`"),
            (200, r#"{"data":{"id":"x","attributes":{}}}"#, "missing field `last_analysis_stats`"),
            (
                200,
                &file_object(SHA256, 1, 0).to_string().replace("\"malicious\":1", "\"malicious\":-1"),
                "invalid value",
            ),
            (200, &file_object(&"0".repeat(64), 62, 0).to_string(), "another file"),
            (200, &format!("{{\"x\":{}", "[".repeat(100_000)), "EOF"),
            (302, "", "status 302"),
            (500, "", "status 500"),
        ] {
            let Err(Fault::Failed(said)) = judged(status, body) else { panic!("{status} {body}") };
            assert!(said.contains(why), "{said}");
        }
        assert_eq!(judged(401, ""), Err(Fault::KeyRefused { status: 401 }));
        assert_eq!(judged(429, ""), Err(Fault::Quota { retry_after_s: None }));
        let answer = WebAnswer { status: 429, retry_after: Some("17".to_owned()), body: Vec::new() };
        let said = service(&Settings::default()).judge(SHA256, &answer);
        assert_eq!(said, Err(Fault::Quota { retry_after_s: Some(17) }));
    }

    #[test]
    fn a_label_is_shown_as_text() {
        let mut object = file_object(SHA256, 62, 0);
        object["data"]["attributes"]["popular_threat_classification"]["suggested_threat_label"] =
            format!("a\u{1b}[2J\u{202e}{}", "b".repeat(100)).into();
        let what = judged(200, &object.to_string()).expect("sense").expect("known").what;
        assert!(what.contains("(a·[2J·bb") && what.ends_with("…)"), "{what}");
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        for (malicious, suspicious) in [(5, 0), (5, 6), (0, 0)] {
            let settings = Settings {
                engines_malicious_min: malicious,
                engines_suspicious_min: suspicious,
                ..Settings::default()
            };
            assert!(VirusTotal::new(&settings, &|_| Ok("secret".to_owned())).is_err());
        }
    }
}
