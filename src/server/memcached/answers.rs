//! How answers are written: in words, or as meta commands are answered. Pure.

use super::base64;
use super::command::{Reply, Store};
use super::key::Key;
use super::meta::MetaReply;
use super::number::push_decimal;

/// How a store, or a change of a number, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is stored.
    Stored {
        /// The CAS value that clients see of it.
        cas: u64,
        /// Bytes of the whole value.
        len: u64,
    },
    /// What it depends on does not hold.
    NotStored,
    /// The entry has another CAS value.
    Exists,
    /// There is no entry with the CAS value.
    NotFound,
    /// This error is answered.
    Failed(&'static str),
}

/// What comes back for a flag of a meta command.
pub(super) enum Told {
    Number(u64),
    /// The life has no end.
    Endless,
}

/// Appends the answer to a storage command, if it gets one.
pub(super) fn push_stored(output: &mut Vec<u8>, store: &Store<'_>, outcome: Outcome) {
    let reply = match store.reply {
        Reply::Words { noreply: true } => return,
        Reply::Words { noreply: false } => {
            return push_line(output, words_of(outcome));
        }
        Reply::Meta(reply) => reply,
    };
    let (code, cas, len) = match outcome {
        Outcome::Stored { .. } if reply.quiet => return,
        Outcome::Stored { cas, len } => ("HD", cas, len),
        Outcome::NotStored => ("NS", 0, store.body_len),
        Outcome::Exists => ("EX", 0, store.body_len),
        Outcome::NotFound => ("NF", 0, store.body_len),
        Outcome::Failed(error) => return push_line(output, error),
    };
    output.extend_from_slice(code.as_bytes());
    push_flags(output, &reply, (store.key, reply.encoded), |letter| match letter {
        b'c' => Some(Told::Number(cas)),
        b's' => Some(Told::Number(len)),
        _ => None,
    });
    output.extend_from_slice(b"\r\n");
}

fn words_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stored { .. } => "STORED",
        Outcome::NotStored => "NOT_STORED",
        Outcome::Exists => "EXISTS",
        Outcome::NotFound => "NOT_FOUND",
        Outcome::Failed(error) => error,
    }
}

pub(super) fn push_line(output: &mut Vec<u8>, line: &str) {
    output.extend_from_slice(line.as_bytes());
    output.extend_from_slice(b"\r\n");
}

/// Appends what comes back for the flags of a meta command, in their order: the opaque as it came, the key (in
/// base64 if it is `encoded`), and what `tell` says of the others.
pub(super) fn push_flags(
    output: &mut Vec<u8>,
    reply: &MetaReply<'_>,
    (key, encoded): (Key<'_>, bool),
    mut tell: impl FnMut(u8) -> Option<Told>,
) {
    for (letter, word) in reply.flags.iter() {
        match letter {
            b'O' => {
                output.push(b' ');
                output.extend_from_slice(word);
            }
            b'k' => {
                output.extend_from_slice(b" k");
                push_key(output, key, encoded);
                if encoded {
                    output.extend_from_slice(b" b");
                }
            }
            letter => {
                let Some(told) = tell(letter) else { continue };
                output.extend_from_slice(&[b' ', letter]);
                match told {
                    Told::Number(number) => push_decimal(output, number),
                    Told::Endless => output.extend_from_slice(b"-1"),
                }
            }
        }
    }
}

/// Appends a key as clients write it.
pub(super) fn push_key(output: &mut Vec<u8>, key: Key<'_>, encoded: bool) {
    match encoded {
        true => base64::encode(output, &key),
        false => output.extend_from_slice(&key),
    }
}
