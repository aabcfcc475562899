//! Goal: the documents name nothing that is not there. Method: read them all; follow every link; have the
//! binary take every command line of theirs that begins with it, with `--help` at its end so that it does
//! nothing; find tests, files and settings that are named.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest line outside of examples, rows of tables too.
const LINE_LEN_MAX: usize = 130;

struct Document {
    path: PathBuf,
    text: String,
}

fn documents() -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "docs/measurements", "fuzz", "benches/foyer", "tests"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    let documents = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    documents.map(|path| Document { text: fs::read_to_string(&path).unwrap(), path }).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn has_anchor(text: &str, wanted: &str) -> bool {
    let headings = text.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    headings.map(anchor).any(|found| found == wanted)
}

/// Targets of links to other files and to headings.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(at, marker)| {
        let target = text[at + marker.len()..].split(')').next()?;
        (!target.contains("://")).then_some(target)
    })
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = 0;
    for document in documents() {
        for link in links(&document.text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.path.clone(),
                file => document.path.parent().unwrap().join(file),
            };
            let text = fs::read_to_string(&target);
            let text = text.unwrap_or_else(|_| panic!("{}: {link}", document.path.display()));
            let is_there = heading.is_empty() || has_anchor(&text, heading);
            assert!(is_there, "{}: no heading for {link}", document.path.display());
            found += 1;
        }
    }
    assert!(found > 40, "links are found: {found}");
}

/// Command lines of an example, those that go on behind a backslash joined.
fn command_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let examples = joined.lines().filter_map(|line| line.strip_prefix("    "));
    // Of a pipe the command that gets something.
    let commands = examples.map(|line| line.rsplit(" | ").next().unwrap_or(line).trim());
    let ours = commands.filter_map(|line| {
        let line = line.strip_prefix("./target/release/").unwrap_or(line);
        let rest = line.strip_prefix("rawcached ")?;
        // A command's name follows, not the words of a table.
        rest.starts_with(|c: char| c.is_ascii_lowercase()).then_some(rest)
    });
    let without_remark = |line: &str| {
        let end = line.find(" #").or(line.find(" &")).unwrap_or(line.len());
        line[..end].to_owned()
    };
    ours.map(without_remark).collect()
}

/// The words of a command; what stands in capitals for an address or a number is one.
fn filled_in(line: &str) -> Vec<&str> {
    let mut flag = "";
    let words = line.split_whitespace().map(|word| {
        let stands_for_another = word.chars().all(|c| c.is_ascii_uppercase());
        let filled = match (stands_for_another, flag) {
            (true, "--memcached" | "--http" | "--against" | "--metrics") => "unix:/socket",
            (true, "--rate" | "--pid" | "--against-pid") => "1",
            _ => word,
        };
        flag = word;
        filled
    });
    words.collect()
}

#[test]
fn every_command_is_one_that_the_binary_knows() {
    let mut found = 0;
    for document in documents() {
        for line in command_lines(&document.text) {
            let words = filled_in(&line);
            let ran =
                Command::new(env!("CARGO_BIN_EXE_rawcached")).args(&words).arg("--help").output();
            let ran = ran.unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{}: {line}: {said}", document.path.display());
            found += 1;
        }
    }
    assert!(found > 25, "commands are found: {found}");
}

#[test]
fn a_command_that_is_not_known_is_found() {
    for line in ["nonsense x", "serve --nonsense", "bench load --memcached x --nonsense 3"] {
        let words = line.split_whitespace();
        let ran = Command::new(env!("CARGO_BIN_EXE_rawcached")).args(words).arg("--help").output();
        assert!(!ran.unwrap().status.success(), "{line}");
    }
    let text =
        "Run\n\n    echo | ./target/release/rawcached put k \\\n        --ttl 1s  # remark\n";
    assert_eq!(command_lines(text), ["put k          --ttl 1s "]);
}

/// The lines of a document that are not code: not between fences, not indented behind an empty line.
fn lines_outside_of_code(text: &str) -> Vec<&str> {
    let (mut is_fenced, mut is_code, mut is_behind_empty) = (false, false, true);
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        is_code = line.starts_with("    ") && (is_code || is_behind_empty);
        is_behind_empty = line.is_empty();
        !is_fence && !is_fenced && !is_code
    });
    lines.collect()
}

/// Nobody can break an address that stands alone.
fn is_address_alone(line: &str) -> bool {
    line.contains("://") && line.split_whitespace().count() <= 2
}

#[test]
fn lines_are_short() {
    for document in documents() {
        for line in lines_outside_of_code(&document.text) {
            let is_short = line.chars().count() <= LINE_LEN_MAX || is_address_alone(line);
            assert!(is_short, "{}: {line}", document.path.display());
        }
    }
    let text = "a\n```\nfence\n```\n| b |\n    c\n\n    code\n    code\n- d\n";
    assert_eq!(lines_outside_of_code(text), ["a", "| b |", "    c", "", "- d"]);
}
