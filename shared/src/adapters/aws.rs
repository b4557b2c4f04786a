//! Adapters that call AWS, and what a Lambda function needs around a handler. Behind the feature `aws`.
//!
//! What is not here yet: state, ledger and incidents in DynamoDB. Until they are, a Lambda function keeps these in its
//! process's memory and says so when it starts ([`lambda::warn_of_memory`]).

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

pub mod lambda;
mod sqs;

#[cfg(any(test, feature = "testing"))]
pub mod loopback;

/// The SQS client, so that a component needs no dependency of its own to build one.
pub use aws_sdk_sqs::Client as SqsClient;
pub use sqs::SqsOutbox;

/// Whether the same call may work later: time-outs, broken connections, 5xx, throttles. What else a service says (it is
/// not there, it is denied, it is invalid) stays wrong until someone changes something.
pub fn is_retryable<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    match error {
        SdkError::ServiceError(context) => {
            let status = context.raw().status().as_u16();
            status >= 500 || status == 429 || is_retryable_code(context.err().code().unwrap_or_default())
        }
        SdkError::ConstructionFailure(_) => false,
        _ => true,
    }
}

/// The codes that services answer with status 400 and mean "later": `Throttling`, `ThrottlingException`, `Throttled`,
/// `RequestThrottled`, `KmsThrottled`, `KMSThrottling`, `RequestLimitExceeded`, also with a namespace in front.
fn is_retryable_code(code: &str) -> bool {
    const CODES: [&str; 5] =
        ["RequestLimitExceeded", "InternalError", "InternalFailure", "ServiceUnavailable", "OverLimit"];
    code.contains("Throttl") || CODES.iter().any(|c| code.ends_with(c))
}
