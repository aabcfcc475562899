//! The answers to `stats`. Reads counters; changes none.

use std::fmt::{Display, Write};

use super::command::tokens;
use super::service::Service;

const END: &str = "END\r\n";

impl Service {
    /// The whole answer to `stats` followed by `words`.
    pub(super) fn stats(&self, words: &[u8]) -> String {
        let mut words = tokens(words);
        match (words.next().unwrap_or_default(), words.next()) {
            (b"", _) => self.general(),
            (b"settings", _) => self.settings(),
            (b"reset", _) => {
                *self.baseline.0.lock() = self.counters.snapshot().counts;
                "RESET\r\n".to_owned()
            }
            // There are no slabs, so no slab has items.
            (b"items" | b"conns", _) => END.to_owned(),
            (b"slabs", _) => "STAT active_slabs 0\r\nSTAT total_malloced 0\r\nEND\r\n".to_owned(),
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
        let snapshot = self.counters.snapshot();
        let counts = snapshot.counts - *self.baseline.0.lock();
        let mut text = String::with_capacity(2048);
        let mut stat = |name, value: u64| push(&mut text, name, value);
        stat("pid", u64::from(std::process::id()));
        stat("uptime", self.uptime.elapsed().as_secs());
        stat("time", u64::try_from(self.cache.clock().wall()).unwrap_or(0));
        stat("pointer_size", u64::from(usize::BITS));
        stat("max_connections", self.options.connections_max as u64);
        stat("curr_connections", snapshot.connections_current);
        stat("total_connections", counts.connections_total);
        stat("rejected_connections", counts.connections_rejected);
        stat("cmd_get", counts.cmd_get);
        stat("cmd_set", counts.cmd_set);
        stat("cmd_flush", counts.cmd_flush);
        stat("cmd_touch", counts.cmd_touch);
        stat("get_hits", counts.get_hits);
        stat("get_misses", counts.get_misses);
        stat("delete_hits", counts.delete_hits);
        stat("delete_misses", counts.delete_misses);
        stat("incr_hits", counts.incr_hits);
        stat("incr_misses", counts.incr_misses);
        stat("decr_hits", counts.decr_hits);
        stat("decr_misses", counts.decr_misses);
        stat("cas_hits", counts.cas_hits);
        stat("cas_misses", counts.cas_misses);
        stat("cas_badval", counts.cas_badval);
        stat("touch_hits", counts.touch_hits);
        stat("touch_misses", counts.touch_misses);
        stat("store_too_large", counts.store_too_large);
        stat("store_no_memory", counts.store_no_memory);
        stat("store_failed", counts.store_failed);
        stat("hits_ram", counts.hits_ram);
        stat("hits_log", counts.hits_log);
        stat("hits_disk", counts.hits_disk);
        stat("values_truncated", counts.values_truncated);
        stat("bytes_read", counts.bytes_read);
        stat("bytes_written", counts.bytes_written);
        stat("threads", self.options.workers.get() as u64);
        push(&mut text, "version", env!("CARGO_PKG_VERSION"));
        text.push_str(END);
        text
    }

    fn settings(&self) -> String {
        let mut text = String::with_capacity(512);
        push(&mut text, "maxconns", self.options.connections_max);
        push(&mut text, "num_threads", self.options.workers.get());
        push(&mut text, "item_size_max", self.options.value_len_max);
        push(&mut text, "ttl_max", self.options.ttl_max.as_secs());
        push(&mut text, "verbosity", 0);
        push(&mut text, "evictions", "on");
        push(&mut text, "cas_enabled", "yes");
        push(&mut text, "flush_enabled", "yes");
        push(&mut text, "dump_enabled", "no");
        push(&mut text, "shutdown_command", "no");
        push(&mut text, "binding_protocol", "ascii");
        text.push_str(END);
        text
    }
}

fn push(text: &mut String, name: &str, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = write!(text, "STAT {name} {value}\r\n");
}
