//! Fewer rights, once the file says which user to become: that user and its groups, only the capabilities that the file
//! needs, only the files that it names. All of it before any thread is started and anything is opened, so that it holds
//! for everything; with `global.user: none` nothing is changed. What capabilities are for is in [`table`].

mod files;
pub mod table;

use std::ffi::CString;
use std::fmt;
use std::os::unix::fs::chown;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, User, initgroups, setgroups, setresgid, setresuid};

use crate::config::Config;

pub use files::{Places, Reach};

/// Why it stays as it is, which ends the process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only root can become somebody else.
    #[error(
        "global.user: only root can become another user, this is {0}; `user: none` stays the one that starts it"
    )]
    NotRoot(Uid),
    /// There is no such user.
    #[error("global.user: there is no user {0} on this host")]
    Unknown(String),
    /// A system call failed.
    #[error("global.user: cannot become {user}: {what}: {why}")]
    Failed {
        /// Who was to be.
        user: String,
        /// What was done.
        what: &'static str,
        /// What the kernel said.
        why: String,
    },
}

/// What was left: to be told in the log, and to explain what the process cannot do any more.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// Who it is now.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// By name.
    pub capabilities: Vec<String>,
    /// Which files are within reach.
    pub files: Reach,
}

impl Dropped {
    /// Why something is not permitted that may have been before, and what helps.
    #[must_use]
    pub fn hint(&self) -> String {
        format!(
            "it became user {} when it started, and kept what its file needed then: a restart keeps what the file \
             needs now",
            self.user
        )
    }

    /// Whether the commands of another configuration could be run, if it has any.
    #[must_use]
    pub fn can_run_commands_of(&self, config: &Config) -> bool {
        !self.files.is_bounded() || !table::runs_commands(config)
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = match self.capabilities.as_slice() {
            [] => "no capabilities".to_owned(),
            some => some.join(" "),
        };
        let Dropped { user, uid, .. } = self;
        write!(out, "runs as {user} ({uid}) with {kept}; {}", self.files)
    }
}

/// Becomes the user that the file names, if it names one. Must be called while there is one thread.
///
/// # Errors
/// Why it cannot be, in part or in whole: then nothing must be opened.
pub fn drop_to(config: &Config, places: &Places) -> Result<Option<Dropped>, Error> {
    let Some(wanted) = &config.user else {
        return Ok(None);
    };
    let identity = Identity::find(wanted)?;
    let now = Uid::effective();
    if !now.is_root() && now != identity.uid {
        return Err(Error::NotRoot(now));
    }
    let needed: CapsHashSet = table::needed(config).collect();
    let runs_commands = table::runs_commands(config);
    if now.is_root() {
        places.make_folders(|folder| identity.give(folder));
        if !runs_commands {
            identity.bound(&needed);
        }
        identity.assume()?;
    }
    let kept = identity.keep(&needed)?;
    let files = if runs_commands {
        Reach::All("commands of `vrrp` run".to_owned())
    } else {
        places.confine()
    };
    let mut capabilities: Vec<String> = kept.iter().map(Capability::to_string).collect();
    capabilities.sort_unstable();
    Ok(Some(Dropped {
        user: identity.name,
        uid: identity.uid.as_raw(),
        capabilities,
        files,
    }))
}

/// The number of a user.
///
/// # Errors
/// There is no such user, or nobody can say.
pub fn find(user: &str) -> Result<u32, Error> {
    Identity::find(user).map(|identity| identity.uid.as_raw())
}

/// The calling thread needs none of the capabilities that the others have. Root keeps its own: it may have to reach
/// what only root may.
pub fn give_up() {
    if !Uid::effective().is_root() {
        for set in [CapSet::Effective, CapSet::Permitted] {
            // Fewer are always permitted.
            let _ = caps::clear(None, set);
        }
    }
}

/// Who to become.
struct Identity {
    name: String,
    uid: Uid,
    gid: Gid,
    /// It has an entry of its own, and so groups.
    is_known: bool,
}

impl Identity {
    /// By its name or its number. A number needs no entry.
    fn find(wanted: &str) -> Result<Identity, Error> {
        let number: Option<u32> = wanted.parse().ok();
        let found = match number {
            Some(number) => User::from_uid(Uid::from_raw(number)),
            None => User::from_name(wanted),
        };
        let found = found.map_err(|errno| Error::Failed {
            user: wanted.to_owned(),
            what: "looking it up",
            why: errno.to_string(),
        })?;
        match (found, number) {
            (Some(user), _) => Ok(Identity {
                name: user.name,
                uid: user.uid,
                gid: user.gid,
                is_known: true,
            }),
            (None, Some(number)) => Ok(Identity {
                name: number.to_string(),
                uid: Uid::from_raw(number),
                gid: Gid::from_raw(number),
                is_known: false,
            }),
            (None, None) => Err(Error::Unknown(wanted.to_owned())),
        }
    }

    /// A folder that was made for it is its own.
    fn give(&self, folder: &Path) {
        // What it cannot write there then is told where that is tried.
        let _ = chown(folder, Some(self.uid.as_raw()), Some(self.gid.as_raw()));
    }

    /// Programs that it might start get no other capabilities, whatever they are.
    fn bound(&self, needed: &CapsHashSet) {
        for capability in caps::all().difference(needed) {
            // The kernel may not know all of them.
            let _ = caps::drop(None, CapSet::Bounding, *capability);
        }
    }

    fn assume(&self) -> Result<(), Error> {
        let name = CString::new(self.name.as_str()).unwrap_or_default();
        let grouped = match self.is_known {
            true => initgroups(&name, self.gid),
            false => setgroups(&[self.gid]),
        };
        grouped.map_err(|errno| self.failed("its groups", errno))?;
        prctl::set_keepcaps(true).map_err(|errno| self.failed("keeping capabilities", errno))?;
        let Identity { uid, gid, .. } = *self;
        setresgid(gid, gid, gid).map_err(|errno| self.failed("its group", errno))?;
        setresuid(uid, uid, uid).map_err(|errno| self.failed("its id", errno))?;
        Ok(())
    }

    /// Keeps those that are needed, as far as they are there; programs that are started inherit none.
    fn keep(&self, needed: &CapsHashSet) -> Result<CapsHashSet, Error> {
        let own = caps::read(None, CapSet::Permitted)
            .map_err(|error| self.failed("reading its capabilities", error))?;
        let kept: CapsHashSet = own.intersection(needed).copied().collect();
        let none = CapsHashSet::new();
        for (set, capabilities) in [
            (CapSet::Ambient, &none),
            (CapSet::Inheritable, &none),
            (CapSet::Effective, &kept),
            (CapSet::Permitted, &kept),
        ] {
            caps::set(None, set, capabilities)
                .map_err(|error| self.failed("dropping capabilities", error))?;
        }
        Ok(kept)
    }

    fn failed(&self, what: &'static str, why: impl fmt::Display) -> Error {
        Error::Failed {
            user: self.name.clone(),
            what,
            why: why.to_string(),
        }
    }
}
