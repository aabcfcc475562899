//! One scrape being written. Owns the shape of families, labels and buckets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prometheus::core::Desc;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::histogram::HistogramSnapshot;

/// Collects the values of one source; families are made as their names appear.
#[derive(Default)]
pub struct Page {
    families: BTreeMap<&'static str, MetricFamily>,
}

/// Names and values of the labels of one metric.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    /// A count that only grows. `name` ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: u64) {
        self.counter_float(name, help, labels, float(value));
    }

    /// A quantity with fractions that only grows. `name` ends in its unit and `_total`.
    pub fn counter_float(
        &mut self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
        value: f64,
    ) {
        debug_assert!(name.ends_with("_total"), "{name}");
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    /// A number that goes up and down. `name` ends in its unit if it has one, as `_bytes`.
    pub fn gauge(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: u64) {
        self.gauge_float(name, help, labels, float(value));
    }

    /// A quantity with fractions that goes up and down. `name` ends in its unit.
    pub fn gauge_float(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        self.push(name, help, MetricType::GAUGE, metric);
    }

    /// A distribution of durations. `name` ends in `_seconds`.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        labels: Labels<'_>,
        snapshot: &HistogramSnapshot,
    ) {
        debug_assert!(name.ends_with("_seconds"), "{name}");
        let mut metric = labelled(labels);
        metric.set_histogram(histogram_of(snapshot));
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }

    /// A description of each family for the registry. Fails on invalid names.
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

fn histogram_of(snapshot: &HistogramSnapshot) -> Histogram {
    let mut count = 0;
    let mut buckets = Vec::with_capacity(snapshot.buckets.len());
    for (index, observed) in snapshot.buckets.iter().enumerate() {
        count += observed;
        // The encoder adds the bucket without a bound by itself.
        if let Some(bound_us) = HistogramSnapshot::upper_bound_us(index) {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(float(bound_us) / 1e6);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count);
    histogram.set_sample_sum(float(snapshot.sum_ns) / 1e9);
    histogram
}

/// Prometheus values are 64-bit floats: counts above 2^53 lose their last digits.
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::histogram::Histogram;
    use crate::metrics::Metrics;

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let histogram = Histogram::default();
        for micros in [1, 2, 2, 3_600_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let metrics = Metrics::new();
        metrics
            .add(move |page| {
                let labels = [("tier", "disk")];
                page.histogram("rawcached_get_seconds", "Gets.", &labels, &histogram.snapshot());
            })
            .unwrap();
        let text = metrics.render();
        for line in [
            "# TYPE rawcached_get_seconds histogram",
            "rawcached_get_seconds_bucket{tier=\"disk\",le=\"0.000001\"} 1",
            "rawcached_get_seconds_bucket{tier=\"disk\",le=\"0.000002\"} 3",
            "rawcached_get_seconds_bucket{tier=\"disk\",le=\"8.388608\"} 3",
            "rawcached_get_seconds_bucket{tier=\"disk\",le=\"+Inf\"} 4",
            "rawcached_get_seconds_sum{tier=\"disk\"} 3600.000005",
            "rawcached_get_seconds_count{tier=\"disk\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn several_label_values_make_one_family() {
        let mut page = Page::default();
        for operation in ["get", "set"] {
            page.counter("rawcached_x_total", "X.", &[("op", operation)], 1);
        }
        let families = page.into_families();
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].get_metric().len(), 2);
    }
}
