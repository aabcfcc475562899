//! Goal: large ranges are read in parallel and are exact, bounded in memory and cut short rather
//! than wrong. Method: objects on a simulated device, read through small windows of every kind,
//! with faults, delays and readers that give up. `RAWCACHED_TEST_SEED=n` replays a failure.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{
    Ack, BodyReader, Cache, CacheOptions, RangeOptions, RangeStats, StoreOptions, TruncatedBody,
};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::{Delay, Effect, Fault, OperationKind, SimDevice};
use rawcached::format::Uuid;
use rawcached::store::{FormatOptions, Store};
use tokio::runtime::Runtime;

const KEY: &[u8] = b"video";
const MIB: usize = 1 << 20;

struct Rig {
    sim: SimDevice,
    cache: Cache,
    runtime: Runtime,
}

fn always_parallel() -> RangeOptions {
    options!(RangeOptions { threshold: 1, ..RangeOptions::default() })
}

fn options(range: RangeOptions) -> CacheOptions {
    options!(CacheOptions { ram_bytes: 0, range, ..CacheOptions::default() })
}

impl Rig {
    fn new(megabytes: u64, alignment: u32, options: CacheOptions) -> Rig {
        crate::support::log::init();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let sim = SimDevice::new(megabytes << 20, alignment);
        let clock = Clock::manual(Timestamp(1_000_000));
        let format = options!(FormatOptions {
            alignment: Some(alignment),
            region_size: Some(4 << 20),
            ..FormatOptions::default().with_uuid(Uuid([7; 16]))
        });
        let cache = runtime.block_on(async {
            Store::format(&sim.open(), &format, &clock).await.unwrap();
            let cache = Cache::open_device(sim.open(), options, clock).await.unwrap();
            cache.ready().await;
            cache
        });
        Rig { sim, cache, runtime }
    }

    fn run<T>(&self, step: impl Future<Output = T>) -> T {
        let limit = Duration::from_secs(100_000);
        self.runtime.block_on(async { tokio::time::timeout(limit, step).await }).expect("hung")
    }

    /// Stores an object and waits until all of it is on the device.
    fn store(&self, body: &[u8]) {
        self.run(async {
            let options =
                options!(StoreOptions { ack: Some(Ack::Flushed), ..StoreOptions::default() });
            let mut writer = self.cache.store(KEY, options).unwrap();
            for chunk in body.chunks(700_001) {
                writer.write_chunk(chunk).await.unwrap();
            }
            writer.finalize(rawcached::cache::Condition::Always).await.unwrap();
            // The open region is read from memory: fill it up.
            let mut filler = self.cache.store(b"filler", StoreOptions::default()).unwrap();
            filler.write_chunk(&vec![0; 5 * MIB]).await.unwrap();
            filler.finalize(rawcached::cache::Condition::Always).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
    }

    async fn open(&self, range: Range<u64>) -> Result<BodyReader, TruncatedBody> {
        self.cache.lookup_head(KEY).await.unwrap().range(range).await
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, TruncatedBody> {
        self.run(async { all(&mut self.open(range).await?).await })
    }

    fn stats(&self) -> RangeStats {
        self.cache.stats().store.ranges
    }
}

async fn all(reader: &mut BodyReader) -> Result<Vec<u8>, TruncatedBody> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next_chunk().await? {
        assert!(!chunk.is_empty() && chunk.len() <= MIB);
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn body(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    Bytes::from(bytes)
}

fn seed() -> u64 {
    let seed = std::env::var("RAWCACHED_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("RAWCACHED_TEST_SEED={seed}");
    seed
}

/// Where on the device a stretch of the stored body is.
fn find(sim: &SimDevice, size: u64, needle: &[u8]) -> u64 {
    let contents = sim.contents(0..size);
    let at = contents.windows(needle.len()).position(|window| window == needle).unwrap();
    at as u64
}

#[test]
fn any_range_is_exact_whatever_the_window() {
    let mut rng = fastrand::Rng::with_seed(seed());
    for round in 0..24 {
        let alignment = [512, 4096, 65536][round % 3];
        let range = options!(RangeOptions {
            threshold: 1,
            chunk_size: [1, 4096, 100_000, MIB, 5 * MIB][rng.usize(0..5)],
            concurrency: rng.usize(1..20),
            ..RangeOptions::default()
        });
        let rig = Rig::new(
            64,
            alignment,
            options!(CacheOptions {
                range_buffer_bytes: [0, 200_000, 64 << 20][rng.usize(0..3)],
                ..options(range)
            }),
        );
        rig.sim.set_delay(Delay::Sleep(Duration::from_millis(5)));
        let len = rng.usize(MIB + 1..9 * MIB);
        let bytes = body(rng.u64(..), len);
        rig.store(&bytes);
        for _ in 0..12 {
            let start = rng.usize(0..len);
            let end = if rng.bool() { len } else { rng.usize(start..=len) };
            let got = rig.read(start as u64..end as u64).unwrap();
            assert!(got == bytes[start..end], "{start}..{end} of {len}, {range:?}");
        }
        assert_eq!(rig.stats().retries, 0);
        assert_eq!(rig.stats().buffer_bytes, 0, "a buffer leaked");
    }
}

#[test]
fn awkward_sizes_and_offsets_are_exact() {
    for len in [0, MIB, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 100 * MIB] {
        let rig = Rig::new(256, 4096, options(RangeOptions::default()));
        let bytes = body(len as u64, len);
        rig.store(&bytes);
        for start in [0, 5, 69 * MIB] {
            let expected = bytes.get(start..).unwrap_or_default();
            let got = rig.read(start as u64..u64::MAX).unwrap();
            assert!(got == expected, "{start}.. of {len}: {} bytes", got.len());
        }
        let parallel = rig.stats().ranges;
        assert_eq!(parallel > 0, len >= 16 * MIB, "{parallel} parallel ranges of {len} bytes");
    }
}

#[test]
fn a_range_of_the_threshold_is_really_read_in_parallel() {
    let rig = Rig::new(64, 4096, options(RangeOptions::default()));
    rig.store(&body(1, 16 * MIB));
    rig.sim.set_delay(Delay::Sleep(Duration::from_millis(10)));
    let before = rig.sim.counts().in_flight_max;
    rig.read(0..u64::MAX).unwrap();
    let reads = rig.sim.counts().in_flight_max;
    assert!(before < 12 && reads >= 12, "{reads} reads at once, {before} operations before");

    let rig = Rig::new(
        64,
        4096,
        options(options!(RangeOptions { parallel: false, ..always_parallel() })),
    );
    rig.store(&body(1, 16 * MIB));
    rig.sim.set_delay(Delay::Sleep(Duration::from_millis(10)));
    rig.read(0..u64::MAX).unwrap();
    assert_eq!(rig.stats().ranges, 0, "it is turned off");
}

#[test]
fn no_block_is_read_twice() {
    for alignment in [512u64, 4096, 65536] {
        let small = options!(RangeOptions { chunk_size: 128 << 10, ..always_parallel() });
        let rig = Rig::new(64, u32::try_from(alignment).unwrap(), options(small));
        rig.store(&body(3, 6 * MIB));
        let hit = rig.run(rig.cache.lookup_head(KEY)).unwrap();
        let before = rig.sim.counts().bytes_read;
        let mut reader = rig.run(hit.range(0..u64::MAX)).unwrap();
        rig.run(all(&mut reader)).unwrap();
        let read = rig.sim.counts().bytes_read - before;
        // Six slots of 1 MiB and 128 bytes; they may begin anew in another region.
        let slots = 6 * (MIB as u64 + 128);
        let most = slots + 2 * alignment * (1 + slots / (4 << 20) + 1);
        assert!((slots..=most).contains(&read), "{read} bytes read for {slots}");
    }
}

#[test]
fn a_small_range_of_a_large_object_reads_little() {
    let rig = Rig::new(64, 4096, options(always_parallel()));
    let bytes = body(4, 8 * MIB);
    rig.store(&bytes);
    let hit = rig.run(rig.cache.lookup_head(KEY)).unwrap();
    let before = rig.sim.counts().bytes_read;
    let start = 5 * MIB + 300_000;
    let mut reader = rig.run(hit.range(start as u64..start as u64 + 1000)).unwrap();
    assert!(rig.run(all(&mut reader)).unwrap() == bytes[start..start + 1000]);
    let read = rig.sim.counts().bytes_read - before;
    assert!(read <= (64 << 10) + 4 * 4096, "{read} bytes read for 1000");
}

#[test]
fn damage_ends_a_range_before_the_first_wrong_byte() {
    let size = 64 << 20;
    for damaged_at in [0, 100_000, 3 * MIB + 17, 8 * MIB - 1] {
        let rig = Rig::new(64, 4096, options(always_parallel()));
        let bytes = body(5, 8 * MIB);
        rig.store(&bytes);
        let needle = &bytes[damaged_at.min(8 * MIB - 16)..][..16];
        rig.sim.corrupt(find(&rig.sim, size, needle) + 1, 0x10);
        let mut got = Vec::new();
        let ended = rig.run(async {
            let mut reader = rig.open(0..u64::MAX).await?;
            while let Some(chunk) = reader.next_chunk().await? {
                got.extend_from_slice(&chunk);
            }
            Ok::<_, TruncatedBody>(())
        });
        assert!(ended.is_err(), "damage at {damaged_at}");
        assert!(bytes.starts_with(&got) && got.len() <= damaged_at + 1);
        assert!(rig.cache.stats().store.counters.damaged > 0);
        assert!(rig.run(rig.cache.lookup(KEY)).is_none(), "the object is dropped");
    }
}

#[test]
fn a_transfer_that_went_wrong_once_is_read_again() {
    for effect in [Effect::Fail(libc::EIO), Effect::Corrupt(70_000, 1), Effect::Misdirected(65536)]
    {
        let rig = Rig::new(64, 4096, options(always_parallel()));
        let bytes = body(6, 8 * MIB);
        rig.store(&bytes);
        let hit = rig.run(rig.cache.lookup_head(KEY)).unwrap();
        rig.sim.inject(Fault::new(effect.clone()).on(OperationKind::Read).after(3));
        let mut reader = rig.run(hit.range(0..u64::MAX)).unwrap();
        assert!(rig.run(all(&mut reader)).unwrap() == bytes, "{effect:?}");
        assert!(rig.stats().retries > 0, "{effect:?}");
    }
}

#[test]
fn short_reads_are_continued() {
    let rig = Rig::new(64, 4096, options(always_parallel()));
    let bytes = body(7, 8 * MIB);
    rig.store(&bytes);
    rig.sim.inject(Fault::new(Effect::Short(8192)).on(OperationKind::Read).always());
    assert!(rig.read(0..u64::MAX).unwrap() == bytes);
}

#[test]
fn a_device_that_does_not_answer_ends_the_range_in_time() {
    let slow = options!(RangeOptions { timeout: Duration::from_secs(2), ..always_parallel() });
    let rig = Rig::new(64, 4096, options(slow));
    rig.store(&body(8, 8 * MIB));
    let hit = rig.run(rig.cache.lookup_head(KEY)).unwrap();
    let mut reader = rig.run(hit.range(0..u64::MAX)).unwrap();
    rig.sim.set_delay(Delay::Sleep(Duration::from_secs(1000)));
    rig.run(async {
        let begun = tokio::time::Instant::now();
        assert!(all(&mut reader).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    });
    assert_eq!(rig.stats().timeouts, 1);
    assert!(rig.run(reader.next_chunk()).is_err(), "it has ended");
    drop(reader);
    assert_eq!(rig.stats().cancelled, 0, "its caller did not give it up");
    assert!(rig.stats().buffer_bytes > 0, "the device still has the buffers");
    rig.run(async { tokio::time::sleep(Duration::from_secs(1001)).await });
    assert_eq!(rig.stats().buffer_bytes, 0, "a buffer leaked");
}

#[test]
fn a_dropped_reader_gives_everything_back() {
    let rig = Rig::new(64, 4096, options(always_parallel()));
    rig.store(&body(9, 16 * MIB));
    rig.sim.set_delay(Delay::Sleep(Duration::from_millis(10)));
    let bytes_read = || rig.sim.counts().bytes_read;
    let before = bytes_read();
    rig.run(async {
        for chunks in 0..6 {
            let mut reader = rig.open(0..u64::MAX).await.unwrap();
            for _ in 0..chunks {
                reader.next_chunk().await.unwrap().unwrap();
            }
        }
        let begun = rig.sim.counts().reads;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(rig.sim.counts().reads, begun, "nothing is begun for a reader that is gone");
    });
    let read = bytes_read() - before;
    assert!(read < 6 * 16 * MIB as u64 / 4, "{read} bytes were read of six times 16 MiB");
    assert_eq!(rig.stats().buffer_bytes, 0);
    assert_eq!(rig.stats().cancelled, 6);
}

#[test]
fn nothing_is_given_after_a_gap() {
    let bytes = body(13, 8 * MIB);
    let small = options!(RangeOptions { chunk_size: 128 << 10, ..always_parallel() });
    let rig = Rig::new(64, 4096, options(small));
    rig.store(&bytes);
    rig.sim.set_delay(Delay::Sleep(Duration::from_millis(20)));
    for given in 0..12 {
        let mut reader = rig.run(rig.open(0..u64::MAX)).unwrap();
        let mut got = Vec::new();
        for _ in 0..given {
            got.extend_from_slice(&rig.run(reader.next_chunk()).unwrap().unwrap());
        }
        // Like a caller that also waits for something else.
        let mut wait = async || {
            let limit = Duration::from_millis(1);
            tokio::time::timeout(limit, reader.next_chunk()).await
        };
        while let Ok(piece) = rig.run(wait()) {
            got.extend_from_slice(&piece.unwrap().expect("it was cut off before the end"));
        }
        let cut_off_at = got.len();
        let _ = rig.run(async {
            while let Some(piece) = reader.next_chunk().await? {
                got.extend_from_slice(&piece);
            }
            Ok::<_, TruncatedBody>(())
        });
        assert!(bytes.starts_with(&got), "later bytes after {cut_off_at}");
    }
}

#[test]
fn readers_without_number_share_one_budget_and_all_go_on() {
    let range_buffer_bytes = 2 << 20;
    let rig = Rig::new(
        64,
        4096,
        options!(CacheOptions { range_buffer_bytes, ..options(always_parallel()) }),
    );
    let bytes = body(10, 8 * MIB);
    rig.store(&bytes);
    rig.sim.set_delay(Delay::Sleep(Duration::from_millis(1)));
    rig.run(async {
        let mut stuck = Vec::new();
        for _ in 0..100 {
            let mut reader = rig.open(0..u64::MAX).await.unwrap();
            let held = reader.next_chunk().await.unwrap().unwrap();
            stuck.push((reader, held));
        }
        assert!(rig.stats().buffer_bytes <= range_buffer_bytes);
        let mut late = rig.open(0..u64::MAX).await.unwrap();
        assert!(all(&mut late).await.unwrap() == bytes, "behind a hundred that do not move");
        assert!(rig.stats().buffer_bytes <= range_buffer_bytes);
    });
    rig.run(async { tokio::time::sleep(Duration::from_secs(1)).await });
    assert_eq!(rig.stats().buffer_bytes, 0);
}

#[test]
fn a_reader_that_takes_its_time_holds_little() {
    let rig = Rig::new(64, 4096, options(always_parallel()));
    rig.store(&body(11, 16 * MIB));
    rig.sim.set_delay(Delay::Sleep(Duration::from_millis(1)));
    rig.run(async {
        let mut reader = rig.open(0..u64::MAX).await.unwrap();
        let _held = reader.next_chunk().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let most = rig.run(async {
        let mut reader = rig.open(0..u64::MAX).await.unwrap();
        let mut most = 0;
        for _ in 0..4 {
            let _chunk = reader.next_chunk().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            most = most.max(rig.stats().buffer_bytes);
        }
        most
    });
    assert!(most <= 3 << 20, "{most} bytes ahead of a slow reader");
}

#[test]
fn what_is_still_in_memory_is_given_too() {
    let rig = Rig::new(64, 4096, options(always_parallel()));
    let bytes = body(12, 8 * MIB);
    rig.run(async {
        let mut writer = rig.cache.store(KEY, StoreOptions::default()).unwrap();
        writer.write_chunk(&bytes).await.unwrap();
        writer.finalize(rawcached::cache::Condition::Always).await.unwrap();
        let mut reader = rig.open(0..u64::MAX).await.unwrap();
        assert!(all(&mut reader).await.unwrap() == bytes);
    });
}

#[test]
fn zeros_are_refused() {
    let good = RangeOptions::default();
    let zeros = [
        options!(RangeOptions { threshold: 0, ..good }),
        options!(RangeOptions { chunk_size: 0, ..good }),
        options!(RangeOptions { concurrency: 0, ..good }),
        options!(RangeOptions { timeout: Duration::ZERO, ..good }),
    ];
    assert!(good.check().is_ok() && zeros.iter().all(|zero| zero.check().is_err()));
    let rig = Rig::new(64, 512, options(good));
    rig.store(&body(1, 3 * MIB));
    let mut hit = rig.run(rig.cache.lookup_head(KEY)).unwrap();
    assert!(zeros.iter().all(|zero| hit.set_range_options(*zero).is_err()));
    assert!(hit.set_range_options(always_parallel()).is_ok());
    let mut reader = rig.run(hit.range(5..2_000_000)).unwrap();
    assert_eq!(rig.run(all(&mut reader)).unwrap(), body(1, 3 * MIB)[5..2_000_000]);
    assert_eq!(rig.stats().ranges, 1, "the options of the hit count");
    let opened = rig.run(Cache::open_device(
        rig.sim.open(),
        options(zeros[0]),
        Clock::manual(Timestamp(1_000_000)),
    ));
    assert!(opened.is_err_and(|error| error.to_string().contains("must not be zero")));
}
