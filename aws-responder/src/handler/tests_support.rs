//! Ports that outlive the responder and fail on demand, for the tests of the handler.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::adapters::memory::{FixedClock, MemoryLedger};
use shared::ports::{BatchResult, Claim, Handler, Ledger, Message, Outbox, PortError, PortResult};
use shared::testing::DeclaredLedger;
use shared::{ApiCall, Envelope, Finding, FindingId, Outcome, Payload, Timestamp};

use super::Responder;
use crate::cloud::{CallError, Cloud};
use crate::journal::LEDGER_KINDS;
use crate::settings::ResponderSettings;
use crate::testing::{ACCOUNT, FakeAws, finding};

pub(super) const DEACTIVATE: &str = "iam_access_key_deactivate";
pub(super) const REVOKE: &str = "security_group_rule_revoke";

/// What goes wrong at the nth port call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails and did nothing.
    Before,
    /// It fails but had done its work.
    After,
    /// The process dies before it.
    DeathBefore,
    /// The process dies after it.
    DeathAfter,
    /// It fails, and will always fail the same way.
    Permanent,
}

/// Ports that outlive the responder, and the one fault to come.
#[derive(Default)]
pub(super) struct World {
    pub(super) ledger: MemoryLedger,
    pub(super) journalled: RefCell<BTreeMap<String, Vec<String>>>,
    pub(super) notifier: RefCell<Vec<String>>,
    pub(super) logger: RefCell<Vec<String>>,
    pub(super) cloud: FakeAws,
    /// What every call to an operation ends with.
    pub(super) refused: RefCell<Option<(&'static str, CallError)>>,
    /// What somebody else does just before the first change, once.
    pub(super) others: RefCell<Option<ApiCall>>,
    pub(super) calls: Cell<usize>,
    pub(super) fault: Cell<Option<(usize, Fault)>>,
    pub(super) is_dead: Cell<bool>,
}

impl World {
    /// Counts a port call; the error it ends with, and whether its work is done all the same.
    fn step(&self) -> Option<(PortError, bool)> {
        let retryable = || PortError::Retryable { what: "could not reach the port".to_owned(), source: None };
        if self.is_dead.get() {
            return Some((retryable(), false));
        }
        self.calls.set(self.calls.get() + 1);
        let (at, fault) = self.fault.get()?;
        if at != self.calls.get() {
            return None;
        }
        self.is_dead.set(matches!(fault, Fault::DeathBefore | Fault::DeathAfter));
        if fault == Fault::Permanent {
            return Some((PortError::Permanent { what: "may not use the port".to_owned(), source: None }, false));
        }
        Some((retryable(), matches!(fault, Fault::After | Fault::DeathAfter)))
    }

    fn sent(&self, into: &RefCell<Vec<String>>, bodies: &[String]) -> PortResult<()> {
        match self.step() {
            None => into.borrow_mut().extend_from_slice(bodies),
            Some((error, is_done)) => {
                // A batch that fails may have been sent in part.
                let n = if is_done { bodies.len().div_ceil(2) } else { 0 };
                into.borrow_mut().extend_from_slice(&bodies[..n]);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn keys_sent(&self, to: &RefCell<Vec<String>>) -> BTreeSet<String> {
        to.borrow().iter().map(|body| Envelope::from_body(body).unwrap().idempotency_key).collect()
    }

    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let outcome = |body: &String| match Envelope::from_body(body).unwrap().payload {
            Payload::Outcome { outcome, .. } => Some(*outcome),
            _ => None,
        };
        self.notifier.borrow().iter().filter_map(outcome).collect()
    }
}

pub(super) struct ToNotifier<'w>(pub(super) &'w World);
pub(super) struct ToLogger<'w>(pub(super) &'w World);
pub(super) struct Journalling<'w>(pub(super) &'w World);
pub(super) struct Account<'w>(pub(super) &'w World);

impl Outbox for ToNotifier<'_> {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        self.0.sent(&self.0.notifier, bodies)
    }
}

impl Outbox for ToLogger<'_> {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        self.0.sent(&self.0.logger, bodies)
    }
}

impl Ledger for Journalling<'_> {
    async fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> PortResult<Claim> {
        match self.0.step() {
            None => self.0.ledger.claim(key, now, lease_until).await,
            Some((error, is_done)) => {
                if is_done {
                    self.0.ledger.claim(key, now, lease_until).await?;
                }
                Err(error)
            }
        }
    }

    async fn complete(&self, key: &str, result: &str, now: Timestamp) -> PortResult<()> {
        let failure = self.0.step();
        if failure.as_ref().is_none_or(|(_, is_done)| *is_done) {
            self.0.ledger.complete(key, result, now).await?;
            self.0.journalled.borrow_mut().entry(key.to_owned()).or_default().push(result.to_owned());
        }
        failure.map_or(Ok(()), |(error, _)| Err(error))
    }

    async fn release(&self, key: &str) -> PortResult<()> {
        // What a process wants to do after its death does not happen.
        if self.0.is_dead.get() {
            return Err(PortError::Retryable { what: "dead".to_owned(), source: None });
        }
        self.0.ledger.release(key).await
    }

    async fn results(&self, keys: &[String]) -> PortResult<Vec<Option<String>>> {
        match self.0.step() {
            // What was read before a failure changed nothing.
            None => self.0.ledger.results(keys).await,
            Some((error, _)) => Err(error),
        }
    }
}

impl Cloud for Account<'_> {
    fn account(&self) -> Result<&str, &str> {
        self.0.cloud.account()
    }

    async fn call(&self, call: &ApiCall) -> Result<Value, CallError> {
        let failure = self.0.step();
        let reads = ["ListAccessKeys", "GetAccessKeyLastUsed", "DescribeSecurityGroupRules"];
        let changes = !reads.contains(&call.operation.as_str());
        let is_begun = self.0.journalled.borrow().keys().any(|key| key.starts_with("response_begun/"));
        assert!(!changes || is_begun || self.0.is_dead.get(), "{call} is made before the journal has its before-image");
        let others = if changes { self.0.others.borrow_mut().take() } else { None };
        if let Some(theirs) = others {
            self.0.cloud.call(&theirs).await?;
        }
        if let Some((operation, error)) = &*self.0.refused.borrow()
            && *operation == call.operation
        {
            return Err(error.clone());
        }
        match failure {
            None => self.0.cloud.call(call).await,
            Some((error, is_done)) => {
                if is_done {
                    self.0.cloud.call(call).await?;
                }
                let kind = if error.is_retryable() { CallError::Retryable } else { CallError::Permanent };
                Err(kind(error.to_string()))
            }
        }
    }
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Five minutes after the events, and as long again for every delivery: the visibility time-out of the deployed queue.
pub(super) fn clock(delivery: u32) -> FixedClock {
    FixedClock::at(Timestamp::parse("2026-03-01T12:05:00Z").unwrap().plus_seconds(300 * i64::from(delivery)))
}

/// The delivery of this number, from 0, to a fresh process.
pub(super) fn deliver(world: &World, settings: &ResponderSettings, batch: &[Message], delivery: u32) -> BatchResult {
    deliver_at(world, settings, batch, delivery, clock(delivery))
}

pub(super) fn deliver_at(
    world: &World,
    settings: &ResponderSettings,
    batch: &[Message],
    delivery: u32,
    clock: FixedClock,
) -> BatchResult {
    world.is_dead.set(false);
    let (notifier, logger) = (ToNotifier(world), ToLogger(world));
    let journal = DeclaredLedger::new(Journalling(world), &LEDGER_KINDS);
    let responder = Responder::new(settings, journal, notifier, logger, clock, Account(world)).unwrap();
    let received = |m: &Message| Message { receive_count: delivery + 1, ..m.clone() };
    block_on(responder.handle(&batch.iter().map(received).collect::<Vec<_>>()))
}

pub(super) fn message(id: &str, body: String) -> Message {
    Message { message_id: id.to_owned(), body, receive_count: 1 }
}

pub(super) fn found(id: &str, finding: Finding) -> Message {
    message(id, Envelope::finding(finding).to_body())
}

pub(super) fn named(mut finding: Finding, event: &str) -> Finding {
    finding.event_id = event.to_owned();
    finding.finding_id = FindingId::new(&finding.classifier, ACCOUNT, "us-east-1", event);
    finding
}

pub(super) fn key_created(event: &str, user: &str) -> Finding {
    let mut finding = named(finding("iam_access_key_created", &["iam_user_restrict", DEACTIVATE]), event);
    finding.evidence.insert("access_key_id".to_owned(), json!("AKIAIOSFODNN7EXAMPLE"));
    finding.evidence.insert("user_name".to_owned(), json!(user));
    finding
}

pub(super) fn group_opened(event: &str) -> Finding {
    let mut finding = named(finding("security_group_opened_to_world", &[REVOKE]), event);
    finding.evidence.insert("group_id".to_owned(), json!("sg-0123456789abcdef0"));
    finding.evidence.insert("ports".to_owned(), json!([22]));
    let rule = json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"}]);
    finding.evidence.insert("world_rules".to_owned(), rule);
    finding
}
