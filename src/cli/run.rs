//! `ringway run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::config::{self, Config};
use crate::control::{self, Options};
use crate::ring::ReceiveTier;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway run                                        the file /etc/ringway/ringway.yaml
  ringway run -c lab.yaml                            another file
  ringway run --listen 127.0.0.1:5000 --to 127.0.0.1:5001 --to 127.0.0.1:5002

Signals: SIGTERM or SIGINT stops gracefully, a second one at once; SIGUSR1 prints the counters.";

pub(super) const DEFAULT_FILE: &str = "/etc/ringway/ringway.yaml";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    #[arg(conflicts_with_all = ["listen", "to"])]
    config: PathBuf,

    /// Without a file: listen here (`127.0.0.1:5000`, `[::1]:5000`, `*:5000`, `unix:/path`)
    #[arg(long, value_name = "ADDR", requires = "to")]
    listen: Vec<String>,

    /// Without a file: a backend; give it once for each
    #[arg(long, value_name = "ADDR", requires = "listen")]
    to: Vec<String>,

    /// How to receive; the best that the kernel has unless given
    #[arg(long, hide = true)]
    receive_tier: Option<Tier>,

    /// Freeze and thaw all sessions again and again, to test that they survive it
    #[arg(long, hide = true, value_name = "MILLISECONDS", value_parser = parse_pause)]
    freeze_every: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tier {
    Limited,
    Single,
}

/// Runs until it is told to stop.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Config { global, snapshot } = if arguments.listen.is_empty() {
        config::load(&arguments.config)
    } else {
        config::from_addresses(&arguments.listen, &arguments.to)
    }
    .map_err(|invalid| Failure::Config(invalid.to_string()))?;
    start_logging();
    let options = Options {
        tier: arguments.receive_tier.map(|tier| match tier {
            Tier::Limited => ReceiveTier::Limited,
            Tier::Single => ReceiveTier::Single,
        }),
        freeze_every: arguments.freeze_every,
    };
    control::run(&global, snapshot, options).map_err(|error| match error {
        control::Error::Permission(_) => Failure::Permission(error.to_string()),
        control::Error::Host(_) | control::Error::Setup(_) => Failure::Host(error.to_string()),
        control::Error::Running(_) => Failure::Running(error.to_string()),
    })
}

/// One line per event on standard output; `RINGWAY_LOG` overrides the level (`debug`, `ringway::worker=trace`).
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RINGWAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        // A reader of the log that is gone must not end the process.
        .log_internal_errors(false)
        .init();
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix("ms").unwrap_or(text);
    digits
        .parse()
        .map(Duration::from_millis)
        .map_err(|_| "write milliseconds, as in 50ms".to_owned())
}
