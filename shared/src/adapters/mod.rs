//! Implementations of the ports.

#[cfg(feature = "aws")]
pub mod aws;
pub mod disk;
pub mod embedded;
pub mod memory;
