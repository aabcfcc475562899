//! Lines on their way to the log: a bounded queue, and the thread that empties it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::counts::AccessLogCounts;
use super::output::Output;
use crate::config::AccessLogTarget;
use crate::server::proxy::options::AccessLogOptions;

/// Bytes that a line takes besides its memory.
const LINE_COST: u64 = 64;
/// Lines are written together, up to about so many bytes.
const BATCH_LEN_MAX: usize = 64 << 10;
/// Pause before another attempt where the log cannot be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks at what is left at the end.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// An access log. Dropped, its thread writes what it still can and ends.
pub(in crate::server) struct AccessLog {
    lines: Sender<Vec<u8>>,
    counts: Arc<AccessLogCounts>,
    is_ending: Arc<AtomicBool>,
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }
}

impl AccessLog {
    /// Opens the log and starts its thread. A socket may appear later.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub(in crate::server) fn start(
        options: &AccessLogOptions,
        counts: &Arc<AccessLogCounts>,
    ) -> io::Result<AccessLog> {
        let output = Output::open(&options.target)?;
        let (lines, receiver) = mpsc::channel();
        let log = AccessLog {
            lines,
            counts: Arc::clone(counts),
            is_ending: Arc::new(AtomicBool::new(false)),
        };
        let writer = Writer {
            lines: receiver,
            output,
            counts: Arc::clone(counts),
            is_ending: Arc::clone(&log.is_ending),
            target: options.target.clone(),
        };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
        Ok(log)
    }

    /// Hands a line over; it is lost if too many wait.
    pub(super) fn push(&self, line: Vec<u8>) {
        let cost = cost(&line);
        // What is counted never exceeds the limit, not for a moment.
        let with_it = |bytes| Some(bytes + cost).filter(|bytes| *bytes <= self.counts.bytes_max);
        let counted = self.counts.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_it);
        if counted.is_err() {
            self.counts.lost.bump();
        } else if self.lines.send(line).is_err() {
            self.counts.bytes.fetch_sub(cost, Ordering::Relaxed);
            self.counts.lost.bump();
        }
    }

    /// Waits until all lines are written, for `limit` at most.
    pub(in crate::server) async fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.counts.bytes.load(Ordering::Relaxed) > 0 && Instant::now() < end {
            sleep(LOOK_EVERY).await;
        }
    }
}

fn cost(line: &Vec<u8>) -> u64 {
    line.capacity() as u64 + LINE_COST
}

struct Writer {
    lines: Receiver<Vec<u8>>,
    output: Output,
    counts: Arc<AccessLogCounts>,
    is_ending: Arc<AtomicBool>,
    target: AccessLogTarget,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Ok(first) = self.lines.recv() {
            batch.clear();
            let (mut count, mut taken, mut next) = (0, 0, Some(first));
            while let Some(line) = next {
                taken += cost(&line);
                count += 1;
                batch.extend_from_slice(&line);
                next = match batch.len() < BATCH_LEN_MAX {
                    true => self.lines.try_recv().ok(),
                    false => None,
                };
            }
            if !self.write(&batch) {
                self.counts.lost.add(count);
            }
            self.counts.bytes.fetch_sub(taken, Ordering::Relaxed);
        }
    }

    /// Writes whole lines, however long that takes; false if it cannot be done before the end.
    fn write(&mut self, batch: &[u8]) -> bool {
        let (mut written, mut is_told) = (0, false);
        while written < batch.len() {
            match self.output.write(batch, written) {
                Ok(now) => written = now,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.is_ending.load(Ordering::Relaxed) => return false,
                Err(error) => {
                    if !is_told {
                        let target = self.target.to_string();
                        tracing::error!(
                            target,
                            %error,
                            "the access log cannot be written: lines wait, and are lost when there are too many"
                        );
                    }
                    is_told = true;
                    thread::sleep(RETRY_INTERVAL);
                }
            }
        }
        if is_told {
            let (target, lost) = (self.target.to_string(), self.counts.lost.get());
            tracing::info!(target, lost, "the access log is written again");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn start(target: AccessLogTarget, bytes_max: u64) -> (AccessLog, Arc<AccessLogCounts>) {
        let counts = Arc::new(AccessLogCounts::new(bytes_max));
        let log = AccessLog::start(&AccessLogOptions { target, bytes_max }, &counts).unwrap();
        (log, counts)
    }

    #[tokio::test]
    async fn lines_come_whole_and_in_order_and_all_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (log, counts) = start(AccessLogTarget::File(path.clone()), 1 << 20);
        let mut expected = String::new();
        for n in 0..5000 {
            let line = format!("{n} {}\n", "x".repeat(n % 100));
            expected += &line;
            log.push(line.into_bytes());
        }
        log.flush(Duration::from_secs(20)).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!((counts.bytes.load(Ordering::Relaxed), counts.lost.get()), (0, 0));
    }

    #[tokio::test]
    async fn what_nobody_takes_is_bounded_and_what_is_lost_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (log, counts) = start(AccessLogTarget::Unix(directory.path().join("none")), 10_000);
        for _ in 0..1000 {
            log.push(vec![b'x'; 36]);
        }
        assert_eq!(counts.bytes.load(Ordering::Relaxed), 10_000);
        assert_eq!(counts.lost.get(), 900);
        log.flush(Duration::from_millis(20)).await;
        drop(log);
        // The thread ends without a reader.
        for _ in 0..1000 {
            if counts.bytes.load(Ordering::Relaxed) == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(counts.lost.get(), 1000);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told_at_the_start() {
        let options = AccessLogOptions {
            target: AccessLogTarget::File("/no/such/directory/log".into()),
            bytes_max: 1000,
        };
        assert!(AccessLog::start(&options, &Arc::new(AccessLogCounts::new(1000))).is_err());
    }
}
