//! Which files a process needs once it runs, and that it uses no others (landlock, as far as the kernel has it).

use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, path_beneath_rules,
};

use crate::config::{self, Config, StateFile};
use crate::control::snapshot::ListenAddress;

/// Rights that are known to this version. The kernel may know fewer.
const KNOWN: ABI = ABI::V5;
/// What the C library reads to look names up, and what `/proc` and `/sys` say about this host.
const HOST: [&str; 10] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/proc",
    "/sys",
    "/run/systemd",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/dev/urandom",
];
/// What virtual routers with a MAC address of their own switch.
const SWITCHES: &str = "/proc/sys/net";

/// Which files a process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those that its file named when it started.
    Needed,
    /// The same, as far as this kernel's landlock goes.
    NeededInPart,
    /// All that its user may use, and why.
    All(String),
}

impl Reach {
    pub(super) fn is_bounded(&self) -> bool {
        match self {
            Reach::Needed | Reach::NeededInPart => true,
            Reach::All(_) => false,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reach::Needed => out.write_str("only the files it needs (landlock)"),
            Reach::NeededInPart => {
                out.write_str("only the files it needs, as far as this kernel's landlock goes")
            }
            Reach::All(why) => write!(out, "any file may be used: {why}"),
        }
    }
}

/// Files that are read, and folders that are written in.
#[derive(Clone, Debug, Default)]
pub struct Places {
    read: Vec<PathBuf>,
    written: Vec<PathBuf>,
    switches: bool,
}

impl Places {
    /// Those of a configuration that was read from `file`, with the admin socket and the file of the operator's changes
    /// as they are used.
    #[must_use]
    pub fn of(
        config: &Config,
        file: Option<&Path>,
        socket: Option<&Path>,
        state_file: Option<&Path>,
    ) -> Places {
        let mut places = Places::default();
        let admin = &config.admin;
        let http = admin.http.iter();
        let secrets = http.flat_map(|http| {
            let tls = http.tls.iter().flat_map(|(cert, key)| [cert, key]);
            tls.chain(&http.token_file)
        });
        let routers = config.snapshot.virtual_routers.iter();
        let passwords = routers.filter_map(|router| router.password_file.as_ref());
        let read = secrets.chain(passwords).map(PathBuf::as_path).chain(file);
        // A file that is replaced is another file: it is its folder that is read, and the one that its name leads to.
        let folders = read.flat_map(|path| {
            let target = path.canonicalize().ok();
            [folder_of(path), target.as_deref().and_then(folder_of)]
        });
        places.read = folders.flatten().collect();
        let auto = match &admin.state_file {
            StateFile::At(path) => Some(path.as_path()),
            StateFile::Auto | StateFile::Off => None,
        };
        let access = match &config.log.access {
            Some(config::Access::File(path)) => Some(path.as_path()),
            Some(config::Access::Stdout) | None => None,
        };
        let listeners = config.snapshot.listeners.iter();
        let sockets = listeners.flat_map(|listener| &listener.addresses);
        let sockets = sockets.filter_map(|address| match address {
            ListenAddress::Unix(path) => Some(path.as_path()),
            ListenAddress::Tcp(..) | ListenAddress::Udp(..) => None,
        });
        let written = sockets
            .chain(socket)
            .chain(state_file.or(auto))
            .chain(access);
        places.written = written.filter_map(folder_of).collect();
        places.switches = !config.snapshot.virtual_routers.is_empty();
        places
    }

    /// Makes the folders that are written in and missing; each that was made is told.
    pub(super) fn make_folders(&self, made: impl Fn(&Path)) {
        for folder in &self.written {
            let is_missing = !folder.exists();
            if is_missing && std::fs::create_dir_all(folder).is_ok() {
                made(folder);
            }
        }
    }

    /// From now on this thread, and those that it starts, use no other files, as far as that can be had.
    pub(super) fn confine(&self) -> Reach {
        match self.restrict() {
            Ok(status) => match status.ruleset {
                RulesetStatus::FullyEnforced => Reach::Needed,
                RulesetStatus::PartiallyEnforced => Reach::NeededInPart,
                RulesetStatus::NotEnforced => Reach::All("this kernel has no landlock".to_owned()),
            },
            Err(error) => Reach::All(format!("landlock: {error}")),
        }
    }

    fn restrict(&self) -> Result<RestrictionStatus, RulesetError> {
        let all = AccessFs::from_all(KNOWN);
        let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
        let switches = self.switches.then_some(SWITCHES);
        Ruleset::default()
            .handle_access(all)?
            .create()?
            .add_rules(path_beneath_rules(HOST, read))?
            .add_rules(path_beneath_rules(&self.read, read))?
            .add_rules(path_beneath_rules(switches, read | AccessFs::WriteFile))?
            // Nothing is executed there, nor are devices made.
            .add_rules(path_beneath_rules(
                &self.written,
                all & !AccessFs::Execute & !AccessFs::MakeBlock & !AccessFs::MakeChar,
            ))?
            .restrict_self()
    }
}

fn folder_of(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let is_here = folder.as_os_str().is_empty();
    Some(if is_here {
        PathBuf::from(".")
    } else {
        folder.to_owned()
    })
}
