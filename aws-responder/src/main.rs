//! The responder as a Lambda function: findings in; findings and outcomes to the queues of notifier and logger. Wiring
//! only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `NOTIFIER_QUEUE_URL`,
//! `LOGGER_QUEUE_URL`, `RUST_LOG` (default `info`).
//!
//! **The journal is in the memory of this process** until the DynamoDB adapter exists: a finding that is delivered again
//! to another execution is planned again, and the cap per account and hour counts per execution. This version only
//! plans, so nothing is called twice. The function warns about it at every start.

use std::rc::Rc;

use aws_responder::{Responder, configure};
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
    let notifier = lambda::required("NOTIFIER_QUEUE_URL", "the URL of the notifier's queue")?;
    let logger = lambda::required("LOGGER_QUEUE_URL", "the URL of the logger's queue")?;
    lambda::warn_of_memory("responder", "its journal");
    let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let client = SqsClient::new(&aws);
    let handler = Responder::new(
        &settings,
        Rc::new(MemoryLedger::default()),
        SqsOutbox::new(client.clone(), notifier),
        SqsOutbox::new(client, logger),
        SystemClock,
    )?;

    let handler = &handler;
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<Value>| -> Result<Value, Error> {
        Ok(lambda::handle(handler, &event.payload).await?)
    }))
    .await
}
