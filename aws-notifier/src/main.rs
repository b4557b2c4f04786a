//! The notifier as a Lambda function: findings and outcomes in, e-mail through SNS and receipts to the logger's queue
//! out. Wiring only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `LOGGER_QUEUE_URL`,
//! `SNS_TOPIC_ARN` (wins over `channels.sns.topic_arn`), `RUST_LOG` (default `info`). The channels `console` and
//! `file` are for one machine; here they are off.
//!
//! **The ledger is in the memory of this process** until the DynamoDB adapter exists: an alert that is delivered again to
//! another execution is sent again, and repeats are grouped per execution. The function warns about it at every
//! start.

use aws_notifier::channels::{Channel, Sns};
use aws_notifier::{Notifier, configure};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::adapters::aws::lambda::{self, CONFIG_VARIABLE};
use shared::adapters::aws::{SqsClient, SqsOutbox};
use shared::adapters::disk::SystemClock;
use shared::adapters::memory::MemoryLedger;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();

    let variable = std::env::var(CONFIG_VARIABLE).ok();
    let (name, text) = lambda::configuration(variable.as_deref())?;
    let mut document = lambda::document(&name, &text);
    let settings = configure(&mut document);
    document.finish()?;
    let logger = lambda::required("LOGGER_QUEUE_URL", "the URL of the logger's queue")?;
    lambda::warn_of_memory("notifier", "which alerts were sent");
    let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let topic_arn = std::env::var("SNS_TOPIC_ARN").unwrap_or(settings.channels.sns.topic_arn);
    let mut channels: Vec<Box<dyn Channel>> = Vec::new();
    if topic_arn.is_empty() {
        tracing::warn!("no SNS topic is configured: findings are passed to the logger and nobody is told");
    } else {
        channels.push(Box::new(Sns::new(aws_sdk_sns::Client::new(&aws), topic_arn)));
    }
    let receipts = SqsOutbox::new(SqsClient::new(&aws), logger);
    let handler = Notifier::new(settings.notifier, channels, MemoryLedger::default(), receipts, SystemClock);

    let handler = &handler;
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<Value>| -> Result<Value, Error> {
        Ok(lambda::handle(handler, &event.payload).await?)
    }))
    .await
}
