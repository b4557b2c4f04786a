//! Makes the rules of `rules/` part of the program: what is read from their YAML, so that a start does not read it again.
//! Reading takes as long as everything else about the rules together.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

#[allow(dead_code)]
#[path = "src/rules/yaml.rs"]
mod yaml;

use yaml::Yaml;

/// What people read and no detector needs; a test asks for some of it in the files.
const FOR_PEOPLE: [&str; 5] = ["author", "date", "description", "falsepositives", "status"];

fn main() -> io::Result<()> {
    let variable = |name| env::var(name).map_err(io::Error::other);
    let folder = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("rules");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut paths: Vec<PathBuf> = match fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    paths.sort();
    println!("cargo::rerun-if-changed=src/rules/yaml.rs");
    let mut list = String::from("&[\n");
    let mut documents = Vec::with_capacity(paths.len());
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let read = yaml::documents(&fs::read_to_string(path)?);
        let mut read = read.map_err(|why| io::Error::other(format!("{}: {why}", path.display())))?;
        for document in &mut read {
            if let Yaml::Map(members) = document {
                members.retain(|(key, _)| !FOR_PEOPLE.contains(&&**key));
            }
        }
        documents.push(read);
        // Writing to a String cannot fail.
        let _ = writeln!(list, "    {name:?},");
    }
    list += "]\n";
    let out = PathBuf::from(variable("OUT_DIR")?);
    fs::write(out.join("own_rules.postcard"), postcard::to_stdvec(&documents).map_err(io::Error::other)?)?;
    fs::write(out.join("own_rules.rs"), list)
}
