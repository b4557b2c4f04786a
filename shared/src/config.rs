//! One TOML file for everything, read so that all its mistakes are reported at once, with their lines.
//!
//! Each section is a plain settings struct (`serde(default, deny_unknown_fields)`). Every key of a section is tried alone
//! over the section's defaults, so one bad key does not hide the next.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1.
    pub line: usize,
    /// Dotted key.
    pub key: String,
    /// What is wrong.
    pub why: String,
}

/// All mistakes of one file, in order of their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.mistakes.len();
        write!(f, "{} {} in {}", n, if n == 1 { "mistake" } else { "mistakes" }, self.file)?;
        for m in &self.mistakes {
            write!(f, "\n  {}:{}: ", self.file, m.line)?;
            if !m.key.is_empty() {
                write!(f, "{}: ", m.key)?;
            }
            write!(f, "{}", m.why)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A file being read: take its sections one by one, then [`Document::finish`].
pub struct Document<'t> {
    file: String,
    text: &'t str,
    root: Option<Spanned<DeTable<'t>>>,
    taken: BTreeSet<String>,
    mistakes: Vec<Mistake>,
}

impl<'t> Document<'t> {
    /// Parses TOML text; a syntax error is kept and reported by [`Document::finish`].
    pub fn parse(file: &str, text: &'t str) -> Self {
        let mut document =
            Self { file: file.to_owned(), text, root: None, taken: BTreeSet::new(), mistakes: Vec::new() };
        match DeTable::parse(text) {
            Ok(root) => document.root = Some(root),
            Err(error) => {
                let at = error.span().map_or(0, |s| s.start);
                document.mistake(at, "", error.message().to_owned());
            }
        }
        document
    }

    fn mistake(&mut self, offset: usize, key: &str, why: String) {
        let end = offset.min(self.text.len());
        let line = self.text.as_bytes()[..end].iter().filter(|b| **b == b'\n').count() + 1;
        self.mistakes.push(Mistake { line, key: key.to_owned(), why });
    }

    /// Takes the settings of a table such as `responder` or `classifiers.iam_access_key_created`; what the file
    /// does not say keeps its default. Bad keys are noted and left at their default.
    pub fn section<T: DeserializeOwned + Serialize + Default>(&mut self, path: &str) -> T {
        self.section_with(path, |settings: &T| {
            let _ = settings;
            Ok(())
        })
    }

    /// As [`Document::section`], and checks the whole once its keys are fine; `check` names the key.
    pub fn section_with<T: DeserializeOwned + Serialize + Default>(
        &mut self,
        path: &str,
        check: impl FnOnce(&T) -> Result<(), (String, String)>,
    ) -> T {
        self.taken.insert(path.to_owned());
        let defaults = toml::Table::try_from(T::default()).expect("settings are tables of plain values");
        let mut settings = defaults.clone();
        let mut lines: Vec<(String, usize)> = Vec::new();
        let mut problems: Vec<(usize, String, String)> = Vec::new();
        match self.find(path) {
            Found::Nothing => return T::default(),
            Found::NotATable(at) => problems.push((at, path.to_owned(), "must be a table".to_owned())),
            Found::Table(keys) => {
                for (key, at, value) in keys {
                    let dotted = format!("{path}.{key}");
                    if self.is_taken_below(&dotted) {
                        continue;
                    }
                    let mut alone = defaults.clone();
                    alone.insert(key.clone(), value.clone());
                    match alone.try_into::<T>() {
                        Ok(_) => {
                            settings.insert(key.clone(), value);
                            lines.push((key, at));
                        }
                        Err(error) => problems.push((at, dotted, one_line_error(&error))),
                    }
                }
            }
        }
        let clean = problems.is_empty();
        for (at, key, why) in problems {
            self.mistake(at, &key, why);
        }
        let settings: T = settings.try_into().unwrap_or_default();
        if clean && let Err((key, why)) = check(&settings) {
            let at = lines.iter().find(|(k, _)| *k == key).map_or(0, |(_, at)| *at);
            self.mistake(at, &format!("{path}.{key}"), why);
        }
        settings
    }

    /// Declares that a table exists whose sub-tables are sections of their own, such as `classifiers`.
    pub fn expect_table(&mut self, path: &str) {
        self.taken.insert(path.to_owned());
    }

    /// Ends the reading: unknown tables are mistakes too.
    ///
    /// # Errors
    /// All mistakes of the file.
    pub fn finish(mut self) -> Result<(), ConfigError> {
        let mut unknown = Vec::new();
        if let Some(root) = &self.root {
            for (key, value) in root.get_ref() {
                let name = key.get_ref().to_string();
                if !self.taken.contains(&name) && !self.is_taken_below(&name) {
                    unknown.push((key.span().start, name, "unknown section".to_owned()));
                    continue;
                }
                if !self.is_taken_below(&name) {
                    continue;
                }
                let DeValue::Table(table) = value.get_ref() else {
                    unknown.push((key.span().start, name, "must be a table".to_owned()));
                    continue;
                };
                for (inner, _) in table {
                    let dotted = format!("{name}.{}", inner.get_ref());
                    if !self.taken.contains(&dotted) {
                        unknown.push((inner.span().start, dotted, "unknown name".to_owned()));
                    }
                }
            }
        }
        for (at, key, why) in unknown {
            self.mistake(at, &key, why);
        }
        if self.mistakes.is_empty() {
            return Ok(());
        }
        self.mistakes.sort_by_key(|m| m.line);
        Err(ConfigError { file: self.file, mistakes: self.mistakes })
    }

    fn is_taken_below(&self, path: &str) -> bool {
        let prefix = format!("{path}.");
        self.taken.iter().any(|t| t.starts_with(&prefix))
    }

    fn find(&self, path: &str) -> Found {
        let Some(root) = &self.root else { return Found::Nothing };
        let mut table = root.get_ref();
        for part in path.split('.') {
            let Some((_, value)) = table.iter().find(|(k, _)| k.get_ref() == part) else { return Found::Nothing };
            let DeValue::Table(next) = value.get_ref() else { return Found::NotATable(value.span().start) };
            table = next;
        }
        Found::Table(
            table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), key.span().start, plain(value.get_ref())))
                .collect(),
        )
    }
}

enum Found {
    Nothing,
    NotATable(usize),
    Table(Vec<(String, usize, toml::Value)>),
}

/// The value without spans. Integers and floats that do not fit stay text, which the section's type refuses.
fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(s) => toml::Value::String(s.to_string()),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix())
            .map_or_else(|_| toml::Value::String(i.as_str().to_owned()), toml::Value::Integer),
        DeValue::Float(f) => {
            f.as_str().parse().map_or_else(|_| toml::Value::String(f.as_str().to_owned()), toml::Value::Float)
        }
        DeValue::Boolean(b) => toml::Value::Boolean(*b),
        DeValue::Datetime(d) => toml::Value::Datetime(*d),
        DeValue::Array(items) => toml::Value::Array(items.iter().map(|v| plain(v.get_ref())).collect()),
        DeValue::Table(table) => {
            toml::Value::Table(table.iter().map(|(k, v)| (k.get_ref().to_string(), plain(v.get_ref()))).collect())
        }
    }
}

fn one_line_error(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Login {
        window_s: u32,
        scope: String,
    }

    impl Default for Login {
        fn default() -> Self {
            Self { window_s: 900, scope: "principal".to_owned() }
        }
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let text =
            "[classifiers.login]\nwindow_s = -1\nwindows_s = 3\nscope = 7\n\n[classifiers.logon]\nx = 1\n[respnder]\n";
        let mut document = Document::parse("pipeline.toml", text);
        document.expect_table("classifiers");
        let login: Login = document.section("classifiers.login");
        assert_eq!(login.window_s, 900);
        let error = document.finish().unwrap_err();
        let seen: Vec<_> = error.mistakes.iter().map(|m| (m.line, m.key.as_str())).collect();
        assert_eq!(
            seen,
            [
                (2, "classifiers.login.window_s"),
                (3, "classifiers.login.windows_s"),
                (4, "classifiers.login.scope"),
                (6, "classifiers.logon"),
                (8, "respnder"),
            ],
            "{error}"
        );
    }

    #[test]
    fn good_values_replace_defaults() {
        let mut document = Document::parse("pipeline.toml", "[classifiers.login]\nwindow_s = 60\n");
        document.expect_table("classifiers");
        let login: Login = document.section("classifiers.login");
        assert_eq!((login.window_s, login.scope.as_str()), (60, "principal"));
        document.finish().unwrap();
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = Document::parse("pipeline.toml", "[a]\nb = \n").finish().unwrap_err();
        assert_eq!(error.mistakes[0].line, 2, "{error}");
    }
}
