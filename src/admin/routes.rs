//! The paths of the API, and what each of them asks control. The OpenAPI document is made from the same declarations.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path as Segments, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::routing::get;
use axum::{Extension, Json, Router, middleware};
use serde_json::Value;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{self, Denied, Rights};
use super::bounded::Stay;
use super::dashboard::Dashboard;
use super::inquiry::{Body, Inquiry, Unread};
use super::{
    Addition, Ask, Change, LevelRequest, Look, MoveRequest, Refusal, ReloadRequest, Request,
};
use super::{events, metrics, sessions};

/// How long a change may take before whoever asked is told that it takes longer.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Bytes of a request's body.
const BODY_MAX: usize = 16 * 1024;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ringway",
        description = "The API of a running Ringway. Who reaches it through the unix socket may do everything; over \
                       TCP, changes need `Authorization: Bearer TOKEN`. Answers that are no success have an object \
                       with `error`, in words. Everything under /v1 stays as it is, but for new keys in answers."
    ),
    tags(
        (name = "look", description = "How things are"),
        (name = "change", description = "What the operator wants; on this node only")
    )
)]
struct Api;

fn declared() -> OpenApiRouter<Ask> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(status))
        .routes(routes!(listeners))
        .routes(routes!(pools))
        .routes(routes!(backends))
        .routes(routes!(backend, operate, add, remove))
        .routes(routes!(virtual_routers))
        .routes(routes!(config))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::close))
        .routes(routes!(explain))
        .routes(routes!(events::history))
        .routes(routes!(events::events))
        .routes(routes!(failover))
        .routes(routes!(level))
        .routes(routes!(reload))
}

/// The OpenAPI document of it.
#[cfg(test)]
fn document() -> Value {
    let (_, api) = declared().split_for_parts();
    serde_json::to_value(api).expect("it can always be written")
}

/// Everything, as far as the rights allow.
pub(super) fn router(control: Ask, rights: Rights) -> Router {
    let (router, api) = declared().split_for_parts();
    let document = api.to_json().expect("it can always be written");
    let mut known: Vec<String> = vec!["GET /".to_owned(), "GET /metrics".to_owned()];
    for (path, item) in &api.paths.paths {
        known.extend(item.get.iter().map(|_| format!("GET {path}")));
        known.extend(item.post.iter().map(|_| format!("POST {path}")));
        known.extend(item.put.iter().map(|_| format!("PUT {path}")));
        known.extend(item.delete.iter().map(|_| format!("DELETE {path}")));
    }
    let known = known.join(", ");
    let (nowhere, not_so) = (known.clone(), known);
    let json = [(header::CONTENT_TYPE, "application/json")];
    let dashboard = Dashboard::new(&rights);
    router
        .route("/", get(async move || dashboard.response()))
        .route("/v1/openapi.json", get(async move || (json, document)))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(metrics::healthz))
        .route("/readyz", get(metrics::readyz))
        .fallback(async move |uri: Uri| unknown(&uri, &nowhere))
        .method_not_allowed_fallback(async move |method: Method, uri: Uri| {
            not_allowed(&method, &uri, &not_so)
        })
        .layer(middleware::from_fn_with_state(rights, access::check))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(control)
}

fn unknown(uri: &Uri, known: &str) -> Refusal {
    Refusal::not_found(format!("there is no {}; there are {known}", uri.path()))
}

fn not_allowed(method: &Method, uri: &Uri, known: &str) -> Refusal {
    Refusal {
        status: StatusCode::METHOD_NOT_ALLOWED,
        message: format!(
            "{method} makes no sense for {}; there are {known}",
            uri.path()
        ),
    }
}

async fn look(control: &Ask, what: Look) -> Result<Json<Value>, Refusal> {
    let asked = |reply| Request::Look { what, reply };
    control.ask(asked).await?.map(Json)
}

/// How everything is.
#[utoipa::path(get, path = "/v1/status", tag = "look",
    responses((status = 200, description = "Listeners, pools, backends, virtual routers, counts")))]
async fn status(State(control): State<Ask>) -> Result<Json<Value>, Refusal> {
    control.ask(Request::Status).await.map(Json)
}

/// The listeners.
#[utoipa::path(get, path = "/v1/listeners", tag = "look",
    responses((status = 200, description = "In the order of the file")))]
async fn listeners(State(control): State<Ask>) -> Result<Json<Value>, Refusal> {
    look(&control, Look::Listeners).await
}

/// The pools with their backends.
#[utoipa::path(get, path = "/v1/pools", tag = "look",
    responses((status = 200, description = "In the order of the file")))]
async fn pools(State(control): State<Ask>) -> Result<Json<Value>, Refusal> {
    look(&control, Look::Pools).await
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only its description is used")]
struct OfPool {
    /// Of this pool only.
    #[param(nullable = false)]
    pool: Option<String>,
}

/// The backends.
#[utoipa::path(get, path = "/v1/backends", tag = "look", params(OfPool),
    responses(
        (status = 200, description = "In the order of the file"),
        (status = 400, description = "No such query"),
        (status = 404, description = "There is no such pool")
    ))]
async fn backends(State(control): State<Ask>, inquiry: Inquiry) -> Result<Json<Value>, Refusal> {
    let pool = inquiry.only(&["pool"])?.text("pool").map(str::to_owned);
    look(&control, Look::Backends(pool)).await
}

/// One backend: its health with the last changes, what the operator says, its sessions.
#[utoipa::path(get, path = "/v1/backends/{pool}/{backend}", tag = "look",
    params(("pool" = String, Path, description = "The pool's name"),
        ("backend" = String, Path, description = "The backend's name")),
    responses(
        (status = 200, description = "The backend"),
        (status = 404, description = "There is no such backend")
    ))]
async fn backend(
    State(control): State<Ask>,
    Segments((pool, backend)): Segments<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    look(&control, Look::Backend(pool, backend)).await
}

/// Changes what the operator says about a backend. It holds on this node only, and is kept in `admin.state_file`.
#[utoipa::path(post, path = "/v1/backends/{pool}/{backend}", tag = "change", request_body = Change,
    params(("pool" = String, Path, description = "The pool's name"),
        ("backend" = String, Path, description = "The backend's name")),
    responses(
        (status = 200, description = "The backend as it is then"),
        (status = 400, description = "No such change"),
        (status = 404, description = "There is no such backend"),
        (status = 409, description = "A deadline without drain or maintenance"),
        Denied,
        Unread
    ))]
async fn operate(
    State(control): State<Ask>,
    Segments((pool, backend)): Segments<(String, String)>,
    Body(change): Body<Change>,
) -> Result<Json<Value>, Refusal> {
    let request = |reply| Request::Operate {
        pool,
        backend,
        change,
        reply,
    };
    control.ask(request).await?.map(Json)
}

/// Adds a backend to a pool. It holds on this node only, through reloads for as long as the file has none of that name,
/// and is kept in `admin.state_file`. It takes sessions once its first probe has succeeded.
#[utoipa::path(put, path = "/v1/backends/{pool}/{backend}", tag = "change", request_body = Addition,
    params(("pool" = String, Path, description = "The pool's name"),
        ("backend" = String, Path, description = "The backend's name")),
    responses(
        (status = 200, description = "The backend as it is then"),
        (status = 400, description = "No such address, name or weight"),
        (status = 404, description = "There is no such pool"),
        (status = 409, description = "There is a backend of that name, or it cannot be one of this pool"),
        (status = 503, description = "It is still at work, or ending"),
        Denied,
        Unread
    ))]
async fn add(
    State(control): State<Ask>,
    Segments((pool, backend)): Segments<(String, String)>,
    Body(addition): Body<Addition>,
) -> Result<Json<Value>, Refusal> {
    let request = |reply| Request::Add {
        pool,
        backend,
        addition,
        reply,
    };
    in_time(control.ask(request)).await
}

/// Removes a backend that was added through this API: it takes no new sessions, those it has go on for as long as the
/// pool's `drain_timeout`.
#[utoipa::path(delete, path = "/v1/backends/{pool}/{backend}", tag = "change",
    params(("pool" = String, Path, description = "The pool's name"),
        ("backend" = String, Path, description = "The backend's name")),
    responses(
        (status = 200, description = "How many sessions it still has"),
        (status = 404, description = "There is no such backend"),
        (status = 409, description = "It is in the file: it goes by a reload without it"),
        (status = 503, description = "It is still at work, or ending"),
        Denied
    ))]
async fn remove(
    State(control): State<Ask>,
    Segments((pool, backend)): Segments<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let request = |reply| Request::Remove {
        pool,
        backend,
        reply,
    };
    in_time(control.ask(request)).await
}

/// Reads the configuration again and changes over to it: all of it, or nothing. Sessions go on, those of removed
/// backends for as long as `drain_timeout` of their pools.
#[utoipa::path(post, path = "/v1/reload", tag = "change", request_body = ReloadRequest,
    responses(
        (status = 200, description = "What differs, how many sessions that touches, and what needs a restart"),
        (status = 400, description = "No such request"),
        (status = 409, description = "Something new cannot be listened on, there is no file, or the process is ending"),
        (status = 422, description = "What is wrong with the file; nothing was changed"),
        (status = 503, description = "It is still at work, or ending"),
        Denied,
        Unread
    ))]
async fn reload(
    State(control): State<Ask>,
    Body(ReloadRequest { dry_run }): Body<ReloadRequest>,
) -> Result<Json<Value>, Refusal> {
    in_time(control.ask(|reply| Request::Reload { dry_run, reply })).await
}

/// An answer before the connection's time is over; what was begun goes on.
async fn in_time(
    answer: impl Future<Output = Result<Result<Value, Refusal>, Refusal>>,
) -> Result<Json<Value>, Refusal> {
    match tokio::time::timeout(ANSWER_MAX, answer).await {
        Ok(answer) => answer?.map(Json),
        Err(_) => Err(Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "it is still at work; the status shows what came of it".to_owned(),
        }),
    }
}

/// The virtual routers.
#[utoipa::path(get, path = "/v1/virtual_routers", tag = "look",
    responses((status = 200, description = "In the order of the file")))]
async fn virtual_routers(State(control): State<Ask>) -> Result<Json<Value>, Refusal> {
    look(&control, Look::Routers).await
}

/// The configuration as it runs: YAML of all that is not default, with the values of this node.
#[utoipa::path(get, path = "/v1/config", tag = "look",
    responses((status = 200, description = "The text, its hash, and the generation")))]
async fn config(State(control): State<Ask>) -> Result<Json<Value>, Refusal> {
    look(&control, Look::Config).await
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only its description is used")]
struct Arrival {
    /// Where it would come in.
    listener: String,
    /// Where it would come from, as in `10.0.0.7:40000`; left out for a unix socket.
    #[param(
        nullable = false,
        pattern = r"^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d):[1-9]\d{0,3}$"
    )]
    source: Option<String>,
    /// On this worker; 0 unless given. Which worker gets a connection is the kernel's choice.
    #[param(nullable = false, minimum = 0, maximum = 65535)]
    worker: Option<u16>,
}

/// Which backend a connection would get now and why, by what picks itself. Nothing changes by asking.
#[utoipa::path(get, path = "/v1/explain", tag = "look", params(Arrival),
    responses(
        (status = 200, description = "The pool, the backend, and why others are left out"),
        (status = 400, description = "No such query"),
        (status = 404, description = "There is no such listener or worker")
    ))]
async fn explain(State(control): State<Ask>, inquiry: Inquiry) -> Result<Json<Value>, Refusal> {
    let inquiry = inquiry.only(&["listener", "source", "worker"])?;
    let listener = inquiry.text("listener").map(str::to_owned).ok_or_else(|| {
        Refusal::bad_request("say where: listener=NAME, as the status shows it".to_owned())
    })?;
    let client = inquiry.read("source", |text| {
        let address = text.parse::<SocketAddr>();
        address.map_err(|_| "write IP:PORT, as in 10.0.0.7:40000".to_owned())
    })?;
    let worker = inquiry.number("worker")?.unwrap_or(0);
    let request = |reply| Request::Explain {
        worker,
        listener,
        client,
        reply,
    };
    control.ask(request).await?.map(Json)
}

/// Moves virtual addresses to another node, or keeps them from coming back. The answer comes when another node has
/// taken over or nobody will: after `move_max_ms` of the virtual routers at most.
#[utoipa::path(post, path = "/v1/failover", tag = "change", request_body = MoveRequest,
    responses(
        (status = 200, description = "What became of each virtual router"),
        (status = 400, description = "No such request"),
        (status = 404, description = "There is no such virtual router"),
        (status = 503, description = "It is still at work, and there are enough who wait"),
        Denied,
        Unread
    ))]
async fn failover(
    State(control): State<Ask>,
    Extension(stay): Extension<Stay>,
    Body(MoveRequest { name, action }): Body<MoveRequest>,
) -> Result<Json<Value>, Refusal> {
    let request = |reply| Request::Move {
        name,
        wanted: action,
        reply,
    };
    let answer = control.ask(request);
    // Three intervals may be longer than a connection usually lasts.
    match stay.stream() {
        Some(_place) => answer.await?.map(Json),
        None => in_time(answer).await,
    }
}

/// Logs from another level on, until the process ends.
#[utoipa::path(post, path = "/v1/log", tag = "change", request_body = LevelRequest,
    responses(
        (status = 200, description = "The level"),
        (status = 400, description = "No such level"),
        (status = 409, description = "This process has no log of its own"),
        Denied,
        Unread
    ))]
async fn level(
    State(control): State<Ask>,
    Body(LevelRequest { level }): Body<LevelRequest>,
) -> Result<Json<Value>, Refusal> {
    let request = |reply| Request::SetLevel { level, reply };
    control.ask(request).await?.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_described_and_every_change_may_be_denied() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 15);
        for (path, item) in paths {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.contains_key("200"), "{method} {path}");
                let is_change = operation["tags"][0] == "change";
                assert_eq!(is_change, method != "get", "{method} {path}");
                for code in ["401", "403"] {
                    assert_eq!(
                        responses.contains_key(code),
                        is_change,
                        "{method} {path}: {code}"
                    );
                }
                let has_body = is_change && method != "delete";
                for code in ["413", "415"] {
                    assert_eq!(
                        responses.contains_key(code),
                        has_body,
                        "{method} {path}: {code}"
                    );
                }
            }
        }
    }
}
