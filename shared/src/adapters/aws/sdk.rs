//! How the AWS clients of a component are set up. One place, so that all of them give up in time.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};

/// Tries of one operation, the first included; the pauses double and are random (the SDK's standard mode).
const ATTEMPTS: u32 = 4;
/// The longest that making a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest that one try may take; answers of DynamoDB and SQS come within milliseconds.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The longest that an operation may take, all its tries and pauses together: well below the 50 s of the deployed functions,
/// so that a batch that cannot be handled is answered by its handler, and not cut off by Lambda.
const OPERATION: Duration = Duration::from_secs(15);

/// The configuration that all clients are built from. Region, credentials and endpoints come from the environment.
pub async fn config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts)
        .load()
        .await
}
