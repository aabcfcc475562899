//! Gives requests to the engine and waits for them, no longer than they may take. Owns neither the clock
//! of those that wait nor the verdict on the device's pace.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use super::inner::Inner;
use crate::device::OperationKind;
use crate::device::pace::Taken;
use crate::device::request::{Completion, Operation, Request};

/// How long a request is waited for.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// Until it is over.
    Endless,
    /// So long, and a client waits for it at this moment.
    Client(Duration),
    /// So long.
    Within(Duration),
}

impl Patience {
    pub fn is_endless(self) -> bool {
        matches!(self, Patience::Endless)
    }

    /// When a wait that began then ends, if it does.
    fn ends(self, began: Instant) -> Option<Instant> {
        match self {
            Patience::Client(limit) | Patience::Within(limit) => began.checked_add(limit),
            Patience::Endless => None,
        }
    }
}

impl Inner {
    /// Whether anything is under way.
    pub(super) fn has_requests(&self) -> bool {
        self.stats.has_in_flight() || self.overdue.count() > 0
    }

    pub(super) async fn submit(
        &self,
        offset: u64,
        operation: Operation,
        patience: Patience,
    ) -> io::Result<Completion> {
        let (kind, len) = (operation.kind(), operation.len());
        let in_flight = self.stats.submitted(kind);
        // Of reads only those that a client waits for at this moment: others may be as long as they like,
        // or be looked at only when a client takes its time to ask for more.
        let is_timed = match kind {
            OperationKind::Read => {
                matches!(patience, Patience::Client(_)) && self.pace.wants_read()
            }
            OperationKind::Write => true,
            OperationKind::Flush => false,
        };
        let began = Instant::now();
        let has_others = in_flight.under_way > 1 || self.overdue.count() > 0;
        self.silence.begin(has_others, began.saturating_duration_since(self.opened));
        let (request, mut completed) = Request::new(offset, operation);
        self.engine.submit(request);
        let ended = match patience.ends(began) {
            Some(ends) => self.deadlines.in_time(Pin::new(&mut completed), ends).await,
            None => Some((&mut completed).await),
        };
        if is_timed {
            let under_way = in_flight.under_way;
            self.note_pace(kind, Taken { len, elapsed: began.elapsed(), under_way });
        }
        if ended.is_some() {
            self.silence.end();
        }
        match ended {
            Some(ended) => ended.map_err(|_| io::Error::other("the device's engine has stopped")),
            None => {
                self.stats.overdue();
                self.overdue.keep(completed);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    fn note_pace(&self, kind: OperationKind, taken: Taken) {
        let path = self.info.path.display();
        match self.pace.record(kind, taken, self.opened.elapsed()) {
            Some(true) => tracing::warn!(
                %path,
                "the device is ten times slower than it was, for 30 s now: stores are refused"
            ),
            Some(false) => tracing::info!(%path, "the device is as fast as it was"),
            None => {}
        }
    }
}
