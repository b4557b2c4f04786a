//! The port to the account that responses change, and the one for programs without an account.
//!
//! A call goes out exactly as it was planned and journalled; what it answers is data. The adapter for AWS is
//! [`crate::aws`].

use std::future::Future;

use serde_json::Value;
use shared::ApiCall;

/// Makes API calls.
pub trait Cloud {
    /// The 12-digit account that calls are made in.
    ///
    /// # Errors
    /// Why nothing can be carried out here, in a few words for a person.
    fn account(&self) -> Result<&str, &str>;

    /// Makes one call. A call that only looks answers with the API's own names, all pages together.
    ///
    /// # Errors
    /// See [`CallError`]. After a retryable error the call may have had its effect.
    fn call(&self, call: &ApiCall) -> impl Future<Output = Result<Value, CallError>>;
}

/// Why a call was not made, or did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Time-out, throttle, the service's own fault: the same call may work later.
    #[error("{0}")]
    Retryable(String),
    /// What it would change is so already, wholly or in part.
    #[error("{0}")]
    AlreadySo(String),
    /// What it is about does not exist (any more).
    #[error("{0}")]
    Gone(String),
    /// The permission is missing.
    #[error("{0}")]
    Denied(String),
    /// It will never work.
    #[error("{0}")]
    Permanent(String),
}

/// No account: in mode `auto` responses are planned and shown, with this reason.
#[derive(Clone, Copy, Debug)]
pub struct NoCloud(pub &'static str);

impl Cloud for NoCloud {
    fn account(&self) -> Result<&str, &str> {
        Err(self.0)
    }

    async fn call(&self, _: &ApiCall) -> Result<Value, CallError> {
        Err(CallError::Permanent(self.0.to_owned()))
    }
}

/// Whichever of the two a program was started with.
impl<A: Cloud> Cloud for Result<A, NoCloud> {
    fn account(&self) -> Result<&str, &str> {
        match self {
            Ok(cloud) => cloud.account(),
            Err(none) => none.account(),
        }
    }

    async fn call(&self, call: &ApiCall) -> Result<Value, CallError> {
        match self {
            Ok(cloud) => cloud.call(call).await,
            Err(none) => none.call(call).await,
        }
    }
}

impl<A: Cloud> Cloud for &A {
    fn account(&self) -> Result<&str, &str> {
        (**self).account()
    }

    fn call(&self, call: &ApiCall) -> impl Future<Output = Result<Value, CallError>> {
        (**self).call(call)
    }
}
