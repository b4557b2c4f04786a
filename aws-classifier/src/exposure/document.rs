//! The document that a policy comes in, down to its statements.

use std::borrow::Cow;

use serde_json::Value;

use super::Unreadable;
use crate::percent;

/// IAM takes texts of 131,072 characters and does not count white space against the quotas of a policy (API reference,
/// `CreateRole`; user guide, "IAM and STS quotas"); a character may be four bytes.
pub(super) const POLICY_BYTES_MAX: usize = 4 * 131_072;

/// A policy is JSON, as an object or as text; the text may be the content of a JSON text once more, as API Gateway wants
/// it, or percent-encoded, as IAM answers it. Nobody has both.
const WRAPPINGS_MAX: usize = 2;

/// The object that `policy` is or stands for.
///
/// # Errors
/// When it stands for none, or for one that is too long.
pub(super) fn read(policy: &Value) -> Result<Cow<'_, Value>, Unreadable> {
    const TOO_LONG: Unreadable = Unreadable { field: "", expected: "a policy of at most 512 KiB" };
    let document = match policy {
        Value::String(text) if text.len() > POLICY_BYTES_MAX => return Err(TOO_LONG),
        Value::String(text) => {
            Cow::Owned(unwrapped(text).ok_or(Unreadable { field: "", expected: "a policy as JSON" })?)
        }
        other => Cow::Borrowed(other),
    };
    if !document.is_object() || document.to_string().len() > POLICY_BYTES_MAX {
        return Err(TOO_LONG);
    }
    Ok(document)
}

/// What the text is, without what was put around it.
fn unwrapped(text: &str) -> Option<Value> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..=WRAPPINGS_MAX {
        text = match serde_json::from_str::<Value>(&text) {
            Ok(Value::String(inner)) => Cow::Owned(inner),
            Ok(value) => return Some(value),
            Err(_) => Cow::Owned(percent::decoded(&text)?),
        };
    }
    None
}

/// The statements of a document, each an object; one may stand alone.
///
/// # Errors
/// When there are none.
pub(super) fn statements(document: &Value) -> Result<&[Value], Unreadable> {
    const EXPECTED: Unreadable = Unreadable { field: "Statement", expected: "a list of statements" };
    let statements = match &document["Statement"] {
        Value::Array(statements) => statements.as_slice(),
        one @ Value::Object(_) => std::slice::from_ref(one),
        _ => return Err(EXPECTED),
    };
    if statements.iter().all(Value::is_object) { Ok(statements) } else { Err(EXPECTED) }
}

/// How the statement at `index` is called: by its `Sid`, or by its place.
pub(super) fn name(statement: &Value, index: usize) -> String {
    match statement["Sid"].as_str() {
        Some(sid) if !sid.is_empty() => sid.to_owned(),
        _ => format!("statement {}", index + 1),
    }
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// # Errors
/// When it is neither.
pub(super) fn effect(statement: &Value) -> Result<Effect, Unreadable> {
    match statement["Effect"].as_str() {
        Some("Allow") => Ok(Effect::Allow),
        Some("Deny") => Ok(Effect::Deny),
        _ => Err(Unreadable { field: "Statement.Effect", expected: "Allow or Deny" }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_policy_is_read_however_it_is_wrapped() {
        let policy = json!({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
        let text = policy.to_string();
        let escaped = text.replace('*', "\\u002a");
        let percent = text.replace('{', "%7B").replace('"', "%22").replace(' ', "%20").replace('*', "%2A");
        for wrapped in [&text, &escaped, &percent, &json!(text).to_string(), &format!("\n\t {text} ")] {
            assert_eq!(read(&json!(wrapped)).as_deref(), Ok(&policy), "{wrapped}");
        }
        assert_eq!(read(&policy).as_deref(), Ok(&policy));
    }

    #[test]
    fn what_is_wrapped_without_end_is_no_policy() {
        let mut text = "{}".to_owned();
        for _ in 0..=WRAPPINGS_MAX {
            text = json!(text).to_string();
        }
        for nothing in [&text, "%257B%257D%25", "%", "7", "\"\"", ""] {
            assert_eq!(read(&json!(nothing)).map_err(|e| e.field), Err(""), "{nothing}");
        }
        assert_eq!(
            read(&json!("%".repeat(POLICY_BYTES_MAX + 1))).map_err(|e| e.expected),
            Err("a policy of at most 512 KiB")
        );
    }
}
