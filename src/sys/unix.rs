//! The files of listening unix sockets: left over, somebody's, or ours.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Removes a socket file that nobody listens on: it is left over from a crash. Does not wait for anybody.
///
/// # Errors
/// `AlreadyExists` if the file is no socket, `AddrInUse` if a process has it, whatever its kind; else as of the system
/// calls.
pub fn make_room(path: &Path) -> io::Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        let text = "a file that is no socket is there already";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        // Not a full backlog, another type of socket, or a lack of permission: somebody has it then.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Ok(()) | Err(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process has it",
        )),
    }
}

/// A socket file that this process has made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The one that has just been made there.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn made(path: &Path) -> io::Result<SocketFile> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(SocketFile {
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    /// Removes it, unless somebody else's is there now.
    pub fn remove(&self) {
        let is_ours =
            |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == (self.device, self.inode);
        if std::fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // Gone already is what was wanted.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
