//! The file behind a loop device: who else may write to it. Owns the comparison of files by
//! identity, since one file has many paths; never attaches or detaches.

use std::fs::{self, File, TryLockError};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::facts::sysfs_directory;
use super::holder::{self, Holders};

/// A loop device and the part of a file that it stands for.
struct Attached {
    /// Its name under `/dev`.
    name: String,
    file: PathBuf,
    bytes: Range<u64>,
    /// The kernel detaches it when its last user closes it.
    autoclear: bool,
}

impl Attached {
    /// From a `loop` directory in sysfs; `None` if nothing is attached.
    fn read(name: String, directory: &Path) -> Option<Attached> {
        let text = |file: &str| fs::read_to_string(directory.join(file)).ok();
        let number = |file: &str| text(file).and_then(|text| text.trim().parse::<u64>().ok());
        let file = text("backing_file")?.trim_end_matches('\n').into();
        let start = number("offset").unwrap_or(0);
        // No limit is written as 0.
        let len = number("sizelimit").filter(|len| *len > 0).unwrap_or(u64::MAX);
        let autoclear = number("autoclear") == Some(1);
        Some(Attached { name, file, bytes: start..start.saturating_add(len), autoclear })
    }

    /// Whether the kernel is about to detach it: `autoclear` is set, and nobody uses or mounts it.
    fn is_going(&self) -> bool {
        self.autoclear && holder::of_disk(&self.name).is_empty()
    }

    fn overlaps(&self, other: &Attached) -> bool {
        self.bytes.start < other.bytes.end && other.bytes.start < self.bytes.end
    }
}

/// All loop devices that have a file.
fn attached() -> Vec<Attached> {
    let names = holder::names_in(Path::new("/sys/block")).into_iter();
    names
        .filter_map(|name| {
            let directory = Path::new("/sys/block").join(&name).join("loop");
            Attached::read(name, &directory)
        })
        .collect()
}

/// The loop devices that `path` is attached to.
pub(super) fn devices_of(path: &Path) -> Holders {
    let of_file = attached().into_iter().filter(|attached| is_same(&attached.file, path));
    let of_file: Vec<Attached> = of_file.collect();
    let are_going = of_file.iter().all(Attached::is_going);
    let names = of_file.iter().map(|attached| format!("attached to /dev/{}", attached.name));
    holders(names.collect(), are_going)
}

/// All else that uses the file behind a loop device; `None` if nothing does, and for other devices.
pub(super) fn rivals_of(device_number: u64) -> Option<Holders> {
    let directory = sysfs_directory(device_number);
    // A partition has no such directory; its disk, one directory up, has.
    let disk = [directory.clone(), directory.join("..")].into_iter();
    let disk =
        disk.filter_map(|disk| disk.canonicalize().ok()).find(|disk| disk.join("loop").is_dir())?;
    let name = disk.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = name.and_then(|name| Attached::read(name, &disk.join("loop")))?;
    let others = attached().into_iter().filter(|other| {
        other.name != own.name && other.overlaps(&own) && is_same(&other.file, &own.file)
    });
    let others: Vec<Attached> = others.collect();
    let mut are_going = others.iter().all(Attached::is_going);
    let file = own.file.display();
    let mut names: Vec<String> = others
        .iter()
        .map(|other| format!("its file {file} is attached to /dev/{} too", other.name))
        .collect();
    if is_locked(&own.file) {
        let holders = holder::processes_with(&own.file, None);
        are_going &= holders.is_empty();
        names.push(match holders.is_empty() {
            true => format!("its file {file} is locked by a process that cannot be seen from here"),
            false => format!("its file {file} is locked, {}", holders.join(", ")),
        });
    }
    (!names.is_empty()).then(|| self::holders(names, are_going))
}

fn holders(names: Vec<String>, are_going: bool) -> Holders {
    if are_going { Holders::remains(names) } else { Holders::lasting(names) }
}

/// Whether a daemon serves the file itself: it holds a lock on it.
pub(super) fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Whether two paths name one file; a deleted one is known by its old path only.
fn is_same(path: &Path, other: &Path) -> bool {
    match (fs::metadata(path), fs::metadata(other)) {
        (Ok(one), Ok(two)) => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => path == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_links_and_parts_of_it_by_their_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "").unwrap();
        fs::hard_link(&file, &link).unwrap();
        assert!(is_same(&file, &link));
        fs::write(directory.path().join("other"), "").unwrap();
        assert!(!is_same(&file, &directory.path().join("other")));
        let part =
            |bytes| Attached { name: String::new(), file: file.clone(), bytes, autoclear: false };
        assert!(part(0..u64::MAX).overlaps(&part(4096..8192)));
        assert!(!part(0..4096).overlaps(&part(4096..8192)));
    }
}
