//! The paths of the API, and what each of them asks control.

use axum::extract::{DefaultBodyLimit, Path as Segments, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use super::access::{self, Rights};
use super::{Ask, Change, MoveRequest, Refusal, Request, metrics};

/// Bytes of a request's body.
const BODY_MAX: usize = 16 * 1024;

/// Everything, as far as the rights allow.
pub(super) fn router(control: Ask, rights: Rights) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/backends/{pool}/{backend}", post(operate))
        .route("/v1/failover", post(failover))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(metrics::healthz))
        .route("/readyz", get(metrics::readyz))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(rights, access::check))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(control)
}

async fn status(State(control): State<Ask>) -> Result<Json<Value>, Refusal> {
    control.ask(Request::Status).await.map(Json)
}

async fn operate(
    State(control): State<Ask>,
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
    control.ask(request).await?.map(Json)
}

async fn failover(
    State(control): State<Ask>,
    body: axum::body::Bytes,
) -> Result<Json<Value>, Refusal> {
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
    control.ask(request).await?.map(Json)
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
