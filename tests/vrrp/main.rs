//! Virtual addresses on real links: nodes in network namespaces of their own on one bridge, with the real binary and
//! with keepalived, and what an onlooker on that link sees of them.
//!
//! Needs root and the programs `ip` and `keepalived`; where they are missing the tests print `SKIPPED: ...`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and nobody links to it"
)]

#[path = "../process/harness.rs"]
#[macro_use]
mod harness;
#[path = "../process/servers/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;

mod lan;
mod node;
mod onlooker;

mod vrrp_addresses;
mod vrrp_alarms;
mod vrrp_backlog;
mod vrrp_bad_input;
mod vrrp_databases;
mod vrrp_disturbed;
mod vrrp_figures;
mod vrrp_forms;
mod vrrp_metrics;
mod vrrp_mixed_pair;
mod vrrp_moves;
mod vrrp_owner;
mod vrrp_pair;
mod vrrp_privileges;
mod vrrp_readiness;
mod vrrp_reload;
mod vrrp_sessions;
mod vrrp_unit;
mod vrrp_virtual_mac;
mod vrrp_with_keepalived;
