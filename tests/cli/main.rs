//! Goal: each command says what is wrong and does what it says. Method: run the built binary.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod commands;
mod config;
#[path = "../daemon_support/mod.rs"]
mod daemon_support;
mod format_owns;
#[path = "../memcached_support/mod.rs"]
mod memcached_support;
#[path = "../support/mod.rs"]
mod support;
#[path = "../test_log/mod.rs"]
mod test_log;
