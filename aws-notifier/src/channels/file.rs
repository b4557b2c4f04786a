//! One text file an alert in a folder, so that names sort by time and a redelivery replaces its file.
//!
//! Files are written under a temporary name and renamed: a reader never sees half an alert, and a `kill -9` leaves
//! at most one `.tmp` file behind. They are not synced one by one; a power cut may cost the last ones.

use std::fs;
use std::path::{Path, PathBuf};

use shared::Timestamp;

use super::{Channel, ChannelError, Delivery};
use crate::message::Alert;

/// A folder of alerts.
#[derive(Clone, Debug)]
pub struct FileFolder {
    folder: PathBuf,
}

impl FileFolder {
    /// Makes the folder when it does not exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> std::io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Where the alert is, or would be.
    pub fn path_of(&self, alert: &Alert) -> PathBuf {
        self.folder.join(file_name(alert))
    }

    fn write(&self, alert: &Alert) -> std::io::Result<PathBuf> {
        let path = self.path_of(alert);
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, format!("Subject: {}\n\n{}", alert.subject, alert.body))?;
        fs::rename(&temporary, &path)?;
        Ok(path)
    }
}

impl Channel for FileFolder {
    fn id(&self) -> &'static str {
        "file"
    }

    fn deliver<'a>(&'a self, alert: &'a Alert) -> Delivery<'a> {
        Box::pin(async move {
            let path = self.write(alert).map_err(|e| failure(&self.folder, e))?;
            Ok(path.display().to_string())
        })
    }
}

fn failure(folder: &Path, error: std::io::Error) -> ChannelError {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    let what = format!("could not write an alert into {}: {error}", folder.display());
    match error.kind() {
        NotFound | NotADirectory | PermissionDenied | ReadOnlyFilesystem => ChannelError::permanent(what, error),
        _ => ChannelError::retryable(what, error),
    }
}

/// `<time>_<severity>_<classifier>_<id>.txt`, all of it from a safe alphabet whatever the id holds. Below 255 bytes,
/// the limit of common file systems.
fn file_name(alert: &Alert) -> String {
    format!(
        "{}_{}_{}_{}.txt",
        sortable(alert.event_time),
        alert.severity,
        safe(&alert.classifier, 64),
        safe(&alert.id, 100)
    )
}

/// `20260301T120000.000Z`: always the same width, so that names sort by time.
fn sortable(time: Timestamp) -> String {
    let ms = time.as_millis();
    let second = Timestamp::from_millis(ms - ms.rem_euclid(1000)).to_string();
    format!("{}.{:03}Z", second.trim_end_matches('Z').replace([':', '-'], ""), ms.rem_euclid(1000))
}

/// Letters, digits, `.`, `_` and `-`; text that had to change or was too long ends in a hash of the whole, so that
/// two ids never share a file.
fn safe(text: &str, max: usize) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let shown: String = text.chars().take(max).map(|c| if keep(c) { c } else { '-' }).collect();
    if shown == text { shown } else { format!("{shown}-{:016x}", fnv1a(text.as_bytes())) }
}

/// FNV-1a, 64 bits: stable for ever, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests_support::finding;

    #[tokio::test]
    async fn a_redelivery_replaces_its_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let channel = FileFolder::open(folder.path().join("alerts")).expect("made");
        let alert = Alert::of_finding(&finding(), &[], 1);
        let first = channel.deliver(&alert).await.expect("delivered");
        let again = channel.deliver(&alert).await.expect("delivered");
        assert_eq!(first, again);
        let names: Vec<_> = fs::read_dir(folder.path().join("alerts"))
            .expect("readable")
            .map(|e| e.expect("an entry").file_name().into_string().expect("ASCII"))
            .collect();
        assert_eq!(names.len(), 1);
        assert!(names[0].starts_with("20260301T120000.000Z_high_iam_access_key_created_"), "{names:?}");
        let text = fs::read_to_string(first).expect("written");
        assert!(text.starts_with("Subject: [HIGH]"), "{text}");
    }

    #[test]
    fn hostile_ids_stay_in_the_folder_and_apart() {
        let mut alert = Alert::of_finding(&finding(), &[], 1);
        alert.id = "../../etc/passwd\0\n".to_owned();
        let one = file_name(&alert);
        alert.id = "..-..-etc-passwd--".to_owned();
        let other = file_name(&alert);
        assert!(!one.contains('/') && !one.contains('\0') && !one.contains('\n'), "{one}");
        assert_ne!(one, other);
        alert.id = "x".repeat(5000);
        assert!(file_name(&alert).len() < 255);
    }

    #[tokio::test]
    async fn a_vanished_folder_is_permanent() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let channel = FileFolder::open(folder.path().join("alerts")).expect("made");
        fs::remove_dir(folder.path().join("alerts")).expect("removed");
        let error = channel.deliver(&Alert::of_finding(&finding(), &[], 1)).await.expect_err("no folder");
        assert!(!error.retryable);
    }
}
