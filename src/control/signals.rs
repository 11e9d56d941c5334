//! What signals mean. They are taken before anything else is done: until then each of them would end the process.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Gracefully; the second one at once.
    Stop,
    PrintCounters,
    /// Read the configuration again.
    Reload,
    /// One that this version does nothing about: its name.
    Ignored(&'static str),
}

pub(super) enum Signals {
    Unix {
        terminate: Signal,
        interrupt: Signal,
        print_counters: Signal,
        hangup: Signal,
        second: Signal,
    },
    /// The process that contains us has the signals.
    StandIn(Arc<Notify>),
}

impl Signals {
    /// From now on they end nothing. Has to be called within the runtime.
    pub(super) fn take() -> io::Result<Signals> {
        Ok(Signals::Unix {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            print_counters: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
            second: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Sign {
        match self {
            Signals::Unix {
                terminate,
                interrupt,
                print_counters,
                hangup,
                second,
            } => tokio::select! {
                _ = terminate.recv() => Sign::Stop,
                _ = interrupt.recv() => Sign::Stop,
                _ = print_counters.recv() => Sign::PrintCounters,
                _ = hangup.recv() => Sign::Reload,
                _ = second.recv() => Sign::Ignored("SIGUSR2"),
            },
            Signals::StandIn(stop) => {
                stop.notified().await;
                Sign::Stop
            }
        }
    }
}
