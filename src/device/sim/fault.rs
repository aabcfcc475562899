//! What can go wrong in a simulated device, and when. Owns matching; never acts.

use std::ops::Range;
use std::time::Duration;

use crate::device::OperationKind;

/// What happens to an operation that a fault strikes.
#[derive(Clone, Debug)]
pub enum Effect {
    /// It fails with this errno and changes nothing.
    Fail(i32),
    /// It transfers this many bytes, then fails with this errno.
    FailAfter(usize, i32),
    /// It transfers this many bytes at most and reports that count. Of a sector that a write did not take whole
    /// nothing is changed.
    Short(usize),
    /// The bits of the mask are flipped in the byte at this offset of the transfer.
    Corrupt(usize, u8),
    /// A write or flush reports success and changes nothing.
    Lost,
    /// A write lands at, or a read comes from, this offset instead.
    Misdirected(u64),
}

/// An effect and the operations it strikes: by default the very next one, of any kind.
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    kind: Option<OperationKind>,
    range: Option<Range<u64>>,
    skip: u64,
    repeats: bool,
}

/// How long operations take. Delayed ones need a tokio runtime; a single-threaded one with a paused
/// clock interleaves them the same way every time.
#[derive(Clone, Debug, Default)]
pub enum Delay {
    /// They complete within `submit`.
    #[default]
    None,
    /// They complete after a random number of scheduler turns, up to this many.
    Yields(u32),
    /// They complete after a random time on tokio's clock, up to this long.
    Sleep(Duration),
    /// They complete after a random number of turns or, one in `slow_one_in`, a random time, and
    /// take effect at a random moment before that.
    Anytime {
        /// Most scheduler turns.
        turns: u32,
        /// Longest time of a slow one; whole milliseconds.
        slow: Duration,
        /// One in this many operations is slow; 0 for none.
        slow_one_in: u32,
    },
}

impl Fault {
    /// A fault that strikes the next operation.
    #[must_use]
    pub fn new(effect: Effect) -> Fault {
        Fault { effect, kind: None, range: None, skip: 0, repeats: false }
    }

    /// Strikes only operations of this kind.
    #[must_use]
    pub fn on(mut self, kind: OperationKind) -> Fault {
        self.kind = Some(kind);
        self
    }

    /// Strikes only reads and writes that touch this range.
    #[must_use]
    pub fn within(mut self, range: Range<u64>) -> Fault {
        self.range = Some(range);
        self
    }

    /// Lets this many matching operations pass first.
    #[must_use]
    pub fn after(mut self, operations: u64) -> Fault {
        self.skip = operations;
        self
    }

    /// Strikes every matching operation from then on, not just one.
    #[must_use]
    pub fn always(mut self) -> Fault {
        self.repeats = true;
        self
    }

    fn matches(&self, kind: OperationKind, range: &Range<u64>) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.range.as_ref().is_none_or(|wanted| {
                kind != OperationKind::Flush && wanted.start < range.end && range.start < wanted.end
            })
    }

    /// Counts a matching operation down; true when the fault strikes.
    fn strikes(&mut self, kind: OperationKind, range: &Range<u64>) -> bool {
        if !self.matches(kind, range) {
            return false;
        }
        let due = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        due
    }
}

/// The effect that strikes this operation, and the end of faults that strike once.
pub(super) fn strike(
    faults: &mut Vec<Fault>,
    kind: OperationKind,
    range: &Range<u64>,
) -> Option<Effect> {
    let due: Vec<bool> = faults.iter_mut().map(|fault| fault.strikes(kind, range)).collect();
    let first = due.iter().position(|due| *due)?;
    if faults[first].repeats {
        return Some(faults[first].effect.clone());
    }
    Some(faults.remove(first).effect)
}
