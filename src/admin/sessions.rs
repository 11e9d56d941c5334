//! Sessions, page by page, and ending them: asked of one worker after the other in portions, so that neither a worker
//! nor control is kept from its work.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::access::Denied;
use super::inquiry::{Body, Inquiry, Unread};
use super::{Ask, Portion, Refusal, Request};
use crate::ids::WorkerId;
use crate::worker::{Clients, Filter, SessionFacts, SessionId, Swept};

/// Sessions of a page, unless another number is asked for, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// A page that took so long is given as far as it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// What may be asked of sessions.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only its description is used")]
pub(super) struct Which {
    /// They came in at this listener.
    #[param(nullable = false)]
    listener: Option<String>,
    /// They belong to this pool.
    #[param(nullable = false)]
    pool: Option<String>,
    /// They are on a backend of this name.
    #[param(nullable = false)]
    backend: Option<String>,
    /// They come from this address (`10.0.0.7`), network (`10.0.0.0/8`), or address and port (`10.0.0.7:40000`,
    /// `[2001:db8::7]:40000`).
    #[param(
        nullable = false,
        pattern = "^((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\
                   (/([12]?\\d|3[0-2])|:[1-9]\\d{0,3})?$"
    )]
    client: Option<String>,
    /// The session with this id.
    #[param(nullable = false, pattern = r"^[0-9]{1,4}-[0-9]{1,9}-[0-9]{1,9}$")]
    id: Option<String>,
    /// So many at most.
    #[param(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Go on where a page ended: its `next`.
    #[param(nullable = false, pattern = r"^[0-9]{1,4}-[0-9]{1,9}$")]
    after: Option<String>,
}

/// Which sessions to end: those for which everything that is given holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub struct CloseRequest {
    /// They came in at this listener.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schema(nullable = false)]
    pub listener: Option<String>,
    /// They belong to this pool.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schema(nullable = false)]
    pub pool: Option<String>,
    /// They are on a backend of this name.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schema(nullable = false)]
    pub backend: Option<String>,
    /// They come from this address, network, or address and port.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schema(
        nullable = false,
        pattern = "^((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\
                   (/([12]?\\d|3[0-2])|:[1-9]\\d{0,3})?$"
    )]
    pub client: Option<String>,
    /// The session with this id.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schema(nullable = false, pattern = r"^[0-9]{1,4}-[0-9]{1,9}-[0-9]{1,9}$")]
    pub id: Option<String>,
}

impl CloseRequest {
    fn filter(self) -> Result<Filter, String> {
        if self == CloseRequest::default() {
            let names = "listener, pool, backend, client or id";
            return Err(format!("say which sessions: give a {names}"));
        }
        Ok(Filter {
            client: self.client.as_deref().map(clients).transpose()?,
            id: self.id.as_deref().map(session_id).transpose()?,
            listener: self.listener,
            pool: self.pool,
            backend: self.backend,
        })
    }
}

/// Sessions that live now, in no order that means anything. Those that begin meanwhile may be missing.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "look", params(Which),
    responses(
        (status = 200, description = "A page of sessions, and `next` if there may be more"),
        (status = 400, description = "No such query"),
        (status = 404, description = "There is no such listener, pool or backend")
    )
)]
pub(super) async fn list(
    State(control): State<Ask>,
    inquiry: Inquiry,
) -> Result<Json<Value>, Refusal> {
    let keys = [
        "listener", "pool", "backend", "client", "id", "limit", "after",
    ];
    let inquiry = inquiry.only(&keys)?;
    let text = |key| inquiry.text(key).map(str::to_owned);
    let filter = Filter {
        listener: text("listener"),
        pool: text("pool"),
        backend: text("backend"),
        client: inquiry.read("client", clients)?,
        id: inquiry.read("id", session_id)?,
    };
    let most = inquiry.read("limit", |text| match text.parse() {
        Ok(most @ 1..=PAGE_MAX) => Ok(most),
        Ok(_) | Err(_) => Err(format!("write a number from 1 to {PAGE_MAX}")),
    })?;
    let (most, first) = (most.unwrap_or(PAGE), inquiry.read("after", cursor)?);
    let mut sweeps = Sweeps::new(control, filter, first.unwrap_or((0, 0)), false);
    let (mut found, begun) = (Vec::new(), Instant::now());
    while found.len() < most && begun.elapsed() < PATIENCE {
        let Some(swept) = sweeps.next(most - found.len()).await? else {
            return Ok(Json(json!({"sessions": found, "next": null})));
        };
        found.extend(swept.sessions.iter().map(written));
    }
    let next = sweeps.at.map(|(worker, place)| format!("{worker}-{place}"));
    Ok(Json(json!({"sessions": found, "next": next})))
}

/// Ends sessions with a reset to both sides; the reason of their end is `operator`. Those that begin meanwhile may go
/// on.
#[utoipa::path(
    post, path = "/v1/sessions/close", tag = "change", request_body = CloseRequest,
    responses(
        (status = 200, description = "How many sessions are ending"),
        (status = 400, description = "No such request"),
        (status = 404, description = "There is no such listener, pool or backend"),
        Denied,
        Unread
    )
)]
pub(super) async fn close(
    State(control): State<Ask>,
    Body(request): Body<CloseRequest>,
) -> Result<Json<Value>, Refusal> {
    let filter = request.filter().map_err(Refusal::bad_request)?;
    let mut sweeps = Sweeps::new(control.clone(), filter, (0, 0), true);
    let mut count = 0;
    while let Some(swept) = sweeps.next(usize::MAX).await? {
        count += swept.count;
    }
    control.tell(Request::Closed {
        filter: sweeps.filter,
        count,
    });
    Ok(Json(json!({"sessions": count})))
}

/// All portions, one after the other.
struct Sweeps {
    control: Ask,
    filter: Arc<Filter>,
    /// The next worker, and the place of its table; none = that was all.
    at: Option<(u16, u32)>,
    ends: bool,
}

impl Sweeps {
    fn new(control: Ask, filter: Filter, first: (u16, u32), ends: bool) -> Sweeps {
        let at = filter.id.map_or(first, |id| (id.worker.0, id.slot));
        Sweeps {
            control,
            filter: Arc::new(filter),
            at: Some(at),
            ends,
        }
    }

    /// The next portion; none if there is none left.
    async fn next(&mut self, most: usize) -> Result<Option<Swept>, Refusal> {
        let Some((worker, from)) = self.at else {
            return Ok(None);
        };
        let portion = Portion {
            filter: Arc::clone(&self.filter),
            worker,
            from,
            most,
            ends: self.ends,
        };
        let asked = |reply| Request::Sweep { portion, reply };
        let swept = self.control.ask(asked).await??;
        self.at = match swept.as_ref().map(|swept| swept.next) {
            None => None,
            Some(Some(place)) => Some((worker, place)),
            Some(None) if self.filter.id.is_some() => None,
            Some(None) => worker.checked_add(1).map(|next| (next, 0)),
        };
        Ok(swept)
    }
}

fn written(session: &SessionFacts) -> Value {
    json!({
        "id": session.id.to_string(),
        "listener": &*session.listener,
        "client": session.client.map(|client| client.to_string()),
        "pool": &*session.pool,
        "backend": session.backend.as_deref(),
        "state": session.state,
        "age_seconds": session.age.as_secs_f64(),
        "idle_seconds": session.quiet.as_secs_f64(),
        "bytes_to_backend": session.to_backend,
        "bytes_to_client": session.to_client,
        "failed_connects": session.failed_connects,
    })
}

fn clients(text: &str) -> Result<Clients, String> {
    let network = || text.parse::<IpNet>().ok().map(Clients::Network);
    let address = || {
        let address = text.parse::<IpAddr>().ok();
        address.map(|address| Clients::Network(address.into()))
    };
    let one = text.parse::<SocketAddr>().ok().map(Clients::One);
    one.or_else(network).or_else(address).ok_or_else(|| {
        "write 10.0.0.7, 10.0.0.0/8, 10.0.0.7:40000 or [2001:db8::7]:40000".to_owned()
    })
}

fn session_id(text: &str) -> Result<SessionId, String> {
    let mut parts = text.split('-').map(|part| part.parse::<u32>().ok());
    let mut read = || -> Option<SessionId> {
        let id = SessionId {
            worker: WorkerId(u16::try_from(parts.next()??).ok()?),
            slot: parts.next()??,
            generation: parts.next()??,
        };
        parts.next().is_none().then_some(id)
    };
    read().ok_or_else(|| "write it as a page of sessions shows it, as in 0-17-3".to_owned())
}

fn cursor(text: &str) -> Result<(u16, u32), String> {
    let read = || {
        let (worker, place) = text.split_once('-')?;
        Some((worker.parse().ok()?, place.parse().ok()?))
    };
    read().ok_or_else(|| "write the `next` of the page before".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_an_address_a_network_or_one_port() {
        for (text, expected) in [
            ("10.0.0.7", "10.0.0.7/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("10.0.0.7:4000", "10.0.0.7:4000"),
            ("[2001:db8::7]:4000", "[2001:db8::7]:4000"),
        ] {
            let found = match clients(text).unwrap() {
                Clients::Network(network) => network.to_string(),
                Clients::One(address) => address.to_string(),
            };
            assert_eq!(found, expected);
        }
        for text in ["", "localhost", "10.0.0", "10.0.0.0/33", "10.0.0.7:x"] {
            assert!(clients(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ids_and_cursors_come_back_as_they_were_written() {
        let id = session_id("3-17-4").unwrap();
        assert_eq!(id.to_string(), "3-17-4");
        for text in ["", "3", "3-17", "3-17-4-5", "70000-1-1", "-1-1-1", "a-b-c"] {
            assert!(session_id(text).is_err(), "{text}");
        }
        assert_eq!(cursor("3-2048"), Ok((3, 2048)));
        assert!(cursor("3").is_err());
    }
}
