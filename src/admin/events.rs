//! What happens, as it happens: server-sent events, and the last ones as a list.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse;
use axum::response::{IntoResponse, Response, Sse};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use utoipa::IntoParams;

use super::bounded::Stay;
use super::inquiry::Inquiry;
use super::{Ask, Refusal, Request};

/// A silent stream says so often that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Something that has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number, counted from 1 in each process.
    pub id: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// What sort of thing.
    pub kind: &'static str,
    /// What.
    pub facts: Value,
}

impl Event {
    fn to_json(&self) -> Value {
        json!({"id": self.id, "at": self.at, "kind": self.kind, "facts": self.facts})
    }
}

/// Events, and those to come.
#[derive(Debug)]
pub struct Subscription {
    /// Those that have happened, oldest first.
    pub recent: Vec<Arc<Event>>,
    /// Those to come.
    pub new: broadcast::Receiver<Arc<Event>>,
    /// Where it is counted how many of those were not taken in time.
    pub lost: Arc<AtomicU64>,
}

/// What may be said about which events are wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only its description is used")]
pub(super) struct After {
    /// Only events with greater numbers; a stream also takes it from the header Last-Event-ID.
    #[param(minimum = 0, maximum = 18_446_744_073_709_551_615u64, value_type = Option<u64>, nullable = false)]
    after: Option<u64>,
}

/// The last events, oldest first.
#[utoipa::path(
    get, path = "/v1/history", tag = "look", params(After),
    responses(
        (status = 200, description = "The last 256 events at most"),
        (status = 400, description = "No such query")
    )
)]
pub(super) async fn history(
    State(control): State<Ask>,
    inquiry: Inquiry,
) -> Result<Json<Value>, Refusal> {
    let after = inquiry.only(&["after"])?.number("after")?.unwrap_or(0);
    let asked = |reply| Request::Events { after, reply };
    let subscription = control.ask(asked).await?;
    let recent = subscription.recent.iter();
    Ok(Json(recent.map(|event| event.to_json()).collect()))
}

/// Server-sent events from now on, or from a number on. What a subscriber does not take in time is lost to it; an event
/// `lost` says how many that were.
#[utoipa::path(
    get, path = "/v1/events", tag = "look", params(After),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream"),
        (status = 400, description = "No such query"),
        (status = 503, description = "There are enough subscribers")
    )
)]
pub(super) async fn events(
    State(control): State<Ask>,
    axum::Extension(stay): axum::Extension<Stay>,
    headers: HeaderMap,
    inquiry: Inquiry,
) -> Result<Response, Refusal> {
    let after = inquiry.only(&["after"])?.number("after")?;
    let last = headers.get("last-event-id");
    let last = last.and_then(|last| last.to_str().ok()?.parse().ok());
    let after = last.or(after).unwrap_or(u64::MAX);
    let Some(permit) = stay.stream() else {
        return Err(Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "there are enough subscribers of events; end one of them".to_owned(),
        });
    };
    let asked = |reply| Request::Events { after, reply };
    let Subscription { recent, new, lost } = control.ask(asked).await?;
    let new = BroadcastStream::new(new).map(move |event| match event {
        Ok(event) => written(&event),
        Err(BroadcastStreamRecvError::Lagged(count)) => {
            lost.fetch_add(count, Ordering::Relaxed);
            let facts = json!({"events": count}).to_string();
            sse::Event::default().event("lost").data(facts)
        }
    });
    let recent: Vec<sse::Event> = recent.iter().map(|event| written(event)).collect();
    let all = stream::iter(recent).chain(new).map(Ok::<_, Infallible>);
    let alive = sse::KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(while_kept(all, permit))
        .keep_alive(alive)
        .into_response())
}

/// The stream, which keeps its place until it ends.
fn while_kept<S: Stream>(stream: S, place: impl Send) -> impl Stream<Item = S::Item> {
    stream.map(move |item| {
        let _ = &place;
        item
    })
}

fn written(event: &Event) -> sse::Event {
    sse::Event::default()
        .id(event.id.to_string())
        .event(event.kind)
        .data(event.to_json().to_string())
}
