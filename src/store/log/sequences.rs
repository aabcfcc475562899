//! Sequence numbers: which is next, and when the next epoch is due. Owns that none repeats and none is
//! drawn in an epoch that is not durable. Used under the append lock; does no I/O.

use crate::format::Sequence;
use crate::store::log::appender::Appender;

/// Sequences in one epoch; tests use fewer.
pub const PER_EPOCH: u32 = u32::MAX;
/// Fewest sequences of an epoch: what one appender draws between two checks of the rest must fit a
/// sixteenth of them.
const PER_EPOCH_MIN: u32 = 64;

/// The sequence numbers of one run of a store.
pub struct Sequences {
    /// 0 until an epoch began.
    next: Sequence,
    per_epoch: u32,
    coming: Coming,
}

/// State of the next epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coming {
    Nothing,
    /// It is in the superblock that is to be written.
    Raised,
    /// It may begin.
    Durable,
}

impl Sequences {
    /// No epoch has begun. Each has `per_epoch` sequences.
    pub fn new(per_epoch: u32) -> Sequences {
        Sequences {
            next: Sequence(0),
            per_epoch: per_epoch.max(PER_EPOCH_MIN),
            coming: Coming::Nothing,
        }
    }

    /// Whether sequences can be drawn.
    pub fn has_epoch(&self) -> bool {
        self.next > Sequence(0)
    }

    /// The sequence that is drawn next, if an epoch began.
    pub fn next(&self) -> Option<Sequence> {
        self.has_epoch().then_some(self.next)
    }

    /// The next epoch is being written to the device; true if none was before.
    pub fn begin_raising(&mut self) -> bool {
        let begins = self.coming == Coming::Nothing;
        if begins {
            self.coming = Coming::Raised;
        }
        begins
    }

    /// Whether a next epoch, durable or not, has not begun yet.
    pub fn is_raising(&self) -> bool {
        self.coming != Coming::Nothing
    }

    /// The next epoch is durable.
    pub fn note_durable(&mut self) {
        assert!(self.is_raising(), "it was raised");
        self.coming = Coming::Durable;
    }

    /// Whether an epoch may begin.
    pub fn may_begin(&self) -> bool {
        self.coming == Coming::Durable
    }

    /// Continues in an epoch that is durable.
    pub fn begin(&mut self, epoch: u32) {
        self.next = Sequence::first_of(epoch).next();
        self.coming = Coming::Nothing;
    }

    /// Whether the next epoch should be made durable: half of this one is used.
    pub fn wants_epoch(&self) -> bool {
        self.has_epoch() && !self.is_raising() && self.left() < self.per_epoch / 2
    }

    /// Whether `appender` may draw some sequences. At the end of an epoch it may not; that is reached
    /// only while the device does not take the next epoch. Clients stop before reclaim does, and the
    /// last sequences are kept for changes under way.
    pub fn has_room(&self, appender: Appender) -> bool {
        let margin = match appender {
            Appender::Client => self.per_epoch / 4,
            Appender::Removal | Appender::Reclaim => self.per_epoch / 8,
        };
        self.has_epoch() && self.left() > margin
    }

    /// Draws the next sequence.
    ///
    /// # Panics
    /// Panics if no epoch began, or it is used up: call [`Sequences::has_room`] first.
    pub fn draw(&mut self) -> Sequence {
        assert!(self.has_epoch() && self.left() > 0, "the epoch is durable and not used up");
        let drawn = self.next;
        self.next = drawn.next();
        drawn
    }

    /// Sequences left in this epoch.
    fn left(&self) -> u32 {
        let used = u32::try_from(self.next.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        self.per_epoch.saturating_sub(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_left_before_it_is_used_up() {
        let mut sequences = Sequences::new(64);
        assert!(!sequences.has_epoch() && !sequences.wants_epoch());
        assert!(sequences.begin_raising() && !sequences.begin_raising());
        sequences.begin(7);
        assert!(!sequences.is_raising());
        assert_eq!(sequences.draw(), Sequence::first_of(7).next());
        while !sequences.wants_epoch() {
            sequences.draw();
        }
        assert!(sequences.has_room(Appender::Client));
        sequences.begin_raising();
        assert!(!sequences.wants_epoch(), "one at a time");
        while sequences.has_room(Appender::Client) {
            sequences.draw();
        }
        assert!(sequences.has_room(Appender::Reclaim));
        while sequences.has_room(Appender::Reclaim) {
            sequences.draw();
        }
        let last = sequences.draw();
        assert_eq!(last.epoch(), 7);
        sequences.begin(8);
        assert!(sequences.has_room(Appender::Client) && sequences.draw() > last);
    }

    #[test]
    fn a_whole_epoch_stays_below_the_next() {
        let mut sequences = Sequences::new(PER_EPOCH);
        sequences.begin(3);
        sequences.next = Sequence(Sequence::first_of(4).0 - 3);
        assert!(sequences.wants_epoch() && !sequences.has_room(Appender::Reclaim));
        assert_eq!(sequences.draw().epoch(), 3);
    }
}
