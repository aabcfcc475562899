//! The device as the daemon uses it, with each engine. Owns which engines are tried, and the tasks
//! that keep one busy.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime;
use tokio::task::JoinSet;

use super::arguments::DeviceArgs;
use super::cells::{Cell, Kind};
use super::raw::fill;
use super::row::{Measured, Offsets, Way, measured};
use crate::cli::bench::latencies::Latencies;
use crate::clock::Stopwatch;
use crate::device::{Device, EngineKind, IoMode, OpenOptions, WriteSlice};

/// All engines, by their names in a configuration.
const ENGINES: [Engine; 2] = [
    Engine { name: "threads", kind: EngineKind::Threads },
    Engine { name: "io_uring", kind: EngineKind::IoUring },
];

/// An engine that works here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine {
    pub(super) name: &'static str,
    pub(super) kind: EngineKind,
}

/// The engines that the device opens with, and why it does not with others. An error if the first
/// engine fails, which needs nothing special of the kernel.
pub(super) fn working(arguments: &DeviceArgs) -> anyhow::Result<(Vec<Engine>, Vec<String>)> {
    let (mut engines, mut notes) = (Vec::new(), Vec::new());
    for Engine { name, kind } in ENGINES {
        let way = Way { name, kind, io: IoMode::Auto };
        match Device::open(&options(arguments, (true, None), &way)) {
            Ok(_) => engines.push(Engine { name, kind }),
            Err(error) if engines.is_empty() => return Err(error.into()),
            Err(error) => notes.push(format!("no rows with {name}: {error}")),
        }
    }
    Ok((engines, notes))
}

fn options(
    arguments: &DeviceArgs,
    (read_only, alignment): (bool, Option<u32>),
    way: &Way,
) -> OpenOptions {
    OpenOptions {
        io: way.io,
        engine: way.kind,
        read_only,
        alignment,
        threads: arguments.threads,
        ..OpenOptions::new(&arguments.path)
    }
}

/// Measures a cell: a task for each transfer in flight, all on one thread, with a ring of its own
/// if the engine has rings.
pub(super) fn run(
    arguments: &DeviceArgs,
    (cell, way): (&Cell, &Way),
    row: u64,
) -> anyhow::Result<Measured> {
    let access = (!cell.kind.is_write(), cell.alignment);
    let device = Device::open(&options(arguments, access, way))?;
    let geometry = device.geometry();
    let step = if cell.kind == Kind::ExactRead { 1 } else { cell.block };
    let offsets = Offsets::new(cell, step, geometry.size, row);
    // As in a worker of the daemon. Dropped after the runtime, whose transfers end first.
    let ring = device.thread_ring()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(ring) = &ring {
        runtime.spawn(ring.completions());
    }
    let is_direct = device.info().direct;
    measured((geometry.alignment, is_direct), || {
        runtime.block_on(async {
            let mut slots = JoinSet::new();
            let until = (Stopwatch::start(), arguments.row());
            for number in 0..cell.depth {
                let (device, offsets) = (device.clone(), offsets.clone());
                slots.spawn(slot(device, (*cell, number), offsets, until));
            }
            let mut all = Latencies::new();
            while let Some(slot) = slots.join_next().await {
                all.merge(&slot.context("a task panicked")??);
            }
            Ok(all)
        })
    })
}

async fn slot(
    device: Device,
    (cell, number): (Cell, usize),
    offsets: Offsets,
    (watch, time): (Stopwatch, Duration),
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    let len = usize::try_from(cell.block)?;
    let mut buf = device.geometry().zeroed_buffer(if cell.kind.is_write() { len } else { 0 });
    fill(&mut buf, number);
    let written = Arc::new(buf);
    let mut buf = device.geometry().read_buffer(len);
    loop {
        let begun = watch.elapsed();
        let offset = offsets.next();
        match cell.kind {
            Kind::RandomRead | Kind::SequentialRead => buf = device.read(offset, buf).await?,
            Kind::ExactRead => drop(device.read_exact(offset..offset + cell.block).await?),
            Kind::RandomWrite | Kind::SequentialWrite => {
                device.write(offset, vec![WriteSlice::whole(Arc::clone(&written))]).await?;
            }
        }
        let ended = watch.elapsed();
        latencies.record(ended - begun);
        // At the end, so that every slot has made a transfer.
        if ended >= time {
            return Ok(latencies);
        }
    }
}
