//! A component as a program that Lambda starts. Behind the feature `lambda`; each `main.rs` is wiring on top of this.
//!
//! **Standard error** is the function's own log, JSON lines. **Standard output** has lines for machines: metrics and,
//! from the logger, records.
//!
//! **Ending.** On SIGTERM the batch under way is handled and answered, then the process ends. Lambda sends the signal only
//! to functions with an extension, and freezes others between batches; either way nothing is lost, because every effect
//! is written before a batch is answered.

use std::cell::Cell;
use std::io::{Stdout, Write};
use std::time::{Duration, Instant};

use aws_types::SdkConfig;
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::tower::util::MapFutureLayer;
use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

use super::lambda::{self, CONFIG_VARIABLE, Function, Invocation, Totals};
use super::{SqsClient, SqsOutbox, TraceHeader, sdk};
use crate::ports::Handler;

/// How long after it was asked to end an idle function waits for a batch that is on its way to it: our choice, a third of
/// what Lambda gives at least.
const LAST_CALL: Duration = Duration::from_millis(100);

/// Why a function could not start or go on.
pub type Error = lambda_runtime::Error;

/// What a function has from its start on.
pub struct Start {
    component: &'static str,
    started: Instant,
    /// The text of the configuration, and its name for error messages.
    pub configuration: (String, String),
    /// What clients are built from.
    pub sdk: SdkConfig,
    sqs: SqsClient,
    trace: TraceHeader,
}

impl Start {
    /// Begins: the log, the configuration's text, what clients need. Call it first.
    ///
    /// # Errors
    /// When the configuration names a file that cannot be read, or there is no region or there are no credentials.
    pub fn new(component: &'static str) -> Result<Self, Error> {
        let started = Instant::now();
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        let configuration = lambda::configuration(lambda::optional(CONFIG_VARIABLE).as_deref())?;
        let sdk = sdk::config()?;
        let sqs = SqsClient::new(&sdk);
        Ok(Self { component, started, configuration, sdk, sqs, trace: TraceHeader::default() })
    }

    /// The queue whose URL an environment variable holds.
    ///
    /// # Errors
    /// When it is not set; `what` says what it is for.
    pub fn queue(&self, variable: &str, what: &str) -> Result<SqsOutbox, Error> {
        Ok(SqsOutbox::new(self.sqs.clone(), lambda::required(variable, what)?, self.trace.clone()))
    }

    /// The function around a handler; `totals` reads what the handler has counted.
    ///
    /// # Errors
    /// When the URL of its dead-letter queue is not set.
    pub fn function<H: Handler, T: Fn(&H) -> Totals>(
        self,
        handler: H,
        totals: T,
    ) -> Result<Function<H, T, Stdout>, Error> {
        let dead_letters = self.queue("DLQ_URL", "the URL of this function's own dead-letter queue")?;
        Ok(Function::new(self.component, handler, totals, dead_letters, self.trace, std::io::stdout(), self.started))
    }
}

/// Handles invocations until the process is asked to end.
///
/// # Errors
/// When the Runtime API cannot be reached.
pub async fn serve<H: Handler, T: Fn(&H) -> Totals, W: Write>(function: Function<H, T, W>) -> Result<(), Error> {
    let (busy, answered) = (Cell::new(false), Notify::new());
    let (busy, answered, function) = (&busy, &answered, &function);
    let invoke = async move |event: LambdaEvent<Value>| -> Result<Value, Error> {
        let trace = event.context.xray_trace_id.as_deref();
        Ok(function.invoke(&event.payload, Invocation { request_id: &event.context.request_id, trace }).await?)
    };
    // Around everything, the sending of the answer included.
    let watch = MapFutureLayer::new(|answering| async move {
        busy.set(true);
        let result = answering.await;
        busy.set(false);
        answered.notify_one();
        result
    });
    let runtime = Runtime::new(service_fn(invoke)).layer(TracingLayer::new()).layer(watch);
    let mut terminate = signal(SignalKind::terminate())?;
    let asked_to_end = async {
        terminate.recv().await;
        tokio::time::sleep(LAST_CALL).await;
        while busy.get() {
            answered.notified().await;
        }
    };
    tokio::select! {
        ended = runtime.run() => ended,
        () = asked_to_end => {
            tracing::info!("ended as asked");
            Ok(())
        }
    }
}
