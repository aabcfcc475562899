//! All clients of one server. Owns their threads while a phase lasts; never chooses requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::Load;
use super::outcome::Outcome;
use super::pace::{Pace, Phase};
use super::requests::Source;
use super::worker::{Part, Worker};
use crate::clock::Stopwatch;

/// How often progress is reported.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// Connections to one server, dealt out to threads.
pub struct Clients<'a> {
    workers: Vec<Worker<'a>>,
}

impl<'a> Clients<'a> {
    /// Opens all connections.
    ///
    /// # Errors
    /// The server is not there or does not take so many.
    ///
    /// # Panics
    /// If there are no threads, or more than connections.
    pub fn connect(load: &'a Load) -> anyhow::Result<Clients<'a>> {
        let (threads, connections) = (load.threads, load.connections);
        assert!((1..=connections).contains(&threads), "{threads} threads");
        let workers = (0..threads).map(|number| {
            let share = connections / threads + usize::from(number < connections % threads);
            // Each process and thread writes different values.
            let version = std::process::id().wrapping_mul(64).wrapping_add(u32::try_from(number)?);
            Worker::connect(load, share, version.rotate_right(12))
        });
        Ok(Clients { workers: workers.collect::<anyhow::Result<_>>()? })
    }

    /// Runs a phase with a source for each thread; reports the time since its start and the number
    /// of answers to `progress`.
    ///
    /// # Errors
    /// The server gave wrong bytes ([`super::WrongBytes`]) or an answer that makes no sense, closed
    /// a connection, or answered nothing for a minute.
    ///
    /// # Panics
    /// If there are not as many sources as threads.
    pub fn run(
        &mut self,
        phase: &Phase,
        sources: Vec<Source<'_>>,
        progress: &dyn Fn(Duration, u64),
    ) -> anyhow::Result<Outcome> {
        assert_eq!(sources.len(), self.workers.len(), "a source for each thread");
        let threads = self.workers.len() as u64;
        let pulses: Vec<AtomicU64> = sources.iter().map(|_| AtomicU64::new(0)).collect();
        let (watch, caller) = (Stopwatch::start(), thread::current());
        thread::scope(|scope| {
            let mut running = Vec::new();
            let parts = (0..).zip(sources).zip(&pulses);
            for (worker, ((number, source), pulse)) in self.workers.iter_mut().zip(parts) {
                let pace = Pace::new(phase, number, threads);
                let (part, caller) = (Part { pace, source, watch, pulse }, &caller);
                running.push(scope.spawn(move || {
                    let outcome = worker.run(part);
                    caller.unpark();
                    outcome
                }));
            }
            while running.iter().any(|thread| !thread.is_finished()) {
                thread::park_timeout(TOLD_EVERY);
                let answered = pulses.iter().map(|pulse| pulse.load(Ordering::Relaxed)).sum();
                progress(watch.elapsed(), answered);
            }
            let mut all = Outcome::default();
            for thread in running {
                all.merge(&thread.join().ok().context("a thread of the load panicked")??);
            }
            Ok(all)
        })
    }
}
