//! The log of `ringway run`: one line per event on standard output, written by a thread of its own. A reader that
//! stalls costs lines, never the control plane.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, reload};

use crate::access::Style;
use crate::access::writer::{Target, Writer};
use crate::config::{Access, Log, LogFormat, LogLevel};
use crate::control::{self, LevelSwitch};

/// Overrides the file's level.
const VARIABLE: &str = "RINGWAY_LOG";
/// Lines that wait for a slow reader; those beyond are dropped.
const LINES_WAITING: usize = 16_384;
/// How long the last lines are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps the log going; when it is dropped, what waits is written, unless nobody reads it.
#[must_use]
pub(super) struct Lines {
    guard: Option<WorkerGuard>,
    dropped: ErrorCounter,
    /// Sets the level while it goes on.
    pub(super) level: Option<LevelSwitch>,
}

/// From now on what happens is written.
pub(super) fn start(log: &Log) -> Lines {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING)
        .thread_name("log")
        .finish(std::io::stdout());
    let dropped = writer.error_counter();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(log.level))
        .with_writer(writer)
        .with_target(false)
        .with_ansi(false)
        // A reader of the log that is gone must not end the process.
        .log_internal_errors(false);
    let level = match log.format {
        LogFormat::Text => {
            let lines = lines.with_filter_reloading();
            let level = switch(lines.reload_handle());
            lines.init();
            level
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let level = switch(lines.reload_handle());
            lines.init();
            level
        }
    };
    Lines {
        guard: Some(guard),
        dropped,
        level: Some(level),
    }
}

/// The lines about sessions, if they are wanted.
pub(super) fn start_access(log: &Log) -> Option<Writer> {
    let target = match log.access.as_ref()? {
        Access::Stdout => Target::Stdout,
        Access::File(path) => Target::File(path.clone()),
    };
    let style = match log.format {
        LogFormat::Text => Style::Text,
        LogFormat::Json => Style::Json,
    };
    let started = Writer::start(target, style);
    started
        .inspect_err(|error| tracing::warn!(%error, "log.access: no thread to write it"))
        .ok()
}

fn switch<S: Send + Sync + 'static>(handle: reload::Handle<EnvFilter, S>) -> LevelSwitch {
    LevelSwitch::new(move |level| {
        let filter = with_counters(EnvFilter::new(level));
        handle.reload(filter).map_err(|error| error.to_string())
    })
}

/// The counters are written whatever the level.
fn with_counters(filter: EnvFilter) -> EnvFilter {
    let counters = format!("{}=info", control::COUNTERS);
    filter.add_directive(counters.parse().expect("a target and a level"))
}

impl Drop for Lines {
    fn drop(&mut self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            tracing::warn!(dropped, "lines of this log were dropped: it was not read");
        }
        let (done, is_done) = mpsc::channel();
        let guard = self.guard.take();
        // The guard may block for ever where nobody reads.
        let waiting = thread::Builder::new().spawn(move || {
            drop(guard);
            // Whoever waits may have given up.
            let _ = done.send(());
        });
        if waiting.is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

/// What is written: the file's level, or what the variable says. The counters are always written.
fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let wanted = std::env::var_os(VARIABLE).map(|wanted| wanted.to_string_lossy().into_owned());
    let wanted = wanted.filter(|wanted| !wanted.trim().is_empty());
    let understood = wanted.as_deref().and_then(directives);
    if let (Some(wanted), None) = (&wanted, &understood) {
        super::say(&format!(
            "ringway: {VARIABLE}={wanted} is not understood and not used; write off, error, warn, info, debug or \
             trace, or one for a part (info,ringway::worker=trace)"
        ));
    }
    with_counters(understood.unwrap_or_else(|| EnvFilter::new(level)))
}

/// Levels, and parts of the program with their levels. A word that is neither would silence everything else.
fn directives(text: &str) -> Option<EnvFilter> {
    let text: String = text.split_whitespace().collect();
    // To the parser of levels, nothing is one.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_known = |word: &str| match word.split_once('=') {
        Some((part, level)) => part.starts_with("ringway") && is_level(level),
        None => is_level(word),
    };
    let known = text.split(',').all(is_known);
    known.then(|| EnvFilter::try_new(&text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_neither_level_nor_part_are_not_understood() {
        for (text, expected) in [
            ("debug", true),
            ("OFF", true),
            ("info,ringway::worker=trace", true),
            ("info, ringway::worker=trace", true),
            ("verbose", false),
            ("debug,verbose", false),
            ("ringway::worker=verbose", false),
            ("worker=debug", false),
            ("=", false),
            (",", false),
        ] {
            assert_eq!(directives(text).is_some(), expected, "{text}");
        }
    }
}
