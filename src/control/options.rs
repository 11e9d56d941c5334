//! What a process is told beside its configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Notify, oneshot};

use crate::access::Sink;
use crate::admin::{self, Request};
use crate::config::Config;
use crate::privileges::Dropped;
use crate::ring::ReceiveTier;

/// What only the command line can say.
#[derive(Debug, Default)]
pub struct Options {
    /// Within a process that does other things: no signals, no counters at the end.
    pub embedded: Option<Embedded>,
    /// Where the admin API is served.
    pub admin: admin::Settings,
    /// What is read again at a reload; none = there is nothing to reload.
    pub file: Option<Source>,
    /// A hash of the text of the file.
    pub config_hash: u64,
    /// The configuration as this host reads it, to be shown.
    pub config_text: String,
    /// What keeps the operator's changes; none = they hold until the process ends.
    pub state_file: Option<PathBuf>,
    /// Where workers tell of what ended; none = nowhere.
    pub access: Option<Sink>,
    /// Sets the level of the log; none = the log is somebody else's.
    pub level: Option<LevelSwitch>,
    /// What is left of the rights that it was started with; none = all of them.
    pub dropped: Option<Dropped>,
    /// How to receive; the best there is unless given.
    pub tier: Option<ReceiveTier>,
    /// Freeze and thaw all sessions again and again.
    pub freeze_every: Option<Duration>,
}

/// Where the configuration comes from.
#[derive(Clone)]
pub struct Source {
    pub(super) document: Value,
    pub(super) read: Arc<dyn Fn() -> Result<Config, String> + Send + Sync>,
}

impl Source {
    /// The configuration as it was written, and what reads it again or says what is wrong with it.
    #[must_use]
    pub fn new(
        config: &Config,
        read: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
    ) -> Source {
        Source {
            document: config.document(),
            read: Arc::new(read),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Source")
    }
}

/// Why a level cannot be set.
type Outcome = Result<(), String>;

/// Sets the level of the log.
pub struct LevelSwitch(Box<dyn Fn(&str) -> Outcome + Send>);

impl LevelSwitch {
    /// By this, which is given `error`, `warn`, `info`, `debug` or `trace`.
    #[must_use]
    pub fn new(set: impl Fn(&str) -> Result<(), String> + Send + 'static) -> LevelSwitch {
        LevelSwitch(Box::new(set))
    }

    pub(super) fn set(&self, level: &str) -> Result<(), String> {
        (self.0)(level)
    }
}

impl fmt::Debug for LevelSwitch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LevelSwitch")
    }
}

/// How a process that contains it talks to it.
#[derive(Debug)]
pub struct Embedded {
    /// What the admin API would ask.
    pub requests: Receiver<Request>,
    /// Told the first listener's address once clients are let in.
    pub ready: oneshot::Sender<String>,
    /// Stops it.
    pub stop: Arc<Notify>,
}
