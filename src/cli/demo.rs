//! `ringway demo`.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use super::{Failure, Outcome, file};
use crate::control;
use crate::demo::{self, Error, Settings};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway demo                 15 seconds: one of three backends dies and comes back
  ringway demo --keep          stays until Ctrl-C
  ringway demo | cat           plain lines

Everything is built in and on loopback; it needs no configuration and no privileges.";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long the show takes
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,

    /// Stay after the show until Ctrl-C
    #[arg(long)]
    keep: bool,

    /// Lines instead of a table that is redrawn; the default where there is no terminal
    #[arg(long)]
    plain: bool,
}

/// Shows it.
pub(super) fn demo(arguments: &Arguments) -> Result<Outcome, Failure> {
    let out = std::io::stdout();
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    demo::run(Settings {
        length: Duration::from_secs(arguments.seconds),
        keep: arguments.keep,
        plain: arguments.plain || is_dumb || !out.is_terminal(),
        colours: file::has_colours(&out),
    })
    .map_err(|error| match error {
        Error::Control(error) => Failure::from(error),
        Error::Io(..) => Failure::Host(error.to_string()),
    })?;
    Ok(Outcome::Success)
}

impl From<control::Error> for Failure {
    fn from(error: control::Error) -> Failure {
        let text = error.to_string();
        match error {
            control::Error::Permission(_) => Failure::Permission(text),
            control::Error::Host(_) | control::Error::Setup(_) => Failure::Host(text),
            control::Error::Running(_) => Failure::Running(text),
        }
    }
}
