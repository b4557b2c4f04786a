//! EventBridge rules generated from what classifiers declare.
//!
//! * One rule per CloudTrail event source, its names merged, split where the pattern would pass 2,048 characters (the
//!   quota of an event pattern); one rule per notification source.
//! * Sources of which only a few names are wanted share rules: a bus takes 300 of them, and 100 in two regions.
//! * Read-only calls get rules of their own: they arrive only where the rule's state is
//!   `ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS`, and there is no reason to receive everything else twice.
//! * Sign-ins have a detail type of their own, "AWS Console Sign In via CloudTrail".
//! * A call that a rule by name alone or by source alone selects is in no other rule: it would come twice.
//! * [`Pattern::Root`](shared::Pattern::Root) becomes one rule on the caller's type.
//! * [`Pattern::Intake`](shared::Pattern::Intake) becomes none: those records come from text logs and from the pipeline
//!   itself.
//! * [`Pattern::AnyApi`](shared::Pattern::AnyApi) becomes one rule that is **disabled**: switched on it brings every
//!   management event through SQS one by one. Such classifiers see everything in CloudTrail log files, the cheap way,
//!   and on EventBridge what the other rules bring.
//!
//! CloudTrail rules match `source` by the prefix `aws.`, which only AWS can send: anyone who may call `PutEvents` could
//! otherwise forge records. IAM, Organizations and global sign-in events arrive in us-east-1 only; which region gets
//! which rule is the deployment's business, not this module's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use crate::classifiers::ALL;
use crate::registry::Declaration;
use crate::{intake, rules};

/// The quota of an event pattern in characters (EventBridge quotas page).
pub const PATTERN_CHARS_MAX: usize = 2048;

/// A source with so many names or fewer shares a rule with others: our choice, with which the rules of this version stay
/// below the 100 of a bus in af-south-1 and eu-south-1 (quota L-244521F2; 300 elsewhere).
const FEW_NAMES: usize = 6;

const API_CALL: &str = "AWS API Call via CloudTrail";
const SIGN_IN: &str = "AWS Console Sign In via CloudTrail";
const SERVICE_EVENT: &str = "AWS Service Event via CloudTrail";

/// When a rule selects events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RuleState {
    /// Changes only.
    Enabled,
    /// Read-only management events too.
    EnabledWithAllCloudtrailManagementEvents,
    /// Nothing until an operator decides so.
    Disabled,
}

/// One EventBridge rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventRule {
    /// Unique, at most 64 characters: `classifier-iam-1`.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its initial state.
    pub state: RuleState,
    /// The event pattern.
    pub pattern: Value,
    /// The classifiers that asked for it.
    pub classifiers: Vec<String>,
}

impl EventRule {
    /// The patterns that together select the same without `$or`, for matchers that do not know it.
    pub fn alternatives(&self) -> Vec<Value> {
        let Some(branches) = self.pattern["detail"]["$or"].as_array() else { return vec![self.pattern.clone()] };
        let with = |branch: &Value| {
            let mut pattern = self.pattern.clone();
            pattern["detail"] = branch.clone();
            pattern
        };
        branches.iter().map(with).collect()
    }
}

/// The rules of a deployment: what the classifiers and our own rules want.
pub fn own_event_rules() -> Vec<EventRule> {
    let plugins = ALL.iter().map(|p| Declaration::from(p.meta));
    let declared: Vec<Declaration> = plugins.chain(rules::own_declarations()).collect();
    event_rules(&declared)
}

/// The rules that select every event the detectors want, in order of their names' sources.
pub fn event_rules<'d>(declared: impl IntoIterator<Item = &'d Declaration>) -> Vec<EventRule> {
    let mut calls: BTreeMap<(&str, RuleState), Wanted<'_>> = BTreeMap::new();
    let mut notifications: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
    let (mut named, mut sources) = (BTreeMap::<RuleState, Wanted<'_>>::new(), Wanted::default());
    let (mut root, mut any) = (Vec::new(), Vec::new());
    let declared: Vec<&Declaration> = declared.into_iter().collect();
    let broader = Broader::of(&declared);
    for Declaration { id, selectors, .. } in declared {
        for selector in selectors {
            match (selector.source.as_deref(), selector.name.as_deref()) {
                (Some(source), Some(_)) if selector.notification && intake::is_own(source) => {}
                (Some(source), Some(name)) if selector.notification => {
                    notifications.entry(source).or_default().add(name, id);
                }
                (Some(source), Some(_)) if broader.sources.contains(source) => sources.add(source, id),
                (Some(_), Some(name)) if broader.names.contains(name) => {
                    named.entry(state_of(name)).or_default().add(name, id);
                }
                (Some(source), Some(name)) => calls.entry((source, state_of(name))).or_default().add(name, id),
                (None, Some(name)) => named.entry(state_of(name)).or_default().add(name, id),
                (Some(source), None) => sources.add(source, id),
                (None, None) if selector.root => root.push(id.to_string()),
                (None, None) => any.push(id.to_string()),
            }
        }
    }
    let mut rules = Vec::new();
    let few = few_names(&calls);
    for (&(source, state), wanted) in &calls {
        if few.get(&state).is_some_and(|few| few.0.contains_key(source)) {
            continue;
        }
        let reads = if state == RuleState::Enabled { "" } else { "-reads" };
        let base = format!("classifier-{}{reads}", source.trim_end_matches(".amazonaws.com").replace('.', "-"));
        let what = if state == RuleState::Enabled { "calls" } else { "read-only calls" };
        wanted.fill_rules(&base, &format!("{what} of {source}"), state, &mut rules, |names| {
            json!({
                "source": [{ "prefix": "aws." }],
                "detail-type": detail_types(source),
                "detail": { "eventSource": [source], "eventName": names },
            })
        });
    }
    for (state, wanted) in few {
        let reads = if state == RuleState::Enabled { "" } else { "-reads" };
        let what = format!("calls of sources with at most {FEW_NAMES} wanted names");
        wanted.fill_rules(&format!("classifier-few-names{reads}"), &what, state, &mut rules, |sources| {
            let branch = |source: &&str| {
                let names: Vec<&str> = calls[&(*source, state)].0.keys().copied().collect();
                json!({ "eventSource": [source], "eventName": names })
            };
            let mut branches: Vec<Value> = sources.iter().map(branch).collect();
            // EventBridge takes an `$or` of one for the name of a field.
            let detail = if branches.len() == 1 { branches.remove(0) } else { json!({ "$or": branches }) };
            json!({ "source": [{ "prefix": "aws." }], "detail-type": [API_CALL, SERVICE_EVENT], "detail": detail })
        });
    }
    for (source, wanted) in notifications {
        let base = format!("classifier-{}", source.replace('.', "-"));
        wanted.fill_rules(
            &base,
            &format!("notifications of {source}"),
            RuleState::Enabled,
            &mut rules,
            |names| json!({ "source": [source], "detail-type": names }),
        );
    }
    let every_type = [API_CALL, SIGN_IN, SERVICE_EVENT];
    for (state, wanted) in named {
        let base = if state == RuleState::Enabled { "classifier-any-source" } else { "classifier-any-source-reads" };
        wanted.fill_rules(base, "calls by name, whatever their source", state, &mut rules, |names| {
            json!({
                "source": [{ "prefix": "aws." }],
                "detail-type": every_type,
                "detail": { "eventName": names },
            })
        });
    }
    let every_call = RuleState::EnabledWithAllCloudtrailManagementEvents;
    sources.fill_rules("classifier-any-name", "every call of a source", every_call, &mut rules, |sources| {
        json!({
            "source": [{ "prefix": "aws." }],
            "detail-type": every_type,
            "detail": { "eventSource": sources },
        })
    });
    if !root.is_empty() {
        rules.push(EventRule {
            name: "classifier-root".to_owned(),
            description: "everything the root user does".to_owned(),
            state: RuleState::EnabledWithAllCloudtrailManagementEvents,
            pattern: json!({
                "source": [{ "prefix": "aws." }],
                "detail-type": every_type,
                "detail": { "userIdentity": { "type": ["Root"] } },
            }),
            classifiers: root,
        });
    }
    if !any.is_empty() {
        rules.push(EventRule {
            name: "classifier-every-call".to_owned(),
            description: "every management event; costs one SQS message each, prefer CloudTrail log files".to_owned(),
            state: RuleState::Disabled,
            pattern: json!({ "source": [{ "prefix": "aws." }], "detail-type": every_type }),
            classifiers: any,
        });
    }
    rules
}

/// The sources of which few names are wanted, with who wants them. One alone keeps its rule.
fn few_names<'d>(calls: &BTreeMap<(&'d str, RuleState), Wanted<'d>>) -> BTreeMap<RuleState, Wanted<'d>> {
    let mut few = BTreeMap::<RuleState, Wanted<'d>>::new();
    for ((source, state), wanted) in calls {
        // Sign-ins have another type.
        if wanted.0.len() <= FEW_NAMES && detail_types(source) == [API_CALL, SERVICE_EVENT] {
            let sources = few.entry(*state).or_default();
            wanted.0.values().flatten().for_each(|id| sources.add(source, id));
        }
    }
    few.retain(|_, sources| sources.0.len() > 1);
    few
}

/// What is selected whatever its name, and whatever its source.
struct Broader<'d> {
    sources: BTreeSet<&'d str>,
    names: BTreeSet<&'d str>,
}

impl<'d> Broader<'d> {
    fn of(declared: &[&'d Declaration]) -> Self {
        let selectors = || declared.iter().flat_map(|declaration| &declaration.selectors);
        let sources = selectors().filter(|selector| selector.name.is_none()).filter_map(|s| s.source.as_deref());
        let names = selectors().filter(|selector| selector.source.is_none()).filter_map(|s| s.name.as_deref());
        Self { sources: sources.collect(), names: names.collect() }
    }
}

/// Event names, each with the classifiers that want it.
#[derive(Default)]
struct Wanted<'d>(BTreeMap<&'d str, Vec<&'d str>>);

impl<'d> Wanted<'d> {
    fn add(&mut self, name: &'d str, id: &'d str) {
        let ids = self.0.entry(name).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }

    /// Fills one rule after another with names, in order, as many as the quota lets in.
    fn fill_rules(
        &self,
        base: &str,
        what: &str,
        state: RuleState,
        rules: &mut Vec<EventRule>,
        pattern: impl Fn(&[&str]) -> Value,
    ) {
        if self.0.is_empty() {
            return;
        }
        let mut parts: Vec<Vec<&str>> = vec![Vec::new()];
        for name in self.0.keys().copied() {
            let part = parts.last_mut().expect("starts with one part");
            part.push(name);
            if pattern(part).to_string().chars().count() >= PATTERN_CHARS_MAX && part.len() > 1 {
                part.pop();
                parts.push(vec![name]);
            }
        }
        for (index, names) in parts.iter().enumerate() {
            let mut classifiers: Vec<String> = names.iter().flat_map(|n| &self.0[n]).map(|&id| id.to_owned()).collect();
            classifiers.sort_unstable();
            classifiers.dedup();
            rules.push(EventRule {
                name: format!("{base}-{}", index + 1),
                description: what.to_owned(),
                state,
                pattern: pattern(names),
                classifiers,
            });
        }
    }
}

fn detail_types(source: &str) -> Vec<&'static str> {
    if source == "signin.amazonaws.com" {
        vec![SIGN_IN, API_CALL, SERVICE_EVENT]
    } else {
        vec![API_CALL, SERVICE_EVENT]
    }
}

fn state_of(name: &str) -> RuleState {
    if is_read_only(name) { RuleState::EnabledWithAllCloudtrailManagementEvents } else { RuleState::Enabled }
}

/// Whether CloudTrail marks the call `readOnly`, by its verb. Session calls of STS count as reads there. A wrong "no" of
/// a new verb would lose events; the sweep over fixtures with `readOnly` guards those we use.
pub fn is_read_only(name: &str) -> bool {
    const VERBS: [&str; 12] = [
        "AssumeRole",
        "BatchGet",
        "Describe",
        "Filter",
        "Get",
        "Head",
        "List",
        "Lookup",
        "Query",
        "Scan",
        "Search",
        "Select",
    ];
    VERBS.iter().any(|verb| {
        name.strip_prefix(verb)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_uppercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Label, Selector};
    use shared::classifier::FailedCalls;
    use shared::finding::Severity;

    fn declaration(id: &str, selectors: Vec<Selector>) -> Declaration {
        Declaration {
            id: id.to_owned().into(),
            title: Label::default(),
            severity: Severity::Low,
            techniques: Vec::new(),
            selectors,
            failed_calls: FailedCalls::Ignored,
            responses: Vec::new(),
            references: Vec::new(),
        }
    }

    fn call(source: Option<&str>, name: Option<&str>) -> Selector {
        let label = |text: &str| Label::from(text.to_owned());
        Selector { source: source.map(label), name: name.map(label), ..Selector::ANY_CALL }
    }

    fn iam(name: &str) -> Selector {
        call(Some("iam.amazonaws.com"), Some(name))
    }

    #[test]
    fn names_of_one_source_are_merged_and_reads_kept_apart() {
        let root = Selector { root: true, ..Selector::ANY_CALL };
        let one = declaration("one", vec![iam("CreateUser"), iam("GetUser")]);
        let two = declaration("two", vec![iam("DeleteUser"), iam("CreateUser"), root]);
        let rules = event_rules(&[one, two]);
        let names: Vec<_> = rules.iter().map(|r| (r.name.as_str(), r.state)).collect();
        assert_eq!(
            names,
            [
                ("classifier-iam-1", RuleState::Enabled),
                ("classifier-iam-reads-1", RuleState::EnabledWithAllCloudtrailManagementEvents),
                ("classifier-root", RuleState::EnabledWithAllCloudtrailManagementEvents),
            ]
        );
        assert_eq!(rules[0].pattern["detail"]["eventName"], json!(["CreateUser", "DeleteUser"]));
        assert_eq!(rules[0].classifiers, ["one", "two"]);
    }

    #[test]
    fn long_lists_are_split_below_the_quota_and_lose_nothing() {
        let names = (0..300).map(|i| iam(&format!("CreateSomethingNumbered{i:03}"))).collect();
        let rules = event_rules(&[declaration("many", names)]);
        assert!(rules.len() > 1);
        let mut total = 0;
        for rule in &rules {
            assert!(rule.pattern.to_string().len() < PATTERN_CHARS_MAX, "{}", rule.name);
            total += rule.pattern["detail"]["eventName"].as_array().unwrap().len();
        }
        assert_eq!(total, 300);
    }

    #[test]
    fn a_missing_half_of_a_selector_is_left_out_of_the_pattern() {
        let any =
            [call(None, Some("ConsoleLogin")), call(None, Some("GetUser")), call(Some("iam.amazonaws.com"), None)];
        let rules = event_rules(&[declaration("one", any.to_vec())]);
        let details: Vec<_> = rules.iter().map(|r| (r.name.as_str(), r.pattern["detail"].clone())).collect();
        assert_eq!(
            details,
            [
                ("classifier-any-source-1", json!({ "eventName": ["ConsoleLogin"] })),
                ("classifier-any-source-reads-1", json!({ "eventName": ["GetUser"] })),
                ("classifier-any-name-1", json!({ "eventSource": ["iam.amazonaws.com"] })),
            ]
        );
    }

    #[test]
    fn a_call_that_a_broader_rule_selects_is_in_no_other() {
        let broad = declaration("broad", vec![call(Some("iam.amazonaws.com"), None), call(None, Some("ConsoleLogin"))]);
        let login = call(Some("signin.amazonaws.com"), Some("ConsoleLogin"));
        let narrow = declaration("narrow", vec![iam("CreateUser"), iam("GetUser"), login]);
        let rules = event_rules(&[narrow, broad]);
        let names: Vec<_> = rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["classifier-any-source-1", "classifier-any-name-1"]);
        assert!(rules.iter().all(|rule| rule.classifiers == ["broad", "narrow"]), "{rules:?}");
    }

    #[test]
    fn sources_with_few_names_share_rules_below_the_quota_and_lose_nothing() {
        let sources: Vec<String> = (0..60).map(|i| format!("service-{i:02}.amazonaws.com")).collect();
        let one = |source: &String| [call(Some(source), Some("StopIt")), call(Some(source), Some("GetIt"))];
        let many = ["A", "B", "C", "D", "E", "F", "G"].map(iam);
        let rules = event_rules(&[declaration("few", sources.iter().flat_map(one).chain(many).collect())]);
        let mut selected = BTreeSet::new();
        for rule in &rules {
            assert!(rule.pattern.to_string().chars().count() < PATTERN_CHARS_MAX, "{}", rule.name);
            for pattern in rule.alternatives() {
                let detail = &pattern["detail"];
                assert_eq!(detail["eventSource"].as_array().expect("a source").len(), 1, "{pattern}");
                selected.insert((detail["eventSource"][0].clone().to_string(), detail["eventName"].to_string()));
            }
        }
        assert_eq!(selected.len(), 121, "two of each source, and all of iam");
        assert!(rules.len() < 20 && rules.iter().any(|rule| rule.name == "classifier-iam-1"), "{}", rules.len());
        assert!(rules.iter().any(|rule| rule.name == "classifier-few-names-reads-2"));
    }

    #[test]
    fn the_rules_of_a_deployment_fit_onto_a_bus_of_every_region() {
        // Beside them a bus has those for log files, uploads and what is forwarded.
        let rules = own_event_rules().len() + 3;
        assert!(rules <= 100, "{rules}");
    }

    #[test]
    fn verbs_end_where_the_next_word_begins() {
        for name in ["GetUser", "ListKeys", "AssumeRole", "AssumeRoleWithSAML", "DescribeInstances"] {
            assert!(is_read_only(name), "{name}");
        }
        for name in ["ConsoleLogin", "Getaway", "Listen", "CreateUser", "PutObject"] {
            assert!(!is_read_only(name), "{name}");
        }
    }
}
