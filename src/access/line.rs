//! A record as a line of text or JSON. Whatever is in a name, a line stays one line.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Kind, Path, Record};

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `key=value`, with a space between them.
    Text,
    /// An object.
    Json,
}

/// Adds a record's line, with its end, to a text.
pub(super) fn add(record: &Record, style: Style, text: &mut String) {
    let time = humantime::format_rfc3339_micros(record.ended);
    let (word, fields) = fields(record);
    match style {
        Style::Json => {
            let mut all = Map::new();
            all.insert("timestamp".to_owned(), json!(time.to_string()));
            all.insert("event".to_owned(), json!(word));
            let fields = fields.into_iter();
            all.extend(fields.map(|(key, value)| (key.to_owned(), value)));
            // JSON escapes what would end a line.
            let _ = writeln!(text, "{}", Value::Object(all));
        }
        Style::Text => {
            let _ = write!(text, "{time} {word}");
            for (key, value) in fields {
                let _ = match value.as_str() {
                    Some(value) => write!(text, " {key}={}", quoted(value)),
                    None if value.is_null() => write!(text, " {key}=-"),
                    None => write!(text, " {key}={value}"),
                };
            }
            text.push('\n');
        }
    }
}

fn fields(record: &Record) -> (&'static str, Vec<(&'static str, Value)>) {
    let client = record.client.map(canonical);
    let mut fields = vec![
        ("listener", json!(&*record.listener)),
        ("client", json!(client)),
        ("pool", json!(&*record.pool)),
        ("backend", json!(record.backend.as_deref())),
        ("reason", json!(record.reason.as_str())),
        ("duration_us", micros(record.duration)),
        ("bytes_to_backend", json!(record.bytes[0])),
        ("bytes_to_client", json!(record.bytes[1])),
    ];
    let word = match &record.kind {
        Kind::Session {
            connect,
            first_byte,
            retries,
            paths: [client, backend],
        } => {
            let rtt = |path: &Option<Path>| path.map_or(Value::Null, |path| micros(path.rtt));
            let again = |path: &Option<Path>| json!(path.map(|path| path.retransmits));
            fields.extend([
                ("connect_us", connect.map_or(Value::Null, micros)),
                ("first_byte_us", first_byte.map_or(Value::Null, micros)),
                ("retries", json!(retries)),
                ("client_rtt_us", rtt(client)),
                ("client_retransmits", again(client)),
                ("backend_rtt_us", rtt(backend)),
                ("backend_retransmits", again(backend)),
            ]);
            "session"
        }
        Kind::Flow { datagrams } => {
            fields.extend([
                ("datagrams_to_backend", json!(datagrams[0])),
                ("datagrams_to_client", json!(datagrams[1])),
            ]);
            "flow"
        }
    };
    (word, fields)
}

/// IPv4 as such, whatever socket it came through.
fn canonical(mut client: SocketAddr) -> String {
    client.set_ip(client.ip().to_canonical());
    client.to_string()
}

fn micros(time: Duration) -> Value {
    json!(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// A path of a unix socket may contain anything: what is not plain is put into quotes, and escaped.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\' | '=');
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("\"{}\"", text.escape_default())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::session::CloseReason;

    pub(in crate::access) fn session() -> Record {
        Record {
            ended: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
            listener: "postgres".into(),
            client: Some("[::ffff:10.0.0.7]:40000".parse().unwrap()),
            pool: "pg".into(),
            backend: Some("pg1".into()),
            reason: CloseReason::ClientClosed,
            duration: Duration::from_millis(1500),
            bytes: [12, 345],
            kind: Kind::Session {
                connect: Some(Duration::from_micros(210)),
                first_byte: None,
                retries: 1,
                paths: [
                    Some(Path {
                        rtt: Duration::from_micros(90),
                        retransmits: 2,
                    }),
                    None,
                ],
            },
        }
    }

    fn line(record: &Record, style: Style) -> String {
        let mut text = String::new();
        add(record, style, &mut text);
        text
    }

    #[test]
    fn a_session_is_a_line_of_keys_and_values() {
        assert_eq!(
            line(&session(), Style::Text),
            "2023-11-14T22:13:20.250000Z session listener=postgres client=10.0.0.7:40000 pool=pg backend=pg1 \
             reason=client_closed duration_us=1500000 bytes_to_backend=12 bytes_to_client=345 connect_us=210 \
             first_byte_us=- retries=1 client_rtt_us=90 client_retransmits=2 backend_rtt_us=- \
             backend_retransmits=-\n"
        );
        let json: Value = serde_json::from_str(&line(&session(), Style::Json)).unwrap();
        assert_eq!(json["event"], "session");
        assert_eq!(json["client"], "10.0.0.7:40000");
        assert_eq!(json["first_byte_us"], Value::Null);
        assert_eq!(json["client_retransmits"], 2);
    }

    #[test]
    fn a_flow_has_datagrams_and_no_connect() {
        let flow = Record {
            kind: Kind::Flow { datagrams: [3, 4] },
            reason: CloseReason::IdleTimeout,
            ..session()
        };
        let text = line(&flow, Style::Text);
        assert!(text.contains(" flow listener=postgres "), "{text}");
        let end = "reason=idle_timeout duration_us=1500000 bytes_to_backend=12 bytes_to_client=345 \
                   datagrams_to_backend=3 datagrams_to_client=4\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn nothing_in_a_name_breaks_a_line_or_makes_up_a_field() {
        for name in [
            "unix:/run/a\nb session listener=x",
            "a\r\u{1b}[2J\u{2028}\u{85}",
            "a reason=operator",
            "a\" b=\"",
            "",
            "\u{202e}abc",
        ] {
            let record = Record {
                backend: Some(name.into()),
                listener: name.into(),
                client: None,
                ..session()
            };
            let text = line(&record, Style::Text);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            let printable = |letter: char| letter == '\n' || (' '..='~').contains(&letter);
            assert!(text.chars().all(printable), "{text:?}");
            assert!(!text.contains(" reason=operator "), "{text:?}");
            let json = line(&record, Style::Json);
            assert_eq!(json.matches('\n').count(), 1, "{json:?}");
            let json: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["backend"], name);
            assert_eq!(json["client"], Value::Null);
        }
    }
}
