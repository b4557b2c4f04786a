//! Records of CloudTrail in CloudWatch Logs, found with Logs Insights: a query is started, asked after until it is complete,
//! and its results are read a page at a time. Without the SDK's client, as a function has no room for one.
//!
//! Formats and limits are those of the API reference of `StartQuery` and `GetQueryResults`
//! (<https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartQuery.html>).

use std::time::Duration;

use aws_types::SdkConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::json::{JsonService, Names, Refused};
use super::{is_of_the_deployment, sdk};
use crate::ports::{LogPages, LogQuery, LogRecords, PortError, PortResult};

const NAMES: Names =
    Names { host: "logs", id: "CloudWatch Logs", target: "Logs_20140328", content_type: "application/x-amz-json-1.1" };
/// The most that a query finds: the command `limit` takes no more.
const RECORDS_MAX: u64 = 10_000;
/// Records of one answer: our choice.
const PAGE_RECORDS: usize = 100;
/// A longer answer is none. Twice a page of the largest events there are, 256 KiB each, for their quotes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The longest that a query and reading its results may take: our choice, less than half of the deployed function's 50 s. A
/// window of ten minutes takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first pause before a query is asked after; pauses double.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The log groups of one region.
#[derive(Clone, Debug)]
pub struct Logs {
    service: JsonService,
    patience: Duration,
    pause: Duration,
}

/// A query that is complete.
#[derive(Debug)]
pub struct LogsFound {
    logs: Logs,
    query: Query,
    read: u64,
    next: Option<Results>,
}

/// A query that was started.
#[derive(Clone, Debug)]
struct Query {
    id: String,
    /// For messages.
    what: String,
    deadline: Instant,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    #[serde(default)]
    status: String,
    #[serde(default)]
    results: Vec<Vec<Field>>,
    #[serde(default)]
    statistics: Statistics,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Field {
    field: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Statistics {
    records_matched: f64,
}

impl Logs {
    /// From the configuration of all clients, and `AWS_ENDPOINT_URL_CLOUDWATCH_LOGS`.
    ///
    /// # Errors
    /// When there is no region or there are no credentials.
    pub fn new(sdk: &SdkConfig) -> Result<Self, String> {
        let service = JsonService::new(sdk, NAMES, sdk::CONNECT, sdk::ATTEMPT)?;
        Ok(Self { service, patience: PATIENCE, pause: PAUSE })
    }

    /// Calls; tries again what may work later.
    async fn call<T: DeserializeOwned>(&self, operation: &str, input: &Value) -> Result<T, Refused> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.call_once(operation, input).await {
                Err(refused) if refused.is_retryable && tries < sdk::ATTEMPTS => sdk::pause(tries).await,
                result => return result,
            }
        }
    }

    async fn call_once<T: DeserializeOwned>(&self, operation: &str, input: &Value) -> Result<T, Refused> {
        let later = |why: String| Refused { is_retryable: true, status: 0, code: String::new(), message: Some(why) };
        let call = Box::pin(self.service.call(operation, input, ANSWER_BYTES_MAX));
        let answer = tokio::time::timeout(sdk::ATTEMPT, call).await;
        let answer = answer.unwrap_or_else(|_| Err(later("no answer in time".to_owned())))?;
        serde_json::from_slice(&answer).map_err(|error| later(format!("an answer that cannot be read: {error}")))
    }

    async fn start(&self, query: &LogQuery<'_>, what: &str) -> PortResult<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Started {
            query_id: String,
        }
        let input = json!({
            "logGroupName": query.log_group,
            // Whole seconds, both of which belong to the range: rounded away from its middle.
            "startTime": query.from.as_millis().div_euclid(1000),
            "endTime": query.until.as_millis().saturating_add(999).div_euclid(1000),
            "queryString": query_string(query.events)?,
        });
        let started: Started = self.call("StartQuery", &input).await.map_err(|refused| failed(what, &refused))?;
        Ok(started.query_id)
    }

    /// Asks after a query until it is over.
    async fn complete(&self, query: &Query) -> PortResult<Results> {
        let mut pause = self.pause;
        loop {
            let results = self.results(query, None).await?;
            match &*results.status {
                "Complete" => return Ok(results),
                "Scheduled" | "Running" | "Unknown" => {}
                other => return Err(retryable(format!("{}: the query ended as {}", query.what, short(other)))),
            }
            if Instant::now() + pause > query.deadline {
                return Err(retryable(format!("{}: the query took too long", query.what)));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn results(&self, query: &Query, token: Option<&str>) -> PortResult<Results> {
        let mut input = json!({"queryId": query.id, "maxItems": PAGE_RECORDS});
        if let Some(token) = token {
            input["nextToken"] = token.into();
        }
        let call = self.call("GetQueryResults", &input);
        match tokio::time::timeout_at(query.deadline, call).await {
            Ok(answer) => answer.map_err(|refused| failed(&query.what, &refused)),
            Err(_) => Err(retryable(format!("{}: the query took too long", query.what))),
        }
    }

    /// Stops a query that nobody waits for, so that it does not count among those that may run at once.
    async fn stop(&self, query: &Query) {
        let stopped: Result<Value, Refused> = self.call_once("StopQuery", &json!({"queryId": query.id})).await;
        if let Err(refused) = stopped {
            warn!("could not stop a query: {refused}");
        }
    }
}

/// The question. Names stand between quotes, so nothing but letters and digits goes into it.
fn query_string(events: &[String]) -> PortResult<String> {
    let is_name = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if events.is_empty() || !events.iter().all(is_name) {
        let what = format!("names of events are letters and digits: {events:?}");
        return Err(PortError::Permanent { what, source: None });
    }
    let names: Vec<String> = events.iter().map(|name| format!("\"{name}\"")).collect();
    let names = names.join(", ");
    Ok(format!("fields @message | filter eventName in [{names}] | sort @timestamp asc | limit {RECORDS_MAX}"))
}

fn failed(what: &str, refused: &Refused) -> PortError {
    let what = format!("{what}: {refused}");
    // More queries run at once than may: 30 in a region.
    let is_crowded = refused.code == "LimitExceededException";
    let may_work = refused.is_retryable || is_crowded || is_of_the_deployment(&refused.code);
    if may_work { retryable(what) } else { PortError::Permanent { what, source: None } }
}

const fn retryable(what: String) -> PortError {
    PortError::Retryable { what, source: None }
}

fn short(text: &str) -> String {
    crate::text::one_line(text, 40)
}

impl LogRecords for Logs {
    type Found = LogsFound;

    async fn find(&self, query: &LogQuery<'_>) -> PortResult<LogsFound> {
        let deadline = Instant::now() + self.patience;
        let what = format!("could not search the log group {}", query.log_group);
        let id = self.start(query, &what).await?;
        let query = Query { id, what, deadline };
        match self.complete(&query).await {
            Ok(results) => Ok(LogsFound { logs: self.clone(), query, read: 0, next: Some(results) }),
            Err(error) => {
                self.stop(&query).await;
                Err(error)
            }
        }
    }
}

impl LogPages for LogsFound {
    async fn next(&mut self) -> PortResult<Option<Vec<String>>> {
        let Some(Results { results, statistics, next_token, .. }) = self.next.take() else { return Ok(None) };
        if results.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "at most a few hundred thousand")]
            let is_all = statistics.records_matched <= self.read as f64;
            let what = || format!("{}: of more than {RECORDS_MAX} records only the first were read", self.query.what);
            return if is_all { Ok(None) } else { Err(PortError::Permanent { what: what(), source: None }) };
        }
        self.read += results.len() as u64;
        self.next = Some(match next_token {
            Some(token) => self.logs.results(&self.query, Some(&token)).await?,
            None => Results { status: String::new(), results: Vec::new(), statistics, next_token: None },
        });
        let message = |row: Vec<Field>| row.into_iter().find(|field| field.field == "@message").map(|f| f.value);
        Ok(Some(results.into_iter().filter_map(message).collect()))
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_types::region::Region;

    use super::*;
    use crate::adapters::loopback::{Answer, Loopback};
    use crate::time::Timestamp;

    fn logs(endpoint: &str) -> Logs {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let sdk = SdkConfig::builder()
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(endpoint);
        let patience = Duration::from_secs(20);
        Logs { pause: Duration::from_millis(1), patience, ..Logs::new(&sdk.build()).expect("region and credentials") }
    }

    fn started() -> Answer {
        Answer::json("200 OK", &json!({"queryId": "q-1"}))
    }

    fn still(status: &str) -> Answer {
        Answer::json("200 OK", &json!({"status": status, "results": []}))
    }

    fn page(records: &[&str], matched: f64, next: Option<&str>) -> Answer {
        let row = |record: &&str| json!([{"field": "@message", "value": record}, {"field": "@ptr", "value": "p"}]);
        let rows: Vec<Value> = records.iter().map(row).collect();
        let statistics = json!({"recordsMatched": matched, "recordsScanned": 99.0, "bytesScanned": 1.0});
        let mut page = json!({"status": "Complete", "results": rows, "statistics": statistics});
        if let Some(next) = next {
            page["nextToken"] = next.into();
        }
        Answer::json("200 OK", &page)
    }

    fn refusal(code: &str) -> Answer {
        Answer::json("400 Bad Request", &json!({"__type": code, "message": "said so"}))
    }

    async fn found(logs: &Logs) -> PortResult<Vec<String>> {
        let query = LogQuery {
            log_group: "trail",
            events: &["RunInstances".to_owned(), "CreateFleet".to_owned()],
            from: Timestamp::from_millis(1_772_366_100_250),
            until: Timestamp::from_millis(1_772_366_700_250),
        };
        let mut found = logs.find(&query).await?;
        let mut all = Vec::new();
        while let Some(page) = found.next().await? {
            all.extend(page);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_query_is_asked_after_until_it_is_complete_and_read_by_pages() {
        let server = Loopback::answering([
            started(),
            still("Scheduled"),
            still("Running"),
            page(&["{\"a\":1}", "{\"a\":2}"], 3.0, Some("t-1")),
            page(&["{\"a\":3}"], 3.0, None),
        ]);
        let records = found(&logs(server.endpoint())).await.expect("found");
        assert_eq!(records, ["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]);
        let sent: Vec<Value> = server.requests().iter().map(|body| serde_json::from_str(body).expect("JSON")).collect();
        let asked = json!({"queryId": "q-1", "maxItems": 100});
        assert_eq!(
            sent,
            [
                json!({"logGroupName": "trail", "startTime": 1_772_366_100, "endTime": 1_772_366_701,
                       "queryString": "fields @message | filter eventName in [\"RunInstances\", \"CreateFleet\"] \
                                       | sort @timestamp asc | limit 10000"}),
                asked.clone(),
                asked.clone(),
                asked,
                json!({"queryId": "q-1", "maxItems": 100, "nextToken": "t-1"}),
            ]
        );
    }

    #[tokio::test]
    async fn calls_are_signed_for_the_service_and_name_the_operation() {
        let server = Loopback::answering([started(), page(&[], 0.0, None)]);
        assert_eq!(found(&logs(server.endpoint())).await.expect("found"), [""; 0]);
        let heads = server.heads();
        for (head, operation) in heads.iter().zip(["StartQuery", "GetQueryResults"]) {
            assert!(head.starts_with("POST / HTTP/1.1"), "{head}");
            assert!(head.contains(&format!("x-amz-target: Logs_20140328.{operation}")), "{head}");
            assert!(head.contains("content-type: application/x-amz-json-1.1"), "{head}");
            assert!(head.contains("/eu-central-1/logs/aws4_request"), "{head}");
            assert!(head.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-target"), "{head}");
        }
    }

    #[tokio::test]
    async fn more_than_can_be_had_is_an_error_behind_the_last() {
        let server = Loopback::answering([started(), page(&["{}"], 10_001.0, None)]);
        let logs = logs(server.endpoint());
        let query = LogQuery {
            log_group: "trail",
            events: &["RunInstances".to_owned()],
            from: Timestamp::default(),
            until: Timestamp::default(),
        };
        let mut found = logs.find(&query).await.expect("found");
        assert_eq!(found.next().await.expect("the first"), Some(vec!["{}".to_owned()]));
        let error = found.next().await.expect_err("there are more");
        assert!(!error.is_retryable() && error.to_string().contains("of more than 10000 records"), "{error}");
        assert_eq!(found.next().await.expect("said once"), None);
    }

    #[tokio::test]
    async fn a_query_that_ends_badly_or_takes_too_long_may_work_later_and_is_stopped() {
        let stopped = || Answer::json("200 OK", &json!({"success": true}));
        for status in ["Failed", "Cancelled", "Timeout"] {
            let server = Loopback::answering([started(), still(status), stopped()]);
            let error = found(&logs(server.endpoint())).await.expect_err(status);
            assert!(error.is_retryable() && error.to_string().contains(status), "{error}");
            assert_eq!(server.requests()[2], "{\"queryId\":\"q-1\"}", "stopped");
        }
        let server = Loopback::answering([started(), still("Running"), stopped()]);
        // The next pause would end behind the deadline.
        let impatient = Logs { pause: Duration::from_secs(3600), ..logs(server.endpoint()) };
        let error = found(&impatient).await.expect_err("late");
        assert!(error.is_retryable() && error.to_string().contains("took too long"), "{error}");
        assert!(server.heads()[2].contains("Logs_20140328.StopQuery"));
    }

    #[tokio::test]
    async fn what_will_never_work_is_told_apart_from_what_may() {
        for (code, is_retryable) in [
            ("ResourceNotFoundException", true),
            ("com.amazonaws.logs#AccessDeniedException", true),
            ("MalformedQueryException", false),
            ("LimitExceededException", true),
        ] {
            let server = Loopback::answering([refusal(code)]);
            let error = found(&logs(server.endpoint())).await.expect_err(code);
            assert_eq!(error.is_retryable(), is_retryable, "{error}");
            let code = code.rsplit('#').next().expect("a code");
            assert_eq!(error.to_string(), format!("could not search the log group trail: 400 {code}: said so"));
        }
        let server = Loopback::answering([refusal("ThrottlingException"), started(), page(&["{}"], 1.0, None)]);
        assert_eq!(found(&logs(server.endpoint())).await.expect("tried again"), ["{}"]);
    }

    #[tokio::test]
    async fn nothing_but_names_goes_into_the_question() {
        let server = Loopback::answering([]);
        for name in ["", "Run\"] | fields x", "a b", "é"] {
            let query = LogQuery {
                log_group: "trail",
                events: &[name.to_owned()],
                from: Timestamp::default(),
                until: Timestamp::default(),
            };
            let error = logs(server.endpoint()).find(&query).await.expect_err(name);
            assert!(!error.is_retryable() && error.to_string().contains("letters and digits"), "{error}");
        }
        assert_eq!(server.requests(), [""; 0]);
    }
}
