//! Which events a detection can match at all, found from its structure, so that it is looked at for no others.
//!
//! What is found is an upper bound: every event the detection holds for is among them. A part that says nothing about
//! source or name, or says it in a way the index does not know (a wildcard, a `not`), bounds nothing.

use super::node::{Node, Test, Value};
use crate::label::Label;
use crate::selector::Selector;

/// A detection that names more pairs than this is bounded less tightly.
const SELECTORS_MAX: usize = 512;

/// The selectors of a detection, sorted, each once.
pub fn selectors(node: &Node) -> Vec<Selector> {
    let mut found = bound(node);
    found.sort();
    found.dedup();
    found
}

/// What is left to test of an event that one of the selectors selected: all but what source and name settle.
pub fn left_to_test(node: &Node, selectors: &[Selector]) -> Node {
    let is_settled = |node: &Node| selectors.iter().all(|selector| holds_for(node, selector));
    match node {
        Node::All(nodes) => Node::All(nodes.iter().filter(|node| !is_settled(node)).cloned().collect()),
        node if is_settled(node) => Node::All(Vec::new()),
        node => node.clone(),
    }
}

/// Whether it holds for every event of this source and name, as far as these two alone tell. A selector's `root` settles
/// nothing: it is not looked at where source and name are found.
fn holds_for(node: &Node, selector: &Selector) -> bool {
    match node {
        Node::All(nodes) => nodes.iter().all(|node| holds_for(node, selector)),
        Node::Some(least, nodes) => {
            nodes.iter().filter(|node| holds_for(node, selector)).take(*least).count() == *least
        }
        Node::Not(_) | Node::Keyword(_) => false,
        Node::Test(test) => {
            let text = match &*test.field {
                "eventSource" => &selector.source,
                "eventName" => &selector.name,
                _ => return false,
            };
            let is = |text: &str, value: &Value| {
                !value.is_cased() && value.literal().is_some_and(|literal| literal.eq_ignore_ascii_case(text))
            };
            text.as_deref().is_some_and(|text| test.values.iter().any(|value| is(text, value)))
        }
    }
}

fn bound(node: &Node) -> Vec<Selector> {
    match node {
        Node::All(nodes) => nodes.iter().map(bound).fold(vec![Selector::ANY_CALL], |a, b| both(&a, &b)),
        // At least so many of them hold, so at least one of all but so many less one.
        Node::Some(least, nodes) => {
            let enough = nodes.len().saturating_sub(least.saturating_sub(1));
            union(nodes.iter().take(enough).flat_map(bound).collect())
        }
        Node::Not(_) | Node::Keyword(_) => vec![Selector::ANY_CALL],
        Node::Test(test) => of_test(test),
    }
}

fn of_test(test: &Test) -> Vec<Selector> {
    let anything = || vec![Selector::ANY_CALL];
    if !matches!(&*test.field, "eventSource" | "eventName" | "userIdentity.type") {
        return anything();
    }
    let literal = |value: &Value| value.literal().filter(|text| text.is_ascii()).map(|text| text.into_owned().into());
    let Some(texts) = test.values.iter().map(literal).collect::<Option<Vec<Label>>>() else { return anything() };
    match &*test.field {
        "eventSource" => texts.into_iter().map(|t| Selector { source: Some(t), ..Selector::ANY_CALL }).collect(),
        "eventName" => texts.into_iter().map(|t| Selector { name: Some(t), ..Selector::ANY_CALL }).collect(),
        _ if texts.iter().all(|t| t.eq_ignore_ascii_case("root")) => {
            vec![Selector { root: true, ..Selector::ANY_CALL }]
        }
        _ => anything(),
    }
}

/// Events that are in both. When that becomes too many pairs, the first bound alone is one too.
fn both(a: &[Selector], b: &[Selector]) -> Vec<Selector> {
    if a.len().saturating_mul(b.len()) > SELECTORS_MAX * 4 {
        return a.to_vec();
    }
    let mut found = Vec::new();
    for a in a {
        for b in b {
            let (Some(source), Some(name)) = (meet(&a.source, &b.source), meet(&a.name, &b.name)) else { continue };
            found.push(Selector { notification: false, source, name, root: a.root || b.root });
        }
    }
    union(found)
}

/// What two bounds on one text allow; `None` when nothing.
fn meet(a: &Option<Label>, b: &Option<Label>) -> Option<Option<Label>> {
    match (a, b) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b).then(|| Some(a.clone())),
        (Some(text), None) | (None, Some(text)) => Some(Some(text.clone())),
        (None, None) => Some(None),
    }
}

fn union(mut found: Vec<Selector>) -> Vec<Selector> {
    if found.contains(&Selector::ANY_CALL) {
        return vec![Selector::ANY_CALL];
    }
    if found.len() > SELECTORS_MAX {
        for selector in &mut found {
            selector.name = None;
        }
    }
    found.sort();
    found.dedup();
    if found.len() > SELECTORS_MAX || found.contains(&Selector::ANY_CALL) { vec![Selector::ANY_CALL] } else { found }
}
