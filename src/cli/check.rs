//! `ringway check`.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::file::{self, FileArguments};
use super::{Failure, Outcome};
use crate::config::{self, Loaded};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway check                                  the file /etc/ringway/ringway.yaml
  ringway check -c lab.yaml
  ringway check -c pair.yaml --node lb2          as the host lb2 would read it
  ringway check -c lab.yaml --format json        for editors and scripts

Exit codes: 0 the file can be used (there may be warnings), 78 it cannot.";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArguments,

    /// How to say it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// The same as --format json
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Reads the file for this host; if it has values for other hosts only, for each of those.
pub(super) fn check(arguments: &Arguments) -> Result<Outcome, Failure> {
    let host = arguments.file.host();
    let own = host.clone();
    let first = config::load(&arguments.file.config, &host);
    let readings = if first.host_missing && arguments.file.node.is_none() {
        let of = |host: &String| (host.clone(), config::load(&arguments.file.config, host));
        first.hosts.iter().map(of).collect()
    } else {
        vec![(host, first)]
    };
    if arguments.json || arguments.format == Format::Json {
        print_json(&readings);
    } else {
        print_text(&readings, &own);
    }
    let good = readings.iter().all(|(_, loaded)| loaded.config.is_some());
    Ok(if good {
        Outcome::Success
    } else {
        Outcome::Config
    })
}

fn print_text(readings: &[(String, Loaded)], own: &str) {
    let mut out = std::io::stdout().lock();
    let mut said = Vec::new();
    for (host, loaded) in readings {
        let mut text = file::shown(&loaded.report, std::io::stdout());
        let name = &loaded.report.name;
        match &loaded.config {
            Some(config) => {
                if !loaded.report.problems.is_empty() {
                    text.push_str(&file::summary(&loaded.report));
                    text.push('\n');
                }
                let snapshot = &config.snapshot;
                let count = |number: usize, what: &str| {
                    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
                };
                text.push_str(&format!(
                    "{name}: can be used: {}, {}, {}\n",
                    count(snapshot.listeners.len(), "listener"),
                    count(snapshot.pools.len(), "pool"),
                    count(snapshot.backends.len(), "backend"),
                ));
            }
            None => {
                text.push_str(&file::summary(&loaded.report));
                text.push('\n');
            }
        }
        // What is wrong on every host is said once.
        if said.contains(&text) {
            continue;
        }
        if readings.len() > 1 || host != own {
            let _ = writeln!(out, "host {host}:");
        }
        let _ = out.write_all(text.as_bytes());
        said.push(text);
    }
}

fn print_json(readings: &[(String, Loaded)]) {
    let each = readings.iter().map(|(host, loaded)| {
        let (errors, warnings) = loaded.report.counts();
        json!({
            "file": loaded.report.name,
            "host": host,
            "ok": loaded.config.is_some(),
            "errors": errors,
            "warnings": warnings,
            "problems": loaded.report.to_json(),
        })
    });
    let value = match readings.len() {
        1 => each.into_iter().next().unwrap_or_default(),
        _ => each.collect(),
    };
    super::print_json(&value);
}
