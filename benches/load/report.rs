//! What was measured, as a table and as JSON. Owns the layout of both.

use std::time::Duration;

use rawcached::cli::bench::latencies::Latencies;
use rawcached::cli::bench::load::Outcome;

/// One line of the table: one kind of load on one server.
#[derive(serde::Serialize)]
pub struct Row {
    pub workload: String,
    pub server: &'static str,
    pub ops_per_s: f64,
    pub mb_per_s: f64,
    pub cpu_us_per_op: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Share of `get`s that were hits.
    pub hit_ratio: Option<f64>,
    /// Share of stores that were refused.
    pub refused_ratio: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are below 2^53")]
pub fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

impl Row {
    pub fn new(workload: &str, server: &'static str, outcome: &Outcome, cpu: Duration) -> Row {
        let seconds = outcome.elapsed.as_secs_f64();
        let latency: &Latencies =
            if outcome.gets > 0 { &outcome.get_latencies } else { &outcome.set_latencies };
        Row {
            workload: workload.to_owned(),
            server,
            ops_per_s: ratio(outcome.ops(), 1) / seconds,
            mb_per_s: ratio(outcome.read_bytes + outcome.stored_bytes, 1) / seconds / 1e6,
            cpu_us_per_op: cpu.as_secs_f64() * 1e6 / ratio(outcome.ops(), 1),
            p50_us: latency.quantile_us(500),
            p99_us: latency.quantile_us(990),
            hit_ratio: (outcome.gets > 0).then(|| ratio(outcome.hits, outcome.gets)),
            refused_ratio: (outcome.refused > 0).then(|| ratio(outcome.refused, outcome.sets)),
        }
    }
}

/// A figure that is not a rate, with the mark it is held against.
#[derive(serde::Serialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
}

/// Everything measured in one run.
#[derive(Default, serde::Serialize)]
pub struct Report {
    pub rows: Vec<Row>,
    pub figures: Vec<Figure>,
}

impl Report {
    pub fn add(&mut self, row: Row) {
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }

    pub fn figure(&mut self, name: &str, value: f64) {
        eprintln!("{name}: {value:.2}");
        self.figures.push(Figure { name: name.to_owned(), value });
    }

    pub fn print(&self) {
        if !self.rows.is_empty() {
            println!("{HEADING}");
        }
        for row in &self.rows {
            println!("{}", line(row));
        }
        for figure in &self.figures {
            println!("{:<54} {:>8.2}", figure.name, figure.value);
        }
    }
}

const HEADING: &str =
    "workload             server      ops/s     MB/s  CPU us/op   p50 us   p99 us   hits";

fn line(row: &Row) -> String {
    let hits = row.hit_ratio.map(|hits| format!("{:5.1}%", hits * 100.0)).unwrap_or_default();
    let refused = row
        .refused_ratio
        .map(|share| format!("  {:.2}% refused", share * 100.0))
        .unwrap_or_default();
    format!(
        "{:<20} {:<9} {:>7.0} {:>8.0} {:>10.2} {:>8.0} {:>8.0} {hits}{refused}",
        row.workload,
        row.server,
        row.ops_per_s,
        row.mb_per_s,
        row.cpu_us_per_op,
        row.p50_us,
        row.p99_us
    )
}
