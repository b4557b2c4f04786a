//! Adapters that call AWS, and what a Lambda function needs around a handler. Behind the feature `aws`.

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

pub mod dynamo;
pub mod json;
pub mod lambda;
mod logs;
#[cfg(feature = "lambda")]
pub mod runtime;
mod s3;
pub mod sdk;
pub mod signed;
mod sqs;

/// The clients, so that a component needs no dependencies of its own to build them.
pub use aws_sdk_dynamodb::Client as DynamoClient;
pub use aws_sdk_sqs::Client as SqsClient;
/// What clients are built from.
pub use aws_types::SdkConfig;
pub use logs::Logs;
pub use s3::{S3, S3Archive};
pub use sqs::{SqsOutbox, TraceHeader};

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

/// Whether the message that met this error should come back: what [`is_retryable`] says, and what is wrong with the
/// deployment and not with the message. A policy that is detached for a minute, a table that is being restored or a key
/// that is disabled would else bury every message of that time; when nobody mends it, SQS moves each to the dead-letter
/// queue after its fifth receive.
pub fn may_be_mended<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    is_retryable(error) || code.is_some_and(is_of_the_deployment)
}

/// The codes for permissions, credentials, keys and resources that are missing; also with a namespace in front. KMS's are
/// `KMSAccessDeniedException`, `KmsDisabled`, `KMS.NotFoundException` and more; SNS calls a topic that is missing `NotFound`.
/// An object that is gone from S3 (`NoSuchKey`) is none of them.
fn is_of_the_deployment(code: &str) -> bool {
    const CODES: [&str; 19] = [
        "AccessDenied",
        "AccessDeniedException",
        "AllAccessDisabled",
        "AuthorizationError",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NoSuchBucket",
        "NonExistentQueue",
        "NotFound",
        "OptInRequired",
        "QueueDoesNotExist",
        "ResourceInUseException",
        "ResourceNotFoundException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ];
    code.to_ascii_lowercase().contains("kms") || CODES.iter().any(|c| code.ends_with(c))
}

/// The codes that services answer with status 400 and mean "later": `Throttling`, `ThrottlingException`, `Throttled`,
/// `RequestThrottled`, `KmsThrottled`, `KMSThrottling`, `RequestLimitExceeded`, also with a namespace in front. Credentials
/// that have expired are renewed by the next try.
fn is_retryable_code(code: &str) -> bool {
    const CODES: [&str; 10] = [
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalError",
        "InternalFailure",
        "OverLimit",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
    ];
    code.contains("Throttl") || CODES.iter().any(|c| code.ends_with(c))
}
