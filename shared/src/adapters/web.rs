//! Questions to web services over the HTTP client of the AWS SDK, which is rustls with the root certificates of the system.
//! Behind the feature `web`.

use std::sync::OnceLock;
use std::time::Duration;

use aws_smithy_async::rt::sleep::default_async_sleep;
use aws_smithy_http_client::default_connector;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;

use crate::ports::{Web, WebAnswer, WebRequest};

/// The longest that making a connection may take: our choice, ample across an ocean.
const CONNECT: Duration = Duration::from_secs(2);

/// The client. Its connections are kept for the next question.
#[derive(Debug, Default)]
pub struct WebClient {
    /// Made with the first question: loading root certificates is no part of a start.
    connector: OnceLock<SharedHttpConnector>,
}

impl Web for WebClient {
    async fn get(&self, request: &WebRequest) -> Result<WebAnswer, String> {
        let limit = Duration::from_secs(request.timeout_s.into());
        let asked = tokio::time::timeout(limit, Box::pin(self.ask(request)));
        asked.await.unwrap_or_else(|_| Err(format!("no answer within {} s", request.timeout_s)))
    }
}

impl WebClient {
    async fn ask(&self, request: &WebRequest) -> Result<WebAnswer, String> {
        let mut ready = HttpRequest::new(SdkBody::empty());
        ready.set_uri(request.url.as_str()).map_err(|_| format!("{} is no address", request.url))?;
        for (name, value) in &request.headers {
            // The error would quote the value.
            let inserted = ready.headers_mut().try_insert(*name, value.clone());
            inserted.map_err(|_| format!("the header {name} cannot be sent"))?;
        }
        let answer = self.connector()?.call(ready).await.map_err(|error| {
            let cause = if error.is_timeout() { "connecting took too long" } else { "not reached" };
            with_causes(cause, &error)
        })?;
        let header = |name: &str| answer.headers().get(name).map(str::to_owned);
        let (status, retry_after) = (answer.status().as_u16(), header("retry-after"));
        let body = read(answer, request.answer_bytes_max).await?;
        Ok(WebAnswer { status, retry_after, body })
    }

    fn connector(&self) -> Result<&SharedHttpConnector, String> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT).build();
        let connector = default_connector(&settings, default_async_sleep());
        let connector = connector.ok_or("this program was built without an HTTP client")?;
        Ok(self.connector.get_or_init(|| connector))
    }
}

async fn read(answer: HttpResponse, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut stream = ByteStream::new(answer.into_body());
    let mut body = Vec::new();
    while let Some(piece) = stream.try_next().await.map_err(|error| with_causes("the answer broke off", &error))? {
        if body.len() + piece.len() > bytes_max {
            return Err(format!("the answer is longer than {bytes_max} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What went wrong, with the innermost cause: those between say "error" in other words.
fn with_causes(what: &str, error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("{what}: {innermost}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::loopback::{Answer, Loopback};

    fn request(endpoint: &str) -> WebRequest {
        WebRequest {
            url: format!("{endpoint}/api/v3/files/12ab"),
            headers: vec![("x-apikey", "secret-key".to_owned())],
            timeout_s: 5,
            answer_bytes_max: 100,
        }
    }

    #[tokio::test]
    async fn answers_of_every_status_are_answers() {
        let limited = Answer::json("429 Too Many Requests", &"slow down".into()).with_headers("Retry-After: 17\r\n");
        let moved = Answer::json("302 Found", &"elsewhere".into()).with_headers("Location: http://192.0.2.1/\r\n");
        let server = Loopback::answering([Answer::json("200 OK", &"known".into()), limited, moved]);
        let client = WebClient::default();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let answer = client.get(&request(server.endpoint())).await.expect("an answer");
            seen.push((answer.status, answer.retry_after, String::from_utf8(answer.body).expect("text")));
        }
        let expected = [(200, None, "known"), (429, Some("17".to_owned()), "slow down"), (302, None, "elsewhere")];
        assert_eq!(seen, expected.map(|(status, after, body)| (status, after, format!("\"{body}\""))));
        let heads = server.heads();
        assert!(heads[0].starts_with("GET /api/v3/files/12ab HTTP/1.1"), "{heads:?}");
        assert!(heads.iter().all(|head| head.contains("x-apikey: secret-key")), "{heads:?}");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_said_without_the_key() {
        let long = Loopback::answering([Answer::json("200 OK", &"x".repeat(200).into())]);
        let client = WebClient::default();
        let too_long = client.get(&request(long.endpoint())).await.expect_err("too long");
        assert_eq!(too_long, "the answer is longer than 100 bytes");
        // Nobody listens where somebody did.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        drop(listener);
        let refused = client.get(&request(&address)).await.expect_err("nobody is there");
        assert!(refused.starts_with("not reached: "), "{refused}");
        let mut odd = request(&address);
        odd.headers[0].1 = "secret\nkey".to_owned();
        let unsendable = client.get(&odd).await.expect_err("no header");
        assert_eq!(unsendable, "the header x-apikey cannot be sent");
        assert!(!format!("{odd:?}").contains("secret"), "{odd:?}");
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_is_given_up() {
        // Connections are taken by the system and never answered.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
        let late = WebClient::default().get(&WebRequest { timeout_s: 1, ..request(&endpoint) }).await;
        assert_eq!(late.expect_err("too late"), "no answer within 1 s");
    }
}
