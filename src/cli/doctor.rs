//! `ringway doctor`.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::file::{self, DEFAULT_FILE};
use super::{Failure, Outcome};
use crate::config::{self, Loaded};
use crate::doctor::{self, Area, Facts, Finding, Level, Look, Report, Wanted};
use crate::privileges;
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
pub(super) fn doctor(arguments: &Arguments) -> Result<Outcome, Failure> {
    let mut report = examine(arguments.config.as_deref(), arguments.node.as_deref());
    if arguments.verbose {
        report.notes.extend(privileges::table::ALL.map(in_words));
    }
    let text = if arguments.json || arguments.format == Format::Json {
        report.json()
    } else {
        report.text(look(arguments.verbose))
    };
    super::print(&text)?;
    Ok(if report.has_failures() {
        Outcome::Host
    } else {
        Outcome::Success
    })
}

/// A row of the table of capabilities.
fn in_words(row: privileges::table::Row) -> String {
    let privileges::table::Row {
        feature,
        capability,
        without,
        ..
    } = row;
    format!("{capability} is for {feature}. Without it: {without}.")
}

fn examine(file: Option<&Path>, node: Option<&str>) -> Report {
    let default = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| default.try_exists().unwrap_or(true).then_some(default));
    let mut findings = Vec::new();
    let mut notes = Vec::new();
    let node = node.map_or_else(|| host::name().unwrap_or_default(), str::to_owned);
    let wanted = match file.map(|file| (file, config::load(file, &node))) {
        Some((
            file,
            Loaded {
                config: Some(config),
                report,
                ..
            },
        )) => {
            findings.push(loads(file, &report));
            findings.extend(config.user.as_deref().map(becomes));
            Some(Wanted::from(&config))
        }
        Some((file, loaded)) => {
            findings.push(match loaded.hosts.first() {
                Some(host) if loaded.host_missing => {
                    is_for_others(file, &node, host, &loaded.hosts)
                }
                Some(_) | None => is_wrong(file, &loaded.report),
            });
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

/// Whether there is the user that the file says to become.
fn becomes(user: &str) -> Finding {
    let (level, finding, mend) = match privileges::find(user) {
        Ok(uid) => (
            Level::Ok,
            format!("global.user: {user} is user {uid}"),
            None,
        ),
        Err(error) => {
            let make = "useradd --system --home-dir /var/lib/ringway --shell /usr/sbin/nologin";
            (
                Level::Fail,
                error.to_string(),
                Some(format!("{make} {user}")),
            )
        }
    };
    Finding {
        area: Area::File,
        check: "user",
        level,
        finding,
        why: "Ringway becomes this user before it listens; without it, it does not start."
            .to_owned(),
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

/// The file has values for each of some hosts, and this is none of them.
fn is_for_others(file: &Path, node: &str, host: &str, hosts: &[String]) -> Finding {
    let name = file.display();
    Finding {
        area: Area::File,
        check: "file",
        level: Level::Fail,
        finding: format!(
            "{name}: it has values for {}, and none for {node}",
            file::some_hosts(hosts)
        ),
        why: WHY_FILE.to_owned(),
        mend: vec![
            "# say which of them this host is; `ringway run` takes --node, too".to_owned(),
            format!("ringway doctor -c {name} --node {host}"),
        ],
    }
}

fn look_closer(file: &Path) -> String {
    format!("ringway check -c {}", file.display())
}

fn look(verbose: bool) -> Look {
    let out = io::stdout();
    Look {
        width: file::page_width(&out),
        colours: file::has_colours(&out),
        verbose,
    }
}
