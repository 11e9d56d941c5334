//! The three backends: each answers every request with its own number, and can be killed and brought back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Bytes of a request and of an answer. The first byte of an answer is the backend's number.
pub(super) const MESSAGE: usize = 64;

/// See the module's text.
pub(super) struct Backends {
    all: Vec<(SocketAddr, Option<JoinHandle<()>>)>,
}

impl Backends {
    pub(super) async fn start(count: usize) -> io::Result<Backends> {
        let mut all = Vec::new();
        for number in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            all.push((address, Some(tokio::spawn(serve(listener, number)))));
        }
        Ok(Backends { all })
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.all.iter().map(|(address, _)| *address)
    }

    /// Closes its port and resets its connections.
    pub(super) fn kill(&mut self, number: usize) {
        if let Some(task) = self.all[number].1.take() {
            task.abort();
        }
    }

    /// At the same address.
    pub(super) async fn bring_back(&mut self, number: usize) -> io::Result<()> {
        let (address, task) = &mut self.all[number];
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(*address)?;
        *task = Some(tokio::spawn(serve(socket.listen(1024)?, number)));
        Ok(())
    }
}

/// Until it is aborted, and all its connections with it.
async fn serve(listener: TcpListener, number: usize) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(answer(stream, number))),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(stream: TcpStream, number: usize) {
    let mut stream = Reset(stream);
    let mut message = [0; MESSAGE];
    while stream.0.read_exact(&mut message).await.is_ok() {
        message[0] = u8::try_from(number).unwrap_or(u8::MAX);
        if stream.0.write_all(&message).await.is_err() {
            break;
        }
    }
}

/// Dropped in the middle, it dies as a killed process's connection may: with a reset.
struct Reset(TcpStream);

impl Drop for Reset {
    fn drop(&mut self) {
        let _ = socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }
}
