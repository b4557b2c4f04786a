//! The notifier as a Lambda function: findings and outcomes in, e-mail through SNS and receipts to the logger's queue
//! out. Wiring only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `STATE_TABLE`, where its
//! ledger is, `LOGGER_QUEUE_URL`, `SNS_TOPIC_ARN` (wins over `channels.sns.topic_arn`), `DLQ_URL` (its own dead-letter
//! queue), `DEPLOYMENT` (optional: the name that metrics carry), `RUST_LOG` (default `info`). The channels `console`
//! and `file` are for one machine; here they are off.

use aws_notifier::channels::{Channel, Sns};
use aws_notifier::{Notifier, configure};
use shared::adapters::aws::DynamoClient;
use shared::adapters::aws::dynamo::DynamoLedger;
use shared::adapters::aws::lambda;
use shared::adapters::aws::runtime::{self, Error, Start};
use shared::adapters::disk::SystemClock;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let start = Start::new("notifier")?;
    let (name, text) = &start.configuration;
    let mut document = lambda::document(name, text);
    let settings = configure(&mut document);
    document.finish()?;
    let ledger = DynamoLedger::new(
        DynamoClient::new(&start.sdk),
        lambda::required("STATE_TABLE", "the name of the state table")?,
    );
    let receipts = start.queue("LOGGER_QUEUE_URL", "the URL of the logger's queue")?;
    let topic_arn = lambda::optional("SNS_TOPIC_ARN").unwrap_or(settings.channels.sns.topic_arn);
    let mut channels: Vec<Box<dyn Channel>> = Vec::new();
    if topic_arn.is_empty() {
        tracing::warn!("no SNS topic is configured: findings are passed to the logger and nobody is told");
    } else {
        channels.push(Box::new(Sns::new(aws_sdk_sns::Client::new(&start.sdk), topic_arn)));
    }
    let handler = Notifier::new(settings.notifier, channels, ledger, receipts, SystemClock);
    runtime::serve(start.function(handler, |_| Vec::new())?).await
}
