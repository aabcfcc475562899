//! Bytes that are kept only as long as nobody needs their memory. Owns the right to them; which ones go
//! first, the table knows.

use std::sync::Arc;

use bytes::Bytes;

use super::FairMemory;
use super::spare::Slot;
use super::table::Aftermath;

/// Bytes that are counted, and let go as soon as a sender needs memory. Dropping it gives them up.
pub(crate) struct Kept {
    memory: FairMemory,
    number: u64,
    len: usize,
    slot: Arc<Slot>,
}

impl FairMemory {
    /// Keeps bytes, each in memory of its own, if there is memory that nobody else uses: at most half of that
    /// is for all that is kept.
    pub fn keep(&self, bytes: &Bytes) -> Option<Kept> {
        let slot = Arc::new(Slot::new(Some(bytes.clone())));
        let mut after = Aftermath::default();
        let number = self.table.lock().keep(Arc::clone(&slot), bytes.len(), &mut after);
        after.settle();
        let number = number?;
        Some(Kept { memory: self.clone(), number, len: bytes.len(), slot })
    }
}

impl Kept {
    /// Bytes that were kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes, unless others needed their memory.
    pub fn bytes(&self) -> Option<Bytes> {
        self.slot.lock().clone()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut after = Aftermath::default();
        self.memory.table.lock().give_up(self.number, &mut after);
        after.settle();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use std::time::Duration;

    use super::*;

    const BYTES: u64 = 100_000;
    const LEN: usize = 20_000;

    fn piece(byte: u8) -> Bytes {
        Bytes::from(vec![byte; LEN])
    }

    fn memory() -> FairMemory {
        FairMemory::new(BYTES, 60_000, Duration::from_secs(3))
    }

    #[test]
    fn what_is_kept_is_counted_and_at_most_half_of_what_nobody_uses() {
        let memory = memory();
        let first = memory.keep(&piece(1)).unwrap();
        let second = memory.keep(&piece(2)).unwrap();
        assert_eq!((memory.used(), first.len()), (2 * LEN as u64, LEN));
        let third = memory.keep(&piece(3)).unwrap();
        assert_eq!((first.bytes(), memory.used()), (None, 2 * LEN as u64), "no more than half");
        assert_eq!(second.bytes().unwrap()[0] + third.bytes().unwrap()[0], 5);
        assert!(memory.keep(&Bytes::from(vec![4; 3 * LEN])).is_none());
        drop((first, second, third));
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_memory_gets_it_at_once_from_what_is_kept_the_oldest_first() {
        let memory = memory();
        let (first, second) = (memory.keep(&piece(1)).unwrap(), memory.keep(&piece(2)).unwrap());
        let began = tokio::time::Instant::now();
        let mut held = memory.hold(60_000);
        held.stage(&[7; 60_000]).await.unwrap();
        assert!(first.bytes().is_some() && second.bytes().is_some(), "there was room for it");
        let mut others = [memory.hold(20_000), memory.hold(20_000)];
        others[0].stage(&[7; 20_000]).await.unwrap();
        assert_eq!((first.bytes(), second.bytes()), (None, Some(piece(2))));
        others[1].stage(&[7; 20_000]).await.unwrap();
        assert_eq!((second.bytes(), memory.used()), (None, 100_000));
        assert_eq!(began.elapsed(), Duration::ZERO, "nobody waited");
        assert!(memory.keep(&piece(3)).is_none());
        drop((first, second, held, others));
        assert_eq!(memory.used(), 0);
    }
}
