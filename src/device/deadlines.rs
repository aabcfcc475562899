//! Deadlines of the reads that clients wait for. Owns who waits and until when; makes no read and keeps
//! none that is late.
//!
//! A timer for each read would cost more than the rest of the wait: it goes into the runtime's wheel,
//! wakes the runtime to see it there, and comes out again, since nearly all reads end in time. Instead
//! one task looks after the reads of a device. It sleeps until the first of those that wait is
//! overdue, which as a rule has ended long before, and ends itself when none waits.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::{Instant, sleep_until};

use super::engine::Completion;

/// Lists of those who wait, by the place on the device: threads that read much seldom meet in one.
const LISTS: usize = 16;
/// Bytes of the device after which the next list is used.
const LIST_STEP: u64 = 4096;

/// Who waits for reads of one device that have a deadline.
pub(super) struct Deadlines {
    deadline: Duration,
    lists: [Mutex<List>; LISTS],
    /// A task looks after those who wait.
    is_watched: AtomicBool,
    /// Where that task runs, if there is such a runtime still; elsewhere it runs where somebody waits.
    home: Mutex<Option<Handle>>,
}

/// Waiting reads, each at an index of its own for as long as it waits.
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

/// One who waits for a read.
struct Wait<'a> {
    deadlines: &'a Arc<Deadlines>,
    list: &'a Mutex<List>,
    ends: Instant,
    /// In the list, once it was pending.
    index: Option<usize>,
}

/// The task that looks after those who wait.
struct Watch {
    deadlines: Arc<Deadlines>,
    is_over: bool,
}

impl Deadlines {
    /// Reads of `deadline` at most, looked after in the current runtime if there is one.
    pub fn new(deadline: Duration) -> Arc<Deadlines> {
        Arc::new(Deadlines {
            deadline,
            lists: Default::default(),
            is_watched: AtomicBool::new(false),
            home: Mutex::new(Handle::try_current().ok()),
        })
    }

    /// Waits for a read at `offset` that `began` at that time; `None` when it is overdue. For as long as
    /// there is no tokio runtime at all, it waits for ever.
    pub async fn in_time(
        self: &Arc<Deadlines>,
        read: &mut Receiver<Completion>,
        (offset, began): (u64, Instant),
    ) -> Option<Result<Completion, RecvError>> {
        let list = &self.lists[usize::try_from(offset / LIST_STEP).unwrap_or(0) % LISTS];
        let mut wait = Wait { deadlines: self, list, ends: began + self.deadline, index: None };
        poll_fn(|cx| match Pin::new(&mut *read).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => wait.poll(cx).map(|()| None),
        })
        .await
    }

    /// Has a task look after those who wait, of whom the one who comes until `first` may be the only one.
    fn start(self: &Arc<Deadlines>, first: Instant) {
        let home = self.home.lock().clone();
        let Some(runtime) = home.or_else(|| Handle::try_current().ok()) else { return };
        if !self.is_watched.swap(true, Ordering::AcqRel) {
            let watch = Watch { deadlines: Arc::clone(self), is_over: false };
            runtime.spawn(watch.run(first));
        }
    }

    /// Wakes those who are overdue; gives when the next one is.
    fn wake_overdue(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut overdue = Vec::new();
        let next = self.lists.iter().filter_map(|list| list.lock().take_overdue(now, &mut overdue));
        let next = next.min();
        overdue.into_iter().for_each(Waker::wake);
        next
    }

    /// Wakes all, for one of them to start another watch.
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

    /// Puts those to `overdue` who are; gives when the first of the others is.
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
                // Without the lock: a waker's end may be a task's.
                drop(before);
            }
        }
        // After the entry is there: a watch that is about to end looks once more.
        if !self.deadlines.is_watched.load(Ordering::Acquire) {
            self.deadlines.start(self.ends);
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            let entry = self.list.lock().remove(index);
            // Without the lock, as above.
            drop(entry);
        }
    }
}

impl Watch {
    async fn run(mut self, first: Instant) {
        // Others may wait since the time of an earlier watch.
        let mut next = self.deadlines.wake_overdue().or(Some(first));
        while let Some(ends) = next {
            sleep_until(ends).await;
            next = self.deadlines.wake_overdue();
            if next.is_none() {
                self.deadlines.is_watched.store(false, Ordering::Release);
                // Who came just before that counts on this watch, unless somebody began another.
                next = self.deadlines.wake_overdue();
                if next.is_some() && self.deadlines.is_watched.swap(true, Ordering::AcqRel) {
                    next = None;
                }
            }
        }
        self.is_over = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            // Its runtime is gone, but others may wait.
            *self.deadlines.home.lock() = None;
            self.deadlines.is_watched.store(false, Ordering::Release);
            self.deadlines.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::runtime::{Builder, Runtime};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;
    use crate::device::engine::{Operation, Request};

    const SECOND: Duration = Duration::from_secs(1);

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    /// Waits for a request at some place that is over after so long; tells whether it was in time, and how
    /// long that took.
    fn wait(
        deadlines: &Arc<Deadlines>,
        place: u64,
        lasts: Duration,
    ) -> JoinHandle<(bool, Duration)> {
        let deadlines = Arc::clone(deadlines);
        tokio::spawn(async move {
            let (request, mut read) = Request::new(place, Operation::Flush);
            tokio::spawn(async move {
                sleep(lasts).await;
                request.complete(Ok(0));
            });
            let began = Instant::now();
            let ended = deadlines.in_time(&mut read, (place * LIST_STEP, began)).await;
            (ended.is_some(), began.elapsed())
        })
    }

    fn waiting(deadlines: &Deadlines) -> usize {
        deadlines.lists.iter().map(|list| list.lock().wakers().len()).sum()
    }

    /// Tasks beside those that a test waits for.
    fn watches() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    #[test]
    fn each_read_is_overdue_at_its_own_end() {
        runtime().block_on(async {
            let deadlines = Deadlines::new(SECOND);
            let mut late = Vec::new();
            for place in 0..100 {
                late.push(wait(&deadlines, place % 20, 10 * SECOND));
                // Of those in between none is, and their ends are looked for in vain.
                let (in_time, took) = wait(&deadlines, place, SECOND / 10).await.unwrap();
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
    fn one_task_looks_after_many_reads_and_ends_with_them() {
        runtime().block_on(async {
            let deadlines = Deadlines::new(SECOND);
            for place in 0..1000 {
                assert!(wait(&deadlines, place, SECOND / 500).await.unwrap().0);
                assert!(watches() <= 1);
            }
            let capacity = |list: &Mutex<List>| list.lock().entries.len();
            assert!(
                deadlines.lists.iter().map(capacity).sum::<usize>() <= 16,
                "places are used again"
            );
            assert_eq!((watches(), waiting(&deadlines)), (1, 0));
            sleep(2 * SECOND).await;
            assert_eq!(watches(), 0);
            assert!(!wait(&deadlines, 0, 3 * SECOND).await.unwrap().0, "and others begin again");
        });
    }

    #[test]
    fn who_no_longer_waits_is_forgotten() {
        runtime().block_on(async {
            let deadlines = Deadlines::new(SECOND);
            let given_up = wait(&deadlines, 0, 10 * SECOND);
            sleep(SECOND / 2).await;
            assert_eq!(waiting(&deadlines), 1);
            given_up.abort();
            assert!(given_up.await.is_err());
            assert_eq!(waiting(&deadlines), 0);
        });
    }

    #[test]
    fn reads_end_in_time_when_the_runtime_that_looked_after_them_is_gone() {
        let home = runtime();
        let deadlines = home.block_on(async { Deadlines::new(SECOND) });
        runtime().block_on(async {
            let before = wait(&deadlines, 0, 10 * SECOND);
            sleep(SECOND / 2).await;
            assert!(deadlines.is_watched.load(Ordering::Acquire) && !before.is_finished());
            home.shutdown_background();
            let after = wait(&deadlines, 1, 10 * SECOND);
            for read in [before, after] {
                let (in_time, took) = read.await.unwrap();
                assert!(!in_time && took < SECOND + SECOND / 100, "{took:?}");
            }
        });
    }

    #[test]
    fn without_a_runtime_a_read_is_waited_for() {
        let deadlines = Deadlines::new(Duration::ZERO);
        let (request, mut read) = Request::new(0, Operation::Flush);
        let mut waiting = std::pin::pin!(deadlines.in_time(&mut read, (0, Instant::now())));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        request.complete(Ok(0));
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
    }
}
