//! The command line. Owns the names of commands and flags, exit codes and what is printed;
//! never does the work itself.
//!
//! Exit codes: 0 done; 1 a key is missing, damage was found, or the daemon failed; 2 the command
//! or the configuration is wrong, or a command could not be carried out.

pub mod bench;
mod client;
mod confirm;
mod date;
mod entry;
mod explain;
mod http_client;
mod offline;
mod offline_commands;
mod output;
mod overrides;
mod progress;
mod report;
mod serve;
mod socket;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hyper::header::{HeaderName, HeaderValue};

use output::OutputClosed;
use overrides::Overrides;

const INSPECT_HELP: &str = "Exit code: 0 done (with --key: a lookup would hit); \
    1 the key would be a miss, or the region is damaged; 2 the device cannot be inspected";
const CHECK_HELP: &str = "Exit code: 0 everything is sound; 1 something is damaged; \
    2 the device cannot be checked (in use, not formatted, both superblock copies damaged)";

const BENCH_HELP: &str = "Exit code: 0 done; 1 a server gave wrong bytes; 2 what was \
    asked for could not be measured. docs/benchmarking.md says how to read what is printed";

/// A key is missing or damage was found.
const EXIT_NEGATIVE: u8 = 1;
/// The command or the configuration is wrong, or the command could not be carried out.
const EXIT_UNUSABLE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "rawcached", version, about = "Raw-disk cache storage for reverse proxies")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    /// Remove a key; exit code 1 if it was missing
    Purge(EntryArgs),
    /// Measure a device, or put load on a running server
    #[command(after_help = BENCH_HELP)]
    Bench(bench::BenchArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file (also: RAWCACHED_CONFIG)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log more: -v is debug, -vv is trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Check the configuration and exit; with -v print every setting
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Debug, Args)]
struct FormatArgs {
    /// Block device or image file
    device: PathBuf,
    /// Use the first bytes of a device only, such as 4TiB; where nothing is, make a new sparse image
    /// file of this size
    #[arg(long)]
    size: Option<crate::units::ByteSize>,
    /// Erase a foreign file system, partition table or volume too
    #[arg(long)]
    force: bool,
    /// Alignment of all I/O in bytes, a power of two from 512 to 65536 [default: ask the device]
    #[arg(long, value_name = "N", value_parser = parse_alignment)]
    alignment: Option<u32>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct DeviceArgs {
    /// Block device or image file
    device: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Block device or image file
    device: PathBuf,
    /// Add a row for each region
    #[arg(short, long)]
    verbose: bool,
    /// Explain this region: header, footer, what fills it, page by page
    #[arg(long, value_name = "N")]
    region: Option<u32>,
    /// Explain this key: where its versions are, and why it is a hit or a miss; as `ls` writes it
    #[arg(long, value_name = "KEY", conflicts_with_all = ["region", "verbose"])]
    key: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Block device or image file
    device: PathBuf,
    /// Stop after this many entries
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SocketArgs {
    /// The daemon's HTTP socket: a path, unix:PATH or tcp:127.0.0.1:PORT
    /// [default: rawcached-data/http.sock here, else /run/rawcached/http.sock]
    #[arg(long, value_name = "SOCKET")]
    socket: Option<String>,
}

#[derive(Debug, Args)]
struct StatsArgs {
    /// The daemon's memcached socket: a path, unix:PATH or tcp:127.0.0.1:PORT
    /// [default: rawcached-data/memcached.sock here, else /run/rawcached/memcached.sock]
    #[arg(long, value_name = "SOCKET")]
    socket: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct EntryArgs {
    /// 1 to 4096 bytes
    key: String,
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(Debug, Args)]
struct GetArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// Only these bytes, such as 0-99, 100- or -100 for the last 100
    #[arg(long, value_name = "FIRST-LAST", allow_hyphen_values = true)]
    range: Option<String>,
    /// A header of the request, such as 'Cache-Control: max-stale'; may be given again
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = http_client::parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Args)]
struct PutArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// A header to keep with the object, such as 'Content-Type: text/css'; may be given again
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = http_client::parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Lifetime, such as 30s, 10m or 7d [default: the daemon's ttl.default]
    #[arg(long)]
    ttl: Option<crate::units::Period>,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::device::survive_file_size_limit();
    let ended = match cli.command {
        Command::Serve(arguments) => return serve::run(arguments),
        Command::Format(arguments) => offline_commands::format(&arguments),
        Command::Probe(arguments) => offline_commands::probe(&arguments),
        Command::Inspect(arguments) => offline_commands::inspect(&arguments),
        Command::Ls(arguments) => offline_commands::list(&arguments),
        Command::Check(arguments) => offline_commands::check(&arguments),
        Command::Stats(arguments) => entry::stats(&arguments),
        Command::Get(arguments) => entry::get(&arguments),
        Command::Put(arguments) => entry::put(&arguments),
        Command::Purge(arguments) => entry::purge(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_NEGATIVE),
        // `rawcached ls | head` has had what it wanted.
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) => fail(&error, EXIT_UNUSABLE),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("rawcached: {error:#}");
    ExitCode::from(code)
}

fn parse_alignment(text: &str) -> Result<u32, String> {
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
    fn alignments_are_powers_of_two_in_range() {
        assert_eq!(parse_alignment("4096"), Ok(4096));
        for text in ["0", "256", "5000", "131072", "4k"] {
            assert!(parse_alignment(text).is_err(), "{text}");
        }
    }
}
