//! What the commands that take a configuration share: naming the file, reading it for a host, showing what is wrong.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::Failure;
use crate::config::{self, Config, Report, Severity};
use crate::sys::host;

/// Where the configuration is unless told otherwise.
pub(super) const DEFAULT_FILE: &str = "/etc/ringway/ringway.yaml";

/// Columns to assume where there is no terminal: excerpts of a file are not wrapped,
const EXCERPT_WIDTH: usize = 140;
/// text and tables are.
const PAGE_WIDTH: usize = 80;

#[derive(Clone, Debug, Args)]
pub(super) struct FileArguments {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    pub(super) config: PathBuf,

    /// Take the values for this host, where the file gives one for each [default: this host's name]
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
}

impl FileArguments {
    /// The host whose values are taken.
    pub(super) fn host(&self) -> String {
        self.node
            .clone()
            .unwrap_or_else(|| host::name().unwrap_or_default())
    }

    /// The configuration and what is worth a warning.
    pub(super) fn load(&self) -> Result<(Config, Report), Failure> {
        config::load(&self.config, &self.host())
            .into_result()
            .map_err(invalid)
    }
}

/// The path of a unix socket, with or without the `unix:` of addresses.
pub(super) fn socket_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|text| {
        let path = text.as_bytes().strip_prefix(b"unix:");
        PathBuf::from(path.map_or(&*text, OsStr::from_bytes))
    })
}

/// Names of hosts in words; a file may have thousands.
pub(super) fn some_hosts(hosts: &[String]) -> String {
    const SHOWN: usize = 8;
    match hosts.get(..SHOWN) {
        Some(first) if hosts.len() > SHOWN => {
            format!("{} and {} more", first.join(", "), hosts.len() - SHOWN)
        }
        Some(_) | None => hosts.join(", "),
    }
}

/// The failure that shows everything that is wrong.
pub(super) fn invalid(report: Box<Report>) -> Failure {
    Failure::Config(format!(
        "{}{}",
        shown(&report, std::io::stderr()),
        summary(&report)
    ))
}

/// Everything that is wrong, for somebody whose screen is not known.
pub(super) fn explained(report: &Report) -> String {
    let shown = report.render(false, EXCERPT_WIDTH);
    format!("{shown}{}", summary(report))
}

/// A report as it is shown on this output.
pub(super) fn shown(report: &Report, output: impl IsTerminal) -> String {
    report.render(has_colours(&output), width(&output))
}

/// Whether this output takes colours, as far as we can know.
pub(super) fn has_colours(output: &impl IsTerminal) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    output.is_terminal() && !unwanted && !dumb
}

/// Columns of this output, for excerpts of a file.
pub(super) fn width(output: &impl IsTerminal) -> usize {
    columns(output).unwrap_or(EXCERPT_WIDTH)
}

/// Columns of this output, for text and tables.
pub(super) fn page_width(output: &impl IsTerminal) -> usize {
    columns(output).unwrap_or(PAGE_WIDTH)
}

/// `COLUMNS` wins over the terminal.
pub(super) fn columns(output: &impl IsTerminal) -> Option<usize> {
    let wanted = std::env::var("COLUMNS").ok();
    let wanted = wanted
        .and_then(|columns| columns.parse().ok())
        .filter(|columns| *columns > 0);
    wanted.or_else(|| {
        let size = terminal_size::terminal_size().filter(|_| output.is_terminal());
        size.map(|(width, _)| usize::from(width.0))
    })
}

/// How many errors and warnings there are.
pub(super) fn summary(report: &Report) -> String {
    let (errors, warnings) = report.counts();
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    match (errors, warnings) {
        (0, warnings) => format!("{}: {}", report.name, count(warnings, "warning")),
        (errors, 0) => format!("{}: {}", report.name, count(errors, "error")),
        (errors, warnings) => format!(
            "{}: {}, {}",
            report.name,
            count(errors, "error"),
            count(warnings, "warning")
        ),
    }
}

/// Warnings as log lines, once logging has begun.
pub(super) fn log_warnings(report: &Report) {
    let warnings = report
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Warning);
    for problem in warnings {
        let at = problem.place.map_or_else(
            || report.name.clone(),
            |place| {
                let (line, column) = report.line_column(place);
                format!("{}:{line}:{column}", report.name)
            },
        );
        tracing::warn!(%at, key = %problem.key, "{}", problem.message);
    }
}
