//! Rules for single settings and for combinations. Owns the limits of every setting, and their reasons.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::broken::{Check, require, size_in};
use super::check_listeners::{CONNECTIONS_MAX, listeners};
use super::check_proxies::proxies;
use super::memory::MAX_MIN;
use super::{AutoSize, Config, MAX_APPEND_COPY};
use crate::clock::LIFETIME_MAX;
use crate::units::{ByteSize, Period};

const DAY: Duration = Duration::from_secs(86_400);
/// The resolution of stamps on the device.
const TTL_MIN: Duration = Duration::from_secs(1);
const WORKERS_MAX: u32 = 1024;
const READ_DEADLINE: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);
/// The shortest timeout that a client of a busy machine can keep.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const OBJECT_SIZE: RangeInclusive<u64> = 1 << 10..=1 << 40;
const RAM_SIZE_MIN: u64 = 1 << 20;
const RAM_SIZE_MAX: u64 = 64 << 40;
/// The smallest image that has room for a few regions.
const IMAGE_SIZE: RangeInclusive<u64> = 16 << 20..=crate::format::DEVICE_SIZE_MAX;
const REGION_SIZE: RangeInclusive<u64> = 256 << 10..=1 << 30;
const RANGE_THRESHOLD: RangeInclusive<u64> = 64 << 10..=1 << 40;
/// From what one checksum covers to what a device takes in a few requests.
const RANGE_CHUNK_SIZE: RangeInclusive<u64> = 64 << 10..=64 << 20;
const RANGE_CONCURRENCY_MAX: u32 = 1024;
const RANGE_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const RANGE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const MEMORY_MAX: RangeInclusive<u64> = MAX_MIN..=64 << 40;
/// A slice and some more.
const MEMORY_PART: RangeInclusive<u64> = 4 << 20..=64 << 40;
/// Below this rate a pass over a small disk takes years.
const SCRUB_RATE: RangeInclusive<u64> = 64 << 10..=16 << 30;
const FLUSH_INTERVAL_MIN: Duration = Duration::from_millis(1);
const FLUSH_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Checks every rule; the first that is broken is returned.
pub fn check(config: &Config) -> Check {
    listeners(config)?;
    proxies(config)?;
    limits(config)?;
    device(config)?;
    memory(config)?;
    lifetimes(config)?;
    ranges(config)?;
    store(config)
}

fn limits(config: &Config) -> Check {
    let server = &config.server;
    require(
        server.workers <= WORKERS_MAX,
        "server.workers",
        format!("{} threads: write 0 (one per core) to {WORKERS_MAX}", server.workers),
    )?;
    let mode = server.socket_mode.0;
    require(
        mode & 0o600 == 0o600,
        "server.socket_mode",
        format!("{mode:04o} keeps the daemon's own user out: add 0600"),
    )?;
    require(
        (1..=CONNECTIONS_MAX).contains(&server.max_connections),
        "server.max_connections",
        format!("{} connections: write 1 to {CONNECTIONS_MAX}", server.max_connections),
    )?;
    size_in(server.max_object_size, &OBJECT_SIZE, "server.max_object_size")?;
    // The default fits whatever max_object_size says.
    let copied = 0..=server.max_object_size.0.max(MAX_APPEND_COPY);
    size_in(server.max_append_copy, &copied, "server.max_append_copy")?;
    let idle = server.memcached_idle_timeout;
    require(
        idle.0.is_zero() || (TIMEOUT_MIN..=DAY).contains(&idle.0),
        "server.memcached_idle_timeout",
        format!("{idle} is out of range: write 0s (no limit) or 1s to 1d"),
    )?;
    for (period, key) in [
        (server.memcached_stall_timeout, "server.memcached_stall_timeout"),
        (server.http_idle_timeout, "server.http_idle_timeout"),
        (server.http_stall_timeout, "server.http_stall_timeout"),
    ] {
        let fits = (TIMEOUT_MIN..=DAY).contains(&period.0);
        require(fits, key, format!("{period} is out of range: write 1s to 1d"))?;
    }
    let status = server.replay_miss_status;
    require(
        (400..=599).contains(&status),
        "server.replay_miss_status",
        format!("{status} is no status of an error: write 400 to 599"),
    )
}

fn device(config: &Config) -> Check {
    require(
        !config.devices.is_empty(),
        "device.path",
        "no device: add [[device]] with path = \"/dev/...\" or an image file",
    )?;
    require(
        config.devices.len() == 1,
        "device[1]",
        "a second [[device]] is not supported yet: keep one",
    )?;
    let device = config.device();
    let path = device.path.to_string_lossy();
    require(!path.is_empty(), "device.path", "empty: name a block device or an image file")?;
    let deadline = device.read_deadline;
    require(
        READ_DEADLINE.contains(&deadline.0),
        "device.read_deadline",
        format!("{deadline} is out of range: write 10ms to 1h"),
    )?;
    let Some(size) = device.size else { return Ok(()) };
    require(
        !path.starts_with("/dev/"),
        "device.size",
        format!("{path} has a size of its own; a size is for image files that serve makes"),
    )?;
    size_in(size, &IMAGE_SIZE, "device.size")
}

fn lifetimes(config: &Config) -> Check {
    let ttl = &config.ttl;
    for (period, key) in [(ttl.default, "ttl.default"), (ttl.max, "ttl.max")] {
        let fits = (TTL_MIN..=LIFETIME_MAX).contains(&period.0);
        let reason = format!(
            "{period} is out of range: write {} to {}",
            Period(TTL_MIN),
            Period(LIFETIME_MAX)
        );
        require(fits, key, reason)?;
    }
    require(
        ttl.default <= ttl.max,
        "ttl.default",
        format!("{} is longer than ttl.max, which is {}", ttl.default, ttl.max),
    )?;
    require(
        ttl.min_to_disk.0 <= DAY,
        "ttl.min_to_disk",
        format!("{} would keep most entries off the device: write 0s to 1d", ttl.min_to_disk),
    )
}

fn ranges(config: &Config) -> Check {
    let range = &config.range;
    size_in(range.threshold, &RANGE_THRESHOLD, "range.threshold")?;
    size_in(range.chunk_size, &RANGE_CHUNK_SIZE, "range.chunk_size")?;
    require(
        (1..=RANGE_CONCURRENCY_MAX).contains(&range.concurrency),
        "range.concurrency",
        format!("{} reads: write 1 to {RANGE_CONCURRENCY_MAX}", range.concurrency),
    )?;
    require(
        (RANGE_TIMEOUT_MIN..=RANGE_TIMEOUT_MAX).contains(&range.timeout.0),
        "range.timeout",
        format!(
            "{} is out of range: write {} to {}",
            range.timeout,
            Period(RANGE_TIMEOUT_MIN),
            Period(RANGE_TIMEOUT_MAX)
        ),
    )
}

fn memory(config: &Config) -> Check {
    let memory = &config.memory;
    for (size, range, key) in [
        (memory.max, &MEMORY_MAX, "memory.max"),
        (memory.index, &MEMORY_PART, "memory.index"),
        (memory.recovery, &MEMORY_PART, "memory.recovery"),
        (memory.write_buffers, &MEMORY_PART, "memory.write_buffers"),
        (memory.read_buffers, &MEMORY_PART, "memory.read_buffers"),
        (memory.backlog, &MEMORY_PART, "memory.backlog"),
        (memory.connections, &MEMORY_PART, "memory.connections"),
        (memory.socket_buffers, &MEMORY_PART, "memory.socket_buffers"),
    ] {
        if let AutoSize::Fixed(size) = size {
            size_in(size, range, key)?;
        }
    }
    let AutoSize::Fixed(ram) = config.ram.size else { return Ok(()) };
    require(
        ram.0 == 0 || (RAM_SIZE_MIN..=RAM_SIZE_MAX).contains(&ram.0),
        "ram.size",
        format!(
            "{ram} is out of range: write 0 (no RAM tier) or {} to {}",
            ByteSize(RAM_SIZE_MIN),
            ByteSize(RAM_SIZE_MAX)
        ),
    )
}

fn store(config: &Config) -> Check {
    let interval = config.store.flush_interval;
    require(
        (FLUSH_INTERVAL_MIN..=FLUSH_INTERVAL_MAX).contains(&interval.0),
        "store.flush_interval",
        format!(
            "{interval} is out of range: write {} to {}",
            Period(FLUSH_INTERVAL_MIN),
            Period(FLUSH_INTERVAL_MAX)
        ),
    )?;
    let rate = config.store.scrub_rate;
    require(
        rate.0 == 0 || SCRUB_RATE.contains(&rate.0),
        "store.scrub_rate",
        format!(
            "{rate} is out of range: write 0 (no verification) or {} to {} a second",
            ByteSize(*SCRUB_RATE.start()),
            ByteSize(*SCRUB_RATE.end())
        ),
    )?;
    let AutoSize::Fixed(size) = config.store.region_size else { return Ok(()) };
    size_in(size, &REGION_SIZE, "store.region_size")?;
    require(size.0.is_power_of_two(), "store.region_size", format!("{size} is not a power of two"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key that is complained about when `text` is added to a valid configuration.
    fn broken(text: &str) -> Option<String> {
        let base = if text.contains("[[device]]") { "" } else { "[[device]]\npath = \"/dev/x\"\n" };
        let config: Config = toml::from_str(&format!("{text}\n{base}")).unwrap();
        check(&config).err().map(|broken| broken.key.into_owned())
    }

    #[test]
    fn a_device_is_all_that_must_be_configured() {
        assert_eq!(broken(""), None);
    }

    #[test]
    fn what_is_not_supported_yet_is_refused() {
        let two = "[[device]]\npath = \"/a\"\n[[device]]\npath = \"/b\"";
        assert_eq!(broken(two).as_deref(), Some("device[1]"));
    }

    #[test]
    fn zero_and_absurd_values_are_refused() {
        for (text, key) in [
            ("[server]\nmemcached = []", "server.memcached"),
            ("[server]\nmemcached = [\"unix:/a\", \"unix:/a\"]", "server.memcached"),
            ("[server]\nhttp = [\"unix:/a\", \"unix:/a\"]", "server.http"),
            ("[server]\nmemcached = [\"unix:/a\"]\nhttp = [\"unix:/a\"]", "server.http"),
            ("[server]\nhttp = [{ address = \"unix:/a\", max_connections = 0 }]", "server.http"),
            ("[server]\nhttp = [{ address = \"unix:/a\", flush_all = false }]", "server.http"),
            (
                "[server]\nmemcached = [{ address = \"tcp:127.0.0.1:1\", allow_users = [\"x\"] }]",
                "server.memcached",
            ),
            ("[server]\nmemcached_idle_timeout = \"2d\"", "server.memcached_idle_timeout"),
            ("[server]\nmemcached_stall_timeout = \"0s\"", "server.memcached_stall_timeout"),
            ("[server]\nhttp_idle_timeout = \"0s\"", "server.http_idle_timeout"),
            ("[server]\nhttp_stall_timeout = \"2d\"", "server.http_stall_timeout"),
            ("[server]\nreplay_miss_status = 200", "server.replay_miss_status"),
            ("[server]\nadmin = \"0.0.0.0:9180\"", "server.admin"),
            ("[server]\nworkers = 100000", "server.workers"),
            ("[server]\nsocket_mode = \"0066\"", "server.socket_mode"),
            ("[server]\nmax_connections = 0", "server.max_connections"),
            ("[server]\nmax_object_size = \"0\"", "server.max_object_size"),
            ("[server]\nmax_append_copy = \"65MiB\"", "server.max_append_copy"),
            ("[[device]]\npath = \"\"", "device.path"),
            ("[[device]]\npath = \"/x\"\nread_deadline = \"0s\"", "device.read_deadline"),
            ("[[device]]\npath = \"/x\"\nread_deadline = \"2h\"", "device.read_deadline"),
            ("[[device]]\npath = \"/dev/sdx\"\nsize = \"1GiB\"", "device.size"),
            ("[[device]]\npath = \"x.img\"\nsize = \"1MiB\"", "device.size"),
            ("[ram]\nsize = \"1KiB\"", "ram.size"),
            ("[ttl]\ndefault = \"0s\"", "ttl.default"),
            ("[ttl]\nmax = \"0s\"", "ttl.max"),
            ("[ttl]\nmax = \"3651d\"", "ttl.max"),
            ("[ttl]\ndefault = \"2h\"\nmax = \"1h\"", "ttl.default"),
            ("[ttl]\nmin_to_disk = \"2d\"", "ttl.min_to_disk"),
            ("[range]\nthreshold = \"0\"", "range.threshold"),
            ("[range]\nchunk_size = \"0\"", "range.chunk_size"),
            ("[range]\nconcurrency = 0", "range.concurrency"),
            ("[range]\ntimeout = \"0s\"", "range.timeout"),
            ("[memory]\nmax = \"1MiB\"", "memory.max"),
            ("[memory]\nindex = \"0\"", "memory.index"),
            ("[memory]\nrecovery = \"1MiB\"", "memory.recovery"),
            ("[memory]\nwrite_buffers = \"0\"", "memory.write_buffers"),
            ("[memory]\nread_buffers = \"0\"", "memory.read_buffers"),
            ("[memory]\nbacklog = \"0\"", "memory.backlog"),
            ("[memory]\nconnections = \"0\"", "memory.connections"),
            ("[memory]\nsocket_buffers = \"0\"", "memory.socket_buffers"),
            ("[store]\nflush_interval = \"0ms\"", "store.flush_interval"),
            ("[store]\nflush_interval = \"1h\"", "store.flush_interval"),
            ("[store]\nscrub_rate = \"1KiB\"", "store.scrub_rate"),
            ("[store]\nregion_size = \"64KiB\"", "store.region_size"),
            ("[store]\nregion_size = \"5000000\"", "store.region_size"),
        ] {
            assert_eq!(broken(text).as_deref(), Some(key), "{text}");
        }
    }

    #[test]
    fn off_switches_are_allowed() {
        for text in [
            "[ram]\nsize = \"0\"",
            "[range]\nparallel = \"off\"",
            "[server]\nadmin = \"\"",
            "[server]\nhttp = [\"unix:/x\", { address = \"tcp:127.0.0.1:1\", read_only = true }]",
            "[server]\nmemcached = [{ address = \"unix:/x\", allow_groups = [\"x\"], flush_all = false }]",
            "[server]\nworkers = 0",
            "[server]\nmemcached_idle_timeout = \"0s\"",
            "[server]\nmax_append_copy = \"0\"",
            "[server]\nmax_append_copy = \"64MiB\"",
            "[server]\nmax_object_size = \"1KiB\"",
            "[ttl]\nmin_to_disk = \"0s\"",
            "[store]\nscrub_rate = \"0\"",
            "[store]\nregion_size = \"16MiB\"",
            "[[device]]\npath = \"x.img\"\nsize = \"1GiB\"",
        ] {
            assert_eq!(broken(text), None, "{text}");
        }
    }
}
