//! One scrape being written. Owns the shape of families, labels and buckets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prometheus::core::Desc;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// Collects the values of one source; families are made as their names appear.
#[derive(Default)]
pub struct Page {
    families: BTreeMap<&'static str, MetricFamily>,
}

/// What a latency histogram held at one moment.
#[derive(Clone, Copy, Debug)]
pub struct HistogramSnapshot<'a> {
    /// Upper bounds of the buckets in seconds, ascending, without the infinite one.
    pub bounds_seconds: &'a [f64],
    /// Observations in each bucket, not cumulative; one more than bounds, the last beyond all.
    pub counts: &'a [u64],
    /// Sum of all observations in seconds.
    pub sum_seconds: f64,
}

/// Names and values of the labels of one metric.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    /// A value that only grows. `name` ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: f64) {
        debug_assert!(name.ends_with("_total"), "{name}");
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    /// A value that goes up and down. `name` ends in its unit, as `_bytes` or `_seconds`.
    pub fn gauge(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        self.push(name, help, MetricType::GAUGE, metric);
    }

    /// A distribution of durations. `name` ends in `_seconds`.
    ///
    /// # Panics
    /// Panics unless there is one count more than bounds.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
        snapshot: HistogramSnapshot<'_>,
    ) {
        assert_eq!(snapshot.counts.len(), snapshot.bounds_seconds.len() + 1, "{name}");
        let mut metric = labelled(labels);
        metric.set_histogram(histogram_of(snapshot));
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }

    /// What the registry needs to know of each family. Fails on invalid names.
    pub(super) fn descriptions(&self) -> Result<Vec<Desc>, prometheus::Error> {
        self.families.values().map(describe).collect()
    }

    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.families.into_values().collect()
    }

    fn push(&mut self, name: &'static str, help: &str, kind: MetricType, metric: Metric) {
        let family = self.families.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        assert_eq!(family.get_field_type(), kind, "{name} has two types");
        family.mut_metric().push(metric);
    }
}

fn describe(family: &MetricFamily) -> Result<Desc, prometheus::Error> {
    let metrics = family.get_metric().iter();
    let names: BTreeSet<String> = metrics
        .flat_map(|metric| metric.get_label().iter().map(|label| label.name().to_owned()))
        .collect();
    let (name, help) = (family.name().to_owned(), family.help().to_owned());
    Desc::new(name, help, names.into_iter().collect(), HashMap::new())
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(pairs.collect());
    metric
}

fn histogram_of(snapshot: HistogramSnapshot<'_>) -> Histogram {
    let mut count = 0;
    let mut buckets = Vec::with_capacity(snapshot.bounds_seconds.len());
    for (bound, observed) in snapshot.bounds_seconds.iter().zip(snapshot.counts) {
        count += observed;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(count);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(snapshot.counts.iter().sum());
    histogram.set_sample_sum(snapshot.sum_seconds);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let metrics = Metrics::new();
        metrics
            .add(|page| {
                let snapshot = HistogramSnapshot {
                    bounds_seconds: &[0.001, 0.01],
                    counts: &[2, 3, 1],
                    sum_seconds: 0.5,
                };
                page.histogram("rawcached_get_seconds", "Gets.", &[("tier", "disk")], snapshot);
            })
            .unwrap();
        let text = metrics.render();
        for line in [
            "# TYPE rawcached_get_seconds histogram",
            "rawcached_get_seconds_bucket{tier=\"disk\",le=\"0.001\"} 2",
            "rawcached_get_seconds_bucket{tier=\"disk\",le=\"0.01\"} 5",
            "rawcached_get_seconds_bucket{tier=\"disk\",le=\"+Inf\"} 6",
            "rawcached_get_seconds_sum{tier=\"disk\"} 0.5",
            "rawcached_get_seconds_count{tier=\"disk\"} 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn several_label_values_make_one_family() {
        let mut page = Page::default();
        for operation in ["get", "set"] {
            page.counter("rawcached_x_total", "X.", &[("op", operation)], 1.0);
        }
        let families = page.into_families();
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].get_metric().len(), 2);
    }
}
