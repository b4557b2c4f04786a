//! The four handlers, chained through queues: what SQS and Lambda do in the cloud, one batch after another.

use shared::ports::{BatchResult, Clock, Handler, Message, PortResult, Queue};

use crate::failure::Failure;

/// Messages a handler gets at once, as SQS gives a Lambda by default.
const BATCH: usize = 10;

/// One value per component, in the order messages go.
#[derive(Clone, Debug)]
pub struct Four<C, R, N, L> {
    /// Events to findings.
    pub classifier: C,
    /// Findings to outcomes.
    pub responder: R,
    /// Findings and outcomes to people.
    pub notifier: N,
    /// Everything to the incident store and the log.
    pub logger: L,
}

/// The queues, each named for the component that reads it.
pub type Queues<Q> = Four<Q, Q, Q, Q>;

impl<Q> Queues<Q> {
    /// The queues with the names people know them by.
    pub fn named(&self) -> [(&'static str, &Q); 4] {
        [
            ("classifier", &self.classifier),
            ("responder", &self.responder),
            ("notifier", &self.notifier),
            ("logger", &self.logger),
        ]
    }
}

/// Runs a future of a handler or a port to its end. They never wait for anything but the disk.
///
/// # Errors
/// When the runtime cannot be made.
pub fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|e| Failure::machine("start the async runtime", e))?;
    Ok(runtime.block_on(future))
}

/// Hands messages to the handlers until no queue has any, or until `stop` says so between two batches.
///
/// A message that failed for good goes to its dead-letter queue; one that may work later is tried again until it was
/// received as often as its queue allows. `seen` gets every message that the logger has handled.
///
/// The notifier gets one message at a time: it counts the repeats of a batch in the alert's text, and what shares a
/// batch would depend on where a killed run stopped.
///
/// # Errors
/// When a queue does not work. Nothing is lost then: what was received and not deleted comes back.
pub async fn drain<Q, C, R, N, L>(
    queues: &Queues<Q>,
    handlers: &Four<C, R, N, L>,
    clock: &impl Clock,
    stop: &dyn Fn() -> bool,
    seen: &mut dyn FnMut(&Message),
) -> PortResult<()>
where
    Q: Queue,
    C: Handler,
    R: Handler,
    N: Handler,
    L: Handler,
{
    loop {
        let mut handled = 0;
        handled += turn(&queues.classifier, &handlers.classifier, BATCH, clock, &mut |_| {}).await?;
        handled += turn(&queues.responder, &handlers.responder, BATCH, clock, &mut |_| {}).await?;
        while turn(&queues.notifier, &handlers.notifier, 1, clock, &mut |_| {}).await? > 0 {
            handled += 1;
            if stop() {
                return Ok(());
            }
        }
        handled += turn(&queues.logger, &handlers.logger, BATCH, clock, seen).await?;
        if handled == 0 || stop() {
            return Ok(());
        }
    }
}

/// One batch of one component; answers how many messages there were.
async fn turn<Q: Queue, H: Handler>(
    queue: &Q,
    handler: &H,
    batch: usize,
    clock: &impl Clock,
    seen: &mut dyn FnMut(&Message),
) -> PortResult<usize> {
    let batch = queue.receive(batch, clock.now()).await?;
    if batch.is_empty() {
        return Ok(0);
    }
    let BatchResult { failed } = handler.handle(&batch).await;
    let mut done = Vec::with_capacity(batch.len());
    for message in &batch {
        if failed.iter().all(|f| f.message_id != message.message_id) {
            seen(message);
            done.push(message.message_id.clone());
        }
    }
    queue.delete(&done).await?;
    if !failed.is_empty() {
        queue.give_back(&failed).await?;
    }
    Ok(batch.len())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use shared::adapters::memory::{FixedClock, MemoryQueue};
    use shared::ports::{FailedMessage, Outbox, QueueSettings};

    /// Sends on what it gets; fails bodies that start with its own name, for ever or once.
    struct Relay<'q> {
        name: &'static str,
        next: Option<&'q MemoryQueue>,
        tries: RefCell<u32>,
    }

    impl Handler for Relay<'_> {
        async fn handle(&self, batch: &[Message]) -> BatchResult {
            let mut failed = Vec::new();
            for message in batch {
                let (bad, retryable) = match message.body.strip_prefix(self.name) {
                    Some(how) => (how == "/never" || message.receive_count == 1, how != "/bytes"),
                    None => (false, false),
                };
                if bad {
                    *self.tries.borrow_mut() += 1;
                    let reason = "refused".to_owned();
                    failed.push(FailedMessage { message_id: message.message_id.clone(), reason, retryable });
                } else if let Some(next) = self.next {
                    next.send(std::slice::from_ref(&message.body)).await.unwrap();
                }
            }
            BatchResult { failed }
        }
    }

    fn queues() -> Queues<MemoryQueue> {
        let queue = || MemoryQueue::new(QueueSettings::default());
        Four { classifier: queue(), responder: queue(), notifier: queue(), logger: queue() }
    }

    fn relays(queues: &Queues<MemoryQueue>) -> Four<Relay<'_>, Relay<'_>, Relay<'_>, Relay<'_>> {
        let relay = |name, next| Relay { name, next, tries: RefCell::default() };
        Four {
            classifier: relay("classifier", Some(&queues.responder)),
            responder: relay("responder", Some(&queues.notifier)),
            notifier: relay("notifier", Some(&queues.logger)),
            logger: relay("logger", None),
        }
    }

    #[tokio::test]
    async fn every_message_ends_handled_or_as_a_dead_letter() {
        let queues = queues();
        let handlers = relays(&queues);
        let bodies = ["a", "classifier/never", "responder/once", "notifier/bytes", "b"].map(str::to_owned);
        queues.classifier.send(&bodies).await.unwrap();
        let mut seen = Vec::new();
        drain(&queues, &handlers, &FixedClock::default(), &|| false, &mut |m| seen.push(m.body.clone())).await.unwrap();
        seen.sort();
        assert_eq!(seen, ["a", "b", "responder/once"]);
        assert_eq!(*handlers.classifier.tries.borrow(), 5, "as often as the queue allows");
        let mut dead = Vec::new();
        for (name, queue) in queues.named() {
            assert_eq!(queue.depth().await.unwrap(), 0, "{name}");
            dead.extend(queue.dead_letters(10).await.unwrap().into_iter().map(|letter| (name, letter.body)));
        }
        assert_eq!(dead, [("classifier", "classifier/never".to_owned()), ("notifier", "notifier/bytes".to_owned())]);
    }

    #[tokio::test]
    async fn stopping_leaves_the_rest_in_the_queues() {
        let queues = queues();
        let handlers = relays(&queues);
        let bodies: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        queues.classifier.send(&bodies).await.unwrap();
        drain(&queues, &handlers, &FixedClock::default(), &|| true, &mut |_| {}).await.unwrap();
        assert_eq!(queues.classifier.depth().await.unwrap(), 20);
        drain(&queues, &handlers, &FixedClock::default(), &|| false, &mut |_| {}).await.unwrap();
        assert_eq!(queues.classifier.depth().await.unwrap(), 0);
    }
}
