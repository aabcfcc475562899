//! What fits and what it costs: any size, any key, any alignment, no leak.

use bytes::Bytes;
use rawcached::cache::{CacheOptions, Condition, StoreError, StoreOptions};

use crate::rig::*;

/// Streams `body` in pieces of the lengths given, over and over, and reads it back.
fn streamed(rig: &Rig, bytes: &Bytes, lengths: &[usize]) {
    rig.run(async {
        let mut writer = rig.cache().store(b"stream", for_secs(1000)).unwrap();
        let (mut at, mut turn) = (0, 0);
        while at < bytes.len() {
            let len = lengths[turn % lengths.len()].min(bytes.len() - at);
            writer.write_chunk(&bytes[at..at + len]).await.unwrap();
            (at, turn) = (at + len, turn + 1);
        }
        writer.finalize(Condition::Always).await.unwrap();
    });
    assert!(rig.get(b"stream").unwrap() == bytes[..], "{} bytes by {lengths:?}", bytes.len());
}

#[test]
fn any_sequence_of_chunks_gives_the_exact_body() {
    let rig = Rig::new();
    for lengths in [&[4096][..], &[4096, 1000], &[1000, 16_384], &[0, 100, 0], &[65_536], &[1]] {
        streamed(&rig, &body(1, 10_000), lengths);
    }
    for len in [0, 1, 65_535, 65_536, 65_537, 131_072, 300_001] {
        streamed(&rig, &body(2, len), &[4096, 1000]);
        streamed(&rig, &body(2, len), &[1 << 20]);
    }
}

#[test]
fn an_object_of_several_hundred_mebibytes_is_streamed_through_bounded_memory() {
    let disk = Disk { regions: 40, region_size: 32 << 20, alignment: 4096 };
    let rig = Rig::with(disk, options!(CacheOptions { write_buffer_bytes: 4 << 20, ..plain() }));
    let piece = body(5, 777_777);
    let len = 300 << 20;
    rig.run(async {
        let mut writer = rig.cache().store(b"huge", for_secs(1000)).unwrap();
        let mut written = 0;
        while written < len {
            let take = piece.len().min(len - written);
            writer.write_chunk(&piece[..take]).await.unwrap();
            written += take;
        }
        writer.finalize(Condition::Always).await.unwrap();
        let mut hit = rig.cache().lookup(b"huge").await.unwrap();
        assert_eq!(hit.len(), len as u64);
        let mut read = 0;
        while let Some(chunk) = hit.next_chunk().await.unwrap() {
            let mut at = 0;
            while at < chunk.len() {
                let from = (read + at) % piece.len();
                let take = (piece.len() - from).min(chunk.len() - at);
                assert!(chunk[at..at + take] == piece[from..from + take]);
                at += take;
            }
            read += chunk.len();
        }
        assert_eq!(read, len);
    });
    assert_eq!(rig.stats().write_buffer_bytes, 0);
}

#[test]
fn keys_are_any_bytes_from_1_to_4096() {
    let mut rig = Rig::new();
    let keys: Vec<Vec<u8>> = [1, 2, 15, 16, 250, 1000, 4095, 4096]
        .iter()
        .flat_map(|len| [vec![0; *len], vec![0xFF; *len], body(9, *len).to_vec()])
        .collect();
    for (n, key) in keys.iter().enumerate() {
        rig.put(key, &body(n as u64, 50), &for_secs(1000)).unwrap();
    }
    rig.sleep(secs(2));
    rig.kill();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(rig.get(key).unwrap(), body(n as u64, 50), "key of {} bytes", key.len());
    }
    for bad in [vec![], vec![1; 4097]] {
        let refused = rig.put(&bad, &body(1, 1), &for_secs(10));
        assert!(matches!(refused, Err(StoreError::KeyLen(_))));
    }
}

#[test]
fn metadata_of_64_kib_comes_back() {
    let mut rig = Rig::new();
    for len in [10, 60_000, 200_000] {
        let options = options!(StoreOptions { metadata: body(3, 64 << 10), ..flushed() });
        rig.put(b"key", &body(1, len), &options).unwrap();
        rig.kill();
        let hit = rig.run(rig.cache().lookup(b"key")).unwrap();
        assert_eq!(hit.metadata(), body(3, 64 << 10));
        assert_eq!(rig.get(b"key").unwrap(), body(1, len));
    }
    let options = options!(StoreOptions { metadata: body(3, (64 << 10) + 1), ..flushed() });
    let refused = rig.put(b"key", &body(1, 1), &options);
    assert!(matches!(refused, Err(StoreError::MetadataLen(_))));
}

#[test]
fn overwriting_a_key_1000_times_leaks_nothing() {
    let rig = Rig::new();
    for n in 0..1000 {
        rig.put(b"key", &body(n, 20_000), &for_secs(1000)).unwrap();
    }
    assert_eq!(rig.get(b"key").unwrap(), body(999, 20_000));
    let stats = rig.stats().store;
    assert_eq!(stats.entries, 1);
    assert!(stats.live_bytes < 30_000, "{} live bytes", stats.live_bytes);
    rig.cache().device_store().check_accounting();
    rig.remove(b"key").unwrap();
    let stats = rig.stats().store;
    assert_eq!((stats.entries, stats.live_bytes), (0, 0));
    rig.sleep(secs(2));
    assert!(rig.stats().store.regions_free >= 2);
}

#[test]
fn a_full_cache_never_refuses_for_space() {
    let rig = Rig::new();
    for n in 0..600u64 {
        let len = [100, QUARTER, 5000, 200_000][usize::try_from(n % 4).unwrap()];
        rig.put(format!("key-{n}").as_bytes(), &body(n, len), &for_secs(1000)).unwrap();
        if n > 0 {
            assert!(rig.get(format!("key-{}", n - 1).as_bytes()).is_some(), "the last one hits");
        }
    }
    let counters = rig.stats().store.counters;
    assert!(counters.evicted > 100 && counters.refused == 0, "{counters:?}");
}

#[test]
fn deletes_alone_do_not_fill_the_device_up() {
    let rig = Rig::new();
    for n in 0..1500 {
        rig.put(b"key", &body(n, 100), &for_secs(1000)).unwrap();
        assert!(rig.remove(b"key").unwrap(), "delete {n}");
    }
    rig.put(b"key", &body(1, QUARTER), &for_secs(1000)).unwrap();
}

#[test]
fn every_alignment_from_512_to_65536_works() {
    for alignment in (9..=16).map(|bits| 1 << bits) {
        let region_size = REGION.max(u64::from(alignment) * 16);
        let disk = Disk { regions: 10, region_size, alignment };
        let mut rig = Rig::with(disk, plain());
        for n in 0..200u64 {
            let len = [100, 3000, QUARTER][usize::try_from(n % 3).unwrap()];
            rig.put(format!("key-{n}").as_bytes(), &body(n, len), &for_secs(1000)).unwrap();
        }
        rig.put(b"last", &body(7, 300_000), &flushed()).unwrap();
        rig.run(rig.cache().touch(b"last", secs(500))).unwrap().unwrap();
        rig.kill();
        assert_eq!(rig.get(b"last").unwrap(), body(7, 300_000), "alignment {alignment}");
        for n in 0..200u64 {
            let len = [100, 3000, QUARTER][usize::try_from(n % 3).unwrap()];
            let found = rig.get(format!("key-{n}").as_bytes());
            assert!(found.is_none_or(|found| found == body(n, len)));
        }
        rig.cache().device_store().check_accounting();
    }
}

/// What optional records of an entry may not add to entries that have none.
#[test]
fn plain_entries_cost_what_their_slots_take() {
    const COUNT: u64 = 20_000;
    let rig = Rig::with(Disk { regions: 40, region_size: 1 << 20, alignment: 512 }, plain());
    let bytes = body(1, 410);
    for n in (0..COUNT).chain(0..COUNT / 3) {
        rig.put(format!("key-{n:08}").as_bytes(), &bytes, &for_secs(1000)).unwrap();
    }
    rig.sleep(secs(5));
    let stored = (COUNT + COUNT / 3) * bytes.len() as u64;
    let written = rig.sim.counts().bytes_written as f64 / stored as f64;
    let store = rig.stats().store;
    let of_index = store.index_bytes as f64 / store.entries as f64;
    println!("bytes written for each byte of 410-byte bodies: {written:.4}");
    println!("bytes of the index for each of {} entries: {of_index:.3}", store.entries);
    assert!(written < 1.31 && of_index < 33.5, "{written} {of_index}");
}
