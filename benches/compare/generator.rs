//! The role that makes the load and measures: one thread, one epoll set, nothing allocated per message.
//!
//! It opens its sessions, answers `ready` and keeps the load running. At a line on its standard input, the balancer's
//! pids, it measures for the time it was told. The balancer's CPU is read here, at the very ends of that interval.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::EpollFlags;

use crate::Outcome;
use crate::bulk::Bulk;
use crate::connects::Connects;
use crate::datagrams::Datagrams;
use crate::machine::Cpu;
use crate::process;
use crate::requests::{self, Requests};
use crate::sockets::{Events, Routes};
use crate::spec::{Generate, Load, Measured};

/// The hidden argument that selects this role.
pub(crate) const ROLE: &str = "__generator";

/// How long the director may let a generator run before it is told to measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The token of standard input.
const ORDERS: u64 = u64::MAX;

/// One kind of load.
pub(crate) trait Driver {
    /// Opens what it needs; the load runs from here on.
    fn start(&mut self, events: &Events) -> Outcome<()>;
    /// Something happened on the socket behind `token`.
    fn progress(&mut self, token: u64, flags: EpollFlags, events: &Events, tally: &mut Tally);
}

/// What has been counted so far.
pub(crate) struct Tally {
    pub(crate) units: u64,
    pub(crate) errors: u64,
    latencies: Histogram<u64>,
}

impl Tally {
    fn new() -> Outcome<Self> {
        Ok(Self {
            units: 0,
            errors: 0,
            latencies: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
        })
    }

    /// One unit is done that began at `began`; returns the time, for the next one to begin.
    pub(crate) fn done(&mut self, began: Instant) -> Instant {
        let now = Instant::now();
        self.units += 1;
        self.latencies
            .saturating_record((now - began).as_nanos() as u64);
        now
    }

    fn clear(&mut self) {
        self.units = 0;
        self.latencies.reset();
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Runs until it has measured once.
pub(crate) fn run(arguments: &[String]) -> Outcome<()> {
    let generate: Generate = process::enter_role(arguments)?;
    let mut routes = Routes::new(generate.sources.clone(), generate.targets.clone());
    let sizes = generate.sizes;
    let mut driver: Box<dyn Driver> = match generate.load {
        Load::Requests { active, idle } => Box::new(Requests::new(routes, sizes, active, idle)),
        Load::Connects { at_once } => Box::new(Connects::new(routes, sizes, at_once)),
        Load::Datagrams { clients } | Load::Questions { clients } => {
            Box::new(Datagrams::new(routes, sizes, clients))
        }
        Load::Upload { streams } => Box::new(Bulk::upload(routes, streams)?),
        Load::Download { streams } => Box::new(Bulk::download(routes, streams)?),
        Load::Bare { pairs } => return hold(&requests::bare_pairs(&mut routes, pairs)?),
    };
    let mut events = Events::new()?;
    driver.start(&events)?;
    events.add(io::stdin(), EpollFlags::EPOLLIN, ORDERS)?;
    process::answer("ready");
    let mut tally = Tally::new()?;
    drive(
        &mut *driver,
        &mut events,
        &mut tally,
        Instant::now() + PATIENCE,
    )?;
    let balancer = measure_order()?;
    let measured = measure(
        &balancer,
        generate.measure,
        &mut *driver,
        &mut events,
        &mut tally,
    )?;
    process::answer(&serde_json::to_string(&measured)?);
    Ok(())
}

/// Lets the load run until `end` or an order; after an order standard input is not looked at again.
fn drive(
    driver: &mut dyn Driver,
    events: &mut Events,
    tally: &mut Tally,
    end: Instant,
) -> Outcome<()> {
    let mut ordered = false;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || ordered {
            return Ok(());
        }
        // All events of a turn are used: edges that are thrown away never come again.
        for index in 0..events.wait(left.min(Duration::from_millis(100)))? {
            let (token, flags) = events.at(index);
            if token == ORDERS {
                events.remove(io::stdin())?;
                ordered = true;
            } else {
                driver.progress(token, flags, events, tally);
            }
        }
    }
}

/// The order that has come: the balancer's processes.
fn measure_order() -> Outcome<Vec<u32>> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn measure(
    balancer: &[u32],
    length: Duration,
    driver: &mut dyn Driver,
    events: &mut Events,
    tally: &mut Tally,
) -> Outcome<Measured> {
    tally.clear();
    let before = Cpu::of(balancer);
    let began = Instant::now();
    drive(driver, events, tally, began + length)?;
    let seconds = began.elapsed().as_secs_f64();
    let spent = Cpu::of(balancer).since(&before);
    Ok(Measured {
        seconds,
        units: tally.units,
        errors: tally.errors,
        balancer_cpu_ns: spent.ran_ns,
        balancer_wait_ns: spent.waited_ns,
        softirq_ns: spent.softirq_ns,
        p50_us: tally.quantile_us(0.5),
        p99_us: tally.quantile_us(0.99),
        p999_us: tally.quantile_us(0.999),
    })
}

/// Keeps sockets open until told otherwise.
fn hold(sockets: &[OwnedFd]) -> Outcome<()> {
    process::answer("ready");
    measure_order()?;
    process::answer(&serde_json::to_string(&Measured {
        units: sockets.len() as u64,
        ..Measured::default()
    })?);
    Ok(())
}
