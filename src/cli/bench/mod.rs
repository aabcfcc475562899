//! `rawcached bench`: measures devices and running servers from outside. Owns the names of what
//! can be measured; never touches the insides of a server.

mod device;
pub mod draws;
pub mod latencies;
pub mod load;
pub mod process;
mod progress;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure a device or an image file that no daemon is using; reads only, unless told
    Device(device::DeviceArgs),
    /// Put load on a running server over its socket and verify every byte
    Load(Box<load::LoadArgs>),
}

/// Measures and prints; false if a server gave wrong bytes.
pub(super) fn run(arguments: &BenchArgs) -> anyhow::Result<bool> {
    match &arguments.what {
        What::Device(arguments) => device::run(arguments).map(|()| true),
        What::Load(arguments) => load::run(arguments),
    }
}
