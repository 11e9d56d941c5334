//! The command line: one file per command.

mod doctor;
mod run;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Layer 4 load balancer on io_uring.
#[derive(Debug, Parser)]
#[command(
    name = "ringway",
    version,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground
    #[command(after_help = run::EXAMPLES)]
    Run(run::Arguments),
    /// Look at this host: what keeps Ringway from running well here, and what mends it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Arguments),
}

/// Why a command ended without success; each has its exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1: failed while running.
    Running(String),
    /// 69: the host cannot do it.
    Host(String),
    /// 77: not permitted.
    Permission(String),
    /// 78: the configuration is wrong.
    Config(String),
}

impl Failure {
    /// The exit code, after sysexits.h.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Running(_) => 1,
            Failure::Host(_) => 69,
            Failure::Permission(_) => 77,
            Failure::Config(_) => 78,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Running(text)
            | Failure::Host(text)
            | Failure::Permission(text)
            | Failure::Config(text) => out.write_str(text),
        }
    }
}

/// What a usage error exits with.
const EX_USAGE: u8 = 64;

/// Parses the command line and performs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EX_USAGE } else { 0 };
            // Nothing can be said when even the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let outcome = match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Doctor(arguments) => return doctor::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ringway: {failure}");
            failure.exit_code()
        }
    }
}
