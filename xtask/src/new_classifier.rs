//! Starts a classifier: a file that compiles, its registration, and a pair of fixtures that pass. What is left to fill
//! in says `REPLACE_ME`; a sweep fails until none is left.

use std::path::Path;

use crate::{read, write};

const CLASSIFIER: &str = include_str!("templates/classifier.rs.txt");
const FIXTURE: &str = include_str!("templates/fixture.json");

/// Writes the files and answers what to do next.
///
/// # Errors
/// The id is malformed or taken, or a file cannot be written.
pub fn run(root: &Path, id: &str) -> Result<Vec<String>, String> {
    check_id(id)?;
    let folder = root.join("aws-classifier/src/classifiers");
    let file = folder.join(format!("{id}.rs"));
    if file.exists() || folder.join(id).exists() {
        return Err(format!("there is a classifier {id} already"));
    }
    let list = folder.join("mod.rs");
    let registered = register(&read(&list)?, id)?;
    let service = id.split('_').next().unwrap_or(id);
    let fill = |template: &str| {
        template
            .replace("@ID@", id)
            .replace("@TYPE@", &type_name(id))
            .replace("@SOURCE@", &format!("{service}.amazonaws.com"))
    };
    write(&file, &fill(CLASSIFIER))?;
    // The twin differs in one field: the name of the parameter the classifier looks at.
    let fires = fill(FIXTURE);
    let ignores = fires.replace("\"REPLACE_ME\": \"", "\"other\": \"");
    write(&folder.join(id).join("fires_example.json"), &fires)?;
    write(&folder.join(id).join("ignores_example.json"), &ignores)?;
    write(&list, &registered)?;
    let path = format!("aws-classifier/src/classifiers/{id}");
    Ok(vec![
        format!("wrote {path}.rs, {path}/fires_example.json, {path}/ignores_example.json"),
        "registered it in aws-classifier/src/classifiers/mod.rs".to_owned(),
        String::new(),
        "Next:".to_owned(),
        format!("  1. fill in what says REPLACE_ME in {path}.rs: header, META, classify"),
        "  2. rename the two fixtures after what they show and add at least one more of each sign".to_owned(),
        "  3. INSTA_UPDATE=always cargo test -p aws-classifier, and read the snapshots it writes".to_owned(),
        "  4. cargo xtask gen".to_owned(),
        "  5. ./scripts/test".to_owned(),
    ])
}

fn check_id(id: &str) -> Result<(), String> {
    let is_word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_good = id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.split('_').all(is_word)
        && id.contains('_')
        && id.len() <= 64
        && id != "mod";
    if is_good {
        Ok(())
    } else {
        Err(format!("{} is no id: snake case, service first, such as s3_bucket_made_public", id.escape_debug()))
    }
}

/// `s3_bucket_made_public` → `S3BucketMadePublic`.
fn type_name(id: &str) -> String {
    id.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// The list with the classifier in it, in its place.
fn register(list: &str, id: &str) -> Result<String, String> {
    let module = format!("pub mod {id};");
    let entry = format!("    plugin::<{id}::{}>(),", type_name(id));
    let with_module = insert_sorted(list, "pub mod ", &module)?;
    insert_sorted(&with_module, "    plugin::<", &entry)
}

/// Puts `line` into the run of lines that begin with `prefix`.
fn insert_sorted(text: &str, prefix: &str, line: &str) -> Result<String, String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(first) = lines.iter().position(|l| l.starts_with(prefix)) else {
        return Err(format!("classifiers/mod.rs has no line that begins with {:?}", prefix.trim()));
    };
    // Ids are compared, not lines: `_` sorts behind `:` and `;`.
    let id = |l: &str| l[prefix.len()..].split([':', ';']).next().unwrap_or_default().to_owned();
    let run = lines[first..].iter().take_while(|l| l.starts_with(prefix)).count();
    let place = lines[first..first + run].iter().position(|l| id(l) > id(line)).unwrap_or(run);
    lines.insert(first + place, line);
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with the real list and nothing else.
    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let list = "aws-classifier/src/classifiers/mod.rs";
        write(&root.path().join(list), &read(&crate::root().join(list)).unwrap()).unwrap();
        root
    }

    fn lines_with<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
        text.lines().filter(|l| l.starts_with(prefix)).collect()
    }

    #[test]
    fn a_new_classifier_is_written_and_registered_in_its_place() {
        let root = workspace();
        let folder = root.path().join("aws-classifier/src/classifiers");
        let before = read(&folder.join("mod.rs")).unwrap();
        let said = run(root.path(), "s3_bucket_made_public").unwrap().join("\n");
        assert!(said.contains("cargo xtask gen"), "{said}");

        let list = read(&folder.join("mod.rs")).unwrap();
        assert_eq!(list.lines().count(), before.lines().count() + 2);
        assert!(list.contains("    plugin::<s3_bucket_made_public::S3BucketMadePublic>(),\n"));
        let ids =
            |text| lines_with(text, "pub mod ").iter().map(|l| l.trim_end_matches(';').to_owned()).collect::<Vec<_>>();
        assert!(ids(&list).is_sorted(), "{list}");
        let entries: Vec<&str> = lines_with(&list, "    plugin::<");
        assert_eq!(entries.len(), ids(&list).len());

        let source = read(&folder.join("s3_bucket_made_public.rs")).unwrap();
        assert!(source.contains("id: \"s3_bucket_made_public\"") && source.contains("pub struct S3BucketMadePublic"));
        assert!(source.contains("source: \"s3.amazonaws.com\"") && !source.contains('@'), "{source}");
        for fixture in ["fires_example.json", "ignores_example.json"] {
            let text = read(&folder.join("s3_bucket_made_public").join(fixture)).unwrap();
            let records: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(records[0]["eventSource"], "s3.amazonaws.com");
        }
    }

    #[test]
    fn ids_first_and_last_in_the_alphabet_find_their_place() {
        let root = workspace();
        for id in ["a_first", "z_last", "security_group_closed_again"] {
            run(root.path(), id).unwrap();
        }
        let list = read(&root.path().join("aws-classifier/src/classifiers/mod.rs")).unwrap();
        let modules = lines_with(&list, "pub mod ");
        assert_eq!((modules[0], modules[modules.len() - 1]), ("pub mod a_first;", "pub mod z_last;"));
        let ids: Vec<String> = modules.iter().map(|l| l.trim_end_matches(';').to_owned()).collect();
        assert!(ids.is_sorted(), "{ids:?}");
    }

    #[test]
    fn bad_and_taken_ids_change_nothing() {
        let root = workspace();
        let list = root.path().join("aws-classifier/src/classifiers/mod.rs");
        let before = read(&list).unwrap();
        for id in ["", "mod", "S3Public", "s3-public", "s3", "_s3_x", "s3__x", "3s_x", "../s3_x", "s3_x.rs"] {
            assert!(run(root.path(), id).is_err(), "{id}");
        }
        assert_eq!(read(&list).unwrap(), before);
        run(root.path(), "s3_x").unwrap();
        let error = run(root.path(), "s3_x").unwrap_err();
        assert_eq!(error, "there is a classifier s3_x already");
    }
}
