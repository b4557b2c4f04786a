//! The ways an alert goes out. One file a channel; each delivers one alert and answers with its own reference.
//!
//! A channel does not retry, group or remember: the handler does, because it can give the message back to the queue.

use std::future::Future;
use std::pin::Pin;

use crate::message::Alert;

mod console;
mod file;
#[cfg(feature = "aws")]
mod sns;

pub use console::Console;
pub use file::FileFolder;
#[cfg(feature = "aws")]
pub use sns::Sns;

/// Why a channel did not take an alert.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct ChannelError {
    /// `true`: throttle, time-out, disk busy, a permission or topic that somebody may put back. `false`: this alert is
    /// refused.
    pub retryable: bool,
    /// What was being done to what, and what came back.
    pub what: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ChannelError {
    /// May work later.
    pub fn retryable(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { retryable: true, what: what.into(), source: Some(Box::new(source)) }
    }

    /// The same alert will never work.
    pub fn permanent(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { retryable: false, what: what.into(), source: Some(Box::new(source)) }
    }
}

/// A delivery under way: ends with the channel's own reference, such as a path or a message id.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = Result<String, ChannelError>> + 'a>>;

/// A way to reach people.
pub trait Channel {
    /// `console`, `file`, `sns`: in receipts and in idempotency keys, so it never changes.
    fn id(&self) -> &'static str;
    /// Delivers one alert. It may be called again for the same alert after a crash: a channel that can replace an
    /// earlier delivery of the same [`Alert::id`] does.
    fn deliver<'a>(&'a self, alert: &'a Alert) -> Delivery<'a>;
}
