//! Large objects on a full device: a store that begins succeeds at once, and its object is whole
//! for a turn of the log; a store without room is refused before it writes.

use bytes::Bytes;
use rawcached::cache::{Condition, StoreError, StoreOptions, Writer};
use rawcached::device::Delay;

use crate::rig::*;

const DISK: Disk = Disk { regions: 40, ..SMALL };
/// Lifetime of everything here: nothing expires.
const LONG: u64 = 100_000;

fn capacity(rig: &Rig) -> u64 {
    rig.stats().store.capacity_bytes
}

fn limit(rig: &Rig) -> u64 {
    rig.cache().object_len_max()
}

/// A body of so many parts in a hundred of the device.
fn share(rig: &Rig, seed: u64, per_cent: u64) -> Bytes {
    of_len(seed, capacity(rig) * per_cent / 100)
}

fn of_len(seed: u64, len: u64) -> Bytes {
    body(seed, usize::try_from(len).unwrap())
}

/// Fills a part of the device with small entries, each read once.
fn fill_and_read(rig: &Rig, per_cent: u64) {
    let count = capacity(rig) * per_cent / 100 / QUARTER as u64;
    rig.fill("small", count, LONG);
    rig.sleep(secs(2));
    for n in 0..count {
        rig.get(format!("small-{n}").as_bytes());
    }
}

/// Stores objects one by one and reads each once; each is still whole when the next is stored.
fn store_and_read(rig: &Rig, per_cent: u64, count: u64) {
    for n in 0..count {
        let large = share(rig, n, per_cent);
        rig.put(&n.to_be_bytes(), &large, &for_secs(LONG)).unwrap_or_else(|error| {
            panic!("object {n} of {per_cent} % of the device is refused: {error}")
        });
        assert!(rig.get(&n.to_be_bytes()) == Some(large.to_vec()), "object {n} is not whole");
        if n > 0 && per_cent < 30 {
            assert!(rig.get(&(n - 1).to_be_bytes()).is_some(), "object {} went at once", n - 1);
        }
    }
}

fn announced(len: u64) -> StoreOptions {
    options!(StoreOptions { len_hint: Some(len), ..for_secs(LONG) })
}

fn begin(rig: &Rig, key: &[u8], len: u64) -> Result<Writer, StoreError> {
    rig.cache().store(key, announced(len))
}

fn is_crowded<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Crowded { .. }))
}

/// Stores so many bytes of entries that are read again and again.
fn store_bytes_and_read(rig: &Rig, bytes: u64) {
    for n in 0..bytes / QUARTER as u64 {
        rig.put(format!("after-{n}").as_bytes(), &body(n, QUARTER), &for_secs(LONG)).unwrap();
        rig.sleep(millis(10));
        for known in n.saturating_sub(40)..=n {
            rig.get(format!("after-{known}").as_bytes());
        }
    }
}

#[test]
fn objects_that_are_read_once_do_not_keep_others_out() {
    for per_cent in [5, 20, 30, 45] {
        let rig = Rig::with(DISK, plain());
        store_and_read(&rig, per_cent, 300 / per_cent);
        assert_eq!(rig.stats().store.counters.refused, 0);
    }
}

#[test]
fn small_entries_that_were_read_make_room_for_large_ones() {
    for (filled, per_cent) in [(80, 20), (50, 30), (80, 5), (95, 45)] {
        let rig = Rig::with(DISK, plain());
        fill_and_read(&rig, filled);
        store_and_read(&rig, per_cent, 8);
    }
}

#[test]
fn an_object_of_the_largest_size_is_stored_and_whole() {
    for regions in [8, 9, 10, 12, 16, 40] {
        for filled in [0, 100] {
            let rig = Rig::with(Disk { regions, ..SMALL }, plain());
            fill_and_read(&rig, filled);
            for n in 0..3 {
                let large = of_len(n, limit(&rig));
                let stored = rig.put(b"large", &large, &for_secs(LONG));
                assert!(stored.is_ok(), "{regions} regions, {filled} % full, {n}: {stored:?}");
                assert!(rig.get(b"large") == Some(large.to_vec()));
                let other = rig.put(b"other", &of_len(7 + n, limit(&rig)), &for_secs(LONG));
                assert!(other.is_ok(), "{regions} regions, {filled} % full, {n}: {other:?}");
                assert!(rig.get(b"other").is_some());
            }
            let refused = begin(&rig, b"large", limit(&rig) + 1);
            assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
        }
    }
}

#[test]
fn the_largest_size_is_half_of_the_device_unless_it_has_few_regions() {
    for (regions, least) in [(8, 30), (10, 45), (12, 50), (40, 50)] {
        let rig = Rig::with(Disk { regions, ..SMALL }, plain());
        assert!((least..=50).contains(&(limit(&rig) * 100 / capacity(&rig))), "{regions} regions");
    }
}

#[test]
fn what_is_under_way_together_is_whole_and_what_is_more_is_refused_unwritten() {
    for (regions, stores) in [(8, 3), (10, 2), (40, 2), (40, 3), (40, 7)] {
        let rig = Rig::with(Disk { regions, ..SMALL }, plain());
        fill_and_read(&rig, 100);
        let len = limit(&rig) / stores;
        let large = |n: u64| of_len(n, len);
        let mut writers: Vec<Writer> =
            (0..stores).map(|n| begin(&rig, &n.to_be_bytes(), len).unwrap()).collect();
        rig.sleep(secs(2));
        let before = rig.sim.counts().bytes_written;
        assert!(is_crowded(&begin(&rig, b"more", len)));
        let more = rig.put(b"more", &large(1000), &for_secs(LONG));
        assert!(is_crowded(&more), "{more:?}");
        rig.sleep(secs(2));
        assert_eq!(rig.sim.counts().bytes_written, before, "it was refused before it was written");
        rig.run(async {
            let step = usize::try_from(len).unwrap().min(50_000);
            for at in (0..usize::try_from(len).unwrap()).step_by(step) {
                for (n, writer) in (0..).zip(&mut writers) {
                    let piece = large(n);
                    let piece = &piece[at..piece.len().min(at + step)];
                    writer.write_chunk(piece).await.unwrap();
                }
            }
            for writer in writers {
                writer.finalize(Condition::Always).await.unwrap();
            }
        });
        for n in 0..stores {
            let found = rig.get(&n.to_be_bytes());
            assert!(found == Some(large(n).to_vec()), "{n} of {stores} on {regions} regions");
        }
        rig.put(b"more", &large(1000), &for_secs(LONG)).unwrap();
    }
}

#[test]
fn a_store_of_unknown_length_grows_until_there_is_no_room() {
    let rig = Rig::with(DISK, plain());
    let slice = u64::from(rig.cache().device_store().layout().slice_size);
    let other = begin(&rig, b"other", limit(&rig) - 3 * slice).unwrap();
    let writer = rig.run(async {
        let mut writer = rig.cache().store(b"key", for_secs(LONG)).unwrap();
        for n in 0..3 {
            writer.write_chunk(&of_len(n, slice)).await.unwrap();
        }
        // The third slice is stored when the fourth begins, and the fourth has no room.
        writer.write_chunk(b"x").await.unwrap();
        let failed = writer.write_chunk(&of_len(4, slice)).await;
        assert!(is_crowded(&failed), "{failed:?}");
        writer
    });
    assert!(is_crowded(&begin(&rig, b"third", 2 * slice)), "what it has it keeps");
    drop(writer);
    drop(begin(&rig, b"third", 2 * slice).unwrap());
    drop(other);
    rig.put(b"all", &of_len(9, limit(&rig)), &for_secs(LONG)).unwrap();
}

#[test]
fn stores_that_are_given_up_leave_their_room() {
    let rig = Rig::with(DISK, plain());
    for n in 0..20 {
        rig.run(async {
            let mut writer = rig.cache().store(b"key", announced(limit(&rig))).unwrap();
            writer.write_chunk(&share(&rig, n, 20)).await.unwrap();
        });
    }
    rig.put(b"key", &of_len(1, limit(&rig)), &for_secs(LONG)).unwrap();
    assert!(rig.get(b"key").is_some());
}

#[test]
fn a_large_object_is_whole_for_a_turn_of_the_log_although_all_else_is_read() {
    for (per_cent, turned) in [(10, 50), (20, 80), (20, 100), (40, 100), (45, 100)] {
        let rig = Rig::with(DISK, plain());
        fill_and_read(&rig, 60);
        let large = share(&rig, 1, per_cent);
        rig.put(b"large", &large, &for_secs(LONG)).unwrap();
        store_bytes_and_read(&rig, capacity(&rig) * turned / 100);
        let found = rig.get(b"large");
        assert!(found == Some(large.to_vec()), "{per_cent} %, {turned} % of a turn later");
    }
}

#[test]
fn the_head_of_a_large_object_is_kept_for_a_turn_like_its_slices() {
    for (per_cent, turned) in [(10, 50), (10, 90), (20, 90)] {
        let rig = Rig::with(DISK, plain());
        fill_and_read(&rig, 60);
        let slice = u64::from(rig.cache().device_store().layout().slice_size);
        // Three slices fill a region but for 57 kB. The gap takes 40 of them, and the head is longer
        // than what is left.
        let count = capacity(&rig) * per_cent / 100 / slice / 3 * 3;
        let large = of_len(9001, count * slice);
        let metadata = body(9002, 20_000);
        let options =
            options!(StoreOptions { metadata: metadata.clone(), ..announced(count * slice) });
        let mut writer = rig.cache().store(b"large", options).unwrap();
        rig.run(writer.write_chunk(&large)).unwrap();
        rig.put(b"fills-the-gap", &body(9003, 40_000), &for_secs(LONG)).unwrap();
        rig.run(writer.finalize(Condition::Always)).unwrap();
        rig.fill("unread", 3, LONG);
        rig.sleep(secs(2));
        let region = |bytes: &[u8]| rig.region_start(rig.find(&bytes[..64]));
        assert_ne!(region(&metadata), region(&large[large.len() - 1000..]), "it is by itself");
        store_bytes_and_read(&rig, capacity(&rig) * turned / 100);
        let found = rig.get(b"large");
        assert!(found == Some(large.to_vec()), "{per_cent} %, {turned} % of a turn later");
    }
}

#[test]
fn a_large_object_goes_when_its_turn_is_over() {
    let rig = Rig::with(DISK, plain());
    rig.put(b"large", &share(&rig, 1, 40), &for_secs(LONG)).unwrap();
    rig.fill("after", 2 * capacity(&rig) / QUARTER as u64, LONG);
    assert!(rig.get(b"large").is_none());
}

#[test]
fn an_upload_that_takes_turns_of_the_log_is_stored_and_whole() {
    for (regions, per_cent) in [(10, 30), (16, 45), (40, 40)] {
        let rig = Rig::with(Disk { regions, ..SMALL }, plain());
        let large = share(&rig, 1, per_cent);
        let pieces: Vec<&[u8]> = large.chunks(30_000).collect();
        // Three turns of small entries go by.
        let between = 3 * capacity(&rig) / QUARTER as u64 / pieces.len() as u64 + 1;
        let mut writer = begin(&rig, b"large", large.len() as u64).unwrap();
        for (n, piece) in (0u64..).zip(pieces) {
            rig.run(writer.write_chunk(piece)).unwrap();
            rig.fill(&format!("during-{n}"), between, LONG);
            rig.sleep(millis(10));
        }
        rig.run(writer.finalize(Condition::Always)).unwrap();
        assert!(rig.get(b"large") == Some(large.to_vec()), "{regions} regions");
        for n in 0..capacity(&rig) / QUARTER as u64 / 4 {
            rig.fill(&format!("after-{n}"), 4, LONG);
            rig.sleep(millis(10));
        }
        assert!(rig.get(b"large") == Some(large.to_vec()), "{regions} regions, a turn later");
        let counters = rig.stats().store.counters;
        assert_eq!(counters.refused, 0);
        let written = rig.sim.counts().bytes_written;
        assert!(
            written < 4 * counters.body_bytes,
            "{regions} regions: {written} written for {}, {} moved",
            counters.body_bytes,
            counters.large_moved_bytes
        );
    }
}

#[test]
fn an_upload_that_stalls_does_not_hold_tombstones_for_ever() {
    let rig = Rig::with(DISK, plain());
    let large = share(&rig, 1, 40);
    let half = large.len() / 2;
    let mut writer = begin(&rig, b"large", large.len() as u64).unwrap();
    rig.run(writer.write_chunk(&large[..half])).unwrap();
    for round in 0..150u64 {
        for n in 0..400u64 {
            rig.put(&n.to_be_bytes(), &body(n, 200), &for_secs(LONG)).unwrap();
        }
        rig.fill(&format!("round-{round}"), 2, LONG);
        rig.sleep(millis(50));
    }
    let counters = rig.stats().store.counters;
    let each = counters.tombstones_carried / counters.regions_freed.max(1);
    assert!(each < 3000, "{each} tombstones carried for each region freed");
    rig.run(writer.write_chunk(&large[half..])).unwrap();
    rig.run(writer.finalize(Condition::Always)).unwrap();
    assert!(rig.get(b"large") == Some(large.to_vec()));
}

#[test]
fn a_store_of_which_a_slice_is_gone_writes_no_more() {
    let rig = Rig::with(DISK, plain());
    let large = share(&rig, 1, 30);
    let (first, rest) = large.split_at(large.len() / 2);
    let mut writer = begin(&rig, b"large", large.len() as u64).unwrap();
    rig.run(writer.write_chunk(first)).unwrap();
    rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap();
    rig.fill("after", capacity(&rig) / QUARTER as u64, LONG);
    rig.sleep(secs(2));
    let before = rig.sim.counts().bytes_written;
    rig.run(writer.write_chunk(rest)).unwrap();
    let stored = rig.run(writer.finalize(Condition::Always));
    assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
    rig.sleep(secs(2));
    let written = rig.sim.counts().bytes_written - before;
    assert!(written < 2 * REGION, "{written} bytes written of {}", rest.len());
}

#[test]
fn a_purge_of_everything_ends_a_store_whose_slices_are_gone() {
    let rig = Rig::with(DISK, plain());
    let large = share(&rig, 1, 30);
    let mut writer = begin(&rig, b"large", large.len() as u64).unwrap();
    rig.run(writer.write_chunk(&large)).unwrap();
    rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap();
    rig.fill("after", capacity(&rig) / QUARTER as u64, LONG);
    let stored = rig.run(writer.finalize(Condition::Always));
    assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
    assert_eq!(rig.get(b"large"), None);
}

#[test]
fn reclaim_comes_to_rest_where_moving_wins_nothing() {
    // Beside three slices there is no room for a fourth, and two leave none for a third and a header.
    for alignment in [512, 4096, 16 << 10] {
        let rig = Rig::with(Disk { regions: 14, alignment, ..SMALL }, plain());
        rig.sim.set_delay(Delay::Sleep(millis(1)));
        let kib = [512, 274, 578, 162, 333, 455, 70, 610].into_iter().cycle();
        for (n, kib) in (0u64..30).zip(kib) {
            let stored = rig.put(&n.to_be_bytes(), &of_len(n, kib << 10), &for_secs(LONG));
            assert!(stored.is_ok(), "{alignment}: {n}: {stored:?}");
            rig.sleep(secs(30));
            let before = rig.sim.counts().bytes_written;
            rig.sleep(secs(10));
            assert_eq!(rig.sim.counts().bytes_written, before, "{alignment}: after {n}");
        }
    }
}
