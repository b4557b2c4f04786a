//! The port for files that settings name. Apart from the others, as it knows no type of ours.

/// Files that settings name: lists, databases, rules.
pub trait Files {
    /// The whole content.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong.
    fn read(&self, name: &str) -> Result<Vec<u8>, String>;

    /// The names of all files below a folder (or the one file that `folder` is), sorted, as [`Files::read`] takes them.
    ///
    /// # Errors
    /// A sentence that names the folder and what is wrong.
    fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        Err(format!("folders cannot be listed here, so not {folder}"))
    }
}

impl<T: Files + ?Sized> Files for &T {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        (**self).read(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        (**self).list(folder)
    }
}
