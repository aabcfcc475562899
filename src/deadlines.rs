//! Deadlines for waits that nearly always end in time: device reads, and removals until they are
//! durable. Owns the list of waits and their deadlines; the work itself stays with the caller.
//!
//! A timer per wait would cost more than the wait itself: it enters the runtime's timer wheel, wakes
//! the runtime and leaves again. Instead one task watches all waits. It sleeps until the earliest
//! deadline it saw, by which time that wait has usually ended, and exits when no wait is left.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Number of lists of waits: several, so that busy threads rarely contend for a list's lock.
const LISTS: usize = 16;

thread_local! {
    /// Index of the list for waits that begin in this thread.
    static LIST: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % LISTS
    };
}

/// Value of `next_look` while no watch task runs.
const UNWATCHED: u64 = u64::MAX;
/// Value of `next_look` while the watch task computes it.
const LOOKING: u64 = u64::MAX - 1;

/// The waits in progress that have a deadline.
pub(crate) struct Deadlines {
    lists: [Mutex<List>; LISTS],
    /// When the watch task next looks for overdue waits, in microseconds after `epoch`.
    next_look: AtomicU64,
    epoch: Instant,
    /// Signalled when a wait ends before the next look.
    sooner: Notify,
    /// The runtime for the watch task; without one, the task runs in the runtime of a wait.
    home: Mutex<Option<Handle>>,
}

/// Waits, each at a fixed index while it lasts.
#[derive(Default)]
struct List {
    entries: Vec<Entry>,
    vacant: Vec<usize>,
}

enum Entry {
    Vacant,
    Waits(Instant, Waker),
    /// Woken because it is overdue.
    Overdue,
}

/// One wait.
struct Wait<'a> {
    deadlines: &'a Arc<Deadlines>,
    list: &'a Mutex<List>,
    ends: Instant,
    /// Its index in the list; `None` until it is polled.
    index: Option<usize>,
}

/// The task that watches all waits.
struct Watch {
    deadlines: Arc<Deadlines>,
    is_over: bool,
}

impl Deadlines {
    /// No waits yet; the watch task will run in the current runtime if there is one.
    pub fn new() -> Arc<Deadlines> {
        Arc::new(Deadlines {
            lists: Default::default(),
            next_look: AtomicU64::new(UNWATCHED),
            epoch: Instant::now(),
            sooner: Notify::new(),
            home: Mutex::new(Handle::try_current().ok()),
        })
    }

    /// Waits for `work` until `ends`; `None` when it is overdue. If `ends` has already passed, `None`
    /// comes after the watch task's next look. Without any tokio runtime it waits for ever.
    pub async fn in_time<F: Future + ?Sized>(
        self: &Arc<Deadlines>,
        mut work: Pin<&mut F>,
        ends: Instant,
    ) -> Option<F::Output> {
        let list = &self.lists[LIST.with(|list| *list)];
        let mut wait = Wait { deadlines: self, list, ends, index: None };
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => wait.poll(cx).map(|()| None),
        })
        .await
    }

    /// Makes the watch task look at `ends` at the latest; starts it if none runs.
    fn watch(self: &Arc<Deadlines>, ends: Instant) {
        match self.next_look.load(Ordering::Acquire) {
            UNWATCHED => self.start(ends),
            next if self.micros(ends) < next => self.sooner.notify_one(),
            _ => {}
        }
    }

    fn start(self: &Arc<Deadlines>, first: Instant) {
        let home = self.home.lock().clone();
        let Some(runtime) = home.or_else(|| Handle::try_current().ok()) else { return };
        if self.becomes_watched() {
            let watch = Watch { deadlines: Arc::clone(self), is_over: false };
            runtime.spawn(watch.run(first));
        } else {
            // The task that runs instead may have looked before this wait was added.
            self.sooner.notify_one();
        }
    }

    /// Claims the start of a watch task: true for exactly one caller while none runs.
    fn becomes_watched(&self) -> bool {
        let (from, to) = (UNWATCHED, LOOKING);
        self.next_look.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(0)
    }

    /// Wakes overdue waits; returns the earliest deadline of the others.
    fn wake_overdue(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut overdue = Vec::new();
        let next = self.lists.iter().filter_map(|list| list.lock().take_overdue(now, &mut overdue));
        let next = next.min();
        overdue.into_iter().for_each(Waker::wake);
        next
    }

    /// Wakes all waits, so that one of them starts another watch task.
    fn wake_all(&self) {
        for list in &self.lists {
            let wakers = list.lock().wakers();
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

impl List {
    fn add(&mut self, entry: Entry) -> usize {
        match self.vacant.pop() {
            Some(index) => {
                self.entries[index] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    fn replace(&mut self, index: usize, entry: Entry) -> Entry {
        std::mem::replace(&mut self.entries[index], entry)
    }

    fn remove(&mut self, index: usize) -> Entry {
        self.vacant.push(index);
        self.replace(index, Entry::Vacant)
    }

    /// Moves the wakers of overdue waits to `overdue`; returns the earliest deadline of the others.
    fn take_overdue(&mut self, now: Instant, overdue: &mut Vec<Waker>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for entry in &mut self.entries {
            match entry {
                Entry::Waits(ends, _) if *ends > now => {
                    next = Some(next.map_or(*ends, |next| next.min(*ends)));
                }
                Entry::Waits(..) => {
                    if let Entry::Waits(_, waker) = std::mem::replace(entry, Entry::Overdue) {
                        overdue.push(waker);
                    }
                }
                Entry::Vacant | Entry::Overdue => {}
            }
        }
        next
    }

    fn wakers(&self) -> Vec<Waker> {
        let waker = |entry: &Entry| match entry {
            Entry::Waits(_, waker) => Some(waker.clone()),
            Entry::Vacant | Entry::Overdue => None,
        };
        self.entries.iter().filter_map(waker).collect()
    }
}

impl Wait<'_> {
    /// Ready when it is overdue.
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.index.is_some() && Instant::now() >= self.ends {
            return Poll::Ready(());
        }
        let entry = Entry::Waits(self.ends, cx.waker().clone());
        match self.index {
            None => self.index = Some(self.list.lock().add(entry)),
            Some(index) => {
                let before = self.list.lock().replace(index, entry);
                // After unlocking: dropping a waker may drop a task, and with it a wait in this list.
                drop(before);
            }
        }
        // After adding the entry: the watch task either sees it or is notified.
        self.deadlines.watch(self.ends);
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            let entry = self.list.lock().remove(index);
            // After unlocking, as above.
            drop(entry);
        }
    }
}

impl Watch {
    async fn run(mut self, first: Instant) {
        let deadlines = &self.deadlines;
        // Waits may be left from the time of an earlier watch task.
        let mut next = Some(deadlines.wake_overdue().unwrap_or(first));
        while let Some(ends) = next {
            deadlines.next_look.store(deadlines.micros(ends), Ordering::Release);
            tokio::select! {
                biased;
                () = sleep_until(ends) => {}
                () = deadlines.sooner.notified() => {}
            }
            deadlines.next_look.store(LOOKING, Ordering::Release);
            next = deadlines.wake_overdue();
            if next.is_none() {
                deadlines.next_look.store(UNWATCHED, Ordering::Release);
                // Waits added just before rely on this task, unless another was started.
                next = deadlines.wake_overdue().filter(|_| deadlines.becomes_watched());
            }
        }
        self.is_over = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            // Its runtime is gone, but waits in other runtimes may be left.
            *self.deadlines.home.lock() = None;
            self.deadlines.next_look.store(UNWATCHED, Ordering::Release);
            self.deadlines.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::sync::mpsc::RecvTimeoutError;
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    /// Waits at most a second for work of length `lasts`: whether it ended in time, and the time taken.
    fn wait(deadlines: &Arc<Deadlines>, lasts: Duration) -> JoinHandle<(bool, Duration)> {
        wait_for(deadlines, lasts, SECOND)
    }

    fn wait_for(
        deadlines: &Arc<Deadlines>,
        lasts: Duration,
        limit: Duration,
    ) -> JoinHandle<(bool, Duration)> {
        let deadlines = Arc::clone(deadlines);
        tokio::spawn(async move {
            let began = Instant::now();
            let ended = deadlines.in_time(pin!(sleep(lasts)), began + limit).await;
            (ended.is_some(), began.elapsed())
        })
    }

    fn waiting(deadlines: &Deadlines) -> usize {
        deadlines.lists.iter().map(|list| list.lock().wakers().len()).sum()
    }

    /// Watch tasks that run, once the tasks of the test itself have ended.
    fn watches() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    #[test]
    fn each_wait_is_over_at_its_own_end() {
        runtime().block_on(async {
            let deadlines = Deadlines::new();
            let mut late = Vec::new();
            for _ in 0..100 {
                late.push(wait(&deadlines, 10 * SECOND));
                // The waits in between end in time: at their deadlines the watch task finds nothing.
                let (in_time, took) = wait(&deadlines, SECOND / 10).await.unwrap();
                assert!(in_time && took < SECOND / 9);
            }
            for read in late {
                let (in_time, took) = read.await.unwrap();
                assert!(!in_time);
                assert!((SECOND..SECOND + SECOND / 100).contains(&took), "{took:?}");
            }
            assert_eq!(waiting(&deadlines), 0);
        });
    }

    #[test]
    fn one_task_looks_after_many_waits_and_ends_with_them() {
        runtime().block_on(async {
            let deadlines = Deadlines::new();
            for _ in 0..1000 {
                assert!(wait(&deadlines, SECOND / 500).await.unwrap().0);
                assert!(watches() <= 1);
            }
            let capacity = |list: &Mutex<List>| list.lock().entries.len();
            assert!(
                deadlines.lists.iter().map(capacity).sum::<usize>() <= 16,
                "indexes are used again"
            );
            assert_eq!((watches(), waiting(&deadlines)), (1, 0));
            sleep(2 * SECOND).await;
            assert_eq!(watches(), 0);
            assert!(!wait(&deadlines, 3 * SECOND).await.unwrap().0, "and others begin again");
        });
    }

    #[test]
    fn who_no_longer_waits_is_forgotten() {
        runtime().block_on(async {
            let deadlines = Deadlines::new();
            let given_up = wait(&deadlines, 10 * SECOND);
            sleep(SECOND / 2).await;
            assert_eq!(waiting(&deadlines), 1);
            given_up.abort();
            assert!(given_up.await.is_err());
            assert_eq!(waiting(&deadlines), 0);
        });
    }

    #[test]
    fn waits_end_in_time_when_the_runtime_that_looked_after_them_is_gone() {
        let home = runtime();
        let deadlines = home.block_on(async { Deadlines::new() });
        runtime().block_on(async {
            let before = wait(&deadlines, 10 * SECOND);
            sleep(SECOND / 2).await;
            assert!(
                deadlines.next_look.load(Ordering::Acquire) != UNWATCHED && !before.is_finished()
            );
            home.shutdown_background();
            let after = wait(&deadlines, 10 * SECOND);
            for waiting in [before, after] {
                let (in_time, took) = waiting.await.unwrap();
                assert!(!in_time && took < SECOND + SECOND / 100, "{took:?}");
            }
        });
    }

    #[test]
    fn a_short_wait_is_over_in_time_while_long_ones_last() {
        runtime().block_on(async {
            let deadlines = Deadlines::new();
            let long = wait_for(&deadlines, 100 * SECOND, 30 * SECOND);
            sleep(SECOND).await;
            for _ in 0..20 {
                let short = wait_for(&deadlines, 100 * SECOND, SECOND / 10);
                let (in_time, took) = short.await.unwrap();
                assert!(!in_time && took < SECOND / 9, "{took:?}");
            }
            let (in_time, took) = long.await.unwrap();
            assert!(!in_time && took < 31 * SECOND, "{took:?}");
        });
    }

    #[test]
    fn who_comes_too_late_to_begin_a_watch_has_the_other_look_once_more() {
        runtime().block_on(async {
            let deadlines = Deadlines::new();
            let sooner = || {
                let mut cx = Context::from_waker(Waker::noop());
                pin!(deadlines.sooner.notified()).poll(&mut cx).is_ready()
            };
            // This call starts the task, which has not run yet: it needs no notice.
            deadlines.start(Instant::now() + SECOND);
            assert!(!sooner());
            deadlines.start(Instant::now() + SECOND / 2);
            assert!(sooner());
        });
    }

    /// Four threads that wait again and again; `Err` if one does not finish within half a minute.
    fn come_and_go(deadlines: &Arc<Deadlines>) -> Result<(), RecvTimeoutError> {
        let (done, is_done) = std::sync::mpsc::channel();
        for n in 0..4 {
            let (deadlines, done) = (Arc::clone(deadlines), done.clone());
            let limit = Duration::from_millis(1 + n * 3);
            let client = async move {
                for _ in 0..300 {
                    let ends = Instant::now() + limit;
                    let ended = deadlines.in_time(pin!(pending::<()>()), ends).await;
                    assert!(ended.is_none() && Instant::now() >= ends);
                }
                done.send(()).unwrap();
            };
            let thread = Builder::new_current_thread().build().unwrap();
            std::thread::spawn(move || thread.block_on(client));
        }
        (0..4).try_for_each(|_| is_done.recv_timeout(30 * SECOND))
    }

    #[test]
    fn threads_that_come_and_go_are_all_told_in_time() {
        let home = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let deadlines = home.block_on(async { Deadlines::new() });
        come_and_go(&deadlines).unwrap();
        // With a wait that ends much later, a forgotten wait would be woken only then.
        let later = Arc::clone(&deadlines);
        home.spawn(async move {
            let ends = Instant::now() + 90 * SECOND;
            later.in_time(pin!(pending::<()>()), ends).await
        });
        come_and_go(&deadlines).unwrap();
    }

    #[test]
    fn without_a_runtime_there_is_no_end() {
        let deadlines = Deadlines::new();
        let (done, mut work) = tokio::sync::oneshot::channel();
        let mut waiting = pin!(deadlines.in_time(Pin::new(&mut work), Instant::now()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        done.send(()).unwrap();
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
    }
}
