//! Hits in the RAM tier: what one answer costs the server, which has one processor to itself, and
//! what the same bytes cost without a server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rawcached::cli::bench::load::{
    Clients, Load, Phase, Popularity, Request, Requests, Sizes, Values, each_once,
};

use super::pattern::MIB;
use super::server::{Cores, Server};
use super::{Bench, bare};

const CONNECTIONS: usize = 8;
const OBJECTS: u32 = 32;
const PHASE: Duration = Duration::from_secs(3);

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    bench.format()?;
    let cores = Cores::choose()?;
    for (len, name, mark) in [(64 << 10, "64 KiB", 14.0), (MIB, "1 MiB", 150.0)] {
        let bare = bare(bench, &cores, len)?;
        let (hit, rate) = hit(bench, &cores, len)?;
        bench.table.at_most(&format!("RAM hit of {name}: CPU"), hit, mark, "us");
        bench.table.plain(&format!("{name} from memory, no server: CPU"), bare, "us");
        bench.table.plain(&format!("RAM hit of {name}: rate"), rate, "/s");
    }
    Ok(())
}

/// Processor time of a hit in microseconds, and hits a second.
fn hit(bench: &Bench, cores: &Cores, len: usize) -> anyhow::Result<(f64, f64)> {
    let server = Server::rawcached(cores, &bench.setup("256MiB"))?;
    let requests = Requests::draw(&Popularity::Uniform, OBJECTS, 1.0);
    let values = Arc::new(Values::new(Sizes::Fixed(len), OBJECTS));
    let load = super::load(&server.http, (CONNECTIONS, 1), &values);
    let mut clients = Clients::connect(&load)?;
    clients.run(&Phase::default(), each_once(OBJECTS, 1, Request::Set), &|_, _| {})?;
    let mut turn = |time| {
        let phase = Phase { duration: Some(time), ..Phase::default() };
        clients.run(&phase, vec![requests.source(0, 1)], &|_, _| {})
    };
    turn(PHASE / 4)?;
    let before = server.cpu_time()?;
    let outcome = turn(PHASE)?;
    let (wall, cpu) = (outcome.elapsed.as_secs_f64(), server.cpu_time()? - before);
    let answers = outcome.hits as f64;
    Ok((cpu.as_secs_f64() * 1e6 / answers, answers / wall))
}

/// Processor time in microseconds of sending as many bytes from memory.
fn bare(bench: &Bench, cores: &Cores, len: usize) -> anyhow::Result<f64> {
    let socket = bench.directory.join(format!("bare-{len}.sock"));
    let server = bare::serve(cores, &socket, (CONNECTIONS, len))?;
    let requests = Requests::draw(&Popularity::Uniform, OBJECTS, 1.0);
    let values = Arc::new(Values::new(Sizes::Fixed(len), OBJECTS));
    let load = Load { verify: false, ..super::load(&socket, (CONNECTIONS, 1), &values) };
    let phase = Phase { duration: Some(PHASE), ..Phase::default() };
    Clients::connect(&load)?.run(&phase, vec![requests.source(0, 1)], &|_, _| {})?;
    let (cpu, answers) = server.join().ok().context("the server panicked")??;
    Ok(cpu.as_secs_f64() * 1e6 / answers as f64)
}
