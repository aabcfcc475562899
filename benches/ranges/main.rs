//! Reads of a large object through the library, with and without the parallel range engine: decides
//! whether it is on by default, and from which length. Every byte is compared in a turn of its own.
//!
//! `cargo bench --bench ranges -- [--quick] [--device PATH] [--directory PATH] [--engine NAME]`

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Parser;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::resource::{UsageWho, getrusage};
use rawcached::cache::{Cache, CacheOptions, Condition, Hit, RangeOptions, StoreOptions};
use rawcached::clock::{Clock, Stopwatch};
use rawcached::device::{Device, EngineKind, IoMode, OpenOptions, create_image};
use rawcached::store::{FormatOptions, Store};

const KEY: &[u8] = b"object";
const MIB: u64 = 1 << 20;

/// Reads a large object with and without the range engine and prints a table.
#[derive(Debug, Parser)]
struct Arguments {
    /// A smaller object and fewer rows, for a first look
    #[arg(long)]
    quick: bool,
    /// Block device to use instead of an image file; what is on it is lost
    #[arg(long)]
    device: Option<PathBuf>,
    /// Directory for the image file
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// What moves the bytes
    #[arg(long, default_value = "auto", value_parser = engine)]
    engine: EngineKind,
    /// Measured turns of each row, of which the median is printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    repeats: u8,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn engine(text: &str) -> anyhow::Result<EngineKind> {
    Ok(match text {
        "auto" => EngineKind::Auto,
        "io_uring" => EngineKind::IoUring,
        "threads" => EngineKind::Threads,
        other => anyhow::bail!("{other} is none of auto, io_uring, threads"),
    })
}

/// What one row measures.
#[derive(Clone, Copy)]
struct Row {
    range: RangeOptions,
    /// Bytes of each range; ranges lie one after another.
    len: u64,
    /// Bytes of all ranges together.
    total: u64,
}

/// What one turn took.
struct Turn {
    megabytes_per_s: f64,
    cpu_s_per_gb: f64,
    /// Microseconds to the first piece, median of the ranges.
    first_us: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let object_len = if arguments.quick { 256 * MIB } else { 1024 * MIB };
    let image = arguments.directory.join("ranges.img");
    let path = match &arguments.device {
        Some(device) => device.clone(),
        None => {
            drop(std::fs::remove_file(&image));
            create_image(&image, object_len * 3)?;
            image.clone()
        }
    };
    for io in [IoMode::Direct, IoMode::Buffered, IoMode::Adaptive] {
        let options =
            options!(OpenOptions { io, engine: arguments.engine, ..OpenOptions::new(&path) });
        fill(&options, object_len).await?;
        println!("\n{} {io:?}, {} MiB", path.display(), object_len / MIB);
        println!(
            "{:<10} {:>10} {:>9} {:>9} {:>11}",
            "reads", "range MiB", "MB/s", "CPU s/GB", "first us"
        );
        let cache = open(&options).await?;
        for row in rows(arguments.quick, object_len) {
            turn(&cache, &row, Check::Bytes).await.context("a turn that compares every byte")?;
            let mut turns = Vec::new();
            for _ in 0..arguments.repeats {
                forget_pages(&path)?;
                turns.push(turn(&cache, &row, Check::Length).await?);
            }
            print(&row, turns);
        }
        cache.shutdown().await?;
    }
    if arguments.device.is_none() {
        std::fs::remove_file(&image)?;
    }
    Ok(())
}

/// The whole object with windows of different depth, then ranges of different length without the
/// engine and with it.
fn rows(quick: bool, object_len: u64) -> Vec<Row> {
    let on = options!(RangeOptions { threshold: 1, ..RangeOptions::default() });
    let off = options!(RangeOptions { parallel: false, ..on });
    let depths: &[usize] = if quick { &[1, 16] } else { &[1, 2, 4, 8, 16, 32] };
    let lengths: &[u64] = if quick { &[4, 16] } else { &[1, 2, 4, 8, 16, 32, 64] };
    let whole = |range| Row { range, len: object_len, total: object_len };
    let mut rows = vec![whole(off)];
    rows.extend(
        depths.iter().map(|depth| whole(options!(RangeOptions { concurrency: *depth, ..on }))),
    );
    for len in lengths {
        for range in [off, on] {
            rows.push(Row { range, len: len * MIB, total: object_len.min(512 * MIB) });
        }
    }
    rows
}

async fn fill(options: &OpenOptions, len: u64) -> anyhow::Result<()> {
    let device = Device::open(options)?;
    let format =
        options!(FormatOptions { region_size: Some(64 * MIB), ..FormatOptions::default() });
    Store::format(&device, &format, &Clock::system()).await?;
    drop(device);
    let cache = open(options).await?;
    let mut writer = cache.store(KEY, StoreOptions::default())?;
    for number in 0..len / MIB {
        writer.write_chunk(&piece(number)).await?;
    }
    writer.finalize(Condition::Always).await?;
    cache.shutdown().await?;
    Ok(())
}

async fn open(options: &OpenOptions) -> anyhow::Result<Cache> {
    let cache_options = options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() });
    let cache = Cache::open_device(Device::open(options)?, cache_options, Clock::system()).await?;
    cache.ready().await;
    Ok(cache)
}

/// The bytes of one MiB of the object: cheap to make and to compare, different in each.
fn piece(number: u64) -> Bytes {
    let words = (0..MIB / 8).flat_map(|word| (number << 32 | word).to_le_bytes());
    Bytes::from_iter(words)
}

fn is_right(mut at: u64, bytes: &[u8]) -> bool {
    bytes.chunks(8).all(|word| {
        let expected = (((at / MIB) << 32) | (at % MIB / 8)).to_le_bytes();
        at += 8;
        word == &expected[..word.len()]
    })
}

/// Buffered reads are to come from the device, not from what the last turn left in memory.
fn forget_pages(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

/// What is looked at in the pieces read.
#[derive(Clone, Copy, PartialEq)]
enum Check {
    /// Every byte: takes time that the engine would use to read ahead, so it is not measured.
    Bytes,
    /// That none is missing. Checksums are verified by the store all the same.
    Length,
}

async fn turn(cache: &Cache, row: &Row, check: Check) -> anyhow::Result<Turn> {
    let mut hit = cache.lookup_head(KEY).await.context("the object is gone")?;
    hit.set_range_options(row.range)?;
    let mut firsts = Vec::new();
    let (watch, cpu) = (Stopwatch::start(), processor_time()?);
    for start in (0..row.total).step_by(usize::try_from(row.len)?) {
        firsts.push(read(&hit, start, row, check).await?);
    }
    let (wall, cpu) = (watch.elapsed().as_secs_f64(), processor_time()? - cpu);
    let gigabytes = row.total as f64 / 1e9;
    firsts.sort_unstable();
    Ok(Turn {
        megabytes_per_s: gigabytes * 1000.0 / wall,
        cpu_s_per_gb: cpu.as_secs_f64() / gigabytes,
        first_us: firsts[firsts.len() / 2],
    })
}

/// Reads one range; gives the microseconds to its first piece.
async fn read(hit: &Hit, start: u64, row: &Row, check: Check) -> anyhow::Result<u64> {
    let watch = Stopwatch::start();
    let mut reader = hit.range(start..start + row.len).await?;
    let (mut at, mut first) = (start, None);
    while let Some(chunk) = reader.next_chunk().await? {
        first.get_or_insert_with(|| u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX));
        ensure!(check == Check::Length || is_right(at, &chunk), "wrong bytes at {at}");
        at += chunk.len() as u64;
    }
    ensure!(at == start + row.len, "the range ended at {at}");
    first.context("an empty range")
}

fn processor_time() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .sum::<i64>();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

fn print(row: &Row, mut turns: Vec<Turn>) {
    turns.sort_by(|a, b| a.megabytes_per_s.total_cmp(&b.megabytes_per_s));
    let turn = &turns[turns.len() / 2];
    let reads = match row.range.parallel {
        true => format!("depth {}", row.range.concurrency),
        false => "slices".to_owned(),
    };
    println!(
        "{reads:<10} {:>10} {:>9.0} {:>9.2} {:>11}",
        row.len / MIB,
        turn.megabytes_per_s,
        turn.cpu_s_per_gb,
        turn.first_us
    );
}
