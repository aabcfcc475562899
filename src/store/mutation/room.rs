//! Waiting for room. Owns how long one store waits over all its attempts.

use std::pin::pin;

use tokio::time::Instant;

use crate::format::Sequence;
use crate::store::counters::count;
use crate::store::log::appender::NoRoom;
use crate::store::mutation::request::StoreError;
use crate::store::shared::{ROOM_WAIT_MAX, Store};

/// How long one store waits for room, over all its waits.
#[derive(Default)]
pub(in crate::store) struct Patience {
    deadline: Option<Instant>,
}

impl Patience {
    pub fn deadline(&mut self, counters: &crate::store::counters::Counters) -> Instant {
        *self.deadline.get_or_insert_with(|| {
            count(&counters.stalls);
            Instant::now() + ROOM_WAIT_MAX
        })
    }
}

impl Store {
    /// Draws the name of a new object of slices.
    ///
    /// # Errors
    /// The next epoch is not durable in time.
    pub(in crate::store) async fn draw_object_name(&self) -> Result<Sequence, StoreError> {
        let mut patience = Patience::default();
        loop {
            let name = self.shared.log.lock().draw_name();
            match name {
                Ok(name) => return Ok(name),
                Err(why) => self.wait_for_room(why, &mut patience).await?,
            }
        }
    }

    pub(in crate::store) async fn wait_for_room(
        &self,
        why: NoRoom,
        patience: &mut Patience,
    ) -> Result<(), StoreError> {
        let deadline = patience.deadline(&self.shared.counters);
        let changed = self.shared.signals.changes.notified();
        match why {
            NoRoom::Regions | NoRoom::Purges | NoRoom::Index => {
                self.shared.signals.wake_reclaimer.notify_one()
            }
            NoRoom::Backlog | NoRoom::Epoch => self.shared.signals.wake_flusher.notify_one(),
        }
        let has_room = match why {
            NoRoom::Index => !self.shared.catalog.is_full(),
            why => self.shared.log.lock().has_room(why),
        };
        if has_room {
            return Ok(());
        }
        self.wait_until(deadline, changed).await
    }

    pub(in crate::store) async fn wait_until(
        &self,
        deadline: Instant,
        changed: impl Future<Output = ()>,
    ) -> Result<(), StoreError> {
        let is_over = Instant::now() >= deadline;
        if is_over || self.shared.deadlines.in_time(pin!(changed), deadline).await.is_none() {
            count(&self.shared.counters.refused);
            return Err(StoreError::Busy("the device does not keep up"));
        }
        Ok(())
    }
}
