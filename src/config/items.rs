//! A list that may be empty, and an address with a prefix length: kinds that virtual routers need. See
//! [`super::kind`].

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::kind::{Field, Kind, Reader, read_field};
use super::report::Problem;
use super::yaml::{Node, Value};

/// Any number of items, none included; one may be written without a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Items<T>(pub(super) Vec<Field<T>>);

impl<T: Kind> Kind for Items<T> {
    const MAP: bool = T::MAP;

    fn knows(key: &str) -> bool {
        T::knows(key)
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return read_field(node, reader).map(|item| Items(vec![item]));
        };
        let read = (0..).zip(items).filter_map(|(number, item): (usize, _)| {
            reader.within(&format!("[{number}]"), |reader| read_field(item, reader))
        });
        Some(Items(read.collect()))
    }

    fn schema() -> Json {
        json!({"anyOf": [T::schema(), {"type": "array", "items": T::schema()}]})
    }

    fn expected() -> String {
        format!("a list of items, each {}", T::expected())
    }

    fn write(&self) -> Json {
        self.0.iter().map(|item| item.write()).collect()
    }
}

/// An address that moves, with the length of its prefix; that of a single host unless given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct VirtualAddress(pub(super) IpNet);

impl Kind for VirtualAddress {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        let whole = text.parse::<IpAddr>().ok().map(IpNet::from);
        match whole.or_else(|| text.parse().ok()) {
            Some(net) if is_usable(net.addr()) => Some(VirtualAddress(net)),
            Some(net) => {
                let message = format!("`{}` cannot be a virtual address", net.addr());
                reader.push(Problem::error(node.place, message));
                None
            }
            None => {
                reader.expected(node, &Self::expected());
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]+)?$"})
    }

    fn expected() -> String {
        "an address such as 10.0.0.100/32 or 2001:db8::100/128".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0.to_string())
    }
}

fn is_usable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}
