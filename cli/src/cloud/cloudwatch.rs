//! One question to CloudWatch, without its client of the SDK: that would bring a reader of CBOR, two crates of big
//! numbers and the old generation of HTTP types along.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use shared::adapters::aws::json::{JsonService, Names, Refused};

use super::refusal::Refusal;
use super::session::Session;

/// The call, which is also the permission it needs.
const CALL: &str = "cloudwatch:DescribeAlarms";
const NAMES: Names = Names {
    host: "monitoring",
    id: "CloudWatch",
    target: "GraniteServiceVersion20100801",
    content_type: "application/x-amz-json-1.0",
};
/// The longest that the answer may take.
const ANSWER: Duration = Duration::from_secs(15);
/// A longer answer is none: a page has a hundred alarms.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What is asked of an alarm.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Alarm {
    /// Its name.
    pub alarm_name: String,
    /// What it says to people.
    pub alarm_description: String,
    /// `OK`, `ALARM` or `INSUFFICIENT_DATA`.
    pub state_value: String,
    /// Whether it tells anybody.
    pub actions_enabled: bool,
}

impl Default for Alarm {
    fn default() -> Self {
        let (alarm_name, alarm_description, state_value) = Default::default();
        Self { alarm_name, alarm_description, state_value, actions_enabled: true }
    }
}

/// The metric alarms whose names begin so.
///
/// # Errors
/// When CloudWatch cannot be asked.
pub async fn alarms(session: &Session, prefix: &str) -> Result<Vec<Alarm>, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        #[serde(default)]
        metric_alarms: Vec<Alarm>,
        next_token: Option<String>,
    }
    let cloudwatch = JsonService::new(session.config(), NAMES, ANSWER, ANSWER).map_err(other)?;
    let mut input = json!({"AlarmNamePrefix": prefix});
    let mut all = Vec::new();
    loop {
        let answer = cloudwatch.call("DescribeAlarms", &input, ANSWER_BYTES_MAX).await.map_err(refused)?;
        let page: Page = serde_json::from_slice(&answer).map_err(other)?;
        all.extend(page.metric_alarms);
        match page.next_token {
            Some(token) => input["NextToken"] = token.into(),
            None => return Ok(all),
        }
    }
}

fn refused(Refused { code, status, message, .. }: Refused) -> Refusal {
    Refusal::said(CALL, &code, status, message.as_deref())
}

fn other(why: impl std::fmt::Display) -> Refusal {
    Refusal::said(CALL, "", 0, Some(&why.to_string()))
}
