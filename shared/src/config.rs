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

use crate::text::one_line;

/// Characters of a file's name that an error shows: as long as paths may be on Linux (`PATH_MAX`).
const FILE_CHARS_MAX: usize = 4_096;
/// Characters of a key that an error shows: our choice, twice what any of ours has.
const KEY_CHARS_MAX: usize = 200;
/// Characters that an error shows of what is wrong: our choice, so that an enum's words and a path fit.
const WHY_CHARS_MAX: usize = 6_000;

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
        // Keys and values may be anything, also what steers a terminal.
        let file = one_line(&self.file, FILE_CHARS_MAX);
        write!(f, "{} {} in {file}", n, if n == 1 { "mistake" } else { "mistakes" })?;
        for m in &self.mistakes {
            write!(f, "\n  {file}:{}: ", m.line)?;
            if !m.key.is_empty() {
                write!(f, "{}: ", one_line(&m.key, KEY_CHARS_MAX))?;
            }
            f.write_str(&one_line(&m.why, WHY_CHARS_MAX))?;
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
    /// Of those, the ones whose own keys were read; sections within them come first.
    read: BTreeSet<String>,
    mistakes: Vec<Mistake>,
}

impl<'t> Document<'t> {
    /// Parses TOML text; a syntax error is kept and reported by [`Document::finish`].
    pub fn parse(file: &str, text: &'t str) -> Self {
        let mut document = Self {
            file: file.to_owned(),
            text,
            root: None,
            taken: BTreeSet::new(),
            read: BTreeSet::new(),
            mistakes: Vec::new(),
        };
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

    /// Many sections may be within what is no table: said once.
    fn not_a_table(&mut self, at: usize, path: &str) {
        let why = "must be a table";
        if !self.mistakes.iter().any(|mistake| mistake.key == path && mistake.why == why) {
            self.mistake(at, path, why.to_owned());
        }
    }

    /// Takes the settings of a table such as `responder` or `classifiers.iam_access_key_created`; what the file
    /// does not say keeps its default. Bad keys are noted and left at their default. A section within another one, such as
    /// `inspection.virustotal`, is taken before it.
    pub fn section<T: DeserializeOwned + Serialize + Default>(&mut self, path: &str) -> T {
        self.section_with(path, |_: &T| Vec::new())
    }

    /// As [`Document::section`], and checks the whole; `check` says what is wrong, naming the keys. A key that is a mistake
    /// already has its default then. It sees the defaults too when the file does not have the section, so it may build
    /// what the settings are for.
    pub fn section_with<T: DeserializeOwned + Serialize + Default>(
        &mut self,
        path: &str,
        check: impl FnOnce(&T) -> Vec<(String, String)>,
    ) -> T {
        self.taken.insert(path.to_owned());
        self.read.insert(path.to_owned());
        let entries = match self.find(path) {
            Found::Nothing => {
                let settings = T::default();
                for (key, why) in check(&settings) {
                    self.mistake(0, &format!("{path}.{key}"), why);
                }
                return settings;
            }
            Found::NotATable(at, path) => {
                self.not_a_table(at, &path);
                return T::default();
            }
            Found::Table(entries) => entries,
        };
        let read = self.read::<T>(path, entries);
        for (key, why) in check(&read.settings) {
            if !read.refused.contains(&key) {
                self.mistake(read.place(&key).unwrap_or(0), &format!("{path}.{key}"), why);
            }
        }
        read.settings
    }

    /// Takes an array of tables such as `[[allow]]`, in the order of the file; none when the file has none. Every key
    /// is optional to the reader: `check` says which are missing or wrong, naming the key (empty for the table). A
    /// mistake about a key that the table does not have stands at its header. Tables with mistakes are left out.
    pub fn tables_with<T: DeserializeOwned + Serialize + Default>(
        &mut self,
        path: &str,
        check: impl Fn(&T) -> Vec<(String, String)>,
    ) -> Vec<T> {
        self.taken.insert(path.to_owned());
        let tables = match self.find_array(path) {
            Ok(tables) => tables,
            Err(at) => {
                self.mistake(at, path, format!("must be tables: write [[{path}]] above each"));
                return Vec::new();
            }
        };
        let mut all = Vec::new();
        for (header, entries) in tables {
            let before = self.mistakes.len();
            let read = self.read::<T>(path, entries);
            for (key, why) in check(&read.settings) {
                if !read.refused.contains(&key) {
                    let place = read.place(&key).unwrap_or(header);
                    let key = if key.is_empty() { path.to_owned() } else { format!("{path}.{key}") };
                    self.mistake(place, &key, why);
                }
            }
            if self.mistakes.len() == before {
                all.push(read.settings);
            }
        }
        all
    }

    /// Tries every key of a table alone over the defaults, so that one bad key does not hide the next.
    fn read<T: DeserializeOwned + Serialize + Default>(&mut self, path: &str, entries: Vec<TableEntry>) -> Read<T> {
        let defaults = toml::Table::try_from(T::default()).expect("settings are tables of plain values");
        let mut settings = defaults.clone();
        let (mut places, mut refused) = (Vec::new(), Vec::new());
        for (key, at, value) in entries {
            let dotted = format!("{path}.{key}");
            if self.taken.contains(&dotted) || self.is_taken_below(&dotted) {
                continue;
            }
            let mut alone = defaults.clone();
            alone.insert(key.clone(), value.clone());
            match alone.try_into::<T>() {
                Ok(_) => {
                    settings.insert(key.clone(), value);
                    places.push((key, at));
                }
                Err(error) => {
                    self.mistake(at, &dotted, one_line_error(&error));
                    refused.push(key);
                }
            }
        }
        Read { settings: settings.try_into().unwrap_or_default(), places, refused }
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
        let (mut unknown, mut flat) = (Vec::new(), Vec::new());
        if let Some(root) = &self.root {
            for (key, value) in root.get_ref() {
                let name = key.get_ref().to_string();
                if !self.taken.contains(&name) && !self.is_taken_below(&name) {
                    unknown.push((key.span().start, name, "unknown section".to_owned()));
                    continue;
                }
                if !self.is_taken_below(&name) || self.read.contains(&name) {
                    continue;
                }
                let DeValue::Table(table) = value.get_ref() else {
                    flat.push((value.span().start, name));
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
        for (at, key) in flat {
            self.not_a_table(at, &key);
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
        let mut end = 0;
        for part in path.split('.') {
            end += part.len();
            let Some((_, value)) = table.iter().find(|(k, _)| k.get_ref() == part) else { return Found::Nothing };
            let DeValue::Table(next) = value.get_ref() else {
                return Found::NotATable(value.span().start, path[..end].to_owned());
            };
            table = next;
            end += 1;
        }
        Found::Table(entries(table))
    }

    /// The tables of an array at the top of the file, each with its place; the place of the value when it is no array
    /// of tables.
    fn find_array(&self, key: &str) -> Result<Vec<(usize, Vec<TableEntry>)>, usize> {
        let found = self.root.as_ref().and_then(|root| root.get_ref().iter().find(|(k, _)| k.get_ref() == key));
        let Some((_, value)) = found else { return Ok(Vec::new()) };
        let DeValue::Array(items) = value.get_ref() else { return Err(value.span().start) };
        items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Table(table) => Ok((item.span().start, entries(table))),
                _ => Err(item.span().start),
            })
            .collect()
    }
}

/// A key, its place in the text and its value.
type TableEntry = (String, usize, toml::Value);

fn entries(table: &DeTable<'_>) -> Vec<TableEntry> {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), key.span().start, plain(value.get_ref()))).collect()
}

/// One table, read key by key.
struct Read<T> {
    settings: T,
    /// The good keys and where they stand.
    places: Vec<(String, usize)>,
    /// The bad ones, reported already.
    refused: Vec<String>,
}

impl<T> Read<T> {
    fn place(&self, key: &str) -> Option<usize> {
        self.places.iter().find(|(k, _)| k == key).map(|(_, at)| *at)
    }
}

enum Found {
    Nothing,
    /// Where, and which part of the path it is.
    NotATable(usize, String),
    Table(Vec<TableEntry>),
}

/// The value without spans. Integers and floats that do not fit stay text, which the section's type refuses. Dates and
/// times are text to settings, written with or without quotes.
fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(s) => toml::Value::String(s.to_string()),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix())
            .map_or_else(|_| toml::Value::String(i.as_str().to_owned()), toml::Value::Integer),
        DeValue::Float(f) => {
            f.as_str().parse().map_or_else(|_| toml::Value::String(f.as_str().to_owned()), toml::Value::Float)
        }
        DeValue::Boolean(b) => toml::Value::Boolean(*b),
        DeValue::Datetime(d) => toml::Value::String(d.to_string()),
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
    fn a_section_that_is_not_there_is_checked_with_its_defaults() {
        for text in ["", "[login]\n", "[logout]\n"] {
            let mut document = Document::parse("pipeline.toml", text);
            let mut seen = None;
            let _: Login = document.section_with("login", |login: &Login| {
                seen = Some(login.window_s);
                Vec::new()
            });
            assert_eq!(seen, Some(900), "{text}");
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
    fn a_bad_key_hides_nothing_of_what_is_wrong_with_the_others() {
        let mut document = Document::parse("pipeline.toml", "[login]\nwindow_s = -1\nscope = \"x\"\n");
        let _: Login = document.section_with("login", |login: &Login| {
            let mut mistakes = vec![("window_s".to_owned(), "is judged by its default".to_owned())];
            if login.scope == "x" {
                mistakes.push(("scope".to_owned(), "is x".to_owned()));
                mistakes.push(("scope".to_owned(), "is short".to_owned()));
            }
            mistakes
        });
        let error = document.finish().unwrap_err();
        let seen: Vec<_> = error.mistakes.iter().map(|m| (m.line, m.key.as_str())).collect();
        assert_eq!(seen, [(2, "login.window_s"), (3, "login.scope"), (3, "login.scope")], "{error}");
    }

    #[test]
    fn what_should_be_a_table_of_sections_and_is_not_is_one_mistake() {
        let mut document = Document::parse("pipeline.toml", "classifiers = 3\n[geo]\n");
        document.expect_table("classifiers");
        let _: Login = document.section("classifiers.login");
        let _: Login = document.section("classifiers.logout");
        let _: Login = document.section("geo");
        let error = document.finish().unwrap_err();
        assert_eq!(error.to_string(), "1 mistake in pipeline.toml\n  pipeline.toml:1: classifiers: must be a table");
    }

    #[test]
    fn good_values_replace_defaults() {
        let mut document = Document::parse("pipeline.toml", "[classifiers.login]\nwindow_s = 60\n");
        document.expect_table("classifiers");
        let login: Login = document.section("classifiers.login");
        assert_eq!((login.window_s, login.scope.as_str()), (60, "principal"));
        document.finish().unwrap();
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Room {
        name: String,
        until: String,
        seats: u32,
    }

    fn named(room: &Room) -> Vec<(String, String)> {
        if room.name.is_empty() { vec![("name".to_owned(), "is missing".to_owned())] } else { Vec::new() }
    }

    #[test]
    fn every_table_of_an_array_is_read_and_its_mistakes_have_their_lines() {
        let text = "[[room]]\nname = \"a\"\nuntil = 2027-01-31\n\n[[room]]\nseats = -1\nsets = 3\n\n[[room]]\nname = \"\"\n\n[[room]]\nname = \"d\"\nuntil = \"x\"\n";
        let mut document = Document::parse("pipeline.toml", text);
        let rooms: Vec<Room> = document.tables_with("room", named);
        let seen: Vec<_> = rooms.iter().map(|r| (r.name.as_str(), r.until.as_str())).collect();
        assert_eq!(seen, [("a", "2027-01-31"), ("d", "x")]);
        let error = document.finish().unwrap_err();
        let seen: Vec<_> = error.mistakes.iter().map(|m| (m.line, m.key.as_str())).collect();
        assert_eq!(seen, [(5, "room.name"), (6, "room.seats"), (7, "room.sets"), (10, "room.name")], "{error}");
    }

    #[test]
    fn what_should_be_an_array_of_tables_and_is_not_is_named() {
        for (text, line) in [("\n[room]\nname = \"a\"\n", 2), ("room = 3\n", 1), ("room = [1]\n", 1)] {
            let mut document = Document::parse("pipeline.toml", text);
            assert!(document.tables_with::<Room>("room", named).is_empty());
            let error = document.finish().unwrap_err();
            assert_eq!((error.mistakes.len(), error.mistakes[0].line), (1, line), "{error}");
        }
        let mut document = Document::parse("pipeline.toml", "");
        assert!(document.tables_with::<Room>("room", named).is_empty());
        document.finish().unwrap();
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let error = Document::parse("pipeline.toml", "[a]\nb = \n").finish().unwrap_err();
        assert_eq!(error.mistakes[0].line, 2, "{error}");
    }
}
