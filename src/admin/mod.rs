//! The admin API: HTTP and JSON over a unix socket and TCP. It turns requests into [`Request`]s for control and
//! control's answers into responses; it knows nothing of its own and decides nothing.

mod access;
mod bounded;
pub mod client;
pub mod metrics;
mod open;
mod routes;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::control::snapshot::OperatorState;
use crate::metrics::exposition::Samples;

pub use open::{Settings, serve};

/// Requests that wait for control.
pub const REQUESTS_MAX: usize = 64;

/// What control is asked.
#[derive(Debug)]
pub enum Request {
    /// How everything is.
    Status(oneshot::Sender<Value>),
    /// What there is to measure.
    Samples(oneshot::Sender<Samples>),
    /// The word for what the process is doing: starting, serving, draining, ending.
    Phase(oneshot::Sender<&'static str>),
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

/// The way to control.
#[derive(Clone, Debug)]
struct Ask(mpsc::Sender<Request>);

impl Ask {
    fn new(requests: mpsc::Sender<Request>) -> Ask {
        Ask(requests)
    }

    /// Control answers each request, unless it is ending.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refusal> {
        let ending = || Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "it is ending".to_owned(),
        };
        let (reply, answer) = oneshot::channel();
        self.0.send(request(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }
}
