//! What has happened, for those who watch: the last events, and a stream of new ones. A subscriber that is too slow
//! loses events and is told how many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use super::listeners::Door;
use super::snapshot::{Backend, BackendAddress, Snapshot, Standing};
use crate::admin::{Event, Subscription};
use crate::ids::BackendId;

/// Events that are remembered, and that may wait for one subscriber.
const REMEMBERED: usize = 256;
/// What changes at once beyond this is not told one by one.
const CHANGES_MAX: usize = 128;

/// See the module's text.
pub(super) struct Journal {
    next: u64,
    recent: VecDeque<Arc<Event>>,
    sender: broadcast::Sender<Arc<Event>>,
    lost: Arc<std::sync::atomic::AtomicU64>,
}

impl Journal {
    pub(super) fn new() -> Journal {
        Journal {
            next: 1,
            recent: VecDeque::new(),
            sender: broadcast::Sender::new(REMEMBERED),
            lost: Arc::default(),
        }
    }

    /// Something has happened.
    pub(super) fn note(&mut self, kind: &'static str, facts: Value) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Arc::new(Event {
            id: self.next,
            at: since.map_or(0, |since| since.as_secs()),
            kind,
            facts,
        });
        self.next += 1;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&event));
        // Nobody may be listening.
        let _ = self.sender.send(event);
    }

    /// The remembered events after that one, and the stream of those to come.
    pub(super) fn subscribe(&self, after: u64) -> Subscription {
        let recent = self.recent.iter().filter(|event| event.id > after);
        Subscription {
            recent: recent.cloned().collect(),
            new: self.sender.subscribe(),
            lost: Arc::clone(&self.lost),
        }
    }

    /// Events that subscribers have not got.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// What differs between two snapshots; `why` says what made a backend go up or down.
    pub(super) fn note_changes(
        &mut self,
        old: &Snapshot,
        new: &Snapshot,
        why: impl Fn(BackendId) -> Value,
    ) {
        let both = (0..)
            .map(BackendId)
            .zip(old.backends.iter().zip(&new.backends));
        let mut told = 0;
        for (id, (before, now)) in both {
            let stays = |backend: &Backend| backend.standing == Standing::Configured;
            let changes = match stays(before) && stays(now) {
                true => changes(before, now),
                false if now.is_drained && !before.is_drained => changes(before, now),
                // A reload tells of those that come and go.
                false => Map::new(),
            };
            if changes.is_empty() {
                continue;
            }
            told += 1;
            if told > CHANGES_MAX {
                continue;
            }
            let mut facts = Map::new();
            facts.insert("pool".to_owned(), json!(&*new.pools[now.pool.index()].name));
            facts.insert("backend".to_owned(), json!(&*now.name));
            let is_health = changes.contains_key("up");
            facts.extend(changes);
            if is_health {
                facts.insert("why".to_owned(), why(id));
            }
            self.note("backend", Value::Object(facts));
        }
        if told > CHANGES_MAX {
            self.note(
                "backends",
                json!({"changed": told, "not_told": told - CHANGES_MAX}),
            );
        }
    }

    /// Which listeners have been opened or shut.
    pub(super) fn note_doors(&mut self, snapshot: &Snapshot, before: &[Door], now: &[Door]) {
        let listeners = snapshot.listeners.iter();
        for (listener, (before, now)) in listeners.zip(before.iter().zip(now)) {
            if before.is_open != now.is_open {
                self.note(
                    "listener",
                    json!({"listener": &*listener.name, "open": now.is_open}),
                );
            }
        }
    }
}

fn changes(before: &Backend, now: &Backend) -> Map<String, Value> {
    let mut changes = Map::new();
    let mut note = |key: &str, is_new: bool, value: Value| {
        if is_new {
            changes.insert(key.to_owned(), value);
        }
    };
    note("up", before.is_up != now.is_up, json!(now.is_up));
    note(
        "state",
        before.state != now.state,
        json!(now.state.as_str()),
    );
    note("weight", before.weight != now.weight, json!(now.weight));
    let is_new = before.max_sessions != now.max_sessions;
    note("max_sessions", is_new, json!(now.max_sessions));
    let address = now.address.as_ref().map(|address| match address {
        BackendAddress::Tcp(address) => address.to_string(),
        BackendAddress::Unix(path) => path.display().to_string(),
    });
    note("address", before.address != now.address, json!(address));
    note("drained", now.is_drained && !before.is_drained, json!(true));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_events_are_remembered_and_a_subscriber_goes_on_where_it_was() {
        let mut journal = Journal::new();
        for number in 0..300 {
            journal.note("backend", json!({"number": number}));
        }
        let all = journal.subscribe(0).recent;
        assert_eq!(all.len(), REMEMBERED);
        assert_eq!(all[0].id, 45);
        let rest = journal.subscribe(298).recent;
        assert_eq!(
            rest.iter().map(|event| event.id).collect::<Vec<_>>(),
            [299, 300]
        );
    }

    #[test]
    fn what_differs_is_told_and_nothing_else() {
        let text = "listeners: [{bind: \"*:1\", pool: a}]\npools: {a: [\"127.0.0.1:11\", \"127.0.0.1:12\"]}\n";
        let (config, _) = crate::config::parse(text, "test", "here")
            .into_result()
            .unwrap();
        let old = config.snapshot;
        let mut new = old.clone();
        new.backends[1].is_up = Some(false);
        new.backends[1].weight = 7;
        let mut journal = Journal::new();
        journal.note_changes(&old, &old, |_| json!("no reason"));
        journal.note_changes(&old, &new, |_| json!("no answer"));
        let told = journal.subscribe(0).recent;
        assert_eq!(told.len(), 1);
        assert_eq!(
            told[0].facts,
            json!({"pool": "a", "backend": "127.0.0.1:12", "up": false, "weight": 7, "why": "no answer"})
        );
    }
}
