//! What the commands that take a configuration share: naming the file, reading it for a host, showing what is wrong.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::config::{self, Config, Report, Severity};
use crate::sys::host;

/// Where the configuration is unless told otherwise.
pub(super) const DEFAULT_FILE: &str = "/etc/ringway/ringway.yaml";

/// Columns to assume where there is no terminal.
const WIDTH: usize = 140;

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

/// The failure that shows everything that is wrong.
pub(super) fn invalid(report: Box<Report>) -> Failure {
    Failure::Config(format!(
        "{}{}",
        shown(&report, std::io::stderr()),
        summary(&report)
    ))
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

/// Columns of this output.
pub(super) fn width(output: &impl IsTerminal) -> usize {
    let size = terminal_size::terminal_size().filter(|_| output.is_terminal());
    size.map_or(WIDTH, |(width, _)| usize::from(width.0))
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
