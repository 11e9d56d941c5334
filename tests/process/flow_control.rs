//! Peers that do not read: they cost a bounded amount of memory, harm nobody else, and lose nothing.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::load::{Busy, Latencies};
use crate::harness::namespace::Namespace;
use crate::harness::stream::{self, Counted, Ended, Pattern};
use crate::harness::{Launch, Ringway, SOON, Tier, eventually, facts, join, number, one_pool};

both_tiers! {
    client_that_reads_nothing_harms_nobody_and_loses_nothing,
    backend_that_reads_nothing_harms_nobody_and_loses_nothing,
    thousand_clients_that_read_nothing_harm_nobody,
    thousand_backends_that_read_nothing_harm_nobody,
    stream_goes_on_splicing_beside_clients_that_take_all_the_memory,
}

const FLOOD: u64 = 48 << 20;
const MEASURED: Duration = Duration::from_millis(1500);
const BUSY_SESSIONS: usize = 8;

/// Two listeners on one process: `flood` leads to the peer that misbehaves, `busy` to one that echoes.
fn start(tier: Tier, flooding: SocketAddr, echoing: SocketAddr) -> Ringway {
    let listener = |name: &str| {
        format!("  - {{name: {name}, bind: \"127.0.0.1:0\", pool: {name}, backlog: 4096}}\n")
    };
    let config = format!(
        "global: {{workers: 2}}\nlisteners:\n{}{}pools: {{flood: [{flooding}], busy: [{echoing}]}}\n",
        listener("flood"),
        listener("busy"),
    );
    Launch::config(config).tier(tier).start()
}

fn client_that_reads_nothing_harms_nobody_and_loses_nothing(tier: Tier) {
    let pattern = Pattern::new(12);
    let (flooding, written) = Backend::source(pattern, FLOOD);
    let echoing = Backend::echo();
    let ringway = start(tier, flooding.address(), echoing.address());
    let before = Measured::now(&ringway);
    let mut client = stream::connect(ringway.address_of("flood"));
    stream::wait_stuck(&written);
    before.assert_unharmed(&ringway, 16 << 20);
    stream::finish_writing(&client);
    assert_eq!(
        stream::receive_pattern(&mut client, pattern),
        (FLOOD, Ended::Fin)
    );
    drop(client);
    ringway.finish();
}

fn backend_that_reads_nothing_harms_nobody_and_loses_nothing(tier: Tier) {
    let (flooded, accepted) = Backend::handing_over();
    let echoing = Backend::echo();
    let ringway = start(tier, flooded.address(), echoing.address());
    let before = Measured::now(&ringway);
    let stream = stream::connect(ringway.address_of("flood"));
    let mut served = accepted.recv_timeout(SOON).unwrap();
    let pattern = Pattern::new(13);
    let written = Arc::new(AtomicU64::new(0));
    let mut client = Counted {
        stream,
        written: Arc::clone(&written),
    };
    let writer = thread::spawn(move || {
        stream::send_pattern(&mut client, pattern, FLOOD, 256 * 1024).unwrap()
    });
    stream::wait_stuck(&written);
    before.assert_unharmed(&ringway, 16 << 20);
    assert_eq!(
        stream::receive_pattern(&mut served, pattern),
        (FLOOD, Ended::Fin)
    );
    join(writer);
    drop(served);
    ringway.finish();
}

/// In a namespace with small kernel buffers: a thousand sessions with the usual ones would use up the memory that the
/// kernel allows to TCP as a whole.
fn small_buffers() -> Option<Namespace> {
    let namespace = Namespace::new("flood")?;
    namespace.set("ipv4/tcp_wmem", "4096 16384 131072");
    namespace.set("ipv4/tcp_rmem", "4096 65536 131072");
    Some(namespace)
}

const CROWD: usize = 1000;
const CROWD_BYTES: u64 = 4 << 20;

fn thousand_clients_that_read_nothing_harm_nobody(tier: Tier) {
    let Some(namespace) = small_buffers() else {
        return;
    };
    namespace.run(|| {
        let pattern = Pattern::new(14);
        let (flooding, written) = Backend::source(pattern, CROWD_BYTES);
        let echoing = Backend::echo();
        let ringway = start(tier, flooding.address(), echoing.address());
        let before = Measured::now(&ringway);
        let mut clients = crowd(&ringway, &flooding);
        stream::wait_stuck(&written);
        before.assert_unharmed(&ringway, 192 << 20);
        // A few of them read it all after all; the others hang up.
        for client in &mut clients[..5] {
            stream::finish_writing(client);
            assert_eq!(
                stream::receive_pattern(client, pattern),
                (CROWD_BYTES, Ended::Fin)
            );
        }
        drop(clients);
        ringway.finish();
    });
}

fn thousand_backends_that_read_nothing_harm_nobody(tier: Tier) {
    let Some(namespace) = small_buffers() else {
        return;
    };
    namespace.run(|| {
        let (flooded, accepted) = Backend::handing_over();
        let echoing = Backend::echo();
        let ringway = start(tier, flooded.address(), echoing.address());
        let before = Measured::now(&ringway);
        let mut clients = crowd(&ringway, &flooded);
        for client in &mut clients {
            client
                .set_write_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            // Ends when the kernel takes no more.
            while client.write(&[b'x'; 65_536]).is_ok() {}
        }
        before.assert_unharmed(&ringway, 192 << 20);
        drop((clients, accepted));
        ringway.finish();
    });
}

fn crowd(ringway: &Ringway, backend: &Backend) -> Vec<TcpStream> {
    let address = ringway.address_of("flood");
    let clients = (0..CROWD).map(|_| stream::connect(address)).collect();
    eventually(Duration::from_secs(30), "all are connected", || {
        backend.accepted() == CROWD
    });
    clients
}

/// How busy sessions did, and the memory of the process.
struct Measured {
    latencies: Latencies,
    resident: u64,
}

impl Measured {
    fn now(ringway: &Ringway) -> Self {
        let latencies = Busy::run_for(MEASURED, ringway.address_of("busy"), BUSY_SESSIONS, 64);
        Self {
            latencies,
            resident: facts::resident_bytes(ringway.pid()),
        }
    }

    /// The margin is wide: a stall takes seconds, a busy machine milliseconds.
    fn assert_unharmed(&self, ringway: &Ringway, memory: u64) {
        let after = Self::now(ringway);
        let (quiet, flooded) = (self.latencies.p99(), after.latencies.p99());
        let grown = after.resident.saturating_sub(self.resident);
        println!(
            "p99 {quiet:?} without, {flooded:?} beside the flood; memory grew by {} KiB",
            grown / 1024
        );
        let allowed = Duration::from_millis(50) + 3 * quiet;
        assert!(
            flooded < allowed,
            "p99 {flooded:?} beside the flood, {quiet:?} without"
        );
        assert!(grown < memory, "memory grew by {grown} bytes");
    }
}

/// Two pipes and half a MiB of memory: the clients that read nothing want far more.
fn stream_goes_on_splicing_beside_clients_that_take_all_the_memory(tier: Tier) {
    const BYTES: u64 = 16 << 20;
    let pattern = Pattern::new(31);
    let (flooding, written) = Backend::source(pattern, BYTES);
    let pool = format!("backends: [\"{}\"]", flooding.address());
    let ringway = Launch::config(one_pool("workers: 1, pipe_memory: 1MiB", &pool))
        .tier(tier)
        .start();
    let mut stalled: Vec<TcpStream> = (0..24).map(|_| ringway.connect()).collect();
    stream::wait_stuck(&written);
    ringway.counters_become("the memory is used up", |counters| {
        number(counters, "spill_bytes") > 512 << 10
    });
    let before = ringway.counters();
    let mut flowing = ringway.connect();
    stream::finish_writing(&flowing);
    assert_eq!(
        stream::receive_pattern(&mut flowing, pattern),
        (BYTES, Ended::Fin)
    );
    let after = ringway.counters();
    let spliced = |counters| number(counters, "pumps_entered_total");
    assert!(spliced(&after) > spliced(&before), "{before} {after}");
    for client in &mut stalled {
        stream::finish_writing(client);
        assert_eq!(
            stream::receive_pattern(client, pattern),
            (BYTES, Ended::Fin)
        );
    }
    drop((stalled, flowing));
    ringway.finish();
}
