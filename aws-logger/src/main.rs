//! The logger as a Lambda function: findings, outcomes and receipts in, one structured line each on standard output,
//! which Lambda puts into CloudWatch Logs. Wiring only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `RUST_LOG` (default `info`; the
//! function's own log goes to standard error).
//!
//! **Ledger and incidents are in the memory of this process** until the DynamoDB adapters exist: the lines are complete,
//! the incident store is not readable from outside and is lost when Lambda recycles the process, and a receipt that
//! reaches another execution than its finding goes to the dead-letter queue. Run it with a reserved concurrency of 1
//! until then. The function warns about it at every start.

use aws_logger::{Logger, WriteLog, configure};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::adapters::aws::lambda::{self, CONFIG_VARIABLE};
use shared::adapters::disk::SystemClock;
use shared::adapters::memory::{MemoryIncidents, MemoryLedger};
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
    lambda::warn_of_memory("logger", "incidents and what was logged");
    let lines = WriteLog::new(std::io::stdout());
    let handler = Logger::new(settings.format, MemoryIncidents::default(), MemoryLedger::default(), lines, SystemClock);

    let handler = &handler;
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<Value>| -> Result<Value, Error> {
        Ok(lambda::handle(handler, &event.payload).await?)
    }))
    .await
}
