//! The real process under real traffic: every test starts the `ringway` binary, connects real sockets through it and
//! looks at what the other side, the counters and `/proc` say afterwards.
//!
//! Most tests run twice, once for each way of receiving ([`harness::Tier`]). Tests that need a network namespace print
//! `SKIPPED: ...` where none can be made; with `RINGWAY_TESTS_REQUIRE_ALL=1` that is a failure.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and nobody links to it"
)]

#[macro_use]
mod harness;

mod access;
mod addresses;
mod admin;
mod api;
mod balance;
mod commands;
mod connect;
mod dashboard;
mod doctor;
mod drain;
mod empty;
mod endings;
mod failures;
mod flow_control;
mod integrity;
mod limits;
mod metrics;
mod moving_on;
mod operator;
mod ports;
mod privileges;
mod probes;
mod reload;
mod reload_asked;
mod scale;
mod servers;
mod service;
mod start;
mod stop;
mod storm;
mod timeouts;
mod top;
mod udp;
mod udp_balance;
mod udp_flood;
mod udp_paths;
mod udp_ports;
mod udp_replies;
mod urgent;
mod workers;
