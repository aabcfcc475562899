//! Goal: each command says what is wrong and does what it says. Method: run the built binary.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod commands;
mod config;
mod format_owns;
#[path = "../support/mod.rs"]
mod support;
