//! The logger: findings, outcomes and receipts in; one structured line each and the incident store out.
//!
//! Messages may come in any order and more than once: the incident store ends the same ([`incidents`]) and the log
//! holds each line once ([`sink`]). What a line says is [`record`].
//!
//! What it deliberately does not do: it tells nobody and decides nothing.

pub mod archive;
pub mod handler;
pub mod incidents;
pub mod record;
pub mod settings;
pub mod sink;

pub use archive::ArchiveLog;
pub use handler::{LEDGER_KINDS, Logger};
pub use record::Format;
pub use settings::{LoggerSettings, configure};
pub use sink::{FileLog, LogSink, WriteLog};
