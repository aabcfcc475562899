//! Files seen through an overlay file system: what is written lies in its upper directory, as another
//! inode, so that a lock through one path does not hold for the other. Owns what the mounts of this
//! process tell of that; of overlays in other mount namespaces nothing is known.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::holder::unescape;

/// An overlay that can be written to, from a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Overlay {
    /// What of the overlay is mounted there.
    root: PathBuf,
    point: PathBuf,
    upper: PathBuf,
}

/// Where overlays are mounted whose upper directory `path` lies in: by that name, they have it in use.
pub(super) fn points_over(path: &Path) -> Vec<PathBuf> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let above: Vec<_> = path.ancestors().skip(1).filter_map(identity).collect();
    let is_over =
        |overlay: &Overlay| identity(&overlay.upper).is_some_and(|upper| above.contains(&upper));
    mounted().into_iter().filter(is_over).map(|overlay| overlay.point).collect()
}

/// The file in an upper directory that `path` leads to through an overlay.
pub(super) fn file_under(path: &Path) -> Option<PathBuf> {
    let seen = fs::metadata(path).ok()?;
    let mounted = mounted().into_iter().filter(|overlay| path.starts_with(&overlay.point));
    let overlay = mounted.max_by_key(|overlay| overlay.point.as_os_str().len())?;
    // Another file system may be mounted below.
    if fs::metadata(&overlay.point).ok()?.dev() != seen.dev() {
        return None;
    }
    let inside = path.strip_prefix(&overlay.point).ok()?;
    let root = overlay.root.strip_prefix("/").ok()?;
    let file = overlay.upper.join(root).join(inside);
    file.is_file().then_some(file)
}

fn mounted() -> Vec<Overlay> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mountinfo.lines().filter_map(overlay).collect()
}

fn overlay(line: &str) -> Option<Overlay> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    if kind.next()? != "overlay" {
        return None;
    }
    let upper = kind.nth(1)?.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
    let mut place = place.split(' ').skip(3);
    Some(Overlay {
        root: unescape(place.next()?).into(),
        point: unescape(place.next()?).into(),
        upper: unescape(upper).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_of_overlays_give_their_upper_directory() {
        let line = "60 29 0:52 / /mnt/a\\040b rw,relatime shared:9 - overlay overlay \
            rw,lowerdir=/l,upperdir=/u\\054x,workdir=/w";
        let expected = Overlay { root: "/".into(), point: "/mnt/a b".into(), upper: "/u,x".into() };
        assert_eq!(overlay(line), Some(expected));
        let read_only = "60 29 0:52 / /mnt ro - overlay overlay ro,lowerdir=/l:/m";
        assert_eq!(overlay(read_only), None);
        assert_eq!(overlay("36 35 98:0 / /mnt rw - ext4 /dev/root rw,upperdir=/u"), None);
    }
}
