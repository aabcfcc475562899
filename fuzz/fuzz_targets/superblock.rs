//! Superblock copies: what decodes describes a device that can be, and survives encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::format::{
    DEVICE_SIZE_MAX, Features, Locator, SUPERBLOCK_LEN, SUPERBLOCK_SPACE, Superblock,
};

fuzz_target!(|data: &[u8]| {
    let _ = (Superblock::decode(data), Locator::decode(data));
    let Some((bytes, _)) = data.split_first_chunk::<SUPERBLOCK_LEN>() else { return };
    // No input that is merely guessed has the right checksum: give it one.
    let mut bytes = *bytes;
    bytes[12..16].fill(0);
    let checksum = crc32fast::hash(&bytes);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    if let Ok(locator) = Locator::decode(&bytes) {
        assert_eq!(Locator::decode(&locator.encode()), Ok(locator));
    }
    let Ok(superblock) = Superblock::decode(&bytes) else { return };
    // What may be ignored is not kept.
    let features = Features { compatible: 0, ..superblock.features };
    let kept = Superblock { features, ..superblock };
    assert_eq!(Superblock::decode(&superblock.encode()), Ok(kept));

    let layout = superblock.layout;
    assert!((8..=1 << 20).contains(&layout.region_count));
    assert!(layout.device_size <= DEVICE_SIZE_MAX);
    assert!(layout.region_size.is_power_of_two() && layout.alignment.is_power_of_two());
    assert!(u64::from(layout.slice_size) <= layout.region_size / 4);
    let end = layout.region_offset(layout.region_count);
    let second = layout.superblock_offsets()[1];
    assert!(end <= second && second + SUPERBLOCK_SPACE <= layout.device_size);
    // An index entry can name every place.
    assert!(
        u64::from(layout.region_count) * layout.region_size / u64::from(layout.granule) < 1 << 40
    );
    assert!(superblock.block_len() <= SUPERBLOCK_SPACE);
});
