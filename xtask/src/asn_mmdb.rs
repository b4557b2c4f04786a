//! Makes a MaxMind DB file of networks from lines `first address,last address,number,name`, the form in which tables of
//! autonomous systems are published.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde_json::json;
use shared::mmdb::Writer;

use crate::read;

/// Writes `to`.
///
/// # Errors
/// The file or line at fault.
pub fn run(to: &Path, from: &[PathBuf]) -> Result<Vec<String>, String> {
    let mut writer = Writer::new("Pipeline-ASN");
    let mut lines = 0;
    for path in from {
        for (number, line) in (1..).zip(read(path)?.lines()) {
            let (first, last, asn, name) =
                range(line).ok_or_else(|| format!("{}:{number}: not a range of addresses: {line}", path.display()))?;
            let record = json!({ "autonomous_system_number": asn, "autonomous_system_organization": name });
            for network in networks(first, last) {
                writer.insert(network, &record);
            }
            lines += 1;
        }
    }
    std::fs::write(to, writer.finish()).map_err(|e| format!("could not write {}: {e}", to.display()))?;
    Ok(vec![format!("wrote  {} from {lines} ranges", to.display())])
}

fn range(line: &str) -> Option<(IpAddr, IpAddr, u32, String)> {
    let mut parts = line.splitn(4, ',');
    let (first, last) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let asn = parts.next()?.parse().ok()?;
    // The only quoted field is the last.
    let name = parts.next().unwrap_or_default().trim();
    let name = name.strip_prefix('"').and_then(|n| n.strip_suffix('"')).unwrap_or(name).replace("\"\"", "\"");
    Some((first, last, asn, name))
}

fn networks(first: IpAddr, last: IpAddr) -> Vec<IpNet> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use shared::places::Places;

    use super::*;

    #[test]
    fn ranges_become_networks() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("asn.csv"), folder.path().join("asn.mmdb"));
        std::fs::write(
            &from,
            "192.0.2.0,192.0.2.130,64496,\"Example, \"\"Inc.\"\"\"\n2001:db8::,2001:db8::ff,64497,Six\n",
        )
        .unwrap();
        run(&to, &[from]).unwrap();
        let places = Places::from_databases(Vec::new(), vec![std::fs::read(to).unwrap()]).unwrap();
        let last = places.locate("192.0.2.130".parse().unwrap());
        assert_eq!((last.asn, last.network.as_deref()), (Some(64496), Some("Example, \"Inc.\"")));
        assert!(places.locate("192.0.2.131".parse().unwrap()).is_unknown());
        assert_eq!(places.locate("2001:db8::ff".parse().unwrap()).asn, Some(64497));
    }
}
