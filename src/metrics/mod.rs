//! Counters, gauges and histograms as Prometheus text. Owns names, HELP and TYPE; never counts
//! anything itself: every layer keeps plain atomics and gives a snapshot when asked.
//!
//! A layer is added with one function that writes its snapshot into a [`Page`]:
//!
//! ```
//! use rawcached::metrics::{Metrics, Page};
//!
//! fn write_demo(page: &mut Page, reads: u64) {
//!     page.counter("rawcached_demo_reads_total", "Reads of the demo.", &[], reads);
//! }
//!
//! let metrics = Metrics::new();
//! metrics.add(|page| write_demo(page, 3)).unwrap();
//! assert!(metrics.render().contains("rawcached_demo_reads_total 3\n"));
//! ```

mod cache;
mod device;
mod page;
mod process;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};

pub use cache::write_cache;
pub use device::write_device;
pub use page::{Labels, Page};
pub use process::ProcessStart;

/// Content type of [`Metrics::render`]: the Prometheus text format, version 0.0.4.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All sources of metrics of one daemon. Clones share them.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Registry,
}

/// A source of metrics was refused: a bad or an already used name.
#[derive(Debug, thiserror::Error)]
#[error("a metric was refused")]
pub struct AddError(#[from] prometheus::Error);

impl Metrics {
    /// No sources yet.
    #[must_use]
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Adds a source. `write` is called once now, to learn the names, and then at every
    /// [`Metrics::render`]; it must write the same names each time.
    ///
    /// # Errors
    /// A name or label is not valid in Prometheus or is taken by another source.
    pub fn add(&self, write: impl Fn(&mut Page) + Send + Sync + 'static) -> Result<(), AddError> {
        let mut page = Page::default();
        write(&mut page);
        let descriptions = page.descriptions()?;
        self.registry.register(Box::new(Source { descriptions, write }))?;
        Ok(())
    }

    /// The text of one scrape, families sorted by name.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be rendered");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

struct Source<F> {
    descriptions: Vec<Desc>,
    write: F,
}

impl<F: Fn(&mut Page) + Send + Sync> Collector for Source<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut page = Page::default();
        (self.write)(&mut page);
        page.into_families()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_scrape_shows_the_snapshot_of_that_moment() {
        let reads = Arc::new(AtomicU64::new(1));
        let metrics = Metrics::new();
        let source = Arc::clone(&reads);
        metrics
            .add(move |page| {
                let value = source.load(Ordering::Relaxed);
                page.counter("rawcached_reads_total", "Reads.", &[("tier", "ram")], value);
            })
            .unwrap();
        reads.store(7, Ordering::Relaxed);
        assert_eq!(
            metrics.render(),
            "# HELP rawcached_reads_total Reads.\n# TYPE rawcached_reads_total counter\n\
             rawcached_reads_total{tier=\"ram\"} 7\n"
        );
    }

    #[test]
    fn a_name_can_be_added_once_only() {
        let metrics = Metrics::new();
        let write = |page: &mut Page| page.gauge("rawcached_x_bytes", "X.", &[], 1);
        metrics.add(write).unwrap();
        assert!(metrics.add(write).is_err());
    }

    #[test]
    fn malformed_names_are_refused() {
        let metrics = Metrics::new();
        assert!(metrics.add(|page| page.gauge("rawcached-x", "X.", &[], 1)).is_err());
    }
}
