//! Queues with the semantics of SQS: what was received comes back unless it is deleted, and ends as a dead letter.

use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};

use super::{COUNTERS, DEAD, Embedded, Fault, MESSAGES, VISIBLE};
use crate::ports::{DeadLetter, FailedMessage, Message, Outbox, PortResult, Queue, QueueSettings, worn_out};
use crate::time::Timestamp;

/// `visible_at` of a message that is not in flight.
const AT_ONCE: i64 = i64::MIN;
/// A named queue in the file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EmbeddedQueue {
    embedded: Embedded,
    name: Arc<str>,
    settings: QueueSettings,
}

impl EmbeddedQueue {
    pub(super) fn new(embedded: Embedded, name: &str, settings: QueueSettings) -> Self {
        Self { embedded, name: name.into(), settings }
    }

    /// Makes everything in flight visible; answers how much that was. Only for the sole consumer, when it starts: what
    /// it finds in flight then was in the hands of a process that died. Receive counts stay, so that a message that
    /// kills its consumer ends as a dead letter.
    ///
    /// # Errors
    /// As every port call.
    pub fn release_in_flight(&self) -> PortResult<u64> {
        self.write("release messages in", |queue| {
            let in_flight = queue.visible_between(AT_ONCE + 1, i64::MAX, usize::MAX)?;
            for &sequence in &in_flight {
                let Some(message) = queue.take(sequence)? else { continue };
                queue.put(sequence, &Waiting { visible_at: AT_ONCE, ..message })?;
            }
            Ok(in_flight.len() as u64)
        })
    }

    fn write<T>(&self, what: &str, body: impl FnOnce(&mut QueueTables<'_, '_>) -> Result<T, Fault>) -> PortResult<T> {
        self.embedded.write(what, |tx| body(&mut QueueTables::open(tx, &self.name)?))
    }

    /// Whether `receive` would find anything: asked first, because asking costs no `fsync` and idle queues are polled.
    fn has_visible(&self, now: Timestamp) -> PortResult<bool> {
        self.embedded.read("look for messages in", |tx| {
            let visible = tx.open_table(VISIBLE)?;
            Ok(visible.range(visible_range(&self.name, AT_ONCE, now.as_millis()))?.next().transpose()?.is_some())
        })
    }
}

fn visible_range(queue: &str, from: i64, to: i64) -> std::ops::RangeInclusive<(&str, i64, u64)> {
    (queue, from, 0)..=(queue, to, u64::MAX)
}

struct Waiting {
    visible_at: i64,
    receive_count: u32,
    last_reason: String,
    body: String,
}

/// The tables of one queue within one transaction.
pub(super) struct QueueTables<'tx, 'q> {
    queue: &'q str,
    depth_key: String,
    counters: Table<'tx, &'static str, u64>,
    messages: Table<'tx, (&'static str, u64), (i64, u32, &'static str, &'static str)>,
    visible: Table<'tx, (&'static str, i64, u64), ()>,
    dead: Table<'tx, (&'static str, u64), (u64, u32, &'static str, &'static str)>,
}

impl<'tx, 'q> QueueTables<'tx, 'q> {
    pub(super) fn open(tx: &'tx WriteTransaction, queue: &'q str) -> Result<Self, Fault> {
        Ok(Self {
            queue,
            depth_key: depth_key(queue),
            counters: tx.open_table(COUNTERS)?,
            messages: tx.open_table(MESSAGES)?,
            visible: tx.open_table(VISIBLE)?,
            dead: tx.open_table(DEAD)?,
        })
    }

    fn count(&mut self, key: &str, change: impl FnOnce(u64) -> u64) -> Result<u64, Fault> {
        let before = self.counters.get(key)?.map_or(0, |value| value.value());
        self.counters.insert(key, change(before))?;
        Ok(before)
    }

    /// Adds new messages.
    pub(super) fn add<'b>(&mut self, bodies: impl ExactSizeIterator<Item = &'b str>) -> Result<(), Fault> {
        let many = bodies.len() as u64;
        let first = self.count("next", |next| next + many)?;
        for (sequence, body) in (first..).zip(bodies) {
            self.messages.insert((self.queue, sequence), (AT_ONCE, 0, "", body))?;
            self.visible.insert((self.queue, AT_ONCE, sequence), ())?;
        }
        self.count(&self.depth_key.clone(), |depth| depth + many)?;
        Ok(())
    }

    /// Takes a message out, for good or to [`Self::put`] it back.
    fn take(&mut self, sequence: u64) -> Result<Option<Waiting>, Fault> {
        let Some(found) = self.messages.remove((self.queue, sequence))? else { return Ok(None) };
        let (visible_at, receive_count, last_reason, body) = found.value();
        let message = Waiting { visible_at, receive_count, last_reason: last_reason.into(), body: body.into() };
        drop(found);
        self.visible.remove((self.queue, visible_at, sequence))?;
        Ok(Some(message))
    }

    fn put(&mut self, sequence: u64, message: &Waiting) -> Result<(), Fault> {
        let value = (message.visible_at, message.receive_count, &*message.last_reason, &*message.body);
        self.messages.insert((self.queue, sequence), value)?;
        self.visible.insert((self.queue, message.visible_at, sequence), ())?;
        Ok(())
    }

    fn bury(&mut self, sequence: u64, message: &Waiting, reason: &str) -> Result<(), Fault> {
        let range = (self.queue, 0)..=(self.queue, u64::MAX);
        let newest = self.dead.range(range)?.next_back().transpose()?.map(|(key, _)| key.value().1);
        let order = newest.map_or(0, |order| order + 1);
        self.dead.insert((self.queue, order), (sequence, message.receive_count, reason, &*message.body))?;
        Ok(())
    }

    fn forget(&mut self, many: u64) -> Result<(), Fault> {
        if many > 0 {
            self.count(&self.depth_key.clone(), |depth| depth.saturating_sub(many))?;
        }
        Ok(())
    }

    fn visible_between(&self, from: i64, to: i64, limit: usize) -> Result<Vec<u64>, Fault> {
        let mut sequences = Vec::new();
        if from <= to {
            for row in self.visible.range(visible_range(self.queue, from, to))?.take(limit) {
                sequences.push(row?.0.value().2);
            }
        }
        Ok(sequences)
    }

    fn receive(&mut self, max: usize, now: i64, until: i64, receive_max: u32) -> Result<Vec<Message>, Fault> {
        let mut received = Vec::new();
        let mut buried = 0;
        while received.len() < max {
            let room = max - received.len();
            let mut found = self.visible_between(AT_ONCE + 1, now, room)?;
            found.extend(self.visible_between(AT_ONCE, AT_ONCE, room - found.len())?);
            if found.is_empty() {
                break;
            }
            for sequence in found {
                let Some(mut message) = self.take(sequence)? else { continue };
                if message.receive_count >= receive_max {
                    self.bury(sequence, &message, &worn_out(message.receive_count, &message.last_reason))?;
                    buried += 1;
                    continue;
                }
                message.receive_count += 1;
                message.visible_at = until;
                self.put(sequence, &message)?;
                let receive_count = message.receive_count;
                received.push(Message { message_id: sequence.to_string(), body: message.body, receive_count });
            }
            // With a time-out of 0 what was just received is visible again, and not received twice in one call.
            if until <= now {
                break;
            }
        }
        self.forget(buried)?;
        Ok(received)
    }
}

fn depth_key(queue: &str) -> String {
    format!("depth/{queue}")
}

impl Outbox for EmbeddedQueue {
    async fn send(&self, bodies: &[String]) -> PortResult<()> {
        if bodies.is_empty() {
            return Ok(());
        }
        self.write("send to", |queue| queue.add(bodies.iter().map(String::as_str)))
    }
}

impl Queue for EmbeddedQueue {
    async fn receive(&self, max: usize, now: Timestamp) -> PortResult<Vec<Message>> {
        if max == 0 || !self.has_visible(now)? {
            return Ok(Vec::new());
        }
        let until = now.plus_seconds(i64::from(self.settings.visibility_timeout_s)).as_millis();
        self.write("receive from", |queue| queue.receive(max, now.as_millis(), until, self.settings.max_receive_count))
    }

    async fn delete(&self, message_ids: &[String]) -> PortResult<()> {
        if message_ids.is_empty() {
            return Ok(());
        }
        self.write("delete from", |queue| {
            let mut deleted = 0;
            for sequence in message_ids.iter().filter_map(|id| id.parse().ok()) {
                deleted += u64::from(queue.take(sequence)?.is_some());
            }
            queue.forget(deleted)
        })
    }

    async fn give_back(&self, failed: &[FailedMessage]) -> PortResult<()> {
        if failed.is_empty() {
            return Ok(());
        }
        self.write("give messages back to", |queue| {
            let mut buried = 0;
            for failure in failed {
                let Ok(sequence) = failure.message_id.parse() else { continue };
                let Some(mut message) = queue.take(sequence)? else { continue };
                if !failure.retryable {
                    queue.bury(sequence, &message, &failure.reason)?;
                    buried += 1;
                } else if message.receive_count >= self.settings.max_receive_count {
                    queue.bury(sequence, &message, &worn_out(message.receive_count, &failure.reason))?;
                    buried += 1;
                } else {
                    message.visible_at = AT_ONCE;
                    message.last_reason.clone_from(&failure.reason);
                    queue.put(sequence, &message)?;
                }
            }
            queue.forget(buried)
        })
    }

    async fn depth(&self) -> PortResult<u64> {
        self.embedded.read("count messages in", |tx| {
            Ok(tx.open_table(COUNTERS)?.get(&*depth_key(&self.name))?.map_or(0, |depth| depth.value()))
        })
    }

    async fn dead_letters(&self, limit: usize) -> PortResult<Vec<DeadLetter>> {
        self.embedded.read("read dead letters in", |tx| {
            let dead = tx.open_table(DEAD)?;
            let mut letters = Vec::new();
            for row in dead.range((&*self.name, 0)..=(&*self.name, u64::MAX))?.take(limit) {
                let (_, value) = row?;
                let (sequence, receive_count, reason, body) = value.value();
                letters.push(DeadLetter {
                    message_id: sequence.to_string(),
                    body: body.into(),
                    reason: reason.into(),
                    receive_count,
                });
            }
            Ok(letters)
        })
    }

    async fn redrive(&self) -> PortResult<u64> {
        self.write("redrive dead letters in", |queue| {
            let mut bodies = Vec::new();
            for row in queue.dead.range((queue.queue, 0)..=(queue.queue, u64::MAX))? {
                bodies.push(row?.1.value().3.to_owned());
            }
            queue.dead.retain_in((queue.queue, 0)..=(queue.queue, u64::MAX), |_, _| false)?;
            queue.add(bodies.iter().map(String::as_str))?;
            Ok(bodies.len() as u64)
        })
    }
}
