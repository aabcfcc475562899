//! What a path would be as a device, without claiming it. Owns the report for
//! `rawcached probe`; never writes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::direct::{self, Verdict};
use super::facts::{DioAlignment, Facts};
use super::signature::{SIGNATURE_HEAD_LEN, SIGNATURE_TAIL_LEN, foreign_signature};
use super::{Device, DeviceError, DeviceKind, OpenError, holder};
use crate::device::file_holder;

/// What was found at a path. Sizes and alignments are in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// As given.
    pub path: PathBuf,
    /// Block device or image file.
    pub kind: DeviceKind,
    /// All of its bytes.
    pub size: u64,
    /// Block devices: the smallest transfer.
    pub logical_sector: Option<u32>,
    /// Block devices: what the medium writes as a whole.
    pub physical_sector: Option<u32>,
    /// Block devices: what addresses must be multiples of, by the driver.
    pub dma_alignment: Option<u32>,
    /// What addresses must be multiples of, by `statx`.
    pub dio_memory_alignment: Option<u32>,
    /// What offsets and lengths must be multiples of, by `statx`.
    pub dio_offset_alignment: Option<u32>,
    /// Whether direct reads really work.
    pub direct_reads: bool,
    /// Why they do not.
    pub direct_unavailable: Option<String>,
    /// The alignments from 512 to 65536 at which a direct read really worked.
    pub working_alignments: Vec<u32>,
    /// The alignment an opened device would use.
    pub alignment: Option<u32>,
    /// Direct writes would be buffered all the same (btrfs with data checksums).
    pub direct_writes_buffered: bool,
    /// Image files: the file system around them.
    pub file_system: Option<String>,
    /// What occupies it: a file system, a partition table, a volume manager.
    pub foreign_signature: Option<&'static str>,
    /// Mounts, swap, stacked devices and processes that use it.
    pub held_by: Vec<String>,
    /// Whether it refuses writes.
    pub read_only: bool,
}

/// Looks at `path` through reads alone, in use or not.
///
/// # Errors
/// It is absent, not readable, no device, or failing.
pub fn probe(path: &Path) -> Result<ProbeReport, OpenError> {
    let failed = |source| OpenError::io(path, source);
    let found = fs::metadata(path).map_err(failed)?.file_type();
    // Opening anything else may wait for another process, or do what it stands for.
    if !found.is_block_device() && !found.is_file() {
        return Err(OpenError::NotADevice { path: path.to_owned() });
    }
    let open = |flags| fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let plain = open(libc::O_NONBLOCK).map_err(failed)?;
    let facts = Facts::ask(&plain)
        .map_err(failed)?
        .ok_or_else(|| OpenError::NotADevice { path: path.to_owned() })?;
    let (verdict, working_alignments) = match open(libc::O_NONBLOCK | libc::O_DIRECT) {
        Ok(file) => match direct::judge(&file, &facts).map_err(failed)? {
            Verdict::Unavailable(reason) => (Verdict::Unavailable(reason), Vec::new()),
            works => (works, direct::working_alignments(&file, facts.size).map_err(failed)?),
        },
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            (Verdict::Unavailable("the file system refuses O_DIRECT".to_owned()), Vec::new())
        }
        Err(error) => return Err(failed(error)),
    };
    let (alignment, direct_unavailable) = match verdict {
        Verdict::Works { alignment, .. } => (Some(alignment), None),
        Verdict::Unavailable(reason) => (None, Some(reason)),
    };
    let (dio_memory_alignment, dio_offset_alignment) = match facts.dio {
        DioAlignment::Known { memory, offset } => (Some(memory), Some(offset)),
        _ => (None, None),
    };
    Ok(ProbeReport {
        path: path.to_owned(),
        kind: facts.kind,
        size: facts.size,
        logical_sector: facts.logical_sector,
        physical_sector: facts.physical_sector,
        dma_alignment: facts.dma_alignment,
        dio_memory_alignment,
        dio_offset_alignment,
        direct_reads: alignment.is_some(),
        direct_unavailable,
        working_alignments,
        alignment,
        direct_writes_buffered: facts.data_checksums,
        file_system: facts.file_system_name(),
        foreign_signature: signature_of(&plain, facts.size).map_err(failed)?,
        held_by: held_by(path, &facts, &plain),
        read_only: facts.write_protected || refuses_writes(path),
    })
}

impl Device {
    /// What occupies the device: a file system, a partition table, a volume manager.
    ///
    /// # Errors
    /// The device failed.
    pub async fn foreign_signature(&self) -> Result<Option<&'static str>, DeviceError> {
        let size = self.geometry().size;
        let head = self.read_exact(0..size.min(SIGNATURE_HEAD_LEN as u64)).await?;
        let tail = self.read_exact(size.saturating_sub(SIGNATURE_TAIL_LEN as u64)..size).await?;
        Ok(foreign_signature(size, &head, &tail))
    }
}

fn signature_of(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    let read = |offset: u64, len_max: usize| {
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(len_max).min(len_max)];
        file.read_exact_at(&mut bytes, offset).map(|()| bytes)
    };
    let head = read(0, SIGNATURE_HEAD_LEN)?;
    let tail = read(size.saturating_sub(SIGNATURE_TAIL_LEN as u64), SIGNATURE_TAIL_LEN)?;
    Ok(foreign_signature(size, &head, &tail))
}

fn held_by(path: &Path, facts: &Facts, asking: &File) -> Vec<String> {
    if facts.kind == DeviceKind::Block {
        holder::of_block_device(path, facts.device_number, Some(asking)).names
    } else {
        file_holder::of_file(path).names
    }
}

/// Asks by access(2), which opens nothing.
fn refuses_writes(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK) == Err(nix::errno::Errno::EROFS)
}
