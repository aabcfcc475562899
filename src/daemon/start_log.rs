//! What the log says of a start: the version, the device and how what is on it was found again. Owns the
//! wording, and no state.

use crate::cache::Cache;
use crate::config::{Config, ProxyConfig};
use crate::device::DeviceInfo;
use crate::store::CountersSnapshot;
use crate::units::ByteSize;

/// The first line of a log.
pub fn tell_version() {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "rawcached starts");
}

/// For those who want details: the settings that are not the defaults.
pub fn tell_settings(config: &Config) {
    let defaults = Config::default().entries();
    let set = config.entries().into_iter().zip(defaults).filter(|(set, default)| set != default);
    let of_proxy = ProxyConfig::default().entries();
    let of_proxies = config.proxy_entries().into_iter().zip(of_proxy.iter().cycle());
    let of_proxies = of_proxies.filter(|((_, set), (_, default))| set != default);
    let all = set.map(|((key, value), _)| (key.path(), value));
    for (setting, value) in all.chain(of_proxies.map(|(set, _)| set)) {
        tracing::debug!(setting, value, "is not the default");
    }
}

/// How the device of `cache` is used.
pub fn tell_device(cache: &Cache) {
    let store = cache.device_store();
    let (info, uuid) = (store.device().info(), store.uuid());
    let DeviceInfo { path, engine, alignment, .. } = info;
    let (device, size, io) = (path.display(), ByteSize(info.size), way(info));
    tracing::info!(%device, %uuid, %size, engine, io, alignment, "the device is open");
}

/// Whether transfers bypass the page cache, in the words of `device.io`.
fn way(info: &DeviceInfo) -> &'static str {
    match (info.direct, info.adaptive) {
        (true, true) => "adaptive",
        (true, false) => "direct",
        (false, _) => "buffered",
    }
}

/// How what `cache` holds was found again.
pub fn tell_recovered(cache: &Cache) {
    let stats = cache.stats().store;
    let from = source(&stats.counters, stats.entries);
    tracing::info!(entries = stats.entries, "recovered: {from}");
}

fn source(counters: &CountersSnapshot, entries: u64) -> &'static str {
    match (counters.snapshots_loaded, counters.snapshots_refused) {
        (1.., _) => "from the index snapshot of a clean stop",
        (0, 1..) => "from footers, since the index snapshot was refused",
        (0, 0) if entries == 0 => "nothing is stored yet",
        (0, 0) => "from footers, since there is no index snapshot, as after a crash",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_says_from_what_it_recovered() {
        let of = |snapshots_loaded, snapshots_refused, entries| {
            let counters =
                CountersSnapshot { snapshots_loaded, snapshots_refused, ..Default::default() };
            source(&counters, entries)
        };
        assert_eq!(of(0, 0, 0), "nothing is stored yet");
        assert!(of(1, 0, 0).contains("clean stop"));
        assert!(of(0, 1, 9).contains("was refused"));
        assert!(of(0, 0, 9).contains("after a crash"));
    }
}
