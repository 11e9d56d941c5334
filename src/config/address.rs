//! Addresses as written in the file: where a listener listens, where a backend is, where connections come from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Value as Json, json};

use super::kind::{Kind, Reader};
use super::report::Problem;
use super::units::unusable_path;
use super::yaml::Node;

const LISTEN_FORMS: &str = "10.0.0.1:5432, \"[2001:db8::1]:5432\", \"*:5432\" (every address of the host), \
                            10.0.0.1:6000-6009 or unix:/run/x.sock";
const BACKEND_FORMS: &str =
    "10.0.0.11:5432, \"[2001:db8::11]:5432\", db1.example.net:5432 or unix:/run/x.sock";

/// Where a listener listens: an address with one port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListenOn {
    /// One address of this host, or `0.0.0.0` or `[::]` for all of a family.
    Address(IpAddr, Ports),
    /// Every address of this host, IPv4 and IPv6.
    Any(Ports),
    Unix(PathBuf),
}

/// First and last port; 0 lets the kernel choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl Ports {
    fn parse(text: &str) -> Result<Ports, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Ports {
            first: port(first)?,
            last: port(last)?,
        };
        if ports.first > ports.last {
            return Err(format!("the range of ports {text} ends before it begins"));
        }
        if ports.first == 0 && ports.last != 0 {
            return Err(format!("the range of ports {text} begins with 0"));
        }
        Ok(ports)
    }

    pub(super) fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    fn text(self) -> String {
        if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits => Ok(port),
        _ if digits => Err(format!("{text} is more than the last port, 65535")),
        _ => Err(format!("`{text}` is no port")),
    }
}

impl FromStr for ListenOn {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenOn, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unusable_path(path).map(ListenOn::Unix);
        }
        let (host, ports) = split(text)?;
        let ports = Ports::parse(ports)?;
        if host == "*" {
            return Ok(ListenOn::Any(ports));
        }
        match ip(host) {
            Some(address) => not_mapped(address).map(|address| ListenOn::Address(address, ports)),
            None => Err(format!(
                "`{host}` is no IP address; a listener needs one (names are for backends)"
            )),
        }
    }
}

impl Kind for ListenOn {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        read(node, reader, LISTEN_FORMS, |text| {
            let port = text.strip_prefix("localhost:")?;
            Some(format!("127.0.0.1:{port}"))
        })
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^(unix:/.*[^/]|.+:[0-9]+(-[0-9]+)?)$"})
    }

    fn expected() -> String {
        format!("an address with a port: {LISTEN_FORMS}")
    }

    fn write(&self) -> Json {
        json!(match self {
            ListenOn::Address(address, ports) =>
                format!("{}:{}", bracketed(*address), ports.text()),
            ListenOn::Any(ports) => format!("*:{}", ports.text()),
            ListenOn::Unix(path) => format!("unix:{}", path.display()),
        })
    }
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum BackendAt {
    Address(SocketAddr),
    /// A name that is resolved while it runs, and a port.
    Host(String, u16),
    Unix(PathBuf),
}

impl FromStr for BackendAt {
    type Err = String;

    fn from_str(text: &str) -> Result<BackendAt, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unusable_path(path).map(BackendAt::Unix);
        }
        let (host, digits) = split(text)?;
        let port = port(digits)?;
        if port == 0 {
            return Err("a backend has no port 0".to_owned());
        }
        if let Some(address) = ip(host) {
            if address.is_unspecified() {
                return Err(format!("{host} is no address to connect to"));
            }
            let address = not_mapped(address)?;
            return Ok(BackendAt::Address(SocketAddr::new(address, port)));
        }
        match unusable_host(host) {
            None => Ok(BackendAt::Host(
                host.trim_end_matches('.').to_ascii_lowercase(),
                port,
            )),
            Some(why) => Err(why),
        }
    }
}

impl Kind for BackendAt {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        read(node, reader, BACKEND_FORMS, with_options)
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^(unix:/.*[^/]|.+:[0-9]+)$"})
    }

    fn expected() -> String {
        format!("an address with a port: {BACKEND_FORMS}")
    }

    fn write(&self) -> Json {
        json!(match self {
            BackendAt::Address(address) => address.to_string(),
            BackendAt::Host(host, port) => format!("{host}:{port}"),
            BackendAt::Unix(path) => format!("unix:{}", path.display()),
        })
    }
}

/// Where HTTP is served: one address and one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HttpAddress(pub(super) SocketAddr);

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<HttpAddress, String> {
        let (host, digits) = split(text)?;
        let port = port(digits)?;
        match ip(host) {
            Some(address) => {
                not_mapped(address).map(|address| HttpAddress(SocketAddr::new(address, port)))
            }
            None => Err(format!("`{host}` is no IP address of this host")),
        }
    }
}

const HTTP_FORMS: &str = "127.0.0.1:9901 or \"[::1]:9901\"";

impl Kind for HttpAddress {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        read(node, reader, HTTP_FORMS, |text| {
            let port = text.strip_prefix("localhost:")?;
            Some(format!("127.0.0.1:{port}"))
        })
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^[^*/]+:[0-9]+$"})
    }

    fn expected() -> String {
        format!("an address with a port: {HTTP_FORMS}")
    }

    fn write(&self) -> Json {
        json!(self.0.to_string())
    }
}

/// An address that connections come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Source(pub(super) IpAddr);

impl Kind for Source {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        match ip(text) {
            Some(address) if !address.is_unspecified() => match not_mapped(address) {
                Ok(address) => Some(Source(address)),
                Err(why) => {
                    reader.push(Problem::error(node.place, format!("`{text}`: {why}")));
                    None
                }
            },
            Some(_) => {
                let problem =
                    Problem::error(node.place, format!("`{text}` is no address to come from"));
                reader.push(problem.help("leave `source` out and the kernel chooses one"));
                None
            }
            None => {
                let found = node.found();
                let problem = Problem::error(
                    node.place,
                    format!("expected {}, found {found}", Self::expected()),
                );
                reader.push(if text.parse::<SocketAddr>().is_ok() {
                    problem.help("without a port: the kernel chooses the ports")
                } else {
                    problem.help("an address as `ip address` shows it, without its prefix length")
                });
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^(\\[[0-9A-Fa-f:.]+\\]|[0-9A-Fa-f:.]+)$"})
    }

    fn expected() -> String {
        "an IP address of this host, such as 10.0.0.5".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0.to_string())
    }
}

/// A backend as HAProxy and nginx write it, a name, an address and options in a row, as the map that it is here.
fn with_options(text: &str) -> Option<String> {
    let mut words = text.split_whitespace().peekable();
    words.next_if_eq(&"server");
    let is_address = |word: &str| BackendAt::from_str(word).is_ok();
    let name = words.next_if(|word| !is_address(word) && !word.contains(','));
    let address = words.next().filter(|word| is_address(word))?;
    let options = words.filter_map(|option| match option.split_once('=') {
        Some(("weight", weight)) => Some(format!("weight: {weight}")),
        None if option == "backup" => Some("backup: true".to_owned()),
        Some(_) | None => None,
    });
    let name = name.map(|name| format!("name: {name}"));
    let others: Vec<String> = name.into_iter().chain(options).collect();
    if others.is_empty() {
        return Some(address.to_owned());
    }
    Some(format!("{{address: {address}, {}}}", others.join(", ")))
}

/// `meant` finds what most likely was to be written, in something that is no address.
fn read<T: FromStr<Err = String>>(
    node: &Node,
    reader: &mut Reader,
    forms: &str,
    meant: fn(&str) -> Option<String>,
) -> Option<T> {
    let text = reader.scalar(node, &format!("an address with a port: {forms}"))?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(why) => {
            let mut problem =
                Problem::error(node.place, format!("{} is no address: {why}", node.found()));
            problem.nearest = meant(text);
            reader.push(problem.help(format!("write {forms}")));
            None
        }
    }
}

/// Host and port of `host:port` and `[v6]:port`.
fn split(text: &str) -> Result<(&str, &str), String> {
    if let Some(scheme) = text.find("://") {
        return Err(format!("leave out `{}`", &text[..scheme + 3]));
    }
    if text.starts_with('/') {
        return Err(format!("a unix socket is written unix:{text}"));
    }
    if text.contains(['“', '”', '„', '‘', '’']) {
        return Err("these quotes are letters to YAML; write \" instead".to_owned());
    }
    if text.contains(',') {
        return Err("several addresses are a list, as in [10.0.0.1:80, 10.0.0.2:80]".to_owned());
    }
    if let Some(bracketed) = in_brackets(text) {
        return Err(format!(
            "an IPv6 address is written in brackets with a port, as in \"{bracketed}\""
        ));
    }
    let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => Ok((host, port)),
        None if !is_port => Err("the port is missing".to_owned()),
        Some(_) | None => Err("the address before the port is missing".to_owned()),
    }
}

/// What an IPv6 address without brackets should have been.
fn in_brackets(text: &str) -> Option<String> {
    let is_v6 = |text: &str| Ipv6Addr::from_str(text).is_ok();
    let with_port = text
        .rsplit_once(':')
        .filter(|(host, digits)| is_v6(host) && port(digits).is_ok());
    match with_port {
        Some((host, port)) => Some(format!("[{host}]:{port}")),
        None => is_v6(text).then(|| format!("[{text}]:5432")),
    }
}

/// An IP address, IPv6 with or without brackets.
fn ip(text: &str) -> Option<IpAddr> {
    match text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Sockets tell IPv4 from IPv6: an address has one spelling here.
fn not_mapped(address: IpAddr) -> Result<IpAddr, String> {
    match address.to_canonical() {
        IpAddr::V4(plain) if address.is_ipv6() => Err(format!(
            "write the IPv4 address that it stands for, {plain}"
        )),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(address),
    }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Why something is no host name (RFC 1123 section 2.1, with underscores).
fn unusable_host(host: &str) -> Option<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.starts_with('[') && host.contains('%') {
        return Some("an address with a zone (`%`) is not supported".to_owned());
    }
    if host.contains(':') {
        return Some(format!("`{host}` has a colon too many"));
    }
    if host.len() > 253 || !host.split('.').all(label) {
        Some(format!("`{host}` is neither an IP address nor a host name"))
    } else if host
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        Some(format!(
            "`{host}` is no IP address: it needs four numbers up to 255"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_listen_on_addresses_ranges_and_paths() {
        for text in [
            "10.0.0.1:5432",
            "*:5432",
            "[::1]:80",
            "0.0.0.0:6000-6009",
            "unix:/run/x.sock",
            "127.0.0.1:0",
        ] {
            let place: ListenOn = text.parse().unwrap();
            assert_eq!(place.write(), json!(text));
        }
        for (text, part) in [
            ("10.0.0.1", "port is missing"),
            (":5432", "address before the port"),
            ("localhost:5432", "names are for backends"),
            ("::1:80", "\"[::1]:80\""),
            ("::1", "\"[::1]:5432\""),
            ("5432", "address before the port"),
            ("10.0.0.1:70000", "65535"),
            ("10.0.0.1:+5", "no port"),
            ("10.0.0.1:9-5", "ends before it begins"),
            ("10.0.0.1:0-5", "begins with 0"),
            ("/run/x.sock", "unix:/run/x.sock"),
            ("unix:run/x.sock", "begins with /"),
            ("tcp://10.0.0.1:5", "leave out"),
            ("*:", "no port"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1"),
            ("unix:/run/x/", "end with /"),
        ] {
            let message = text.parse::<ListenOn>().unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn backends_are_addresses_hosts_and_paths() {
        for text in [
            "10.0.0.1:5432",
            "[2001:db8::1]:80",
            "db1.example.net:5432",
            "pg_1:1",
            "unix:/run/x.sock",
        ] {
            let place: BackendAt = text.parse().unwrap();
            assert_eq!(place.write(), json!(text));
        }
        for (text, part) in [
            ("10.0.0.1:0", "no port 0"),
            ("0.0.0.0:80", "no address to connect to"),
            ("10.0.0.256:80", "four numbers"),
            ("10.0.0:80", "four numbers"),
            ("a b:80", "neither"),
            ("-x:80", "neither"),
            ("*:80", "neither"),
            ("x:y", "no port"),
            ("[::ffff:1.2.3.4]:80", "1.2.3.4"),
        ] {
            let message = text.parse::<BackendAt>().unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
