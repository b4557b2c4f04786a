//! E-mail through an SNS topic.
//!
//! The SDK retries throttles and time-outs itself (standard mode); what still fails is classed here, so that the
//! handler returns the message or sends it to the dead-letter queue.

use aws_sdk_sns::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sns::operation::publish::PublishError;

use super::{Channel, ChannelError, Delivery};
use crate::message::Alert;

/// Publishes to one topic. SNS cannot replace an earlier message: after a crash between the publish and its record
/// in the ledger the alert is sent again.
#[derive(Clone, Debug)]
pub struct Sns {
    client: aws_sdk_sns::Client,
    topic_arn: String,
}

impl Sns {
    /// A channel to `topic_arn`; the client is built once, in `main`.
    pub const fn new(client: aws_sdk_sns::Client, topic_arn: String) -> Self {
        Self { client, topic_arn }
    }
}

impl Channel for Sns {
    fn id(&self) -> &'static str {
        "sns"
    }

    fn deliver<'a>(&'a self, alert: &'a Alert) -> Delivery<'a> {
        Box::pin(async move {
            let published = self
                .client
                .publish()
                .topic_arn(&self.topic_arn)
                .subject(&alert.subject)
                .message(&alert.body)
                .send()
                .await
                .map_err(|error| {
                    let retryable = is_retryable(&error);
                    let what = format!("could not publish to {}: {}", self.topic_arn, DisplayErrorContext(&error));
                    ChannelError { retryable, what, source: Some(Box::new(error)) }
                })?;
            Ok(published.message_id.unwrap_or_else(|| "N/A".to_owned()))
        })
    }
}

/// Whether the same publish may work later. Errors of the service are its 5xx, its throttles and KMS throttles;
/// everything else it says (topic gone, denied, invalid parameter) stays wrong.
fn is_retryable(error: &SdkError<PublishError>) -> bool {
    let SdkError::ServiceError(context) = error else {
        // A request that could not even be built stays wrong; time-outs and broken connections pass.
        return !matches!(error, SdkError::ConstructionFailure(_));
    };
    let status = context.raw().status().as_u16();
    let code = context.err().code().unwrap_or_default();
    status >= 500 || status == 429 || code.contains("Throttl") || code == "RequestLimitExceeded"
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use aws_sdk_sns::config::retry::RetryConfig;
    use aws_sdk_sns::config::{BehaviorVersion, Credentials, Region};

    use super::*;
    use crate::message::tests_support::finding;

    const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:alerts";

    /// Answers one request on loopback and hands its body out: real HTTP, no network, no second HTTP client crate.
    fn answer_once(status: &'static str, answer: String) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            let body = loop {
                let n = stream.read(&mut buffer).expect("readable");
                request.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .lines()
                    .filter_map(|l| l.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .map_or(0, |(_, value)| value.trim().parse().expect("a number"));
                if body.len() >= length {
                    break body.to_owned();
                }
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n", answer.len());
            stream.write_all(format!("{head}Connection: close\r\n\r\n{answer}").as_bytes()).expect("writable");
            send.send(body).expect("the test waits");
        });
        (endpoint, receive)
    }

    fn channel(endpoint: String) -> Sns {
        let config = aws_sdk_sns::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(endpoint)
            .build();
        Sns::new(aws_sdk_sns::Client::from_conf(config), TOPIC.to_owned())
    }

    fn fault(code: &str) -> String {
        format!(
            "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type><Code>{code}</Code>\
             <Message>said so</Message></Error><RequestId>r</RequestId></ErrorResponse>"
        )
    }

    #[tokio::test]
    async fn the_request_names_topic_subject_and_message() {
        let (endpoint, request) = answer_once(
            "200 OK",
            "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>m-1</MessageId>\
             </PublishResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></PublishResponse>"
                .to_owned(),
        );
        let alert = Alert::of_finding(&finding(), 1);
        let reference = channel(endpoint).deliver(&alert).await.expect("published");
        assert_eq!(reference, "m-1");
        let body = request.recv().expect("one request");
        let fields: std::collections::BTreeMap<_, _> = body.split('&').filter_map(|p| p.split_once('=')).collect();
        assert_eq!(fields["Action"], "Publish");
        assert_eq!(decoded(fields["TopicArn"]), TOPIC);
        assert_eq!(decoded(fields["Subject"]), alert.subject);
        assert_eq!(decoded(fields["Message"]), alert.body);
    }

    #[tokio::test]
    async fn throttling_is_retryable_and_a_missing_topic_is_not() {
        let cases = [
            ("400 Bad Request", "Throttling", true),
            ("400 Bad Request", "Throttled", true),
            ("400 Bad Request", "KMSThrottling", true),
            ("500 Internal Server Error", "InternalError", true),
            ("503 Service Unavailable", "ServiceUnavailable", true),
            ("404 Not Found", "NotFound", false),
            ("403 Forbidden", "AuthorizationError", false),
            ("400 Bad Request", "InvalidParameter", false),
        ];
        for (status, code, retryable) in cases {
            let (endpoint, _request) = answer_once(status, fault(code));
            let error = channel(endpoint).deliver(&Alert::of_finding(&finding(), 1)).await.expect_err(code);
            assert_eq!(error.retryable, retryable, "{code}: {error}");
            assert!(error.what.contains(TOPIC), "{error}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_retryable() {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let error = channel(format!("http://127.0.0.1:{port}"))
            .deliver(&Alert::of_finding(&finding(), 1))
            .await
            .expect_err("nobody listens");
        assert!(error.retryable, "{error}");
    }

    fn decoded(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next(), rest.next()].map(|d| char::from(d.expect("two digits")));
                    u8::from_str_radix(&String::from_iter(digits), 16).expect("hexadecimal")
                }
                other => other,
            });
        }
        String::from_utf8(bytes).expect("UTF-8")
    }
}
