//! Whether direct I/O really works on an open file. Found by a direct read and a look at the page cache
//! afterwards: a file system may accept direct reads but buffer them. Owns the verdict; never writes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use super::facts::{DioAlignment, Facts};
use super::{ALIGNMENT_MAX, ALIGNMENT_MIN, AlignedBuf, page_cache, pool};

/// How often a range is looked at until it is out of the page cache, and the pause between two looks.
const LOOKS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// A place counts as buffered if this many reads all leave something in the page cache.
const ATTEMPTS: u32 = 3;

/// Whether direct I/O works.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Reads with these multiples work.
    Works { alignment: u32, memory_alignment: u32 },
    /// Direct I/O cannot be used here, for this reason.
    Unavailable(String),
}

/// The outcome of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// It bypassed the page cache, as far as the kernel tells.
    Direct,
    /// It left something in the page cache.
    Buffered,
    /// It was refused.
    Refused,
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
    // The alignment that the kernel tells is tried first, then larger ones, should it be too small.
    let mut alignment = asked;
    let mut any_buffered = false;
    while alignment <= ALIGNMENT_MAX {
        let memory_alignment = if alignment == asked { memory } else { alignment };
        match try_places(file, facts.size, alignment, memory_alignment)? {
            Trial::Direct => return Ok(Verdict::Works { alignment, memory_alignment }),
            Trial::Buffered => any_buffered = true,
            Trial::Refused => {}
        }
        alignment *= 2;
    }
    unavailable(match any_buffered {
        true => "the file system takes such reads and makes them through the page cache",
        false => "reads with it are refused at every alignment up to 65536 bytes",
    })
}

/// The alignments from 512 to 65536 at which a real read is direct.
pub(super) fn working_alignments(file: &File, size: u64) -> io::Result<Vec<u32>> {
    let mut working = Vec::new();
    let mut alignment = ALIGNMENT_MIN;
    while alignment <= ALIGNMENT_MAX {
        if try_places(file, size, alignment, alignment)? == Trial::Direct {
            working.push(alignment);
        }
        alignment *= 2;
    }
    Ok(working)
}

/// Reads blocks of `alignment` bytes: at the start, behind it, and three in the middle if the device is
/// large enough. The address is an odd multiple of `memory_alignment`: no better aligned than that of
/// any transfer. Where a place cannot be read, others like it are tried.
fn try_places(file: &File, size: u64, alignment: u32, memory_alignment: u32) -> io::Result<Trial> {
    let block = u64::from(alignment);
    let even = |eighths: u64| size / 8 * eighths / (2 * block) * 2 * block;
    let odd = |eighths: u64| even(eighths) + block;
    let places = [
        ([even(0), even(1), even(3)], 1),
        ([odd(0), odd(1), odd(3)], 1),
        ([odd(4), odd(2), odd(6)], 3),
    ];
    let mut verdict = Trial::Direct;
    for (offsets, blocks) in places {
        let len = alignment as usize * blocks;
        let fits = |offset: &u64| *offset == 0 || offset + len as u64 <= size;
        let tried = first_readable(offsets.into_iter().filter(fits), |offset| {
            try_read(file, (offset, len), memory_alignment as usize)
        });
        match tried? {
            Trial::Direct => {}
            other => verdict = other,
        }
    }
    Ok(verdict)
}

/// The outcome of the first place that can be read.
///
/// # Errors
/// There are places, and none can be read.
fn first_readable(
    offsets: impl Iterator<Item = u64>,
    mut read: impl FnMut(u64) -> io::Result<Trial>,
) -> io::Result<Trial> {
    let mut failed = None;
    for offset in offsets {
        match read(offset) {
            Err(error) => failed = Some(error),
            trial => return trial,
        }
    }
    failed.map_or(Ok(Trial::Direct), Err)
}

/// Reads a place. It counts as buffered only if every attempt leaves it in the page cache: another
/// process may have read it.
fn try_read(file: &File, place: (u64, usize), shift: usize) -> io::Result<Trial> {
    for _ in 0..ATTEMPTS {
        match try_once(file, place, shift)? {
            Trial::Buffered => {}
            other => return Ok(other),
        }
    }
    Ok(Trial::Buffered)
}

fn try_once(file: &File, (offset, len): (u64, usize), shift: usize) -> io::Result<Trial> {
    let range = offset..offset + len as u64;
    let was_clear = clear(file, &range);
    let mut buf = AlignedBuf::zeroed(shift + len, shift * 2);
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    loop {
        match pool::read(file, offset, &mut buf, shift) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Trial::Refused),
            Err(error) => return Err(error),
        }
    }
    let is_cached = was_clear && page_cache::is_cached(file, &range).unwrap_or(false);
    Ok(if is_cached { Trial::Buffered } else { Trial::Direct })
}

/// Whether a range is out of the page cache, so that pages found there later come from the trial.
fn clear(file: &File, range: &Range<u64>) -> bool {
    for _ in 0..LOOKS_MAX {
        match page_cache::is_emptied(file, range) {
            Ok(true) => return true,
            Ok(false) => thread::sleep(PAUSE),
            Err(error) => {
                tracing::debug!(%error, "the kernel does not tell what is cached");
                return false;
            }
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_read_says_nothing() {
        let read = |bad: &'static [u64]| {
            move |offset: u64| match bad.contains(&offset) {
                true => Err(io::Error::from_raw_os_error(libc::EIO)),
                false => Ok(if offset == 2 { Trial::Buffered } else { Trial::Direct }),
            }
        };
        let of = |bad| first_readable([1, 2, 3].into_iter(), read(bad));
        assert_eq!(of(&[]).unwrap(), Trial::Direct);
        assert_eq!(of(&[1]).unwrap(), Trial::Buffered);
        assert_eq!(of(&[1, 2]).unwrap(), Trial::Direct);
        assert_eq!(of(&[1, 2, 3]).unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}
