//! The incident store.
//!
//! The incident table has a hash key `pk` and a range key `sk`, both text, and two kinds of items:
//!
//! * `pk` = `incident/ID`, `sk` = `incident`: the incident as JSON in `incident`, with `version`, `incident_id` and
//!   `status_shard`.
//! * `pk` = `resolution/KEY`, `sk` = ID: this incident had this resolution key once. A row is written before its incident
//!   and never removed; readers look at the incident itself. The newest are read first and no more than are wanted: what
//!   automation opens and closes every minute makes many rows under one key.
//!
//! The rows are no index of DynamoDB on purpose: those are eventually consistent, and a threat and its good news that are
//! logged at the same moment must not both miss each other. Each side writes itself and then reads consistently, so one
//! of them sees the other.
//!
//! **Lists for people** (newest first, by status) come from the global index `by_status`: hash key `status_shard`, range
//! key `incident_id`, keys only. It may be behind by a moment; what it names is read from the table, so an incident is
//! never shown in a state that it has left. `status_shard` is the status and one of four numbers, as most incidents are
//! `NEW` and one partition takes 1,000 writes a second.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use aws_sdk_dynamodb::Client;

use super::{ATTEMPTS, Item, PK, Table, VERSION, number_of, partition_key, text, text_of};
use crate::adapters::aws::sdk::pause;
use crate::adapters::memory::check_incident_id;
use crate::incident::{Incident, IncidentId, IncidentStatus};
use crate::ports::{IncidentFilter, Incidents, PortResult};

const SK: &str = "sk";
const INCIDENT: &str = "incident";
const INCIDENT_ID: &str = "incident_id";
const STATUS_SHARD: &str = "status_shard";
const BY_STATUS: &str = "by_status";

/// Parts of one status in the index; our choice, good for 4,000 changes a second. At most 10: a digit.
const SHARDS: u8 = 4;

const STATUSES: [IncidentStatus; 4] =
    [IncidentStatus::New, IncidentStatus::Processing, IncidentStatus::Mitigated, IncidentStatus::Closed];

/// [`Incidents`] in the incident table.
#[derive(Clone, Debug)]
pub struct DynamoIncidents {
    table: Table,
}

impl DynamoIncidents {
    /// In `table`, which has the keys and the index described above; the client is built once, in `main`.
    pub const fn new(client: Client, table: String) -> Self {
        Self { table: Table { client, name: table } }
    }

    /// The incident and the version of its item.
    async fn load(&self, id: IncidentId) -> PortResult<Option<(Incident, u64)>> {
        let call = self.table.client.get_item().table_name(&self.table.name).set_key(Some(key(id)));
        let answer = Box::pin(call.consistent_read(true).send()).await.map_err(|e| self.table.error("read", e))?;
        answer.item.map(|item| self.read(&item)).transpose()
    }

    fn read(&self, item: &Item) -> PortResult<(Incident, u64)> {
        let shown = text_of(item, PK).unwrap_or_default();
        let json = text_of(item, INCIDENT).ok_or_else(|| self.table.damaged(shown, "no incident"))?;
        let incident = serde_json::from_str(json).map_err(|e| self.table.damaged(shown, &e.to_string()))?;
        let version = number_of(item, VERSION).ok_or_else(|| self.table.damaged(shown, "no version"))?;
        Ok((incident, version))
    }

    async fn note_resolution(&self, resolution_key: &str, id: IncidentId) -> PortResult<()> {
        let call = self.table.client.put_item().table_name(&self.table.name);
        let call = call.item(PK, text(partition_key("resolution", resolution_key))).item(SK, text(id.to_string()));
        Box::pin(call.send()).await.map(drop).map_err(|e| self.table.error("write", e))
    }

    /// The ids within `range` that a query gives, newest first, at most `limit`; `index` is read when given, else the table,
    /// consistently.
    async fn ids(
        &self,
        index: Option<&str>,
        hash: (&str, String),
        range: &RangeInclusive<IncidentId>,
        limit: usize,
    ) -> PortResult<Vec<IncidentId>> {
        let mut ids = Vec::new();
        let mut from = None;
        loop {
            let (page, next) = self.page(index, (hash.0, &hash.1), range, limit, from).await?;
            ids.extend(page);
            from = next;
            if from.is_none() || ids.len() >= limit {
                ids.truncate(limit);
                return Ok(ids);
            }
        }
    }

    /// One answer to a query, of at most `limit` ids within `range`, and where the next begins.
    async fn page(
        &self,
        index: Option<&str>,
        hash: (&str, &str),
        range: &RangeInclusive<IncidentId>,
        limit: usize,
        from: Option<Item>,
    ) -> PortResult<(Vec<IncidentId>, Option<Item>)> {
        let (attribute, id) = (hash.0, if index.is_some() { INCIDENT_ID } else { SK });
        let call = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .set_index_name(index.map(str::to_owned))
            .consistent_read(index.is_none())
            .key_condition_expression("#hash = :hash AND #id BETWEEN :first AND :last")
            .expression_attribute_names("#hash", attribute)
            .expression_attribute_names("#id", id)
            .expression_attribute_values(":hash", text(hash.1))
            .expression_attribute_values(":first", text(range.start().to_string()))
            .expression_attribute_values(":last", text(range.end().to_string()))
            .scan_index_forward(false)
            .set_limit(i32::try_from(limit).ok())
            .set_exclusive_start_key(from);
        let page = Box::pin(call.send()).await.map_err(|e| self.table.error("query", e))?;
        let items = page.items.unwrap_or_default();
        let ids = items.iter().filter_map(|item| IncidentId::parse(text_of(item, id)?)).collect();
        Ok((ids, page.last_evaluated_key))
    }

    /// The incidents that have this resolution key and that `wanted` takes, newest first, at most `limit`.
    async fn resolved_by(
        &self,
        resolution_key: &str,
        range: &RangeInclusive<IncidentId>,
        wanted: impl Fn(&Incident) -> bool,
        limit: usize,
    ) -> PortResult<Vec<Incident>> {
        let pk = partition_key("resolution", resolution_key);
        let mut selected = Vec::new();
        let mut from = None;
        loop {
            let (ids, next) = self.page(None, (PK, &pk), range, limit.min(super::GET_MAX), from).await?;
            selected.extend(self.select(&ids, &wanted, limit - selected.len()).await?);
            from = next;
            if from.is_none() || selected.len() == limit {
                return Ok(selected);
            }
        }
    }

    /// The incidents of `ids` that `wanted` takes, in the order of `ids`, at most `limit`.
    async fn select(
        &self,
        ids: &[IncidentId],
        wanted: impl Fn(&Incident) -> bool,
        limit: usize,
    ) -> PortResult<Vec<Incident>> {
        let mut selected = Vec::new();
        for some in ids.chunks(super::GET_MAX) {
            let mut found: HashMap<IncidentId, Incident> = HashMap::new();
            for item in self.table.get_all(some.iter().map(|id| key(*id))).await? {
                let (incident, _) = self.read(&item)?;
                found.insert(incident.incident_id, incident);
            }
            selected.extend(some.iter().filter_map(|id| found.remove(id)).filter(&wanted));
            if selected.len() >= limit {
                selected.truncate(limit);
                break;
            }
        }
        Ok(selected)
    }
}

impl Incidents for DynamoIncidents {
    async fn get(&self, id: IncidentId) -> PortResult<Option<Incident>> {
        Ok(self.load(id).await?.map(|(incident, _)| incident))
    }

    async fn update(
        &self,
        id: IncidentId,
        change: &mut dyn FnMut(Option<Incident>) -> Option<Incident>,
    ) -> PortResult<()> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                pause(attempt).await;
            }
            let (before, version) = self.load(id).await?.unzip();
            let old_resolution = before.as_ref().and_then(|i| i.resolution_key.clone());
            let Some(after) = change(before) else { return Ok(()) };
            check_incident_id(id, &after)?;
            if let Some(new) = after.resolution_key.as_ref().filter(|new| old_resolution.as_ref() != Some(*new)) {
                self.note_resolution(new, id).await?;
            }
            let json = serde_json::to_string(&after).map_err(|e| self.table.damaged("incident", &e.to_string()))?;
            let mut item = key(id);
            item.insert(INCIDENT.to_owned(), text(json));
            item.insert(INCIDENT_ID.to_owned(), text(id.to_string()));
            item.insert(STATUS_SHARD.to_owned(), text(shard_name(after.status, shard_of(id))));
            if self.table.put(item, version).await? {
                return Ok(());
            }
        }
        Err(self.table.contended(&id.to_string()))
    }

    /// With a limit and an index that is behind, fewer may be listed than there are.
    async fn list(&self, filter: &IncidentFilter) -> PortResult<Vec<Incident>> {
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let Some(range) = filter.ids() else { return Ok(Vec::new()) };
        let has_status = |i: &Incident| filter.statuses.is_empty() || filter.statuses.contains(&i.status);
        if let Some(resolution) = &filter.resolution_key {
            let wanted = |i: &Incident| i.resolution_key.as_ref() == Some(resolution) && has_status(i);
            return self.resolved_by(resolution, &range, wanted, limit).await;
        }
        let mut ids = Vec::new();
        for status in STATUSES.into_iter().filter(|s| filter.statuses.is_empty() || filter.statuses.contains(s)) {
            for shard in 0..SHARDS {
                let hash = (STATUS_SHARD, shard_name(status, shard));
                ids.extend(self.ids(Some(BY_STATUS), hash, &range, limit).await?);
            }
        }
        // One that changes its status meanwhile may be named twice.
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        self.select(&ids, has_status, limit).await
    }
}

fn key(id: IncidentId) -> Item {
    Item::from([(PK.to_owned(), text(format!("incident/{id}"))), (SK.to_owned(), text(INCIDENT))])
}

/// The end of an id is the hash of its finding.
fn shard_of(id: IncidentId) -> u8 {
    id.to_string().bytes().next_back().unwrap_or(0) % SHARDS
}

fn shard_name(status: IncidentStatus, shard: u8) -> String {
    format!("{}/{shard}", status.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests_support::client;
    use super::*;
    use crate::adapters::loopback::{Answer, Loopback};
    use crate::testing::sample_incident;
    use crate::time::Timestamp;

    #[tokio::test]
    async fn of_a_key_with_many_incidents_no_more_than_the_wanted_are_read() {
        let at = Timestamp::from_millis(1_772_366_400_000);
        let newest = sample_incident("e9", at, Some("k"));
        let id = newest.incident_id.to_string();
        let rows = json!({"Items": [{"pk": {"S": "resolution/k"}, "sk": {"S": id}}],
                          "LastEvaluatedKey": {"pk": {"S": "resolution/k"}, "sk": {"S": id}}});
        let text = serde_json::to_string(&newest).expect("JSON");
        let item = json!({"pk": {"S": format!("incident/{id}")}, "incident": {"S": text}, "version": {"N": "1"}});
        let found = json!({"Responses": {"incidents": [item]}});
        let server = Loopback::answering([rows, found].map(|answer| Answer::json("200 OK", &answer)));
        let incidents = DynamoIncidents::new(client(server.endpoint()), "incidents".into());
        let filter = IncidentFilter { resolution_key: Some("k".into()), limit: 1, ..IncidentFilter::default() };
        assert_eq!(incidents.list(&filter).await.expect("listed"), [newest]);
        let asked: Vec<Value> = server.requests().iter().map(|r| serde_json::from_str(r).expect("JSON")).collect();
        assert_eq!((asked.len(), &asked[0]["Limit"], &asked[0]["ScanIndexForward"]), (2, &json!(1), &json!(false)));
    }
}
