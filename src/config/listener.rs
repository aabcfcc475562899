//! One data listener as it is configured: an address alone, or a table of an address and rules for its
//! clients.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::ListenAddress;

/// An element of `server.memcached` or `server.http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where it listens.
    pub address: ListenAddress,
    /// Connections served at one time; `None` is `server.max_connections`.
    pub max_connections: Option<u32>,
    /// Users that may connect, by name or number.
    pub allow_users: Vec<String>,
    /// Groups whose members may connect, by name or number. With both lists empty everybody may who
    /// can open the socket.
    pub allow_groups: Vec<String>,
    /// Only lookups are served.
    pub read_only: bool,
    /// Whether the memcached command `flush_all` is served.
    pub flush_all: bool,
}

/// The table form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    address: ListenAddress,
    max_connections: Option<u32>,
    allow_users: Option<Vec<String>>,
    allow_groups: Option<Vec<String>>,
    #[serde(default)]
    read_only: bool,
    #[serde(default = "yes")]
    flush_all: bool,
}

fn yes() -> bool {
    true
}

impl ListenerConfig {
    /// Whether it differs from its address alone.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        *self != ListenerConfig::from(self.address.clone())
    }

    /// Whether only some may connect.
    #[must_use]
    pub fn names_peers(&self) -> bool {
        !self.allow_users.is_empty() || !self.allow_groups.is_empty()
    }
}

impl From<ListenAddress> for ListenerConfig {
    fn from(address: ListenAddress) -> ListenerConfig {
        ListenerConfig {
            address,
            max_connections: None,
            allow_users: Vec::new(),
            allow_groups: Vec::new(),
            read_only: false,
            flush_all: true,
        }
    }
}

impl<'de> Deserialize<'de> for ListenerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ListenerConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a table with one")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ListenerConfig, E> {
                text.parse().map(|address: ListenAddress| address.into()).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListenerConfig, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                for names in [&table.allow_users, &table.allow_groups].into_iter().flatten() {
                    if names.is_empty() || names.iter().any(String::is_empty) {
                        let reason = "an empty name or list in allow_users or allow_groups: name \
                                      who may connect, or leave it out";
                        return Err(A::Error::custom(reason));
                    }
                }
                Ok(ListenerConfig {
                    address: table.address,
                    max_connections: table.max_connections,
                    allow_users: table.allow_users.unwrap_or_default(),
                    allow_groups: table.allow_groups.unwrap_or_default(),
                    read_only: table.read_only,
                    flush_all: table.flush_all,
                })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// As in the file: the address, or a table of what is not the default.
impl fmt::Display for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.has_rules() {
            return self.address.fmt(f);
        }
        write!(f, "{{ address = {:?}", self.address.to_string())?;
        if let Some(count) = self.max_connections {
            write!(f, ", max_connections = {count}")?;
        }
        for (name, list) in
            [("allow_users", &self.allow_users), ("allow_groups", &self.allow_groups)]
        {
            if !list.is_empty() {
                write!(f, ", {name} = {list:?}")?;
            }
        }
        if self.read_only {
            f.write_str(", read_only = true")?;
        }
        if !self.flush_all {
            f.write_str(", flush_all = false")?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Section {
        listeners: Vec<ListenerConfig>,
    }

    fn read(text: &str) -> Result<Vec<ListenerConfig>, toml::de::Error> {
        toml::from_str(&format!("listeners = [{text}]")).map(|section: Section| section.listeners)
    }

    #[test]
    fn an_address_alone_and_a_table_read_back_as_themselves() {
        for text in [
            "{ address = \"unix:/s\", max_connections = 3 }",
            "{ address = \"unix:/s\", allow_users = [\"www-data\", \"33\"] }",
            "{ address = \"tcp:127.0.0.1:1\", read_only = true }",
            "{ address = \"unix:/s\", allow_groups = [\"a\"], flush_all = false }",
        ] {
            assert_eq!(read(text).unwrap()[0].to_string(), text);
        }
        let alone = &read("\"unix:/s\"").unwrap()[0];
        assert_eq!(alone.to_string(), "unix:/s");
        assert_eq!(read("{ address = \"unix:/s\" }").unwrap()[0], *alone);
    }

    #[test]
    fn mistakes_in_a_table_are_named() {
        for (text, expected) in [
            ("{ adress = \"unix:/s\" }", "unknown field `adress`"),
            ("{ read_only = true }", "missing field `address`"),
            ("{ address = \"/s\" }", "is not an address"),
            ("{ address = \"unix:/s\", allow_users = [\"\"] }", "an empty name"),
            ("{ address = \"unix:/s\", allow_users = [] }", "an empty name or list"),
            ("3", "expected an address, or a table with one"),
        ] {
            let message = read(text).unwrap_err().message().to_owned();
            assert!(message.contains(expected), "{message}");
        }
    }
}
