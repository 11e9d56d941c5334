//! `ringway backend`.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::status::SocketArguments;
use super::{Failure, Outcome};
use crate::admin::{Addition, Change, DEADLINE_MAX, Most, client};
use crate::control::snapshot::OperatorState;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway backend pg/pg2 drain            no new sessions; those it has go on, until the pool's drain_timeout if any
  ringway backend pg/pg2 drain --deadline 30s     those that are left then end
  ringway backend pg/pg2 maintenance      the same, and it is not probed
  ringway backend pg/pg2 ready            in use again
  ringway backend pg/pg2 weight 10        0 takes no new sessions
  ringway backend pg/pg2 max-sessions 50  or none
  ringway backend add pg/pg3 10.0.0.13:5432       another backend
  ringway backend remove pg/pg3           one that was added so: no new sessions, those it has go on

It holds on this node only, and after a restart if the configuration has an `admin.state_file` and has not changed the
same key. What is to last belongs into the configuration (`state`, `weight`, `max_sessions`).";

#[derive(Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    override_usage = "ringway backend [OPTIONS] <POOL/NAME> <COMMAND>\n       \
                      ringway backend [OPTIONS] add <POOL/NAME> <ADDRESS>\n       \
                      ringway backend [OPTIONS] remove <POOL/NAME>"
)]
pub(super) struct Arguments {
    /// Pool and backend, as `ringway status` shows them
    #[arg(value_name = "POOL/NAME", value_parser = pool_and_name, required = true)]
    backend: Option<(String, String)>,

    #[command(subcommand)]
    change: What,

    #[command(flatten)]
    socket: SocketArguments,

    /// Print the backend's status as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// In use
    Ready,
    /// No new sessions; those it has go on
    Drain(Out),
    /// No new sessions, and not probed; those it has go on
    Maintenance(Out),
    /// Its part of the new sessions, relative to the others
    Weight {
        /// 0 to 256; 0 takes no new sessions
        #[arg(value_parser = weight, allow_negative_numbers = true)]
        weight: u16,
    },
    /// Most sessions on it
    MaxSessions {
        /// A number, or `none`
        most: Most,
    },
    /// Another backend, named after this word
    Add(New),
    /// One that was added goes; its sessions go on, for as long as the pool's `drain_timeout`
    Remove {
        /// Pool and backend
        #[arg(value_name = "POOL/NAME", value_parser = pool_and_name)]
        added: (String, String),
    },
}

#[derive(Clone, Debug, Args)]
struct New {
    /// Pool, and what the backend is to be called
    #[arg(value_name = "POOL/NAME", value_parser = pool_and_name)]
    added: (String, String),

    /// As in the file: `10.0.0.13:5432`, `db3:5432` or `unix:/path`
    #[arg(value_name = "ADDRESS")]
    address: String,

    /// Its part of the new sessions, relative to the others: 0 to 256 [default: 1]
    #[arg(long, value_parser = weight)]
    weight: Option<u16>,

    /// Only for when no other backend is usable
    #[arg(long)]
    backup: bool,

    /// Most sessions on it: a number, or `none`
    #[arg(long, value_name = "MOST")]
    max_sessions: Option<Most>,
}

#[derive(Clone, Copy, Debug, Args)]
struct Out {
    /// End the sessions that are left after so long, as in 30s or 1h
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    deadline: Option<u32>,
}

fn whole_seconds(text: &str) -> Result<u32, String> {
    let period = humantime::parse_duration(text).map_err(|_| "write 30s, 10m or 1h".to_owned())?;
    let seconds = u32::try_from(period.as_secs()).ok();
    seconds
        .filter(|seconds| period.subsec_nanos() == 0 && *seconds <= DEADLINE_MAX)
        .ok_or_else(|| "write whole seconds, up to a year".to_owned())
}

fn weight(text: &str) -> Result<u16, String> {
    let weight = text.parse().ok().filter(|weight| *weight <= 256);
    weight.ok_or_else(|| "write a whole number from 0 to 256".to_owned())
}

/// The pool's name has no slash, the backend's may (`unix:/path`).
fn pool_and_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((pool, name)) if !pool.is_empty() && !name.is_empty() => {
            Ok((pool.to_owned(), name.to_owned()))
        }
        _ => Err("write POOL/NAME, as in pg/pg2".to_owned()),
    }
}

/// Changes it and says how it is then.
pub(super) fn backend(arguments: &Arguments) -> Result<Outcome, Failure> {
    let socket = &arguments.socket.socket;
    let change = match &arguments.change {
        What::Add(new) => {
            let (pool, name) = &new.added;
            let addition = Addition {
                address: new.address.clone(),
                weight: new.weight,
                backup: new.backup,
                max_sessions: new.max_sessions,
            };
            let now = client::add(socket, pool, name, &addition).map_err(Failure::from)?;
            return show(pool, name, &now, arguments.json);
        }
        What::Remove {
            added: (pool, name),
        } => {
            let gone = client::remove(socket, pool, name).map_err(Failure::from)?;
            return show_removed(pool, name, &gone, arguments.json);
        }
        What::Ready => state(OperatorState::Ready, None),
        What::Drain(Out { deadline }) => state(OperatorState::Drain, *deadline),
        What::Maintenance(Out { deadline }) => state(OperatorState::Maintenance, *deadline),
        What::Weight { weight } => Change {
            weight: Some(*weight),
            ..Change::default()
        },
        What::MaxSessions { most } => Change {
            max_sessions: Some(*most),
            ..Change::default()
        },
    };
    let Some((pool, name)) = &arguments.backend else {
        let why =
            "which backend? `ringway backend POOL/NAME drain`, as `ringway status` shows them";
        return Err(Failure::Usage(why.to_owned()));
    };
    let now = client::operate(socket, pool, name, &change).map_err(Failure::from)?;
    show(pool, name, &now, arguments.json)
}

fn show(pool: &str, name: &str, now: &Value, as_json: bool) -> Result<Outcome, Failure> {
    if as_json {
        super::print_json(now)?;
        return Ok(Outcome::Success);
    }
    let word = |key: &str| now[key].as_str().unwrap_or_default().to_owned();
    let why_not = now["why_not"].as_str();
    super::print(&format!(
        "{pool}/{name}: {}, weight {}, {}{} (on this node only)\n",
        word("state"),
        now["weight"],
        counted(&now["sessions_active"]),
        why_not.map_or_else(String::new, |why| format!("; no new ones: {why}")),
    ))?;
    Ok(Outcome::Success)
}

fn counted(sessions: &Value) -> String {
    match sessions.as_u64() {
        Some(1) => "1 session".to_owned(),
        Some(_) | None => format!("{sessions} sessions"),
    }
}

fn show_removed(pool: &str, name: &str, gone: &Value, as_json: bool) -> Result<Outcome, Failure> {
    if as_json {
        super::print_json(gone)?;
    } else {
        let sessions = counted(&gone["sessions"]);
        super::print(&format!(
            "{pool}/{name}: removed, with {sessions} (on this node only)\n"
        ))?;
    }
    Ok(Outcome::Success)
}

fn state(state: OperatorState, deadline_seconds: Option<u32>) -> Change {
    Change {
        state: Some(state),
        deadline_seconds,
        ..Change::default()
    }
}
