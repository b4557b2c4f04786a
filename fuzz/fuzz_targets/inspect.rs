//! Any bytes as an uploaded file: never a panic, the same report again, and a part of a file has no hash. The first line
//! is the file's name.

#![no_main]

use aws_classifier::inspect::{Inspector, Object, Settings};
use libfuzzer_sys::fuzz_target;
use shared::adapters::memory::NoFiles;

thread_local! {
    static INSPECTOR: Inspector =
        Inspector::new(Settings::default(), &NoFiles).expect("the inspection accepts its own defaults");
}

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (name, content) = (String::from_utf8_lossy(&input[..end]), &input[end..]);
    let content = content.get(1..).unwrap_or_default();
    INSPECTOR.with(|inspector| {
        let object = Object { name: &name, content_type: Some("text/plain"), size: content.len() as u64, content };
        let report = inspector.inspect(&object);
        assert_eq!(report, inspector.inspect(&object), "the same file, the same report");
        let worst = report.reasons.iter().map(|reason| reason.judgement).max().unwrap_or_default();
        assert!(report.judgement >= worst, "no reason is worse than the judgement");
        let cut = inspector.inspect(&Object { size: object.size + 1, ..object });
        assert!(cut.sha256.is_none() && cut.tlsh.is_none(), "a hash of a part is none");
    });
});
