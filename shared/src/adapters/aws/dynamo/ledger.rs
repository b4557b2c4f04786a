//! The ledger as items of the state table.
//!
//! `pk` is `ledger/KEY`; `lease_until` is in epoch milliseconds; `done` holds the result and is absent while the work is
//! in progress; `claimed_by` names the call that claimed it, so that a call which the SDK repeats because the answer was
//! lost meets its own claim and takes it, and nobody gives up a claim that someone else has taken over.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;

use super::{EXPIRES_AT, Item, PK, Table, is_condition, number, number_of, partition_key, text, text_of};
use crate::ports::{Claim, LEDGER_RETENTION_S, Ledger, PortError, PortResult};
use crate::state_table::LEDGER;
use crate::time::Timestamp;

const LEASE_UNTIL: &str = "lease_until";
const CLAIMED_BY: &str = "claimed_by";
const DONE: &str = "done";

/// How long after its lease a claim that nobody completed may be deleted. A day, our choice: whoever still works on it
/// then has lost it long ago.
const ABANDONED_S: i64 = 86_400;

/// Claims of this process that are remembered; our choice, a megabyte at most. What is forgotten ends with its lease.
const CLAIMS_MAX: usize = 10_000;

/// A [`Ledger`] in the state table.
#[derive(Clone, Debug)]
pub struct DynamoLedger {
    table: Table,
    /// Our claims, by key: what `claimed_by` says of each.
    claims: Arc<Mutex<HashMap<String, String>>>,
}

impl DynamoLedger {
    /// In `table`, with the keys of [`super`]; the client is built once, in `main`.
    pub fn new(client: Client, table: String) -> Self {
        Self { table: Table { client, name: table }, claims: Arc::default() }
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for DynamoLedger {
    async fn claim(&self, key: &str, now: Timestamp, lease_until: Timestamp) -> PortResult<Claim> {
        let me = uuid::Uuid::now_v7().to_string();
        let expires = now.max(lease_until).plus_seconds(ABANDONED_S);
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .item(PK, text(pk(key)))
            .item(LEASE_UNTIL, number(lease_until.as_millis()))
            .item(CLAIMED_BY, text(&*me))
            .item(EXPIRES_AT, number(seconds(expires)))
            .condition_expression(
                "attribute_not_exists(#pk) OR #claimed_by = :me OR (attribute_not_exists(#done) AND #until <= :now)",
            )
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#claimed_by", CLAIMED_BY)
            .expression_attribute_names("#done", DONE)
            .expression_attribute_names("#until", LEASE_UNTIL)
            .expression_attribute_values(":me", text(&*me))
            .expression_attribute_values(":now", number(now.as_millis()))
            .return_values_on_condition_check_failure(
                aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld,
            );
        match Box::pin(call.send()).await {
            Ok(_) => {
                let mut claims = self.claims();
                if claims.len() >= CLAIMS_MAX {
                    claims.clear();
                }
                claims.insert(key.to_owned(), me);
                Ok(Claim::Ours)
            }
            Err(error) if is_condition(&error) => match error.into_service_error() {
                PutItemError::ConditionalCheckFailedException(found) => self.found(key, found.item),
                other => Err(PortError::retryable(self.table.could_not("write"), other)),
            },
            Err(error) => Err(self.table.error("write", error)),
        }
    }

    async fn complete(&self, key: &str, result: &str, now: Timestamp) -> PortResult<()> {
        self.claims().remove(key);
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .item(PK, text(pk(key)))
            .item(DONE, text(result))
            .item(EXPIRES_AT, number(seconds(now.plus_seconds(LEDGER_RETENTION_S))));
        Box::pin(call.send()).await.map(drop).map_err(|error| self.table.error("write", error))
    }

    async fn release(&self, key: &str) -> PortResult<()> {
        let Some(me) = self.claims().remove(key) else { return Ok(()) };
        let call = self
            .table
            .client
            .delete_item()
            .table_name(&self.table.name)
            .key(PK, text(pk(key)))
            .condition_expression("#claimed_by = :me")
            .expression_attribute_names("#claimed_by", CLAIMED_BY)
            .expression_attribute_values(":me", text(me));
        match Box::pin(call.send()).await {
            Ok(_) => Ok(()),
            // It is done, or someone else's by now.
            Err(error) if is_condition(&error) => Ok(()),
            Err(error) => Err(self.table.error("write", error)),
        }
    }

    async fn results(&self, keys: &[String]) -> PortResult<Vec<Option<String>>> {
        let wanted: BTreeSet<String> = keys.iter().map(|key| pk(key)).collect();
        let items = self.table.get_all(wanted.into_iter().map(|pk| Item::from([(PK.to_owned(), text(pk))]))).await?;
        let by_pk: HashMap<&str, &Item> = items.iter().filter_map(|item| Some((text_of(item, PK)?, item))).collect();
        let result = |key: &String| text_of(by_pk.get(&*pk(key))?, DONE).map(str::to_owned);
        Ok(keys.iter().map(result).collect())
    }
}

impl DynamoLedger {
    /// What the item that refused a claim says.
    fn found(&self, key: &str, item: Option<Item>) -> PortResult<Claim> {
        let item = item.ok_or_else(|| self.table.damaged(key, "its content was not returned"))?;
        if let Some(result) = text_of(&item, DONE) {
            return Ok(Claim::Done(result.to_owned()));
        }
        let until = number_of(&item, LEASE_UNTIL).ok_or_else(|| self.table.damaged(key, "no lease_until"))?;
        Ok(Claim::Busy { until: Timestamp::from_millis(until) })
    }
}

fn pk(key: &str) -> String {
    partition_key(LEDGER, key)
}

const fn seconds(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(1000)
}
