//! Calls in AWS JSON, the protocol of CloudWatch and CloudWatch Logs: `POST /` with the operation in a header.

use std::time::Duration;

use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use serde_json::Value;

use super::is_retryable_code;
use super::signed::{self, Request, Service, Unanswered};

/// What a service is called in different places.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// In signatures and host names, such as `logs`.
    pub host: &'static str,
    /// In the names of variables, such as `CloudWatch Logs` in `AWS_ENDPOINT_URL_CLOUDWATCH_LOGS`.
    pub id: &'static str,
    /// In front of operations, such as `Logs_20140328`.
    pub target: &'static str,
    /// `application/x-amz-json-1.0` or `-1.1`.
    pub content_type: &'static str,
}

/// A service that speaks AWS JSON.
#[derive(Clone, Debug)]
pub struct JsonService {
    service: Service,
    names: Names,
    url: String,
}

/// Why a call gave no answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whether the same call may work later.
    pub is_retryable: bool,
    /// The HTTP status; 0 when nothing was answered.
    pub status: u16,
    /// What the service calls it, without the namespace; empty when it did not answer.
    pub code: String,
    /// What it or the connection said.
    pub message: Option<String>,
}

impl From<Unanswered> for Refused {
    fn from(Unanswered { is_retryable, why }: Unanswered) -> Self {
        Self { is_retryable, status: 0, code: String::new(), message: Some(why) }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, code, message, .. } = self;
        let message = message.as_deref().unwrap_or("no message");
        if *status == 0 { f.write_str(message) } else { write!(f, "{status} {code}: {message}") }
    }
}

impl JsonService {
    /// From the configuration of all clients, and where it says that this service is: `AWS_ENDPOINT_URL_…`,
    /// `AWS_ENDPOINT_URL`, the same in profiles, else the region's.
    ///
    /// # Errors
    /// When there is no region or there are no credentials.
    pub fn new(sdk: &SdkConfig, names: Names, connect: Duration, read: Duration) -> Result<Self, String> {
        let service = Service::new(sdk, names.host, connect, read)?;
        let key = ServiceConfigKey::builder().service_id(names.id).env("AWS_ENDPOINT_URL").profile("endpoint_url");
        let own = key.build().ok().and_then(|key| sdk.service_config()?.load_config(key));
        let given = own.or_else(|| sdk.endpoint_url().map(str::to_owned));
        let url = given.map_or_else(
            || format!("https://{}.{}.{}/", names.host, service.region(), service.domain()),
            |given| format!("{}/", given.trim_end_matches('/')),
        );
        Ok(Self { service, names, url })
    }

    /// Calls once; the answer has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// When the service says no, or nothing, or too much.
    pub async fn call(&self, operation: &str, input: &Value, bytes_max: usize) -> Result<Vec<u8>, Refused> {
        let headers = [
            ("content-type", self.names.content_type.to_owned()),
            ("x-amz-target", format!("{}.{operation}", self.names.target)),
        ];
        let input = input.to_string();
        let request = Request { method: "POST", url: &self.url, headers: &headers, body: input.as_bytes() };
        let answer = self.service.send(&request).await?;
        let status = answer.status().as_u16();
        let body = signed::body(answer, bytes_max).await?;
        if body.len() > bytes_max {
            return Err(Unanswered::never(format!("an answer of more than {bytes_max} bytes")).into());
        }
        if status == 200 {
            return Ok(body);
        }
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        // The code may have a namespace in front.
        let code = said["__type"].as_str().unwrap_or_default().rsplit('#').next().unwrap_or_default().to_owned();
        let message = said["message"].as_str().or_else(|| said["Message"].as_str()).map(str::to_owned);
        let is_retryable = status >= 500 || status == 429 || is_retryable_code(&code);
        Err(Refused { is_retryable, status, code, message })
    }
}
