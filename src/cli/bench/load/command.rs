//! The course of `rawcached bench load`: fill, warm up, measure in turns. Owns the order.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::Load;
use super::address::{Address, Protocol};
use super::arguments::LoadArgs;
use super::clients::Clients;
use super::connection::WrongBytes;
use super::counters::Counters;
use super::figures::{Figures, Taken};
use super::pace::Phase;
use super::report::{Report, Section};
use super::requests::{Popularity, Request, Requests, Source, each_once};
use super::sizes::Sizes;
use super::trace::Trace;
use super::values::Values;
use super::wire::Wire;
use crate::cli::bench::process::ProcessorTime;
use crate::cli::bench::progress::Bar;
use crate::cli::output;

const SECONDS_DEFAULT: Duration = Duration::from_secs(10);
const ROUNDS_AGAINST_DEFAULT: u16 = 3;

/// Loads one server or two and prints the results; false if one gave wrong bytes.
pub(in crate::cli) fn run(arguments: &LoadArgs) -> anyhow::Result<bool> {
    match measure(arguments) {
        Ok(report) if arguments.json => output::print(&report.json()?)?,
        Ok(report) => output::print(&report.text())?,
        Err(error) if error.is::<WrongBytes>() => {
            eprintln!("rawcached: {error:#}");
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// The load, which is the same for every server.
struct Plan {
    wire: Wire,
    values: Arc<Values>,
    requests: Requests,
    threads: usize,
    phase: Phase,
}

/// A server and its place in the report.
struct Server {
    load: Load,
    pid: Option<u32>,
    metrics: Option<Address>,
}

fn measure(arguments: &LoadArgs) -> anyhow::Result<Report> {
    let plan = plan(arguments)?;
    let servers = servers(arguments, &plan)?;
    let mut clients: Vec<Clients<'_>> = Vec::new();
    for server in &servers {
        clients.push(Clients::connect(&server.load)?);
    }
    let names = || servers.iter().map(|server| server.load.address.to_string());
    let mut report = Report { notes: notes(&servers), sections: Vec::new() };
    if arguments.fill {
        let mut section = Section::new("fill", names());
        for (at, (server, clients)) in servers.iter().zip(&mut clients).enumerate() {
            let sources = each_once(plan.values.keys(), plan.threads, Request::Set);
            let phase = Phase { operations: Some(plan.values.keys().into()), ..Phase::default() };
            section.add(at, round(server, clients, ("fill", &phase, sources))?);
        }
        report.sections.push(section);
    }
    let mut sources: Vec<_> = servers.iter().map(|_| Shared::new(&plan)).collect();
    if !arguments.warm_up.0.is_zero() {
        let duration = Some(arguments.warm_up.0);
        let phase = Phase { duration, operations: None, ..plan.phase };
        for ((server, clients), sources) in servers.iter().zip(&mut clients).zip(&mut sources) {
            let bar = Bar::new(&format!("warm-up {}", server.load.address), &phase);
            clients.run(&phase, sources.lend(), &|elapsed, ops| bar.advance(elapsed, ops))?;
            bar.end();
        }
    }
    let mut section = Section::new("load", names());
    let rounds = if servers.len() > 1 { ROUNDS_AGAINST_DEFAULT } else { 1 };
    for _ in 0..arguments.rounds.unwrap_or(rounds) {
        for (at, (server, clients)) in servers.iter().zip(&mut clients).enumerate() {
            section.add(at, round(server, clients, ("load", &plan.phase, sources[at].lend()))?);
        }
    }
    report.sections.push(section);
    Ok(report)
}

fn plan(arguments: &LoadArgs) -> anyhow::Result<Plan> {
    let mut wire = match arguments.http {
        Some(_) => Wire::http(&arguments.prefix),
        None => Wire::memcached(&arguments.prefix),
    };
    wire.ttl = arguments.ttl.map(|ttl| ttl.0);
    wire.path.clone_from(&arguments.path);
    wire.fields = arguments.header.iter().map(|field| format!("{field}\r\n")).collect();
    let (popularity, sizes, keys) = match (&arguments.trace, arguments.zipf) {
        (Some(path), _) => {
            let name = || path.display().to_string();
            let file = File::open(path).with_context(name)?;
            let trace = Trace::read(BufReader::new(file)).with_context(name)?;
            let keys = u32::try_from(trace.sizes.len())?;
            (Popularity::Listed(trace.keys), Sizes::Listed(trace.sizes), keys)
        }
        (None, Some(exponent)) => {
            (Popularity::Zipf(exponent), arguments.size.clone(), arguments.keys)
        }
        (None, None) => (Popularity::Uniform, arguments.size.clone(), arguments.keys),
    };
    let requests = Requests::draw(&popularity, keys, arguments.reads);
    let lines = arguments.trace.as_ref().map(|_| requests.len() as u64);
    let (duration, operations) = match (arguments.seconds, arguments.operations.or(lines)) {
        (None, None) => (Some(SECONDS_DEFAULT), None),
        (Some(seconds), _) => (Some(seconds.0), arguments.operations),
        (None, operations) => (None, operations),
    };
    Ok(Plan {
        wire,
        values: Arc::new(Values::new(sizes, keys)),
        requests,
        threads: usize::from(arguments.threads.min(arguments.connections)),
        phase: Phase { duration, operations, rate: arguments.rate },
    })
}

fn servers(arguments: &LoadArgs, plan: &Plan) -> anyhow::Result<Vec<Server>> {
    let first = arguments.memcached.as_ref().or(arguments.http.as_ref());
    let first = first.context("name a server with --memcached or --http")?;
    let server = |address: &Address, pid: Option<u32>, metrics: &Option<Address>| Server {
        load: Load {
            address: address.clone(),
            wire: plan.wire.clone(),
            values: Arc::clone(&plan.values),
            connections: usize::from(arguments.connections),
            threads: plan.threads,
            depth: usize::from(arguments.depth),
            fill_on_miss: arguments.fill_on_miss,
            verify: arguments.verify,
        },
        pid: pid.or_else(|| address.server_pid()),
        metrics: metrics.clone(),
    };
    let mut servers = vec![server(first, arguments.pid, &arguments.metrics)];
    if let Some(second) = &arguments.against {
        servers.push(server(second, arguments.against_pid, &arguments.against_metrics));
    }
    Ok(servers)
}

/// Tells which figures are missing, and why.
fn notes(servers: &[Server]) -> Vec<String> {
    let mut notes = Vec::new();
    for Server { load, pid, metrics } in servers {
        if pid.is_none() {
            let address = &load.address;
            notes.push(format!(
                "{address}: processor time is not known, name the process with --pid"
            ));
        }
        if metrics.is_none() && load.wire.protocol == Protocol::Http {
            let address = &load.address;
            notes.push(format!(
                "{address}: bytes written are not known, name the admin listener with --metrics"
            ));
        }
    }
    notes
}

/// Sources that continue from phase to phase.
struct Shared(Vec<Source<'static>>);

impl Shared {
    fn new(plan: &Plan) -> Shared {
        let source = |number| plan.requests.source(number, plan.threads);
        Shared((0..plan.threads).map(source).collect())
    }

    fn lend(&mut self) -> Vec<Source<'_>> {
        self.0.iter_mut().map(|source| -> Source<'_> { Box::new(source) }).collect()
    }
}

fn round(
    server: &Server,
    clients: &mut Clients<'_>,
    (name, phase, sources): (&str, &Phase, Vec<Source<'_>>),
) -> anyhow::Result<Figures> {
    let address = &server.load.address;
    let counters = || Counters::read((address, server.load.wire.protocol), server.metrics.as_ref());
    let server_cpu = || server.pid.map(ProcessorTime::of).transpose();
    let bar = Bar::new(&format!("{name} {address}"), phase);
    let counters_before = counters()?;
    let (server_before, client_before) = (server_cpu()?, ProcessorTime::own()?);
    let outcome = clients
        .run(phase, sources, &|elapsed, ops| bar.advance(elapsed, ops))
        .with_context(|| address.to_string())?;
    let client_cpu = ProcessorTime::own()? - client_before;
    // Waits until accepted values are on the device: writing them is part of the server's time.
    let counters_after = counters()?;
    let server_cpu = server_cpu()?.zip(server_before).map(|(after, before)| after - before);
    bar.end();
    let counters = [counters_before, counters_after];
    Ok(Figures::new(&Taken { outcome, server_cpu, client_cpu, counters }))
}
