//! One read-through listener as it is configured: a cache in front of one upstream. Owns the settings of
//! `[[proxy]]` and their defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderName;
use serde::Deserialize;

use super::access_log::AccessLogTarget;
use super::listener::ListenerConfig;
use super::proxy_choices::{ClientDirectives, IgnoredField, SetCookie, Upgrade};
use super::upstream::UpstreamAddress;
use super::written::{join, optional, or_empty, text, texts};
use crate::http_cache::condition::Condition;
use crate::http_cache::control_fields::ControlField;
use crate::units::{ByteSize, Period};

/// The settings of a `[[proxy]]`, in the order of the file. Flags and environment variables do not
/// reach them: they could not say which table they mean.
pub const PROXY_KEYS: [&str; 37] = [
    "name",
    "listen",
    "upstream",
    "connect_timeout",
    "first_byte_timeout",
    "between_bytes_timeout",
    "connections_max",
    "set_cookie",
    "client_directives",
    "bypass",
    "no_store",
    "trusted_headers",
    "ttl_default",
    "ttl_status",
    "ttl_override",
    "grace_default",
    "heuristic_max",
    "ignore",
    "x_accel_expires",
    "store_until_close",
    "normalize_accept_encoding",
    "select_language",
    "ignore_query",
    "no_vary_search",
    "key_headers",
    "object_size_max",
    "range_fetch_min",
    "fill_block",
    "min_uses",
    "fills_max",
    "collapse_timeout",
    "error_ttl",
    "upgrade",
    "purge_method",
    "purge_token_file",
    "access_log",
    "access_log_buffer",
];

/// One `[[proxy]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// What it is called; `None` (written `""`) is its first address. See [`ProxyConfig::name`].
    #[serde(deserialize_with = "optional")]
    pub name: Option<String>,
    /// Where it listens; at least one.
    pub listen: Vec<ListenerConfig>,
    /// Where it asks; has to be named. See [`ProxyConfig::upstream`].
    #[serde(deserialize_with = "optional")]
    pub upstream: Option<UpstreamAddress>,
    /// Longest time to connect, in which a free connection is waited for too.
    pub connect_timeout: Period,
    /// Longest wait for the head of a response, from the end of the request on.
    pub first_byte_timeout: Period,
    /// How long no byte may move within a body.
    pub between_bytes_timeout: Period,
    /// Connections to the upstream at one time, of the whole daemon.
    pub connections_max: u32,
    /// What to do with responses that set cookies.
    #[serde(deserialize_with = "text")]
    pub set_cookie: SetCookie,
    /// Whether clients can ask for fresher answers than there are.
    #[serde(deserialize_with = "text")]
    pub client_directives: ClientDirectives,
    /// Requests that are passed, whatever is stored.
    #[serde(deserialize_with = "texts")]
    pub bypass: Vec<Condition>,
    /// Requests whose responses are not stored.
    #[serde(deserialize_with = "texts")]
    pub no_store: Vec<Condition>,
    /// Control fields of either side that are heard.
    #[serde(deserialize_with = "texts")]
    pub trusted_headers: Vec<ControlField>,
    /// Lifetime of responses that say nothing of theirs; `None` (written `""`) guesses it.
    #[serde(deserialize_with = "optional")]
    pub ttl_default: Option<Period>,
    /// The same for single statuses.
    pub ttl_status: BTreeMap<Status, Period>,
    /// Lifetime of all responses that may be stored; `None` (written `""`) goes by what they say.
    #[serde(deserialize_with = "optional")]
    pub ttl_override: Option<Period>,
    /// How long a stale response may stand in for an error without the consent of its origin.
    pub grace_default: Period,
    /// Longest lifetime that is guessed.
    pub heuristic_max: Period,
    /// Fields of responses that are taken as not there.
    #[serde(deserialize_with = "texts")]
    pub ignore: Vec<IgnoredField>,
    /// Take the lifetime from `X-Accel-Expires`.
    pub x_accel_expires: bool,
    /// Store responses that end with the connection.
    pub store_until_close: bool,
    /// Ask for one of a few forms of `Accept-Encoding`.
    pub normalize_accept_encoding: bool,
    /// Select a variant by what language the client likes best.
    pub select_language: bool,
    /// Query parameters that are no part of the key.
    pub ignore_query: Vec<String>,
    /// What responses say in `No-Vary-Search` is no part of the key either.
    pub no_vary_search: bool,
    /// Fields of requests that are a part of the key.
    #[serde(deserialize_with = "texts")]
    pub key_headers: Vec<HeaderName>,
    /// Largest body that is stored; `None` (written `""`) is what the device takes.
    #[serde(deserialize_with = "optional")]
    pub object_size_max: Option<ByteSize>,
    /// Where a range begins, or beyond, it is asked for alone, and not with the whole object.
    pub range_fetch_min: ByteSize,
    /// Most bytes that one request for a range asks for.
    pub fill_block: ByteSize,
    /// A target is stored from the request of this number on.
    pub min_uses: u16,
    /// Requests to the upstream at one time whose responses are stored, of the whole daemon; 0 is no limit.
    pub fills_max: u32,
    /// Longest wait for somebody else's request for the same.
    pub collapse_timeout: Period,
    /// How long those who ask for the same get the error that the upstream gave.
    pub error_ttl: Period,
    /// What to do with requests that change the protocol.
    #[serde(deserialize_with = "text")]
    pub upgrade: Upgrade,
    /// Serve the method PURGE to those who have the token.
    pub purge_method: bool,
    /// The file with that token; goes with `purge_method`.
    #[serde(deserialize_with = "optional")]
    pub purge_token_file: Option<PathBuf>,
    /// Where a line for each answer goes; `None` (written `""`) logs none.
    #[serde(deserialize_with = "optional")]
    pub access_log: Option<AccessLogTarget>,
    /// Most bytes of lines that wait to be written; further ones are lost.
    pub access_log_buffer: ByteSize,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        let secs = |secs| Period(Duration::from_secs(secs));
        ProxyConfig {
            name: None,
            listen: Vec::new(),
            upstream: None,
            connect_timeout: secs(5),
            first_byte_timeout: secs(60),
            between_bytes_timeout: secs(60),
            connections_max: 256,
            set_cookie: SetCookie::Never,
            client_directives: ClientDirectives::Ignore,
            bypass: Vec::new(),
            no_store: Vec::new(),
            trusted_headers: Vec::new(),
            ttl_default: None,
            ttl_status: BTreeMap::new(),
            ttl_override: None,
            grace_default: secs(0),
            heuristic_max: secs(86_400),
            ignore: Vec::new(),
            x_accel_expires: false,
            store_until_close: false,
            normalize_accept_encoding: true,
            select_language: false,
            ignore_query: Vec::new(),
            no_vary_search: false,
            key_headers: Vec::new(),
            object_size_max: None,
            range_fetch_min: ByteSize(8 << 20),
            fill_block: ByteSize(8 << 20),
            min_uses: 1,
            fills_max: 0,
            collapse_timeout: secs(5),
            error_ttl: secs(1),
            upgrade: Upgrade::Refuse,
            purge_method: false,
            purge_token_file: None,
            access_log: None,
            access_log_buffer: ByteSize(1 << 20),
        }
    }
}

impl ProxyConfig {
    /// How the table of this number is called: `proxy`, `proxy[1]`, and so on.
    #[must_use]
    pub fn table(index: usize) -> String {
        if index == 0 { "proxy".to_owned() } else { format!("proxy[{index}]") }
    }

    /// What it is called: its `name`, else its first address as it is written.
    #[must_use]
    pub fn name(&self) -> String {
        let first = || self.listen.first().map(|listener| listener.address.to_string());
        self.name.clone().or_else(first).unwrap_or_default()
    }

    /// Where it asks.
    ///
    /// # Panics
    /// Panics on a configuration that has not been checked and names no upstream.
    #[must_use]
    pub fn upstream(&self) -> &UpstreamAddress {
        let Some(upstream) = &self.upstream else {
            panic!("a checked [[proxy]] names its upstream");
        };
        upstream
    }

    /// The value of every setting as it is written in the file, in the order of [`PROXY_KEYS`].
    #[must_use]
    pub fn entries(&self) -> [(&'static str, String); PROXY_KEYS.len()] {
        let values = [
            or_empty(self.name.as_ref()),
            join(&self.listen),
            or_empty(self.upstream.as_ref()),
            self.connect_timeout.to_string(),
            self.first_byte_timeout.to_string(),
            self.between_bytes_timeout.to_string(),
            self.connections_max.to_string(),
            self.set_cookie.to_string(),
            self.client_directives.to_string(),
            join(&self.bypass),
            join(&self.no_store),
            join(&self.trusted_headers),
            or_empty(self.ttl_default.as_ref()),
            lifetimes(&self.ttl_status),
            or_empty(self.ttl_override.as_ref()),
            self.grace_default.to_string(),
            self.heuristic_max.to_string(),
            join(&self.ignore),
            self.x_accel_expires.to_string(),
            self.store_until_close.to_string(),
            self.normalize_accept_encoding.to_string(),
            self.select_language.to_string(),
            join(&self.ignore_query),
            self.no_vary_search.to_string(),
            join(&self.key_headers),
            or_empty(self.object_size_max.as_ref()),
            self.range_fetch_min.to_string(),
            self.fill_block.to_string(),
            self.min_uses.to_string(),
            self.fills_max.to_string(),
            self.collapse_timeout.to_string(),
            self.error_ttl.to_string(),
            self.upgrade.to_string(),
            self.purge_method.to_string(),
            or_empty(self.purge_token_file.as_ref().map(|path| path.display()).as_ref()),
            or_empty(self.access_log.as_ref()),
            self.access_log_buffer.to_string(),
        ];
        let mut values = values.into_iter();
        PROXY_KEYS.map(|key| (key, values.next().unwrap_or_default()))
    }
}

/// A table of TOML.
fn lifetimes(of: &BTreeMap<Status, Period>) -> String {
    let each = of.iter().map(|(status, period)| format!("{} = \"{period}\"", status.0.as_u16()));
    format!("{{ {} }}", each.collect::<Vec<_>>().join(", ")).replace("{  }", "{}")
}

/// The status of a response that may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Status(pub StatusCode);

impl TryFrom<String> for Status {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let status = text.parse::<StatusCode>().ok();
        let is_stored =
            |it: &StatusCode| (200..600).contains(&it.as_u16()) && *it != StatusCode::NOT_MODIFIED;
        status.filter(is_stored).map(Status).ok_or_else(|| {
            format!("{text:?} is not a status that is stored: write 200 to 599, but not 304")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ProxyConfig, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_list_of_keys_is_what_the_table_takes() {
        let message = read("no_such = 1").unwrap_err();
        let expected = message.split_once("expected").unwrap().1;
        let fields: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert_eq!(fields, PROXY_KEYS);
    }

    #[test]
    fn what_is_written_is_listed() {
        let text = "name = \"app\"\n\
                    listen = [\"unix:/s\", { address = \"tcp:127.0.0.1:1\", max_connections = 3 }]\n\
                    upstream = \"http://127.0.0.1:8080\"\n\
                    connect_timeout = \"1s\"\n\
                    first_byte_timeout = \"2s\"\n\
                    between_bytes_timeout = \"3s\"\n\
                    connections_max = 4\n\
                    set_cookie = \"strip\"\n\
                    client_directives = \"honor\"\n\
                    bypass = [\"cookie:session\", \"header:X-Preview=1\"]\n\
                    no_store = [\"cookie:a*\"]\n\
                    trusted_headers = [\"X-Rawcached-TTL\", \"X-Rawcached-Key\"]\n\
                    ttl_default = \"5s\"\n\
                    ttl_status = { \"404\" = \"6s\", 410 = \"7s\" }\n\
                    ttl_override = \"8s\"\n\
                    grace_default = \"9s\"\n\
                    heuristic_max = \"10s\"\n\
                    ignore = [\"cache-control\", \"expires\", \"vary\"]\n\
                    x_accel_expires = true\n\
                    store_until_close = true\n\
                    normalize_accept_encoding = false\n\
                    select_language = true\n\
                    ignore_query = [\"utm_source\", \"utm_medium\"]\n\
                    no_vary_search = true\n\
                    key_headers = [\"X-Forwarded-Proto\"]\n\
                    object_size_max = \"11KiB\"\n\
                    range_fetch_min = \"1MiB\"\n\
                    fill_block = \"2MiB\"\n\
                    min_uses = 2\n\
                    fills_max = 3\n\
                    collapse_timeout = \"12s\"\n\
                    error_ttl = \"13s\"\n\
                    upgrade = \"tunnel\"\n\
                    purge_method = true\n\
                    purge_token_file = \"/token\"\n\
                    access_log = \"unix:/log\"\n\
                    access_log_buffer = \"14MiB\"\n";
        let listed = read(text).unwrap().entries();
        let values = listed.each_ref().map(|(_, value)| value.as_str());
        let expected = [
            "app",
            "unix:/s,{ address = \"tcp:127.0.0.1:1\", max_connections = 3 }",
            "http://127.0.0.1:8080",
            "1s",
            "2s",
            "3s",
            "4",
            "strip",
            "honor",
            "cookie:session,header:x-preview=1",
            "cookie:a*",
            "x-rawcached-ttl,x-rawcached-key",
            "5s",
            "{ 404 = \"6s\", 410 = \"7s\" }",
            "8s",
            "9s",
            "10s",
            "cache-control,expires,vary",
            "true",
            "true",
            "false",
            "true",
            "utm_source,utm_medium",
            "true",
            "x-forwarded-proto",
            "11KiB",
            "1MiB",
            "2MiB",
            "2",
            "3",
            "12s",
            "13s",
            "tunnel",
            "true",
            "/token",
            "unix:/log",
            "14MiB",
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, expected) in [
            ("listen = [\"nowhere\"]", "\"nowhere\" is not an address"),
            ("upstream = \"https://x\"", "there is no TLS"),
            ("connect_timeout = \"soon\"", "\"soon\" is not a duration"),
            ("connections_max = -1", "invalid value"),
            ("set_cookie = \"always\"", "write one of never, strip, store"),
            ("client_directives = \"no\"", "write one of ignore, honor"),
            ("bypass = [\"session\"]", "\"session\": write header:NAME, header:NAME=VALUE,"),
            ("no_store = [\"header:te\"]", "te is a field of the connection"),
            ("trusted_headers = [\"X-A\"]", "\"X-A\": write one of x-rawcached-key,"),
            ("ttl_default = \"x\"", "\"x\" is not a duration"),
            ("ttl_status = { 304 = \"1s\" }", "\"304\" is not a status that is stored"),
            ("ttl_status = { ok = \"1s\" }", "\"ok\" is not a status that is stored"),
            ("ttl_status = { 404 = \"x\" }", "\"x\" is not a duration"),
            ("ignore = [\"age\"]", "write one of cache-control, expires, vary"),
            ("x_accel_expires = \"on\"", "expected a boolean"),
            ("key_headers = [\"a b\"]", "\"a b\": invalid HTTP header name"),
            ("min_uses = -1", "invalid value"),
            ("fills_max = -1", "invalid value"),
            ("upgrade = \"on\"", "write one of refuse, tunnel"),
            ("object_size_max = \"x\"", "\"x\" is not a size"),
            ("access_log = \"syslog:x\"", "is no place for a log"),
            ("access_log_buffer = \"x\"", "\"x\" is not a size"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn its_first_address_is_its_name_if_it_has_none() {
        let name = |text| read(text).unwrap().name();
        assert_eq!(name("listen = [\"tcp:127.0.0.1:1\", \"unix:/s\"]"), "tcp:127.0.0.1:1");
        assert_eq!(name("name = \"app\"\nlisten = [\"unix:/s\"]"), "app");
        assert_eq!(name(""), "");
    }
}
