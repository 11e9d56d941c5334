//! What Prometheus and whoever watches the process ask for: `/metrics`, `/healthz` and `/readyz`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, http::Uri};

use super::{Ask, Refusal, Request};
use crate::metrics::exposition::Samples;
use crate::metrics::list::Metric;
use crate::sys::usage::{self, Usage};

/// What the threads of the workers are called, before their number.
pub const WORKER_THREADS: &str = "worker-";

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// These and nothing else.
pub(super) fn router(control: Ask) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(unknown)
        .with_state(control)
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(format!(
        "there is no {}; there are /metrics, /healthz and /readyz",
        uri.path()
    ))
}

/// Control collects the numbers; writing them takes a while, and happens beside it.
pub(super) async fn metrics(
    State(control): State<Ask>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let mut samples = control.ask(Request::Samples).await?;
    let accepted = headers.get_all(header::ACCEPT).iter();
    let is_open = accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/openmetrics-text"));
    let written = tokio::task::spawn_blocking(move || {
        add_usage(&mut samples);
        if is_open {
            samples.open_metrics()
        } else {
            samples.plain()
        }
    });
    let text = written.await.map_err(|_| Refusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        message: "the metrics could not be written".to_owned(),
    })?;
    let kind = if is_open { OPEN_METRICS } else { PLAIN };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Whether it is alive: control answers.
pub(super) async fn healthz(State(control): State<Ask>) -> Result<&'static str, Refusal> {
    control.ask(Request::Phase).await.map(|_| "alive\n")
}

/// Whether it lets clients in.
pub(super) async fn readyz(State(control): State<Ask>) -> Result<(StatusCode, String), Refusal> {
    let phase = control.ask(Request::Phase).await?;
    let status = match phase {
        "serving" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok((status, format!("{phase}\n")))
}

fn add_usage(samples: &mut Samples) {
    let used = Usage::now();
    if let Some(cpu) = used.cpu {
        samples.add_seconds(Metric::ProcessCpu, [], cpu.as_secs_f64());
    }
    for (metric, value) in [
        (Metric::ProcessResident, used.resident),
        (Metric::ProcessVirtual, used.address_space),
        (Metric::ProcessFds, used.files),
        (Metric::ProcessFdsMax, used.files_max),
        (Metric::ProcessThreads, used.threads),
    ] {
        if let Some(value) = value {
            samples.add(metric, [], value);
        }
    }
    for (worker, busy) in usage::of_threads(WORKER_THREADS) {
        let worker = std::sync::Arc::<str>::from(worker.to_string());
        samples.add_seconds(Metric::WorkerBusy, [(&worker).into()], busy.as_secs_f64());
    }
}
