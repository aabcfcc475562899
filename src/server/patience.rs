//! How long a connection waits for its peer. One timer serves all waits of a connection.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Bounds waits. Has a timer only once a wait has begun, and moves it only where a wait would end
/// before it: most waits end by themselves, long before.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Begin of the present wait, if there is one.
    since: Option<Instant>,
    /// Left as it is when a wait ends: the next one goes on with it. It may ring in vain, once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Ready when the present wait is longer than `limit`. It begins with the first call.
    pub(super) fn poll_end(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.since() + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            // It was set for an earlier wait.
            timer.as_mut().reset(end);
        }
    }

    /// How long the present wait is.
    pub(super) fn waited(&mut self) -> Duration {
        self.since().elapsed()
    }

    /// The present wait is over.
    pub(super) fn rest(&mut self) {
        self.since = None;
    }

    fn since(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit() {
        let (short, long) = (Duration::from_secs(2), Duration::from_secs(100));
        let mut patience = Patience::default();
        for limit in [short, long, short, short, long, long] {
            let start = Instant::now();
            poll_fn(|cx| patience.poll_end(limit, cx)).await;
            let took = start.elapsed();
            assert!(took >= limit && took < limit + Duration::from_millis(5), "{took:?}");
            patience.rest();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_ended_does_not_shorten_the_next() {
        let limit = Duration::from_secs(10);
        let mut patience = Patience::default();
        let start = Instant::now();
        for _ in 0..5 {
            let wait = tokio::time::timeout(limit / 2, poll_fn(|cx| patience.poll_end(limit, cx)));
            assert!(wait.await.is_err());
            patience.rest();
        }
        poll_fn(|cx| patience.poll_end(limit, cx)).await;
        assert!(start.elapsed() >= limit * 7 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_can_be_shortened_on_the_way() {
        let mut patience = Patience::default();
        let limit = Duration::from_secs(100);
        let start = Instant::now();
        let wait = tokio::time::timeout(limit / 2, poll_fn(|cx| patience.poll_end(limit, cx)));
        assert!(wait.await.is_err());
        let limit = patience.waited() + Duration::from_secs(1);
        poll_fn(|cx| patience.poll_end(limit, cx)).await;
        assert!(start.elapsed() < Duration::from_secs(52));
    }
}
