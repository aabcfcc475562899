//! Finds the superblock that counts, and repairs the other copy. Owns the reasons why a device cannot
//! be opened.

use crate::device::{Device, DeviceError};
use crate::format::{
    Damage, FeatureNames, LOCATOR_LEN, LOCATOR_OFFSET, Layout, Locator, SUPERBLOCK_LEN, Sequence,
    Superblock, round_up,
};
use crate::store::large::ranges::options::ZeroRangeOption;
use crate::store::superblock::write_superblock;

/// Why a device cannot be opened as a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Neither superblock copy is sound.
    #[error(
        "no superblock found ({0}): look whether it is the right device; `rawcached format` makes a new one of it"
    )]
    NotFormatted(Damage),
    /// Both copies carry our magic number but are damaged.
    #[error(
        "both superblock copies are damaged ({0}): the device is not touched; `rawcached format --force` starts over"
    )]
    Damaged(Damage),
    /// A superblock copy is sound, but this program cannot tell what the device holds.
    #[error(
        "the device is of another version of rawcached ({0}): start one that knows it; `rawcached format --force` starts over"
    )]
    Newer(Damage),
    /// The device uses features that let this program only read it.
    #[error(
        "this version of rawcached can inspect the device and not serve it ({0}): start a newer one"
    )]
    ReadOnly(FeatureNames),
    /// The device is shorter than when it was formatted.
    #[error(
        "the device has {actual} bytes but was formatted with {expected}: it is truncated or another device"
    )]
    Truncated {
        /// Bytes of the device.
        actual: u64,
        /// Bytes it was formatted with.
        expected: u64,
    },
    /// The device needs a larger alignment than it was formatted with.
    #[error(
        "the device needs {needed}-byte alignment but was formatted with {formatted}: format it again"
    )]
    Alignment {
        /// What the device needs now.
        needed: u32,
        /// What it was formatted with.
        formatted: u32,
    },
    /// Every epoch was used: no sequence numbers are left.
    #[error(
        "the store was started four thousand million times and has no sequence numbers left: format it again"
    )]
    WornOut,
    /// A setting is invalid.
    #[error(transparent)]
    Range(#[from] ZeroRangeOption),
    /// The device failed.
    #[error("the device failed")]
    Device(#[from] DeviceError),
}

/// Result of reading the superblock copies.
pub struct Superblocks {
    /// The one that counts.
    pub best: Superblock,
    /// For each copy, why it cannot be used, if so.
    pub damage: [Option<Damage>; 2],
    /// Whether a copy is damaged or older than the other.
    pub needs_repair: bool,
}

/// Reads both superblock copies.
///
/// # Errors
/// Neither is sound, or the device is not the one that was formatted.
pub async fn read_superblocks(device: &Device) -> Result<Superblocks, OpenError> {
    let size = device.geometry().size;
    let first = read_superblock(device, 0, true).await?;
    let second_at = match &first {
        Ok(superblock) => superblock.layout.superblock_offsets()[1],
        // Normal: the device may have grown, or be used in part.
        Err(_) => Layout::second_superblock_offset(read_locator(device).await.unwrap_or(size)),
    };
    let second = read_superblock(device, second_at, first.is_ok()).await?;
    // Even if the other copy can be used: it may be older than this one.
    for copy in [&first, &second] {
        if let Err(damage @ (Damage::Version(_) | Damage::Feature(_))) = copy {
            return Err(OpenError::Newer(*damage));
        }
    }
    let best = match (first, second) {
        (Ok(a), Ok(b)) if a.uuid == b.uuid && b.epoch > a.epoch => b,
        (Ok(a), _) => a,
        (Err(_), Ok(b)) => b,
        (Err(Damage::Magic | Damage::Short), Err(Damage::Magic | Damage::Short)) => {
            return Err(OpenError::NotFormatted(Damage::Magic));
        }
        (Err(Damage::Magic), Err(damage)) | (Err(damage), Err(_)) => {
            return Err(OpenError::Damaged(damage));
        }
    };
    if size < best.layout.device_size {
        return Err(OpenError::Truncated { actual: size, expected: best.layout.device_size });
    }
    let needed = device.geometry().alignment;
    if needed > best.layout.alignment {
        return Err(OpenError::Alignment { needed, formatted: best.layout.alignment });
    }
    if best.epoch == Sequence::EPOCH_MAX {
        return Err(OpenError::WornOut);
    }
    let needs_repair = first.as_ref() != Ok(&best) || second.as_ref() != Ok(&best);
    Ok(Superblocks { best, damage: [first.err(), second.err()], needs_repair })
}

/// The size that the store uses of the device, if the locator behind the first superblock copy is
/// sound.
async fn read_locator(device: &Device) -> Option<u64> {
    let bytes =
        device.read_exact(LOCATOR_OFFSET..LOCATOR_OFFSET + LOCATOR_LEN as u64).await.ok()?;
    Locator::decode(&bytes).ok().map(|locator| locator.device_size)
}

async fn read_superblock(
    device: &Device,
    offset: u64,
    is_spare: bool,
) -> Result<Result<Superblock, Damage>, DeviceError> {
    let alignment = u64::from(device.geometry().alignment);
    let len = round_up(SUPERBLOCK_LEN as u64, alignment);
    if offset.saturating_add(len) > device.geometry().size {
        return Ok(Err(Damage::Short));
    }
    match device.read_exact(offset..offset + SUPERBLOCK_LEN as u64).await {
        Ok(bytes) => Ok(Superblock::decode(&bytes)),
        // The other copy exists for the case that this one is in a bad sector.
        Err(error) if is_spare => {
            tracing::warn!(error = &error as &dyn std::error::Error, "superblock copy unreadable");
            Ok(Err(Damage::Short))
        }
        Err(error) => Err(error),
    }
}

impl Superblocks {
    /// The state of each copy, for messages.
    #[must_use]
    pub fn states(&self) -> [String; 2] {
        let state = |damage: &Option<Damage>| {
            damage.as_ref().map_or("good".to_owned(), ToString::to_string)
        };
        self.damage.each_ref().map(state)
    }
}

/// Reads superblocks, repairs a bad copy, and logs it.
pub(in crate::store) async fn open_superblock(
    device: &Device,
) -> Result<(Superblock, bool), OpenError> {
    let found = read_superblocks(device).await?;
    if let Some(features) = found.best.features.unwritable() {
        return Err(OpenError::ReadOnly(features));
    }
    tell_of_growth(device, &found.best);
    if found.needs_repair {
        tracing::warn!(
            copies = %found.states().join(" / "),
            "a superblock copy is damaged or older than the other: repairing it"
        );
        if let Err(error) = write_superblock(device, &found.best).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the repair failed");
        }
    }
    Ok((found.best, found.needs_repair))
}

/// A store keeps the size that it was formatted with. Logs unused space if there is enough for a
/// region.
fn tell_of_growth(device: &Device, superblock: &Superblock) {
    let (used, size) = (superblock.layout.device_size, device.geometry().size);
    if size.saturating_sub(used) >= superblock.layout.region_size {
        let why =
            "the device is larger than the store: the rest is not used; to use it, format again";
        tracing::warn!(bytes_used = used, bytes = size, "{why}");
    }
}
