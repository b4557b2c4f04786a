//! Contract suites: what every adapter of a port must do. Each adapter's tests call them; they panic where the contract
//! is broken, and expect an adapter that holds nothing yet.

use crate::ports::Archive;

/// The contract of [`Archive`]; `read` looks at what is stored under a name, past the port.
pub async fn archive_suite(archive: &impl Archive, read: impl Fn(&str) -> Option<Vec<u8>>) {
    archive.put("2026/03/01/one.json", b"first").await.expect("an ordinary name is taken");
    archive.put("two", b"").await.expect("empty content is taken");
    archive.put("2026/03/01/one.json", b"second").await.expect("a name may be written again");
    assert_eq!(read("2026/03/01/one.json").as_deref(), Some(&b"second"[..]), "the last content stays");
    assert_eq!(read("two").as_deref(), Some(&b""[..]));
    let refused =
        ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/./b", "a/..", "c:\\x", "c:/x", "a\\..\\b", "a/", "nul\0"];
    for name in refused {
        let error = archive.put(name, b"x").await.expect_err("a name that leaves its folder is refused");
        assert!(!error.is_retryable(), "{name:?}: trying again does not help");
    }
}
