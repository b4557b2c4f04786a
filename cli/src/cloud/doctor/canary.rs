//! The canary: an event that is announced in the state table, put on the event bus and found as a closed incident, with the
//! time at which each stage let it go. See [`shared::canary`] for why nobody else can send one.

use std::time::{Duration, Instant};

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use serde_json::{Map, Value, json};
use shared::adapters::aws::DynamoClient;
use shared::adapters::aws::dynamo::{DynamoIncidents, DynamoState};
use shared::adapters::disk::SystemClock;
use shared::canary::{Canary, DETAIL_TYPE, SOURCE};
use shared::ports::{Clock, IncidentFilter, Incidents, State};
use shared::{Incident, Timestamp};

use super::Context;
use super::report::{Check, Status};
use crate::args::DoctorArgs;
use crate::cloud::refusal::{Kind, Refusal};
use crate::interrupt;

const CHECK: &str = "canary";
const GEO: &str = "geo data";
/// Announced so long before it is sent, in seconds: EventBridge cuts times to seconds, and clocks differ.
const AHEAD_S: i64 = 60;
/// Between two looks at the incident table.
const PAUSE: Duration = Duration::from_millis(500);
/// How old databases of places may be: our choice; the free ones come out monthly, and addresses move.
const GEO_DAYS_MAX: i64 = 45;
const DAY_S: i64 = 86_400;

/// Sends a canary and waits for it; what it tells of the databases of places comes with it.
pub async fn check(context: &Context, args: &DoctorArgs) -> [Check; 2] {
    if args.no_canary {
        return [Check::skipped(CHECK, "--no-canary"), unknown_geo()];
    }
    match send(context, args).await {
        Ok((sent, Some(incident))) => {
            let now = SystemClock.now();
            [arrived(sent, &incident), geo(&incident, now)]
        }
        Ok((_, None)) => [lost(args), unknown_geo()],
        Err(refusal) => [Check::answered(CHECK, Err(refusal)), unknown_geo()],
    }
}

async fn send(context: &Context, args: &DoctorArgs) -> Result<(Timestamp, Option<Incident>), Refusal> {
    let client = DynamoClient::new(context.session.config());
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| Refusal {
        call: "a random number",
        kind: Kind::Other,
        why: e.to_string(),
    })?;
    let canary = Canary::new(uuid::Uuid::now_v7(), secret);
    let state = DynamoState::new(client.clone(), context.named("state"));
    let announcement = canary.announcement(SystemClock.now().plus_seconds(-AHEAD_S));
    state.observe(&[announcement]).await.map_err(|e| Refusal::of_port("dynamodb:PutItem", &e))?;

    let from = args.canary_from.as_deref().unwrap_or(&context.session.region);
    let events = Client::new(context.session.in_region(from).config());
    let sent = SystemClock.now();
    let entry = PutEventsRequestEntry::builder()
        .source(SOURCE)
        .detail_type(DETAIL_TYPE)
        .detail(canary.detail().to_string())
        .time(DateTime::from_millis(sent.as_millis()))
        .build();
    let answer = Box::pin(events.put_events().entries(entry).send()).await;
    let answer = answer.map_err(|e| Refusal::of("events:PutEvents", &e))?;
    if let Some(failed) = answer.entries.unwrap_or_default().into_iter().find(|entry| entry.error_code.is_some()) {
        let why = [failed.error_code, failed.error_message].into_iter().flatten().collect::<Vec<_>>().join(": ");
        return Err(Refusal { call: "events:PutEvents", kind: Kind::Other, why });
    }

    // Read consistently by its key: the index of the table may be behind.
    let incidents = DynamoIncidents::new(client, context.named("incidents"));
    let key = [&*context.account, from, &Canary::topic(canary.id())].join("/");
    let filter = IncidentFilter { resolution_key: Some(key), ..IncidentFilter::default() };
    let (started, wait) = (Instant::now(), Duration::from_secs(args.canary_wait_s.into()));
    let mut seen = None;
    while started.elapsed() < wait && !interrupt::asked() {
        let found = incidents.list(&filter).await.map_err(|e| Refusal::of_port("dynamodb:Query", &e))?;
        seen = found.into_iter().next().or(seen);
        if seen.as_ref().is_some_and(|incident| told_at(incident).is_some()) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok((sent, seen))
}

/// When the notifier handled it, told or not.
fn told_at(incident: &Incident) -> Option<Timestamp> {
    let receipts = incident.details["notifications"].as_object()?;
    receipts.values().filter_map(|receipt| Timestamp::parse(receipt["at"].as_str()?)).min()
}

/// The stages that it passed, each with what it took: transport from the stage before and the work itself.
fn stages(sent: Timestamp, incident: &Incident) -> Vec<(&'static str, Option<i64>)> {
    let passed = |component: &str| incident.details["passed"][component].as_str().and_then(Timestamp::parse);
    let took = |from: Option<Timestamp>, to: Option<Timestamp>| Some(to?.as_millis() - from?.as_millis());
    let (classifier, responder) = (passed("classifier"), passed("responder"));
    vec![
        ("classifier", took(Some(sent), classifier)),
        ("responder", took(classifier, responder)),
        ("notifier", took(responder, told_at(incident))),
        ("logger", took(responder, Some(incident.created_at))),
    ]
}

fn arrived(sent: Timestamp, incident: &Incident) -> Check {
    let stages = stages(sent, incident);
    let figures: Map<String, Value> =
        stages.iter().map(|(stage, ms)| (format!("{stage}_ms"), ms.map_or(Value::Null, Into::into))).collect();
    let shown: Vec<String> = stages.iter().filter_map(|(stage, ms)| Some(format!("{stage} {} ms", (*ms)?))).collect();
    let total_ms = told_at(incident).map(|at| at.max(incident.created_at).as_millis() - sent.as_millis());
    let figures = json!({"stages": figures, "total_ms": total_ms, "incident_id": incident.incident_id});
    let missing: Vec<&str> = stages.iter().filter(|(_, ms)| ms.is_none()).map(|(stage, _)| *stage).collect();
    let shown = shown.join(", ");
    match total_ms {
        Some(total_ms) if missing.is_empty() => {
            Check::ok(CHECK, format!("came through all stages in {total_ms} ms: {shown}")).with(figures)
        }
        Some(_) => {
            let said = format!("came through, but {} of another version gave no time: {shown}", missing.join(" and "));
            Check::new(CHECK, Status::Warning, said, "deploy all components").with(figures)
        }
        None => {
            let said = format!("came to the incident table, but not the notifier's receipt: {shown}");
            let todo = "a receipt that overtakes its finding comes five minutes later: ask again; then \
                        docs/runbooks/queue-age.md, for the notifier";
            Check::new(CHECK, Status::Failed, said, todo).with(figures)
        }
    }
}

fn lost(args: &DoctorArgs) -> Check {
    let said = format!("did not come through within {} s", args.canary_wait_s);
    let todo = "see the checks above; then docs/runbooks/undelivered-events.md and queue-age.md. A first start takes longer: \
                --canary-wait-s 180";
    Check::new(CHECK, Status::Failed, said, todo)
}

fn unknown_geo() -> Check {
    Check::skipped(GEO, "only a canary that comes through tells how old they are")
}

/// The classifier says in the canary's finding when its oldest database was built.
fn geo(incident: &Incident, now: Timestamp) -> Check {
    let todo = "fetch new ones with scripts/fetch-geoip and deploy the layer (DataLayerArn)";
    match incident.details["evidence"]["geo_built"].as_str() {
        None => Check::skipped(GEO, "the classifier of this version does not say"),
        Some("") => {
            let said = "the classifier has none: impossible travel and unusual places are not judged";
            Check::new(GEO, Status::Warning, said, todo)
        }
        Some(text) => match Timestamp::parse(text) {
            None => Check::skipped(GEO, "the classifier says it in a way that is not understood"),
            Some(built) => {
                let days = now.seconds_since(built) / DAY_S;
                let said = format!("the oldest database is {days} days old");
                if days > GEO_DAYS_MAX { Check::new(GEO, Status::Warning, said, todo) } else { Check::ok(GEO, said) }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use shared::ports::PortError;
    use shared::{IncidentId, IncidentStatus, Severity};

    use super::*;

    const SENT_MS: i64 = 1_764_072_000_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(SENT_MS + ms)
    }

    fn incident(details: Value) -> Incident {
        Incident {
            incident_id: IncidentId::MIN,
            record_type: "incident".to_owned(),
            event: String::new(),
            event_type: String::new(),
            source: String::new(),
            region: String::new(),
            account: String::new(),
            resource_id: String::new(),
            severity: Severity::Info,
            status: IncidentStatus::Closed,
            timestamp: at(0),
            created_at: at(900),
            updated_at: at(900),
            note: None,
            last_action: None,
            last_action_result: None,
            notify_status: String::new(),
            resolution_key: None,
            details,
        }
    }

    fn passed() -> Value {
        json!({
            "passed": {"classifier": at(400), "responder": at(600)},
            "notifications": {"none/x": {"at": at(850)}, "sns/x": {"at": at(1000)}},
        })
    }

    #[test]
    fn each_stage_says_how_long_it_took() {
        let check = arrived(at(0), &incident(passed()));
        assert_eq!(check.status, Status::Ok, "{check:?}");
        let expected = json!({"classifier_ms": 400, "responder_ms": 200, "notifier_ms": 250, "logger_ms": 300});
        assert_eq!((&check.figures["stages"], &check.figures["total_ms"]), (&expected, &json!(900)));
        assert!(check.said.contains("in 900 ms: classifier 400 ms, responder 200 ms"), "{}", check.said);
    }

    #[test]
    fn a_stage_that_is_missing_is_named() {
        let mut details = passed();
        details["passed"]["responder"].take();
        let check = arrived(at(0), &incident(details));
        assert!(check.status == Status::Warning && check.said.contains("responder"), "{check:?}");
        let mut details = passed();
        details["notifications"].take();
        assert_eq!(arrived(at(0), &incident(details)).status, Status::Failed);
    }

    #[test]
    fn old_and_missing_databases_are_warnings() {
        let with = |built: Value| incident(json!({"evidence": {"geo_built": built}}));
        let days = |n: i64| json!(at(-n * DAY_S * 1000));
        assert_eq!(geo(&with(days(45)), at(0)).status, Status::Ok);
        assert_eq!(geo(&with(days(46)), at(0)).status, Status::Warning);
        assert_eq!(geo(&with(json!("")), at(0)).status, Status::Warning);
        assert_eq!(geo(&with(Value::Null), at(0)).status, Status::Skipped);
    }

    #[test]
    fn what_the_operator_may_not_is_skipped_with_the_permission() {
        let denied = PortError::Permanent { what: "could not write: AccessDeniedException".to_owned(), source: None };
        let check = Check::answered(CHECK, Err(Refusal::of_port("dynamodb:PutItem", &denied)));
        assert!(check.status == Status::Skipped && check.said.contains("dynamodb:PutItem"), "{check:?}");
    }
}
