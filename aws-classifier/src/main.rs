//! The classifier as a Lambda function: SQS batches in, findings to the responder's queue. Wiring only.
//!
//! Environment: `PIPELINE_CONFIG` (a path or TOML text, default: the built-in defaults), `STATE_TABLE`,
//! `RESPONDER_QUEUE_URL`, `CLASSIFIER_QUEUE_URL` (its own queue, where follow-ups wait), `DLQ_URL` (its own dead-letter
//! queue), `UPLOAD_BUCKET` (optional: a bucket whose new objects are inspected), `ALARM_LOG_GROUP` (optional: the log group
//! of CloudTrail that `[alarms]` lead into), `DEPLOYMENT` (optional: the name that metrics carry), `RUST_LOG` (default
//! `info`), and what `key_env` of `[inspection.virustotal]` and `[inspection.hybrid_analysis]` name. Files that settings
//! name are relative to the function's own folder, or `s3://BUCKET/KEY`.

use aws_classifier::alarms::Alarms;
use aws_classifier::engine::Engine;
use aws_classifier::handler::{ClassifierHandler, Counts};
use aws_classifier::inspect::Inspector;
use aws_classifier::object_files::{Make, ObjectFiles, Renewing};
use aws_classifier::reputation::{self, Reputation, Services};
use aws_classifier::surroundings::Cloud;
use shared::adapters::aws::dynamo::DynamoState;
use shared::adapters::aws::lambda::{self, Totals};
use shared::adapters::aws::runtime::{self, Error, Start};
use shared::adapters::aws::{DynamoClient, Logs, S3};
use shared::adapters::disk::{DiskFiles, SystemClock};
use shared::adapters::web::WebClient;
use shared::ports::Files;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let start = Start::new("classifier")?;
    let objects = S3::new(&start.sdk)?;
    let local = DiskFiles::new(std::env::var("LAMBDA_TASK_ROOT").unwrap_or_else(|_| ".".to_owned()));
    let files = ObjectFiles::new(objects.clone(), local);
    let Configured { engine, inspector, services, alarms } =
        files.make(|files| configured(&start.configuration, files)).await?;
    let state = DynamoState::new(
        DynamoClient::new(&start.sdk),
        lambda::required("STATE_TABLE", "the name of the state table")?,
    );
    let findings = start.queue("RESPONDER_QUEUE_URL", "the URL of the responder's queue")?;
    let cloud = Cloud {
        own_queue: start.queue("CLASSIFIER_QUEUE_URL", "the URL of the classifier's own queue")?,
        objects,
        logs: Logs::new(&start.sdk)?,
        clock: SystemClock,
        reputation: Reputation::new(services, WebClient::default()),
    };
    let handler =
        ClassifierHandler::surrounded(engine, state, findings, cloud).inspecting(inspector).looking_into(alarms);
    let configuration = start.configuration.clone();
    let make: Make = Box::new(move |files| {
        configured(&configuration, files).map(|Configured { engine, inspector, .. }| (engine, inspector))
    });
    let renewing = Renewing::new(handler, files, make, SystemClock);
    runtime::serve(start.function(renewing, |renewing| totals(renewing.handler().counts()))?).await
}

/// The metrics of the classifier, by name.
fn totals(counts: Counts) -> Totals {
    vec![
        ("records_in", counts.records_in),
        ("records_classified", counts.classified),
        ("records_ignored", counts.ignored),
        ("records_failed", counts.failed),
        ("findings", counts.findings),
        ("findings_suppressed", counts.suppressed),
        ("findings_repeated", counts.repeats),
    ]
}

struct Configured {
    engine: Engine,
    inspector: Option<Inspector>,
    services: Services,
    alarms: Alarms,
}

/// The classifiers and the inspection, or every mistake of the configuration at once.
fn configured((name, text): &(String, String), files: &dyn Files) -> Result<Configured, Error> {
    let mut document = lambda::document(name, text);
    let engine = Engine::configure(&mut document, files, &[]);
    let services = Services::configure(&mut document, &reputation::keys(files, &lambda::optional));
    let inspector = Inspector::configure(&mut document, files);
    let alarms = Alarms::configure(&mut document);
    document.finish()?;
    let alarms = alarms.reading(lambda::optional("ALARM_LOG_GROUP")).map_err(|error| format!("alarms.{error}"))?;
    let engine = engine.map_err(|refused| {
        let settings = refused.settings.iter().map(|(id, error)| format!("classifiers.{id}.{error}"));
        let all: Vec<String> = settings.chain(refused.rules.iter().map(ToString::to_string)).collect();
        all.join("; ")
    })?;
    for error in &engine.rules().skipped {
        tracing::warn!("left out a rule: {error}");
    }
    let inspector = match lambda::optional("UPLOAD_BUCKET") {
        Some(bucket) => inspector.map(|inspector| inspector.watching(bucket)),
        None => inspector,
    };
    Ok(Configured { engine, inspector, services, alarms })
}
