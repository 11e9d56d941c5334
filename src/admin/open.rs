//! Opens the addresses of the admin API: the unix socket, TCP with or without TLS, and the one for metrics alone. One
//! that cannot be opened is told in the log; everything else goes on without it.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use nix::unistd::{Group, User};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::Sender;
use tokio_rustls::TlsAcceptor;

use super::access::{Rights, Token};
use super::bounded::{self, Entrance};
use super::{Ask, Request, metrics, routes};
use crate::config::{Http, Socket};
use crate::sys::unix::{self, SocketFile};

/// Owner and group may write to the socket.
const MODE: u32 = 0o660;

/// Where it is served.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The unix socket; none = there is none.
    pub socket: Option<Socket>,
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
    let socket = settings.socket.as_ref()?;
    match bind(socket) {
        Ok((listener, file)) => {
            serve(
                Entrance::Unix(listener),
                routes::router(control, Rights::All),
            );
            Some(file)
        }
        Err(error) => {
            tracing::warn!(
                socket = %socket.path.display(), %error,
                "no admin socket: `ringway status` cannot reach this process (admin.socket names another path, or off)"
            );
            None
        }
    }
}

/// Makes the socket, and its folder if that is missing. A socket that nobody listens on is left over from a crash.
fn bind(socket: &Socket) -> io::Result<(UnixListener, SocketFile)> {
    let path = &*socket.path;
    let owner = socket.owner.as_deref().map(user_id).transpose()?;
    let group = socket.group.as_deref().map(group_id).transpose()?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    unix::make_room(path)?;
    let listener = UnixListener::bind(path)?;
    let file = SocketFile::made(path)?;
    let given = std::os::unix::fs::chown(path, owner, group);
    let permitted = std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE));
    if let Err(error) = given.and(permitted) {
        file.remove();
        return Err(error);
    }
    Ok((listener, file))
}

/// By its number, or by its name.
fn user_id(owner: &str) -> io::Result<u32> {
    if let Ok(number) = owner.parse() {
        return Ok(number);
    }
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no user {owner}"));
    let user = User::from_name(owner)?.ok_or_else(unknown)?;
    Ok(user.uid.as_raw())
}

fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let unknown = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no group {group}"),
        )
    };
    let group = Group::from_name(group)?.ok_or_else(unknown)?;
    Ok(group.gid.as_raw())
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
