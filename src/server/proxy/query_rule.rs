//! The rules of paths (`No-Vary-Search`): where the latest one of each is kept, and by which of them a request is
//! looked up. What was stored by one rule is under other keys than what was stored by another.

use std::time::Duration;

use ::http::HeaderMap;

use super::key::{goes_by_rules, key_for, rule_key};
use super::new_response::random_name;
use super::options::ProxyOptions;
use super::removal::log_failed;
use super::service::Service;
use super::stored::{Stored, encode_rule};
use crate::cache::{Ack, Cache, Condition, KEY_LEN_MAX, StoreOptions};
use crate::http_cache::head::RequestHead;
use crate::http_cache::no_vary_search::{KeptRule, Rule};
use crate::http_cache::target::Target;

/// By which rule a request is looked up.
#[derive(Clone, Debug)]
pub(super) struct Ruled {
    /// The key of the rule.
    key: Vec<u8>,
    /// `None` is the default rule.
    pub(super) kept: Option<KeptRule>,
}

impl Ruled {
    /// Whether a response with `headers` says the same. Else it answers its own target, and nobody knows which others.
    pub(super) fn is_said_by(&self, headers: &HeaderMap) -> bool {
        is_rule(self.kept.as_ref(), &Rule::of(headers))
    }
}

fn is_rule(kept: Option<&KeptRule>, rule: &Rule) -> bool {
    match kept {
        Some(kept) => kept.rule == *rule,
        None => rule.is_default(),
    }
}

/// The latest rule of the path of `target` behind a listener; `None` is the default rule.
pub(in crate::server) async fn rule_of(
    cache: &Cache,
    options: &ProxyOptions,
    target: &Target,
) -> Option<KeptRule> {
    match options.no_vary_search {
        true => latest(cache, &rule_key(options, target)).await,
        false => None,
    }
}

async fn latest(cache: &Cache, key: &[u8]) -> Option<KeptRule> {
    if key.len() > KEY_LEN_MAX {
        return None;
    }
    match Stored::decode(cache.lookup_stale_head(key).await?.metadata())? {
        Stored::Rule(kept) => Some(kept),
        _ => None,
    }
}

impl Service {
    /// The key of a request, and by which rule; by none if its proxy names the key, or none is asked for. `None` if the
    /// key is too long to be stored.
    pub(super) async fn keyed(&self, request: &RequestHead) -> Option<(Vec<u8>, Option<Ruled>)> {
        let ruled = match goes_by_rules(&self.options, request.target(), request) {
            true => {
                let key = rule_key(&self.options, request.target());
                Some(Ruled { kept: latest(&self.http.cache, &key).await, key })
            }
            false => None,
        };
        let kept = ruled.as_ref().and_then(|ruled| ruled.kept.as_ref());
        let key = key_for(&self.options, (request.target(), kept), request)?;
        Some((key, ruled))
    }

    /// All keys that `target` has now: what is stored of it by the present rule, and by none. What was stored by earlier
    /// rules is found no more.
    pub(super) async fn keys(&self, target: &Target, request: &RequestHead) -> Vec<Vec<u8>> {
        let mut keys: Vec<_> =
            key_for(&self.options, (target, None), request).into_iter().collect();
        if !goes_by_rules(&self.options, target, request) {
            return keys;
        }
        match rule_of(&self.http.cache, &self.options, target).await {
            Some(kept) => keys.extend(key_for(&self.options, (target, Some(&kept)), request)),
            // During recovery, or when it cannot be read, there may be one: what was stored by it is found no more.
            None => self.drop_stored(&rule_key(&self.options, target)).await,
        }
        keys
    }

    /// The rule that took the place of `ruled`, if one did.
    pub(super) async fn successor(&self, ruled: &Ruled) -> Option<Ruled> {
        let kept = latest(&self.http.cache, &ruled.key).await;
        (kept != ruled.kept).then(|| Ruled { key: ruled.key.clone(), kept })
    }

    /// Keeps what a response with `headers` says as the rule of its path. On the device when it returns: after a crash
    /// no earlier rule is back, by which there may be what was purged since.
    pub(super) async fn learn(&self, ruled: &Ruled, headers: &HeaderMap) {
        let cache = &self.http.cache;
        let rule = Rule::of(headers);
        let hit = cache.lookup_stale_head(&ruled.key).await;
        let kept = hit.as_ref().and_then(|hit| match Stored::decode(hit.metadata()) {
            Some(Stored::Rule(kept)) => Some(kept),
            _ => None,
        });
        if is_rule(kept.as_ref(), &rule) {
            return;
        }
        if rule.is_default() {
            self.drop_stored(&ruled.key).await;
            return;
        }
        let Some(name) = random_name() else { return };
        let options = StoreOptions {
            ttl: Some(Duration::MAX),
            metadata: encode_rule(&KeptRule { name, rule }),
            ack: Some(Ack::Flushed),
            ..StoreOptions::default()
        };
        // If somebody else was faster, that is as good.
        let condition = hit.map_or(Condition::Absent, |hit| Condition::Unchanged(hit.cas()));
        let learnt = cache.put(&ruled.key, b"", condition, &options).await;
        log_failed(&learnt.map(drop), "the rule of a path was not kept");
    }
}
