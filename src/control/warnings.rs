//! What this host lacks, said in the log: once in a while, whatever happens how often.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::ids::{BackendId, PoolId};
use crate::time::Seldom;

use super::{Control, status};

/// Between two warnings about the same lack of this host.
const WARNINGS_EVERY: Duration = Duration::from_secs(60);

/// When each of them may come next.
pub(super) struct Warnings {
    exhausted: Seldom,
    absent: Seldom,
    hindered: Seldom,
}

impl Warnings {
    pub(super) fn new() -> Warnings {
        let seldom = || Seldom::new(WARNINGS_EVERY);
        Warnings {
            exhausted: seldom(),
            absent: seldom(),
            hindered: seldom(),
        }
    }
}

impl Control {
    pub(super) fn log_avoided(&self, backend: BackendId, errno: i32) {
        let backend = &self.snapshot.backends[backend.index()];
        let pool = &self.snapshot.pools[backend.pool.index()];
        let error = io::Error::from_raw_os_error(errno);
        tracing::warn!(
            pool = %pool.name, backend = %backend.name, for_up_to = ?pool.passive.retry_after, %error,
            "backend avoided: connects fail"
        );
    }

    pub(super) fn log_exhausted(&mut self, id: BackendId, source: Option<IpAddr>) {
        if !self.seldom.exhausted.may(self.clock.now()) {
            return;
        }
        let backend = &self.snapshot.backends[id.index()];
        let source = source.map_or_else(|| "chosen by the kernel".to_owned(), |ip| ip.to_string());
        tracing::warn!(
            pool = %self.snapshot.pools[backend.pool.index()].name, backend = %backend.name, source,
            source_ports = %self.view().source_ports(id),
            "no source port is free for connections to this backend; sessions that find one nowhere end as \
             out_of_resources: give the pool more `source` addresses, widen net.ipv4.ip_local_port_range, or add \
             backend addresses"
        );
    }

    pub(super) fn log_absent(&mut self, pool: PoolId, source: IpAddr) {
        if self.seldom.absent.may(self.clock.now()) {
            let pool = &self.snapshot.pools[pool.index()].name;
            tracing::warn!(
                %pool, %source,
                "this host does not have a `source` address of the pool: connections come from its others; sessions \
                 end as out_of_resources if there are none of the backend's family"
            );
        }
    }

    /// Once, when clients are let in: no probe tells of it, for probes have a `source` of their own.
    pub(super) fn warn_of_absent_sources(&self) {
        for (_, pool) in self.snapshot.pools_in_order() {
            for source in status::absent(&pool.sources) {
                tracing::warn!(
                    pool = %pool.name, %source,
                    "this host does not have a `source` address of the pool (`ip address` shows those it has): no \
                     connection can come from it"
                );
            }
        }
    }

    pub(super) fn log_hindered(&mut self, id: BackendId, why: &str) {
        if self.seldom.hindered.may(self.clock.now()) {
            let backend = &self.snapshot.backends[id.index()];
            tracing::warn!(
                pool = %self.snapshot.pools[backend.pool.index()].name, backend = %backend.name, why,
                "a probe cannot be made, for a reason of this host: the backend stays as it was"
            );
        }
    }
}
