//! Which bytes to ask the upstream for, so that none is asked for twice. Pure.

use std::ops::Range;

use super::running::Running;

/// Requests begin at multiples of this, in bytes, where they can: what a cache stores at a time.
pub(in crate::server::proxy) const GRANULE: u64 = 64 << 10;

/// The block of `block` bytes that has the byte `at`, of an object of `len` bytes.
pub(in crate::server::proxy) fn block_of(at: u64, block: u64, len: u64) -> Range<u64> {
    let start = at / block * block;
    start..start.saturating_add(block).min(len)
}

/// Whether who wants the byte `at` is to wait for `running`: it comes there soon.
pub(in crate::server::proxy) fn brings_soon(running: &Running, at: u64, block: u64) -> bool {
    let position = running.position();
    // What it has brought already may be gone again.
    position <= at && at < running.end() && at - position <= block
}

/// The range to ask for, for who wants the byte `at`: from there to the end of what is `missing` in its block,
/// without what others ask for. Requests that would come there much later are told to end before it.
pub(in crate::server::proxy) fn choose<'a>(
    at: u64,
    missing: &[Range<u64>],
    others: impl Iterator<Item = &'a Running>,
) -> Option<Range<u64>> {
    let gap = missing.iter().find(|gap| gap.contains(&at))?;
    let (mut start, mut end) = (gap.start.max(at / GRANULE * GRANULE), gap.end);
    let mut late = Vec::new();
    for other in others {
        if other.end() <= at {
            start = start.max(other.end());
        } else if other.start() > at {
            end = end.min(other.start());
        } else if other.position() <= at {
            start = start.max(other.position());
            late.push(other);
        }
    }
    for other in late {
        other.end_at(start);
    }
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 8 << 20;

    fn chosen(at: u64, missing: &[Range<u64>], others: &[Running]) -> Option<Range<u64>> {
        choose(at, missing, others.iter())
    }

    #[test]
    fn blocks_end_with_the_object() {
        assert_eq!(block_of(0, BLOCK, 100), 0..100);
        assert_eq!(block_of(BLOCK, BLOCK, 2 * BLOCK + 1), BLOCK..2 * BLOCK);
        assert_eq!(block_of(2 * BLOCK, BLOCK, 2 * BLOCK + 1), 2 * BLOCK..2 * BLOCK + 1);
    }

    #[test]
    fn what_is_asked_for_begins_near_the_byte_and_ends_with_the_gap() {
        let whole = [0..BLOCK; 1];
        assert_eq!(chosen(GRANULE + 5, &whole, &[]), Some(GRANULE..BLOCK));
        assert_eq!(chosen(5, &[2..9; 1], &[]), Some(2..9));
        assert_eq!(chosen(5, &[0..4, 6..9], &[]), None, "it is there");
    }

    #[test]
    fn nothing_is_asked_for_twice() {
        let others = [Running::new(0, 100, false), Running::new(200, 300, false)];
        assert_eq!(chosen(150, &[0..1000; 1], &others), Some(100..200));
    }

    #[test]
    fn a_request_that_is_far_behind_ends_where_another_begins() {
        let whole = Running::new(0, 100 * BLOCK, true);
        let at = 50 * BLOCK + 7;
        assert!(!brings_soon(&whole, at, BLOCK));
        assert_eq!(
            choose(at, &[50 * BLOCK..51 * BLOCK; 1], [&whole].into_iter()),
            Some(50 * BLOCK..51 * BLOCK)
        );
        assert_eq!(whole.end(), 50 * BLOCK);
        whole.stored(49 * BLOCK + 9);
        assert!(!brings_soon(&whole, 48 * BLOCK, BLOCK), "it has brought that before");
        let gone = choose(48 * BLOCK, &[48 * BLOCK..49 * BLOCK; 1], [&whole].into_iter());
        assert_eq!((gone, whole.end()), (Some(48 * BLOCK..49 * BLOCK), 50 * BLOCK));
        assert!(brings_soon(&whole, 50 * BLOCK - 1, BLOCK));
        assert!(!brings_soon(&whole, 50 * BLOCK, BLOCK), "it ends before");
    }
}
