//! The index snapshot of a clean stop, in free regions of the log. Owns when one may be written
//! and when one may be believed: anything doubtful means footers.

mod load;
mod write;

/// Most bytes of the index that one shard's dump takes beside its words.
const DUMP_COUNT_LEN: usize = 4;
/// Bytes of a word, and of a word with what stands beside it, in a shard's dump.
const DUMP_WORD_LEN: usize = 8;
const DUMP_ENTRY_LEN: usize = 10;

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
