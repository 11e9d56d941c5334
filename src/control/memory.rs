//! What the operator changed while it ran, kept in a file so that it holds after a restart. It is a convenience: a file
//! that is lost, or that makes no sense, leaves what the configuration says. A change counts for as long as the
//! configuration says what it said when the change was made.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::additions;
use super::operator::{self, Notes};
use super::snapshot::{Backend, OperatorState, Snapshot};
use crate::admin::{Addition, Change, Most};
use crate::ids::BackendId;

/// Largest file that is read.
const FILE_MAX: u64 = 64 << 20;
/// How long the end of the process waits for the file to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file's content.
#[derive(Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remembered {
    version: u32,
    /// Those that are in no file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    added: Vec<Added>,
    backends: Vec<Entry>,
}

/// A backend that the operator added, as it was added.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Added {
    pool: String,
    backend: String,
    address: String,
    weight: u16,
    backup: bool,
    max_sessions: Option<u32>,
    /// Seconds since 1970.
    since: u64,
}

impl Added {
    fn of(snapshot: &Snapshot, backend: &Backend, notes: &Notes) -> Added {
        let address = match (&backend.host, &backend.address) {
            (Some((host, port)), _) => format!("{host}:{port}"),
            (None, Some(address)) => address.to_string(),
            (None, None) => String::new(),
        };
        let since = notes.since.duration_since(UNIX_EPOCH);
        Added {
            pool: snapshot.pools[backend.pool.index()].name.to_string(),
            backend: backend.name.to_string(),
            address,
            weight: notes.file.weight,
            backup: backend.backup,
            max_sessions: notes.file.max_sessions,
            since: since.map_or(0, |since| since.as_secs()),
        }
    }

    /// Adds it again, unless the configuration has no place for it any more.
    fn apply(self, snapshot: &mut Snapshot, notes: &mut Vec<Notes>) -> bool {
        let addition = Addition {
            address: self.address,
            weight: Some(self.weight),
            backup: self.backup,
            max_sessions: self.max_sessions.map(|most| Most(Some(most))),
        };
        let since = UNIX_EPOCH + Duration::from_secs(self.since);
        let made = additions::backend(snapshot, &self.pool, &self.backend, &addition);
        let Some(id) = made
            .ok()
            .and_then(|made| additions::put(snapshot, notes, &self.pool, made, since))
        else {
            return false;
        };
        let pool = snapshot.backends[id.index()].pool.index();
        let of = &snapshot.pools[pool];
        let plan = snapshot.plan(of.balance, of.hash_key, &of.backends);
        snapshot.pools[pool].plan = plan;
        true
    }
}

#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    pool: String,
    backend: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Kept<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<Kept<u16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_sessions: Option<Kept<Option<u32>>>,
}

/// A value and what the configuration had instead.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept<T> {
    now: T,
    file: T,
    /// Seconds since 1970.
    since: u64,
}

impl<T: PartialEq> Kept<T> {
    fn of(now: T, file: T, since: SystemTime) -> Option<Kept<T>> {
        let since = since.duration_since(UNIX_EPOCH);
        let since = since.map_or(0, |since| since.as_secs());
        (now != file).then_some(Kept { now, file, since })
    }

    /// The value, unless the configuration has changed its mind.
    fn holds(self, file: &T) -> Option<(T, SystemTime)> {
        (self.file == *file).then(|| (self.now, UNIX_EPOCH + Duration::from_secs(self.since)))
    }
}

impl Remembered {
    /// What differs from the configuration now.
    pub(super) fn of(snapshot: &Snapshot, notes: &[Notes]) -> Remembered {
        let both = snapshot.backends_in_order();
        let both = both.map(|(id, backend)| (backend, &notes[id.index()]));
        let added = both.clone().filter(|(_, notes)| notes.is_added);
        let added = added.map(|(backend, notes)| Added::of(snapshot, backend, notes));
        let differs = |(backend, notes): &(&Backend, &Notes)| {
            let file = &notes.file;
            (backend.state, backend.weight, backend.max_sessions)
                != (file.state, file.weight, file.max_sessions)
        };
        let entries = both.filter(differs).map(|(backend, notes)| {
            let (now, file) = (backend.state.as_str(), notes.file.state.as_str());
            Entry {
                pool: snapshot.pools[backend.pool.index()].name.to_string(),
                backend: backend.name.to_string(),
                state: Kept::of(now.to_owned(), file.to_owned(), notes.state.since),
                weight: Kept::of(backend.weight, notes.file.weight, notes.weight.since),
                max_sessions: Kept::of(
                    backend.max_sessions,
                    notes.file.max_sessions,
                    notes.max_sessions.since,
                ),
            }
        });
        Remembered {
            version: 1,
            added: added.collect(),
            backends: entries.collect(),
        }
    }

    /// Changes the snapshot as the operator did; how many backends that were.
    pub(super) fn apply(self, snapshot: &mut Snapshot, notes: &mut Vec<Notes>) -> usize {
        let mut count = 0;
        for added in self.added {
            count += usize::from(added.apply(snapshot, notes));
        }
        for entry in self.backends {
            let Ok(id) = operator::find(snapshot, &entry.pool, &entry.backend) else {
                continue;
            };
            count += usize::from(apply(entry, id, snapshot, notes));
        }
        count
    }

    /// What a file holds; nothing if there is none.
    pub(super) fn read(path: &Path) -> io::Result<Remembered> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() && meta.len() <= FILE_MAX => {}
            Ok(_) => return Err(io::Error::other("it is no regular file, or far too large")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Remembered::default());
            }
            Err(error) => return Err(error),
        }
        let read: Remembered = serde_json::from_slice(&std::fs::read(path)?)?;
        match read.version {
            1 => Ok(read),
            other => Err(io::Error::other(format!(
                "its version {other} is not known"
            ))),
        }
    }
}

fn apply(entry: Entry, id: BackendId, snapshot: &mut Snapshot, notes: &mut [Notes]) -> bool {
    let file = notes[id.index()].file;
    let word = file.state.as_str().to_owned();
    let state = entry.state.and_then(|kept| kept.holds(&word));
    let state = state.and_then(|(word, since)| {
        let found = OperatorState::ALL
            .iter()
            .find(|state| state.as_str() == word);
        found.map(|state| (*state, since))
    });
    let weight = entry.weight.and_then(|kept| kept.holds(&file.weight));
    let most = entry
        .max_sessions
        .and_then(|kept| kept.holds(&file.max_sessions));
    let mut is_changed = false;
    let changes = [
        state.map(|(state, since)| {
            (
                Change {
                    state: Some(state),
                    ..Change::default()
                },
                since,
            )
        }),
        weight.map(|(weight, since)| {
            (
                Change {
                    weight: Some(weight),
                    ..Change::default()
                },
                since,
            )
        }),
        most.map(|(most, since)| {
            let max_sessions = Some(Most::from(most));
            (
                Change {
                    max_sessions,
                    ..Change::default()
                },
                since,
            )
        }),
    ];
    for (change, since) in changes.into_iter().flatten() {
        is_changed |= operator::operate(snapshot, notes, id, &change, since).is_ok();
    }
    is_changed
}

/// Writes the file on a thread of its own, so that a slow disk delays nobody. The latest wins.
pub(super) struct Writer {
    texts: mpsc::Sender<String>,
    is_done: mpsc::Receiver<()>,
}

impl Writer {
    pub(super) fn start(path: PathBuf) -> io::Result<Writer> {
        let (texts, waiting) = mpsc::channel::<String>();
        let (done, is_done) = mpsc::channel();
        std::thread::Builder::new()
            .name("state-file".to_owned())
            .spawn(move || {
                while let Ok(first) = waiting.recv() {
                    let text = waiting.try_iter().last().unwrap_or(first);
                    if let Err(error) = write(&path, &text) {
                        tracing::warn!(
                            file = %path.display(), %error,
                            "the operator's changes are not kept: they hold until the process ends"
                        );
                    }
                }
                // Whoever waits may have given up.
                let _ = done.send(());
            })?;
        Ok(Writer { texts, is_done })
    }

    pub(super) fn keep(&self, remembered: &Remembered) {
        let text = serde_json::to_string_pretty(remembered).expect("it can always be written");
        // The thread ends after this.
        let _ = self.texts.send(text + "\n");
    }

    /// The last word is to be written, if that takes no time.
    pub(super) fn finish(self) {
        drop(self.texts);
        let _ = self.is_done.recv_timeout(PATIENCE);
    }
}

/// As a whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(weight: u16) -> (Snapshot, Vec<Notes>) {
        let text = format!(
            "listeners: [{{bind: \"*:9\", pool: a}}]\npools: {{a: {{backends: [{{name: x, address: \"127.0.0.1:1\", \
             weight: {weight}}}, {{name: y, address: \"127.0.0.1:2\"}}]}}}}\n"
        );
        let (config, _) = crate::config::parse(&text, "test", "here")
            .into_result()
            .unwrap();
        let notes = Notes::of(&config.snapshot, UNIX_EPOCH);
        (config.snapshot, notes)
    }

    fn changed() -> Remembered {
        let (mut snapshot, mut notes) = snapshot(1);
        let change = Change {
            state: Some(OperatorState::Drain),
            weight: Some(9),
            max_sessions: Some(Most::from(Some(5))),
            ..Change::default()
        };
        let at = UNIX_EPOCH + Duration::from_secs(77);
        operator::operate(&mut snapshot, &mut notes, BackendId(0), &change, at).unwrap();
        Remembered::of(&snapshot, &notes)
    }

    #[test]
    fn what_the_operator_changed_holds_after_a_restart() {
        let text = serde_json::to_string(&changed()).unwrap();
        let (mut snapshot, mut notes) = snapshot(1);
        let read: Remembered = serde_json::from_str(&text).unwrap();
        assert_eq!(read.apply(&mut snapshot, &mut notes), 1);
        let backend = &snapshot.backends[0];
        assert_eq!(
            (backend.state, backend.weight, backend.max_sessions),
            (OperatorState::Drain, 9, Some(5))
        );
        assert_eq!(notes[0].weight.by(), "operator");
        assert_eq!(notes[1].weight.by(), "file");
        assert_eq!(Remembered::of(&snapshot, &notes), changed());
    }

    #[test]
    fn a_key_that_the_file_has_changed_is_the_files() {
        let (mut snapshot, mut notes) = snapshot(3);
        changed().apply(&mut snapshot, &mut notes);
        assert_eq!(snapshot.backends[0].weight, 3);
        assert_eq!(snapshot.backends[0].state, OperatorState::Drain);
    }

    #[test]
    fn what_is_as_in_the_file_is_not_kept_and_what_is_gone_is_left_out() {
        let (snapshot, notes) = snapshot(1);
        assert_eq!(Remembered::of(&snapshot, &notes).backends, []);
        let mut read = changed();
        read.backends[0].backend = "gone".to_owned();
        let (mut snapshot, mut notes) = (snapshot, notes);
        assert_eq!(read.apply(&mut snapshot, &mut notes), 0);
    }
}
