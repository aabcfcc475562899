//! Requests that are given on to the upstream for one client: any method, with or without a body. What
//! comes is not stored.

use std::time::Duration;

use ::http::header::{CONNECTION, EXPECT, HeaderMap, HeaderValue, UPGRADE};
use ::http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::fetch::{Fetched, To, failure_of};
use super::service::Service;
use super::upstream::{Connection, Reuse, UpstreamError};
use crate::http_cache::cache_status::CacheStatus;
use crate::http_cache::head::RequestHead;
use crate::http_cache::hop_by_hop::remove_hop_by_hop;
use crate::http_cache::invalidation::is_safe;
use crate::server::codec::response_head::ResponseHead as Came;
use crate::server::codec::{Framing, RequestToUpstream};
use crate::server::http::body_error::BodyError;
use crate::server::http::request_body::RequestBody;
use crate::server::http::wire::Socket;
use crate::server::presence::while_there;

/// The protocol that is let through. One that is HTTP itself (`h2c`) would bring requests that nobody has
/// looked at.
pub(super) const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// How long the upstream may take to say whether a client that waits is to send its body. Some never say.
const LEAVE_WAIT: Duration = Duration::from_secs(1);

/// Why a request was not passed.
enum Failed {
    /// The client broke off, or its body is none.
    Client(BodyError),
    Upstream(UpstreamError),
}

impl From<UpstreamError> for Failed {
    fn from(error: UpstreamError) -> Failed {
        Failed::Upstream(error)
    }
}

/// How a request comes: what the answer depends on besides its meaning.
pub(super) struct Manner {
    pub(super) framing: Framing,
    pub(super) is_http_1_0: bool,
    /// The client sends its body when it is told to.
    pub(super) waits: bool,
    /// It asks for WebSocket.
    pub(super) upgrades: bool,
}

impl Service {
    /// Asks the upstream what the client asks, and gives what comes.
    ///
    /// # Errors
    /// The answer to a request that got none of the upstream.
    pub(super) async fn pass<S: Socket>(
        &self,
        request: &RequestHead,
        to: &To,
        (body, manner): (&mut RequestBody<'_, S>, &Manner),
        status: &CacheStatus,
    ) -> Result<Fetched, Box<Answer>> {
        match self.exchange(request, to, body, manner).await {
            Ok(fetched) => Ok(fetched),
            Err(Failed::Client(error)) => {
                let detail = Some(error.to_string());
                let status = CacheStatus { detail, ..status.clone() };
                Err(Box::new(self.own(StatusCode::BAD_REQUEST, status)))
            }
            Err(Failed::Upstream(error)) => {
                Err(Box::new(self.failure(failure_of(&error), status.clone())))
            }
        }
    }

    async fn exchange<S: Socket>(
        &self,
        request: &RequestHead,
        to: &To,
        body: &mut RequestBody<'_, S>,
        manner: &Manner,
    ) -> Result<Fetched, Failed> {
        let method = request.method();
        let is_repeatable = is_safe(method) && manner.framing == Framing::None;
        let requested_at = self.http.cache.clock().now();
        let mut headers = self.to_upstream(request.headers().clone());
        if manner.waits {
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        if manner.upgrades {
            headers.insert(UPGRADE, WEBSOCKET);
        }
        let asked = RequestToUpstream {
            method,
            target: &to.target,
            host: &to.host,
            headers: &headers,
            framing: manner.framing,
            closes: false,
        };
        let mut reuse = if is_repeatable { Reuse::Allowed } else { Reuse::Fresh };
        loop {
            let mut connection = self.counted(self.upstream.connect(reuse).await)?;
            let watch = self.asked();
            match ask(&mut connection, &asked, (body, manner)).await {
                Ok(came) => return Ok(self.fetched(connection, came, (requested_at, &watch))),
                Err(Failed::Upstream(error))
                    if error.is_stale_reuse() && matches!(reuse, Reuse::Allowed) =>
                {
                    reuse = Reuse::Fresh;
                }
                Err(failed) => {
                    if let Failed::Upstream(error) = &failed {
                        self.http.shard.proxy.failed(error);
                    }
                    return Err(failed);
                }
            }
        }
    }
}

async fn ask<S: Socket>(
    connection: &mut Connection,
    asked: &RequestToUpstream<'_>,
    (body, manner): (&mut RequestBody<'_, S>, &Manner),
) -> Result<Came, Failed> {
    let method = asked.method;
    match connection.send_head(asked).await {
        Ok(()) => {}
        // The response says what happened, or that there is none.
        Err(error) if error.may_have_answered() => {
            return final_head(connection, method, (body, manner)).await;
        }
        Err(error) => return Err(error.into()),
    }
    if manner.framing != Framing::None
        && let Some(came) = send_body(connection, method, (body, manner)).await?
    {
        return Ok(came);
    }
    final_head(connection, method, (body, manner)).await
}

/// The final head of the response; interim ones are given on.
async fn final_head<S: Socket>(
    connection: &mut Connection,
    method: &Method,
    (body, manner): (&mut RequestBody<'_, S>, &Manner),
) -> Result<Came, Failed> {
    loop {
        let came = {
            let mut reading = std::pin::pin!(connection.read_head(method));
            while_there(body, reading.as_mut()).await.ok_or(Failed::Client(BodyError::Lost))??
        };
        if !came.status.is_informational() || came.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(came);
        }
        inform(body, &came, manner).await?;
    }
}

/// Sends the body of a request; the final head of the response, if that comes before. What is left of
/// the body stays where it is then.
async fn send_body<S: Socket>(
    connection: &mut Connection,
    method: &Method,
    (body, manner): (&mut RequestBody<'_, S>, &Manner),
) -> Result<Option<Came>, Failed> {
    let (mut sender, mut receiver) = connection.split();
    if manner.waits {
        let end = Instant::now() + LEAVE_WAIT;
        while let Ok(came) = timeout_at(end, receiver.read_head(method)).await {
            let came = came?;
            if came.status == StatusCode::CONTINUE {
                break;
            }
            if !came.status.is_informational() {
                return Ok(Some(came));
            }
            inform(body, &came, manner).await?;
        }
    }
    loop {
        let piece = tokio::select! {
            biased;
            came = receiver.read_head(method) => {
                let came = came?;
                if !came.status.is_informational() {
                    return Ok(Some(came));
                }
                inform(body, &came, manner).await?;
                continue;
            }
            piece = body.next() => piece.map_err(Failed::Client)?,
        };
        let Some(piece) = piece else { break };
        let mut news = Vec::new();
        {
            let mut sending = std::pin::pin!(sender.send_body(piece));
            loop {
                tokio::select! {
                    biased;
                    came = receiver.read_head(method) => {
                        let came = came?;
                        if !came.status.is_informational() {
                            return Ok(Some(came));
                        }
                        news.push(came);
                    }
                    sent = &mut sending => match sent {
                        Ok(()) => break,
                        // It may have answered without reading all.
                        Err(error) if error.may_have_answered() => return Ok(None),
                        Err(error) => return Err(error.into()),
                    },
                }
            }
        }
        for came in news {
            inform(body, &came, manner).await?;
        }
    }
    match sender.end_body().await {
        Err(error) if !error.may_have_answered() => Err(error.into()),
        _ => Ok(None),
    }
}

/// Gives an interim answer on, but for 100: the client is told to go on when its body is read.
async fn inform<S: Socket>(
    body: &mut RequestBody<'_, S>,
    came: &Came,
    manner: &Manner,
) -> Result<(), Failed> {
    if manner.is_http_1_0 || came.status == StatusCode::CONTINUE {
        return Ok(());
    }
    let mut headers = came.headers.clone();
    for name in &came.nominated {
        headers.append(CONNECTION, HeaderValue::from(name.clone()));
    }
    remove_hop_by_hop(&mut headers);
    body.inform(&head_bytes(came.status, &headers))
        .await
        .map_err(|_| Failed::Client(BodyError::Lost))
}

/// A head as it is written, without anything that this cache says of the connection.
pub(super) fn head_bytes(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} ", status.as_u16()).into_bytes();
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
