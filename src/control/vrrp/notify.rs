//! Commands that are told of changes of state: in order, one at a time, and nothing waits for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

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
    waiting: mpsc::Sender<Vec<String>>,
}

impl Notify {
    /// Has to be called within the runtime.
    pub(super) fn start(settings: &[Arc<Settings>]) -> Notify {
        let (waiting, changes) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run_all(changes));
        Notify {
            settings: settings.to_vec(),
            waiting,
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
        if self.waiting.try_send(command).is_err() {
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
