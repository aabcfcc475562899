//! Which part of the server answers a request on an HTTP listener.

use std::io;
use std::sync::Arc;

use super::access::Access;
use super::codec::head::RequestHead;
use super::gate::Gate;
use super::http::connection::{Answered, Answering};
use super::http::wire::Wire;
use super::http::{Objects, Socket};
use super::proxy::replay::{RESPONSES, Replay};
use crate::fair_memory::Held;

/// Objects, and responses where the path says so.
pub(super) struct Routes {
    pub(super) replay: Arc<Replay>,
    pub(super) access: Access,
}

impl Answering for Routes {
    async fn answer<S: Socket>(
        &self,
        wire: &mut Wire<S>,
        request: (RequestHead, Option<Box<Held>>),
        gate: &Gate,
    ) -> io::Result<Answered> {
        if request.0.target.path().starts_with(RESPONSES) {
            // Larger than the rest of a connection.
            return Box::pin(self.replay.serve_one(wire, request, self.access, gate)).await;
        }
        Objects(self.access).answer(wire, request, gate).await
    }
}
