//! Asking a running Ringway, for the command line: one request, one answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::UnixStream;

use super::{Addition, Change, CloseRequest, MoveRequest, ReloadRequest};

/// Control answers within milliseconds; somebody else may hold all places for some seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer: the status of a million backends is less.
const ANSWER_MAX: usize = 1 << 30;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens there.
    #[error(
        "nothing answers at {}: {error}; is Ringway running (`ringway run`), and is this its `admin.socket`? \
         `--socket PATH` names another",
        path.display()
    )]
    Nobody {
        /// Where.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("not permitted to talk to {}: {error}; `ls -l` shows who may, sudo helps", path.display())]
    NotPermitted {
        /// Where.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// It does not want to.
    #[error("{0}")]
    Refused(String),
    /// What came back makes no sense.
    #[error("no sensible answer from {}: {why}", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
}

/// How everything is.
///
/// # Errors
/// When nobody answers.
pub fn status(socket: &Path) -> Result<Value, Error> {
    ask(socket, Method::GET, "/v1/status", Vec::new())
}

/// The events after the one of this number, oldest first.
///
/// # Errors
/// When nobody answers.
pub fn history(socket: &Path, after: u64) -> Result<Value, Error> {
    let path = format!("/v1/history?after={after}");
    ask(socket, Method::GET, &path, Vec::new())
}

/// Changes what the operator says about a backend; its status after that.
///
/// # Errors
/// When nobody answers, or there is no such backend.
pub fn operate(socket: &Path, pool: &str, backend: &str, change: &Change) -> Result<Value, Error> {
    let body = serde_json::to_vec(change).expect("a change can always be written");
    ask(socket, Method::POST, &path_of(pool, backend), body)
}

fn path_of(pool: &str, backend: &str) -> String {
    let segment = |name| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
    format!("/v1/backends/{}/{}", segment(pool), segment(backend))
}

/// Adds a backend; its status then.
///
/// # Errors
/// When nobody answers, or it cannot be added.
pub fn add(socket: &Path, pool: &str, backend: &str, addition: &Addition) -> Result<Value, Error> {
    let body = serde_json::to_vec(addition).expect("an addition can always be written");
    ask(socket, Method::PUT, &path_of(pool, backend), body)
}

/// Removes a backend that was added; how many sessions it still has.
///
/// # Errors
/// When nobody answers, or it cannot be removed.
pub fn remove(socket: &Path, pool: &str, backend: &str) -> Result<Value, Error> {
    ask(socket, Method::DELETE, &path_of(pool, backend), Vec::new())
}

/// Has the configuration read again; what differs.
///
/// # Errors
/// When nobody answers, the file is wrong, or it cannot be applied.
pub fn reload(socket: &Path, request: ReloadRequest) -> Result<Value, Error> {
    let body = serde_json::to_vec(&request).expect("a request can always be written");
    ask(socket, Method::POST, "/v1/reload", body)
}

/// Moves virtual addresses to another machine; what became of each virtual router. Waits for as long as the slowest
/// one says that it may take.
///
/// # Errors
/// When nobody answers, or there is no such virtual router.
pub fn failover(socket: &Path, request: &MoveRequest) -> Result<Value, Error> {
    let routers = ask(socket, Method::GET, "/v1/virtual_routers", Vec::new())?;
    let routers = routers.as_array().into_iter().flatten();
    let longest = routers.filter_map(|one| one["move_max_ms"].as_u64()).max();
    let patience = PATIENCE + Duration::from_millis(longest.unwrap_or(0));
    let body = serde_json::to_vec(request).expect("a request can always be written");
    ask_for(patience, socket, Method::POST, "/v1/failover", body)
}

/// A page of the sessions that live now; `query` says which.
///
/// # Errors
/// When nobody answers, or there is nothing of that name.
pub fn sessions(socket: &Path, query: &[(&str, &str)]) -> Result<Value, Error> {
    let path = with_query("/v1/sessions", query);
    ask(socket, Method::GET, &path, Vec::new())
}

/// Ends sessions; how many.
///
/// # Errors
/// When nobody answers, or there is nothing of that name.
pub fn close_sessions(socket: &Path, request: &CloseRequest) -> Result<Value, Error> {
    let body = serde_json::to_vec(request).expect("a request can always be written");
    ask(socket, Method::POST, "/v1/sessions/close", body)
}

/// Which backend a connection would get, and why.
///
/// # Errors
/// When nobody answers, or there is no such listener.
pub fn explain(socket: &Path, query: &[(&str, &str)]) -> Result<Value, Error> {
    let path = with_query("/v1/explain", query);
    ask(socket, Method::GET, &path, Vec::new())
}

fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let pairs = query.iter().map(|(key, value)| {
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        format!("{key}={value}")
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn ask(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<Value, Error> {
    ask_for(PATIENCE, socket, method, path, body)
}

fn ask_for(
    patience: Duration,
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Value, Error> {
    let broken = |why: String| Error::Broken {
        path: socket.to_owned(),
        why,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| broken(error.to_string()))?;
    runtime.block_on(async {
        let exchange = exchange(socket, method, path, body);
        match tokio::time::timeout(patience, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(broken(format!("none within {patience:?}"))),
        }
    })
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Value, Error> {
    let broken = |why: String| Error::Broken {
        path: socket.to_owned(),
        why,
    };
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        let path = socket.to_owned();
        match error.kind() == io::ErrorKind::PermissionDenied {
            true => Error::NotPermitted { path, error },
            false => Error::Nobody { path, error },
        }
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "ringway")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| broken(error.to_string()))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| broken(error.to_string()))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await;
    let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
    connection.abort();
    let value: Value = serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
    if status == StatusCode::OK {
        return Ok(value);
    }
    let message = value.get("error").and_then(Value::as_str);
    Err(Error::Refused(
        message.map_or_else(|| status.to_string(), str::to_owned),
    ))
}
