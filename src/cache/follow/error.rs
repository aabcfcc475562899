//! Why a follower did not get the whole body. Values only.

use crate::store::StoreError;

/// Why a follower did not get the whole body. What it has is a part of it, and must not be taken for the whole.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The writer was dropped, or finalized after a part of the body was refused.
    #[error("the store was given up before the body was whole")]
    GivenUp,
    /// The store failed before the body was whole.
    #[error("the store failed before the body was whole")]
    Failed(#[source] StoreError),
    /// The follower fell behind, and what comes next is neither in memory nor on the device any more, or
    /// cannot be read there.
    #[error("the next part of the body is gone")]
    Lost,
}
