//! Who does a piece of work, and what came of it.

use std::sync::atomic::Ordering;

use redb::ReadableTable;

use super::{Embedded, LEDGER, SWEEP_EVERY};
use crate::ports::{Claim, LEDGER_RETENTION_S, Ledger, PortResult};
use crate::time::Timestamp;

impl Ledger for Embedded {
    async fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> PortResult<Claim> {
        let sweep = self.inner.claimed.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1;
        self.write("claim work in", |tx| {
            let mut ledger = tx.open_table(LEDGER)?;
            if sweep {
                let keep_from = now.plus_seconds(-LEDGER_RETENTION_S).as_millis();
                // A claim whose lease has ended is as good as none.
                let ends_after = now.as_millis();
                ledger.retain(|_, (complete, at, _)| if complete { at >= keep_from } else { at > ends_after })?;
            }
            let found = ledger.get(key)?.map(|entry| {
                let (complete, at, result) = entry.value();
                (complete, Timestamp::from_millis(at), result.to_owned())
            });
            match found {
                Some((true, _, result)) => Ok(Claim::Done(result)),
                Some((false, until, _)) if until > now => Ok(Claim::Busy { until }),
                _ => {
                    ledger.insert(key, (false, lease_until.as_millis(), ""))?;
                    Ok(Claim::Ours)
                }
            }
        })
    }

    async fn complete(&self, key: &str, result: &str, now: Timestamp) -> PortResult<()> {
        self.write("complete work in", |tx| {
            tx.open_table(LEDGER)?.insert(key, (true, now.as_millis(), result))?;
            Ok(())
        })
    }

    async fn release(&self, key: &str) -> PortResult<()> {
        self.write("release work in", |tx| {
            let mut ledger = tx.open_table(LEDGER)?;
            let in_progress = ledger.get(key)?.is_some_and(|entry| !entry.value().0);
            if in_progress {
                ledger.remove(key)?;
            }
            Ok(())
        })
    }

    async fn results(&self, keys: &[String]) -> PortResult<Vec<Option<String>>> {
        self.read("look for work in", |tx| {
            let ledger = tx.open_table(LEDGER)?;
            let mut results = Vec::with_capacity(keys.len());
            for key in keys {
                let entry = ledger.get(&**key)?;
                results.push(entry.filter(|entry| entry.value().0).map(|entry| entry.value().2.to_owned()));
            }
            Ok(results)
        })
    }
}
