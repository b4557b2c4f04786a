//! The section `[logger]`.

use serde::{Deserialize, Serialize};
use shared::config::Document;

use crate::record::Format;

/// `[logger]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggerSettings {
    /// `ocsf` (JSON lines) or `key_value` (the predecessor's lines).
    pub format: Format,
    /// The log file, relative to the data folder. The Lambda function writes to its standard output instead.
    pub file: String,
}

impl Default for LoggerSettings {
    fn default() -> Self {
        Self { format: Format::Ocsf, file: "pipeline.log".to_owned() }
    }
}

/// Takes `[logger]` out of the file; mistakes stay in the document.
pub fn configure(document: &mut Document<'_>) -> LoggerSettings {
    document.section_with("logger", |settings: &LoggerSettings| {
        if settings.file.is_empty() {
            return vec![("file".to_owned(), "must name a file".to_owned())];
        }
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_one_of_two_words() {
        let mut document = Document::parse("pipeline.toml", "[logger]\nformat = \"key_value\"\n");
        assert_eq!(configure(&mut document).format, Format::KeyValue);
        document.finish().expect("fine");
        let mut document = Document::parse("pipeline.toml", "[logger]\nformat = \"xml\"\nfile = \"\"\n");
        configure(&mut document);
        assert_eq!(document.finish().expect_err("xml").mistakes[0].line, 2);
    }
}
