use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::time::Timestamp;

fn rate(record: &mut Option<StateRecord>, second: i64, event: u64) -> Count {
    match StateRecord::apply(record, &Op::Rate { threshold: 1000, window_s: 300 }, T0.plus_seconds(second), event) {
        Answer::Count(count) => count,
        _ => Count::default(),
    }
}

#[test]
fn a_flood_reaches_its_rate_once_in_a_window_and_says_so_again() {
    let mut record = None;
    let hashed = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut reached: Vec<u64> = Vec::new();
    for round in 0..2 {
        let found: Vec<u64> =
            (0..40_000).filter(|i| rate(&mut record, *i as i64 * 280 / 40_000, hashed(*i)).reaches(1000)).collect();
        assert_eq!(found.len(), 1, "round {round}");
        reached.extend(found);
    }
    assert_eq!(reached, [999, 999], "a redelivered flood says what it said");
    let Some(StateRecord::Rate(kept)) = record else { panic!("a rate") };
    assert_eq!(kept.buckets.iter().map(|(_, ids)| ids.len()).sum::<usize>(), 1000);
}

proptest! {
    #[test]
    fn a_rate_is_reached_whatever_the_order_and_never_below(
        mut order in Just((0_u64..1000).collect::<Vec<_>>()).prop_shuffle(), twice in 0_usize..1000, short: bool,
    ) {
        if short {
            order.retain(|i| *i != 500);
        }
        order.insert(twice % order.len(), order[twice % order.len()]);
        let mut record = None;
        // Told apart by event: the one that reaches the rate says so again when it is the one delivered twice.
        let reached: HashSet<u64> =
            order.iter().copied().filter(|i| rate(&mut record, *i as i64 / 4, *i).reaches(1000)).collect();
        prop_assert_eq!(reached.len(), usize::from(!short));
    }

    #[test]
    fn few_events_never_reach_a_rate(seconds in prop::collection::vec(0_i64..100_000, 0..999)) {
        let mut record = None;
        for (event, second) in seconds.iter().enumerate() {
            prop_assert!(!rate(&mut record, *second, event as u64).reaches(1000));
        }
    }
}

const T0: Timestamp = Timestamp::from_millis(1_772_366_400_000);

/// An event of the properties: its time in milliseconds after [`T0`] and what it adds to the one key.
#[derive(Clone, Debug)]
struct Given {
    ms: i64,
    what: EntryKind,
}

fn op(what: &EntryKind, window_s: u32) -> Op {
    match what.clone() {
        EntryKind::Weight(weight) => Op::Count { weight, window_s },
        EntryKind::Value(value) => Op::Distinct { value, window_s },
        EntryKind::Reset => Op::Reset { window_s },
    }
}

/// The count that event `i` is answered.
fn deliver(record: &mut Option<StateRecord>, given: &[Given], i: usize, window_s: u32) -> Count {
    let at = Timestamp::from_millis(T0.as_millis() + given[i].ms);
    match StateRecord::apply(record, &op(&given[i].what, window_s), at, i as u64) {
        Answer::Count(count) => count,
        _ => Count::default(),
    }
}

fn total<'e>(entries: impl Iterator<Item = &'e EntryKind>) -> u64 {
    let (mut weight, mut values) = (0, HashSet::new());
    for entry in entries {
        match entry {
            EntryKind::Weight(w) => weight += u64::from(*w),
            EntryKind::Value(v) => drop(values.insert(v)),
            EntryKind::Reset => {}
        }
    }
    weight + values.len() as u64
}

/// The largest total of any window between two resets, by trying every window that starts at an event.
fn largest_of_all(given: &[Given], window_s: u32) -> u64 {
    let mut in_order: Vec<_> = given.iter().enumerate().map(|(i, g)| (g.ms, i, &g.what)).collect();
    in_order.sort_by_key(|(ms, i, _)| (*ms, *i));
    let lives = in_order.split(|(_, _, what)| **what == EntryKind::Reset);
    let windows = lives.flat_map(|life| {
        life.iter().map(move |(start, _, _)| {
            let inside = |ms: i64| ms >= *start && ms <= start + i64::from(window_s) * 1000;
            total(life.iter().filter(|(ms, _, _)| inside(*ms)).map(|(_, _, what)| *what))
        })
    });
    windows.max().unwrap_or(0)
}

/// Every event at least once, in the shuffled order, with repeats put in anywhere after or before.
fn arrivals(order: Vec<usize>, repeats: &[(Index, Index)]) -> Vec<usize> {
    let mut arrivals = order;
    for (which, place) in repeats {
        if arrivals.is_empty() {
            break;
        }
        let event = arrivals[which.index(arrivals.len())];
        arrivals.insert(place.index(arrivals.len() + 1), event);
    }
    arrivals
}

fn weights() -> BoxedStrategy<EntryKind> {
    (0..5_u32).prop_map(EntryKind::Weight).boxed()
}

fn values() -> BoxedStrategy<EntryKind> {
    (0..6_u8).prop_map(|v| EntryKind::Value(v.to_string())).boxed()
}

/// Lengths of windows, half of them such that times of [`burst`] coincide with their ends.
fn windows() -> impl Strategy<Value = u32> {
    prop_oneof![0..1800_u32, (0..60_u32).prop_map(|n| n * 30)]
}

/// Events no further apart than what may arrive late, and an order of arrival. Times are coarse enough to coincide.
fn burst(
    what: BoxedStrategy<EntryKind>,
    span_ms: std::ops::RangeInclusive<i64>,
) -> impl Strategy<Value = (Vec<Given>, Vec<usize>, Vec<(Index, Index)>)> {
    let unit = if *span_ms.end() > 60_000 { 30_000 } else { 250 };
    let given = span_ms.prop_flat_map(move |span| {
        let one = (0..=span, what.clone()).prop_map(move |(ms, what)| Given { ms: ms / unit * unit, what });
        prop::collection::vec(one, 0..30)
    });
    given.prop_flat_map(|given| {
        let order: Vec<usize> = (0..given.len()).collect();
        (Just(given), Just(order).prop_shuffle(), prop::collection::vec(any::<(Index, Index)>(), 0..10))
    })
}

fn check_some_event_reaches(
    (given, order, repeats): (Vec<Given>, Vec<usize>, Vec<(Index, Index)>),
    window_s: u32,
    threshold: u64,
) -> Result<(), TestCaseError> {
    check_arrivals(&given, arrivals(order, &repeats), window_s, threshold)
}

fn check_arrivals(given: &[Given], arrivals: Vec<usize>, window_s: u32, threshold: u64) -> Result<(), TestCaseError> {
    let mut record = None;
    let mut answers: HashMap<usize, Count> = HashMap::new();
    for i in arrivals {
        let answer = deliver(&mut record, given, i, window_s);
        let first = answers.entry(i).or_insert_with(|| answer.clone());
        prop_assert_eq!(&*first, &answer, "event {} was answered differently when delivered again", i);
    }
    let reached = answers.values().filter(|a| a.reaches(threshold)).count();
    prop_assert_eq!(reached > 0, largest_of_all(given, window_s) >= threshold);
    prop_assert!(answers.values().all(|a| a.before <= a.now));
    Ok(())
}

fn resets_first(given: &[Given], order: Vec<usize>) -> Vec<usize> {
    let (mut resets, rest): (Vec<_>, Vec<_>) = order.into_iter().partition(|i| given[*i].what == EntryKind::Reset);
    resets.extend(rest);
    resets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn some_event_reaches_a_count_exactly_if_some_window_holds_it(
        burst in burst(weights(), 0..=LATENESS_S * 1000),
        window_s in windows(),
        threshold in 1..20_u64,
    ) {
        check_some_event_reaches(burst, window_s, threshold)?;
    }

    #[test]
    fn some_event_reaches_a_distinct_count_exactly_if_some_window_holds_it(
        burst in burst(values(), 0..=LATENESS_S * 1000),
        window_s in windows(),
        threshold in 1..7_u64,
    ) {
        check_some_event_reaches(burst, window_s, threshold)?;
    }

    /// A reset that arrives after what it separates cannot take an answer back; those that arrive first must hold.
    #[test]
    fn no_window_reaches_across_a_reset_that_arrived_first(
        (given, order, repeats) in burst(
            prop_oneof![4 => weights(), 1 => Just(EntryKind::Reset).boxed()].boxed(), 0..=600_000),
        window_s in windows(),
        threshold in 1..12_u64,
    ) {
        let arrivals = resets_first(&given, arrivals(order, &repeats));
        check_arrivals(&given, arrivals, window_s, threshold)?;
    }

    #[test]
    fn a_burst_within_one_window_reaches_exactly_once_in_any_order(
        (given, order, repeats) in burst(weights(), 0..=60_000),
        threshold in 1..20_u64,
    ) {
        let mut record = None;
        let mut reached = HashSet::new();
        for i in arrivals(order, &repeats) {
            if deliver(&mut record, &given, i, 60).reaches(threshold) {
                reached.insert(i);
            }
        }
        let holds = total(given.iter().map(|g| &g.what)) >= threshold;
        prop_assert_eq!(reached.len(), usize::from(holds));
    }

    /// In a longer stream, arriving in order, far more than what is kept: nothing is missed when entries age out.
    #[test]
    fn a_long_stream_in_order_misses_nothing(
        gaps in prop::collection::vec(prop_oneof![9 => 0..40_i64, 1 => 0..20_000_i64], 0..120),
        window_s in 1..100_u32,
        threshold in 1..12_u64,
    ) {
        let mut ms = 0;
        let given: Vec<_> = gaps.into_iter().map(|gap| {
            ms += gap * 1000;
            Given { ms, what: EntryKind::Weight(1) }
        }).collect();
        let order = (0..given.len()).collect();
        check_some_event_reaches((given, order, Vec::new()), window_s, threshold)?;
    }

    #[test]
    fn last_values_and_sightings_answer_a_redelivery_as_the_first_time(
        times in prop::collection::vec(0..5000_i64, 1..MAX_LAST_ENTRIES),
        repeats in prop::collection::vec(any::<(Index, Index)>(), 0..20),
        ttl_s in 1..3000_u32,
    ) {
        for see in [false, true] {
            let mut record = None;
            let mut answers: HashMap<usize, Answer> = HashMap::new();
            for i in arrivals((0..times.len()).collect(), &repeats) {
                let op = if see { Op::See { ttl_s } } else { Op::Remember { value: i.to_string(), ttl_s } };
                let answer = StateRecord::apply(&mut record, &op, T0.plus_seconds(times[i]), i as u64);
                let first = answers.entry(i).or_insert_with(|| answer.clone());
                prop_assert_eq!(&*first, &answer);
            }
        }
    }

    /// Against a list of everything: what began and did not end stands, whatever the order of arrival.
    #[test]
    fn what_began_and_did_not_end_stands_in_any_order(
        given in prop::collection::vec((0..LATENESS_S, 0..4_usize, any::<bool>(), any::<bool>()), 1..40),
        order in any::<u64>(),
        asked in 0..LATENESS_S,
    ) {
        let ttl_s = 90 * 86_400;
        let mut arrivals: Vec<usize> = (0..given.len()).collect();
        arrivals.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(order | 1));
        let mut record = None;
        for i in arrivals.iter().chain(&arrivals[..arrivals.len().min(5)]).copied() {
            let (second, thing, is_end, by_id) = given[i];
            let name = if by_id { format!("id-{thing}") } else { format!("rule-{thing}") };
            let (begins, ends) =
                if is_end { (vec![], vec![name]) } else { (vec![format!("rule-{thing} id-{thing}")], vec![]) };
            StateRecord::apply(&mut record, &Op::Stand { begins, ends, ttl_s }, T0.plus_seconds(second), i as u64);
        }
        let op = Op::Stand { begins: vec![], ends: vec![], ttl_s };
        let Answer::Stood(stood) = StateRecord::apply(&mut record, &op, T0.plus_seconds(asked), 1000) else {
            panic!("another answer");
        };
        for thing in 0..4 {
            let times = |is_end: bool| given.iter().filter(move |g| g.1 == thing && g.2 == is_end).map(|g| g.0);
            let end = |since: i64| times(true).filter(|end| *end > since).min();
            let since = times(false).filter(|since| *since <= asked && end(*since).is_none_or(|end| end >= asked)).min();
            let answer = stood.iter().find(|s| s.what == format!("rule-{thing} id-{thing}"));
            prop_assert_eq!(answer.map(|s| s.since), since.map(|s| T0.plus_seconds(s)));
            prop_assert_eq!(answer.and_then(|s| s.until), since.and_then(end).map(|s| T0.plus_seconds(s)));
        }
    }

    /// Whoever arrives first is new, and nobody else while the key is alive.
    #[test]
    fn one_event_of_a_life_is_new_in_any_order(
        times in prop::collection::vec(0..LATENESS_S, 1..40),
        repeats in prop::collection::vec(any::<(Index, Index)>(), 0..20),
    ) {
        let mut record = None;
        let arrivals = arrivals((0..times.len()).collect(), &repeats);
        for &i in &arrivals {
            let op = Op::See { ttl_s: LATENESS_S as u32 };
            let answer = StateRecord::apply(&mut record, &op, T0.plus_seconds(times[i]), i as u64);
            let is_new = matches!(answer, Answer::Seen(seen) if seen.is_new());
            prop_assert_eq!(is_new, i == arrivals[0], "event {}", i);
        }
    }

    /// However they arrive: all are led, no two leaders are near each other, and answers stay what they were.
    #[test]
    fn every_event_is_led_by_exactly_one_that_is_near(
        (given, order, repeats) in burst(weights(), 0..=600_000),
        window_s in 60..400_u32,
    ) {
        let window_ms = i64::from(window_s) * 1000;
        let mut record = None;
        let mut answers: HashMap<usize, bool> = HashMap::new();
        for i in arrivals(order, &repeats) {
            let at = Timestamp::from_millis(T0.as_millis() + given[i].ms);
            let Answer::Turn(turn) = StateRecord::apply(&mut record, &Op::Lead { window_s }, at, i as u64) else {
                panic!("a turn")
            };
            prop_assert_eq!(*answers.entry(i).or_insert(turn.leads), turn.leads);
        }
        let near = |a: usize, b: usize| (given[a].ms - given[b].ms).abs() <= window_ms;
        let leaders: Vec<usize> = answers.iter().filter(|(_, leads)| **leads).map(|(i, _)| *i).collect();
        for i in answers.keys() {
            prop_assert!(leaders.iter().any(|l| near(*l, *i)), "nobody leads {i}");
        }
        for a in &leaders {
            prop_assert!(leaders.iter().all(|b| a == b || !near(*a, *b)), "two leaders");
        }
    }

    /// The last to arrive of two neighbours sees the other, before or after it.
    #[test]
    fn swapped_neighbours_see_each_other_once(
        a in 0..100_i64, b in 0..100_i64, ttl_s in 0..100_u32,
    ) {
        let mut record = None;
        let mut remember = |event: u64, s: i64| {
            let op = Op::Remember { value: event.to_string(), ttl_s };
            match StateRecord::apply(&mut record, &op, T0.plus_seconds(s), event) {
                Answer::Last(last) => last,
                other => panic!("{other:?}"),
            }
        };
        prop_assert_eq!(remember(1, a), LastValues::default());
        let last = remember(2, b);
        let near = (a - b).abs() <= i64::from(ttl_s);
        prop_assert_eq!(last.previous.is_some(), near && a <= b);
        prop_assert_eq!(last.next.is_some(), near && a > b);
    }
}

proptest! {
    // Few cases: each applies hundreds of events to a full window.
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// However often one value repeats, the number of distinct values is right: 600 entries in 256 places.
    #[test]
    fn repeating_values_hide_nothing(
        picks in prop::collection::vec((0..100_i64, prop_oneof![30 => 0..2_u8, 1 => 0..9_u8]), 300..600),
    ) {
        let mut given: Vec<_> = picks.into_iter()
            .map(|(s, v)| Given { ms: s * 1000, what: EntryKind::Value(v.to_string()) }).collect();
        given.sort_by_key(|g| g.ms);
        let order = (0..given.len()).collect();
        let threshold = largest_of_all(&given, 120);
        check_some_event_reaches((given, order, Vec::new()), 120, threshold)?;
    }
}

#[test]
fn a_leader_is_told_how_many_followed_the_one_before() {
    let mut record = None;
    let mut turns = |events: &[(u64, i64)]| -> Vec<(bool, u64)> {
        let turn = |&(event, s): &(u64, i64)| match StateRecord::apply(
            &mut record,
            &Op::Lead { window_s: 60 },
            T0.plus_seconds(s),
            event,
        ) {
            Answer::Turn(turn) => (turn.leads, turn.followed),
            other => panic!("{other:?}"),
        };
        events.iter().map(turn).collect()
    };
    let events = [(1, 0), (2, 30), (3, 60), (4, 61), (5, 90), (6, 500)];
    let first = turns(&events);
    assert_eq!(first, [(true, 0), (false, 0), (false, 0), (true, 2), (false, 0), (true, 1)]);
    assert_eq!(turns(&events), first, "delivered again");
}

#[test]
fn what_came_and_went_pushes_out_nothing_that_stands() {
    let mut record = None;
    let mut event = 0;
    let mut stand = |record: &mut _, begins: &[String], ends: &[String], second: i64| {
        event += 1;
        let op = Op::Stand { begins: begins.to_vec(), ends: ends.to_vec(), ttl_s: 90 * 86_400 };
        match StateRecord::apply(record, &op, T0.plus_seconds(second), event) {
            Answer::Stood(stood) => stood.into_iter().map(|s| s.what).collect::<Vec<_>>(),
            _ => Vec::new(),
        }
    };
    stand(&mut record, &["door".to_owned()], &[], 0);
    for second in 0..1000 {
        let decoy = [format!("decoy-{second}")];
        stand(&mut record, &decoy, &[], 2 * second + 1);
        stand(&mut record, &[], &decoy, 2 * second + 2);
    }
    assert_eq!(stand(&mut record, &[], &[], 10_000), ["door"]);
    assert_eq!(stand(&mut record, &[], &[], 91 * 86_400), [""; 0], "known for ninety days");
    let Some(StateRecord::Standing(standing)) = &record else { panic!("another record") };
    assert!(standing.begun.len() <= MAX_STANDING_ENTRIES && standing.ended.len() <= MAX_STANDING_ENTRIES);
    assert_eq!(stand(&mut record, &["a b".to_owned()], &["a".to_owned()], 100 * 86_400), ["a b"]);
    assert_eq!(stand(&mut record, &[], &["*".to_owned()], 100 * 86_400 + 1), ["a b"]);
    assert_eq!(stand(&mut record, &[], &[], 100 * 86_400 + 2), [""; 0]);
}

#[test]
fn one_event_may_add_several_values() {
    let mut record = None;
    let add = |record: &mut _, value: &str| {
        let op = Op::Distinct { value: value.into(), window_s: 60 };
        match StateRecord::apply(record, &op, T0, 1) {
            Answer::Count(count) => count.now,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([add(&mut record, "a"), add(&mut record, "b"), add(&mut record, "a")], [1, 2, 1]);
}

#[test]
fn records_survive_their_stored_form() {
    let mut record = None;
    for (event, op) in [Op::Count { weight: 3, window_s: 60 }, Op::Reset { window_s: 60 }].into_iter().enumerate() {
        StateRecord::apply(&mut record, &op, T0, event as u64);
    }
    let bytes = postcard::to_stdvec(&record).unwrap();
    assert_eq!(postcard::from_bytes::<Option<StateRecord>>(&bytes).unwrap(), record);
}
