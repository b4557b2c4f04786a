//! How the AWS clients of a component are set up. One place, so that all of them give up in time.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};

/// Tries of one operation, the first included.
const ATTEMPTS: u32 = 4;
/// The longest first pause between tries; pauses double and are random (the SDK's standard mode).
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest that making a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// The longest that one try may take; answers of DynamoDB and SQS come within milliseconds.
const ATTEMPT: Duration = Duration::from_secs(3);
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
    aws_config::defaults(BehaviorVersion::latest()).retry_config(retries).timeout_config(timeouts).load().await
}
