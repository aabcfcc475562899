//! `get`, `put`, `purge` and `stats`: commands that talk to a running daemon. Each gives false
//! where the key is missing.

use std::io;

use anyhow::ensure;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue, RANGE};
use serde_json::{Map, Value};

use super::arguments::{EntryArgs, GetArgs, PutArgs, StatsArgs};
use super::client::Client;
use super::http_client::{Ask, fetch, store};
use super::output;
use super::progress::Bar;

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
    tell_miss(&arguments.entry, found?)
}

/// Stores standard input.
pub fn put(arguments: &PutArgs) -> anyhow::Result<bool> {
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

/// Removes a key.
pub fn purge(arguments: &EntryArgs) -> anyhow::Result<bool> {
    let ask = Ask { method: Method::DELETE, key: &arguments.key, headers: HeaderMap::new() };
    let found = fetch(arguments.socket.socket.as_deref(), ask, &mut io::sink(), &|_| {})?;
    tell_miss(arguments, found)
}

fn tell_miss(arguments: &EntryArgs, found: bool) -> anyhow::Result<bool> {
    if !found {
        eprintln!("rawcached: {} is not in the cache", arguments.key);
    }
    Ok(found)
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
