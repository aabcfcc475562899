//! From a request to its answer. Owns which function answers a method, and refusals.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ALLOW, EXPECT, HOST, HeaderValue};
use hyper::{Method, Request, Version};

use super::key::key;
use super::refusal::Refusal;
use super::service::{Answer, Service, plain};

/// How many bytes a refused request may still send, and for how long: its client may read the
/// answer only after sending.
const DRAIN_LEN_MAX: usize = 1 << 20;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Refuses requests that proxies could take to be for different hosts. hyper refuses bodies of
/// ambiguous length.
fn check_host(request: &Request<Incoming>) -> Result<(), Refusal> {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Refusal::HOST);
    }
    Ok(())
}

impl Service {
    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let method = request.method().clone();
        let answer = self.dispatch(request).await;
        self.shard.http.count_request(&method, answer.status());
        answer
    }

    async fn dispatch(&self, mut request: Request<Incoming>) -> Answer {
        let uri = request.uri();
        let checked =
            check_host(&request).and_then(|()| key(uri.path(), uri.query()).map_err(Refusal::from));
        let key = match checked {
            Ok(key) => key,
            Err(refusal) => return self.refuse(refusal, &mut request).await,
        };
        let answered = match *request.method() {
            Method::GET => Ok(self.get(&key, request.headers()).await),
            Method::HEAD => Ok(self.head(&key, request.headers()).await),
            Method::PUT => self.put(&key, &mut request).await,
            Method::PATCH => self.patch(&key, &request).await,
            Method::DELETE => self.delete(&key, request.headers()).await,
            _ if request.method().as_str() == "PURGE" => self.delete(&key, request.headers()).await,
            _ => Err(Refusal::METHOD),
        };
        match answered {
            Ok(answer) => answer,
            Err(refusal) => self.refuse(refusal, &mut request).await,
        }
    }

    /// Answers a refused request. A client that does not wait for 100 Continue may read the answer
    /// only after sending its body: a part of the body is read and dropped.
    async fn refuse(&self, refusal: Refusal, request: &mut Request<Incoming>) -> Answer {
        if !request.headers().contains_key(EXPECT) {
            let body = request.body_mut();
            let drained = async {
                let mut len = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    len += frame.data_ref().map_or(0, Bytes::len);
                    if len > DRAIN_LEN_MAX {
                        break;
                    }
                }
            };
            // The answer is the same whether the body ended or not.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
        }
        let mut answer = plain(refusal);
        let headers = answer.headers_mut();
        if refusal == Refusal::METHOD {
            let allowed = HeaderValue::from_static("GET, HEAD, PUT, PATCH, DELETE, PURGE");
            headers.insert(ALLOW, allowed);
        }
        answer
    }
}
