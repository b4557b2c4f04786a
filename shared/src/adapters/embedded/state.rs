//! What is remembered: one record a state key.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use redb::{ReadableTable, Table};

use super::{Embedded, Fault, STATE, SWEEP_EVERY};
use crate::observation::{Known, ObserveRequest, StateRecord};
use crate::ports::{PortResult, State};
use crate::time::Timestamp;

/// A record as it is changed within one batch.
type Slot = (Timestamp, Option<StateRecord>);

impl State for Embedded {
    async fn observe(&self, requests: &[ObserveRequest<'_>]) -> PortResult<Vec<Known>> {
        let Some(oldest) = requests.iter().map(|r| r.at.as_millis()).min() else { return Ok(Vec::new()) };
        let many = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let sweep_before = self.sweep_due(many, oldest);
        self.write("observe in", |tx| {
            let mut table = tx.open_table(STATE)?;
            let mut slots: HashMap<String, Slot> = HashMap::new();
            let mut answers = Vec::with_capacity(requests.len());
            let mut buffer = String::new();
            for request in requests {
                answers.push(request.apply_all(&mut buffer, |key, apply| {
                    let slot = match slots.get_mut(key) {
                        Some(slot) => slot,
                        None => slots.entry(key.to_owned()).insert_entry(load(&table, key)?).into_mut(),
                    };
                    slot.0 = apply(&mut slot.1).max(slot.0);
                    Ok::<_, Fault>(())
                })?);
            }
            for (key, (expires, record)) in &slots {
                let Some(record) = record else { continue };
                let bytes = postcard::to_stdvec(record).map_err(|e| Fault::Record(format!("state {key:?} ({e})")))?;
                table.insert(&**key, (expires.as_millis(), &*bytes))?;
            }
            if let Some(now) = sweep_before {
                table.retain(|_, (expires, _)| expires >= now)?;
            }
            Ok(answers)
        })
    }
}

impl Embedded {
    /// Counts `many` observations; answers, once in [`SWEEP_EVERY`], the time before which records have expired: the
    /// oldest event since the last sweep, because one event from the far future must not expire everything.
    fn sweep_due(&self, many: u32, oldest: i64) -> Option<i64> {
        let before = self.inner.observed.fetch_add(many, Ordering::Relaxed);
        let oldest = self.inner.oldest.fetch_min(oldest, Ordering::Relaxed).min(oldest);
        if before.saturating_add(many) < SWEEP_EVERY {
            return None;
        }
        self.inner.observed.store(0, Ordering::Relaxed);
        self.inner.oldest.store(i64::MAX, Ordering::Relaxed);
        Some(oldest)
    }
}

fn load(table: &Table<'_, &'static str, (i64, &'static [u8])>, key: &str) -> Result<Slot, Fault> {
    let Some(found) = table.get(key)? else { return Ok(Slot::default()) };
    let (expires, bytes) = found.value();
    let record = postcard::from_bytes(bytes).map_err(|e| Fault::Record(format!("state {key:?} ({e})")))?;
    Ok((Timestamp::from_millis(expires), Some(record)))
}
