//! `pipeline responses undo`: takes a response back, with the operator's own credentials.
//!
//! First it says what would be called now, and as whom; only then, and only when somebody agrees, the responder's
//! [`aws_responder::undo`] does it and the journal keeps that it was done. Ctrl-C ends it at any point: what was made
//! stays made, and the same command makes the rest once the claim of the first has ended.

use std::io::{BufRead, IsTerminal, Write};

use aws_responder::aws::AwsCloud;
use aws_responder::journal::{Begun, Record, Undone};
use aws_responder::undo::{UndoError, preview, undo};
use serde_json::json;
use shared::ApiCall;
use shared::adapters::disk::SystemClock;
use shared::text::one_line;

use super::responses::{calls, cannot_ask, journal, recorded};
use super::session::{Caller, Session};
use crate::args::{Format, ResponsesUndoArgs};
use crate::failure::Failure;
use crate::output::{self, BOLD};

/// Characters of a name that are shown.
const NAME_CHARS_MAX: usize = 600;

/// Takes a response back.
///
/// # Errors
/// When nothing was carried out, the caller is of another account or does not agree, or a call did not work.
pub async fn execute(args: &ResponsesUndoArgs) -> Result<(), Failure> {
    let session = Session::open(&args.deployment).await?;
    let terminal = std::io::stdin().is_terminal().then(|| std::io::stdin().lock());
    take_back(&session, args, terminal, &mut output::stdout()).await
}

/// `terminal` is who can be asked.
async fn take_back(
    session: &Session,
    args: &ResponsesUndoArgs,
    terminal: Option<impl BufRead>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let caller = session.caller().await?;
    let record = recorded(session, &args.outcome_id).await?;
    if let Some(undone) = &record.undone {
        return report(out, args, undone, true);
    }
    let begun = may_undo(&record, &args.outcome_id, &caller)?;
    let cloud = AwsCloud::new(session.config().clone(), caller.account.clone());
    let ended = record.ended.as_ref().map(|(_, outcome)| outcome);
    let would = preview(&cloud, begun, ended).await.map_err(|error| failure(session, error))?;
    // Programs read standard output; what is about to happen is for whoever watches.
    match args.format {
        Format::Text => announce(out, begun, &caller, &would)?,
        Format::Json => announce(&mut anstream::stderr().lock(), begun, &caller, &would)?,
    }
    if !args.yes {
        confirm(terminal)?;
    }
    let done = undo(&journal(session), &cloud, &SystemClock, &args.outcome_id).await;
    let (undone, was_before) = done.map_err(|error| failure(session, error))?;
    report(out, args, &undone, was_before)
}

/// What the response began with, when this caller can take it back.
fn may_undo<'r>(record: &'r Record, outcome_id: &str, caller: &Caller) -> Result<&'r Begun, Failure> {
    let Some(begun) = &record.begun else {
        let nothing = UndoError::NothingCarriedOut(one_line(outcome_id, NAME_CHARS_MAX));
        let how = record.ended.as_ref().map_or_else(String::new, |(_, outcome)| {
            format!(": it is {}, {}", outcome.status.as_str(), one_line(&outcome.note, NAME_CHARS_MAX))
        });
        return Err(Failure::Cloud(format!("{nothing}{how}")));
    };
    let foreign = begun.plan.reads.iter().chain(&begun.plan.undo).find(|call| call.account != caller.account);
    if let Some(call) = foreign {
        let (theirs, arn) = (one_line(&call.account, NAME_CHARS_MAX), one_line(&caller.arn, NAME_CHARS_MAX));
        return Err(Failure::Cloud(format!(
            "the response was in account {theirs}, and you are {arn}; take credentials of that account, such as \
             a profile that assumes a role there (--profile)"
        )));
    }
    Ok(begun)
}

/// Says what would be called, and as whom.
fn announce(out: &mut impl Write, begun: &Begun, caller: &Caller, would: &[ApiCall]) -> std::io::Result<()> {
    let shown = |text: &str| one_line(text, NAME_CHARS_MAX);
    writeln!(out, "{BOLD}{} on {}{BOLD:#}, carried out at {}", shown(&begun.action), shown(&begun.target), begun.at)?;
    writeln!(out, "because of: {} {}", begun.finding.severity, shown(&begun.finding.title))?;
    writeln!(out, "you are {} in account {}", shown(&caller.arn), shown(&caller.account))?;
    calls(out, "with these credentials would be called:", would)?;
    let more = match would {
        [] => "everything is as it was before, so nothing would be called; the journal would keep that it is undone",
        _ => "these are events too: unless the target or you are exempt, the responder may answer them",
    };
    writeln!(out, "{more}")?;
    out.flush()
}

/// Asks on standard error and reads the answer.
fn confirm(terminal: Option<impl BufRead>) -> Result<(), Failure> {
    let Some(mut terminal) = terminal else {
        return Err(Failure::Usage("nothing was changed: there is no terminal to ask on, so add --yes".to_owned()));
    };
    let mut err = anstream::stderr().lock();
    write!(err, "Take it back? Type yes: ")?;
    err.flush()?;
    let mut answer = String::new();
    terminal.read_line(&mut answer)?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::Usage("nothing was changed, as you did not say yes".to_owned()))
    }
}

fn failure(session: &Session, error: UndoError) -> Failure {
    match error {
        UndoError::NothingCarriedOut(_) | UndoError::UnknownAction(_) | UndoError::NotSeen(_) => {
            Failure::Cloud(error.to_string())
        }
        UndoError::Stopped { .. } => Failure::Unwell(format!("{error}\nthe same command makes the rest")),
        UndoError::Journal(error) if error.is_retryable() => error.into(),
        UndoError::Journal(error) => cannot_ask(session, "dynamodb:PutItem", &error),
    }
}

fn report(out: &mut impl Write, args: &ResponsesUndoArgs, undone: &Undone, was_before: bool) -> Result<(), Failure> {
    match args.format {
        Format::Json => {
            let said = json!({
                "outcome_id": args.outcome_id, "undone_at": undone.at, "calls": undone.calls, "was_undone_before": was_before,
            });
            output::json(out, &said)?;
        }
        Format::Text => {
            let when = if was_before { "it was taken back before, at" } else { "taken back at" };
            writeln!(out, "{when} {}", undone.at)?;
            calls(out, "with:", &undone.calls)?;
            if undone.calls.is_empty() {
                writeln!(out, "without a call: everything was as before already")?;
            }
        }
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;
    use shared::adapters::loopback::{Answer, Loopback};
    use shared::{OutcomeStatus, Timestamp};

    use super::super::responses::tests_support::{ACCOUNT, KEY, begun, carried_out, entries, identity, outcome_id};
    use super::*;
    use crate::args::{Cli, Command, ResponsesCommand};

    /// What came of `pipeline responses undo` with these answers of AWS, what it printed, and what it asked.
    async fn undoing(
        more: &[&str],
        said: Option<&str>,
        answers: Vec<Answer>,
    ) -> (Result<(), Failure>, String, Loopback) {
        let id = outcome_id();
        let line = ["pipeline", "responses", "undo", &id];
        let Command::Responses(ResponsesCommand::Undo(args)) = Cli::parse_from(line.iter().chain(more)).command else {
            panic!("an undo")
        };
        let server = Loopback::answering(answers);
        let session = Session::of_tests("security-pipeline", "eu-central-1", server.endpoint());
        let mut out = Vec::new();
        let result = take_back(&session, &args, said.map(str::as_bytes), &mut out).await;
        (result, String::from_utf8(out).expect("UTF-8"), server)
    }

    fn keys(status: &str) -> Answer {
        Answer::xml(
            "200 OK",
            format!(
                "<ListAccessKeysResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><ListAccessKeysResult>\
                 <IsTruncated>false</IsTruncated><AccessKeyMetadata><member><UserName>alice</UserName>\
                 <AccessKeyId>{KEY}</AccessKeyId><Status>{status}</Status></member></AccessKeyMetadata>\
                 </ListAccessKeysResult></ListAccessKeysResponse>"
            ),
        )
    }

    fn updated() -> Answer {
        let empty = "<UpdateAccessKeyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"/>";
        Answer::xml("200 OK", empty)
    }

    fn denied() -> Answer {
        let error = "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error><Type>Sender</Type>\
                     <Code>AccessDenied</Code><Message>not yours</Message></Error></ErrorResponse>";
        Answer::xml("403 Forbidden", error)
    }

    fn written() -> Answer {
        Answer::json("200 OK", &json!({}))
    }

    /// A claim that meets what is done already.
    fn done(text: &str) -> Answer {
        let item = json!({"pk": {"S": "ledger/x"}, "done": {"S": text}});
        let body = json!({"__type": "ConditionalCheckFailedException", "message": "so", "Item": item});
        Answer::json("400 Bad Request", &body)
    }

    /// From the caller's identity to the claim of the undo.
    fn up_to_the_claim() -> Vec<Answer> {
        let (outcome, begun) = (carried_out(), begun());
        vec![
            identity(ACCOUNT),
            entries(&[("", &outcome), ("response_begun/", &begun)]),
            keys("Inactive"),
            entries(&[("response_begun/", &begun)]),
            done(&outcome),
            written(),
        ]
    }

    #[tokio::test]
    async fn an_undo_says_what_it_would_call_and_as_whom_and_does_exactly_that() {
        let mut answers = up_to_the_claim();
        answers.extend([keys("Inactive"), updated(), written()]);
        let (result, out, server) = undoing(&[], Some("yes\n"), answers).await;
        result.expect("taken back");
        let call = format!(
            "iam:UpdateAccessKey AccessKeyId={KEY} Status=Active UserName=alice (account {ACCOUNT}, us-east-1)"
        );
        for part in [
            "you are arn:aws:iam::123456789012:user/operator in account 123456789012",
            "high Key created",
            "taken back at",
        ] {
            assert!(out.contains(part), "{part}\n{out}");
        }
        assert_eq!(out.matches(&call).count(), 2, "before and after\n{out}");
        let asked = server.requests();
        assert!(asked[7].contains("Action=UpdateAccessKey") && asked[7].contains("Status=Active"), "{}", asked[7]);
        let kept: Value = serde_json::from_str(&asked[8]).expect("JSON");
        assert_eq!(kept["Item"]["pk"]["S"], format!("ledger/response_undone/{}", outcome_id()));
    }

    #[tokio::test]
    async fn nothing_is_changed_unless_somebody_says_yes() {
        for said in [None, Some("y\n"), Some("no\n"), Some("")] {
            let (result, _, server) = undoing(&[], said, up_to_the_claim()).await;
            let error = result.expect_err("not agreed").to_string();
            assert!(error.starts_with("nothing was changed"), "{error}");
            assert_eq!(server.requests().len(), 3, "who, what and how it is now");
        }
    }

    #[tokio::test]
    async fn a_second_undo_says_when_the_first_was() {
        let undone = Undone::new(Vec::new(), Timestamp::parse("2026-03-01T13:00:00Z").expect("a time"));
        let undone = serde_json::to_string(&undone).expect("JSON");
        let answers = || {
            let stored = [("", &*carried_out()), ("response_begun/", &begun()), ("response_undone/", &undone)]
                .map(|(kind, text)| (kind, text.to_owned()));
            vec![identity(ACCOUNT), entries(&stored.each_ref().map(|(kind, text)| (*kind, &**text)))]
        };
        let (result, out, server) = undoing(&[], None, answers()).await;
        result.expect("it is undone");
        assert!(out.contains("it was taken back before, at 2026-03-01T13:00:00Z"), "{out}");
        assert_eq!(server.requests().len(), 2, "nobody is asked and nothing is called");
        let (_, out, _) = undoing(&["--format", "json"], None, answers()).await;
        let said: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((&said["was_undone_before"], &said["undone_at"]), (&json!(true), &json!("2026-03-01T13:00:00Z")));
    }

    #[tokio::test]
    async fn who_is_of_another_account_is_told_whose_credentials_it_takes() {
        let answers = vec![identity("210987654321"), entries(&[("", &carried_out()), ("response_begun/", &begun())])];
        let (result, _, server) = undoing(&["--yes"], None, answers).await;
        let error = result.expect_err("refused").to_string();
        assert!(
            error.contains("was in account 123456789012, and you are arn:aws:iam::210987654321:user/operator"),
            "{error}"
        );
        assert_eq!(server.requests().len(), 2, "the account is not even looked at");
    }

    #[tokio::test]
    async fn what_was_not_carried_out_says_how_it_stands() {
        let dry =
            super::super::responses::tests_support::ended(OutcomeStatus::DryRun, "dry run: 1 call planned, none made");
        let (result, _, _) = undoing(&["--yes"], None, vec![identity(ACCOUNT), entries(&[("", &dry)])]).await;
        let error = result.expect_err("nothing to undo").to_string();
        assert!(error.contains("nothing to undo: it is DRY_RUN, dry run: 1 call planned"), "{error}");
    }

    #[tokio::test]
    async fn a_call_that_is_refused_leaves_the_undo_to_be_repeated() {
        let mut answers = up_to_the_claim();
        // The claim is given up.
        answers.extend([keys("Inactive"), denied(), written()]);
        let (result, _, server) = undoing(&["--yes"], None, answers).await;
        let error = result.expect_err("denied");
        let said = error.to_string();
        assert!(said.contains("iam:UpdateAccessKey is not permitted: AccessDenied: not yours"), "{said}");
        assert!(matches!(error, Failure::Unwell(_)) && said.contains("the same command makes the rest"), "{said}");
        assert!(server.requests()[8].contains("claimed_by"));
        let (result, _, _) = undoing(&["--yes"], None, {
            let mut answers = up_to_the_claim();
            answers.truncate(2);
            answers.push(denied());
            answers
        })
        .await;
        let error = result.expect_err("denied").to_string();
        assert!(
            error.contains("it cannot be told what an undo would change: iam:ListAccessKeys is not permitted"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_undo_at_work_elsewhere_is_a_failure_to_repeat() {
        let mut answers = up_to_the_claim();
        answers.pop();
        let until = json!({"pk": {"S": "ledger/x"}, "lease_until": {"N": "4102444800000"}});
        let body = json!({"__type": "ConditionalCheckFailedException", "message": "so", "Item": until});
        answers.push(Answer::json("400 Bad Request", &body));
        let (result, _, _) = undoing(&["--yes"], None, answers).await;
        let error = result.expect_err("busy");
        assert!(matches!(error, Failure::Port(_)) && error.to_string().contains("is being worked on until"), "{error}");
    }
}
