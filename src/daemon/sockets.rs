//! Sockets that the daemon is given or opens besides the data listeners. Owns what systemd
//! passes; never accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail};
use listenfd::ListenFd;

use crate::config::ServerConfig;
use crate::server::listener::Listener;

/// Name of inherited memcached sockets (`FileDescriptorName=` in a socket unit).
const MEMCACHED_NAME: &str = "memcached";
/// Name of inherited HTTP sockets.
const HTTP_NAME: &str = "http";
/// Name of inherited read-through sockets; with a dash and the name of their `[[proxy]]` behind it where
/// there are several.
const PROXY_NAME: &str = "proxy";
/// Name of an inherited admin socket.
const ADMIN_NAME: &str = "admin";

/// Sockets that the service manager has opened for the daemon.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Data listeners.
    pub data: Passed,
    /// The admin socket; it takes the place of the configured one.
    pub admin: Option<TcpListener>,
}

/// Data listeners that the service manager has opened.
#[derive(Debug, Default)]
pub struct Passed {
    /// Memcached sockets; they take the place of the configured ones.
    pub memcached: Vec<Listener>,
    /// HTTP sockets; they take the place of the configured ones.
    pub http: Vec<Listener>,
    /// Read-through sockets; they take the place of those of the `[[proxy]]` that is named, or of the
    /// only one.
    pub proxies: Vec<(Option<String>, Listener)>,
}

impl Inherited {
    /// Takes the sockets named by `LISTEN_FDS` and `LISTEN_FDNAMES`. Call once, early.
    pub fn take() -> anyhow::Result<Inherited> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut inherited = Inherited::default();
        let names = names.split(':').chain(std::iter::repeat(""));
        for (index, name) in names.take(sockets.len()).enumerate() {
            inherited
                .take_one(&mut sockets, index, name)
                .with_context(|| format!("socket {index} ({name:?})"))?;
        }
        Ok(inherited)
    }

    fn take_one(&mut self, sockets: &mut ListenFd, index: usize, name: &str) -> anyhow::Result<()> {
        const TAKEN: &str = "the socket was taken already";
        let mut take = || -> anyhow::Result<Listener> {
            match sockets.take_unix_listener(index) {
                Ok(listener) => Ok(Listener::from_unix(listener.context(TAKEN)?)?),
                // Not a Unix socket: it must be TCP.
                Err(_) => {
                    Ok(Listener::from_tcp(sockets.take_tcp_listener(index)?.context(TAKEN)?)?)
                }
            }
        };
        match name {
            MEMCACHED_NAME => self.data.memcached.push(take()?),
            HTTP_NAME => self.data.http.push(take()?),
            PROXY_NAME => self.data.proxies.push((None, take()?)),
            _ if proxy_of(name).is_some() => {
                self.data.proxies.push((proxy_of(name).map(str::to_owned), take()?));
            }
            ADMIN_NAME => {
                let listener = sockets.take_tcp_listener(index)?.context(TAKEN)?;
                listener.set_nonblocking(true)?;
                self.admin = Some(listener);
            }
            _ => bail!(
                "unknown name: write FileDescriptorName={MEMCACHED_NAME}, {HTTP_NAME}, {PROXY_NAME}, \
                 {PROXY_NAME}-NAME or {ADMIN_NAME} in its socket unit"
            ),
        }
        Ok(())
    }
}

/// The `[[proxy]]` for which a socket is, if it names one.
fn proxy_of(name: &str) -> Option<&str> {
    name.strip_prefix(PROXY_NAME)?.strip_prefix('-').filter(|name| !name.is_empty())
}

/// The admin listener: the inherited one, else the configured one, else none.
pub fn open_admin(
    config: &ServerConfig,
    inherited: Option<TcpListener>,
) -> anyhow::Result<Option<TcpListener>> {
    match (inherited, config.admin) {
        (Some(listener), _) => Ok(Some(listener)),
        (None, Some(address)) => bind_tcp(address).map(Some).context("server.admin"),
        (None, None) => Ok(None),
    }
}

fn bind_tcp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let message = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "cannot listen on {address}, which another process uses (another rawcached?): take \
                 another port with --server-admin 127.0.0.1:PORT, or none with --server-admin \"\""
            ),
            _ => format!("cannot listen on {address}"),
        };
        anyhow::Error::from(error).context(message)
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let config = ServerConfig { admin: Some(address), ..Default::default() };
        let error = format!("{:#}", open_admin(&config, None).unwrap_err());
        assert!(error.contains(&format!("server.admin: cannot listen on {address}")), "{error}");
        assert!(error.contains("--server-admin 127.0.0.1:PORT"), "{error}");
    }

    #[test]
    fn the_admin_listener_can_be_off_or_inherited() {
        let config = ServerConfig { admin: None, ..Default::default() };
        assert!(open_admin(&config, None).unwrap().is_none());
        let given = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = given.local_addr().unwrap();
        let opened = open_admin(&ServerConfig::default(), Some(given)).unwrap().unwrap();
        assert_eq!(opened.local_addr().unwrap(), address);
    }
}
