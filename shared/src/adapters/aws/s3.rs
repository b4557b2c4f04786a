//! Objects in S3: log files are read, archives written.
//!
//! `GetObject` and `PutObject` as signed requests, without the SDK's S3 client: of that a function would carry 2 MB more,
//! mostly checksums and operations nobody calls here, and every build of the gate two minutes.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::byte_stream::ByteStream;
use aws_types::SdkConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::signed::{self, Service, Unanswered};
use super::{is_of_the_deployment, is_retryable_code, sdk};
use crate::ports::{Archive, ObjectBody, ObjectRef, Objects, Opening, PortError, PortResult, check_archive_name};

/// S3 answers it with a status alone, without a code.
const NOT_MODIFIED: &str = "NotModified";

/// Bytes of an error answer that are looked at for its code.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// Requests to the buckets of one region.
#[derive(Clone, Debug)]
pub struct S3 {
    service: Service,
    /// In place of S3's own, such as an emulator's.
    endpoint: Option<String>,
}

/// What a request brings with it.
struct Request<'r> {
    method: &'static str,
    object: ObjectRef<'r>,
    body: &'r [u8],
}

impl Request<'_> {
    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if self.method == "PUT" {
            // A bucket with Object Lock takes nothing without a checksum.
            headers.push(("x-amz-checksum-sha256", STANDARD.encode(Sha256::digest(self.body))));
        }
        let ObjectRef { etag, unless_etag, .. } = self.object;
        let quoted = |etag: &str| format!("\"{}\"", etag.trim_matches('"'));
        headers.extend(etag.map(|etag| ("if-match", quoted(etag))));
        headers.extend(unless_etag.map(|etag| ("if-none-match", quoted(etag))));
        headers
    }
}

/// Why one try failed.
struct Fault {
    /// The next try may work.
    retryable: bool,
    /// What S3 calls it; empty when it did not answer.
    code: String,
    why: String,
}

impl Fault {
    fn later(why: impl std::fmt::Display) -> Self {
        Self { retryable: true, code: String::new(), why: why.to_string() }
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

impl From<Unanswered> for Fault {
    fn from(Unanswered { is_retryable, why }: Unanswered) -> Self {
        Self { retryable: is_retryable, code: String::new(), why }
    }
}

impl S3 {
    /// From the configuration of all clients, and `AWS_ENDPOINT_URL_S3`.
    ///
    /// # Errors
    /// When there is no region or there are no credentials.
    pub fn new(sdk: &SdkConfig) -> Result<Self, String> {
        let service = Service::new(sdk, "s3", sdk::CONNECT, sdk::ATTEMPT)?;
        let own = super::lambda::optional("AWS_ENDPOINT_URL_S3");
        let endpoint = own.or_else(|| sdk.endpoint_url().map(str::to_owned));
        Ok(Self { service, endpoint })
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
        let (url, headers) = (self.url(&request.object), request.headers());
        let sent = signed::Request { method: request.method, url: &url, headers: &headers, body: request.body };
        let answer = self.service.send(&sent).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        if status == 304 {
            return Err(Fault { retryable: false, code: NOT_MODIFIED.to_owned(), why: status.to_string() });
        }
        let text = signed::body(answer, ERROR_BYTES_MAX).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let code = between(&text, "<Code>", "</Code>").unwrap_or("no code");
        let message = between(&text, "<Message>", "</Message>").unwrap_or("no message");
        let retryable = status >= 500 || status == 429 || is_retryable_code(code);
        Err(Fault { retryable, code: code.to_owned(), why: format!("{status} {code}: {message}") })
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
        let host = format!("s3.{}.{}", self.service.region(), self.service.domain());
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

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    text.split_once(start)?.1.split_once(end).map(|(inner, _)| inner)
}

/// What somebody may mend is not tried again at once, but the message that met it comes back.
fn failed(what: String, fault: Fault) -> PortError {
    let Fault { retryable, code, why } = fault;
    let what = format!("{what}: {why}");
    if retryable || is_of_the_deployment(&code) {
        PortError::Retryable { what, source: None }
    } else {
        PortError::Permanent { what, source: None }
    }
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
    use aws_credential_types::provider::SharedCredentialsProvider;
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
            ("403 Forbidden", "InvalidObjectState"),
            ("301 Moved Permanently", "PermanentRedirect"),
        ] {
            let server = Loopback::answering([fault(status, code)]);
            let trail = ObjectRef::newest("trail", "k");
            let error = s3("us-east-1", Some(server.endpoint())).open(&trail).await.expect_err(code);
            assert!(!error.is_retryable() && error.to_string().contains(code), "{error}");
        }
    }

    #[tokio::test]
    async fn what_somebody_may_mend_comes_back_and_is_not_tried_again_at_once() {
        for (status, code) in [
            ("403 Forbidden", "AccessDenied"),
            ("403 Forbidden", "AllAccessDisabled"),
            ("403 Forbidden", "InvalidAccessKeyId"),
            ("404 Not Found", "NoSuchBucket"),
            ("400 Bad Request", "KMS.DisabledException"),
        ] {
            let server = Loopback::answering([fault(status, code), fault(status, code)]);
            let s3 = s3("us-east-1", Some(server.endpoint()));
            let error = s3.open(&ObjectRef::newest("trail", "k")).await.expect_err(code);
            assert!(error.is_retryable() && error.to_string().contains(code), "{error}");
            let error = S3Archive::new(s3, "archive".into()).put("a", b"content").await.expect_err(code);
            assert!(error.is_retryable() && error.to_string().contains(code), "{error}");
            assert_eq!(server.requests().len(), 2, "{code}: once each");
        }
    }
}
