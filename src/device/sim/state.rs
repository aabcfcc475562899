//! One simulated device's state: admits operations, carries them out, and settles those under way
//! when the process is killed or the power is cut. Owns faults and counts.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::fault::{self, Delay, Effect, Fault};
use super::page_cache::PageCache;
use super::random::SplitMix;
use super::rates::{FaultKind, Rates, Struck};
use super::storage::{SECTOR_LEN, Storage};
use crate::device::request::{Operation, Request};
use crate::device::{Geometry, OperationKind, Way, WriteSlice};

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

/// The mutable state behind a `SimDevice`.
pub(super) struct State {
    pub(super) storage: Storage,
    pub(super) page_cache: PageCache,
    pub(super) faults: Vec<Fault>,
    pub(super) delay: Delay,
    pub(super) read_deadline: Option<Duration>,
    pub(super) counts: SimCounts,
    pub(super) random: SplitMix,
    pub(super) rates: Rates,
    pub(super) struck: Struck,
    /// Sectors that are being written when the power is cut may become unreadable.
    pub(super) spoils_sectors: bool,
    /// Rules that users of the device broke.
    pub(super) broken_rules: Vec<String>,
    pub(super) freezing: Arc<Notify>,
    /// Operations to admit before the device freezes; `None` never.
    freezes_in: Option<u64>,
    /// Requests that met a frozen device: never completed.
    stalled: Vec<Request>,
    geometry: Geometry,
    generation: u64,
    under_way: u64,
    /// Writes under way that will land, by ticket.
    landing: BTreeMap<u64, (u64, Vec<WriteSlice>)>,
    /// Writes submitted and not completed, by ticket.
    writing: BTreeMap<u64, Writing>,
    tickets: u64,
}

/// A write under way.
struct Writing {
    range: Range<u64>,
    /// Its number in the storage, once it has taken effect.
    sequence: Option<u64>,
}

/// What was decided about an operation when it was submitted.
pub(super) struct Plan {
    ticket: u64,
    effect: Option<Effect>,
    /// What a flush covers: writes up to this one.
    sequence: u64,
    /// Writes up to `sequence` that a flush does not cover: not yet completed when it was submitted.
    incomplete: Vec<u64>,
}

impl State {
    pub(super) fn new(geometry: Geometry) -> State {
        State {
            storage: Storage::default(),
            page_cache: PageCache::default(),
            faults: Vec::new(),
            delay: Delay::None,
            read_deadline: None,
            counts: SimCounts::default(),
            random: SplitMix::new(0),
            rates: Rates::default(),
            struck: Struck::default(),
            spoils_sectors: false,
            broken_rules: Vec::new(),
            freezing: Arc::default(),
            freezes_in: None,
            stalled: Vec::new(),
            geometry,
            generation: 0,
            under_way: 0,
            landing: BTreeMap::new(),
            writing: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// The same storage, not open, with no faults.
    pub(super) fn duplicate(&self) -> State {
        State { storage: self.storage.clone(), ..State::new(self.geometry) }
    }

    // Freezing.

    pub(super) fn freeze_after(&mut self, operations: u64) {
        self.freezes_in = Some(operations);
        if operations == 0 {
            self.freezing.notify_one();
        }
    }

    pub(super) fn writes_under_way(&self) -> usize {
        self.writing.len()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.freezes_in == Some(0)
    }

    /// Keeps a request for good, so that nobody hears of it again.
    pub(super) fn stall(&mut self, request: Request) {
        self.stalled.push(request);
    }

    fn count_down(&mut self) {
        if let Some(left) = &mut self.freezes_in {
            *left -= 1;
            if *left == 0 {
                self.freezing.notify_one();
            }
        }
    }

    fn end_lives(&mut self) {
        self.page_cache = PageCache::default();
        self.generation += 1;
        self.under_way = 0;
        self.freezes_in = None;
        self.stalled.clear();
        self.writing.clear();
    }

    /// Kills all handles; each write under way lands or does not.
    pub(super) fn next_generation(&mut self) -> u64 {
        for (offset, slices) in std::mem::take(&mut self.landing).into_values() {
            if self.random.up_to(1) == 1 {
                self.storage.write(offset, &joined(&slices));
            }
        }
        self.end_lives();
        self.generation
    }

    pub(super) fn power_cut(&mut self, seed: u64) {
        // Writes under way land as volatile ones, of which the cut keeps any part.
        for (offset, slices) in std::mem::take(&mut self.landing).into_values() {
            self.storage.write(offset, &joined(&slices));
        }
        let in_flight: Vec<Range<u64>> =
            self.writing.values().map(|writing| writing.range.clone()).collect();
        self.end_lives();
        self.random = SplitMix::new(seed);
        let unflushed = self.storage.volatile_numbers();
        self.storage.power_cut(&mut self.random);
        if self.spoils_sectors {
            in_flight.into_iter().for_each(|range| self.spoil(range));
            // The device may have been writing them out of its cache.
            unflushed.into_iter().for_each(|sector| self.spoil_one_in(8, sector));
        }
    }

    /// Makes some sectors of a range unreadable until they are written again.
    fn spoil(&mut self, range: Range<u64>) {
        let sector_len = SECTOR_LEN as u64;
        for sector in range.start / sector_len..range.end / sector_len {
            self.spoil_one_in(4, sector);
        }
    }

    fn spoil_one_in(&mut self, n: u64, sector: u64) {
        if self.random.up_to(n - 1) == 0 {
            self.storage.spoil(sector);
            self.struck.count(FaultKind::UnreadableSector);
        }
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
        self.count_down();
        let range = request.offset..request.offset + request.operation.len() as u64;
        self.check_rules(kind, &range);
        let effect = self.strike(kind, &range);
        self.tickets += 1;
        if let Operation::Write { slices, .. } = &request.operation {
            self.writing.insert(self.tickets, Writing { range, sequence: None });
            if effect.is_none() {
                self.landing.insert(self.tickets, (request.offset, slices.clone()));
            }
        }
        let incomplete = self.writing.values().filter_map(|writing| writing.sequence).collect();
        let sequence = self.storage.sequence();
        Some(Plan { ticket: self.tickets, effect, sequence, incomplete })
    }

    fn strike(&mut self, kind: OperationKind, range: &Range<u64>) -> Option<Effect> {
        if let Some(effect) = fault::strike(&mut self.faults, kind, range) {
            self.counts.faults += 1;
            return Some(effect);
        }
        let (fault, effect) = self.rates.strike(kind, range, (&mut self.random, self.geometry))?;
        self.counts.faults += 1;
        self.struck.count(fault);
        Some(effect)
    }

    /// Notes rules that are broken: transfers that are not aligned, and writes that overlap while both
    /// are under way.
    fn check_rules(&mut self, kind: OperationKind, range: &Range<u64>) {
        let alignment = u64::from(self.geometry.alignment);
        if !range.start.is_multiple_of(alignment) || !range.end.is_multiple_of(alignment) {
            self.broken_rules.push(format!("{kind:?} of {range:?} is not aligned"));
        }
        let overlaps =
            |other: &Writing| other.range.start < range.end && range.start < other.range.end;
        if kind == OperationKind::Write
            && let Some(other) = self.writing.values().find(|other| overlaps(other))
        {
            let other = other.range.clone();
            self.broken_rules.push(format!("write of {range:?} while {other:?} is under way"));
        }
    }

    /// Notes that a request is over; its waiter is told afterwards.
    pub(super) fn complete(&mut self, generation: u64, plan: &Plan) {
        if generation == self.generation {
            self.under_way -= 1;
            self.writing.remove(&plan.ticket);
        }
    }

    /// Carries the request out, unless its handle has died meanwhile.
    pub(super) fn execute(
        &mut self,
        generation: u64,
        plan: &Plan,
        request: &mut Request,
    ) -> io::Result<usize> {
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
        if let Some(Effect::Fail(code)) = &plan.effect {
            let code = *code;
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
            Operation::Read { buf, filled, way } => {
                let at = *filled;
                let range = offset..offset + len as u64;
                if self.storage.is_spoilt(&range) {
                    return Err(errno(libc::EIO));
                }
                let mut bytes = match way {
                    Way::Main => self.storage.contents(range),
                    Way::PageCache => self.page_cache.read(range, &self.storage),
                };
                let given = strike_bytes(&mut bytes, plan.effect.as_ref());
                buf.fill(at, &bytes[..given]);
                self.counts.bytes_read += given as u64;
                outcome(given, plan.effect.as_ref())
            }
            Operation::Write { slices, .. } => {
                let mut bytes = joined(slices);
                let taken = strike_bytes(&mut bytes, plan.effect.as_ref());
                let landed = landed(taken, plan.effect.as_ref());
                if landed > 0 {
                    self.storage.write(offset, &bytes[..landed]);
                    if let Some(writing) = self.writing.get_mut(&plan.ticket) {
                        writing.sequence = Some(self.storage.sequence());
                    }
                }
                self.counts.bytes_written += taken as u64;
                outcome(taken, plan.effect.as_ref())
            }
            Operation::Flush => {
                if !matches!(plan.effect, Some(Effect::Lost)) {
                    self.storage.flush(plan.sequence, &plan.incomplete);
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

/// How many of the bytes that a write took change the medium. A device takes a sector whole or not at all, so a
/// write that is merely cut short leaves the last one as it was; what a failed one does to it nobody knows.
fn landed(taken: usize, effect: Option<&Effect>) -> usize {
    match effect {
        Some(Effect::Lost) => 0,
        Some(Effect::Short(_)) => taken - taken % SECTOR_LEN,
        _ => taken,
    }
}

fn outcome(transferred: usize, effect: Option<&Effect>) -> io::Result<usize> {
    match effect {
        Some(Effect::FailAfter(_, code)) => Err(errno(*code)),
        _ => Ok(transferred),
    }
}

fn joined(slices: &[WriteSlice]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.bytes().len()).sum());
    slices.iter().for_each(|slice| bytes.extend_from_slice(slice.bytes()));
    bytes
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}
