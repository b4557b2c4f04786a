//! One question to CloudWatch, without its client of the SDK: that would bring a reader of CBOR, two crates of big numbers and the
//! old generation of HTTP types along. Signed and sent by what the other clients are made of, as `shared` asks S3.

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_async::rt::sleep::default_async_sleep;
use aws_smithy_http_client::default_connector;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_types::service_config::ServiceConfigKey;
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::session::Session;

/// The call, which is also the permission it needs.
const CALL: &str = "cloudwatch:DescribeAlarms";
/// The service's name in signatures and host names.
const SERVICE: &str = "monitoring";
/// What the call is named in AWS JSON, the service's shape and the operation.
const TARGET: &str = "GraniteServiceVersion20100801.DescribeAlarms";
/// The longest that the answer may take.
const ANSWER: Duration = Duration::from_secs(15);

/// What is asked of an alarm.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Alarm {
    /// Its name.
    pub alarm_name: String,
    /// What it says to people.
    pub alarm_description: String,
    /// `OK`, `ALARM` or `INSUFFICIENT_DATA`.
    pub state_value: String,
    /// Whether it tells anybody.
    pub actions_enabled: bool,
}

impl Default for Alarm {
    fn default() -> Self {
        let (alarm_name, alarm_description, state_value) = Default::default();
        Self { alarm_name, alarm_description, state_value, actions_enabled: true }
    }
}

/// The metric alarms whose names begin so.
///
/// # Errors
/// When CloudWatch cannot be asked.
pub async fn alarms(session: &Session, prefix: &str) -> Result<Vec<Alarm>, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        #[serde(default)]
        metric_alarms: Vec<Alarm>,
        next_token: Option<String>,
    }
    let mut input = json!({"AlarmNamePrefix": prefix});
    let mut all = Vec::new();
    loop {
        let page: Page = serde_json::from_slice(&call(session, &input).await?).map_err(other)?;
        all.extend(page.metric_alarms);
        match page.next_token {
            Some(token) => input["NextToken"] = token.into(),
            None => return Ok(all),
        }
    }
}

async fn call(session: &Session, input: &Value) -> Result<Vec<u8>, Refusal> {
    let settings = HttpConnectorSettings::builder().connect_timeout(ANSWER).read_timeout(ANSWER).build();
    let connector = default_connector(&settings, default_async_sleep()).ok_or_else(|| other("no HTTP client"))?;
    let request = signed(session, &input.to_string()).await?;
    let answer: HttpResponse = connector.call(request).await.map_err(|e| other(format!("{e:?}")))?;
    let status = answer.status().as_u16();
    let body = ByteStream::new(answer.into_body()).collect().await.map_err(other)?.to_vec();
    if status == 200 {
        return Ok(body);
    }
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    // The code may have a namespace in front.
    let code = said["__type"].as_str().unwrap_or_default().rsplit('#').next().unwrap_or_default();
    let message = said["message"].as_str().or_else(|| said["Message"].as_str());
    Err(Refusal::said(CALL, code, status, message))
}

async fn signed(session: &Session, body: &str) -> Result<HttpRequest, Refusal> {
    let provider = session.config().credentials_provider().ok_or_else(|| other("there are no credentials"))?;
    let identity = provider.provide_credentials().await.map_err(other)?.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&session.region)
        .name(SERVICE)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(other)?
        .into();
    let url = endpoint(session);
    let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", TARGET)];
    let signable = SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(body.as_bytes()));
    let (instructions, _) = sign(signable.map_err(other)?, &parameters).map_err(other)?.into_parts();
    let mut request = HttpRequest::new(SdkBody::from(body));
    request.set_method("POST").map_err(other)?;
    request.set_uri(url).map_err(other)?;
    for (name, value) in headers.into_iter().chain(instructions.headers()) {
        request.headers_mut().try_insert(name.to_owned(), value.to_owned()).map_err(other)?;
    }
    Ok(request)
}

/// As the SDK's clients find theirs: `AWS_ENDPOINT_URL_CLOUDWATCH`, `AWS_ENDPOINT_URL`, the same in profiles, the region's.
fn endpoint(session: &Session) -> String {
    let key =
        ServiceConfigKey::builder().service_id("CloudWatch").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let config = session.config();
    let own = key.ok().and_then(|key| config.service_config()?.load_config(key));
    let given = own.or_else(|| config.endpoint_url().map(str::to_owned));
    given.map_or_else(
        || {
            let suffix = if session.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://{SERVICE}.{}.{suffix}/", session.region)
        },
        |given| format!("{}/", given.trim_end_matches('/')),
    )
}

fn other(why: impl std::fmt::Display) -> Refusal {
    Refusal::said(CALL, "", 0, Some(&why.to_string()))
}
