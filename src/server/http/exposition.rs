//! What the HTTP server counts, as metrics. Owns their names.

use super::counts::{HttpOperation, HttpSnapshot, METHODS, STATUS_CLASSES};
use crate::metrics::Page;

pub(in crate::server) fn write_http(page: &mut Page, snapshot: &HttpSnapshot) {
    let open = snapshot.connections_opened.saturating_sub(snapshot.connections_closed);
    page.gauge("rawcached_http_connections", "Open connections that speak HTTP.", &[], open);
    let running = snapshot.requests_started.saturating_sub(snapshot.requests_ended);
    page.gauge("rawcached_http_requests_in_flight", "HTTP requests being answered.", &[], running);
    let help = "Connections that speak HTTP.";
    let opened = snapshot.connections_opened;
    page.counter("rawcached_http_connections_opened_total", help, &[], opened);
    let help = "HTTP requests answered, by method and class of the status.";
    for (method, counts) in METHODS.into_iter().zip(&snapshot.requests) {
        for (status, count) in STATUS_CLASSES.into_iter().zip(counts) {
            // Reads are never answered with 5xx, and only reads with 3xx.
            let is_reader = matches!(method, "get" | "head");
            let can_occur = status != if is_reader { "5xx" } else { "3xx" };
            if can_occur || *count > 0 {
                let labels = [("method", method), ("status", status)];
                page.counter("rawcached_http_requests_total", help, &labels, *count);
            }
        }
    }
    for (operation, latency) in HttpOperation::ALL.into_iter().zip(&snapshot.latencies) {
        let (operation, tier) = labels(operation);
        page.histogram(
            "rawcached_http_request_duration_seconds",
            "Time from the complete request to its answer, by operation and tier.",
            &[("operation", operation), ("tier", tier)],
            latency,
        );
    }
}

/// Operation and the tier that answered; `none` for a miss and for operations that are not lookups.
fn labels(operation: HttpOperation) -> (&'static str, &'static str) {
    match operation {
        HttpOperation::GetRam => ("get", "ram"),
        HttpOperation::GetLog => ("get", "log"),
        HttpOperation::GetDisk => ("get", "disk"),
        HttpOperation::GetMiss => ("get", "none"),
        HttpOperation::Put => ("put", "none"),
        HttpOperation::Patch => ("patch", "none"),
        HttpOperation::Delete => ("delete", "none"),
    }
}
