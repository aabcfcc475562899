//! Where in a region a slot may begin. Pure arithmetic, O(1).

use crate::format::{ENTRY_HEADER_LEN, SECTOR, round_up};

/// Slots up to this many bytes stay within one page, so that one page read fetches them.
pub const SMALL_SLOT_MAX: u64 = 1024;
/// Small slots do not cross a multiple of this.
pub const PAGE: u64 = 4096;

/// The first offset at or after `cursor` where a slot of `slot_len` bytes may begin:
/// on the device's granule, header within one sector, a small slot within one page.
#[must_use]
pub fn place(cursor: u64, slot_len: u64, granule: u32) -> u64 {
    let mut offset = round_up(cursor, u64::from(granule));
    if offset % SECTOR + ENTRY_HEADER_LEN as u64 > SECTOR {
        offset = round_up(offset, SECTOR);
    }
    if slot_len <= SMALL_SLOT_MAX && offset % PAGE + slot_len > PAGE {
        offset = round_up(offset, PAGE);
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_place_obeys_every_rule_and_wastes_less_than_a_small_slot(
            cursor in 0u64..1 << 26,
            len in prop_oneof![48u64..2 << 20, 48u64..1100],
            granule in prop::sample::select(vec![16, 32, 64]),
        ) {
            let offset = place(cursor, len, granule);
            prop_assert!(offset >= cursor && offset - cursor < SMALL_SLOT_MAX + SECTOR);
            prop_assert_eq!(offset % u64::from(granule), 0);
            prop_assert!(offset % SECTOR + ENTRY_HEADER_LEN as u64 <= SECTOR);
            prop_assert!(len > SMALL_SLOT_MAX || offset / PAGE == (offset + len - 1) / PAGE);
        }
    }
}
