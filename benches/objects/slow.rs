//! Hundreds of clients that take or give 1 KB a second, beside some that do not.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rawcached::cli::bench::latencies::Latencies;
use rawcached::cli::bench::load::{
    Clients, Load, Phase, Popularity, Request, Requests, Sizes, Values, each_once,
};

use super::Bench;
use super::client::{Client, get_request, put_request};

const NORMAL_CLIENTS: usize = 8;
const NORMAL_OBJECTS: u32 = 64;
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
    let values = Arc::new(Values::new(Sizes::Fixed(NORMAL_LEN), NORMAL_OBJECTS));
    let load = super::load(&server.http, (NORMAL_CLIENTS, NORMAL_CLIENTS), &values);
    let stores = each_once(NORMAL_OBJECTS, NORMAL_CLIENTS, Request::Set);
    Clients::connect(&load)?.run(&Phase::default(), stores, &|_, _| {})?;
    for number in 0..MEDIUM_OBJECTS {
        client.put(&format!("medium/{number}"), MEDIUM_MIB)?;
    }
    client.put("large", LARGE_MIB)?;
    drop(client);
    let alone = normal(&load)?;
    let before = server.resident_bytes()?;
    let end = AtomicBool::new(false);
    let (beside, with, refused) = thread::scope(|scope| {
        let slow = scope.spawn(|| slow(&server.http, &end));
        // All of them have come, and their first bytes.
        thread::sleep(Duration::from_secs(2));
        let beside = normal(&load);
        let with = server.resident_bytes();
        end.store(true, Ordering::Relaxed);
        let refused = slow.join().ok().context("a client panicked")??;
        anyhow::Ok((beside?, with?, refused))
    })?;
    // What else the machine did may have been in one of them.
    let again = normal(&load)?;
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

/// Latencies of clients that make one request after another.
fn normal(load: &Load) -> anyhow::Result<Latencies> {
    let requests = Requests::draw(&Popularity::Uniform, NORMAL_OBJECTS, 1.0);
    let sources = (0..NORMAL_CLIENTS).map(|number| requests.source(number, NORMAL_CLIENTS));
    let phase = Phase { duration: Some(PHASE), ..Phase::default() };
    let outcome = Clients::connect(load)?.run(&phase, sources.collect(), &|_, _| {})?;
    ensure!(outcome.hits == outcome.gets, "objects are missing");
    Ok(outcome.get_latencies)
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
