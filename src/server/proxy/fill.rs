//! Filling a key on behalf of all who want it: asks the upstream, and says at once what becomes of the answer.
//! A fill runs as a task of its own: a client that goes away does not end it.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{HeaderValue, RANGE, SET_COOKIE};
use ::http::{HeaderMap, Method, StatusCode};
use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::coming::Coming;
use super::failures::{Failure, SHARED_LEN_MAX};
use super::fetch::{Fetched, To, failure_of};
use super::keeping::Keeping;
use super::new_response::{self, NewResponse};
use super::outcome::{HIT_FOR_MISS, Outcome};
use super::place::Place;
use super::query_rule::Ruled;
use super::removal::log_failed;
use super::service::Service;
use super::slots::Slot;
use super::upstream::UpstreamError;
use crate::cache::{Hit, Lease, UpdateOptions};
use crate::http_cache::freshening::{Freshening, freshen, is_rekeyed};
use crate::http_cache::freshness::control;
use crate::http_cache::head::{RequestHead, StoredHead};
use crate::http_cache::hop_by_hop::remove_hop_by_hop;
use crate::http_cache::request::{Asked, fill_headers};
use crate::http_cache::reuse::{self, stands_in};
use crate::http_cache::settings::Settings;
use crate::http_cache::storing::{self, Kept, Refused, can_be_validated, store};
use crate::http_cache::validation::validation_headers;

/// The range that has every byte.
const ALL: HeaderValue = HeaderValue::from_static("bytes=0-");

/// How long a client waits for a rule to be on the device.
const LEARNING_MAX: Duration = Duration::from_secs(1);

/// What is to be filled, for whom, and what is there of it.
pub(super) struct Job {
    /// What it stores counts from the moment at which this was given.
    pub(super) lease: Lease,
    pub(super) place: Place,
    pub(super) request: RequestHead,
    pub(super) to: To,
    /// By which rule it was looked up, if by one.
    pub(super) ruled: Option<Ruled>,
    /// What is stored and is to be validated.
    pub(super) known: Option<Known>,
    /// Nobody waits for it, and it is to be finished nevertheless.
    pub(super) is_refresh: bool,
    /// Leave to fill.
    pub(super) slot: Slot,
}

/// A stored response that may be used no longer without a word from the origin.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) head: StoredHead,
    /// The version of its entry.
    pub(super) cas: u64,
}

impl Known {
    pub(super) fn new(head: &StoredHead, hit: &Hit) -> Known {
        Known { head: head.clone(), cas: hit.cas() }
    }
}

impl Service {
    /// Runs `job` and tells `client` what comes of it.
    pub(super) async fn fill(self: Arc<Service>, job: Job, client: oneshot::Sender<Outcome>) {
        let Job { lease, place, request, to, ruled, mut known, is_refresh, slot } = job;
        let replaces = known.is_some();
        let mut range = self.options.range_of_fill(&request).filter(|_| known.is_none());
        loop {
            let settings = &self.options.settings;
            let mut headers = match &known {
                Some(known) => validation_headers(&request, &known.head, settings),
                None => fill_headers(&request, settings),
            };
            if let Some(range) = &range {
                let range = format!("bytes={}-{}", range.start, range.end - 1);
                headers.insert(RANGE, HeaderValue::try_from(range).unwrap_or(ALL));
            }
            let fetched = match self.fetch(&Method::GET, &to, headers).await {
                Ok(fetched) => fetched,
                Err(error) => {
                    return self.give_up((lease, &place), failure_of(&error), None, client);
                }
            };
            let first_byte = fetched.first_byte;
            let status = fetched.head.status;
            let outruled = ruled.as_ref().filter(|it| !it.is_said_by(&fetched.head.headers));
            if status == StatusCode::NOT_MODIFIED && outruled.is_some() && known.take().is_some() {
                // It is good for this target, but what is stored may be the response for another one.
                continue;
            }
            if status == StatusCode::NOT_MODIFIED
                && let Some(its) = known.take_if(|known| can_be_validated(&known.head.headers))
            {
                let exchange = &fetched.exchange;
                let found = freshen(&its.head, &request, &fetched.head, exchange, settings);
                match found {
                    Freshening::AskAgain | Freshening::Outdated => continue,
                    found => {
                        self.shared.failures.forget(&place.key);
                        let head = self.freshened(lease, &place, &its, found).await;
                        let head = Box::new(head);
                        let _ = client.send(Outcome::Good { head, code: status, first_byte });
                        return;
                    }
                }
            }
            if status == StatusCode::NOT_MODIFIED {
                let detail = "the upstream answered 304 to a request without conditions";
                let status = StatusCode::BAD_GATEWAY;
                let failure = Failure::without_answer(status, detail.to_owned());
                return self.give_up((lease, &place), failure, Some(first_byte), client);
            }
            let failed = reuse::Failure::Status(status);
            if !failed.is_error() {
                self.shared.failures.forget(&place.key);
            }
            let now = self.http.cache.clock().now();
            let has_substitute = known
                .as_ref()
                .is_some_and(|known| stands_in(&Asked::default(), &known.head, now, failed));
            let storing = match has_substitute {
                true => storing::Storing::No(Refused::Status),
                false => store(&request, &fetched.head, &fetched.exchange, settings),
            };
            let parts = match (&storing, &range) {
                (storing::Storing::Part { part, validator, .. }, Some(asked)) => {
                    Coming::asked(asked, (part.clone(), validator.clone()), &fetched)
                }
                _ => None,
            };
            let is_of_range =
                matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE);
            if is_of_range && parts.is_none() && range.take().is_some() {
                // Others can do nothing with it: all get the whole.
                continue;
            }
            return match storing {
                storing::Storing::Whole(_) if let Some(ruled) = outruled => {
                    // Nothing more is asked for.
                    drop(slot);
                    let said = (status, &fetched.head.headers);
                    self.outruled((lease, &place), ruled, said, replaces).await;
                    let _ = client.send(Outcome::Alone(Box::new(fetched), None));
                }
                storing::Storing::Part { .. }
                    if parts.is_some()
                        && let Some(ruled) = outruled =>
                {
                    // It may be another range than the client asked for: that looks again too.
                    let said = (status, &fetched.head.headers);
                    self.outruled((lease, &place), ruled, said, replaces).await;
                }
                storing::Storing::Whole(kept) => {
                    let parts = self.options.whole_in_parts(&fetched, &kept.head);
                    let new = NewResponse { lease, place, request, kept, ack: None };
                    let job = Keeping { new, to, parts, replaces, is_refresh };
                    self.keep(job, (fetched, slot), client).await;
                }
                storing::Storing::Part { kept, .. } if parts.is_some() => {
                    let new = NewResponse { lease, place, request, kept, ack: None };
                    let job = Keeping { new, to, parts, replaces, is_refresh };
                    self.keep(job, (fetched, slot), client).await;
                }
                storing::Storing::Part { .. } => {
                    drop(lease);
                    let _ = client.send(Outcome::Alone(Box::new(fetched), Some(Refused::Status)));
                }
                storing::Storing::No(_)
                    if failed.is_error()
                        && (has_substitute || is_refresh)
                        && !is_short(&fetched) =>
                {
                    let detail = answered(status);
                    let failure = Failure { status, is_answer: true, said: None, detail };
                    self.give_up((lease, &place), failure, Some(first_byte), client);
                }
                storing::Storing::No(refused) if failed.is_error() => {
                    let may_tell = !request.has_credentials()
                        && outruled.is_none()
                        && is_for_all(&fetched.head.headers, settings)
                        && matches!(refused, Refused::NotMarked | Refused::Useless);
                    self.failed((lease, &place), fetched, (refused, may_tell), client).await;
                }
                storing::Storing::No(refused) => {
                    self.refused(lease, &place, status, refused, replaces).await;
                    let _ = client.send(Outcome::Alone(Box::new(fetched), Some(refused)));
                }
            };
        }
    }

    /// Gives what is stored the head that a 304 made of it.
    pub(super) async fn freshened(
        &self,
        lease: Lease,
        place: &Place,
        known: &Known,
        found: Freshening,
    ) -> StoredHead {
        match found {
            Freshening::Updated(kept) => {
                let Kept { head, tags, .. } = &*kept;
                let is_rekeyed =
                    !self.options.settings.ignores_vary && is_rekeyed(&known.head, head);
                match super::stored::encode_response(head).filter(|_| !is_rekeyed) {
                    Some(metadata) => {
                        let is_new = !super::stored::is_renewed(&known.head, head);
                        let options = UpdateOptions {
                            metadata: is_new.then_some(metadata),
                            tags: is_new.then(|| new_response::tags(&place.origin, tags)),
                            lifetime: Some(super::stored::lifetime(
                                head,
                                can_be_validated(&head.headers),
                            )),
                            ..UpdateOptions::default()
                        };
                        let updated = lease.update(known.cas, &options).await;
                        log_failed(&updated.map(drop), "a validated response was not updated");
                    }
                    None => self.drop_stored(&place.key).await,
                }
                kept.head
            }
            Freshening::Removed(head) => {
                self.drop_stored(&place.key).await;
                drop(lease);
                *head
            }
            Freshening::Once | Freshening::AskAgain | Freshening::Outdated => {
                drop(lease);
                let now = self.http.cache.clock().now();
                // Good for this moment only.
                StoredHead { received_at: now, ended_at: Some(now), ..known.head.clone() }
            }
        }
    }

    /// Sets those free who waited by another rule than the response says: each of them may want another one. They look
    /// again by the new rule.
    async fn outruled(
        &self,
        (lease, place): (Lease, &Place),
        ruled: &Ruled,
        (status, headers): (StatusCode, &HeaderMap),
        is_stored: bool,
    ) {
        // An error or a redirect of one target is no word on the path: clients could ask for such.
        if status.is_success() {
            let learning = timeout(LEARNING_MAX, self.learn(ruled, headers));
            if learning.await.is_err() {
                tracing::debug!("the rule of a path is not on the device yet");
            }
        }
        if is_stored {
            self.drop_stored(&place.key).await;
        }
        // After that: who gets the lease next sees it.
        lease.refuse(HIT_FOR_MISS);
    }

    /// Sets those free who wait for a response that is not stored.
    async fn refused(
        &self,
        lease: Lease,
        place: &Place,
        status: StatusCode,
        refused: Refused,
        is_stored: bool,
    ) {
        if is_stored && refused.marks_key(status) {
            // The origin has something else now.
            self.drop_stored(&place.key).await;
        }
        if refused == Refused::Authorization {
            self.shared.credentials.note(&place.key);
        }
        // After that: who gets the lease next sees it.
        match refused.marks_key(status) {
            true => lease.refuse(HIT_FOR_MISS),
            false => drop(lease),
        }
    }

    /// Tells an error of the upstream to all who wait, if it is short: its words too, if they `may_tell` them.
    async fn failed(
        &self,
        (lease, place): (Lease, &Place),
        mut fetched: Fetched,
        (refused, may_tell): (Refused, bool),
        client: oneshot::Sender<Outcome>,
    ) {
        if !is_short(&fetched) {
            // All who wait go alone.
            lease.refuse(self.options.error_ttl);
            let _ = client.send(Outcome::Alone(Box::new(fetched), Some(refused)));
            return;
        }
        let (status, first_byte) = (fetched.head.status, Some(fetched.first_byte));
        let failure = match self.counted(whole_body(&mut fetched).await) {
            Ok(body) => {
                let mut headers = fetched.head.headers;
                remove_hop_by_hop(&mut headers);
                let (said, detail) = (Some((headers, body)), answered(status));
                Failure { status, is_answer: true, said, detail }
            }
            Err(error) => failure_of(&error),
        };
        let told = if may_tell { failure.clone() } else { failure.without_words() };
        self.tell((lease, place), (told, failure), first_byte, client);
    }

    /// Tells a failure to all who wait.
    fn give_up(
        &self,
        of: (Lease, &Place),
        failure: Failure,
        first_byte: Option<Duration>,
        client: oneshot::Sender<Outcome>,
    ) {
        self.tell(of, (failure.clone(), failure), first_byte, client);
    }

    /// Gives a failure to the client that asked, and what may be `told` of it to all who wait.
    fn tell(
        &self,
        (lease, place): (Lease, &Place),
        (told, failure): (Failure, Failure),
        first_byte: Option<Duration>,
        client: oneshot::Sender<Outcome>,
    ) {
        let time = (self.http.cache.clock().now(), self.options.error_ttl);
        self.shared.failures.note(&place.key, &told, time);
        // After that: who gets the lease next sees it.
        drop(lease);
        let _ = client.send(Outcome::Failed(failure, first_byte));
    }
}

/// Whether the words of an error may be told to others than who asked.
fn is_for_all(headers: &HeaderMap, settings: &Settings) -> bool {
    let (control, _) = control(headers, settings);
    let has_cookies = headers.contains_key(SET_COOKIE) || headers.contains_key("set-cookie2");
    !has_cookies && !control.private && !control.forbids_storing
}

/// Whether the words of an error are kept for others.
pub(super) fn is_short(fetched: &Fetched) -> bool {
    fetched.connection.body_len().is_some_and(|len| len <= SHARED_LEN_MAX)
}

fn answered(status: StatusCode) -> String {
    format!("the upstream answered {}", status.as_u16())
}

/// The whole of a short body.
pub(super) async fn whole_body(fetched: &mut Fetched) -> Result<Bytes, UpstreamError> {
    let mut body = BytesMut::new();
    while let Some(piece) = fetched.connection.next_chunk().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}
