//! Hits in the RAM tier: what one answer costs the server, which has one processor to itself.

use std::sync::Arc;
use std::time::Duration;

use rawcached::cli::bench::load::{
    Clients, Phase, Popularity, Request, Requests, Sizes, Values, each_once,
};

use super::Bench;
use super::pattern::MIB;
use super::server::{Cores, Server};

const CONNECTIONS: usize = 8;
const OBJECTS: u32 = 32;
const PHASE: Duration = Duration::from_secs(3);

pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    bench.format()?;
    let cores = Cores::choose()?;
    let server = Server::rawcached(&cores, &bench.setup("256MiB"))?;
    let requests = Requests::draw(&Popularity::Uniform, OBJECTS, 1.0);
    for (len, name, mark) in [(64 << 10, "64 KiB", 14.0), (MIB, "1 MiB", 150.0)] {
        let values = Arc::new(Values::new(Sizes::Fixed(len), OBJECTS));
        let load = super::load(&server, (CONNECTIONS, 1), &values);
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
        let per_answer = cpu.as_secs_f64() * 1e6 / answers;
        bench.table.at_most(&format!("RAM hit of {name}: CPU"), per_answer, mark, "us");
        bench.table.plain(&format!("RAM hit of {name}: rate"), answers / wall, "/s");
    }
    Ok(())
}
