//! One thread of the load: its connections, its epoll, its counts. Never allocates for a request
//! once its buffers have grown.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::Load;
use super::connection::{Asked, Connection};
use super::outcome::Outcome;
use super::pace::{Pace, Turn};
use super::requests::{Request, Source};
use super::wire::Answer;
use crate::clock::Stopwatch;

/// A server that answers nothing for this long has failed.
const PATIENCE_MS: u16 = 60_000;
const SCRATCH_LEN: usize = 256 << 10;
/// Shorter waits for the next due request are spent polling for answers.
const SPIN: Duration = Duration::from_micros(50);
/// The timer's number in `epoll`, unlike any connection's.
const TIMER: u64 = u64::MAX;

pub(super) struct Worker<'a> {
    load: &'a Load,
    epoll: Epoll,
    timer: TimerFd,
    connections: Vec<Connection>,
    /// Connections that may have room, the one that has waited longest first.
    idle: VecDeque<usize>,
    /// Keys to be stored because they were missing, and since when.
    fills: VecDeque<(u32, Duration)>,
    under_way: usize,
    scratch: Vec<u8>,
    answers: Vec<(Asked, Answer)>,
    version: u32,
}

/// One thread's part of a phase.
pub(super) struct Part<'a> {
    pub(super) pace: Pace,
    pub(super) source: Source<'a>,
    pub(super) watch: Stopwatch,
    /// Answers so far.
    pub(super) pulse: &'a AtomicU64,
}

impl Worker<'_> {
    /// Opens its share of the connections. Versions begin with `version`.
    pub(super) fn connect(
        load: &Load,
        connections: usize,
        version: u32,
    ) -> anyhow::Result<Worker<'_>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let opened = (0..connections).map(|number| Connection::open(load, &epoll, number));
        Ok(Worker {
            load,
            connections: opened.collect::<anyhow::Result<_>>()?,
            epoll,
            timer,
            idle: (0..connections).collect(),
            fills: VecDeque::new(),
            under_way: 0,
            scratch: vec![0; SCRATCH_LEN],
            answers: Vec::new(),
            version,
        })
    }

    /// Makes requests until the part is over, and waits for all answers.
    pub(super) fn run(&mut self, mut part: Part<'_>) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let now = part.watch.elapsed();
            if part.pace.gives_up(now) {
                self.give_up(&mut part, &mut outcome, now);
            }
            self.dispatch(&mut part, now)?;
            if self.under_way == 0 && part.pace.turn(now) == Turn::Never {
                break;
            }
            let count = self.wait(&part, &mut events)?;
            for event in &events[..count] {
                match usize::try_from(event.data()) {
                    Ok(number) if event.data() != TIMER => {
                        self.serve(number, event.events(), &mut outcome, part.watch)?;
                    }
                    _ => self.timer.wait()?,
                }
            }
            part.pulse.store(outcome.ops(), Ordering::Relaxed);
        }
        outcome.elapsed = part.watch.elapsed();
        Ok(outcome)
    }

    /// Begins due requests on connections that have room.
    fn dispatch(&mut self, part: &mut Part<'_>, now: Duration) -> anyhow::Result<()> {
        // In an open loop requests do not wait behind others while a connection is free.
        let batch = if part.pace.is_open_loop() { 1 } else { self.load.depth };
        while let Some(number) = self.idle.front().copied() {
            let connection = &mut self.connections[number];
            let mut begun = 0;
            while begun < batch && connection.has_room(self.load) {
                let (request, due) = if let Some((key, since)) = self.fills.pop_front() {
                    (Request::Set(key), since)
                } else if let Turn::Now(due) = part.pace.turn(now) {
                    let Some(request) = (part.source)() else {
                        part.pace.end();
                        break;
                    };
                    part.pace.advance();
                    (request, due)
                } else {
                    break;
                };
                self.version = self.version.wrapping_add(1);
                connection.begin(self.load, (request, self.version), due);
                begun += 1;
            }
            if begun == 0 && connection.has_room(self.load) {
                break;
            }
            self.under_way += begun;
            connection.send(self.load, &self.epoll)?;
            self.idle.pop_front();
            connection.is_listed = connection.has_room(self.load);
            if connection.is_listed {
                self.idle.push_back(number);
            }
        }
        Ok(())
    }

    /// Waits for answers, room to write, or the time of the next request.
    fn wait(&self, part: &Part<'_>, events: &mut [EpollEvent]) -> anyhow::Result<usize> {
        let mut timeout = EpollTimeout::from(PATIENCE_MS);
        let now = part.watch.elapsed();
        let has_room = !self.idle.is_empty();
        match part.pace.turn(now) {
            Turn::Now(_) if has_room => timeout = EpollTimeout::ZERO,
            Turn::Later(due) if has_room => match due.saturating_sub(now) {
                soon if soon < SPIN => timeout = EpollTimeout::ZERO,
                later => self.timer.set(
                    Expiration::OneShot(TimeSpec::from_duration(later)),
                    TimerSetTimeFlags::empty(),
                )?,
            },
            _ => {}
        }
        match self.epoll.wait(events, timeout) {
            Err(Errno::EINTR) => Ok(0),
            Ok(0) => {
                ensure!(timeout == EpollTimeout::ZERO, "the server answers nothing");
                Ok(0)
            }
            waited => Ok(waited?),
        }
    }

    /// Handles the events of a connection.
    fn serve(
        &mut self,
        number: usize,
        flags: EpollFlags,
        outcome: &mut Outcome,
        watch: Stopwatch,
    ) -> anyhow::Result<()> {
        let connection = &mut self.connections[number];
        if flags.contains(EpollFlags::EPOLLOUT) {
            connection.send(self.load, &self.epoll)?;
        }
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            connection.receive(self.load, &mut self.scratch, &mut self.answers)?;
        }
        if !connection.is_listed && connection.has_room(self.load) {
            connection.is_listed = true;
            self.idle.push_back(number);
        }
        let now = watch.elapsed();
        for (asked, answer) in self.answers.drain(..) {
            self.under_way -= 1;
            outcome.account(&asked, answer, now);
            if answer == Answer::Missing && self.load.fill_on_miss {
                self.fills.push_back((asked.request.key(), now));
            }
        }
        Ok(())
    }

    /// Counts requests that were not made, with their delay now as latency.
    fn give_up(&self, part: &mut Part<'_>, outcome: &mut Outcome, now: Duration) {
        while let Turn::Now(due) = part.pace.turn(now)
            && let Some(request) = (part.source)()
        {
            part.pace.advance();
            outcome.unsent += 1;
            outcome.latencies_of(request).record(now.saturating_sub(due));
        }
        part.pace.end();
    }
}
