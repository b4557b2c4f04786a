//! The logger as a Lambda function: findings, outcomes and receipts in; the incident store, one structured line each on
//! standard output, which Lambda puts into CloudWatch Logs, and the same lines as objects in a bucket. Wiring only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `STATE_TABLE`, where its ledger is,
//! `INCIDENT_TABLE`, `ARCHIVE_BUCKET` (without it, lines are not archived), `DLQ_URL` (its own dead-letter queue),
//! `DEPLOYMENT` (optional: the name that metrics carry), `RUST_LOG` (default `info`; the function's own log goes to standard
//! error).

use aws_logger::{ArchiveLog, Logger, WriteLog, configure};
use shared::adapters::aws::dynamo::{DynamoIncidents, DynamoLedger};
use shared::adapters::aws::lambda;
use shared::adapters::aws::runtime::{self, Error, Start};
use shared::adapters::aws::{DynamoClient, S3, S3Archive};
use shared::adapters::disk::SystemClock;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let start = Start::new("logger")?;
    let (name, text) = &start.configuration;
    let mut document = lambda::document(name, text);
    let settings = configure(&mut document);
    document.finish()?;
    let dynamo = DynamoClient::new(&start.sdk);
    let ledger = DynamoLedger::new(dynamo.clone(), lambda::required("STATE_TABLE", "the name of the state table")?);
    let incidents = DynamoIncidents::new(dynamo, lambda::required("INCIDENT_TABLE", "the name of the incident table")?);
    let s3 = S3::new(&start.sdk)?;
    let archive = lambda::optional("ARCHIVE_BUCKET").map(|bucket| S3Archive::new(s3, bucket));
    let lines = ArchiveLog::new(WriteLog::new(std::io::stdout()), archive);
    let handler = Logger::new(settings.format, incidents, ledger, lines, SystemClock);
    runtime::serve(start.function(handler, |_| Vec::new())?).await
}
