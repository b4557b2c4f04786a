//! Implementations of the ports.

pub mod disk;
pub mod embedded;
pub mod memory;
