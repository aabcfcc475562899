//! The figures of one measured phase on one server. Owns their names, their order and how they
//! follow from counts.

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::counters::Counters;
use super::outcome::Outcome;
use crate::cli::bench::process::ProcessorTime;

/// Names in JSON, in tables, digits behind the point, and whether a ratio of two makes sense.
pub(super) const FIGURES: [(&str, &str, usize, bool); 26] = [
    ("operations", "operations", 0, false),
    ("seconds", "seconds", 2, false),
    ("operations_per_s", "operations/s", 0, true),
    ("megabytes_per_s", "MB/s", 1, true),
    ("hit_ratio", "hit ratio", 4, false),
    ("disk_hit_ratio", "hits from disk / hits", 4, false),
    ("refused_ratio", "refused stores / stores", 4, false),
    ("unsent", "never sent: too far behind", 0, false),
    ("get_p50_us", "get p50 us", 0, true),
    ("get_p90_us", "get p90 us", 0, true),
    ("get_p99_us", "get p99 us", 0, true),
    ("get_p999_us", "get p99.9 us", 0, true),
    ("get_max_us", "get max us", 0, true),
    ("set_p50_us", "set p50 us", 0, true),
    ("set_p90_us", "set p90 us", 0, true),
    ("set_p99_us", "set p99 us", 0, true),
    ("set_p999_us", "set p99.9 us", 0, true),
    ("set_max_us", "set max us", 0, true),
    ("server_cpu_us_per_operation", "server CPU us/op", 2, true),
    ("server_cpu_user_us_per_operation", "  of these user", 2, true),
    ("server_cpu_system_us_per_operation", "  of these kernel", 2, true),
    ("server_cpu_cores", "server CPU cores busy", 2, false),
    ("client_cpu_us_per_operation", "client CPU us/op", 2, true),
    ("client_cpu_cores", "client CPU cores busy", 2, false),
    ("device_written_megabytes", "device written MB", 1, false),
    ("write_amplification", "write amplification", 3, true),
];

/// The value of each of [`FIGURES`], if it is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures([Option<f64>; FIGURES.len()]);

/// Measurements before and after a phase.
pub(super) struct Taken {
    pub(super) outcome: Outcome,
    /// Processor time of the phase.
    pub(super) server_cpu: Option<ProcessorTime>,
    pub(super) client_cpu: ProcessorTime,
    /// The server's counters before and after.
    pub(super) counters: [Counters; 2],
}

impl Figures {
    pub(super) fn new(taken: &Taken) -> Figures {
        let Taken { outcome, server_cpu, client_cpu, counters: [before, after] } = taken;
        let (ops, seconds) = (outcome.ops(), outcome.elapsed.as_secs_f64());
        let bytes = outcome.read_bytes + outcome.stored_bytes;
        let grown = |count: fn(&Counters) -> Option<u64>| {
            Some(count(after)?.saturating_sub(count(before)?))
        };
        let cpu = |part: fn(ProcessorTime) -> std::time::Duration| {
            server_cpu.map(|cpu| part(cpu).as_secs_f64() * 1e6 / number(ops))
        };
        let written = grown(|counters| counters.device_bytes);
        let [get_p50, get_p90, get_p99, get_p999, get_max] = latencies(&outcome.get_latencies);
        let [set_p50, set_p90, set_p99, set_p999, set_max] = latencies(&outcome.set_latencies);
        Figures([
            Some(number(ops)),
            Some(seconds),
            Some(number(ops) / seconds),
            Some(number(bytes) / 1e6 / seconds),
            share(outcome.hits, outcome.gets),
            grown(|counters| counters.hits_disk).and_then(|hits| share(hits, outcome.hits)),
            share(outcome.refused, outcome.sets),
            (outcome.unsent > 0).then(|| number(outcome.unsent)),
            get_p50,
            get_p90,
            get_p99,
            get_p999,
            get_max,
            set_p50,
            set_p90,
            set_p99,
            set_p999,
            set_max,
            cpu(ProcessorTime::total),
            cpu(|cpu| cpu.user),
            cpu(|cpu| cpu.system),
            server_cpu.map(|cpu| cpu.total().as_secs_f64() / seconds),
            Some(client_cpu.total().as_secs_f64() * 1e6 / number(ops)),
            Some(client_cpu.total().as_secs_f64() / seconds),
            written.map(|written| number(written) / 1e6),
            written.and_then(|written| share(written, outcome.stored_bytes)),
        ])
    }

    /// Each figure's median over the rounds that have it; of an even number the mean of the two in
    /// the middle.
    pub(super) fn median(rounds: &[Figures]) -> Figures {
        let median = |at: usize| {
            let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.0[at]).collect();
            values.sort_by(f64::total_cmp);
            let upper = values.len() / 2;
            let lower = if values.len().is_multiple_of(2) { upper.checked_sub(1)? } else { upper };
            Some(f64::midpoint(values[lower], values[upper]))
        };
        Figures(std::array::from_fn(median))
    }

    /// Each figure over the `other`'s, where that makes sense.
    pub(super) fn over(&self, other: &Figures) -> Figures {
        let ratio = |at: usize| {
            let (mine, theirs) = (self.0[at]?, other.0[at]?);
            (FIGURES[at].3 && theirs > 0.0).then(|| mine / theirs)
        };
        Figures(std::array::from_fn(ratio))
    }

    /// The figure at a place of [`FIGURES`].
    pub(super) fn at(&self, place: usize) -> Option<f64> {
        self.0[place]
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for ((name, ..), value) in FIGURES.iter().zip(&self.0) {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

fn latencies(found: &crate::cli::bench::latencies::Latencies) -> [Option<f64>; 5] {
    let found = found.percentiles();
    if found.count == 0 {
        return [None; 5];
    }
    [found.p50_us, found.p90_us, found.p99_us, found.p999_us, found.max_us].map(Some)
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| number(part) / number(whole))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn figure(figures: &Figures, name: &str) -> Option<f64> {
        figures.at(FIGURES.iter().position(|figure| figure.0 == name).unwrap())
    }

    fn taken(micros: u64) -> Taken {
        let cpu = ProcessorTime {
            user: Duration::from_micros(micros),
            system: Duration::from_micros(3 * micros),
        };
        let outcome = Outcome {
            gets: 80,
            hits: 40,
            sets: 20,
            stored_bytes: 1_000_000,
            read_bytes: 3_000_000,
            elapsed: Duration::from_secs(2),
            ..Outcome::default()
        };
        let counters = |bytes, hits| Counters { device_bytes: Some(bytes), hits_disk: Some(hits) };
        let counters = [counters(500, 5), counters(1_250_500, 15)];
        Taken { outcome, server_cpu: Some(cpu), client_cpu: cpu, counters }
    }

    #[test]
    fn figures_follow_from_counts() {
        let figures = Figures::new(&taken(100));
        for (name, expected) in [
            ("operations_per_s", 50.0),
            ("megabytes_per_s", 2.0),
            ("hit_ratio", 0.5),
            ("disk_hit_ratio", 0.25),
            ("refused_ratio", 0.0),
            ("server_cpu_us_per_operation", 4.0),
            ("server_cpu_user_us_per_operation", 1.0),
            ("client_cpu_us_per_operation", 4.0),
            ("write_amplification", 1.25),
        ] {
            let found = figure(&figures, name).unwrap();
            assert!((found - expected).abs() < 1e-9, "{name}: {found}");
        }
        assert_eq!(figure(&figures, "get_p99_us"), None);
    }

    #[test]
    fn what_a_server_does_not_tell_is_left_out() {
        let mut taken = taken(100);
        (taken.server_cpu, taken.counters) = (None, [Counters::default(); 2]);
        let json = serde_json::to_value(Figures::new(&taken)).unwrap();
        assert!(json.get("server_cpu_us_per_operation").is_none());
        assert!(json.get("write_amplification").is_none());
        assert_eq!(json["operations"], 100.0);
    }

    #[test]
    fn medians_and_ratios_are_taken_figure_by_figure() {
        let rounds: Vec<_> = [300, 100, 200].map(|micros| Figures::new(&taken(micros))).into();
        let median = Figures::median(&rounds);
        assert_eq!(figure(&median, "server_cpu_us_per_operation"), Some(8.0));
        let ratio = median.over(&rounds[1]);
        assert_eq!(figure(&ratio, "server_cpu_us_per_operation"), Some(2.0));
        assert_eq!(figure(&ratio, "operations"), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        for (rounds, expected) in
            [(vec![100], 4.0), (vec![300, 100], 8.0), (vec![900, 100, 300, 200], 10.0)]
        {
            let rounds: Vec<_> =
                rounds.iter().map(|&micros| Figures::new(&taken(micros))).collect();
            let median = Figures::median(&rounds);
            assert_eq!(figure(&median, "server_cpu_us_per_operation"), Some(expected));
            assert_eq!(figure(&median, "get_p99_us"), None, "no round has it");
        }
        // The median of a figure is over the rounds that have it.
        let mut silent = taken(100);
        silent.server_cpu = None;
        let rounds = [Figures::new(&silent), Figures::new(&taken(300))];
        let median = Figures::median(&rounds);
        assert_eq!(figure(&median, "server_cpu_us_per_operation"), Some(12.0));
    }
}
