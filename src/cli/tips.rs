//! What to write instead of a word that is none of ours, where clap's nearest name would not help.

use clap::error::{ContextKind, ContextValue};

/// Words of other programs and of habit, and what they are here.
const TIPS: &[(&[&str], &str)] = &[
    (
        &["restart"],
        "`ringway reload` takes over a changed file; what needs a restart is named by `ringway reload --dry-run`",
    ),
    (
        &["start", "serve", "daemon"],
        "`ringway run` runs in the foreground",
    ),
    (
        &["stop", "quit", "shutdown", "kill"],
        "SIGTERM stops it gracefully, a second one at once; `ringway status` shows its pid",
    ),
    (
        &["log", "logs"],
        "`ringway run` logs to its standard output (the service: `journalctl -u ringway`); RINGWAY_LOG=debug says more",
    ),
    (
        &["--verbose", "-v", "--debug", "-d"],
        "RINGWAY_LOG=debug ringway run … says more",
    ),
    (
        &["--check", "--test", "-t", "test", "validate", "configtest"],
        "`ringway check -c FILE`",
    ),
    (
        &["-f", "--file", "--conf"],
        "the file is given with `-c FILE`",
    ),
    (
        &["drain", "ready", "maintenance", "weight"],
        "`ringway backend POOL/NAME drain` (or ready, maintenance, weight N)",
    ),
    (
        &["disable", "down"],
        "`ringway backend POOL/NAME maintenance`, or `drain` to let its sessions end by themselves",
    ),
    (
        &["enable", "up", "undrain"],
        "`ringway backend POOL/NAME ready`",
    ),
    (
        &["stats", "show", "info", "list", "ps"],
        "`ringway status`; `ringway top` shows the same on a screen that lives",
    ),
    (
        &["events", "watch", "monitor", "dashboard"],
        "`ringway top` shows events as they happen; `admin.http` serves the same as a page",
    ),
    (
        &["metrics", "prometheus"],
        "`admin: {metrics: ADDRESS}` in the file serves /metrics",
    ),
    (
        &["init", "config"],
        "`ringway run --listen … --to … --print-config` writes a file to begin with",
    ),
];

/// For an error of the command line.
pub(super) fn tip(error: &clap::Error) -> Option<String> {
    let word = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg]
        .into_iter()
        .find_map(|kind| {
            if let Some(ContextValue::String(word)) = error.get(kind) {
                Some(word.as_str())
            } else {
                None
            }
        })?;
    if [".yaml", ".yml"].iter().any(|end| word.ends_with(end)) {
        return Some(format!("the file is given with `-c {word}`"));
    }
    let known = TIPS.iter().find(|(words, _)| words.contains(&word));
    known.map(|(_, tip)| (*tip).to_owned())
}
