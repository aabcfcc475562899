//! `probe`: what a device is, and which store is on it. Owns reading the store's two descriptions beside
//! a daemon that may have the device: it claims nothing and never writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::arguments::DeviceArgs;
use super::output;
use crate::daemon::explain_denied;
use crate::device::{self, ProbeReport};
use crate::format::{
    Damage, LOCATOR_LEN, LOCATOR_OFFSET, Layout, Locator, SUPERBLOCK_LEN, Superblock,
};

/// What `probe` tells.
#[derive(Debug, Serialize)]
struct Probed {
    #[serde(flatten)]
    device: ProbeReport,
    #[serde(flatten)]
    store: FoundStore,
}

/// The store on a device.
#[derive(Debug, Serialize)]
struct FoundStore {
    /// Its identity; none where there is no store, or none that this version can read.
    store_uuid: Option<String>,
    /// What is wrong with its description, if anything.
    store_damage: Option<String>,
}

/// Prints what a device can do, and what is on it.
pub fn probe(arguments: &DeviceArgs) -> anyhow::Result<bool> {
    let path = arguments.device.as_path();
    let device = device::probe(path).map_err(explain_denied)?;
    let copies = copies(path, device.size).with_context(|| path.display().to_string())?;
    output::print_report(&Probed { device, store: found(&copies) }, arguments.json)?;
    Ok(true)
}

/// Both copies of the superblock on a device of `size` bytes.
fn copies(path: &Path, size: u64) -> io::Result<[Result<Superblock, Damage>; 2]> {
    // Another file may be at the path by now: do not wait for whoever writes to it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let decode = |offset| -> io::Result<Result<Superblock, Damage>> {
        Ok(read(&file, offset)?.and_then(|bytes| Superblock::decode(&bytes)))
    };
    let first = decode(0)?;
    let second_at = match &first {
        Ok(first) => first.layout.superblock_offsets()[1],
        // The device may have grown, or be used in part.
        Err(_) => {
            let locator = read(&file, LOCATOR_OFFSET)?.and_then(|bytes| Locator::decode(&bytes));
            Layout::second_superblock_offset(locator.map_or(size, |locator| locator.device_size))
        }
    };
    let second = decode(second_at)?;
    Ok([first, second])
}

/// What `SUPERBLOCK_LEN` bytes from `offset` on hold, if there are as many.
fn read(file: &File, offset: u64) -> io::Result<Result<[u8; SUPERBLOCK_LEN], Damage>> {
    const { assert!(SUPERBLOCK_LEN == LOCATOR_LEN) };
    let mut bytes = [0; SUPERBLOCK_LEN];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Ok(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(Damage::Short)),
        Err(error) => Err(error),
    }
}

fn found(copies: &[Result<Superblock, Damage>; 2]) -> FoundStore {
    let store_uuid = copies.iter().flatten().next().map(|copy| copy.uuid.to_string());
    let other = copies.iter().find_map(|copy| match copy {
        Err(damage @ (Damage::Version(_) | Damage::Feature(_))) => Some(damage),
        _ => None,
    });
    let store_damage = match (copies, other) {
        (_, Some(damage)) => Some(format!("of another version of rawcached: {damage}")),
        ([Ok(_), Ok(_)], None) => None,
        ([Err(damage), Ok(_)], None) => Some(format!("first superblock copy: {damage}")),
        ([Ok(_), Err(damage)], None) => Some(format!("second superblock copy: {damage}")),
        // Nothing that looks like a store.
        ([Err(Damage::Magic | Damage::Short), Err(Damage::Magic | Damage::Short)], None) => None,
        ([Err(first), Err(second)], None) => {
            Some(format!("both superblock copies: {first}, {second}"))
        }
    };
    FoundStore { store_uuid, store_damage }
}
