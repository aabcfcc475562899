//! When a request was sent: the wait for its response begins then.

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

/// When nothing more of a request is sent. The half that sends it tells, the other waits for it.
#[derive(Debug, Default)]
pub(super) struct RequestEnd {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    at: Option<Instant>,
    waits: Option<Waker>,
}

impl RequestEnd {
    /// The request ends now, unless it has.
    pub(super) fn note(&self) {
        let mut state = self.state.lock();
        state.at.get_or_insert_with(Instant::now);
        if let Some(waits) = state.waits.take() {
            waits.wake();
        }
    }

    /// When it ended.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Instant> {
        let mut state = self.state.lock();
        if let Some(at) = state.at {
            return Poll::Ready(at);
        }
        state.waits = Some(cx.waker().clone());
        Poll::Pending
    }
}
