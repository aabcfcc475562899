//! From a request as it came to its answer. Owns what is refused, what is looked up, and what is passed.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

use ::http::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use ::http::{Method, StatusCode};

use super::answer::Answer;
use super::failures::Began;
use super::fetch::To;
use super::key::without;
use super::lookup::Looked;
use super::pass::Manner;
use super::purge::PURGE;
use super::service::Service;
use super::tunnel::is_websocket;
use super::wanted::Wanted;
use crate::http_cache::cache_status::{CacheStatus, Forwarded};
use crate::http_cache::encoding;
use crate::http_cache::head::RequestHead;
use crate::http_cache::request::{Class, Pass, classify};
use crate::http_cache::target::Target;
use crate::server::codec::Framing;
use crate::server::codec::head::RequestHead as Came;
use crate::server::http::request_body::RequestBody;
use crate::server::http::wire::Socket;
use crate::server::presence::while_there;

impl Service {
    /// Answers one request. What the answer does not need of its body is left in it.
    pub(super) async fn answer<S: Socket>(
        self: &Arc<Service>,
        came: &mut Came,
        body: &mut RequestBody<'_, S>,
    ) -> Answer {
        self.dispatch(came, body).await.unwrap_or_else(|answer| *answer)
    }

    async fn dispatch<S: Socket>(
        self: &Arc<Service>,
        came: &mut Came,
        body: &mut RequestBody<'_, S>,
    ) -> Result<Answer, Box<Answer>> {
        if self.is_loop(&came.headers) {
            return Err(self.refuse(StatusCode::LOOP_DETECTED, "the request has been here before"));
        }
        let upgrades = self.options.tunnels && is_websocket(came);
        if came.method == Method::CONNECT || came.headers.contains_key(UPGRADE) {
            // What follows may be of another protocol.
            came.keeps_alive = false;
            if !upgrades {
                let detail = "no tunnels and no upgrades here";
                return Err(self.refuse(StatusCode::NOT_IMPLEMENTED, detail));
            }
        }
        if came.method.as_str() == PURGE {
            self.may_purge(&mut came.headers)?;
            let (request, _) = self.request(came)?;
            // Rare, and larger than the rest.
            return Box::pin(self.purge(&request)).await;
        }
        self.hide_token(&mut came.headers);
        let Came { framing, is_http_1_0, .. } = *came;
        let waits = came.waits && !matches!(framing, Framing::None | Framing::Length(0));
        let manner = Manner { framing, is_http_1_0, waits, upgrades };
        let (mut request, to) = self.request(came)?;
        let settings = &self.options.settings;
        let class = classify(&request, settings);
        if settings.normalizes_accept_encoding && matches!(class, Class::Lookup(_)) {
            encoding::normalize(&mut request);
        }
        let mut for_head = None;
        let status = match class {
            Class::Lookup(asked) => match self.keyed(&request).await {
                Some((target, ruled)) => {
                    let is_rare = asked.may_fill() && self.shared.uses.is_rare(&target);
                    let (began, shared) = (Began::now(), self.shared_to(&to));
                    let wanted = Wanted {
                        request: &request,
                        asked: &asked,
                        to: &shared,
                        target,
                        ruled,
                        began,
                        is_rare,
                    };
                    let freshens = asked.is_head && !asked.no_store && self.is_for_all(&to);
                    let keyed = freshens.then(|| (wanted.target.clone(), wanted.ruled.clone()));
                    let mut lookup = pin!(self.lookup(wanted));
                    let looked = while_there(body, lookup.as_mut()).await;
                    if let Some(keyed) = keyed
                        && matches!(looked, Some(Looked::Alone(_)))
                    {
                        for_head = Box::pin(self.for_head(&request, keyed)).await;
                    }
                    match looked {
                        Some(Looked::Answer(answer)) => return Ok(answer),
                        Some(Looked::Alone(status)) if is_rare => {
                            let detail = Some("asked for too rarely to be stored".to_owned());
                            CacheStatus { detail, ..status }
                        }
                        Some(Looked::Alone(status)) => status,
                        None => return Err(self.refuse(StatusCode::BAD_REQUEST, "the client left")),
                    }
                }
                None => {
                    let detail = Some("the target is too long to be stored".to_owned());
                    CacheStatus { detail, ..CacheStatus::forwarded(Forwarded::Bypass) }
                }
            },
            Class::Pass(Pass::Method) => CacheStatus::forwarded(Forwarded::Method),
            Class::Pass(_) => CacheStatus::forwarded(Forwarded::Bypass),
        };
        let lease = self.is_for_all(&to).then(|| self.lease_of_post(&request)).flatten();
        let fetched = self.pass(&request, &to, (body, &manner), &status).await?;
        if let Some(for_head) = for_head {
            // Rare, and larger than the rest.
            Box::pin(self.take_head(&request, &fetched, for_head)).await;
        }
        if let Some(lease) = lease
            && let Some(kept) = self.kept_of_post(&request, &fetched)
        {
            self.invalidate(&request, &fetched.head, Some(lease.key())).await;
            let of = (&request, &*kept);
            return Ok(Box::pin(self.keep_post(lease, of, fetched, status)).await);
        }
        self.invalidate(&request, &fetched.head, None).await;
        Ok(self.passed(fetched, status))
    }

    /// Whether what comes for this client's own target may be for all: it has no parameters that the key does not have.
    fn is_for_all(&self, to: &To) -> bool {
        let asked = to.target.path_and_query();
        without(asked, &self.options.ignore_query) == asked
    }

    /// What is asked for on behalf of all: without parameters that the key does not have.
    fn shared_to<'a>(&self, to: &'a To) -> Cow<'a, To> {
        let whole = to.target.path_and_query();
        let kept = without(whole, &self.options.ignore_query);
        if kept.len() == whole.len() {
            return Cow::Borrowed(to);
        }
        let target = to.target.with_path_and_query(&kept);
        Cow::Owned(To { target, host: to.host.clone() })
    }

    /// The request as the upstream is to get it.
    fn request(&self, came: &mut Came) -> Result<(RequestHead, To), Box<Answer>> {
        let authority = came.target.authority();
        let scheme = if authority.is_some_and(|it| it.is_https) { "https" } else { "http" };
        let host = match (authority, &came.host) {
            (Some(authority), _) => &authority.host,
            (None, Some(host)) => host,
            (None, None) => {
                return Err(self.refuse(StatusCode::BAD_REQUEST, "the request names no host"));
            }
        };
        let path = came.target.path_and_query();
        let path = match path {
            // It is about the server, and never stored.
            "*" if came.method == Method::OPTIONS => "/",
            "*" => return Err(self.refuse(StatusCode::BAD_REQUEST, "only OPTIONS is about *")),
            path => path,
        };
        let Some(target) = Target::new(scheme, host, path) else {
            return Err(self.refuse(StatusCode::BAD_REQUEST, "the host is none"));
        };
        // The upstream is to get what the key says: it may answer by it.
        let host = target.authority().into();
        let mut headers = std::mem::take(&mut came.headers);
        headers.remove(HOST);
        for name in &came.nominated {
            headers.append(CONNECTION, HeaderValue::from(name.clone()));
        }
        let has_body = came.framing != Framing::None;
        let request = RequestHead::new(came.method.clone(), target, headers, has_body);
        Ok((request, To { target: std::mem::take(&mut came.target), host }))
    }
}
