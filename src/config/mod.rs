//! The daemon's settings. Owns their types, defaults and limits; never reads a device or
//! opens a socket.
//!
//! A setting comes from a flag of `serve`, else from the environment, else from the file,
//! else it has the default. See `config/rawcached.toml` for what each one does.

mod access_log;
mod address;
mod broken;
mod check;
mod check_listeners;
mod check_proxies;
mod choice;
mod error;
mod file;
mod key;
mod listener;
mod memory;
mod mistakes;
mod plain_words;
mod proxy;
mod proxy_choices;
mod proxy_flags;
mod shown;
mod sources;
mod upstream;
mod written;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

pub use access_log::{AccessLogTarget, ParseAccessLogError};
pub use address::{ListenAddress, ParseAddressError, UNIX_PATH_LEN_MAX};
pub use choice::{
    AckMode, AutoSize, EngineChoice, IoMode, LogFormat, LogLevel, ParseChoiceError, ParseModeError,
    SocketMode, Switch,
};
pub use error::{ConfigError, Origin};
pub use key::{FILE_VARIABLE, KEYS, Key, Kind};
pub use listener::ListenerConfig;
pub use memory::{Available, MemoryPlan, Reason};
pub use proxy::{PROXY_KEYS, ProxyConfig, Status};
pub use proxy_choices::{ClientDirectives, IgnoredField, SetCookie, Upgrade};
pub use sources::{Override, Sources};
pub use upstream::{ParseUpstreamError, UpstreamAddress};

use crate::format::Uuid;
use crate::units::{ByteSize, Period};
use written::{join, optional, or_empty, text};

/// Default of `server.max_append_copy`, in bytes.
const MAX_APPEND_COPY: u64 = 1 << 20;
/// Where the packaged service puts its memcached socket.
pub const SERVICE_SOCKET: &str = "/run/rawcached/memcached.sock";
/// Where `serve` without any configuration keeps its image and socket.
pub const EMBEDDED_DIRECTORY: &str = "rawcached-data";
/// The memcached socket of `serve` without any configuration.
pub const EMBEDDED_SOCKET: &str = "rawcached-data/memcached.sock";
/// Where the packaged service puts its HTTP socket.
pub const SERVICE_HTTP_SOCKET: &str = "/run/rawcached/http.sock";
/// The HTTP socket of `serve` without any configuration.
pub const EMBEDDED_HTTP_SOCKET: &str = "rawcached-data/http.sock";
/// The read-through socket of `serve --upstream` without any configuration.
pub const EMBEDDED_PROXY_SOCKET: &str = "rawcached-data/proxy.sock";

/// A complete configuration. One that came from [`Sources::load`] has been checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[server]`: listeners and their limits.
    pub server: ServerConfig,
    /// `[[device]]`: exactly one in this version; see [`Config::device`].
    #[serde(rename = "device")]
    pub devices: Vec<DeviceConfig>,
    /// `[[proxy]]`: read-through listeners.
    #[serde(rename = "proxy")]
    pub proxies: Vec<ProxyConfig>,
    /// `[ram]`: the tier in front of the device.
    pub ram: RamConfig,
    /// `[memory]`: how much is used for what.
    pub memory: MemoryConfig,
    /// `[ttl]`: how long entries live.
    pub ttl: TtlConfig,
    /// `[store]`: how the device is written.
    pub store: StoreConfig,
    /// `[range]`: how large bodies are read.
    pub range: RangeConfig,
    /// `[log]`: what is logged and how.
    pub log: LogConfig,
    /// No file and no device was named: a small image in [`EMBEDDED_DIRECTORY`] is used.
    #[serde(skip)]
    pub embedded: bool,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Listeners of the memcached protocol; at least one.
    pub memcached: Vec<ListenerConfig>,
    /// Listeners of the HTTP protocol.
    pub http: Vec<ListenerConfig>,
    /// Loopback address of metrics and health; `None` (written `""`) turns it off.
    #[serde(deserialize_with = "optional")]
    pub admin: Option<SocketAddr>,
    /// Serving threads; 0 is one per core.
    pub workers: u32,
    /// Permission bits of Unix sockets.
    #[serde(deserialize_with = "text")]
    pub socket_mode: SocketMode,
    /// Group that owns Unix sockets; `None` (written `""`) leaves the daemon's own.
    #[serde(deserialize_with = "optional")]
    pub socket_group: Option<String>,
    /// Connections that each listener serves at one time, unless it has a limit of its own; further
    /// ones are refused.
    pub max_connections: u32,
    /// Largest value that is stored by the memcached protocol.
    pub max_object_size: ByteSize,
    /// Largest old value that `append`, `prepend` and a PATCH of headers copy.
    pub max_append_copy: ByteSize,
    /// How long a memcached connection may rest between commands; 0 is for ever.
    pub memcached_idle_timeout: Period,
    /// How long no byte may move within a memcached command or its answer.
    pub memcached_stall_timeout: Period,
    /// Longest wait for an HTTP request to be complete up to its body.
    pub http_idle_timeout: Period,
    /// How long an HTTP client may neither send nor take a byte of a body.
    pub http_stall_timeout: Period,
    /// Status of a GET of a response that is not stored, 400 to 599.
    pub replay_miss_status: u16,
}

/// One `[[device]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// Block device or image file.
    pub path: PathBuf,
    /// Direct or buffered I/O.
    #[serde(deserialize_with = "text")]
    pub io: IoMode,
    /// How operations reach the kernel.
    #[serde(deserialize_with = "text")]
    pub engine: EngineChoice,
    /// A lookup whose read takes longer is a miss.
    pub read_deadline: Period,
    /// Size of an image file that `serve` is to make if there is none; `None` (written `""`)
    /// never makes one.
    #[serde(deserialize_with = "optional")]
    pub size: Option<ByteSize>,
    /// The store that has to be on it; `None` (written `""`) takes whichever is.
    #[serde(deserialize_with = "optional")]
    pub uuid: Option<Uuid>,
}

/// `[ram]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RamConfig {
    /// Memory for entries; 0 turns the tier off.
    #[serde(deserialize_with = "text")]
    pub size: AutoSize,
}

/// `[memory]`. See [`MemoryPlan`] for what `auto` is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// All of it, the RAM tier included.
    #[serde(deserialize_with = "text")]
    pub max: AutoSize,
    /// The index, with the records of the region that is being filled.
    #[serde(deserialize_with = "text")]
    pub index: AutoSize,
    /// Recovery, besides the index.
    #[serde(deserialize_with = "text")]
    pub recovery: AutoSize,
    /// Stores in progress.
    #[serde(deserialize_with = "text")]
    pub write_buffers: AutoSize,
    /// Bodies on their way to clients, and reads of the device.
    #[serde(deserialize_with = "text")]
    pub read_buffers: AutoSize,
    /// What is accepted and not yet on the device.
    #[serde(deserialize_with = "text")]
    pub backlog: AutoSize,
    /// Requests that have not arrived whole.
    #[serde(deserialize_with = "text")]
    pub connections: AutoSize,
    /// What the kernel keeps for clients that have not read it.
    #[serde(deserialize_with = "text")]
    pub socket_buffers: AutoSize,
}

/// `[ttl]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TtlConfig {
    /// Lifetime of entries stored without one.
    pub default: Period,
    /// Longest lifetime; longer ones are cut to it.
    pub max: Period,
    /// Entries that live shorter stay in memory; has no effect without a RAM tier.
    pub min_to_disk: Period,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// When a store is acknowledged.
    #[serde(deserialize_with = "text")]
    pub ack: AckMode,
    /// Longest time that an acknowledged store stays in memory only.
    pub flush_interval: Period,
    /// Bytes verified each second in the background; 0 turns it off.
    pub scrub_rate: ByteSize,
    /// Region size of an image that `serve` makes.
    #[serde(deserialize_with = "text")]
    pub region_size: AutoSize,
}

/// `[range]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RangeConfig {
    /// Whether large ranges are read in parallel.
    #[serde(deserialize_with = "text")]
    pub parallel: Switch,
    /// Shorter ranges are read slice after slice.
    pub threshold: ByteSize,
    /// Most bytes of one read.
    pub chunk_size: ByteSize,
    /// Reads of one range under way at one time.
    pub concurrency: u32,
    /// Longest time for one read.
    pub timeout: Period,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The least severe message that is logged; `RUST_LOG` outranks it.
    #[serde(deserialize_with = "text")]
    pub level: LogLevel,
    /// Lines for people or JSON objects.
    #[serde(deserialize_with = "text")]
    pub format: LogFormat,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            memcached: vec![ListenAddress::Unix(SERVICE_SOCKET.into()).into()],
            http: Vec::new(),
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9180))),
            workers: 0,
            socket_mode: SocketMode(0o660),
            socket_group: None,
            max_connections: 4096,
            max_object_size: ByteSize(64 << 20),
            max_append_copy: ByteSize(MAX_APPEND_COPY),
            memcached_idle_timeout: Period(Duration::ZERO),
            memcached_stall_timeout: Period(Duration::from_secs(300)),
            http_idle_timeout: Period(Duration::from_secs(60)),
            http_stall_timeout: Period(Duration::from_secs(300)),
            replay_miss_status: 504,
        }
    }
}

impl Default for DeviceConfig {
    fn default() -> Self {
        DeviceConfig {
            path: PathBuf::new(),
            io: IoMode::Auto,
            engine: EngineChoice::Auto,
            read_deadline: Period(Duration::from_secs(1)),
            size: None,
            uuid: None,
        }
    }
}

impl Default for RamConfig {
    fn default() -> Self {
        RamConfig { size: AutoSize::Auto }
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig {
            max: AutoSize::Auto,
            index: AutoSize::Auto,
            recovery: AutoSize::Auto,
            write_buffers: AutoSize::Auto,
            read_buffers: AutoSize::Auto,
            backlog: AutoSize::Auto,
            connections: AutoSize::Auto,
            socket_buffers: AutoSize::Auto,
        }
    }
}

impl Default for TtlConfig {
    fn default() -> Self {
        TtlConfig {
            default: Period(Duration::from_secs(3600)),
            max: Period(Duration::from_secs(365 * 86_400)),
            min_to_disk: Period(Duration::from_secs(5)),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            ack: AckMode::Buffered,
            flush_interval: Period(Duration::from_millis(100)),
            scrub_rate: ByteSize(16 << 20),
            region_size: AutoSize::Auto,
        }
    }
}

impl Default for RangeConfig {
    fn default() -> Self {
        RangeConfig {
            parallel: Switch::On,
            threshold: ByteSize(16 << 20),
            chunk_size: ByteSize(1 << 20),
            concurrency: 16,
            timeout: Period(Duration::from_secs(30)),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: LogLevel::Info, format: LogFormat::Text }
    }
}

impl Config {
    /// The device.
    ///
    /// # Panics
    /// Panics on a configuration that has not been checked and has no device.
    #[must_use]
    pub fn device(&self) -> &DeviceConfig {
        assert!(!self.devices.is_empty(), "a checked configuration has one device");
        &self.devices[0]
    }

    /// The value of every setting as it is written in the file, in the order of [`KEYS`].
    #[must_use]
    pub fn entries(&self) -> [(&'static Key, String); KEYS.len()] {
        let (server, ttl, store, log) = (&self.server, &self.ttl, &self.store, &self.log);
        let (range, memory) = (&self.range, &self.memory);
        let unset = DeviceConfig::default();
        let device = self.devices.first().unwrap_or(&unset);
        let values = [
            join(&server.memcached),
            join(&server.http),
            or_empty(server.admin.as_ref()),
            server.workers.to_string(),
            server.socket_mode.to_string(),
            or_empty(server.socket_group.as_ref()),
            server.max_connections.to_string(),
            server.max_object_size.to_string(),
            server.max_append_copy.to_string(),
            server.memcached_idle_timeout.to_string(),
            server.memcached_stall_timeout.to_string(),
            server.http_idle_timeout.to_string(),
            server.http_stall_timeout.to_string(),
            server.replay_miss_status.to_string(),
            device.path.display().to_string(),
            device.io.to_string(),
            device.engine.to_string(),
            device.read_deadline.to_string(),
            or_empty(device.size.as_ref()),
            or_empty(device.uuid.as_ref()),
            self.ram.size.to_string(),
            memory.max.to_string(),
            memory.index.to_string(),
            memory.recovery.to_string(),
            memory.write_buffers.to_string(),
            memory.read_buffers.to_string(),
            memory.backlog.to_string(),
            memory.connections.to_string(),
            memory.socket_buffers.to_string(),
            ttl.default.to_string(),
            ttl.max.to_string(),
            ttl.min_to_disk.to_string(),
            store.ack.to_string(),
            store.flush_interval.to_string(),
            store.scrub_rate.to_string(),
            store.region_size.to_string(),
            range.parallel.to_string(),
            range.threshold.to_string(),
            range.chunk_size.to_string(),
            range.concurrency.to_string(),
            range.timeout.to_string(),
            log.level.to_string(),
            log.format.to_string(),
        ];
        let mut values = values.into_iter();
        KEYS.each_ref().map(|key| (key, values.next().unwrap_or_default()))
    }

    /// The same for the settings of every `[[proxy]]`, by names such as `proxy[1].upstream`.
    #[must_use]
    pub fn proxy_entries(&self) -> Vec<(String, String)> {
        let named = |(index, proxy): (usize, &ProxyConfig)| {
            let table = ProxyConfig::table(index);
            proxy.entries().map(|(name, value)| (format!("{table}.{name}"), value))
        };
        self.proxies.iter().enumerate().flat_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that serde expects in a table, from its complaint about one that is not there.
    fn fields_of(section: &str) -> Vec<String> {
        let header = if section == "device" { "[[device]]".into() } else { format!("[{section}]") };
        let error = toml::from_str::<Config>(&format!("{header}\nno_such = 1")).unwrap_err();
        let expected = error.message().split_once("expected").unwrap().1.to_owned();
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_list_of_keys_is_what_the_file_takes() {
        for section in ["server", "device", "ram", "memory", "ttl", "store", "range", "log"] {
            let keys: Vec<&str> =
                KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
            assert_eq!(fields_of(section), keys, "[{section}]");
        }
    }

    #[test]
    fn every_entry_reads_back_as_itself() {
        let config = Config::default();
        let mut table = toml::Table::new();
        for (key, text) in config.entries() {
            if key.section != "device" {
                let section = table.entry(key.section).or_insert(toml::Table::new().into());
                let value = key.value(&text).unwrap();
                section.as_table_mut().unwrap().insert(key.name.into(), value);
            }
        }
        let read: Config = table.try_into().unwrap();
        assert_eq!(read.server, config.server);
        assert_eq!((read.ram, read.ttl), (config.ram, config.ttl));
        assert_eq!((read.memory, read.range), (config.memory, config.range));
        assert_eq!((read.store, read.log), (config.store, config.log));
    }
}
