//! The text protocol's command lines: bytes in, commands out. Pure: does no I/O, keeps no
//! state but how far a line was searched, allocates nothing.
//!
//! Bad lines get the errors of memcached 1.6.18, and as there the value after a refused storage
//! line is not skipped. On purpose different: control characters in keys and flags beyond 32 bits
//! are refused instead of misread; lengths beyond 31 bits are too large rather than malformed; a
//! line that never ends gets an error before the close.

use memchr::memchr;

use super::command::{Command, Direction, Key, Keys, Retrieval, Store, Verb, tokens};
use super::number::{parse_i64, parse_u64};

/// Longest line of any command but a retrieval, in bytes.
pub const LINE_LEN_MAX: usize = 8 << 10;
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
    /// A line to refuse with `reply`; the connection goes on after it.
    Refused {
        /// The answer's text; `None` where the client asked for no answer.
        reply: Option<&'static str>,
        /// Bytes to consume.
        line_len: usize,
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
            Parsed::Refused { reply: (!refusal.noreply).then_some(refusal.reply), line_len }
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

struct Refusal {
    reply: &'static str,
    noreply: bool,
}

fn refuse(reply: &'static str) -> Refusal {
    Refusal { reply, noreply: false }
}

fn refuse_unless(noreply: bool, reply: &'static str) -> Refusal {
    Refusal { reply, noreply }
}

const ERROR: &str = "ERROR";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
const BAD_DELETE: &str = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";

/// The words after a command's name. Those beyond `KEPT` are only counted: no command but a
/// retrieval takes more.
struct Words<'a> {
    words: [&'a [u8]; Words::KEPT],
    count: usize,
}

impl<'a> Words<'a> {
    const KEPT: usize = 6;

    fn split(text: &'a [u8]) -> Words<'a> {
        let mut split = Words { words: [b""; Words::KEPT], count: 0 };
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
        b"cas" => parse_store(Verb::Cas(0), rest),
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
        b"shutdown" => Err(refuse("ERROR: shutdown not enabled")),
        _ => Err(refuse(ERROR)),
    }
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
    let needed = if matches!(verb, Verb::Cas(_)) { 5 } else { 4 };
    let words = Words::split(rest);
    words.expect(needed, needed + 1)?;
    let noreply = words.noreply();
    let bad = || refuse_unless(noreply, BAD_FORMAT);
    let verb = match verb {
        Verb::Cas(_) => Verb::Cas(parse_u64(words.words[4]).ok_or_else(bad)?),
        other => other,
    };
    let flags = parse_u64(words.words[1]).and_then(|flags| u32::try_from(flags).ok());
    Ok(Command::Store(Store {
        verb,
        key: words.key()?,
        flags: flags.ok_or_else(bad)?,
        exptime: parse_i64(words.words[2]).ok_or_else(bad)?,
        body_len: parse_body_len(words.words[3]).ok_or_else(bad)?,
        noreply,
    }))
}

/// At most 2^63 - 1, so that adding the line end cannot overflow.
fn parse_body_len(word: &[u8]) -> Option<u64> {
    parse_i64(word).and_then(|len| u64::try_from(len).ok())
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
    Ok(Command::Arithmetic { key, direction, delta, noreply })
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

fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    &text[spaces..]
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
