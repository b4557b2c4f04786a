//! The responder as a Lambda function: findings in; findings and outcomes to the queues of notifier and logger. Wiring
//! only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `STATE_TABLE`, where its
//! journal is, `RESPONSES` (`carry-out`, or by default `plan`, which changes nothing whatever the configuration says),
//! `ACCOUNT_ID`, the account it is in and acts in, `NOTIFIER_QUEUE_URL`, `LOGGER_QUEUE_URL`, `DLQ_URL` (its own
//! dead-letter queue), `DEPLOYMENT` (optional: its name, which metrics carry and its roles begin with), `RUST_LOG` (default `info`).

use aws_responder::aws::AwsCloud;
use aws_responder::response::Counts;
use aws_responder::{NoCloud, Responder, configure};
use shared::adapters::aws::DynamoClient;
use shared::adapters::aws::dynamo::DynamoLedger;
use shared::adapters::aws::lambda::{self, Totals};
use shared::adapters::aws::runtime::{self, Error, Start};
use shared::adapters::disk::SystemClock;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let start = Start::new("responder")?;
    let (name, text) = &start.configuration;
    let mut document = lambda::document(name, text);
    let mut settings = configure(&mut document);
    document.finish()?;
    if let Some(name) = lambda::optional("DEPLOYMENT") {
        settings = settings.of_deployment(&name);
    }
    let journal = DynamoLedger::new(
        DynamoClient::new(&start.sdk),
        lambda::required("STATE_TABLE", "the name of the state table")?,
    );
    let notifier = start.queue("NOTIFIER_QUEUE_URL", "the URL of the notifier's queue")?;
    let logger = start.queue("LOGGER_QUEUE_URL", "the URL of the logger's queue")?;
    let cloud = match lambda::optional("RESPONSES").as_deref() {
        Some("carry-out") => {
            let account = lambda::required("ACCOUNT_ID", "the account that the function is in")?;
            Ok(AwsCloud::new(start.sdk.clone(), account))
        }
        None | Some("plan") => Err(NoCloud("this deployment only plans: its parameter Responses is plan")),
        Some(other) => return Err(format!("RESPONSES is {other:?}, but must be plan or carry-out").into()),
    };
    let handler = Responder::new(&settings, journal, notifier, logger, SystemClock, cloud)?;
    runtime::serve(start.function(handler, |handler| totals(handler.counts()))?).await
}

/// The metrics of the responder, by name.
fn totals(counts: Counts) -> Totals {
    vec![
        ("responses_succeeded", counts.succeeded),
        ("responses_failed", counts.failed),
        ("responses_skipped", counts.skipped),
        ("responses_dry_run", counts.dry_run),
    ]
}
