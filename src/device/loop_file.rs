//! The file behind a loop device: who else may write to it. Owns the comparison of files by
//! identity, since one file has many paths; never attaches or detaches.

use std::fs::{self, File, TryLockError};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::facts::sysfs_directory;
use super::holder;

/// A loop device and the part of a file that it stands for.
struct Attached {
    /// Its name under `/dev`.
    name: String,
    file: PathBuf,
    bytes: Range<u64>,
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
        Some(Attached { name, file, bytes: start..start.saturating_add(len) })
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

/// Names of the loop devices that `path` is attached to.
pub(super) fn devices_of(path: &Path) -> Vec<String> {
    let of_file = attached().into_iter().filter(|attached| is_same(&attached.file, path));
    of_file.map(|attached| attached.name).collect()
}

/// Descriptions of all else that uses the file behind a loop device; nothing for other devices.
pub(super) fn rivals_of(device_number: u64) -> Vec<String> {
    let directory = sysfs_directory(device_number);
    // A partition has no such directory; its disk, one directory up, has.
    let disk = [directory.clone(), directory.join("..")].into_iter();
    let Some(disk) =
        disk.filter_map(|disk| disk.canonicalize().ok()).find(|d| d.join("loop").is_dir())
    else {
        return Vec::new();
    };
    let name = disk.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(own) = name.and_then(|name| Attached::read(name, &disk.join("loop"))) else {
        return Vec::new();
    };
    let others = attached().into_iter().filter(|other| {
        other.name != own.name && other.overlaps(&own) && is_same(&other.file, &own.file)
    });
    let file = own.file.display();
    let mut rivals: Vec<String> = others
        .map(|other| format!("its file {file} is attached to /dev/{} too", other.name))
        .collect();
    if is_locked(&own.file) {
        let holders = holder::processes_with(&own.file, None);
        rivals.push(format!("its file {file} is locked, {}", holders.join(", ")));
    }
    rivals
}

/// Whether a daemon serves the file itself: it holds a lock on it.
fn is_locked(path: &Path) -> bool {
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
        let part = |bytes| Attached { name: String::new(), file: file.clone(), bytes };
        assert!(part(0..u64::MAX).overlaps(&part(4096..8192)));
        assert!(!part(0..4096).overlaps(&part(4096..8192)));
    }
}
