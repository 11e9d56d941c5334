//! Virtual routers, as control sees them: how well this machine could serve their addresses, what to do when they move,
//! and what people are told about it. When they move is decided on a thread of their own ([`crate::vrrp`]).

mod answers;
mod command;
mod notify;
mod readiness;
pub(super) mod reload;
mod samples;
mod scripts;
mod words;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Interval;

use super::snapshot::Snapshot;
use super::status::View;
use super::{Control, Error, Phase};
use crate::admin::{Move, Refusal};
use crate::session::CloseReason;
use crate::vrrp::machine::{HandOver, Readiness};
use crate::vrrp::packet::Password;
use crate::vrrp::progress::Progress;
use crate::vrrp::settings::Settings;
use crate::vrrp::thread::{Handle, Parts};
use crate::vrrp::{Command, Description, Report, RouterId, Ticket};
use crate::worker;

use notify::Notify;
use scripts::{Outcome, Scripts};

/// Reports that wait for control.
const REPORTS_MAX: usize = 1024;
/// An operator waits for a fail-over for so much longer than it can take; it goes on then, but the answer does not.
const MOVE_MARGIN: Duration = Duration::from_secs(2);
/// How long the end of the process waits for addresses to be removed; their leases do the rest.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the end of the process waits for commands that are told of changes.
const NOTIFY_END_MAX: Duration = Duration::from_secs(5);

/// What was found of the virtual routers before anything was started.
pub(super) struct Prepared {
    passwords: Vec<Option<Password>>,
}

/// Reads what they need from this host.
pub(super) fn prepare(snapshot: &Snapshot) -> Result<Option<Prepared>, Error> {
    if snapshot.virtual_routers.is_empty() {
        return Ok(None);
    }
    for (needed, name) in [
        (caps::Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (caps::Capability::CAP_NET_RAW, "CAP_NET_RAW"),
    ] {
        if !caps::has_cap(None, caps::CapSet::Effective, needed).unwrap_or(false) {
            return Err(Error::Permission(format!(
                "virtual routers need {name} (AmbientCapabilities= in the unit, or run as root)"
            )));
        }
    }
    let routers = snapshot.virtual_routers.iter();
    let passwords = routers.map(|router| {
        let path = router.password_file.as_deref();
        path.map(read_password).transpose()
    });
    Ok(Some(Prepared {
        passwords: passwords.collect::<Result<_, Error>>()?,
    }))
}

fn read_password(path: &Path) -> Result<Password, Error> {
    let name = path.display();
    let text = std::fs::read(path)
        .map_err(|error| Error::Host(format!("the password file {name}: {error}")))?;
    Password::new(text.trim_ascii()).ok_or_else(|| {
        Error::Host(format!(
            "the password file {name} does not hold a password of one to eight bytes"
        ))
    })
}

/// See the module's text.
pub(super) struct Vrrp {
    settings: Vec<Arc<Settings>>,
    handle: Handle,
    reports: mpsc::Receiver<Report>,
    progress: Arc<Progress>,
    beat: Interval,
    /// Of those the thread does not know the settings yet: sessions are ended before.
    unconfigured: Vec<RouterId>,
    scripts: Scripts,
    notify: Notify,
    started: SystemTime,
    /// What the thread was told last.
    told: Vec<Option<Readiness>>,
    /// How many workers still end sessions for a ticket.
    clearing: HashMap<Ticket, usize>,
    moves: Vec<PendingMove>,
    /// Who waits for a description of them.
    looking: Vec<Look>,
    described: Vec<Description>,
    is_stopping: bool,
    has_stopped: bool,
}

/// Looks at how everything is, and tells whoever asked, who may be gone by then.
pub(super) type Look = Box<dyn FnOnce(&View<'_>)>;

/// A fail-over that an operator waits for.
struct PendingMove {
    until: Instant,
    outcomes: Vec<(RouterId, Option<HandOver>)>,
    reply: oneshot::Sender<Result<Value, Refusal>>,
}

/// What can happen to them.
pub(super) enum Happening {
    Report(Option<Report>),
    Script(Outcome),
    Beat,
}

impl Vrrp {
    /// Starts their thread. Has to be called within the runtime.
    pub(super) fn start(
        prepared: Prepared,
        snapshot: &Snapshot,
        workers: usize,
    ) -> io::Result<Vrrp> {
        let settings = snapshot.virtual_routers.clone();
        let (started, wall) = (Instant::now(), SystemTime::now());
        let progress = Arc::new(Progress::new(started, workers));
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let handle = crate::vrrp::thread::start(Parts {
            settings: settings.clone(),
            passwords: prepared.passwords,
            progress: Arc::clone(&progress),
            started,
            reports: report,
        })?;
        Ok(Vrrp {
            scripts: Scripts::start(&settings),
            notify: Notify::start(&settings),
            told: vec![None; settings.len()],
            beat: reload::beat_of(&settings),
            settings,
            handle,
            reports,
            progress,
            unconfigured: Vec::new(),
            started: wall,
            clearing: HashMap::new(),
            moves: Vec::new(),
            looking: Vec::new(),
            described: Vec::new(),
            is_stopping: false,
            has_stopped: false,
        })
    }

    /// The next thing that happens.
    async fn next(&mut self) -> Happening {
        tokio::select! {
            report = self.reports.recv(), if !self.has_stopped => Happening::Report(report),
            outcome = self.scripts.next() => Happening::Script(outcome),
            _ = self.beat.tick() => Happening::Beat,
        }
    }

    fn id_of(&self, name: &str) -> Option<RouterId> {
        let position = self.settings.iter().position(|one| &*one.name == name)?;
        u16::try_from(position).ok().map(RouterId)
    }

    fn all(&self) -> impl Iterator<Item = RouterId> + use<> {
        let count = u16::try_from(self.settings.len()).expect("no more virtual routers than ids");
        (0..count).map(RouterId)
    }

    /// It, and those that move with it.
    fn group_of(&self, id: RouterId) -> Vec<RouterId> {
        let group = &self.settings[id.index()].group;
        let is_member = |other: &RouterId| {
            *other == id || (group.is_some() && self.settings[other.index()].group == *group)
        };
        self.all().filter(is_member).collect()
    }

    fn name(&self, id: RouterId) -> &str {
        &self.settings[id.index()].name
    }

    /// Gives everything up at once.
    async fn let_go(&mut self) {
        self.handle.send(Command::StopNow);
        let stopped = async {
            while let Some(report) = self.reports.recv().await {
                match report {
                    Report::Stopped => break,
                    Report::EndSessions { ticket, .. } => {
                        self.handle.send(Command::SessionsEnded(ticket));
                    }
                    Report::Changed {
                        router,
                        transition,
                        priority,
                    } => {
                        words::log_transition(self.name(router), &transition, priority);
                        self.notify.push(router, &transition, priority);
                    }
                    Report::Said { .. } | Report::HandedOver(..) | Report::Described(_) => {}
                }
            }
        };
        if tokio::time::timeout(PATIENCE, stopped).await.is_ok() {
            self.handle.join();
        } else {
            tracing::warn!("virtual addresses could not be removed in time; their leases end soon");
        }
    }
}

/// What happens to the virtual routers, if there are any.
pub(super) async fn next(vrrp: Option<&mut Vrrp>) -> Happening {
    match vrrp {
        Some(vrrp) => vrrp.next().await,
        None => std::future::pending().await,
    }
}

impl Control {
    pub(super) fn vrrp_happened(&mut self, happening: Happening) {
        match happening {
            Happening::Beat => self.beat(),
            Happening::Script(outcome) => {
                if let Some(vrrp) = &mut self.vrrp {
                    vrrp.scripts.count(&outcome);
                }
                self.judge_readiness();
            }
            Happening::Report(Some(report)) => self.vrrp_reported(report),
            Happening::Report(None) => self.vrrp_stopped(),
        }
    }

    /// Shows the virtual routers that control and the workers are at work.
    fn beat(&mut self) {
        let Some(vrrp) = &mut self.vrrp else { return };
        vrrp.answer_late_moves();
        let progress = Arc::clone(&vrrp.progress);
        self.beat_for(&progress);
    }

    fn vrrp_reported(&mut self, report: Report) {
        let Some(vrrp) = &mut self.vrrp else { return };
        match report {
            Report::Changed {
                router,
                transition,
                priority,
            } => {
                words::log_transition(vrrp.name(router), &transition, priority);
                vrrp.notify.push(router, &transition, priority);
                let facts = words::facts(vrrp.name(router), &transition, priority);
                self.journal.note("virtual_router", facts);
            }
            Report::EndSessions { router, ticket } => self.end_sessions(router, ticket),
            Report::Said {
                router,
                is_warning,
                text,
            } => {
                let name = router.map(|router| vrrp.name(router));
                words::log_line(name, is_warning, &text);
            }
            Report::HandedOver(router, outcome) => vrrp.handed_over(router, outcome),
            Report::Described(all) => {
                vrrp.described = all;
                let looking = std::mem::take(&mut vrrp.looking);
                if !looking.is_empty() {
                    let view = self.view();
                    looking.into_iter().for_each(|look| look(&view));
                }
            }
            Report::Stopped => self.vrrp_stopped(),
        }
    }

    /// Before the addresses go: the reset has to reach the clients.
    fn end_sessions(&mut self, router: RouterId, ticket: Ticket) {
        let Some(vrrp) = &mut self.vrrp else { return };
        let addresses: Arc<[IpAddr]> = vrrp.settings[router.index()].addresses().collect();
        let live = self.live.iter().filter(|is_live| **is_live).count();
        if live == 0 {
            vrrp.handle.send(Command::SessionsEnded(ticket));
            return;
        }
        vrrp.clearing.insert(ticket, live);
        self.tell_all(|| worker::Command::ClearAddresses(Arc::clone(&addresses), ticket));
    }

    /// One more worker has no session on the addresses any more.
    pub(super) fn addresses_cleared(&mut self, ticket: Ticket) {
        let Some(vrrp) = &mut self.vrrp else { return };
        let Some(missing) = vrrp.clearing.get_mut(&ticket) else {
            return;
        };
        *missing -= 1;
        if *missing == 0 {
            vrrp.clearing.remove(&ticket);
            vrrp.cleared(ticket);
        }
    }

    /// Whether virtual addresses are to be handed over before anything else is stopped; if so, that begins.
    pub(super) fn hands_over_first(&mut self) -> bool {
        let Some(vrrp) = self.vrrp.as_mut().filter(|vrrp| !vrrp.has_stopped) else {
            return false;
        };
        if self.phase != Phase::Serving {
            vrrp.handle.send(Command::StopNow);
            return false;
        }
        if vrrp.is_stopping {
            // Asked a second time: nobody is waited for.
            vrrp.handle.send(Command::StopNow);
            self.kill_all(CloseReason::Shutdown);
            return true;
        }
        tracing::info!("stopping: handing the virtual addresses over");
        vrrp.is_stopping = true;
        vrrp.handle.send(Command::Stop)
    }

    fn vrrp_stopped(&mut self) {
        let Some(vrrp) = &mut self.vrrp else { return };
        vrrp.has_stopped = true;
        let was_asked = vrrp.is_stopping;
        vrrp.handle.join();
        if was_asked && self.phase == Phase::Serving {
            self.told_to_stop();
        } else if !was_asked && self.phase == Phase::Serving {
            tracing::error!("the thread of the virtual routers has ended: their addresses lapse");
        }
    }

    /// At the end of the process nothing of the virtual addresses is to stay behind.
    pub(super) async fn let_go_of_addresses(&mut self) {
        let Some(vrrp) = &mut self.vrrp else { return };
        if !vrrp.has_stopped {
            vrrp.let_go().await;
        }
        vrrp.notify.finish(NOTIFY_END_MAX).await;
    }

    /// Whoever asks how everything is waits until the virtual routers have said how they are.
    pub(super) fn look_later(&mut self, look: Look) {
        if let Some(vrrp) = self.vrrp.as_mut().filter(|vrrp| !vrrp.has_stopped) {
            vrrp.looking.push(look);
            vrrp.handle.send(Command::Describe);
        } else {
            look(&self.view());
        }
    }

    pub(super) fn move_addresses(
        &mut self,
        name: Option<&str>,
        wanted: Move,
        reply: oneshot::Sender<Result<Value, Refusal>>,
    ) {
        match &mut self.vrrp {
            Some(vrrp) => vrrp.move_addresses(name, wanted, reply),
            None => {
                let text = "there are no virtual routers here".to_owned();
                let _ = reply.send(Err(Refusal::not_found(text)));
            }
        }
    }
}
