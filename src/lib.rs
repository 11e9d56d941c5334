//! Ringway.
pub mod balance;
pub mod cli;
pub mod config;
pub mod control;
pub mod health;
pub mod ids;
pub mod metrics;
pub mod ring;
pub mod session;
pub mod sys;
pub mod time;
pub mod worker;
