//! Answers to requests for responses, on the connections of the HTTP listeners.

use std::io;
use std::sync::Arc;

use super::service::Replay;
use crate::fair_memory::Held;
use crate::server::access::Access;
use crate::server::codec::head::RequestHead;
use crate::server::gate::Gate;
use crate::server::http::connection::Answered;
use crate::server::http::request_body::RequestBody;
use crate::server::http::running::Running;
use crate::server::http::wire::{Socket, Wire};
use crate::server::proxy::connection::{deliver, fit};

impl Replay {
    /// Answers one request, the body of which is on `wire`. A closed `gate` makes this answer the last one.
    pub(in crate::server) async fn serve_one<S: Socket>(
        self: &Arc<Replay>,
        wire: &mut Wire<S>,
        (head, kept): (RequestHead, Option<Box<Held>>),
        access: Access,
        gate: &Gate,
    ) -> io::Result<Answered> {
        let shard = &self.shelf.http.shard;
        let _running = Running::begin(shard);
        let mut body = RequestBody::new(wire, &head, kept);
        let answer = self.answer(&head, &mut body, access).await;
        let remainder = body.end()?;
        let RequestHead { method, is_http_1_0, keeps_alive, headers, target, .. } = head;
        drop((headers, target));
        let came = (&method, is_http_1_0, keeps_alive);
        let answer = fit(&self.shelf, came, answer).await;
        shard.http.count_request(&method, answer.status);
        deliver(wire, came, (answer, remainder), gate, |_| {}).await
    }
}
