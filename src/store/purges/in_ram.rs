//! How old the entries in RAM only may be: no region tells of them. Owns two generations of such entries, so
//! that the bound moves on although new ones come all the time.

use crate::clock::Timestamp;
use crate::format::Sequence;

/// Some entries in RAM only.
#[derive(Clone, Copy)]
struct Bucket {
    /// Their lowest sequence.
    first: Sequence,
    /// When the last of them ends.
    end: Timestamp,
}

/// Entries in RAM only, as far as records need to know of them.
#[derive(Default)]
pub struct InRam {
    older: Option<Bucket>,
    newer: Option<Bucket>,
}

impl InRam {
    /// Notes an entry; sequences rise.
    pub fn note(&mut self, sequence: Sequence, end: Timestamp) {
        let newer = self.newer.get_or_insert(Bucket { first: sequence, end });
        newer.end = newer.end.max(end);
    }

    /// All that are not past their end have at least this sequence; `None` if there are none.
    pub fn first(&mut self, now: Timestamp) -> Option<Sequence> {
        for _ in 0..2 {
            if self.older.is_none_or(|older| older.end <= now) {
                self.older = self.newer.take();
            }
        }
        self.older.map(|older| older.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_moves_on_while_new_entries_come() {
        let mut in_ram = InRam::default();
        assert_eq!(in_ram.first(Timestamp(0)), None);
        let mut bound = 0;
        for now in 0..100 {
            in_ram.note(Sequence(1000 + u64::from(now)), Timestamp(now + 5));
            let first = in_ram.first(Timestamp(now)).unwrap().0;
            let oldest = 1000 + u64::from((now + 1).saturating_sub(5));
            assert!(first <= oldest && first >= bound, "{first} at {now}");
            bound = first;
        }
        assert!(bound >= 1085, "{bound}");
        assert_eq!(in_ram.first(Timestamp(200)), None);
    }
}
