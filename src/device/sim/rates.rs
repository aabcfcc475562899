//! Faults that strike at random. Owns how often each kind does, and what it does then.

use std::ops::Range;

use super::fault::Effect;
use super::random::SplitMix;
use crate::device::{Geometry, OperationKind};

/// A kind of fault of a simulated device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A read fails with `EIO`.
    ReadError,
    /// A write fails with `EIO`, some of it done or none.
    WriteError,
    /// A flush fails with `EIO`.
    FlushError,
    /// A write fails with `ENOSPC`.
    NoSpace,
    /// An operation fails with `EINTR` and changes nothing.
    Interrupted,
    /// A read gives fewer bytes than asked.
    ShortRead,
    /// A write takes fewer bytes than given.
    ShortWrite,
    /// A read gives bytes of another place.
    MisdirectedRead,
    /// A read gives bytes with flipped bits.
    CorruptRead,
    /// A write reports success and changes nothing.
    LostWrite,
    /// A write changes another place.
    MisdirectedWrite,
    /// Bits on the medium flip; made by [`super::SimDevice::corrupt`].
    BitRot,
    /// A sector that was being written when the power was cut cannot be read.
    UnreadableSector,
}

/// Number of kinds.
pub const FAULT_KINDS: usize = 13;

impl FaultKind {
    /// Every kind.
    pub const ALL: [FaultKind; FAULT_KINDS] = [
        FaultKind::ReadError,
        FaultKind::WriteError,
        FaultKind::FlushError,
        FaultKind::NoSpace,
        FaultKind::Interrupted,
        FaultKind::ShortRead,
        FaultKind::ShortWrite,
        FaultKind::MisdirectedRead,
        FaultKind::CorruptRead,
        FaultKind::LostWrite,
        FaultKind::MisdirectedWrite,
        FaultKind::BitRot,
        FaultKind::UnreadableSector,
    ];

    fn may_strike(self, kind: OperationKind) -> bool {
        use FaultKind as F;
        match self {
            F::ReadError | F::ShortRead | F::MisdirectedRead | F::CorruptRead => {
                kind == OperationKind::Read
            }
            F::WriteError | F::NoSpace | F::ShortWrite | F::LostWrite | F::MisdirectedWrite => {
                kind == OperationKind::Write
            }
            F::FlushError => kind == OperationKind::Flush,
            F::Interrupted => true,
            F::BitRot | F::UnreadableSector => false,
        }
    }

    /// Whether it changes or hides what was written, unnoticed.
    fn damages(self) -> bool {
        matches!(self, FaultKind::LostWrite | FaultKind::MisdirectedWrite)
    }
}

/// How often each kind of fault struck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Struck([u64; FAULT_KINDS]);

impl Struck {
    /// How often this kind struck.
    #[must_use]
    pub fn of(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize]
    }

    /// Counts a fault of this kind.
    pub fn count(&mut self, kind: FaultKind) {
        self.0[kind as usize] += 1;
    }
}

/// How often faults strike, in operations per 100 000.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    per_100k: [u32; FAULT_KINDS],
    spared: Vec<Range<u64>>,
}

impl Rates {
    /// Sets how often a kind strikes, per 100 000 operations that it can strike.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, per_100k: u32) -> Rates {
        self.per_100k[kind as usize] = per_100k;
        self
    }

    /// Keeps lost and misdirected writes away from this range of the device.
    #[must_use]
    pub fn sparing(mut self, range: Range<u64>) -> Rates {
        self.spared.push(range);
        self
    }

    /// What strikes this operation, if anything does.
    pub(super) fn strike(
        &self,
        kind: OperationKind,
        range: &Range<u64>,
        (random, geometry): (&mut SplitMix, Geometry),
    ) -> Option<(FaultKind, Effect)> {
        if self.per_100k == [0; FAULT_KINDS] {
            return None;
        }
        let drawn = random.up_to(99_999);
        let mut bound = 0;
        let fault =
            FaultKind::ALL.into_iter().filter(|fault| fault.may_strike(kind)).find(|at| {
                bound += u64::from(self.per_100k[*at as usize]);
                drawn < bound
            })?;
        if fault.damages() && self.is_spared(range) {
            return None;
        }
        let effect = self.effect(fault, range, (random, geometry))?;
        Some((fault, effect))
    }

    fn is_spared(&self, range: &Range<u64>) -> bool {
        self.spared.iter().any(|spared| spared.start < range.end && range.start < spared.end)
    }

    fn effect(
        &self,
        fault: FaultKind,
        range: &Range<u64>,
        (random, geometry): (&mut SplitMix, Geometry),
    ) -> Option<Effect> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let block = u64::from(geometry.alignment);
        let mut part =
            || usize::try_from(random.up_to(len as u64)).unwrap_or(0).min(len - 1).max(1);
        Some(match fault {
            FaultKind::ReadError | FaultKind::FlushError => Effect::Fail(libc::EIO),
            FaultKind::WriteError => Effect::FailAfter(part(), libc::EIO),
            FaultKind::NoSpace => Effect::Fail(libc::ENOSPC),
            FaultKind::Interrupted => Effect::Fail(libc::EINTR),
            FaultKind::ShortRead | FaultKind::ShortWrite => Effect::Short(part()),
            FaultKind::CorruptRead => {
                let at = part() - 1;
                Effect::Corrupt(at, 1 << random.up_to(7))
            }
            FaultKind::LostWrite => Effect::Lost,
            FaultKind::MisdirectedRead | FaultKind::MisdirectedWrite => {
                let last = (geometry.size - len as u64) / block;
                let elsewhere = random.up_to(last) * block;
                let landing = elsewhere..elsewhere + len as u64;
                if elsewhere == range.start || self.is_spared(&landing) {
                    return None;
                }
                Effect::Misdirected(elsewhere)
            }
            FaultKind::BitRot | FaultKind::UnreadableSector => return None,
        })
    }
}
