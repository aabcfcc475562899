//! The index snapshot of a clean stop, in free regions of the log. Owns when one may be written and
//! when one may be used: if anything is doubtful, a start reads footers.

pub(crate) mod dump;
mod load;
mod write;

pub(crate) use write::first_piece_offset;

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
enum Doubt {
    #[error("{0}")]
    Wrong(&'static str),
    #[error("the {0} is damaged")]
    Damaged(&'static str, #[source] crate::format::Damage),
    #[error("the device failed")]
    Device(#[from] crate::device::DeviceError),
    #[error("the store stops")]
    Stopped,
}
