//! The lines of meta commands: what follows a command's name in, commands out. Pure, as `parse`.
//!
//! As in memcached any flag that some meta command knows may stand with each of them, and counts where it
//! means something.

use super::base64;
use super::command::{Arithmetic, Command, Direction, Key, Reply, Store, Terms, Verb};
use super::key::tokens;
use super::meta::{Flags, MetaDelete, MetaGet, MetaReply};
use super::number::{parse_body_len, parse_flags, parse_i64, parse_u64};
use super::refused::{BAD_FORMAT, Next, Refusal, refuse};

/// Most words of a line, its command and key included, as in memcached.
const WORDS_MAX: usize = 20;
/// Longest opaque in bytes, its letter included, as in memcached.
const OPAQUE_LEN_MAX: usize = 32;

const TOO_MANY: &str = "CLIENT_ERROR options flags are too long";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag";
const INVALID: &str = "CLIENT_ERROR invalid flag";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const BAD_KEY: &str = "CLIENT_ERROR error decoding key";
const BAD_MODE_LEN: &str = "CLIENT_ERROR incorrect length for M token";
const BAD_INITIAL: &str = "CLIENT_ERROR invalid numeric initial value";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta value";
const OPAQUE_TOO_LONG: &str = "CLIENT_ERROR opaque token too long";
const BAD_STORE_MODE: &str = "CLIENT_ERROR invalid mode for ms M token";
const BAD_CHANGE_MODE: &str = "CLIENT_ERROR invalid mode for ma M token";

/// Parses what follows `name`, which is one of the meta commands.
pub(super) fn parse_meta<'a>(name: &[u8], rest: &'a [u8]) -> Result<Command<'a>, Refusal> {
    let parsed = match name {
        b"mn" => Ok(Command::MetaNoOp),
        b"ms" => return parse_set(rest),
        b"mg" => parse_get(rest),
        b"md" => parse_delete(rest),
        b"ma" => parse_arithmetic(rest),
        _ => parse_debug(rest),
    };
    parsed.map_err(refuse)
}

fn parse_get(rest: &[u8]) -> Result<Command<'_>, &'static str> {
    let (key, options) = key_and_options(rest)?;
    Ok(Command::MetaGet(MetaGet {
        key,
        reply: options.reply,
        value: options.value,
        unnoticed: options.unnoticed,
        known: options.compare,
        touch: options.touch,
        vivify: options.vivify,
        new_cas: options.new_cas,
        recache: options.recache,
    }))
}

fn parse_delete(rest: &[u8]) -> Result<Command<'_>, &'static str> {
    let (key, options) = key_and_options(rest)?;
    Ok(Command::MetaDelete(MetaDelete {
        key,
        reply: options.reply,
        compare: options.compare,
        stale: options.stale,
        emptied: options.emptied,
        touch: options.touch,
        new_cas: options.new_cas,
    }))
}

fn parse_arithmetic(rest: &[u8]) -> Result<Command<'_>, &'static str> {
    let (key, options) = key_and_options(rest)?;
    let direction = match options.mode {
        None | Some(b'I' | b'+') => Direction::Up,
        Some(b'D' | b'-') => Direction::Down,
        Some(_) => return Err(BAD_CHANGE_MODE),
    };
    let (delta, initial) = (options.delta.unwrap_or(1), options.initial.unwrap_or(0));
    // As in memcached: no entry has the CAS value 0.
    let compare = options.compare.filter(|cas| *cas != 0);
    Ok(Command::Arithmetic(Arithmetic {
        key,
        direction,
        delta,
        vivify: options.vivify.map(|exptime| (exptime, initial)),
        touch: options.touch,
        terms: Terms { compare, new_cas: options.new_cas, ..Terms::default() },
        reply: Reply::Meta(options.reply),
    }))
}

/// `me`, of whose flags memcached looks at the first one only.
fn parse_debug(rest: &[u8]) -> Result<Command<'_>, &'static str> {
    let (word, rest) = split_word(rest);
    let key = Key::new(word).ok_or(BAD_FORMAT)?;
    let encoded = tokens(rest).next() == Some(b"b");
    if encoded && base64::decode(word).is_none() {
        return Err(BAD_FORMAT);
    }
    Ok(Command::MetaDebug { key, encoded })
}

/// The line of `ms`, behind which a value comes also if it is refused.
fn parse_set(rest: &[u8]) -> Result<Command<'_>, Refusal> {
    let (word, after_key) = split_word(rest);
    let (len, flags) = split_word(after_key);
    let Some(body_len) = parse_body_len(len) else {
        // Where no word has a digit, none was meant for a length: nothing follows.
        let has_digit = tokens(after_key).any(|word| word.iter().any(u8::is_ascii_digit));
        let next = if has_digit { Next::Unknown } else { Next::Command };
        return Err(Refusal { reply: BAD_FORMAT, silent: false, next });
    };
    // A flag begins with a letter. A number there is the length after a key with a space in it.
    let is_flag = |word: &[u8]| word.first().is_none_or(|byte| !byte.is_ascii_digit());
    let next = match tokens(flags).all(is_flag) {
        true => Next::Value(body_len),
        false => Next::Unknown,
    };
    let refused = |reply| Refusal { reply, silent: false, next };
    let key = Key::new(word).ok_or(refused(BAD_FORMAT))?;
    let options = parse_options(key, flags, 3).map_err(refused)?;
    let verb = match options.mode {
        None | Some(b'S') => Verb::Set,
        Some(b'E') => Verb::Add,
        Some(b'A') => Verb::Append,
        Some(b'P') => Verb::Prepend,
        Some(b'R') => Verb::Replace,
        Some(_) => return Err(refused(BAD_STORE_MODE)),
    };
    // As in memcached, which adds whatever the CAS value is.
    let compare = options.compare.filter(|_| verb != Verb::Add);
    let terms = Terms {
        compare,
        stale_if_lower: options.stale,
        new_cas: options.new_cas,
        vivify: options.vivify,
    };
    let (flags, exptime) = (options.client_flags.unwrap_or(0), options.touch.unwrap_or(0));
    let reply = Reply::Meta(options.reply);
    Ok(Command::Store(Store { verb, key, flags, exptime, body_len, terms, reply }))
}

/// What the flags of a line say.
struct Options<'a> {
    reply: MetaReply<'a>,
    value: bool,
    unnoticed: bool,
    stale: bool,
    emptied: bool,
    compare: Option<u64>,
    new_cas: Option<u64>,
    touch: Option<i64>,
    vivify: Option<i64>,
    recache: Option<i64>,
    client_flags: Option<u32>,
    mode: Option<u8>,
    initial: Option<u64>,
    delta: Option<u64>,
}

fn key_and_options(rest: &[u8]) -> Result<(Key<'_>, Options<'_>), &'static str> {
    let (word, flags) = split_word(rest);
    let key = Key::new(word).ok_or(BAD_FORMAT)?;
    Ok((key, parse_options(key, flags, 2)?))
}

/// Parses the flags of a line that has `before` words before them.
fn parse_options<'a>(
    key: Key<'_>,
    text: &'a [u8],
    before: usize,
) -> Result<Options<'a>, &'static str> {
    if tokens(text).take(WORDS_MAX).count() + before > WORDS_MAX {
        return Err(TOO_MANY);
    }
    let reply = MetaReply { flags: Flags::checked(text), quiet: false, encoded: false };
    let mut options = Options::none(reply);
    let (mut seen, mut wrong) = (0_u128, None);
    for word in tokens(text) {
        let Some((letter, value)) = word.split_first() else { continue };
        let bit = 1_u128.checked_shl(u32::from(*letter)).unwrap_or(0);
        if bit == 0 || seen & bit != 0 {
            return Err(DUPLICATE);
        }
        seen |= bit;
        // A wrong value is not told before all letters are known, and the last one counts, as in memcached.
        match options.take(*letter, value) {
            Err(INVALID) => return Err(INVALID),
            Err(other) => wrong = Some(other),
            Ok(()) => {}
        }
    }
    if options.reply.encoded && base64::decode(&key).is_none() {
        wrong = Some(BAD_KEY);
    }
    wrong.map_or(Ok(options), Err)
}

impl<'a> Options<'a> {
    fn none(reply: MetaReply<'a>) -> Options<'a> {
        Options {
            reply,
            value: false,
            unnoticed: false,
            stale: false,
            emptied: false,
            compare: None,
            new_cas: None,
            touch: None,
            vivify: None,
            recache: None,
            client_flags: None,
            mode: None,
            initial: None,
            delta: None,
        }
    }

    /// Takes one flag; [`INVALID`] for a letter that no command knows.
    fn take(&mut self, letter: u8, value: &[u8]) -> Result<(), &'static str> {
        match letter {
            b'c' | b'f' | b'h' | b'k' | b'l' | b's' | b't' => {}
            // Hints for proxies.
            b'P' | b'L' => {}
            b'O' if value.len() >= OPAQUE_LEN_MAX => return Err(OPAQUE_TOO_LONG),
            b'O' => {}
            b'b' => self.reply.encoded = true,
            b'q' => self.reply.quiet = true,
            b'v' => self.value = true,
            b'u' => self.unnoticed = true,
            b'I' => self.stale = true,
            b'x' => self.emptied = true,
            b'C' => self.compare = Some(parse_u64(value).ok_or(BAD_TOKEN)?),
            b'E' => self.new_cas = Some(parse_u64(value).ok_or(BAD_TOKEN)?),
            b'T' => self.touch = Some(parse_i64(value).ok_or(BAD_TOKEN)?),
            b'N' => self.vivify = Some(parse_i64(value).ok_or(BAD_TOKEN)?),
            b'R' => self.recache = Some(parse_i64(value).ok_or(BAD_TOKEN)?),
            b'F' => self.client_flags = Some(parse_flags(value).ok_or(BAD_FORMAT)?),
            b'J' => self.initial = Some(parse_u64(value).ok_or(BAD_INITIAL)?),
            b'D' => self.delta = Some(parse_u64(value).ok_or(BAD_DELTA)?),
            b'M' => match value {
                [mode] => self.mode = Some(*mode),
                _ => return Err(BAD_MODE_LEN),
            },
            _ => return Err(INVALID),
        }
        Ok(())
    }
}

/// The first word of `text`, empty if there is none, and what follows it.
fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    let start = text.iter().take_while(|byte| **byte == b' ').count();
    let text = &text[start..];
    let len = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    text.split_at(len)
}

#[cfg(test)]
#[path = "parse_meta_tests.rs"]
mod tests;
