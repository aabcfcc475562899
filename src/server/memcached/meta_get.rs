//! Executes `mg` and `me`. Owns who is told to refresh an entry.

use super::answers::{Told, push_flags, push_key};
use super::closed::Closed;
use super::command::Key;
use super::meta::MetaGet;
use super::number::push_decimal;
use super::peer::{Peer, Socket};
use super::retrieval::{find_and_touch, send};
use super::service::Service;
use super::storage::{ATTEMPTS_MAX, CONTENDED};
use crate::cache::{Ack, Hit, Lifetime, StoreError, StoreOptions, Stored};
use crate::clock::Stopwatch;
use crate::server::metadata::Item;

/// What `mg` found.
enum Found {
    Hit(Hit),
    /// Nothing, so it made an empty entry with this CAS value.
    Made(u64),
    Nothing,
}

/// What is told of an entry.
struct Shown {
    item: Item,
    len: u64,
    cas: u64,
    /// Without an end: `None`.
    ttl_secs: Option<u64>,
    /// What it is behind `T` or `N`.
    new_ttl_secs: Option<u64>,
    was_read: bool,
    unread_secs: u64,
    has_won: bool,
    is_won: bool,
    /// It was made for this client.
    is_made: bool,
}

/// Executes `mg`.
pub(super) async fn meta_get<S: Socket>(
    peer: &mut Peer<S>,
    get: MetaGet<'_>,
) -> Result<(), Closed> {
    let watch = Stopwatch::start();
    if get.touch.is_none() {
        peer.service.shard.cmd_get.bump();
    }
    let found = match peer.service.find(&get).await {
        Ok(found) => found,
        Err(error) => {
            peer.push_line(error);
            return Ok(());
        }
    };
    let (found_after, touches) = (watch.elapsed(), get.touch.is_some());
    let (sent, tier) = match found {
        Found::Nothing => (false, None),
        Found::Made(cas) => {
            let shown = peer.service.shown_new(&get, cas);
            let output = peer.output();
            shown.push(output, &get, get.value);
            if get.value {
                output.extend_from_slice(b"\r\n");
            }
            (true, None)
        }
        Found::Hit(hit) => {
            let shown = peer.service.shown(&get, &hit).await;
            if !get.unnoticed {
                peer.service.note_read(&hit);
            }
            let tier = Some(hit.tier());
            let with_value = get.value && get.known != Some(shown.cas);
            let sent = match with_value {
                true => {
                    let header = |output: &mut Vec<u8>, _: &Hit| shown.push(output, &get, true);
                    send(peer, hit, header).await?
                }
                false => {
                    shown.push(peer.output(), &get, false);
                    true
                }
            };
            (sent, tier)
        }
    };
    peer.service.count_lookup(tier.filter(|_| sent), touches, found_after);
    if !sent && !get.reply.quiet {
        let output = peer.output();
        output.extend_from_slice(b"EN");
        push_flags(output, &get.reply, (get.key, get.reply.encoded), |_| None);
        output.extend_from_slice(b"\r\n");
    }
    Ok(())
}

impl Service {
    async fn find(&self, get: &MetaGet<'_>) -> Result<Found, &'static str> {
        for _ in 0..ATTEMPTS_MAX {
            let hit = match get.touch {
                Some(exptime) => find_and_touch(self, get.key, exptime).await,
                None if get.value => self.cache.lookup(&get.key).await,
                None => self.cache.lookup_head(&get.key).await,
            };
            let Some(hit) = hit else {
                let Some(exptime) = get.first_exptime() else { return Ok(Found::Nothing) };
                match self.vivify(get, exptime).await? {
                    Some(cas) => return Ok(Found::Made(cas)),
                    None => continue,
                }
            };
            return Ok(Found::Hit(hit));
        }
        Err(CONTENDED)
    }

    /// Makes an empty entry that the client has won; `None` if there is one meanwhile.
    async fn vivify(&self, get: &MetaGet<'_>, exptime: i64) -> Result<Option<u64>, &'static str> {
        // Nobody else wins it between the store and the note that it is won.
        let turn = self.key_locks.lock(&get.key).await.ok_or(CONTENDED)?;
        let (cas, has_encoded_key) = (get.new_cas, get.reply.encoded);
        let item = Item { is_vacant: true, cas, has_encoded_key, ..Item::default() };
        let ack = Some(Ack::Buffered);
        let options = StoreOptions { ack, ..self.item_options(&item, exptime) };
        let condition = self.no_hit(get.key).await;
        let made = self.cache.put(&get.key, b"", condition, &options).await;
        let made = match made {
            Ok(Stored::Yes(version)) => {
                self.wins.win(version);
                if !get.unnoticed {
                    // As in memcached.
                    self.reads.note(version, self.cache.clock().now());
                }
                Ok(Some(cas.unwrap_or(version)))
            }
            Ok(Stored::Exists | Stored::Missing) | Err(StoreError::Purged) => Ok(None),
            Err(error) => Err(self.failure(&error)),
        };
        drop(turn);
        made
    }

    fn shown_new(&self, get: &MetaGet<'_>, cas: u64) -> Shown {
        Shown {
            item: Item { has_encoded_key: get.reply.encoded, ..Item::default() },
            len: 0,
            cas,
            ttl_secs: None,
            new_ttl_secs: self.ttl_secs(self.life(get.first_exptime().unwrap_or(0))),
            was_read: false,
            unread_secs: 0,
            has_won: true,
            is_won: false,
            is_made: true,
        }
    }

    async fn shown(&self, get: &MetaGet<'_>, hit: &Hit) -> Shown {
        let (item, version) = (Item::of(hit.metadata()), hit.cas());
        let read = self.reads.last(version);
        let now = self.cache.clock().now();
        let ttl_secs = self.ttl_secs(hit.lifetime());
        let new_ttl_secs = match get.touch {
            Some(exptime) => self.ttl_secs(self.life(exptime)),
            None => ttl_secs,
        };
        let (has_won, is_won) = self.take_win(get, hit, &item).await;
        Shown {
            item,
            len: hit.len(),
            cas: item.cas.unwrap_or(version),
            ttl_secs,
            new_ttl_secs,
            was_read: read.is_some(),
            unread_secs: now.since(read.unwrap_or(hit.lifetime().stored_at)).as_secs(),
            has_won,
            is_won,
            is_made: false,
        }
    }

    /// Whether this client is to refresh an entry, and whether another one was told so before.
    async fn take_win(&self, get: &MetaGet<'_>, hit: &Hit, item: &Item) -> (bool, bool) {
        let version = hit.cas();
        if self.wins.is_won(version) {
            return (false, true);
        }
        let recache = get.recache.is_some_and(|exptime| {
            let life = self.life_before_recache(get, hit);
            life.has_end() && exptime != 0 && life.keep_until < self.life(exptime).keep_until
        });
        if !item.is_stale && !item.is_vacant && !recache {
            return (false, false);
        }
        if item.is_vacant {
            // Who makes it notes at once that it is won.
            drop(self.key_locks.lock(&get.key).await);
        }
        let has_won = self.wins.win(version);
        (has_won, !has_won)
    }

    /// The life that `R` looks at: a new one if `T` comes before it.
    fn life_before_recache(&self, get: &MetaGet<'_>, hit: &Hit) -> Lifetime {
        let mut letters = get.reply.flags.iter().map(|(letter, _)| letter);
        let first = letters.find(|letter| matches!(letter, b'T' | b'R'));
        match get.touch {
            Some(exptime) if first == Some(b'T') => self.life(exptime),
            _ => hit.lifetime(),
        }
    }

    /// Seconds of a life that are left; `None` if it has no end.
    pub(super) fn ttl_secs(&self, life: Lifetime) -> Option<u64> {
        let left = life.keep_until.since(self.cache.clock().now());
        life.has_end().then_some(left.as_secs())
    }

    /// Executes `me`.
    pub(super) async fn describe(&self, output: &mut Vec<u8>, key: Key<'_>) {
        let Some(hit) = self.cache.lookup_head(&key).await else {
            return output.extend_from_slice(b"EN\r\n");
        };
        let (item, now) = (Item::of(hit.metadata()), self.cache.clock().now());
        let read = self.reads.last(hit.cas());
        let unread = now.since(read.unwrap_or(hit.lifetime().stored_at)).as_secs();
        output.extend_from_slice(b"ME ");
        push_key(output, key, item.has_encoded_key);
        output.extend_from_slice(b" exp=");
        match self.ttl_secs(hit.lifetime()) {
            Some(secs) => push_decimal(output, secs),
            None => output.extend_from_slice(b"-1"),
        }
        output.extend_from_slice(b" la=");
        push_decimal(output, unread);
        output.extend_from_slice(b" cas=");
        push_decimal(output, item.cas.unwrap_or(hit.cas()));
        output.extend_from_slice(if read.is_some() { b" fetch=yes" } else { b" fetch=no" });
        // There are no slab classes; the size is that of key, value and metadata.
        output.extend_from_slice(b" cls=1 size=");
        push_decimal(output, hit.len() + (key.len() + hit.metadata().len()) as u64);
        output.extend_from_slice(b"\r\n");
    }
}

impl Shown {
    /// Appends the line of the answer.
    fn push(&self, output: &mut Vec<u8>, get: &MetaGet<'_>, with_value: bool) {
        if with_value {
            output.extend_from_slice(b"VA ");
            push_decimal(output, self.len);
        } else {
            output.extend_from_slice(b"HD");
        }
        let mut ttl_secs = self.ttl_secs;
        let ttl = |secs: Option<u64>| Some(secs.map_or(Told::Endless, Told::Number));
        push_flags(
            output,
            &get.reply,
            (get.key, self.item.has_encoded_key),
            |letter| match letter {
                b'T' | b'N' => {
                    if letter == b'T' || self.is_made {
                        ttl_secs = self.new_ttl_secs;
                    }
                    None
                }
                b's' => Some(Told::Number(self.len)),
                b'c' => Some(Told::Number(self.cas)),
                b'f' => Some(Told::Number(u64::from(self.item.flags))),
                b't' => ttl(ttl_secs),
                b'h' => Some(Told::Number(u64::from(self.was_read))),
                b'l' => Some(Told::Number(self.unread_secs)),
                _ => None,
            },
        );
        // In memcached's order.
        for (is_so, mark) in
            [(self.is_won, b" Z"), (self.item.is_stale, b" X"), (self.has_won, b" W")]
        {
            if is_so {
                output.extend_from_slice(mark);
            }
        }
        output.extend_from_slice(b"\r\n");
    }
}
