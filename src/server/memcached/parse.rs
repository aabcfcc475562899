//! The text protocol's command lines: bytes in, commands out. Pure: does no I/O, keeps no
//! state but how far a line was searched, allocates nothing.
//!
//! Bad lines get the errors of memcached; what a refused line leaves behind it is never taken for
//! commands: a value whose length can be read is skipped, else the connection ends. `docs/memcached.md`
//! says where this is stricter than memcached.

use memchr::{memchr, memmem};

use super::command::{
    Arithmetic, Command, Direction, Key, Keys, Reply, Retrieval, Store, Terms, Verb,
};
use super::key::tokens;
use super::number::{parse_body_len, parse_flags, parse_i64, parse_u64};
use super::parse_meta::parse_meta;
pub use super::refused::Next;
use super::refused::{BAD_FORMAT, ERROR, Refusal, after, refuse, refuse_unless};

/// Longest line of any command but a retrieval, in bytes.
pub const LINE_LEN_MAX: usize = 2 << 10;
/// Longest line of a retrieval with its many keys, in bytes.
pub const RETRIEVAL_LEN_MAX: usize = 1 << 20;

/// What the bytes at hand begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Not a whole line yet.
    Incomplete,
    /// A command whose line, with its end, takes `line_len` bytes.
    Command {
        /// The command.
        command: Command<'a>,
        /// Bytes to consume.
        line_len: usize,
    },
    /// A line to refuse with `reply`.
    Refused {
        /// The answer's text; `None` where the client asked for no answer or would not read one.
        reply: Option<&'static str>,
        /// Bytes to consume.
        line_len: usize,
        /// What comes after them.
        next: Next,
    },
    /// The line is too long: answer with this text and close.
    TooLong(&'static str),
}

/// Parses the first line of `input`. `searched` is zero for a new line and is kept by the caller
/// while the line is incomplete, so that each byte is searched once.
#[must_use]
pub fn parse<'a>(input: &'a [u8], searched: &mut usize) -> Parsed<'a> {
    let start = (*searched).min(input.len());
    let Some(end) = memchr(b'\n', &input[start..]) else {
        *searched = input.len();
        return unfinished(input);
    };
    let end = start + end;
    if let too_long @ Parsed::TooLong(_) = unfinished(&input[..end]) {
        return too_long;
    }
    *searched = 0;
    let line_len = end + 1;
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    match parse_line(line) {
        Ok(command) => Parsed::Command { command, line_len },
        Err(refusal) => {
            let reply = (!refusal.silent).then_some(refusal.reply);
            Parsed::Refused { reply, line_len, next: refusal.next }
        }
    }
}

fn unfinished(line: &[u8]) -> Parsed<'_> {
    if line.len() <= LINE_LEN_MAX {
        return Parsed::Incomplete;
    }
    let verb = tokens(&line[..LINE_LEN_MAX]).next().unwrap_or_default();
    let retrieval = matches!(verb, b"get" | b"gets" | b"gat" | b"gats");
    if retrieval && line.len() <= RETRIEVAL_LEN_MAX {
        Parsed::Incomplete
    } else {
        Parsed::TooLong("CLIENT_ERROR line too long")
    }
}

const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
const BAD_DELETE: &str = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";

/// The words after a command's name. Those beyond `KEPT` are only counted: no command but a
/// retrieval takes more.
struct Words<'a> {
    text: &'a [u8],
    words: [&'a [u8]; Words::KEPT],
    count: usize,
}

impl<'a> Words<'a> {
    const KEPT: usize = 6;

    fn split(text: &'a [u8]) -> Words<'a> {
        let mut split = Words { text, words: [b""; Words::KEPT], count: 0 };
        for word in tokens(text).take(Words::KEPT + 1) {
            if let Some(kept) = split.words.get_mut(split.count) {
                *kept = word;
            }
            split.count += 1;
        }
        split
    }

    /// Refuses the line unless it has `min` to `max` words.
    fn expect(&self, min: usize, max: usize) -> Result<(), Refusal> {
        if (min..=max).contains(&self.count) { Ok(()) } else { Err(refuse(ERROR)) }
    }

    /// The length of the value after the line of a storage command that has `needed` words, or one
    /// more, `noreply`. With any other number of words the length may be another word than it seems, as
    /// when a key has a space in it; but the last word of `cas` may be missing, if no other can be: an
    /// empty one leaves two spaces.
    fn value_len(&self, needed: usize) -> Option<u64> {
        let has_gap = || self.text.trim_ascii_end().windows(2).any(|pair| pair == b"  ");
        let is_whole = self.count == needed
            || self.count == needed + 1 && self.noreply()
            || (4..needed).contains(&self.count) && !has_gap();
        parse_body_len(self.words[3]).filter(|_| is_whole)
    }

    fn noreply(&self) -> bool {
        self.count > 0 && self.words.get(self.count - 1) == Some(&b"noreply".as_slice())
    }

    fn key(&self) -> Result<Key<'a>, Refusal> {
        Key::new(self.words[0]).ok_or(refuse_unless(self.noreply(), BAD_FORMAT))
    }
}

fn parse_line(line: &[u8]) -> Result<Command<'_>, Refusal> {
    let line = skip_spaces(line);
    let name_len = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (name, rest) = line.split_at(name_len);
    match name {
        b"get" | b"bget" | b"gets" => parse_get(rest, name == b"gets"),
        b"gat" | b"gats" => parse_gat(rest, name == b"gats"),
        b"set" => parse_store(Verb::Set, rest),
        b"add" => parse_store(Verb::Add, rest),
        b"replace" => parse_store(Verb::Replace, rest),
        b"append" => parse_store(Verb::Append, rest),
        b"prepend" => parse_store(Verb::Prepend, rest),
        b"cas" => parse_storage(Verb::Set, true, rest),
        b"delete" => parse_delete(rest),
        b"incr" => parse_arithmetic(Direction::Up, rest),
        b"decr" => parse_arithmetic(Direction::Down, rest),
        b"touch" => parse_touch(rest),
        b"flush_all" => parse_flush_all(rest),
        b"stats" => Ok(Command::Stats(rest)),
        b"version" => Ok(Command::Version),
        b"verbosity" => parse_accepted(rest, BAD_FORMAT),
        b"cache_memlimit" => parse_accepted(rest, ERROR),
        b"quit" => Ok(Command::Quit),
        b"mg" | b"ms" | b"md" | b"ma" | b"me" | b"mn" => parse_meta(name, rest),
        b"slabs" => parse_slabs(rest),
        b"shutdown" => Err(refuse("ERROR: shutdown not enabled")),
        _ => Err(refuse_unknown(name, rest)),
    }
}

/// Refuses what is no command here. A value may follow it all the same: after a command in capitals,
/// or one of memcached's that is not served. After a line of HTTP anything may follow.
fn refuse_unknown(name: &[u8], rest: &[u8]) -> Refusal {
    if is_http(name, rest) {
        return Refusal { reply: ERROR, silent: true, next: Next::Unknown };
    }
    let words = Words::split(rest);
    let is = |verbs: &[&str]| verbs.iter().any(|verb| name.eq_ignore_ascii_case(verb.as_bytes()));
    let announced = if is(&["set", "add", "replace", "append", "prepend"]) {
        words.value_len(4)
    } else if is(&["cas"]) {
        words.value_len(5)
    } else if is(&["ms"]) {
        // A flag begins with a letter. A number there is the length after a key with a space in it.
        let is_flag = words.words[2].first().is_none_or(u8::is_ascii_alphabetic);
        parse_body_len(words.words[1]).filter(|_| is_flag)
    } else {
        return refuse(ERROR);
    };
    Refusal { reply: ERROR, silent: false, next: after(announced) }
}

/// True for the first line of an HTTP request: memcached goes by the version at its end; of the
/// requests without one those with a method in capitals and a path or address are known.
fn is_http(name: &[u8], rest: &[u8]) -> bool {
    let last = rest.rsplit(|byte| *byte == b' ').find(|word| !word.is_empty()).unwrap_or_default();
    let target = tokens(rest).next().unwrap_or_default();
    let is_target =
        target.starts_with(b"/") || target == b"*" || memmem::find(target, b"://").is_some();
    last.starts_with(b"HTTP/") || is_target && name.iter().all(u8::is_ascii_uppercase)
}

fn parse_get(rest: &[u8], with_cas: bool) -> Result<Command<'_>, Refusal> {
    if rest.iter().all(|byte| *byte == b' ') {
        return Err(refuse(ERROR));
    }
    let keys = Keys::new(rest).ok_or(refuse(BAD_FORMAT))?;
    Ok(Command::Get(Retrieval { keys, with_cas, touch: None }))
}

fn parse_gat(rest: &[u8], with_cas: bool) -> Result<Command<'_>, Refusal> {
    let rest = skip_spaces(rest);
    let exptime_len = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let (exptime, rest) = rest.split_at(exptime_len);
    if exptime.is_empty() {
        return Err(refuse(ERROR));
    }
    let exptime = parse_i64(exptime).ok_or(refuse(BAD_EXPTIME))?;
    let keys = Keys::new(rest).ok_or(refuse(BAD_FORMAT))?;
    Ok(Command::Get(Retrieval { keys, with_cas, touch: Some(exptime) }))
}

fn parse_store(verb: Verb, rest: &[u8]) -> Result<Command<'_>, Refusal> {
    parse_storage(verb, false, rest)
}

fn parse_storage(verb: Verb, compares: bool, rest: &[u8]) -> Result<Command<'_>, Refusal> {
    let needed = if compares { 5 } else { 4 };
    let words = Words::split(rest);
    let noreply = words.noreply();
    let announced = words.value_len(needed);
    let bad = || Refusal { reply: BAD_FORMAT, silent: noreply, next: after(announced) };
    let body_len = announced.filter(|_| words.count >= needed).ok_or_else(bad)?;
    let compare = match compares {
        true => Some(parse_u64(words.words[4]).ok_or_else(bad)?),
        false => None,
    };
    Ok(Command::Store(Store {
        verb,
        key: Key::new(words.words[0]).ok_or_else(bad)?,
        flags: parse_flags(words.words[1]).ok_or_else(bad)?,
        exptime: parse_i64(words.words[2]).ok_or_else(bad)?,
        body_len,
        terms: Terms { compare, ..Terms::default() },
        reply: Reply::Words { noreply },
    }))
}

fn parse_delete(rest: &[u8]) -> Result<Command<'_>, Refusal> {
    let words = Words::split(rest);
    words.expect(1, 3)?;
    let noreply = words.count > 1 && words.noreply();
    let hold_is_zero = words.words[1] == b"0";
    let valid = match words.count {
        1 => true,
        2 => hold_is_zero || noreply,
        _ => hold_is_zero && noreply,
    };
    if !valid {
        return Err(refuse_unless(noreply, BAD_DELETE));
    }
    let key = Key::new(words.words[0]).ok_or(refuse_unless(noreply, BAD_FORMAT))?;
    Ok(Command::Delete { key, noreply })
}

fn parse_arithmetic(direction: Direction, rest: &[u8]) -> Result<Command<'_>, Refusal> {
    let words = Words::split(rest);
    words.expect(2, 3)?;
    let key = words.key()?;
    let noreply = words.noreply();
    let delta = parse_u64(words.words[1]).ok_or(refuse_unless(noreply, BAD_DELTA))?;
    let (terms, reply) = (Terms::default(), Reply::Words { noreply });
    let (vivify, touch) = (None, None);
    Ok(Command::Arithmetic(Arithmetic { key, direction, delta, vivify, touch, terms, reply }))
}

fn parse_touch(rest: &[u8]) -> Result<Command<'_>, Refusal> {
    let words = Words::split(rest);
    words.expect(2, 3)?;
    let key = words.key()?;
    let noreply = words.noreply();
    let exptime = parse_i64(words.words[1]).ok_or(refuse_unless(noreply, BAD_EXPTIME))?;
    Ok(Command::Touch { key, exptime, noreply })
}

fn parse_flush_all(rest: &[u8]) -> Result<Command<'_>, Refusal> {
    let words = Words::split(rest);
    words.expect(0, 2)?;
    let noreply = words.noreply();
    let delay = if words.count == usize::from(noreply) {
        0
    } else {
        parse_i64(words.words[0]).ok_or(refuse_unless(noreply, BAD_EXPTIME))?
    };
    Ok(Command::FlushAll { delay, noreply })
}

fn parse_accepted<'a>(rest: &'a [u8], complaint: &'static str) -> Result<Command<'a>, Refusal> {
    let words = Words::split(rest);
    words.expect(1, 2)?;
    let noreply = words.noreply();
    match parse_u64(words.words[0]) {
        Some(_) => Ok(Command::Accepted { noreply }),
        None => Err(refuse_unless(noreply, complaint)),
    }
}

/// There are no slabs to move. What memcached takes as a mode is taken without effect.
fn parse_slabs(rest: &[u8]) -> Result<Command<'_>, Refusal> {
    let words = Words::split(rest);
    match (words.words[0], words.count) {
        (b"automove", 2..) => match parse_u64(words.words[1]) {
            Some(0..=2) => Ok(Command::Accepted { noreply: false }),
            Some(_) => Err(refuse(ERROR)),
            None => Err(refuse(BAD_FORMAT)),
        },
        (b"reassign", 3) => Err(refuse("CLIENT_ERROR slab reassignment disabled")),
        _ => Err(refuse(ERROR)),
    }
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    &text[spaces..]
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
