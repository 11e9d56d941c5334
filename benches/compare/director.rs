//! Runs the rows: for each turn and contender it starts backends, balancer and generators, and ends them again.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::id;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::figures::{Contender, Memory, Sample};
use crate::machine::{proportional_memory, slab};
use crate::network::Veth;
use crate::peers::{Balanced, Peer, Places, raise_descriptors};
use crate::process::{Balancer, Role};
use crate::report::Report;
use crate::rows::{Link, ROWS, Row, WITHOUT_IDLE, Work};
use crate::spec::{Generate, Load, Measured, Ports, Serve, Service};
use crate::{Outcome, backend, generator, network};

/// Backend addresses and source addresses of a turn: enough that no pair of addresses runs out of ports.
const ADDRESSES: u8 = 8;

/// Everybody who can take part.
const PEERS: [&str; 8] = [
    "ringway",
    "ringway-b",
    "ringway-single",
    "haproxy",
    "haproxy-splice",
    "haproxy-forced",
    "nginx",
    "direct",
];

/// How long opening all sessions may take.
const OPENING: Duration = Duration::from_secs(30);

/// How long an answer may come late.
const ANSWERING: Duration = Duration::from_secs(10);

/// How long memory may take to settle before it is looked at.
const SETTLING: Duration = Duration::from_millis(500);

/// How long a balancer's sessions are idle before they are looked at: some let go of memory only after a while.
const IDLENESS: Duration = Duration::from_secs(5);

/// How far the number of sockets may be off while memory is looked at: the kernel counts in whole pages of them.
const SOCKETS_TOLERANCE: f64 = 0.06;

/// How often a turn that somebody else disturbed is tried again.
const TRIES: usize = 4;

/// `--quick` starts no row after this.
const QUICK_END: Duration = Duration::from_secs(100);

/// Bulk makes way for the small sessions on the generator's core, so that the balancer's choices decide their latency.
const BULK_STEPS_BACK: i8 = 10;

/// Compares Ringway with HAProxy, nginx and no balancer at all.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Options {
    /// Only these rows
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = row_names())]
    row: Vec<String>,
    /// Only these peers
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = PEERS)]
    peers: Vec<String>,
    /// Three short turns, and only the peers that the bars name
    #[arg(long)]
    quick: bool,
    /// How often everybody has a turn
    #[arg(long, value_name = "N")]
    turns: Option<usize>,
    /// Length of a measured interval
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios that bars are about, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// The program to measure
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_ringway"))]
    binary: PathBuf,
    /// Another build of it to compare with (peer `ringway-b`)
    #[arg(long, value_name = "PATH")]
    binary_b: Option<PathBuf>,
    /// Also measure it with one receive at a time (peer `ringway-single`)
    #[arg(long)]
    single_tier: bool,
    /// Priority of everything that is started; below 0, on a machine that others use, for less disturbance (root only)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    nice: i8,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

fn row_names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).collect()
}

impl Options {
    fn peers(&self) -> Vec<Peer> {
        let mut peers = vec![Peer::ringway("ringway", &self.binary, &[])];
        peers.extend(
            self.binary_b
                .as_ref()
                .map(|binary| Peer::ringway("ringway-b", binary, &[])),
        );
        if self.single_tier {
            peers.push(Peer::ringway(
                "ringway-single",
                &self.binary,
                &["--receive-tier", "single"],
            ));
        }
        peers.extend(Peer::others());
        peers.retain(|peer| {
            self.peers.is_empty() || self.peers.iter().any(|name| name == peer.name)
        });
        peers
    }

    fn timing(&self) -> Timing {
        let (turns, measure, warm_up) = if self.quick {
            (3, 0.4, 150)
        } else {
            (5, 1.5, 500)
        };
        Timing {
            turns: self.turns.unwrap_or(turns).max(1),
            warm_up: Duration::from_millis(warm_up),
            measure: Duration::from_secs_f64(self.seconds.unwrap_or(measure).clamp(0.05, 60.0)),
        }
    }

    fn wants(&self, row: &Row) -> bool {
        self.row.is_empty() || self.row.iter().any(|name| name == row.name)
    }
}

#[derive(Clone, Copy)]
struct Timing {
    turns: usize,
    warm_up: Duration,
    measure: Duration,
}

/// Runs everything that was asked for and prints each row as it is done.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    raise_descriptors();
    let network = network::isolate()?;
    let began = Instant::now();
    let timing = options.timing();
    let peers = options.peers();
    let mut report = Report::new(&peers, timing.turns, timing.measure, &network);
    let mut places = PlaceSource::new()?;
    let folder = places.folder.clone();
    for row in ROWS.iter().filter(|row| options.wants(row)) {
        if options.quick && began.elapsed() > QUICK_END {
            report.skip(row);
            continue;
        }
        let mut contenders = contenders(row, &peers, options.quick);
        for _ in 0..timing.turns {
            for contender in contenders
                .iter_mut()
                .filter(|contender| contender.failure.is_none())
            {
                let turn = Turn {
                    row,
                    timing,
                    nice: options.nice.clamp(-20, 9),
                    folder: &folder,
                };
                match turn.play(contender, &mut places) {
                    Ok(sample) => contender.samples.push(sample),
                    Err(error) => contender.failure = Some(error.to_string()),
                }
            }
        }
        report.add(row, &contenders);
    }
    report.finish(options.json.as_deref(), options.picture.as_deref())
}

/// Who takes part in a row. Quick runs leave out whom no bar of the row names.
fn contenders(row: &Row, peers: &[Peer], quick: bool) -> Vec<Contender> {
    let named =
        |peer: &&Peer| peer.is_ours() || row.bars.iter().any(|bar| bar.against == peer.name);
    let memory = matches!(row.work, Work::Memory { .. });
    let mut all: Vec<Contender> = peers
        .iter()
        .filter(|peer| !(memory && peer.is_direct()) && (!quick || named(peer)))
        .filter(|peer| peer.speaks_udp() || !row.is_udp())
        .map(|peer| Contender::new(peer.name, Some(peer.clone())))
        .collect();
    match row.work {
        Work::MostlyIdle { .. } => {
            let ours = peers.iter().find(|peer| peer.name == "ringway");
            all.extend(ours.map(|peer| Contender::new(WITHOUT_IDLE, Some(peer.clone()))));
            all.retain(|contender| !contender.is_direct());
        }
        Work::Memory { .. } => {
            all.push(Contender::new(Memory::DIRECT, Some(Peer::direct())));
            all.push(Contender::new(Memory::BARE, None));
        }
        Work::Start { .. } => all.retain(|contender| !contender.is_direct()),
        Work::Single(_) | Work::Mixed { .. } => {}
    }
    all
}

/// Hands out addresses and ports that no earlier turn has used, so that no turn meets another's closed connections.
struct PlaceSource {
    folder: PathBuf,
    turn: u32,
    port: u16,
    /// Made when a row wants it.
    veth: Option<Veth>,
}

/// The sockets of a turn.
struct TurnPlaces {
    /// What the balancer listens on, but for a start.
    listen: Ipv4Addr,
    ports: Ports,
    backends: Vec<Ipv4Addr>,
    sources: Vec<Ipv4Addr>,
    network: String,
}

impl TurnPlaces {
    fn balanced(&self, row: &Row) -> Places {
        let Ports {
            small,
            upload,
            download,
            datagrams,
        } = self.ports;
        let services = [("small", small), ("upload", upload), ("download", download)];
        let service = |(name, port): (&str, u16)| Balanced {
            name: name.to_owned(),
            listen: SocketAddrV4::new(self.listen, port),
            backends: self
                .backends
                .iter()
                .map(|backend| SocketAddrV4::new(*backend, port))
                .collect(),
        };
        Places {
            datagrams: row.is_udp().then(|| service(("datagrams", datagrams))),
            ends_flows: row.ends_flows(),
            services: services.map(service).into(),
            network: self.network.clone(),
        }
    }

    /// Many listeners, each with its share of many backends; nobody is there.
    fn many(&self, listeners: usize, backends: usize) -> Places {
        let address = |net: u8, number: usize| {
            let [high, low] = ((number / 250) as u16).to_be_bytes();
            let host = Ipv4Addr::new(127, net + high, low, (number % 250) as u8 + 1);
            SocketAddrV4::new(host, self.ports.small)
        };
        let each = backends / listeners;
        let service = |number: usize| Balanced {
            name: format!("s{number}"),
            listen: address(10, number),
            backends: (number * each..(number + 1) * each)
                .map(|backend| address(20, backend))
                .collect(),
        };
        Places {
            datagrams: None,
            ends_flows: false,
            services: (0..listeners).map(service).collect(),
            network: String::new(),
        }
    }
}

impl PlaceSource {
    fn new() -> Outcome<Self> {
        let folder = env::temp_dir().join(format!("ringway-compare-{}", id()));
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            turn: id() % 20_000,
            port: 20_000,
            veth: None,
        })
    }

    fn next(&mut self, link: Link) -> Outcome<TurnPlaces> {
        self.turn += 1;
        let [_, _, high, low] = self.turn.to_be_bytes();
        let addresses = |net: [u8; 3]| {
            (1..=ADDRESSES)
                .map(|last| Ipv4Addr::new(net[0], net[1], net[2], last))
                .collect()
        };
        let ports = Ports {
            small: self.free_port()?,
            upload: self.free_port()?,
            download: self.free_port()?,
            datagrams: self.free_port()?,
        };
        Ok(match link {
            Link::Loopback => TurnPlaces {
                listen: Ipv4Addr::LOCALHOST,
                ports,
                backends: addresses([127, 1 + high % 100, low]),
                sources: addresses([127, 101 + high % 100, low]),
                network: String::new(),
            },
            Link::Veth => TurnPlaces {
                listen: Veth::LISTEN,
                ports,
                backends: addresses([10, 77, 128 + low % 64]),
                sources: addresses([10, 77, 192 + low % 64]),
                network: self.veth()?.path(),
            },
        })
    }

    fn veth(&mut self) -> Outcome<&Veth> {
        let veth = match self.veth.take() {
            Some(veth) => veth,
            None => Veth::new()?,
        };
        Ok(self.veth.insert(veth))
    }

    /// Below the range that outgoing connections take their ports from.
    fn free_port(&mut self) -> Outcome<u16> {
        for _ in 0..10_000 {
            self.port = if self.port < 30_000 {
                self.port + 1
            } else {
                20_000
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Ok(self.port);
            }
        }
        Err("no free port between 20000 and 30000".into())
    }
}

impl Drop for PlaceSource {
    fn drop(&mut self) {
        // What stays behind is a few small files among the temporary ones.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One contender's turn in a row.
struct Turn<'a> {
    row: &'a Row,
    timing: Timing,
    nice: i8,
    folder: &'a Path,
}

impl Turn<'_> {
    /// Memory is looked at again if somebody else disturbed it.
    fn play(&self, contender: &Contender, places: &mut PlaceSource) -> Outcome<Sample> {
        let tries = if matches!(self.row.work, Work::Memory { .. }) {
            TRIES
        } else {
            1
        };
        let mut outcome = Err("not tried".into());
        for _ in 0..tries {
            outcome = self.play_once(contender, &places.next(self.row.link)?);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn play_once(&self, contender: &Contender, turn: &TurnPlaces) -> Outcome<Sample> {
        if let (Work::Memory { sessions }, None) = (&self.row.work, &contender.peer) {
            return self.hold(turn, None, Load::Bare { pairs: *sessions }, *sessions);
        }
        let peer = contender.peer.as_ref().ok_or("nobody to measure")?;
        if let Work::Start {
            listeners,
            backends,
        } = self.row.work
        {
            let places = turn.many(listeners, backends);
            let begun = Instant::now();
            let _balancer = peer.start(self.folder, &places, self.nice)?;
            return Ok(Sample::started(begun.elapsed().as_secs_f64()));
        }
        let mixed = matches!(self.row.work, Work::Mixed { .. });
        let ports = turn.ports;
        // Dropped in reverse: the generators first, then the balancer, then the backends.
        let small = [
            (Service::Answer, ports.small),
            (Service::Datagrams, ports.datagrams),
        ];
        let _small = self.serve(turn, &small, 0)?;
        let bulk = [
            (Service::Swallow, ports.upload),
            (Service::Pour, ports.download),
        ];
        let _bulk = self.serve(turn, &bulk, if mixed { BULK_STEPS_BACK } else { 0 })?;
        let balancer = peer.start(self.folder, &turn.balanced(self.row), self.nice)?;
        self.load(contender, turn, balancer.as_ref())
    }

    fn serve(
        &self,
        turn: &TurnPlaces,
        services: &[(Service, u16)],
        steps_back: i8,
    ) -> Outcome<Role> {
        let addresses = turn.backends.clone();
        let serve = Serve {
            addresses,
            services: services.to_vec(),
            sizes: self.row.sizes,
        };
        let mut role = Role::start(backend::ROLE, &serve, self.nice + steps_back)?;
        role.line(ANSWERING)?;
        Ok(role)
    }

    fn load(
        &self,
        contender: &Contender,
        turn: &TurnPlaces,
        balancer: Option<&Balancer>,
    ) -> Outcome<Sample> {
        match &self.row.work {
            Work::Single(load) => self.alone(turn, balancer, load.clone()),
            Work::MostlyIdle { active, idle } => {
                let idle = if contender.label == WITHOUT_IDLE {
                    0
                } else {
                    *idle
                };
                self.alone(
                    turn,
                    balancer,
                    Load::Requests {
                        active: *active,
                        idle,
                    },
                )
            }
            Work::Mixed { active, streams } => {
                let mut bulk = self.generator(
                    turn,
                    balancer,
                    Load::Download { streams: *streams },
                    BULK_STEPS_BACK,
                )?;
                let mut small = self.generator(
                    turn,
                    balancer,
                    Load::Requests {
                        active: *active,
                        idle: 0,
                    },
                    0,
                )?;
                sleep(self.timing.warm_up);
                bulk.order(&pids(balancer))?;
                small.order(&pids(balancer))?;
                let sample = Sample::of(self.result(&mut small)?);
                Ok(sample.beside(self.result(&mut bulk)?))
            }
            Work::Memory { sessions } => self.hold(
                turn,
                balancer,
                Load::Requests {
                    active: 0,
                    idle: *sessions,
                },
                *sessions,
            ),
            Work::Start { .. } => Err("a start has no load".into()),
        }
    }

    fn alone(&self, turn: &TurnPlaces, balancer: Option<&Balancer>, load: Load) -> Outcome<Sample> {
        let mut generator = self.generator(turn, balancer, load, 0)?;
        sleep(self.timing.warm_up);
        generator.order(&pids(balancer))?;
        Ok(Sample::of(self.result(&mut generator)?))
    }

    /// Looks at memory before and after sessions are opened. Fails if somebody else's sockets came or went meanwhile.
    fn hold(
        &self,
        turn: &TurnPlaces,
        balancer: Option<&Balancer>,
        load: Load,
        sessions: usize,
    ) -> Outcome<Sample> {
        sleep(SETTLING);
        let pids = pids(balancer);
        let look = || (proportional_memory(&pids), slab().unwrap_or_default());
        let (process_before, slab_before) = look();
        let _generator = self.generator(turn, balancer, load, 0)?;
        sleep(balancer.map_or(SETTLING, |_| IDLENESS));
        let (process_after, slab_after) = look();

        let sockets = slab_after.tcp_sockets as f64 - slab_before.tcp_sockets as f64;
        let expected = (sessions * if balancer.is_some() { 4 } else { 2 }) as f64;
        let seen = slab_before.tcp_sockets > 0;
        if seen && (sockets / expected - 1.0).abs() > SOCKETS_TOLERANCE {
            return Err(format!(
                "{sockets} sockets came instead of {expected}: others are at work"
            )
            .into());
        }
        let each = |before: u64, after: u64| after.saturating_sub(before) / sessions as u64;
        Ok(Sample::holding(Memory {
            process: each(process_before, process_after),
            slab: each(slab_before.bytes, slab_after.bytes),
        }))
    }

    /// Starts a generator and waits until its load runs.
    fn generator(
        &self,
        turn: &TurnPlaces,
        balancer: Option<&Balancer>,
        load: Load,
        steps_back: i8,
    ) -> Outcome<Role> {
        let ports = turn.ports;
        let port = match load {
            Load::Requests { .. } | Load::Connects { .. } | Load::Bare { .. } => ports.small,
            Load::Datagrams { .. } | Load::Questions { .. } => ports.datagrams,
            Load::Upload { .. } => ports.upload,
            Load::Download { .. } => ports.download,
        };
        let hosts = match (&load, balancer) {
            (Load::Bare { .. }, _) | (_, Some(_)) => vec![turn.listen],
            (_, None) => turn.backends.clone(),
        };
        let generate = Generate {
            load,
            sizes: self.row.sizes,
            targets: hosts
                .into_iter()
                .map(|host| SocketAddrV4::new(host, port))
                .collect(),
            sources: turn.sources.clone(),
            measure: self.timing.measure,
        };
        let mut role = Role::start(generator::ROLE, &generate, self.nice + steps_back)?;
        role.line(OPENING)?;
        Ok(role)
    }

    fn result(&self, generator: &mut Role) -> Outcome<Measured> {
        let line = generator.line(self.timing.measure + ANSWERING)?;
        let measured: Measured = serde_json::from_str(&line)?;
        if measured.units == 0 {
            return Err("nothing got through".into());
        }
        Ok(measured)
    }
}

fn pids(balancer: Option<&Balancer>) -> Vec<u32> {
    balancer.map_or(Vec::new(), Balancer::pids)
}
