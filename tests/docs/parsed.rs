//! Every command line of the documents that begins with the binary's name is one that it takes: with `--help`
//! at its end it does nothing.

use std::process::Command;

use crate::support::binary;

use super::documents;

/// Command lines of an example, lines that end in a backslash joined.
fn command_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let examples = joined.lines().filter_map(|line| line.strip_prefix("    "));
    // The last command of a pipe.
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
            let ran = Command::new(binary::path()).args(&words).arg("--help").output();
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
        let ran = Command::new(binary::path()).args(words).arg("--help").output();
        assert!(!ran.unwrap().status.success(), "{line}");
    }
    let text =
        "Run\n\n    echo | ./target/release/rawcached put k \\\n        --ttl 1s  # remark\n";
    assert_eq!(command_lines(text), ["put k          --ttl 1s "]);
}
