//! Rules for read-through listeners. Owns the limits of the settings of `[[proxy]]`, and their reasons.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::broken::{Broken, Check, require, size_in};
use super::check_listeners::{self, CONNECTIONS_MAX};
use super::{Config, ListenAddress, ProxyConfig, UpstreamAddress};
use crate::clock::LIFETIME_MAX;
use crate::http_cache::condition::is_of_requests;
use crate::units::Period;

const PROXIES_MAX: usize = 16;
const NAME_LEN_MAX: usize = 64;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
/// Longer waits, and errors that last longer, would outlive the trouble that they are for.
const SHARED_MAX: Duration = Duration::from_secs(3600);
const USES: RangeInclusive<u16> = 1..=1000;
/// Some hundred lines, and what no log is ever behind.
const ACCESS_LOG_BUFFER: RangeInclusive<u64> = 64 << 10..=1 << 30;
const OBJECT_SIZE: RangeInclusive<u64> = 1 << 10..=1 << 40;
/// What one request for a range may ask for, in bytes.
const FILL_BLOCK: RangeInclusive<u64> = 64 << 10..=1 << 30;

/// Checks every `[[proxy]]`, and each against the others and all listeners.
pub fn proxies(config: &Config) -> Check {
    let count = config.proxies.len();
    require(count <= PROXIES_MAX, "proxy", format!("{count} tables: write at most {PROXIES_MAX}"))?;
    let mut names = HashSet::new();
    for (index, proxy) in config.proxies.iter().enumerate() {
        let key = |name: &str| format!("{}.{name}", ProxyConfig::table(index));
        name(proxy, &key)?;
        let given = proxy.name();
        require(
            names.insert(given.clone()),
            key("name"),
            format!("{given:?} is the name of another [[proxy]]: they would mix what they store"),
        )?;
        upstream(proxy, config, &key)?;
        times(proxy, &key)?;
        lifetimes(proxy, &key)?;
        lists(proxy, &key)?;
        require(
            USES.contains(&proxy.min_uses),
            key("min_uses"),
            format!("{} requests: write 1 to 1000", proxy.min_uses),
        )?;
        purge(proxy, &key)?;
        size_in(proxy.access_log_buffer, &ACCESS_LOG_BUFFER, key("access_log_buffer"))?;
        if let Some(size) = proxy.object_size_max {
            size_in(size, &OBJECT_SIZE, key("object_size_max"))?;
        }
        size_in(proxy.range_fetch_min, &(0..=*OBJECT_SIZE.end()), key("range_fetch_min"))?;
        size_in(proxy.fill_block, &FILL_BLOCK, key("fill_block"))?;
    }
    Ok(())
}

/// The key of a setting of one table.
trait KeyOf: Fn(&str) -> String {}
impl<F: Fn(&str) -> String> KeyOf for F {}

fn name(proxy: &ProxyConfig, key: &impl KeyOf) -> Check {
    let name = proxy.name();
    let fits = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic());
    let of = format!("1 to {NAME_LEN_MAX} letters, digits and signs of ASCII");
    match proxy.name {
        Some(_) => require(fits, key("name"), format!("{name:?} is not a name: write {of}")),
        None => require(
            fits,
            key("listen"),
            format!("{name} is too long or strange for a name: set name to {of}"),
        ),
    }
}

fn upstream(proxy: &ProxyConfig, config: &Config, key: &impl KeyOf) -> Check {
    let Some(upstream) = &proxy.upstream else {
        let reason = "missing: write where to ask, such as \"http://127.0.0.1:8080\"";
        return Err(Broken { key: key("upstream").into(), reason: reason.to_owned() });
    };
    let is_it = |address: &ListenAddress| match (address, upstream) {
        (ListenAddress::Unix(own), UpstreamAddress::Unix(asked)) => own == asked,
        (ListenAddress::Tcp(own), UpstreamAddress::Tcp(asked)) => own == asked,
        _ => false,
    };
    let mut own = check_listeners::all(config).flat_map(|(_, listeners)| listeners);
    let is_own = own.any(|listener| is_it(&listener.address));
    let is_admin = config.server.admin.is_some_and(|own| is_it(&ListenAddress::Tcp(own)));
    require(
        !is_own && !is_admin,
        key("upstream"),
        format!("{upstream} is a listener of this daemon, which would ask itself"),
    )?;
    require(
        (1..=CONNECTIONS_MAX).contains(&proxy.connections_max),
        key("connections_max"),
        format!("{} connections: write 1 to {CONNECTIONS_MAX}", proxy.connections_max),
    )
}

fn times(proxy: &ProxyConfig, key: &impl KeyOf) -> Check {
    for (period, name) in [
        (proxy.connect_timeout, "connect_timeout"),
        (proxy.first_byte_timeout, "first_byte_timeout"),
        (proxy.between_bytes_timeout, "between_bytes_timeout"),
    ] {
        let reason = format!("{period} is out of range: write 10ms to 1d");
        require(TIMEOUT.contains(&period.0), key(name), reason)?;
    }
    for (period, name) in
        [(proxy.collapse_timeout, "collapse_timeout"), (proxy.error_ttl, "error_ttl")]
    {
        let reason = format!("{period} is too long: write 0s to {}", Period(SHARED_MAX));
        require(period.0 <= SHARED_MAX, key(name), reason)?;
    }
    Ok(())
}

fn lifetimes(proxy: &ProxyConfig, key: &impl KeyOf) -> Check {
    let is_set = [
        (proxy.ttl_default, "ttl_default"),
        (proxy.ttl_override, "ttl_override"),
        (Some(proxy.grace_default), "grace_default"),
        (Some(proxy.heuristic_max), "heuristic_max"),
    ];
    let statuses = proxy.ttl_status.values().map(|period| (Some(*period), "ttl_status"));
    for (period, name) in is_set.into_iter().chain(statuses) {
        let Some(period) = period else { continue };
        let reason = format!("{period} is too long: write 0s to {}", Period(LIFETIME_MAX));
        require(period.0 <= LIFETIME_MAX, key(name), reason)?;
    }
    if proxy.ttl_override.is_none() {
        return Ok(());
    }
    for (has_no_effect, name) in [
        (proxy.ttl_default.is_some(), "ttl_default"),
        (!proxy.ttl_status.is_empty(), "ttl_status"),
        (proxy.x_accel_expires, "x_accel_expires"),
    ] {
        let reason = "has no effect, because ttl_override outranks it: leave one of them out";
        require(!has_no_effect, key(name), reason)?;
    }
    Ok(())
}

fn lists(proxy: &ProxyConfig, key: &impl KeyOf) -> Check {
    let ignored: Vec<String> = proxy.ignore.iter().map(ToString::to_string).collect();
    unique(&ignored, key("ignore"))?;
    unique(&proxy.ignore_query, key("ignore_query"))?;
    unique(&proxy.key_headers, key("key_headers"))?;
    for name in &proxy.key_headers {
        let reason = format!("{name} is a field of the connection, or is in the key anyway");
        require(is_of_requests(name), key("key_headers"), reason)?;
    }
    unique(&proxy.bypass, key("bypass"))?;
    unique(&proxy.no_store, key("no_store"))?;
    unique(&proxy.trusted_headers, key("trusted_headers"))?;
    for parameter in &proxy.ignore_query {
        let is_name = !parameter.is_empty()
            && parameter.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#?*".contains(&byte));
        let reason = format!("{parameter:?} is not a parameter: write its whole name as in URLs");
        require(is_name, key("ignore_query"), reason)?;
    }
    Ok(())
}

fn purge(proxy: &ProxyConfig, key: &impl KeyOf) -> Check {
    let has_file = proxy.purge_token_file.is_some();
    require(
        has_file || !proxy.purge_method,
        key("purge_token_file"),
        "missing: purge_method needs a file with a token, or anybody could purge",
    )?;
    require(
        proxy.purge_method || !has_file,
        key("purge_method"),
        "not true: purge_token_file has no effect without it",
    )
}

fn unique<T: Eq + Hash + ToString>(list: &[T], key: String) -> Check {
    let mut seen = HashSet::new();
    match list.iter().find(|item| !seen.insert(*item)) {
        None => Ok(()),
        Some(twice) => require(false, key, format!("{} is listed twice", twice.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "listen = [\"unix:/p\"]\nupstream = \"http://127.0.0.1:8080\"\n";

    /// The key that is complained about, and why, in tables of `texts`.
    fn broken(texts: &[&str]) -> Option<(String, String)> {
        let tables: String = texts.iter().map(|text| format!("[[proxy]]\n{text}\n")).collect();
        let config: Config = toml::from_str(&tables).unwrap();
        let checked = check_listeners::listeners(&config).and_then(|()| proxies(&config));
        checked.err().map(|broken| (broken.key.into_owned(), broken.reason))
    }

    #[test]
    fn a_listener_and_an_upstream_are_all_that_must_be_configured() {
        assert_eq!(broken(&[VALID]), None);
    }

    #[test]
    fn each_mistake_names_its_key() {
        let long = format!("name = \"{}\"", "x".repeat(65));
        for (text, key) in [
            (long.as_str(), "proxy.name"),
            ("name = \"a b\"", "proxy.name"),
            ("name = \"ä\"", "proxy.name"),
            ("connections_max = 0", "proxy.connections_max"),
            ("connections_max = 600000", "proxy.connections_max"),
            ("connect_timeout = \"0s\"", "proxy.connect_timeout"),
            ("first_byte_timeout = \"2d\"", "proxy.first_byte_timeout"),
            ("between_bytes_timeout = \"1ms\"", "proxy.between_bytes_timeout"),
            ("ttl_default = \"3651d\"", "proxy.ttl_default"),
            ("ttl_override = \"3651d\"", "proxy.ttl_override"),
            ("ttl_status = { 404 = \"3651d\" }", "proxy.ttl_status"),
            ("grace_default = \"3651d\"", "proxy.grace_default"),
            ("heuristic_max = \"3651d\"", "proxy.heuristic_max"),
            ("ttl_override = \"1s\"\nttl_default = \"1s\"", "proxy.ttl_default"),
            ("ttl_override = \"1s\"\nttl_status = { 404 = \"1s\" }", "proxy.ttl_status"),
            ("ttl_override = \"1s\"\nx_accel_expires = true", "proxy.x_accel_expires"),
            ("ignore = [\"vary\", \"vary\"]", "proxy.ignore"),
            ("bypass = [\"cookie:a\", \"cookie:a\"]", "proxy.bypass"),
            ("no_store = [\"header:a\", \"header:A\"]", "proxy.no_store"),
            (
                "trusted_headers = [\"X-Rawcached-TTL\", \"x-rawcached-ttl\"]",
                "proxy.trusted_headers",
            ),
            ("min_uses = 0", "proxy.min_uses"),
            ("min_uses = 1001", "proxy.min_uses"),
            ("ignore_query = [\"a\", \"a\"]", "proxy.ignore_query"),
            ("ignore_query = [\"\"]", "proxy.ignore_query"),
            ("ignore_query = [\"a=b\"]", "proxy.ignore_query"),
            ("ignore_query = [\"utm_*\"]", "proxy.ignore_query"),
            ("key_headers = [\"x-a\", \"X-A\"]", "proxy.key_headers"),
            ("key_headers = [\"Host\"]", "proxy.key_headers"),
            ("key_headers = [\"X-Rawcached-TTL\"]", "proxy.key_headers"),
            ("object_size_max = \"1B\"", "proxy.object_size_max"),
            ("range_fetch_min = \"2TiB\"", "proxy.range_fetch_min"),
            ("fill_block = \"1KiB\"", "proxy.fill_block"),
            ("collapse_timeout = \"2h\"", "proxy.collapse_timeout"),
            ("error_ttl = \"2h\"", "proxy.error_ttl"),
            ("access_log_buffer = \"1KiB\"", "proxy.access_log_buffer"),
            ("access_log_buffer = \"2GiB\"", "proxy.access_log_buffer"),
            ("purge_method = true", "proxy.purge_token_file"),
            ("purge_token_file = \"/t\"", "proxy.purge_method"),
        ] {
            let found = broken(&[&format!("{VALID}{text}")]).map(|(key, _)| key);
            assert_eq!(found.as_deref(), Some(key), "{text}");
        }
    }

    #[test]
    fn listeners_and_upstream_have_to_fit() {
        let upstream = "upstream = \"unix:/up\"";
        for (text, key, reason) in [
            (upstream.to_owned(), "proxy.listen", "0 listeners"),
            ("listen = [\"unix:/p\"]".to_owned(), "proxy.upstream", "missing"),
            (format!("listen = [\"unix:/p\", \"unix:/p\"]\n{upstream}"), "proxy.listen", "twice"),
            (
                format!("listen = [{{ address = \"unix:/p\", read_only = true }}]\n{upstream}"),
                "proxy.listen",
                "read_only and flush_all",
            ),
            (
                format!("listen = [{{ address = \"unix:/p\", flush_all = false }}]\n{upstream}"),
                "proxy.listen",
                "read_only and flush_all",
            ),
            (
                format!("listen = [{{ address = \"unix:/p\", max_connections = 0 }}]\n{upstream}"),
                "proxy.listen",
                "0 connections",
            ),
            (format!("listen = [\"unix:/up\"]\n{upstream}"), "proxy.upstream", "would ask itself"),
            (
                "listen = [\"unix:/p\"]\nupstream = \"http://127.0.0.1:9180\"".to_owned(),
                "proxy.upstream",
                "would ask itself",
            ),
            (
                format!("listen = [\"unix:/{}\"]\n{upstream}", "x".repeat(70)),
                "proxy.listen",
                "set name",
            ),
        ] {
            let (found, said) = broken(&[&text]).unwrap();
            assert_eq!(found, key, "{text}");
            assert!(said.contains(reason), "{text}: {said}");
        }
    }

    #[test]
    fn a_second_table_is_named_and_differs_from_the_first() {
        let second = "listen = [\"unix:/q\"]\nupstream = \"http://127.0.0.1:8080\"\n";
        assert_eq!(broken(&[VALID, second]), None);
        for (text, key) in [
            (VALID.to_owned(), "proxy[1].listen"),
            (format!("{second}name = \"unix:/p\""), "proxy[1].name"),
            (format!("{second}error_ttl = \"2h\""), "proxy[1].error_ttl"),
            ("listen = [\"unix:/q\"]\nupstream = \"unix:/p\"".to_owned(), "proxy[1].upstream"),
        ] {
            let found = broken(&[VALID, &text]).map(|(key, _)| key);
            assert_eq!(found.as_deref(), Some(key), "{text}");
        }
    }

    #[test]
    fn off_switches_are_allowed() {
        for text in [
            "ttl_status = { 404 = \"0s\" }",
            "ttl_default = \"0s\"",
            "heuristic_max = \"0s\"",
            "collapse_timeout = \"0s\"",
            "error_ttl = \"0s\"",
            "name = \"\"",
            "object_size_max = \"\"",
            "range_fetch_min = \"0\"",
            "purge_method = false\npurge_token_file = \"\"",
            "purge_method = true\npurge_token_file = \"/t\"",
            "ttl_override = \"1h\"\nignore = [\"cache-control\", \"expires\", \"vary\"]",
        ] {
            assert_eq!(broken(&[&format!("{VALID}{text}")]), None, "{text}");
        }
    }
}
