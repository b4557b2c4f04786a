//! What is wrong with a record of the right kind.

/// A record of the wanted kind that lacks a needed field or has it with the wrong type: schema drift,
/// counted as failed and named, never silently nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Malformed {
    /// The field, as a path.
    pub field: String,
    /// What is wrong.
    pub why: String,
}

impl Malformed {
    /// The field is missing.
    pub fn missing(field: &str) -> Self {
        Self { field: field.to_owned(), why: "is missing".to_owned() }
    }

    /// The field is not `expected`.
    pub fn wrong(field: &str, expected: &str) -> Self {
        Self { field: field.to_owned(), why: format!("is not {expected}") }
    }

    /// The field's text is not JSON.
    pub fn not_json(field: &str, error: &serde_json::Error) -> Self {
        Self { field: field.to_owned(), why: format!("is not JSON: {error}") }
    }
}
