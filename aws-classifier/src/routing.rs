//! The dispatch index: from (source, name) to the classifiers concerned. An event that concerns nobody costs one
//! hash of two short texts, however many classifiers and rules there are.

use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};
use shared::classifier::Pattern;
use shared::event::{Event, EventKind};

/// Position of a classifier in the engine's list.
pub type Slot = u16;

/// The index.
#[derive(Debug, Default)]
pub struct Routes {
    exact: FxHashMap<u64, Vec<Route>>,
    root: Vec<Slot>,
    any: Vec<Slot>,
}

#[derive(Debug)]
struct Route {
    source: &'static str,
    name: &'static str,
    slots: Vec<Slot>,
}

impl Routes {
    /// Adds the patterns of the classifier at `slot`.
    pub fn add(&mut self, slot: Slot, patterns: &[Pattern]) {
        for pattern in patterns {
            match *pattern {
                Pattern::Api { source, names } => names.iter().for_each(|name| self.add_exact(slot, source, name)),
                Pattern::Notification { source, detail_type } => self.add_exact(slot, source, detail_type),
                Pattern::Intake { source, name } => self.add_exact(slot, source, name),
                Pattern::Root => self.root.push(slot),
                Pattern::AnyApi => self.any.push(slot),
            }
        }
    }

    fn add_exact(&mut self, slot: Slot, source: &'static str, name: &'static str) {
        let routes = self.exact.entry(hash(source, name)).or_default();
        let same = |r: &Route| r.source.eq_ignore_ascii_case(source) && r.name.eq_ignore_ascii_case(name);
        match routes.iter_mut().find(|r| same(r)) {
            Some(route) if route.slots.contains(&slot) => {}
            Some(route) => route.slots.push(slot),
            None => routes.push(Route { source, name, slots: vec![slot] }),
        }
    }

    /// The classifiers whose patterns select the event, in list order, each once.
    pub fn concerned(&self, event: &Event<'_>, slots: &mut Vec<Slot>) {
        slots.clear();
        if let Some(routes) = self.exact.get(&hash(&event.source, &event.name)) {
            for route in routes {
                if route.source.eq_ignore_ascii_case(&event.source) && route.name.eq_ignore_ascii_case(&event.name) {
                    slots.extend_from_slice(&route.slots);
                }
            }
        }
        if event.kind == EventKind::CloudTrail {
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

/// A hash that ignores ASCII case, eight bytes at a time. Bit 5 is cleared in every byte, which also folds a few
/// punctuation marks together; the comparison behind it tells them apart.
fn hash(source: &str, name: &str) -> u64 {
    const UPPER: u64 = 0xdfdf_dfdf_dfdf_dfdf;
    let mut hasher = FxHasher::default();
    for text in [source.as_bytes(), name.as_bytes()] {
        let (words, rest) = text.as_chunks::<8>();
        for word in words {
            hasher.write_u64(u64::from_le_bytes(*word) & UPPER);
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hasher.write_u64(u64::from_le_bytes(last) & UPPER);
        hasher.write_usize(text.len());
    }
    hasher.finish()
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

    #[test]
    fn names_match_but_for_case_and_each_classifier_once() {
        let mut routes = Routes::default();
        let keys = Pattern::Api { source: "iam.amazonaws.com", names: &["CreateAccessKey", "createaccesskey"] };
        routes.add(3, &[Pattern::Root]);
        routes.add(1, &[keys, Pattern::Root]);
        assert_eq!(concerned(&routes, &event("IAM.amazonaws.com", "createAccessKey", "IAMUser")), [1]);
        assert_eq!(concerned(&routes, &event("iam.amazonaws.com", "CreateAccessKey", "Root")), [1, 3]);
        assert_eq!(concerned(&routes, &event("iam.amazonaws.com", "CreateAccessKeys", "IAMUser")), [0; 0]);
        assert_eq!(concerned(&routes, &event("sts.amazonaws.com", "CreateAccessKey", "IAMUser")), [0; 0]);
    }
}
