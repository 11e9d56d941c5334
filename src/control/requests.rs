//! What control answers to the admin API.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Control;
use super::alarms::Alarm;
use super::journal::Journal;
use super::operator;
use super::reload::Wanted;
use super::snapshot::{Snapshot, Standing};
use super::status::View;
use crate::admin::{Change, Level, Look, Portion, Refusal, Request};
use crate::ids::BackendId;
use crate::worker::{Command, Explain, Explained, Filter, Reply, Sweep, Swept};

impl Control {
    /// Whoever asked may be gone by now.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => {
                self.look_later(Box::new(move |view| drop(reply.send(view.status()))));
            }
            Request::Samples(reply) => {
                self.look_later(Box::new(move |view| drop(reply.send(view.samples()))));
            }
            Request::Phase(reply) => drop(reply.send(self.phase.as_str())),
            Request::Look { what, reply } => {
                self.look_later(Box::new(move |view| drop(reply.send(view.look(&what)))));
            }
            Request::Sweep { portion, reply } => self.sweep(portion, reply),
            Request::Explain {
                worker,
                listener,
                client,
                reply,
            } => self.explain(worker, &listener, client, reply),
            Request::Events { after, reply } => drop(reply.send(self.journal.subscribe(after))),
            Request::Closed { filter, count } => self.closed(&filter, count),
            Request::SetLevel { level, reply } => drop(reply.send(self.set_level(level))),
            Request::Reload { dry_run, reply } => self.want(Wanted::Reload {
                dry_run,
                reply: Some(reply),
            }),
            Request::Add {
                pool,
                backend,
                addition,
                reply,
            } => self.want(Wanted::Add {
                pool,
                name: backend,
                addition,
                reply,
            }),
            Request::Remove {
                pool,
                backend,
                reply,
            } => self.want(Wanted::Remove {
                pool,
                name: backend,
                reply,
            }),
            Request::Move {
                name,
                wanted,
                reply,
            } => self.move_addresses(name.as_deref(), wanted, reply),
            Request::Operate {
                pool,
                backend,
                change,
                reply,
            } => drop(reply.send(self.operate(&pool, &backend, &change))),
        }
    }

    fn operate(
        &mut self,
        pool: &str,
        backend: &str,
        change: &Change,
    ) -> Result<serde_json::Value, Refusal> {
        let id = operator::find(&self.snapshot, pool, backend)?;
        let mut snapshot = Snapshot::clone(&self.snapshot);
        operator::operate(
            &mut snapshot,
            &mut self.notes,
            id,
            change,
            SystemTime::now(),
        )?;
        let now = &snapshot.backends[id.index()];
        tracing::info!(
            %pool,
            %backend,
            state = %now.state.as_str(),
            weight = now.weight,
            "changed by the operator"
        );
        let old_state = self.snapshot.backends[id.index()].state;
        self.publish(snapshot);
        self.keep_in_mind();
        if self.snapshot.backends[id.index()].state != old_state {
            self.watch.retarget(&self.snapshot, id);
            self.time_drain(id, old_state);
        }
        if let Some(seconds) = change.deadline_seconds {
            let until = Instant::now() + Duration::from_secs(u64::from(seconds));
            self.alarms.set(Alarm::Drained(id), until);
        }
        Ok(self.view().backend(id))
    }

    /// What is known to everybody is looked at here, sessions by their worker.
    fn sweep(&mut self, portion: Portion, reply: oneshot::Sender<Result<Option<Swept>, Refusal>>) {
        if let Err(refusal) = self.knows(&portion.filter) {
            let _ = reply.send(Err(refusal));
            return;
        }
        if !self.is_live(portion.worker) {
            let _ = reply.send(Ok(None));
            return;
        }
        let tell = move |swept| drop(reply.send(Ok(Some(swept))));
        let sweep = Sweep {
            filter: portion.filter,
            from: portion.from,
            most: portion.most,
            ends: portion.ends,
            reply: Reply::new(tell),
        };
        self.tell_one(portion.worker, Command::Sweep(sweep));
    }

    /// Whether there is what a filter names.
    fn knows(&self, filter: &Filter) -> Result<(), Refusal> {
        // What has left the configuration may still have sessions.
        let snapshot = &self.snapshot;
        let has_left = |name: &String| {
            let mut left = snapshot.leaving_backends();
            left.any(|(_, backend)| *backend.name == **name)
        };
        let listeners = snapshot.listeners.iter();
        let mut left = listeners.filter(|listener| listener.standing == Standing::Leaving);
        match &filter.listener {
            Some(name) if !left.any(|listener| *listener.name == **name) => {
                operator::find_listener(snapshot, name)?;
            }
            Some(_) | None => {}
        }
        let pools = snapshot.pools.iter();
        let mut left = pools.filter(|pool| pool.standing == Standing::Leaving);
        match (&filter.pool, &filter.backend) {
            (Some(pool), _) if left.any(|left| *left.name == **pool) => Ok(()),
            (Some(_), Some(backend)) if has_left(backend) => Ok(()),
            (Some(pool), Some(backend)) => operator::find(&self.snapshot, pool, backend).map(drop),
            (Some(pool), None) => operator::find_pool(&self.snapshot, pool).map(drop),
            (None, Some(backend)) if has_left(backend) => Ok(()),
            (None, Some(backend)) => operator::find_anywhere(&self.snapshot, backend),
            (None, None) => Ok(()),
        }
    }

    fn is_live(&self, worker: u16) -> bool {
        self.live.get(usize::from(worker)).copied().unwrap_or(false)
    }

    fn tell_one(&mut self, worker: u16, command: Command) {
        self.unsent.push_back((usize::from(worker), command));
        self.send_again();
    }

    fn explain(
        &mut self,
        worker: u16,
        listener: &str,
        client: Option<SocketAddr>,
        reply: oneshot::Sender<Result<Value, Refusal>>,
    ) {
        let id = match operator::find_listener(&self.snapshot, listener) {
            Ok(id) => id,
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        if !self.is_live(worker) {
            let text = format!(
                "there is no worker {worker}; there are 0 to {}",
                self.live.len() - 1
            );
            let _ = reply.send(Err(Refusal::not_found(text)));
            return;
        }
        let view = self.view();
        let refuses = view.refuses(id, &self.snapshot.listeners[id.index()]);
        let listener = listener.to_owned();
        let tell = move |explained: Explained| {
            let _ = reply.send(Ok(explanation(&listener, client, &refuses, &explained)));
        };
        let explain = Explain {
            listener: id,
            client,
            reply: Reply::new(tell),
        };
        self.tell_one(worker, Command::Explain(explain));
    }

    fn closed(&mut self, filter: &Filter, count: usize) {
        tracing::info!(sessions = count, which = %filter, "sessions ended by the operator");
        self.journal
            .note("sessions_closed", json!({"sessions": count}));
    }

    fn set_level(&mut self, level: Level) -> Result<Value, Refusal> {
        let word = level.as_str();
        let Some(switch) = &self.level else {
            return Err(Refusal::conflict(
                "this process has no log of its own".to_owned(),
            ));
        };
        switch.set(word).map_err(Refusal::conflict)?;
        tracing::info!(level = word, "log level changed by the operator");
        self.journal.note("log_level", json!({"level": word}));
        Ok(json!({"level": word}))
    }

    /// Tells those who watch what a new snapshot changes.
    pub(super) fn note_changes(&mut self, old: &Snapshot) {
        let why = |id: BackendId| {
            let last = self.watch.health(id).history().last();
            last.map_or(Value::Null, |last| json!(last.why))
        };
        Journal::note_changes(&mut self.journal, old, &self.snapshot, why);
    }
}

fn explanation(
    listener: &str,
    client: Option<SocketAddr>,
    refuses: &Value,
    explained: &Explained,
) -> Value {
    let candidates = explained.candidates.iter().map(|candidate| {
        json!({
            "backend": &*candidate.backend,
            "weight": candidate.weight,
            "backup": candidate.backup,
            "sessions": candidate.sessions,
            "skipped": candidate.skipped,
        })
    });
    json!({
        "listener": listener,
        "source": client.map(|client| client.to_string()),
        "worker": explained.worker.0,
        "refuses": refuses,
        "listener_full": explained.is_full,
        "pool": &*explained.pool,
        "balance": explained.balance.as_str(),
        "hash": explained.hash.map(|hash| format!("{hash:016x}")),
        "slot": explained.slot.as_ref().map(|(slot, backend)| {
            json!({"number": slot.number, "of": slot.of, "backend": &**backend})
        }),
        "picked": explained.picked.as_deref(),
        "candidates": candidates.collect::<Vec<_>>(),
        "candidates_omitted": explained.omitted,
    })
}

impl View<'_> {
    /// A part of the status.
    fn look(&self, what: &Look) -> Result<Value, Refusal> {
        Ok(match what {
            Look::Listeners => self.listeners(),
            Look::Pools => self.pools(),
            Look::Backends(None) => {
                self.backends(self.snapshot.backends_in_order().map(|(id, _)| id))
            }
            Look::Backends(Some(pool)) => {
                let id = operator::find_pool(self.snapshot, pool)?;
                self.backends(self.snapshot.pools[id.index()].backends.iter().copied())
            }
            Look::Backend(pool, backend) => {
                self.backend(operator::find(self.snapshot, pool, backend)?)
            }
            Look::Routers => self.routers(),
            Look::Config => json!({
                "hash": &**self.config_hash,
                "generation": self.snapshot.generation,
                "yaml": &**self.config_text,
            }),
        })
    }

    fn backends(&self, ids: impl Iterator<Item = BackendId>) -> Value {
        ids.map(|id| self.backend(id)).collect()
    }
}
