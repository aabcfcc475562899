//! The table of miss ratios. Owns the question to the simulator and the columns.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::replay::Outcome;
use crate::trace::Trace;

/// The policies of the simulator in the order of the columns.
const POLICIES: [&str; 3] = ["LRU", "Sieve", "S3-FIFO"];

/// What the simulator says of one policy at one size.
#[derive(Debug, Deserialize)]
struct Answer {
    policy: String,
    bytes: u64,
    miss: f64,
    byte_miss: f64,
}

/// Miss ratios of other policies: of requests and of bytes, by size and name.
#[derive(Debug, Default)]
pub struct Peers(BTreeMap<(u64, String), (f64, f64)>);

impl Peers {
    /// Has the simulator replay a trace with caches of `sizes` bytes.
    pub fn ask(python: &Path, trace: &Trace, sizes: &[u64]) -> anyhow::Result<Peers> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = directory.join(format!("policy-{}.csv", std::process::id()));
        trace.write(&file)?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/policy/compare.py");
        let asked = Command::new(python)
            .arg(script)
            .arg(&file)
            .args(sizes.iter().map(u64::to_string))
            .output();
        std::fs::remove_file(&file)?;
        let answered = asked.with_context(|| format!("cannot start {}", python.display()))?;
        let complaint = String::from_utf8_lossy(&answered.stderr);
        ensure!(answered.status.success(), "the simulator failed: {complaint}");
        let answers: Vec<Answer> = serde_json::from_slice(&answered.stdout)?;
        let row = |answer: Answer| ((answer.bytes, answer.policy), (answer.miss, answer.byte_miss));
        Ok(Peers(answers.into_iter().map(row).collect()))
    }

    fn of(&self, bytes: u64, policy: &str) -> Option<(f64, f64)> {
        self.0.get(&(bytes, policy.to_owned())).copied()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Prints the titles of the columns. Each policy has its miss ratio of requests and of bytes.
pub fn print_titles(peers: &Peers, with_ram: bool) {
    print!("{:>6} {:>8} {:>7}  {:>13}", "share", "MB", "regions", "rawcached");
    if !peers.is_empty() {
        POLICIES.iter().for_each(|policy| print!("  {policy:>13}"));
        print!("  {:>8} {:>8}", "to Sieve", "to S3");
    }
    print!("  {:>6} {:>6}", "write", "again");
    println!("{}", if with_ram { "  from RAM" } else { "" });
}

/// Prints the outcome at one size.
pub fn print_row((share, bytes): (f64, u64), outcome: &Outcome, peers: &Peers) {
    let miss = ratio(outcome.misses, outcome.requests);
    let byte_miss = ratio(outcome.miss_bytes, outcome.bytes);
    let regions = outcome.region_count;
    print!("{share:>5} % {:>8.1} {regions:>7}  {miss:.4}/{byte_miss:.4}", giga(bytes) * 1000.0);
    for (miss, byte_miss) in POLICIES.iter().filter_map(|policy| peers.of(bytes, policy)) {
        print!("  {miss:.4}/{byte_miss:.4}");
    }
    for policy in ["Sieve", "S3-FIFO"] {
        if let Some((other, _)) = peers.of(bytes, policy) {
            print!(" {:>+8.4}", miss - other);
        }
    }
    let amplification = ratio(outcome.written, outcome.accepted);
    let again = ratio(outcome.reinserted, outcome.accepted);
    print!("  {amplification:>6.3} {again:>6.3}");
    if outcome.ram_hits > 0 {
        print!("  {:>8.4}", ratio(outcome.ram_hits, outcome.requests));
    }
    println!();
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Bytes in gigabytes.
#[expect(clippy::cast_precision_loss, reason = "sizes of workloads are below 2^53")]
pub fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
