//! Ten thousand backends: how long until all are known, and what it costs to keep knowing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, mem};

use crate::harness::backend::listener_on;
use crate::harness::{Launch, facts, join, raise_files_limit};

const BACKENDS: usize = 10_000;

/// All the addresses of 127.0.0.0/8 on one port: counts the connections to each, and ends them after their clients did.
struct Everybody {
    port: u16,
    counts: Arc<Mutex<HashMap<IpAddr, u32>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Everybody {
    fn new() -> Everybody {
        let listener = listener_on("0.0.0.0:0".parse().unwrap(), 4096);
        let port = listener.local_addr().unwrap().port();
        let (counts, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (counting, end) = (Arc::clone(&counts), Arc::clone(&stop));
        let thread = thread::spawn(move || Self::serve(&listener, &counting, &end));
        Everybody {
            port,
            counts,
            stop,
            thread: Some(thread),
        }
    }

    fn serve(listener: &TcpListener, counts: &Mutex<HashMap<IpAddr, u32>>, end: &AtomicBool) {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            if end.load(Ordering::Relaxed) {
                return;
            }
            let address = stream.local_addr().unwrap().ip();
            *counts.lock().unwrap().entry(address).or_default() += 1;
            held.push(stream);
            if held.len() >= 1000 {
                held.drain(..500);
            }
        }
    }

    /// How often each was connected to since the last call.
    fn take_counts(&self) -> HashMap<IpAddr, u32> {
        mem::take(&mut self.counts.lock().unwrap())
    }
}

impl Drop for Everybody {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        join(self.thread.take().unwrap());
    }
}

fn take_counts(everybody: &[Everybody]) -> HashMap<IpAddr, u32> {
    everybody.iter().flat_map(Everybody::take_counts).collect()
}

fn addresses(ports: [u16; 4]) -> Vec<SocketAddr> {
    let one = |number: usize| {
        let [.., high, low] = (number + 1).to_be_bytes();
        SocketAddr::from(([127, 9, high, low], ports[number % 4]))
    };
    (0..BACKENDS).map(one).collect()
}

/// Connections of this host that wait in this state, as `/proc/net/sockstat` counts them.
fn time_waits() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "tw");
    words.nth(1).unwrap().parse().unwrap()
}

#[test]
fn ten_thousand_backends_are_probed_in_time_for_little() {
    const INTERVALS: usize = 3;
    raise_files_limit();
    // A port for each quarter: all their first probes fit into its queue, even when nobody gets to accept them.
    let everybody = [(); 4].map(|()| Everybody::new());
    let list: Vec<String> = addresses(everybody.each_ref().map(|some| some.port))
        .iter()
        .map(|address| format!("  - {address}\n"))
        .collect();
    let config = format!(
        "global: {{workers: 2}}\nlisteners: [{{bind: \"127.0.0.1:0\", pool: p}}]\n\
         defaults: {{pool: {{probe: {{type: tcp, interval: 2s}}}}}}\npools:\n p:\n{}",
        list.concat()
    );
    let begun = Instant::now();
    let ringway = Launch::config(config).start();
    let ready = begun.elapsed();
    let pid = ringway.pid();
    let startup = (facts::thread_cpu_time(pid, "prober"), facts::cpu_time(pid));
    let status = ringway.status();
    let backends = status["pools"][0]["backends"].as_array().unwrap();
    let mut others = backends
        .iter()
        .filter(|backend| backend["health"]["state"] != "up");
    assert_eq!(others.next(), None, "all are up when clients are let in");
    assert_eq!(backends.len(), BACKENDS);
    println!(
        "all up {ready:?} after the start, snapshot {}; processor time {:?}, of which the prober {:?}",
        status["generation"], startup.1, startup.0
    );
    assert!(ready < Duration::from_secs(5), "ready after {ready:?}");
    drop(status);

    // The first round, the random first pauses, and what the status has cost.
    thread::sleep(Duration::from_secs(2));
    take_counts(&everybody);
    let waiting = time_waits();
    let all = facts::cpu_time(pid);
    let (memory, begun) = (facts::resident_bytes(pid), Instant::now());
    // Others on the machine make the same work take more processor time: the least counts.
    let shares = [(); INTERVALS].map(|()| {
        let (used, begun) = (facts::thread_cpu_time(pid, "prober"), Instant::now());
        thread::sleep(Duration::from_secs(2));
        let used = facts::thread_cpu_time(pid, "prober") - used;
        used.as_secs_f64() / begun.elapsed().as_secs_f64()
    });
    let least = shares.into_iter().fold(f64::INFINITY, f64::min);
    let counts = take_counts(&everybody);
    let seconds = begun.elapsed().as_secs_f64();
    let all = (facts::cpu_time(pid) - all).as_secs_f64() / seconds;
    let grown = facts::resident_bytes(pid).saturating_sub(memory);
    let probes: u32 = counts.values().sum();
    println!(
        "{probes} probes in {seconds:.1} s: the prober took {:.1} % of a core at least, all threads {:.1} %; \
         {} MiB resident, grown by {} KiB; {} more connections in TIME_WAIT",
        least * 100.0,
        all * 100.0,
        (memory + grown) >> 20,
        grown >> 10,
        time_waits().saturating_sub(waiting)
    );
    assert_eq!(counts.len(), BACKENDS, "every one was probed");
    let odd = counts.iter().find(|(_, count)| !matches!(count, 2..=4));
    assert_eq!(odd, None, "each is probed once per interval");
    assert!(least < 0.25, "{least} of a core");
    assert!(grown < 8 << 20, "{grown} bytes more");
    ringway.stop();
}
