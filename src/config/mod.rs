//! The configuration: the YAML file as a tree ([`yaml`]), what listeners and pools take over from `defaults`
//! ([`inherit`]), every key with its kind and default ([`document`], declared by [`section`] and [`kind`]), what the
//! values mean together ([`resolve`]), and what is wrong, with its place ([`report`]).
//!
//! All problems are collected before anything is said. Nothing here opens a socket or starts anything.

mod address;
mod datagrams;
mod document;
mod inherit;
mod items;
mod kind;
mod report;
mod resolve;
mod schema;
mod section;
mod units;
mod virtual_router;
mod vocabulary;
mod yaml;

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::control::snapshot::{Global, Snapshot};

pub use document::{LogFormat, LogLevel};
pub use report::{Problem, Report, Severity, nearest};
pub use schema::{KeyDoc, keys, reference, schema};
pub use units::unusable_name;
pub use yaml::Place;

use address::BackendAt;
use document::Document;
use kind::{Kind, Reader};
use report::Problems;

/// Largest file that is read; the largest sensible one is far smaller.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// For somebody who has none yet.
const SMALLEST: &str = "the smallest configuration in YAML: \
                        {listeners: [{bind: \"*:5432\", pool: pg}], pools: {pg: [10.0.0.11:5432]}}";

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What concerns the process.
    pub global: Global,
    /// Name or number of the user to become; none = the one that started it.
    pub user: Option<String>,
    /// What workers read.
    pub snapshot: Snapshot,
    /// What is logged, and how.
    pub log: Log,
    /// How the process is talked to.
    pub admin: Admin,
    /// Of the text it was read from: the same on all nodes that have the same file.
    pub hash: u64,
    document: Document,
}

/// Two are the same if they mean the same, wherever and in whichever form it is written.
impl PartialEq for Config {
    fn eq(&self, other: &Config) -> bool {
        self.document == other.document
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important lines that are written.
    pub level: LogLevel,
    /// How a line is written.
    pub format: LogFormat,
    /// Where a line about each session goes; none = nowhere.
    pub access: Option<Access>,
}

/// Where lines about sessions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// To standard output, among the other lines.
    Stdout,
    /// To this file.
    File(PathBuf),
}

/// How the process is talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The unix socket; none = there is none.
    pub socket: Option<Socket>,
    /// The API over TCP.
    pub http: Option<Http>,
    /// Where only metrics are served.
    pub metrics: Option<SocketAddr>,
    /// What keeps the operator's changes.
    pub state_file: StateFile,
}

/// The unix socket of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    /// Name or number of its owner; none = who runs the process.
    pub owner: Option<String>,
    /// Name or number of its group; none = that of the process.
    pub group: Option<String>,
}

impl Socket {
    /// At this path, with the process' owner and group.
    #[must_use]
    pub fn at(path: PathBuf) -> Socket {
        Socket {
            path,
            owner: None,
            group: None,
        }
    }
}

/// The file that keeps the operator's changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StateFile {
    /// In the folder that the service manager gives, if it gives one.
    #[default]
    Auto,
    /// There is none.
    Off,
    /// This one.
    At(PathBuf),
}

/// The API over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where it is served.
    pub address: SocketAddr,
    /// The file with the token that changes need; none = nothing can be changed.
    pub token_file: Option<PathBuf>,
    /// The files with certificate and key; none = plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// What reading a configuration gave.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; none if there are errors.
    pub config: Option<Config>,
    /// Errors and warnings.
    pub report: Report,
    /// The hosts that values are given for.
    pub hosts: Vec<String>,
    /// Whether a value is given for other hosts only.
    pub host_missing: bool,
}

impl Loaded {
    /// The configuration, if nothing is wrong with it but warnings.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn into_result(self) -> Result<(Config, Report), Box<Report>> {
        match self.config {
            Some(config) => Ok((config, self.report)),
            None => Err(Box::new(self.report)),
        }
    }
}

impl Config {
    /// What is written, as far as it is not default: in the same form for the same meaning.
    #[must_use]
    pub fn document(&self) -> Value {
        self.document.write()
    }

    /// The file that loads to the same on every host: all that is not default.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let value: Value = self.document.write();
        written(&value)
    }
}

impl LogLevel {
    /// The word of the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Where a backend is, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An address.
    Address(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// A name that is resolved while it runs, and a port.
    Host(Arc<str>, u16),
}

/// The place of a backend.
///
/// # Errors
/// Why the text is none.
pub fn destination(text: &str) -> Result<Destination, String> {
    Ok(match text.parse::<BackendAt>()? {
        BackendAt::Address(address) => Destination::Address(address),
        BackendAt::Unix(path) => Destination::Unix(path),
        BackendAt::Host(host, port) => Destination::Host(Arc::from(host), port),
    })
}

/// The expression that `expect` and `body` of a probe stand for; none if they are no valid ones, which a checked
/// configuration does not have.
#[must_use]
pub fn pattern(written: &str) -> Option<regex::bytes::Regex> {
    units::Pattern::expression(written).ok()
}

/// Reads and checks a file, with the values of this host.
#[must_use]
pub fn load(path: &Path, host: &str) -> Loaded {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => parse(&text, &name, host),
        Err(problem) => {
            let mut problems = Problems::default();
            problems.push(*problem);
            failed(Report::new(&name, "", problems))
        }
    }
}

/// Checks a text; `name` is what messages call it.
#[must_use]
pub fn parse(text: &str, name: &str, host: &str) -> Loaded {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut problems = Problems::default();
    if is_empty(text) {
        problems.push(Problem::of(None, "the file is empty").help(SMALLEST));
        return failed(Report::new(name, text, problems));
    }
    let Some(mut root) = yaml::parse(text, &mut problems) else {
        return failed(Report::new(name, text, problems));
    };
    if !matches!(root.value, yaml::Value::Map(_)) {
        let message = format!("expected keys and values, found {}", root.found());
        problems.push(Problem::error(root.place, message).help(SMALLEST));
        return failed(Report::new(name, text, problems));
    }
    problems.inherited = inherit::place(&root);
    if let Err(problem) = inherit::prepare(&mut root, host) {
        problems.push(*problem);
        return failed(Report::new(name, text, problems));
    }
    let mut reader = Reader::new(host, &mut problems);
    let document = Document::read(&root, &mut reader);
    let (hosts, host_missing) = (std::mem::take(&mut reader.hosts), reader.host_missing);
    let config = document.and_then(|document| resolve::resolve(document, &mut problems));
    let config = config.filter(|_| !problems.has_errors());
    let config = config.map(|config| Config {
        hash: xxh3_64(text.as_bytes()),
        ..config
    });
    Loaded {
        config,
        report: Report::new(name, text, problems),
        hosts: hosts.into_iter().collect(),
        host_missing,
    }
}

/// The file that `--listen`, `--to`, `--balance` and `--udp` stand for.
#[must_use]
pub fn of_flags(listen: &[String], to: &[String], balance: Option<&str>, udp: bool) -> String {
    let mut listener = serde_json::json!({"bind": one_or_more(listen), "pool": "default"});
    let mut pool = serde_json::json!({"backends": to});
    if let Some(balance) = balance {
        pool["balance"] = serde_json::json!(balance);
    }
    if udp {
        listener["protocol"] = serde_json::json!("udp");
    }
    let file = serde_json::json!({"listeners": [listener], "pools": {"default": pool}});
    written(&file)
}

fn written(value: &Value) -> String {
    let mut text =
        serde_saphyr::to_string(value).expect("maps, lists and scalars can always be written");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn one_or_more(items: &[String]) -> Value {
    match items {
        [one] => serde_json::json!(one),
        more => serde_json::json!(more),
    }
}

fn failed(report: Report) -> Loaded {
    Loaded {
        config: None,
        report,
        hosts: Vec::new(),
        host_missing: false,
    }
}

fn is_empty(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    })
}

/// Never waits and never reads much, whatever the path leads to.
fn read(path: &Path) -> Result<String, Box<Problem>> {
    let problem = |message: String| Box::new(Problem::of(None, message));
    let unreadable = |error: std::io::Error| {
        let said = Problem::of(None, format!("cannot be read: {error}"));
        Box::new(match error.raw_os_error() {
            Some(libc::ENOENT) => {
                said.help("`-c FILE` names another file; conf/ has examples to begin with")
            }
            Some(libc::EACCES) => said.help("`ls -l` shows who may read it"),
            _ => said,
        })
    };
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if meta.is_dir() {
        return Err(Box::new(
            Problem::of(None, "is a directory")
                .help("name the file in it, as in -c /etc/ringway/ringway.yaml"),
        ));
    }
    if !meta.is_file() {
        return Err(problem(
            "is no regular file; a pipe or a device cannot be read again at a reload".to_owned(),
        ));
    }
    let too_large = |bytes: u64| {
        problem(format!(
            "has {bytes} bytes; a configuration has at most {FILE_MAX}"
        ))
    };
    if meta.len() > FILE_MAX {
        return Err(too_large(meta.len()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(too_large(bytes.len() as u64));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        problem(format!("is not UTF-8 text: line {line}, byte {at}"))
    })
}
