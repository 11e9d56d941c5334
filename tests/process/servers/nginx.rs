//! nginx with static files: a client of our own that compares every byte, and wrk, which counts broken connections.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::program::{Server, find, mortal, run};
use super::watch::Watch;
use crate::harness::stream::{self, Pattern, Random};
use crate::harness::{Folder, Launch, Tier, join, number};

/// Sizes of the files, which are also their names: around the sizes of buffers, segments and pipes, and well beyond.
const SIZES: &[u64] = &[
    0, 1, 1_447, 4_095, 4_096, 16_384, 65_535, 65_536, 65_537, 262_145, 1_048_577, 20_000_000,
];

const CLIENTS: u64 = 6;
const REQUESTS_PER_CLIENT: usize = 100;

both_tiers! {
    files_of_every_size_arrive_unchanged,
    wrk_sees_no_broken_connection,
}

fn files_of_every_size_arrive_unchanged(tier: Tier) {
    let Some([nginx]) = find(["nginx"]) else {
        return;
    };
    let folders = [Folder::new(), Folder::new()];
    let servers = folders
        .each_ref()
        .map(|folder| start(&nginx, folder.path()));
    let ringway = Launch::to(servers.each_ref().map(Server::address))
        .tier(tier)
        .start();
    let watch = Watch::on(&ringway);
    let address = ringway.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| thread::spawn(move || fetch_files(address, seed)))
        .collect();
    let bytes: u64 = clients.into_iter().map(join).sum();
    watch.saw_no_kernel_worker();
    let counters = ringway.finish();
    assert!(
        number(&counters, "bytes_to_client") > bytes,
        "{bytes} bytes were received"
    );
    for backend in counters["backends"].as_array().expect("a list of backends") {
        assert!(
            number(backend, "sessions_total") > 0,
            "a backend got nothing: {backend}"
        );
    }
}

fn wrk_sees_no_broken_connection(tier: Tier) {
    let Some([nginx, wrk]) = find(["nginx", "wrk"]) else {
        return;
    };
    let folders = [Folder::new(), Folder::new()];
    let servers = folders
        .each_ref()
        .map(|folder| start(&nginx, folder.path()));
    let ringway = Launch::to(servers.each_ref().map(Server::address))
        .tier(tier)
        .start();
    let watch = Watch::on(&ringway);
    for (file, connections, header) in [
        (1, 50, None),
        (65_536, 20, None),
        (1_048_577, 4, None),
        (4_096, 20, Some("Connection: close")),
    ] {
        load(
            &wrk,
            &format!("http://{}/{file}", ringway.address()),
            connections,
            header,
        );
    }
    watch.saw_no_kernel_worker();
    ringway.finish();
}

/// A server with one file of each size.
fn start(nginx: &Path, folder: &Path) -> Server {
    let site = folder.join("site");
    fs::create_dir(&site).expect("the folder is writable");
    for &size in SIZES {
        let mut file = File::create(site.join(size.to_string())).expect("the folder is writable");
        stream::send_pattern(&mut file, Pattern::new(size), size, 1 << 20)
            .expect("there is room for it");
    }
    Server::start(folder, |port| {
        fs::write(folder.join("nginx.conf"), configuration(folder, port))
            .expect("the folder is writable");
        let mut command = mortal(nginx);
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .args(["-e", "stderr"]);
        command
    })
}

/// One process without a master, so that ending it ends all of it.
fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000; default_type application/octet-stream;
            client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
            uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
            server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}/site; }}
        }}"
    )
}

/// Fetches files in random order over connections that are used a random number of times; the bytes received.
fn fetch_files(address: SocketAddr, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut total = 0;
    let mut done = 0;
    while done < REQUESTS_PER_CLIENT {
        let mut connection = BufReader::new(stream::connect(address));
        for _ in 0..random.range(1, 20) {
            // Each client fetches the largest file a few times only.
            let largest = SIZES.len() - usize::from(done % 40 != 0);
            let size = SIZES[random.range(0, largest)];
            fetch(&mut connection, size);
            total += size;
            done += 1;
        }
    }
    total
}

/// Gets one file and compares it with what belongs into it.
fn fetch(connection: &mut BufReader<TcpStream>, size: u64) {
    write!(
        connection.get_mut(),
        "GET /{size} HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    .expect("the request is taken");
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).expect("the answer comes");
        if line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    assert!(
        head.first().is_some_and(|line| line == "HTTP/1.1 200 OK"),
        "file {size}: {head:?}"
    );
    assert!(
        head.contains(&format!("Content-Length: {size}")),
        "file {size}: {head:?}"
    );
    stream::receive_exactly(&mut connection.take(size), Pattern::new(size), 0, size);
}

fn load(wrk: &Path, url: &str, connections: u32, header: Option<&str>) {
    let mut command = Command::new(wrk);
    command.args(["--threads", "1", "--duration", "2s", "--timeout", "10s"]);
    command.args(["--connections", &connections.to_string()]);
    if let Some(header) = header {
        command.args(["--header", header]);
    }
    let output = run(command.arg(url), Duration::from_secs(30));
    assert!(
        !output.contains("Socket errors") && !output.contains("Non-2xx"),
        "{url}:\n{output}"
    );
    let requests = output.lines().find_map(|line| {
        line.trim()
            .split_once(" requests in ")?
            .0
            .parse::<u64>()
            .ok()
    });
    assert!(
        requests.is_some_and(|requests| requests > 0),
        "{url}:\n{output}"
    );
}
