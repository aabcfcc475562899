//! Large objects and many clients over HTTP on the real daemon: memory, time to the first byte,
//! processor time, rate beside fio, slow clients. Prints what was measured beside the marks.
//!
//! `cargo bench --bench objects -- [--quick] [--device PATH] [--directory PATH]`
#![allow(clippy::cast_precision_loss, reason = "counts of a benchmark are below 2^53")]

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;
mod bare;
mod client;
mod hits;
mod large;
mod pattern;
#[path = "../measure/server.rs"]
mod server;
mod slow;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use rawcached::cli::bench::load::{Address, Load, Values, Wire};

use server::{Server, Setup};
use table::Table;

/// Puts large objects and many clients on the daemon and prints what it takes.
#[derive(Debug, Parser)]
struct Arguments {
    /// 1 GiB instead of 10, for a first look
    #[arg(long)]
    quick: bool,
    /// Block device to use instead of an image file; what is on it is lost
    #[arg(long)]
    device: Option<PathBuf>,
    /// Directory for the image file, which takes up to 12 GiB, and for sockets
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What all parts share.
struct Bench {
    directory: PathBuf,
    device: PathBuf,
    is_image: bool,
    /// Length of the large object.
    large_mebibytes: u64,
    table: Table,
}

impl Bench {
    /// Makes the device empty. An image file is made anew, so that it takes no space.
    fn format(&self) -> anyhow::Result<()> {
        if !self.is_image {
            return server::format(&self.device, None);
        }
        if self.device.exists() {
            std::fs::remove_file(&self.device)?;
        }
        // An object may have half of the device.
        let gibibytes = 2 * self.large_mebibytes / 1024 + 4;
        server::format(&self.device, Some(&format!("{gibibytes}GiB")))
    }

    fn setup<'a>(&'a self, ram: &'a str) -> Setup<'a> {
        Setup { device: &self.device, ram, directory: &self.directory }
    }

    fn serve(&self, ram: &str) -> anyhow::Result<Server> {
        Server::anywhere(&self.setup(ram))
    }
}

/// A load over HTTP of so many connections on as many objects of one length, on one thread or on
/// one for each connection.
fn load(http: &Path, (connections, threads): (usize, usize), values: &Arc<Values>) -> Load {
    Load {
        address: Address::Unix(http.to_owned()),
        wire: Wire::http(&format!("load/{}/", values.len(0))),
        values: Arc::clone(values),
        connections,
        threads,
        depth: 1,
        fill_on_miss: false,
        verify: true,
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let directory = tempfile::TempDir::with_prefix_in("objects-", &arguments.directory)?;
    let image = |directory: &Path| directory.join("objects.img");
    let mut bench = Bench {
        directory: directory.path().to_owned(),
        is_image: arguments.device.is_none(),
        device: arguments.device.unwrap_or_else(|| image(directory.path())),
        large_mebibytes: if arguments.quick { 1024 } else { 10 * 1024 },
        table: Table::default(),
    };
    // First, while this process has not used memory otherwise.
    large::library(&mut bench)?;
    large::http(&mut bench)?;
    slow::run(&mut bench)?;
    // It keeps this thread on one processor from here on.
    hits::run(&mut bench)?;
    bench.table.print();
    Ok(())
}
