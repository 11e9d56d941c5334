//! `ringway schema`.

use clap::Args;

use super::{Failure, Outcome};
use crate::config;
use crate::metrics::list;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway schema > ringway.schema.json           then, in the first line of the file:
                                                 # yaml-language-server: $schema=ringway.schema.json
  ringway schema --reference                     every key with type, default and meaning (Markdown)
  ringway schema --metrics                       every metric with kind, labels and meaning (Markdown)";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Every key on a page instead, in Markdown
    #[arg(long)]
    reference: bool,

    /// Every metric on a page instead, in Markdown
    #[arg(long, conflicts_with = "reference")]
    metrics: bool,
}

/// Prints the schema.
pub(super) fn schema(arguments: &Arguments) -> Result<Outcome, Failure> {
    if arguments.metrics {
        super::print(&list::reference())?;
    } else if arguments.reference {
        super::print(&config::reference())?;
    } else {
        super::print_json(&config::schema())?;
    }
    Ok(Outcome::Success)
}
