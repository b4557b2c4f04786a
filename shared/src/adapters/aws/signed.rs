//! Signed requests to AWS without a service's client of the SDK: over its HTTP client, credentials and signer. For
//! services of which a few calls are wanted, whose clients would be megabytes of code and minutes of a build.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_async::rt::sleep::default_async_sleep;
use aws_smithy_http_client::default_connector;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_types::SdkConfig;

/// One service in one region, asked with the credentials of all clients.
#[derive(Clone, Debug)]
pub struct Service {
    /// Made with the first request: loading root certificates is no part of a start.
    connector: Arc<OnceLock<SharedHttpConnector>>,
    credentials: SharedCredentialsProvider,
    region: String,
    name: &'static str,
    connect: Duration,
    read: Duration,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// `GET`, `PUT`, `POST`.
    pub method: &'static str,
    /// Where to, percent-encoded as it is sent.
    pub url: &'r str,
    /// Names in lower case. They are signed too.
    pub headers: &'r [(&'static str, String)],
    /// The body, which may be empty.
    pub body: &'r [u8],
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// Whether the same request may be answered later.
    pub is_retryable: bool,
    /// In words.
    pub why: String,
}

impl Unanswered {
    /// The same request may be answered later.
    pub fn later(why: impl std::fmt::Display) -> Self {
        Self { is_retryable: true, why: why.to_string() }
    }

    /// The same request will never be answered.
    pub fn never(why: impl std::fmt::Display) -> Self {
        Self { is_retryable: false, why: why.to_string() }
    }
}

impl Service {
    /// The service that signatures call `name`. A request waits for a connection and for an answer as long as said.
    ///
    /// # Errors
    /// When there is no region or there are no credentials.
    pub fn new(sdk: &SdkConfig, name: &'static str, connect: Duration, read: Duration) -> Result<Self, String> {
        let region = sdk.region().ok_or("there is no region: AWS_REGION is not set")?.to_string();
        let credentials = sdk.credentials_provider().ok_or("there are no credentials")?;
        Ok(Self { connector: Arc::default(), credentials, region, name, connect, read })
    }

    /// The region that is asked.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// What names of hosts end in.
    pub fn domain(&self) -> &'static str {
        if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
    }

    /// Sends a request once; the answer may be a refusal.
    ///
    /// # Errors
    /// When nothing was answered.
    pub async fn send(&self, request: &Request<'_>) -> Result<HttpResponse, Unanswered> {
        let signed = self.signed(request).await?;
        self.connector()?.call(signed).await.map_err(|error| {
            let why = format!("{error:?}");
            if error.is_user() { Unanswered::never(why) } else { Unanswered::later(why) }
        })
    }

    fn connector(&self) -> Result<&SharedHttpConnector, Unanswered> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let settings = HttpConnectorSettings::builder().connect_timeout(self.connect).read_timeout(self.read).build();
        let connector = default_connector(&settings, default_async_sleep());
        let connector = connector.ok_or_else(|| Unanswered::never("the SDK was built without an HTTP client"))?;
        Ok(self.connector.get_or_init(|| connector))
    }

    /// The request with its signature, version 4.
    async fn signed(&self, request: &Request<'_>) -> Result<HttpRequest, Unanswered> {
        let Request { method, url, headers, body } = *request;
        let credentials = self.credentials.provide_credentials().await.map_err(Unanswered::later)?;
        let identity = credentials.into();
        let mut settings = SigningSettings::default();
        if self.name == "s3" {
            // S3 wants the path encoded once and not normalised, and the hash of the body in a header.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.name)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(Unanswered::never)?
            .into();
        let to_sign = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let signable = SignableRequest::new(method, url, to_sign.clone(), SignableBody::Bytes(body));
        let signed = sign(signable.map_err(Unanswered::never)?, &parameters).map_err(Unanswered::never)?;
        let (instructions, _) = signed.into_parts();
        let mut ready = HttpRequest::new(SdkBody::from(body));
        ready.set_method(method).map_err(Unanswered::never)?;
        ready.set_uri(url).map_err(Unanswered::never)?;
        for (name, value) in to_sign.chain(instructions.headers()) {
            ready.headers_mut().try_insert(name.to_owned(), value.to_owned()).map_err(Unanswered::never)?;
        }
        Ok(ready)
    }
}

/// The body of an answer, or its first bytes: reading ends behind `bytes_max`.
///
/// # Errors
/// When the connection breaks before.
pub async fn body(answer: HttpResponse, bytes_max: usize) -> Result<Vec<u8>, Unanswered> {
    let mut stream = ByteStream::new(answer.into_body());
    let mut body = Vec::new();
    while body.len() <= bytes_max {
        let Some(chunk) = stream.try_next().await.map_err(Unanswered::later)? else { break };
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
