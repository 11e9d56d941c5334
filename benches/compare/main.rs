//! Side-by-side benchmark: Ringway, HAProxy and nginx take turns on the same load in one run.
//!
//! `director` starts a backend, a balancer and a load generator for each turn; the latter two roles are this same
//! program, re-executed with a hidden role argument. The balancer runs on core 0, everything else on core 1. What is
//! measured and why is in `benches/README.md`. Started by `scripts/bench`; under `cargo test` it does nothing.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "figures for a table, not sizes of anything that is indexed"
)]

mod backend;
mod bulk;
mod connects;
mod datagrams;
mod director;
mod figures;
mod generator;
mod machine;
mod network;
mod peers;
mod picture;
mod process;
mod report;
mod requests;
mod rows;
mod sockets;
mod spec;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

/// Whatever went wrong, in words; nothing here recovers from anything but a failed turn.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let role = arguments.get(1).map_or("", String::as_str);
    let outcome = match role {
        process::PINNED => process::run_pinned(&arguments[2..]),
        backend::ROLE => backend::run(&arguments[2..]),
        generator::ROLE => generator::run(&arguments[2..]),
        _ if !arguments
            .iter()
            .any(|argument| argument == "--bench" || argument == "--help") =>
        {
            println!("nothing measured: use scripts/bench, or cargo bench --bench compare");
            Ok(())
        }
        _ => director::run(&director::Options::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare {role}: {error}");
            ExitCode::FAILURE
        }
    }
}
