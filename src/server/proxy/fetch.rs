//! One request to the upstream on behalf of all who want the answer: a fill, or a validation.

use std::time::Duration;

use ::http::header::{CONNECTION, HeaderMap, HeaderValue, VIA};
use ::http::{Method, StatusCode};

use super::failures::Failure;
use super::service::Service;
use super::upstream::{Connection, Reuse, UpstreamError};
use crate::clock::{Stopwatch, Timestamp};
use crate::http_cache::head::{Exchange, ResponseHead};
use crate::server::codec::response_head::{ResponseFraming, ResponseHead as Came};
use crate::server::codec::target::Target;
use crate::server::codec::{self, Framing, RequestToUpstream};

/// What came of a request: a head, and the connection that the body comes on.
pub(super) struct Fetched {
    pub(super) connection: Connection,
    /// The head for the core; without fields of the connection.
    pub(super) head: ResponseHead,
    /// Length of the body that was announced, also where none comes.
    pub(super) announced_len: Option<u64>,
    pub(super) exchange: Exchange,
    /// Time from the request to the head.
    pub(super) first_byte: Duration,
}

/// Target and host of a request as they came.
#[derive(Clone, Debug)]
pub(super) struct To {
    pub(super) target: Target,
    pub(super) host: Box<str>,
}

impl Service {
    /// Asks the upstream `method` of a target, without a body, with `headers`.
    ///
    /// # Errors
    /// The upstream failed before the head of its answer was whole.
    pub(super) async fn fetch(
        &self,
        method: &Method,
        to: &To,
        headers: HeaderMap,
    ) -> Result<Fetched, UpstreamError> {
        let requested_at = self.http.cache.clock().now();
        let headers = self.to_upstream(headers);
        let request = RequestToUpstream {
            method,
            target: &to.target,
            host: &to.host,
            headers: &headers,
            framing: Framing::None,
            closes: false,
        };
        let mut reuse = Reuse::Allowed;
        loop {
            let mut connection = self.counted(self.upstream.connect(reuse).await)?;
            let watch = self.asked();
            match ask(&mut connection, &request).await {
                Ok(came) => return Ok(self.fetched(connection, came, (requested_at, &watch))),
                // It was closed while it rested: nothing was done with the request.
                Err(error) if error.is_stale_reuse() && matches!(reuse, Reuse::Allowed) => {
                    reuse = Reuse::Fresh;
                }
                Err(error) => return self.counted(Err(error)),
            }
        }
    }

    /// A request goes to the upstream.
    pub(super) fn asked(&self) -> Stopwatch {
        self.http.shard.proxy.asked();
        Stopwatch::start()
    }

    /// Counts what failed.
    pub(super) fn counted<T>(&self, done: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        done.inspect_err(|error| self.http.shard.proxy.failed(error))
    }

    /// What came, with its times; `watch` was started with the request.
    pub(super) fn fetched(
        &self,
        connection: Connection,
        came: Came,
        (requested_at, watch): (Timestamp, &Stopwatch),
    ) -> Fetched {
        let first_byte = watch.elapsed();
        self.http.shard.proxy.came(first_byte);
        let clock = self.http.cache.clock();
        let (received_at, received_date) = (clock.now(), codec::date(clock.wall()));
        let exchange = Exchange { requested_at, received_at, received_date };
        let announced_len = came.announced_len;
        Fetched { connection, head: core_head(came), announced_len, exchange, first_byte }
    }

    /// Adds what this cache says of itself to the upstream.
    pub(super) fn to_upstream(&self, mut headers: HeaderMap) -> HeaderMap {
        headers.append(VIA, self.shared.via.clone());
        headers
    }
}

async fn ask(
    connection: &mut Connection,
    request: &RequestToUpstream<'_>,
) -> Result<Came, UpstreamError> {
    match connection.send_head(request).await {
        // The response says what happened, or that there is none.
        Err(error) if !error.may_have_answered() => return Err(error),
        _ => {}
    }
    loop {
        let head = connection.read_head(request.method).await?;
        // Interim answers are for one client.
        if !head.status.is_informational() {
            return Ok(head);
        }
    }
}

/// What came, as the core takes it.
pub(super) fn core_head(came: Came) -> ResponseHead {
    let ends_with_connection = came.framing == ResponseFraming::UntilClose;
    let mut headers = came.headers;
    for name in came.nominated {
        headers.append(CONNECTION, HeaderValue::from(name));
    }
    ResponseHead { status: came.status, headers, ends_with_connection }
}

/// How an upstream that gave no answer is answered for.
pub(super) fn status_of(error: &UpstreamError) -> StatusCode {
    if error.is_timeout() { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY }
}

/// How an upstream that did not answer is told of.
pub(super) fn failure_of(error: &UpstreamError) -> Failure {
    Failure::without_answer(status_of(error), error.to_string())
}
