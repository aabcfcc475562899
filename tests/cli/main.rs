//! Goal: each command says what is wrong and does what it says. Method: run the built binary.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod commands;
mod config;
mod first_steps;
mod format_owns;
mod proxy;
mod serve;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use support::binary;

/// The binary in `directory`, without settings from the environment of the test.
fn rawcached(directory: &Path) -> Command {
    let mut command = binary::rawcached();
    command.current_dir(directory).env_remove("RUST_LOG");
    command
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
