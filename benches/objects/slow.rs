//! Hundreds of clients that take or give 1 KB a second, beside some that do not.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rawcached::clock::Stopwatch;

use super::Bench;
use super::client::{Client, get_request, put_request};
use super::histogram::Histogram;
use super::pattern::fill;
use super::server::Server;

const NORMAL_CLIENTS: usize = 8;
const NORMAL_OBJECTS: usize = 64;
const NORMAL_LEN: usize = 64 << 10;
const SLOW_READERS: usize = 300;
const SLOW_WRITERS: usize = 100;
/// What slow readers read: objects below the threshold of parallel reads, and one above it.
const MEDIUM_OBJECTS: usize = 30;
const MEDIUM_MIB: u64 = 8;
const LARGE_MIB: u64 = 64;
const PHASE: Duration = Duration::from_secs(6);
const KB: [u8; 1000] = [b's'; 1000];
const RAM: &str = "64MiB";
/// RAM tier, stores in progress, parallel reads.
const BUDGET_MIB: f64 = 64.0 + 128.0 + 64.0;

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    bench.format()?;
    let server = bench.serve(RAM)?;
    let mut client = Client::open(&server.http)?;
    let mut body = vec![0; NORMAL_LEN];
    for number in 0..NORMAL_OBJECTS {
        fill(&mut body, number as u64);
        client.put_short(&normal_key(number), &body)?;
    }
    for number in 0..MEDIUM_OBJECTS {
        client.put(&format!("medium/{number}"), MEDIUM_MIB)?;
    }
    client.put("large", LARGE_MIB)?;
    drop(client);
    let alone = normal(&server)?;
    let before = server.resident_bytes()?;
    let end = AtomicBool::new(false);
    let (beside, with, refused) = thread::scope(|scope| {
        let slow = scope.spawn(|| slow(&server.http, &end));
        // All of them have come, and their first bytes.
        thread::sleep(Duration::from_secs(2));
        let beside = normal(&server);
        let with = server.resident_bytes();
        end.store(true, Ordering::Relaxed);
        let refused = slow.join().ok().context("a client panicked")??;
        anyhow::Ok((beside?, with?, refused))
    })?;
    // What else the machine did may have been in one of them.
    let again = normal(&server)?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let p99_beside = beside.quantile_us(990);
    let p99_alone = alone.quantile_us(990).min(again.quantile_us(990));
    let table = &mut bench.table;
    table.plain("8 clients alone, 64 KiB: p50", alone.quantile_us(500), "us");
    table.plain("8 clients beside 400 slow ones: p50", beside.quantile_us(500), "us");
    table.plain("8 clients alone, before: p99", alone.quantile_us(990), "us");
    table.plain("8 clients alone, after: p99", again.quantile_us(990), "us");
    table.plain("8 clients beside 400 slow ones: p99", p99_beside, "us");
    table.at_most("8 clients beside 400 slow ones: p99 to alone", p99_beside / p99_alone, 2.0, "x");
    table.plain("RSS of the server without slow clients", mib(before), "MiB");
    table.at_most("RSS of the server with slow clients", mib(with), BUDGET_MIB, "MiB");
    table.at_most("slow clients that the server let go", refused as f64, 0.0, "");
    Ok(())
}

fn normal_key(number: usize) -> String {
    format!("normal/{number}")
}

/// Latencies of clients that make one request after another.
fn normal(server: &Server) -> anyhow::Result<Histogram> {
    let found = thread::scope(|scope| {
        let clients: Vec<_> = (0..NORMAL_CLIENTS)
            .map(|seed| scope.spawn(move || normal_client(server, seed)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().ok().context("a client panicked")?)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut histogram = Histogram::new();
    found.iter().flatten().for_each(|time| histogram.record(*time));
    Ok(histogram)
}

fn normal_client(server: &Server, seed: usize) -> anyhow::Result<Vec<Duration>> {
    let mut client = Client::open(&server.http)?;
    let mut body = vec![0; NORMAL_LEN];
    let mut times = Vec::new();
    let watch = Stopwatch::start();
    for turn in seed.. {
        let begun = watch.elapsed();
        if begun > PHASE {
            break;
        }
        client.get(&normal_key(turn * 7 % NORMAL_OBJECTS), &mut body)?;
        times.push(watch.elapsed() - begun);
    }
    Ok(times)
}

/// Gives the number of clients that the server did not keep until `end`.
fn slow(socket: &Path, end: &AtomicBool) -> anyhow::Result<usize> {
    let mut clients = Vec::new();
    for number in 0..SLOW_READERS + SLOW_WRITERS {
        let is_writer = number >= SLOW_READERS;
        let request = match number {
            _ if is_writer => put_request(&format!("slow/{number}")),
            _ if number % 2 == 0 => get_request("large"),
            _ => get_request(&format!("medium/{}", number / 2 % MEDIUM_OBJECTS)),
        };
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(request.as_bytes())?;
        stream.set_nonblocking(true)?;
        clients.push((stream, is_writer, true));
    }
    let batch = clients.len() / 100;
    while !end.load(Ordering::Relaxed) {
        // One KB a second for each, evenly over the second.
        for clients in clients.chunks_mut(batch) {
            for (stream, is_writer, is_kept) in clients {
                *is_kept &= step(stream, *is_writer)?;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    ensure!(!clients.is_empty(), "no slow clients");
    Ok(clients.iter().filter(|(_, _, is_kept)| !is_kept).count())
}

/// One KB; false if the server ended it.
fn step(stream: &mut UnixStream, is_writer: bool) -> anyhow::Result<bool> {
    let mut part = [0; KB.len()];
    if is_writer {
        let chunk = [b"3e8\r\n".as_slice(), &KB, b"\r\n"].concat();
        if stream.write_all(&chunk).is_err() {
            return Ok(false);
        }
        // An answer before the end is a refusal.
        let read = stream.read(&mut part);
        return Ok(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    }
    match stream.read(&mut part) {
        Ok(len) => Ok(len > 0),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error.into()),
    }
}
