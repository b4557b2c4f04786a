use proptest::prelude::*;

use super::rule::{Ports, Source, without};
use super::*;
use crate::executor;
use crate::testing::{FakeAws, finding};

fn opened(rules: Value) -> Finding {
    let mut finding = finding("security_group_opened_to_world", &[SecurityGroupRuleRevoke::META.id]);
    finding.evidence.insert("group_id".to_owned(), json!("sg-0123456789abcdef0"));
    finding.evidence.insert("world_rules".to_owned(), rules);
    finding
}

fn plan(finding: &Finding) -> Result<Vec<(String, Plan)>, NotApplicable> {
    Action::plan(&SecurityGroupRuleRevoke { remainder_kept: true }, finding)
}

fn rendered(rules: Value) -> String {
    let targets = plan(&opened(rules)).unwrap();
    assert_eq!(targets.len(), 1);
    crate::render(&targets[0].1)
}

#[test]
fn fires_for_one_port() {
    let finding = opened(json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"}]));
    insta::assert_json_snapshot!(plan(&finding).unwrap());
}

#[test]
fn plans_by_shape_of_rule() {
    let part = |protocol: &str, from: i64, to: i64, cidr: &str| json!({"protocol": protocol, "from_port": from, "to_port": to, "cidr": cidr});
    let within = |port: i64, cidr: &str| json!({"protocol": "tcp", "from_port": port, "to_port": port, "cidr": cidr, "rule": {"from_port": 0, "to_port": 65535}});
    let cases = [
        ("both families", json!([part("tcp", 22, 22, "0.0.0.0/0"), part("6", 22, 22, "::/0")])),
        ("the same twice", json!([part("tcp", 22, 22, "0.0.0.0/0"), part("6", 22, 22, "1.2.3.4/0")])),
        ("two ports of a wide rule", json!([within(22, "0.0.0.0/0"), within(3389, "0.0.0.0/0")])),
        ("wide rules of both families", json!([within(22, "0.0.0.0/0"), within(22, "::/0")])),
        ("overlapping rules", json!([within(22, "0.0.0.0/0"), part("tcp", 80, 80, "0.0.0.0/0")])),
        ("a wide range that offends as a whole", json!([part("tcp", 0, 65535, "0.0.0.0/0")])),
        ("all traffic", json!([part("-1", -1, -1, "::/0")])),
        ("all ports left out", json!([{"protocol": "udp", "cidr": "0.0.0.0/0"}])),
        ("ping", json!([part("icmp", 8, -1, "0.0.0.0/0")])),
        ("a protocol without ports", json!([part("50", -1, -1, "0.0.0.0/0")])),
    ];
    let all: Vec<String> = cases.into_iter().map(|(name, rules)| format!("# {name}\n{}", rendered(rules))).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn the_fact_ports_says_which_part_of_a_rule_offends() {
    let plan_with = |ports: Value| {
        let mut finding = opened(json!([
            {"protocol": "tcp", "from_port": 0, "to_port": 65535, "cidr": "0.0.0.0/1"},
            {"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "200.0.0.0/1"},
            {"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "203.0.113.9/32"},
        ]));
        finding.evidence.insert("ports".to_owned(), ports);
        plan(&finding).map(|targets| crate::render(&targets[0].1))
    };
    insta::assert_snapshot!(plan_with(json!([22, 3389])).unwrap());
    for unreadable in [json!((1..=20).collect::<Vec<u16>>()), json!(["22"]), json!([])] {
        assert!(!plan_with(unreadable).unwrap().contains("FromPort\":23"), "a list that may be cut splits nothing");
    }
    assert!(plan_with(json!([3389])).unwrap_err().0.contains("rule 2 holds none of the offending ports"));
}

#[test]
fn sources_are_written_as_ec2_stores_them() {
    for (cidr, stored) in [
        ("1.2.3.4/0", Some("0.0.0.0/0")),
        ("200.1.1.1/1", Some("128.0.0.0/1")),
        ("203.0.113.9/32", Some("203.0.113.9/32")),
        ("2001:DB8::1/0", Some("::/0")),
        ("2001:db8::/3", Some("2000::/3")),
        ("1.2.3.4/33", None),
        ("1.2.3.4/-1", None),
        ("1.2.3.4", None),
        ("", None),
    ] {
        assert_eq!(Source::parse(cidr).map(Source::cidr).as_deref(), stored, "{cidr}");
    }
}

#[test]
fn a_wide_rule_goes_whole_when_the_remainder_is_not_kept() {
    let finding = opened(
        json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0", "rule": {"from_port": 0, "to_port": 100}}]),
    );
    let plan = Action::plan(&SecurityGroupRuleRevoke { remainder_kept: false }, &finding).unwrap().remove(0).1;
    insta::assert_snapshot!(crate::render(&plan));
}

#[test]
fn ignores_what_it_cannot_be_sure_of_and_says_why() {
    let good = json!({"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"});
    let with = |key: &str, value: Value| {
        let mut part = good.clone();
        part[key] = value;
        json!([good, part])
    };
    let cases = [
        (json!([]), "names no world-open rule"),
        (json!("tcp/22"), "names no world-open rule"),
        (json!([good, "… 3 more"]), "rule 2 has no cidr"),
        (json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "203.0.113.0/24"}]), "none of the rules"),
        (with("cidr", json!("everyone/0")), "not one"),
        (with("cidr", json!("0.0.0.0")), "not one"),
        (with("protocol", json!("sctp-ish")), "unknown protocol"),
        (with("protocol", Value::Null), "has no protocol"),
        (with("from_port", json!("22")), "not a number"),
        (with("from_port", json!(23)), "ends before it starts"),
        (with("from_port", Value::Null), "half a port range"),
        (with("to_port", json!(70000)), "above 65535"),
        (with("rule", json!({"from_port": 80, "to_port": 90})), "not within the rule"),
    ];
    for (rules, why) in cases {
        let reason = plan(&opened(rules)).unwrap_err().0;
        assert!(reason.contains(why), "{reason} does not say {why}");
    }
    let mut nameless = opened(json!([good]));
    nameless.evidence.insert("group_id".to_owned(), json!("sg-1; rm"));
    assert!(plan(&nameless).unwrap_err().0.contains("names no security group"));
}

const GROUP: &str = "sg-0123456789abcdef0";

fn live(permissions: Value) -> FakeAws {
    FakeAws::default().with_rules(GROUP, permissions)
}

fn seen(group: &FakeAws) -> Vec<Value> {
    let finding = opened(json!([]));
    let place = group_of(&finding).unwrap();
    let read = place.call("DescribeSecurityGroupRules", place.filter());
    run(executor::look(group, &[read])).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn settled(finding: &Finding, group: &FakeAws) -> Settled {
    let planned = plan(finding).unwrap().remove(0).1;
    Action::settle(&SecurityGroupRuleRevoke { remainder_kept: true }, finding, &planned, &seen(group)).unwrap()
}

#[test]
fn only_rules_that_still_exist_are_revoked_and_come_back_as_they_were() {
    let v4 = |from: u16, to: u16, cidr: &str, description: &str| json!({"IpProtocol": "tcp", "FromPort": from, "ToPort": to, "IpRanges": [{"CidrIp": cidr, "Description": description}]});
    let group = live(json!([
        v4(0, 100, "0.0.0.0/0", "for a test"),
        v4(23, 100, "0.0.0.0/0", "was there"),
        v4(0, 100, "203.0.113.0/24", "the office"),
    ]));
    let rule = |cidr: &str| json!({"protocol": "tcp", "from_port": 0, "to_port": 100, "cidr": cidr});
    let mut finding = opened(json!([rule("0.0.0.0/0"), rule("::/0")]));
    finding.evidence.insert("ports".to_owned(), json!([22]));
    let settled = settled(&finding, &group);
    insta::assert_snapshot!(crate::render(&settled.plan));
    assert_eq!(settled.note, "1 of the rules not in the group any more");
    assert_eq!((settled.before.len(), &settled.before[0]["Description"]), (1, &json!("for a test")));
    assert_eq!(settled.remains, "");
}

#[test]
fn the_rules_that_a_cut_list_lacks_are_taken_from_the_group() {
    let rule = |to: usize| json!({"protocol": "tcp", "from_port": 22, "to_port": to, "cidr": "0.0.0.0/0"});
    let permission = |to: usize, cidr: &str| json!({"IpProtocol": "tcp", "FromPort": 22, "ToPort": to, "IpRanges": [{"CidrIp": cidr}]});
    let listed = |n: usize| {
        let mut finding = opened(json!((22..22 + n).map(rule).collect::<Vec<_>>()));
        finding.evidence.insert("ports".to_owned(), json!([22]));
        finding
    };
    let with = |n: usize| {
        let mut rules: Vec<Value> = (22..22 + n).map(|to| permission(to, "0.0.0.0/0")).collect();
        rules.push(permission(22, "203.0.113.0/24"));
        rules.push(json!({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}));
        rules.push(json!({"IpProtocol": "-1", "FromPort": -1, "ToPort": -1, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}));
        live(json!(rules))
    };
    let revoked = |settled: &Settled| settled.plan.calls[0].parameters["IpPermissions"].as_array().map_or(0, Vec::len);
    let cut = settled(&listed(20), &with(30));
    assert_eq!((revoked(&cut), &*cut.remains), (31, ""), "all that open port 22, and no other");
    let kept: Vec<u64> = cut.plan.calls[1].parameters["IpPermissions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["FromPort"].as_u64().unwrap())
        .collect();
    assert!(kept.iter().all(|from| *from == 23), "what was no offence comes back: {kept:?}");
    let whole = settled(&listed(19), &with(30));
    assert_eq!(revoked(&whole), 19, "a list that is whole is meant as it is");
    assert!(whole.remains.ends_with(" and 9 more"), "{}", whole.remains);
    let planned = plan(&listed(20)).unwrap().remove(0).1;
    let action = SecurityGroupRuleRevoke { remainder_kept: true };
    let refused = Action::settle(&action, &listed(20), &planned, &seen(&with(250))).unwrap_err().0;
    assert!(refused.contains("251 rules open the group"), "{refused}");
}

#[test]
fn a_long_before_image_goes_without_tags() {
    let rule = |n: usize| json!({"SecurityGroupRuleId": "sgr-1", "Tags": [{"Key": "k", "Value": "v".repeat(n)}]});
    let (short, long) = (rule(10), rule(BEFORE_BYTES_MAX));
    assert_eq!(before_image(vec![&short]), std::slice::from_ref(&short));
    assert_eq!(before_image(vec![&long]), [json!({"SecurityGroupRuleId": "sgr-1"})]);
}

#[test]
fn other_rules_that_open_the_same_are_named() {
    let rule = |protocol: &str, from: i64, to: i64, cidr: &str| json!({"IpProtocol": protocol, "FromPort": from, "ToPort": to, "IpRanges": [{"CidrIp": cidr}]});
    let all = json!({"protocol": "-1", "cidr": "0.0.0.0/0"});
    let ssh = json!({"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"});
    let ping = json!({"protocol": "icmp", "from_port": 8, "to_port": -1, "cidr": "0.0.0.0/0"});
    let cases = [
        (&ssh, rule("tcp", 0, 100, "0.0.0.0/1"), "tcp 0-100 from 0.0.0.0/1"),
        (&ssh, rule("-1", -1, -1, "0.0.0.0/0"), "everything from 0.0.0.0/0"),
        (&ssh, rule("tcp", 23, 100, "0.0.0.0/0"), ""),
        (&ssh, rule("udp", 22, 22, "0.0.0.0/0"), ""),
        (&ssh, rule("tcp", 22, 22, "10.0.0.0/8"), ""),
        (&ssh, rule("icmp", -1, -1, "0.0.0.0/0"), ""),
        (&all, rule("tcp", 22, 22, "0.0.0.0/0"), "tcp 22-22 from 0.0.0.0/0"),
        (&all, rule("tcp", 443, 443, "0.0.0.0/0"), ""),
        (&ping, rule("icmp", -1, -1, "0.0.0.0/0"), ""),
    ];
    for (offence, other, named) in cases {
        let mut finding = opened(json!([offence]));
        finding.evidence.insert("ports".to_owned(), json!([22]));
        let remains = settled(&finding, &live(json!([other]))).remains;
        assert_eq!(remains.is_empty(), named.is_empty(), "{offence} {other}: {remains}");
        assert!(remains.ends_with(named), "{offence} {other}: {remains}");
    }
    let many: Vec<Value> = (0..5).map(|n| rule("tcp", 20 - n, 22, "0.0.0.0/0")).collect();
    let remains = settled(&opened(json!([ssh])), &live(json!(many))).remains;
    assert!(remains.ends_with(" and 2 more"), "{remains}");
}

#[test]
fn answers_and_calls_that_cannot_be_understood_change_nothing() {
    let action = SecurityGroupRuleRevoke { remainder_kept: true };
    let ssh = json!([{"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0"}]);
    let planned = plan(&opened(ssh.clone())).unwrap().remove(0).1;
    for seen in [vec![], vec![json!({})], vec![json!({"SecurityGroupRules": 1})]] {
        Action::settle(&action, &opened(ssh.clone()), &planned, &seen).unwrap_err();
        Action::left(&action, &planned.calls[0], &seen).unwrap_err();
    }
    let nothing = [json!({"SecurityGroupRules": []})];
    for permissions in [
        json!("tcp"),
        json!([{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}]),
        json!([{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}, {"CidrIp": "10.0.0.0/8"}]}]),
        json!([{"IpProtocol": "tcp", "UserIdGroupPairs": [{"GroupId": "sg-1"}]}]),
    ] {
        let mut call = planned.calls[0].clone();
        call.parameters["IpPermissions"] = permissions;
        Action::left(&action, &call, &nothing).unwrap_err();
    }
    let mut other = planned.calls[0].clone();
    other.operation = "DeleteSecurityGroup".to_owned();
    Action::left(&action, &other, &nothing).unwrap_err();
    assert_eq!(Action::left(&action, &planned.calls[0], &[Value::Null]).unwrap(), None, "gone is closed");
}

/// Whether a group lets the world in on a TCP port.
fn lets_in(group: &FakeAws, port: u16) -> bool {
    let seen = seen(group);
    let rules = live_rules(&seen).unwrap();
    rules.keys().any(|rule| matches!(rule.ports, Ports::Range(from, to) if (from..=to).contains(&port)))
}

proptest! {
    /// A group with any rules to the world, a finding about any of them and about some that are not there.
    #[test]
    fn the_offence_goes_nothing_else_changes_and_undo_brings_all_back(
        rules in proptest::collection::btree_set((0_u16..12, 0_u16..6, any::<bool>()), 1..7),
        named in proptest::collection::vec(any::<bool>(), 7),
        there in proptest::collection::vec(any::<bool>(), 7),
        ports in proptest::collection::btree_set(0_u16..18, 1..4),
    ) {
        let cidr = |v6: bool| if v6 { "::/0" } else { "0.0.0.0/0" };
        let permission = |&(from, n, v6): &(u16, u16, bool)| {
            let (list, name) = if v6 { ("Ipv6Ranges", "CidrIpv6") } else { ("IpRanges", "CidrIp") };
            let source = json!({name: cidr(v6), "Description": format!("rule {from}")});
            json!({"IpProtocol": "tcp", "FromPort": from, "ToPort": from + n, list: [source]})
        };
        let holds = |&(from, n, _): &(u16, u16, bool)| ports.iter().any(|port| (from..=from + n).contains(port));
        let group = live(rules.iter().zip(&there).filter(|(_, there)| **there).map(|(rule, _)| permission(rule)).collect());
        let facts: Vec<Value> = rules.iter().zip(&named).filter(|(rule, named)| **named && holds(rule)).map(|(&(from, n, v6), _)| {
            json!({"protocol": "tcp", "from_port": from, "to_port": from + n, "cidr": cidr(v6)})
        }).collect();
        prop_assume!(!facts.is_empty());
        let mut finding = opened(json!(facts));
        finding.evidence.insert("ports".to_owned(), json!(ports));

        let action = SecurityGroupRuleRevoke { remainder_kept: true };
        let before: Vec<bool> = (0..20).map(|port| lets_in(&group, port)).collect();
        let image = group.image();
        let settled = settled(&finding, &group);
        let plan = settled.plan;
        let made = run(executor::make(&group, &action, &plan, &plan.calls, None));
        prop_assert_eq!(made.stop, None);
        for port in 0..20_u16 {
            let still = lets_in(&group, port);
            // A port offends in the rules that the finding names.
            let named = offending_rules(&finding).unwrap();
            if !named.values().flatten().any(|part| part.contains(&port)) {
                prop_assert_eq!(still, before[usize::from(port)], "harmless port {}", port);
            } else if settled.remains.is_empty() {
                prop_assert!(!still, "offending port {}", port);
            }
        }
        prop_assert_eq!(run(executor::make(&group, &action, &plan, &plan.calls, None)).calls, vec![]);
        prop_assert_eq!(run(executor::make(&group, &action, &plan, &plan.undo, None)).stop, None);
        prop_assert_eq!(group.image(), image);
    }

    #[test]
    fn a_split_loses_and_adds_no_port(
        (from, to) in (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b))),
        parts in proptest::collection::vec((any::<u16>(), 0_u16..2000), 0..6),
    ) {
        let parts: Vec<_> = parts.into_iter().map(|(at, n)| at..=at.saturating_add(n)).collect();
        let left = without(from..=to, &parts);
        for pair in left.windows(2) {
            prop_assert!(u32::from(*pair[0].end()) + 1 < u32::from(*pair[1].start()));
        }
        for port in 0..=u16::MAX {
            let wanted = (from..=to).contains(&port) && !parts.iter().any(|p| p.contains(&port));
            prop_assert_eq!(left.iter().any(|r| r.contains(&port)), wanted, "port {}", port);
        }
        prop_assert!(left.iter().all(|r| !r.is_empty()));
    }
}
