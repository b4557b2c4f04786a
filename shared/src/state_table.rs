//! How the items of the state table are told apart: by the first part of their hash key, before the first `/`. Components may
//! read and write their own kinds only; `deploy/generated/state-keys.json` says which, and the roles in the templates are
//! compared with it.

/// What classifiers remember.
pub const STATE: &str = "state";
/// What was claimed and done: behind it the keys of [`crate::ports::Ledger`], whose first parts each component declares as
/// `LEDGER_KINDS`.
pub const LEDGER: &str = "ledger";
