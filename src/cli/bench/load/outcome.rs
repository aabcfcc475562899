//! Results of a phase. Owns the counts; never divides them.

use std::time::Duration;

use super::connection::Asked;
use super::requests::Request;
use super::wire::Answer;
use crate::cli::bench::latencies::Latencies;

/// Results of a phase, over all threads.
#[derive(Clone, Default)]
pub struct Outcome {
    /// Reads that were answered.
    pub gets: u64,
    /// Reads that brought a value.
    pub hits: u64,
    /// Stores that were answered.
    pub sets: u64,
    /// Stores that the server refused.
    pub refused: u64,
    /// Requests of an open loop that were never made because the server was too far behind; the
    /// latencies include their delays at that time.
    pub unsent: u64,
    /// Body bytes read.
    pub read_bytes: u64,
    /// Body bytes that the server took.
    pub stored_bytes: u64,
    /// Latencies of reads, from when each was due.
    pub get_latencies: Latencies,
    /// Latencies of stores, from when each was due.
    pub set_latencies: Latencies,
    /// From the beginning to the last answer.
    pub elapsed: Duration,
}

impl Outcome {
    /// Requests that were answered.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.gets + self.sets
    }

    /// Adds the results of another thread.
    pub fn merge(&mut self, other: &Outcome) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.sets += other.sets;
        self.refused += other.refused;
        self.unsent += other.unsent;
        self.read_bytes += other.read_bytes;
        self.stored_bytes += other.stored_bytes;
        self.get_latencies.merge(&other.get_latencies);
        self.set_latencies.merge(&other.set_latencies);
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    pub(super) fn account(&mut self, asked: &Asked, answer: Answer, now: Duration) {
        self.latencies_of(asked.request).record(now.saturating_sub(asked.due));
        match asked.request {
            Request::Get(_) => self.gets += 1,
            Request::Set(_) => self.sets += 1,
        }
        match answer {
            Answer::Value => {
                self.hits += 1;
                self.read_bytes += asked.len as u64;
            }
            Answer::Stored => self.stored_bytes += asked.len as u64,
            Answer::Refused => self.refused += 1,
            Answer::Missing => {}
        }
    }

    pub(super) fn latencies_of(&mut self, request: Request) -> &mut Latencies {
        match request {
            Request::Get(_) => &mut self.get_latencies,
            Request::Set(_) => &mut self.set_latencies,
        }
    }
}
