//! Batches in, alerts and receipts out.
//!
//! What is told, and once:
//! - A finding at or above `min_severity`, and good news, is told at once. Of findings that repeat one another
//!   ([`Finding::repeat_key`]) in a window of `group_s` seconds of event time the first is told; the others become receipts
//!   that name it. What is worse, succeeded where the other was denied, or was done in another way is no repeat. Repeats
//!   that arrive in the same batch are counted in its text; the incident list counts all of them.
//! - An outcome of a wanted status is told in an alert of its own. What changed something or failed is told each time;
//!   others are grouped as their findings are, by action, target and status. A dry run of a finding below `min_severity`
//!   is not told; a real change, a failure or a request for approval always is. A skipped response is told when it was
//!   turned on (mode `auto`); that the limit of an account is used up is told once for its hour, and the others of the hour
//!   become receipts.
//! - Nothing else is told; a finding that is not told says so in a receipt, so that its incident does not wait.
//!
//! Every delivery is claimed in the ledger by channel and alert, and the receipt is stored there with it: a redelivered
//! message sends the same receipt again and no second alert. A retryable channel error returns the message, a
//! permanent one sends it to the dead-letter queue with the reason; from there it can be redriven, because a
//! delivery that failed is never remembered as done. A message never fails its neighbours.

use std::collections::BTreeMap;

use shared::finding::Effect;
use shared::ports::{BatchResult, Claim, Clock, FailedMessage, Handler, Ledger, Message, Outbox, PortError};
use shared::{Envelope, Finding, Missed, Outcome, OutcomeStatus, Payload, Receipt, Timestamp};

use crate::channels::Channel;
use crate::message::Alert;
use crate::settings::Policy;

/// The channel named by receipts of findings that were grouped under another alert.
pub const GROUPED: &str = "group";
/// The channel named by receipts of findings that the policy does not tell.
pub const NOT_TOLD: &str = "none";

/// What was delivered, by channel and alert: kept for as long as messages may come again.
const DELIVERIES: &str = "notify";
/// Which alert leads a group.
const GROUPS: &str = "notify-group";
/// Which alert said that an account's limit was used up in an hour.
const USED_UP_LIMITS: &str = "notify-cap";
/// The first parts of all its keys in the ledger, before the first `/`: the function's role allows these and no others.
pub const LEDGER_KINDS: [&str; 3] = [DELIVERIES, GROUPS, USED_UP_LIMITS];

/// Long enough for a slow channel, shorter than the visibility timeout the deployed queues start from (300 s).
const LEASE_S: i64 = 60;

/// The notifier over its ports. Receipts go to `receipts`, which is the logger's queue.
pub struct Notifier<L, O, C> {
    policy: Policy,
    channels: Vec<Box<dyn Channel>>,
    ledger: L,
    receipts: O,
    clock: C,
}

impl<L: Ledger, O: Outbox, C: Clock> Notifier<L, O, C> {
    /// A notifier that tells every alert on every one of `channels`.
    pub fn new(policy: Policy, channels: Vec<Box<dyn Channel>>, ledger: L, receipts: O, clock: C) -> Self {
        Self { policy, channels, ledger, receipts, clock }
    }

    async fn claim(&self, key: &str) -> Result<Claim, Failure> {
        let now = self.clock.now();
        Ok(self.ledger.claim(key, now, now.plus_seconds(LEASE_S)).await?)
    }

    async fn complete(&self, key: &str, result: &str) -> Result<(), Failure> {
        Ok(self.ledger.complete(key, result, self.clock.now()).await?)
    }

    /// Tells one alert, or groups it; answers the receipts to send.
    async fn tell(&self, news: &News, receipts: &mut Vec<Receipt>) -> Result<(), Failure> {
        let Some(group) = &news.group else { return self.deliver_all(&news.alert, receipts).await };
        match self.claim(group).await? {
            Claim::Done(leader) if leader != news.alert.id => {
                receipts.push(self.receipt(&news.alert, GROUPED, true, leader, "told with an earlier alert"));
                Ok(())
            }
            Claim::Done(_) => self.deliver_all(&news.alert, receipts).await,
            Claim::Busy { until } => Err(Failure::busy(group, until)),
            Claim::Ours => {
                let told = self.deliver_all(&news.alert, receipts).await;
                match told {
                    Ok(()) => self.complete(group, &news.alert.id).await,
                    Err(failure) => {
                        // The next finding of this key must not hide behind an alert that nobody received.
                        self.ledger.release(group).await?;
                        Err(failure)
                    }
                }
            }
        }
    }

    /// Delivers on every channel, also when one fails.
    async fn deliver_all(&self, alert: &Alert, receipts: &mut Vec<Receipt>) -> Result<(), Failure> {
        if self.channels.is_empty() {
            receipts.push(self.receipt(alert, NOT_TOLD, false, String::new(), "no channel is configured"));
            return Ok(());
        }
        let mut failure: Option<Failure> = None;
        for channel in &self.channels {
            match self.deliver(channel.as_ref(), alert).await {
                Ok(receipt) => receipts.push(receipt),
                Err(next) => {
                    if !next.retryable {
                        let mut receipt = self.receipt(alert, channel.id(), false, String::new(), &next.reason);
                        receipt.receipt_id.push_str("/failed");
                        receipts.push(receipt);
                    }
                    failure = Some(Failure::worse(failure, next));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn deliver(&self, channel: &dyn Channel, alert: &Alert) -> Result<Receipt, Failure> {
        let key = format!("{DELIVERIES}/{}/{}", channel.id(), alert.id);
        match self.claim(&key).await? {
            Claim::Done(stored) => serde_json::from_str(&stored)
                .map_err(|e| Failure { retryable: false, reason: format!("ledger entry {key} is not a receipt: {e}") }),
            Claim::Busy { until } => Err(Failure::busy(&key, until)),
            Claim::Ours => match channel.deliver(alert).await {
                Ok(reference) => {
                    let receipt = self.receipt(alert, channel.id(), true, reference, "");
                    let stored = serde_json::to_string(&receipt).expect("a receipt is plain text");
                    self.complete(&key, &stored).await?;
                    Ok(receipt)
                }
                Err(error) => {
                    self.ledger.release(&key).await?;
                    Err(Failure { retryable: error.retryable, reason: format!("channel {}: {error}", channel.id()) })
                }
            },
        }
    }

    fn receipt(&self, alert: &Alert, channel: &str, delivered: bool, reference: String, note: &str) -> Receipt {
        Receipt {
            receipt_id: format!("{channel}/{}", alert.id),
            finding_id: alert.finding_id,
            channel: channel.to_owned(),
            reference,
            delivered,
            note: note.to_owned(),
            at: self.clock.now(),
        }
    }

    async fn handle_one(&self, news: &News) -> Result<(), Failure> {
        let mut receipts = Vec::new();
        let told = match news.silent {
            None => self.tell(news, &mut receipts).await,
            Some(why) if news.is_finding => {
                receipts.push(self.receipt(&news.alert, NOT_TOLD, false, String::new(), why));
                Ok(())
            }
            Some(_) => Ok(()),
        };
        // Receipts of what did go out are sent even when another channel failed.
        if !receipts.is_empty() {
            let bodies: Vec<String> = receipts
                .into_iter()
                .map(|receipt| Envelope::receipt(news.correlation_id.clone(), receipt).to_body())
                .collect();
            let sent = self.receipts.send(&bodies).await;
            if told.is_ok() {
                sent?;
            } else if let Err(error) = sent {
                tracing::warn!(alert.id = %news.alert.id, "could not send receipts: {error}");
            }
        }
        told
    }
}

impl<L: Ledger, O: Outbox, C: Clock> Handler for Notifier<L, O, C> {
    async fn handle(&self, batch: &[Message]) -> BatchResult {
        let mut result = BatchResult::default();
        let mut read: Vec<(&Message, Envelope)> = Vec::with_capacity(batch.len());
        for message in batch {
            match Envelope::from_body(&message.body) {
                Ok(envelope) => read.push((message, envelope)),
                Err(error) => {
                    let reason = match std::error::Error::source(&error) {
                        Some(cause) => format!("{error}: {cause}"),
                        None => error.to_string(),
                    };
                    result.failed.push(failed(message, Failure { retryable: false, reason }));
                }
            }
        }
        // The earliest of a group leads it, whatever the order of arrival in the batch.
        read.sort_by_key(|(_, envelope)| order(envelope));
        let counts = repeats(&self.policy, &read);
        for (message, envelope) in &read {
            let handled = match news(&self.policy, envelope, &counts) {
                Some(news) => self.handle_one(&news).await,
                None => Err(Failure {
                    retryable: false,
                    reason: "the notifier takes findings and outcomes, this is a receipt".to_owned(),
                }),
            };
            if let Err(failure) = handled {
                tracing::warn!(
                    message.id = %message.message_id,
                    retryable = failure.retryable,
                    "could not tell {}: {}", envelope.idempotency_key, failure.reason
                );
                result.failed.push(failed(message, failure));
            }
        }
        result
    }
}

/// What a message asks for.
struct News {
    correlation_id: String,
    is_finding: bool,
    /// Why it is not told, when it is not.
    silent: Option<&'static str>,
    /// The ledger key of its group.
    group: Option<String>,
    alert: Alert,
}

fn news(policy: &Policy, envelope: &Envelope, counts: &BTreeMap<String, usize>) -> Option<News> {
    let group = group_of(policy, &envelope.payload);
    let (silent, alert) = match &envelope.payload {
        Payload::Finding(finding) => {
            let count = group.as_ref().and_then(|g| counts.get(g)).copied().unwrap_or(1);
            (finding_silence(policy, finding), Alert::of_finding(finding, &envelope.answers, count))
        }
        Payload::Outcome { finding, outcome } => {
            (outcome_silence(policy, finding, outcome), Alert::of_outcome(finding, outcome))
        }
        Payload::Receipt(_) => return None,
    };
    let is_finding = matches!(envelope.payload, Payload::Finding(_));
    Some(News { correlation_id: envelope.correlation_id.clone(), is_finding, silent, group, alert })
}

fn finding_silence(policy: &Policy, finding: &Finding) -> Option<&'static str> {
    match finding.effect {
        Effect::Resolves => {
            return (!policy.good_news).then_some("good news is not told: notifier.good_news is false");
        }
        Effect::Notice => return Some("a notice is only recorded"),
        Effect::Threat => {}
    }
    (finding.severity < policy.min_severity).then_some("below notifier.min_severity")
}

fn outcome_silence(policy: &Policy, finding: &Finding, outcome: &Outcome) -> Option<&'static str> {
    if !policy.outcomes.contains(&outcome.status) {
        return Some("status is not in notifier.outcomes");
    }
    if outcome.status == OutcomeStatus::Skipped && outcome.missed.is_none() {
        return Some("skipped, and would only have been shown");
    }
    let minor = outcome.status == OutcomeStatus::DryRun && finding.severity < policy.min_severity;
    minor.then_some("dry run below notifier.min_severity")
}

/// The hour that the responder's limit counts by, in milliseconds of event time.
const CAP_HOUR_MS: i64 = 3_600_000;

/// What a real response came to is told whatever was told before: each changed something, or should have.
const fn is_told_each_time(status: OutcomeStatus) -> bool {
    matches!(status, OutcomeStatus::Succeeded | OutcomeStatus::Failed)
}

/// The window is a bucket of event time, the same for every copy of a finding and on every machine.
fn group_of(policy: &Policy, payload: &Payload) -> Option<String> {
    if let Payload::Outcome { finding, outcome } = payload
        && outcome.missed == Some(Missed::Cap)
    {
        let hour = finding.event_time.as_millis().div_euclid(CAP_HOUR_MS);
        return Some(format!("{USED_UP_LIMITS}/{}/{hour}", finding.account));
    }
    let width_ms = i64::from(policy.group_s) * 1000;
    if width_ms == 0 {
        return None;
    }
    let of_finding = |finding: &Finding| {
        let bucket = finding.event_time.as_millis().div_euclid(width_ms);
        format!("{GROUPS}/{width_ms}/{bucket}/{}", finding.repeat_key())
    };
    match payload {
        Payload::Finding(finding) => Some(of_finding(finding)),
        Payload::Outcome { outcome, .. } if is_told_each_time(outcome.status) => None,
        Payload::Outcome { finding, outcome } => {
            let Outcome { action, target, status, .. } = &**outcome;
            Some(format!("{}/{action}/{}/{target}", of_finding(finding), status.as_str()))
        }
        Payload::Receipt(_) => None,
    }
}

/// How many different findings of each group this batch holds.
fn repeats(policy: &Policy, read: &[(&Message, Envelope)]) -> BTreeMap<String, usize> {
    let mut ids: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (_, envelope) in read {
        if let Payload::Finding(finding) = &envelope.payload
            && let Some(group) = group_of(policy, &envelope.payload)
        {
            ids.entry(group).or_default().push(finding.finding_id);
        }
    }
    ids.into_iter()
        .map(|(group, mut ids)| {
            ids.sort_unstable();
            ids.dedup();
            (group, ids.len())
        })
        .collect()
}

fn order(envelope: &Envelope) -> (bool, Timestamp, String) {
    match &envelope.payload {
        Payload::Finding(finding) => (false, finding.event_time, finding.finding_id.to_string()),
        Payload::Outcome { finding, outcome } => (true, finding.event_time, outcome.outcome_id.clone()),
        Payload::Receipt(receipt) => (true, receipt.at, receipt.receipt_id.clone()),
    }
}

struct Failure {
    retryable: bool,
    reason: String,
}

impl Failure {
    fn busy(key: &str, until: Timestamp) -> Self {
        Self { retryable: true, reason: format!("someone else is at {key} until {until}") }
    }

    /// A retryable failure wins: the message comes back, and what cannot work fails again then.
    fn worse(one: Option<Self>, other: Self) -> Self {
        match one {
            Some(one) => Self {
                retryable: one.retryable || other.retryable,
                reason: format!("{}; {}", one.reason, other.reason),
            },
            None => other,
        }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        let reason = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Self { retryable: error.is_retryable(), reason }
    }
}

fn failed(message: &Message, failure: Failure) -> FailedMessage {
    FailedMessage { message_id: message.message_id.clone(), reason: failure.reason, retryable: failure.retryable }
}

#[cfg(test)]
mod tests;
