//! Who is compared: programs, the configurations written for them, and how they are started.
//!
//! Everybody gets the same: one worker, no logging, the same time limits, keepalive 60 s / 10 s / 6 on both sides
//! (nginx can only switch it on towards backends; there the times are those of the network namespace).

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Outcome;
use crate::machine::first_line;
use crate::process::Balancer;
use crate::spec::Ports;

/// Where balancers listen.
pub(crate) const LISTEN: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// File descriptors that everybody may have open, if the machine lets us.
const DESCRIPTORS: u64 = 65_536;

/// How long a balancer may take to start.
const START: Duration = Duration::from_secs(10);

/// One contender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Ringway {
        binary: PathBuf,
        options: &'static [&'static str],
    },
    /// With these options beside everybody's.
    Haproxy {
        splice: &'static [&'static str],
    },
    Nginx,
    Direct,
}

/// The sockets of one turn.
pub(crate) struct Places {
    pub(crate) ports: Ports,
    pub(crate) backends: Vec<Ipv4Addr>,
    /// Whether balancers forward UDP, too.
    pub(crate) udp: bool,
}

impl Peer {
    pub(crate) fn ringway(
        name: &'static str,
        binary: &Path,
        options: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            kind: Kind::Ringway {
                binary: binary.to_owned(),
                options,
            },
        }
    }

    /// The peers that do not depend on what was built.
    pub(crate) fn others() -> [Self; 5] {
        [
            Self {
                name: "haproxy",
                kind: Kind::Haproxy { splice: &[] },
            },
            Self {
                name: "haproxy-splice",
                kind: Kind::Haproxy {
                    splice: &["splice-auto"],
                },
            },
            // Version 2.6 often does not notice by itself that a stream is worth it.
            Self {
                name: "haproxy-forced",
                kind: Kind::Haproxy {
                    splice: &["splice-request", "splice-response"],
                },
            },
            Self {
                name: "nginx",
                kind: Kind::Nginx,
            },
            Self::direct(),
        ]
    }

    /// No balancer.
    pub(crate) fn direct() -> Self {
        Self {
            name: "direct",
            kind: Kind::Direct,
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Ringway { .. })
    }

    pub(crate) fn speaks_udp(&self) -> bool {
        !matches!(self.kind, Kind::Haproxy { .. })
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.kind == Kind::Direct
    }

    /// The program's own word on its version; none for `direct`.
    pub(crate) fn version(&self) -> Option<String> {
        match &self.kind {
            Kind::Ringway { binary, .. } => Some(first_line(Command::new(binary).arg("--version"))),
            Kind::Haproxy { .. } => Some(first_line(Command::new("haproxy").arg("-v"))),
            Kind::Nginx => Some(first_line(Command::new("nginx").arg("-v"))),
            Kind::Direct => None,
        }
    }

    /// Starts it and waits until it accepts; none for `direct`. Its files go to `folder`.
    pub(crate) fn start(
        &self,
        folder: &Path,
        places: &Places,
        nice: i8,
    ) -> Outcome<Option<Balancer>> {
        let file = folder.join(format!("{}.conf", self.name));
        let path = file.display().to_string();
        let (program, arguments, configuration) = match &self.kind {
            Kind::Direct => return Ok(None),
            Kind::Ringway { binary, options } => {
                let fixed = ["run", "-c", &path]
                    .into_iter()
                    .chain(options.iter().copied());
                (
                    binary.clone(),
                    fixed.map(str::to_owned).collect(),
                    ringway(places),
                )
            }
            Kind::Haproxy { splice } => (
                PathBuf::from("haproxy"),
                vec!["-db".to_owned(), "-f".to_owned(), path],
                haproxy(places, splice)?,
            ),
            Kind::Nginx => {
                let options = format!("daemon off; pid {};", folder.join("nginx.pid").display());
                let arguments = [
                    "-p",
                    &folder.display().to_string(),
                    "-e",
                    "stderr",
                    "-g",
                    &options,
                    "-c",
                    &path,
                ];
                (
                    PathBuf::from("nginx"),
                    arguments.map(str::to_owned).to_vec(),
                    nginx(places)?,
                )
            }
        };
        fs::write(&file, configuration)?;
        let mut balancer = Balancer::start(
            &program,
            &arguments,
            nice,
            folder.join(format!("{}.log", self.name)),
        )?;
        let ports = [
            places.ports.small,
            places.ports.upload,
            places.ports.download,
        ];
        balancer.await_ready(START, || {
            ports
                .iter()
                .all(|port| TcpStream::connect((LISTEN, *port)).is_ok())
        })?;
        Ok(Some(balancer))
    }
}

/// Raises the number of file descriptors for us and all our children.
pub(crate) fn raise_descriptors() {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS.max(hard)).is_err() {
        // Without the privilege: as far as the hard limit. Rows with many sessions may then fail and say so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Sessions that fit into the file descriptors, with one for its share of the pipes.
fn sessions_max() -> Outcome<u64> {
    Ok((getrlimit(Resource::RLIMIT_NOFILE)?.0 / 3).min(10_000))
}

impl Places {
    /// Name of the service, its port.
    fn services(&self) -> [(&'static str, u16); 3] {
        [
            ("small", self.ports.small),
            ("upload", self.ports.upload),
            ("download", self.ports.download),
        ]
    }
}

fn ringway(places: &Places) -> String {
    let mut listeners = String::new();
    let mut pools = String::new();
    for (name, port) in places.services() {
        listeners += &format!("  - {{name: {name}, bind: \"{LISTEN}:{port}\", pool: {name}}}\n");
        let backends: Vec<String> = places
            .backends
            .iter()
            .map(|backend| format!("\"{backend}:{port}\""))
            .collect();
        pools += &format!(
            "  {name}: {{backends: [{}], keepalive: {{idle: 60s, interval: 10s, count: 6}}}}\n",
            backends.join(", ")
        );
    }
    if places.udp {
        let port = places.ports.datagrams;
        let backends = places.backends.iter();
        let backends: Vec<String> = backends.map(|ip| format!("\"{ip}:{port}\"")).collect();
        listeners +=
            &format!("  - {{name: udp, bind: \"{LISTEN}:{port}\", protocol: udp, pool: udp}}\n");
        pools += &format!(
            "  udp: {{backends: [{}], udp: {{idle: 1h}}}}\n",
            backends.join(", ")
        );
    }
    format!(
        "global: {{workers: 1, pin_workers: false, drain_timeout: 1s}}\nlisteners:\n{listeners}pools:\n{pools}"
    )
}

fn haproxy(places: &Places, splice: &[&str]) -> Outcome<String> {
    let sessions = sessions_max()?;
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn {sessions}\n\
         defaults\n  mode tcp\n  balance roundrobin\n  backlog 4096\n  maxconn {sessions}\n\
         \x20 timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         \x20 option clitcpka\n  clitcpka-idle 60s\n  clitcpka-intvl 10s\n  clitcpka-cnt 6\n\
         \x20 option srvtcpka\n  srvtcpka-idle 60s\n  srvtcpka-intvl 10s\n  srvtcpka-cnt 6\n"
    );
    for option in splice {
        text += &format!(
            "  option {option}
"
        );
    }
    for (name, port) in places.services() {
        text += &format!("listen {name}\n  bind {LISTEN}:{port}\n");
        for (index, backend) in places.backends.iter().enumerate() {
            text += &format!("  server b{index} {backend}:{port}\n");
        }
    }
    Ok(text)
}

fn nginx(places: &Places) -> Outcome<String> {
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let connections = 2 * sessions_max()?;
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         worker_processes 1;\nworker_rlimit_nofile {descriptors};\nerror_log stderr crit;\n\
         events {{ use epoll; worker_connections {connections}; }}\nstream {{\n"
    );
    for (name, port) in places.services() {
        text += &format!("  upstream {name} {{\n");
        for backend in &places.backends {
            text += &format!("    server {backend}:{port};\n");
        }
        text += &format!(
            "  }}\n  server {{\n    listen {LISTEN}:{port} backlog=4096 so_keepalive=60s:10s:6;\n\
             \x20   proxy_pass {name};\n    proxy_connect_timeout 5s;\n    proxy_timeout 1h;\n\
             \x20   proxy_socket_keepalive on;\n  }}\n"
        );
    }
    if places.udp {
        let port = places.ports.datagrams;
        text += "  upstream udp {\n";
        for backend in &places.backends {
            text += &format!("    server {backend}:{port};\n");
        }
        text += &format!(
            "  }}\n  server {{\n    listen {LISTEN}:{port} udp;\n    proxy_pass udp;\n    proxy_timeout 1h;\n  }}\n"
        );
    }
    Ok(text + "}\n")
}
