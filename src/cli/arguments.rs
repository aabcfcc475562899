//! The command line. Owns the names of commands and flags, and their help.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use hyper::header::{HeaderName, HeaderValue};

use super::overrides::Overrides;

pub(super) const INSPECT_HELP: &str = "Exit code: 0 done (with --key: a lookup would hit); \
    1 the key would be a miss, or the region is damaged; 2 the device cannot be inspected";

pub(super) const CHECK_HELP: &str = "Exit code: 0 everything is sound; 1 something is damaged; \
    2 the device cannot be checked (in use, not formatted, both superblock copies damaged)";

pub(super) const PURGE_HELP: &str = "What is purged is gone when the command ends, after a crash too. \
    URLs, prefixes, origins and groups are those of [[proxy]] listeners; keys are those of memcached and \
    /v1/objects. Exit code: 0 done; 1 a key was missing (the others are purged); 2 it could not be done";

pub(super) const BENCH_HELP: &str = "Exit code: 0 done; 1 a server gave wrong bytes; 2 what was \
    asked for could not be measured. docs/benchmarking.md says how to read what is printed";

#[derive(Debug, Parser)]
#[command(name = "rawcached", version, about = "Raw-disk cache storage for reverse proxies")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve a device over Unix sockets; without any configuration, a small image file here
    Serve(ServeArgs),
    /// Prepare a block device or an image file; erases what is on it
    Format(FormatArgs),
    /// Tell what a device can do: size, alignment, direct I/O, what is on it
    Probe(DeviceArgs),
    /// Tell what a formatted device holds, or explain a region or a key
    #[command(after_help = INSPECT_HELP)]
    Inspect(InspectArgs),
    /// List entries on a device that no daemon is using
    Ls(ListArgs),
    /// Verify every structure and every body on a device that no daemon is using
    #[command(after_help = CHECK_HELP)]
    Check(DeviceArgs),
    /// Print the counters of a running daemon
    Stats(StatsArgs),
    /// Write an object to standard output; exit code 1 if it is missing
    Get(GetArgs),
    /// Store standard input under a key
    Put(PutArgs),
    /// Remove keys, or what was stored with a tag, or under URLs by a read-through listener
    #[command(after_help = PURGE_HELP)]
    Purge(PurgeArgs),
    /// Measure a device, or put load on a running server
    #[command(after_help = BENCH_HELP)]
    Bench(super::bench::BenchArgs),
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Configuration file (also: RAWCACHED_CONFIG)
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Log more: -v is debug, -vv is trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Check the configuration and exit; with -v print every setting, as a configuration file. Exit code:
    /// 0 it can be used; 1 it is valid, but this machine lacks what it names; 2 it is wrong
    #[arg(long)]
    pub(super) check_config: bool,
    /// Cache what this HTTP server answers: http://127.0.0.1:PORT or unix:PATH; the configuration file
    /// has more settings
    #[arg(long, value_name = "UPSTREAM")]
    pub(super) upstream: Option<String>,
    /// Where those connect who want the upstream's answers: tcp:127.0.0.1:PORT or unix:PATH; may be given
    /// again [default without a configuration file, besides: unix:rawcached-data/proxy.sock]
    #[arg(long, value_name = "ADDRESS", requires = "upstream")]
    pub(super) listen: Vec<String>,
    #[command(flatten)]
    pub(super) overrides: Overrides,
}

#[derive(Debug, Args)]
pub(super) struct FormatArgs {
    /// Block device or image file
    pub(super) device: PathBuf,
    /// Use the first bytes of a device only, such as 4TiB; where nothing is, make a new sparse image
    /// file of this size
    #[arg(long)]
    pub(super) size: Option<crate::units::ByteSize>,
    /// Erase a foreign file system, partition table or volume too; make an image in memory (tmpfs) too
    #[arg(long)]
    pub(super) force: bool,
    /// Alignment of all I/O in bytes, a power of two from 512 to 65536 [default: ask the device]
    #[arg(long, value_name = "N", value_parser = parse_alignment)]
    pub(super) alignment: Option<u32>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// Block device or image file
    pub(super) device: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Block device or image file
    pub(super) device: PathBuf,
    /// Add a row for each region
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Explain this region: header, footer, what fills it, page by page
    #[arg(long, value_name = "N")]
    pub(super) region: Option<u32>,
    /// Explain this key: where its versions are, and why it is a hit or a miss; as `ls` writes it
    #[arg(long, value_name = "KEY", conflicts_with_all = ["region", "verbose"])]
    pub(super) key: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Block device or image file
    pub(super) device: PathBuf,
    /// Only entries with this tag
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Option<String>,
    /// Stop after this many entries
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    /// The daemon's HTTP socket: a path, unix:PATH or tcp:127.0.0.1:PORT
    /// [default: rawcached-data/http.sock here, else /run/rawcached/http.sock]
    #[arg(long, value_name = "SOCKET")]
    pub(super) socket: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// The daemon's memcached socket: a path, unix:PATH or tcp:127.0.0.1:PORT
    /// [default: rawcached-data/memcached.sock here, else /run/rawcached/memcached.sock]
    #[arg(long, value_name = "SOCKET")]
    pub(super) socket: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EntryArgs {
    /// 1 to 4096 bytes
    pub(super) key: String,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) entry: EntryArgs,
    /// Only these bytes, such as 0-99, 100- or -100 for the last 100
    #[arg(
        long,
        value_name = "FIRST-LAST",
        allow_hyphen_values = true,
        value_parser = parse_range
    )]
    pub(super) range: Option<String>,
    /// A header of the request, such as 'Cache-Control: max-stale'; may be given again
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = super::http_client::parse_header)]
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    #[command(flatten)]
    pub(super) entry: EntryArgs,
    /// A header to keep with the object, such as 'Content-Type: text/css'; may be given again
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = super::http_client::parse_header)]
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Lifetime, such as 30s, 10m or 7d [default: the daemon's ttl.default]
    #[arg(long)]
    pub(super) ttl: Option<crate::units::Period>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true)))]
pub(super) struct PurgeArgs {
    /// Keys of 1 to 4096 bytes
    #[arg(value_name = "KEY", group = "what")]
    pub(super) keys: Vec<String>,
    /// These URLs, with all variants, such as `https://example.com/a`
    #[arg(long, value_name = "URL", num_args = 1.., group = "what", value_parser = parse_url)]
    pub(super) url: Vec<String>,
    /// What was stored with one of these tags (Surrogate-Key, Cache-Tag, xkey)
    #[arg(long, value_name = "TAG", num_args = 1.., group = "what")]
    pub(super) tag: Vec<String>,
    /// All URLs that begin so, such as `https://example.com/images/`
    #[arg(long, value_name = "PREFIX", num_args = 1.., group = "what", value_parser = parse_url)]
    pub(super) prefix: Vec<String>,
    /// All URLs of these origins, such as `https://example.com`
    #[arg(long, value_name = "ORIGIN", num_args = 1.., group = "what", value_parser = parse_origin)]
    pub(super) origin: Vec<String>,
    /// These groups (Cache-Groups) of the origins that --of names
    #[arg(long, value_name = "GROUP", num_args = 1.., group = "what", requires = "of")]
    pub(super) group: Vec<String>,
    /// The origins of the groups
    #[arg(long, value_name = "ORIGIN", num_args = 1.., requires = "group", value_parser = parse_origin)]
    pub(super) of: Vec<String>,
    /// Everything, keys too
    #[arg(long, group = "what")]
    pub(super) all: bool,
    /// Make stale, and do not remove: what was purged is validated before it is used again. Not for keys
    #[arg(long, conflicts_with = "keys")]
    pub(super) soft: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

/// The part of a URL behind its scheme, and whether there is one.
fn behind_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    Some(rest).filter(|rest| is_http && !rest.is_empty() && !rest.starts_with(['/', '?', '#']))
}

fn parse_url(text: &str) -> Result<String, String> {
    match behind_scheme(text) {
        Some(rest) if rest.contains('#') => Err("leave out what begins with #".to_owned()),
        Some(_) => Ok(text.to_owned()),
        None => Err("write it with scheme and host, such as https://example.com/a".to_owned()),
    }
}

fn parse_origin(text: &str) -> Result<String, String> {
    let host = behind_scheme(text).map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    match host {
        Some(host) if !host.contains(['/', '?', '#']) => Ok(text.to_owned()),
        _ => Err("write scheme and host, and a port if there is one, such as https://example.com"
            .to_owned()),
    }
}

/// A server ignores a range that it does not understand and gives all of the object: so it is refused here.
fn parse_range(text: &str) -> Result<String, String> {
    let number = |digits: &str| digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'));
    let is_range =
        text.split_once('-').is_some_and(|(first, last)| match (number(first), number(last)) {
            (Some(first), Some(last)) => first <= last,
            (Some(_), None) => last.is_empty(),
            (None, Some(count)) => first.is_empty() && count > 0,
            (None, None) => false,
        });
    match is_range {
        true => Ok(text.to_owned()),
        false => Err("write FIRST-LAST, FIRST- or -COUNT".to_owned()),
    }
}

pub(super) fn parse_alignment(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(bytes) if bytes.is_power_of_two() && (512..=65_536).contains(&bytes) => Ok(bytes),
        _ => Err("write a power of two from 512 to 65536".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_range_is_one_that_a_server_understands() {
        for range in ["0-0", "0-99", "100-", "-100", "5-5"] {
            assert_eq!(parse_range(range).as_deref(), Ok(range));
        }
        for text in ["", "-", "x", "5", "5-2", "-0", "a-b", "0-1,3-4", "+1-2", " 1-2", "1--2"] {
            parse_range(text).unwrap_err();
        }
    }

    #[test]
    fn urls_and_origins_have_scheme_and_host() {
        for url in ["http://a", "HTTPS://a:1/b?c", "http://[::1]/"] {
            assert_eq!(parse_url(url).as_deref(), Ok(url));
        }
        for text in ["", "/a", "a.example/b", "ftp://a", "http://", "http:///a", "http://a/b#c"] {
            parse_url(text).unwrap_err();
        }
        for origin in ["http://a", "https://a:1/"] {
            assert_eq!(parse_origin(origin).as_deref(), Ok(origin));
        }
        for text in ["a", "http://", "http://a/b", "http://a?b", "http://a//"] {
            parse_origin(text).unwrap_err();
        }
    }

    #[test]
    fn alignments_are_powers_of_two_in_range() {
        assert_eq!(parse_alignment("4096"), Ok(4096));
        for text in ["0", "256", "5000", "131072", "4k"] {
            assert!(parse_alignment(text).is_err(), "{text}");
        }
    }
}
