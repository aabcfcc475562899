//! Manual pages and completions: written by `examples/manual.rs` into a folder of the test, they name every
//! command, flag and setting, `man` has nothing to say against them, and shells complete with them.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Command as CommandLine;
use rawcached::config::KEYS;
use tempfile::TempDir;

use crate::support::machine::{Missing, require};

#[allow(dead_code, reason = "a program of its own, of which only the writing is wanted")]
#[path = "../../examples/manual.rs"]
mod generator;

pub(super) use generator::write_to;

fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_to(folder.path()).unwrap();
    folder
}

/// A page as it is read: without the signs that keep roff from taking text for requests.
fn page(folder: &Path, name: &str) -> String {
    let page = fs::read_to_string(folder.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
    page.replace("\\-", "-").replace("\\&", "").replace("\\fB", "").replace("\\fR", "")
}

/// Sees that a command and all below it have pages with all their flags; gives the number of flags.
fn look_at(command: &CommandLine, name: &str, folder: &Path) -> usize {
    let page = page(folder, &format!("{name}.1"));
    assert!(page.lines().any(|line| line == ".SH \"EXIT STATUS\""), "{page}");
    let flags: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    // Each explained; the synopsis has them too.
    let items: Vec<&str> = page.lines().filter(|line| line.starts_with('-')).collect();
    for flag in &flags {
        let is_of = |item: &&str| item.split([' ', ',']).any(|word| word == format!("--{flag}"));
        assert!(items.iter().any(is_of), "{name}: {flag} in {items:#?}");
    }
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    let numbers = below.map(|below| {
        assert!(page.contains(&format!("{name}-{}(1)", below.get_name())), "{name} names it");
        look_at(below, &format!("{name}-{}", below.get_name()), folder)
    });
    flags.len() + numbers.sum::<usize>()
}

#[test]
fn every_command_has_a_page_with_its_flags() {
    let folder = written();
    let mut command = rawcached::cli::command();
    command.build();
    let flags = look_at(&command, "rawcached", folder.path());
    assert!(flags > 80, "flags are found: {flags}");
    let page = page(folder.path(), "rawcached.1");
    for section in [".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", ".SH FILES", ".SH \"SEE ALSO\""] {
        assert!(page.lines().any(|line| line == section), "{section} in {page}");
    }
}

#[test]
fn the_page_of_the_configuration_has_every_setting_in_its_table() {
    let folder = written();
    let page = page(folder.path(), "rawcached.toml.5");
    let tables: Vec<&str> = page.split("\n.SH ").collect();
    let table = |name: &str| {
        let of_name =
            |table: &&&str| table.trim_start_matches('[').starts_with(&format!("{name}]"));
        tables.iter().find(of_name).unwrap_or_else(|| panic!("[{name}] in {tables:#?}"))
    };
    for key in &KEYS {
        let is_item = |line: &str| line.starts_with(&format!("{} = ", key.name));
        assert!(table(key.section).lines().any(is_item), "{}", key.path());
    }
    for name in ["upstream", "listen", "access_log_buffer"] {
        assert!(
            table("proxy").lines().any(|line| line.starts_with(&format!("{name} = "))),
            "{name}"
        );
    }
    assert!(!page.contains("\n#"), "comments are prose");
}

/// What a program that a shell or a reader uses says; an error is a failure of the test.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("MANROFFSEQ", "")
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8")
        .output();
    let output = require(output.map_err(|why| Missing(format!("{program}: {why}"))))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let is_well = output.status.success() && complaints.is_empty();
    assert!(is_well, "{program} {arguments:?}: {}: {complaints}", output.status);
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn man_shows_every_page_without_a_warning() {
    let folder = written();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|section| section == "1" || section == "5") {
            let arguments = ["--warnings", "--local-file", path.to_str().unwrap()];
            let Some(text) = said("man", &arguments) else { return };
            assert!(text.contains("SEE ALSO"), "{}: {text}", path.display());
        }
    }
}

#[test]
fn shells_complete_commands_and_flags() {
    let folder = written();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let bash = "source \"$0\"; for word in 'ins' 'inspect --reg'; do COMP_WORDS=(rawcached $word); \
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); \
        _rawcached rawcached \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; \
        echo \"${COMPREPLY[@]}\"; done";
    if let Some(completed) = said("bash", &["-c", bash, &path("rawcached.bash")]) {
        assert_eq!(completed, "inspect\n--region\n");
    }
    let fish =
        "source $argv[1]; complete -C 'rawcached ins'; complete -C 'rawcached inspect --reg'";
    if let Some(completed) = said("fish", &["--no-config", "-c", fish, &path("rawcached.fish")]) {
        let words: Vec<&str> =
            completed.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, ["inspect", "--region"]);
    }
    said("zsh", &["-n", &path("_rawcached")]);
}
