//! The data listeners: which are opened, the rules for their clients, and how many connections the
//! limit on open files leaves to each.

use std::io;

use anyhow::{Context as _, ensure};

use super::open_files::OpenFiles;
use super::proxies;
use super::sockets::Passed;
use crate::config::{Config, KEYS, Key, ListenerConfig, ProxyConfig, ServerConfig};
use crate::server::access::Access;
use crate::server::listener::{ListenError, Listener, Permissions, Protocol, Rules};
use crate::server::peers::Peers;

/// Those that the service manager passed, and the configured ones of each protocol, and of each
/// `[[proxy]]`, for which it passed none. May wait for a name service.
pub fn open(config: &Config, passed: Passed, files: &OpenFiles) -> anyhow::Result<Vec<Listener>> {
    let Config { server, proxies, .. } = config;
    let of_proxies = proxies::divide(passed.proxies, proxies)?;
    let mut listeners = open_all(server, passed.memcached, &server.memcached, "server.memcached")?;
    let http = open_all(server, passed.http, &server.http, "server.http")?;
    listeners.extend(http.into_iter().map(|listener| listener.speaking(Protocol::Http)));
    for (index, (proxy, passed)) in proxies.iter().zip(of_proxies).enumerate() {
        let key = format!("{}.listen", ProxyConfig::table(index));
        let opened = open_all(server, passed, &proxy.listen, &key)?.into_iter();
        listeners.extend(opened.map(|listener| listener.speaking(Protocol::Proxy(index))));
    }
    let asked: Vec<u64> = listeners.iter().map(|it| connections_of(it, server)).collect();
    let shares = files.shares(&asked)?;
    let limited = |(listener, share): (Listener, u64)| {
        let connections_max = usize::try_from(share).ok();
        let rules = Rules { connections_max, ..listener.rules().clone() };
        listener.with_rules(rules)
    };
    Ok(listeners.into_iter().zip(shares).map(limited).collect())
}

fn connections_of(listener: &Listener, config: &ServerConfig) -> u64 {
    let own = listener.rules().connections_max.and_then(|own| u64::try_from(own).ok());
    own.unwrap_or(config.max_connections.into())
}

fn open_all(
    config: &ServerConfig,
    passed: Vec<Listener>,
    configured: &[ListenerConfig],
    key: &str,
) -> anyhow::Result<Vec<Listener>> {
    if !passed.is_empty() {
        tracing::info!(sockets = passed.len(), key, "listeners from the service manager");
        return with_configured_rules(passed, configured).context(key.to_owned());
    }
    let permissions =
        Permissions { mode: config.socket_mode.0, group: config.socket_group.clone() };
    let bind = |configured: &ListenerConfig| {
        let rules = rules(configured).context(key.to_owned())?;
        let bound = Listener::bind(&configured.address, &permissions);
        let listener = bound.map_err(|error| refused(error, key))?;
        Ok(listener.with_rules(rules))
    };
    configured.iter().map(bind).collect()
}

/// The error of a listener of the setting `key`. Of a port that is taken it names the flag that moves it.
fn refused(error: ListenError, key: &str) -> anyhow::Error {
    let is_taken = matches!(
        &error,
        ListenError::System { source, .. } if source.kind() == io::ErrorKind::AddrInUse
    );
    let flag = KEYS.iter().find(|setting| setting.path() == key).map(Key::flag);
    let subject = match flag.filter(|_| is_taken) {
        Some(flag) => format!("{key} (--{flag} takes another port)"),
        None => key.to_owned(),
    };
    anyhow::Error::from(error).context(subject)
}

/// Gives passed sockets the rules that are configured for their addresses. Rules that would be for none
/// of them are an error: somebody relies on them.
fn with_configured_rules(
    passed: Vec<Listener>,
    configured: &[ListenerConfig],
) -> anyhow::Result<Vec<Listener>> {
    for listener in configured.iter().filter(|listener| listener.has_rules()) {
        let address = &listener.address;
        ensure!(
            passed.iter().any(|passed| passed.address() == address),
            "rules are set for {address}, but the service manager passed other sockets: name the \
             address of its socket unit"
        );
    }
    let of = |passed: Listener| {
        let own = configured.iter().find(|listener| &listener.address == passed.address());
        Ok(match own {
            Some(own) => passed.with_rules(rules(own)?),
            None => passed,
        })
    };
    passed.into_iter().map(of).collect()
}

fn rules(listener: &ListenerConfig) -> anyhow::Result<Rules> {
    let ListenerConfig { allow_users, allow_groups, .. } = listener;
    let peers = listener.names_peers().then(|| Peers::find(allow_users, allow_groups));
    Ok(Rules {
        connections_max: listener.max_connections.and_then(|count| usize::try_from(count).ok()),
        peers: peers.transpose().with_context(|| listener.address.to_string())?,
        access: Access { read_only: listener.read_only, flush_all: listener.flush_all },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::*;
    use crate::config::ListenAddress;

    fn configured(path: &Path, max_connections: Option<u32>) -> ListenerConfig {
        let address = ListenAddress::Unix(path.to_owned());
        ListenerConfig { max_connections, ..ListenerConfig::from(address) }
    }

    fn passed(path: &Path) -> Passed {
        let listener = Listener::from_unix(UnixListener::bind(path).unwrap()).unwrap();
        Passed { memcached: vec![listener], ..Passed::default() }
    }

    fn with(server: ServerConfig) -> Config {
        Config { server, ..Config::default() }
    }

    #[test]
    fn passed_sockets_have_the_rules_of_their_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let memcached = vec![configured(&path, Some(7))];
        let config = with(ServerConfig { memcached, http: vec![], ..ServerConfig::default() });
        let files = OpenFiles::unlimited();
        let found = open(&config, passed(&path), &files).unwrap();
        assert_eq!(found[0].rules().connections_max, Some(7));
        let other = passed(&directory.path().join("other"));
        let error = open(&config, other, &files).unwrap_err();
        assert!(format!("{error:#}").contains("passed other sockets"), "{error:#}");
    }

    #[test]
    fn an_unknown_user_is_named_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let allow_users = vec!["no-such-user".to_owned()];
        let listener = ListenerConfig { allow_users, ..configured(&path, None) };
        let config = with(ServerConfig { memcached: vec![listener], ..ServerConfig::default() });
        let error = open(&config, Passed::default(), &OpenFiles::unlimited()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("server.memcached: unix:"), "{error}");
        assert!(error.ends_with("allow_users: there is no user \"no-such-user\""), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn each_proxy_has_its_own_listeners_passed_or_configured() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let proxy = |name: &str| ProxyConfig {
            name: Some(name.to_owned()),
            listen: vec![configured(&path(name), Some(5))],
            ..ProxyConfig::default()
        };
        let memcached = vec![configured(&path("m"), None)];
        let server = ServerConfig { memcached, ..ServerConfig::default() };
        let proxies = vec![proxy("a"), proxy("b")];
        let config = Config { proxies, ..with(server) };
        let given = Listener::from_unix(UnixListener::bind(path("b")).unwrap()).unwrap();
        let given = vec![(Some("b".to_owned()), given)];
        let passed = Passed { proxies: given, ..Passed::default() };
        let found = open(&config, passed, &OpenFiles::unlimited()).unwrap();
        let protocols: Vec<Protocol> = found.iter().map(Listener::protocol).collect();
        assert_eq!(protocols, [Protocol::Memcached, Protocol::Proxy(0), Protocol::Proxy(1)]);
        assert_eq!(found[2].rules().connections_max, Some(5));
        drop(found);
        assert!(!path("a").exists() && path("b").exists(), "which were made here");
    }
}
