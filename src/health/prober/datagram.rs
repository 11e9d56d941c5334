//! Probes by UDP: a datagram out, and what comes back. Nothing has to come back from a port that takes datagrams, but
//! a port that nobody has is refused by ICMP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use regex::bytes::Regex;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{ANSWER_MAX, Wrong, plain, unexpected};
use crate::health::dns::DnsCheck;

/// A socket that talks to this address only.
pub(super) async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
) -> Result<UdpSocket, Wrong> {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let bound = UdpSocket::bind((source.unwrap_or(any), 0)).await;
    let socket = bound.map_err(|error| match source {
        Some(source) => Wrong::Ours(format!("source {source}: {}", plain(&error))),
        None => Wrong::io("socket", &error),
    })?;
    let connected = socket.connect(address).await;
    connected.map_err(|error| Wrong::io("connect", &error))?;
    Ok(socket)
}

/// Sends, and expects an answer that matches; or, if none is expected, no refusal within `patience`.
pub(super) async fn exchange(
    socket: &UdpSocket,
    send: &[u8],
    expect: Option<&Regex>,
    patience: Duration,
) -> Result<(), Wrong> {
    let sent = socket.send(send).await;
    sent.map_err(|error| Wrong::io("send", &error))?;
    let Some(expect) = expect else {
        return match timeout(patience, receive(socket)).await {
            Ok(Err(wrong)) => Err(wrong),
            Ok(Ok(_)) | Err(_) => Ok(()),
        };
    };
    let answer = receive(socket).await?;
    if expect.is_match(&answer) {
        return Ok(());
    }
    Err(unexpected(&answer, ""))
}

/// Asks a name server.
pub(super) async fn ask(socket: &UdpSocket, check: &DnsCheck) -> Result<(), Wrong> {
    let id = fastrand::u16(..);
    let sent = socket.send(&check.query(id)).await;
    sent.map_err(|error| Wrong::io("send", &error))?;
    loop {
        if let Some(judged) = check.accepts(id, &receive(socket).await?) {
            return judged.map_err(Wrong::Theirs);
        }
    }
}

async fn receive(socket: &UdpSocket) -> Result<Vec<u8>, Wrong> {
    let mut answer = Vec::with_capacity(ANSWER_MAX);
    let received: io::Result<usize> = socket.recv_buf(&mut answer).await;
    received.map_err(|error| Wrong::io("receive", &error))?;
    Ok(answer)
}
