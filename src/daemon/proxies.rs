//! The read-through listeners: their options, from their settings, and which of the sockets that the
//! service manager passed are for which.

use std::num::NonZeroUsize;

use anyhow::{Context as _, ensure};

use super::purge_token_file;
use crate::config::{
    self, ClientDirectives, Config, IgnoredField, ProxyConfig, SetCookie, Upgrade, UpstreamAddress,
};
use crate::http_cache::settings::{self, Settings};
use crate::server::listener::Listener;
use crate::server::proxy::PurgeToken;
use crate::server::proxy::options::{self, ProxyOptions, UpstreamOptions};

/// The options of every `[[proxy]]`, for this many workers. Reads what their settings name.
///
/// # Errors
/// A file with a token cannot be used.
pub fn options(config: &Config, workers: NonZeroUsize) -> anyhow::Result<Vec<ProxyOptions>> {
    let of = |(index, proxy): (usize, &ProxyConfig)| {
        let purge_token = proxy.purge_token_file.as_deref().map(purge_token_file::read);
        let key = || format!("{}.purge_token_file", ProxyConfig::table(index));
        Ok(options_of(proxy, workers, purge_token.transpose().with_context(key)?))
    };
    config.proxies.iter().enumerate().map(of).collect()
}

/// Most connections to upstreams at one time: of all workers together, so each its share rounded up.
pub fn upstream_connections(config: &Config, workers: NonZeroUsize) -> u64 {
    let all = config.proxies.iter().map(|proxy| of_worker(proxy, workers) * workers.get());
    all.sum::<usize>() as u64
}

/// The sockets that were passed for each `[[proxy]]`, in their order.
pub fn divide(
    passed: Vec<(Option<String>, Listener)>,
    proxies: &[ProxyConfig],
) -> anyhow::Result<Vec<Vec<Listener>>> {
    let mut divided: Vec<Vec<Listener>> = proxies.iter().map(|_| Vec::new()).collect();
    for (name, listener) in passed {
        let index = match &name {
            Some(name) => proxies.iter().position(|proxy| proxy.name() == *name).with_context(|| {
                format!("the service manager passed a socket for {name:?}: no [[proxy]] has that name")
            })?,
            None => {
                ensure!(
                    proxies.len() == 1,
                    "the service manager passed a socket named proxy, and there are {} [[proxy]] \
                     tables: with several, write FileDescriptorName=proxy-NAME",
                    proxies.len()
                );
                0
            }
        };
        divided[index].push(listener);
    }
    Ok(divided)
}

fn of_worker(proxy: &ProxyConfig, workers: NonZeroUsize) -> usize {
    usize::try_from(proxy.connections_max).unwrap_or(usize::MAX).div_ceil(workers.get())
}

fn options_of(
    proxy: &ProxyConfig,
    workers: NonZeroUsize,
    purge_token: Option<PurgeToken>,
) -> ProxyOptions {
    let address = match proxy.upstream() {
        UpstreamAddress::Unix(path) => options::UpstreamAddress::Unix(path.clone()),
        UpstreamAddress::Tcp(address) => options::UpstreamAddress::Tcp(*address),
    };
    ProxyOptions {
        name: proxy.name(),
        upstream: UpstreamOptions {
            address,
            connect_timeout: proxy.connect_timeout.0,
            first_byte_timeout: proxy.first_byte_timeout.0,
            between_bytes_timeout: proxy.between_bytes_timeout.0,
            connections_max: of_worker(proxy, workers),
        },
        settings: settings_of(proxy),
        ignore_query: proxy.ignore_query.clone(),
        no_vary_search: proxy.no_vary_search,
        key_headers: proxy.key_headers.clone(),
        object_size_max: proxy.object_size_max.map_or(u64::MAX, |size| size.0),
        range_fetch_min: proxy.range_fetch_min.0,
        fill_block: proxy.fill_block.0,
        min_uses: proxy.min_uses,
        fills_max: match usize::try_from(proxy.fills_max) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(max) => max,
        },
        tunnels: proxy.upgrade == Upgrade::Tunnel,
        collapse_timeout: proxy.collapse_timeout.0,
        error_ttl: proxy.error_ttl.0,
        purge_token,
        access_log: proxy.access_log.clone().map(|target| options::AccessLogOptions {
            target,
            bytes_max: proxy.access_log_buffer.0,
        }),
    }
}

fn settings_of(proxy: &ProxyConfig) -> Settings {
    let ignores = |field| proxy.ignore.contains(&field);
    let ttl_status = proxy.ttl_status.iter();
    Settings {
        set_cookie: match proxy.set_cookie {
            SetCookie::Never => settings::SetCookie::Never,
            SetCookie::Strip => settings::SetCookie::Strip,
            SetCookie::Store => settings::SetCookie::Store,
        },
        client_directives: match proxy.client_directives {
            ClientDirectives::Ignore => settings::ClientDirectives::Ignore,
            ClientDirectives::Honor => settings::ClientDirectives::Honor,
        },
        bypass: proxy.bypass.clone(),
        no_store: proxy.no_store.clone(),
        trusted: proxy.trusted_headers.clone(),
        targeted: Settings::default().targeted,
        heuristic_max: proxy.heuristic_max.0,
        ttl_default: proxy.ttl_default.map(|ttl| ttl.0),
        ttl_status: ttl_status.map(|(config::Status(status), ttl)| (*status, ttl.0)).collect(),
        ttl_override: proxy.ttl_override.map(|ttl| ttl.0),
        grace_default: proxy.grace_default.0,
        ignores_cache_control: ignores(IgnoredField::CacheControl),
        ignores_expires: ignores(IgnoredField::Expires),
        ignores_vary: ignores(IgnoredField::Vary),
        reads_accel_expires: proxy.x_accel_expires,
        stores_until_close: proxy.store_until_close,
        normalizes_accept_encoding: proxy.normalize_accept_encoding,
        selects_language: proxy.select_language,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use http::StatusCode;

    use super::*;

    const WORKERS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    fn read(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_defaults_of_settings_are_those_of_the_listener() {
        let config =
            read("[[proxy]]\nlisten = [\"unix:/p\"]\nupstream = \"http://127.0.0.1:8080\"");
        let address = options::UpstreamAddress::Tcp(([127, 0, 0, 1], 8080).into());
        let one = NonZeroUsize::MIN;
        let expected = ProxyOptions::new("unix:/p", address);
        assert_eq!(format!("{:?}", options(&config, one).unwrap()), format!("{:?}", [expected]));
    }

    #[test]
    fn every_setting_reaches_its_option() {
        let config = read(
            "[[proxy]]\nname = \"app\"\nlisten = [\"unix:/p\"]\nupstream = \"unix:/u\"\n\
             connect_timeout = \"1s\"\nfirst_byte_timeout = \"2s\"\nbetween_bytes_timeout = \"3s\"\n\
             connections_max = 7\nset_cookie = \"strip\"\nclient_directives = \"honor\"\n\
             bypass = [\"cookie:a\"]\nno_store = [\"header:b\"]\n\
             trusted_headers = [\"X-Rawcached-TTL\"]\n\
             ttl_default = \"4s\"\nttl_status = { 404 = \"5s\" }\nttl_override = \"6s\"\n\
             grace_default = \"7s\"\nheuristic_max = \"8s\"\nignore = [\"expires\"]\n\
             x_accel_expires = true\nstore_until_close = true\n\
             normalize_accept_encoding = false\nselect_language = true\n\
             ignore_query = [\"q\"]\nno_vary_search = true\nkey_headers = [\"X-A\"]\nobject_size_max = \"1KiB\"\n\
             range_fetch_min = \"1MiB\"\nfill_block = \"2MiB\"\n\
             min_uses = 11\nfills_max = 12\n\
             collapse_timeout = \"9s\"\nerror_ttl = \"10s\"\nupgrade = \"tunnel\"\n\
             access_log = \"unix:/l\"\naccess_log_buffer = \"2MiB\"\n",
        );
        let secs = Duration::from_secs;
        let found = &options(&config, WORKERS).unwrap()[0];
        let ProxyOptions { upstream, settings, .. } = found;
        assert_eq!((&*found.name, upstream.address.to_string()), ("app", "unix:/u".to_owned()));
        assert_eq!(upstream.connect_timeout, secs(1));
        assert_eq!(upstream.first_byte_timeout, secs(2));
        assert_eq!(upstream.between_bytes_timeout, secs(3));
        assert_eq!(upstream.connections_max, 3);
        assert_eq!(settings.set_cookie, settings::SetCookie::Strip);
        assert_eq!(settings.client_directives, settings::ClientDirectives::Honor);
        assert_eq!(settings.bypass, ["cookie:a".parse().unwrap()]);
        assert_eq!(settings.no_store, ["header:b".parse().unwrap()]);
        assert_eq!(settings.trusted, ["x-rawcached-ttl".parse().unwrap()]);
        assert_eq!((settings.ttl_default, settings.ttl_override), (Some(secs(4)), Some(secs(6))));
        assert_eq!(settings.ttl_status, [(StatusCode::NOT_FOUND, secs(5))].into());
        assert_eq!((settings.grace_default, settings.heuristic_max), (secs(7), secs(8)));
        let Settings { ignores_cache_control, ignores_expires, ignores_vary, .. } = *settings;
        assert_eq!((ignores_cache_control, ignores_expires, ignores_vary), (false, true, false));
        assert!(settings.reads_accel_expires && settings.stores_until_close);
        assert!(settings.selects_language && !settings.normalizes_accept_encoding);
        assert_eq!((&found.ignore_query[..], found.no_vary_search), (&["q".to_owned()][..], true));
        assert_eq!(found.key_headers, ["x-a"]);
        assert_eq!((found.range_fetch_min, found.fill_block), (1 << 20, 2 << 20));
        assert_eq!((found.object_size_max, found.min_uses), (1 << 10, 11));
        assert_eq!((found.fills_max, found.tunnels), (12, true));
        assert_eq!((found.collapse_timeout, found.error_ttl), (secs(9), secs(10)));
        let log = found.access_log.as_ref().unwrap();
        assert_eq!((log.target.to_string(), log.bytes_max), ("unix:/l".to_owned(), 2 << 20));
        assert_eq!(upstream_connections(&config, WORKERS), 9);
    }

    #[test]
    fn passed_sockets_go_to_the_one_that_is_named_or_to_the_only_one() {
        let listener = || Listener::from_tcp(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let named = |name: &str| vec![(Some(name.to_owned()), listener())];
        let one = read("[[proxy]]\nname = \"a\"").proxies;
        let two = read("[[proxy]]\nname = \"a\"\n[[proxy]]\nname = \"b\"").proxies;
        let counts = |passed, proxies: &[ProxyConfig]| {
            let divided = divide(passed, proxies).map_err(|error| error.to_string());
            divided.map(|divided| divided.iter().map(Vec::len).collect::<Vec<_>>())
        };
        assert_eq!(counts(vec![(None, listener())], &one), Ok(vec![1]));
        assert_eq!(counts(named("b"), &two), Ok(vec![0, 1]));
        assert_eq!(counts(vec![], &two), Ok(vec![0, 0]));
        let refused = counts(named("c"), &two).unwrap_err();
        assert!(refused.contains("no [[proxy]] has that name"), "{refused}");
        for proxies in [&two, &vec![]] {
            let refused = counts(vec![(None, listener())], proxies).unwrap_err();
            assert!(refused.contains("FileDescriptorName=proxy-NAME"), "{refused}");
        }
    }
}
