//! The classifier as a Lambda function: SQS batches in, findings to the responder's queue. Wiring only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `RESPONDER_QUEUE_URL`,
//! `RUST_LOG` (default `info`). Files that settings name are relative to the function's own folder.
//!
//! **What classifiers remember is in the memory of this process** until the DynamoDB adapter exists: counts, first-seen
//! and last-value state is not shared between concurrent executions and is lost when Lambda recycles one. Stateless
//! classifiers are not affected. The function warns about it at every start.

use aws_classifier::engine::Engine;
use aws_classifier::handler::ClassifierHandler;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::adapters::aws::lambda::{self, CONFIG_VARIABLE};
use shared::adapters::aws::{SqsClient, SqsOutbox};
use shared::adapters::disk::DiskFiles;
use shared::adapters::memory::MemoryState;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();

    let engine = engine()?;
    let findings = lambda::required("RESPONDER_QUEUE_URL", "the URL of the responder's queue")?;
    lambda::warn_of_memory("classifier", "what classifiers remember");
    let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let handler =
        ClassifierHandler::new(engine, MemoryState::default(), SqsOutbox::new(SqsClient::new(&aws), findings));

    let handler = &handler;
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<Value>| -> Result<Value, Error> {
        Ok(lambda::handle(handler, &event.payload).await?)
    }))
    .await
}

/// The classifiers, or every mistake of the configuration at once.
fn engine() -> Result<Engine, Error> {
    let variable = std::env::var(CONFIG_VARIABLE).ok();
    let (name, text) = lambda::configuration(variable.as_deref())?;
    let mut document = lambda::document(&name, &text);
    let files = DiskFiles::new(std::env::var("LAMBDA_TASK_ROOT").unwrap_or_else(|_| ".".to_owned()));
    let engine = Engine::configure(&mut document, &files, &[]);
    document.finish()?;
    let engine = engine.map_err(|refused| {
        let settings = refused.settings.iter().map(|(id, error)| format!("classifiers.{id}.{error}"));
        let all: Vec<String> = settings.chain(refused.rules.iter().map(ToString::to_string)).collect();
        all.join("; ")
    })?;
    for error in &engine.rules().skipped {
        tracing::warn!("left out a rule: {error}");
    }
    Ok(engine)
}
