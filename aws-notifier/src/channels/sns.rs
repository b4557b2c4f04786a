//! E-mail through an SNS topic.
//!
//! The SDK retries throttles and time-outs itself (standard mode); what still fails is classed here, so that the
//! handler returns the message or sends it to the dead-letter queue. A permission, key or topic that is missing may be put
//! back.

use aws_sdk_sns::error::DisplayErrorContext;
use shared::adapters::aws::may_be_mended;

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
                    let retryable = may_be_mended(&error);
                    let what = format!("could not publish to {}: {}", self.topic_arn, DisplayErrorContext(&error));
                    ChannelError { retryable, what, source: Some(Box::new(error)) }
                })?;
            Ok(published.message_id.unwrap_or_else(|| "N/A".to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use aws_sdk_sns::config::retry::RetryConfig;
    use aws_sdk_sns::config::{BehaviorVersion, Credentials, Region};

    use shared::adapters::loopback::{Answer, Loopback};

    use super::*;
    use crate::message::tests_support::finding;

    const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:alerts";

    fn channel(endpoint: &str) -> Sns {
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
        let server = Loopback::answering([Answer::xml(
            "200 OK",
            "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>m-1</MessageId>\
             </PublishResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></PublishResponse>",
        )]);
        let alert = Alert::of_finding(&finding(), &[], 1);
        let reference = channel(server.endpoint()).deliver(&alert).await.expect("published");
        assert_eq!(reference, "m-1");
        let body = server.requests().remove(0);
        let fields: std::collections::BTreeMap<_, _> = body.split('&').filter_map(|p| p.split_once('=')).collect();
        assert_eq!(fields["Action"], "Publish");
        assert_eq!(decoded(fields["TopicArn"]), TOPIC);
        assert_eq!(decoded(fields["Subject"]), alert.subject);
        assert_eq!(decoded(fields["Message"]), alert.body);
    }

    #[tokio::test]
    async fn only_what_is_wrong_with_the_alert_is_permanent() {
        let cases = [
            ("400 Bad Request", "Throttling", true),
            ("400 Bad Request", "Throttled", true),
            ("400 Bad Request", "KMSThrottling", true),
            ("500 Internal Server Error", "InternalError", true),
            ("503 Service Unavailable", "ServiceUnavailable", true),
            ("404 Not Found", "NotFound", true),
            ("403 Forbidden", "AuthorizationError", true),
            ("400 Bad Request", "KMSDisabled", true),
            ("400 Bad Request", "InvalidParameter", false),
        ];
        for (status, code, retryable) in cases {
            let server = Loopback::answering([Answer::xml(status, fault(code))]);
            let error =
                channel(server.endpoint()).deliver(&Alert::of_finding(&finding(), &[], 1)).await.expect_err(code);
            assert_eq!(error.retryable, retryable, "{code}: {error}");
            assert!(error.what.contains(TOPIC), "{error}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_retryable() {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let error = channel(&format!("http://127.0.0.1:{port}"))
            .deliver(&Alert::of_finding(&finding(), &[], 1))
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
