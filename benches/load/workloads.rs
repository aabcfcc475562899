//! The workloads: which requests are made of a server, in which order, and what is reported.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;

use super::client::{Load, Outcome, Request};
use super::draws::{Zipf, below, mix};
use super::report::{Report, Row, ratio};
use super::server::{Cores, Server, Setup, format};
use super::values::{Sizes, Values};

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
        load: &Load<'_>,
        next: impl FnMut(Duration) -> Option<Request>,
    ) -> anyhow::Result<Outcome> {
        let (row, outcome) = measured((workload, server), load, next)?;
        self.report.add(row);
        Ok(outcome)
    }

    /// Measures several phases and reports the median one.
    fn measure_phases(
        &mut self,
        subject: (&str, &Server),
        load: &Load<'_>,
        mut next: impl FnMut() -> Request,
    ) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        for _ in 0..self.repeats {
            let until = self.phase;
            let (row, _) = measured(subject, load, |now| (now < until).then(&mut next))?;
            rows.push(row);
        }
        rows.sort_by(|a, b| a.cpu_us_per_op.total_cmp(&b.cpu_us_per_op));
        let median = rows.swap_remove(rows.len() / 2);
        self.report.add(median);
        Ok(())
    }

    /// Small values that fit the RAM tier, beside memcached.
    pub fn small(&mut self) -> anyhow::Result<()> {
        let values = Values::new(Sizes::Small);
        let load = Load { values: &values, connections: 32, fill_on_miss: false };
        for keys in [20_000, 100_000] {
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

    fn small_on(&mut self, server: &Server, load: &Load<'_>, keys: u32) -> anyhow::Result<()> {
        let thousands = keys / 1000;
        each_once(load, server, keys, Request::Set)?;
        each_once(load, server, keys, Request::Get)?;
        let mut random = Random::new();
        let get = || Request::Get(random.below(keys));
        self.measure_phases((&format!("small get {thousands}k"), server), load, get)?;
        let set = || Request::Set(random.below(keys));
        self.measure_phases((&format!("small set {thousands}k"), server), load, set)
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
        let values = Values::new(Sizes::Cdn);
        let disk = self.disk(if self.quick { "2GiB" } else { "8GiB" })?;
        let server = self.start(&disk, if self.quick { "80MiB" } else { "400MiB" })?;
        let load = Load { values: &values, connections: 32, fill_on_miss: true };
        let mut order = shuffled(keys);
        self.measure(("cdn fill", &server), &load, |_| order.pop().map(Request::Set))?;
        let popularity = Zipf::new(keys, 0.9);
        let mut random = Random::new();
        let mut read = || Request::Get(popularity.draw(random.next()));
        let warm_up = self.phase;
        load.run(&server.socket, |now| (now < warm_up).then(&mut read))?;
        self.measure_phases(("cdn read", &server), &load, read)?;
        self.report_index("cdn", &server)
    }

    /// More small values than the RAM tier holds.
    pub fn disk_small(&mut self) -> anyhow::Result<()> {
        let keys = if self.quick { 500_000 } else { 2_000_000 };
        let values = Values::new(Sizes::Small);
        let disk = self.disk("4GiB")?;
        let server = self.start(&disk, "64MiB")?;
        let load = Load { values: &values, connections: 64, fill_on_miss: false };
        let mut order = shuffled(keys);
        self.measure(("disk small fill", &server), &load, |_| order.pop().map(Request::Set))?;
        let mut random = Random::new();
        let get = || Request::Get(random.below(keys));
        self.measure_phases(("disk small get", &server), &load, get)?;
        let set = || Request::Set(random.below(keys));
        self.measure_phases(("disk small set", &server), &load, set)?;
        self.report_index("disk small", &server)
    }

    /// Stores on a full device as fast as it takes them.
    pub fn write(&mut self) -> anyhow::Result<()> {
        self.overwrite("410 B", Sizes::Small, "512MiB", 4_000_000)?;
        self.overwrite("58 KB", Sizes::Cdn, "4GiB", 200_000)
    }

    fn overwrite(&mut self, name: &str, sizes: Sizes, size: &str, keys: u32) -> anyhow::Result<()> {
        let values = Values::new(sizes);
        let disk = self.disk(size)?;
        let server = self.start(&disk, "64MiB")?;
        let load = Load { values: &values, connections: 32, fill_on_miss: false };
        let capacity = server.metric("rawcached_store_capacity_bytes ")?;
        let mut stores = Overwriting::new(keys, self.quick);
        let limit = self.phase * OVERWRITE_PHASES_MAX;
        load.run(&server.socket, |now| stores.next(&values, (now, limit), capacity))?;
        let before = Written::read(&server)?;
        stores.bytes = 0;
        let goal = capacity * if self.quick { 1 } else { OVERWRITES };
        let workload = format!("overwrite {name}");
        self.measure((&workload, &server), &load, |now| stores.next(&values, (now, limit), goal))?;
        let (after, device_mib) = (Written::read(&server)?, capacity / MIB);
        ensure!(after.body > before.body, "nothing was written");
        let amplification = ratio(after.device - before.device, after.body - before.body);
        self.report.figure(&format!("write amplification, {name} mean"), amplification);
        let turns = ratio((after.body - before.body) / MIB, device_mib);
        self.report.figure(&format!("  measured over this many times the device, {name}"), turns);
        self.report_index(name, &server)
    }

    fn report_index(&mut self, name: &str, server: &Server) -> anyhow::Result<()> {
        let bytes = server.metric("rawcached_index_bytes ")?;
        let entries = server.metric("rawcached_index_entries ")?;
        self.report.figure(
            &format!("index bytes per entry, {name} ({entries} entries)"),
            ratio(bytes, entries),
        );
        Ok(())
    }
}

fn measured(
    (workload, server): (&str, &Server),
    load: &Load<'_>,
    next: impl FnMut(Duration) -> Option<Request>,
) -> anyhow::Result<(Row, Outcome)> {
    let before = server.cpu_time()?;
    let outcome = load.run(&server.socket, next)?;
    let cpu = server.cpu_time()? - before;
    Ok((Row::new(workload, server.name, &outcome, cpu), outcome))
}

fn each_once(
    load: &Load<'_>,
    server: &Server,
    keys: u32,
    request: impl Fn(u32) -> Request,
) -> anyhow::Result<()> {
    let mut order = 0..keys;
    load.run(&server.socket, |_| order.next().map(&request)).map(drop)
}

/// All keys in an order that has nothing to do with how popular they are.
fn shuffled(keys: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys).collect();
    order.sort_by_key(|key| mix(u64::from(*key) << 1));
    order
}

/// Stores all over the keys, one in ten requests a `get` of a recent one so that reclaim has
/// entries worth keeping.
struct Overwriting {
    keys: u32,
    random: Random,
    recent: Vec<u32>,
    count: usize,
    bytes: u64,
}

impl Overwriting {
    fn new(keys: u32, quick: bool) -> Overwriting {
        let keys = if quick { keys / 2 } else { keys };
        Overwriting { keys, random: Random::new(), recent: vec![0; 10_000], count: 0, bytes: 0 }
    }

    fn next(
        &mut self,
        values: &Values,
        (now, limit): (Duration, Duration),
        goal: u64,
    ) -> Option<Request> {
        if self.bytes >= goal || now > limit {
            return None;
        }
        self.count += 1;
        let slot = self.count % self.recent.len();
        if self.count.is_multiple_of(10) {
            return Some(Request::Get(self.recent[(slot + 1) % self.recent.len()]));
        }
        let key = self.random.below(self.keys);
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
        let device = "rawcached_device_transferred_bytes_total{direction=\"write\"} ";
        Ok(Written {
            body: server.metric("rawcached_accepted_body_bytes_total ")?,
            device: server.metric(device)?,
        })
    }
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn new() -> Random {
        Random(1)
    }

    fn next(&mut self) -> u64 {
        self.0 += 1;
        mix(self.0)
    }

    fn below(&mut self, limit: u32) -> u32 {
        below(self.next(), limit)
    }
}

/// Free bytes of the file system that holds `directory`.
pub fn free_bytes(directory: &Path) -> anyhow::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(directory)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}
