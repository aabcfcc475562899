//! What a configuration names and this machine does not have. Looks only: opens and makes nothing.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::image::ImageError;
use crate::config::{
    Config, DeviceConfig, EMBEDDED_DIRECTORY, ListenAddress, ListenerConfig, ProxyConfig,
    SERVICE_SOCKET,
};
use crate::server::listener::Permissions;
use crate::server::peers::Peers;

/// What keeps a start with `config` from succeeding here and now, each with its key. May wait for a name
/// service.
#[must_use]
pub fn absent(config: &Config) -> Vec<String> {
    let server = &config.server;
    let mut found: Vec<String> = device(config).into_iter().collect();
    let group = server.socket_group.clone();
    if let Err(error) = (Permissions { group, mode: server.socket_mode.0 }).check() {
        found.push(format!("server.socket_group: {error}: name one that is there, or groupadd"));
    }
    let mut listeners = |key: &str, configured: &[ListenerConfig]| {
        found.extend(configured.iter().filter_map(|listener| socket(key, listener)));
        found.extend(configured.iter().filter_map(|listener| peers(key, listener)));
    };
    listeners("server.memcached", &server.memcached);
    listeners("server.http", &server.http);
    for (index, proxy) in config.proxies.iter().enumerate() {
        listeners(&format!("{}.listen", ProxyConfig::table(index)), &proxy.listen);
    }
    found
}

fn device(config: &Config) -> Option<String> {
    let DeviceConfig { path, size, .. } = config.device();
    let reason = match fs::metadata(path) {
        Ok(found) if found.is_file() || found.file_type().is_block_device() => return None,
        Ok(_) => format!("{} is neither a block device nor a regular file", path.display()),
        // It will be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound && size.is_some() => {
            let directory = missing_directory(path)?;
            format!("the directory {} does not exist", directory.display())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            ImageError::missing(path).to_string()
        }
        Err(error) => format!("cannot look at {}: {error}", path.display()),
    };
    Some(format!("device.path: {reason}"))
}

fn socket(key: &str, listener: &ListenerConfig) -> Option<String> {
    let ListenAddress::Unix(path) = &listener.address else { return None };
    let directory = missing_directory(path)?.display();
    Some(format!(
        "{key}: the directory {directory} does not exist: make it, or have systemd make it \
         (RuntimeDirectory= of the unit)"
    ))
}

/// The directory of `path`, if it is not there and neither `serve` nor the unit makes it.
fn missing_directory(path: &Path) -> Option<&Path> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty())?;
    let is_made = directory == Path::new(EMBEDDED_DIRECTORY)
        || Some(directory) == Path::new(SERVICE_SOCKET).parent();
    (!is_made && !directory.is_dir()).then_some(directory)
}

fn peers(key: &str, listener: &ListenerConfig) -> Option<String> {
    let found = Peers::find(&listener.allow_users, &listener.allow_groups);
    found.err().map(|error| format!("{key}: {}: {error}", listener.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_named_with_its_key() {
        let text = "[server]\nsocket_group = \"no-such-group\"\n\
                    memcached = [{ address = \"unix:/none/m\", allow_users = [\"no-such-user\"] }]\n\
                    http = [\"unix:/run/rawcached/http.sock\", \"tcp:127.0.0.1:1\", \"unix:here\"]\n\
                    [[device]]\npath = \"/dev/none\"\n\
                    [[proxy]]\nlisten = [\"unix:/none/p\"]\nupstream = \"unix:/none/u\"\n";
        let found = absent(&toml::from_str(text).unwrap());
        let expected = [
            "device.path: there is no device /dev/none: ",
            "server.socket_group: there is no group \"no-such-group\": name one",
            "server.memcached: the directory /none does not exist: make it",
            "server.memcached: unix:/none/m: allow_users: there is no user \"no-such-user\"",
            "proxy.listen: the directory /none does not exist: make it",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{expected}: {found}");
        }
    }

    #[test]
    fn a_device_is_there_will_be_made_or_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        fs::write(at("x"), "").unwrap();
        let of = |path: &str, more: &str| {
            let text = format!("[[device]]\npath = \"{path}\"\n{more}");
            device(&toml::from_str(&text).unwrap())
        };
        let size = "size = \"1GiB\"";
        assert_eq!(of(&at("x"), ""), None);
        assert_eq!(of(&at("y"), size), None);
        assert!(of(&at("y"), "").unwrap().contains("rawcached format"));
        assert!(of(&at("none/y"), size).unwrap().contains("none does not exist"));
        assert!(of(&at("."), "").unwrap().contains("neither a block device"));
    }
}
