//! How the AWS clients of a component are set up. One place, so that all of them give up in time.

use std::sync::OnceLock;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::default_connector;
use aws_smithy_runtime_api::client::http::{SharedHttpClient, SharedHttpConnector, http_client_fn};

/// Tries of one operation, the first included.
pub(super) const ATTEMPTS: u32 = 4;
/// The longest first pause between tries; pauses double and are random (the SDK's standard mode).
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest that making a connection may take.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// The longest that one try may take; answers of DynamoDB and SQS come within milliseconds.
pub(super) const ATTEMPT: Duration = Duration::from_secs(3);
/// The longest that an operation may take, all its tries and pauses together: well below the 50 s of the deployed functions,
/// so that a service that does not answer is an error of some messages and not of the whole batch. When several do not
/// answer, a batch can still take longer than that; Lambda cuts it off and it comes back whole.
const OPERATION: Duration = Duration::from_secs(8);

/// The configuration that all clients are built from. Region, credentials and endpoints come from the environment.
pub async fn config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build();
    let retries =
        RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(PAUSE).with_max_backoff(PAUSE_MAX);
    let defaults = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
    defaults.retry_config(retries).timeout_config(timeouts).load().await
}

/// One for all clients, made with the first request: each client's own would read the root certificates when it is built,
/// which takes longer than everything else in a start.
fn http_client() -> SharedHttpClient {
    let connector: OnceLock<SharedHttpConnector> = OnceLock::new();
    http_client_fn(move |settings, components| {
        let made = || default_connector(settings, components.sleep_impl()).expect("the feature rustls-aws-lc is on");
        connector.get_or_init(made).clone()
    })
}

/// Waits a random time before try number `tries` + 1, whose upper bound doubles with each: for tries that the SDK does not
/// make itself. Writers of one item do not meet again.
pub(super) async fn pause(tries: u32) {
    let longest = PAUSE.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX) / 4;
    let random = uuid::Uuid::now_v7().as_u128() & u128::from(u32::MAX);
    let ms = random % longest.as_millis().max(1);
    tokio::time::sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0))).await;
}
