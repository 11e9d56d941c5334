//! Durations (`250ms`, `5s`, `1h`), sizes (`64KiB`), ports, names, paths and texts with escapes, as written
//! in the file.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::kind::{Kind, Reader};
use super::report::Problem;
use super::yaml::{Node, shortened};

/// Longer than anybody means, and short enough for every clock.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
/// Longest path of a unix socket: `sun_path` without its end.
const UNIX_PATH_MAX: usize = 107;
/// Longest name of a listener, pool or backend.
const NAME_MAX: usize = 128;
/// Longest text to send or to expect.
const TEXT_MAX: usize = 4096;

/// A length of time above zero, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Period(pub(super) Duration);

const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

impl Kind for Period {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        let (number, unit) = split(text);
        let micros = UNITS.iter().find(|(name, _)| *name == unit);
        let found = node.found();
        let problem = match (decimal(number), micros) {
            (Some(0.0), _) => {
                Problem::error(node.place, format!("{found}: a duration is above zero"))
            }
            (Some(number), Some((_, micros))) => match duration(number, *micros) {
                Some(duration) => return Some(Period(duration)),
                None => Problem::error(node.place, format!("{found} is not between 1us and 3650d")),
            },
            (Some(_), None) if unit.is_empty() => {
                Problem::error(node.place, format!("{found} is a duration without a unit")).help(
                    format!("write {text}s for seconds, {text}ms for milliseconds"),
                )
            }
            (Some(_), None) | (None, _) => Problem::error(
                node.place,
                format!("expected {}, found {found}", Self::expected()),
            )
            .help(match spelt_out(text) {
                Some(short) => format!("write {short}"),
                None => "one number with one of the units us, ms, s, m, h, d".to_owned(),
            }),
        };
        reader.push(problem);
        None
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^(?=.*[1-9])[0-9]+(\\.[0-9]+)? ?(us|ms|s|m|h|d)$"})
    }

    fn expected() -> String {
        "a duration such as 250ms, 5s or 1h".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.text())
    }
}

impl Period {
    /// As it is written, in the largest unit that fits.
    pub(super) fn text(self) -> String {
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        let exact = UNITS.iter().find(|(_, unit)| micros.is_multiple_of(*unit));
        let (unit, each) = exact.expect("microseconds divide everything");
        format!("{}{unit}", micros / each)
    }
}

/// A duration whose unit is written as other software does.
fn spelt_out(text: &str) -> Option<String> {
    let (number, unit) = split(text);
    let unit = match unit.to_lowercase().trim_end_matches('s') {
        "usec" | "µ" => "us",
        "msec" | "milli" | "millisec" | "millisecond" => "ms",
        "sec" | "second" => "s",
        "min" | "minute" => "m",
        "hr" | "hour" => "h",
        "day" => "d",
        _ => return None,
    };
    decimal(number).map(|_| format!("{number}{unit}"))
}

/// A number as in `5` and `1.5`.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, "0"));
    let is_decimal = is_digits(whole) && is_digits(fraction);
    text.parse().ok().filter(|_| is_decimal)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn duration(number: f64, micros: u64) -> Option<Duration> {
    let unit = Duration::from_micros(micros).as_secs_f64();
    let duration = Duration::try_from_secs_f64(number * unit).ok()?;
    // Written with a fraction, it is meant to the microsecond.
    let duration = Duration::from_micros(
        u64::try_from((duration + Duration::from_nanos(500)).as_micros()).ok()?,
    );
    (!duration.is_zero() && duration <= LONGEST).then_some(duration)
}

/// What the kernel counts in, in microseconds.
pub(super) const MILLISECOND: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000_000;

/// A length of time in whole steps, from so many of them to so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Steps<const STEP: u64, const LEAST: u64, const MOST: u64>(pub(super) Duration);

impl<const STEP: u64, const LEAST: u64, const MOST: u64> Kind for Steps<STEP, LEAST, MOST> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Period(duration) = Period::read(node, reader)?;
        let step = Duration::from_micros(STEP).as_nanos();
        let steps = duration.as_nanos() / step;
        if duration.as_nanos().is_multiple_of(step)
            && (u128::from(LEAST)..=u128::from(MOST)).contains(&steps)
        {
            return Some(Steps(duration));
        }
        let shown = |steps| Period(Duration::from_micros(STEP * steps)).text();
        let message = format!(
            "{} is not between {} and {} in steps of {}, as the kernel counts",
            node.found(),
            shown(LEAST),
            shown(MOST),
            shown(1)
        );
        reader.push(Problem::error(node.place, message));
        None
    }

    fn schema() -> Json {
        Period::schema()
    }

    fn expected() -> String {
        Period::expected()
    }

    fn write(&self) -> Json {
        Period(self.0).write()
    }
}

/// A number of bytes above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size(pub(super) u64);

const SIZES: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl Kind for Size {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        let (number, unit) = split(text);
        let shift = SIZES.iter().find(|(name, _)| *name == unit);
        let found = node.found();
        let problem = match (
            number.parse::<u64>().ok().filter(|_| is_digits(number)),
            shift,
        ) {
            (Some(number), Some((_, shift))) => match number.checked_mul(1 << shift) {
                Some(bytes) if bytes > 0 => return Some(Size(bytes)),
                _ => Problem::error(node.place, format!("{found} is out of range")),
            },
            (Some(_), None) if unit.is_empty() => {
                Problem::error(node.place, format!("{found} is a size without a unit"))
                    .help(format!("write {text}MiB, {text}KiB or {text}B"))
            }
            (Some(number), None) => {
                let problem = Problem::error(node.place, format!("`{unit}` is no unit of a size"));
                match unit.to_lowercase().chars().next() {
                    Some(first @ ('k' | 'm' | 'g')) => problem.help(format!(
                        "write {number}{}iB: sizes count in 1,024s",
                        first.to_uppercase()
                    )),
                    _ => problem.help("units: B, KiB, MiB, GiB"),
                }
            }
            (None, _) => Problem::error(
                node.place,
                format!("expected {}, found {found}", Self::expected()),
            )
            .help("units: B, KiB, MiB, GiB"),
        };
        reader.push(problem);
        None
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^(?=.*[1-9])[0-9]+ ?(B|KiB|MiB|GiB)$"})
    }

    fn expected() -> String {
        "a size such as 64KiB or 256MiB".to_owned()
    }

    fn write(&self) -> Json {
        let exact = SIZES
            .iter()
            .find(|(_, shift)| self.0.is_multiple_of(1 << shift));
        let (unit, shift) = exact.expect("bytes divide everything");
        json!(format!("{}{unit}", self.0 >> shift))
    }
}

/// A number and its unit, with a space between them or not.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|letter: char| letter.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.strip_suffix(' ').unwrap_or(number), unit)
}

/// What a listener or a backend is called: shown everywhere, typed on command lines.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Name(pub(super) String);

impl Kind for Name {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        match unusable_name(text) {
            None => Some(Name(text.to_owned())),
            Some(why) => {
                let found = node.found();
                reader.push(Problem::error(
                    node.place,
                    format!("{found} is no name: {why}"),
                ));
                None
            }
        }
    }

    fn schema() -> Json {
        let mut schema = name_schema("");
        schema["type"] = json!(["string", "number", "boolean"]);
        schema
    }

    fn expected() -> String {
        "a name".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0)
    }
}

/// The schema of a name that has none of these letters either.
pub(super) fn name_schema(without: &str) -> Json {
    let pattern = format!("^[^\\s\\u0000-\\u001f\\u007f-\\u009f{without}]+$");
    json!({"type": "string", "pattern": pattern, "maxLength": NAME_MAX})
}

/// Why something cannot be a name.
#[must_use]
pub fn unusable_name(text: &str) -> Option<String> {
    if text.is_empty() {
        Some("a name has at least one letter".to_owned())
    } else if text.chars().count() > NAME_MAX {
        Some(format!("it has more than {NAME_MAX} letters"))
    } else if text
        .chars()
        .any(|letter| letter.is_whitespace() || letter.is_control())
    {
        Some("it contains white space or control characters".to_owned())
    } else {
        None
    }
}

/// The path of a unix socket.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SocketPath(pub(super) PathBuf);

impl Kind for SocketPath {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        match unusable_path(text.strip_prefix("unix:").unwrap_or(text)) {
            Ok(path) => Some(SocketPath(path)),
            Err(why) => {
                let found = node.found();
                reader.push(Problem::error(node.place, format!("{found}: {why}")));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^(unix:)?/(.*[^/])$"})
    }

    fn expected() -> String {
        "the path of a unix socket".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0.to_string_lossy())
    }
}

/// The path of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FilePath(pub(super) PathBuf);

impl Kind for FilePath {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        let is_path = is_file_path(text);
        if !is_path {
            reader.expected(node, &Self::expected());
        }
        is_path.then(|| FilePath(PathBuf::from(text)))
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^/(.*[^/])$"})
    }

    fn expected() -> String {
        "the whole path of a file, which begins with /".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0.to_string_lossy())
    }
}

fn is_file_path(text: &str) -> bool {
    text.starts_with('/') && !text.ends_with('/') && !text.contains('\0')
}

/// Where lines about sessions go.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AccessTo {
    Stdout,
    File(FilePath),
}

impl Kind for AccessTo {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        match text {
            "stdout" => Some(AccessTo::Stdout),
            path if is_file_path(path) => Some(AccessTo::File(FilePath(PathBuf::from(path)))),
            _ => {
                reader.expected(node, &Self::expected());
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"anyOf": [{"enum": ["stdout"]}, FilePath::schema()]})
    }

    fn expected() -> String {
        format!("stdout or {}", FilePath::expected())
    }

    fn write(&self) -> Json {
        match self {
            AccessTo::Stdout => json!("stdout"),
            AccessTo::File(path) => path.write(),
        }
    }
}

/// The path of a unix socket, or why it is none.
pub(super) fn unusable_path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') {
        Err("the path of a unix socket begins with /".to_owned())
    } else if path.len() > UNIX_PATH_MAX {
        Err(format!(
            "the path of a unix socket has at most {UNIX_PATH_MAX} bytes, this one has {}",
            path.len()
        ))
    } else if path.ends_with('/') {
        Err("the path of a unix socket does not end with /".to_owned())
    } else if path.contains('\0') {
        Err("the path of a unix socket has no zero byte in it".to_owned())
    } else {
        Ok(PathBuf::from(path))
    }
}

/// Bytes written as text with `\r`, `\n`, `\t`, `\\`, `\0` and `\xNN`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bytes {
    pub(super) bytes: Vec<u8>,
    written: String,
}

impl Kind for Bytes {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        match unescaped(text) {
            Ok(bytes) => Some(Bytes {
                bytes,
                written: text.to_owned(),
            }),
            Err(why) => {
                reader.push(
                    Problem::error(node.place, why)
                        .help("escapes: \\r \\n \\t \\0 \\\\ \\x00 to \\xff"),
                );
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": ["string", "number", "boolean"], "minLength": 1, "maxLength": TEXT_MAX})
    }

    fn expected() -> String {
        "a text, with escapes such as \\r\\n and \\x00".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.written)
    }
}

fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() || text.len() > TEXT_MAX {
        return Err(format!(
            "a text has 1 to {TEXT_MAX} bytes, this one has {}",
            text.len()
        ));
    }
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let (byte, length) = match rest.as_bytes().first() {
            Some(b'r') => (b'\r', 1),
            Some(b'n') => (b'\n', 1),
            Some(b't') => (b'\t', 1),
            Some(b'0') => (0, 1),
            Some(b'\\') => (b'\\', 1),
            Some(b'x') => {
                let digits = rest.get(1..3).unwrap_or("");
                let byte = u8::from_str_radix(digits, 16);
                (
                    byte.map_err(|_| {
                        format!("`\\x{digits}` is no escape: two hexadecimal digits follow \\x")
                    })?,
                    3,
                )
            }
            _ => {
                let next: String = rest.chars().take(1).collect();
                return Err(format!("`\\{next}` is no escape"));
            }
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// What an answer has to contain: a text, or `/an expression/`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern(pub(super) String);

impl Pattern {
    /// The expression over bytes that it stands for.
    pub(super) fn expression(written: &str) -> Result<regex::bytes::Regex, String> {
        let source = match written
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'))
        {
            Some(source) if written.len() > 1 => source.to_owned(),
            _ => literal(&unescaped(written)?),
        };
        regex::bytes::RegexBuilder::new(&source)
            .size_limit(1 << 20)
            .build()
            .map_err(|error| {
                // The library's message is a drawing, and what is wrong is its last line.
                let message = error.to_string();
                let why = message.lines().last().unwrap_or_default();
                format!(
                    "`{}` is no expression: {}",
                    shortened(written),
                    why.trim_start_matches("error: ")
                )
            })
    }
}

fn literal(bytes: &[u8]) -> String {
    let escaped = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
    format!("(?-u){}", escaped.collect::<String>())
}

impl Kind for Pattern {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        match Pattern::expression(text) {
            Ok(_) => Some(Pattern(text.to_owned())),
            Err(why) => {
                reader.push(Problem::error(node.place, why));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": ["string", "number", "boolean"], "minLength": 1, "maxLength": TEXT_MAX})
    }

    fn expected() -> String {
        "a text that is to occur, or /an expression/".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0)
    }
}

/// A name that can be asked for in the DNS.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DnsName(pub(super) String);

impl Kind for DnsName {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        if crate::health::dns::is_name(text) {
            return Some(DnsName(text.to_owned()));
        }
        reader.expected(node, &Self::expected());
        None
    }

    fn schema() -> Json {
        json!({"type": "string", "minLength": 1, "maxLength": 254})
    }

    fn expected() -> String {
        "a domain name, or `.` for the root".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0)
    }
}

/// Path and query of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HttpPath(pub(super) String);

impl HttpPath {
    fn unusable(path: &str) -> Option<&'static str> {
        if !path.starts_with('/') {
            Some("the path begins with /")
        } else if path.contains('#') {
            Some("what follows # is never sent")
        } else if path.parse::<hyper::Uri>().is_err() {
            Some("the path has a letter that does not belong there; write %20 for a space")
        } else {
            None
        }
    }
}

impl Kind for HttpPath {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        match HttpPath::unusable(text) {
            None => Some(HttpPath(text.to_owned())),
            Some(why) => {
                reader.push(Problem::error(node.place, why));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^/[^\\s#]*$"})
    }

    fn expected() -> String {
        "a path such as /health".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0)
    }
}

/// What a Host header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HttpHost(pub(super) String);

impl Kind for HttpHost {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            reader.expected(node, &Self::expected());
            return None;
        }
        Some(HttpHost(text.to_owned()))
    }

    fn schema() -> Json {
        json!({"type": ["string", "number", "boolean"], "pattern": "^[!-~]+$"})
    }

    fn expected() -> String {
        "a host such as db.example.net, in ASCII and without white space".to_owned()
    }

    fn write(&self) -> Json {
        json!(self.0)
    }
}

/// HTTP statuses: `200`, `200-399`, several with commas between.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statuses(pub(super) Vec<(u16, u16)>);

impl Kind for Statuses {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, &Self::expected())?;
        let one = |part: &str| {
            let part = part.trim_matches(' ');
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let status = |text: &str| {
                let status = text
                    .parse()
                    .ok()
                    .filter(|_| is_digits(text) && text.len() == 3);
                status.filter(|status| (100..=599).contains(status))
            };
            let (first, last) = (status(first)?, status(last)?);
            (first <= last).then_some((first, last))
        };
        let ranges: Option<Vec<(u16, u16)>> = text.split(',').map(one).collect();
        if ranges.is_none() {
            reader.expected(node, &Self::expected());
        }
        ranges.map(Statuses)
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "integer", "minimum": 100, "maximum": 599},
            {"type": "string", "pattern": "^ *[1-5][0-9]{2}(-[1-5][0-9]{2})? *(, *[1-5][0-9]{2}(-[1-5][0-9]{2})? *)*$"},
        ]})
    }

    fn expected() -> String {
        "HTTP statuses such as 200, 200-399 or 200,204".to_owned()
    }

    fn write(&self) -> Json {
        let range = |(first, last): &(u16, u16)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        };
        json!(self.0.iter().map(range).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Problems;
    use super::super::section::default_of;
    use super::super::yaml;
    use super::*;

    fn read<T: Kind>(text: &str) -> Result<T, String> {
        let mut problems = Problems::default();
        let node = yaml::parse(text, &mut problems).unwrap();
        let value = T::read(&node, &mut Reader::new("", &mut problems));
        value.ok_or_else(|| problems.messages().join("\n"))
    }

    #[test]
    fn durations_carry_a_unit_and_are_written_as_they_are_read() {
        for (text, micros, written) in [
            ("250ms", 250_000, "250ms"),
            ("5s", 5_000_000, "5s"),
            ("1.5s", 1_500_000, "1500ms"),
            ("60s", 60_000_000, "1m"),
            ("1h", 3_600_000_000, "1h"),
            ("0.1s", 100_000, "100ms"),
        ] {
            let period: Period = default_of(text);
            assert_eq!(period.0, Duration::from_micros(micros), "{text}");
            assert_eq!(period.write(), json!(written), "{text}");
        }
        for (text, part) in [
            ("5", "without a unit"),
            ("s", "expected a duration"),
            ("-1s", "not between"),
            ("0s", "above zero"),
            ("5 parsecs", "expected a duration"),
            ("NaNs", "expected a duration"),
            ("99999999d", "not between"),
            ("[5s]", "found a list"),
        ] {
            let message = read::<Period>(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn sizes_carry_a_unit() {
        for (text, bytes, written) in [
            ("64KiB", 65_536, "64KiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("7B", 7, "7B"),
        ] {
            let size: Size = default_of(text);
            assert_eq!((size.0, size.write()), (bytes, json!(written)));
        }
        for (text, part) in [
            ("64", "without a unit"),
            ("64KB", "no unit"),
            ("1.5MiB", "expected a size"),
            ("-1KiB", "expected a size"),
            ("99999999999999GiB", "out of range"),
        ] {
            let message = read::<Size>(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(
            unescaped(r"PING\r\n\x00\xfF\\").unwrap(),
            b"PING\r\n\x00\xff\\"
        );
        for text in ["", r"\q", r"\x0", r"\xzz", r"end\", r"\xé9"] {
            assert!(unescaped(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_are_texts_or_expressions() {
        for (pattern, text, matches) in [
            ("+PONG", &b"+PONG\r\n"[..], true),
            ("a.c", b"abc", false),
            ("/a.c/", b"abc", true),
            (r"\xff\x00", b"..\xff\x00..", true),
            ("/", b"a/b", true),
        ] {
            assert_eq!(
                Pattern::expression(pattern).unwrap().is_match(text),
                matches,
                "{pattern}"
            );
        }
        assert!(
            Pattern::expression("/(/")
                .unwrap_err()
                .contains("no expression")
        );
    }
}
