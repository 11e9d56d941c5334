//! `ringway check`.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::file::{self, FileArguments};
use super::{Failure, Outcome};
use crate::config::{self, Loaded};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway check                                  the file /etc/ringway/ringway.yaml
  ringway check -c lab.yaml
  ringway check -c pair.yaml --node lb2          as the host lb2 would read it
  ringway check -c lab.yaml --format json        for editors and scripts

A file that has values for other hosts only is read for those, at most 16.

JSON is one object: file, host, ok, errors, warnings, problems. For other hosts
there is `hosts` besides, with such an object for each that was read; then ok
is whether all are, problems are those of all, each with its `host`, and `note`
says what `ringway run` would say here.

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

/// Hosts that a file is read for; each reading takes its time.
const HOSTS_MAX: usize = 16;

/// What the file is for its hosts.
struct Readings {
    /// One for this host; or, if the file has values for others only, one for each of those.
    each: Vec<(String, Loaded)>,
    /// The host that the file has no values for, and those that it has some for.
    others_only: Option<(String, Vec<String>)>,
}

impl Readings {
    fn of(file: &FileArguments) -> Readings {
        let host = file.host();
        let own = config::load(&file.config, &host);
        if !own.host_missing || file.node.is_some() {
            return Readings {
                each: vec![(host, own)],
                others_only: None,
            };
        }
        let known = own.hosts.iter().take(HOSTS_MAX);
        Readings {
            each: known
                .map(|known| (known.clone(), config::load(&file.config, known)))
                .collect(),
            others_only: Some((host, own.hosts)),
        }
    }

    fn is_good(&self) -> bool {
        self.each.iter().all(|(_, loaded)| loaded.config.is_some())
    }

    /// What `run` would say on this host, and which hosts were not read.
    fn note(&self, file: &FileArguments) -> Option<String> {
        let (host, known) = self.others_only.as_ref()?;
        let mut note = format!(
            "The file has values for {}, and none for this host, {host}: `ringway run` refuses it here without \
             `--node NAME` (ringway run -c {} --node {}).",
            file::some_hosts(known),
            file.config.display(),
            known.first().map_or("NAME", String::as_str),
        );
        if known.len() > HOSTS_MAX {
            note.push_str(&format!(
                " It was read for {HOSTS_MAX} of its {} hosts; `--node NAME` reads it for another.",
                known.len()
            ));
        }
        Some(note)
    }
}

/// Reads the file for this host; if it has values for other hosts only, for those.
pub(super) fn check(arguments: &Arguments) -> Result<Outcome, Failure> {
    let readings = Readings::of(&arguments.file);
    let note = readings.note(&arguments.file);
    if arguments.json || arguments.format == Format::Json {
        super::print_json(&to_json(&readings, note))?;
    } else {
        super::print(&to_text(&readings, note, &arguments.file.host()))?;
    }
    Ok(if readings.is_good() {
        Outcome::Success
    } else {
        Outcome::Config
    })
}

fn to_text(readings: &Readings, note: Option<String>, own: &str) -> String {
    // Hosts with the same verdict are told together.
    let mut verdicts: Vec<(String, Vec<&str>)> = Vec::new();
    for (host, loaded) in &readings.each {
        let text = verdict(loaded);
        match verdicts.iter_mut().find(|(said, _)| *said == text) {
            Some((_, hosts)) => hosts.push(host),
            None => verdicts.push((text, vec![host])),
        }
    }
    let mut all = String::new();
    for (text, hosts) in &verdicts {
        match &hosts[..] {
            [host] if *host == own => {}
            [host] => all.push_str(&format!("host {host}:\n")),
            several => all.push_str(&format!("hosts {}:\n", several.join(", "))),
        }
        all.push_str(text);
    }
    if let Some(note) = note {
        // A path stays in one piece.
        let options = textwrap::Options::new(file::page_width(&std::io::stdout()))
            .word_splitter(textwrap::WordSplitter::NoHyphenation)
            .break_words(false);
        all.push_str(&format!("\n{}\n", textwrap::fill(&note, options)));
    }
    all
}

/// What is wrong, and whether it can be used.
fn verdict(loaded: &Loaded) -> String {
    let report = &loaded.report;
    let mut text = file::shown(report, std::io::stdout());
    if loaded.config.is_none() || !report.problems.is_empty() {
        text.push_str(&file::summary(report));
        text.push('\n');
    }
    if let Some(config) = &loaded.config {
        let snapshot = &config.snapshot;
        let count = |number: usize, what: &str| {
            format!("{number} {what}{}", if number == 1 { "" } else { "s" })
        };
        text.push_str(&format!(
            "{}: can be used: {}, {}, {}\n",
            report.name,
            count(snapshot.listeners.len(), "listener"),
            count(snapshot.pools.len(), "pool"),
            count(snapshot.backends.len(), "backend"),
        ));
    }
    text
}

/// One object: for several hosts, with all of their problems, and the reading for each under `hosts`.
fn to_json(readings: &Readings, note: Option<String>) -> Value {
    let mut each: Vec<Value> = readings
        .each
        .iter()
        .map(|(host, loaded)| reading(host, loaded))
        .collect();
    let Some((own, known)) = &readings.others_only else {
        return each.pop().unwrap_or_default();
    };
    let sum = |key: &str| each.iter().filter_map(|one| one[key].as_u64()).sum::<u64>();
    let problems: Vec<Value> = each
        .iter()
        .flat_map(|one| {
            let of_one = one["problems"].as_array().into_iter().flatten();
            of_one.map(|problem| {
                let mut problem = problem.clone();
                problem["host"] = one["host"].clone();
                problem
            })
        })
        .collect();
    json!({
        "file": each.first().map(|one| one["file"].clone()),
        "host": own,
        "ok": readings.is_good(),
        "errors": sum("errors"),
        "warnings": sum("warnings"),
        "problems": problems,
        "note": note,
        "hosts_known": known.len(),
        "hosts": each,
    })
}

fn reading(host: &str, loaded: &Loaded) -> Value {
    let (errors, warnings) = loaded.report.counts();
    json!({
        "file": loaded.report.name,
        "host": host,
        "ok": loaded.config.is_some(),
        "errors": errors,
        "warnings": warnings,
        "problems": loaded.report.to_json(),
    })
}
