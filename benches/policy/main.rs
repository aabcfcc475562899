//! Miss ratios of the real cache beside those of well-known policies on the same requests and
//! bytes. The cache runs whole, on a simulated device in memory; LRU, Sieve and S3-FIFO are those of
//! an independent simulator. Nothing depends on the speed of the machine.
//!
//! `cargo bench --bench policy -- [WORKLOAD...] [--trace FILE] [--python PATH] [--shares 1,3,10,30]`
//!
//! `--python` names an interpreter that has libcachesim; without it only the cache's own are printed.
//! A cache of n bytes has n bytes of regions, so headers, checksums, footers, padding and the regions
//! kept free come out of them; the simulator counts bodies only. The RAM tier (`--ram`) holds copies
//! of entries on the device and comes on top.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;
#[path = "../../src/cli/bench/draws.rs"]
#[allow(dead_code, reason = "its tests are not run here")]
mod draws;
mod replay;
mod table;
mod trace;
mod workloads;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use replay::{Setup, replay};
use table::Peers;
use trace::Trace;

/// Compares the cache's miss ratios with those of other policies.
#[derive(Debug, Parser)]
struct Arguments {
    /// Made-up workloads to replay; all of them if no trace is given either
    workloads: Vec<String>,
    /// File of requests to replay: lines under titles, among them `key` (or `lbn`) and `size`
    #[arg(long)]
    trace: Vec<PathBuf>,
    /// Interpreter with libcachesim, for the other policies
    #[arg(long)]
    python: Option<PathBuf>,
    /// Sizes of the cache in per cent of the workload's footprint
    #[arg(long, value_delimiter = ',', default_value = "1,3,10,30")]
    shares: Vec<f64>,
    /// Regions of a cache at least, as far as they can be that small
    #[arg(long, default_value_t = 256)]
    regions: u64,
    /// Size of the RAM tier in per cent of the cache
    #[arg(long, default_value_t = 0.0)]
    ram: f64,
    /// Requests of each made-up workload
    #[arg(long, default_value_t = 300_000)]
    requests: u32,
    /// Writes the made-up workloads to this directory too
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut names = arguments.workloads.clone();
    if names.is_empty() && arguments.trace.is_empty() {
        names = workloads::names().map(str::to_owned).collect();
    }
    for path in &arguments.trace {
        compare(&Trace::read(path)?, &arguments)?;
    }
    for name in names {
        let trace = workloads::make(&name, arguments.requests)
            .with_context(|| format!("no workload is called {name}"))?;
        compare(&trace, &arguments)?;
    }
    Ok(())
}

/// Replays one trace at every size and prints what came of it.
fn compare(trace: &Trace, arguments: &Arguments) -> anyhow::Result<()> {
    let (objects, footprint) = trace.footprint();
    let bytes_of = |share: f64| share_of(footprint, share);
    let sizes: Vec<u64> = arguments.shares.iter().map(|share| bytes_of(*share)).collect();
    if let Some(directory) = &arguments.keep {
        trace.write(&directory.join(format!("{}.csv", trace.name)))?;
    }
    let peers = match &arguments.python {
        Some(python) => Peers::ask(python, trace, &sizes)?,
        None => Peers::default(),
    };
    println!(
        "\n{}: {} requests, {objects} objects, {:.2} GB",
        trace.name,
        trace.requests.len(),
        table::giga(footprint)
    );
    table::print_titles(&peers, arguments.ram > 0.0);
    for (share, bytes) in arguments.shares.iter().zip(sizes) {
        let ram_bytes = share_of(bytes, arguments.ram);
        let setup = Setup { bytes, regions: arguments.regions, ram_bytes };
        let outcome = replay(trace, setup)?;
        table::print_row((*share, bytes), &outcome, &peers);
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "a share of a size is a size")]
#[expect(clippy::cast_sign_loss, reason = "shares are not negative")]
#[expect(clippy::cast_precision_loss, reason = "sizes of workloads are below 2^53")]
fn share_of(bytes: u64, per_cent: f64) -> u64 {
    (bytes as f64 * per_cent / 100.0) as u64
}
