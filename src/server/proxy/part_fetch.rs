//! Requests for ranges of an object, and what they bring on its way into the store.

use std::ops::Range;
use std::sync::Arc;

use ::http::{Method, StatusCode};

use super::failures::Failure;
use super::fetch::{Fetched, To, failure_of};
use super::key::goes_by_rules;
use super::parts::{Ending, Parted, Reading, Running, block_of};
use super::service::Service;
use super::upstream::Connection;
use crate::cache::StoreError;
use crate::http_cache::head::{RequestHead, StoredHead};
use crate::http_cache::no_vary_search::Rule;
use crate::http_cache::storing::{Storing, store, strong_validator, validator_of};
use crate::http_cache::validation::part_headers;

/// What is left of a range when nobody wants it any more is still fetched if it has no more bytes than this.
const FINISHED_LEN_MAX: u64 = 1 << 20;

/// On whose behalf parts of an object are asked for.
#[derive(Debug)]
pub(super) struct Asker {
    /// The key of the object.
    pub(super) key: Vec<u8>,
    pub(super) request: RequestHead,
    pub(super) to: To,
    /// The head of the version.
    pub(super) head: StoredHead,
    pub(super) parted: Arc<Parted>,
    pub(super) _reading: Reading,
}

/// A request that is told to have ended when this is dropped.
struct Ends {
    parted: Arc<Parted>,
    running: Arc<Running>,
    ending: Option<Ending>,
}

impl Ends {
    fn with(mut self, ending: Ending) {
        self.ending = Some(ending);
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let ending = self.ending.take().unwrap_or(Ending::NotStored { is_over: false });
        self.parted.end(&self.running, ending);
    }
}

impl Service {
    /// Sends a request for a range, and stores what comes.
    pub(super) fn ask(self: &Arc<Service>, asker: &Arc<Asker>, running: Arc<Running>) {
        let (service, asker) = (self.clone(), asker.clone());
        let ends = Ends { parted: asker.parted.clone(), running, ending: None };
        self.spawn(async move {
            let range = ends.running.start()..ends.running.end();
            let fetched = service.fetch_part(&asker, &range).await;
            // This task does not want it for itself.
            drop(asker);
            match fetched {
                Ok((fetched, end)) => {
                    ends.running.end_at(end);
                    service.transfer(fetched.connection, ends).await;
                }
                Err(ending) => ends.with(ending),
            }
        });
    }

    /// Stores the body that comes on `connection`: the bytes of `running`.
    pub(super) async fn store_parts(
        &self,
        connection: Connection,
        parted: Arc<Parted>,
        running: Arc<Running>,
    ) {
        self.transfer(connection, Ends { parted, running, ending: None }).await;
    }

    /// Asks for a range of the version that `asker` knows; gives also where what comes ends.
    pub(super) async fn fetch_part(
        &self,
        asker: &Asker,
        range: &Range<u64>,
    ) -> Result<(Fetched, u64), Ending> {
        let settings = &self.options.settings;
        let Asker { request, head, to, parted, .. } = asker;
        let headers = part_headers(request, head, range, settings).ok_or(Ending::Changed)?;
        let fetched = self.fetch(&Method::GET, to, headers).await;
        let fetched = fetched.map_err(|error| Ending::Failed(failure_of(&error)))?;
        let status = fetched.head.status;
        if status.is_server_error() {
            let detail = format!("the upstream answered {}", status.as_u16());
            let failure = Failure { is_answer: true, ..Failure::without_answer(status, detail) };
            return Err(Ending::Failed(failure));
        }
        let storing = store(request, &fetched.head, &fetched.exchange, settings);
        let given = validator_of(&fetched.head.headers);
        // By a rule there may be another target behind it, whose parts may look the same.
        let rule = Some(Rule::of(&head.headers)).filter(|rule| !rule.is_default());
        let rule = rule.filter(|_| goes_by_rules(&self.options, request.target(), request));
        let is_of_rule = rule.is_none_or(|rule| Rule::of(&fetched.head.headers) == rule);
        let is_same = given == strong_validator(head) && is_of_rule;
        match (status, storing) {
            (StatusCode::PARTIAL_CONTENT, Storing::Part { part, .. })
                if is_same
                    && part.len == parted.len()
                    && part.range.start == range.start
                    && part.range.end <= range.end =>
            {
                let len = part.range.end - part.range.start;
                match fetched.connection.body_len().is_none_or(|announced| announced == len) {
                    true => Ok((fetched, part.range.end)),
                    false => {
                        let detail = "the upstream sent another length than Content-Range says";
                        let status = StatusCode::BAD_GATEWAY;
                        Err(Ending::Failed(Failure::without_answer(status, detail.to_owned())))
                    }
                }
            }
            (StatusCode::PARTIAL_CONTENT, Storing::Part { .. }) if given.is_some() => {
                Err(Ending::Changed)
            }
            (StatusCode::OK, Storing::Whole(_)) if !is_same => Err(Ending::Changed),
            (StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                Err(Ending::Changed)
            }
            // What one client is told is no word on the object.
            _ => Err(Ending::Refused),
        }
    }

    async fn transfer(&self, mut connection: Connection, ends: Ends) {
        let (parted, running) = (ends.parted.clone(), ends.running.clone());
        let mut at = running.start();
        let mut writer = parted.parts().writer(at);
        running.stored(at);
        let ending = loop {
            let end = running.end();
            if at >= end {
                break Ending::Stored;
            }
            let piece = tokio::select! {
                biased;
                piece = connection.next_chunk() => piece,
                error = writer.lost() => break not_stored(&error),
            };
            let mut piece = match piece {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    let detail = "the body is shorter than announced".to_owned();
                    break Ending::Failed(Failure::without_answer(StatusCode::BAD_GATEWAY, detail));
                }
                Err(error) => break Ending::Failed(failure_of(&error)),
            };
            self.http.shard.proxy.read_of_upstream(piece.len());
            piece.truncate(usize::try_from(end - at).unwrap_or(usize::MAX));
            if let Err(error) = writer.write_chunk(&piece).await {
                break not_stored(&error);
            }
            let before = at;
            at += piece.len() as u64;
            running.stored(writer.position());
            if !parted.is_read() && end.saturating_sub(at) > FINISHED_LEN_MAX {
                tracing::debug!("a request for a part ends: nobody waits for it");
                break Ending::Stored;
            }
            if running.is_of_whole && before / parted.block() != at / parted.block() && at < end {
                // Others may have brought what follows.
                let block_end = block_of(at, parted.block(), end).end;
                match parted.parts().missing(at..block_end).await.first() {
                    Some(gap) if gap.start == at && gap.end == block_end => {}
                    Some(gap) if gap.start == at => running.end_at(gap.end),
                    _ => running.end_at(at),
                }
            }
        };
        drop(connection);
        let finished = writer.finish().await;
        ends.with(match (finished, ending) {
            (Err(error), Ending::Stored) => not_stored(&error),
            (_, ending) => ending,
        });
    }
}

/// Whether more can be stored of an object after an error is another matter than whether this was.
fn not_stored(error: &StoreError) -> Ending {
    tracing::debug!(%error, "a part of a response is not stored");
    let is_over = !matches!(error, StoreError::Busy(_) | StoreError::Fragmented);
    Ending::NotStored { is_over }
}
