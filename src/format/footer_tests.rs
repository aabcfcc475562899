//! Bytes of footers, there and back.

use super::*;
use proptest::prelude::*;

const GENERATION: Sequence = Sequence(1 << 32);
const SEED: Seed = Seed(5);

fn sample() -> Footer {
    Footer {
        records: vec![FooterRecord {
            key_hash: 0x1122_3344_5566_7788,
            sequence: Sequence(GENERATION.0 + 3),
            offset: 4096,
            slot_len: 112,
            kind: Kind::Object,
            supersedes: true,
            keep_until: Timestamp(9),
        }],
        tombstones: vec![Tombstone { key_hash: 7, sequence: Sequence(8) }],
        purge_records: Vec::new(),
    }
}

fn encoded(footer: &Footer) -> Vec<u8> {
    encoded_in(LogKind::Data, footer)
}

fn encoded_in(log: LogKind, footer: &Footer) -> Vec<u8> {
    let len = footer.len(512);
    let mut block = vec![0; usize::try_from(len).unwrap()];
    footer.encode_into(&mut block, (GENERATION, log), SEED, Timestamp(1));
    block
}

fn decoded(block: &[u8]) -> Result<Footer, Damage> {
    let trailer = Trailer::decode(block, |_| SEED)?;
    Footer::decode(block, &trailer)
}

#[test]
fn a_footer_survives_encoding() {
    assert_eq!(decoded(&encoded(&sample())), Ok(sample()));
}

#[test]
fn version_2_bytes_stay_as_they_are() {
    let block = encoded(&sample());
    assert_eq!(
        block[..40],
        *b"\x88\x77\x66\x55\x44\x33\x22\x11\x03\0\0\0\0\x01\0\0\x07\0\0\x81\x09\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0"
    );
    assert_eq!(block.len(), 512);
    assert_eq!(block[448..456], *b"RCFOOTER");
}

#[test]
fn purge_records_follow_tombstones() {
    let what = crate::format::Selector::Tag(9);
    let record = PurgeRecord { sequence: Sequence(10), what, is_soft: false };
    let footer = Footer { purge_records: vec![record; 2], ..sample() };
    let block = encoded(&footer);
    assert_eq!(decoded(&block), Ok(footer));
    let mut bytes = Vec::new();
    record.encode_into(&mut bytes);
    assert_eq!(block[40..88], bytes.repeat(2));
    assert_eq!(block[448 + 40..][..4], [2, 0, 0, 0]);
    let mut damaged = block.clone();
    damaged[41] = 1;
    assert_eq!(decoded(&damaged), Err(Damage::Checksum));
}

#[test]
fn a_trailer_says_which_log_its_region_is_of() {
    let tombstones = Footer { records: Vec::new(), ..sample() };
    for (log, number) in [(LogKind::Data, 0), (LogKind::Purges, 1)] {
        let block = encoded_in(log, &tombstones);
        assert_eq!(block[448 + 40..], [&[0; 4][..], &[number, 0, 0, 0], &[0; 16]].concat());
        assert_eq!(Trailer::decode(&block, |_| SEED).map(|trailer| trailer.log), Ok(log));
    }
    let mut block = encoded(&tombstones);
    let trailer = &mut block[448..];
    put(trailer, 44, &[2]);
    put(trailer, 12, &[0; 4]);
    let checksum = SEED.checksum_at(u64::MAX, &[trailer]);
    put(trailer, 12, &checksum.to_le_bytes());
    let refused = Trailer::decode(&block, |_| SEED);
    assert_eq!(refused, Err(Damage::Field("log number")), "it needs a feature");
}

#[test]
fn every_flipped_bit_of_the_payload_is_noticed() {
    let block = encoded(&sample());
    for bit in (0..40 * 8).chain(448 * 8..512 * 8) {
        let mut damaged = block.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decoded(&damaged).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = decoded(&bytes);
    }
}
