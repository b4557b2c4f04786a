//! The dispatch index: from (source, name) to the detectors concerned. An event that concerns nobody costs a few hashes
//! of two short texts, however many classifiers and rules there are.

use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};
use shared::event::{Event, EventKind};

use crate::label::Label;
use crate::registry::Selector;

/// Position of a detector in the engine's list.
pub type Slot = u32;

/// The index.
#[derive(Debug, Default)]
pub struct Routes {
    exact: Table,
    /// CloudTrail records of a source, whatever their name, and the other way round; the missing text is empty.
    by_source: Table,
    by_name: Table,
    root: Vec<Slot>,
    any: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Table(FxHashMap<u64, Vec<Route>>);

#[derive(Debug)]
struct Route {
    source: Label,
    name: Label,
    slots: Vec<Slot>,
}

/// A text with its hash.
#[derive(Clone, Copy)]
struct Text<'t> {
    text: &'t str,
    hash: u64,
}

impl<'t> Text<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, hash: hash(text) }
    }

    const NONE: Self = Self { text: "", hash: 0 };
}

impl Table {
    fn add(&mut self, slot: Slot, source: Option<&Label>, name: Option<&Label>) {
        let [source_text, name_text] = [source, name].map(|label| label.map_or(Text::NONE, |label| Text::new(label)));
        let routes = self.0.entry(both(source_text, name_text)).or_default();
        match routes.iter_mut().find(|route| route.is_for(source_text, name_text)) {
            Some(route) => push(&mut route.slots, slot),
            None => {
                let [source, name] = [source, name].map(|label| label.cloned().unwrap_or_default());
                routes.push(Route { source, name, slots: vec![slot] });
            }
        }
    }

    #[inline]
    fn find(&self, source: Text<'_>, name: Text<'_>, slots: &mut Vec<Slot>) {
        if self.0.is_empty() {
            return;
        }
        if let Some(routes) = self.0.get(&both(source, name)) {
            for route in routes.iter().filter(|route| route.is_for(source, name)) {
                slots.extend_from_slice(&route.slots);
            }
        }
    }
}

impl Route {
    fn is_for(&self, source: Text<'_>, name: Text<'_>) -> bool {
        self.source.eq_ignore_ascii_case(source.text) && self.name.eq_ignore_ascii_case(name.text)
    }
}

impl Routes {
    /// Adds what the detector at `slot` selects. Detectors are added in the order of their slots.
    pub fn add(&mut self, slot: Slot, selectors: &[Selector]) {
        for selector in selectors {
            match (selector.source.as_ref(), selector.name.as_ref()) {
                (source @ Some(_), name @ Some(_)) => self.exact.add(slot, source, name),
                (source @ Some(_), None) => self.by_source.add(slot, source, None),
                (None, name @ Some(_)) => self.by_name.add(slot, None, name),
                (None, None) => push(if selector.root { &mut self.root } else { &mut self.any }, slot),
            }
        }
    }

    /// The detectors whose selectors may select the event, in list order, each once.
    pub fn concerned(&self, event: &Event<'_>, slots: &mut Vec<Slot>) {
        slots.clear();
        let (source, name) = (Text::new(&event.source), Text::new(&event.name));
        self.exact.find(source, name, slots);
        if event.kind == EventKind::CloudTrail {
            self.by_source.find(source, Text::NONE, slots);
            self.by_name.find(Text::NONE, name, slots);
            if event.identity_type == "Root" {
                slots.extend_from_slice(&self.root);
            }
            slots.extend_from_slice(&self.any);
        }
        if slots.len() > 1 {
            slots.sort_unstable();
            slots.dedup();
        }
    }
}

fn push(slots: &mut Vec<Slot>, slot: Slot) {
    if slots.last() != Some(&slot) {
        slots.push(slot);
    }
}

/// A hash that ignores ASCII case, eight bytes at a time. Bit 5 is cleared in every byte, which also folds a few
/// punctuation marks together; the comparison behind it tells them apart.
fn hash(text: &str) -> u64 {
    const UPPER: u64 = 0xdfdf_dfdf_dfdf_dfdf;
    let mut hasher = FxHasher::default();
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    for word in words {
        hasher.write_u64(u64::from_le_bytes(*word) & UPPER);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    hasher.write_u64(u64::from_le_bytes(last) & UPPER);
    hasher.write_usize(text.len());
    hasher.finish()
}

/// The hash of a pair.
const fn both(source: Text<'_>, name: Text<'_>) -> u64 {
    source.hash.rotate_left(32) ^ name.hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: &str, name: &str, identity: &str) -> String {
        format!(
            r#"{{"eventTime":"2026-03-01T00:00:00Z","eventSource":"{source}","eventName":"{name}","userIdentity":{{"type":"{identity}"}}}}"#
        )
    }

    fn concerned(routes: &Routes, record: &str) -> Vec<Slot> {
        let mut slots = Vec::new();
        routes.concerned(&Event::from_cloudtrail(record).unwrap(), &mut slots);
        slots
    }

    fn selector(source: Option<&str>, name: Option<&str>, root: bool) -> Selector {
        let label = |text: &str| text.to_owned().into();
        Selector { notification: false, source: source.map(label), name: name.map(label), root }
    }

    #[test]
    fn names_match_but_for_case_and_each_detector_once() {
        let mut routes = Routes::default();
        let (iam, root) = (Some("iam.amazonaws.com"), selector(None, None, true));
        let key = selector(iam, Some("CreateAccessKey"), false);
        routes.add(1, &[key, selector(iam, Some("createaccesskey"), false), root.clone()]);
        routes.add(3, &[root]);
        assert_eq!(concerned(&routes, &event("IAM.amazonaws.com", "createAccessKey", "IAMUser")), [1]);
        assert_eq!(concerned(&routes, &event("iam.amazonaws.com", "CreateAccessKey", "Root")), [1, 3]);
        assert_eq!(concerned(&routes, &event("iam.amazonaws.com", "CreateAccessKeys", "IAMUser")), [0; 0]);
        assert_eq!(concerned(&routes, &event("sts.amazonaws.com", "CreateAccessKey", "IAMUser")), [0; 0]);
    }

    #[test]
    fn a_source_a_name_or_nothing_may_be_enough() {
        let mut routes = Routes::default();
        routes.add(0, &[selector(Some("iam.amazonaws.com"), None, false)]);
        routes.add(1, &[selector(None, Some("ConsoleLogin"), false)]);
        routes.add(2, &[Selector::ANY_CALL]);
        assert_eq!(concerned(&routes, &event("Iam.amazonaws.com", "CreateUser", "IAMUser")), [0, 2]);
        assert_eq!(concerned(&routes, &event("signin.amazonaws.com", "consolelogin", "IAMUser")), [1, 2]);
        assert_eq!(concerned(&routes, &event("ec2.amazonaws.com", "RunInstances", "IAMUser")), [2]);
    }
}
