//! How long a connection waits for its peer. One timer serves all waits of a connection.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Bounds waits. The timer is moved only where a wait would end before it: most waits end by
/// themselves, long before.
pub(super) struct Patience {
    timer: Pin<Box<Sleep>>,
    /// End of the present wait, once it has begun.
    end: Option<Instant>,
}

impl Patience {
    /// `limit` is likely to be that of the first wait.
    pub(super) fn new(limit: Duration) -> Patience {
        Patience { timer: Box::pin(tokio::time::sleep(limit)), end: None }
    }

    /// Ready when the present wait is longer than `limit`. It begins with the first call.
    pub(super) fn poll_end(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let end = *self.end.get_or_insert_with(|| Instant::now() + limit);
        if end < self.timer.deadline() {
            self.timer.as_mut().reset(end);
        }
        while end > self.timer.deadline() {
            ready!(self.timer.as_mut().poll(cx));
            self.timer.as_mut().reset(end);
        }
        self.timer.as_mut().poll(cx)
    }

    /// The present wait is over.
    pub(super) fn rest(&mut self) {
        self.end = None;
    }

    /// Lets the present wait end after `limit` at the latest.
    pub(super) fn shorten(&mut self, limit: Duration) {
        let latest = Instant::now() + limit;
        self.end = Some(self.end.map_or(latest, |end| end.min(latest)));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit() {
        let (short, long) = (Duration::from_secs(2), Duration::from_secs(100));
        let mut patience = Patience::new(short);
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
        let mut patience = Patience::new(limit);
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
        let mut patience = Patience::new(Duration::from_secs(10));
        let limit = Duration::from_secs(100);
        let start = Instant::now();
        let wait = tokio::time::timeout(limit / 2, poll_fn(|cx| patience.poll_end(limit, cx)));
        assert!(wait.await.is_err());
        patience.shorten(Duration::from_secs(1));
        poll_fn(|cx| patience.poll_end(limit, cx)).await;
        assert!(start.elapsed() < Duration::from_secs(52));
    }
}
