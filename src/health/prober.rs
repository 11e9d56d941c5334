//! The shell that probes: a thread of its own, so that no answer of the admin API delays a probe. One task for each
//! backend waits, probes and tells control the outcome; control counts, and tells how soon the next one is wanted.

mod datagram;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::dns::DnsCheck;
use super::machine::Pace;
use crate::ids::BackendId;
use crate::privileges;
use crate::sys::socket::bind_source;

/// Bytes of an answer that are looked at.
const ANSWER_MAX: usize = 64 * 1024;
/// A verdict that came so much later than its deadline says more about this thread than about the backend.
const LATE: Duration = Duration::from_millis(100);

/// What is probed, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub place: Place,
    /// Address that probes come from.
    pub source: Option<IpAddr>,
    /// What a probe does.
    pub check: Check,
    /// From one probe to the next.
    pub interval: Duration,
    /// The same while the state is changing.
    pub fast_interval: Duration,
    /// The same while it is down.
    pub down_interval: Duration,
    /// An answer that takes longer is a failure.
    pub timeout: Duration,
}

/// Where a probe goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// What a probe does.
#[derive(Clone, Debug)]
pub enum Check {
    /// It connects.
    Connect,
    /// It asks for a page.
    Http {
        /// `GET`, `HEAD` or `OPTIONS`.
        method: &'static str,
        /// Path and query.
        path: String,
        /// The Host header.
        host: String,
        /// First and last status of each range that is a success.
        statuses: Vec<(u16, u16)>,
        /// What the body has to contain.
        body: Option<Regex>,
    },
    /// It sends bytes and waits for others.
    SendExpect {
        /// What is sent.
        send: Vec<u8>,
        /// What the answer has to contain.
        expect: Option<Regex>,
    },
    /// The same in one datagram each. Without `expect` it waits whether the datagram is refused.
    Datagram {
        /// What is sent.
        send: Vec<u8>,
        /// What the answer has to contain.
        expect: Option<Regex>,
    },
    /// It asks a name server over UDP.
    Dns(DnsCheck),
}

impl Check {
    fn is_by_datagram(&self) -> bool {
        matches!(self, Check::Datagram { .. } | Check::Dns(_))
    }
}

/// What a probe found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// About whom.
    pub backend: BackendId,
    /// Of which order to watch it, counted from 1: what an earlier one came to says nothing any more.
    pub order: u64,
    /// How long it took, or what was wrong.
    pub result: Result<Duration, Wrong>,
}

/// What was wrong, in words, and with whom.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// The backend, or the way to it.
    Theirs(String),
    /// This host lacked what a probe needs, so it says nothing about the backend.
    Ours(String),
}

/// What the thread is told.
enum Order {
    /// Probe this backend from now on, or no more.
    Watch(BackendId, u64, Option<Arc<Target>>),
    Pace(BackendId, Pace),
    Now(BackendId),
    /// Make so many more probes at a time.
    Allow(usize),
}

/// The control side. Dropping it ends the thread.
#[derive(Debug)]
pub struct Prober {
    orders: UnboundedSender<Order>,
}

impl Prober {
    /// Starts the thread; outcomes go into the channel. So many probes are made at a time, a bound for file
    /// descriptors; more wait, and their clocks with them.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(outcomes: UnboundedSender<Outcome>, at_a_time: usize) -> io::Result<Prober> {
        let (orders, received) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || {
                privileges::give_up();
                runtime.block_on(obey(received, outcomes, at_a_time));
            })?;
        Ok(Prober { orders })
    }

    /// Probes a backend from now on, at once for the first time; none = no more. Outcomes have the order's number.
    pub fn watch(&self, backend: BackendId, order: u64, target: Option<Target>) {
        self.tell(Order::Watch(backend, order, target.map(Arc::new)));
    }

    /// Makes so many more probes at a time.
    pub fn allow(&self, more: usize) {
        self.tell(Order::Allow(more));
    }

    /// How soon the next probes are wanted.
    pub fn pace(&self, backend: BackendId, pace: Pace) {
        self.tell(Order::Pace(backend, pace));
    }

    /// Probes once at once.
    pub fn now(&self, backend: BackendId) {
        self.tell(Order::Now(backend));
    }

    /// The thread ends only when this is dropped.
    fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// A task, and how it is reached.
struct Watched {
    pace: watch::Sender<Pace>,
    now: Arc<Notify>,
    task: JoinHandle<()>,
}

async fn obey(
    mut orders: UnboundedReceiver<Order>,
    outcomes: UnboundedSender<Outcome>,
    at_a_time: usize,
) {
    let mut watched: Vec<Option<Watched>> = Vec::new();
    let places = Arc::new(Semaphore::new(at_a_time));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Allow(more) => places.add_permits(more),
            Order::Watch(backend, order, target) => {
                if watched.len() <= backend.index() {
                    watched.resize_with(backend.index() + 1, || None);
                }
                let slot = &mut watched[backend.index()];
                if let Some(before) = slot.take() {
                    before.task.abort();
                }
                *slot = target.map(|target| {
                    let (pace, paces) = watch::channel(Pace::Usual);
                    let now = Arc::new(Notify::new());
                    let probing = Probing {
                        backend,
                        order,
                        target,
                        paces,
                        now: Arc::clone(&now),
                        places: Arc::clone(&places),
                        outcomes: outcomes.clone(),
                    };
                    let task = tokio::spawn(probing.run());
                    Watched { pace, now, task }
                });
            }
            Order::Pace(backend, pace) => {
                if let Some(Some(watched)) = watched.get(backend.index()) {
                    watched
                        .pace
                        .send_if_modified(|known| std::mem::replace(known, pace) != pace);
                }
            }
            Order::Now(backend) => {
                if let Some(Some(watched)) = watched.get(backend.index()) {
                    watched.now.notify_one();
                }
            }
        }
    }
}

/// The life of one task.
struct Probing {
    backend: BackendId,
    order: u64,
    target: Arc<Target>,
    paces: watch::Receiver<Pace>,
    now: Arc<Notify>,
    places: Arc<Semaphore>,
    outcomes: UnboundedSender<Outcome>,
}

impl Probing {
    async fn run(mut self) {
        // The first probes are all made at once; from then on they are spread over the interval.
        let mut pause = self.target.interval.mul_f64(fastrand::f64());
        loop {
            if let Some(result) = self.probe().await {
                let outcome = Outcome {
                    backend: self.backend,
                    order: self.order,
                    result,
                };
                if self.outcomes.send(outcome).is_err() {
                    return;
                }
            }
            self.wait(pause).await;
            pause = self.interval();
        }
    }

    /// Until the next probe is due, or wanted sooner than that.
    async fn wait(&mut self, pause: Duration) {
        let begun = Instant::now();
        let mut until = begun + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.now.notified() => return,
                changed = self.paces.changed() => match changed {
                    Ok(()) => until = until.min(begun + self.interval()),
                    Err(_) => return sleep(Duration::MAX).await,
                },
            }
        }
    }

    /// With a tenth of chance, so that probes do not fall into step.
    fn interval(&mut self) -> Duration {
        let interval = match *self.paces.borrow_and_update() {
            Pace::Usual => self.target.interval,
            Pace::Fast => self.target.fast_interval,
            Pace::Down => self.target.down_interval,
        };
        interval.mul_f64(0.95 + fastrand::f64() / 10.0)
    }

    /// None if it came so late that nothing can be said.
    async fn probe(&self) -> Option<Result<Duration, Wrong>> {
        let _place = self
            .places
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let begun = Instant::now();
        let deadline = begun + self.target.timeout;
        let mut progress = Progress::default();
        let result = timeout_at(deadline, self.target.check(&mut progress)).await;
        match result {
            Ok(Ok(())) => Some(Ok(begun.elapsed())),
            Ok(Err(wrong)) => Some(Err(wrong)),
            Err(_) if deadline.elapsed() > LATE => {
                tracing::debug!(
                    backend = self.backend.0,
                    "a probe's verdict came late and is discarded"
                );
                None
            }
            Err(_) => {
                let why = progress.so_far(&self.target.check);
                let why = format!("{why} within {:?}", self.target.timeout);
                Some(Err(Wrong::Theirs(why)))
            }
        }
    }
}

/// How far a probe has come, for when its time is over.
#[derive(Default)]
struct Progress {
    connected: bool,
    heard: Vec<u8>,
}

impl Progress {
    /// What there was, or was not.
    fn so_far(&self, check: &Check) -> String {
        if !self.connected {
            return "no answer".to_owned();
        }
        let sent: &[u8] = match check {
            Check::SendExpect { send, .. } => send,
            Check::Connect | Check::Http { .. } | Check::Datagram { .. } | Check::Dns(_) => b"",
        };
        // What speaks in lines waits for the end of one.
        let hint = match sent {
            [] | [.., b'\n'] => "",
            [..] => " (what it sends has no line end)",
        };
        if self.heard.is_empty() {
            format!("connected, but no answer{hint}")
        } else {
            format!("not the expected answer but {}{hint}", shown(&self.heard))
        }
    }
}

/// The beginning of an answer.
fn shown(answer: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]);
    format!("{:?}", shown.trim_end())
}

impl Wrong {
    fn io(what: &str, error: &io::Error) -> Wrong {
        let errno = error.raw_os_error();
        if matches!(errno, Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE)) {
            return Wrong::Ours(format!("{what}: no source port is free"));
        }
        let text = format!("{what}: {}", plain(error));
        let ours = matches!(
            errno,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
        );
        if ours {
            Wrong::Ours(text)
        } else {
            Wrong::Theirs(text)
        }
    }
}

/// Without the number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

impl Target {
    async fn check(&self, progress: &mut Progress) -> Result<(), Wrong> {
        match &self.place {
            Place::Tcp(address) if self.check.is_by_datagram() => {
                self.talk_by_datagram(*address).await
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| Wrong::io("connect", &error))?;
                self.talk(stream, progress).await
            }
            Place::Tcp(address) => {
                let wrong = |error| Wrong::io("connect", &error);
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                }
                .map_err(wrong)?;
                if let Some(source) = self.source {
                    bind_source(socket.as_fd(), source).map_err(|error| {
                        Wrong::Ours(format!("source {source}: {}", plain(&error)))
                    })?;
                }
                let stream = socket.connect(*address).await.map_err(wrong)?;
                self.talk(stream, progress).await
            }
        }
    }

    async fn talk_by_datagram(&self, address: SocketAddr) -> Result<(), Wrong> {
        let socket = datagram::connect(address, self.source).await?;
        match &self.check {
            Check::Dns(check) => datagram::ask(&socket, check).await,
            Check::Datagram { send, expect } => {
                datagram::exchange(&socket, send, expect.as_ref(), self.timeout / 2).await
            }
            Check::Connect | Check::Http { .. } | Check::SendExpect { .. } => Ok(()),
        }
    }

    /// Ends with a FIN, so that a database does not log a reset. So each probe leaves a connection in TIME_WAIT here
    /// for a minute: 30 for each backend that is probed every 2 s. Each takes a port only towards its own backend.
    async fn talk(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        progress: &mut Progress,
    ) -> Result<(), Wrong> {
        progress.connected = true;
        match &self.check {
            // The last two never connect.
            Check::Connect | Check::Datagram { .. } | Check::Dns(_) => {}
            Check::SendExpect { send, expect } => {
                exchange(&mut stream, send, expect.as_ref(), &mut progress.heard).await?;
            }
            Check::Http {
                method,
                path,
                host,
                statuses,
                body,
            } => return http(stream, method, path, host, statuses, body.as_ref()).await,
        }
        // It answered; how it takes our end is not our business.
        let _ = stream.shutdown().await;
        Ok(())
    }
}

async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    send: &[u8],
    expect: Option<&Regex>,
    answer: &mut Vec<u8>,
) -> Result<(), Wrong> {
    stream
        .write_all(send)
        .await
        .map_err(|error| Wrong::io("send", &error))?;
    let Some(expect) = expect else {
        return Ok(());
    };
    loop {
        let before = answer.len();
        let read = stream.read_buf(answer).await;
        read.map_err(|error| Wrong::io("receive", &error))?;
        if expect.is_match(answer) {
            return Ok(());
        }
        let has_ended = answer.len() == before;
        if has_ended && answer.is_empty() {
            let why = "it closed the connection without an answer";
            return Err(Wrong::Theirs(why.to_owned()));
        }
        if has_ended || answer.len() > ANSWER_MAX {
            let ended = if has_ended { " and the end" } else { "" };
            return Err(unexpected(answer, ended));
        }
    }
}

fn unexpected(answer: &[u8], ended: &str) -> Wrong {
    Wrong::Theirs(format!("unexpected answer {}{ended}", shown(answer)))
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &str,
    path: &str,
    host: &str,
    statuses: &[(u16, u16)],
    body: Option<&Regex>,
) -> Result<(), Wrong> {
    let wrong = |error: hyper::Error| {
        Wrong::Theirs(if error.is_incomplete_message() {
            "it closed the connection without an HTTP answer".to_owned()
        } else if error.is_parse() {
            format!("what it answers is not HTTP: {error}")
        } else {
            format!("HTTP: {error}")
        })
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(wrong)?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("user-agent", "ringway-probe")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Wrong::Ours(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(wrong)?;
    let status = response.status().as_u16();
    if !statuses
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&status))
    {
        return Err(Wrong::Theirs(format!("HTTP status {status}")));
    }
    if let Some(body) = body {
        let answer = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await;
        let answer = answer
            .map_err(|error| Wrong::Theirs(format!("HTTP body: {error}")))?
            .to_bytes();
        if !body.is_match(&answer) {
            let why = format!("unexpected body {}", shown(&answer));
            return Err(Wrong::Theirs(why));
        }
    }
    drop(connection);
    Ok(())
}

/// A connection does not outlive its probe.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
