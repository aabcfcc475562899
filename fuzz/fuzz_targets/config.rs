//! Configuration files: any text is taken or refused with a reason, and what was taken means the
//! same when it is written out and read again. Sizes and durations too.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rawcached::config::{Config, Sources};
use rawcached::units::{ByteSize, Period};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    units(text);
    if let Ok(config) = toml::from_str::<Config>(text)
        && can_be_listed(&config)
    {
        assert_eq!(again(&config), without_tables(config));
    }
    // The whole way, which finds the line to blame too.
    let path = file();
    if std::fs::write(path, text).is_err() {
        return;
    }
    let mut sources = Sources::default();
    sources.set_file(path.clone());
    match sources.load() {
        Ok(config) => assert_eq!(config.devices.len(), 1),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// Flags and variables separate the items of a list by commas: an address with a comma or a space at
/// its end can only be written in a file.
fn can_be_listed(config: &Config) -> bool {
    let addresses = config.server.memcached.iter().chain(&config.server.http);
    addresses.map(ToString::to_string).all(|text| !text.contains(',') && text.trim() == text)
}

fn units(text: &str) {
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    if let Ok(period) = text.parse::<Period>() {
        assert_eq!(period.to_string().parse(), Ok(period));
    }
}

/// The configuration that its settings, each written out, make.
fn again(config: &Config) -> Config {
    let mut table = toml::Table::new();
    for (key, text) in config.entries() {
        if key.section != "device" {
            let section = table.entry(key.section).or_insert(toml::Table::new().into());
            let value = key.value(&text).expect("a setting can be read as it is written");
            section.as_table_mut().expect("a table").insert(key.name.into(), value);
        }
    }
    table.try_into().expect("what was written out can be read")
}

/// Of several tables of one name the settings cannot be written out.
fn without_tables(mut config: Config) -> Config {
    config.devices.clear();
    config.proxies.clear();
    config
}

/// A file of this process alone.
fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        std::env::temp_dir().join(format!("rawcached-fuzz-{}.toml", std::process::id()))
    })
}
