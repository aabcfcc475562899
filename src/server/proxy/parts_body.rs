//! Reading parts of an object: what is there from the store, the rest as requests bring it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::part_fetch::Asker;
use super::parts::{Ending, Next, block_of};
use super::service::Service;
use super::upstream::Connection;
use crate::cache::BodyReader;
use crate::server::http::body::Step;

/// Requests without a byte for this client before it is given up.
const ATTEMPTS_MAX: u32 = 3;

/// Parts of an object, in ascending order, and the text between them.
pub(super) struct PartsBody {
    service: Arc<Service>,
    asker: Arc<Asker>,
    steps: VecDeque<Step>,
    /// Gives what follows in the first step.
    source: Source,
    /// Attempts since the last byte.
    attempts: u32,
    /// Where the block begins that was asked for last before its bytes were wanted.
    ahead: Option<u64>,
}

enum Source {
    /// To be found.
    None,
    Stored(BodyReader),
    /// Of a request for this client alone.
    Upstream(Box<Connection>),
}

impl PartsBody {
    /// The parts of `steps`.
    pub(super) fn new(
        service: Arc<Service>,
        asker: Arc<Asker>,
        steps: VecDeque<Step>,
    ) -> PartsBody {
        PartsBody { service, asker, steps, source: Source::None, attempts: 0, ahead: None }
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.steps.iter().map(Step::len).sum()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Why the body ends before its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let range = match self.steps.front() {
                None => return Ok(None),
                Some(Step::Object(range)) if !range.is_empty() => range.clone(),
                Some(Step::Object(_)) => {
                    self.source = Source::None;
                    self.steps.pop_front();
                    continue;
                }
                Some(Step::Text(text)) => {
                    let text = text.clone();
                    self.steps.pop_front();
                    return Ok(Some(text));
                }
            };
            let Some(mut piece) = self.piece(&range).await? else { continue };
            piece.truncate(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
            let at = range.start + piece.len() as u64;
            self.attempts = 0;
            if let Some(Step::Object(left)) = self.steps.front_mut() {
                left.start = at;
            }
            return Ok(Some(piece));
        }
    }

    /// The first bytes of `range`; `None` if the source has to be found anew.
    async fn piece(&mut self, range: &Range<u64>) -> Result<Option<Bytes>, String> {
        match &mut self.source {
            Source::Stored(reader) => {
                let piece = reader.next_chunk().await;
                if !matches!(piece, Ok(Some(_))) {
                    self.source = Source::None;
                }
                self.attempts += u32::from(piece.is_err());
                Ok(piece.unwrap_or_default())
            }
            Source::Upstream(connection) => match connection.next_chunk().await {
                Ok(Some(piece)) => {
                    self.service.http.shard.proxy.read_of_upstream(piece.len());
                    Ok(Some(piece))
                }
                // The upstream gave less than it was asked for.
                Ok(None) => {
                    self.source = Source::None;
                    self.attempts += 1;
                    Ok(None)
                }
                Err(error) => Err(error.to_string()),
            },
            Source::None => {
                self.find(range).await?;
                Ok(None)
            }
        }
    }

    /// Finds what gives the first bytes of `range`, or waits for them.
    async fn find(&mut self, range: &Range<u64>) -> Result<(), String> {
        let parted = &self.asker.parted;
        if self.attempts > 2 * ATTEMPTS_MAX {
            return Err("the rest of the object does not come".to_owned());
        }
        if self.attempts > ATTEMPTS_MAX {
            // It is gone again whenever it is to be read.
            return self.ask_alone(range).await;
        }
        if parted.is_over() {
            return match parted.first(range.clone()).await {
                (true, here) => self.read(here).await,
                (false, gap) => self.ask_alone(&gap).await,
            };
        }
        if self.ahead.is_some_and(|ahead| ahead <= range.start) {
            self.ahead = None;
            self.service.http.shard.proxy.asked_ahead(true);
        }
        self.ask_ahead(range).await;
        let parted = &self.asker.parted;
        let (running, is_own) = match parted.next(range.clone()).await {
            Next::Read(here) => return self.read(here).await,
            Next::Wait(running) => (running, false),
            Next::Ask(running) => {
                self.service.ask(&self.asker, running.clone());
                (running, true)
            }
        };
        let ending = running.reaches(range.start).await;
        self.attempts += 1;
        match ending {
            // A look says what is there.
            None | Some(Ending::Stored | Ending::NotStored { .. }) => Ok(()),
            // What came is there; one of those who wait asks for the rest.
            Some(Ending::Failed(failure)) => match self.attempts <= ATTEMPTS_MAX {
                true if !failure.is_answer => Ok(()),
                _ => Err(failure.detail),
            },
            Some(Ending::Refused) if !is_own => Ok(()),
            Some(Ending::Refused) => Err("the upstream refused the rest to this client".to_owned()),
            Some(Ending::Changed) => Err(self.changed().await),
        }
    }

    /// Begins to read bytes that are there.
    async fn read(&mut self, here: Range<u64>) -> Result<(), String> {
        match self.asker.parted.parts().range(here).await {
            Ok(reader) => self.source = Source::Stored(reader),
            Err(_) => self.attempts += 1,
        }
        Ok(())
    }

    /// Asks for the next block when the middle of one is reached.
    async fn ask_ahead(&mut self, range: &Range<u64>) {
        let parted = &self.asker.parted;
        let block = block_of(range.start, parted.block(), parted.len());
        let is_late = range.start - block.start >= parted.block() / 2;
        if !is_late || block.end >= range.end || self.ahead.is_some() {
            return;
        }
        if let Next::Ask(running) = parted.next(block.end..range.end).await {
            self.ahead = Some(block.end);
            self.service.ask(&self.asker, running);
        }
    }

    /// Asks for `range` for this client alone.
    async fn ask_alone(&mut self, range: &Range<u64>) -> Result<(), String> {
        let fetched = self.service.fetch_part(&self.asker, range).await;
        match fetched {
            Ok(fetched) => {
                self.source = Source::Upstream(Box::new(fetched.0.connection));
                Ok(())
            }
            Err(Ending::Failed(failure)) => Err(failure.detail),
            Err(Ending::Changed) => Err(self.changed().await),
            Err(_) => Err("the rest of the object cannot be had".to_owned()),
        }
    }

    /// The origin has another version: the next client is to get that.
    async fn changed(&mut self) -> String {
        self.service.drop_version(&self.asker.key, self.asker.parted.cas()).await;
        "the origin has another version".to_owned()
    }
}

impl Drop for PartsBody {
    fn drop(&mut self) {
        if self.ahead.is_some() {
            self.service.http.shard.proxy.asked_ahead(false);
        }
    }
}
