//! Incidents, and the index by what ends them.

use redb::ReadableTable;

use super::{BY_RESOLUTION, Embedded, Fault, INCIDENTS};
use crate::adapters::memory::check_incident_id;
use crate::incident::{Incident, IncidentId};
use crate::ports::{IncidentFilter, Incidents, PortResult};

fn read_incident(id: &str, bytes: &[u8]) -> Result<Incident, Fault> {
    serde_json::from_slice(bytes).map_err(|e| Fault::Record(format!("incident {id} ({e})")))
}

impl Incidents for Embedded {
    async fn get(&self, id: IncidentId) -> PortResult<Option<Incident>> {
        let id = id.to_string();
        self.read("read incidents in", |tx| {
            tx.open_table(INCIDENTS)?.get(&*id)?.map(|bytes| read_incident(&id, bytes.value())).transpose()
        })
    }

    async fn update(
        &self,
        id: IncidentId,
        change: &mut dyn FnMut(Option<Incident>) -> Option<Incident>,
    ) -> PortResult<()> {
        self.write("update incidents in", |tx| {
            let mut incidents = tx.open_table(INCIDENTS)?;
            let mut by_resolution = tx.open_table(BY_RESOLUTION)?;
            let key = id.to_string();
            let before = incidents.get(&*key)?.map(|bytes| read_incident(&key, bytes.value())).transpose()?;
            let old_resolution = before.as_ref().and_then(|i| i.resolution_key.clone());
            let Some(after) = change(before) else { return Ok(()) };
            check_incident_id(id, &after).map_err(Fault::Refused)?;
            if let Some(old) = &old_resolution {
                by_resolution.remove((&**old, &*key))?;
            }
            if let Some(new) = &after.resolution_key {
                by_resolution.insert((&**new, &*key), ())?;
            }
            let bytes = serde_json::to_vec(&after).map_err(|e| Fault::Record(format!("incident {id} ({e})")))?;
            incidents.insert(&*key, &*bytes)?;
            Ok(())
        })
    }

    async fn list(&self, filter: &IncidentFilter) -> PortResult<Vec<Incident>> {
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let wanted = |i: &Incident| filter.statuses.is_empty() || filter.statuses.contains(&i.status);
        let Some(ids) = filter.ids() else { return Ok(Vec::new()) };
        let (first, last) = (ids.start().to_string(), ids.end().to_string());
        self.read("list incidents in", |tx| {
            let incidents = tx.open_table(INCIDENTS)?;
            let mut found = Vec::new();
            if let Some(resolution) = &filter.resolution_key {
                let index = tx.open_table(BY_RESOLUTION)?;
                for row in index.range((&**resolution, &*first)..=(&**resolution, &*last))?.rev() {
                    if found.len() >= limit {
                        break;
                    }
                    let key = row?.0;
                    let id = key.value().1;
                    let Some(bytes) = incidents.get(id)? else { continue };
                    let incident = read_incident(id, bytes.value())?;
                    if wanted(&incident) {
                        found.push(incident);
                    }
                }
                return Ok(found);
            }
            for row in incidents.range(&*first..=&*last)?.rev() {
                if found.len() >= limit {
                    break;
                }
                let (id, bytes) = row?;
                let incident = read_incident(id.value(), bytes.value())?;
                if wanted(&incident) {
                    found.push(incident);
                }
            }
            Ok(found)
        })
    }
}
