//! What HAProxy, nginx, keepalived and Envoy call the things that the file has, so that somebody who comes from there
//! is told the word. It decides nothing: no such word is accepted.

use super::report::{Problem, nearest};

/// Words that other software uses for the same thing; a word may stand for several.
const ELSEWHERE: &[(&str, &str)] = &[
    ("leastconn", "least_connections"),
    ("least_conn", "least_connections"),
    ("least_request", "least_connections"),
    ("lc", "least_connections"),
    ("roundrobin", "round_robin"),
    ("rr", "round_robin"),
    ("wrr", "round_robin"),
    ("maglev", "hash"),
    ("ring_hash", "hash"),
    ("ip_hash", "hash"),
    ("source_hash", "hash"),
    ("ip", "source_ip"),
    ("frontend", "listeners"),
    ("frontends", "listeners"),
    ("upstreams", "pools"),
    ("clusters", "pools"),
    ("backends", "pools"),
    ("upstream", "pool"),
    ("upstream", "pools"),
    ("cluster", "pool"),
    ("backend", "pool"),
    ("backend", "backends"),
    ("backend_pool", "pool"),
    ("default_backend", "pool"),
    ("proxy_pass", "pool"),
    ("server", "backends"),
    ("servers", "backends"),
    ("server", "address"),
    ("real_server", "backends"),
    ("endpoints", "backends"),
    ("lb_endpoints", "backends"),
    ("targets", "backends"),
    ("nodes", "backends"),
    ("members", "backends"),
    ("host", "address"),
    ("addr", "address"),
    ("ip", "address"),
    ("url", "address"),
    ("port", "address"),
    ("listen", "bind"),
    ("address", "bind"),
    ("maxconn", "max_sessions"),
    ("max_conns", "max_sessions"),
    ("max_connections", "max_sessions"),
    ("worker_connections", "max_sessions"),
    ("algorithm", "balance"),
    ("lb_policy", "balance"),
    ("lb_algo", "balance"),
    ("least_conn", "balance"),
    ("check", "probe"),
    ("checks", "probe"),
    ("health_check", "probe"),
    ("health_checks", "probe"),
    ("healthcheck", "probe"),
    ("option", "probe"),
    ("inter", "interval"),
    ("outlier_detection", "passive"),
    ("max_fails", "failures"),
    ("fail_timeout", "retry_after"),
    ("nbthread", "workers"),
    ("threads", "workers"),
    ("concurrency", "workers"),
    ("worker_processes", "workers"),
    ("timeout", "timeouts"),
    ("connect_timeout", "connect"),
    ("proxy_connect_timeout", "connect"),
    ("idle_timeout", "idle"),
    ("proxy_timeout", "idle"),
    ("client", "idle"),
    ("mode", "protocol"),
    ("tcp_check", "send_expect"),
    ("httpchk", "http"),
    ("logging", "log"),
    ("warning", "warn"),
    ("err", "error"),
    ("vrrp_instance", "vrrp"),
    ("virtual_router", "vrrp"),
    ("keepalived", "vrrp"),
    ("disabled", "maintenance"),
    ("disabled", "state"),
    ("down", "maintenance"),
    ("down", "state"),
    ("up", "ready"),
];

/// What other software's word stands for here.
pub(super) fn translated(name: &str) -> impl Iterator<Item = &'static str> {
    let plain = name.to_lowercase().replace('-', "_");
    let pairs = ELSEWHERE
        .iter()
        .filter(move |(elsewhere, _)| *elsewhere == plain);
    pairs.map(|(_, here)| *here)
}

/// With what was most likely meant: the same thing by another name, else what is spelt like it.
pub(super) fn meant(problem: Problem, name: &str, known: &[&str]) -> Problem {
    let mut problem = problem;
    problem.nearest = translated(name)
        .find(|here| known.contains(here))
        .map(str::to_owned)
        .or_else(|| nearest(name, known.iter().copied()));
    problem
}
