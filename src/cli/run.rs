//! `ringway run`.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::file::{self, FileArguments};
use super::log;
use super::{Failure, Outcome};
use crate::access::writer::Writer;
use crate::admin::Settings;
use crate::config::{self, Config, Socket, StateFile};
use crate::control::{self, Options, Source};
use crate::privileges::{self, Dropped, Places};
use crate::ring::ReceiveTier;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway run                                        the file /etc/ringway/ringway.yaml
  ringway run -c lab.yaml                            another file
  ringway run --listen 127.0.0.1:5000 --to 127.0.0.1:5001 --to 127.0.0.1:5002
  ringway run --listen '*:5432' --to db1:5432 --to db2:5432 --print-config > ringway.yaml

Signals: SIGTERM or SIGINT stops gracefully, a second one at once; SIGHUP reads the file again (as `ringway reload`);
SIGUSR1 prints the counters.";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArguments,

    /// Without a file: listen here (`127.0.0.1:5000`, `[::1]:5000`, `*:5000`, `unix:/path`); may be given again
    #[arg(long, value_name = "ADDR", requires = "to", conflicts_with = "config")]
    listen: Vec<String>,

    /// Without a file: a backend (`10.0.0.11:5432`, `db1:5432`, `unix:/path`); once for each
    #[arg(long, value_name = "ADDR", requires = "listen")]
    to: Vec<String>,

    /// Without a file: who gets the next connection (least_connections, round_robin, random, hash, least_time, first)
    #[arg(long, value_name = "ALGORITHM", requires = "listen")]
    balance: Option<String>,

    /// Without a file: forward UDP datagrams instead of TCP connections
    #[arg(long, requires = "listen")]
    udp: bool,

    /// Print the file that this stands for, as this host reads it and without defaults, and end
    #[arg(long)]
    print_config: bool,

    /// Admin socket, instead of the file's `admin.socket`; `off` for none
    #[arg(long, value_name = "PATH", value_parser = file::socket_path())]
    socket: Option<PathBuf>,

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
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, report) = if arguments.listen.is_empty() {
        arguments.file.load()?
    } else {
        let text = config::of_flags(
            &arguments.listen,
            &arguments.to,
            arguments.balance.as_deref(),
            arguments.udp,
        );
        let loaded = config::parse(&text, "command line", &arguments.file.host());
        loaded.into_result().map_err(file::invalid)?
    };
    if arguments.print_config {
        super::print(&config.to_yaml())?;
        return Ok(Outcome::Success);
    }
    let socket = match &arguments.socket {
        Some(path) if path.as_os_str() == "off" => None,
        Some(path) => Some(Socket::at(path.clone())),
        None => config.admin.socket.clone(),
    };
    let state_file = state_file(&config.admin.state_file);
    // Before any thread is started: a thread keeps the rights that it began with.
    let places = Places::of(
        &config,
        arguments
            .listen
            .is_empty()
            .then_some(&*arguments.file.config),
        socket.as_ref().map(|socket| &*socket.path),
        state_file.as_deref(),
    );
    let dropped = privileges::drop_to(&config, &places)?;
    let mut lines = log::start(&config.log);
    let access = log::start_access(&config.log);
    if let Some(dropped) = &dropped {
        tracing::info!("{dropped}");
    }
    file::log_warnings(&report);
    let config_text = config.to_yaml();
    let source = arguments
        .listen
        .is_empty()
        .then(|| source(&arguments.file, &config, dropped.clone()));
    let Config {
        global,
        snapshot,
        admin,
        hash,
        ..
    } = config;
    let options = Options {
        file: source,
        admin: Settings {
            socket,
            http: admin.http,
            metrics: admin.metrics,
        },
        config_hash: hash,
        config_text,
        state_file,
        level: lines.level.take(),
        access: access.as_ref().and_then(Writer::sink),
        dropped,
        tier: arguments.receive_tier.map(|tier| match tier {
            Tier::Limited => ReceiveTier::Limited,
            Tier::Single => ReceiveTier::Single,
        }),
        freeze_every: arguments.freeze_every,
        embedded: None,
    };
    control::run(&global, snapshot, options)?;
    Ok(Outcome::Success)
}

/// The file, wherever its path leads by then.
fn source(file: &FileArguments, config: &Config, dropped: Option<Dropped>) -> Source {
    let file = file.clone();
    Source::new(config, move || {
        let loaded = config::load(&file.config, &file.host());
        match loaded.into_result() {
            Ok((config, report)) => {
                file::log_warnings(&report);
                Ok(config)
            }
            Err(report) => {
                let dropped = dropped.as_ref().filter(|_| is_closed(&file.config));
                Err(file::explained(&report) + &dropped.map_or_else(String::new, out_of_reach))
            }
        }
    })
}

fn is_closed(file: &Path) -> bool {
    let opened = File::open(file);
    opened.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Why a file cannot be read that could be at the start.
fn out_of_reach(dropped: &Dropped) -> String {
    format!(
        "\nit became user {} when it started, which has to be able to read the file; and where files are out of reach \
         since then, the file has to be in the folder where it was: a restart reads it wherever it is",
        dropped.user
    )
}

/// The service manager gives a folder, or several with colons between them.
fn state_file(configured: &StateFile) -> Option<PathBuf> {
    match configured {
        StateFile::Off => None,
        StateFile::At(path) => Some(path.clone()),
        StateFile::Auto => {
            let folders = std::env::var_os("STATE_DIRECTORY")?;
            let first = std::env::split_paths(&folders).next()?;
            first.is_absolute().then(|| first.join("state.json"))
        }
    }
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix("ms").unwrap_or(text);
    digits
        .parse()
        .map(Duration::from_millis)
        .map_err(|_| "write milliseconds, as in 50ms".to_owned())
}
