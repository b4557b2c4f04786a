//! What makes two runs the same run.

use crate::source::Input;

/// A key for these inputs, the same for the same files (by absolute name and size), settings and program, in whatever
/// order the inputs are named. With anything else everything is read again; what was found before keeps its id, so it
/// is neither kept nor told twice.
pub fn progress_key(inputs: &[Input], settings: &str) -> String {
    let mut files: Vec<_> = inputs
        .iter()
        .filter_map(|input| Some((input.path.as_ref()?, input.bytes)))
        .map(|(path, bytes)| (path.canonicalize().unwrap_or_else(|_| path.clone()), bytes))
        .collect();
    files.sort();
    let mut hash = Fnv::default();
    hash.add(env!("CARGO_PKG_VERSION").as_bytes());
    hash.add(settings.as_bytes());
    for (path, size) in files {
        hash.add(path.as_os_str().as_encoded_bytes());
        hash.add(&size.to_le_bytes());
    }
    format!("intake/{:016x}", hash.0)
}

/// FNV-1a, 64 bits: stable for ever, unlike the standard library's hasher.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds a text and its length, so that neighbours cannot trade bytes.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().copied().chain((bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::source;

    #[test]
    fn the_key_follows_names_sizes_and_settings_and_not_the_order() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.json"), folder.path().join("b.json"));
        fs::write(&a, "1").unwrap();
        fs::write(&b, "22").unwrap();
        let key = |paths: &[&Path], settings: &str| {
            let paths: Vec<PathBuf> = paths.iter().map(|p| p.to_path_buf()).collect();
            progress_key(&source::inputs(&paths).unwrap(), settings)
        };
        let both = key(&[&a, &b], "");
        assert_eq!(both, key(&[&b, &a], ""));
        assert_eq!(both, key(&[folder.path()], ""));
        assert_ne!(both, key(&[&a], ""));
        assert_ne!(both, key(&[&a, &b], "x"));
        fs::write(&b, "333").unwrap();
        assert_ne!(both, key(&[&a, &b], ""));
    }
}
