//! Memory of the kernel for bytes that clients have not read yet: one budget for all connections. Owns
//! how long each connection's send buffer is and the sums; the sockets are others'.
//!
//! What was written to a Unix socket lies in memory of this process's group until the client reads it
//! or closes, even if this end is closed before. So it has to be bounded before it is written, and the
//! length of the send buffer (`SO_SNDBUF`) is what bounds it. Every connection has a short one. What is
//! left is in two pools, of which those take that get a longer one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The shortest send buffer that the kernel gives, in bytes. All lengths here are the kernel's, which
/// are twice what it is asked for.
const LEN_MIN: u64 = 4608;
/// The longest that a connection begins with: longer ones gain little for short answers.
const FIRST_LEN_MAX: u64 = 64 << 10;
/// The longest. A piece of a body, at most 1 MiB, then leaves in one or two system calls, and its reader
/// is woken less often.
const LEN_MAX: u64 = 1 << 20;

/// How much longer a buffer gets at a time for one who reads: step by step, since it takes bytes anew only
/// when three quarters of it are free, and who reads slowly would seem to stand still.
const READERS_GROWTH: u64 = 4;
/// And for one who sends. A full buffer counts as free again for the kernel when it is
/// at least four times as long as what is in it, which may be half more than it was long: a factor of 6
/// at least wakes who waits for room.
const SENDERS_GROWTH: u64 = 8;
/// One connection's growth takes at most this part of what is left of a pool, so that there is always
/// something left for the next one.
const POOL_PARTS: u64 = 4;
/// This part is for clients that send and do not read yet.
const SENDERS_PARTS: u64 = 4;

/// What the kernel allocates at a time, with its bookkeeping: it begins to write while a byte of the
/// buffer is free. The longest message that it makes of a write is half of the buffer, or this much.
const MESSAGE_LEN_MAX: u64 = 84 << 10;
const BOOKKEEPING: u64 = 4 << 10;

/// The longest message that the kernel makes of a write to a buffer of `len` bytes. It frees a message
/// when all of it was read, so that is what can be seen of a client's reading.
pub(super) const fn message_len(len: u64) -> u64 {
    if len / 2 < MESSAGE_LEN_MAX { len / 2 } else { MESSAGE_LEN_MAX }
}

/// Why a send buffer is to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its reader made room in it soon after it was full.
    Reads,
    /// Its client sends on and does not read yet, as clients do that send many commands at once: it
    /// would wait for ever for who waits for it. Anybody can do that, so these have a pool of their own.
    Sends,
}

/// The memory for long buffers of one reason.
#[derive(Debug)]
struct Pool {
    bytes: u64,
    taken: AtomicU64,
    /// Growth was refused since the last look.
    is_short: AtomicBool,
}

impl Pool {
    fn new(bytes: u64) -> Pool {
        Pool { bytes, taken: AtomicU64::new(0), is_short: AtomicBool::new(false) }
    }
}

/// What one connection has taken of the pools, by [`Reason`].
#[derive(Debug, Default)]
pub(super) struct Shares([u64; 2]);

impl Shares {
    /// Of which pools it has something.
    pub(super) fn held(&self) -> [bool; 2] {
        self.0.map(|share| share > 0)
    }
}

/// The memory that send buffers may take, and what is taken of it.
#[derive(Debug)]
pub struct SendBudget {
    bytes_max: u64,
    first_len: u64,
    pools: [Pool; 2],
    unsent: AtomicU64,
    unsent_max: u64,
}

/// The most memory, in bytes, that a socket with a send buffer of `len` can hold.
const fn memory_of(len: u64) -> u64 {
    len + message_len(len) + BOOKKEEPING
}

impl SendBudget {
    /// A budget of `bytes_max` for `connections_max` connections, which is at most
    /// [`SendBudget::connections_max`], and of `unsent_max` for what waits to be written to them.
    #[must_use]
    pub fn new(bytes_max: u64, unsent_max: u64, connections_max: usize) -> SendBudget {
        let count = u64::try_from(connections_max).unwrap_or(u64::MAX).max(1);
        let share = (bytes_max / 2 / count).saturating_sub(BOOKKEEPING);
        let first_len = (share / 3 * 2).clamp(LEN_MIN, FIRST_LEN_MAX);
        let pool = bytes_max.saturating_sub(memory_of(first_len).saturating_mul(count));
        SendBudget {
            bytes_max,
            first_len,
            pools: [Pool::new(pool - pool / SENDERS_PARTS), Pool::new(pool / SENDERS_PARTS)],
            unsent: AtomicU64::new(0),
            unsent_max,
        }
    }

    /// How many of `wanted` connections a budget of `bytes_max` has room for: the shortest buffers take
    /// three quarters of it at most. At least one.
    #[must_use]
    pub fn connections_max(bytes_max: u64, wanted: usize) -> usize {
        let count = bytes_max / 4 * 3 / memory_of(LEN_MIN);
        usize::try_from(count).unwrap_or(usize::MAX).clamp(1, wanted.max(1))
    }

    /// Length of a new connection's send buffer.
    pub(super) fn first_len(&self) -> u64 {
        self.first_len
    }

    /// Whether a send buffer of `len` may grow for a client that does not read.
    pub(super) fn grows_for_senders(&self, len: u64) -> bool {
        len * SENDERS_GROWTH <= LEN_MAX
    }

    /// The length to which a send buffer of `len` may grow; takes what it needs.
    pub(super) fn grow(&self, len: u64, reason: Reason, shares: &mut Shares) -> Option<u64> {
        if len >= LEN_MAX || (reason == Reason::Sends && !self.grows_for_senders(len)) {
            return None;
        }
        let pool = &self.pools[reason as usize];
        let needed = |grown_len| memory_of(grown_len) - memory_of(len);
        let mut grown_len = len;
        let taken = pool.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            let most = pool.bytes.saturating_sub(taken) / POOL_PARTS;
            grown_len = match reason {
                Reason::Sends => len * SENDERS_GROWTH,
                Reason::Reads => (len * READERS_GROWTH).min(LEN_MAX),
            };
            // Less would not wake one who sends.
            while reason == Reason::Reads && grown_len > len && needed(grown_len) > most {
                grown_len /= 2;
            }
            (grown_len > len && needed(grown_len) <= most).then(|| taken + needed(grown_len))
        });
        if taken.is_err() {
            pool.is_short.store(true, Ordering::Relaxed);
            return None;
        }
        shares.0[reason as usize] += needed(grown_len);
        Some(grown_len)
    }

    /// How much of the pools a socket needs that holds `unread` bytes and is as long as a new one, or is
    /// not written to any more.
    pub(super) fn share_of_unread(&self, unread: u64) -> u64 {
        unread.saturating_sub(memory_of(self.first_len))
    }

    /// Gives back all but `kept` bytes.
    pub(super) fn give_back(&self, shares: &mut Shares, kept: u64) {
        let mut more = shares.0.iter().sum::<u64>().saturating_sub(kept);
        for (pool, share) in self.pools.iter().zip(&mut shares.0) {
            let given = more.min(*share);
            pool.taken.fetch_sub(given, Ordering::Relaxed);
            *share -= given;
            more -= given;
        }
    }

    /// Of which pools growth was refused since the last call, by [`Reason`].
    pub(super) fn were_short(&self) -> [bool; 2] {
        [0, 1].map(|n: usize| self.pools[n].is_short.swap(false, Ordering::Relaxed))
    }

    /// Bytes wait in memory of the daemon until a socket takes them.
    pub(super) fn hold_unsent(&self, len: u64) {
        self.unsent.fetch_add(len, Ordering::Relaxed);
    }

    /// Bytes wait no longer.
    pub(super) fn release_unsent(&self, len: u64) {
        self.unsent.fetch_sub(len, Ordering::Relaxed);
    }

    /// Bytes of answers that wait until their clients make room for them.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// From how many bytes on clients that stand still are cut.
    pub(super) fn unsent_max(&self) -> u64 {
        self.unsent_max
    }

    /// Memory set aside for the buffers of `connections` connections, in bytes.
    pub(super) fn taken(&self, connections: u64) -> u64 {
        let first = memory_of(self.first_len).saturating_mul(connections);
        let grown = self.pools.iter().map(|pool| pool.taken.load(Ordering::Relaxed)).sum();
        first.saturating_add(grown)
    }

    /// Memory for all buffers, in bytes.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn all_connections_and_the_pool_fit_the_budget() {
        for bytes_max in [MIB, 8 * MIB, 32 * MIB, 128 * MIB, 4096 * MIB] {
            for wanted in [1, 64, 4096, 100_000] {
                let count = SendBudget::connections_max(bytes_max, wanted);
                assert!((1..=wanted).contains(&count));
                let budget = SendBudget::new(bytes_max, 0, count);
                let pool: u64 = budget.pools.iter().map(|pool| pool.bytes).sum();
                assert!(budget.taken(count as u64) + pool <= bytes_max);
                assert!(pool >= bytes_max / 4, "{bytes_max} B, {wanted} connections");
                assert!((LEN_MIN..=FIRST_LEN_MAX).contains(&budget.first_len));
            }
        }
        assert_eq!(SendBudget::connections_max(64 * MIB, 4096), 4096);
        assert!(SendBudget::connections_max(16 * MIB, 4096) < 4096);
    }

    #[test]
    fn growth_never_takes_a_whole_pool_and_comes_back() {
        let budget = SendBudget::new(32 * MIB, 0, 1000);
        let mut grown = Vec::new();
        for _ in 0..1000 {
            let (mut len, mut shares) = (budget.first_len(), Shares::default());
            while let Some(longer) = budget.grow(len, Reason::Reads, &mut shares) {
                assert!(longer > len && longer <= LEN_MAX);
                len = longer;
            }
            assert_eq!(shares.0, [memory_of(len) - memory_of(budget.first_len()), 0]);
            grown.push((len, shares));
        }
        assert_eq!(grown[0].0, LEN_MAX);
        assert!(grown[0].0 > grown[999].0);
        let pool = &budget.pools[Reason::Reads as usize];
        assert!(pool.taken.load(Ordering::Relaxed) < pool.bytes);
        assert_eq!(budget.were_short(), [true, false]);
        assert_eq!(budget.were_short(), [false, false]);
        for (_, shares) in &mut grown {
            budget.give_back(shares, 1000);
            assert!(shares.0[0] <= 1000);
            budget.give_back(shares, 0);
        }
        assert_eq!(pool.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn clients_that_only_send_take_nothing_from_those_that_read() {
        let budget = SendBudget::new(32 * MIB, 0, 1000);
        let mut shares = Shares::default();
        let (first, mut count) = (budget.first_len(), 0);
        while let Some(len) = budget.grow(first, Reason::Sends, &mut shares) {
            assert_eq!(len, first * SENDERS_GROWTH, "it wakes who waits for room");
            count += 1;
        }
        assert!(count > 10);
        assert_eq!((budget.were_short(), shares.held()), ([false, true], [false, true]));
        assert_eq!(budget.pools[Reason::Reads as usize].taken.load(Ordering::Relaxed), 0);
        assert!(budget.grow(first, Reason::Reads, &mut shares).is_some());
        assert!(budget.grow(LEN_MAX, Reason::Reads, &mut shares).is_none());
        assert_eq!(budget.were_short(), [false, false], "it has all that it can get");
    }
}
