//! What HAProxy, nginx, keepalived and Envoy call the things that the file has, so that somebody who comes from there
//! is told the word, and what to say of things that work differently here. It decides nothing: no such word is
//! accepted.

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
    ("source", "hash"),
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
    ("hostname", "address"),
    ("host", "bind"),
    ("ip", "bind"),
    (PORT, "address"),
    (PORT, "bind"),
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
    ("server", "idle"),
    ("tunnel", "idle"),
    ("timeout_connect", "connect"),
    ("timeout_client", "idle"),
    ("timeout_server", "idle"),
    ("timeout_tunnel", "idle"),
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
    ("off", "none"),
    ("no", "none"),
    ("false", "none"),
    ("never", "none"),
    ("infinity", "none"),
    ("infinite", "none"),
    ("unlimited", "none"),
    ("disabled", "none"),
    ("none", "off"),
    ("no", "off"),
    ("disabled", "off"),
];

/// The key that names something in a list.
pub(super) const NAME: &str = "name";
/// What others write apart from the address that it belongs to.
pub(super) const PORT: &str = "port";

const PROXY: &str = "the PROXY protocol is not supported yet: leave it out";
const TLS: &str = "TLS passes through untouched, and backends end it: leave it out";
const OUTPUT: &str = "lines go to standard output; the journal keeps them where systemd runs it";
const FOREGROUND: &str =
    "it runs in the foreground; a service manager such as systemd keeps it running";

/// Keys of other software for which there is nothing here, and why.
const REMARKS: &[(&str, &str)] = &[
    ("send_proxy", PROXY),
    ("send_proxy_v2", PROXY),
    ("accept_proxy", PROXY),
    ("proxy_protocol", PROXY),
    ("send_proxy_protocol", PROXY),
    ("ssl", TLS),
    ("ssl_certificate", TLS),
    ("crt", TLS),
    ("cert", TLS),
    ("certificate", TLS),
    ("tls", TLS),
    ("file", OUTPUT),
    ("log_file", OUTPUT),
    ("logfile", OUTPUT),
    ("access_log", OUTPUT),
    ("error_log", OUTPUT),
    ("daemon", FOREGROUND),
    ("daemonize", FOREGROUND),
    ("background", FOREGROUND),
];

const POSTGRES: &str = "`tcp` sees whether it listens, \
                        `type: http` with Patroni's `port` sees whether it is the primary";
const REDIS: &str =
    "`type: send_expect` asks it, as in \"PING\\r\\n\" and \"+PONG\": conf/redis.yaml has one";
const LEFT_OUT: &str = "leave `probe` out: `tcp` is the default";

/// Words for a value, by what it is, that are no word for it here, and what to write.
const ADVICE: &[(&str, &str, &str)] = &[
    ("type of probe", "postgres", POSTGRES),
    ("type of probe", "postgresql", POSTGRES),
    ("type of probe", "pgsql", POSTGRES),
    ("type of probe", "redis", REDIS),
    ("type of probe", "on", LEFT_OUT),
    ("type of probe", "yes", LEFT_OUT),
    ("type of probe", "true", LEFT_OUT),
];

const SPLIT: &str = "split: [{pool: blue, weight: 95}, {pool: green, weight: 5}]";

/// How values are written, by their path in the reference page.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("global", &["global: {workers: 4}"]),
    ("log", &["log: {level: debug}"]),
    ("admin", &["admin: {socket: /run/ringway/admin.sock}"]),
    ("defaults", &["defaults: {pool: {balance: round_robin}}"]),
    ("listeners", &["listeners: [{bind: \"*:5432\", pool: pg}]"]),
    ("listeners.pool", &["pool: pg", SPLIT]),
    ("listeners.split", &[SPLIT]),
    ("pools", &["pools: {pg: [10.0.0.11:5432, 10.0.0.12:5432]}"]),
    ("pools.NAME.timeouts", &["timeouts: {idle: 1h}"]),
    ("pools.NAME.keepalive", &["keepalive: {idle: 60s}"]),
    ("pools.NAME.passive", &["passive: {failures: 3}"]),
    ("pools.NAME.probe.http", &["http: {path: /health}"]),
];

/// A word in small letters, and its parts joined as here.
fn plain(word: &str) -> String {
    word.trim().to_lowercase().replace(['-', ' '], "_")
}

/// What to say of a key for which there is nothing here.
pub(super) fn remark(key: &str) -> Option<&'static str> {
    let key = plain(key);
    let mut remarks = REMARKS.iter().filter(|(elsewhere, _)| *elsewhere == key);
    remarks.next().map(|(_, remark)| *remark)
}

/// What to write for a word that is none of those of a value.
pub(super) fn advice(what: &str, word: &str) -> Option<String> {
    let plain = plain(word);
    let mut known = ADVICE
        .iter()
        .filter(|(of, word, _)| *of == what && *word == plain);
    match (known.next(), word.split_once("://")) {
        (Some((_, _, advice)), _) => Some((*advice).to_owned()),
        (None, Some(("http", rest))) if what == "type of probe" => {
            let (at, path) = rest.split_once('/').unwrap_or((rest, ""));
            let port = at.rsplit_once(':').map_or("80", |(_, port)| port);
            Some(format!(
                "write {{type: http, port: {port}, http: {{path: /{path}}}}}"
            ))
        }
        (None, _) => None,
    }
}

/// How a value is written.
pub(super) fn example(path: &str) -> Option<String> {
    let mut examples = EXAMPLES.iter().filter(|(of, _)| *of == path);
    examples
        .next()
        .map(|(_, forms)| format!("as in `{}`", forms.join("` or `")))
}

/// What other software's word stands for here.
pub(super) fn translated(name: &str) -> impl Iterator<Item = &'static str> {
    let plain = plain(name);
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
