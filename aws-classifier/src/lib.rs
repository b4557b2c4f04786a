//! The classifier.
