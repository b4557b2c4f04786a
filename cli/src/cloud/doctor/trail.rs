//! CloudTrail: without a trail that logs management events in every region, EventBridge gets nothing.

use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::operation::get_event_selectors::GetEventSelectorsOutput;
use aws_sdk_cloudtrail::types::{ReadWriteType, Trail};

use super::Context;
use super::report::{Check, Problems};
use crate::cloud::refusal::Refusal;

const CHECK: &str = "trail";

/// A trail of all regions logs, reads and writes, and delivers.
pub async fn check(context: &Context) -> Check {
    Check::answered(CHECK, ask(context).await)
}

async fn ask(context: &Context) -> Result<Check, Refusal> {
    let client = Client::new(context.session.config());
    let call = client.describe_trails().include_shadow_trails(true);
    let answer = Box::pin(call.send()).await.map_err(|e| Refusal::of("cloudtrail:DescribeTrails", &e))?;
    let all = answer.trail_list.unwrap_or_default();
    let mut problems = Problems::default();
    let mut reasons = Vec::new();
    let mut well = None;
    for trail in all.iter().filter(|trail| trail.is_multi_region_trail == Some(true)) {
        let name = trail.name.as_deref().unwrap_or_default();
        match look(context, trail, &mut problems).await? {
            None => well = Some(format!("{name} logs management events in all regions")),
            Some(why) => reasons.push(format!("{name} {why}")),
        }
    }
    if well.is_none() {
        // Warnings about a trail that does not do are no news.
        problems = Problems::default();
        match (&reasons[..], all.len()) {
            ([], 0) => problems.fail("there is no trail"),
            ([], _) => problems.fail("no trail is of all regions"),
            (reasons, _) => reasons.iter().for_each(|why| problems.fail(why)),
        }
    }
    Ok(problems.into_check(
        CHECK,
        well.unwrap_or_default(),
        "docs/runbooks/silent.md; treat a trail that was stopped as an incident",
    ))
}

/// Why the trail does not do, if so.
async fn look(context: &Context, trail: &Trail, problems: &mut Problems) -> Result<Option<String>, Refusal> {
    let (name, arn) = (trail.name.as_deref().unwrap_or_default(), trail.trail_arn.as_deref().unwrap_or_default());
    // Its settings are known where it is at home only.
    let home = trail.home_region.as_deref().unwrap_or(&context.session.region);
    let client = Client::new(context.session.in_region(home).config());
    let status = Box::pin(client.get_trail_status().name(arn).send()).await;
    let status = status.map_err(|e| Refusal::of("cloudtrail:GetTrailStatus", &e))?;
    if status.is_logging != Some(true) {
        return Ok(Some("does not log".to_owned()));
    }
    if let Some(error) = status.latest_delivery_error.filter(|error| !error.is_empty()) {
        problems.warn(format!("{name} cannot deliver its log files: {error}"));
    }
    let selectors = Box::pin(client.get_event_selectors().trail_name(arn).send()).await;
    let selectors = selectors.map_err(|e| Refusal::of("cloudtrail:GetEventSelectors", &e))?;
    Ok(match management_events(&selectors) {
        Recorded::All => None,
        Recorded::None => Some("records no management events".to_owned()),
        Recorded::Some(what) => {
            problems.warn(format!("{name} records {what} management events only"));
            None
        }
    })
}

/// Which management events a trail records.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Recorded {
    All,
    None,
    Some(&'static str),
}

fn management_events(selectors: &GetEventSelectorsOutput) -> Recorded {
    let basic = selectors.event_selectors.iter().flatten().filter(|s| s.include_management_events == Some(true));
    let basic: Vec<Option<&ReadWriteType>> = basic.map(|selector| selector.read_write_type.as_ref()).collect();
    let advanced = selectors.advanced_event_selectors.iter().flatten().map(|selector| &selector.field_selectors);
    let equal = |fields: &[aws_sdk_cloudtrail::types::AdvancedFieldSelector], name: &str| -> Option<String> {
        fields.iter().find(|field| field.field == name)?.equals.as_ref()?.first().cloned()
    };
    let advanced: Vec<Option<String>> = advanced
        .filter(|fields| equal(fields, "eventCategory").as_deref() == Some("Management"))
        .map(|fields| equal(fields, "readOnly"))
        .collect();
    let writes = basic.iter().any(|kind| !matches!(kind, Some(ReadWriteType::ReadOnly)))
        || advanced.iter().any(|read_only| read_only.as_deref() != Some("true"));
    let reads = basic.iter().any(|kind| !matches!(kind, Some(ReadWriteType::WriteOnly)))
        || advanced.iter().any(|read_only| read_only.as_deref() != Some("false"));
    match (reads, writes) {
        (true, true) => Recorded::All,
        (true, false) => Recorded::Some("read-only"),
        (false, true) => Recorded::Some("writing"),
        (false, false) => Recorded::None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::report::Status;
    use super::super::tests_support::{answering, denied, json};
    use super::*;

    async fn checked(multi_region: bool, status: &Value, selectors: &Value) -> Check {
        let trail = json!({"Name": "main", "TrailARN": "arn:aws:cloudtrail:eu-west-1:123456789012:trail/main",
                           "HomeRegion": "eu-west-1", "IsMultiRegionTrail": multi_region});
        let (context, _server) = answering([json(&json!({"trailList": [trail]})), json(status), json(selectors)]);
        check(&context).await
    }

    #[tokio::test]
    async fn a_trail_logs_everything_everywhere_or_not() {
        let logging = json!({"IsLogging": true});
        let basic = |kind: &str, included: bool| json!({"EventSelectors": [{"ReadWriteType": kind, "IncludeManagementEvents": included}]});
        let advanced = |fields: Value| json!({"AdvancedEventSelectors": [{"FieldSelectors": fields}]});
        let management = json!({"Field": "eventCategory", "Equals": ["Management"]});
        let data = json!({"Field": "eventCategory", "Equals": ["Data"]});
        let writes = json!({"Field": "readOnly", "Equals": ["false"]});
        for (multi, status, selectors, expected, said) in [
            (true, &logging, basic("All", true), Status::Ok, "main logs"),
            (true, &logging, advanced(json!([management])), Status::Ok, "main logs"),
            (true, &json!({"IsLogging": false}), basic("All", true), Status::Failed, "does not log"),
            (false, &logging, basic("All", true), Status::Failed, "no trail is of all regions"),
            (true, &logging, basic("All", false), Status::Failed, "records no management"),
            (true, &logging, advanced(json!([data])), Status::Failed, "records no management"),
            (true, &logging, basic("WriteOnly", true), Status::Warning, "writing"),
            (true, &logging, basic("ReadOnly", true), Status::Warning, "read-only"),
            (true, &logging, advanced(json!([management, writes])), Status::Warning, "writing"),
            (
                true,
                &json!({"IsLogging": true, "LatestDeliveryError": "NoSuchBucket"}),
                basic("All", true),
                Status::Warning,
                "NoSuchBucket",
            ),
        ] {
            let check = checked(multi, status, &selectors).await;
            assert_eq!(check.status, expected, "{check:?}");
            assert!(check.said.contains(said), "{said}: {check:?}");
        }
    }

    #[tokio::test]
    async fn no_trail_fails_and_no_permission_is_skipped() {
        let (context, _server) = answering([json(&json!({"trailList": []}))]);
        assert_eq!(check(&context).await.status, Status::Failed);
        let (context, _server) = answering([denied()]);
        let check = check(&context).await;
        assert!(check.status == Status::Skipped && check.said.contains("cloudtrail:DescribeTrails"), "{check:?}");
    }
}
