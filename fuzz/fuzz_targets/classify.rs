//! Any text through the intake and all classifiers: never a panic, and the same findings when
//! everything is delivered again.

#![no_main]

use aws_classifier::classifiers::ALL;
use aws_classifier::engine::{Engine, Verdict};
use aws_classifier::intake::log_groups::LogGroups;
use aws_classifier::intake::{Leaf, decode};
use libfuzzer_sys::fuzz_target;
use shared::adapters::memory::{MemoryState, NoFiles};

thread_local! {
    static ENGINE: Engine = Engine::with_defaults(ALL, &NoFiles).expect("classifiers accept their own defaults");
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O can be made");
}

fuzz_target!(|text: &str| {
    let mut texts = Vec::new();
    decode(text, &LogGroups::Any, &mut |leaf| texts.extend(leaf.ok().map(|leaf| leaf.text.to_owned())));
    let events: Vec<_> = texts.iter().filter_map(|text| Leaf::of(text).ok()?.event().ok()).collect();
    if events.is_empty() {
        return;
    }
    let state = MemoryState::default();
    let run = || -> Vec<Verdict> {
        ENGINE
            .with(|engine| RUNTIME.with(|runtime| runtime.block_on(engine.run(&events, &state))))
            .expect("memory does not fail")
    };
    let (first, again) = (run(), run());
    let ids = |verdicts: &[Verdict]| -> Vec<String> {
        verdicts.iter().flat_map(|v| &v.findings).map(|f| f.finding_id.to_string()).collect()
    };
    assert_eq!(ids(&first), ids(&again), "a redelivered batch finds the same");
});
