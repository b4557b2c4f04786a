//! Where a caller is, as far as addresses are worth telling apart. Several plug-ins ask; none may ask another.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::Ipv6Net;

/// The address as a key, in one spelling: IPv6 by its /64, the least that anybody is given, as hosts change the lower half
/// by themselves (RFC 8981) and an attacker has 2^64 of them; text that is no address stays what it is.
pub fn of(address: &str) -> Cow<'_, str> {
    // Only IPv6 has several spellings.
    if !address.contains(':') {
        return Cow::Borrowed(address);
    }
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(ip)) => Cow::Owned(Ipv6Net::new_assert(ip, 64).trunc().to_string()),
        Ok(IpAddr::V4(ip)) => Cow::Owned(ip.to_string()),
        Err(_) => Cow::Borrowed(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_its_64_and_everything_else_itself() {
        for (address, network) in [
            ("2001:db8:0:1:a::1", "2001:db8:0:1::/64"),
            ("2001:DB8:0:1::2", "2001:db8:0:1::/64"),
            ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.7"),
            ("ec2.amazonaws.com", "ec2.amazonaws.com"),
            ("::x", "::x"),
            ("", ""),
        ] {
            assert_eq!(of(address), network, "{address}");
        }
    }
}
