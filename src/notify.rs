//! What the service manager (systemd) is told: that we are ready, reload, stop, how we are, and at intervals that
//! control and every worker are at work; if one of them is not, its watchdog runs out. A thread of its own sends, so
//! that a service manager that does not listen keeps nobody waiting. It decides nothing: control says what is so.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::privileges;
use crate::time::Time;
use crate::vrrp::progress::{Progress, Watchdog};

/// Messages that may wait for a service manager that does not take them; those beyond are lost.
const MESSAGES_MAX: usize = 64;
/// At the end the last message is waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at what is to be told, where no watchdog asks for more.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Who stops asks for so much more time again and again: `global.drain_timeout` says how long it takes, not the unit.
const MORE_TIME: Duration = Duration::from_secs(30);

/// See the module's text.
#[derive(Debug)]
pub struct Notify {
    messages: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    /// How often those who are to be at work have to show it.
    look_every: Duration,
    progress: Arc<Progress>,
    status: String,
}

#[derive(Debug)]
enum Message {
    Ready,
    /// Since this time of the monotonic clock.
    Reloading(Option<NotifyState<'static>>),
    Stopping,
    MoreTime,
    Status(String),
}

impl Notify {
    /// To whom the environment names (`NOTIFY_SOCKET`), and with the watchdog that it asks for (`WATCHDOG_USEC`). None
    /// if nobody wants to know.
    #[must_use]
    pub fn from_environment(started: Instant, workers: usize) -> Option<Notify> {
        std::env::var_os("NOTIFY_SOCKET")?;
        let progress = Arc::new(Progress::new(started, workers));
        let timeout = sd_notify::watchdog_enabled();
        let look_every = timeout.map_or(LOOK_EVERY, |timeout| (timeout / 8).min(LOOK_EVERY));
        let (messages, wanted) = sync_channel(MESSAGES_MAX);
        let teller = Teller {
            messages: wanted,
            started,
            // Half of it is for us to notice, the other half for the service manager.
            watched: timeout.map(|timeout| (Watchdog::new(Arc::clone(&progress)), timeout / 2)),
            look_every,
            is_stalled: false,
        };
        let thread = std::thread::Builder::new().name("notify".to_owned());
        let run = move || {
            privileges::give_up();
            teller.run();
        };
        match thread.spawn(run) {
            Ok(thread) => Some(Notify {
                messages: Some(messages),
                thread: Some(thread),
                look_every,
                progress,
                status: String::new(),
            }),
            Err(error) => {
                tracing::warn!(%error, "no thread to tell the service manager anything");
                None
            }
        }
    }

    /// How often everybody has to show that they are at work.
    #[must_use]
    pub fn look_every(&self) -> Duration {
        self.look_every
    }

    /// Where they show it.
    #[must_use]
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Clients are let in, or a reload is over, whatever came of it.
    pub fn ready(&self) {
        self.send(Message::Ready);
    }

    /// A reload begins; [`Notify::ready`] has to follow.
    pub fn reloading(&self) {
        let now = NotifyState::monotonic_usec_now().ok();
        self.send(Message::Reloading(now));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send(Message::Stopping);
        self.needs_time();
    }

    /// The end goes on: another half a minute is needed, at most.
    pub fn needs_time(&self) {
        self.send(Message::MoreTime);
    }

    /// How it is, in one line. Told only when it is not as before.
    pub fn status(&mut self, status: String) {
        if self.status != status {
            self.status.clone_from(&status);
            self.send(Message::Status(status));
        }
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // Who does not take what is told is not waited for.
            let _ = messages.try_send(message);
        }
    }
}

/// What was told last is sent before the process ends, if the service manager takes it.
impl Drop for Notify {
    fn drop(&mut self) {
        drop(self.messages.take());
        let end = Instant::now() + PATIENCE;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// What the thread has.
struct Teller {
    messages: Receiver<Message>,
    started: Instant,
    /// Who is to be at work, and how long one may show nothing.
    watched: Option<(Watchdog, Duration)>,
    look_every: Duration,
    is_stalled: bool,
}

impl Teller {
    fn run(mut self) {
        let mut look_at = Instant::now();
        loop {
            let patience = look_at.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(patience) {
                Ok(message) => tell(&states(&message)),
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    look_at = Instant::now() + self.look_every;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        let now = Time::ZERO + self.started.elapsed();
        let Some((watchdog, timeout)) = &mut self.watched else {
            return;
        };
        watchdog.look(now, *timeout);
        let stalled = watchdog.stalled(now, *timeout);
        match &stalled {
            None => tell(&[NotifyState::Watchdog]),
            Some(why) if !self.is_stalled => {
                tracing::error!(%why, "the watchdog of the service manager is not served any more");
            }
            Some(_) => {}
        }
        self.is_stalled = stalled.is_some();
    }
}

fn states(message: &Message) -> Vec<NotifyState<'_>> {
    match message {
        Message::Ready => vec![NotifyState::Ready],
        Message::Reloading(now) => {
            let now = now.clone();
            [NotifyState::Reloading].into_iter().chain(now).collect()
        }
        Message::Stopping => vec![NotifyState::Stopping],
        Message::MoreTime => {
            let micros = u32::try_from(MORE_TIME.as_micros()).unwrap_or(u32::MAX);
            vec![NotifyState::ExtendTimeoutUsec(micros)]
        }
        Message::Status(status) => vec![NotifyState::Status(status)],
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &Message) -> Vec<String> {
        let states = states(message);
        states.iter().map(NotifyState::to_string).collect()
    }

    #[test]
    fn a_reload_is_told_with_the_time_at_which_it_began() {
        let now = NotifyState::monotonic_usec_now().unwrap();
        let told = text(&Message::Reloading(Some(now)));
        assert_eq!(told[0], "RELOADING=1");
        let (key, value) = told[1].split_once('=').unwrap();
        assert_eq!(key, "MONOTONIC_USEC");
        assert!(value.parse::<u64>().unwrap() > 0);
        assert_eq!(text(&Message::Reloading(None)), ["RELOADING=1"]);
        assert_eq!(text(&Message::MoreTime), ["EXTEND_TIMEOUT_USEC=30000000"]);
    }
}
