//! Responses to POST that answer a later GET of the same target (RFC 9110, section 9.3.3).

use ::http::header::SET_COOKIE;
use ::http::{Method, StatusCode};

use super::answer::Answer;
use super::body::Body;
use super::counts::Served;
use super::fetch::{Fetched, failure_of};
use super::fill::{is_short, whole_body};
use super::key::key_for;
use super::new_response::tags;
use super::removal::log_failed;
use super::service::Service;
use super::stored;
use crate::cache::{Lease, StoreOptions, Stored};
use crate::http_cache::cache_status::CacheStatus;
use crate::http_cache::head::RequestHead;
use crate::http_cache::hop_by_hop::remove_hop_by_hop;
use crate::http_cache::storing::{Kept, Storing, can_be_validated, store};

impl Service {
    /// The lease of the target of a POST: over what is stored with it, purges since the request left prevail.
    pub(super) fn lease_of_post(&self, request: &RequestHead) -> Option<Lease> {
        if self.options.no_vary_search {
            return None;
        }
        let target = key_for(&self.options, (request.target(), None), request)
            .filter(|_| request.method() == Method::POST)?;
        Some(self.http.cache.lease_alone(&target))
    }

    /// What is to be stored of the response to a POST. Only what is short, so that it is stored before its client
    /// gets an answer, and has one variant: it takes the place of all that is no longer good. Other statuses than 200
    /// tell of what the POST did.
    pub(super) fn kept_of_post(
        &self,
        request: &RequestHead,
        fetched: &Fetched,
    ) -> Option<Box<Kept>> {
        let sets_cookies = fetched.head.headers.contains_key(SET_COOKIE);
        let len = fetched.connection.body_len();
        if fetched.head.status != StatusCode::OK || len.is_none_or(|len| len > self.object_size_max)
        {
            return None;
        }
        match store(request, &fetched.head, &fetched.exchange, &self.settings) {
            Storing::Whole(kept) if kept.vary.is_empty() && is_short(fetched) && !sets_cookies => {
                Some(kept)
            }
            _ => None,
        }
    }

    /// Stores the response to a POST in the place of all that is stored of its target or is on its way, and answers
    /// with it.
    pub(super) async fn keep_post(
        &self,
        mut lease: Lease,
        (request, kept): (&RequestHead, &Kept),
        mut fetched: Fetched,
        status: CacheStatus,
    ) -> Answer {
        let purged = lease.purge_others().await;
        let is_first = matches!(purged, Ok(true));
        log_failed(&purged.map(drop), "what a POST outdated was not removed");
        if !is_first {
            // Another purge covers the answer: it is not stored, and what came since that purge goes too.
            self.drop_stored(lease.key()).await;
        }
        let body = match self.counted(whole_body(&mut fetched).await) {
            Ok(body) => body,
            Err(error) => return self.failure(failure_of(&error), status),
        };
        let options = stored::encode_response(&kept.head).map(|metadata| StoreOptions {
            lifetime: Some(stored::lifetime(&kept.head, can_be_validated(&kept.head.headers))),
            metadata,
            tags: tags(request.target().authority(), &kept.tags),
            ..StoreOptions::default()
        });
        let stored = match options.filter(|_| is_first) {
            Some(options) => matches!(lease.put(&body, &options).await, Ok(Stored::Yes(_))),
            None => false,
        };
        let status = CacheStatus { stored, ..status };
        let mut headers = fetched.head.headers;
        remove_hop_by_hop(&mut headers);
        self.sign(&mut headers, &status);
        let answer =
            Answer::new(fetched.head.status, headers, Body::memory(body), Served::of(&status));
        Answer { first_byte: Some(fetched.first_byte), ..answer }
    }
}
