//! What a connection may do before the others of its worker get their turn.

use tokio::task::coop::{consume_budget, has_budget_remaining};

use crate::server::counters::Shard;

/// Of the 128 units that tokio gives a task for one turn. A key is a lookup, and lines hold many.
pub(super) const KEY_COST: u32 = 2;
pub(super) const COMMAND_COST: u32 = 1;

/// Spends `units`; where none are left, waits for the next turn first.
pub(super) async fn spend(units: u32, shard: &Shard) {
    for _ in 0..units {
        if !has_budget_remaining() {
            shard.yields.bump();
        }
        consume_budget().await;
    }
}
