//! What a sign-in's record says: who, the outcome, and whether MFA was used. Several plug-ins ask; none may ask another.

use serde_json::Value;
use shared::classifier::Malformed;
use shared::event::{Event, Part, PrincipalKind};

/// Whose sign-in it is: a user of Identity Center signs in to many accounts and is one person; everybody else is known per
/// account.
pub fn person(event: &Event<'_>) -> String {
    let identity = event.identity();
    let person = identity.person_key();
    if identity.principal_kind() == PrincipalKind::SsoUser {
        return person.into_owned();
    }
    format!("{}/{person}", event.account)
}

/// Whether a `ConsoleLogin` succeeded. Failed ones have no error code, only `responseElements.ConsoleLogin: Failure`.
///
/// # Errors
/// When the outcome is missing: schema drift. Where CloudTrail left it out, a failed login still has its message.
pub fn succeeded(event: &Event<'_>) -> Result<bool, Malformed> {
    match event.response()?.get("ConsoleLogin").and_then(Value::as_str) {
        Some(result) => Ok(result == "Success" && !event.is_failed()),
        None if event.is_failed() => Ok(false),
        None if event.is_left_out(Part::Response) => Ok(event.error_message.is_none()),
        None => Err(Malformed::missing("responseElements.ConsoleLogin")),
    }
}

/// Whether the login came through a SAML provider or a role: then AWS says `MFAUsed: No` whatever happened at the provider.
///
/// # Errors
/// When the additional data is not JSON.
pub fn is_federated(event: &Event<'_>) -> Result<bool, Malformed> {
    Ok(!matches!(&*event.identity_type, "IAMUser" | "Root")
        || event.additional()?.get("SamlProviderArn").is_some_and(|arn| !arn.is_null()))
}

/// `additionalEventData.MFAUsed`; `None` when the record does not say or cannot know.
///
/// # Errors
/// When the additional data is not JSON.
pub fn mfa_used(event: &Event<'_>) -> Result<Option<bool>, Malformed> {
    if is_federated(event)? {
        return Ok(None);
    }
    Ok(event.additional()?.get("MFAUsed").and_then(Value::as_str).map(|used| used.eq_ignore_ascii_case("Yes")))
}
