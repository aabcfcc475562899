//! What an unsafe request makes of what is stored (RFC 9111, section 4.4; RFC 9875, section 3).

use super::new_response::group_tag;
use super::removal::log_failed;
use super::service::Service;
use crate::cache::Purge;
use crate::http_cache::head::{RequestHead, ResponseHead};
use crate::http_cache::invalidation::invalidated;

impl Service {
    /// Removes what `response` to `request` says is no longer good. Done when the client gets its answer.
    /// What is under the key `but` is left: the response takes its place.
    pub(super) async fn invalidate(
        &self,
        request: &RequestHead,
        response: &ResponseHead,
        but: Option<&[u8]>,
    ) {
        let gone = invalidated(request, response);
        if gone.is_empty() {
            return;
        }
        for target in &gone.targets {
            for key in self.keys(target, request).await {
                if but == Some(&key) {
                    continue;
                }
                self.drop_stored(&key).await;
            }
        }
        let origin = request.target().authority();
        for group in &gone.groups {
            let tag = group_tag(origin, group);
            if self.shared.groups.may_purge(&tag) {
                let purged = self.http.cache.purge_tag(&tag, Purge::Hard).await;
                log_failed(&purged, "a group was not purged");
            }
        }
    }
}
