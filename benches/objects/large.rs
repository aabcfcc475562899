//! Objects much larger than memory: stored, read back, begun to be read, and read beside fio.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rawcached::cache::{Cache, CacheOptions, Condition, StoreOptions};
use rawcached::clock::{Clock, Stopwatch};
use rawcached::device::{Device, OpenOptions};

use super::Bench;
use super::client::Client;
use super::pattern::{MIB, awkward_ranges, fill, is_right, is_right_at};
use super::server::{Server, memory};

const KEY: &str = "large";
const GIB_KEY: &str = "gib";
const GIB: u64 = 1024;
const RSS_MARK_MIB: f64 = 256.0;
const FIRST_BYTE_TURNS: usize = 20;
const SEQUENTIAL_TURNS: usize = 3;

/// Through HTTP, with the object of 1 GiB that further figures are of.
pub fn http(bench: &mut Bench) -> anyhow::Result<()> {
    bench.format()?;
    let server = bench.serve("0")?;
    let mebibytes = bench.large_mebibytes;
    let watch = Stopwatch::start();
    Client::open(&server.http)?.put(KEY, mebibytes)?;
    let put = watch.elapsed();
    let watch = Stopwatch::start();
    let mut client = Client::open(&server.http)?;
    client.ask(KEY)?;
    let (status, len) = client.head()?;
    ensure!(status == 200 && len == mebibytes * MIB as u64, "status {status}, length {len}");
    let mut piece = vec![0; MIB];
    for number in 0..mebibytes {
        client.read_exact(&mut piece)?;
        ensure!(is_right(&piece, number), "wrong bytes in MiB {number}");
    }
    let get = watch.elapsed();
    let name = format!("HTTP, {mebibytes} MiB: peak RSS of the server");
    bench.table.at_most(&name, mib(server.peak_bytes()?), RSS_MARK_MIB, "MiB");
    rates(bench, "HTTP, the same", put, get);
    Client::open(&server.http)?.put(GIB_KEY, GIB)?;
    ranges(bench, &server, KEY, mebibytes)?;
    ranges(bench, &server, GIB_KEY, GIB)?;
    first_bytes(bench, &server)?;
    sequential(bench, &server)
}

/// Reads and compares ranges of an object at awkward offsets, and one past its end.
fn ranges(bench: &mut Bench, server: &Server, key: &str, mebibytes: u64) -> anyhow::Result<()> {
    let len = mebibytes * MIB as u64;
    let mut client = Client::open(&server.http)?;
    let mut compared = 0;
    for range in awkward_ranges(len) {
        client.ask_range(key, &format!("{}-{}", range.start, range.end - 1))?;
        let (status, part) = client.head()?;
        ensure!(status == 206 && part == range.end - range.start, "{range:?}: {status}, {part}");
        let mut bytes = vec![0; usize::try_from(part)?];
        client.read_exact(&mut bytes)?;
        ensure!(is_right_at(&bytes, range.start), "wrong bytes in {range:?}");
        compared += part;
    }
    client.ask_range(key, &format!("{len}-"))?;
    let (status, _) = client.head()?;
    ensure!(status == 416, "past the end: {status}");
    let name = format!("HTTP, {mebibytes} MiB: ranges compared at awkward offsets");
    bench.table.plain(&name, mib(compared), "MiB");
    Ok(())
}

fn rates(bench: &mut Bench, name: &str, put: Duration, get: Duration) {
    let mebibytes = bench.large_mebibytes as f64;
    for (verb, time) in [("stored", put), ("read and compared", get)] {
        bench.table.plain(&format!("{name}: {verb}"), mebibytes / time.as_secs_f64(), "MiB/s");
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// From before the connection is made to the first byte of the body.
fn first_bytes(bench: &mut Bench, server: &Server) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for _ in 0..FIRST_BYTE_TURNS {
        forget_pages(&bench.device)?;
        let watch = Stopwatch::start();
        let mut client = Client::open(&server.http)?;
        client.ask(GIB_KEY)?;
        client.head()?;
        client.read_exact(&mut [0])?;
        times.push(watch.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let name = "first byte of a 1 GiB hit, RAM tier off";
    bench.table.at_most(&format!("{name}: median of 20"), times[times.len() / 2], 10.0, "ms");
    bench.table.at_most(&format!("{name}: longest"), times[times.len() - 1], 10.0, "ms");
    Ok(())
}

/// What the page cache has is not what the device gives.
fn forget_pages(path: &Path) -> anyhow::Result<()> {
    posix_fadvise(&File::open(path)?, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// A client that takes what comes, in turns with fio.
fn sequential(bench: &mut Bench, server: &Server) -> anyhow::Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SEQUENTIAL_TURNS {
        forget_pages(&bench.device)?;
        theirs.push(fio(&bench.device)?);
        forget_pages(&bench.device)?;
        let mut client = Client::open(&server.http)?;
        let watch = Stopwatch::start();
        client.ask(GIB_KEY)?;
        ensure!(client.head()? == (200, GIB * MIB as u64), "another object");
        let mut piece = vec![0; MIB];
        for _ in 0..GIB {
            client.read_exact(&mut piece)?;
        }
        ours.push(GIB as f64 / watch.elapsed().as_secs_f64());
    }
    for rates in [&mut ours, &mut theirs] {
        rates.sort_by(f64::total_cmp);
    }
    let (ours, theirs) = (ours[SEQUENTIAL_TURNS / 2], theirs[SEQUENTIAL_TURNS / 2]);
    bench.table.plain("1 GiB from disk over HTTP: median of 3", ours, "MiB/s");
    bench.table.plain("1 GiB from disk by fio: median of 3", theirs, "MiB/s");
    bench.table.at_least("1 GiB from disk: HTTP to fio", 100.0 * ours / theirs, 90.0, "%");
    Ok(())
}

/// Sequential reads of what the first large object lies in, in MiB/s.
fn fio(path: &Path) -> anyhow::Result<f64> {
    let mut command = Command::new("fio");
    command.args(["--name=sequential", "--readonly", "--rw=read", "--bs=1M", "--iodepth=16"]);
    command.args(["--direct=1", "--ioengine=libaio", "--offset=128M", "--size=768M"]);
    command.arg("--output-format=json").arg(format!("--filename={}", path.display()));
    let output = command.output().context("cannot run fio")?;
    ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let bytes_per_s = found["jobs"][0]["read"]["bw_bytes"].as_f64().context("fio says nothing")?;
    Ok(bytes_per_s / MIB as f64)
}

/// Through the library, in this process.
pub fn library(bench: &mut Bench) -> anyhow::Result<()> {
    bench.format()?;
    // From here on the peak is counted anew.
    fs::write("/proc/self/clear_refs", "5")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (put, get) = runtime.block_on(round_trip(&bench.device, bench.large_mebibytes))?;
    let name = format!("library, {} MiB: peak RSS of the process", bench.large_mebibytes);
    bench.table.at_most(&name, mib(memory("self", "VmHWM:")?), RSS_MARK_MIB, "MiB");
    rates(bench, "library, the same", put, get);
    Ok(())
}

async fn round_trip(device: &Path, mebibytes: u64) -> anyhow::Result<(Duration, Duration)> {
    let options = options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() });
    let device = Device::open(&OpenOptions::new(device))?;
    let cache = Cache::open_device(device, options, Clock::system()).await?;
    cache.ready().await;
    let mut piece = vec![0; MIB];
    let watch = Stopwatch::start();
    let mut writer = cache.store(KEY.as_bytes(), StoreOptions::default())?;
    for number in 0..mebibytes {
        fill(&mut piece, number);
        for chunk in piece.chunks(300_007) {
            writer.write_chunk(chunk).await?;
        }
    }
    writer.finalize(Condition::Always).await?;
    let put = watch.elapsed();
    let watch = Stopwatch::start();
    let mut hit = cache.lookup(KEY.as_bytes()).await.context("the object is gone")?;
    let (mut number, mut filled) = (0, 0);
    while let Some(chunk) = hit.next_chunk().await? {
        let mut chunk = &chunk[..];
        while !chunk.is_empty() {
            let len = chunk.len().min(MIB - filled);
            piece[filled..filled + len].copy_from_slice(&chunk[..len]);
            (filled, chunk) = (filled + len, &chunk[len..]);
            if filled == MIB {
                ensure!(is_right(&piece, number), "wrong bytes in MiB {number}");
                (number, filled) = (number + 1, 0);
            }
        }
    }
    ensure!((number, filled) == (mebibytes, 0), "the object ended in MiB {number}");
    let get = watch.elapsed();
    drop(hit);
    let len = mebibytes * MIB as u64;
    let hit = cache.lookup_head(KEY.as_bytes()).await.context("the object is gone")?;
    for range in awkward_ranges(len).into_iter().chain(std::iter::once(len..len + 5)) {
        let mut body = hit.range(range.clone()).await?;
        let mut at = range.start;
        while let Some(chunk) = body.next_chunk().await? {
            ensure!(is_right_at(&chunk, at), "wrong bytes from {at} on");
            at += chunk.len() as u64;
        }
        ensure!(at == range.end.min(len), "{range:?} ended at {at}");
    }
    drop(hit);
    cache.shutdown().await?;
    Ok((put, get))
}
