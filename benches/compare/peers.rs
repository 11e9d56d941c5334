//! Who is compared: programs, the configurations written for them, and how they are started.
//!
//! Everybody gets the same: one worker, no logging, the same time limits, keepalive 60 s / 10 s / 6 on both sides
//! (nginx can only switch it on towards backends; there the times are those of the network namespace).

use std::fs;
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Outcome;
use crate::machine::first_line;
use crate::process::Balancer;

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

/// What a balancer is to balance.
pub(crate) struct Places {
    pub(crate) services: Vec<Balanced>,
    /// The same for UDP, where that is measured.
    pub(crate) datagrams: Option<Balanced>,
    /// Whether a flow ends with its answer.
    pub(crate) ends_flows: bool,
    /// The network namespace that it runs in; empty for everybody's.
    pub(crate) network: String,
}

/// One listener and its backends.
pub(crate) struct Balanced {
    pub(crate) name: String,
    pub(crate) listen: SocketAddrV4,
    pub(crate) backends: Vec<SocketAddrV4>,
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
            &places.network,
            folder.join(format!("{}.log", self.name)),
        )?;
        // The last one opens last.
        let mut waiting = places.services.iter().rev().peekable();
        balancer.await_ready(START, || {
            let accepts = |service: &&Balanced| TcpStream::connect(service.listen).is_ok();
            while waiting.next_if(accepts).is_some() {}
            waiting.peek().is_none()
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

fn ringway(places: &Places) -> String {
    let mut listeners = String::new();
    let mut pools = String::new();
    for Balanced {
        name,
        listen,
        backends,
    } in &places.services
    {
        listeners += &format!("  - {{name: {name}, bind: \"{listen}\", pool: {name}}}\n");
        let backends: Vec<String> = backends
            .iter()
            .map(|backend| format!("\"{backend}\""))
            .collect();
        pools += &format!("  {name}: {{backends: [{}]}}\n", backends.join(", "));
    }
    if let Some(Balanced {
        name,
        listen,
        backends,
    }) = &places.datagrams
    {
        let backends: Vec<String> = backends.iter().map(|it| format!("\"{it}\"")).collect();
        listeners +=
            &format!("  - {{name: {name}, bind: \"{listen}\", protocol: udp, pool: {name}}}\n");
        let ends = if places.ends_flows {
            ", responses: 1"
        } else {
            ""
        };
        pools += &format!(
            "  {name}: {{backends: [{}], udp: {{idle: 1h{ends}}}}}\n",
            backends.join(", ")
        );
    }
    format!(
        "global: {{workers: 1, pin_workers: false, drain_timeout: 1s}}\nadmin: {{socket: off}}\n\
         defaults: {{pool: {{balance: round_robin, probe: none, keepalive: {{idle: 60s, interval: 10s, count: 6}}}}}}\n\
         listeners:\n{listeners}pools:\n{pools}"
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
    for Balanced {
        name,
        listen,
        backends,
    } in &places.services
    {
        text += &format!("listen {name}\n  bind {listen}\n");
        for (index, backend) in backends.iter().enumerate() {
            text += &format!("  server b{index} {backend}\n");
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
    for Balanced {
        name,
        listen,
        backends,
    } in &places.services
    {
        text += &format!("  upstream {name} {{\n");
        for backend in backends {
            text += &format!("    server {backend};\n");
        }
        text += &format!(
            "  }}\n  server {{\n    listen {listen} backlog=4096 so_keepalive=60s:10s:6;\n\
             \x20   proxy_pass {name};\n    proxy_connect_timeout 5s;\n    proxy_timeout 1h;\n\
             \x20   proxy_socket_keepalive on;\n  }}\n"
        );
    }
    if let Some(Balanced {
        name,
        listen,
        backends,
    }) = &places.datagrams
    {
        text += &format!("  upstream {name} {{\n");
        for backend in backends {
            text += &format!("    server {backend};\n");
        }
        let ends = if places.ends_flows {
            "    proxy_responses 1;\n"
        } else {
            ""
        };
        text += &format!(
            "  }}\n  server {{\n    listen {listen} udp;\n    proxy_pass {name};\n    proxy_timeout 1h;\n{ends}  }}\n"
        );
    }
    Ok(text + "}\n")
}
