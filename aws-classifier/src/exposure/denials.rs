//! What the denials of a policy leave of what it allows.

use std::collections::{BTreeMap, BTreeSet};

use super::conditions::Limit;
use super::effort::Effort;
use super::scope::Scope;

/// A `Deny` that concerns everyone but some.
pub(super) struct Denial<'s> {
    pub(super) actions: &'s Scope,
    pub(super) resources: &'s Scope,
    /// Whom it leaves; `None` for nobody.
    pub(super) spared: Option<Limit>,
}

impl Denial<'_> {
    pub(super) const fn spares_nobody(&self) -> bool {
        self.spared.is_none()
    }

    /// How many names it is to compare with it.
    fn names(&self) -> u64 {
        if let Some(Limit::Accounts(accounts)) = &self.spared { accounts.len() as u64 } else { 1 }
    }
}

/// What is left of an opening.
pub(super) struct Left<'p> {
    /// Actions of which some resource stays open.
    pub(super) actions: BTreeSet<&'p str>,
    /// Resources of which some action stays open.
    pub(super) resources: BTreeSet<&'p str>,
    /// Accounts that the denials leave the rest to.
    pub(super) spared: BTreeSet<String>,
}

/// Takes back, pair of action and resource by pair, what denials cover. Pairs that the same denials cover are one.
pub(super) fn left<'p>(
    actions: &BTreeSet<&'p str>,
    resources: &BTreeSet<&'p str>,
    denials: &[&Denial<'_>],
    effort: &mut Effort,
) -> Left<'p> {
    cut(actions, resources, denials, effort).unwrap_or_else(|| Left {
        actions: actions.clone(),
        resources: resources.clone(),
        spared: BTreeSet::new(),
    })
}

/// `None` when it costs too much.
fn cut<'p>(
    actions: &BTreeSet<&'p str>,
    resources: &BTreeSet<&'p str>,
    denials: &[&Denial<'_>],
    effort: &mut Effort,
) -> Option<Left<'p>> {
    let of_actions: Vec<&Scope> = denials.iter().map(|d| d.actions).collect();
    let of_resources: Vec<&Scope> = denials.iter().map(|d| d.resources).collect();
    let (by_action, by_resource) = (alike(actions, &of_actions, effort)?, alike(resources, &of_resources, effort)?);
    let mut open = (vec![false; by_action.len()], vec![false; by_resource.len()]);
    let mut spared = BTreeSet::new();
    let mut known: BTreeMap<Vec<bool>, bool> = BTreeMap::new();
    for (a, action_by) in by_action.keys().enumerate() {
        for (r, resource_by) in by_resource.keys().enumerate() {
            if !effort.spend(16 * (1 + denials.len() as u64)) {
                return None;
            }
            let both: Vec<bool> = action_by.iter().zip(resource_by).map(|(a, r)| *a && *r).collect();
            let is_open = match known.get(&both) {
                Some(is_open) => *is_open,
                None => {
                    let is_open = match remaining(&both, denials, effort)? {
                        Some(Limit::None) => true,
                        Some(Limit::Accounts(accounts)) => {
                            spared.extend(accounts);
                            false
                        }
                        Some(Limit::Fixed) | None => false,
                    };
                    known.insert(both, is_open);
                    is_open
                }
            };
            open.0[a] |= is_open;
            open.1[r] |= is_open;
        }
    }
    let parts = |alike: BTreeMap<_, Vec<&'p str>>, open: Vec<bool>| {
        alike.into_values().zip(open).filter(|(_, is_open)| *is_open).flat_map(|(parts, _)| parts).collect()
    };
    Some(Left { actions: parts(by_action, open.0), resources: parts(by_resource, open.1), spared })
}

/// The parts, by which of the scopes cover them.
fn alike<'p>(
    parts: &BTreeSet<&'p str>,
    scopes: &[&Scope],
    effort: &mut Effort,
) -> Option<BTreeMap<Vec<bool>, Vec<&'p str>>> {
    let bytes: u64 = scopes.iter().map(|scope| scope.bytes()).sum();
    let mut groups: BTreeMap<Vec<bool>, Vec<&str>> = BTreeMap::new();
    for part in parts {
        // A glob of many stars is compared with every byte of the part.
        if !effort.spend((part.len() as u64 + 1) * bytes) {
            return None;
        }
        groups.entry(scopes.iter().map(|scope| scope.covers(part)).collect()).or_default().push(part);
    }
    Some(groups)
}

/// Whom these denials leave together; nobody in the inner sense. `None` when it costs too much.
#[expect(clippy::option_option, reason = "the outer one is about effort, the inner one about whom")]
fn remaining(by: &[bool], denials: &[&Denial<'_>], effort: &mut Effort) -> Option<Option<Limit>> {
    let mut limit = Some(Limit::None);
    for (denial, covers) in denials.iter().zip(by) {
        if *covers {
            if !effort.spend(64 * denial.names()) {
                return None;
            }
            limit = limit.zip(denial.spared.clone()).map(|(limit, spared)| limit.and(spared));
        }
    }
    Some(limit)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use serde_json::{Value, json};

    use super::super::{Audience, Trust, judge};
    use super::*;

    /// Many pairs, all of which other denials cover, each with names of its own.
    fn hostile(parts: usize, denials: usize, names: usize) -> Value {
        let named = |prefix: &str, i: usize| {
            let mut text = prefix.to_owned();
            let _ = write!(text, "{i:x}");
            text
        };
        let mut statements = vec![json!({"Effect": "Allow", "Principal": "*",
            "Action": (0..parts).map(|i| named("s3:", i)).collect::<Vec<_>>(),
            "Resource": (0..parts).map(|i| named("*", i)).collect::<Vec<_>>()})];
        statements.extend((0..denials).map(|d| {
            let accounts: Vec<String> = (0..names).map(|j| (100_000_000_000 + d * names + j).to_string()).collect();
            json!({"Effect": "Deny", "Principal": "*", "Action": [format!("s3:*{d:x}*"), "s3:*0*"], "Resource": format!("*{d:x}*"),
                "Condition": {"StringNotEquals": {"aws:PrincipalAccount": accounts}}})
        }));
        json!({ "Statement": statements })
    }

    #[test]
    fn a_policy_that_is_made_to_be_slow_is_judged_within_its_effort() {
        for (parts, denials, names) in [(500, 2, 250), (20, 100, 5), (600, 60, 5), (3000, 300, 30), (15_000, 2, 2)] {
            let policy = hostile(parts, denials, names);
            let verdict = judge(&policy, "123456789012", Trust::ALL).expect("a policy");
            assert!(verdict.openings.iter().any(|o| o.audience == Audience::Public), "{parts} {denials} {names}");
        }
    }

    #[test]
    fn what_costs_too_much_takes_nothing_back() {
        let read =
            |statement: &Value| Scope::read(statement, ["Action", "NotAction"], &Value::Null, "").expect("a scope");
        let everything = read(&json!({"Action": "*"}));
        let denial = Denial { actions: &everything, resources: &everything, spared: None };
        let parts = BTreeSet::from(["s3:GetObject", "s3:PutObject"]);
        let taken = left(&parts, &parts, &[&denial], &mut Effort::default());
        assert!(taken.actions.is_empty() && taken.resources.is_empty());
        let kept = left(&parts, &parts, &[&denial], &mut Effort::of(100));
        assert_eq!((kept.actions, kept.resources), (parts.clone(), parts));
    }
}
