//! Load on the real daemon over its socket: operations per second, CPU time per operation,
//! latencies, write amplification. Every byte read is verified; nothing is asserted of time.
//! Starts and pins the servers; the load itself is that of `rawcached bench load`.
//!
//! `cargo bench --bench load -- [small|cdn|disk|write]... [--quick] [--device PATH] [--seconds N]`

mod report;
#[path = "../measure/server.rs"]
mod server;
mod workloads;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Parser, ValueEnum};

use report::Report;
use server::Cores;
use workloads::{Bench, free_bytes};

/// Free space that image files may need.
const SPACE_NEEDED: u64 = 12 << 30;

/// Puts load on the daemon and prints what it takes.
#[derive(Debug, Parser)]
struct Arguments {
    /// Workloads; all if none is named
    workloads: Vec<Workload>,
    /// Smaller data sets, for a first look
    #[arg(long)]
    quick: bool,
    /// Block device to use instead of image files; what is on it is lost
    #[arg(long)]
    device: Option<PathBuf>,
    /// Directory for image files and sockets
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Length of a measured phase
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measured phases, of which the median is printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    repeats: u8,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Small values in the RAM tier, beside memcached
    Small,
    /// Log-normal sizes, Zipf popularity, most reads from disk
    Cdn,
    /// Small values on disk
    Disk,
    /// Write amplification on a full device
    Write,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.device.is_none() {
        let free = free_bytes(&arguments.directory)?;
        ensure!(free > SPACE_NEEDED, "{} has not enough space", arguments.directory.display());
    }
    let directory = tempfile::TempDir::with_prefix_in("load-", &arguments.directory)?;
    let cores = Cores::choose()?;
    if !cores.apart {
        eprintln!("only one processor: client and server share it");
    }
    let mut bench = Bench {
        cores,
        directory: directory.path().to_owned(),
        device: arguments.device,
        phase: Duration::from_secs(arguments.seconds),
        repeats: usize::from(arguments.repeats),
        quick: arguments.quick,
        report: Report::default(),
    };
    let all = [Workload::Small, Workload::Cdn, Workload::Disk, Workload::Write];
    for workload in all {
        if !arguments.workloads.is_empty() && !arguments.workloads.contains(&workload) {
            continue;
        }
        match workload {
            Workload::Small => bench.small()?,
            Workload::Cdn => bench.cdn()?,
            Workload::Disk => bench.disk_small()?,
            Workload::Write => bench.write()?,
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&bench.report)?);
    } else {
        bench.report.print();
    }
    Ok(())
}
