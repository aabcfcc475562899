//! The command line. Owns the names of commands and flags, exit codes and what is printed;
//! never does the work itself.
//!
//! Exit codes: 0 done; 1 a key is missing, damage was found, or the daemon failed; 2 the command
//! or the configuration is wrong, or a command could not be carried out.

mod arguments;
pub mod bench;
mod client;
mod confirm;
mod entry;
mod exit;
mod explain;
mod http_client;
mod offline;
mod offline_commands;
mod output;
mod overrides;
mod probe;
mod progress;
mod report;
mod serve;
mod socket;

use arguments::{Cli, Command};
use exit::{EXIT_NEGATIVE, EXIT_UNUSABLE, fail};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

use output::OutputClosed;

/// The command line, for what describes it: manual pages and completions (`examples/manual.rs`).
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::device::survive_file_size_limit();
    let ended = match cli.command {
        Command::Serve(arguments) => return serve::run(arguments),
        Command::Format(arguments) => offline_commands::format(&arguments),
        Command::Probe(arguments) => probe::probe(&arguments),
        Command::Inspect(arguments) => offline_commands::inspect(&arguments),
        Command::Ls(arguments) => offline_commands::list(&arguments),
        Command::Check(arguments) => offline_commands::check(&arguments),
        Command::Stats(arguments) => entry::stats(&arguments),
        Command::Get(arguments) => entry::get(&arguments),
        Command::Put(arguments) => entry::put(&arguments),
        Command::Purge(arguments) => entry::purge(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_NEGATIVE),
        // The reader wanted no more, as in `rawcached ls | head`.
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => fail(&error, EXIT_UNUSABLE),
    }
}
