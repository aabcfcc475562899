//! Which request for responses is what.

use std::pin::pin;
use std::time::Duration;

use ::http::header::{ALLOW, HeaderName, HeaderValue};
use ::http::{HeaderMap, Method, StatusCode};

use super::RESPONSES;
use super::service::Replay;
use crate::cache::KEY_LEN_MAX;
use crate::clock::Stopwatch;
use crate::http_cache::head::RequestHead;
use crate::http_cache::target::Target;
use crate::server::access::Access;
use crate::server::codec::Framing;
use crate::server::codec::head::RequestHead as Came;
use crate::server::http::counts::HttpOperation;
use crate::server::http::key::key;
use crate::server::http::refusal::Refusal;
use crate::server::http::repeated;
use crate::server::http::request_body::RequestBody;
use crate::server::http::service::plain;
use crate::server::http::wire::Socket;
use crate::server::presence::while_there;
use crate::server::proxy::answer::Answer;
use crate::server::proxy::body::Body;
use crate::server::proxy::counts::Served;
use crate::server::proxy::key::{KEY_SEPARATOR, VARIANT_LEN};
use crate::server::proxy::purge::how;

/// In a GET: whoever sends it brings the response if there is none, or waits so many seconds for who does.
const WAIT: HeaderName = HeaderName::from_static("x-rawcached-wait");
/// Longest time that one says, in seconds.
const WAIT_SECS_MAX: u64 = 300;
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, PUT, DELETE, PURGE");

const METHOD: Refusal = Refusal {
    status: StatusCode::METHOD_NOT_ALLOWED,
    text: "responses take GET, HEAD, PUT, DELETE and PURGE\n",
};
const NOT_FOUND: Refusal =
    Refusal { status: StatusCode::NOT_FOUND, text: "the response is not in the cache\n" };
const PURGE: Refusal =
    Refusal { status: StatusCode::BAD_REQUEST, text: "the field Purge takes soft or hard\n" };
const HOST: Refusal = Refusal { status: StatusCode::BAD_REQUEST, text: "the host is none\n" };
const TOO_LONG: Refusal =
    Refusal { status: StatusCode::URI_TOO_LONG, text: "the key is longer than 4069 bytes\n" };
const BAD_WAIT: Refusal =
    Refusal { status: StatusCode::BAD_REQUEST, text: "X-Rawcached-Wait takes 0 to 300 seconds\n" };

impl Replay {
    /// Answers one request. What the answer does not need of its body is left in it.
    pub(super) async fn answer<S: Socket>(
        &self,
        came: &Came,
        body: &mut RequestBody<'_, S>,
        access: Access,
    ) -> Answer {
        self.dispatch(came, body, access).await.unwrap_or_else(|refusal| {
            let mut answer = refused(refusal);
            if refusal == METHOD {
                answer.headers.insert(ALLOW, METHODS);
            }
            answer
        })
    }

    async fn dispatch<S: Socket>(
        &self,
        came: &Came,
        body: &mut RequestBody<'_, S>,
        access: Access,
    ) -> Result<Answer, Refusal> {
        repeated::check(&came.headers)?;
        let target = target(came)?;
        let request = request_of(came)?;
        match came.method {
            Method::GET | Method::HEAD => {
                // Who may not bring it is not to be waited for.
                let wait = wait(&came.headers)?.filter(|_| !access.read_only);
                let mut got = pin!(self.get(&request, target, wait));
                while_there(body, got.as_mut()).await.ok_or(Refusal::GONE)
            }
            _ if access.read_only => Err(Refusal::READ_ONLY),
            Method::PUT => self.put(came, (request, target), body).await,
            Method::DELETE => self.purge(&target, &came.headers).await,
            _ if came.method.as_str() == "PURGE" => self.purge(&target, &came.headers).await,
            _ => Err(METHOD),
        }
    }

    /// Purges all variants of a response; on the device when it is answered.
    async fn purge(&self, target: &[u8], headers: &HeaderMap) -> Result<Answer, Refusal> {
        let how = how(headers).ok_or(PURGE)?;
        let watch = Stopwatch::start();
        let purged = self.shelf.purge_target(target, how).await;
        self.shelf.http.shard.http.record(HttpOperation::Delete, watch.elapsed());
        match purged {
            Ok(true) => Ok(self.done(StatusCode::NO_CONTENT)),
            Ok(false) => Err(NOT_FOUND),
            Err(error) => Err(Refusal::of_removal(&error)),
        }
    }
}

fn refused(refusal: Refusal) -> Answer {
    let (parts, body) = plain(refusal).into_parts();
    Answer::new(parts.status, parts.headers, Body::stored(body), Served::Refused)
}

/// The key that the responses of a request are under: no listener of `[[proxy]]` has an empty name.
fn target(came: &Came) -> Result<Vec<u8>, Refusal> {
    let key = key(came.target.path(), RESPONSES, came.target.query())?;
    let target = [&[KEY_SEPARATOR, KEY_SEPARATOR][..], &key].concat();
    match target.len() <= KEY_LEN_MAX - VARIANT_LEN {
        true => Ok(target),
        false => Err(TOO_LONG),
    }
}

/// The request as the core sees it: a GET or a HEAD, whatever brings or asks for the response.
fn request_of(came: &Came) -> Result<RequestHead, Refusal> {
    let method = if came.method == Method::HEAD { Method::HEAD } else { Method::GET };
    // What is asked with a body may depend on it.
    let has_body = came.method != Method::PUT && came.framing != Framing::None;
    let host = came.host.as_deref().unwrap_or("localhost");
    let target = Target::new("http", host, came.target.path()).ok_or(HOST)?;
    Ok(RequestHead::new(method, target, came.headers.clone(), has_body))
}

fn wait(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.get(WAIT) else { return Ok(None) };
    let secs = value.to_str().ok().and_then(|text| text.parse().ok());
    let secs = secs.filter(|secs| *secs <= WAIT_SECS_MAX).ok_or(BAD_WAIT)?;
    Ok(Some(Duration::from_secs(secs)).filter(|wait| !wait.is_zero()))
}
