//! The thread that writes the access log. It may wait for whoever reads it; nobody waits for the thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::{Lost, Record, Sink, Style, line};
use crate::privileges;

/// Lines that are written together.
const LINES_AT_ONCE: usize = 256;
/// Between two looks whether the file is still the one of its name.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two words in the log about a file that cannot be written.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How long the last lines are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Its owner writes it, its group may read it.
const MODE: u32 = 0o640;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

/// Keeps the access log going; when it is dropped, what waits is written, unless nobody reads it.
#[must_use]
#[derive(Debug)]
pub struct Writer {
    sink: Option<Sink>,
    is_done: mpsc::Receiver<()>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(target: Target, style: Style) -> io::Result<Writer> {
        let (sink, records) = Sink::new();
        let lost = sink.lost().clone();
        let (done, is_done) = mpsc::channel();
        let output = match target {
            Target::Stdout => Output::Stdout,
            Target::File(path) => Output::File(Reopened::new(path)),
        };
        let thread = thread::Builder::new().name("access".to_owned());
        thread.spawn(move || {
            privileges::give_up();
            write_all(&records, output, style, &lost);
            // Whoever waits may have given up.
            let _ = done.send(());
        })?;
        Ok(Writer {
            sink: Some(sink),
            is_done,
        })
    }

    /// Where workers put records; once all of these are gone, and this, the thread ends.
    #[must_use]
    pub fn sink(&self) -> Option<Sink> {
        self.sink.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.sink.take());
        let _ = self.is_done.recv_timeout(PATIENCE);
    }
}

fn write_all(records: &Receiver<Record>, mut output: Output, style: Style, lost: &Lost) {
    let mut text = String::new();
    let mut said: Option<Instant> = None;
    while let Ok(first) = records.recv() {
        text.clear();
        line::add(&first, style, &mut text);
        let mut lines = 1;
        for record in records.try_iter().take(LINES_AT_ONCE - 1) {
            line::add(&record, style, &mut text);
            lines += 1;
        }
        let Err(error) = output.write(&text) else {
            continue;
        };
        lost.add(lines);
        if said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            said = Some(Instant::now());
            let lost = lost.get();
            tracing::warn!(%error, lost, "log.access: lines are lost, {} cannot be written", output.name());
        }
    }
}

enum Output {
    Stdout,
    File(Reopened),
}

impl Output {
    fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            // Locked, so that no other line gets between.
            Output::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()
            }
            Output::File(file) => file.write(text),
        }
    }

    fn name(&self) -> String {
        match self {
            Output::Stdout => "standard output".to_owned(),
            Output::File(file) => file.path.display().to_string(),
        }
    }
}

/// A file that is begun anew once it has been renamed or removed.
struct Reopened {
    path: PathBuf,
    file: Option<File>,
    looked: Instant,
}

impl Reopened {
    fn new(path: PathBuf) -> Reopened {
        Reopened {
            path,
            file: None,
            looked: Instant::now(),
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.looked.elapsed() > LOOK_EVERY {
            self.looked = Instant::now();
            self.file.take_if(|file| !is_at(file, &self.path));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.path)?),
        };
        file.write_all(text.as_bytes())
    }
}

/// Waits for a reader where it is a named pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let of = |meta: io::Result<std::fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
    let own = of(file.metadata());
    own.is_some() && own == of(std::fs::metadata(path))
}
