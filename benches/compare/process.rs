//! Child processes: pinned to a core, dying with their parent, ended by their own pid.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio, id};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Outcome, backend, generator, machine, network};

/// The hidden argument that pins this process and then becomes another program.
pub(crate) const PINNED: &str = "__pinned";

/// Where the balancer runs.
const BALANCER_CORE: usize = 0;

/// Where the generator and the backends run.
const LOAD_CORE: usize = 1;

/// How long a balancer may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// `__pinned PARENT NICE NETWORK PROGRAM ARGUMENTS...`: pins itself, enters the network namespace if one is named,
/// arranges to end with its parent, becomes the program.
pub(crate) fn run_pinned(arguments: &[String]) -> Outcome<()> {
    let [parent, nice, network, program, rest @ ..] = arguments else {
        return Err("no program given".into());
    };
    if !network.is_empty() {
        network::enter(network)?;
    }
    pin(BALANCER_CORE)?;
    enter_session(nice)?;
    end_with_parent(Signal::SIGTERM, parent)?;
    Err(Command::new(program).args(rest).exec().into())
}

/// Pins a generator or backend and returns what it was told to do.
pub(crate) fn enter_role<T: DeserializeOwned>(arguments: &[String]) -> Outcome<T> {
    let [parent, nice, orders] = arguments else {
        return Err("started by hand".into());
    };
    pin(LOAD_CORE)?;
    enter_session(nice)?;
    end_with_parent(Signal::SIGKILL, parent)?;
    Ok(serde_json::from_str(orders)?)
}

/// One line from a role to the director.
pub(crate) fn answer(line: &str) {
    println!("{line}");
}

fn pin(core: usize) -> Outcome<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)
        .map_err(|errno| format!("cannot pin to core {core}: {errno}"))?;
    Ok(())
}

/// A session of its own, with the priority that `nice` gave the process: where the kernel groups processes by session
/// to share the processor, priorities count only within a group, so the group needs one too.
fn enter_session(nice: &str) -> Outcome<()> {
    setsid()?;
    // The file is missing where the kernel does no such grouping.
    let _ = fs::write("/proc/self/autogroup", nice);
    Ok(())
}

fn end_with_parent(signal: Signal, parent: &str) -> Outcome<()> {
    set_pdeathsig(signal)?;
    if parent_id().to_string() != parent {
        return Err("the parent is gone already".into());
    }
    Ok(())
}

/// This program again, at a priority; `nice` becomes it, so that its pid is the child's.
fn this_program(nice: i8) -> Outcome<Command> {
    let mut command = Command::new("nice");
    command
        .args(["-n", &nice.to_string()])
        .arg(env::current_exe()?);
    Ok(command)
}

/// A generator or a backend under the director's eyes; killed when dropped.
pub(crate) struct Role {
    child: Child,
    name: &'static str,
    orders: ChildStdin,
    lines: ChildStdout,
    pending: Vec<u8>,
}

impl Role {
    pub(crate) fn start(role: &'static str, orders: &impl Serialize, nice: i8) -> Outcome<Self> {
        let mut command = this_program(nice)?;
        command.args([
            role,
            &id().to_string(),
            &nice.to_string(),
            &serde_json::to_string(orders)?,
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no standard input")?;
        let lines = child.stdout.take().ok_or("no standard output")?;
        let name = if role == generator::ROLE {
            "generator"
        } else {
            "backend"
        };
        debug_assert!(
            role == generator::ROLE || role == backend::ROLE,
            "only roles answer"
        );
        Ok(Self {
            child,
            name,
            orders,
            lines,
            pending: Vec::new(),
        })
    }

    pub(crate) fn order(&mut self, order: &impl Serialize) -> Outcome<()> {
        writeln!(self.orders, "{}", serde_json::to_string(order)?)?;
        Ok(())
    }

    /// The next line it answers.
    pub(crate) fn line(&mut self, patience: Duration) -> Outcome<String> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.drain(..=end).collect();
                return Ok(String::from_utf8(line)?.trim().to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("the {} did not answer within {patience:?}", self.name).into());
            }
            let mut watched = [PollFd::new(self.lines.as_fd(), PollFlags::POLLIN)];
            if poll(&mut watched, PollTimeout::try_from(left)?)? > 0 {
                let mut bytes = [0; 4096];
                match self.lines.read(&mut bytes)? {
                    0 => return Err(format!("the {} ended early", self.name).into()),
                    count => self.pending.extend_from_slice(&bytes[..count]),
                }
            }
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Only fails when it has ended already; waiting reaps it either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A balancer on its core, ended when dropped, its own children included.
pub(crate) struct Balancer {
    child: Child,
    log: PathBuf,
}

impl Balancer {
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        nice: i8,
        network: &str,
        log: PathBuf,
    ) -> Outcome<Self> {
        let output = File::create(&log)?;
        let mut command = this_program(nice)?;
        command
            .args([PINNED, &id().to_string(), &nice.to_string(), network])
            .arg(program)
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command.spawn()?;
        Ok(Self { child, log })
    }

    /// Waits until `ready` says so.
    pub(crate) fn await_ready(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Outcome<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("ended with {status}: {}", self.last_words()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("not ready within {patience:?}: {}", self.last_words()).into());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Itself and its children. One that has just become ready may not have all of them yet.
    pub(crate) fn pids(&self) -> Vec<u32> {
        machine::process_tree(self.child.id())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(3)..].join(" | ");
        last.chars().take(300).collect()
    }

    fn signal(&self, signal: Signal) {
        // Fails only when the process has ended in the meantime.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    fn ends_within(&mut self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let pids = self.pids();
        self.signal(Signal::SIGTERM);
        if self.ends_within(GRACE) {
            return;
        }
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        for pid in pids.iter().filter(|pid| **pid != self.child.id()) {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
    }
}
