//! What findings, outcomes and receipts do to the incident store.
//!
//! Every change is a merge that does not depend on order or repetition: sets keyed by id, the greatest of a total
//! order, and a status that only moves forward. So any permutation of the same messages, with duplicates, ends in
//! the same store.
//!
//! Our choices, where spec §5 leaves room:
//! - A dry run leaves the incident `NEW`: nobody and nothing has acted. `last_action_result` says `DRY_RUN`. A refused
//!   response (`SKIPPED`) leaves it too. A failed one makes it `PROCESSING`: something may have been changed, and a
//!   person has to look.
//! - Good news is recorded as a `CLOSED` incident of its own, so that the history shows it, and closes the incidents
//!   with its `resolution_key` whose event is not later than its own.
//! - `notify_status` is `SENT` once any channel told it, `GROUPED` when it was told with an earlier alert, `FAILED` when
//!   a channel refused it, `NOT_TOLD` when the policy keeps it from people, else `PENDING`; the first that holds, in
//!   this order.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use shared::finding::Effect;
use shared::ports::{IncidentFilter, Incidents, PortResult};
use shared::{Finding, Incident, IncidentId, IncidentStatus, Outcome, OutcomeStatus, Receipt, Timestamp};

/// Incidents with one resolution key that are looked at, newest first. Automation that opens and closes one group every
/// minute makes thousands in a few days, and all but the last are closed. Our choice: a hundred, which DynamoDB reads in one
/// call; an older threat stays open until a person closes it.
const RELATED_MAX: usize = 100;

/// Applies a finding: creates its incident, and closes what it resolves or what resolved it. `passed` says when the
/// components before let it go; the incident keeps the first time of each.
///
/// # Errors
/// Those of the store.
pub async fn apply_finding<I: Incidents>(
    store: &I,
    finding: &Finding,
    passed: &BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> PortResult<IncidentId> {
    let id = IncidentId::of(finding);
    change(store, id, now, |incident| {
        let mut incident = incident.unwrap_or_else(|| opened(finding, now));
        for (component, at) in passed {
            let known = entry(&mut incident.details, "passed");
            let first = known.get(component).and_then(Value::as_str).and_then(Timestamp::parse);
            known.insert(component.clone(), json!(first.map_or(*at, |first| first.min(*at))));
        }
        incident
    })
    .await?;
    let Some(key) = &finding.resolution_key else { return Ok(id) };
    // Each side writes itself before it looks for the other, so that of two at the same time one sees both.
    let filter = IncidentFilter { resolution_key: Some(key.clone()), limit: RELATED_MAX, ..IncidentFilter::default() };
    let related = store.list(&filter).await?;
    if finding.effect == Effect::Resolves {
        let open = |i: &&Incident| resolved_by(i).is_none_or(|earlier| id < earlier);
        let threats = related.iter().filter(|i| !is_good_news(i) && i.timestamp <= finding.event_time);
        for threat in threats.filter(open) {
            close(store, threat.incident_id, id, now).await?;
        }
    } else {
        let good_news = related.iter().filter(|i| is_good_news(i) && i.timestamp >= finding.event_time);
        if let Some(first) = good_news.map(|i| i.incident_id).min() {
            close(store, id, first, now).await?;
        }
    }
    Ok(id)
}

/// Applies an outcome. It carries its finding, so it may come first.
///
/// # Errors
/// Those of the store.
pub async fn apply_outcome<I: Incidents>(
    store: &I,
    finding: &Finding,
    outcome: &Outcome,
    now: Timestamp,
) -> PortResult<IncidentId> {
    let id = apply_finding(store, finding, &BTreeMap::new(), now).await?;
    change(store, id, now, |incident| {
        let mut incident = incident.unwrap_or_else(|| opened(finding, now));
        incident.status = incident.status.advanced_to(status_after(outcome.status));
        let outcomes = entry(&mut incident.details, "outcomes");
        if outcomes.get(&outcome.outcome_id).is_none_or(|known| rank(known) < rank(&told(outcome))) {
            outcomes.insert(outcome.outcome_id.clone(), told(outcome));
        }
        let last = outcomes.iter().max_by(|a, b| (rank(a.1), a.0).cmp(&(rank(b.1), b.0)));
        let field = |name: &str| last.and_then(|(_, o)| o[name].as_str()).map(str::to_owned);
        (incident.last_action, incident.last_action_result) = (field("action"), field("status"));
        incident
    })
    .await?;
    Ok(id)
}

/// Applies a receipt to the incident of its finding; `false` when there is no such incident (yet).
///
/// # Errors
/// Those of the store.
pub async fn apply_receipt<I: Incidents>(
    store: &I,
    id: IncidentId,
    receipt: &Receipt,
    now: Timestamp,
) -> PortResult<bool> {
    if store.get(id).await?.is_none() {
        return Ok(false);
    }
    let mut found = true;
    store
        .update(id, &mut |before| {
            found = before.is_some();
            let before = before?;
            let mut after = before.clone();
            let receipts = entry(&mut after.details, "notifications");
            receipts.entry(receipt.receipt_id.clone()).or_insert_with(|| {
                json!({
                    "channel": receipt.channel,
                    "delivered": receipt.delivered,
                    "reference": receipt.reference,
                    "note": receipt.note,
                    "at": receipt.at,
                })
            });
            after.notify_status = notify_status(receipts).to_owned();
            stamped(before, after, now)
        })
        .await?;
    Ok(found)
}

/// The incident a finding opens.
fn opened(finding: &Finding, now: Timestamp) -> Incident {
    let status = match finding.effect {
        Effect::Threat => IncidentStatus::New,
        Effect::Resolves | Effect::Notice => IncidentStatus::Closed,
    };
    Incident {
        incident_id: IncidentId::of(finding),
        record_type: "incident".to_owned(),
        event: finding.title.clone(),
        event_type: finding.classifier.clone(),
        source: or_absent(&finding.event_source),
        region: or_absent(&finding.region),
        account: or_absent(&finding.account),
        resource_id: or_absent(&finding.resource),
        severity: finding.severity,
        status,
        timestamp: finding.event_time,
        created_at: now,
        updated_at: now,
        note: None,
        last_action: None,
        last_action_result: None,
        notify_status: "PENDING".to_owned(),
        resolution_key: finding.resolution_key.clone(),
        details: json!({
            "finding_id": finding.finding_id,
            "effect": finding.effect,
            "attempt": finding.attempt,
            "event_id": finding.event_id,
            "event_name": or_absent(&finding.event_name),
            "principal": or_absent(&finding.principal),
            "user": or_absent(&finding.identity.user_name),
            "source_ip": or_absent(&finding.source_ip),
            "user_agent": or_absent(&finding.user_agent),
            "techniques": finding.techniques,
            "responses": finding.responses,
            "evidence": finding.evidence,
        }),
    }
}

fn or_absent(text: &str) -> String {
    if text.is_empty() { "N/A".to_owned() } else { text.to_owned() }
}

fn is_good_news(incident: &Incident) -> bool {
    incident.details["effect"] == json!(Effect::Resolves)
}

/// The good news that closed it.
fn resolved_by(incident: &Incident) -> Option<IncidentId> {
    incident.details["resolved_by"].as_str().and_then(IncidentId::parse)
}

/// Closes a threat; `details.resolved_by` is the earliest good news that does.
async fn close<I: Incidents>(store: &I, threat: IncidentId, by: IncidentId, now: Timestamp) -> PortResult<()> {
    store
        .update(threat, &mut |before| {
            let before = before?;
            let mut after = before.clone();
            after.status = after.status.advanced_to(IncidentStatus::Closed);
            let first = resolved_by(&after).map_or(by, |known| known.min(by));
            after.details["resolved_by"] = json!(first);
            stamped(before, after, now)
        })
        .await
}

async fn change<I: Incidents>(
    store: &I,
    id: IncidentId,
    now: Timestamp,
    merge: impl Fn(Option<Incident>) -> Incident,
) -> PortResult<()> {
    store
        .update(id, &mut |before| {
            let after = merge(before.clone());
            match before {
                Some(before) => stamped(before, after, now),
                None => Some(after),
            }
        })
        .await
}

/// `None` when nothing changed, so that a redelivery does not even touch `updated_at`.
fn stamped(before: Incident, mut after: Incident, now: Timestamp) -> Option<Incident> {
    if after == before {
        return None;
    }
    after.updated_at = now.max(before.updated_at);
    Some(after)
}

/// The object `details.<name>`, made when absent.
fn entry<'d>(details: &'d mut Value, name: &str) -> &'d mut Map<String, Value> {
    let slot = &mut details[name];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("it was just made an object")
}

const fn status_after(status: OutcomeStatus) -> IncidentStatus {
    match status {
        OutcomeStatus::DryRun | OutcomeStatus::Skipped => IncidentStatus::New,
        OutcomeStatus::Triggered | OutcomeStatus::Running | OutcomeStatus::PendingApproval | OutcomeStatus::Failed => {
            IncidentStatus::Processing
        }
        OutcomeStatus::Succeeded => IncidentStatus::Mitigated,
    }
}

/// What the incident remembers of an outcome.
fn told(outcome: &Outcome) -> Value {
    json!({
        "action": outcome.action,
        "target": outcome.target,
        "status": outcome.status,
        "note": outcome.note,
        "decided_at": outcome.decided_at,
        "decided_at_ms": outcome.decided_at.as_millis(),
        "calls": outcome.plan.calls,
        "undo": outcome.plan.undo,
    })
}

/// Later beats earlier; at the same time, what is further along beats what is not.
fn rank(told: &Value) -> (i64, u8) {
    let progress = match told["status"].as_str() {
        Some("TRIGGERED") => 0,
        Some("SKIPPED") => 1,
        Some("DRY_RUN") => 2,
        Some("PENDING_APPROVAL") => 3,
        Some("RUNNING") => 4,
        Some("FAILED") => 5,
        _ => 6,
    };
    (told["decided_at_ms"].as_i64().unwrap_or(i64::MIN), progress)
}

/// See the module's text.
fn notify_status(receipts: &Map<String, Value>) -> &'static str {
    receipts
        .values()
        .map(|r| match (r["delivered"].as_bool(), r["channel"].as_str()) {
            (Some(true), Some("group")) => (3, "GROUPED"),
            (Some(true), _) => (4, "SENT"),
            (_, Some("none")) => (1, "NOT_TOLD"),
            _ => (2, "FAILED"),
        })
        .max()
        .map_or("PENDING", |(_, status)| status)
}
