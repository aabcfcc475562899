//! What one region holds, as versions: decodes its footer, on any thread. Owns what of a record counts when it has
//! ended.

use crate::clock::Timestamp;
use crate::device::DeviceError;
use crate::format::{Damage, EncodedFooter, Footer, FooterRecord, Kind, Layout, Trailer};
use crate::planted::{self, Bug};
use crate::store::index::index_entry::Location;
use crate::store::recovery::found_purges::FoundPurges;
use crate::store::recovery::parts::Parts;
use crate::store::recovery::versions::Version;
use crate::store::region::reader::{RawFooter, is_possible};

/// What decoding a footer needs, on any thread.
#[derive(Clone, Copy)]
pub(super) struct Region {
    pub number: u32,
    pub layout: Layout,
    /// Lifetimes in the footer may be too short.
    pub touched: bool,
    pub now: Timestamp,
}

/// What is kept of a region after its records are in the parts.
#[derive(Default)]
pub(super) struct Summary {
    pub keep_until: Timestamp,
    /// The latest end of an expired entry.
    pub forgotten_until: Timestamp,
    pub tombstones: usize,
    /// Why a part of it could not be read.
    pub hole: Option<DeviceError>,
}

impl Summary {
    pub fn count(&mut self, record: &FooterRecord, region: &Region) {
        self.keep_until = self.keep_until.max(record.keep_until);
        if region.is_expired(record) {
            self.forgotten_until = self.forgotten_until.max(record.keep_until);
        }
        self.tombstones += usize::from(record.supersedes);
    }
}

impl Region {
    /// Adds a footer's versions to the parts; adds none if any record is impossible.
    pub fn take_apart(
        &self,
        raw: &RawFooter,
        trailer: &Trailer,
        (parts, purges): (&Parts, Option<&FoundPurges>),
    ) -> Result<Summary, Damage> {
        let footer = EncodedFooter::verify(raw.block(), trailer)?;
        let purge_records = footer.purge_records().collect::<Result<Vec<_>, _>>()?;
        let tombstones = footer.tombstones().count() + purge_records.len();
        let mut summary = Summary { tombstones, ..Summary::default() };
        for record in footer.records() {
            let record = record?;
            if !is_possible(&self.layout, &record) {
                return Err(Damage::Field("record"));
            }
            summary.count(&record, self);
        }
        let records = footer.records().flatten().map(|record| self.version(&record));
        if let Some(purges) = purges {
            purges.add(purge_records.into_iter());
        }
        parts.add(
            records.chain(footer.tombstones().map(|tombstone| Version::tombstone(&tombstone))),
        );
        Ok(summary)
    }

    /// All that a piece of a footer records.
    pub fn versions(&self, footer: &Footer) -> impl Iterator<Item = Version> {
        let records = footer.records.iter().map(|record| self.version(record));
        records.chain(footer.tombstones.iter().map(Version::tombstone))
    }

    /// Whether a record says that its entry has ended. Slices end with the heads of their objects.
    fn is_expired(&self, record: &FooterRecord) -> bool {
        let touched = self.touched && !planted::is(Bug::FooterOutranksHeader);
        let may_expire = record.kind != Kind::Slice || planted::is(Bug::RecoverUnderHeads);
        record.keep_until <= self.now && !touched && may_expire
    }

    fn version(&self, record: &FooterRecord) -> Version {
        if self.is_expired(record) || record.kind == Kind::Tombstones {
            return Version::ended(record);
        }
        let location = Location::new(self.number, record.offset, &self.layout);
        Version::of(record, location, self.now)
    }
}
