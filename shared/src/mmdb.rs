//! Writes MaxMind DB files (format 2.0): for tables that are published as address ranges only, and for tests. Reading
//! is the business of the `maxminddb` crate, through [`crate::places`].

use std::collections::HashMap;

use ipnet::IpNet;
use serde_json::{Value, json};

const METADATA_START: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// What separates the tree from the data.
const SEPARATOR: usize = 16;

// The numbers of the types.
const TEXT: u8 = 2;
const DOUBLE: u8 = 3;
const UINT16: u8 = 5;
const UINT32: u8 = 6;
const MAP: u8 = 7;
const UINT64: u8 = 9;
const ARRAY: u8 = 11;
const BOOL: u8 = 14;

/// A branch of the tree.
#[derive(Clone, Copy, PartialEq)]
enum Branch {
    Nothing,
    Node(u32),
    Data(u32),
}

/// A database being written. Everything is in one IPv6 tree, IPv4 networks at `::/96`.
pub struct Writer {
    kind: String,
    nodes: Vec<[Branch; 2]>,
    data: Vec<u8>,
    offsets: HashMap<Vec<u8>, u32>,
}

impl Writer {
    /// An empty database of this type, such as `Example-ASN`.
    pub fn new(kind: &str) -> Self {
        let nodes = vec![[Branch::Nothing; 2]];
        Self { kind: kind.to_owned(), nodes, data: Vec::new(), offsets: HashMap::new() }
    }

    /// Says what is known about a network. Inside a network given before it replaces that for its part; a network
    /// around ones given before replaces them.
    pub fn insert(&mut self, network: IpNet, record: &Value) {
        let leaf = Branch::Data(self.offset(record));
        let (bits, length) = match network.trunc() {
            IpNet::V4(net) => (u128::from(u32::from(net.network())), 96 + net.prefix_len()),
            IpNet::V6(net) => (u128::from(net.network()), net.prefix_len()),
        };
        let side = |depth: u8| usize::from(bits >> (127 - depth) & 1 == 1);
        let Some(last) = length.checked_sub(1) else {
            self.nodes[0] = [leaf; 2];
            return;
        };
        let mut node = 0;
        for depth in 0..last {
            let branch = self.nodes[node][side(depth)];
            node = match branch {
                Branch::Node(next) => next as usize,
                // What was said about the whole stays true for the rest.
                inherited => {
                    let next = self.nodes.len();
                    self.nodes.push([inherited; 2]);
                    self.nodes[node][side(depth)] = Branch::Node(u32::try_from(next).expect("below 2^32 nodes"));
                    next
                }
            };
        }
        self.nodes[node][side(last)] = leaf;
    }

    /// Equal records are written once.
    fn offset(&mut self, record: &Value) -> u32 {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        *self.offsets.entry(bytes).or_insert_with_key(|bytes| {
            let offset = u32::try_from(self.data.len()).expect("below 4 GiB of data");
            self.data.extend_from_slice(bytes);
            offset
        })
    }

    /// The file.
    pub fn finish(self) -> Vec<u8> {
        let count = u32::try_from(self.nodes.len()).expect("below 2^32 nodes");
        let mut file = Vec::with_capacity(self.nodes.len() * 8 + self.data.len() + 512);
        for branch in self.nodes.iter().flatten() {
            let value = match *branch {
                Branch::Nothing => count,
                Branch::Node(node) => node,
                Branch::Data(offset) => count + u32::try_from(SEPARATOR).expect("16 fits") + offset,
            };
            file.extend_from_slice(&value.to_be_bytes());
        }
        file.extend_from_slice(&[0; SEPARATOR]);
        file.extend_from_slice(&self.data);
        file.extend_from_slice(METADATA_START);
        // Readers insist on the width of each number here.
        control(MAP, 9, &mut file);
        for (name, kind, number) in [
            ("binary_format_major_version", UINT16, 2),
            ("binary_format_minor_version", UINT16, 0),
            ("build_epoch", UINT64, 0),
            ("ip_version", UINT16, 6),
            ("node_count", UINT32, u64::from(count)),
            ("record_size", UINT16, 32),
        ] {
            encode(&name.into(), &mut file);
            unsigned(kind, number, &mut file);
        }
        for (name, value) in [
            ("database_type", self.kind.into()),
            ("description", json!({ "en": "written by the pipeline" })),
            ("languages", json!([])),
        ] {
            encode(&name.into(), &mut file);
            encode(&value, &mut file);
        }
        file
    }
}

/// One value in the format's data section. Whole numbers become unsigned ones; `null` becomes an empty map.
fn encode(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            control(TEXT, text.len(), into);
            into.extend_from_slice(text.as_bytes());
        }
        Value::Bool(yes) => control(BOOL, usize::from(*yes), into),
        Value::Number(number) => match number.as_u64() {
            Some(whole) => {
                let kind = match whole {
                    0..=0xffff => UINT16,
                    0x1_0000..=0xffff_ffff => UINT32,
                    _ => UINT64,
                };
                unsigned(kind, whole, into);
            }
            None => {
                control(DOUBLE, 8, into);
                into.extend_from_slice(&number.as_f64().unwrap_or(f64::NAN).to_be_bytes());
            }
        },
        Value::Array(items) => {
            control(ARRAY, items.len(), into);
            items.iter().for_each(|item| encode(item, into));
        }
        Value::Object(members) => {
            control(MAP, members.len(), into);
            for (name, member) in members {
                encode(&Value::String(name.clone()), into);
                encode(member, into);
            }
        }
        Value::Null => control(MAP, 0, into),
    }
}

fn unsigned(kind: u8, number: u64, into: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    control(kind, bytes.len() - zeros, into);
    into.extend_from_slice(&bytes[zeros..]);
}

/// Type and size.
fn control(kind: u8, size: usize, into: &mut Vec<u8>) {
    let (short, rest) = match size {
        0..=28 => (size, None),
        29..=284 => (29, Some((size - 29, 1))),
        285..=65_820 => (30, Some((size - 285, 2))),
        _ => (31, Some((size - 65_821, 3))),
    };
    let short = u8::try_from(short).expect("at most 31");
    if kind <= MAP {
        into.push(kind << 5 | short);
    } else {
        into.extend_from_slice(&[short, kind - MAP]);
    }
    if let Some((rest, bytes)) = rest {
        into.extend_from_slice(&u32::try_from(rest).expect("values below 16 MiB").to_be_bytes()[4 - bytes..]);
    }
}

#[cfg(test)]
mod tests {
    use maxminddb::Reader;

    use super::*;

    fn found(file: &[u8], address: &str) -> Option<Value> {
        Reader::from_source(file).unwrap().lookup(address.parse().unwrap()).unwrap().decode().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "x".repeat(70_000);
        let record = json!({"a": 1, "b": 70_000, "c": 5_000_000_000_u64, "d": -1.5, "e": [true, "z"], "f": long});
        let mut writer = Writer::new("Test");
        writer.insert("192.0.2.0/24".parse().unwrap(), &record);
        writer.insert("192.0.2.64/26".parse().unwrap(), &json!("inner"));
        writer.insert("2001:db8::/32".parse().unwrap(), &json!("six"));
        let file = writer.finish();
        Reader::from_source(&file).unwrap().verify().unwrap();
        assert_eq!(found(&file, "192.0.2.1"), Some(record.clone()));
        assert_eq!(found(&file, "192.0.2.65"), Some(json!("inner")));
        assert_eq!(found(&file, "192.0.2.255"), Some(record));
        assert_eq!(found(&file, "2001:db8::1"), Some(json!("six")));
        assert_eq!(found(&file, "192.0.3.1"), None);
    }
}
