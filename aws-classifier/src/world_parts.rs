//! Parts of the world that separate calls open, in a form that state can count.
//!
//! A *network* is a `/8`. Rules hold one when together they hold every address in it that anyone can have. Of the networks
//! with such addresses there are 221 in IPv4 and 32 in IPv6, whatever is opened: ranges inside of one another, other ports and
//! the same again add none. Until they are the world they are 110 at most, and of a value that comes again and again a window
//! of state keeps two entries, so that the 256 of a group, port and family push nothing of a day out before it is told.
//!
//! Counting networks is exact: half of the addresses, the measure of [`crate::ingress`], are 111 networks (16 of IPv6) and
//! never fewer, because what is special inside of networks is a third of one network in all.
//!
//! Ranges narrower than a network count only with others of the same call. Pure.

use crate::ingress::{Rule, public_pieces, span};

/// So many networks of a family are half of the world: of 221 in IPv4 and of 32 in IPv6.
const NETWORKS_MIN: [u64; 2] = [111, 16];

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// As state keys write it.
    pub const fn number(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    /// Whether so many distinct networks are the world.
    pub const fn is_world(self, networks: u64) -> bool {
        networks >= NETWORKS_MIN[self as usize]
    }

    const fn network_bits(self) -> u32 {
        match self {
            Self::V4 => 24,
            Self::V6 => 120,
        }
    }
}

/// The networks of the family that the rules hold on the TCP port, ascending, each as its first eight bits.
pub fn networks<'r>(rules: impl IntoIterator<Item = &'r Rule>, port: u16, family: Family) -> Vec<u8> {
    let admitting = rules.into_iter().filter(|rule| rule.admits(port));
    let spans: Vec<(u128, u128)> = admitting.filter_map(|rule| span_in(rule, family)).collect();
    let wide = spans.iter().fold(0_u128, |sum, (from, to)| sum.saturating_add(to - from));
    // Of no network less than three quarters is anybody's. Nearly all rules end here.
    if wide < 3 << (family.network_bits() - 2) {
        return Vec::new();
    }
    let spans = joined(spans);
    let holds = |(from, to): (u128, u128)| {
        let after = spans.partition_point(|(start, _)| *start <= from);
        after.checked_sub(1).is_some_and(|at| to <= spans[at].1)
    };
    let held = |network: &u8| {
        let first = u128::from(*network) << family.network_bits();
        let last = first + ((1 << family.network_bits()) - 1);
        let mut pieces = public_pieces(family == Family::V6, first, last).peekable();
        pieces.peek().is_some() && pieces.all(holds)
    };
    (0..=u8::MAX).filter(held).collect()
}

/// The rules that hold these networks: all that are a network wide or more, and of the narrower ones those without which
/// one would not be held.
pub fn holders(rules: &[Rule], port: u16, family: Family) -> Vec<&Rule> {
    let admitting = rules.iter().filter(|rule| rule.admits(port) && span_in(rule, family).is_some());
    let (mut holders, mut narrow): (Vec<&Rule>, Vec<&Rule>) = admitting.partition(|rule| is_part(rule));
    let all = networks(rules, port, family);
    if networks(holders.iter().copied(), port, family) == all {
        return holders;
    }
    let mut at = 0;
    while at < narrow.len() {
        let others = narrow.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, rule)| *rule);
        if networks(holders.iter().copied().chain(others), port, family) == all {
            narrow.remove(at);
        } else {
            at += 1;
        }
    }
    holders.extend(narrow);
    holders
}

/// Whether the rule alone holds a network.
pub fn is_part(rule: &Rule) -> bool {
    Family::ALL.into_iter().any(|family| {
        let wide = |(from, to): (u128, u128)| {
            to - from >= (1 << family.network_bits()) - 1
                && public_pieces(family == Family::V6, from, to).next().is_some()
        };
        span_in(rule, family).is_some_and(wide)
    })
}

fn span_in(rule: &Rule, family: Family) -> Option<(u128, u128)> {
    let (is_v6, from, to) = span(&rule.cidr)?;
    (is_v6 == (family == Family::V6)).then_some((from, to))
}

/// Ranges in ascending order, with those that touch as one.
fn joined(mut spans: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    spans.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        match joined.last_mut() {
            Some((_, last)) if from <= last.saturating_add(1) => *last = to.max(*last),
            _ => joined.push((from, to)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::{Protocol, world_rules_on};
    use proptest::prelude::*;

    fn tcp(cidr: &str) -> Rule {
        Rule {
            protocol: Protocol::Tcp,
            protocol_text: "tcp".to_owned(),
            from_port: 22,
            to_port: 22,
            cidr: cidr.to_owned(),
            description: String::new(),
            rule_id: String::new(),
        }
    }

    fn v4(cidrs: &[&str]) -> Vec<u8> {
        networks(&cidrs.iter().map(|cidr| tcp(cidr)).collect::<Vec<_>>(), 22, Family::V4)
    }

    #[test]
    fn a_network_is_held_when_all_of_it_that_anyone_can_have_is() {
        assert_eq!(v4(&["17.0.0.0/8"]), [17]);
        assert_eq!(v4(&["17.0.0.0/9"]), [0; 0]);
        assert_eq!(v4(&["17.128.0.0/9", "17.0.0.0/9", "18.0.0.0/9"]), [17]);
        assert_eq!(
            v4(&["172.0.0.0/12", "172.32.0.0/11", "172.64.0.0/10", "172.128.0.0/9"]),
            [172],
            "172.16.0.0/12 is nobody's"
        );
        assert_eq!(v4(&["10.0.0.0/7"]), [11]);
        assert_eq!(v4(&["10.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "0.0.0.0/8"]), [0; 0]);
        assert_eq!(v4(&["::/0", "nonsense/8", "1.0.0.0/33"]), [0; 0]);
        assert_eq!(networks(&[tcp("17.0.0.0/8")], 23, Family::V4), [0; 0]);
    }

    #[test]
    fn what_holds_networks_is_named_and_an_office_beside_it_is_not() {
        let rules =
            ["17.0.0.0/8", "17.1.0.0/16", "18.0.0.0/9", "203.0.113.7/32", "18.128.0.0/9", "19.0.0.0/9", "10.0.0.0/8"];
        let rules = rules.map(tcp);
        let named: Vec<&str> = holders(&rules, 22, Family::V4).iter().map(|rule| &*rule.cidr).collect();
        assert_eq!(named, ["17.0.0.0/8", "18.0.0.0/9", "18.128.0.0/9"]);
        assert!(holders(&rules, 22, Family::V6).is_empty());
    }

    #[test]
    fn the_world_fits_into_one_record_of_state() {
        let all = |family, cidr: &str| networks(&[tcp(cidr)], 22, family).len();
        assert_eq!([all(Family::V4, "0.0.0.0/0"), all(Family::V6, "::/0")], [221, 32]);
        assert!(all(Family::V4, "0.0.0.0/0") <= shared::observation::MAX_DISTINCT_ENTRIES);
        assert!(Family::V4.is_world(111) && !Family::V4.is_world(110));
        assert!(Family::V6.is_world(16) && !Family::V6.is_world(15));
    }

    proptest! {
        #[test]
        fn whole_networks_are_the_world_when_there_are_enough(mut firsts in Just((1..=223_u8).collect::<Vec<_>>()).prop_shuffle(), many in 100..125_usize) {
            firsts.truncate(many);
            let rules: Vec<Rule> = firsts.iter().map(|first| tcp(&format!("{first}.0.0.0/8"))).collect();
            let held = networks(&rules, 22, Family::V4).len() as u64;
            prop_assert_eq!(Family::V4.is_world(held), !world_rules_on(&rules, 22).is_empty());
        }

        #[test]
        fn whole_networks_of_the_other_family_too(mut firsts in Just((0x1e..=0x42_u8).collect::<Vec<_>>()).prop_shuffle(), many in 0..37_usize) {
            firsts.truncate(many);
            let rules: Vec<Rule> = firsts.iter().map(|first| tcp(&format!("{first:x}00::/8"))).collect();
            let held = networks(&rules, 22, Family::V6).len() as u64;
            prop_assert_eq!(Family::V6.is_world(held), !world_rules_on(&rules, 22).is_empty());
        }

        #[test]
        fn networks_are_held_as_address_by_address(nets in proptest::collection::vec((1_u32..=12, any::<u32>()), 0..12)) {
            let nets: Vec<(u32, u32)> = nets.into_iter().map(|(len, bits)| (len, bits & u32::MAX << (32 - len))).collect();
            let rules: Vec<Rule> =
                nets.iter().map(|(len, bits)| tcp(&format!("{}/{len}", std::net::Ipv4Addr::from_bits(*bits)))).collect();
            // Every range above and every special range is made of whole /16.
            let is_public = |block: u32| {
                let (a, b) = (block >> 8, block & 0xff);
                (1..224).contains(&a) && a != 10 && a != 127 && !(a == 100 && b & 0xc0 == 64) && (a, b) != (169, 254)
                    && !(a == 172 && b & 0xf0 == 16) && (a, b) != (192, 168)
            };
            let holds = |block: u32| nets.iter().any(|(len, bits)| (block << 16) & u32::MAX << (32 - len) == *bits);
            let all = |network: &u8| {
                let blocks: Vec<u32> = (0..256).map(|b| u32::from(*network) << 8 | b).filter(|b| is_public(*b)).collect();
                !blocks.is_empty() && blocks.into_iter().all(holds)
            };
            let expected: Vec<u8> = (0..=u8::MAX).filter(all).collect();
            prop_assert_eq!(networks(&rules, 22, Family::V4), expected);
        }
    }
}
