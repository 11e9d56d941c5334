//! `ringway failover`.

use clap::Args;
use serde_json::Value;

use super::status::SocketArguments;
use super::{Failure, Outcome};
use crate::admin::{Move, MoveRequest, client};

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway failover             hand all virtual addresses over to the other node
  ringway failover vip         those of one virtual router, and of its group
  ringway failover --hold      and do not take them back while another node serves, before a maintenance of this one
  ringway failover --release   they may come back

It waits for another node for three advertisement intervals and a bit. Nobody takes
over: this node serves on, and the exit code is 1.";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A virtual router, as `ringway status` shows it; all of them unless given
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Also where this node has no address to hand over: it does not take over while another node serves
    #[arg(long, conflicts_with = "release")]
    hold: bool,

    /// The node may take over again
    #[arg(long)]
    release: bool,

    #[command(flatten)]
    socket: SocketArguments,

    /// Print what became of each virtual router as JSON
    #[arg(long)]
    json: bool,
}

/// Asks, waits and says what became of it.
pub(super) fn failover(arguments: &Arguments) -> Result<Outcome, Failure> {
    let action = match (arguments.hold, arguments.release) {
        (true, _) => Move::Hold,
        (false, true) => Move::Release,
        (false, false) => Move::Failover,
    };
    let request = MoveRequest {
        name: arguments.name.clone(),
        action,
    };
    let answer = client::failover(&arguments.socket.socket, &request).map_err(Failure::from)?;
    if arguments.json {
        super::print_json(&answer)?;
    } else {
        let lines = answer.as_array().into_iter().flatten();
        let lines: String = lines.map(|one| line(one, action)).collect();
        super::print(&lines)?;
    }
    let outcomes = answer.as_array().into_iter().flatten();
    let outcomes: Vec<&str> = outcomes.filter_map(|one| one["outcome"].as_str()).collect();
    let has_failed = outcomes
        .iter()
        .any(|word| matches!(*word, "nobody_took_over" | "interrupted" | "under_way"));
    let did_nothing = action == Move::Failover && outcomes.iter().all(|word| *word == "not_active");
    if has_failed {
        return Err(Failure::Running(
            "not everything was handed over".to_owned(),
        ));
    }
    if did_nothing {
        return Err(Failure::Running("this node is not active".to_owned()));
    }
    Ok(Outcome::Success)
}

fn line(one: &Value, action: Move) -> String {
    let name = one["name"].as_str().unwrap_or_default();
    let said = match (one["outcome"].as_str().unwrap_or_default(), action) {
        ("handed_over", _) => match one["to"].as_str() {
            Some(to) => format!("handed over to {to}"),
            None => "handed over".to_owned(),
        },
        ("nobody_took_over", _) => "nobody took over; serving on".to_owned(),
        ("not_active", Move::Hold) => "was not active here; held back".to_owned(),
        ("not_active", _) => "not active here: nothing to hand over".to_owned(),
        ("interrupted", _) => "interrupted by a fault or a stop".to_owned(),
        ("under_way", _) => "still under way; `ringway status` shows the end".to_owned(),
        ("released", _) => "may take over again".to_owned(),
        (other, _) => other.to_owned(),
    };
    format!("{name}: {said}\n")
}
