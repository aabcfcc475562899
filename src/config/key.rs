//! The list of settings. Owns each key's name, its environment variable and its flag.

/// How the text of an override becomes a TOML value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string, taken as it is.
    Text,
    /// A whole number.
    Integer,
    /// Strings separated by commas; empty text is an empty list.
    List,
}

/// One setting of the configuration file.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// The table it stands in.
    pub section: &'static str,
    /// Its name within the table.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: Kind,
    /// What it does, in one line.
    pub help: &'static str,
}

const fn key(section: &'static str, name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { section, name, kind, help }
}

/// Every setting, in the order of the file.
pub const KEYS: [Key; 43] = [
    key("server", "memcached", Kind::List, "Listeners of the memcached protocol"),
    key("server", "http", Kind::List, "Listeners of the HTTP protocol"),
    key("server", "admin", Kind::Text, "Loopback address of /metrics, /healthz and /readyz"),
    key("server", "workers", Kind::Integer, "Serving threads; 0 is one per core"),
    key("server", "socket_mode", Kind::Text, "Permission bits of Unix sockets, octal"),
    key("server", "socket_group", Kind::Text, "Group that owns Unix sockets"),
    key("server", "max_connections", Kind::Integer, "Connections of each listener"),
    key("server", "max_object_size", Kind::Text, "Largest value of the memcached protocol"),
    key("server", "max_append_copy", Kind::Text, "Largest old value that an append copies"),
    key(
        "server",
        "memcached_idle_timeout",
        Kind::Text,
        "Longest rest between commands; 0s is no limit",
    ),
    key("server", "memcached_stall_timeout", Kind::Text, "How long a command may stand still"),
    key("server", "http_idle_timeout", Kind::Text, "Longest wait for an HTTP request"),
    key("server", "http_stall_timeout", Kind::Text, "How long an HTTP body may stand still"),
    key("server", "replay_miss_status", Kind::Integer, "Status of a response that is not stored"),
    key("device", "path", Kind::Text, "Block device or image file"),
    key("device", "io", Kind::Text, "auto, direct, buffered or adaptive"),
    key("device", "engine", Kind::Text, "auto, io_uring or threads"),
    key("device", "read_deadline", Kind::Text, "A lookup's read that takes longer is a miss"),
    key("device", "size", Kind::Text, "Size of an image file that is to be made"),
    key("device", "uuid", Kind::Text, "The store that has to be on the device"),
    key("ram", "size", Kind::Text, "Memory for the RAM tier: auto or a size; 0 turns it off"),
    key("memory", "max", Kind::Text, "Memory for everything: auto or a size"),
    key("memory", "index", Kind::Text, "Memory for the index"),
    key("memory", "recovery", Kind::Text, "Memory for recovery, besides the index"),
    key("memory", "write_buffers", Kind::Text, "Memory for stores in progress"),
    key("memory", "read_buffers", Kind::Text, "Memory for bodies being read"),
    key("memory", "backlog", Kind::Text, "Bytes that may wait to be written to the device"),
    key("memory", "connections", Kind::Text, "Memory for requests that have not arrived whole"),
    key("memory", "socket_buffers", Kind::Text, "Kernel memory for clients that do not read"),
    key("ttl", "default", Kind::Text, "Lifetime of entries stored without one"),
    key("ttl", "max", Kind::Text, "Longest lifetime an entry may have"),
    key("ttl", "min_to_disk", Kind::Text, "Shorter lifetimes stay in memory"),
    key("store", "ack", Kind::Text, "Acknowledge stores when buffered or flushed"),
    key("store", "flush_interval", Kind::Text, "Longest time a store stays in memory only"),
    key(
        "store",
        "scrub_rate",
        Kind::Text,
        "Bytes verified each second in the background; 0 is off",
    ),
    key("store", "region_size", Kind::Text, "Region size of a new image: auto or a size"),
    key("range", "parallel", Kind::Text, "Read large ranges in parallel: on or off"),
    key("range", "threshold", Kind::Text, "Shorter ranges are read slice after slice"),
    key("range", "chunk_size", Kind::Text, "Most bytes of one parallel read"),
    key("range", "concurrency", Kind::Integer, "Parallel reads of one range"),
    key("range", "timeout", Kind::Text, "Longest time for one parallel read"),
    key("log", "level", Kind::Text, "error, warn, info, debug or trace"),
    key("log", "format", Kind::Text, "text or json"),
];

/// Prefix of environment variables that are settings.
pub const VARIABLE_PREFIX: &str = "RAWCACHED_";
/// Prefix of environment variables that belong to the test suite and are left alone.
pub const TEST_VARIABLE_PREFIX: &str = "RAWCACHED_TEST_";
/// Environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "RAWCACHED_CONFIG";

impl Key {
    /// The key as people write it: `server.admin`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that overrides it: `RAWCACHED_SERVER_ADMIN`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}_{}", self.section, self.name).to_ascii_uppercase()
    }

    /// The long flag that overrides it, without dashes in front: `server-admin`.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("{}-{}", self.section, self.name).replace('_', "-")
    }

    /// The TOML value that `text` stands for.
    ///
    /// # Errors
    /// The setting is a number and `text` is not.
    pub fn value(&self, text: &str) -> Result<toml::Value, String> {
        match self.kind {
            Kind::Text => Ok(toml::Value::String(text.to_owned())),
            Kind::Integer => text
                .trim()
                .parse()
                .map(toml::Value::Integer)
                .map_err(|_| format!("{text:?} is not a whole number")),
            Kind::List => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(toml::Value::Array(parts.map(|part| part.to_owned().into()).collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_section_and_key() {
        let mode = KEYS.iter().find(|key| key.name == "socket_mode").unwrap();
        assert_eq!(mode.path(), "server.socket_mode");
        assert_eq!(mode.variable(), "RAWCACHED_SERVER_SOCKET_MODE");
        assert_eq!(mode.flag(), "server-socket-mode");
    }

    #[test]
    fn lists_are_split_at_commas() {
        assert_eq!(
            KEYS[0].value("unix:/a, unix:/b").unwrap(),
            toml::Value::Array(vec!["unix:/a".into(), "unix:/b".into()])
        );
        assert_eq!(KEYS[0].value("").unwrap(), toml::Value::Array(Vec::new()));
    }
}
