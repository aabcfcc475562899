//! Whether direct I/O really works on an open file, found by reading with it. Owns the
//! verdict; never writes.

use std::fs::File;
use std::io;

use super::facts::{DioAlignment, Facts};
use super::{ALIGNMENT_MAX, ALIGNMENT_MIN, AlignedBuf, pool};

/// What came of trying.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Reads with these multiples work.
    Works { alignment: u32, memory_alignment: u32 },
    /// Direct I/O cannot be used here, for this reason.
    Unavailable(String),
}

/// Reads a block through `file`, which was opened with `O_DIRECT`. A device that fails is an
/// error, not a verdict.
pub(super) fn judge(file: &File, facts: &Facts) -> io::Result<Verdict> {
    let unavailable = |reason: &str| Ok(Verdict::Unavailable(reason.to_owned()));
    if facts.in_memory() {
        return unavailable("the file system keeps its files in memory");
    }
    if facts.dio == DioAlignment::Unsupported {
        return unavailable("the file system does not support it for this file");
    }
    let memory = facts.memory_alignment().unwrap_or(ALIGNMENT_MIN);
    let asked = facts.offset_alignment().unwrap_or(ALIGNMENT_MIN).max(memory).max(ALIGNMENT_MIN);
    if !memory.is_power_of_two() || !asked.is_power_of_two() {
        return unavailable("the kernel wants an alignment that is not a power of two");
    }
    if asked > ALIGNMENT_MAX {
        return unavailable("the kernel wants an alignment above 65536 bytes");
    }
    // What the kernel tells is tried first; larger ones in case it told too little.
    let mut alignment = asked;
    while alignment <= ALIGNMENT_MAX {
        let memory_alignment = if alignment == asked { memory } else { alignment };
        if reads_work(file, 0, alignment, memory_alignment)? {
            return Ok(Verdict::Works { alignment, memory_alignment });
        }
        alignment *= 2;
    }
    unavailable("reads with it are refused at every alignment up to 65536 bytes")
}

/// The alignments from 512 to 65536 at which a real read works, each with offset, length and
/// address at odd multiples of it where the device is large enough.
pub(super) fn working_alignments(file: &File, size: u64) -> io::Result<Vec<u32>> {
    let mut working = Vec::new();
    let mut alignment = ALIGNMENT_MIN;
    while alignment <= ALIGNMENT_MAX {
        let offset = if size >= u64::from(alignment) * 2 { u64::from(alignment) } else { 0 };
        if reads_work(file, offset, alignment, alignment)? {
            working.push(alignment);
        }
        alignment *= 2;
    }
    Ok(working)
}

/// Reads `alignment` bytes at `offset` to an address that is an odd multiple of
/// `memory_alignment`, so that it is no better aligned than it claims. False means refused.
fn reads_work(file: &File, offset: u64, alignment: u32, memory_alignment: u32) -> io::Result<bool> {
    let (len, shift) = (alignment as usize, memory_alignment as usize);
    let mut buf = AlignedBuf::zeroed(shift + len, shift * 2);
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    loop {
        match pool::read(file, offset, &mut buf, shift) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
