//! What the server counts. One shard per worker, so that counting never makes workers
//! wait for each other; readers add the shards up in [`Counters::snapshot`].

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::http::{HttpShard, HttpSnapshot};
use super::listener_counts::{ListenerCounts, ListenerSnapshot};
use super::proxy::{AccessLogCounts, ProxyShard, ProxySnapshot};
use super::send_budget::SendBudget;
use crate::cache::Tier;
use crate::fair_memory::FairMemory;
use crate::histogram::{Histogram, HistogramSnapshot};
use crate::server::count::Count;

macro_rules! define_counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counts of one worker.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(super) struct Shard {
            $(pub(super) $name: Count,)*
            latencies: [Histogram; Operation::ALL.len()],
            pub(super) http: HttpShard,
            pub(super) proxy: ProxyShard,
            /// Bytes of input buffers in use.
            pub(super) input_bytes: AtomicU64,
        }

        /// Everything counted, summed over all workers; see [`Counters::snapshot`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Shard {
            fn counts(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }
        }

        impl Add for Counts {
            type Output = Counts;
            fn add(self, other: Counts) -> Counts {
                Counts { $($name: self.$name.wrapping_add(other.$name),)* }
            }
        }

        impl Sub for Counts {
            type Output = Counts;
            fn sub(self, other: Counts) -> Counts {
                Counts { $($name: self.$name.wrapping_sub(other.$name),)* }
            }
        }
    };
}

define_counts! {
    /// Connections accepted.
    connections_total,
    /// Connections refused because there were too many.
    connections_rejected,
    /// Failed attempts to accept a connection.
    accept_errors,
    /// Connections cut because their clients did not read, to free the memory of their answers.
    connections_cut_unsent,
    /// Connections cut because their clients did not read, to free their send buffers.
    connections_cut_buffer,
    /// Connections that ended by a bug in this program.
    connection_panics,
    /// memcached connections closed because no command came for too long.
    idle_timeouts,
    /// memcached connections closed because no byte moved within a command or an answer for too long.
    stall_timeouts,
    /// Times that a memcached connection gave way to others within what it had been sent.
    yields,
    /// Bytes read from clients.
    bytes_read,
    /// Bytes written to clients.
    bytes_written,
    /// Of the bytes read, those of the memcached protocol.
    memcached_bytes_read,
    /// Of the bytes written, those of the memcached protocol.
    memcached_bytes_written,
    /// Keys looked up by `get` and `gets`.
    cmd_get,
    /// Values asked to be stored, by any of the storage commands or over HTTP.
    cmd_set,
    /// Of those, by the memcached protocol.
    memcached_sets,
    /// Values stored by the memcached protocol.
    memcached_stored,
    /// Keys touched by `touch`, `gat` and `gats`.
    cmd_touch,
    /// Meta commands of the memcached protocol.
    cmd_meta,
    /// `flush_all` commands.
    cmd_flush,
    /// `get` and `gets`: keys found.
    get_hits,
    /// `get` and `gets`: keys not found.
    get_misses,
    /// `touch`, `gat` and `gats`: keys found.
    touch_hits,
    /// `touch`, `gat` and `gats`: keys not found.
    touch_misses,
    /// `delete`: keys found.
    delete_hits,
    /// `delete`: keys not found.
    delete_misses,
    /// `incr`: keys found.
    incr_hits,
    /// `incr`: keys not found.
    incr_misses,
    /// `decr`: keys found.
    decr_hits,
    /// `decr`: keys not found.
    decr_misses,
    /// `cas`: stored.
    cas_hits,
    /// `cas`: keys not found.
    cas_misses,
    /// `cas`: refused because the entry had changed.
    cas_badval,
    /// Values found in the RAM tier.
    hits_ram,
    /// Values found in the part of the log that is still in memory.
    hits_log,
    /// Values read from a device.
    hits_disk,
    /// Values refused because they are too large.
    store_too_large,
    /// Values refused because the store is busy.
    store_no_memory,
    /// Values not stored because a device failed or the cache is shutting down.
    store_failed,
    /// Responses cut short because a later piece of the value could not be read.
    values_truncated,
    /// Commands that were answered with `ERROR` or `CLIENT_ERROR`.
    protocol_errors,
}

/// Operations whose latencies are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A lookup answered from the RAM tier.
    GetRam,
    /// A lookup answered from the part of the log in memory.
    GetLog,
    /// A lookup answered from a device.
    GetDisk,
    /// A lookup that found nothing.
    GetMiss,
    /// A store, from the last byte of the value to its acknowledgement.
    Store,
    /// A change of lifetime.
    Touch,
    /// An `incr` or `decr`.
    Arithmetic,
    /// A purge of one key.
    Delete,
    /// A purge of everything.
    Flush,
}

impl Operation {
    /// All operations, in the order of [`Snapshot::latencies`].
    pub const ALL: [Operation; 9] = [
        Operation::GetRam,
        Operation::GetLog,
        Operation::GetDisk,
        Operation::GetMiss,
        Operation::Store,
        Operation::Touch,
        Operation::Arithmetic,
        Operation::Delete,
        Operation::Flush,
    ];

    pub(super) fn of_hit(tier: Tier) -> Operation {
        match tier {
            Tier::Ram => Operation::GetRam,
            Tier::Log => Operation::GetLog,
            Tier::Disk => Operation::GetDisk,
        }
    }
}

impl Shard {
    pub(super) fn record(&self, operation: Operation, duration: Duration) {
        self.latencies[operation as usize].record(duration);
    }

    pub(super) fn count_hit(&self, tier: Tier) {
        match tier {
            Tier::Ram => self.hits_ram.bump(),
            Tier::Log => self.hits_log.bump(),
            Tier::Disk => self.hits_disk.bump(),
        }
    }
}

/// All counters of one server. Shared between its workers and the metrics.
#[derive(Debug)]
pub struct Counters {
    shards: Vec<Arc<Shard>>,
    /// Memory for what connections keep until more comes, and for long heads.
    input_memory: FairMemory,
    /// Bytes that input buffers in use take besides.
    input_buffers_max: u64,
    connections_current: AtomicU64,
    listeners: RwLock<Vec<Arc<ListenerCounts>>>,
    access_logs: RwLock<Vec<Arc<AccessLogCounts>>>,
    send_budget: Arc<SendBudget>,
}

/// The state of [`Counters`] at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    /// Event counts since start.
    pub counts: Counts,
    /// Open connections.
    pub connections_current: u64,
    /// Memory set aside for the kernel's send buffers, in bytes.
    pub socket_buffer_bytes: u64,
    /// The most of it.
    pub socket_buffer_bytes_max: u64,
    /// Bytes of answers that wait until their clients make room for them.
    pub unsent_bytes: u64,
    /// From how many of them on clients that stand still are cut.
    pub unsent_bytes_max: u64,
    /// Latencies by operation, in the order of [`Operation::ALL`].
    pub latencies: [HistogramSnapshot; Operation::ALL.len()],
    /// What only the HTTP server counts.
    pub http: HttpSnapshot,
    /// What only the read-through listeners count.
    pub proxy: ProxySnapshot,
    /// Bytes received and not yet used: commands, heads of requests, and values that are appended.
    pub input_bytes: u64,
    /// Most bytes of these.
    pub input_bytes_max: u64,
}

impl Counters {
    /// Counters for `workers` workers and the acceptor, with what is counted of `send_budget` and of
    /// input, which takes bytes besides its memory.
    pub(super) fn new(
        workers: usize,
        send_budget: SendBudget,
        (input_memory, input_buffers_max): (FairMemory, u64),
    ) -> Counters {
        let shards = (0..=workers).map(|_| Arc::default()).collect();
        let send_budget = Arc::new(send_budget);
        Counters {
            shards,
            input_memory,
            input_buffers_max,
            connections_current: AtomicU64::new(0),
            listeners: RwLock::default(),
            access_logs: RwLock::default(),
            send_budget,
        }
    }

    /// Counts a listener's connections from now on.
    pub(super) fn add_listener(&self, name: String, connections_max: usize) -> Arc<ListenerCounts> {
        let connections_max = u64::try_from(connections_max).unwrap_or(u64::MAX);
        let counts = Arc::new(ListenerCounts::new(name, connections_max));
        self.listeners.write().push(Arc::clone(&counts));
        counts
    }

    /// Counts an access log from now on, of which at most so many bytes wait.
    pub(super) fn add_access_log(&self, bytes_max: u64) -> Arc<AccessLogCounts> {
        let counts = Arc::new(AccessLogCounts::new(bytes_max));
        self.access_logs.write().push(Arc::clone(&counts));
        counts
    }

    /// The state of each listener.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerSnapshot> {
        self.listeners.read().iter().map(|counts| counts.snapshot()).collect()
    }

    pub(super) fn send_budget(&self) -> &Arc<SendBudget> {
        &self.send_budget
    }

    /// Memory for what connections keep until more comes.
    pub(super) fn input_memory(&self) -> &FairMemory {
        &self.input_memory
    }

    /// The shard of worker `index`.
    pub(super) fn worker(&self, index: usize) -> Arc<Shard> {
        self.shards[index + 1].clone()
    }

    /// The acceptor's shard.
    pub(super) fn acceptor(&self) -> &Shard {
        &self.shards[0]
    }

    /// Adds up all shards.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let connections_current = self.connections_current.load(Ordering::Relaxed);
        let mut total = Snapshot {
            connections_current,
            socket_buffer_bytes: self.send_budget.taken(connections_current),
            socket_buffer_bytes_max: self.send_budget.bytes_max(),
            unsent_bytes: self.send_budget.unsent(),
            unsent_bytes_max: self.send_budget.unsent_max(),
            input_bytes: self.input_memory.used(),
            input_bytes_max: self.input_memory.limit() + self.input_buffers_max,
            ..Snapshot::default()
        };
        for log in self.access_logs.read().iter() {
            log.add_to(&mut total.proxy.access_logs);
        }
        for shard in &self.shards {
            total.counts = total.counts + shard.counts();
            total.http.merge(&shard.http);
            total.proxy.merge(&shard.proxy);
            total.input_bytes += shard.input_bytes.load(Ordering::Relaxed);
            for (sum, histogram) in total.latencies.iter_mut().zip(&shard.latencies) {
                sum.merge(&histogram.snapshot());
            }
        }
        total
    }
}

/// The right to keep one connection open; dropping it counts the connection out.
#[derive(Debug)]
pub(super) struct Ticket {
    counters: Arc<Counters>,
    listener: Arc<ListenerCounts>,
}

impl Ticket {
    /// Counts a connection in unless the listener has all that it may have.
    pub(super) fn take(counters: &Arc<Counters>, listener: &Arc<ListenerCounts>) -> Option<Ticket> {
        counters.connections_current.fetch_add(1, Ordering::Relaxed);
        let taken = listener.connections.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { counters: counters.clone(), listener: listener.clone() };
        (taken < listener.connections_max).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.counters.connections_current.fetch_sub(1, Ordering::Relaxed);
        self.listener.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(workers: usize) -> Counters {
        let send_budget = SendBudget::new(1 << 20, 1 << 20, 10);
        Counters::new(workers, send_budget, (FairMemory::new(1000, 100, Duration::ZERO), 10))
    }

    #[test]
    fn a_snapshot_sums_the_shards_of_all_workers() {
        let counters = counters(2);
        counters.worker(0).cmd_get.add(3);
        counters.worker(1).cmd_get.bump();
        counters.acceptor().connections_total.bump();
        counters.worker(1).record(Operation::Flush, Duration::from_micros(1));
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.counts.cmd_get, snapshot.counts.connections_total), (4, 1));
        assert_eq!(snapshot.latencies[Operation::Flush as usize].count(), 1);
        assert_eq!(snapshot.input_bytes_max, 1000 + 10);
    }

    #[test]
    fn tickets_run_out_for_each_listener_and_come_back() {
        let counters = Arc::new(counters(1));
        let one = counters.add_listener("one".to_owned(), 1);
        let other = counters.add_listener("other".to_owned(), 1);
        let first = Ticket::take(&counters, &one);
        assert!(first.is_some());
        assert!(Ticket::take(&counters, &one).is_none());
        assert!(Ticket::take(&counters, &other).is_some());
        let open: Vec<u64> = counters.listeners().iter().map(|it| it.connections).collect();
        assert_eq!((open, counters.snapshot().connections_current), (vec![1, 0], 1));
        drop(first);
        assert!(Ticket::take(&counters, &one).is_some());
        assert_eq!(counters.snapshot().connections_current, 0);
    }
}
