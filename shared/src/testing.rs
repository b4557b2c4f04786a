//! Contract suites: what every adapter of a port must do. Each adapter's tests call them.
