//! Alerts as text on a writer, usually the terminal.

use std::cell::RefCell;
use std::io::Write;

use super::{Channel, ChannelError, Delivery};
use crate::message::Alert;

/// Writes subject and body, with a rule of dashes above.
#[derive(Debug)]
pub struct Console<W>(RefCell<W>);

impl<W: Write> Console<W> {
    /// A channel that writes to `out`.
    pub const fn new(out: W) -> Self {
        Self(RefCell::new(out))
    }

    /// The writer back.
    pub fn into_inner(self) -> W {
        self.0.into_inner()
    }
}

impl<W: Write> Channel for Console<W> {
    fn id(&self) -> &'static str {
        "console"
    }

    fn deliver<'a>(&'a self, alert: &'a Alert) -> Delivery<'a> {
        Box::pin(async move {
            let mut out = self.0.borrow_mut();
            write!(out, "{:-<72}\n{}\n\n{}", "", alert.subject, alert.body)
                .and_then(|()| out.flush())
                .map_err(|e| ChannelError::retryable("could not write the alert to the console", e))?;
            Ok("console".to_owned())
        })
    }
}
