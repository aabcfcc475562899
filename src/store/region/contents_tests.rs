//! What pieces add up to, and what becomes of damage, on a simulated device.

use super::*;
use crate::device::{Device, Effect, Fault, OperationKind, SimDevice};
use crate::format::{Layout, LogKind, Selector, Uuid};
use crate::store::log::slot::Slot;
use crate::store::mutation::request::Lifetime;

const UUID: Uuid = Uuid([3; 16]);
const GENERATION: Sequence = Sequence(1 << 32);
const REGION: u32 = 2;
const RECORD: FooterRecord = FooterRecord {
    key_hash: 0,
    sequence: GENERATION,
    offset: 4096,
    slot_len: 64,
    kind: Kind::Object,
    supersedes: false,
    keep_until: Timestamp(9),
};

fn layout(region_size: u64) -> Layout {
    let size = 9 * region_size + (256 << 10);
    Layout::plan(size, 512, Some(region_size)).unwrap()
}

fn seed() -> Seed {
    Seed::new(UUID, REGION, GENERATION)
}

fn footer(records: u64, tombstones: u64) -> Footer {
    let record = |n: u64| FooterRecord {
        key_hash: n,
        sequence: Sequence(GENERATION.0 + n),
        offset: 4096 + 64 * n,
        supersedes: n.is_multiple_of(3),
        ..RECORD
    };
    let tombstone = |n: u64| Tombstone { key_hash: !n, sequence: Sequence(n) };
    let purge_record = |n: u64| PurgeRecord {
        sequence: Sequence(n),
        what: Selector::Tag(!n),
        is_soft: n.is_multiple_of(2),
    };
    Footer {
        records: (0..records).map(record).collect(),
        tombstones: (0..tombstones).map(tombstone).collect(),
        purge_records: (0..tombstones / 2).map(purge_record).collect(),
    }
}

/// A device with this footer in a region.
fn device(layout: &Layout, footer: &Footer) -> SimDevice {
    let sim = SimDevice::new(layout.device_size, layout.alignment);
    let len = footer.len(layout.alignment);
    let mut block = vec![0; index(len)];
    footer.encode_into(&mut block, (GENERATION, LogKind::Data), seed(), Timestamp(1));
    sim.overwrite(layout.region_offset(REGION + 1) - len, &block);
    sim
}

fn reader<'a>(device: &'a Device, layout: &'a Layout) -> RegionReader<'a> {
    RegionReader { device, layout, uuid: UUID, lost_blocks_max: u64::MAX }
}

async fn verified<'a>(
    device: &'a Device,
    layout: &'a Layout,
    piece_len: u64,
) -> Result<FooterPieces<'a>, Damage> {
    let reader = reader(device, layout);
    let trailer = reader.read_tail(REGION).await.unwrap().trailer.unwrap();
    FooterPieces::verify_in(reader, (REGION, trailer), piece_len).await.unwrap()
}

/// All that is left, and the number of pieces.
async fn all(contents: &mut ContentsReader<'_>) -> (Footer, usize) {
    let (mut all, mut count) = (Footer::default(), 0);
    while let Some(piece) = contents.next().await {
        all.append(piece);
        count += 1;
    }
    (all, count)
}

#[tokio::test]
async fn the_pieces_of_a_footer_add_up_to_it_as_often_as_they_are_read() {
    let layout = layout(256 << 10);
    let counts =
        [(0, 0), (1, 0), (0, 1), (1, 1), (2, 3), (3, 3), (4, 7), (200, 1), (1, 300), (77, 55)];
    for (records, tombstones) in counts {
        let expected = footer(records, tombstones);
        let device = device(&layout, &expected).open();
        for piece_len in [48, 96, 480, 1 << 20] {
            let pieces = verified(&device, &layout, piece_len).await.unwrap();
            let of = |len: u64| usize::try_from(len.div_ceil(piece_len)).unwrap();
            let count = of(records * 24) + of(tombstones * 16) + of(tombstones / 2 * 24);
            let mut contents = ContentsReader::of_pieces(pieces);
            for _ in 0..3 {
                assert_eq!(all(&mut contents).await, (expected.clone(), count), "{piece_len}");
                assert!(contents.end().unwrap().is_none());
                contents.restart();
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_or_impossible_footer_is_refused_before_its_first_piece() {
    let layout = layout(256 << 10);
    let sound = footer(20, 20);
    for at in (0..20 * 24 + 20 * 16 + 10 * 24).step_by(7) {
        let sim = device(&layout, &sound);
        let footer = layout.region_offset(REGION + 1) - sound.len(layout.alignment);
        sim.corrupt(footer + at, 1);
        let found = verified(&sim.open(), &layout, 96).await.map(drop);
        assert!(found.is_err(), "byte {at}");
    }
    let mut impossible = sound;
    impossible.records[17].slot_len = layout.region_size;
    let found = verified(&device(&layout, &impossible).open(), &layout, 96).await.map(drop);
    assert_eq!(found, Err(Damage::Field("record")));
}

#[tokio::test]
async fn what_changes_after_a_footer_was_verified_is_a_hole_and_a_read_that_fails_once_is_none() {
    let layout = layout(256 << 10);
    let expected = footer(20, 0);
    for changes in [false, true] {
        let sim = device(&layout, &expected);
        let device = sim.open();
        let pieces = verified(&device, &layout, 96).await.unwrap();
        let mut contents = ContentsReader::of_pieces(pieces);
        sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).after(2));
        if changes {
            let start = layout.region_offset(REGION + 1) - expected.len(layout.alignment);
            sim.corrupt(start + 3 * 96 + 5, 1);
        }
        let (found, count) = all(&mut contents).await;
        let whole = if changes { 3 } else { 5 };
        assert_eq!((&found.records[..], count), (&expected.records[..4 * whole], whole));
        assert_eq!(contents.end().unwrap().is_some(), changes);
    }
}

#[tokio::test]
async fn a_scan_of_several_windows_finds_each_slot_once_as_often_as_it_is_made() {
    let layout = layout(16 << 20);
    let sim = SimDevice::new(layout.device_size, layout.alignment);
    let now = Timestamp(7);
    let lifetime = Lifetime { stored_at: now, age_secs: 0, fresh_until: now, keep_until: now };
    let body = vec![5; 1 << 20];
    let mut random = fastrand::Rng::with_seed(5);
    let (mut expected, mut at) = (Footer::default(), 512);
    let tombstones = [Tombstone { key_hash: 8, sequence: GENERATION }];
    let purge_record = PurgeRecord { sequence: GENERATION, what: Selector::Tag(9), is_soft: true };
    let purge_records = Slot::encode_purge_records(&[purge_record]);
    loop {
        let encoded = Slot::encode_tombstones(&tombstones);
        let len = if random.bool() { random.usize(..100) } else { random.usize(..body.len()) };
        let slot = match random.u8(..5) {
            0 => Slot::of_tombstones(&encoded, now),
            1 => Slot::of_purge_records(&purge_records, now),
            _ => Slot::new(Kind::Object, b"key", (&[], &body[..len]), lifetime),
        };
        if at + slot.len() > layout.region_size - 512 {
            break;
        }
        let mut bytes = vec![0; index(slot.len())];
        let header = slot.header(GENERATION, false);
        slot.write_into(&mut bytes, &header, seed(), at);
        sim.overwrite(layout.region_offset(REGION) + at, &bytes);
        if slot.kind() == Kind::Object {
            let slot_len = slot.len();
            expected.records.push(FooterRecord {
                key_hash: 3,
                offset: at,
                slot_len,
                keep_until: now,
                ..RECORD
            });
        } else if slot.kind() == Kind::PurgeRecords {
            expected.purge_records.push(purge_record);
        } else {
            expected.tombstones.extend(tombstones);
        }
        at += round_up(slot.len(), GRANULE) + GRANULE * random.u64(..3);
    }
    let device = sim.open();
    let mut contents = reader(&device, &layout).scan(REGION, GENERATION, |_, key| key.len() as u64);
    for _ in 0..2 {
        let (found, count) = all(&mut contents).await;
        assert_eq!(found, expected);
        assert!(count > 3, "{count} windows");
        assert!(!contents.is_sealed() && contents.end().unwrap().is_none());
        contents.restart();
    }
    // A region of another generation has none of these.
    let mut other = reader(&device, &layout).scan(REGION, Sequence(1 << 33), |_, _| 0);
    assert_eq!(all(&mut other).await.1, 0);
}
