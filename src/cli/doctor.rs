//! `ringway doctor`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Outcome;
use super::file::{self, DEFAULT_FILE};
use crate::config;
use crate::doctor::{self, Area, Facts, Finding, Level, Look, Report, Wanted};
use crate::sys::host;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway doctor                 this host, and the default file if there is one
  ringway doctor -c lab.yaml     what another file asks for
  ringway doctor --verbose       why each check matters, also where all is fine
  ringway doctor --json | jq '.findings[] | select(.level == \"fail\")'

It changes nothing. Limits and privileges are those of this process; run it with
those of the service to learn about the service. Exit codes: 0 nothing keeps
Ringway from running, 69 something does.";

/// When nothing says how wide the terminal is.
const WIDTH_DEFAULT: usize = 80;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration file; /etc/ringway/ringway.yaml if it exists
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Take the values for this host, where the file gives one for each [default: this host's name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Text, conflicts_with = "json")]
    format: Format,

    /// The same as `--format json`
    #[arg(long)]
    json: bool,

    /// Say why each check matters, also where all is fine
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Looks at the host and prints what it found.
pub(super) fn doctor(arguments: &Arguments) -> Outcome {
    let report = examine(arguments.config.as_deref(), arguments.node.as_deref());
    let text = if arguments.json || arguments.format == Format::Json {
        report.json()
    } else {
        report.text(look(arguments.verbose))
    };
    // A reader that went away wants no more.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if report.has_failures() {
        Outcome::Host
    } else {
        Outcome::Success
    }
}

fn examine(file: Option<&Path>, node: Option<&str>) -> Report {
    let default = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| default.try_exists().unwrap_or(true).then_some(default));
    let mut findings = Vec::new();
    let mut notes = Vec::new();
    let node = node.map_or_else(|| host::name().unwrap_or_default(), str::to_owned);
    let wanted = match file.map(|file| (file, config::load(file, &node).into_result())) {
        Some((file, Ok((config, report)))) => {
            findings.push(loads(file, &report));
            Some(Wanted::from(&config))
        }
        Some((file, Err(report))) => {
            findings.push(is_wrong(file, &report));
            notes.push("The file was not understood, so only the host was looked at.".to_owned());
            None
        }
        None => {
            notes.push(format!(
                "There is no {DEFAULT_FILE}, so only the host was looked at; -c FILE takes another one."
            ));
            None
        }
    };
    let facts = Facts::gather(
        Path::new("/"),
        wanted.as_ref().unwrap_or(&Wanted::default()),
    );
    findings.extend(doctor::checks(&facts, wanted.as_ref()));
    let is_sysctl = |line: &String| line.starts_with("sysctl -w");
    if findings
        .iter()
        .flat_map(|finding| &finding.mend)
        .any(is_sysctl)
    {
        notes.push(
            "sysctl -w lasts until the next boot: write the same NAME=VALUE into /etc/sysctl.d/60-ringway.conf, too."
                .to_owned(),
        );
    }
    let host = facts.host.as_deref().unwrap_or("this host");
    Report {
        subject: vec![format!(
            "Ringway {} on {host}, as user {}",
            env!("CARGO_PKG_VERSION"),
            facts.user
        )],
        findings,
        notes,
    }
}

const WHY_FILE: &str = "Ringway does not start without a file that it understands.";

fn loads(file: &Path, report: &config::Report) -> Finding {
    let (level, finding, mend) = match report.counts() {
        (_, 0) => (Level::Ok, format!("{}: no mistakes", file.display()), None),
        _ => (Level::Warn, file::summary(report), Some(look_closer(file))),
    };
    Finding {
        area: Area::File,
        check: "file",
        level,
        finding,
        why: WHY_FILE.to_owned(),
        mend: mend.into_iter().collect(),
    }
}

fn is_wrong(file: &Path, report: &config::Report) -> Finding {
    Finding {
        area: Area::File,
        check: "file",
        level: Level::Fail,
        finding: file::summary(report),
        why: WHY_FILE.to_owned(),
        mend: vec![look_closer(file)],
    }
}

fn look_closer(file: &Path) -> String {
    format!("ringway check -c {}", file.display())
}

/// `COLUMNS` wins over the terminal, as elsewhere.
fn look(verbose: bool) -> Look {
    let columns = std::env::var("COLUMNS").ok();
    let columns = columns
        .and_then(|columns| columns.parse().ok())
        .filter(|columns| *columns > 0);
    let terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    Look {
        width: columns.or_else(terminal).unwrap_or(WIDTH_DEFAULT),
        colours: file::has_colours(&io::stdout()),
        verbose,
    }
}
