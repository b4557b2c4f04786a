//! What a service said instead of an answer, for people and for decisions.

use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use shared::ports::PortError;
use shared::text::one_line;

use crate::failure::Failure;

/// Longer explanations of a service are cut.
const WHY_CHARS_MAX: usize = 400;
/// Those of an adapter have the causes of the SDK, one in another.
const PORT_WHY_CHARS_MAX: usize = 1000;

/// A call that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The call, such as `sqs:ListQueues`; also the permission it needs.
    pub call: &'static str,
    /// Why.
    pub kind: Kind,
    /// What the service or the connection said, in one line.
    pub why: String,
}

/// Why a call gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller may not.
    Denied,
    /// What was asked about is not there.
    Missing,
    /// The endpoint does not know the call: an emulator.
    Unknown,
    /// Anything else: no network, no credentials, throttled, a wrong parameter.
    Other,
}

impl Refusal {
    /// Reads what the SDK says about `call`.
    pub fn of<E>(call: &'static str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
        match error.code() {
            Some(code) => Self::said(call, code, status, error.message()),
            None => Self::said(call, "", status, Some(&DisplayErrorContext(error).to_string())),
        }
    }

    /// Adapters of ports say what they did; whether it was denied is in the words.
    pub fn of_port(call: &'static str, error: &PortError) -> Self {
        let mut why = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            why = format!("{why}: {cause}");
        }
        let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
        let kind = if has(&["AccessDenied"]) {
            Kind::Denied
        } else if has(&["ResourceNotFound"]) {
            Kind::Missing
        } else {
            Kind::Other
        };
        Self { call, kind, why: one_line(&why, PORT_WHY_CHARS_MAX) }
    }

    /// From the code and the message of an answer; no code when there was none.
    pub fn said(call: &'static str, code: &str, status: u16, message: Option<&str>) -> Self {
        let parts = [code, message.unwrap_or_default()].into_iter().filter(|part| !part.is_empty());
        let why = parts.collect::<Vec<_>>().join(": ");
        Self { call, kind: kind(code, status), why: one_line(&why, WHY_CHARS_MAX) }
    }
}

/// Codes differ between services; their words do not.
fn kind(code: &str, status: u16) -> Kind {
    let has = |words: &[&str]| words.iter().any(|word| code.contains(word));
    if has(&["AccessDenied", "Unauthorized", "AuthorizationError"]) {
        Kind::Denied
    } else if has(&["UnknownOperation", "InvalidAction", "UnsupportedOperation", "NotImplemented", "NotYetImplemented"])
        || status == 501
    {
        Kind::Unknown
    } else if has(&["NotFound", "NoSuchEntity", "NonExistent", "DoesNotExist"]) {
        Kind::Missing
    } else {
        Kind::Other
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { call, kind, why } = self;
        match kind {
            Kind::Denied => write!(f, "you need the permission {call}: {why}"),
            Kind::Missing | Kind::Other => write!(f, "{call} failed: {why}"),
            Kind::Unknown => write!(f, "the endpoint does not know {call}: {why}"),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Cloud(refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_say_the_same_in_different_words() {
        for (code, status, expected) in [
            ("AccessDenied", 403, Kind::Denied),
            ("AccessDeniedException", 400, Kind::Denied),
            ("UnauthorizedOperation", 403, Kind::Denied),
            ("AuthorizationError", 403, Kind::Denied),
            ("AWS.SimpleQueueService.NonExistentQueue", 400, Kind::Missing),
            ("QueueDoesNotExist", 400, Kind::Missing),
            ("ResourceNotFoundException", 400, Kind::Missing),
            ("NoSuchEntity", 404, Kind::Missing),
            ("UnknownOperationException", 400, Kind::Unknown),
            ("", 501, Kind::Unknown),
            ("ThrottlingException", 400, Kind::Other),
            ("", 0, Kind::Other),
        ] {
            assert_eq!(kind(code, status), expected, "{code}");
        }
    }
}
