//! The workloads: which requests are made of a server, in which order, and what is reported.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;

use rawcached::cli::bench::draws::{below, mix};
use rawcached::cli::bench::load::{
    Address, Clients, Load, Outcome, Phase, Popularity, Request, Requests, Sizes, Source, Values,
    Wire, each_once,
};

use super::report::{Report, Row, ratio};
use super::server::{Cores, Server, Setup, format};

/// Fills of a full device that the write workload makes.
const OVERWRITES: u64 = 3;
/// Longest time of one overwriting phase, in times of a measured phase.
const OVERWRITE_PHASES_MAX: u32 = 20;
const MIB: u64 = 1 << 20;

/// Where and how long to measure.
pub struct Bench {
    pub cores: Cores,
    /// For sockets and image files.
    pub directory: PathBuf,
    /// Used instead of image files.
    pub device: Option<PathBuf>,
    /// Length of one measured phase.
    pub phase: Duration,
    /// Measured phases; the one with the median CPU time per operation is reported.
    pub repeats: usize,
    /// Smaller data sets.
    pub quick: bool,
    pub report: Report,
}

/// An image file that goes when dropped, or the device given.
struct Disk {
    path: PathBuf,
    is_ours: bool,
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_ours {
            // A leftover sparse file is only in the way, and the next run replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Bench {
    fn disk(&self, size: &str) -> anyhow::Result<Disk> {
        let Some(device) = &self.device else {
            let disk = Disk { path: self.directory.join("image"), is_ours: true };
            let _ = std::fs::remove_file(&disk.path);
            format(&disk.path, Some(size))?;
            return Ok(disk);
        };
        format(device, None)?;
        Ok(Disk { path: device.clone(), is_ours: false })
    }

    fn start(&self, disk: &Disk, ram: &str) -> anyhow::Result<Server> {
        let setup = Setup { device: &disk.path, ram, directory: &self.directory };
        Server::rawcached(&self.cores, &setup)
    }

    fn measure(
        &mut self,
        (workload, server): (&str, &Server),
        load: &Mix,
        (phase, source): (&Phase, Source<'_>),
    ) -> anyhow::Result<Outcome> {
        let before = server.cpu_time()?;
        let outcome = load.run(server, phase, source)?;
        let cpu = server.cpu_time()? - before;
        self.report.add(Row::new(workload, server.name, &outcome, cpu));
        Ok(outcome)
    }

    /// Measures several phases and reports the median one.
    fn measure_phases(
        &mut self,
        (workload, server): (&str, &Server),
        load: &Mix,
        requests: &Requests,
    ) -> anyhow::Result<()> {
        let phase = Phase { duration: Some(self.phase), ..Phase::default() };
        let mut source = requests.source(0, 1);
        let mut rows = Vec::new();
        for _ in 0..self.repeats {
            let before = server.cpu_time()?;
            let outcome = load.run(server, &phase, Box::new(&mut source))?;
            let cpu = server.cpu_time()? - before;
            rows.push(Row::new(workload, server.name, &outcome, cpu));
        }
        rows.sort_by(|a, b| a.cpu_us_per_op.total_cmp(&b.cpu_us_per_op));
        let median = rows.swap_remove(rows.len() / 2);
        self.report.add(median);
        Ok(())
    }

    /// Small values that fit the RAM tier, beside memcached.
    pub fn small(&mut self) -> anyhow::Result<()> {
        for keys in [20_000, 100_000] {
            let load = Mix::new(SMALL, keys, 32);
            let disk = self.disk("4GiB")?;
            let server = self.start(&disk, "512MiB")?;
            self.small_on(&server, &load, keys)?;
            drop(server);
            if let Some(server) = Server::memcached(&self.cores, &self.directory)? {
                self.small_on(&server, &load, keys)?;
                self.compare(keys);
            }
        }
        Ok(())
    }

    fn small_on(&mut self, server: &Server, load: &Mix, keys: u32) -> anyhow::Result<()> {
        let thousands = keys / 1000;
        load.each_once(server, Request::Set)?;
        load.each_once(server, Request::Get)?;
        for (what, reads) in [("get", 1.0), ("set", 0.0)] {
            let requests = Requests::draw(&Popularity::Uniform, keys, reads);
            self.measure_phases((&format!("small {what} {thousands}k"), server), load, &requests)?;
        }
        Ok(())
    }

    fn compare(&mut self, keys: u32) {
        for what in ["get", "set"] {
            let workload = format!("small {what} {}k", keys / 1000);
            let cpu = |server| {
                let mut rows = self.report.rows.iter();
                let row = rows.find(|row| row.workload == workload && row.server == server);
                row.map_or(f64::NAN, |row| row.cpu_us_per_op)
            };
            let times = cpu("rawcached") / cpu("memcached");
            self.report.figure(&format!("{workload}: CPU/op, times memcached's"), times);
        }
    }

    /// The mix of a content delivery network: most reads come from disk.
    pub fn cdn(&mut self) -> anyhow::Result<()> {
        let keys = if self.quick { 20_000 } else { 100_000 };
        let load = Mix { fill_on_miss: true, ..Mix::new(CDN, keys, 32) };
        let disk = self.disk(if self.quick { "2GiB" } else { "8GiB" })?;
        let server = self.start(&disk, if self.quick { "80MiB" } else { "400MiB" })?;
        self.fill(("cdn fill", &server), &load)?;
        let requests = Requests::draw(&Popularity::Zipf(0.9), keys, 1.0);
        let warm_up = Phase { duration: Some(self.phase), ..Phase::default() };
        load.run(&server, &warm_up, requests.source(0, 1))?;
        self.measure_phases(("cdn read", &server), &load, &requests)?;
        self.report_index("cdn", &server)
    }

    fn fill(&mut self, subject: (&str, &Server), load: &Mix) -> anyhow::Result<()> {
        let source = each_once(load.values.keys(), 1, Request::Set).remove(0);
        self.measure(subject, load, (&Phase::default(), source)).map(drop)
    }

    /// More small values than the RAM tier holds.
    pub fn disk_small(&mut self) -> anyhow::Result<()> {
        let keys = if self.quick { 500_000 } else { 2_000_000 };
        let load = Mix::new(SMALL, keys, 64);
        let disk = self.disk("4GiB")?;
        let server = self.start(&disk, "64MiB")?;
        self.fill(("disk small fill", &server), &load)?;
        for (what, reads) in [("get", 1.0), ("set", 0.0)] {
            let requests = Requests::draw(&Popularity::Uniform, keys, reads);
            self.measure_phases((&format!("disk small {what}"), &server), &load, &requests)?;
        }
        self.report_index("disk small", &server)
    }

    /// Stores on a full device as fast as it takes them.
    pub fn write(&mut self) -> anyhow::Result<()> {
        self.overwrite("410 B", SMALL, "512MiB", 4_000_000)?;
        self.overwrite("58 KB", CDN, "4GiB", 200_000)
    }

    fn overwrite(&mut self, name: &str, sizes: Sizes, size: &str, keys: u32) -> anyhow::Result<()> {
        let keys = if self.quick { keys / 2 } else { keys };
        let load = Mix::new(sizes, keys, 32);
        let disk = self.disk(size)?;
        let server = self.start(&disk, "64MiB")?;
        let capacity = server.metric("rawcached_store_capacity_bytes")?;
        let mut stores = Overwriting::new(keys);
        let duration = Some(self.phase * OVERWRITE_PHASES_MAX);
        let phase = Phase { duration, ..Phase::default() };
        load.run(&server, &phase, Box::new(|| stores.next(&load.values, capacity)))?;
        let before = Written::read(&server)?;
        stores.bytes = 0;
        let goal = capacity * if self.quick { 1 } else { OVERWRITES };
        let source: Source<'_> = Box::new(|| stores.next(&load.values, goal));
        let workload = format!("overwrite {name}");
        self.measure((&workload, &server), &load, (&phase, source))?;
        let (after, device_mib) = (Written::read(&server)?, capacity / MIB);
        ensure!(after.body > before.body, "nothing was written");
        let amplification = ratio(after.device - before.device, after.body - before.body);
        self.report.figure(&format!("write amplification, {name} mean"), amplification);
        let turns = ratio((after.body - before.body) / MIB, device_mib);
        self.report.figure(&format!("  measured over this many times the device, {name}"), turns);
        self.report_index(name, &server)
    }

    fn report_index(&mut self, name: &str, server: &Server) -> anyhow::Result<()> {
        let bytes = server.metric("rawcached_index_bytes")?;
        let entries = server.metric("rawcached_index_entries")?;
        self.report.figure(
            &format!("index bytes per entry, {name} ({entries} entries)"),
            ratio(bytes, entries),
        );
        Ok(())
    }
}

/// Uniform sizes, 410 bytes in the mean.
const SMALL: Sizes = Sizes::Uniform(20, 800);
/// Log-normal sizes, about 58 KB in the mean.
const CDN: Sizes = Sizes::LogNormal { median: 16384.0, sigma: 1.6, min: 200, max: 8 << 20 };

/// What is stored, and by how many connections.
struct Mix {
    values: Arc<Values>,
    connections: usize,
    fill_on_miss: bool,
}

impl Mix {
    fn new(sizes: Sizes, keys: u32, connections: usize) -> Mix {
        Mix { values: Arc::new(Values::new(sizes, keys)), connections, fill_on_miss: false }
    }

    fn run(&self, server: &Server, phase: &Phase, source: Source<'_>) -> anyhow::Result<Outcome> {
        let load = Load {
            address: Address::Unix(server.socket.clone()),
            wire: Wire::memcached("key-"),
            values: Arc::clone(&self.values),
            connections: self.connections,
            threads: 1,
            depth: 1,
            fill_on_miss: self.fill_on_miss,
            verify: true,
        };
        Clients::connect(&load)?.run(phase, vec![source], &|_, _| {})
    }

    fn each_once(&self, server: &Server, request: fn(u32) -> Request) -> anyhow::Result<()> {
        let source = each_once(self.values.keys(), 1, request).remove(0);
        self.run(server, &Phase::default(), source).map(drop)
    }
}

/// Stores all over the keys, one in ten requests a `get` of a recent one so that reclaim has
/// entries worth keeping.
struct Overwriting {
    keys: u32,
    draws: u64,
    recent: Vec<u32>,
    count: usize,
    bytes: u64,
}

impl Overwriting {
    fn new(keys: u32) -> Overwriting {
        Overwriting { keys, draws: 0, recent: vec![0; 10_000], count: 0, bytes: 0 }
    }

    /// The next request, until stores of `goal` bytes were given.
    fn next(&mut self, values: &Values, goal: u64) -> Option<Request> {
        if self.bytes >= goal {
            return None;
        }
        self.count += 1;
        let slot = self.count % self.recent.len();
        if self.count.is_multiple_of(10) {
            return Some(Request::Get(self.recent[(slot + 1) % self.recent.len()]));
        }
        self.draws += 1;
        let key = below(mix(self.draws), self.keys);
        self.recent[slot] = key;
        self.bytes += values.len(key) as u64;
        Some(Request::Set(key))
    }
}

/// Bytes accepted and written so far.
struct Written {
    body: u64,
    device: u64,
}

impl Written {
    fn read(server: &Server) -> anyhow::Result<Written> {
        let device = "rawcached_device_transferred_bytes_total{direction=\"write\"}";
        Ok(Written {
            body: server.metric("rawcached_accepted_body_bytes_total")?,
            device: server.metric(device)?,
        })
    }
}

/// Free bytes of the file system that holds `directory`.
pub fn free_bytes(directory: &Path) -> anyhow::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(directory)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}
