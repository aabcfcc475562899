//! What the server counts, as metrics. Owns their names; the numbers are [`super::counters`]'s.

use super::counters::{Counts, Operation, Snapshot};
use super::http::write_http;
use super::listener_counts::ListenerSnapshot;
use super::proxy::write_proxy;
use crate::metrics::Page;

/// Writes a snapshot of a server and of its listeners.
pub fn write_server(page: &mut Page, snapshot: &Snapshot, listeners: &[ListenerSnapshot]) {
    write_connections(page, snapshot, listeners);
    listeners.iter().for_each(|listener| write_listener(page, listener));
    write_commands(page, &snapshot.counts);
    write_failures(page, &snapshot.counts);
    for (operation, latency) in Operation::ALL.into_iter().zip(&snapshot.latencies) {
        page.histogram(
            "rawcached_command_duration_seconds",
            "Time from the complete request to its answer, by operation and tier.",
            &[("operation", operation_name(operation)), ("tier", tier_name(operation))],
            latency,
        );
    }
    write_http(page, &snapshot.http);
    write_proxy(page, &snapshot.proxy);
}

fn write_connections(page: &mut Page, snapshot: &Snapshot, listeners: &[ListenerSnapshot]) {
    let counts = &snapshot.counts;
    page.gauge("rawcached_connections", "Open connections.", &[], snapshot.connections_current);
    page.gauge(
        "rawcached_connections_max",
        "Connections that all listeners together may have open.",
        &[],
        listeners.iter().map(|listener| listener.connections_max).sum(),
    );
    page.gauge(
        "rawcached_input_bytes",
        "Bytes of memory for what was received and is not yet used: commands, heads of requests, and values to append.",
        &[],
        snapshot.input_bytes,
    );
    page.gauge(
        "rawcached_input_max_bytes",
        "Most bytes of memory for what was received and is not yet used.",
        &[],
        snapshot.input_bytes_max,
    );
    for (name, help, value) in [
        (
            "rawcached_socket_buffer_bytes",
            "Memory set aside for the kernel's send buffers.",
            snapshot.socket_buffer_bytes,
        ),
        (
            "rawcached_socket_buffer_max_bytes",
            "Most memory for the kernel's send buffers.",
            snapshot.socket_buffer_bytes_max,
        ),
        (
            "rawcached_unsent_bytes",
            "Bytes of answers that wait until their clients read.",
            snapshot.unsent_bytes,
        ),
        (
            "rawcached_unsent_max_bytes",
            "Bytes of waiting answers from which on clients that stand still are cut.",
            snapshot.unsent_bytes_max,
        ),
    ] {
        page.gauge(name, help, &[], value);
    }
    let help = "Connections cut because their clients did not read, by what it freed.";
    for (reason, value) in
        [("unsent", counts.connections_cut_unsent), ("buffer", counts.connections_cut_buffer)]
    {
        page.counter("rawcached_connections_cut_total", help, &[("reason", reason)], value);
    }
    for (name, help, value) in [
        ("rawcached_connections_accepted_total", "Connections accepted.", counts.connections_total),
        (
            "rawcached_connections_rejected_total",
            "Connections refused because there were too many, or because of who connected.",
            counts.connections_rejected,
        ),
        (
            "rawcached_accept_errors_total",
            "Failed attempts to accept a connection.",
            counts.accept_errors,
        ),
        (
            "rawcached_connection_panics_total",
            "Connections that ended by a bug in the daemon.",
            counts.connection_panics,
        ),
        ("rawcached_received_bytes_total", "Bytes read from clients.", counts.bytes_read),
        ("rawcached_sent_bytes_total", "Bytes written to clients.", counts.bytes_written),
    ] {
        page.counter(name, help, &[], value);
    }
    let help = "memcached connections closed because no byte moved for too long.";
    for (wait, value) in [("idle", counts.idle_timeouts), ("stalled", counts.stall_timeouts)] {
        page.counter("rawcached_memcached_timeouts_total", help, &[("wait", wait)], value);
    }
}

fn write_listener(page: &mut Page, listener: &ListenerSnapshot) {
    let name = ("listener", listener.name.as_str());
    let help = "Open connections of one listener.";
    page.gauge("rawcached_listener_connections", help, &[name], listener.connections);
    let help = "Connections that one listener may have open; further ones are refused.";
    page.gauge("rawcached_listener_connections_max", help, &[name], listener.connections_max);
    let help = "Connections that one listener refused, by reason.";
    for (reason, value) in [("full", listener.refused_full), ("peer", listener.refused_peer)] {
        let labels = [name, ("reason", reason)];
        page.counter("rawcached_listener_refused_total", help, &labels, value);
    }
}

fn write_commands(page: &mut Page, counts: &Counts) {
    let help = "Keys in commands, by command and by whether a live entry was found.";
    for (command, hits, misses) in [
        ("get", counts.get_hits, counts.get_misses),
        ("touch", counts.touch_hits, counts.touch_misses),
        ("delete", counts.delete_hits, counts.delete_misses),
        ("incr", counts.incr_hits, counts.incr_misses),
        ("decr", counts.decr_hits, counts.decr_misses),
        ("cas", counts.cas_hits, counts.cas_misses),
    ] {
        for (result, value) in [("hit", hits), ("miss", misses)] {
            let labels = [("command", command), ("result", result)];
            page.counter("rawcached_command_keys_total", help, &labels, value);
        }
    }
    let labels = [("command", "cas"), ("result", "changed")];
    page.counter("rawcached_command_keys_total", help, &labels, counts.cas_badval);
    let help = "Values found, by the tier that had them.";
    for (tier, value) in
        [("ram", counts.hits_ram), ("log", counts.hits_log), ("disk", counts.hits_disk)]
    {
        page.counter("rawcached_tier_hits_total", help, &[("tier", tier)], value);
    }
    for (name, help, value) in [
        ("rawcached_stores_total", "Values that clients asked to be stored.", counts.cmd_set),
        ("rawcached_flushes_total", "Commands that purge everything.", counts.cmd_flush),
    ] {
        page.counter(name, help, &[], value);
    }
}

fn write_failures(page: &mut Page, counts: &Counts) {
    let help = "Values that were not stored, by reason.";
    for (reason, value) in [
        ("too_large", counts.store_too_large),
        ("busy", counts.store_no_memory),
        ("failed", counts.store_failed),
    ] {
        page.counter("rawcached_stores_refused_total", help, &[("reason", reason)], value);
    }
    for (name, help, value) in [
        (
            "rawcached_values_truncated_total",
            "Answers cut short because a later piece of the value could not be read.",
            counts.values_truncated,
        ),
        (
            "rawcached_protocol_errors_total",
            "Commands answered with ERROR or CLIENT_ERROR, and HTTP requests that cannot be read.",
            counts.protocol_errors,
        ),
    ] {
        page.counter(name, help, &[], value);
    }
}

fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::GetRam | Operation::GetLog | Operation::GetDisk | Operation::GetMiss => "get",
        Operation::Store => "store",
        Operation::Touch => "touch",
        Operation::Arithmetic => "arithmetic",
        Operation::Delete => "delete",
        Operation::Flush => "flush",
    }
}

/// The tier that answered; `none` for a miss and for operations that are not lookups.
fn tier_name(operation: Operation) -> &'static str {
    match operation {
        Operation::GetRam => "ram",
        Operation::GetLog => "log",
        Operation::GetDisk => "disk",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn counts_latencies_and_headroom_are_on_the_page() {
        let mut snapshot = Snapshot { connections_current: 3, ..Snapshot::default() };
        snapshot.counts.get_hits = 4;
        snapshot.counts.store_no_memory = 5;
        snapshot.latencies[Operation::GetDisk as usize].buckets[1] = 6;
        let metrics = Metrics::new();
        let listener = |name: &str, connections| ListenerSnapshot {
            name: name.to_owned(),
            connections_max: 2048,
            connections,
            refused_full: 7,
            refused_peer: 8,
        };
        let listeners = [listener("unix:/a", 1), listener("unix:/b", 2)];
        metrics.add(move |page| write_server(page, &snapshot, &listeners)).unwrap();
        let text = metrics.render();
        for line in [
            "rawcached_connections 3",
            "rawcached_connections_max 4096",
            "rawcached_listener_connections{listener=\"unix:/b\"} 2",
            "rawcached_listener_connections_max{listener=\"unix:/a\"} 2048",
            "rawcached_listener_refused_total{listener=\"unix:/a\",reason=\"full\"} 7",
            "rawcached_listener_refused_total{listener=\"unix:/b\",reason=\"peer\"} 8",
            "rawcached_command_keys_total{command=\"get\",result=\"hit\"} 4",
            "rawcached_stores_refused_total{reason=\"busy\"} 5",
            "rawcached_command_duration_seconds_count{operation=\"get\",tier=\"disk\"} 6",
            "rawcached_command_duration_seconds_count{operation=\"get\",tier=\"none\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
