//! Index snapshots: directories of any fields and pieces with the checksum they should have, pieces
//! and rows of any bytes. What decodes is within the limits, survives encoding, and is of one life.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::format::{
    SNAPSHOT_DIRECTORY_LEN, SNAPSHOT_PIECE_LEN_MAX, SNAPSHOT_PIECES_MAX, SNAPSHOT_ROW_LEN, Seed,
    SnapshotDirectory, SnapshotPart, SnapshotPiece, SnapshotRow,
};

const SEED: Seed = Seed(0x51a9);
const OTHER_LIFE: Seed = Seed(0x51aa);
const HEADER_LEN: usize = 64;
const PIECE_LEN: usize = 24;

fuzz_target!(|data: &[u8]| {
    let _ = SnapshotDirectory::decode(data, SEED);
    directory(data);
    piece(data);
    rows(data);
});

/// The input as header and pieces of a directory, zeros behind it.
fn directory(data: &[u8]) {
    let mut bytes = [0; SNAPSHOT_DIRECTORY_LEN];
    let len = data.len().min(bytes.len());
    bytes[..len].copy_from_slice(&data[..len]);
    bytes[..12].copy_from_slice(b"RCSNAPSH\x01\0\0\0");
    // The number of pieces as it is, or as many as there are bytes for: most inputs name too many.
    if bytes[56] % 2 == 0 {
        let pieces = len.saturating_sub(HEADER_LEN) / PIECE_LEN;
        bytes[36..40].copy_from_slice(&(pieces as u32).to_le_bytes());
    }
    bytes[12..16].fill(0);
    let mut hasher = crc32fast::Hasher::new_with_initial(SEED.0);
    hasher.update(&u64::MAX.to_le_bytes());
    hasher.update(&bytes);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());

    let Ok(directory) = SnapshotDirectory::decode(&bytes, SEED) else { return };
    assert!(SnapshotDirectory::decode(&bytes, OTHER_LIFE).is_err());
    assert!(directory.pieces.len() <= SNAPSHOT_PIECES_MAX);
    assert!(directory.pieces.capacity() <= 2 * SNAPSHOT_PIECES_MAX);
    for piece in &directory.pieces {
        assert!((1..=SNAPSHOT_PIECE_LEN_MAX).contains(&piece.len));
        assert!(piece.offset % 16 == 0 && piece.offset < 1 << 36);
        assert!(piece.offset.checked_add(u64::from(piece.len)).is_some());
        assert!(piece.check(SEED, &[]).is_err(), "no piece is empty");
    }
    let again = directory.encode(SEED);
    assert_eq!(SnapshotDirectory::decode(&again, SEED), Ok(directory));
}

/// The input as a piece: only its own bytes, place and life pass.
fn piece(data: &[u8]) {
    let Some((offset, bytes)) = data.split_first_chunk::<4>() else { return };
    if bytes.is_empty() {
        return;
    }
    let offset = u64::from(u32::from_le_bytes(*offset)) * 16;
    let piece = SnapshotPiece::new(SnapshotPart::Regions, SEED, offset, bytes);
    assert_eq!(piece.check(SEED, bytes), Ok(()));
    assert!(piece.check(OTHER_LIFE, bytes).is_err());
    assert!(piece.check(SEED, &bytes[1..]).is_err());
    let mut damaged = bytes.to_vec();
    let at = bytes[0] as usize % bytes.len();
    damaged[at] ^= 1 << (bytes[0] % 8);
    assert!(piece.check(SEED, &damaged).is_err());
    let mut elsewhere = piece;
    elsewhere.offset ^= 16;
    assert!(elsewhere.check(SEED, bytes).is_err());
}

/// The input as the rows of all regions.
fn rows(data: &[u8]) {
    let count = (data.len() / SNAPSHOT_ROW_LEN) as u32;
    let bytes = &data[..count as usize * SNAPSHOT_ROW_LEN];
    assert!(SnapshotRow::decode_all(bytes, count + 1).is_err());
    assert!(SnapshotRow::decode_all(bytes, u32::MAX).is_err());
    let mut flags = bytes.to_vec();
    for row in flags.chunks_exact_mut(SNAPSHOT_ROW_LEN) {
        // Of 256 values of a flag two are sound.
        (row[28], row[29]) = (row[28] & 1, row[29] & 1);
    }
    for bytes in [bytes, &flags] {
        let Ok(rows) = SnapshotRow::decode_all(bytes, count) else { continue };
        assert_eq!(rows.len(), count as usize);
        let mut again = Vec::new();
        for row in &rows {
            row.encode_into(&mut again);
        }
        assert_eq!(SnapshotRow::decode_all(&again, count), Ok(rows));
    }
}
