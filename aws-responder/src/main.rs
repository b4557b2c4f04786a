//! The responder as a Lambda function: findings in; findings and outcomes to the queues of notifier and logger. Wiring
//! only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `STATE_TABLE`, where its journal is,
//! `NOTIFIER_QUEUE_URL`, `LOGGER_QUEUE_URL`, `DLQ_URL` (its own dead-letter queue), `RUST_LOG` (default `info`).

use aws_responder::{Responder, configure};
use shared::adapters::aws::DynamoClient;
use shared::adapters::aws::dynamo::DynamoLedger;
use shared::adapters::aws::lambda;
use shared::adapters::aws::runtime::{self, Error, Start};
use shared::adapters::disk::SystemClock;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let start = Start::new("responder")?;
    let (name, text) = &start.configuration;
    let mut document = lambda::document(name, text);
    let settings = configure(&mut document);
    document.finish()?;
    let journal = DynamoLedger::new(
        DynamoClient::new(&start.sdk),
        lambda::required("STATE_TABLE", "the name of the state table")?,
    );
    let notifier = start.queue("NOTIFIER_QUEUE_URL", "the URL of the notifier's queue")?;
    let logger = start.queue("LOGGER_QUEUE_URL", "the URL of the logger's queue")?;
    let handler = Responder::new(&settings, journal, notifier, logger, SystemClock)?;
    runtime::serve(start.function(handler, |_| Vec::new())?).await
}
