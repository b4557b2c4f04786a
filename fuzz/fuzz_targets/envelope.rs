//! Any text as a message: never a panic, and what `decode` hands out is read again as the same record.

#![no_main]

use aws_classifier::intake::log_groups::LogGroups;
use aws_classifier::intake::{Leaf, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    decode(text, &LogGroups::Any, &mut |leaf| {
        let Ok(leaf) = leaf else { return };
        assert_eq!(Leaf::of(leaf.text), Ok(leaf), "queues carry the text alone");
        let _ = leaf.event();
    });
});
