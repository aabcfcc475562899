//! Log lines on their way to where they are written: a bounded queue, and the thread that empties it,
//! so that nobody who logs waits for whoever reads the log. Owns the count of lost lines.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Most bytes that wait to be written: some thousand lines. Further lines are lost.
const QUEUE_LEN_MAX: usize = 1 << 20;
/// Pause before another attempt where the output does not block and takes nothing.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// A queue of log lines; its clones are the same queue.
#[derive(Clone)]
pub struct LogQueue(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    /// A line came, or all are written.
    changed: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
}

impl LogQueue {
    /// A queue that a thread of its own writes to `output`. Once lines were lost and there is room
    /// again, that thread calls `tell` with their number.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        output: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<LogQueue> {
        let queue = LogQueue(Arc::new(Shared {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            lost: AtomicU64::new(0),
        }));
        let shared = Arc::clone(&queue.0);
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.run(output, tell))?;
        Ok(queue)
    }

    /// Adds a line with its end; it is lost if the queue is full. Never waits for the output.
    pub fn push(&self, line: &[u8]) {
        let mut waiting = self.0.waiting.lock();
        if waiting.bytes + line.len() > QUEUE_LEN_MAX {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_owned());
        self.0.changed.notify_all();
    }

    /// Lines that were lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, for `limit` at most.
    pub fn flush(&self, limit: Duration) {
        let mut waiting = self.0.waiting.lock();
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        // What is not written within the limit is lost with the process.
        let _ = self.0.changed.wait_while_for(&mut waiting, is_busy, limit);
    }
}

/// One call is one line, as the formatter of log lines does it.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn run(&self, mut output: impl Write, tell: impl Fn(u64)) -> ! {
        let mut told = 0;
        loop {
            let line = self.next();
            if write_all(&mut output, &line).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let lost = self.lost.load(Ordering::Relaxed);
            // What is told becomes a line too, and needs room.
            if lost > told && self.waiting.lock().bytes < QUEUE_LEN_MAX / 2 {
                tell(lost - told);
                told = lost;
            }
        }
    }

    /// Waits for the next line. The one before it is written.
    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting.lock();
        waiting.is_writing = false;
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.is_writing = true;
                return line;
            }
            self.changed.notify_all();
            self.changed.wait(&mut waiting);
        }
    }
}

fn write_all(output: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match output.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => line = &line[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process made standard error non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(RETRY_INTERVAL);
            }
            Err(error) => return Err(error),
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that blocks until the test lets a line through.
    struct Gated {
        open: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The test has ended otherwise.
            let _ = self.open.recv();
            let _ = self.written.send(bytes.to_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_nobody_reads_holds_nobody_up_and_losses_are_told() {
        let ((open, gate), (written, lines)) = (mpsc::channel(), mpsc::channel());
        let (tell, told) = mpsc::channel();
        let output = Gated { open: gate, written };
        let queue = LogQueue::start(output, move |lost| tell.send(lost).unwrap()).unwrap();
        let line = vec![b'x'; 1 << 10];
        for _ in 0..3000 {
            queue.push(&line);
        }
        // One is in the thread's hands, or still counted as waiting.
        let lost = queue.lost();
        assert!((1975..=1976).contains(&lost), "{lost}");
        queue.flush(Duration::from_millis(10));
        for _ in 0..3000 - lost {
            open.send(()).unwrap();
            assert_eq!(lines.recv().unwrap(), line);
        }
        queue.flush(Duration::from_secs(60));
        assert_eq!(told.recv().unwrap(), lost);
        open.send(()).unwrap();
        queue.push(b"again");
        assert_eq!(lines.recv().unwrap(), b"again");
    }

    #[test]
    fn a_broken_output_is_counted_and_not_the_end() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let queue = LogQueue::start(Broken, |_| {}).unwrap();
        for _ in 0..3 {
            queue.push(b"line");
            queue.flush(Duration::from_secs(60));
        }
        assert_eq!(queue.lost(), 3);
    }
}
