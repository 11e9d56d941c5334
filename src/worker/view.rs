//! A newer snapshot: what it changes for the sessions that are there.

use std::sync::Arc;

use super::token::Key;
use super::{Report, Worker};
use crate::control::snapshot::{Backend, OnDown, OnUp, OperatorState, Snapshot, Standing};
use crate::ids::BackendId;
use crate::session::{CloseReason, Event};

impl Worker {
    /// Looks at things this way from now on. The old view goes back to control, which frees it.
    pub(super) fn see(&mut self, snapshot: Arc<Snapshot>) {
        self.picks.see(&self.snapshot, &snapshot);
        let old = std::mem::replace(&mut self.snapshot, snapshot);
        let news = News::between(&old, &self.snapshot);
        for backend in news.up.iter().chain(&news.down).chain(&news.new) {
            self.picks.forget_failures(*backend, &self.cells);
        }
        // At the start all come at once, and each gets its full share.
        for id in news.risen.iter().filter(|_| self.has_opened) {
            let pool = self.snapshot.backends[id.index()].pool;
            if let Some(lasts) = self.snapshot.pools[pool.index()].slow_start {
                self.picks.ramp(&self.snapshot, *id, lasts, self.now);
                let until = self.now + lasts;
                let cells = self.cells.backend(*id);
                cells.ramp_until.set(until.as_micros());
            }
        }
        self.end_sessions(&news);
        self.lose_backends(&news);
        (self.reports)(Report::Replaced(old));
    }

    /// As `on_down`, `on_up` and `drain_timeout` of the pools say.
    fn end_sessions(&mut self, news: &News) {
        if news.down.is_empty() && news.back.is_empty() && news.drained.is_empty() {
            return;
        }
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            if let Some(event) = self.lost(key, news) {
                self.tell(key, event);
            }
        }
    }

    /// Its time to drain is over: why that is.
    fn why_drained(&self, id: BackendId) -> CloseReason {
        match self.snapshot.backends[id.index()].standing {
            Standing::Configured => CloseReason::DrainTimeout,
            Standing::Leaving | Standing::Free => CloseReason::BackendRemoved,
        }
    }

    /// Flows, which know no connection, just go on with another backend.
    fn lose_backends(&mut self, news: &News) {
        if news.is_good() {
            return;
        }
        let snapshot = Arc::clone(&self.snapshot);
        self.strand_flows(|id| {
            if news.down.contains(&id) || news.moved.contains(&id) {
                Some(CloseReason::BackendDown)
            } else if news.drained.contains(&id) {
                Some(CloseReason::DrainTimeout)
            } else {
                let leaves = news.is_normal_back(&snapshot, id);
                leaves.then_some(CloseReason::BackupLeft)
            }
        });
    }

    /// What a session is to be told, if anything.
    fn lost(&mut self, key: Key, news: &News) -> Option<Event> {
        let slot = self.slots.get(key)?;
        let Some((id, heard)) = slot.connected_to() else {
            // A host that has vanished lets connects wait; there is no use in waiting on.
            let reason = slot.backend().and_then(|id| news.why_lost(id));
            return reason.map(Event::BackendLost);
        };
        if news.drained.contains(&id) {
            return Some(Event::Kill(self.why_drained(id)));
        }
        let backend = &self.snapshot.backends[id.index()];
        let pool = &self.snapshot.pools[backend.pool.index()];
        if news.down.contains(&id) {
            let is_silent = || match backend.doubted_since {
                Some(since) => heard <= since,
                None => true,
            };
            let ends = match pool.on_down {
                OnDown::Close => true,
                OnDown::CloseSilent => is_silent(),
                OnDown::Keep => false,
            };
            return ends.then_some(Event::Kill(CloseReason::BackendDown));
        }
        let ends = news.is_normal_back(&self.snapshot, id);
        ends.then_some(Event::Kill(CloseReason::BackupLeft))
    }
}

/// What differs between two snapshots.
struct News {
    /// Backends that went down.
    down: Vec<BackendId>,
    /// Backends that came up, or became known to be.
    up: Vec<BackendId>,
    /// Backends that take sessions again, or for the first time.
    back: Vec<BackendId>,
    /// Of those, backends that were out of service, not only without new sessions.
    risen: Vec<BackendId>,
    /// Backends whose time to drain is over.
    drained: Vec<BackendId>,
    /// Backends whose name has another address now.
    moved: Vec<BackendId>,
    /// Backends that have just come into the configuration.
    new: Vec<BackendId>,
}

impl News {
    fn between(old: &Snapshot, new: &Snapshot) -> News {
        let is_down = |backend: &Backend| backend.is_up == Some(false);
        let mut news = News {
            down: Vec::new(),
            up: Vec::new(),
            back: Vec::new(),
            risen: Vec::new(),
            drained: Vec::new(),
            moved: Vec::new(),
            new: Vec::new(),
        };
        for (id, now) in (0..).map(BackendId).zip(&new.backends) {
            let is_configured = |backend: &&Backend| backend.standing == Standing::Configured;
            let before = old.backends.get(id.index());
            let Some(before) =
                before.filter(|before| is_configured(before) || !is_configured(&now))
            else {
                news.new.push(id);
                if now.takes_sessions() {
                    news.back.push(id);
                    news.risen.push(id);
                }
                continue;
            };
            if now.takes_sessions() && !before.takes_sessions() {
                news.back.push(id);
                if before.state != OperatorState::Drain && before.weight > 0 {
                    news.risen.push(id);
                }
            }
            if before.address.is_some() && now.address != before.address {
                news.moved.push(id);
            }
            if now.is_drained && !before.is_drained {
                news.drained.push(id);
            }
            if is_down(now) && !is_down(before) {
                news.down.push(id);
            } else if now.is_up == Some(true) && before.is_up != Some(true) {
                news.up.push(id);
            }
        }
        news
    }

    /// Whether it is a backup that is to be left for a normal backend which has come back.
    fn is_normal_back(&self, snapshot: &Snapshot, id: BackendId) -> bool {
        let backend = &snapshot.backends[id.index()];
        let is_normal = |id: &BackendId| {
            let other = &snapshot.backends[id.index()];
            other.pool == backend.pool && !other.backup
        };
        backend.backup
            && snapshot.pools[backend.pool.index()].on_up == OnUp::CloseBackup
            && self.back.iter().any(is_normal)
    }

    /// Whether there is nothing that flows would have to know.
    fn is_good(&self) -> bool {
        self.down.is_empty()
            && self.back.is_empty()
            && self.drained.is_empty()
            && self.moved.is_empty()
    }

    /// Why a connect to it is not worth waiting for any more.
    fn why_lost(&self, id: BackendId) -> Option<CloseReason> {
        if self.down.contains(&id) {
            Some(CloseReason::BackendDown)
        } else if self.drained.contains(&id) {
            Some(CloseReason::DrainTimeout)
        } else {
            None
        }
    }
}
