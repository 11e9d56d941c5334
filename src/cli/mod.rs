//! The command line: one file per command.

mod backend;
mod check;
mod demo;
mod doctor;
mod explain;
mod failover;
mod file;
mod log;
mod manual;
mod reload;
mod run;
mod schema;
mod sessions;
mod status;
mod tips;
mod top;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::admin::client;
use crate::privileges;

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

    /// See it at work: three backends, the balancer and a load, all built in; one backend dies and comes back
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::Arguments),

    /// Check a configuration: everything that is wrong with it, with its place
    #[command(after_help = check::EXAMPLES)]
    Check(check::Arguments),

    /// How a running Ringway is: listeners, pools, backends, and why something is as it is
    #[command(after_help = status::EXAMPLES)]
    Status(status::Arguments),

    /// The same on a screen that lives: rates, latencies, events; keys drain backends and bring them back
    #[command(after_help = top::EXAMPLES)]
    Top(top::Arguments),

    /// Take a backend of a running Ringway out of use and back, change its weight, add or remove one
    #[command(after_help = backend::EXAMPLES)]
    Backend(backend::Arguments),

    /// Have a running Ringway read its configuration again, and change over to it
    #[command(after_help = reload::EXAMPLES)]
    Reload(reload::Arguments),

    /// Which sessions a running Ringway has, or end some of them
    #[command(after_help = sessions::EXAMPLES)]
    Sessions(sessions::Arguments),

    /// Which backend a connection would get now, and why
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Arguments),

    /// Hand the virtual addresses of a running Ringway over to another node
    #[command(after_help = failover::EXAMPLES)]
    Failover(failover::Arguments),

    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = schema::EXAMPLES)]
    Schema(schema::Arguments),

    /// Look at this host: what keeps Ringway from running well here, and what mends it
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Arguments),

    /// Print what completes commands in a shell
    #[command(after_help = manual::COMPLETIONS)]
    Completions(manual::CompletionsArguments),

    /// Write the manual pages
    #[command(after_help = manual::PAGES)]
    Man(manual::ManArguments),
}

/// How a command that has said everything itself ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// 0.
    Success,
    /// 69: the host cannot do it.
    Host,
    /// 78: the configuration is wrong.
    Config,
}

/// Why a command ended without success; each has its exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1: failed while running.
    Running(String),
    /// 64: wrong usage.
    Usage(String),
    /// 69: the host cannot do it.
    Host(String),
    /// 77: not permitted.
    Permission(String),
    /// 78: the configuration is wrong.
    Config(String),
}

impl From<privileges::Error> for Failure {
    fn from(error: privileges::Error) -> Failure {
        let text = error.to_string();
        match error {
            privileges::Error::NotRoot(_) | privileges::Error::Failed { .. } => {
                Failure::Permission(text)
            }
            privileges::Error::Unknown(_) => Failure::Host(text),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        let text = error.to_string();
        match error {
            client::Error::Nobody { .. } => Failure::Host(text),
            client::Error::NotPermitted { .. } => Failure::Permission(text),
            client::Error::Refused(_) | client::Error::Broken { .. } => Failure::Running(text),
        }
    }
}

impl Failure {
    /// The exit code, after sysexits.h.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Running(_) => 1,
            Failure::Usage(_) => EX_USAGE,
            Failure::Host(_) => EX_UNAVAILABLE,
            Failure::Permission(_) => 77,
            Failure::Config(_) => EX_CONFIG,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Running(text)
            | Failure::Usage(text)
            | Failure::Host(text)
            | Failure::Permission(text)
            | Failure::Config(text) => out.write_str(text),
        }
    }
}

/// What a usage error exits with, a host that cannot do it, and a wrong configuration.
const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;
const EX_CONFIG: u8 = 78;

/// Prints on standard output. A reader that went away wants no more.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

fn printed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Running(format!("standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says it on standard error; nothing can be said when even that is gone.
fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Parses the command line and performs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let printed = printed(error.print());
            if let Some(tip) = tips::tip(&error) {
                say(&format!("\n  tip: {tip}"));
            }
            return match (error.use_stderr(), printed) {
                (true, _) => ExitCode::from(EX_USAGE),
                (false, Ok(())) => ExitCode::SUCCESS,
                (false, Err(failure)) => ended_by(&failure),
            };
        }
    };
    let outcome = match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Backend(arguments) => backend::backend(&arguments),
        Command::Reload(arguments) => reload::reload(&arguments),
        Command::Failover(arguments) => failover::failover(&arguments),
        Command::Schema(arguments) => schema::schema(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Sessions(arguments) => sessions::sessions(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::pages(&arguments),
    };
    match outcome {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Host) => ExitCode::from(EX_UNAVAILABLE),
        Ok(Outcome::Config) => ExitCode::from(EX_CONFIG),
        Err(failure) => ended_by(&failure),
    }
}

fn ended_by(failure: &Failure) -> ExitCode {
    match failure {
        // A report speaks for itself.
        Failure::Config(report) => say(report),
        Failure::Running(_) | Failure::Usage(_) | Failure::Host(_) | Failure::Permission(_) => {
            say(&format!("ringway: {failure}"));
        }
    }
    failure.exit_code()
}
