//! The text of an alert: plain, at most 72 columns, most important first.
//!
//! Everything copied from an event is attacker-controlled and goes through [`defanged`]: no control or invisible
//! characters, no line breaks, nothing to click. The text is a pure function of the finding and the outcome.

use std::fmt::Write as _;

use serde_json::Value;
use shared::finding::Effect;
use shared::text::defanged;
use shared::{ApiCall, Finding, FindingId, Missed, Outcome, OutcomeStatus, Severity, Timestamp};

/// Columns of a line: what a phone shows in portrait without breaking it again.
const COLUMNS: usize = 72;
/// Columns of a label and the space after it.
const LABEL: usize = 12;
/// SNS wants a subject of less than 100 characters (API reference, `Publish`).
const SUBJECT_CHARS_MAX: usize = 99;
/// Below the 262,144 bytes of an SNS message, with room for the transport's own words.
const BODY_BYTES_MAX: usize = 256_000;
/// A value longer than this is cut: nobody reads more on a phone, and the incident holds the whole.
const VALUE_CHARS_MAX: usize = 1_000;
/// Facts and calls beyond this number are counted, not shown.
const ITEMS_MAX: usize = 40;

/// One alert, ready for any channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// The finding id, or `outcome_id/STATUS`: deliveries are idempotent by channel and this.
    pub id: String,
    /// The finding it is about.
    pub finding_id: FindingId,
    /// The finding's severity.
    pub severity: Severity,
    /// The finding's classifier.
    pub classifier: String,
    /// When the event happened.
    pub event_time: Timestamp,
    /// 1 to 99 printable ASCII characters, no line break.
    pub subject: String,
    /// Plain text with line breaks, below 256 KB.
    pub body: String,
}

impl Alert {
    /// The alert of a finding that these actions answer, which stands for `count` findings of the same key seen so far.
    pub fn of_finding(finding: &Finding, answers: &[String], count: usize) -> Self {
        let resolves = finding.effect == Effect::Resolves;
        let tag = if resolves { "RESOLVED".to_owned() } else { upper(finding.severity) };
        let mut page = Page::default();
        page.headline(&tag, &finding.title);
        if resolves {
            page.paragraph("Good news: this ends an earlier threat. Nothing needs to be done.");
        } else if finding.attempt {
            page.paragraph("The call was denied or failed: it was tried, it did not happen.");
        }
        if count > 1 {
            page.paragraph(&format!("Seen {count} times so far; this alert stands for all of them."));
        }
        page.facts_of(finding);
        page.evidence(finding);
        if !resolves {
            page.section("What was done");
            if answers.is_empty() {
                page.paragraph("Nothing: no response answers this. Please look at it.");
            } else {
                page.paragraph(
                    "Nothing yet. If the policy allows one of these responses, a second alert follows with the exact \
                     calls and how to undo them. If one is in mode auto and is not carried out, an alert says why (of a \
                     used-up limit once an hour):",
                );
                for action in answers {
                    page.item(action);
                }
            }
        }
        page.footer(finding);
        Self::new(finding.finding_id.to_string(), finding, &tag, &finding.title, page)
    }

    /// The alert of an outcome, with the calls and how to undo them.
    pub fn of_outcome(finding: &Finding, outcome: &Outcome) -> Self {
        let (tag, heading, undo_heading, said) = words(outcome.status);
        let mut page = Page::default();
        page.headline(tag, &format!("{} on {}", outcome.action, outcome.target));
        page.paragraph(said);
        page.paragraph(&outcome.note);
        if outcome.missed == Some(Missed::Cap) {
            page.paragraph(
                "No other alert follows for responses of this account that are skipped in this hour (UTC, of the events). \
                 Their incidents say SKIPPED, and so does `pipeline responses list`.",
            );
        }
        page.section(heading);
        page.field("Action", &outcome.action);
        page.field("Target", &outcome.target);
        page.field("Status", outcome.status.as_str());
        page.field("Decided", &outcome.decided_at.to_string());
        if !outcome.plan.reads.is_empty() {
            page.paragraph("First, only to look:");
            page.calls(&outcome.plan.reads);
            page.paragraph("Then:");
        }
        page.calls(&outcome.plan.calls);
        if outcome.status != OutcomeStatus::Skipped {
            page.undo(outcome, undo_heading);
        }
        page.section("Why");
        page.paragraph(&format!("{}: {}", upper(finding.severity), finding.title));
        page.facts_of(finding);
        page.evidence(finding);
        page.footer(finding);
        let headline = format!("{}: {}", outcome.action, finding.title);
        Self::new(format!("{}/{}", outcome.outcome_id, outcome.status.as_str()), finding, tag, &headline, page)
    }

    fn new(id: String, finding: &Finding, tag: &str, headline: &str, page: Page) -> Self {
        Self {
            id,
            finding_id: finding.finding_id,
            severity: finding.severity,
            classifier: finding.classifier.clone(),
            event_time: finding.event_time,
            subject: subject(tag, headline, &finding.account, &finding.region),
            body: page.finish(),
        }
    }
}

/// Tag, heading of the calls, heading of the undo calls, and what it means in one sentence.
const fn words(status: OutcomeStatus) -> (&'static str, &'static str, &'static str, &'static str) {
    match status {
        OutcomeStatus::DryRun => (
            "DRY RUN",
            "What would be done",
            "How it would be undone",
            "Dry run: nothing was changed. With the response turned on, these calls would be made.",
        ),
        OutcomeStatus::Succeeded => {
            ("DONE", "What was done", "How to undo", "The response was carried out, or the wanted state already held.")
        }
        OutcomeStatus::Failed => (
            "RESPONSE FAILED",
            "What was tried",
            "How to undo what was done",
            "The response failed: the threat may still be open. Please look at it now.",
        ),
        OutcomeStatus::PendingApproval => (
            "APPROVE?",
            "What waits for approval",
            "How it would be undone",
            "Nothing was changed: the response waits until a person approves it.",
        ),
        OutcomeStatus::Skipped => (
            "SKIPPED",
            "What was not done",
            "How it would be undone",
            "Nothing was changed, and the threat may still be open: the response was not carried out. Please look at it.",
        ),
        OutcomeStatus::Triggered | OutcomeStatus::Running => {
            ("RUNNING", "What is being done", "How to undo", "The response is being carried out.")
        }
    }
}

fn upper(severity: Severity) -> String {
    severity.as_str().to_ascii_uppercase()
}

/// `[HIGH] title (account region)`: where it happened stays when the title is long.
fn subject(tag: &str, headline: &str, account: &str, region: &str) -> String {
    let place = [account, region].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ");
    let head = format!("[{tag}] ");
    let tail = if place.is_empty() { String::new() } else { format!(" ({})", cut(&ascii(&place), 40)) };
    let room = SUBJECT_CHARS_MAX.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", cut(ascii(headline).trim(), room))
}

/// Printable ASCII only; anything else becomes `?`.
fn ascii(text: &str) -> String {
    let harmless = defanged(text, SUBJECT_CHARS_MAX * 2);
    harmless.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// At most `max` characters of ASCII text, ending in `...` when cut.
fn cut(text: &str, max: usize) -> String {
    if text.len() <= max { text.to_owned() } else { format!("{}...", text[..max.saturating_sub(3)].trim_end()) }
}

/// Plain text being laid out.
#[derive(Default)]
struct Page(String);

impl Page {
    fn headline(&mut self, tag: &str, title: &str) {
        self.wrap("", "", &format!("{tag}: {}", shown(title)));
        self.0.push('\n');
    }

    fn section(&mut self, heading: &str) {
        if !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
        self.wrap("", "", &shown(heading).to_uppercase());
    }

    fn paragraph(&mut self, text: &str) {
        if !text.is_empty() {
            self.wrap("", "", &shown(text));
        }
    }

    fn item(&mut self, text: &str) {
        self.wrap("- ", "  ", &shown(text));
    }

    /// A label and its value; a value the event does not have is `N/A`.
    fn field(&mut self, label: &str, value: &str) {
        let value = if value.is_empty() { "N/A".to_owned() } else { shown(value) };
        self.wrap(&format!("{label:<LABEL$}"), &" ".repeat(LABEL), &value);
    }

    /// What, who, where from, when: the fields of the predecessor among them.
    fn facts_of(&mut self, finding: &Finding) {
        if !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
        let event = match finding.event_source.as_str() {
            "" => finding.event_name.clone(),
            source => format!("{} ({source})", finding.event_name),
        };
        self.field("Event", &event);
        self.field("User", user(finding));
        if user(finding) != finding.principal {
            self.field("Principal", &finding.principal);
        }
        self.field("Source IP", &finding.source_ip);
        self.field("User agent", &finding.user_agent);
        self.field("Resource", &finding.resource);
        self.field("Account", &finding.account);
        self.field("Region", &finding.region);
        self.field("Time", &finding.event_time.to_string());
        self.field("Classifier", &finding.classifier);
    }

    fn evidence(&mut self, finding: &Finding) {
        if finding.evidence.is_empty() {
            return;
        }
        self.section("What was seen");
        for (name, value) in finding.evidence.iter().take(ITEMS_MAX) {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            self.item(&format!("{name}: {text}"));
        }
        self.more(finding.evidence.len());
    }

    fn calls(&mut self, calls: &[ApiCall]) {
        for (i, call) in calls.iter().take(ITEMS_MAX).enumerate() {
            let place = format!("account {}, {}", call.account, call.region);
            self.wrap(
                &format!("{}. ", i + 1),
                "   ",
                &shown(&format!("{}:{} ({place})", call.service, call.operation)),
            );
            match &call.parameters {
                Value::Object(parameters) => {
                    for (name, value) in parameters {
                        self.wrap("   ", "     ", &shown(&format!("{name} = {value}")));
                    }
                }
                Value::Null => {}
                other => self.wrap("   ", "     ", &shown(&other.to_string())),
            }
        }
        self.more(calls.len());
    }

    /// The calls that take the outcome back, and who makes them.
    fn undo(&mut self, outcome: &Outcome, heading: &str) {
        self.section(heading);
        let is_changed = matches!(outcome.status, OutcomeStatus::Succeeded | OutcomeStatus::Failed);
        if outcome.undo().is_empty() {
            self.paragraph(if is_changed {
                "Nothing was changed, so there is nothing to undo."
            } else {
                "No undo calls are recorded for this action."
            });
            return;
        }
        self.calls(outcome.undo());
        if is_changed {
            self.paragraph(
                "`pipeline responses undo FINDING/ACTION/TARGET` makes these calls, with the finding id, the action and \
                 the target of this message.",
            );
        }
    }

    fn more(&mut self, count: usize) {
        if count > ITEMS_MAX {
            self.item(&format!("and {} more, in the incident", count - ITEMS_MAX));
        }
    }

    fn footer(&mut self, finding: &Finding) {
        self.0.push('\n');
        if !finding.techniques.is_empty() {
            self.field("ATT&CK", &finding.techniques.join(", "));
        }
        self.field("Event id", &finding.event_id);
        self.field("Finding id", &finding.finding_id.to_string());
    }

    /// Writes `text`, which holds no line break, in lines of at most [`COLUMNS`] characters. Breaks at spaces;
    /// a word longer than a line, such as an ARN, is broken where the line ends.
    fn wrap(&mut self, first: &str, next: &str, text: &str) {
        let mut line = first.to_owned();
        let mut used = first.chars().count();
        let mut empty = true;
        for word in text.split(' ').filter(|w| !w.is_empty()) {
            let mut word: Vec<char> = word.chars().collect();
            if !empty && used + 1 + word.len() <= COLUMNS {
                line.push(' ');
                used += 1;
            } else if !empty {
                self.line(&line);
                line = next.to_owned();
                used = next.chars().count();
            }
            while used + word.len() > COLUMNS {
                let rest = word.split_off(COLUMNS - used);
                line.extend(word);
                self.line(&line);
                line = next.to_owned();
                used = next.chars().count();
                word = rest;
            }
            used += word.len();
            line.extend(word);
            empty = false;
        }
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    fn finish(mut self) -> String {
        if self.0.len() > BODY_BYTES_MAX {
            let mut end = BODY_BYTES_MAX;
            while !self.0.is_char_boundary(end) {
                end -= 1;
            }
            let end = self.0[..end].rfind('\n').map_or(end, |at| at + 1);
            self.0.truncate(end);
            self.0.push_str("(cut here; the incident holds the rest)\n");
        }
        self.0
    }
}

/// The user's own name where there is one, as the predecessor showed it, else the best name known.
fn user(finding: &Finding) -> &str {
    if finding.identity.user_name.is_empty() { &finding.principal } else { &finding.identity.user_name }
}

fn shown(text: &str) -> String {
    defanged(text, VALUE_CHARS_MAX)
}

#[cfg(test)]
pub(crate) mod tests_support {
    use std::collections::BTreeMap;

    use serde_json::json;
    use shared::finding::Effect;
    use shared::{ApiCall, Finding, FindingId, Outcome, OutcomeStatus, Plan, Severity, Timestamp};

    pub fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    pub fn finding() -> Finding {
        let mut finding = finding_numbered(1, at("2026-03-01T12:00:00Z"));
        finding.techniques = vec!["T1098.001".to_owned()];
        finding
    }

    pub fn finding_numbered(n: u32, event_time: Timestamp) -> Finding {
        let event_id = format!("event-{n}");
        Finding {
            finding_id: FindingId::new("iam_access_key_created", "123456789012", "us-east-1", &event_id),
            classifier: "iam_access_key_created".to_owned(),
            title: "An access key was created for alice".to_owned(),
            severity: Severity::High,
            effect: Effect::Threat,
            attempt: false,
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            event_id,
            event_source: "iam.amazonaws.com".to_owned(),
            event_name: "CreateAccessKey".to_owned(),
            event_time,
            principal: "arn:aws:iam::123456789012:user/mallory".to_owned(),
            identity: shared::event::Identity {
                kind: "IAMUser".to_owned(),
                user_name: "mallory".to_owned(),
                ..Default::default()
            },
            source_ip: "203.0.113.7".to_owned(),
            user_agent: "aws-cli/2.13.5".to_owned(),
            resource: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            techniques: Vec::new(),
            responses: vec!["iam_access_key_deactivate".to_owned()],
            dedup_key: "iam_access_key_created/123456789012/us-east-1/mallory/alice".to_owned(),
            resolution_key: None,
            evidence: BTreeMap::from([("for_user".to_owned(), json!("alice")), ("keys".to_owned(), json!(2))]),
        }
    }

    pub fn outcome_of(finding: &Finding, status: OutcomeStatus) -> Outcome {
        let call = |status: &str| ApiCall {
            service: "iam".to_owned(),
            operation: "UpdateAccessKey".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            parameters: json!({"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "Status": status, "UserName": "alice"}),
        };
        Outcome {
            outcome_id: Outcome::key(finding.finding_id, "iam_access_key_deactivate", "AKIAIOSFODNN7EXAMPLE"),
            finding_id: finding.finding_id,
            action: "iam_access_key_deactivate".to_owned(),
            target: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            status,
            plan: Plan { reads: Vec::new(), calls: vec![call("Inactive")], undo: vec![call("Active")] },
            note: "mode is dry_run".to_owned(),
            missed: None,
            decided_at: at("2026-03-01T12:00:05Z"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::tests_support::{finding, outcome_of};
    use super::*;

    fn answers() -> [String; 1] {
        ["iam_access_key_deactivate".to_owned()]
    }

    #[test]
    fn only_what_answers_is_named() {
        let mut finding = finding();
        finding.responses.push("iam_user_restrict".to_owned());
        let alert = Alert::of_finding(&finding, &answers(), 1);
        assert!(alert.body.contains("- iam_access_key_deactivate"), "{}", alert.body);
        assert!(!alert.body.contains("iam_user_restrict"), "{}", alert.body);
        assert!(Alert::of_finding(&finding, &[], 1).body.contains("no response answers this"));
    }

    #[test]
    fn a_used_up_limit_says_what_was_not_done_and_that_no_other_alert_follows() {
        let finding = finding();
        let mut outcome = outcome_of(&finding, OutcomeStatus::Skipped);
        outcome.plan = shared::Plan::default();
        outcome.missed = Some(Missed::Cap);
        outcome.note =
            "skipped: account 123456789012 had its 20 responses of this hour (account_responses_max_per_hour)"
                .to_owned();
        let alert = Alert::of_outcome(&finding, &outcome);
        insta::assert_snapshot!(format!("{}\n\n{}", alert.subject, alert.body));
    }

    #[test]
    fn a_finding_reads_well() {
        let alert = Alert::of_finding(&finding(), &answers(), 1);
        insta::assert_snapshot!(format!("{}\n\n{}", alert.subject, alert.body));
    }

    #[test]
    fn a_dry_run_shows_the_calls_and_the_way_back() {
        let finding = finding();
        let alert = Alert::of_outcome(&finding, &outcome_of(&finding, OutcomeStatus::DryRun));
        insta::assert_snapshot!(format!("{}\n\n{}", alert.subject, alert.body));
    }

    #[test]
    fn a_response_that_was_carried_out_says_what_was_done_and_how_to_undo_it() {
        let finding = finding();
        let mut outcome = outcome_of(&finding, OutcomeStatus::Succeeded);
        outcome.note = "1 call made".to_owned();
        let alert = Alert::of_outcome(&finding, &outcome);
        insta::assert_snapshot!(format!("{}\n\n{}", alert.subject, alert.body));
    }

    #[test]
    fn a_failure_says_which_call_and_what_of_it_can_be_undone() {
        let finding = finding();
        let mut outcome = outcome_of(&finding, OutcomeStatus::Failed);
        outcome.note = "0 of 1 call made; iam:UpdateAccessKey is not permitted: AccessDenied: no".to_owned();
        outcome.plan.undo.clear();
        let alert = Alert::of_outcome(&finding, &outcome);
        assert!(alert.subject.starts_with("[RESPONSE FAILED] iam_access_key_deactivate"), "{}", alert.subject);
        let text = alert.body.replace('\n', " ");
        for part in ["may still be open", "iam:UpdateAccessKey is not permitted", "WHAT WAS TRIED", "nothing to undo"] {
            assert!(text.contains(part), "{part}: {}", alert.body);
        }
    }

    #[test]
    fn good_news_says_so() {
        let mut finding = finding();
        finding.effect = Effect::Resolves;
        finding.severity = Severity::Info;
        let alert = Alert::of_finding(&finding, &[], 1);
        assert!(alert.subject.starts_with("[RESOLVED] "), "{}", alert.subject);
        assert!(alert.body.contains("Good news"), "{}", alert.body);
        assert!(!alert.body.contains("WHAT WAS DONE"), "{}", alert.body);
    }

    #[test]
    fn repeats_are_counted() {
        assert!(Alert::of_finding(&finding(), &[], 7).body.contains("Seen 7 times so far"));
    }

    #[test]
    fn absent_fields_are_not_empty() {
        let mut finding = finding();
        finding.source_ip.clear();
        finding.identity.user_name.clear();
        finding.principal.clear();
        let alert = Alert::of_finding(&finding, &[], 1);
        assert!(alert.body.contains("Source IP   N/A\n"), "{}", alert.body);
        assert!(alert.body.contains("User        N/A\n"), "{}", alert.body);
    }

    #[test]
    fn a_link_in_a_user_agent_cannot_be_clicked() {
        let mut finding = finding();
        finding.user_agent = "x\r\n\r\nClick https://evil.example/\u{202e}now".to_owned();
        let alert = Alert::of_finding(&finding, &[], 1);
        assert!(!alert.body.contains("https://") && !alert.body.contains('\r'), "{}", alert.body);
        assert!(alert.body.contains("hxxps"), "{}", alert.body);
    }

    fn check(alert: &Alert) -> Result<(), TestCaseError> {
        prop_assert!(!alert.subject.is_empty() && alert.subject.len() < 100, "{}", alert.subject);
        prop_assert!(alert.subject.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{}", alert.subject);
        prop_assert!(alert.body.len() <= 262_144);
        prop_assert!(!alert.body.contains("://"), "{}", alert.body);
        for line in alert.body.lines() {
            prop_assert!(line.chars().count() <= COLUMNS, "{line:?}");
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_line(
            text in "[\\PC\\p{Cc}\u{202a}-\u{202e} ]{0,200}",
            link in "(https?://|www\\.|a@b\\.)[a-z./]{0,90}",
        ) {
            let mut finding = finding();
            for field in [
                &mut finding.title, &mut finding.principal, &mut finding.source_ip, &mut finding.user_agent,
                &mut finding.resource, &mut finding.region, &mut finding.account, &mut finding.event_name,
                &mut finding.classifier, &mut finding.event_id, &mut finding.identity.user_name,
            ] {
                *field = format!("{text}{link}{text}");
            }
            finding.evidence.insert(text.clone(), serde_json::json!([link, {"k": text}]));
            check(&Alert::of_finding(&finding, &vec![text.clone(); 3], 1))?;
            for status in
                [OutcomeStatus::DryRun, OutcomeStatus::Failed, OutcomeStatus::Succeeded, OutcomeStatus::Skipped]
            {
                let mut outcome = outcome_of(&finding, status);
                outcome.target = text.clone();
                outcome.note = link.clone();
                outcome.plan.calls[0].parameters = serde_json::json!({text.clone(): link, "x": text});
                check(&Alert::of_outcome(&finding, &outcome))?;
            }
        }
    }

    #[test]
    fn a_flood_of_evidence_stays_below_the_limit_of_sns() {
        let mut finding = finding();
        for i in 0..5_000 {
            finding.evidence.insert(format!("fact-{i}"), Value::String("é".repeat(10_000)));
        }
        let mut outcome = outcome_of(&finding, OutcomeStatus::DryRun);
        let parameters: serde_json::Map<String, Value> =
            (0..2_000).map(|i| (format!("p{i}"), Value::String("x".repeat(2_000)))).collect();
        outcome.plan.calls[0].parameters = Value::Object(parameters);
        let alert = Alert::of_outcome(&finding, &outcome);
        assert!(alert.body.len() <= 262_144);
        assert!(alert.body.ends_with("(cut here; the incident holds the rest)\n"));
    }
}
