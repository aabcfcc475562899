//! `get`, `put`, `purge` and `stats`: commands that talk to a running daemon. Each gives false
//! where the key is missing.

use std::io::{self, Read as _, Write as _};

use anyhow::Context as _;
use serde_json::{Map, Value};

use super::client::{Client, Key, exptime};
use super::{EntryArgs, PutArgs, StatsArgs, output};
use crate::clock::Clock;

/// Writes a value to standard output.
pub fn get(arguments: &EntryArgs) -> anyhow::Result<bool> {
    let key = Key::new(&arguments.key)?;
    let mut client = Client::connect(arguments.socket.socket.as_deref())?;
    let mut output = io::stdout().lock();
    let found = client.get(&key, &mut output)?;
    output.flush().map_err(output::closed_or_failed)?;
    if !found {
        eprintln!("rawcached: {key} is not in the cache");
    }
    Ok(found)
}

/// Stores standard input.
pub fn put(arguments: &PutArgs) -> anyhow::Result<bool> {
    let key = Key::new(&arguments.entry.key)?;
    let ttl = arguments.ttl.map(|period| period.0);
    let exptime = exptime(ttl, Clock::system().now())?;
    let mut value = Vec::new();
    io::stdin().lock().read_to_end(&mut value).context("cannot read standard input")?;
    let mut client = Client::connect(arguments.entry.socket.socket.as_deref())?;
    client.set(&key, exptime, &value)?;
    Ok(true)
}

/// Removes a key.
pub fn purge(arguments: &EntryArgs) -> anyhow::Result<bool> {
    let key = Key::new(&arguments.key)?;
    let found = Client::connect(arguments.socket.socket.as_deref())?.delete(&key)?;
    if !found {
        eprintln!("rawcached: {key} is not in the cache");
    }
    Ok(found)
}

/// Prints the daemon's counters under the names that the protocol gives them.
pub fn stats(arguments: &StatsArgs) -> anyhow::Result<bool> {
    let stats = Client::connect(arguments.socket.socket.as_deref())?.stats()?;
    if arguments.json {
        let fields: Map<String, Value> =
            stats.into_iter().map(|(name, value)| (name, typed(value))).collect();
        output::print_report(&Value::Object(fields), true)?;
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
