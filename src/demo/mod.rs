//! The demo: three built-in backends, the balancer and a load, all in this process and on loopback. It shows how one
//! backend dies and comes back. Nothing of it is used outside the demo.

mod backends;
mod load;
mod screen;

use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::Term;
use serde_json::Value;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::admin::Request;
use crate::config;
use crate::control::{self, Embedded, Options};
use backends::Backends;
use load::{Load, Totals};
use screen::{Frame, Row};

/// What the three are called.
const NAMES: [&str; 3] = ["one", "two", "three"];
/// The one that dies.
const VICTIM: usize = 1;
/// From one frame to the next on a terminal, and from one line to the next elsewhere.
const FRAME: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(1);
/// How often the balancer is asked while the victim is dead: the resolution of what is measured.
const LOOK: Duration = Duration::from_millis(10);

/// Rates that are kept: more than a terminal is wide.
const RATES: usize = 500;

/// How the demo is to be.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the show takes.
    pub length: Duration,
    /// Stay after the show until interrupted.
    pub keep: bool,
    /// One line a second instead of a table that is redrawn.
    pub plain: bool,
    /// Paint.
    pub colours: bool,
}

/// Why there is no show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The balancer does not run here.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// Something on loopback does not work.
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
}

/// Shows it.
///
/// # Errors
/// When this host cannot run it.
pub fn run(settings: Settings) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Io("the demo's runtime", error))?;
    let result = runtime.block_on(show(settings));
    runtime.shutdown_background();
    result
}

async fn show(settings: Settings) -> Result<(), Error> {
    let backends = Backends::start(NAMES.len())
        .await
        .map_err(|error| Error::Io("a backend on loopback", error))?;
    let mut balancer = Balancer::start(&backends)?;
    let Ok(address) = (&mut balancer.ready).await else {
        // It ended before it was ready: its thread knows why.
        return balancer.end();
    };
    let load = Load::start(&address, NAMES.len());
    let mut stage = Stage::new(settings, balancer, backends, load, address);
    stage.perform().await?;
    stage.end().await
}

/// The balancer on a thread of its own, asked as the admin API asks it.
struct Balancer {
    thread: Option<JoinHandle<Result<(), control::Error>>>,
    requests: mpsc::Sender<Request>,
    stop: Arc<Notify>,
    /// Where it listens, once it does.
    ready: oneshot::Receiver<String>,
}

impl Balancer {
    fn start(backends: &Backends) -> Result<Balancer, Error> {
        let listed = NAMES.iter().zip(backends.addresses());
        let listed: Vec<String> = listed
            .map(|(name, address)| format!("{{name: {name}, address: \"{address}\"}}"))
            .collect();
        let text = format!(
            "admin: {{socket: off}}\nlisteners: [{{bind: \"127.0.0.1:0\", pool: demo}}]\n\
             pools: {{demo: {{backends: [{}], slow_start: none,\n  \
             probe: {{interval: 250ms, fast_interval: 50ms, down_interval: 250ms, timeout: 250ms}}}}}}\n",
            listed.join(", ")
        );
        let loaded = config::parse(&text, "demo", "");
        let config = loaded
            .config
            .expect("the demo's configuration is valid; a test runs it");
        let (sender, requests) = mpsc::channel(8);
        let (told, ready) = oneshot::channel();
        let stop = Arc::new(Notify::new());
        let options = Options {
            embedded: Some(Embedded {
                requests,
                ready: told,
                stop: Arc::clone(&stop),
            }),
            ..Options::default()
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || control::run(&config.global, config.snapshot, options))
            .map_err(|error| Error::Io("a thread", error))?;
        Ok(Balancer {
            thread: Some(thread),
            requests: sender,
            stop,
            ready,
        })
    }

    async fn status(&self) -> Option<Value> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Stops it and waits for its last session.
    fn end(mut self) -> Result<(), Error> {
        self.stop.notify_one();
        let thread = self.thread.take().expect("ended once");
        let ended = thread.join();
        let panicked = || control::Error::Running("the balancer panicked".to_owned());
        Ok(ended.map_err(|_| panicked())??)
    }
}

/// Everything that is on the stage, and what has happened so far.
struct Stage {
    settings: Settings,
    balancer: Balancer,
    backends: Backends,
    load: Load,
    address: String,
    term: Term,
    begun: Instant,
    /// Lines that are redrawn.
    drawn: usize,
    story: Vec<String>,
    killed: Option<Instant>,
    /// Since the kill: until the last connect that went to the dead one, and until probes had it down.
    last_connect: Option<Duration>,
    found_down: Option<Duration>,
    found_up: Option<Duration>,
    returned: Option<Instant>,
    connect_failures: u64,
    rates: Vec<Vec<u64>>,
    before: Vec<u64>,
    last_frame: Instant,
    is_over: bool,
    /// What it prints goes nowhere any more.
    unread: bool,
}

impl Stage {
    fn new(
        settings: Settings,
        balancer: Balancer,
        backends: Backends,
        load: Load,
        address: String,
    ) -> Stage {
        let now = Instant::now();
        Stage {
            settings,
            balancer,
            backends,
            load,
            address,
            term: Term::stdout(),
            begun: now,
            drawn: 0,
            story: Vec::new(),
            killed: None,
            last_connect: None,
            found_down: None,
            found_up: None,
            returned: None,
            connect_failures: 0,
            rates: vec![Vec::new(); NAMES.len()],
            before: vec![0; NAMES.len()],
            last_frame: now,
            is_over: false,
            unread: false,
        }
    }

    /// The show, to its end or until it is interrupted.
    async fn perform(&mut self) -> Result<(), Error> {
        if !self.settings.plain {
            let _ = self.term.hide_cursor();
        }
        let third = self.settings.length / 3;
        self.tell(format!(
            "{} clients send requests to {}; {} backends answer",
            load::CLIENTS,
            self.address,
            NAMES.len()
        ));
        let pause = if self.settings.plain { LINE } else { FRAME };
        let mut next_frame = self.begun + pause;
        let listen =
            |kind| unix::signal(kind).map_err(|error| Error::Io("listening to signals", error));
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        loop {
            let now = Instant::now();
            if self.killed.is_none() && now >= self.begun + third {
                self.kill();
            }
            if self.returned.is_none() && now >= self.begun + third * 2 {
                self.bring_back().await;
            }
            let status = self.balancer.status().await.unwrap_or_default();
            self.measure(&status);
            if now >= next_frame {
                next_frame += pause;
                self.draw(&status);
            }
            if !self.is_over && now >= self.begun + self.settings.length {
                self.is_over = true;
                if self.settings.keep {
                    self.tell("the show is over; Ctrl-C ends it with a summary".to_owned());
                }
            }
            if self.unread || (self.is_over && !self.settings.keep) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
        }
    }

    fn kill(&mut self) {
        self.backends.kill(VICTIM);
        self.killed = Some(Instant::now());
        self.tell(format!(
            "backend {} is killed: its port is closed, its connections are reset",
            NAMES[VICTIM]
        ));
    }

    async fn bring_back(&mut self) {
        match self.backends.bring_back(VICTIM).await {
            Ok(()) => {
                self.returned = Some(Instant::now());
                self.tell(format!("backend {} is back", NAMES[VICTIM]));
            }
            Err(error) => self.tell(format!(
                "backend {} cannot come back: {error}",
                NAMES[VICTIM]
            )),
        }
    }

    /// What the balancer knows of the victim, and since when.
    fn measure(&mut self, status: &Value) {
        let victim = &status["pools"][0]["backends"][VICTIM];
        let is_up = victim["health"]["state"] == "up";
        let failures = victim["connect_failures_total"].as_u64().unwrap_or(0);
        if let Some(killed) = self.killed {
            if failures > self.connect_failures {
                self.last_connect = Some(killed.elapsed());
            }
            if !is_up && self.found_down.is_none() {
                self.found_down = Some(killed.elapsed());
                let why = victim["health"]["why"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                self.tell(format!(
                    "ringway takes it out of use after {}: {why}",
                    screen::span(killed.elapsed())
                ));
            }
        }
        self.connect_failures = failures;
        if let Some(returned) = self.returned
            && is_up
            && self.found_up.is_none()
        {
            self.found_up = Some(returned.elapsed());
            self.tell(format!(
                "ringway uses it again after {}",
                screen::span(returned.elapsed())
            ));
        }
    }

    fn tell(&mut self, line: String) {
        let line = format!("{:>5.1}s  {line}", self.begun.elapsed().as_secs_f64());
        if self.settings.plain {
            self.print(&format!("{line}\n"));
        }
        self.story.push(line);
    }

    fn print(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        self.unread |= out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_err();
    }

    fn draw(&mut self, status: &Value) {
        let frame = self.frame(status);
        if self.settings.plain {
            self.print(&format!("{}\n", frame.line()));
            return;
        }
        let (rows, columns) = self.term.size();
        let lines = frame.lines(
            usize::from(columns),
            usize::from(rows).saturating_sub(1),
            self.settings.colours,
        );
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\r", self.drawn));
        }
        for line in &lines {
            text.push_str(line);
            // To the end of the line: what was longer before.
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.print(&text);
        self.drawn = lines.len();
    }

    fn frame(&mut self, status: &Value) -> Frame {
        let passed = self.last_frame.elapsed().as_secs_f64().max(0.001);
        self.last_frame = Instant::now();
        let totals = self.load.totals();
        let recent = self.load.take_recent();
        let mut rows = Vec::new();
        for (index, name) in NAMES.iter().enumerate() {
            let backend = &status["pools"][0]["backends"][index];
            let answered = totals.answered[index];
            let rate = per_second(answered - self.before[index], passed);
            self.before[index] = answered;
            let rates = &mut self.rates[index];
            rates.drain(..(rates.len() + 1).saturating_sub(RATES));
            rates.push(rate);
            rows.push(Row {
                name: (*name).to_owned(),
                state: backend["health"]["state"]
                    .as_str()
                    .unwrap_or("unknown")
                    .to_owned(),
                sessions: backend["sessions_active"].as_u64().unwrap_or(0),
                rate,
                median: recent[index].0,
                p99: recent[index].1,
                answered,
                rates: self.rates[index].clone(),
            });
        }
        Frame {
            address: self.address.clone(),
            elapsed: self.begun.elapsed().min(self.settings.length),
            length: self.settings.length,
            rows,
            failed: totals.failed(),
            story: self.story.clone(),
        }
    }

    /// The summary.
    async fn end(mut self) -> Result<(), Error> {
        self.load.stop().await;
        let totals = self.load.totals();
        let status = self.balancer.status().await.unwrap_or_default();
        if !self.settings.plain {
            let _ = self.term.show_cursor();
        }
        let mut text = self.summary(&totals, &status);
        text.push_str(NEXT);
        self.print(&text);
        self.balancer.end()
    }

    fn summary(&self, totals: &Totals, status: &Value) -> String {
        let mut text = String::from(if self.is_over {
            "\nSummary\n"
        } else {
            "\nSummary (interrupted)\n"
        });
        let mut line = |line: String| {
            text.push_str("  ");
            text.push_str(&line);
            text.push('\n');
        };
        let answered: u64 = totals.answered.iter().sum();
        line(format!(
            "{} requests answered over {} connections, {} failed",
            screen::count(answered),
            screen::count(totals.connects),
            totals.failed()
        ));
        if totals.cut > 0 {
            line(format!(
                "{} of those were in flight on {} when it was killed: its resets were passed on",
                totals.cut, NAMES[VICTIM]
            ));
        }
        line(format!("{} new connections failed", totals.refused));
        if self.killed.is_some() {
            let retried = status["connect_retries_total"].as_u64().unwrap_or(0);
            let victim = NAMES[VICTIM];
            line(match self.last_connect {
                Some(last) => format!(
                    "{} after the kill the last connect went to {victim}; from then on none",
                    screen::span(last)
                ),
                None => format!("no connect went to {victim} after the kill"),
            });
            line(format!(
                "{retried} connects were tried elsewhere before their clients noticed"
            ));
        }
        text
    }
}

const NEXT: &str = "\nWhat next\n  \
    your own backends    ringway run --listen '*:5432' --to db1:5432 --to db2:5432\n  \
    the file for that    the same with --print-config > ringway.yaml\n  \
    is all well?         ringway check -c ringway.yaml; ringway doctor\n  \
    examples, every key  conf/, conf/reference.md\n";

fn per_second(count: u64, seconds: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate for people"
    )]
    let rate = (count as f64 / seconds).round() as u64;
    rate
}
