//! Commands whose success says that a virtual router is well here. Each runs on its own, one run at a time, and never
//! for longer than its timeout; nothing else waits for it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::command;
use crate::vrrp::RouterId;
use crate::vrrp::settings::{Script, Settings};

/// Outcomes that wait for control.
const OUTCOMES_MAX: usize = 256;

/// A run of a script is over.
pub(in crate::control) struct Outcome {
    number: usize,
    /// Why it failed.
    result: Result<(), String>,
}

/// See the module's text.
pub(super) struct Scripts {
    all: Vec<Health>,
    outcomes: mpsc::Receiver<Outcome>,
    /// Kept, so that there is always somebody who could send.
    _sender: mpsc::Sender<Outcome>,
}

/// What the runs of a script so far say.
#[derive(Debug)]
struct Health {
    router: RouterId,
    script: Script,
    is_failing: bool,
    why: String,
    /// None before the first run, whose outcome decides alone.
    against: Option<u32>,
}

impl Health {
    fn count(&mut self, result: &Result<(), String>) {
        let is_failure = result.is_err();
        if let Err(why) = result {
            self.why.clone_from(why);
        }
        let Some(against) = &mut self.against else {
            self.is_failing = is_failure;
            self.against = Some(0);
            return;
        };
        if is_failure == self.is_failing {
            *against = 0;
            return;
        }
        *against += 1;
        let needed = if is_failure {
            self.script.fall
        } else {
            self.script.rise
        };
        if *against >= needed {
            self.is_failing = is_failure;
            *against = 0;
        }
    }
}

impl Scripts {
    /// Starts to run them. Has to be called within the runtime.
    pub(super) fn start(settings: &[Arc<Settings>]) -> Scripts {
        let (sender, outcomes) = mpsc::channel(OUTCOMES_MAX);
        let mut all = Vec::new();
        for (settings, number) in settings.iter().zip(0..) {
            for script in &settings.track.scripts {
                tokio::spawn(run(all.len(), script.clone(), sender.clone()));
                all.push(Health {
                    router: RouterId(number),
                    script: script.clone(),
                    is_failing: false,
                    why: String::new(),
                    against: None,
                });
            }
        }
        Scripts {
            all,
            outcomes,
            _sender: sender,
        }
    }

    /// Those of other settings from now on. One that was there before is still what its runs have said so far.
    pub(super) fn become_those_of(&mut self, settings: &[Arc<Settings>]) {
        let before = std::mem::replace(self, Scripts::start(settings));
        for health in &mut self.all {
            let is_same =
                |old: &&Health| old.router == health.router && old.script == health.script;
            if let Some(old) = before.all.iter().find(is_same) {
                health.is_failing = old.is_failing;
                health.why.clone_from(&old.why);
                health.against = old.against;
            }
        }
    }

    pub(super) async fn next(&mut self) -> Outcome {
        match self.outcomes.recv().await {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }

    pub(super) fn count(&mut self, outcome: &Outcome) {
        self.all[outcome.number].count(&outcome.result);
    }

    /// What is wrong with those of a virtual router.
    pub(super) fn failing(&self, router: RouterId) -> impl Iterator<Item = String> {
        let own = self
            .all
            .iter()
            .filter(move |health| health.router == router);
        own.filter(|health| health.is_failing).map(|health| {
            let program = health.script.command.first();
            format!(
                "{} fails: {}",
                program.map_or("", String::as_str),
                health.why
            )
        })
    }
}

async fn run(number: usize, script: Script, outcomes: mpsc::Sender<Outcome>) {
    let mut ticks = interval(script.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = command::run(&script.command, script.timeout).await;
        if outcomes.send(Outcome { number, result }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_run_decides_and_then_rise_and_fall_do() {
        let second = Duration::from_secs(1);
        let script = Script {
            command: Arc::from(["/bin/x".to_owned()]),
            interval: second,
            timeout: second,
            fall: 2,
            rise: 3,
        };
        let mut health = Health {
            router: RouterId(0),
            script,
            is_failing: false,
            why: String::new(),
            against: None,
        };
        let failing: String = "-+-+++-+--"
            .chars()
            .map(|run| {
                let result = if run == '+' {
                    Ok(())
                } else {
                    Err("exit status: 1".to_owned())
                };
                health.count(&result);
                if health.is_failing { '-' } else { '+' }
            })
            .collect();
        assert_eq!(failing, "-----++++-");
    }
}
