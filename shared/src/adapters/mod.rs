//! Implementations of the ports.

#[cfg(feature = "aws")]
pub mod aws;
pub mod disk;
pub mod embedded;
#[cfg(any(test, feature = "testing"))]
pub mod loopback;
pub mod memory;
#[cfg(feature = "web")]
pub mod web;
