//! Hits in the RAM tier: what one answer costs the server, which has one processor to itself.

use std::time::Duration;

use anyhow::ensure;
use rawcached::clock::Stopwatch;

use super::Bench;
use super::client::Client;
use super::pattern::{MIB, fill};
use super::server::{Cores, Server};

const CONNECTIONS: usize = 8;
const OBJECTS: usize = 32;
const PHASE: Duration = Duration::from_secs(3);

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    bench.format()?;
    let cores = Cores::choose()?;
    let server = Server::rawcached(&cores, &bench.setup("256MiB"))?;
    for (len, name, mark) in [(64 << 10, "64 KiB", 14.0), (MIB, "1 MiB", 150.0)] {
        let mut bodies = Vec::new();
        for number in 0..OBJECTS {
            let mut body = vec![0; len];
            fill(&mut body, number as u64);
            Client::open(&server.http)?.put_short(&key(len, number), &body)?;
            bodies.push(body);
        }
        turn(&server, &bodies, PHASE / 4)?;
        let before = server.cpu_time()?;
        let watch = Stopwatch::start();
        let answers = turn(&server, &bodies, PHASE)?;
        let (wall, cpu) = (watch.elapsed().as_secs_f64(), server.cpu_time()? - before);
        let per_answer = cpu.as_secs_f64() * 1e6 / answers as f64;
        bench.table.at_most(&format!("RAM hit of {name}: CPU"), per_answer, mark, "us");
        bench.table.plain(&format!("RAM hit of {name}: rate"), answers as f64 / wall, "/s");
    }
    Ok(())
}

fn key(len: usize, number: usize) -> String {
    format!("{len}/{number}")
}

/// Every connection has one request under way. Gives the number of answers.
fn turn(server: &Server, bodies: &[Vec<u8>], time: Duration) -> anyhow::Result<u64> {
    let len = bodies[0].len();
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        let mut client = Client::open(&server.http)?;
        client.ask(&key(len, number))?;
        clients.push((client, number));
    }
    let (mut found, mut answers) = (vec![0; len], 0);
    let watch = Stopwatch::start();
    while watch.elapsed() < time {
        for (client, number) in &mut clients {
            client.body_of(&mut found)?;
            ensure!(found == bodies[*number], "wrong bytes");
            *number = (*number + 1) % OBJECTS;
            client.ask(&key(len, *number))?;
            answers += 1;
        }
    }
    for (client, _) in &mut clients {
        client.body_of(&mut found)?;
        answers += 1;
    }
    Ok(answers)
}
