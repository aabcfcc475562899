//! Goal: the documents name nothing that is not there, and what they tell to type works. Method: read
//! them all; follow every link; have the binary take every command line (`parsed`) and run those that
//! can be run here (`run`); find the tests, files, metrics and messages that are named (`names`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

mod manual;
mod names;
mod parsed;
mod run;
#[path = "../support/mod.rs"]
mod support;

/// Longest line outside of examples, rows of tables too.
const LINE_LEN_MAX: usize = 130;

/// Most lines of README.md, which a newcomer reads to the end.
const README_LINES_MAX: usize = 100;

struct Document {
    path: PathBuf,
    /// From the root of the repository.
    name: String,
    text: String,
}

fn documents() -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "docs/measurements", "fuzz", "benches/foyer", "tests"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    let documents = paths.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let read = documents.map(|path| Document {
        text: fs::read_to_string(&path).unwrap(),
        name: path.strip_prefix(root).unwrap().display().to_string(),
        path,
    });
    read.collect()
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

/// Whether a line is an example.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Prose,
    /// The line above or below fenced code.
    Fence,
    /// Between fences, or indented behind an empty line.
    Code,
}

fn parts(text: &str) -> impl Iterator<Item = (Part, &str)> {
    let (mut is_fenced, mut is_code, mut is_behind_empty) = (false, false, true);
    text.lines().map(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        is_code = line.starts_with("    ") && (is_code || is_behind_empty);
        is_behind_empty = line.is_empty();
        let part = match is_fence {
            true => Part::Fence,
            false if is_fenced || is_code => Part::Code,
            false => Part::Prose,
        };
        (part, line)
    })
}

fn lines_outside_of_code(text: &str) -> Vec<&str> {
    parts(text).filter(|(part, _)| *part == Part::Prose).map(|(_, line)| line).collect()
}

/// The examples, each its lines. Empty lines end one.
fn examples(text: &str) -> Vec<Vec<&str>> {
    let mut examples = vec![Vec::new()];
    for (part, line) in parts(text) {
        match (part, line.trim().is_empty()) {
            (Part::Code, false) => examples.last_mut().unwrap().push(line),
            _ => examples.push(Vec::new()),
        }
    }
    examples.retain(|lines| !lines.is_empty());
    examples
}

/// A lone address cannot be broken into lines.
fn is_address_alone(line: &str) -> bool {
    line.contains("://") && line.split_whitespace().count() <= 2
}

#[test]
fn lines_are_short() {
    for document in documents() {
        for line in document.text.lines() {
            let is_short = line.chars().count() <= LINE_LEN_MAX || is_address_alone(line);
            assert!(is_short, "{}: {line}", document.path.display());
        }
    }
    let text = "a\n```\nfence\n```\n| b |\n    c\n\n    code\n    code\n- d\n";
    assert_eq!(lines_outside_of_code(text), ["a", "| b |", "    c", "", "- d"]);
}

#[test]
fn the_first_page_is_short() {
    let documents = documents();
    let readme = documents.iter().find(|document| document.name == "README.md").unwrap();
    let lines = readme.text.lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

/// The first page has it in fewer lines.
#[test]
fn the_recipe_on_the_first_page_is_the_one_that_is_tested() {
    let documents = documents();
    let recipe = |name: &str| {
        let document = documents.iter().find(|document| document.name == name).unwrap();
        let section = document.text.split("\n## nginx\n").nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
        let words = lines.flat_map(|line| line.split(" #").next().unwrap().split_whitespace());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let tested = recipe("docs/recipes.md");
    assert!(tested.len() > 50, "{tested:?}");
    assert_eq!(recipe("README.md"), tested);
}
