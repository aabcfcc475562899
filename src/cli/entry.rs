//! `get`, `put`, `purge` and `stats`: commands that talk to a running daemon. Each gives false
//! where a key is missing.

use std::io;

use anyhow::{Context as _, bail, ensure};
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RANGE};
use serde_json::{Map, Value, json};

use super::arguments::{GetArgs, PurgeArgs, PutArgs, StatsArgs};
use super::client::Client;
use super::http_client::{self, Ask, fetch, store};
use super::output;
use super::progress::Bar;
use crate::server::http::{KEPT, put_hears};

/// Writes an object, or a part of it, to standard output.
pub fn get(arguments: &GetArgs) -> anyhow::Result<bool> {
    let mut headers = HeaderMap::from_iter(arguments.headers.iter().cloned());
    if let Some(range) = &arguments.range {
        headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={range}"))?);
    }
    let ask = Ask { method: Method::GET, key: &arguments.entry.key, headers };
    let bar = Bar::new(None);
    let socket = arguments.entry.socket.socket.as_deref();
    let found = fetch(socket, ask, &mut io::stdout().lock(), &|progress| bar.advance(progress));
    bar.end();
    Ok(tell_miss(&arguments.entry.key, found?))
}

/// Stores standard input.
pub fn put(arguments: &PutArgs) -> anyhow::Result<bool> {
    refuse_unheard(&arguments.headers)?;
    let mut headers = HeaderMap::from_iter(arguments.headers.iter().cloned());
    if let Some(ttl) = arguments.ttl {
        ensure!(ttl.0.as_secs() >= 1, "--ttl: the shortest lifetime is 1s");
        headers.insert("x-rawcached-ttl", HeaderValue::from(ttl.0.as_secs()));
    }
    let ask = Ask { method: Method::PUT, key: &arguments.entry.key, headers };
    let bar = Bar::new(input_len());
    let shown = bar.clone();
    let socket = arguments.entry.socket.socket.as_deref();
    let stored = store(socket, ask, io::stdin(), move |progress| shown.advance(progress));
    bar.end();
    stored.map(|()| true)
}

/// An error if the daemon would drop one of `headers`: nobody would notice before it is missed.
fn refuse_unheard(headers: &[(HeaderName, HeaderValue)]) -> anyhow::Result<()> {
    let unheard = headers.iter().find(|(name, _)| !put_hears(name));
    let Some((name, _)) = unheard else { return Ok(()) };
    let kept = KEPT;
    let kept: Vec<&str> = kept.iter().map(HeaderName::as_str).collect();
    bail!(
        "--header {name}: it would not be kept with the object; what is kept is {}",
        kept.join(", ")
    )
}

/// Removes keys, or purges what is selected otherwise.
pub fn purge(arguments: &PurgeArgs) -> anyhow::Result<bool> {
    let socket = arguments.socket.socket.as_deref();
    if arguments.keys.is_empty() {
        return http_client::purge(socket, &selection(arguments)).map(|()| true);
    }
    let mut found_all = true;
    for key in &arguments.keys {
        let ask = Ask { method: Method::DELETE, key, headers: HeaderMap::new() };
        let found = fetch(socket, ask, &mut io::sink(), &|_| {});
        found_all &= tell_miss(key, found.with_context(|| key.clone())?);
    }
    Ok(found_all)
}

/// What `/v1/purge` is to select.
fn selection(arguments: &PurgeArgs) -> Value {
    let PurgeArgs { url, tag, prefix, origin, group, of, soft, .. } = arguments;
    let lists = [("uri", url), ("tag", tag), ("uri-prefix", prefix), ("origin", origin)];
    let given = lists.into_iter().find(|(_, list)| !list.is_empty());
    let mut selection = match given {
        Some((kind, selectors)) => json!({ "type": kind, "selectors": selectors }),
        None if group.is_empty() => json!({ "type": "all" }),
        None => json!({ "type": "group", "selectors": of, "groups": group }),
    };
    if *soft {
        selection["purge"] = Value::Bool(false);
    }
    selection
}

/// Says of a key that was not found that it is missing.
fn tell_miss(key: &str, found: bool) -> bool {
    if !found {
        eprintln!("rawcached: {key} is not in the cache");
    }
    found
}

/// The length of standard input, if it is a file; for the progress bar only.
fn input_len() -> Option<u64> {
    let facts = nix::sys::stat::fstat(io::stdin()).ok()?;
    let is_file = facts.st_mode & libc::S_IFMT == libc::S_IFREG;
    u64::try_from(facts.st_size).ok().filter(|_| is_file)
}

/// Prints the daemon's counters under the names that the protocol gives them.
pub fn stats(arguments: &StatsArgs) -> anyhow::Result<bool> {
    let stats = Client::connect(arguments.socket.as_deref())?.stats()?;
    if arguments.json {
        let fields: Map<String, Value> =
            stats.into_iter().map(|(name, value)| (name, typed(value))).collect();
        output::print_json(&Value::Object(fields))?;
    } else {
        let width = stats.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines = stats.iter().map(|(name, value)| format!("{name:width$}  {value}\n"));
        output::print(&lines.collect::<String>())?;
    }
    Ok(true)
}

/// Numbers as numbers, everything else as text.
fn typed(text: String) -> Value {
    let unsigned = text.parse::<u64>().map(Value::from).ok();
    let float = || text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from);
    unsigned.or_else(float).unwrap_or(Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_value_in_json() {
        assert_eq!(typed("18446744073709551615".into()), Value::from(u64::MAX));
        assert_eq!(typed("0.5".into()), Value::from(0.5));
        assert_eq!(typed("1.6.0".into()), Value::from("1.6.0"));
        assert_eq!(typed("nan".into()), Value::from("nan"));
    }
}
