//! What people read about virtual routers.

use serde_json::{Value, json};

use crate::vrrp::machine::{Cause, HandOver, Readiness, Role, Transition, Wait};

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Initialize => "initialize",
        Role::Backup => "backup",
        Role::Active => "active",
    }
}

pub(super) fn log_transition(name: &str, transition: &Transition, priority: u8) {
    let (from, to) = (role(transition.from), role(transition.to));
    let why = cause(&transition.cause);
    let is_fault = transition.to == Role::Initialize && transition.cause != Cause::Stopped;
    if is_fault {
        tracing::warn!(virtual_router = name, from, to, priority, %why, "virtual router changed");
    } else {
        tracing::info!(virtual_router = name, from, to, priority, %why, "virtual router changed");
    }
}

/// The same for those who watch.
pub(super) fn facts(name: &str, transition: &Transition, priority: u8) -> Value {
    json!({
        "virtual_router": name,
        "from": role(transition.from),
        "to": role(transition.to),
        "priority": priority,
        "why": cause(&transition.cause),
    })
}

pub(super) fn log_line(name: Option<&str>, is_warning: bool, text: &str) {
    match (name, is_warning) {
        (Some(name), true) => tracing::warn!(virtual_router = name, "{text}"),
        (Some(name), false) => tracing::info!(virtual_router = name, "{text}"),
        (None, true) => tracing::warn!("vrrp: {text}"),
        (None, false) => tracing::info!("vrrp: {text}"),
    }
}

pub(super) fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Started => "the interface can be used".to_owned(),
        Cause::Owner => "it owns the addresses".to_owned(),
        Cause::NothingHeard => "no other router is heard".to_owned(),
        Cause::ActiveLeft(from) => format!("{from} leaves"),
        Cause::ActiveIsIll { from, priority } => {
            format!("{from} is not well (priority {priority})")
        }
        Cause::Preempted { from, priority } => {
            format!("{from} has a lower priority ({priority}), and preempt is on")
        }
        Cause::HigherPriority { from, priority } => {
            format!("{from} is active with priority {priority}")
        }
        Cause::GaveWay { to, why } => format!("{to} serves better: {why}"),
        Cause::HandedOver(to) => format!("handed over to {to}"),
        Cause::Stopped => "the process ends".to_owned(),
        Cause::LinkDown => "the interface, its carrier or its address is gone".to_owned(),
        Cause::HardFault(why) => why.to_string(),
        Cause::LoopLate(silent) => format!("nothing was sent for {silent:?}"),
    }
}

pub(super) fn wait(wait: &Wait) -> String {
    match wait {
        Wait::Link => "the interface, its carrier and its address".to_owned(),
        Wait::HardFault(why) => format!("the end of a fault: {why}"),
        Wait::Probes => "the first round of probes".to_owned(),
        Wait::Stopped => "nothing any more: it has stopped".to_owned(),
    }
}

pub(super) fn fault(readiness: &Readiness) -> Option<String> {
    match readiness {
        Readiness::Well => None,
        Readiness::SoftFault(why) | Readiness::HardFault(why) => Some(why.to_string()),
    }
}

/// The word of the API, and whether another machine has the addresses now.
pub(super) fn hand_over(outcome: HandOver) -> (&'static str, Option<String>) {
    match outcome {
        HandOver::To(other) => ("handed_over", Some(other.to_string())),
        HandOver::NobodyTookOver => ("nobody_took_over", None),
        HandOver::NotActive => ("not_active", None),
        HandOver::Interrupted => ("interrupted", None),
    }
}
