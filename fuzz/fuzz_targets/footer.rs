//! Footers: trailers and records of any bytes, with the checksums they should have. What decodes
//! survives encoding, and never takes more memory than the input could name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::format::{FOOTER_RECORD_LEN, Footer, Seed, TOMBSTONE_LEN, TRAILER_LEN, Trailer};

const SEED: Seed = Seed(0xf007);
const ALIGNMENT: u32 = 512;

fuzz_target!(|data: &[u8]| {
    let _ = Trailer::decode(data, |_| SEED).map(|trailer| Footer::decode(data, &trailer));
    let Some(start) = data.len().checked_sub(TRAILER_LEN) else { return };
    let mut block = data.to_vec();
    // The counts as they are, small ones half of the time: most inputs name more than they have.
    if block[start + 40] % 2 == 0 {
        let records = start / FOOTER_RECORD_LEN;
        block[start + 24..start + 28].copy_from_slice(&(records as u32).to_le_bytes());
        let tombstones = start % FOOTER_RECORD_LEN / TOMBSTONE_LEN;
        block[start + 28..start + 32].copy_from_slice(&(tombstones as u32).to_le_bytes());
    }
    let count = |at: usize| {
        let bytes = block[start + at..start + at + 4].try_into().unwrap_or_default();
        u32::from_le_bytes(bytes) as usize
    };
    let payload = count(24) * FOOTER_RECORD_LEN + count(28) * TOMBSTONE_LEN;
    if payload <= start {
        let checksum = crc32fast::hash(&block[..payload]);
        block[start + 36..start + 40].copy_from_slice(&checksum.to_le_bytes());
    }
    block[start..start + 12].copy_from_slice(b"RCFOOTER\x02\0\0\0");
    block[start + 12..start + 16].fill(0);
    // The log number as it may be; reserved bytes are refused unless zero.
    let log = block[start + 44] % 2;
    block[start + 40..].fill(0);
    block[start + 44] = log;
    let mut hasher = crc32fast::Hasher::new_with_initial(SEED.0);
    hasher.update(&u64::MAX.to_le_bytes());
    hasher.update(&block[start..]);
    block[start + 12..start + 16].copy_from_slice(&hasher.finalize().to_le_bytes());

    let trailer = Trailer::decode(&block, |_| SEED).expect("its checksum is right");
    let Ok(footer) = Footer::decode(&block, &trailer) else { return };
    let named = footer.records.len() * FOOTER_RECORD_LEN + footer.tombstones.len() * TOMBSTONE_LEN;
    assert!(named <= block.len());
    let memory = footer.records.capacity() * size_of_val(&footer.records[..]).max(1)
        / footer.records.len().max(1);
    assert!(memory <= 64 + 8 * block.len(), "{memory} bytes for {}", block.len());

    let len = footer.len(ALIGNMENT);
    assert_eq!(len, trailer.footer_len(ALIGNMENT));
    let mut again = vec![0; len as usize];
    footer.encode_into(&mut again, (trailer.generation, trailer.log), SEED, trailer.stamp);
    let same = Trailer::decode(&again, |_| SEED).expect("it was encoded");
    assert_eq!((same.generation, same.stamp), (trailer.generation, trailer.stamp));
    assert_eq!(same.log, trailer.log);
    assert_eq!(Footer::decode(&again, &same), Ok(footer.clone()));
    assert!(footer.all_tombstones().count() >= footer.tombstones.len());
});
