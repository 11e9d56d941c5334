//! The admin API: HTTP and JSON over a unix socket and TCP. It turns requests into [`Request`]s for control and
//! control's answers into responses; it knows nothing of its own and decides nothing.

mod access;
mod bounded;
pub mod client;
mod dashboard;
mod events;
mod inquiry;
pub mod metrics;
mod open;
mod routes;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value, json};
use tokio::sync::{mpsc, oneshot};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::control::snapshot::OperatorState;
use crate::metrics::exposition::Samples;
use crate::worker::{Filter, Swept};

pub use events::{Event, Subscription};
pub use open::{Settings, serve};
pub use sessions::CloseRequest;

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
    /// A part of how everything is.
    Look {
        /// Which part.
        what: Look,
        /// That part.
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
    /// Look at a portion of the sessions of a worker, or end them.
    Sweep {
        /// Which.
        portion: Portion,
        /// What was found; none if there is no such worker.
        reply: oneshot::Sender<Result<Option<Swept>, Refusal>>,
    },
    /// Sessions were ended for the operator.
    Closed {
        /// Which were meant.
        filter: Arc<Filter>,
        /// How many that were.
        count: usize,
    },
    /// Which backend a connection would get.
    Explain {
        /// On which worker.
        worker: u16,
        /// Where it would come in.
        listener: String,
        /// Where it would come from; none for a unix socket.
        client: Option<SocketAddr>,
        /// Which one, and why.
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
    /// What has happened, and what will.
    Events {
        /// After the event of this number.
        after: u64,
        /// The events.
        reply: oneshot::Sender<Subscription>,
    },
    /// Log from this level on.
    SetLevel {
        /// The level.
        level: Level,
        /// The level.
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
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
    /// Read the configuration again and change over to it.
    Reload {
        /// Only say what would change.
        dry_run: bool,
        /// What differs.
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
    /// Add a backend.
    Add {
        /// The pool's name.
        pool: String,
        /// Its name.
        backend: String,
        /// What it is like.
        addition: Addition,
        /// Its status after it.
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
    /// Remove a backend that was added.
    Remove {
        /// The pool's name.
        pool: String,
        /// Its name.
        backend: String,
        /// How many sessions it still has.
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

/// Parts of how everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The listeners.
    Listeners,
    /// The pools with their backends.
    Pools,
    /// The backends, of one pool or of all.
    Backends(Option<String>),
    /// One backend, by the names of its pool and itself.
    Backend(String, String),
    /// The virtual routers.
    Routers,
    /// The configuration as it runs.
    Config,
}

/// Some of the sessions of a worker.
#[derive(Clone, Debug)]
pub struct Portion {
    /// Which sessions are meant.
    pub filter: Arc<Filter>,
    /// Which worker's.
    pub worker: u16,
    /// From which place of its table on.
    pub from: u32,
    /// So many at most.
    pub most: usize,
    /// Whether they are ended.
    pub ends: bool,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// What failed.
    Error,
    /// What somebody should look at.
    Warn,
    /// What changed.
    Info,
    /// Ends of sessions that are not usual, too.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// The body of a request to log from another level on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LevelRequest {
    /// The level.
    pub level: Level,
}

/// What the operator wants of virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The virtual router's name; none = all of them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// What is wanted.
    pub action: Move,
}

/// What the operator says about a backend; what is none stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub struct Change {
    /// `ready`, `drain` or `maintenance`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "state_word")]
    #[schema(value_type = Option<StateWord>, nullable = false)]
    pub state: Option<OperatorState>,
    /// 0 to 256; 0 takes no new sessions.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "weight"
    )]
    #[schema(minimum = 0, maximum = 256, nullable = false)]
    pub weight: Option<u16>,
    /// Most sessions, or `none`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    #[schema(nullable = false)]
    pub max_sessions: Option<Most>,
    /// With `drain` or `maintenance`: after so many seconds the sessions that are left end, instead of after the pool's
    /// `drain_timeout`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "deadline"
    )]
    #[schema(minimum = 0, maximum = 31_536_000, nullable = false)]
    pub deadline_seconds: Option<u32>,
}

/// A backend that the operator adds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Addition {
    /// As in the file: `10.0.0.13:5432`, `db3:5432` or `unix:/path`.
    #[schema(value_type = Destination)]
    pub address: String,
    /// 0 to 256; 1 unless given.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "weight"
    )]
    #[schema(minimum = 0, maximum = 256, nullable = false)]
    pub weight: Option<u16>,
    /// Used only when no other backend is usable.
    #[serde(default)]
    pub backup: bool,
    /// Most sessions, or `none`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    #[schema(nullable = false)]
    pub max_sessions: Option<Most>,
}

/// The forms of an address; the file takes some more of each.
struct Destination;

impl PartialSchema for Destination {
    fn schema() -> RefOr<Schema> {
        let forms = [
            r"^([1-9]|[1-9]\d|1\d\d)(\.(\d|[1-9]\d|1\d\d)){3}:[1-9]\d{0,3}$",
            r"^\[[1-9a-f][0-9a-f]{0,3}(:[0-9a-f]{1,4}){7}\]:[1-9]\d{0,3}$",
            r"^[a-z][a-z0-9]{0,30}(\.[a-z][a-z0-9]{0,30}){0,3}:[1-9]\d{0,3}$",
            r"^unix:(/[a-z0-9._-]{0,20}[a-z0-9]){1,4}$",
        ];
        let text = |pattern| {
            let object = ObjectBuilder::new().schema_type(Type::String);
            object.pattern(Some(pattern))
        };
        let forms = forms.into_iter().map(text);
        let any = forms.fold(AnyOfBuilder::new(), AnyOfBuilder::item);
        any.into()
    }
}

impl ToSchema for Destination {}

/// The body of a request to reload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// The longest [`Change::deadline_seconds`]: a year.
pub const DEADLINE_MAX: u32 = 31_536_000;

/// The words for what the operator says about a backend.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
enum StateWord {
    /// It takes sessions.
    Ready,
    /// It takes no new sessions; those it has go on.
    Drain,
    /// It takes no new sessions and is not probed.
    Maintenance,
}

/// The greatest weight of a backend.
pub const WEIGHT_MAX: u16 = 256;

/// A limit of sessions, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most(pub Option<u32>);

impl Most {
    /// The greatest limit.
    pub const LARGEST: u32 = 16_777_216;
}

impl PartialSchema for Most {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(Most::LARGEST));
        let word = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["none"]));
        OneOfBuilder::new().item(number).item(word).into()
    }
}

impl ToSchema for Most {}

impl From<Option<u32>> for Most {
    fn from(most: Option<u32>) -> Most {
        Most(most)
    }
}

impl std::str::FromStr for Most {
    type Err = String;

    fn from_str(text: &str) -> Result<Most, String> {
        let number = text
            .parse()
            .ok()
            .filter(|number| (1..=Most::LARGEST).contains(number));
        match (text, number) {
            ("none", _) => Ok(Most(None)),
            (_, Some(number)) => Ok(Most(Some(number))),
            (_, None) => Err(format!(
                "write a number from 1 to {}, or none",
                Most::LARGEST
            )),
        }
    }
}

impl Serialize for Most {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(number) => serializer.serialize_u32(number),
            None => serializer.serialize_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for Most {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Most, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::Number(number) => whole(&number).map(|number| number.to_string()),
            // A number is not written as a text.
            Value::String(text) if text == "none" => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        };
        let most = text.unwrap_or_default().parse();
        most.map_err(serde::de::Error::custom)
    }
}

/// To JSON, `5.0` is a whole number.
fn whole(number: &Number) -> Option<u64> {
    let fraction = || {
        let value = number.as_f64().filter(|value| value.fract() == 0.0)?;
        format!("{value:.0}").parse().ok()
    };
    number.as_u64().or_else(fraction)
}

fn weight<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let number = whole(&Number::deserialize(deserializer)?);
    let weight = number.and_then(|number| u16::try_from(number).ok());
    let wrong = || serde::de::Error::custom(format!("a weight is a number from 0 to {WEIGHT_MAX}"));
    weight.map(Some).ok_or_else(wrong)
}

fn deadline<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = whole(&Number::deserialize(deserializer)?);
    let seconds = number.and_then(|number| u32::try_from(number).ok());
    let seconds = seconds.filter(|seconds| *seconds <= DEADLINE_MAX);
    let wrong =
        || serde::de::Error::custom(format!("a deadline is 0 to {DEADLINE_MAX} whole seconds"));
    seconds.map(Some).ok_or_else(wrong)
}

/// A value that may be left out, but not be null.
fn given<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

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

impl Refusal {
    /// Something that was understood and is wrong in itself.
    #[must_use]
    pub fn unprocessable(message: String) -> Refusal {
        Refusal {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message,
        }
    }

    /// Something that cannot be done as things are.
    #[must_use]
    pub fn conflict(message: String) -> Refusal {
        Refusal {
            status: StatusCode::CONFLICT,
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

    /// What needs no answer, and may be forgotten if control has too much to do.
    fn tell(&self, request: Request) {
        let _ = self.0.try_send(request);
    }
}
