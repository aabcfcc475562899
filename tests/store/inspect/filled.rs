//! A filled store that has ended, and what the library and the command line say of it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{Ack, Cache, CacheOptions, Condition, StoreOptions};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::SimDevice;
use rawcached::format::{Layout, Uuid};
use rawcached::inspect::{CheckEvent, CheckSummary, Finding, Inspection, Listed};
use rawcached::store::{FormatOptions, Store};

use crate::support::binary;

pub const SIZE: u64 = 8 << 20;
pub const LARGE: usize = 1_000_003;
pub const ODD_KEY: &[u8] = b"odd\\ \x00\xff";

/// A filled store that has ended, and what should be in it: body length and time of staleness.
pub struct Filled {
    pub device: SimDevice,
    pub clock: Clock,
    pub expected: BTreeMap<Vec<u8>, (u64, u32)>,
}

pub fn with_ttl(secs: u64) -> StoreOptions {
    options!(StoreOptions { ttl: Some(Duration::from_secs(secs)), ..StoreOptions::default() })
}

pub async fn put(filled: &mut Filled, cache: &Cache, key: &[u8], len: usize, ttl: u64) {
    let body = Bytes::from(vec![u8::try_from(len % 251).unwrap(); len]);
    cache.put(key, body, Condition::Always, &with_ttl(ttl)).await.unwrap();
    let until = filled.clock.now().0 + u32::try_from(ttl).unwrap();
    filled.expected.insert(key.to_vec(), (len as u64, until));
}

pub async fn open(device: &SimDevice, clock: &Clock) -> Cache {
    let options = options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() });
    let cache = Cache::open_device(device.open(), options, clock.clone()).await.unwrap();
    cache.ready().await;
    cache
}

/// Seconds that pass meanwhile.
const PASSED: i64 = 60;

/// Stores, overwrites, removes, touches and lets expire; ends with a stop or a crash.
pub async fn filled(crash: bool) -> Filled {
    let clock = Clock::manual(Timestamp(0));
    // The commands use the system's clock: this clock has caught up with it at the end.
    clock.set_wall(Clock::system().wall() - PASSED);
    let device = SimDevice::new(SIZE, 512);
    let options = options!(FormatOptions {
        alignment: Some(512),
        ..FormatOptions::default().with_uuid(Uuid([9; 16]))
    });
    Store::format(&device.open(), &options, &clock).await.unwrap();
    let cache = open(&device, &clock).await;
    let mut filled = Filled { device, clock, expected: BTreeMap::new() };
    for n in 0..300 {
        put(&mut filled, &cache, format!("key-{n}").as_bytes(), n * 7, 3600).await;
    }
    put(&mut filled, &cache, b"large", LARGE, 3600).await;
    put(&mut filled, &cache, ODD_KEY, 3, 3600).await;
    put(&mut filled, &cache, b"short", 4, 30).await;
    for n in 0..20 {
        put(&mut filled, &cache, format!("key-{n}").as_bytes(), 5000, 1800).await;
    }
    for n in 20..40 {
        let key = format!("key-{n}");
        assert!(cache.remove(key.as_bytes()).await.unwrap());
        filled.expected.remove(key.as_bytes());
    }
    // One whose region is sealed by now, and one in the open region.
    for key in ["key-50", "key-1"] {
        let until = cache.touch(key.as_bytes(), Duration::from_secs(7200)).await.unwrap().unwrap();
        filled.expected.get_mut(key.as_bytes()).unwrap().1 = until.fresh_until.0;
    }
    let last = options!(StoreOptions { ack: Some(Ack::Flushed), ..with_ttl(3600) });
    cache.put(b"last", Bytes::from_static(b"x"), Condition::Always, &last).await.unwrap();
    filled.expected.insert(b"last".to_vec(), (1, filled.clock.now().0 + 3600));
    if crash {
        filled.device.kill();
    } else {
        cache.shutdown().await.unwrap();
    }
    filled.clock.advance(Duration::from_secs(PASSED.unsigned_abs()));
    filled
}

pub async fn inspection(filled: &Filled) -> Inspection {
    Inspection::open(filled.device.open()).await.unwrap()
}

pub async fn list(filled: &Filled) -> Vec<Listed> {
    let mut listed = Vec::new();
    let inspection = inspection(filled).await;
    let each = |entry| {
        listed.push(entry);
        ControlFlow::Continue(())
    };
    let summary = inspection.list(&filled.clock, None, each).await.unwrap();
    assert_eq!(summary.listed, listed.len() as u64);
    listed
}

pub async fn check(filled: &Filled) -> (CheckSummary, Vec<Finding>) {
    let mut findings = Vec::new();
    let inspection = inspection(filled).await;
    let tell = |event: CheckEvent<'_>| {
        if let CheckEvent::Damage(finding) = event {
            findings.push(finding.clone());
        }
        ControlFlow::Continue(())
    };
    let summary = inspection.check(tell).await;
    assert_eq!(summary.damaged, findings.len() as u64);
    (summary, findings)
}

pub fn contents(filled: &Filled) -> Vec<u8> {
    filled.device.contents(0..SIZE)
}

pub fn layout() -> Layout {
    Layout::plan(SIZE, 512, None).unwrap()
}

/// Flips a bit at `offset` and gives the findings, which must name `region`.
pub async fn findings_of(filled: &Filled, region: u32, offset: u64) -> Vec<String> {
    filled.device.corrupt(offset, 0x10);
    let (_, findings) = check(filled).await;
    filled.device.corrupt(offset, 0x10);
    assert!(findings.iter().all(|found| found.region == Some(region)), "{findings:?}");
    findings.iter().map(ToString::to_string).collect()
}

pub fn expect_one(findings: &[String], region: u32, offset: u64, what: &str) {
    let expected = format!("region {region}, offset {offset}: {what}");
    assert!(findings.len() == 1 && findings[0].starts_with(&expected), "{expected}: {findings:#?}");
}

/// An image file with the contents of a simulated device.
pub struct Image(tempfile::TempDir);

impl Image {
    pub fn of(filled: &Filled) -> Image {
        let image = Image(tempfile::tempdir().unwrap());
        std::fs::write(image.path(), contents(filled)).unwrap();
        image
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.0.path().join("cache.img")
    }

    /// Runs a command on the image, which must not change it.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let before = std::fs::read(self.path()).unwrap();
        let output = command(&self.path(), arguments);
        assert!(std::fs::read(self.path()).unwrap() == before, "{arguments:?} writes nothing");
        output
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    pub fn corrupt(&self, offset: u64) {
        let mut bytes = std::fs::read(self.path()).unwrap();
        bytes[usize::try_from(offset).unwrap()] ^= 1;
        std::fs::write(self.path(), bytes).unwrap();
    }
}

pub fn command(image: &Path, arguments: &[&str]) -> Output {
    let (name, flags) = arguments.split_first().unwrap();
    let mut command = binary::rawcached();
    command.arg(name).arg(image).args(flags).env_remove("RUST_LOG").output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
