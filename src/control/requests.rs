//! What control answers to the admin API.

use std::time::SystemTime;

use super::Control;
use super::operator;
use super::snapshot::Snapshot;
use crate::admin::{Change, Refusal, Request};

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
            pool,
            backend,
            state = now.state.as_str(),
            weight = now.weight,
            "changed by the operator"
        );
        let old_state = self.snapshot.backends[id.index()].state;
        self.publish(snapshot);
        if self.snapshot.backends[id.index()].state != old_state {
            self.watch.retarget(&self.snapshot, id);
            self.time_drain(id, old_state);
        }
        Ok(self.view().backend(id))
    }
}
