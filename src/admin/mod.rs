//! The admin API: HTTP and JSON over a unix socket. It turns requests into [`Request`]s for control and control's
//! answers into responses; it knows nothing of its own and decides nothing.

mod bounded;
pub mod client;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::extract::{DefaultBodyLimit, Path as Segments, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::control::snapshot::OperatorState;
use crate::sys::unix::{self, SocketFile};

/// Requests that wait for control.
const REQUESTS_MAX: usize = 64;
/// Bytes of a request's body.
const BODY_MAX: usize = 16 * 1024;
/// Owner and group may write to the socket.
const MODE: u32 = 0o660;

/// What control is asked.
#[derive(Debug)]
pub enum Request {
    /// How everything is.
    Status(oneshot::Sender<Value>),
    /// Change what the operator says about a backend.
    Operate {
        /// The pool's name.
        pool: String,
        /// The backend's name.
        backend: String,
        /// What to change.
        change: Change,
        /// The backend's status after it.
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
    /// Move virtual addresses to another machine, or keep them from coming back.
    Move {
        /// The virtual router's name; none = all of them.
        name: Option<String>,
        /// What is wanted.
        wanted: Move,
        /// What became of each virtual router.
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
}

/// What the operator wants of virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// Another machine takes over, if there is one.
    Failover,
    /// The same, and they do not come back while another machine serves.
    Hold,
    /// They may come back.
    Release,
}

/// The body of a request to move virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The virtual router's name; none = all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is wanted.
    pub action: Move,
}

/// What the operator says about a backend; what is none stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// `ready`, `drain` or `maintenance`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "state_word")]
    pub state: Option<OperatorState>,
    /// 0 to 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

/// The greatest weight of a backend.
pub const WEIGHT_MAX: u16 = 256;

mod state_word {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::OperatorState;

    pub(super) fn serialize<S: Serializer>(
        state: &Option<OperatorState>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match state {
            Some(state) => serializer.serialize_str(state.as_str()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OperatorState>, D::Error> {
        let word = String::deserialize(deserializer)?;
        let found = OperatorState::ALL
            .iter()
            .find(|state| state.as_str() == word);
        let unknown = || D::Error::custom(format!("`{word}` is none of ready, drain, maintenance"));
        found.copied().map(Some).ok_or_else(unknown)
    }
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of answer it is.
    pub status: StatusCode,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl Refusal {
    /// Something that does not exist.
    #[must_use]
    pub fn not_found(message: String) -> Refusal {
        Refusal {
            status: StatusCode::NOT_FOUND,
            message,
        }
    }

    /// Something that makes no sense.
    #[must_use]
    pub fn bad_request(message: String) -> Refusal {
        Refusal {
            status: StatusCode::BAD_REQUEST,
            message,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.message}))).into_response()
    }
}

/// The socket, ready to serve.
#[derive(Debug)]
pub struct Admin {
    listener: UnixListener,
    file: SocketFile,
}

impl Admin {
    /// Makes the socket, and its folder if that is missing. A socket that nobody listens on is left over from a crash.
    ///
    /// # Errors
    /// When somebody else listens there, or it is not permitted. Has to be called within a runtime.
    pub fn bind(path: &Path) -> io::Result<Admin> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        unix::make_room(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        Ok(Admin {
            listener,
            file: SocketFile::made(path)?,
        })
    }

    /// Serves in the background of the runtime; the requests come out of the channel. The file is to be removed at the
    /// end.
    #[must_use]
    pub fn serve(self) -> (mpsc::Receiver<Request>, SocketFile) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        tokio::spawn(bounded::serve(self.listener, router(sender)));
        (requests, self.file)
    }
}

type Control = State<mpsc::Sender<Request>>;

fn router(requests: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/backends/{pool}/{backend}", post(operate))
        .route("/v1/failover", post(failover))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(requests)
}

async fn status(control: Control) -> Result<Json<Value>, Refusal> {
    ask(control, Request::Status).await.map(Json)
}

async fn operate(
    control: Control,
    Segments((pool, backend)): Segments<(String, String)>,
    body: axum::body::Bytes,
) -> Result<Json<Value>, Refusal> {
    let change: Change = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!(
            "the body is no change of a backend: {error}; write {{\"state\": \"drain\"}} or {{\"weight\": 5}}"
        ))
    })?;
    let request = |reply| Request::Operate {
        pool,
        backend,
        change,
        reply,
    };
    ask(control, request).await?.map(Json)
}

async fn failover(control: Control, body: axum::body::Bytes) -> Result<Json<Value>, Refusal> {
    let MoveRequest { name, action } = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!(
            "the body is no fail-over: {error}; write {{\"action\": \"failover\"}}, hold or release, with a name"
        ))
    })?;
    let request = |reply| Request::Move {
        name,
        wanted: action,
        reply,
    };
    ask(control, request).await?.map(Json)
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(format!(
        "there is no {}; there are GET /v1/status, POST /v1/backends/POOL/NAME, POST /v1/failover",
        uri.path()
    ))
}

async fn not_allowed(method: Method, uri: Uri) -> Refusal {
    Refusal {
        status: StatusCode::METHOD_NOT_ALLOWED,
        message: format!(
            "{method} makes no sense for {}; there are GET /v1/status, POST /v1/backends/POOL/NAME, POST /v1/failover",
            uri.path()
        ),
    }
}

/// Control answers each request, unless it is ending.
async fn ask<T>(
    control: Control,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Refusal> {
    let ending = || Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        message: "it is ending".to_owned(),
    };
    let (reply, answer) = oneshot::channel();
    control.send(request(reply)).await.map_err(|_| ending())?;
    answer.await.map_err(|_| ending())
}
