//! Goal: the library by itself is a cache that a program can make, use, drop and open again. Method: names
//! at the crate's root (and a watch), on image files, as a program that embeds it would.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::error::Error;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use rawcached::clock::Stopwatch;
use rawcached::{
    Cache, CacheError, CacheOptions, Clock, Condition, Device, DeviceOptions, EngineKind,
    FormatError, FormatOptions, Lifetime, StoreOptions,
};
use tokio::io::AsyncReadExt as _;

const SIZE: Option<u64> = Some(64 << 20);

fn image() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    (directory, path)
}

/// A body of two slices and a bit.
fn large() -> Vec<u8> {
    (0..5_000_000_u32).map(|n| (n % 251) as u8).collect()
}

async fn create(path: &Path) -> Cache {
    let cache = Cache::create(path, SIZE, CacheOptions::default()).await.unwrap();
    cache.ready().await;
    cache
}

async fn put(cache: &Cache, key: &str, body: &[u8]) {
    let options = StoreOptions::default();
    cache.put(key.as_bytes(), body, Condition::Always, &options).await.unwrap();
}

/// Opens the cache as soon as its device is free; tells how long that took.
async fn open_when_free(path: &Path) -> (Cache, Duration) {
    let watch = Stopwatch::start();
    let cache = Cache::open(path, CacheOptions::default()).await.unwrap();
    let took = watch.elapsed();
    cache.ready().await;
    (cache, took)
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_shutdown_and_after_a_drop() {
    let (_directory, path) = image();
    let cache = create(&path).await;
    put(&cache, "small", b"one").await;
    cache.shutdown().await.unwrap();
    drop(cache);
    let (cache, _) = open_when_free(&path).await;
    assert_eq!(&cache.lookup(b"small").await.unwrap().bytes().await.unwrap()[..], b"one");
    put(&cache, "small", b"two").await;
    drop(cache);
    let (cache, took) = open_when_free(&path).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(&cache.lookup(b"small").await.unwrap().bytes().await.unwrap()[..], b"two");
}

#[tokio::test]
async fn a_clone_keeps_a_cache_open_and_the_last_one_closes_it() {
    let (_directory, path) = image();
    let cache = create(&path).await;
    let clone = cache.clone();
    drop(cache);
    put(&clone, "key", b"value").await;
    assert!(clone.lookup(b"key").await.is_some());
    let hit = clone.lookup(b"key").await.unwrap();
    drop(clone);
    drop(hit);
    let (cache, took) = open_when_free(&path).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(cache.lookup(b"key").await.is_some());
}

#[tokio::test]
async fn a_shutdown_that_nobody_waits_for_goes_on() {
    let (_directory, path) = image();
    let cache = create(&path).await;
    put(&cache, "key", b"value").await;
    // Polled once and given up.
    let given_up = tokio::time::timeout(Duration::ZERO, cache.shutdown()).await;
    assert!(given_up.is_err());
    drop(cache);
    let (cache, took) = open_when_free(&path).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(cache.lookup(b"key").await.is_some());
}

#[test]
fn a_cache_that_is_dropped_with_its_runtime_frees_the_device() {
    let (_directory, path) = image();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cache = runtime.block_on(create(&path));
    runtime.shutdown_background();
    drop(cache);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        assert!(open_when_free(&path).await.1 < Duration::from_secs(1));
    });
}

#[tokio::test]
async fn bodies_come_whole_as_streams_and_as_readers() {
    let (_directory, path) = image();
    let cache = create(&path).await;
    let body = large();
    for (key, body) in [("empty", &[][..]), ("small", &body[..100]), ("large", &body[..])] {
        put(&cache, key, body).await;
        let hit = cache.lookup(key.as_bytes()).await.unwrap();
        let pieces = hit.range(0..hit.len()).await.unwrap().into_stream();
        let pieces: Vec<_> = pieces.try_collect().await.unwrap();
        assert_eq!(pieces.concat(), body);
        let half = hit.len() / 2;
        let mut reader =
            std::pin::pin!(hit.range(half..hit.len()).await.unwrap().into_async_read());
        let mut found = Vec::new();
        reader.read_to_end(&mut found).await.unwrap();
        assert_eq!(found, body[body.len() / 2..]);
        assert_eq!(hit.bytes().await.unwrap(), body);
    }
}

/// Wakes a thread that waits without a runtime.
struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(done) => return done,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[tokio::test]
async fn a_store_in_progress_is_followed_from_threads_with_and_without_a_runtime() {
    let (_directory, path) = image();
    let cache = create(&path).await;
    let body = large();
    let mut options = StoreOptions::default();
    options.follow = true;
    let mut writer = cache.store(b"key", options).unwrap();
    let first = cache.follow(b"key").unwrap();
    let second = writer.follower().unwrap();
    let collected = std::thread::spawn(move || {
        block_on(async move {
            let pieces: Vec<_> = first.into_stream().try_collect().await.unwrap();
            pieces.concat()
        })
    });
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        second.into_stream().try_collect::<Vec<_>>().await.unwrap().concat()
    });
    for piece in body.chunks(30_000) {
        writer.write_chunk(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    writer.finalize(Condition::Always).await.unwrap();
    assert!(late.await.unwrap() == body);
    let collected = tokio::task::spawn_blocking(move || collected.join().unwrap());
    assert!(collected.await.unwrap() == body);
}

#[tokio::test]
async fn what_is_there_is_left_as_it_is() {
    let (_directory, path) = image();
    let cache = create(&path).await;
    put(&cache, "key", b"value").await;
    cache.shutdown().await.unwrap();
    drop(cache);
    let options = CacheOptions::default();
    let again = Cache::create(&path, SIZE, options).await.err().unwrap();
    assert!(matches!(again, CacheError::Image { .. }), "{again}");
    let again = Cache::create(&path, None, options).await.err().unwrap();
    assert!(matches!(again, CacheError::Refused { .. }), "{again}");
    let (cache, _) = open_when_free(&path).await;
    assert!(cache.lookup(b"key").await.is_some());

    let small = path.with_file_name("small");
    assert!(Cache::create(&small, Some(4096), options).await.is_err());
    assert!(!small.exists(), "what was begun is gone");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let other = path.with_file_name("other");
    std::fs::write(&other, vec![0; 1 << 20]).unwrap();
    assert!(matches!(Cache::open(&other, options).await.err().unwrap(), CacheError::Open(_)));
    let missing = Cache::open(path.with_file_name("missing"), options).await.err().unwrap();
    assert!(matches!(missing, CacheError::Device(_)), "{missing}");
}

#[tokio::test]
async fn options_are_made_by_default_and_changed_field_by_field() {
    let (_directory, path) = image();
    std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let mut device = DeviceOptions::new(&path);
    device.engine = EngineKind::Threads;
    let device = Device::open(&device).unwrap();
    let mut format = FormatOptions::default();
    format.size = Some(32 << 20);
    Cache::format_device(&device, &format, &Clock::system()).await.unwrap();

    let mut options = CacheOptions::default();
    options.ram_bytes = 0;
    options.range.concurrency = 2;
    let cache = Cache::open_device(device, options, Clock::system()).await.unwrap();
    cache.ready().await;
    assert_eq!((cache.options().ram_bytes, cache.options().range.concurrency), (0, 2));
    assert!(cache.stats().store.capacity_bytes < 32 << 20);
    let mut options = StoreOptions::default();
    options.ttl = Some(Duration::from_secs(60));
    options.metadata = "text/plain".into();
    cache.put(b"key", b"value", Condition::Always, &options).await.unwrap();
    let hit = cache.lookup(b"key").await.unwrap();
    assert_eq!(hit.metadata(), b"text/plain");
    let Lifetime { stored_at, fresh_until, .. } = hit.lifetime();
    assert_eq!(fresh_until.since(stored_at), Duration::from_secs(60));
}

/// The messages of an error and of its causes.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut said = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    said
}

#[tokio::test]
async fn no_error_says_what_its_cause_says() {
    let (_directory, path) = image();
    drop(create(&path).await);
    let options = CacheOptions::default();
    let mut no_reads = options;
    no_reads.range.concurrency = 0;
    let mut device = DeviceOptions::new(&path);
    device.alignment = Some(1);
    let mut format = FormatOptions::default();
    format.region_size = Some(1);
    let errors: [(Box<dyn Error>, &str, usize); 6] = [
        (Box::new(Cache::create(&path, SIZE, options).await.unwrap_err()), "cannot make", 2),
        (Box::new(Cache::create(&path, None, options).await.unwrap_err()), "left as it is", 1),
        (Box::new(Cache::open(path.join("x"), options).await.unwrap_err()), "cannot be opened", 2),
        (Box::new(Cache::open(&path, no_reads).await.unwrap_err()), "must not be zero", 1),
        (Box::new(Device::open(&device).unwrap_err()), "cannot be used in blocks of 1 bytes", 1),
        (Box::new(format_image(&path, &format).await.unwrap_err()), "region size 1 must be", 1),
    ];
    for (error, text, len) in errors {
        let said = chain(&*error);
        assert!(said[0].contains(text) && said.len() == len, "{said:?}");
        for (n, cause) in said.iter().enumerate().skip(1) {
            assert!(said[..n].iter().all(|text| !text.contains(cause)), "{said:?}");
        }
    }
}

async fn format_image(path: &Path, options: &FormatOptions) -> Result<(), FormatError> {
    let device = Device::open(&DeviceOptions::new(path)).unwrap();
    Cache::format_device(&device, options, &Clock::system()).await
}

#[test]
fn every_type_can_be_shown_and_errors_are_errors() {
    fn shown<T: std::fmt::Debug + Send>() {}
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    shown::<(rawcached::Ack, rawcached::BodyReader, Cache, CacheOptions, rawcached::CacheStats)>();
    shown::<(rawcached::Follower, rawcached::FollowError)>();
    shown::<(Condition, rawcached::Hit, rawcached::Lifetime, rawcached::RangeOptions)>();
    shown::<(StoreOptions, rawcached::Stored, rawcached::Tier, rawcached::Writer)>();
    shown::<(rawcached::Clock, rawcached::Timestamp, rawcached::Device, rawcached::DeviceOptions)>(
    );
    shown::<(
        rawcached::EngineKind,
        rawcached::IoMode,
        rawcached::FormatOptions,
        rawcached::StoreStats,
    )>();
    error::<CacheError>();
    error::<rawcached::FollowError>();
    error::<rawcached::StoreError>();
    error::<rawcached::TruncatedBody>();
    error::<rawcached::ZeroRangeOption>();
    error::<rawcached::DeviceError>();
    error::<rawcached::DeviceOpenError>();
    error::<rawcached::FormatError>();
    error::<rawcached::OpenError>();
}
