//! Counts of a run and of many, and the table that shows them.

use std::collections::BTreeMap;
use std::fmt;

use rawcached::device::{FaultKind, Struck};

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub seeds: u64,
    pub lives: u64,
    pub operations: u64,
    pub lookups: u64,
    pub hits: u64,
    pub stores: u64,
    pub purges: u64,
    /// Followers of stores in progress, and how many of them were told of the end, or of an error.
    pub followers: u64,
    pub followed_whole: u64,
    pub followed_short: u64,
    pub purges_of_many: u64,
    /// Declarations of objects that come part by part, and parts of them that were stored and read.
    pub declared: u64,
    pub parts: u64,
    pub parts_read: u64,
    pub regions_freed: u64,
    pub reinserted: u64,
    /// Regions that a start left out of the index.
    pub regions_left_out: u64,
    /// Passes of recovery after the first.
    pub later_passes: u64,
    /// Stores refused because recovery could remember no more keys.
    pub unremembered: u64,
    pub ends: BTreeMap<&'static str, u64>,
    pub faults: BTreeMap<&'static str, u64>,
    pub excused: u64,
    /// Lives in which a region could not be read at the start.
    pub hidden: u64,
    /// Older versions given meanwhile.
    pub doubtful: u64,
    /// Lives in which no entry may count as damaged.
    pub lives_without_damage: u64,
    /// Runs at whose end too few regions could be read to remove every key.
    pub cramped: u64,
    pub violations: u64,
}

impl Totals {
    /// Counts the end of a life.
    pub fn count_end(&mut self, how: &'static str) {
        *self.ends.entry(how).or_default() += 1;
    }

    /// Adds the faults that struck a device.
    pub fn take_faults(&mut self, struck: &Struck) {
        for kind in FaultKind::ALL {
            *self.faults.entry(name_of(kind)).or_default() += struck.of(kind);
        }
    }

    /// What happened, and how often. Of many seeds none is 0.
    pub fn rows(&self) -> [(&'static str, u64); 20] {
        [
            ("seeds", self.seeds),
            ("lives of the cache", self.lives),
            ("lives in which no entry may be damaged", self.lives_without_damage),
            ("operations", self.operations),
            ("lookups", self.lookups),
            ("hits", self.hits),
            ("stores acknowledged", self.stores),
            ("purges", self.purges),
            ("followers of stores in progress", self.followers),
            ("followers that came to the end", self.followed_whole),
            ("followers that were told of an error", self.followed_short),
            ("purges of many", self.purges_of_many),
            ("declarations of objects that come part by part", self.declared),
            ("parts stored", self.parts),
            ("parts read", self.parts_read),
            ("regions freed", self.regions_freed),
            ("entries re-inserted", self.reinserted),
            ("regions left out of the index", self.regions_left_out),
            ("passes of recovery after the first", self.later_passes),
            ("stores refused as recovery remembers no more keys", self.unremembered),
        ]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Totals) {
        self.seeds += other.seeds;
        self.lives += other.lives;
        self.operations += other.operations;
        self.lookups += other.lookups;
        self.hits += other.hits;
        self.stores += other.stores;
        self.purges += other.purges;
        self.followers += other.followers;
        self.followed_whole += other.followed_whole;
        self.followed_short += other.followed_short;
        self.purges_of_many += other.purges_of_many;
        self.declared += other.declared;
        self.parts += other.parts;
        self.parts_read += other.parts_read;
        self.regions_freed += other.regions_freed;
        self.reinserted += other.reinserted;
        self.regions_left_out += other.regions_left_out;
        self.later_passes += other.later_passes;
        self.unremembered += other.unremembered;
        self.excused += other.excused;
        self.hidden += other.hidden;
        self.doubtful += other.doubtful;
        self.lives_without_damage += other.lives_without_damage;
        self.cramped += other.cramped;
        self.violations += other.violations;
        for (how, count) in &other.ends {
            *self.ends.entry(how).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

fn name_of(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::ReadError => "reads failed (EIO)",
        FaultKind::WriteError => "writes failed (EIO)",
        FaultKind::FlushError => "flushes failed (EIO)",
        FaultKind::NoSpace => "writes failed (ENOSPC)",
        FaultKind::Interrupted => "interrupted (EINTR)",
        FaultKind::ShortRead => "short reads",
        FaultKind::ShortWrite => "short writes",
        FaultKind::MisdirectedRead => "misdirected reads",
        FaultKind::CorruptRead => "reads with flipped bits",
        FaultKind::LostWrite => "lost writes",
        FaultKind::MisdirectedWrite => "misdirected writes",
        FaultKind::BitRot => "bits flipped on the medium",
        FaultKind::UnreadableSector => "sectors left unreadable by a power cut",
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | count |\n|---|---:|")?;
        for (name, count) in self.rows() {
            writeln!(f, "| {name} | {count} |")?;
        }
        for (how, count) in &self.ends {
            writeln!(f, "| end: {how} | {count} |")?;
        }
        for (kind, count) in &self.faults {
            writeln!(f, "| fault: {kind} | {count} |")?;
        }
        writeln!(f, "| runs that ended with too few readable regions | {} |", self.cramped)?;
        writeln!(f, "| older versions excused by media damage | {} |", self.excused)?;
        writeln!(f, "| lives with a region that cannot be read | {} |", self.hidden)?;
        writeln!(f, "| older versions given meanwhile | {} |", self.doubtful)?;
        writeln!(f, "| **violations** | **{}** |", self.violations)
    }
}
