//! Bugs planted on purpose, to show that the simulation finds them. Owns the switch; without the
//! feature `planted-bugs` it is the constant "no" and costs nothing. Never on in a release.

/// A bug that a test can switch on, named after the safeguard it takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A read-modify-write takes no lock on its blocks.
    ModifyWithoutLock,
    /// A reader does not compare the region's generation again after its read.
    SkipGenerationCheck,
    /// A purge is acknowledged before its tombstone is flushed.
    AcknowledgePurgeEarly,
    /// A store is acknowledged as flushed before the flush.
    AcknowledgeFlushEarly,
    /// Re-insertion publishes although the index entry has changed.
    ReinsertUnchecked,
    /// A footer's checksum is not compared.
    ForgetFooterChecksum,
    /// A region is freed without carrying its tombstones.
    DropTombstones,
    /// A purge has its tombstone in one region only.
    PurgeInOneRegion,
    /// The epoch is not raised after a start, so sequence numbers repeat.
    ReuseSequences,
    /// A body's checksum is not compared.
    SkipBodyChecksum,
    /// An entry found in the RAM tier is served after it expired.
    ServeExpired,
    /// Recovery takes the expiry of a touched entry from the footer.
    FooterOutranksHeader,
    /// Recovery brings back keys that changed while it ran.
    IgnoreChangesDuringRecovery,
    /// Recovery brings back keys that changed while it ran, if it had no memory to remember each.
    ForgetCoarseChanges,
    /// Changes of keys whose region recovery left out of the index leave no tombstones.
    ForgetLeftOut,
    /// Passes of recovery after the first read one region less.
    SkipRegionLater,
    /// A copy read before a touch enters the RAM tier after it.
    SkipTouchCheck,
    /// Both superblock copies are written before the first is flushed.
    SuperblocksAtOnce,
    /// A footer is written before the header of its region is durable.
    FooterBeforeHeader,
    /// A streamed store is published although its key was purged meanwhile.
    FillIgnoresPurge,
    /// When a region can be read again, older versions of its entries are not removed.
    IgnoreRereadVersions,
    /// A body read piece by piece is not checked to be in its place still.
    RereadWhateverIsThere,
    /// Reclaim drops the slices of stores in progress.
    EvictStoresUnderWay,
    /// A new head over the slices of an old one has these dropped with the old one.
    UpdateDropsSlices,
    /// Reclaim ends slices by the lifetime that they were written with, and asks no head.
    ReclaimUnderHeads,
    /// Recovery ends slices by the lifetime that they were written with.
    RecoverUnderHeads,
    /// A part of an object counts as there before its bytes are.
    CoverBeforeBytes,
    /// Parts of versions with different validators become one object.
    JoinValidators,
    /// What is stored with a lease counts from the store on, not from the lease.
    LeaseForgetsPurges,
    /// Entries of unknown age count as fresh.
    TrustUnknownAge,
    /// Who follows a store that fails is told that the body ended.
    FollowerEndsEarly,
    /// Recovery takes no record of hard purges by tags.
    LoseTagRecord,
    /// Reclaim moves an entry that a soft purge covers as a fresh one.
    ReviveByReinsertion,
    /// A touch notes at the copy in RAM that no purge covers it.
    ReviveByTouch,
    /// Recovery takes no record of soft purges.
    ReviveAtCrash,
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches one bug on for this thread, or all off.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether the bug is on in this thread.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(not(feature = "planted-bugs"))]
mod switch {
    use super::Bug;

    /// No bug is on.
    #[must_use]
    #[inline(always)]
    pub const fn is(_: Bug) -> bool {
        false
    }
}

pub use switch::*;
