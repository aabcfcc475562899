//! `rawcached bench`: measures devices and running servers from outside. Owns the names of what
//! can be measured; never touches the insides of a server.

pub mod latencies;
pub mod load;
mod progress;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Put load on a running server over its socket and verify every byte
    Load(Box<load::LoadArgs>),
}

/// Measures and prints; false if something was wrong with what was measured.
pub(super) fn run(arguments: &BenchArgs) -> anyhow::Result<bool> {
    match &arguments.what {
        What::Load(arguments) => load::run(arguments),
    }
}
