//! Who else uses an image file. Owns the descriptions for messages.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::holder::{Holders, swap_paths};
use super::{loop_file, overlay};

/// All that is known to hold the image file.
pub(super) fn of_file(path: &Path) -> Holders {
    let Ok(canonical) = path.canonicalize() else { return Holders::lasting(Vec::new()) };
    let mut holders = loop_file::devices_of(&canonical);
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swap_paths(&swaps).contains(&canonical) {
        holders.names.push("in use as swap".to_owned());
        holders.go_within = Duration::ZERO;
    }
    for point in overlay::points_over(&canonical) {
        let point = point.display();
        holders.names.push(format!("in the upper directory of the overlay mounted at {point}"));
        holders.go_within = Duration::ZERO;
    }
    if let Some(file) = overlay::file_under(&canonical).filter(|file| loop_file::is_locked(file)) {
        let name = format!("its file under the overlay, {}, is locked", file.display());
        holders.names.push(name);
        holders.go_within = Duration::ZERO;
    }
    holders
}
