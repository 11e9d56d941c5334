//! Commands that are told of changes of state: in order, one at a time, and nothing waits for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{command, words};
use crate::vrrp::RouterId;
use crate::vrrp::machine::Transition;
use crate::vrrp::settings::Settings;

/// Changes that wait while a command runs; those beyond are left out.
const WAITING_MAX: usize = 256;
/// A command that takes longer is killed.
const LONGEST: Duration = Duration::from_secs(30);

/// See the module's text.
pub(super) struct Notify {
    settings: Vec<Arc<Settings>>,
    /// None once the end has begun.
    waiting: Option<mpsc::Sender<Vec<String>>>,
    running: JoinHandle<()>,
}

impl Notify {
    /// Has to be called within the runtime.
    pub(super) fn start(settings: &[Arc<Settings>]) -> Notify {
        let (waiting, changes) = mpsc::channel(WAITING_MAX);
        Notify {
            settings: settings.to_vec(),
            waiting: Some(waiting),
            running: tokio::spawn(run_all(changes)),
        }
    }

    /// Waits until everything was told; not for longer than this.
    pub(super) async fn finish(&mut self, longest: Duration) {
        self.waiting = None;
        if timeout(longest, &mut self.running).await.is_err() {
            tracing::warn!("notify is too slow: the process ends without it");
        }
    }

    pub(super) fn take_settings(&mut self, settings: &[Arc<Settings>]) {
        self.settings = settings.to_vec();
    }

    pub(super) fn push(&self, router: RouterId, transition: &Transition, priority: u8) {
        let settings = &self.settings[router.index()];
        let Some(command) = &settings.notify else {
            return;
        };
        let mut command = command.to_vec();
        command.extend([
            settings.name.to_string(),
            words::role(transition.from).to_owned(),
            words::role(transition.to).to_owned(),
            priority.to_string(),
        ]);
        let waiting = self.waiting.as_ref();
        if waiting.is_none_or(|waiting| waiting.try_send(command).is_err()) {
            tracing::warn!(virtual_router = %settings.name, "notify is too slow: a change is left out");
        }
    }
}

async fn run_all(mut changes: mpsc::Receiver<Vec<String>>) {
    while let Some(line) = changes.recv().await {
        if let Err(why) = command::run(&line, LONGEST).await {
            tracing::warn!(command = line.join(" "), %why, "notify has failed");
        }
    }
}
