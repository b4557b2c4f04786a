//! A group that is opened to the world by several calls, in any order and whatever is opened beside it.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};

use aws_classifier::classifiers::ALL;
use aws_classifier::engine::Engine;
use proptest::prelude::*;
use serde_json::json;
use shared::Timestamp;
use shared::adapters::memory::{MemoryState, NoFiles};
use shared::event::Event;
use shared::finding::Finding;

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;

/// Rules of one call: first and last port, and the first bits and number of bits of an IPv4 range.
type Rules = Vec<(u16, u16, u32, u32)>;

/// A call and when it happened, in seconds from a start.
#[derive(Clone, Debug)]
struct Call {
    at_s: i64,
    rules: Rules,
}

fn cidr(bits: u32, len: u32) -> String {
    format!("{}/{len}", std::net::Ipv4Addr::from_bits(bits))
}

fn record(number: usize, call: &Call) -> String {
    let start = Timestamp::parse("2026-03-02T00:00:00Z").unwrap();
    let permissions: Vec<_> = call
        .rules
        .iter()
        .map(|(from, to, bits, len)| {
            json!({ "ipProtocol": "tcp", "fromPort": from, "toPort": to,
                    "ipRanges": { "items": [{ "cidrIp": cidr(*bits, *len) }] } })
        })
        .collect();
    let record = json!({
        "eventTime": start.plus_seconds(call.at_s).to_string(),
        "eventSource": "ec2.amazonaws.com",
        "eventName": "AuthorizeSecurityGroupIngress",
        "eventID": format!("call-{number}"),
        "awsRegion": "eu-west-1",
        "recipientAccountId": "123456789012",
        "requestParameters": { "groupId": "sg-0a1b2c3d", "ipPermissions": { "items": permissions } },
        "responseElements": null,
    });
    record.to_string()
}

/// What is found when the calls arrive in this order, each twice until something is.
fn findings(calls: &[Call], order: &[usize]) -> Vec<Finding> {
    let plugin = ALL.iter().find(|plugin| plugin.meta.id == "security_group_opened_to_world").unwrap();
    let engine = Engine::new(vec![(plugin.from_json)(json!({}), &NoFiles).unwrap()], BTreeMap::new());
    let state = MemoryState::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut found = Vec::new();
    for &number in order {
        let text = record(number, &calls[number]);
        let deliver = || {
            let event = Event::from_cloudtrail(&text).unwrap();
            let verdict = runtime.block_on(engine.run(&[event], &state)).unwrap().remove(0);
            assert_eq!(verdict.malformed, []);
            verdict.findings
        };
        let once = deliver();
        // Until the world is open nothing is forgotten; from then on it was told.
        if found.is_empty() {
            assert_eq!(once, deliver(), "a second delivery finds the same");
        }
        found.extend(once);
    }
    found
}

/// Whether the finding says that the port is open.
fn names(finding: &Finding, port: u16) -> bool {
    finding.evidence["ports"].as_array().unwrap().contains(&port.into())
}

/// Whether the calls of these times open half of the world on the port: address blocks of `/8` counted one by one, as all
/// ranges here are at least as wide.
fn is_world<'c>(calls: impl Iterator<Item = &'c Call>, port: u16) -> bool {
    let mut networks = BTreeSet::new();
    for (from, to, bits, len) in calls.flat_map(|call| &call.rules) {
        if (*from..=*to).contains(&port) {
            let holds = |network: &u32| (network << 24) & u32::MAX << (32 - len) == *bits;
            networks.extend((1..=223).filter(|network| *network != 10 && *network != 127).filter(holds));
        }
    }
    networks.len() >= 111
}

/// Whether some day that has the call's time in it has such calls.
fn is_world_around(calls: &[Call], at_s: i64, port: u16) -> bool {
    let starts = calls.iter().map(|call| call.at_s).filter(|start| (at_s - DAY_S..=at_s).contains(start));
    starts
        .into_iter()
        .any(|start| is_world(calls.iter().filter(|call| (start..=start + DAY_S).contains(&call.at_s)), port))
}

/// Two quarters of the world, an hour before and after what is opened beside them.
fn quarters_around(decoys: Vec<Rules>) -> Vec<Call> {
    let quarter = |hour: i64, bits: u32| Call { at_s: hour * HOUR_S, rules: vec![(22, 22, bits, 2)] };
    let mut calls = vec![quarter(0, 0)];
    calls.extend(decoys.into_iter().zip(0..).map(|(rules, second)| Call { at_s: HOUR_S + second, rules }));
    calls.push(quarter(2, 128 << 24));
    calls
}

#[test]
fn decoys_do_not_crowd_out_what_was_opened_before() {
    let other_ports = (23..83).map(|to| vec![(0, to, 0, 7)]).collect();
    let other_ranges = (0..300_u32).map(|n| vec![(22, 22, (n % 8) << 25, 7)]).collect();
    let many_in_a_call = (0..30).map(|n| (0..60).map(|to| (20 + n % 3, 22 + to, 0, 6)).collect()).collect();
    for decoys in [Vec::new(), other_ports, other_ranges, many_in_a_call] {
        let calls = quarters_around(decoys);
        let last = calls.len() - 1;
        let in_order: Vec<usize> = (0..=last).collect();
        let mut first_is_late = in_order[1..].to_vec();
        first_is_late.push(0);
        for (order, finder) in [(in_order, last), (first_is_late, 0)] {
            let found = findings(&calls, &order);
            let ids: Vec<&str> = found.iter().map(|finding| &*finding.event_id).collect();
            assert_eq!(ids, [format!("call-{finder}")], "{} calls", calls.len());
            let quarter =
                |bits: u32| json!({ "protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": cidr(bits, 2) });
            let named = found[0].evidence["world_rules"].as_array().unwrap();
            assert!([0, 128 << 24].map(quarter).iter().all(|rule| named.contains(rule)), "{named:#?}");
        }
    }
}

#[test]
fn a_network_a_call_is_the_world_in_the_end() {
    let networks: Vec<u32> = (1..=223).filter(|network| ![10, 127].contains(network)).collect();
    let calls: Vec<Call> = networks
        .iter()
        .zip(0..)
        .map(|(network, minute)| Call { at_s: minute * 60, rules: vec![(22, 22, network << 24, 8)] })
        .collect();
    let order: Vec<usize> = (0..calls.len()).collect();
    let found = findings(&calls, &order);
    assert_eq!(found[0].event_id, "call-110");
    assert_eq!(found[0].evidence["networks_held"], 111);
    assert!(findings(&calls[..110], &order[..110]).is_empty());
}

/// Calls, each with how late it arrives: at most an hour, as state is kept for.
fn calls() -> impl Strategy<Value = Vec<(Call, i64)>> {
    let ports = prop_oneof![Just((22, 22)), Just((0, 65_535)), Just((20, 25)), Just((3389, 3389)), Just((80, 80))];
    let rule = (ports, 1_u32..=8, any::<u32>())
        .prop_map(|((from, to), len, bits)| (from, to, bits & u32::MAX << (32 - len), len));
    let call = (0..2 * DAY_S, proptest::collection::vec(rule, 1..4)).prop_map(|(at_s, rules)| Call { at_s, rules });
    proptest::collection::vec((call, 0..=HOUR_S), 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_day_of_calls_opens_is_found_in_any_order_of_arrival(calls in calls()) {
        let mut order: Vec<usize> = (0..calls.len()).collect();
        order.sort_by_key(|number| calls[*number].0.at_s + calls[*number].1);
        let calls: Vec<Call> = calls.into_iter().map(|(call, _)| call).collect();
        let found = findings(&calls, &order);
        for port in [22, 3389] {
            let expected = calls.iter().any(|call| is_world_around(&calls, call.at_s, port));
            prop_assert_eq!(found.iter().any(|finding| names(finding, port)), expected, "port {}", port);
            for finding in found.iter().filter(|finding| names(finding, port)) {
                let number: usize = finding.event_id.trim_start_matches("call-").parse().unwrap();
                prop_assert!(is_world_around(&calls, calls[number].at_s, port), "{} on port {}", finding.event_id, port);
            }
        }
    }
}
