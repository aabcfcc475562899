//! The commands of the classic text protocol, as values. Does not parse or execute them.

pub use super::key::{KEY_LEN_MAX, Key, Keys};
use super::meta::{Flags, MetaDelete, MetaGet, MetaReply};

/// One command. `noreply` means that the client does not read an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `get`, `gets`, `gat`, `gats`.
    Get(Retrieval<'a>),
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`, `ms`; the value follows the line.
    Store(Store<'a>),
    /// `delete`.
    Delete {
        /// What to delete.
        key: Key<'a>,
        /// No answer.
        noreply: bool,
    },
    /// `incr`, `decr`, `ma`.
    Arithmetic(Arithmetic<'a>),
    /// `mg`.
    MetaGet(MetaGet<'a>),
    /// `md`.
    MetaDelete(MetaDelete<'a>),
    /// `me`.
    MetaDebug {
        /// What to describe.
        key: Key<'a>,
        /// `b`: the key is written in base64.
        encoded: bool,
    },
    /// `mn`.
    MetaNoOp,
    /// `touch`.
    Touch {
        /// What to touch.
        key: Key<'a>,
        /// The new expiry, as the client wrote it.
        exptime: i64,
        /// No answer.
        noreply: bool,
    },
    /// `flush_all`.
    FlushAll {
        /// When, in the notation of `exptime`; zero and below mean now.
        delay: i64,
        /// No answer.
        noreply: bool,
    },
    /// `stats` with the words that follow it.
    Stats(&'a [u8]),
    /// `version`.
    Version,
    /// `verbosity`, `slabs automove`: accepted without effect: these are for the operator to set.
    Accepted {
        /// No answer.
        noreply: bool,
    },
    /// `quit`.
    Quit,
}

impl<'a> Command<'a> {
    /// The key, where it is written in base64.
    #[must_use]
    pub fn encoded_key(&self) -> Option<Key<'a>> {
        match *self {
            Command::Store(Store { key, reply, .. })
            | Command::Arithmetic(Arithmetic { key, reply, .. }) => {
                Some(key).filter(|_| reply.encoded())
            }
            Command::MetaGet(MetaGet { key, reply, .. })
            | Command::MetaDelete(MetaDelete { key, reply, .. }) => {
                Some(key).filter(|_| reply.encoded)
            }
            Command::MetaDebug { key, encoded } => Some(key).filter(|_| encoded),
            _ => None,
        }
    }

    /// Whether it is one of the meta commands.
    #[must_use]
    pub fn is_meta(&self) -> bool {
        match self {
            Command::Store(Store { reply, .. }) | Command::Arithmetic(Arithmetic { reply, .. }) => {
                matches!(reply, Reply::Meta(_))
            }
            Command::MetaGet(_)
            | Command::MetaDelete(_)
            | Command::MetaDebug { .. }
            | Command::MetaNoOp => true,
            _ => false,
        }
    }

    /// The same command with the key for which an encoded one stands.
    #[must_use]
    pub(super) fn with_decoded_key<'b>(self, key: Key<'b>) -> Command<'b>
    where
        'a: 'b,
    {
        match self {
            Command::Store(store) => Command::Store(Store { key, ..store }),
            Command::Arithmetic(change) => Command::Arithmetic(Arithmetic { key, ..change }),
            Command::MetaGet(get) => Command::MetaGet(MetaGet { key, ..get }),
            Command::MetaDelete(delete) => Command::MetaDelete(MetaDelete { key, ..delete }),
            Command::MetaDebug { encoded, .. } => Command::MetaDebug { key, encoded },
            other => other,
        }
    }
}

/// What a retrieval asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retrieval<'a> {
    /// The keys in the order of the answers.
    pub keys: Keys<'a>,
    /// Answer with CAS values.
    pub with_cas: bool,
    /// The new expiry of what is found, as the client wrote it.
    pub touch: Option<i64>,
}

/// The line of a storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store<'a> {
    /// Which storage command.
    pub verb: Verb,
    /// Where to store.
    pub key: Key<'a>,
    /// Opaque to the server.
    pub flags: u32,
    /// Expiry as the client wrote it.
    pub exptime: i64,
    /// Length of the value that follows, without its line end.
    pub body_len: u64,
    /// What it depends on, and what else is kept.
    pub terms: Terms,
    /// How it is answered.
    pub reply: Reply<'a>,
}

impl Store<'_> {
    /// Whether the old value goes if the new one is refused for its length.
    #[must_use]
    pub(super) fn drops_old(&self) -> bool {
        let is_set = self.verb == Verb::Set && self.terms.compare.is_none();
        is_set || matches!(self.reply, Reply::Meta(_))
    }
}

/// What a change depends on besides its name, and what it gives an entry besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Only if the entry has this CAS value.
    pub compare: Option<u64>,
    /// `I`: with a lower one it is stored all the same, as stale.
    pub stale_if_lower: bool,
    /// `E`: the CAS value that it gives.
    pub new_cas: Option<u64>,
    /// `N`, of a value that is put after or before another: if there is none, it is stored with this expiry.
    pub vivify: Option<i64>,
}

/// How a command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// In words, or with `noreply` not at all.
    Words {
        /// No answer.
        noreply: bool,
    },
    /// As a meta command.
    Meta(MetaReply<'a>),
}

impl<'a> Reply<'a> {
    /// The flags of a meta command, as the client wrote them.
    pub(super) fn flags(&self) -> &'a [u8] {
        match self {
            Reply::Words { .. } => b"",
            Reply::Meta(reply) => reply.flags.text(),
        }
    }

    /// The same with a copy of the flags.
    pub(super) fn with_flags(self, flags: &[u8]) -> Reply<'_> {
        match self {
            Reply::Words { noreply } => Reply::Words { noreply },
            Reply::Meta(reply) => Reply::Meta(MetaReply { flags: Flags::checked(flags), ..reply }),
        }
    }

    /// True if not even an error is answered.
    #[must_use]
    pub fn noreply(&self) -> bool {
        matches!(self, Reply::Words { noreply: true })
    }

    /// True if the key is written in base64.
    #[must_use]
    pub fn encoded(&self) -> bool {
        matches!(self, Reply::Meta(MetaReply { encoded: true, .. }))
    }
}

/// A change of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic<'a> {
    /// The number's key.
    pub key: Key<'a>,
    /// Up or down.
    pub direction: Direction,
    /// By how much.
    pub delta: u64,
    /// `N` and `J`: if there is none, this expiry and number are stored.
    pub vivify: Option<(i64, u64)>,
    /// `T`: the new expiry, as the client wrote it.
    pub touch: Option<i64>,
    /// What it depends on, and what else is kept.
    pub terms: Terms,
    /// How it is answered.
    pub reply: Reply<'a>,
}

/// Which storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Store in any case.
    Set,
    /// Store if the key is not there.
    Add,
    /// Store if the key is there.
    Replace,
    /// Put the value after the present one.
    Append,
    /// Put the value before the present one.
    Prepend,
}

impl Verb {
    /// True for the two that need the old value to make the new one.
    #[must_use]
    pub fn extends(self) -> bool {
        matches!(self, Verb::Append | Verb::Prepend)
    }
}

/// Which way a number is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Up, wrapping at 64 bits.
    Up,
    /// Down, stopping at zero.
    Down,
}
