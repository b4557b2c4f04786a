//! What classifiers remember, and what remembering answers.
//!
//! A classifier never reads or writes state. It asks for [`Observations`]; the engine applies a whole
//! batch through the [`State`](crate::ports::State) port and hands back [`Known`]. The semantics live here,
//! in one pure function ([`StateRecord::apply`]), so that every adapter only loads and stores:
//!
//! * **Idempotent**: an event that was already applied gets the answer it got the first time, as long as it is among
//!   the entries kept (the `MAX_*` bounds below, and [`LATENESS_S`]).
//! * **Order-free**: a count is the largest total over all windows that contain the event, so the event
//!   that arrives last completes the window, whichever it is. What exactly that gives: see [`Count::reaches`].
//! * **Expiry is compared at read**, with event time; nothing depends on when a record is deleted.

mod known;
mod leaders;
mod operation;
mod rate;
mod record;
mod request;
mod sighting;
mod standing;
#[cfg(test)]
mod tests;
mod values;
mod window;

pub use self::known::{Answer, Count, Known, LastValues, Seen, Stood, Turn};
pub use self::leaders::Leader;
pub use self::operation::{
    LATENESS_S, MAX_COUNT_ENTRIES, MAX_DISTINCT_ENTRIES, MAX_KEY_BYTES, MAX_LAST_ENTRIES, MAX_RATE,
    MAX_STANDING_ENTRIES, Observation, Observations, Op,
};
pub use self::rate::Rate;
pub use self::record::StateRecord;
pub use self::request::ObserveRequest;
pub use self::sighting::Sighting;
pub use self::standing::Standing;
pub use self::values::Value;
pub use self::window::{Entry, EntryKind};
