//! `ringway completions` and `ringway man`: what shells and `man` read, made from the declarations of the commands.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, Outcome};

pub(super) const COMPLETIONS: &str = "\
Examples:
  ringway completions bash > /etc/bash_completion.d/ringway
  ringway completions zsh > /usr/local/share/zsh/site-functions/_ringway
  ringway completions fish > ~/.config/fish/completions/ringway.fish";

pub(super) const PAGES: &str = "\
Examples:
  ringway man                                   the page of the program, to be read with `man -l -`
  ringway man --folder /usr/local/share/man/man1       a page for each command";

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// For which shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Write a page for each command into this folder, which is made if it is missing
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Prints the completions.
pub(super) fn completions(arguments: &CompletionsArguments) -> Result<Outcome, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "ringway", &mut text);
    super::print(&String::from_utf8_lossy(&text))?;
    Ok(Outcome::Success)
}

/// Prints the program's page, or writes all.
pub(super) fn pages(arguments: &ManArguments) -> Result<Outcome, Failure> {
    if let Some(folder) = &arguments.folder {
        let failed = |error| Failure::Running(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
        return Ok(Outcome::Success);
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut text)
        .map_err(|error| Failure::Running(error.to_string()))?;
    super::print(&String::from_utf8_lossy(&text))?;
    Ok(Outcome::Success)
}
