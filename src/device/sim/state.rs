//! One simulated device's state: admits operations, carries them out, and settles those
//! under way when the process or the power goes. Owns faults and counts.

use std::collections::BTreeMap;
use std::io;

use super::fault::{self, Delay, Effect, Fault};
use super::random::SplitMix;
use super::storage::Storage;
use crate::device::engine::{Operation, Request};
use crate::device::{Geometry, OperationKind, WriteSlice};

/// What a simulated device was asked to do since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounts {
    /// Reads submitted.
    pub reads: u64,
    /// Writes submitted.
    pub writes: u64,
    /// Flushes submitted.
    pub flushes: u64,
    /// Bytes given to reads.
    pub bytes_read: u64,
    /// Bytes taken from writes.
    pub bytes_written: u64,
    /// Operations that a fault struck.
    pub faults: u64,
    /// Operations of dead handles, all refused.
    pub refused: u64,
    /// Most operations under way at once.
    pub in_flight_max: u64,
}

/// The mutable whole behind a `SimDevice`.
pub(super) struct State {
    pub(super) storage: Storage,
    pub(super) faults: Vec<Fault>,
    pub(super) delay: Delay,
    pub(super) counts: SimCounts,
    pub(super) random: SplitMix,
    geometry: Geometry,
    generation: u64,
    under_way: u64,
    /// Writes under way that will land, by ticket.
    landing: BTreeMap<u64, (u64, Vec<WriteSlice>)>,
    tickets: u64,
}

/// What was decided about an operation when it was submitted.
pub(super) struct Plan {
    ticket: u64,
    effect: Option<Effect>,
    /// What a flush covers.
    sequence: u64,
}

impl State {
    pub(super) fn new(geometry: Geometry) -> State {
        State {
            storage: Storage::default(),
            faults: Vec::new(),
            delay: Delay::None,
            counts: SimCounts::default(),
            random: SplitMix::new(0),
            geometry,
            generation: 0,
            under_way: 0,
            landing: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// Ends the lives of all handles; each write under way lands or does not.
    pub(super) fn next_generation(&mut self) -> u64 {
        for (offset, slices) in std::mem::take(&mut self.landing).into_values() {
            if self.random.up_to(1) == 1 {
                self.storage.write(offset, &joined(&slices));
            }
        }
        self.generation += 1;
        self.generation
    }

    pub(super) fn power_cut(&mut self, seed: u64) {
        // They land as volatile writes, of which the cut keeps any part.
        for (offset, slices) in std::mem::take(&mut self.landing).into_values() {
            self.storage.write(offset, &joined(&slices));
        }
        self.generation += 1;
        self.random = SplitMix::new(seed);
        self.storage.power_cut(&mut self.random);
    }

    /// Counts a request and decides what becomes of it; `None` if its handle is dead.
    pub(super) fn admit(&mut self, generation: u64, request: &Request) -> Option<Plan> {
        if generation != self.generation {
            self.counts.refused += 1;
            return None;
        }
        let kind = request.operation.kind();
        match kind {
            OperationKind::Read => self.counts.reads += 1,
            OperationKind::Write => self.counts.writes += 1,
            OperationKind::Flush => self.counts.flushes += 1,
        }
        self.under_way += 1;
        self.counts.in_flight_max = self.counts.in_flight_max.max(self.under_way);
        let range = request.offset..request.offset + request.operation.len() as u64;
        let effect = fault::strike(&mut self.faults, kind, &range);
        self.counts.faults += u64::from(effect.is_some());
        self.tickets += 1;
        if let (Operation::Write { slices, .. }, None) = (&request.operation, &effect) {
            self.landing.insert(self.tickets, (request.offset, slices.clone()));
        }
        Some(Plan { ticket: self.tickets, effect, sequence: self.storage.sequence() })
    }

    /// Carries the request out, unless its handle has died meanwhile.
    pub(super) fn execute(
        &mut self,
        generation: u64,
        plan: Plan,
        request: &mut Request,
    ) -> io::Result<usize> {
        self.under_way -= 1;
        if generation != self.generation {
            self.counts.refused += 1;
            return Err(errno(libc::ENODEV));
        }
        self.landing.remove(&plan.ticket);
        let alignment = u64::from(self.geometry.alignment);
        let len = request.operation.len();
        if !request.offset.is_multiple_of(alignment) || !(len as u64).is_multiple_of(alignment) {
            return Err(errno(libc::EINVAL));
        }
        if let Some(Effect::Fail(code)) = plan.effect {
            if request.operation.kind() == OperationKind::Flush && code != libc::EINTR {
                self.storage.fail_flush(plan.sequence);
            }
            return Err(errno(code));
        }
        let offset = match plan.effect {
            Some(Effect::Misdirected(elsewhere)) => elsewhere,
            _ => request.offset,
        };
        match &mut request.operation {
            Operation::Read { buf, filled } => {
                let at = *filled;
                let mut bytes = self.storage.contents(offset..offset + len as u64);
                let given = strike_bytes(&mut bytes, plan.effect.as_ref());
                buf.fill(at, &bytes[..given]);
                self.counts.bytes_read += given as u64;
                outcome(given, plan.effect.as_ref())
            }
            Operation::Write { slices, .. } => {
                let mut bytes = joined(slices);
                let taken = strike_bytes(&mut bytes, plan.effect.as_ref());
                if !matches!(plan.effect, Some(Effect::Lost)) && taken > 0 {
                    self.storage.write(offset, &bytes[..taken]);
                }
                self.counts.bytes_written += taken as u64;
                outcome(taken, plan.effect.as_ref())
            }
            Operation::Flush => {
                if !matches!(plan.effect, Some(Effect::Lost)) {
                    self.storage.flush(plan.sequence);
                }
                Ok(0)
            }
        }
    }
}

/// Applies an effect on the bytes of a transfer; gives how many of them are transferred.
fn strike_bytes(bytes: &mut [u8], effect: Option<&Effect>) -> usize {
    match effect {
        Some(Effect::Corrupt(at, mask)) => {
            if let Some(byte) = bytes.get_mut(*at) {
                *byte ^= mask;
            }
            bytes.len()
        }
        Some(Effect::Short(len) | Effect::FailAfter(len, _)) => bytes.len().min(*len),
        _ => bytes.len(),
    }
}

fn outcome(transferred: usize, effect: Option<&Effect>) -> io::Result<usize> {
    match effect {
        Some(Effect::FailAfter(_, code)) => Err(errno(*code)),
        _ => Ok(transferred),
    }
}

fn joined(slices: &[WriteSlice]) -> Vec<u8> {
    slices.iter().flat_map(|slice| slice.bytes()).copied().collect()
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}
