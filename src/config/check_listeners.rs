//! Rules for listeners, of whichever protocol. Owns the limits of one listener, and that no two have one
//! address.

use std::borrow::Cow;
use std::collections::HashSet;

use super::broken::{Check, require};
use super::{Config, ListenAddress, ListenerConfig, ProxyConfig};

/// The kernel's default hard limit on open files is 524288 (systemd) or 1048576 (nr_open).
pub const CONNECTIONS_MAX: u32 = 500_000;
const LISTENERS_MAX: usize = 16;

/// Checks the listeners of every protocol.
pub fn listeners(config: &Config) -> Check {
    let server = &config.server;
    let listeners = server.memcached.len();
    require(
        (1..=LISTENERS_MAX).contains(&listeners),
        "server.memcached",
        format!("{listeners} listeners: name 1 to {LISTENERS_MAX}"),
    )?;
    let listeners = server.http.len();
    require(
        listeners <= LISTENERS_MAX,
        "server.http",
        format!("{listeners} listeners: name at most {LISTENERS_MAX}"),
    )?;
    let mut seen = HashSet::new();
    for (key, listeners) in all(config) {
        for listener in listeners {
            let address = &listener.address;
            require(seen.insert(address), key.clone(), format!("{address} is listed twice"))?;
            rules(listener, &key)?;
        }
    }
    let no_flush = server.http.iter().find(|listener| !listener.flush_all);
    require(
        no_flush.is_none(),
        "server.http",
        "flush_all is a command of the memcached protocol: leave it out",
    )?;
    let loopback = server.admin.is_none_or(|address| address.ip().is_loopback());
    require(
        loopback,
        "server.admin",
        "not a loopback address: metrics are served on this host only; use 127.0.0.1:PORT",
    )?;
    for (index, proxy) in config.proxies.iter().enumerate() {
        of_proxy(&proxy.listen, format!("{}.listen", ProxyConfig::table(index)))?;
    }
    Ok(())
}

/// The listeners of each protocol, with the key that names them.
pub fn all(config: &Config) -> impl Iterator<Item = (Cow<'static, str>, &[ListenerConfig])> {
    let server = &config.server;
    let named: [(Cow<'static, str>, &[ListenerConfig]); 2] =
        [("server.memcached".into(), &server.memcached), ("server.http".into(), &server.http)];
    let proxies = config.proxies.iter().enumerate().map(|(index, proxy)| {
        (format!("{}.listen", ProxyConfig::table(index)).into(), &*proxy.listen)
    });
    named.into_iter().chain(proxies)
}

fn of_proxy(listen: &[ListenerConfig], key: String) -> Check {
    let count = listen.len();
    require(
        (1..=LISTENERS_MAX).contains(&count),
        key.clone(),
        format!("{count} listeners: name 1 to {LISTENERS_MAX}, such as \"tcp:127.0.0.1:8081\""),
    )?;
    let differs = listen.iter().find(|listener| listener.read_only || !listener.flush_all);
    require(
        differs.is_none(),
        key,
        "read_only and flush_all are for listeners of the other protocols: leave them out",
    )
}

fn rules(listener: &ListenerConfig, key: &str) -> Check {
    let address = &listener.address;
    let connections = listener.max_connections.unwrap_or(1);
    require(
        (1..=CONNECTIONS_MAX).contains(&connections),
        key.to_owned(),
        format!("{address}: {connections} connections: write 1 to {CONNECTIONS_MAX}"),
    )?;
    require(
        !listener.names_peers() || matches!(address, ListenAddress::Unix(_)),
        key.to_owned(),
        format!(
            "{address}: allow_users and allow_groups need a Unix socket, which tells who connects"
        ),
    )
}
