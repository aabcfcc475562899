//! A configuration as a file that loads again and means the same. Owns its notation; never reads a file.

use super::{Config, Key, Kind, ListenerConfig, Origin, ProxyConfig};

/// Settings of `[[proxy]]` that are no text: numbers, `true` and `false`, and a table.
const BARE: [&str; 10] = [
    "connections_max",
    "ttl_status",
    "x_accel_expires",
    "store_until_close",
    "normalize_accept_encoding",
    "select_language",
    "no_vary_search",
    "min_uses",
    "fills_max",
    "purge_method",
];

/// Every setting of `config`, one a line. Behind those that are not the default stands where they come from,
/// which `origin` tells of a key such as `server.admin` or `proxy[1].listen`.
pub fn shown(config: &Config, origin: impl Fn(&str) -> Option<Origin>) -> String {
    let line = |name: &str, value: &str, path: &str| {
        let origin = origin(path).map(|origin| format!("  # {origin}")).unwrap_or_default();
        format!("{name} = {value}{origin}\n")
    };
    let settings = config.entries();
    let (device, others): (Vec<_>, Vec<_>) =
        settings.iter().partition(|(key, _)| key.section == "device");
    let mut text = String::new();
    for (key, value) in others {
        text += &line(&key.path(), &setting(config, key, value), &key.path());
    }
    // A table ends what stands above it.
    text += "[[device]]\n";
    for (key, value) in device {
        text += &line(key.name, &setting(config, key, value), &key.path());
    }
    for (index, proxy) in config.proxies.iter().enumerate() {
        text += "[[proxy]]\n";
        for (name, value) in proxy.entries() {
            let path = format!("{}.{name}", ProxyConfig::table(index));
            text += &line(name, &proxy_setting(proxy, name, &value), &path);
        }
    }
    text
}

/// The value of a setting as it is written in the file; `text` is what it is as an override.
fn setting(config: &Config, key: &Key, text: &str) -> String {
    match (key.kind, key.name) {
        (Kind::Integer, _) => text.to_owned(),
        (Kind::List, "memcached") => listeners(&config.server.memcached),
        (Kind::List, _) => listeners(&config.server.http),
        (Kind::Text, _) => quoted(text),
    }
}

/// The same for a setting of a `[[proxy]]`.
fn proxy_setting(proxy: &ProxyConfig, name: &str, text: &str) -> String {
    match name {
        "listen" => listeners(&proxy.listen),
        "bypass" => list(&proxy.bypass),
        "no_store" => list(&proxy.no_store),
        "trusted_headers" => list(&proxy.trusted_headers),
        "ignore" => list(&proxy.ignore),
        "ignore_query" => list(&proxy.ignore_query),
        "key_headers" => list(&proxy.key_headers),
        _ if BARE.contains(&name) => text.to_owned(),
        _ => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A list of texts.
fn list(items: &[impl ToString]) -> String {
    bracketed(items.iter().map(|item| quoted(&item.to_string())))
}

/// A list of addresses, and of tables with rules.
fn listeners(items: &[ListenerConfig]) -> String {
    bracketed(items.iter().map(|item| match item.has_rules() {
        true => item.to_string(),
        false => quoted(&item.to_string()),
    }))
}

fn bracketed(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::KEYS;

    fn read_back(config: &Config) -> Config {
        let text = shown(config, |path| Some(Origin::Flag(format!("--{path} # \" ["))));
        toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Something for every setting that has another notation than text.
    const RICH: &str = r##"
[server]
memcached = ["unix:/a", { address = "unix:/b", allow_users = ["x", "y"], flush_all = false }]
http = ["tcp:127.0.0.1:1", { address = "unix:/c", read_only = true }]
workers = 3
admin = ""
[[device]]
path = "/dev/a \"b\" \\ c # d"
uuid = "01020304-0506-0708-090a-0b0c0d0e0f10"
[[proxy]]
name = "80"
listen = ["unix:/p", { address = "unix:/q", max_connections = 3 }]
upstream = "unix:/u"
bypass = ["cookie:a=b,c", "header:x-preview", "cookie:wordpress_*"]
no_store = ["header:a=\"#\""]
trusted_headers = ["X-Rawcached-TTL"]
ttl_status = { 404 = "10s", 301 = "1h" }
ignore = ["expires", "vary"]
ignore_query = ["utm_source", "a,b"]
key_headers = ["x-forwarded-proto", "x-a"]
x_accel_expires = true
store_until_close = true
normalize_accept_encoding = false
select_language = true
no_vary_search = true
min_uses = 2
fills_max = 9
connections_max = 7
[[proxy]]
listen = ["tcp:127.0.0.1:2"]
upstream = "http://127.0.0.1:3"
upgrade = "tunnel"
purge_method = true
purge_token_file = "/t"
access_log = "unix:/l"
"##;

    #[test]
    fn what_is_shown_loads_again_and_means_the_same() {
        let rich: Config = toml::from_str(RICH).unwrap();
        assert_eq!(read_back(&rich), rich);
        let plain: Config = toml::from_str("[[device]]\npath = \"/dev/x\"").unwrap();
        assert_eq!(read_back(&plain), plain);
    }

    #[test]
    fn the_origin_stands_behind_what_is_set() {
        let config: Config = toml::from_str(RICH).unwrap();
        let text = shown(&config, |path| match path {
            "server.workers" => Some(Origin::Flag("--server-workers".to_owned())),
            "proxy[1].upgrade" => Some(Origin::File { path: "c.toml".into(), line: 7 }),
            _ => None,
        });
        for line in [
            "server.workers = 3  # flag --server-workers",
            "upgrade = \"tunnel\"  # c.toml:7",
            "ram.size = \"auto\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    proptest! {
        /// Texts of settings that are no text to this test: what the file would take for them, it gives back.
        #[test]
        fn any_path_group_and_number_loads_again(
            path in "[ -~]{1,20}",
            group in "[a-z\"'\\\\#=]{0,8}",
            workers in 0_u32..1000,
            query in prop::collection::vec("[ -~]{0,9}", 0..4),
        ) {
            let mut config: Config = toml::from_str(RICH).unwrap();
            config.devices[0].path = path.into();
            config.server.socket_group = Some(group).filter(|group| !group.is_empty());
            config.server.workers = workers;
            config.proxies[0].ignore_query = query;
            prop_assert_eq!(read_back(&config), config);
        }
    }

    #[test]
    fn every_key_is_shown_once() {
        let config: Config = toml::from_str("[[device]]\npath = \"/dev/x\"").unwrap();
        assert_eq!(shown(&config, |_| None).lines().count(), KEYS.len() + 1);
    }
}
