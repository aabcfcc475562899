//! Requests that change the protocol of their connection: WebSocket. Owns which of them go on, and the bytes
//! both ways after a 101.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::http::Method;
use ::http::header::{CONNECTION, HeaderValue, UPGRADE};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::time::sleep;

use super::answer::Answer;
use super::pass::{WEBSOCKET, head_bytes};
use super::upstream::{Moved, Tunnel};
use crate::server::codec::Framing;
use crate::server::codec::head::RequestHead;
use crate::server::gate::Gate;
use crate::server::http::connection::Answered;
use crate::server::http::request_body::Remainder;
use crate::server::http::wire::{Socket, Wire};

/// Bytes on their way, each way.
const BUFFER_LEN: usize = 8 << 10;

/// Whether a request asks for WebSocket on its connection (RFC 6455, section 4.1).
pub(super) fn is_websocket(head: &RequestHead) -> bool {
    let mut wanted = head.headers.get_all(UPGRADE).iter();
    let is_it = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    wanted.next().is_some_and(is_it)
        && wanted.next().is_none()
        && head.nominated.contains(&UPGRADE)
        && head.method == Method::GET
        && head.framing == Framing::None
        && !head.is_http_1_0
}

/// Gives the 101 of the upstream to the client, and then all bytes both ways until one side ends, none has
/// moved for `idle`, or `gate` is closed.
pub(super) async fn tunnel<S: Socket>(
    wire: &mut Wire<S>,
    answer: Answer,
    idle: Duration,
    gate: &Gate,
) -> io::Result<Answered> {
    let Answer { status, mut headers, body, .. } = answer;
    // None but an upstream switches.
    let connection = body.into_connection().ok_or(io::ErrorKind::Unsupported)?;
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
    wire.write(&head_bytes(status, &headers), &[]).await?;
    let mut upstream = Tunnel::new(connection);
    let moved = upstream.moved();
    let early = wire.unread().len();
    let both_ways = async {
        // Few clients send more before they have their answer.
        upstream.write_all(wire.unread()).await?;
        wire.consume(early);
        let (client, len) = (wire.socket(), BUFFER_LEN);
        copy_bidirectional_with_sizes(client, &mut upstream, len, len).await
    };
    let ended = tokio::select! {
        copied = both_ways => copied.map(drop),
        () = is_idle(&moved, idle) => Err(io::ErrorKind::TimedOut.into()),
        () = poll_fn(|cx| gate.poll_closed(cx)) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a tunnel broke off");
    }
    let shard = &wire.service.shard;
    let early = early as u64;
    shard.bytes_read.add(moved.to_upstream.load(Ordering::Relaxed).saturating_sub(early));
    shard.bytes_written.add(moved.from_upstream.load(Ordering::Relaxed));
    let remainder = Remainder::Skip(0);
    Ok(Answered { may_go_on: false, keeps_alive: false, remainder, is_whole: true })
}

/// Ready when no byte has moved for `idle`, and at most twice that.
async fn is_idle(moved: &Moved, idle: Duration) {
    loop {
        let before = moved.sum();
        sleep(idle).await;
        if moved.sum() == before {
            return;
        }
    }
}
