//! The options of `rawcached bench load`. Owns their names and limits.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::address::Address;
use super::requests::KEYS_MAX;
use super::sizes::Sizes;
use crate::units::Period;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("server").required(true).args(["memcached", "http"])))]
pub(in crate::cli) struct LoadArgs {
    /// A server that speaks the memcached protocol: unix:PATH or HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub(super) memcached: Option<Address>,
    /// A server that has objects over HTTP/1.1: unix:PATH or HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub(super) http: Option<Address>,
    /// Another server with the same protocol: both are driven in turns and printed side by side
    #[arg(long, value_name = "ADDRESS")]
    pub(super) against: Option<Address>,
    /// The server's process, for its processor time [default: who listens on the Unix socket]
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// The other server's process
    #[arg(long, value_name = "PID", requires = "against")]
    pub(super) against_pid: Option<u32>,
    /// The server's admin listener, for what it writes to its device
    #[arg(long, value_name = "ADDRESS")]
    pub(super) metrics: Option<Address>,
    /// The other server's admin listener
    #[arg(long, value_name = "ADDRESS", requires = "against")]
    pub(super) against_metrics: Option<Address>,
    /// Connections
    #[arg(short, long, default_value_t = 32, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) connections: u16,
    /// Threads of this client
    #[arg(long, default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) threads: u16,
    /// Most requests under way on a connection (pipelining)
    #[arg(long, default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) depth: u16,
    /// Open loop: so many requests a second, whatever the server does [default: closed loop]
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
    /// Different keys
    #[arg(long, default_value_t = 20_000, value_name = "N", conflicts_with = "trace",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(KEYS_MAX)))]
    pub(super) keys: u32,
    /// Popularity of keys: this exponent of Zipf's law [default: all alike]
    #[arg(long, value_name = "EXPONENT", conflicts_with = "trace", value_parser = parse_exponent)]
    pub(super) zipf: Option<f64>,
    /// Lengths of values: a size, limits (20..800), or
    /// lognormal:median=16KiB,mean=58KB,min=200,max=8MiB (or sigma=1.6 for mean)
    #[arg(long, default_value = "20..800", value_name = "SIZE", conflicts_with = "trace")]
    pub(super) size: Sizes,
    /// Take keys, sizes and their order from this CSV file with a heading line
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// Share of requests that are reads, 0 to 1
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", value_parser = parse_share)]
    pub(super) reads: f64,
    /// Store what a read did not find
    #[arg(long)]
    pub(super) fill_on_miss: bool,
    /// Store every key once before, measured by itself
    #[arg(long)]
    pub(super) fill: bool,
    /// Time of the same load before it is measured
    #[arg(long, default_value = "0s", value_name = "TIME")]
    pub(super) warm_up: Period,
    /// Length of a measured round [default: 10s, unless --operations or --trace]
    #[arg(long, value_name = "TIME")]
    pub(super) seconds: Option<Period>,
    /// Requests in a measured round [default: all lines of a trace]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) operations: Option<u64>,
    /// Measured rounds, of which the median is printed [default: 1, with --against 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) rounds: Option<u16>,
    /// Lifetime of what is stored, 1s to 30d [default: none for memcached, the server's for HTTP]
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    pub(super) ttl: Option<Period>,
    /// What keys begin with
    #[arg(long, default_value = "key-", value_name = "TEXT", value_parser = parse_prefix)]
    pub(super) prefix: String,
    /// HTTP: the path before the key
    #[arg(long, default_value = "/v1/objects/", value_name = "PATH", value_parser = parse_prefix)]
    pub(super) path: String,
    /// HTTP: a further header field of every request, written "Name: value"; may be given again
    #[arg(long, value_name = "FIELD", conflicts_with = "memcached", value_parser = parse_field)]
    pub(super) header: Vec<String>,
    /// Compare every byte that is read with what was stored
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL",
        num_args = 0..=1, default_missing_value = "true")]
    pub(super) verify: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn parse_between(text: &str, limits: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let found = text.parse().ok().filter(|number| limits.contains(number));
    found.ok_or_else(|| format!("write a number from {} to {}", limits.start(), limits.end()))
}

fn parse_share(text: &str) -> Result<f64, String> {
    parse_between(text, 0.0..=1.0)
}

fn parse_exponent(text: &str) -> Result<f64, String> {
    parse_between(text, 0.0..=10.0)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    parse_between(text, 0.001..=1e9)
}

fn parse_ttl(text: &str) -> Result<Period, String> {
    let ttl: Period = text.parse().map_err(|error| format!("{error}"))?;
    // Memcached takes more than 30 days for a date.
    let is_possible = (1..=30 * 86_400).contains(&ttl.0.as_secs());
    if is_possible { Ok(ttl) } else { Err("write a time from 1s to 30d".to_owned()) }
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let is_possible = text.len() <= 200 && text.bytes().all(|byte| byte.is_ascii_graphic());
    let refused = || "write at most 200 ASCII characters without spaces".to_owned();
    is_possible.then(|| text.to_owned()).ok_or_else(refused)
}

fn parse_field(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(": ").unwrap_or_default();
    let is_possible = (1..=1000).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && value.len() <= 1000
        && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let refused = || "write \"Name: value\" in at most 1000 ASCII characters each".to_owned();
    is_possible.then(|| text.to_owned()).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_their_limits_are_refused() {
        assert_eq!(parse_share("0.9"), Ok(0.9));
        for text in ["-0.1", "1.1", "nan", "x"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
        assert!(parse_rate("0").is_err());
        assert!(parse_ttl("31d").is_err() && parse_ttl("500ms").is_err());
        assert!(parse_prefix("a b").is_err() && parse_prefix("a-b/").is_ok());
        assert!(parse_field("Accept: text/html, */*").is_ok());
        for text in ["Accept", ": x", "A b: x", "A: x\r\nB: y"] {
            assert!(parse_field(text).is_err(), "{text}");
        }
    }
}
