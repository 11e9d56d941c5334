//! Real servers behind Ringway, under the load generators that come with them. Each test starts its own servers on
//! loopback in a temporary folder and ends them by pid; where a program is not installed the test is skipped.

mod chaos;
mod dns;
mod failover;
mod iperf;
mod mariadb;
mod nginx;
mod postgres;
pub mod program;
mod redis;
mod sip;
mod syslog;
mod watch;

pub use program::{mortal, setting};
