//! Objects in S3: log files are read, archives written.
//!
//! `GetObject` and `PutObject` over the SDK's own HTTP client, credentials and signer, without the SDK's S3 client: of that a
//! function would carry 2 MB more, mostly checksums and operations nobody calls here, and every build of the gate two
//! minutes.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

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
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{is_retryable_code, sdk};
use crate::ports::{Archive, ObjectBody, ObjectRef, Objects, Opening, PortError, PortResult, check_archive_name};

/// S3 answers it with a status alone, without a code.
const NOT_MODIFIED: &str = "NotModified";

/// Bytes of an error answer that are looked at for its code.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// Requests to the buckets of one region.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Made with the first request: loading root certificates is no part of a start.
    connector: Arc<OnceLock<SharedHttpConnector>>,
    credentials: SharedCredentialsProvider,
    region: String,
    /// In place of S3's own, such as an emulator's.
    endpoint: Option<String>,
}

/// What a request brings with it.
struct Request<'r> {
    method: &'static str,
    object: ObjectRef<'r>,
    body: &'r [u8],
}

/// Why one try failed.
struct Fault {
    retryable: bool,
    /// What S3 calls it; empty when it did not answer.
    code: String,
    why: String,
}

impl Fault {
    fn later(why: impl std::fmt::Display) -> Self {
        Self { retryable: true, code: String::new(), why: why.to_string() }
    }

    fn never(why: impl std::fmt::Display) -> Self {
        Self { retryable: false, code: String::new(), why: why.to_string() }
    }

    /// What S3 says of an object that is not there as it was asked for; `None` for everything else.
    fn absence<B>(&self) -> Option<Opening<B>> {
        match &*self.code {
            // The last: the version is a mark that the object was deleted.
            "NoSuchKey" | "NoSuchVersion" | "MethodNotAllowed" => Some(Opening::Gone),
            "PreconditionFailed" => Some(Opening::Replaced),
            NOT_MODIFIED => Some(Opening::Unchanged),
            _ => None,
        }
    }
}

impl S3 {
    /// From the configuration of all clients, and `AWS_ENDPOINT_URL_S3`.
    ///
    /// # Errors
    /// When there is no region or there are no credentials.
    pub fn new(sdk: &SdkConfig) -> Result<Self, String> {
        let region = sdk.region().ok_or("there is no region: AWS_REGION is not set")?.to_string();
        let credentials = sdk.credentials_provider().ok_or("there are no credentials")?;
        let own = super::lambda::optional("AWS_ENDPOINT_URL_S3");
        let endpoint = own.or_else(|| sdk.endpoint_url().map(str::to_owned));
        Ok(Self { connector: Arc::default(), credentials, region, endpoint })
    }

    /// Sends a request; tries again what may work later.
    async fn send(&self, request: &Request<'_>) -> Result<HttpResponse, Fault> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = tokio::time::timeout(sdk::ATTEMPT, Box::pin(self.send_once(request)));
            match answer.await.unwrap_or_else(|_| Err(Fault::later("no answer in time"))) {
                Err(fault) if fault.retryable && tries < sdk::ATTEMPTS => sdk::pause(tries).await,
                result => return result,
            }
        }
    }

    async fn send_once(&self, request: &Request<'_>) -> Result<HttpResponse, Fault> {
        let signed = self.signed(request).await?;
        let answer = self.connector()?.call(signed).await.map_err(|error| {
            let why = format!("{error:?}");
            if error.is_user() { Fault::never(why) } else { Fault::later(why) }
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        if status == 304 {
            return Err(Fault { retryable: false, code: NOT_MODIFIED.to_owned(), why: status.to_string() });
        }
        let text = beginning(answer.into_body()).await;
        let code = between(&text, "<Code>", "</Code>").unwrap_or("no code");
        let message = between(&text, "<Message>", "</Message>").unwrap_or("no message");
        let retryable = status >= 500 || status == 429 || is_retryable_code(code);
        Err(Fault { retryable, code: code.to_owned(), why: format!("{status} {code}: {message}") })
    }

    fn connector(&self) -> Result<&SharedHttpConnector, Fault> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let settings =
            HttpConnectorSettings::builder().connect_timeout(sdk::CONNECT).read_timeout(sdk::ATTEMPT).build();
        let connector = default_connector(&settings, default_async_sleep());
        let connector = connector.ok_or_else(|| Fault::never("the SDK was built without an HTTP client"))?;
        Ok(self.connector.get_or_init(|| connector))
    }

    /// The request with its signature, version 4 as S3 wants it: the path encoded once and not normalised.
    async fn signed(&self, request: &Request<'_>) -> Result<HttpRequest, Fault> {
        let credentials = self.credentials.provide_credentials().await.map_err(Fault::later)?;
        let identity = credentials.into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(Fault::never)?
            .into();
        let url = self.url(&request.object);
        let mut headers: Vec<(&str, String)> = Vec::new();
        if request.method == "PUT" {
            // A bucket with Object Lock takes nothing without a checksum.
            headers.push(("x-amz-checksum-sha256", STANDARD.encode(Sha256::digest(request.body))));
        }
        let ObjectRef { etag, unless_etag, .. } = request.object;
        let quoted = |etag: &str| format!("\"{}\"", etag.trim_matches('"'));
        headers.extend(etag.map(|etag| ("if-match", quoted(etag))));
        headers.extend(unless_etag.map(|etag| ("if-none-match", quoted(etag))));
        let body = SignableBody::Bytes(request.body);
        let to_sign = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let signable = SignableRequest::new(request.method, &url, to_sign.clone(), body);
        let signed = sign(signable.map_err(Fault::never)?, &parameters).map_err(Fault::never)?;
        let (instructions, _) = signed.into_parts();
        let mut ready = HttpRequest::new(SdkBody::from(request.body));
        ready.set_method(request.method).map_err(Fault::never)?;
        ready.set_uri(url.as_str()).map_err(Fault::never)?;
        for (name, value) in to_sign.chain(instructions.headers()) {
            ready.headers_mut().try_insert(name.to_owned(), value.to_owned()).map_err(Fault::never)?;
        }
        Ok(ready)
    }

    /// Where the object is. The bucket is part of the host name, except where no certificate or no name would fit: names
    /// with dots, and other endpoints.
    fn url(&self, object: &ObjectRef<'_>) -> String {
        let place = self.place(object.bucket, object.key);
        match object.version_id {
            Some(version) => format!("{place}?versionId={}", encoded(version).replace('/', "%2F")),
            None => place,
        }
    }

    fn place(&self, bucket: &str, key: &str) -> String {
        let key = encoded(key);
        let bucket_in_path = encoded(bucket);
        if let Some(endpoint) = &self.endpoint {
            return format!("{}/{bucket_in_path}/{key}", endpoint.trim_end_matches('/'));
        }
        let suffix = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let host = format!("s3.{}.{suffix}", self.region);
        if bucket.contains('.') {
            format!("https://{host}/{bucket_in_path}/{key}")
        } else {
            format!("https://{bucket_in_path}.{host}/{key}")
        }
    }
}

/// Percent-encoded as S3 wants it: everything but `A-Z a-z 0-9 - _ . ~` and the slashes between the parts of a key.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

async fn beginning(body: SdkBody) -> String {
    let mut stream = ByteStream::new(body);
    let mut text = Vec::new();
    while text.len() < ERROR_BYTES_MAX {
        let Ok(Some(chunk)) = stream.try_next().await else { break };
        text.extend_from_slice(&chunk);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    text.split_once(start)?.1.split_once(end).map(|(inner, _)| inner)
}

fn failed(what: String, fault: Fault) -> PortError {
    let Fault { retryable, why, .. } = fault;
    let what = format!("{what}: {why}");
    if retryable { PortError::Retryable { what, source: None } } else { PortError::Permanent { what, source: None } }
}

/// An object that is being read.
#[derive(Debug)]
pub struct S3Body {
    /// For error messages.
    name: String,
    content_type: Option<String>,
    etag: Option<String>,
    stream: ByteStream,
}

impl Objects for S3 {
    type Body = S3Body;

    async fn open(&self, object: &ObjectRef<'_>) -> PortResult<Opening<S3Body>> {
        let name = format!("s3://{}/{}", object.bucket, object.key);
        let answer = match self.send(&Request { method: "GET", object: *object, body: &[] }).await {
            Ok(answer) => answer,
            Err(fault) => {
                return fault.absence().ok_or_else(|| failed(format!("could not read {name}"), fault));
            }
        };
        let header = |name| answer.headers().get(name).map(str::to_owned);
        let (content_type, etag) = (header("content-type"), header("etag"));
        Ok(Opening::Opened(S3Body { name, content_type, etag, stream: ByteStream::new(answer.into_body()) }))
    }
}

impl ObjectBody for S3Body {
    fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    async fn next(&mut self) -> PortResult<Option<Vec<u8>>> {
        // A connection that breaks or stalls in the middle: the object is there, so it can be read again.
        let what = || format!("could not read {} to its end", self.name);
        let chunk = tokio::time::timeout(sdk::ATTEMPT, self.stream.try_next()).await;
        let chunk = chunk.map_err(|e| PortError::retryable(what(), e))?;
        Ok(chunk.map_err(|e| PortError::retryable(what(), e))?.map(Into::into))
    }
}

/// An [`Archive`] in a bucket.
#[derive(Clone, Debug)]
pub struct S3Archive {
    s3: S3,
    bucket: String,
}

impl S3Archive {
    /// Writes to `bucket`.
    pub const fn new(s3: S3, bucket: String) -> Self {
        Self { s3, bucket }
    }
}

impl Archive for S3Archive {
    async fn put(&self, name: &str, content: &[u8]) -> PortResult<()> {
        check_archive_name(name)?;
        let request = Request { method: "PUT", object: ObjectRef::newest(&self.bucket, name), body: content };
        let what = || format!("could not write s3://{}/{name}", self.bucket);
        self.s3.send(&request).await.map(drop).map_err(|fault| failed(what(), fault))
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use aws_types::region::Region;

    use super::*;
    use crate::adapters::loopback::{Answer, Loopback};

    fn s3(region: &str, endpoint: Option<&str>) -> S3 {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let mut sdk = SdkConfig::builder()
            .region(Region::new(region.to_owned()))
            .credentials_provider(SharedCredentialsProvider::new(credentials));
        sdk.set_endpoint_url(endpoint.map(str::to_owned));
        S3::new(&sdk.build()).expect("region and credentials")
    }

    fn fault(status: &'static str, code: &str) -> Answer {
        Answer::xml(
            status,
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said so</Message></Error>"),
        )
    }

    #[test]
    fn the_bucket_is_in_the_host_name_where_it_can_be() {
        let key = "a%20b/%C3%BC%2B.gz";
        for (region, endpoint, bucket, expected) in [
            ("eu-west-1", None, "trail", "https://trail.s3.eu-west-1.amazonaws.com/"),
            ("cn-north-1", None, "trail", "https://trail.s3.cn-north-1.amazonaws.com.cn/"),
            ("eu-west-1", None, "my.trail", "https://s3.eu-west-1.amazonaws.com/my.trail/"),
            ("eu-west-1", Some("http://127.0.0.1:4566/"), "trail", "http://127.0.0.1:4566/trail/"),
        ] {
            let object = ObjectRef::newest(bucket, "a b/ü+.gz");
            let url = s3(region, endpoint).url(&object);
            assert_eq!(url, format!("{expected}{key}"));
            let version = s3(region, endpoint).url(&ObjectRef { version_id: Some("3/L4+x.y&z"), ..object });
            assert_eq!(version, format!("{expected}{key}?versionId=3%2FL4%2Bx.y%26z"));
        }
    }

    #[tokio::test]
    async fn the_announced_content_is_asked_for_and_no_other() {
        let server = Loopback::answering(["text"; 3].map(|text| Answer::xml("200 OK", text)));
        let s3 = s3("us-east-1", Some(server.endpoint()));
        let newest = ObjectRef::newest("uploads", "a.txt");
        let announced = ObjectRef { version_id: Some("v1"), etag: Some("9a0364b9e99bb480dd25e1f0284c8555"), ..newest };
        let other = ObjectRef { unless_etag: Some("\"9a03\""), ..newest };
        for object in [newest, announced, other] {
            assert!(matches!(s3.open(&object).await, Ok(Opening::Opened(_))), "{object:?}");
        }
        let heads = server.heads();
        assert!(heads[0].starts_with("GET /uploads/a.txt HTTP/1.1"), "{heads:?}");
        assert!(!heads[0].to_ascii_lowercase().contains("if-match"), "{heads:?}");
        assert!(heads[1].starts_with("GET /uploads/a.txt?versionId=v1 HTTP/1.1"), "{heads:?}");
        assert!(heads[1].contains("if-match: \"9a0364b9e99bb480dd25e1f0284c8555\""), "{heads:?}");
        assert!(heads[1].contains("SignedHeaders=host;if-match;"), "the condition is signed: {heads:?}");
        assert!(heads[2].contains("if-none-match: \"9a03\""), "{heads:?}");
    }

    #[tokio::test]
    async fn what_is_no_longer_there_is_told_apart_from_what_fails() {
        for (status, code, expected) in [
            ("404 Not Found", "NoSuchKey", Opening::Gone),
            ("404 Not Found", "NoSuchVersion", Opening::Gone),
            ("405 Method Not Allowed", "MethodNotAllowed", Opening::Gone),
            ("412 Precondition Failed", "PreconditionFailed", Opening::Replaced),
            ("304 Not Modified", "", Opening::Unchanged),
        ] {
            let server = Loopback::answering([fault(status, code)]);
            let opening = s3("us-east-1", Some(server.endpoint())).open(&ObjectRef::newest("trail", "k")).await;
            let opening = opening.expect(code);
            let told: Opening<()> = match opening {
                Opening::Opened(_) => Opening::Opened(()),
                Opening::Gone => Opening::Gone,
                Opening::Replaced => Opening::Replaced,
                Opening::Unchanged => Opening::Unchanged,
            };
            assert_eq!(told, expected, "{code}");
        }
    }

    #[tokio::test]
    async fn what_may_work_later_is_tried_again() {
        let server = Loopback::answering([
            fault("503 Slow Down", "SlowDown"),
            fault("400 Bad Request", "RequestTimeout"),
            Answer::xml("200 OK", "<done/>"),
        ]);
        let archive = S3Archive::new(s3("us-east-1", Some(server.endpoint())), "archive".into());
        archive.put("a/b", b"content").await.expect("written in the end");
        assert_eq!(server.requests(), ["content"; 3]);
        let busy = || fault("503 Slow Down", "SlowDown");
        let server = Loopback::answering([busy(), busy(), busy(), busy()]);
        let trail = ObjectRef::newest("trail", "k");
        let error = s3("us-east-1", Some(server.endpoint())).open(&trail).await.expect_err("never");
        assert!(error.is_retryable() && error.to_string().contains("s3://trail/k"), "{error}");
    }

    #[tokio::test]
    async fn what_will_never_work_is_permanent_and_says_why() {
        for (status, code) in [
            ("400 Bad Request", "InvalidArgument"),
            ("404 Not Found", "NoSuchBucket"),
            ("403 Forbidden", "AccessDenied"),
            ("403 Forbidden", "InvalidObjectState"),
            ("301 Moved Permanently", "PermanentRedirect"),
        ] {
            let server = Loopback::answering([fault(status, code)]);
            let trail = ObjectRef::newest("trail", "k");
            let error = s3("us-east-1", Some(server.endpoint())).open(&trail).await.expect_err(code);
            assert!(!error.is_retryable() && error.to_string().contains(code), "{error}");
        }
    }
}
