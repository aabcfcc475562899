//! memcached itself as the oracle of the meta commands. Goal: clients cannot tell the server from memcached 1.6.18, which
//! Debian 12 has. Method: random sequences of meta and classic commands, good and bad, go to both; the answers must
//! be the same bytes.
//!
//! Left out, because memcached 1.6.18 does not know it: `E`, `x`, `C` with `mg`, `s` and `N` with `ms`. Because the
//! two differ, as docs/memcached.md says: `append`, `prepend` and a longer number made of what is stale, or has a key in
//! base64; `N` together
//! with `b`, or with `q` of `ma`; `touch` before `h`; too many flags; commands alone. Not compared are CAS values, which
//! each server makes itself, seconds, and what `me` says. With `md` and `ma` 1.6.18 has one text for all wrong flags.

use std::collections::HashMap;
use std::path::Path;

use crate::memcached_oracle::{Memcached, Random, VALUE_LEN_MAX, marked_answer};
use crate::support::machine::require;
use crate::support::memcached::Client;
use crate::support::server::{TestServer, options};
use rawcached::server::Options;

const SEQUENCES: u64 = 150;
const COMMANDS: usize = 60;

/// Those that are marked as stale, and those that are changed by what they hold.
const MARKED: [&str; 2] = ["k1", "k2"];
const CHANGED: [&str; 2] = ["k3", "k4"];
/// Lives far from each other, so that a second more or less shows nowhere.
const LIVES: [&str; 3] = ["T0", "T1020", "T100020"];

/// Some of `flags` in random order.
fn some(random: &mut Random, flags: &[&str]) -> String {
    let mut left = flags.to_vec();
    let mut text = String::new();
    for _ in 0..random.below(flags.len().min(5) + 1) {
        text += " ";
        text += left.swap_remove(random.below(left.len()));
    }
    text
}

/// One request and its key; `{cas}` stands for the CAS value a server gave for it last.
fn request(random: &mut Random) -> (&'static str, String) {
    let (marked, changed) = (MARKED[random.below(2)], CHANGED[random.below(2)]);
    let key = if random.below(2) == 0 { marked } else { changed };
    let life = random.pick(&LIVES);
    let text = match random.below(20) {
        0..=3 => {
            let life = random.pick(&["", "", life]);
            let recache = random.pick(&["", "", "R500", "R2000", "R200000"]);
            let vivify = random.pick(&["", "", "N1020"]);
            let flags = [
                "s", "v", "t", "f", "c", "h", "l", "k", "q", "u", "Oab", "P1", life, recache,
                vivify,
            ];
            let flags: Vec<&str> = flags.into_iter().filter(|flag| !flag.is_empty()).collect();
            format!("mg {key}{}\r\n", some(random, &flags))
        }
        4 => format!("mg {}{}\r\n", encoded(key), some(random, &["s", "v", "k", "O1"]) + " b"),
        5 => format!("mg {key} T-1 v\r\n"),
        6..=8 => set(random, key),
        9 => {
            let flags = some(random, &["k", "c", "Oz", "T1020", "F3"]);
            let compare = random.pick(&["C1", "C{cas}", "C18446744073709551615"]);
            format!("ms {marked} 2 {compare} I{flags}\r\n33\r\n")
        }
        10 => {
            let mode = random.pick(&["MA", "MP"]);
            let flags = some(random, &["q", "k", "c", "Oz", "T1020", "F3", "C{cas}"]);
            return (changed, format!("ms {changed} 1 {mode}{flags}\r\n4\r\n"));
        }
        11 | 12 => {
            let compare = random.pick(&["C{cas}", "C1"]);
            let flags = some(random, &["q", "k", "Oz", compare]);
            format!("md {key}{flags}\r\n")
        }
        13 | 14 => {
            let flags = some(random, &["q", "k", "Oz", life, "C{cas}"]);
            return (marked, format!("md {marked} I{flags}\r\n"));
        }
        15 | 16 => {
            let mode = random.pick(&["MI", "MD", "M+", "M-"]);
            let delta = random.pick(&["D0", "D9", "D1000", "D18446744073709551615"]);
            let make = random.pick(&["q", "N1020", "N0"]);
            let flags = [
                "v",
                "t",
                "c",
                "k",
                "Oz",
                "J18446744073709551610",
                "C{cas}",
                "C0",
                mode,
                delta,
                make,
            ];
            return (changed, format!("ma {changed}{}\r\n", some(random, &flags)));
        }
        17 => classic(random, key),
        18 => format!("me {key}\r\nme none\r\n"),
        _ => malformed(random, key),
    };
    let key = if text.starts_with("ms") && text.contains(" I") { marked } else { key };
    (key, text)
}

fn encoded(key: &str) -> &'static str {
    match key {
        "k1" => "azE=",
        "k2" => "azI=",
        "k3" => "azM=",
        _ => "azQ=",
    }
}

fn set(random: &mut Random, key: &str) -> String {
    let number = random.below(1000).to_string();
    let value = match random.below(8) {
        0 => String::new(),
        1 => "v".repeat(random.below(40_000)),
        2 => format!(" {number}  "),
        3 => "line\r\nend".to_owned(),
        4 => u64::MAX.to_string(),
        5 if random.below(4) == 0 => "x".repeat(1_100_000),
        _ => number,
    };
    let mode = random.pick(&["MS", "ME", "MR"]);
    let life = random.pick(&["T0", "T1020", "T-1"]);
    let flags = some(random, &["q", "k", "c", "Oz", "F5", "F4294967295", "C{cas}", mode, life]);
    // Once only: a flag twice is an error.
    let flags = if flags.contains("F5") { flags.replace(" F4294967295", "") } else { flags };
    if MARKED.contains(&key) && random.below(4) == 0 {
        return format!("ms {} {} b{flags}\r\n{value}\r\n", encoded(key), value.len());
    }
    format!("ms {key} {}{flags}\r\n{value}\r\n", value.len())
}

fn classic(random: &mut Random, key: &str) -> String {
    match random.below(8) {
        0 => format!("set {key} 5 1020 2\r\n12\r\n"),
        1 => format!("cas {key} 0 0 2 {{cas}}\r\n13\r\n"),
        2 => format!("add {key} 0 0 1\r\n1\r\n"),
        3 => format!("replace {key} 0 0 1\r\n1\r\n"),
        4 => format!("delete {key}\r\n"),
        5 => format!("gat 1020 {key}\r\n"),
        6 => "flush_all\r\n".to_owned(),
        _ => format!("gets {key}\r\n"),
    }
}

fn malformed(random: &mut Random, key: &str) -> String {
    match random.below(14) {
        0 => format!("mg {key} s s\r\n"),
        1 => format!("mg {key} !\r\n"),
        2 => format!("mg {key} T\r\nmg {key} N1x\r\nmg {key} Rx v\r\n"),
        // memcached counts even the refused one as a read.
        3 => format!("mg none O{}\r\n", "o".repeat(31 + random.below(3))),
        4 => format!("mg {}\r\n", "k".repeat(251)),
        5 => format!("mg {key} b v\r\nmg !!!! b\r\n"),
        6 => format!("ms {key} abc\r\n"),
        7 => {
            format!("ms {key} 4 !\r\nmg x\r\nms {key} 4 MX k\r\nmg x\r\nms {key} 4 MAB\r\nmg x\r\n")
        }
        8 => format!(
            "ms {key} 4 T1 T1\r\nmg x\r\nms {key} 4 Fx\r\nmg x\r\nms {key} 4 Cx\r\nmg x\r\n"
        ),
        9 => format!("ms {key} 3\r\nabcdef\r\n"),
        10 => format!("md {key} q q\r\nmd {key} !\r\nma {key} Dx\r\nma {key} Cx\r\n"),
        11 => format!("ma {key} MX\r\nma {key} MII\r\n"),
        12 => format!("  mg   {key}   v  \r\nmn \r\nmn x\r\n"),
        _ => format!("mg {key} v\nms {key} 4 O{}\r\nmg x\r\n", "o".repeat(32)),
    }
}

/// One server's side of a sequence.
struct Side {
    client: Client,
    versions: HashMap<&'static str, String>,
}

impl Side {
    fn new(path: &Path) -> Side {
        let mut client = Client::connect(path);
        // Every CAS value from here on is more than 1.
        client.ask("set x 0 0 1\r\nx\r\nset x 0 0 1\r\nx\r\n", "STORED\r\nSTORED\r\n");
        client.ask("flush_all\r\n", "OK\r\n");
        Side { client, versions: HashMap::new() }
    }

    /// The answer to a request, as far as both servers must have the same.
    fn ask(&mut self, (key, request): (&'static str, &str)) -> String {
        let version = self.versions.get(key).map_or("7", String::as_str);
        let answer = marked_answer(&mut self.client, request.replace("{cas}", version));
        let wrong_flags = request.starts_with("md") || request.starts_with("ma");
        let plain = answer.split_inclusive("\r\n").map(|line| self.plain(line, (key, wrong_flags)));
        plain.collect()
    }

    fn plain(&mut self, line: &str, (key, wrong_flags): (&'static str, bool)) -> String {
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        match words[..] {
            ["VALUE", found, flags, len, version] => {
                self.versions.insert(key, version.to_owned());
                format!("VALUE {found} {flags} {len} CAS\r\n")
            }
            ["ME", found, ..] => format!("ME {found}\r\n"),
            ["HD" | "VA" | "NF" | "NS" | "EX" | "EN", ..] => {
                let words: Vec<String> =
                    words.iter().map(|word| self.plain_word(word, key)).collect();
                words.join(" ") + "\r\n"
            }
            ["CLIENT_ERROR", ..]
                if wrong_flags
                    && !line.contains("mode")
                    && !line.contains("opaque")
                    && !line.contains("numeric value") =>
            {
                "CLIENT_ERROR wrong flags\r\n".to_owned()
            }
            _ => line.to_owned(),
        }
    }

    fn plain_word(&mut self, word: &str, key: &'static str) -> String {
        let number = word.get(1..).and_then(|number| number.parse::<u64>().ok());
        match (word.chars().next(), number) {
            (Some('c'), Some(number @ 1..)) => {
                self.versions.insert(key, number.to_string());
                "cCAS".to_owned()
            }
            // The lives are no multiples of 50.
            (Some('t'), Some(secs)) => format!("t{}", secs / 50 * 50),
            (Some('l'), Some(_)) => "l".to_owned(),
            _ => word.to_owned(),
        }
    }
}

#[test]
fn answers_to_meta_commands_are_those_of_memcached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("oracle.sock");
    let Some(_memcached) = require(Memcached::start(&path)) else { return };
    let server = TestServer::with(Options { value_len_max: VALUE_LEN_MAX, ..options() });
    for seed in 1..=SEQUENCES {
        let mut random = Random::of(seed);
        let (mut ours, mut theirs) = (Side::new(&server.path), Side::new(&path));
        let mut before: Vec<String> = Vec::new();
        for step in 0..COMMANDS {
            let (key, request) = request(&mut random);
            let (ours, theirs) = (ours.ask((key, &request)), theirs.ask((key, &request)));
            before.push(request.chars().take(100).collect());
            let last = &before[before.len().saturating_sub(12)..];
            assert_eq!(ours, theirs, "seed {seed}, step {step}, requests {last:#?}");
        }
    }
}
