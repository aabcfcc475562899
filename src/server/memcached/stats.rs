//! The answers to `stats`. Reads counters; changes none.

use std::fmt::{Display, Write};

use nix::sys::resource::{UsageWho, getrusage};

use super::key::tokens;
use super::service::{Before, Service};
use crate::format::GRANULE;
use crate::store::CountersSnapshot;

/// The version of memcached that this server behaves like: clients ask for it and adapt to it, and
/// take it apart as three numbers.
pub(super) const VERSION: &str = "1.6.40";

const END: &str = "END\r\n";

impl Service {
    /// The whole answer to `stats` followed by `words`.
    pub(super) fn stats(&self, words: &[u8]) -> String {
        let mut words = tokens(words);
        match (words.next().unwrap_or_default(), words.next()) {
            (b"", _) => self.general(),
            (b"settings", _) => self.settings(),
            (b"reset", _) => {
                let snapshot = self.counters.snapshot();
                *self.baseline.0.lock() = Before {
                    counts: snapshot.counts,
                    http_connections: snapshot.http.connections_opened,
                    store: self.cache.stats().store.counters,
                };
                "RESET\r\n".to_owned()
            }
            (b"items", _) => self.items(),
            (b"slabs", _) => self.slabs(),
            // Connections are not kept in a list.
            (b"conns", _) => END.to_owned(),
            (b"sizes", _) => "STAT sizes_status disabled\r\nEND\r\n".to_owned(),
            (b"detail", Some(b"on" | b"off")) => "OK\r\n".to_owned(),
            (b"detail", Some(b"dump")) => END.to_owned(),
            (b"detail", _) => "CLIENT_ERROR usage: stats detail on|off|dump\r\n".to_owned(),
            // Keys are not kept in memory, so there are none to list.
            (b"cachedump", Some(_)) => END.to_owned(),
            (b"cachedump", None) => "CLIENT_ERROR bad command line\r\n".to_owned(),
            _ => "ERROR\r\n".to_owned(),
        }
    }

    fn general(&self) -> String {
        // In this order: a reset in between must not be ahead of the counts.
        let then = *self.baseline.0.lock();
        let snapshot = self.counters.snapshot();
        let counts = snapshot.counts - then.counts;
        let connections = snapshot.connections_current.saturating_sub(snapshot.http.connections());
        let mut text = String::with_capacity(4096);
        let mut stat = |name, value: u64| push(&mut text, name, value);
        stat("pid", u64::from(std::process::id()));
        stat("uptime", self.uptime.elapsed().as_secs());
        stat("time", u64::try_from(self.cache.clock().wall()).unwrap_or(0));
        stat("pointer_size", u64::from(usize::BITS));
        stat("max_connections", self.options.connections_all_max as u64);
        stat("curr_connections", connections);
        let opened = snapshot.http.connections_opened - then.http_connections;
        stat("total_connections", counts.connections_total.saturating_sub(opened));
        stat("rejected_connections", counts.connections_rejected);
        stat("connection_structures", connections);
        stat("cmd_get", counts.cmd_get);
        stat("cmd_set", counts.memcached_sets);
        stat("cmd_flush", counts.cmd_flush);
        stat("cmd_touch", counts.cmd_touch);
        stat("cmd_meta", counts.cmd_meta);
        // Nobody logs in.
        stat("auth_cmds", 0);
        stat("auth_errors", 0);
        stat("get_hits", counts.get_hits);
        stat("get_misses", counts.get_misses);
        stat("delete_misses", counts.delete_misses);
        stat("delete_hits", counts.delete_hits);
        stat("incr_misses", counts.incr_misses);
        stat("incr_hits", counts.incr_hits);
        stat("decr_misses", counts.decr_misses);
        stat("decr_hits", counts.decr_hits);
        stat("cas_misses", counts.cas_misses);
        stat("cas_hits", counts.cas_hits);
        stat("cas_badval", counts.cas_badval);
        stat("touch_hits", counts.touch_hits);
        stat("touch_misses", counts.touch_misses);
        stat("store_too_large", counts.store_too_large);
        stat("store_no_memory", counts.store_no_memory);
        stat("bytes_read", counts.memcached_bytes_read);
        stat("bytes_written", counts.memcached_bytes_written);
        // Connections over the limit are refused; a listener never stops to listen.
        stat("accepting_conns", 1);
        stat("listen_disabled_num", 0);
        stat("time_in_listen_disabled_us", 0);
        stat("idle_kicks", counts.idle_timeouts);
        stat("conn_yields", counts.yields);
        stat("threads", self.options.workers.get() as u64);
        stat("total_items", counts.memcached_stored);
        self.write_usage(&mut text);
        self.write_store(&mut text, &then.store);
        let mut stat = |name, value: u64| push(&mut text, name, value);
        stat("store_failed", counts.store_failed);
        stat("hits_ram", counts.hits_ram);
        stat("hits_log", counts.hits_log);
        stat("hits_disk", counts.hits_disk);
        stat("values_truncated", counts.values_truncated);
        stat("stall_kicks", counts.stall_timeouts);
        push(&mut text, "version", VERSION);
        push(&mut text, "rawcached_version", env!("CARGO_PKG_VERSION"));
        text.push_str(END);
        text
    }

    /// What memcached says of the items of each slab class. There are none: all items are of one.
    fn items(&self) -> String {
        let (then, store) = (self.baseline.0.lock().store, self.cache.stats().store);
        let (evicted, ended) = evictions(&store.counters, &then);
        let mut text = String::new();
        if store.entries > 0 {
            let mut stat =
                |name: &str, value: u64| push(&mut text, &format!("items:1:{name}"), value);
            stat("number", store.entries);
            stat("mem_requested", store.live_bytes);
            stat("evicted", evicted);
            stat("reclaimed", ended);
        }
        text.push_str(END);
        text
    }

    /// What memcached says of each slab class, of the one that all items are of: its chunks are the granules of
    /// the device, its pages the regions.
    fn slabs(&self) -> String {
        let then = *self.baseline.0.lock();
        let counts = self.counters.snapshot().counts - then.counts;
        let store = self.cache.stats().store;
        let mut text = String::new();
        let is_active = store.entries > 0;
        if is_active {
            let (chunks, used) = (store.capacity_bytes / GRANULE, store.live_bytes / GRANULE);
            let mut stat = |name: &str, value: u64| push(&mut text, &format!("1:{name}"), value);
            stat("chunk_size", GRANULE);
            stat("chunks_per_page", chunks / store.regions.max(1));
            stat("total_pages", store.regions);
            stat("total_chunks", chunks);
            stat("used_chunks", used.min(chunks));
            stat("free_chunks", chunks.saturating_sub(used));
            stat("get_hits", counts.get_hits);
            stat("cmd_set", counts.memcached_sets);
            stat("delete_hits", counts.delete_hits);
            stat("incr_hits", counts.incr_hits);
            stat("decr_hits", counts.decr_hits);
            stat("cas_hits", counts.cas_hits);
            stat("cas_badval", counts.cas_badval);
            stat("touch_hits", counts.touch_hits);
        }
        push(&mut text, "active_slabs", u64::from(is_active));
        push(&mut text, "total_malloced", if is_active { store.capacity_bytes } else { 0 });
        text.push_str(END);
        text
    }

    /// What the store says, under memcached's names.
    fn write_store(&self, text: &mut String, then: &CountersSnapshot) {
        let store = self.cache.stats().store;
        let now = store.counters;
        let expired = now.expired - then.expired;
        let flushed = (now.flushed - then.flushed).min(expired);
        let (evicted, ended) = evictions(&now, then);
        let mut stat = |name, value: u64| push(text, name, value);
        stat("get_expired", expired - flushed);
        stat("get_flushed", flushed);
        stat("curr_items", store.entries);
        stat("bytes", store.live_bytes);
        stat("limit_maxbytes", store.capacity_bytes);
        stat("evictions", evicted);
        stat("reclaimed", ended);
        stat("hash_bytes", store.index_bytes);
    }

    fn write_usage(&self, text: &mut String) {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return };
        for (name, time) in
            [("rusage_user", usage.user_time()), ("rusage_system", usage.system_time())]
        {
            push(text, name, format_args!("{}.{:06}", time.tv_sec(), time.tv_usec()));
        }
    }

    fn settings(&self) -> String {
        let options = &self.options;
        let mut text = String::with_capacity(1024);
        let mut setting = |name, value: &dyn Display| push(&mut text, name, value);
        setting("maxbytes", &self.cache.stats().store.capacity_bytes);
        setting("maxconns", &options.connections_all_max);
        setting("udpport", &0);
        setting("verbosity", &0);
        setting("evictions", &"on");
        setting("num_threads", &options.workers.get());
        setting("item_size_max", &options.value_len_max);
        setting("idle_timeout", &options.memcached_idle_timeout.unwrap_or_default().as_secs());
        setting("cas_enabled", &"yes");
        setting("auth_enabled_sasl", &"no");
        setting("auth_enabled_ascii", &"no");
        setting("maxconns_fast", &"yes");
        setting("slab_reassign", &"no");
        setting("slab_automove", &0);
        setting("lru_crawler", &"no");
        setting("lru_maintainer_thread", &"no");
        setting("track_sizes", &"no");
        setting("flush_enabled", &"yes");
        setting("dump_enabled", &"no");
        setting("shutdown_command", &"no");
        setting("binding_protocol", &"ascii");
        setting("stall_timeout", &options.memcached_stall_timeout.as_secs());
        setting("ttl_default", &options.ttl_default.as_secs());
        setting("ttl_max", &options.ttl_max.as_secs());
        text.push_str(END);
        text
    }
}

/// Entries that were dropped alive, and after they had ended.
fn evictions(now: &CountersSnapshot, then: &CountersSnapshot) -> (u64, u64) {
    let dropped = now.evicted - then.evicted;
    let ended = (now.evicted_ended - then.evicted_ended).min(dropped);
    (dropped - ended, ended)
}

fn push(text: &mut String, name: &str, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = write!(text, "STAT {name} {value}\r\n");
}
