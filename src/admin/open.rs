//! Opens the addresses of the admin API: the unix socket, TCP with or without TLS, and the one for metrics alone. One
//! that cannot be opened is told in the log; everything else goes on without it.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::Sender;
use tokio_rustls::TlsAcceptor;

use super::access::{Rights, Token};
use super::bounded::{self, Entrance};
use super::{Ask, Request, metrics, routes};
use crate::config::Http;
use crate::sys::unix::{self, SocketFile};

/// Owner and group may write to the socket.
const MODE: u32 = 0o660;

/// Where it is served.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The unix socket; none = there is none.
    pub socket: Option<PathBuf>,
    /// The API over TCP.
    pub http: Option<Http>,
    /// Metrics alone.
    pub metrics: Option<SocketAddr>,
}

/// Serves in the background of the runtime for as long as that runs. What it gives is the file of the unix socket, to
/// be removed at the end. Has to be called within the runtime.
#[must_use]
pub fn serve(settings: &Settings, requests: &Sender<Request>) -> Option<SocketFile> {
    let control = Ask::new(requests.clone());
    let serve = |entrance, router: Router| drop(tokio::spawn(bounded::serve(entrance, router)));
    if let Some(address) = settings.metrics {
        match listen(address) {
            Ok((listener, address)) => {
                tracing::info!(%address, "metrics served");
                serve(Entrance::Tcp(listener), metrics::router(control.clone()));
            }
            Err(error) => {
                tracing::warn!(%address, %error, "admin.metrics: not served, Prometheus gets nothing here");
            }
        }
    }
    if let Some(http) = &settings.http {
        match open_http(http) {
            Ok((entrance, rights, address)) => {
                let tls = http.tls.is_some();
                tracing::info!(%address, tls, "API served");
                serve(entrance, routes::router(control.clone(), rights));
            }
            Err(error) => {
                tracing::warn!(address = %http.address, %error, "admin.http: not served");
            }
        }
    }
    let path = settings.socket.as_deref()?;
    match bind(path) {
        Ok((listener, file)) => {
            serve(
                Entrance::Unix(listener),
                routes::router(control, Rights::All),
            );
            Some(file)
        }
        Err(error) => {
            tracing::warn!(
                socket = %path.display(), %error,
                "no admin socket: `ringway status` cannot reach this process (admin.socket names another path, or off)"
            );
            None
        }
    }
}

/// Makes the socket, and its folder if that is missing. A socket that nobody listens on is left over from a crash.
fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    unix::make_room(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    Ok((listener, SocketFile::made(path)?))
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

fn open_http(http: &Http) -> Result<(Entrance, Rights, SocketAddr), String> {
    let rights = match &http.token_file {
        Some(path) => Rights::WithToken(Token::read(path)?),
        None => Rights::Reading,
    };
    let tls = http.tls.as_ref().map(|(cert, key)| acceptor(cert, key));
    let tls = tls.transpose()?;
    let (listener, address) = listen(http.address).map_err(|error| error.to_string())?;
    let entrance = match tls {
        Some(acceptor) => Entrance::Tls(listener, acceptor),
        None => Entrance::Tcp(listener),
    };
    Ok((entrance, rights, address))
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let unusable = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let chain = CertificateDer::pem_file_iter(cert).map_err(|error| unusable(cert, &error))?;
    let chain: Vec<_> = chain
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| unusable(cert, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
