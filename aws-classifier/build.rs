//! Makes the rules of `rules/` part of the program: what is read from their YAML, packed, so that a start reads none of
//! it; the detections, which repeat one another, deflated, as the size of a function is bounded. Uses the part of
//! `src/rules` that only reads rules.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::DeflateEncoder;

#[path = "src/label.rs"]
mod label;
#[path = "src/selector.rs"]
mod selector;

#[allow(dead_code, reason = "some of it is for those who ask rules about events")]
mod rules {
    #[path = "../src/rules/block_yaml.rs"]
    pub mod block_yaml;
    #[path = "../src/rules/condition.rs"]
    pub mod condition;
    #[path = "../src/rules/detection.rs"]
    pub mod detection;
    #[path = "../src/rules/document.rs"]
    pub mod document;
    #[path = "../src/rules/index.rs"]
    pub mod index;
    #[path = "../src/rules/node.rs"]
    pub mod node;
    #[path = "../src/rules/text.rs"]
    pub mod text;
    #[path = "../src/rules/yaml.rs"]
    pub mod yaml;
    #[path = "../src/rules/yaml_node.rs"]
    pub mod yaml_node;
}

use rules::document::{self, Origin, Packed, PackedBody, Read};
use rules::yaml;

fn main() -> io::Result<()> {
    let variable = |name| env::var(name).map_err(io::Error::other);
    let folder = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("rules");
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed=src/rules");
    println!("cargo::rerun-if-changed=src/label.rs");
    println!("cargo::rerun-if-changed=src/selector.rs");
    let mut paths: Vec<PathBuf> = match fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    paths.sort();
    let mut list = String::from("&[\n");
    let mut packed: Vec<Vec<u8>> = Vec::new();
    let mut detections = Vec::new();
    for path in &paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let documents = pack(&file, &fs::read_to_string(path)?, &mut detections);
        packed.extend(documents.map_err(|why| io::Error::other(format!("{}: {why}", path.display())))?);
        // Writing to a String cannot fail.
        let _ = writeln!(list, "    {file:?},");
    }
    list += "]\n";
    // What postcard writes of a list: its length, then its items.
    let mut all = postcard::to_stdvec(&packed.len()).map_err(io::Error::other)?;
    packed.iter().for_each(|document| all.extend(document));
    let out = PathBuf::from(variable("OUT_DIR")?);
    for (name, packed) in [("own_rules.deflate", all), ("own_detections.deflate", detections)] {
        let mut deflated = DeflateEncoder::new(Vec::new(), Compression::best());
        deflated.write_all(&packed)?;
        fs::write(out.join(name), deflated.finish()?)?;
    }
    fs::write(out.join("own_rules.rs"), list)
}

/// The documents of a file; their detections go to the others.
fn pack(file: &str, text: &str, detections: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    let documents = yaml::documents(text)?;
    let many = documents.len() > 1;
    let mut packed = Vec::with_capacity(documents.len());
    for (at, document) in documents.iter().enumerate() {
        let id = document::id_of(document, file, many.then_some(at), Origin::Own);
        let unpackable = |error: postcard::Error| error.to_string();
        let (head, body) = match document::read(document, Origin::Own)? {
            Read::Rule(head, detection) => {
                let at = detections.len();
                detections.extend(postcard::to_stdvec(&detection).map_err(unpackable)?);
                (head, PackedBody::Detection(at..detections.len()))
            }
            Read::Correlation(head, correlation) => (head, PackedBody::Correlation(correlation)),
            Read::Elsewhere => return Err("is for another log source".to_owned()),
        };
        packed.push(
            postcard::to_stdvec(&Packed { file: file.to_owned().into(), id: id.into(), head, body })
                .map_err(unpackable)?,
        );
    }
    Ok(packed)
}
