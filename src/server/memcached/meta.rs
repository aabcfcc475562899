//! The meta commands that have no like in the classic protocol, and how any meta command is answered, as values.
//! Does not parse or execute them.

use std::fmt;

use super::key::{Key, tokens};

/// The flags of a meta command, each a letter that is known, with what the client wrote behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags<'a>(&'a [u8]);

impl<'a> Flags<'a> {
    /// The flags in `text`, whose letters were checked.
    pub(super) fn checked(text: &'a [u8]) -> Flags<'a> {
        Flags(text)
    }

    /// As the client wrote them.
    pub(super) fn text(self) -> &'a [u8] {
        self.0
    }

    /// Letter and whole word of each flag, in the client's order.
    pub fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        tokens(self.0).filter_map(|word| Some((*word.first()?, word)))
    }
}

impl fmt::Debug for Flags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({})", self.0.escape_ascii())
    }
}

/// How a meta command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaReply<'a> {
    /// Those that ask for something come back, in this order.
    pub flags: Flags<'a>,
    /// `q`: the usual outcome is not answered.
    pub quiet: bool,
    /// `b`: the key is written in base64.
    pub encoded: bool,
}

/// `mg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaGet<'a> {
    /// What to look up.
    pub key: Key<'a>,
    /// How it is answered.
    pub reply: MetaReply<'a>,
    /// `v`: the value is asked for.
    pub value: bool,
    /// `u`: the entry does not count as read.
    pub unnoticed: bool,
    /// `C`: the value is left out if the entry has this CAS value.
    pub known: Option<u64>,
    /// `T`: the new expiry of what is found, as the client wrote it.
    pub touch: Option<i64>,
    /// `N`: if nothing is found, an empty entry is made that ends then.
    pub vivify: Option<i64>,
    /// `E`: the CAS value of that.
    pub new_cas: Option<u64>,
    /// `R`: if less of its life is left, one client is told to refresh the entry.
    pub recache: Option<i64>,
}

impl MetaGet<'_> {
    /// When an entry ends that is made because nothing is found, as the client wrote it: `T` behind `N` touches it
    /// at once.
    pub(super) fn first_exptime(&self) -> Option<i64> {
        let letters = self.reply.flags.iter().map(|(letter, _)| letter);
        let last = letters.filter(|letter| matches!(letter, b'N' | b'T')).last();
        let touch = self.touch.filter(|_| last == Some(b'T'));
        self.vivify.map(|exptime| touch.unwrap_or(exptime))
    }
}

/// `md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaDelete<'a> {
    /// What to delete.
    pub key: Key<'a>,
    /// How it is answered.
    pub reply: MetaReply<'a>,
    /// `C`: only if the entry has this CAS value.
    pub compare: Option<u64>,
    /// `I`: mark it as stale in place of deleting it.
    pub stale: bool,
    /// `x`: keep it without its value and flags.
    pub emptied: bool,
    /// `T`: the new expiry of what is kept, as the client wrote it.
    pub touch: Option<i64>,
    /// `E`: the new CAS value of what is kept.
    pub new_cas: Option<u64>,
}
