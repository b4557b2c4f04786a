//! What the services have in common: how they are reached, and how an answer is told from an error.

use serde::de::DeserializeOwned;
use shared::classifier::SettingsError;
use shared::ports::{Files, WebAnswer, WebRequest};

use crate::inspect::Judgement;

/// Longer answers are errors. Those of VirusTotal on files that many engines know have some hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// `timeout_s`: ten look-ups that do not answer, four at a time, must leave time for the batch they belong to.
const TIMEOUT_S_MAX: u32 = 10;
/// Keys are this long at most: our choice; VirusTotal's have 64 characters, Hybrid Analysis's up to 64.
const KEY_CHARS_MAX: usize = 512;

/// A service that knows files by their SHA-256.
pub(super) trait Service {
    /// Its name for people.
    fn title(&self) -> &'static str;
    /// The `check` of its reasons.
    fn check(&self) -> &'static str;
    /// The question about a file.
    fn request(&self, sha256: &str) -> WebRequest;
    /// What it says; `None` when it does not know the file.
    fn judge(&self, sha256: &str, answer: &WebAnswer) -> Result<Option<Opinion>, Fault>;
}

/// What a service thinks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opinion {
    pub(super) judgement: Judgement,
    /// In words, for people.
    pub(super) what: String,
}

/// Why there is no opinion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It did not answer, or with something that makes no sense.
    Failed(String),
    /// The quota is used up; what it says about when to come back.
    Quota { retry_after_s: Option<i64> },
    /// It does not take the key.
    KeyRefused { status: u16 },
}

/// Where a setting says that a key is.
#[derive(Clone, Copy, Debug)]
pub enum KeyFrom<'s> {
    /// In a file of this name.
    File(&'s str),
    /// In an environment variable of this name.
    Variable(&'s str),
}

/// Reads a key, or says why it cannot. What it reads is never shown.
pub type ReadKey<'r> = dyn Fn(KeyFrom<'_>) -> Result<String, String> + 'r;

/// Reads keys from these files and with `variable` from the environment.
pub fn keys<'f>(
    files: &'f dyn Files,
    variable: &'f dyn Fn(&str) -> Option<String>,
) -> impl Fn(KeyFrom<'_>) -> Result<String, String> + 'f {
    move |from| match from {
        KeyFrom::File(name) => files.read(name).map(|content| String::from_utf8(content).unwrap_or_default()),
        KeyFrom::Variable(name) => variable(name).ok_or_else(|| format!("the environment variable {name} is not set")),
    }
}

/// How a service is reached.
#[derive(Clone)]
pub(super) struct Access {
    base_url: String,
    /// Sent in a header, and otherwise nowhere to be seen.
    key: String,
    timeout_s: u32,
}

/// What the settings of a service say about that.
pub(super) struct AccessSettings<'s> {
    pub(super) key_file: Option<&'s str>,
    pub(super) key_env: Option<&'s str>,
    pub(super) base_url: &'s str,
    pub(super) timeout_s: u32,
}

impl AccessSettings<'_> {
    /// `None` without a key: the service is not asked.
    pub(super) fn read(&self, key: &ReadKey<'_>) -> Result<Option<Access>, SettingsError> {
        let base_url = self.base_url.trim_end_matches('/');
        if !is_safe(base_url) {
            return Err(SettingsError::new("base_url", "must be https://…, or http:// on 127.0.0.1 or [::1]"));
        }
        if !(1..=TIMEOUT_S_MAX).contains(&self.timeout_s) {
            return Err(SettingsError::new("timeout_s", format!("must be from 1 to {TIMEOUT_S_MAX}")));
        }
        let (setting, from) = match (self.key_file, self.key_env) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(SettingsError::new("key_env", "there is a key_file too: keep one")),
            (Some(name), None) => ("key_file", KeyFrom::File(name)),
            (None, Some(name)) => ("key_env", KeyFrom::Variable(name)),
        };
        let key = key(from).map_err(|why| SettingsError::new(setting, why))?;
        let key = key.trim();
        if key.is_empty() || key.len() > KEY_CHARS_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) {
            // Whatever is in there is not quoted: it may be another secret.
            return Err(SettingsError::new(setting, "holds no key: one word of visible ASCII characters"));
        }
        Ok(Some(Access { base_url: base_url.to_owned(), key: key.to_owned(), timeout_s: self.timeout_s }))
    }
}

/// Encrypted, or not leaving this machine.
fn is_safe(url: &str) -> bool {
    let (Some(rest), is_here_only) = (match url.strip_prefix("https://") {
        Some(rest) => (Some(rest), false),
        None => (url.strip_prefix("http://"), true),
    }) else {
        return false;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    let is_plain = url.bytes().all(|b| b.is_ascii_graphic() && !b"?#@\\\"".contains(&b));
    is_plain && !host.is_empty() && (!is_here_only || host == "127.0.0.1" || host == "[::1]")
}

impl Access {
    /// The question for what is at `path`; the key goes into the header `key_header`.
    pub(super) fn get(&self, path: &str, key_header: &'static str) -> WebRequest {
        WebRequest {
            url: format!("{}{path}", self.base_url),
            headers: vec![("accept", "application/json".to_owned()), (key_header, self.key.clone())],
            timeout_s: self.timeout_s,
            answer_bytes_max: ANSWER_BYTES_MAX,
        }
    }
}

/// The body of an answer, by its status: `None` for "there is no such file", which only JSON says; a page that is not
/// there says it in HTML.
pub(super) fn known<Known: DeserializeOwned, Unknown: DeserializeOwned>(
    answer: &WebAnswer,
) -> Result<Option<Known>, Fault> {
    let odd = |what: String| Fault::Failed(format!("the answer makes no sense: {what}"));
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map(Some).map_err(|error| odd(error.to_string())),
        404 => match serde_json::from_slice::<Unknown>(&answer.body) {
            Ok(_) => Ok(None),
            Err(_) => Err(odd("404, and not from the service".to_owned())),
        },
        status @ (401 | 403) => Err(Fault::KeyRefused { status }),
        429 => Err(Fault::Quota { retry_after_s: answer.retry_after.as_deref().and_then(|s| s.trim().parse().ok()) }),
        status => Err(Fault::Failed(format!("it answered with status {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::adapters::memory::NoFiles;

    fn read(base_url: &str, timeout_s: u32, variable: Option<&str>) -> Result<Option<Access>, String> {
        let settings = AccessSettings { key_file: None, key_env: Some("KEY"), base_url, timeout_s };
        settings.read(&keys(&NoFiles, &|_| variable.map(str::to_owned))).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_travel_encrypted_or_not_at_all() {
        for good in [
            "https://www.virustotal.com",
            "https://proxy.example.com:8443/vt/",
            "http://127.0.0.1:8080",
            "http://[::1]:8080/x",
            "http://127.0.0.1",
        ] {
            assert!(read(good, 3, Some("k")).is_ok(), "{good}");
        }
        for bad in [
            "",
            "www.virustotal.com",
            "http://www.virustotal.com",
            "http://127.0.0.1.example.com",
            "http://127.0.0.1@example.com",
            "http://127.0.0.1:80@example.com/",
            "https://",
            "https://user:word@example.com",
            "https://example.com/?x=",
            "https://example.com/#",
            "https://exa mple.com",
            "ftp://127.0.0.1",
            "http://localhost:8080",
        ] {
            assert!(read(bad, 3, Some("k")).is_err_and(|why| why.starts_with("base_url: must be https")), "{bad}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused_and_never_quoted() {
        let url = "https://example.com";
        for bad in ["", " \n", "two words", "secr\u{e9}t", &"x".repeat(513)] {
            let why = read(url, 3, Some(bad)).err().expect("refused");
            assert_eq!(why, "key_env: holds no key: one word of visible ASCII characters");
        }
        assert_eq!(read(url, 3, None).err().expect("refused"), "key_env: the environment variable KEY is not set");
        assert_eq!(read(url, 11, Some("k")).err().expect("refused"), "timeout_s: must be from 1 to 10");
        assert_eq!(read(url, 3, Some(" key\n")).expect("read").expect("a key").key, "key");
        let both = AccessSettings { key_file: Some("k"), key_env: Some("K"), base_url: url, timeout_s: 3 };
        assert!(both.read(&|_| Ok("key".to_owned())).is_err());
        let missing = AccessSettings { key_file: Some("gone"), key_env: None, base_url: url, timeout_s: 3 };
        let error = missing.read(&keys(&NoFiles, &|_| None)).err().expect("refused");
        assert!(error.key == "key_file" && error.why.contains("gone"), "{error}");
        let none = AccessSettings { key_file: None, key_env: None, base_url: url, timeout_s: 3 };
        assert!(none.read(&|_| Err("not read".to_owned())).expect("fine").is_none());
    }
}
