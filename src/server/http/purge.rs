//! `POST /v1/purge`: many at once, in the shape of draft-nottingham-http-invalidation. Owns what a
//! selector means for the keys of the read-through listeners.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;

use super::body::AnswerBody;
use super::refusal::Refusal;
use super::request_body::RequestBody;
use super::service::{Answer, Service};
use super::wire::Socket;
use crate::cache::{KEY_LEN_MAX, Purge, StoreError};
use crate::http_cache::target::Target;
use crate::server::codec::fault::Fault;
use crate::server::proxy::{
    KEY_SEPARATOR, group_tag, key_by, key_of, prefix_of, rule_key, rule_of,
};

/// The path that purges many.
pub(super) const PURGES: &str = "/v1/purge";
/// Longest body of a purge, in bytes.
const BODY_LEN_MAX: usize = 64 << 10;
/// Most selectors of one purge: each is a write that its client waits for.
const SELECTORS_MAX: usize = 1000;

/// What to purge.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    #[serde(rename = "type")]
    kind: Kind,
    /// URIs, beginnings of URIs, or origins; tags where the type is `tag`.
    #[serde(default)]
    selectors: Vec<String>,
    /// Groups of the origins, where the type is `group`.
    #[serde(default)]
    groups: Vec<String>,
    /// False makes stale only.
    #[serde(default = "yes")]
    purge: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Uri,
    UriPrefix,
    Origin,
    Group,
    Tag,
    All,
}

fn yes() -> bool {
    true
}

impl Service {
    /// Purges what the body selects; on the device when it is answered.
    pub(super) async fn purge_many<S: Socket>(
        &self,
        body: &mut RequestBody<'_, S>,
    ) -> Result<Answer, Refusal> {
        let selection = self.selection(body).await?;
        let Selection { kind, selectors, groups, .. } = &selection;
        let count = selectors.len() * groups.len().max(1);
        let is_sound = match kind {
            Kind::All => selectors.is_empty() && groups.is_empty(),
            Kind::Group => !selectors.is_empty() && !groups.is_empty(),
            _ => !selectors.is_empty() && groups.is_empty(),
        };
        if !is_sound {
            return Err(Refusal::PURGE);
        }
        if count > SELECTORS_MAX {
            return Err(Refusal::PURGE_LEN);
        }
        self.purge_selection(&selection).await?;
        let mut answer = Response::new(AnswerBody::memory("{}\n".into()));
        *answer.status_mut() = StatusCode::OK;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(answer)
    }

    /// Reads what to purge. What has come of it is counted among the input of all connections.
    async fn selection<S: Socket>(
        &self,
        body: &mut RequestBody<'_, S>,
    ) -> Result<Selection, Refusal> {
        let no_memory = |_| Refusal::from(Fault::MEMORY);
        let mut text = self.buffers.memory().hold(0);
        while let Some(bytes) = body.next().await? {
            if text.len() + bytes.len() > BODY_LEN_MAX {
                return Err(Refusal::PURGE_LEN);
            }
            text.stage(bytes).await.map_err(no_memory)?;
        }
        let text = text.take().map_err(no_memory)?;
        serde_json::from_slice(&text).map_err(|_| Refusal::PURGE)
    }

    async fn purge_selection(&self, selection: &Selection) -> Result<(), Refusal> {
        let how = if selection.purge { Purge::Hard } else { Purge::Soft };
        if selection.kind == Kind::All {
            return self.purged(self.cache.purge_all(how).await);
        }
        // All are looked at before the first is purged.
        let mut steps = Vec::new();
        for selector in &selection.selectors {
            self.steps(selection, selector, &mut steps).await?;
        }
        for step in steps {
            self.purged(self.take_step(step, how).await)?;
        }
        Ok(())
    }

    /// What one selector comes to.
    async fn steps(
        &self,
        selection: &Selection,
        selector: &str,
        steps: &mut Vec<Step>,
    ) -> Result<(), Refusal> {
        if selection.kind == Kind::Tag {
            steps.push(Step::Tag(selector.as_bytes().to_vec()));
            return Ok(());
        }
        let (scheme, rest) = selector.split_once("://").ok_or(Refusal::PURGE)?;
        let target = target_of(scheme, rest).ok_or(Refusal::PURGE)?;
        if selection.kind == Kind::Group {
            let tags = selection.groups.iter();
            let tags = tags.map(|group| group_tag(target.authority(), group.as_bytes()).to_vec());
            steps.extend(tags.map(Step::Tag));
            return Ok(());
        }
        if selection.kind == Kind::Origin && target.path_and_query() != "/" {
            return Err(Refusal::PURGE);
        }
        for proxy in self.proxies.iter() {
            let key = match selection.kind {
                Kind::Uri => key_of(proxy, &target),
                _ => prefix_of(proxy, &target),
            };
            match selection.kind {
                Kind::Uri => {
                    let behind = |key: &[u8]| Step::Prefix([key, &[KEY_SEPARATOR]].concat());
                    match rule_of(&self.cache, proxy, &target).await {
                        Some(kept) => {
                            let by_rule = key_by(proxy, &target, &kept.rule);
                            // What is longer was never stored.
                            let is_other = by_rule != key && by_rule.len() < KEY_LEN_MAX;
                            steps.extend(Some(behind(&by_rule)).filter(|_| is_other));
                        }
                        // During recovery there may be one: what was stored by it is found no more.
                        None if proxy.no_vary_search => {
                            steps.push(Step::Rule(rule_key(proxy, &target)));
                        }
                        None => {}
                    }
                    // What is behind the separator are variants, and what proxies said besides.
                    steps.push(behind(&key));
                    steps.push(Step::Key(key));
                }
                _ => steps.push(Step::Prefix(key)),
            }
        }
        Ok(())
    }

    async fn take_step(&self, step: Step, how: Purge) -> Result<(), StoreError> {
        match step {
            Step::Key(key) => self.cache.purge_key(&key, how).await.map(drop),
            Step::Rule(key) => self.cache.purge_key(&key, Purge::Hard).await.map(drop),
            Step::Prefix(prefix) => self.cache.purge_prefix(&prefix, how).await,
            Step::Tag(tag) => self.cache.purge_tag(&tag, how).await,
        }
    }

    fn purged(&self, purged: Result<(), StoreError>) -> Result<(), Refusal> {
        purged.map_err(|error| self.store_failed(&error))
    }
}

/// One purge.
enum Step {
    Key(Vec<u8>),
    /// The rule of a path, which is never stale.
    Rule(Vec<u8>),
    Prefix(Vec<u8>),
    Tag(Vec<u8>),
}

/// The target `scheme://rest`. Without a path it is the root, which all of an origin begins with.
fn target_of(scheme: &str, rest: &str) -> Option<Target> {
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Target::new(scheme, authority, &path)
}
