//! The classifiers: one file each, listed here and nowhere else.

use crate::registry::Plugin;

/// Every classifier, in alphabetical order of its id.
pub static ALL: &[Plugin] = &[];
