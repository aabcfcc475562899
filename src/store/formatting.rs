//! Writes a new, empty store to a device. Owns the random numbers drawn for it, once.

use std::sync::Arc;

use crate::clock::Clock;
use crate::device::{Device, DeviceError, WriteSlice};
use crate::format::{
    Features, LOCATOR_OFFSET, Layout, LayoutError, Locator, Secret, Sequence, Superblock, Uuid,
};
use crate::store::shared::Store;
use crate::store::superblock::write_superblock;

/// How to format a device. Begin with the default, then set fields.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FormatOptions {
    /// Bytes to use, from the start of the device; `None` uses all.
    pub size: Option<u64>,
    /// Unit of transfers in bytes; `None` takes 4096, or more if the device needs it.
    pub alignment: Option<u32>,
    /// Bytes of a region; `None` chooses by the size of the device.
    pub region_size: Option<u64>,
    pub(crate) uuid: Uuid,
    pub(crate) secret: Secret,
}

impl FormatOptions {
    /// The same options with a fixed identity: for reproducible tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_uuid(self, uuid: Uuid) -> FormatOptions {
        FormatOptions { uuid, ..self }
    }

    /// The same options with a fixed secret: for tests, like [`FormatOptions::with_uuid`].
    #[doc(hidden)]
    #[must_use]
    pub fn with_secret(self, secret: Secret) -> FormatOptions {
        FormatOptions { secret, ..self }
    }
}

impl Default for FormatOptions {
    /// A new identity and secret; the rest is chosen to fit the device.
    ///
    /// # Panics
    /// Panics if the system has no random numbers.
    fn default() -> FormatOptions {
        FormatOptions {
            size: None,
            alignment: None,
            region_size: None,
            uuid: random_uuid(),
            secret: Secret(random()),
        }
    }
}

/// A random UUID: version 4, variant 1 (RFC 9562, section 5.4).
fn random_uuid() -> Uuid {
    let mut bytes = random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Uuid(bytes)
}

#[expect(
    clippy::expect_used,
    reason = "Linux has random numbers for whoever may make system calls"
)]
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("random numbers");
    bytes
}

/// Why a device could not be formatted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The device cannot be divided as asked.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The device is smaller than the size to be used.
    #[error("the device has {actual} bytes, of which {asked} cannot be used")]
    Size {
        /// Bytes of the device.
        actual: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The device needs a larger alignment.
    #[error("the device needs {needed}-byte alignment, {asked} was asked for")]
    Alignment {
        /// What the device needs.
        needed: u32,
        /// What was asked for.
        asked: u32,
    },
    /// The device failed.
    #[error("the device failed")]
    Device(#[from] DeviceError),
}

impl Store {
    /// Writes a new, empty store to a device. Destroys its contents, including all signatures by which
    /// other software would recognise them.
    ///
    /// # Errors
    /// The device cannot be divided as asked, or failed.
    pub async fn format(
        device: &Device,
        options: &FormatOptions,
        clock: &Clock,
    ) -> Result<Superblock, FormatError> {
        let needed = device.geometry().alignment;
        let alignment = options.alignment.unwrap_or(needed.max(4096));
        if alignment < needed {
            return Err(FormatError::Alignment { needed, asked: alignment });
        }
        let actual = device.geometry().size;
        let size = options.size.unwrap_or(actual);
        if size > actual {
            return Err(FormatError::Size { actual, asked: size });
        }
        let layout = Layout::plan(size, alignment, options.region_size)?;
        device.erase_signatures().await?;
        let superblock = Superblock {
            uuid: options.uuid,
            secret: options.secret,
            layout,
            features: Features::default().with_known(),
            epoch: Sequence::first_epoch(options.uuid),
            purge_floor: Sequence(0),
            soft_floor: Sequence(0),
            record_floor: Sequence(0),
            formatted_at: clock.wall(),
            time: clock.pair(),
            unknown_age: 0,
        };
        // Durable before the superblocks are: writing those flushes first.
        write_locators(device, &superblock).await?;
        write_superblock(device, &superblock).await?;
        Ok(superblock)
    }
}

async fn write_locators(device: &Device, superblock: &Superblock) -> Result<(), DeviceError> {
    let layout = &superblock.layout;
    let encoded = Locator { uuid: superblock.uuid, device_size: layout.device_size }.encode();
    let len = usize::try_from(superblock.block_len()).unwrap_or(usize::MAX);
    for copy in layout.superblock_offsets() {
        let mut block = device.geometry().zeroed_buffer(len);
        block[..encoded.len()].copy_from_slice(&encoded);
        let slices = vec![WriteSlice::whole(Arc::new(block))];
        device.write(copy + LOCATOR_OFFSET, slices).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_an_identity_and_a_secret_of_its_own() {
        let (a, b) = (FormatOptions::default(), FormatOptions::default());
        assert!(a.uuid != b.uuid && a.secret != b.secret);
        assert_eq!((a.uuid.0[6] >> 4, a.uuid.0[8] >> 6), (4, 2));
    }
}
