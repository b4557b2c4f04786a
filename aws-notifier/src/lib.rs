//! The notifier: findings and outcomes in, alerts to people out, receipts to the logger.
//!
//! A finding is told at once; the outcome of a response, which comes later, is told in a second alert with the
//! exact API calls and how to take them back. Waiting for the outcome would let a slow or broken responder hide a
//! threat. Repeats of a finding within a window become one alert ([`handler`]). The text is
//! [`message`], the ways it goes out are [`channels`].
//!
//! What it deliberately does not do: it neither decides nor acts, and it keeps no state of its own beyond the
//! ledger it is given.

pub mod channels;
pub mod handler;
pub mod message;
pub mod settings;

pub use channels::{Channel, ChannelError, Console, FileFolder};
pub use handler::{LEDGER_KINDS, Notifier};
pub use message::Alert;
pub use settings::{NotifierSettings, configure};
