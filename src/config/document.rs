//! The file as written: every key with its kind, its default and its meaning. What the values mean together is
//! [`super::resolve`]'s business.

use super::address::{BackendAt, HttpAddress, ListenOn, Source};
use super::items::Items;
use super::kind::{
    Auto, List, Named, NotYet, Nothing, Number, Off, OneOrMore, Optional, Or, Text, words,
};
use super::section::section;
use super::units::{
    AccessTo, Bytes, DnsName, FilePath, HttpHost, HttpPath, MILLISECOND, Name, Pattern, Period,
    SECOND, Size, SocketPath, Statuses, Steps,
};
use super::virtual_router::VirtualRouter;
use super::yaml::{Node, Value};
use crate::balance::{Algorithm, HashKey};
use crate::control::snapshot::{OnDown, OnUp, OperatorState, Protocol, WhenEmpty};
use crate::health::dns::{DnsCode, DnsType};

section! {
    /// The configuration of Ringway.
    pub(super) struct Document {
        /// Version of the format.
        version: Number<1, 1> = "1",
        /// What concerns the whole process. A reload takes over `drain_timeout`; the others need a restart.
        global: Global = "{}",
        /// What is logged, and how. A reload takes over `level`; the others need a restart.
        log: Log = "{}",
        /// How a running process is talked to. A change needs a restart.
        admin: Admin = "{}",
        /// Keys that all listeners or all pools inherit. A key of the listener or pool itself wins; maps are merged.
        /// What fits only another choice than its own is not inherited: a pool with `probe: tcp` takes nothing over
        /// that is for `http`, one with `probe: none` nothing of a probe, a listener with `split` no `pool`. An
        /// inherited key that has no effect in one of them is not warned of.
        defaults: Defaults = "{}",
        /// Where clients connect to.
        listeners: List<Listener>,
        /// Groups of backends, by name.
        pools: Named<Pool>,
        /// Virtual routers: addresses that move between nodes. A reload takes over `priority`, `preempt`,
        /// `preempt_delay`, `addresses`, `lease`, `track`, `notify`, `progress_timeout` and, in version 3,
        /// `advert_interval`; the others need a restart.
        vrrp: Items<VirtualRouter> = "[]",
    }
}

section! {
    /// What concerns the whole process.
    pub(super) struct Global {
        /// Data-plane threads; `auto` is as many as CPUs that the process may run on.
        workers: Or<Auto, Number<1, 256>> = "auto",
        /// Keep each worker on a CPU of its own.
        pin_workers: bool = "true",
        /// Most sessions of the whole process; `auto` is what RLIMIT_NOFILE allows. At the limit, clients
        /// wait in the kernel's backlog.
        max_sessions: Or<Auto, Number<1, 16_777_216>> = "auto",
        /// Most UDP flows of the whole process; each worker has an equal share. `auto` is a share of what RLIMIT_NOFILE
        /// and the ports for connections to backends allow. At least an eighth of the ports is left to others (the
        /// resolver, NTP, probes); a number that leaves them fewer is warned of. At the limit, the oldest flow whose
        /// client has not shown that it gets answers makes room for a new one.
        max_flows: Or<Auto, Number<1, 16_777_216>> = "auto",
        /// Bound for all splice pipes and all held data together; at least 1MiB.
        pipe_memory: Size = "256MiB",
        /// How long a graceful stop waits for sessions before it resets them.
        drain_timeout: Or<Nothing, Period> = "30s",
        /// Name or number of the user to become before listeners open; only the capabilities that the file needs are
        /// kept. `none` stays whoever started it. Anybody but root can only name the user that runs it.
        user: Or<Nothing, Text> = "none",
    }
}

words! {
    /// What is worth a log line.
    pub enum LogLevel("level") {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

words! {
    /// How a log line is written.
    pub enum LogFormat("format") {
        Text = "text",
        Json = "json",
    }
}

section! {
    /// What is logged, and how. One line per event on standard output.
    pub(super) struct Log {
        /// The least important lines that are written; the variable RINGWAY_LOG overrides it.
        level: LogLevel = "info",
        /// Lines of text, or one JSON object per line.
        format: LogFormat = "text",
        /// A line for each session and each UDP flow that ended: `stdout`, among the others, or the whole path of a
        /// file. A file that was renamed or removed is begun anew. Lines that nobody takes in time are dropped and
        /// counted.
        access: Or<Off, AccessTo> = "off",
    }
}

section! {
    /// How a running process is talked to.
    pub(super) struct Admin {
        /// Unix socket with HTTP and JSON: what `ringway status` and `ringway backend` talk to. Who may write
        /// to it may change everything that can be changed while it runs.
        socket: Or<Off, AdminSocket> = "/run/ringway/admin.sock",
        /// Address of the API for other programs. It only shows, unless there is a token.
        http: Or<Off, AdminHttp> = "off",
        /// Address with only /metrics, /healthz and /readyz, which may face the network, as in `0.0.0.0:9902`.
        metrics: Or<Off, HttpAddress> = "off",
        /// File that keeps what the operator changed while it ran (`ringway backend`), so that it holds after a
        /// restart; `auto` is `state.json` in the folder that the service manager gives (StateDirectory=), or none.
        state_file: Or<Auto, Or<Off, FilePath>> = "auto",
    }
}

section! {
    /// The unix socket of the API. Its owner and its group may use it (mode 0660).
    pub(super) struct AdminSocket short path {
        /// Where it is.
        path: SocketPath = "/run/ringway/admin.sock",
        /// Name or number of the user that it belongs to; `none` is the one that Ringway runs as.
        owner: Or<Nothing, Text> = "none",
        /// Name or number of the group whose members may use it, too; `none` is Ringway's own.
        group: Or<Nothing, Text> = "none",
    }
}

section! {
    /// The API over TCP.
    pub(super) struct AdminHttp short address {
        /// `127.0.0.1:9901` or `"[::1]:9901"`. Another address than a loopback one needs `token_file` and `tls`.
        address: HttpAddress,
        /// File with the token that changes need, as `Authorization: Bearer TOKEN`: 16 to 1024 printable ASCII
        /// characters; white space around it does not count. Without it nothing can be changed over TCP.
        token_file: Or<Nothing, FilePath> = "none",
        /// Encryption; without it the API speaks plain HTTP.
        tls: Or<Nothing, AdminTls> = "none",
    }
}

section! {
    /// Certificate and key of the API over TCP.
    pub(super) struct AdminTls {
        /// File with the certificate and those that lead to its issuer, in PEM.
        cert: FilePath,
        /// File with the private key, in PEM.
        key: FilePath,
    }
}

section! {
    /// Keys that all listeners or all pools inherit.
    pub(super) struct Defaults {
        /// Any keys of a listener.
        listener: Inherited<Listener> = "{}",
        /// Any keys of a pool.
        pool: Inherited<Pool> = "{}",
    }
}

words!(impl Protocol, "protocol" {
    Tcp = "tcp",
    Udp = "udp",
});

words!(impl WhenEmpty, "choice" {
    Refuse = "refuse",
    Reset = "reset",
    Drop = "drop",
});

section! {
    /// An address that clients connect to, and where their sessions go.
    pub(super) struct Listener {
        /// What it is called; the address unless given.
        name: Optional<Name>,
        /// Where it listens: an address, or a list.
        bind: OneOrMore<Bind>,
        /// What it speaks.
        protocol: Protocol = "tcp",
        /// The pool that its sessions go to. Either this or `split`.
        pool: Optional<Text>,
        /// Several pools with weights, instead of `pool`: `[{pool: blue, weight: 95}, {pool: green, weight: 5}]`. The
        /// `keepalive` towards clients is that of the first.
        split: Optional<List<Share>>,
        /// When no backend is usable: `refuse` lets the kernel refuse connects, so that clients with several
        /// addresses move on at once; `reset` accepts and resets, as a unix socket always does. For UDP, `refuse` lets
        /// the kernel answer with ICMP port unreachable, `drop` answers nothing.
        when_empty: WhenEmpty = "refuse",
        /// Most sessions of this listener. TCP only.
        max_sessions: Or<Nothing, Number<1, 16_777_216>> = "none",
        /// Connections that the kernel keeps until they are accepted; net.core.somaxconn bounds it. TCP only.
        backlog: Number<1, 1_048_576> = "4096",
        /// PROXY protocol from clients.
        proxy_protocol: NotYet,
        /// Networks that may connect.
        allow: NotYet,
        /// Networks that may not connect.
        deny: NotYet,
        /// Limits for each client address.
        per_source: NotYet,
        /// TLS towards clients.
        tls: NotYet,
        /// Pools by the name that a TLS client asks for.
        sni: NotYet,
    }
}

words! {
    /// Whether to bind an address that this host does not have (yet).
    pub(super) enum Freebind("choice") {
        Auto = "auto",
        On = "true",
        Off = "false",
    }
}

section! {
    /// An address of a listener.
    pub(super) struct Bind short address {
        /// `10.0.0.1:5432`, `"[2001:db8::1]:5432"`, `"*:5432"` for every address of the host,
        /// `10.0.0.1:6000-6009` for a range of ports, or `unix:/run/x.sock`.
        address: ListenOn,
        /// What happens when this host does not have the address (yet): `auto` and `true` bind it all the same, so
        /// that clients are served as soon as the host has it, `auto` with a warning in the log unless the address
        /// is a virtual one of this file; `false` does not start.
        freebind: Freebind = "auto",
    }
}

section! {
    /// One of several pools of a listener.
    pub(super) struct Share {
        /// The pool.
        pool: Text,
        /// Its part of the sessions, relative to the others' weights.
        weight: Number<0, 256> = "1",
    }
}

words!(impl Algorithm, "balancing algorithm" {
    LeastConnections = "least_connections",
    RoundRobin = "round_robin",
    Random = "random",
    Hash = "hash",
    LeastTime = "least_time",
    First = "first",
});

words!(impl HashKey, "choice" {
    SourceIp = "source_ip",
    Source = "source",
});

words!(impl OperatorState, "state" {
    Ready = "ready",
    Drain = "drain",
    Maintenance = "maintenance",
});

words!(impl OnDown, "choice" {
    CloseSilent = "close_silent",
    Close = "close",
    Keep = "keep",
});

words!(impl OnUp, "choice" {
    Keep = "keep",
    CloseBackup = "close_backup",
});

section! {
    /// A group of backends with a balancing algorithm and a probe.
    pub(super) struct Pool short backends {
        /// Who gets the next session.
        balance: Algorithm = "least_connections",
        /// What `balance: hash` hashes: the client's address, or its address and port.
        hash_key: HashKey = "source_ip",
        /// The backends, each an address or a map; a plain list of them is the short form of a pool.
        backends: List<Backend>,
        /// How backends are probed.
        probe: Probe = "{}",
        /// What failed connects of sessions say about a backend.
        passive: Passive = "{}",
        /// Sessions of a backend that goes down: `close_silent` ends those on which it has said nothing since
        /// the first failed probe or connect, `close` all of them, `keep` none.
        on_down: OnDown = "close_silent",
        /// When a normal backend comes back: `close_backup` ends sessions on backup backends.
        on_up: OnUp = "keep",
        /// Other backends tried when a connect fails; no byte of the client is lost.
        retries: Number<0, 7> = "2",
        /// A backend that comes up gets its full share only after so long.
        slow_start: Or<Nothing, Period> = "10s",
        /// Longest life of sessions on a backend that left the file, or that the operator has told to drain or taken
        /// into maintenance, from that moment on.
        drain_timeout: Or<Nothing, Period> = "none",
        /// How long a session may wait for what.
        timeouts: Timeouts = "{}",
        /// TCP keepalive towards clients and backends: how a peer that vanished is noticed.
        keepalive: Keepalive = "{}",
        /// Addresses of this host that connections to backends come from, without ports, and at least one of each
        /// family that backends have; the kernel chooses unless given, and for a host name that resolves to an
        /// address of another family. They take turns; each has all ports of `net.ipv4.ip_local_port_range` for each
        /// backend address. A session that finds no free port at any backend is reset at once (`out_of_resources`).
        /// A port whose connection we closed first is free again after a minute (TIME_WAIT), with
        /// `net.ipv4.tcp_tw_reuse=1` after a second.
        source: Or<Nothing, OneOrMore<Source>> = "none",
        /// When a UDP flow, which is a client's address bound to a backend, ends.
        udp: Udp = "{}",
        /// Sessions that wait for a backend.
        queue: NotYet,
        /// PROXY protocol towards backends.
        send_proxy_protocol: NotYet,
        /// Limits for each client.
        limits: NotYet,
    }
}

section! {
    /// One address in a pool.
    pub(super) struct Backend short address {
        /// What it is called, unique in its pool; the address unless given.
        name: Optional<Name>,
        /// `10.0.0.11:5432`, `"[2001:db8::11]:5432"`, `unix:/run/x.sock`, or a host name with a port:
        /// resolved while running, down until then.
        address: BackendAt,
        /// Its part of the sessions, relative to the others' weights; 0 takes no new ones.
        weight: Number<0, 256> = "1",
        /// Used only when no other backend is usable.
        backup: bool = "false",
        /// Most sessions on it; UDP flows count, too.
        max_sessions: Or<Nothing, Number<1, 16_777_216>> = "none",
        /// What the operator says: `drain` takes no new sessions, `maintenance` neither and is not probed.
        state: OperatorState = "ready",
    }
}

words! {
    /// What a probe does.
    pub(super) enum ProbeType("type of probe") {
        Tcp = "tcp",
        Http = "http",
        SendExpect = "send_expect",
        Dns = "dns",
        None = "none",
    }
    later "tls", "postgres", "mysql", "redis", "agent"
}

section! {
    /// How backends are probed.
    pub(super) struct Probe short type {
        /// `tcp` connects, `http` asks for a page, `send_expect` sends a text and waits for another, `dns` asks a
        /// name server over UDP, `none` leaves it to the sessions' own connects. `auto` is `tcp`, and `none` for a pool
        /// that only UDP listeners lead to; `send_expect` speaks UDP there.
        r#type: Or<Auto, ProbeType> = "auto",
        /// Another port than the backend's.
        port: Or<Nothing, Number<1, 65_535>> = "none",
        /// Address of this host that probes come from.
        source: Or<Nothing, Source> = "none",
        /// From one probe to the next; at least 10ms, as the two that follow.
        interval: Period = "2s",
        /// The same while the state is changing, and at once after a failed connect; `auto` is 500ms, or `interval` if
        /// that is shorter.
        fast_interval: Or<Auto, Period> = "auto",
        /// The same while the backend is down.
        down_interval: Period = "2s",
        /// An answer that takes longer is a failure; at most `interval`. `auto` is 1s, or `interval` if that is
        /// shorter.
        timeout: Or<Auto, Period> = "auto",
        /// So many successes in a row bring a backend up.
        rise: Number<1, 1000> = "2",
        /// So many failures in a row take it down.
        fall: Number<1, 1000> = "3",
        /// For the type `http`.
        http: HttpProbe = "{}",
        /// For `send_expect`: what is sent once connected. Escapes: `\r`, `\n`, `\t`, `\0`, `\\` and `\x00` to
        /// `\xff`; in double quotes YAML itself resolves them, in single quotes it does not.
        send: Or<Nothing, Bytes> = "none",
        /// For `send_expect`: what the answer has to contain, a text (with the same escapes) or
        /// `/an expression/`.
        expect: Or<Nothing, Pattern> = "none",
        /// For the type `dns`.
        dns: DnsProbe = "{}",
    }
}

words! {
    /// The method of an HTTP probe.
    pub(super) enum HttpMethod("method") {
        Get = "GET",
        Head = "HEAD",
        Options = "OPTIONS",
    }
}

section! {
    /// What an HTTP probe asks for and accepts.
    pub(super) struct HttpProbe {
        /// Path and query.
        path: HttpPath = "/",
        /// The method.
        method: HttpMethod = "GET",
        /// Statuses that are a success: `200`, `200-399` or `200,204`.
        status: Statuses = "200-399",
        /// The Host header; the backend's address unless given.
        host: Or<Nothing, HttpHost> = "none",
        /// What the body has to contain, a text or `/an expression/`.
        body: Or<Nothing, Pattern> = "none",
    }
}

words!(impl DnsType, "record type" {
    A = "A",
    Aaaa = "AAAA",
    Cname = "CNAME",
    Mx = "MX",
    Ns = "NS",
    Ptr = "PTR",
    Soa = "SOA",
    Srv = "SRV",
    Txt = "TXT",
});

words!(impl DnsCode, "response code" {
    NoError = "NOERROR",
    FormErr = "FORMERR",
    ServFail = "SERVFAIL",
    NxDomain = "NXDOMAIN",
    NotImp = "NOTIMP",
    Refused = "REFUSED",
});

section! {
    /// What a DNS probe asks for and accepts.
    pub(super) struct DnsProbe {
        /// The name that is asked for; a dot is the root.
        name: DnsName = ".",
        /// The type of record.
        r#type: DnsType = "NS",
        /// The response codes that are a success.
        rcodes: List<DnsCode> = "[\"NOERROR\", \"NXDOMAIN\"]",
    }
}

section! {
    /// When UDP flows end.
    pub(super) struct Udp {
        /// Without a datagram in either direction.
        idle: Period = "30s",
        /// So many datagrams of the client; the next one begins another flow, for which a backend is picked anew. With
        /// 1 each datagram is balanced.
        requests: Or<Nothing, Number<1, 1_000_000_000>> = "none",
        /// So many datagrams of the backend for each of the client, after which nothing is waited for. With 1 a flow
        /// ends with its answer, which suits DNS and RADIUS; with 0 none is expected, which suits syslog.
        responses: Or<Nothing, Number<0, 1_000_000>> = "none",
    }
}

section! {
    /// What failed connects of sessions, and UDP datagrams that a backend refused, say about it.
    pub(super) struct Passive {
        /// So many in a row take it down, unless a probe succeeds or it is the last usable one; `none`
        /// switches it off.
        failures: Or<Nothing, Number<1, 1_000_000>> = "3",
        /// How long it stays down then when it is not probed.
        retry_after: Period = "10s",
    }
}

section! {
    /// How long a session may wait for what.
    pub(super) struct Timeouts {
        /// For a backend to accept a connect.
        connect: Period = "5s",
        /// Without a byte in either direction.
        idle: Or<Nothing, Period> = "none",
        /// Without a byte after one side has closed.
        half_close: Or<Nothing, Period> = "1h",
        /// Longest life of a session.
        session: Or<Nothing, Period> = "none",
    }
}

/// In milliseconds: 24 days; the kernel takes an int.
const USER_TIMEOUT_MAX: u64 = 24 * 86_400_000;

section! {
    /// TCP keepalive.
    pub(super) struct Keepalive {
        /// Silence before the first question, 1s to 32767s in whole seconds.
        idle: Steps<SECOND, 1, 32_767> = "60s",
        /// From one question to the next, 1s to 32767s in whole seconds.
        interval: Steps<SECOND, 1, 32_767> = "10s",
        /// Questions without an answer until the peer counts as gone.
        count: Number<1, 127> = "6",
        /// A peer that acknowledges nothing for so long counts as gone, 1ms to 24d in whole milliseconds; it overrides
        /// `count`.
        user_timeout: Or<Nothing, Steps<MILLISECOND, 1, USER_TIMEOUT_MAX>> = "none",
    }
}

pub(super) use inherited::Inherited;

/// A part of a section: what it lacks, those that inherit it have to have.
mod inherited {
    use std::marker::PhantomData;

    use serde_json::{Map, Value as Json, json};

    use super::super::kind::{Kind, Reader};
    use super::super::section::nothing_required;
    use super::{Node, Value};

    #[derive(Clone, Debug, PartialEq)]
    pub(in crate::config) struct Inherited<T>(PhantomData<T>);

    impl<T: Kind> Kind for Inherited<T> {
        const MAP: bool = true;

        fn knows(key: &str) -> bool {
            T::knows(key)
        }

        fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
            match node.value {
                Value::Map(_) | Value::Null => {
                    // What is wrong with it has been reported, and those that inherit it are wrong, too.
                    let _ = reader.with_parts_missing(true, |reader| T::read(node, reader));
                    Some(Inherited(PhantomData))
                }
                Value::Scalar(_) | Value::List(_) => {
                    reader.expected(node, &Self::expected());
                    None
                }
            }
        }

        fn schema() -> Json {
            let mut schema = T::schema();
            let forms = schema.get_mut("anyOf").and_then(Json::as_array_mut);
            if let Some(long) = forms.and_then(Vec::pop) {
                schema = long;
            }
            parts_missing(&mut schema);
            schema
        }

        fn expected() -> String {
            "a map of keys to inherit".to_owned()
        }

        fn write(&self) -> Json {
            json!(Map::new())
        }
    }

    /// What stands in a list is complete; all else may lack any key.
    fn parts_missing(schema: &mut Json) {
        if schema.get("required").is_some() {
            nothing_required(schema);
        }
        let Some(object) = schema.as_object_mut() else {
            return;
        };
        for (key, part) in object {
            match (key.as_str(), part) {
                ("anyOf", Json::Array(forms)) => forms.iter_mut().for_each(parts_missing),
                ("properties", Json::Object(keys)) => keys.values_mut().for_each(parts_missing),
                _ => {}
            }
        }
    }
}
