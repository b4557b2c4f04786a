//! The canary: a made-up event that an operator sends through a deployment, to see that it comes out at the end and how
//! long each stage takes. `pipeline doctor` sends it, the classifier `pipeline_canary` recognises it.
//!
//! **Signed once.** Anybody who may call `PutEvents` can send an event with the canary's source, so a genuine one
//! proves itself: the operator draws a secret, writes its hash into the state table under the canary's id (the
//! *announcement*), and sends the secret in the event. Who can announce could change all that classifiers remember
//! anyway. The table gives nothing away to those who may only read it, a secret that was seen on the way is worth
//! nothing a second time, and an announcement ends after [`ANNOUNCED_S`] seconds.
//!
//! A shared key with an HMAC was the other way: a lasting secret that has to be kept, paid for, read by the function when it
//! starts, and changed when somebody leaves. This needs none, no permission that the classifier does not have, and tries
//! the state table as well.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::observation::{Observations, ObserveRequest};
use crate::time::Timestamp;

/// The `source` of canaries on the event bus.
pub const SOURCE: &str = "pipeline.canary";
/// Their `detail-type`.
pub const DETAIL_TYPE: &str = "Pipeline Canary";
/// The id of the classifier that recognises them.
pub const CLASSIFIER: &str = "pipeline_canary";
/// The label under which the classifier asks for announcements.
pub const ANNOUNCED: &str = "announced";
/// How long an announcement is good for, in seconds of event time: our choice, longer than EventBridge and a queue that
/// works need, short for somebody who means to use it.
pub const ANNOUNCED_S: u32 = 900;

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// A canary before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    id: String,
    secret: String,
}

impl Canary {
    /// A canary of a new id and a secret that nobody knows.
    pub fn new(id: uuid::Uuid, secret: [u8; SECRET_BYTES]) -> Self {
        Self { id: id.to_string(), secret: hex(&secret) }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What to write into the state before it is sent.
    pub fn announcement(&self, at: Timestamp) -> ObserveRequest<'static> {
        let seal = seal(&self.id, &self.secret);
        let event = seal.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let observations = Observations::none().remember(ANNOUNCED, &*self.id, seal, ANNOUNCED_S).into_vec();
        ObserveRequest { classifier: CLASSIFIER, event, at, observations }
    }

    /// The `detail` of its event.
    pub fn detail(&self) -> Value {
        json!({"id": self.id, "secret": self.secret})
    }

    /// What joins its incident with its id: the classifier names this topic.
    pub fn topic(id: &str) -> String {
        format!("{CLASSIFIER}/{id}")
    }
}

/// What is announced of a canary: the hash of id and secret.
pub fn seal(id: &str, secret: &str) -> String {
    // A separator that neither can hold, so that no other pair has the same text.
    hex(&Sha256::digest(format!("pipeline canary\u{1f}{id}\u{1f}{secret}")))
}

/// Whether a text can be the id of a canary: only such ones are looked up.
pub fn is_id(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Op;

    #[test]
    fn the_announcement_tells_nothing_of_the_secret_and_the_event_proves_it() {
        let canary = Canary::new(uuid::Uuid::from_u128(7), [9; SECRET_BYTES]);
        let announced = canary.announcement(Timestamp::from_millis(1_700_000_000_000));
        let Op::Remember { value, .. } = &announced.observations[0].op else { panic!("{announced:?}") };
        let detail = canary.detail();
        let (id, secret) = (detail["id"].as_str().expect("text"), detail["secret"].as_str().expect("text"));
        assert!(!format!("{announced:?}").contains(secret));
        assert_eq!(seal(id, secret), *value);
        assert_ne!(seal(id, &secret.replace('9', "8")), *value);
        assert!(is_id(id) && !is_id("7") && !is_id(&format!("{id}x")));
        assert_eq!(announced.observations[0].key, id);
    }
}
