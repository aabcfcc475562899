//! Tells one connection to close when it is next idle. Never interrupts a command.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Open until [`Gate::close`]; one task may wait for it to close.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Gate {
    /// Closes the gate and wakes the task that waits at it.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(waker) = self.waiting.lock().take() {
            waker.wake();
        }
    }

    /// True from [`Gate::close`] on.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ready once the gate is closed. A later caller replaces the one that waits.
    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        {
            let mut waiting = self.waiting.lock();
            match &*waiting {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => *waiting = Some(cx.waker().clone()),
            }
        }
        if self.is_closed() { Poll::Ready(()) } else { Poll::Pending }
    }
}
