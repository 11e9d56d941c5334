//! A newer snapshot: what it changes for the sessions that are there.

use std::sync::Arc;

use super::token::Key;
use super::{Report, Worker};
use crate::control::snapshot::{Backend, OnDown, OnUp, Snapshot};
use crate::ids::BackendId;
use crate::session::{CloseReason, Event};
use crate::time::Time;

impl Worker {
    /// Looks at things this way from now on. The old view goes back to control, which frees it.
    pub(super) fn see(&mut self, snapshot: Arc<Snapshot>) {
        self.picks.see(&self.snapshot, &snapshot);
        let old = std::mem::replace(&mut self.snapshot, snapshot);
        let news = News::between(&old, &self.snapshot);
        for backend in news.up.iter().chain(&news.down) {
            self.picks.forget_failures(*backend, &self.cells);
        }
        for id in &news.back {
            let pool = self.snapshot.backends[id.index()].pool;
            if let Some(lasts) = self.snapshot.pools[pool.index()].slow_start {
                self.picks.ramp(&self.snapshot, *id, lasts, self.now);
            }
        }
        self.end_sessions(&news);
        (self.reports)(Report::Replaced(old));
    }

    /// As `on_down` and `on_up` of the pools say.
    fn end_sessions(&mut self, news: &News) {
        if news.down.is_empty() && news.back.is_empty() {
            return;
        }
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            if let Some(event) = self.lost(key, news) {
                self.tell(key, event);
            }
        }
    }

    /// What a session is to be told, if anything.
    fn lost(&mut self, key: Key, news: &News) -> Option<Event> {
        let slot = self.slots.get(key)?;
        let Some((id, heard)) = slot.connected_to() else {
            // A host that has vanished lets connects wait; there is no use in waiting on.
            let backend = slot.backend().filter(|id| news.down.contains(id));
            return backend.map(|_| Event::BackendLost);
        };
        let backend = &self.snapshot.backends[id.index()];
        let pool = &self.snapshot.pools[backend.pool.index()];
        if news.down.contains(&id) {
            let is_silent = || match backend.doubted_since {
                Some(since) => heard <= Time::ZERO + since.saturating_duration_since(self.started),
                None => true,
            };
            let ends = match pool.on_down {
                OnDown::Close => true,
                OnDown::CloseSilent => is_silent(),
                OnDown::Keep => false,
            };
            return ends.then_some(Event::Kill(CloseReason::BackendDown));
        }
        let normal_is_back = || {
            news.back.iter().any(|id| {
                let other = &self.snapshot.backends[id.index()];
                other.pool == backend.pool && !other.backup
            })
        };
        let ends = backend.backup && pool.on_up == OnUp::CloseBackup && normal_is_back();
        ends.then_some(Event::Kill(CloseReason::Operator))
    }
}

/// What differs between two snapshots.
struct News {
    /// Backends that went down.
    down: Vec<BackendId>,
    /// Backends that came up, or became known to be.
    up: Vec<BackendId>,
    /// Of those, backends that had been down.
    back: Vec<BackendId>,
}

impl News {
    fn between(old: &Snapshot, new: &Snapshot) -> News {
        let is_down = |backend: &Backend| backend.is_up == Some(false);
        let mut news = News {
            down: Vec::new(),
            up: Vec::new(),
            back: Vec::new(),
        };
        let both = old.backends.iter().zip(&new.backends);
        for (id, (before, now)) in (0..).map(BackendId).zip(both) {
            if before.is_up == now.is_up {
                continue;
            }
            if is_down(now) {
                news.down.push(id);
            } else {
                news.up.push(id);
                if is_down(before) {
                    news.back.push(id);
                }
            }
        }
        news
    }
}
