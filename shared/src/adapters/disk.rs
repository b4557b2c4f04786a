//! The machine's own clock, files and folders.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::ports::{Archive, Clock, Files, PortError, PortResult, check_archive_name};
use crate::time::Timestamp;

/// Larger files are refused: settings name lists and databases, the largest we know (city-level geo data) has 130 MB.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }
}

/// [`Files`] on disk; relative names are resolved against a base folder.
#[derive(Clone, Debug)]
pub struct DiskFiles {
    base: PathBuf,
}

impl DiskFiles {
    /// Files relative to `base`, the folder of the configuration file.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }
}

impl Files for DiskFiles {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        if name.starts_with("s3://") {
            return Err(format!("{name} is an object, which only a deployed function reads; name a file here"));
        }
        let path = self.base.join(name);
        let shown = path.display();
        let file = fs::File::open(&path).map_err(|e| format!("could not open {shown}: {e}"))?;
        let metadata = file.metadata().map_err(|e| format!("could not read {shown}: {e}"))?;
        if metadata.is_dir() {
            return Err(format!("could not read {shown}: it is a folder"));
        }
        let too_large = || format!("{shown} is larger than {} MiB", MAX_FILE_BYTES >> 20);
        if metadata.len() > MAX_FILE_BYTES {
            return Err(too_large());
        }
        let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(|e| format!("could not read {shown}: {e}"))?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(too_large());
        }
        Ok(content)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        let mut left = vec![self.base.join(folder)];
        while let Some(path) = left.pop() {
            let failed = |e| format!("could not read {}: {e}", path.display());
            if !fs::metadata(&path).map_err(failed)?.is_dir() {
                names.push(path.to_str().ok_or_else(|| format!("{} is no UTF-8 name", path.display()))?.to_owned());
                continue;
            }
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                // Links to folders could lead round in circles.
                if !(entry.file_type().map_err(failed)?.is_symlink() && entry.path().is_dir()) {
                    left.push(entry.path());
                }
            }
        }
        names.sort();
        Ok(names)
    }
}

/// [`Archive`] in a folder, which is made when needed. A name appears with its whole content or not at all.
#[derive(Clone, Debug)]
pub struct FolderArchive {
    folder: PathBuf,
}

impl FolderArchive {
    /// An archive in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn write(&self, path: &Path, content: &[u8]) -> std::io::Result<()> {
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent)?;
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    }
}

impl Archive for FolderArchive {
    async fn put(&self, name: &str, content: &[u8]) -> PortResult<()> {
        check_archive_name(name)?;
        let path = self.folder.join(name);
        self.write(&path, content).map_err(|e| PortError::retryable(format!("could not write {}", path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::archive_suite;

    #[tokio::test]
    async fn a_folder_keeps_the_archive_contract() {
        let folder = tempfile::tempdir().unwrap();
        let archive = FolderArchive::new(folder.path().join("made/when/needed"));
        archive_suite(&archive, |name| fs::read(folder.path().join("made/when/needed").join(name)).ok()).await;
    }

    #[test]
    fn relative_names_are_resolved_against_the_base_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("list.txt"), "192.0.2.1").unwrap();
        let files = DiskFiles::new(folder.path());
        assert_eq!(files.read("list.txt").unwrap(), b"192.0.2.1");
        assert_eq!(files.read(folder.path().join("list.txt").to_str().unwrap()).unwrap(), b"192.0.2.1");
    }

    #[test]
    fn unreadable_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = DiskFiles::new(folder.path());
        assert!(files.read("missing.txt").unwrap_err().contains("missing.txt"));
        assert!(files.read(".").unwrap_err().contains("it is a folder"));
        assert!(files.read("s3://b/k").unwrap_err().contains("s3://b/k is an object"));
    }

    #[test]
    fn a_folder_is_listed_with_all_below_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("rules/more")).unwrap();
        for name in ["rules/b.yml", "rules/more/a.yml", "other.yml"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let files = DiskFiles::new(folder.path());
        let names = files.list("rules").unwrap();
        let texts: Vec<_> = names.iter().map(|name| String::from_utf8(files.read(name).unwrap()).unwrap()).collect();
        assert_eq!(texts, ["rules/b.yml", "rules/more/a.yml"]);
        assert_eq!(files.list("other.yml").unwrap().len(), 1);
        assert!(files.list("missing").unwrap_err().contains("missing"));
    }

    #[test]
    fn files_above_the_limit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::File::create(folder.path().join("huge")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(DiskFiles::new(folder.path()).read("huge").unwrap_err().contains("256 MiB"));
    }
}
