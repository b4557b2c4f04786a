use aws_logger::incidents::apply_outcome;
use clap::Parser;
use shared::adapters::loopback::{Answer, Loopback};
use shared::adapters::memory::{MemoryIncidents, MemoryLedger};

use super::tests_support::{ACCOUNT, KEY, at, begun, carried_out, entries, finding, outcome, outcome_id};
use super::*;
use crate::args::{Cli, Command, ResponsesCommand};

const ELSEWHERE: &str = "210987654321";

/// A deployment as its logger and its responder leave it: one response each to the events of a few minutes.
struct Deployment {
    incidents: MemoryIncidents,
    ledger: MemoryLedger,
}

impl Deployment {
    async fn new(outcomes: &[(i64, &str, OutcomeStatus)]) -> Self {
        let this = Self { incidents: MemoryIncidents::default(), ledger: MemoryLedger::default() };
        for (n, account, status) in outcomes {
            let finding = finding(*n);
            let outcome = outcome(&finding, account, *status, "a note");
            apply_outcome(&this.incidents, &finding, &outcome, at(*n)).await.expect("logged");
        }
        this
    }

    async fn take_back(&self, n: i64) {
        let id = outcome(&finding(n), ACCOUNT, OutcomeStatus::Succeeded, "").outcome_id;
        let journal = Journal::new(&self.ledger);
        let undone = aws_responder::journal::Undone::new(Vec::new(), at(100));
        journal.complete_undo(&id, &undone, at(100)).await.expect("kept");
    }

    async fn search(&self, wanted: Wanted<'_>) -> Listed {
        search(&self.incidents, &Journal::new(&self.ledger), &wanted).await.expect("listed")
    }
}

fn all() -> Wanted<'static> {
    Wanted { since: at(0), account: None, status: &[], limit: 50 }
}

/// The minute of each row's event and where it stands.
fn rows(found: &Listed) -> Vec<(i64, Standing)> {
    found.rows.iter().map(|row| (row.event_at.seconds_since(at(0)) / 60, row.status)).collect()
}

#[tokio::test]
async fn responses_are_listed_newest_first_with_where_they_stand() {
    let deployment = Deployment::new(&[
        (-1, ACCOUNT, OutcomeStatus::Succeeded),
        (0, ACCOUNT, OutcomeStatus::Succeeded),
        (1, ACCOUNT, OutcomeStatus::DryRun),
        (2, ACCOUNT, OutcomeStatus::Skipped),
        (3, ELSEWHERE, OutcomeStatus::Failed),
        (4, ACCOUNT, OutcomeStatus::Succeeded),
        (5, ACCOUNT, OutcomeStatus::Running),
    ])
    .await;
    deployment.take_back(4).await;
    let expected = [
        (5, Standing::Running),
        (4, Standing::Undone),
        (3, Standing::Failed),
        (2, Standing::Skipped),
        (1, Standing::DryRun),
        (0, Standing::CarriedOut),
    ];
    let found = deployment.search(all()).await;
    assert_eq!(rows(&found), expected);
    assert_eq!((found.rows[1].undone_at, found.is_cut, found.ended_at), (Some(at(100)), false, None));
    assert_eq!(found.rows[2].account, ELSEWHERE, "where it acts, not where the event was");

    let cut = deployment.search(Wanted { limit: 2, ..all() }).await;
    assert_eq!((rows(&cut), cut.is_cut), (expected[..2].to_vec(), true));
    let there = deployment.search(Wanted { account: Some(ELSEWHERE), ..all() }).await;
    assert_eq!(rows(&there), expected[2..3]);
    let status = [Standing::Undone, Standing::CarriedOut];
    let changed = deployment.search(Wanted { status: &status, ..all() }).await;
    assert_eq!(rows(&changed), [expected[1], expected[5]], "a response that was taken back is not carried out");
    assert_eq!(rows(&deployment.search(Wanted { since: at(5), ..all() }).await), expected[..1]);
}

#[tokio::test]
async fn a_response_behind_many_incidents_is_found() {
    let deployment = Deployment::new(&[(1, ACCOUNT, OutcomeStatus::Succeeded)]).await;
    for n in 2..2 + PAGE as i64 {
        let apply = aws_logger::incidents::apply_finding;
        apply(&deployment.incidents, &finding(n), &std::collections::BTreeMap::new(), at(n)).await.expect("logged");
    }
    assert_eq!(rows(&deployment.search(all()).await), [(1, Standing::CarriedOut)]);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_read_is_named_and_hides_no_other() {
    let deployment = Deployment::new(&[(1, ACCOUNT, OutcomeStatus::Succeeded)]).await;
    let id = IncidentId::of(&finding(1));
    let damage = &mut |incident: Option<Incident>| {
        let mut incident = incident?;
        incident.details["outcomes"]["of another\nversion"] = json!({"status": "SHELVED"});
        Some(incident)
    };
    deployment.incidents.update(id, damage).await.expect("damaged");
    let found = deployment.search(all()).await;
    assert_eq!(rows(&found), [(1, Standing::CarriedOut)]);
    let [said] = &found.unreadable[..] else { panic!("{:?}", found.unreadable) };
    assert!(said.contains(&id.to_string()) && said.contains("of another·version"), "{said}");
}

#[tokio::test]
async fn what_attackers_wrote_stays_in_its_line() {
    let hostile = "\u{9b}2J\nforged \u{202e}";
    let mut finding = finding(1);
    (finding.title, finding.principal, finding.event_id) = (hostile.to_owned(), hostile.to_owned(), hostile.to_owned());
    let mut outcome = outcome(&finding, ACCOUNT, OutcomeStatus::Succeeded, hostile);
    (outcome.target, outcome.action) = (hostile.to_owned(), hostile.to_owned());
    let deployment = Deployment::new(&[]).await;
    apply_outcome(&deployment.incidents, &finding, &outcome, at(1)).await.expect("logged");
    let mut shown = Vec::new();
    print(&mut shown, &deployment.search(all()).await, at(0)).expect("printed");
    let settled = shared::Settled { plan: outcome.plan.clone(), before: vec![json!(hostile)], ..Default::default() };
    let begun = aws_responder::journal::Begun::new(finding.clone(), hostile, hostile, settled, at(1));
    let record = Record { ended: Some((finding, outcome)), begun: Some(begun), undone: None };
    print_whole(&mut shown, hostile, &record).expect("printed");
    let shown = String::from_utf8(shown).expect("UTF-8");
    assert!(shown.matches("forged").count() > 8, "{shown}");
    assert!(
        !shown.contains(['\u{9b}', '\u{202e}']) && !shown.lines().any(|line| line.starts_with("forged")),
        "{shown}"
    );
}

/// `pipeline responses show`, as JSON or why not.
async fn shown(answer: Answer) -> Result<Record, Failure> {
    let id = outcome_id();
    let Command::Responses(ResponsesCommand::Show(args)) =
        Cli::parse_from(["pipeline", "responses", "show", &id]).command
    else {
        panic!("a look")
    };
    let server = Loopback::answering([answer]);
    let session = Session::of_tests("security-pipeline", "eu-central-1", server.endpoint());
    recorded(&session, &args.outcome_id).await
}

#[tokio::test]
async fn one_is_shown_with_its_calls_what_was_before_and_the_way_back() {
    let record = shown(entries(&[("", &carried_out()), ("response_begun/", &begun())])).await.expect("it is there");
    let mut text = Vec::new();
    print_whole(&mut text, &outcome_id(), &record).expect("printed");
    let text = String::from_utf8(text).expect("UTF-8");
    for part in [
        "carried out",
        "1 call made",
        "high Key created (iam_access_key_created)",
        "CreateAccessKey by arn:aws:iam::123456789012:user/mallory",
        "Status=Inactive UserName=alice",
        "was before:\n  {\"AccessKeyId\":\"AKIAIOSFODNN7EXAMPLE\",\"Status\":\"Active\"",
        "undo:\n  iam:UpdateAccessKey AccessKeyId=AKIAIOSFODNN7EXAMPLE Status=Active",
        "not taken back",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let json = whole(&outcome_id(), &record);
    assert_eq!((&json["status"], &json["begun"]["before"][0]["Status"]), (&json!("carried_out"), &json!("Active")));
    assert_eq!((&json["finding"]["event_id"], &json["undone"]), (&json!("e-1"), &Value::Null));
    assert_eq!(json["begun"]["plan"]["undo"][0]["parameters"]["AccessKeyId"], KEY);
}

#[tokio::test]
async fn what_is_not_there_or_not_permitted_is_said() {
    let fault = |code: &str| Answer::json("400 Bad Request", &json!({"__type": code, "message": "no"}));
    for (answer, part) in [
        (entries(&[]), "it keeps them 28 days"),
        (fault("AccessDeniedException"), "you need the permission dynamodb:BatchGetItem"),
        (fault("ResourceNotFoundException"), "no table of a deployment security-pipeline in eu-central-1"),
        (entries(&[("", "{}")]), "is damaged"),
    ] {
        let error = shown(answer).await.expect_err(part);
        assert!(matches!(error, Failure::Cloud(_)) && error.to_string().contains(part), "{error}");
    }
}
